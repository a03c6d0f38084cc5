//! `braid-sim sim`: its options, and what it says in the end.

use std::time::Instant;

use braid_nexus::Plant;
use braid_sim::Story;
use braid_sim::cluster::campaign::{
    self, Ends, Finding, Level, MIXED, Options, PLANTS, Profile, Report, Selection,
};
use braid_sim::cluster::shrink::shrink;

use super::number;

/// Findings that are told in full; more say no more.
const TOLD_MAX: usize = 10;

/// Runs what the arguments say; whether nothing was found that should not be.
pub(super) fn run(arguments: impl Iterator<Item = String>) -> Result<bool, String> {
    let (given, levels, shrinks) = parse(arguments)?;
    let mut well = true;
    for level in levels {
        let selection = Selection { level, ..given.selection.clone() };
        well &= run_level(&Options { selection, ..given.clone() }, shrinks);
    }
    Ok(well)
}

fn run_level(options: &Options, shrinks: bool) -> bool {
    let began = Instant::now();
    let report = campaign::campaign(options);
    let seconds = began.elapsed().as_secs_f64();
    println!("seen: {}", report.seen);
    for finding in report.findings.iter().take(TOLD_MAX) {
        println!("FOUND {finding}");
        println!("again with: {}", finding.replay());
    }
    if let Some(first) = report.findings.first().filter(|_| shrinks) {
        tell_smaller(first);
    }
    println!("{}", last_line(options.selection.level, &report, seconds));
    if let Some(plant) = options.selection.plant {
        let name = campaign::plant_name(plant);
        let found = report.findings.first().map(|finding| finding.seed);
        println!(
            "{name}: {}",
            found.map_or("not found".into(), |at| format!("found by seed {at}"))
        );
        return found.is_some();
    }
    let missing = campaign::never_reached(options, &report);
    if !missing.is_empty() {
        println!("NEVER REACHED: {}", missing.join(", "));
    }
    report.findings.is_empty() && missing.is_empty()
}

fn tell_smaller(finding: &Finding) {
    let smaller = shrink(finding);
    if smaller.selection.keep.is_some() || smaller.selection.hosts.is_some() {
        println!("smaller: {smaller}");
        println!("again with: {}", smaller.replay());
    }
}

fn last_line(level: Level, report: &Report, seconds: f64) -> String {
    let simulated = report.simulated.as_secs_f64();
    let what = match level {
        Level::Nexus => "nexuses",
        Level::Shard => "whole shards",
    };
    format!(
        "sim: {} seeds of {what}, {:.1} h simulated in {seconds:.0} s ({:.0} x real time), \
         {:.1} million events, {} findings",
        report.seeds,
        simulated / 3600.0,
        simulated / seconds.max(0.001),
        report.events as f64 / 1e6,
        report.findings.len()
    )
}

fn parse(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(Options, Vec<Level>, bool), String> {
    let mut options = Options {
        seeds: 200,
        first: 1,
        profile: MIXED,
        selection: Selection::default(),
        story: Story::Silent,
        jobs: 0,
        ends: Ends::Never,
    };
    let mut levels = Vec::new();
    let mut profile = None;
    let mut only = false;
    while let Some(option) = arguments.next() {
        if option == "--log" {
            options.story = Story::Aloud;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--seeds" => options.seeds = number(&value)?,
            "--first" => options.first = number(&value)?,
            "--seed" => {
                (options.first, options.seeds, only) = (number(&value)?, 1, true);
            }
            "--jobs" => options.jobs = number(&value)?,
            "--level" => levels = vec![level(&value)?],
            "--profile" => profile = Some(profile_of(&value)?),
            "--plant" => options.selection.plant = Some(plant(&value)?),
            "--hosts" => options.selection.hosts = Some(number(&value)?),
            "--keep" => options.selection.keep = Some(kept(&value)?),
            _ => return Err(format!("no option {option}")),
        }
    }
    // A plant is looked for where it shows.
    let planted = PLANTS.iter().find(|mutant| options.selection.plant == Some(mutant.plant));
    options.profile = profile.or(planted.map(|mutant| mutant.profile)).unwrap_or(MIXED);
    options.ends = planted.map_or(Ends::Never, |mutant| Ends::Violated(mutant.shows));
    if options.jobs == 0 {
        options.jobs = std::thread::available_parallelism().map_or(1, usize::from);
    }
    if options.story == Story::Aloud {
        // Two stories at once are none.
        options.jobs = 1;
    }
    let shrinks = !only && options.story == Story::Silent;
    if levels.is_empty() {
        // One seed, or a rule that is switched off, is of one level.
        levels.push(Level::Nexus);
        levels.extend((!only && planted.is_none()).then_some(Level::Shard));
    }
    Ok((options, levels, shrinks))
}

fn level(name: &str) -> Result<Level, String> {
    match name {
        "nexus" => Ok(Level::Nexus),
        "shard" => Ok(Level::Shard),
        _ => Err(format!("no level {name}; there are nexus and shard")),
    }
}

fn profile_of(name: &str) -> Result<&'static str, String> {
    let mut names = Profile::names().chain([MIXED]);
    names.find(|known| *known == name).ok_or_else(|| {
        let names: Vec<&str> = Profile::names().collect();
        format!("no profile {name}; there are {}", names.join(", "))
    })
}

fn plant(name: &str) -> Result<Plant, String> {
    let found = PLANTS.iter().find(|mutant| mutant.name == name);
    found.map(|mutant| mutant.plant).ok_or_else(|| {
        let names: Vec<&str> = PLANTS.iter().map(|mutant| mutant.name).collect();
        format!("no bug {name} can be planted; there are {}", names.join(", "))
    })
}

fn kept(text: &str) -> Result<std::collections::BTreeSet<u32>, String> {
    match text {
        "none" => Ok(std::collections::BTreeSet::new()),
        text => text.split(',').map(number).collect(),
    }
}
