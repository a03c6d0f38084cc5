//! What a load measured: counts, latencies, and how they are shown.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies are told apart up to here; slower ones count as this slow.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Commands of one kind.
#[derive(Clone, Debug)]
pub struct Tally {
    /// That did what they were asked.
    pub commands: u64,
    /// Their payload.
    pub bytes: u64,
    /// That failed.
    pub errors: u64,
    latencies: Histogram<u64>,
}

/// Everything that is counted while a load runs.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Reads.
    pub read: Tally,
    /// Writes.
    pub write: Tally,
    /// Flushes.
    pub flush: Tally,
    /// Commands that were sent again because a path failed.
    pub retries: u64,
    /// Blocks that were checked.
    pub verified_blocks: u64,
    /// Commands whose data was not what it should be.
    pub mismatches: u64,
}

/// A finished load.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was loaded.
    pub target: String,
    /// How.
    pub load: String,
    /// Seconds it took.
    pub seconds: f64,
    /// Reads.
    pub read: Figures,
    /// Writes.
    pub write: Figures,
    /// Flushes.
    pub flush: Figures,
    /// All commands a second.
    pub iops: f64,
    /// All bytes a second.
    pub bytes_per_second: f64,
    /// Processor time of this process for a command, in microseconds.
    pub cpu_us_per_command: f64,
    /// Commands that were sent again because a path failed.
    pub retries: u64,
    /// Commands that failed.
    pub errors: u64,
    /// Blocks that were checked, while it ran and after it.
    pub verified_blocks: u64,
    /// Commands whose data was not what it should be.
    pub mismatches: u64,
}

/// Commands of one kind, as they are shown.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// How many.
    pub commands: u64,
    /// Their payload.
    pub bytes: u64,
    /// How many a second.
    pub iops: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// How long they took.
    pub latency_us: Latencies,
}

/// How long commands took, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// On average.
    pub mean: f64,
    /// Half of them.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// 99.99 %.
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    /// The slowest.
    pub max: f64,
}

impl Default for Tally {
    fn default() -> Self {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        // 10 ns to 60 s by three digits: 200 KiB, and no allocation when recording.
        let latencies = Histogram::new_with_bounds(10, max, 3).expect("the bounds are in order");
        Self { commands: 0, bytes: 0, errors: 0, latencies }
    }
}

impl Tally {
    /// A command did what it was asked.
    pub fn record(&mut self, latency: Duration, bytes: u32) {
        self.commands += 1;
        self.bytes += u64::from(bytes);
        self.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    fn figures(&self, seconds: f64) -> Figures {
        Figures {
            commands: self.commands,
            bytes: self.bytes,
            iops: rate(self.commands, seconds),
            bytes_per_second: rate(self.bytes, seconds),
            latency_us: self.latencies(),
        }
    }

    fn latencies(&self) -> Latencies {
        let at = |quantile| to_f64(self.latencies.value_at_quantile(quantile)) / 1e3;
        Latencies {
            mean: if self.commands == 0 { 0.0 } else { self.latencies.mean() / 1e3 },
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: to_f64(self.latencies.max()) / 1e3,
        }
    }
}

impl Tallies {
    /// Commands that did what they were asked.
    #[must_use]
    pub const fn commands(&self) -> u64 {
        self.read.commands + self.write.commands + self.flush.commands
    }

    /// Their payload.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.read.bytes + self.write.bytes
    }

    /// Commands that failed.
    #[must_use]
    pub const fn errors(&self) -> u64 {
        self.read.errors + self.write.errors + self.flush.errors
    }
}

impl Report {
    /// What was counted in `took`, with `cpu` of our own processor time.
    #[must_use]
    pub fn new(
        target: String,
        load: String,
        tallies: &Tallies,
        took: Duration,
        cpu: Duration,
    ) -> Self {
        let seconds = took.as_secs_f64();
        let commands = tallies.commands();
        Self {
            target,
            load,
            seconds,
            read: tallies.read.figures(seconds),
            write: tallies.write.figures(seconds),
            flush: tallies.flush.figures(seconds),
            iops: rate(commands, seconds),
            bytes_per_second: rate(tallies.bytes(), seconds),
            cpu_us_per_command: rate(1, to_f64(commands)) * cpu.as_secs_f64() * 1e6,
            retries: tallies.retries,
            errors: tallies.errors(),
            verified_blocks: tallies.verified_blocks,
            mismatches: tallies.mismatches,
        }
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{} on {}\n\n", self.load, self.target);
        let head = ["", "IOPS", "bandwidth", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for (name, figures) in [("read", self.read), ("write", self.write), ("flush", self.flush)] {
            if figures.commands > 0 {
                rows.push(figures.row(name));
            }
        }
        text += &crate::table::render(&rows);
        let _ = writeln!(
            text,
            "\n{} commands in {:.1} s, {:.2} us of our CPU each",
            self.read.commands + self.write.commands + self.flush.commands,
            self.seconds,
            self.cpu_us_per_command,
        );
        if self.retries > 0 {
            let _ = writeln!(text, "{} commands were sent again after a path failed", self.retries);
        }
        if self.verified_blocks > 0 {
            let _ = writeln!(text, "{} blocks checked", self.verified_blocks);
        }
        if self.errors + self.mismatches > 0 {
            let _ = writeln!(text, "{} errors, {} mismatches", self.errors, self.mismatches);
        }
        text
    }
}

impl Figures {
    fn row(self, name: &str) -> Vec<String> {
        let Latencies { mean, p50, p90, p99, p99_9, p99_99, max } = self.latency_us;
        let mut row =
            vec![name.to_owned(), format!("{:.0}", self.iops), bandwidth(self.bytes_per_second)];
        row.extend([mean, p50, p90, p99, p99_9, p99_99, max].map(micros));
        row
    }
}

/// Bytes a second, by the unit that fits.
#[must_use]
pub fn bandwidth(bytes_per_second: f64) -> String {
    match bytes_per_second {
        b if b < 1.0 => "-".into(),
        b if b >= 1024.0 * 1024.0 * 1024.0 => format!("{:.2} GiB/s", b / 1024.0 / 1024.0 / 1024.0),
        b if b >= 1024.0 * 1024.0 => format!("{:.1} MiB/s", b / 1024.0 / 1024.0),
        b => format!("{:.1} KiB/s", b / 1024.0),
    }
}

fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        us if us >= 100.0 => format!("{us:.0} us"),
        us => format!("{us:.1} us"),
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { to_f64(count) / seconds } else { 0.0 }
}

/// Counts stay below 2^53 for longer than anybody waits.
#[expect(clippy::cast_precision_loss, reason = "figures for people have no 53 bits")]
const fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut tallies = Tallies::default();
        for millis in 1..=1000 {
            tallies.read.record(Duration::from_millis(millis), 4096);
        }
        tallies.flush.record(Duration::from_secs(3600), 0);
        tallies.verified_blocks = 5;
        let took = Duration::from_secs(2);
        Report::new("T".into(), "L".into(), &tallies, took, Duration::from_millis(1001))
    }

    #[test]
    fn figures_follow_from_counts() {
        let report = sample();
        assert!((report.read.iops - 500.0).abs() < 1e-9 && (report.iops - 500.5).abs() < 1e-9);
        assert!((report.read.latency_us.p99 / 990_000.0 - 1.0).abs() < 0.002);
        assert!((report.cpu_us_per_command - 1000.0).abs() < 1e-6);
        assert!(report.flush.latency_us.max < 60_100_000.0);
        assert!(report.write.latency_us.mean.abs() < 1e-9);
    }

    #[test]
    fn the_table_shows_what_there_was() {
        let table = sample().table();
        assert!(table.contains("read") && table.contains("flush") && !table.contains("write"));
        assert!(table.contains("2.0 MiB/s") && table.contains("5 blocks checked"), "{table}");
    }

    #[test]
    fn programs_read_it_as_json() {
        let json = serde_json::to_value(sample()).unwrap();
        assert_eq!(json["read"]["commands"], 1000);
        assert!(json["read"]["latency_us"]["p99.99"].as_f64().unwrap() > 999_000.0);
    }
}
