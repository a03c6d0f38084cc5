//! fio as the other side of what is measured at a disk.

use std::io;
use std::time::Duration;

use crate::load::Way;
use crate::machine::{Setup, pinned};
use crate::measure::Slice;
use crate::wire::bad;

/// What fio does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// Reads or writes of 4 KiB.
    pub(crate) way: Way,
    /// Anywhere, or one after the other.
    pub(crate) random: bool,
    /// In flight.
    pub(crate) depth: u16,
    /// Writes between two calls of fdatasync; 0: none.
    pub(crate) flush_every: u32,
    /// First byte of the file, and how many; 0: all.
    pub(crate) range: (u64, u64),
    /// For how long.
    pub(crate) time: Duration,
}

impl Job {
    const fn mode(&self) -> &'static str {
        match (self.way, self.random) {
            (Way::Read, true) => "randread",
            (Way::Read, false) => "read",
            (Way::Write, true) => "randwrite",
            (Way::Write, false) => "write",
        }
    }
}

/// A slice by fio, on the CPU of what serves.
pub(crate) fn slice(setup: &Setup, name: &str, job: &Job) -> io::Result<Slice> {
    let mut command = pinned(setup);
    command
        .args(["fio", "--name=slice", "--ioengine=io_uring", "--direct=1", "--bs=4k"])
        .args(["--fixedbufs=1", "--registerfiles=1", "--time_based", "--output-format=json"])
        .args(["--thread", "--norandommap", "--randrepeat=0", "--fallocate=none"])
        .arg(format!("--filename={name}"))
        .arg(format!("--rw={}", job.mode()))
        .arg(format!("--iodepth={}", job.depth))
        .arg(format!("--runtime={}ms", job.time.as_millis()));
    if job.range.1 > 0 {
        command.arg(format!("--offset={}", job.range.0)).arg(format!("--size={}", job.range.1));
    }
    if job.flush_every > 0 {
        command.arg(format!("--fdatasync={}", job.flush_every));
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let start = text.find('{').ok_or_else(|| bad(said(&output.stderr)))?;
    let whole: serde_json::Value = serde_json::from_str(&text[start..])?;
    let found = &whole["jobs"][0];
    let side = &found[job.way.name()];
    let done = side["total_ios"].as_u64().unwrap_or(0);
    let took = Duration::from_millis(side["runtime"].as_u64().unwrap_or(0));
    if done == 0 || took.is_zero() {
        return Err(bad(said(&output.stderr)));
    }
    let share = [&found["usr_cpu"], &found["sys_cpu"]].map(|share| share.as_f64().unwrap_or(0.0));
    Ok(Slice::new(done, took, took.mul_f64((share[0] + share[1]) / 100.0)))
}

fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    format!("fio: {}", text.trim().lines().last().unwrap_or("no result"))
}
