//! The campaigns' options and reports. What they mean is told by `cargo xtask powercut --help`.

mod simulate;

use std::str::FromStr;
use std::time::Instant;

use braid_pool::{Plant, Pool};
use braid_sim::powercut::{self, Options, Report};
use braid_sim::{Seen, Story, corrupt};

/// Runs what the arguments say; whether nothing was found that should not be.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let campaign = arguments.next().ok_or("which campaign? powercut, corrupt or sim")?;
    match campaign.as_str() {
        "powercut" => Ok(power_cut(&Given::parse(arguments)?)),
        "corrupt" => Ok(corrupt(&Given::parse(arguments)?)),
        "sim" => simulate::run(arguments),
        other => Err(format!("no campaign {other}: there are powercut, corrupt and sim")),
    }
}

/// What was given on the command line.
struct Given {
    number: u64,
    first: u64,
    only: Option<(u64, Option<u64>)>,
    log: bool,
    plant: Option<(String, Plant)>,
}

impl Given {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut given = Self { number: 20_000, first: 1, only: None, log: false, plant: None };
        while let Some(option) = arguments.next() {
            if option == "--log" {
                given.log = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--states" | "--cases" => given.number = number(&value)?,
                "--first" => given.first = number(&value)?,
                "--cut" => given.only = Some(place(&value)?),
                "--plant" => given.plant = Some((value.clone(), plant(&value)?)),
                _ => return Err(format!("no option {option}")),
            }
        }
        Ok(given)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn place(text: &str) -> Result<(u64, Option<u64>), String> {
    match text.split_once('.') {
        Some((moment, fork)) => Ok((number(moment)?, Some(number(fork)?))),
        None => Ok((number(text)?, None)),
    }
}

const PLANTS: [(&str, Plant); 6] = [
    ("skip-flush", Plant::SkipFlush),
    ("tear-record", Plant::TearRecord),
    ("reuse-early", Plant::ReuseEarly),
    ("settle-early", Plant::SettleEarly),
    ("no-lock", Plant::NoLock),
    ("ignore-open-region", Plant::IgnoreOpenRegion),
];

fn plant(name: &str) -> Result<Plant, String> {
    let found = PLANTS.iter().find(|(known, _)| *known == name);
    found.map(|(_, plant)| *plant).ok_or_else(|| {
        let names: Vec<&str> = PLANTS.iter().map(|(name, _)| *name).collect();
        format!("no bug {name} can be planted; there are {}", names.join(", "))
    })
}

fn power_cut(given: &Given) -> bool {
    let options = Options {
        states: given.number,
        first: given.first,
        // A story is that of one seed: without a place, of all of it and no cut.
        only: given.only.or(given.log.then_some((u64::MAX, None))),
        story: if given.log { Story::Aloud } else { Story::Silent },
        plant: given.plant.as_ref().map(|(_, plant)| *plant),
        garbage: true,
    };
    let began = Instant::now();
    let report = powercut::campaign::<Pool>(&options);
    let seconds = began.elapsed().as_secs_f64();
    println!("seen: {}", report.seen);
    if let Some((name, _)) = &given.plant {
        return planted(name, &report, seconds);
    }
    let missing = missing(&report.seen, &powercut::WANTED, report.states >= 20_000);
    if let Some(finding) = &report.finding {
        println!("FOUND {finding}");
        let (seed, place) = (finding.seed, finding.place());
        println!("again with: cargo xtask powercut --first {seed} --cut {place} --log");
    }
    let findings = u32::from(report.finding.is_some());
    let Report { states, runs, .. } = report;
    println!("powercut: {states} states of {runs} seeds in {seconds:.0} s, {findings} findings");
    findings == 0 && !missing
}

fn corrupt(given: &Given) -> bool {
    let options = corrupt::Options {
        cases: given.number,
        first: given.first,
        only: given.only.map(|(case, _)| case),
        story: if given.log { Story::Aloud } else { Story::Silent },
    };
    let began = Instant::now();
    let report = corrupt::campaign::<Pool>(&options);
    let seconds = began.elapsed().as_secs_f64();
    println!("seen: {}", report.seen);
    if let Some(finding) = &report.finding {
        println!("FOUND {finding}");
        let corrupt::Finding { seed, case, .. } = finding;
        println!("again with: cargo xtask corrupt --first {seed} --cut {case} --log");
    }
    let findings = u32::from(report.finding.is_some());
    let corrupt::Report { cases, runs, .. } = report;
    let missing = missing(&report.seen, &corrupt::WANTED, cases >= 5000);
    println!("corrupt: {cases} cases of {runs} seeds in {seconds:.0} s, {findings} findings");
    findings == 0 && !missing
}

fn planted(name: &str, report: &Report, seconds: f64) -> bool {
    let Report { states, runs, finding, .. } = report;
    match finding {
        Some(finding) => {
            println!("FOUND {finding}");
            println!("powercut: {name} found in {states} states of {runs} seeds, {seconds:.0} s");
        }
        None => println!("powercut: {name} not found in {states} states, {seconds:.0} s"),
    }
    finding.is_some()
}

/// Whether a long campaign missed something it is there for; says what.
fn missing(seen: &Seen, wanted: &[&str], long: bool) -> bool {
    let missing = seen.missing(wanted);
    if !long || missing.is_empty() {
        return false;
    }
    println!("NEVER REACHED: {}", missing.join(", "));
    true
}
