//! `cargo xtask test`: all that a change must pass, a step after the other, and one count.

use crate::fault::{Explain, Fault, Outcome};
use crate::tally::Tally;
use crate::{chaos, cluster, guest, process, workspace};
use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// A step that hangs is ended after this time; the whole takes less on two cores.
const STEP: Duration = Duration::from_secs(25 * 60);

/// How long real engines are tormented, and by which plan: the same one each time, so that what
/// differs is what was changed. Longer campaigns have seeds of their own.
const CHAOS_MINUTES: f64 = 1.0;
const CHAOS_SEED: u64 = 3;

/// What to leave out.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leaves out the guest: no emulated machine, no packages
    #[arg(long)]
    quick: bool,
}

/// One step, as the summary shows it.
struct Step {
    name: &'static str,
    tally: Tally,
    took: Duration,
}

/// Runs every step, whatever the ones before it found.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    let mut steps = vec![
        run("format", || status(workspace::cargo(["fmt", "--all", "--check"]))),
        run("clippy", || {
            status(workspace::cargo([
                "clippy",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))
        }),
        run("tests", || cargo_test(workspace::cargo(["test", "--workspace", "--no-fail-fast"]))),
    ];
    steps.push(run("cluster", || one(cluster::trial())));
    if rustix::process::geteuid().is_root() {
        steps.push(run("chaos", || one(chaos::run(CHAOS_MINUTES, CHAOS_SEED))));
        steps.push(run("scenarios", || one(chaos::scenarios(&[]))));
    } else {
        println!("== chaos is left out: it needs root");
    }
    if !options.quick {
        steps.push(run("guest", guest::all));
    }
    summarize(steps)
}

fn run(name: &'static str, work: impl FnOnce() -> Outcome<Tally>) -> Step {
    println!("== {name}");
    let began = Instant::now();
    let tally = work().unwrap_or_else(|fault| {
        let mut tally = Tally::default();
        tally.fail(name, &fault.to_string());
        tally
    });
    let step = Step { name, tally, took: began.elapsed() };
    println!("== {name}: {} in {:.0} s", step.tally, step.took.as_secs_f64());
    step
}

/// One thing that went well, or not.
fn one(done: Outcome<()>) -> Outcome<Tally> {
    done.map(|()| {
        let mut tally = Tally::default();
        tally.pass();
        tally
    })
}

fn summarize(steps: Vec<Step>) -> Outcome<()> {
    let mut all = Tally::default();
    println!("\n== summary");
    for step in steps {
        println!("{:<8} {:>5.0} s  {}", step.name, step.took.as_secs_f64(), step.tally);
        all.add(step.tally);
    }
    all.failures().iter().for_each(|failure| println!("FAILED {failure}"));
    println!("{all}");
    match all.failed() {
        0 => Ok(()),
        _ => Err(Fault::silent()),
    }
}

/// A program whose success is the one thing that counts.
fn status(mut command: Command) -> Outcome<Tally> {
    let status = process::watch(&mut command, STEP, |line| println!("{line}"))?;
    process::success(&command, status)?;
    let mut tally = Tally::default();
    tally.pass();
    Ok(tally)
}

/// Runs `cargo test`, shows what matters of its output, and counts its test cases.
fn cargo_test(mut command: Command) -> Outcome<Tally> {
    let path = workspace::folder("test")?.join("cargo-test.log");
    let mut log = File::create(&path).explain(|| format!("cannot write {}", path.display()))?;
    let mut tally = Tally::default();
    let mut lost = false;
    let status = process::watch(&mut command, STEP, |line| {
        lost |= writeln!(log, "{line}").is_err();
        if !is_noise(line) {
            println!("{line}");
        }
        match outcome(line) {
            Some(Counted::Failure(name)) => tally.fail(&name, "see its output above"),
            Some(Counted::Passed(number)) => tally.count(number),
            None => {}
        }
    })?;
    if lost {
        println!("{} is not whole", path.display());
    }
    if tally.failed() == 0 {
        process::success(&command, status)?;
    }
    Ok(tally)
}

/// What a line of `cargo test` adds to the count.
#[derive(Debug, PartialEq, Eq)]
enum Counted {
    Passed(u64),
    Failure(String),
}

fn outcome(line: &str) -> Option<Counted> {
    if let Some(rest) = line.strip_prefix("test result: ") {
        let passed = rest.split_once(". ")?.1.split_once(" passed")?.0;
        return passed.parse().ok().map(Counted::Passed);
    }
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(Counted::Failure(name.to_owned()))
}

/// Lines that say only that all is well.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || line.starts_with("running ")
        || (line.starts_with("test ") && (line.ends_with(" ok") || line.ends_with(" ignored")))
}

#[cfg(test)]
mod tests {
    use super::{Counted, is_noise, outcome};

    #[test]
    fn the_results_of_cargo_test_are_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(outcome(line), Some(Counted::Passed(12)));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(outcome(line), Some(Counted::Passed(3)));
        let name = "write::tests::a_write_is_there".to_owned();
        assert_eq!(outcome(&format!("test {name} ... FAILED")), Some(Counted::Failure(name)));
        assert_eq!(outcome("test one ... ok"), None);
    }

    #[test]
    fn only_good_news_is_noise() {
        assert!(is_noise("test one ... ok"));
        assert!(!is_noise("test one ... FAILED"));
        assert!(!is_noise("warning: unused"));
    }
}
