//! A member comes back: what it is given is what it can have missed, and no more.

use std::fs;
use std::time::Duration;

use super::must;
use super::stage::{FILLED, MIB, Stage, Totals, VOLUME, VOLUME_BYTES};
use crate::Outcome;
use crate::net::{ENGINES, Place};
use crate::process::{run_within, wait_for};
use crate::replicas;

/// Regions that hosts write when the member is killed.
const OPEN: [u64; 2] = [40, 47];
/// How long they do so before, and after it.
const A_WHILE: Duration = Duration::from_millis(1500);
/// What is written while it is away, from the beginning.
const MISSED: u64 = 4 * MIB;
/// How long the control plane may take for a change.
const CHANGE: Duration = Duration::from_secs(40);

/// What this return went through.
fn cost(before: Totals, after: Totals) -> Totals {
    Totals {
        begun: after.begun - before.begun,
        compared: after.compared - before.compared,
        copied: after.copied - before.copied,
        ..after
    }
}

fn bill(cost: Totals) -> String {
    format!(
        "{} KiB compared, {} KiB copied, of {} MiB",
        cost.compared >> 10,
        cost.copied >> 10,
        VOLUME_BYTES >> 20
    )
}

/// At least so much was copied, and at most so much; so much was compared each time at most.
fn fair(cost: Totals, copied: (u64, u64), compared: u64) -> Outcome<()> {
    let told = || bill(cost);
    must(cost.begun >= 1 && cost.copied >= copied.0, || format!("too little: {}", told()))?;
    must(cost.compared <= cost.begun * compared && cost.copied <= copied.1, || {
        format!("too much, {} returns were begun: {}", cost.begun, told())
    })
}

/// It is given what was written while it was away, and at most the regions open when it was killed;
/// what is compared for that is far less than the volume.
pub(super) fn killed(stage: &mut Stage) -> Outcome<String> {
    let (owner, gone) = stage.full()?;
    let (hosts, blocks) = stage.hosts(&OPEN)?;
    std::thread::sleep(A_WHILE);
    stage.cluster.kill(Place::Engine(gone));
    stage.without(gone)?;
    std::thread::sleep(A_WHILE);
    let mut history = Stage::rest(hosts)?;
    stage.write(owner, MISSED)?;
    let before = stage.totals(owner, VOLUME)?;
    stage.cluster.start_engine(gone)?;
    stage.whole(VOLUME)?;
    let cost = cost(before, stage.totals(owner, VOLUME)?);
    fair(cost, (MISSED, MISSED + OPEN.len() as u64 * MIB), VOLUME_BYTES / 4)?;
    for (slot, content) in (0..).zip(stage.equal(VOLUME)?) {
        let values = replicas::values(&history, &content, &blocks)?;
        history.looked(slot, &values);
    }
    let checked = history.check();
    checked.map_err(|violation| format!("{}: {}", violation.invariant, violation.text))?;
    Ok(bill(cost))
}

/// It gets everything that was ever written, and nothing where nothing was.
pub(super) fn wiped(stage: &mut Stage) -> Outcome<String> {
    let (owner, gone) = stage.full()?;
    stage.cluster.kill(Place::Engine(gone));
    stage.without(gone)?;
    let pool = stage.cluster.pool(gone);
    fs::remove_file(&pool).map_err(|e| format!("cannot remove {}: {e}", pool.display()))?;
    stage.cluster.start_engine(gone)?;
    stage.cluster.make_pool(gone)?;
    let before = stage.totals(owner, VOLUME)?;
    let name = Place::Engine(gone).name();
    let remove = ["remove-member", VOLUME, &name, "--force", "--yes"];
    change(stage, &remove)?;
    // The one that was taken out is listed until its engine said that there is nothing of it.
    let add = ["add-member", VOLUME, &name];
    let added = wait_for(CHANGE, || Ok(change(stage, &add).ok()))?;
    added.map_or_else(|| change(stage, &add), Ok)?;
    let seen = stage.whole(VOLUME)?;
    must(seen.members.len() == ENGINES && seen.members.contains(&gone), || format!("{seen:?}"))?;
    let cost = cost(before, stage.totals(owner, VOLUME)?);
    fair(cost, (FILLED, FILLED), VOLUME_BYTES)?;
    let taken = stage.cluster.pool_state(gone)?["data_bytes"].as_u64().unwrap_or(0);
    must(taken == FILLED, || format!("the new replica takes {} KiB", taken >> 10))?;
    stage.equal(VOLUME)?;
    Ok(bill(cost))
}

fn change(stage: &Stage, words: &[&str]) -> Outcome<()> {
    run_within(stage.cluster.control_command().arg("volume").args(words), CHANGE).map(drop)
}
