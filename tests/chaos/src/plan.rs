//! What goes wrong, and when: drawn from the seed before anything begins.
//!
//! Faults come in waves, two at once at most; between waves it is quiet for a while, so that
//! redundancy comes back and the next wave finds something to break.

use std::time::Duration;

use braid_sim::Random;

use crate::net::ENGINES;

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The one that serves the volume then.
    Server,
    /// The one with this number.
    Number(usize),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An engine's process is killed with SIGKILL.
    Kill(Who),
    /// The same, and it comes back with another boot id: what it had not flushed may be gone.
    Reboot(Who),
    /// All engines are killed at once.
    KillAll,
    /// An engine ends in order.
    End(Who),
    /// An engine is stopped where it is (SIGSTOP), and goes on.
    Pause(Who),
    /// The control plane, with its store, is killed.
    KillControl,
    /// It is stopped where it is.
    PauseControl,
    /// Nobody reaches an engine, nor it anybody.
    Isolate(Who),
    /// An engine and the next one do not reach each other.
    Split(Who),
    /// An engine hears nothing of anybody.
    Deaf(Who),
    /// Nobody hears an engine.
    Mute(Who),
    /// An engine and the control plane do not reach each other.
    NoControl(Who),
    /// An engine and the hosts do not reach each other.
    NoHosts(Who),
    /// What the next engine says does not reach an engine.
    OneWay(Who),
    /// An engine loses packets of what comes to it.
    Loss(Who, u8),
    /// The hosts lose packets of what comes to them.
    HostLoss(u8),
    /// New connections of hosts to an engine are slow; those there were are reset.
    SlowHosts(Who, u64),
    /// The same between an engine and the next one.
    SlowMembers(Who, u64),
    /// Connections of hosts to an engine are reset again and again.
    ResetHosts(Who),
    /// The same between an engine and the next one.
    ResetMembers(Who),
    /// An engine's disk does not answer.
    DiskStall(Who),
    /// It takes longer.
    DiskSlow(Who),
    /// It fails: writes, flushes or reads.
    DiskError(Who, &'static str),
    /// It has no space.
    DiskFull(Who),
    /// No fault: an operator has another engine serve.
    HandOver,
    /// No fault: an operator takes a snapshot, or lets it go again.
    Snapshot,
    /// No fault: an operator makes the volume larger.
    Grow,
}

impl Fault {
    /// What the report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9 of an engine",
            Self::Reboot(_) => "start of an engine's machine",
            Self::KillAll => "kill -9 of all engines",
            Self::End(_) => "orderly end of an engine",
            Self::Pause(_) => "SIGSTOP of an engine",
            Self::KillControl => "kill -9 of the control plane",
            Self::PauseControl => "SIGSTOP of the control plane",
            Self::Isolate(_) => "partition: an engine from all",
            Self::Split(_) => "partition: two engines",
            Self::Deaf(_) => "one way: an engine hears nobody",
            Self::Mute(_) => "one way: nobody hears an engine",
            Self::NoControl(_) => "partition: an engine from control",
            Self::NoHosts(_) => "partition: an engine from hosts",
            Self::OneWay(_) => "one way: between two engines",
            Self::Loss(..) => "packet loss at an engine",
            Self::HostLoss(_) => "packet loss at the hosts",
            Self::SlowHosts(..) => "delay: hosts to an engine",
            Self::SlowMembers(..) => "delay: between two engines",
            Self::ResetHosts(_) => "resets: hosts to an engine",
            Self::ResetMembers(_) => "resets: between two engines",
            Self::DiskStall(_) => "disk stall",
            Self::DiskSlow(_) => "slow disk",
            Self::DiskError(..) => "disk error",
            Self::DiskFull(_) => "full disk",
            Self::Snapshot => "snapshot by an operator",
            Self::Grow => "a larger volume by an operator",
            Self::HandOver => "hand-over by an operator",
        }
    }
}

/// A fault, when it begins and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

fn millis(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_millis(random.within(low, high))
}

/// All faults of a campaign.
pub(crate) fn plan(seed: u64, time: Duration) -> Vec<Episode> {
    let mut random = Random::part(seed, 1);
    let mut episodes = Vec::new();
    // The hosts have just begun.
    let mut at = millis(&mut random, 500, 1500);
    while at < time {
        let wave = at + millis(&mut random, 8_000, 20_000);
        // Of two lines one may be busy while the other begins something.
        let mut free = [at, at + millis(&mut random, 500, 6_000)];
        while let Some(line) = (0..2).min_by_key(|line| free[*line])
            && free[line] < wave.min(time)
        {
            let (fault, lasts) = draw(&mut random);
            let lasts = lasts.min(time.saturating_sub(free[line]));
            episodes.push(Episode { at: free[line], lasts, fault });
            free[line] += lasts + millis(&mut random, 300, 5_000);
        }
        at = wave.max(free[0]).max(free[1]) + millis(&mut random, 2_000, 7_000);
    }
    episodes.sort_by_key(|episode| episode.at);
    episodes
}

/// A fault, and how long it lasts.
fn draw(random: &mut Random) -> (Fault, Duration) {
    let who = match random.once_in(2) {
        true => Who::Server,
        false => Who::Number(random.index(ENGINES)),
    };
    let percent = u8::try_from(random.within(3, 30)).unwrap_or(3);
    let delay = random.within(3, 80);
    let error = *random.pick(&["write,error", "flush,error", "read,error"]);
    let faults = [
        (10, Fault::Kill(who), (200, 6_000)),
        (3, Fault::Reboot(who), (500, 5_000)),
        (1, Fault::KillAll, (300, 3_000)),
        (2, Fault::End(who), (500, 4_000)),
        (8, Fault::Pause(who), (300, 7_000)),
        (4, Fault::KillControl, (300, 5_000)),
        (2, Fault::PauseControl, (300, 5_000)),
        (5, Fault::Isolate(who), (500, 8_000)),
        (4, Fault::Split(who), (500, 8_000)),
        (3, Fault::Deaf(who), (500, 8_000)),
        (3, Fault::Mute(who), (500, 8_000)),
        (3, Fault::NoControl(who), (500, 8_000)),
        (3, Fault::NoHosts(who), (500, 8_000)),
        (3, Fault::OneWay(who), (500, 8_000)),
        (3, Fault::Loss(who, percent), (2_000, 8_000)),
        (2, Fault::HostLoss(percent), (2_000, 8_000)),
        (3, Fault::SlowHosts(who, delay), (2_000, 8_000)),
        (3, Fault::SlowMembers(who, delay), (2_000, 8_000)),
        (3, Fault::ResetHosts(who), (2_000, 8_000)),
        (3, Fault::ResetMembers(who), (2_000, 8_000)),
        (4, Fault::DiskStall(who), (500, 6_000)),
        (2, Fault::DiskSlow(who), (1_000, 6_000)),
        (4, Fault::DiskError(who, error), (1_000, 5_000)),
        (3, Fault::DiskFull(who), (1_000, 5_000)),
        (2, Fault::HandOver, (1_000, 3_000)),
        (4, Fault::Snapshot, (500, 3_000)),
        (2, Fault::Grow, (500, 3_000)),
    ];
    let weights = faults.map(|(weight, ..)| weight);
    let (_, fault, (low, high)) = faults[random.weighted(&weights)];
    (fault, millis(random, low, high))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(plan(7, HOUR), plan(7, HOUR));
        assert_ne!(plan(7, HOUR), plan(8, HOUR));
    }

    #[test]
    fn two_faults_at_once_at_most_and_all_end_in_time() {
        for seed in 0..20 {
            let plan = plan(seed, HOUR);
            for (number, episode) in plan.iter().enumerate() {
                let open = |other: &&Episode| other.at + other.lasts > episode.at;
                assert!(plan[..number].iter().filter(open).count() <= 1, "{seed}: {episode:?}");
                assert!(episode.at + episode.lasts <= HOUR);
            }
        }
    }

    #[test]
    fn an_hour_has_every_kind_of_fault_and_quiet_times() {
        for seed in 0..20 {
            let plan = plan(seed, HOUR);
            let names: BTreeSet<&str> = plan.iter().map(|episode| episode.fault.name()).collect();
            assert_eq!(names.len(), 27, "{seed}: {names:?}");
            let mut over = Duration::ZERO;
            let mut quiet = 0;
            for episode in &plan {
                quiet += u32::from(episode.at > over + Duration::from_secs(2));
                over = over.max(episode.at + episode.lasts);
            }
            assert!(quiet > 60, "{seed}: {quiet}");
        }
    }
}
