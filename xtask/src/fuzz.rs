//! `cargo xtask fuzz`: libFuzzer on the targets in `fuzz/`, each for a time.
//!
//! New inputs that reach new code are kept below the target folder; the corpus of the repository
//! is read, not written. Without value profile a magic of four bytes is not found.

use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What is added to the time of a target for its build and its end.
const SLACK: Duration = Duration::from_secs(15 * 60);

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The targets; all when none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 1)]
    minutes: u64,
}

/// What a target's run came to.
struct Run {
    executions: u64,
    finding: Option<String>,
}

/// Runs the subcommand.
pub(crate) fn main(options: &Options) -> Outcome<()> {
    if !workspace::root().join("fuzz/Cargo.toml").is_file() {
        return Err(Fault::new("there is no fuzz/Cargo.toml: nothing to fuzz"));
    }
    install()?;
    let targets = choose(&options.targets)?;
    let (mut executions, mut findings) = (0, Vec::new());
    for target in &targets {
        println!("== {target}, {} min", options.minutes);
        let run = run(target, Duration::from_secs(options.minutes * 60))?;
        println!("== {target}: {} inputs", run.executions);
        executions += run.executions;
        findings.extend(run.finding.map(|finding| format!("{target}: {finding}")));
    }
    findings.iter().for_each(|finding| println!("FOUND {finding}"));
    let count = findings.len();
    let targets = targets.len();
    println!("fuzz: {targets} targets, {executions} inputs, {count} findings");
    match count {
        0 => Ok(()),
        _ => Err(Fault::silent()),
    }
}

/// Installs cargo-fuzz unless it is there.
fn install() -> Outcome<()> {
    if process::read(&mut workspace::cargo(["fuzz", "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    process::run(&mut workspace::cargo(["install", "--locked", "cargo-fuzz", "--version", "^0.13"]))
}

fn choose(names: &[String]) -> Outcome<Vec<String>> {
    let listed = process::read(&mut workspace::cargo(["fuzz", "list"]))?;
    let all: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return Err(Fault::new(format!("no target {unknown}; there are: {}", all.join(", "))));
    }
    match names {
        [] => Ok(all),
        _ => Ok(names.to_vec()),
    }
}

fn run(target: &str, time: Duration) -> Outcome<Run> {
    let mut command = command(target, time)?;
    let mut run = Run { executions: 0, finding: None };
    let status = process::watch(&mut command, time + SLACK, |line| {
        if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            run.executions = number.trim().parse().unwrap_or(0);
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            let again = format!("cargo fuzz run -s none {target} {path}");
            run.finding = Some(format!("{path}; again with: {again}"));
        }
        if !is_noise(line) {
            println!("{line}");
        }
    })?;
    if !status.success() && run.finding.is_none() {
        run.finding = Some(format!("cargo fuzz ended with {status}"));
    }
    Ok(run)
}

fn command(target: &str, time: Duration) -> Outcome<Command> {
    let grown = workspace::folder(&format!("fuzz/{target}"))?;
    let kept = workspace::root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&grown).explain(|| format!("cannot create {}", grown.display()))?;
    let mut command = workspace::cargo(["fuzz", "run", "-s", "none", target]);
    command.arg(grown);
    if kept.is_dir() {
        command.arg(kept);
    }
    command.args(["--", "-use_value_profile=1", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={}", time.as_secs()));
    Ok(command)
}

/// libFuzzer's lines about single inputs and words.
fn is_noise(line: &str) -> bool {
    line.starts_with('"') || (line.starts_with('#') && !line.contains("pulse"))
}
