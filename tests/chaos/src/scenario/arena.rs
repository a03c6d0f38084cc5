//! Two engines that have the least buffers an engine may have mirror to each other: each serves a
//! volume that has a replica at the other one, under more commands than either has buffers for.

use std::time::Duration;

use serde_json::Value;

use super::must;
use super::stage::{MIB, Stage, VOLUME_BYTES};
use crate::Outcome;
use crate::cluster::Volume;
use crate::net::Place;
use crate::process::wait_for;

/// The least.
pub(super) const OPTIONS: &[&str] = &["--arena", "1MiB"];
/// Each engine serves the one of its number.
const VOLUMES: [&str; 2] = ["one", "two"];
/// What of them is used.
const REGION: u64 = 16 * MIB;
/// Bytes of a command: as many as there can be, in capsules; some that are fetched.
const BLOCKS: [&str; 3] = ["4KiB", "16KiB", "128KiB"];
/// A member that does not answer a command for so long is excluded. Whoever waits for a buffer
/// that never comes is found by then: nothing may take as long.
const LONGEST: Duration = Duration::from_secs(3);
/// How long a hand-over may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both ways at once, for a while with each size.
pub(super) fn arenas(stage: &mut Stage) -> Outcome<String> {
    for (engine, name) in VOLUMES.into_iter().enumerate() {
        let replicas = &[engine, 1 - engine];
        let volume = Volume { name, bytes: VOLUME_BYTES, replicas, standbys: 1 };
        stage.cluster.create(&volume)?;
        if stage.whole(name)?.serves != Some(engine) {
            stage.cluster.hand_over(name, engine)?;
        }
        let serves = || Ok((stage.cluster.seen(name)?.serves == Some(engine)).then_some(()));
        wait_for(PATIENCE, serves)?.ok_or(format!("{name} is not handed over"))?;
        stage.whole(name)?;
    }
    let before = exclusions(stage)?;
    let mut seen = Vec::new();
    for block in BLOCKS {
        let (commands, longest) = both(stage, block)?;
        let excluded = exclusions(stage)? - before;
        must(excluded == 0, || format!("{block}: {excluded} members did not answer in time"))?;
        seen.push(format!("{commands} of {block}, the longest {} ms", longest.as_millis()));
    }
    let said = seen.join("; ");
    let seen = VOLUMES.map(|name| stage.whole(name));
    for engine in 0..VOLUMES.len() {
        stage.cluster.stop(Place::Engine(engine))?;
    }
    for seen in seen {
        stage.contents(&seen?)?;
    }
    Ok(format!("commands: {said}"))
}

fn exclusions(stage: &Stage) -> Outcome<u64> {
    let of = |(engine, name): (usize, &&str)| Ok(stage.totals(engine, name)?.excluded);
    VOLUMES.iter().enumerate().map(of).sum()
}

/// Loads both volumes at once with commands of a size; how many there were, and how long the
/// longest took.
fn both(stage: &Stage, block: &str) -> Outcome<(u64, Duration)> {
    let one = |engine: usize| {
        let words = ["--rw", "mixed:30", "--queue-depth", "128", "--time", "6s"];
        stage.load(engine, VOLUMES[engine], REGION, block, &words)
    };
    let said = std::thread::scope(|scope| {
        let other = scope.spawn(|| one(1));
        let mine = one(0);
        [mine, other.join().unwrap_or_else(|_| Err("a thread panicked".into()))]
    });
    let (mut commands, mut longest) = (0, Duration::ZERO);
    for said in said {
        let said = said?;
        for kind in ["read", "write"] {
            let (count, took) = figures(&said[kind]).ok_or_else(|| format!("no report: {said}"))?;
            must(count > 0, || format!("no {kind} ended"))?;
            commands += count;
            longest = longest.max(took);
        }
    }
    must(longest < LONGEST, || format!("a command took {longest:?}"))?;
    Ok((commands, longest))
}

fn figures(kind: &Value) -> Option<(u64, Duration)> {
    let longest = kind["latency_us"]["max"].as_f64()?;
    Some((kind["commands"].as_u64()?, Duration::from_secs_f64(longest / 1e6)))
}
