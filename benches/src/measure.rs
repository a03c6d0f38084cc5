//! Figures: slices of both sides in turn, medians and quartiles, CPU time of other processes.

use std::io;
use std::time::Duration;

/// Length of a slice.
pub(crate) const SLICE: Duration = Duration::from_millis(250);

/// Median and quartiles of one thing measured often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figure {
    /// A quarter of the slices is below.
    pub(crate) low: f64,
    /// Half of the slices is below.
    pub(crate) median: f64,
    /// A quarter of the slices is above.
    pub(crate) high: f64,
}

impl Figure {
    /// Of these slices; all zero if there are none.
    #[must_use]
    pub(crate) fn of(mut slices: Vec<f64>) -> Self {
        slices.sort_by(f64::total_cmp);
        let at = |part: usize| {
            let index = slices.len().saturating_sub(1) * part / 4;
            slices.get(index).copied().unwrap_or(0.0)
        };
        Self { low: at(1), median: at(2), high: at(3) }
    }

    /// Of each slice of one side by the slice of the other side beside it.
    #[must_use]
    pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Self {
        let pairs = ours.iter().zip(theirs).filter(|(_, b)| **b > 0.0);
        Self::of(pairs.map(|(a, b)| a / b).collect())
    }
}

/// One slice of load on a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slice {
    /// I/Os per second.
    pub(crate) iops: f64,
    /// Microseconds of the server's CPU time per I/O.
    pub(crate) cpu: f64,
}

impl Slice {
    /// From counts and times.
    #[must_use]
    pub(crate) fn new(done: u64, took: Duration, cpu: Duration) -> Self {
        let done = count(done);
        Self { iops: done / took.as_secs_f64(), cpu: cpu.as_secs_f64() * 1e6 / done.max(1.0) }
    }
}

/// One column of many slices.
#[must_use]
pub(crate) fn column(slices: &[Slice], of: impl Fn(&Slice) -> f64) -> Vec<f64> {
    slices.iter().map(of).collect()
}

/// A count as a figure; counts here are far below the 2^52 that fit.
#[must_use]
pub(crate) fn count(number: u64) -> f64 {
    u32::try_from(number).map_or_else(|_| number as f64, f64::from)
}

/// CPU time that all threads of a process used so far, as the scheduler counts it.
pub(crate) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ended meanwhile took its count along.
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_sorted_slices() {
        let figure = Figure::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(figure, Figure { low: 2.0, median: 3.0, high: 4.0 });
        assert_eq!(Figure::of(vec![]).median, 0.0);
        assert_eq!(Figure::ratio(&[1.0, 1.0], &[2.0, 0.0]).median, 0.5);
    }

    #[test]
    fn this_process_used_some_time_and_memory() {
        let pid = std::process::id();
        assert!(cpu_time(pid).expect("proc is there") > Duration::ZERO);
        assert!(resident(pid).expect("proc is there") > 1 << 20);
    }
}
