//! What a campaign came to, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::host::Seen;
use crate::nemesis::Deed;

/// A stall is counted to a fault that began before it ended, and was over at most so long before
/// it began: detection, fencing and the lease come after.
const AFTERMATH: Duration = Duration::from_secs(6);

/// What a campaign came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) lasted: Duration,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) hosts: Seen,
    /// Of the volume, at the end.
    pub(crate) epoch: u64,
    pub(crate) resync: Resync,
    /// Until all was redundant again after the last fault.
    pub(crate) converged: Option<Duration>,
}

/// What the engines say in their logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resync {
    /// Times that a volume was served by another owner.
    pub(crate) servings: u64,
    /// Of these, with a loss that was possible.
    pub(crate) lossy: u64,
    /// Replicas that were excluded, and that came back.
    pub(crate) excluded: u64,
    pub(crate) returned: u64,
    /// Regions that were compared because a replica came back.
    pub(crate) regions: u64,
    /// Regions that were compared after a take-over, and what of them differed.
    pub(crate) suspect: u64,
    pub(crate) copied: u64,
}

impl Resync {
    /// Adds what a log says.
    pub(crate) fn read(&mut self, log: &str) {
        for line in log.lines() {
            let line = line.split(" volume=").next().unwrap_or_default();
            let number = |key: &str| number_after(line, key).unwrap_or(0);
            if line.contains("serving in epoch ") {
                self.servings += 1;
                self.lossy += u64::from(line.contains("may be lost"));
            } else if let Some(gone) = line.strip_suffix(" is away") {
                // Named one after the other, by their identities.
                self.excluded += 1 + gone.matches(", ").count() as u64;
            } else if line.contains("returns: it is a member") {
                self.returned += 1;
            } else if line.contains("returns: ") && line.ends_with(" MiB are compared") {
                self.regions += number("returns: ");
            } else if line.contains(" is equal, ") {
                self.suspect += 1;
                self.copied += number(" is equal, ");
            }
        }
    }
}

/// The number that follows a word.
fn number_after(line: &str, key: &str) -> Option<u64> {
    let rest = &line[line.find(key)? + key.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

impl Report {
    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(text, "\n{:<34} {:>6}  {:>13}", "fault", "times", "longest stall");
        for (name, (times, stall)) in self.faults() {
            let _ = writeln!(text, "{name:<34} {times:>6}  {:>11.2} s", stall.as_secs_f64());
        }
        let hosts = &self.hosts;
        let [reads, writes, zeroes, flushes] = hosts.done;
        let all: u64 = hosts.done.iter().sum();
        let stall = hosts.stalls.iter().map(|(_, stall)| *stall).max().unwrap_or_default();
        let resync = self.resync;
        let converged = self.converged.map_or_else(
            || "no".to_owned(),
            |time| format!("{:.1} s after the last fault", time.as_secs_f64()),
        );
        let rows = [
            ("seed", self.seed.to_string()),
            ("time", format!("{:.0} s", self.lasted.as_secs_f64())),
            ("faults", self.deeds.len().to_string()),
            (
                "operations",
                format!(
                    "{all}: {reads} reads, {writes} writes, {zeroes} zeroings, {flushes} flushes"
                ),
            ),
            ("failed for good", hosts.failed.to_string()),
            ("sent again", hosts.retries.to_string()),
            ("longest operation", format!("{:.2} s", hosts.longest.as_secs_f64())),
            ("longest stall of all clients", format!("{:.2} s", stall.as_secs_f64())),
            ("hosts went to another path", format!("{} times", hosts.switches)),
            (
                "fail-overs",
                format!(
                    "{} owners served, of them {} lossy; epoch {}",
                    resync.servings, resync.lossy, self.epoch
                ),
            ),
            (
                "replicas excluded, returned",
                format!(
                    "{}, {}; {} regions compared for it",
                    resync.excluded, resync.returned, resync.regions
                ),
            ),
            (
                "resynced after take-overs",
                format!("{} regions, {} bytes differed", resync.suspect, resync.copied),
            ),
            ("full redundancy", converged),
        ];
        text.push('\n');
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<34} {value}");
        }
        if let Some(failure) = &hosts.failure {
            let _ = writeln!(text, "{:<34} {failure}", "the last failure");
        }
        text
    }

    /// Each kind of fault: how often, and the longest stall with it.
    fn faults(&self) -> BTreeMap<&'static str, (u64, Duration)> {
        let mut faults: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
        for deed in &self.deeds {
            let stalls = self.hosts.stalls.iter().filter(|(began, lasted)| {
                *began <= deed.to + AFTERMATH && *began + *lasted >= deed.from
            });
            let longest = stalls.map(|(_, lasted)| *lasted).max().unwrap_or_default();
            let entry = faults.entry(deed.name).or_default();
            *entry = (entry.0 + 1, entry.1.max(longest));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_log_is_counted() {
        let mut resync = Resync::default();
        resync.read(
            "INFO serving in epoch 3 with 3 members, 2 MiB to be compared volume=v\n\
             DEBUG region 9 is equal, 8192 bytes were copied volume=v\n\
             INFO a, c is away volume=v\n\
             INFO c returns: 4 MiB are compared volume=v\n\
             INFO c returns: it is a member volume=v\n\
             INFO serving in epoch 4 with 3 members, 0 MiB to be compared; what was not flushed \
             may be lost volume=v\n",
        );
        let expected = Resync {
            servings: 2,
            lossy: 1,
            excluded: 2,
            returned: 1,
            regions: 4,
            suspect: 1,
            copied: 8192,
        };
        assert_eq!(resync, expected);
    }

    #[test]
    fn a_stall_counts_to_the_faults_around_it() {
        let seconds = Duration::from_secs;
        let deed = |name, from, to| Deed { name, from: seconds(from), to: seconds(to) };
        let report = Report {
            deeds: vec![deed("kill", 10, 12), deed("pause", 30, 31), deed("kill", 60, 61)],
            hosts: Seen { stalls: vec![(seconds(11), seconds(3))], ..Seen::default() },
            ..Report::default()
        };
        let faults = report.faults();
        assert_eq!(faults["kill"], (2, seconds(3)));
        assert_eq!(faults["pause"], (1, Duration::ZERO));
        assert!(
            report.table().contains("kill                                    2         3.00 s")
        );
    }
}
