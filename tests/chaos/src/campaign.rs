//! A campaign from its beginning to its verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use braid_nvme::connect::Nqn;
use braid_sim::History;

use crate::Outcome;
use crate::cluster::{Cluster, Parts, Seen as Kept, Volume};
use crate::host::{Order, Running, Seen, Work, look};
use crate::nemesis::Nemesis;
use crate::net::{ENGINES, Net, Place};
use crate::plan::plan;
use crate::process::wait_for;
use crate::replicas;
use crate::report::Report;
use crate::story::Story;

/// The volume.
pub(crate) const VOLUME: &str = "data";
/// Its size, and that of a pool.
pub(crate) const VOLUME_BYTES: u64 = 64 << 20;
const POOL_BYTES: u64 = 256 << 20;
/// How soon all must be redundant again once nothing is wrong any more.
const CONVERGES: Duration = Duration::from_secs(60);
/// How soon the last operations must end then.
const ENDS: Duration = Duration::from_secs(30);
/// How soon hosts must have been served at all.
const BEGINS: Duration = Duration::from_secs(30);
/// Hosts go on for a while after all is well.
const AFTER: Duration = Duration::from_secs(2);
/// Operations a second that a history of any length can bear: a client thinks so long at most.
const THINK: Duration = Duration::from_millis(60);

/// What to do.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How long things go wrong
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Where all chance comes from
    #[arg(long)]
    seed: u64,
    /// Where braid-engine and braid-control are
    #[arg(long)]
    binaries: PathBuf,
    /// Where files and logs go; what is there is lost
    #[arg(long)]
    folder: PathBuf,
}

/// The blocks that are used: few, so that clients meet, in several regions and clusters.
fn blocks() -> Vec<u64> {
    let regions = [0, 1, 2, 17, 40, 63];
    regions.iter().flat_map(|region| (0..5).map(move |block| region * 256 + block)).collect()
}

/// Runs a campaign.
pub fn run(options: &Options) -> Outcome<()> {
    let Options { seed, folder, .. } = options;
    // There may be nothing yet.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    let story = Story::new(&folder.join("story.txt"))?;
    story.tell(&format!("seed {seed}: {} minutes of faults", options.minutes));
    let mut report = Report { seed: *seed, ..Report::default() };
    let found = faults(options, &story, &mut report);
    for log in logs(folder) {
        report.resync.read(&log);
    }
    println!("{}", report.table());
    // Whoever changes the words of the engines is to change them here.
    let found = found.and_then(|()| match report.resync.servings {
        0 => Err("the logs do not say who served the volume".to_owned()),
        _ => Ok(()),
    });
    let again = format!("cargo xtask chaos --minutes {} --seed {seed}", options.minutes);
    match found {
        Ok(()) => {
            println!("chaos: nothing wrong was found; {again}");
            Ok(())
        }
        Err(finding) => {
            story.tell(&format!("FINDING {finding}"));
            Err(format!("{finding}\nlogs are in {}; {again}", folder.display()))
        }
    }
}

fn faults(options: &Options, story: &Story, report: &mut Report) -> Outcome<()> {
    let net = Net::new()?;
    let parts = Parts {
        binaries: options.binaries.clone(),
        folder: options.folder.clone(),
        pool_bytes: POOL_BYTES,
        log: "debug",
        faults: true,
    };
    let mut cluster = Cluster::start(parts, net)?;
    let replicas = &std::array::from_fn::<_, ENGINES, _>(|engine| engine);
    let standbys = ENGINES - 1;
    cluster.create(&Volume { name: VOLUME, bytes: VOLUME_BYTES, replicas, standbys })?;
    cluster.net.apply()?;
    if cluster.converges(VOLUME, ENGINES, CONVERGES)?.is_none() {
        return Err("a new volume has not all its replicas and paths".into());
    }
    let hosts = hosts(&cluster, options.seed)?;
    let served = || Ok((look(&hosts.seen).done.iter().sum::<u64>() > 0).then_some(()));
    wait_for(BEGINS, served)?.ok_or("hosts are not served")?;
    story.tell("hosts are served; faults begin");
    let began = story.time();
    let broken = torment(&mut cluster, &hosts, story, options, report);
    report.lasted = story.time().saturating_sub(began);
    let volume = broken.and_then(|()| recover(&cluster, &hosts, story, report));
    report.hosts = look(&hosts.seen).clone();
    let volume = volume.map_err(|finding| with_history(&cluster, finding))?;
    report.epoch = volume.epoch;
    let history = leave(hosts)?;
    for place in (0..ENGINES).map(Place::Engine).chain([Place::Control]) {
        cluster.stop(place)?;
    }
    story.tell("all ended in order; looking at the replicas and at what hosts were answered");
    judge(&cluster, &volume, history)
}

fn hosts(cluster: &Cluster, seed: u64) -> Outcome<Running> {
    let volume = cluster.seen(VOLUME)?;
    let nqn = volume.nqn.as_deref().and_then(Nqn::parse).ok_or("the volume has no name")?;
    Running::start(Work {
        seed,
        nqn,
        portals: Cluster::portals(),
        blocks: blocks(),
        think: THINK,
        began: braid_reactor::now(),
    })
}

/// Does what the plan says, until its time is over or something is found.
fn torment(
    cluster: &mut Cluster,
    hosts: &Running,
    story: &Story,
    options: &Options,
    report: &mut Report,
) -> Outcome<()> {
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let plan = plan(options.seed, time);
    let mut nemesis = Nemesis::new(cluster, story, options.seed);
    let mut told = 0;
    let done = nemesis.run(&plan, time, |cluster| {
        tell_stalls(&hosts.seen, story, &mut told);
        finding(&hosts.seen)?;
        match cluster.fallen().first() {
            None => Ok(()),
            Some(place) => Err(format!("{} ended by itself; see its log", place.name())),
        }
    });
    report.deeds = nemesis.deeds.clone();
    done?;
    nemesis.heal()
}

fn tell_stalls(seen: &Mutex<Seen>, story: &Story, told: &mut usize) {
    let stalls: Vec<_> = look(seen).stalls[*told..].to_vec();
    *told += stalls.len();
    for (_, stall) in stalls.iter().filter(|(_, stall)| stall.as_secs() >= 1) {
        story.tell(&format!("    answers again, after {:.2} s", stall.as_secs_f64()));
    }
}

/// What hosts found that must not be.
pub(crate) fn finding(seen: &Mutex<Seen>) -> Outcome<()> {
    look(seen).finding.clone().map_or(Ok(()), Err)
}

/// Nothing is wrong any more: all must be as it was, and every block must be readable.
fn recover(
    cluster: &Cluster,
    hosts: &Running,
    story: &Story,
    report: &mut Report,
) -> Outcome<Kept> {
    story.tell("nothing is wrong any more");
    let healed = story.time();
    if cluster.converges(VOLUME, ENGINES, CONVERGES)?.is_none() {
        let volume = cluster.seen(VOLUME)?;
        return Err(format!(
            "Convergence: {} s after the last fault the volume is {} with members {:?} and {} \
             paths",
            CONVERGES.as_secs(),
            volume.state,
            volume.members,
            volume.paths
        ));
    }
    let took = story.time().saturating_sub(healed);
    report.converged = Some(took);
    story.tell(&format!("full redundancy after {:.1} s", took.as_secs_f64()));
    std::thread::sleep(AFTER);
    hosts.order(Order::Rest)?;
    settled(hosts)?;
    hosts.order(Order::ReadAll)?;
    settled(hosts)?;
    finding(&hosts.seen)?;
    cluster.seen(VOLUME)
}

/// Waits until all that hosts asked for has ended.
pub(crate) fn settled(hosts: &Running) -> Outcome<()> {
    // An order is heard in the next turn of the hosts.
    std::thread::sleep(Duration::from_millis(200));
    let idle = || {
        let seen = look(&hosts.seen);
        Ok((seen.in_work == 0 && seen.unread == 0).then_some(()))
    };
    let left = || format!("{} operations never end", look(&hosts.seen).in_work);
    wait_for(ENDS, idle)?.ok_or_else(left)
}

/// The hosts go away.
pub(crate) fn leave(hosts: Running) -> Outcome<History> {
    hosts.order(Order::Leave)?;
    hosts.join()
}

/// The replicas beside each other, and beside what hosts were answered.
fn judge(cluster: &Cluster, volume: &Kept, mut history: History) -> Outcome<()> {
    let mut contents = Vec::new();
    for (engine, replica) in &volume.replicas {
        contents.push(replicas::read(&cluster.pool(*engine), *replica, VOLUME_BYTES)?);
    }
    if let Some(block) = replicas::difference(&contents) {
        return Err(format!("Convergence: block {block} is not alike in all replicas"));
    }
    for (slot, content) in (0..).zip(&contents) {
        let values = replicas::values(&history, content, &blocks())?;
        history.looked(slot, &values);
    }
    history.check().map_err(|violation| format!("{}: {}", violation.invariant, violation.text))
}

/// A finding, with what the control plane knows of its volume.
fn with_history(cluster: &Cluster, finding: String) -> String {
    let told = cluster.history(VOLUME).unwrap_or_else(|why| why);
    let lines: Vec<&str> = told.lines().collect();
    let last = &lines[lines.len().saturating_sub(30)..];
    format!("{finding}\n{}", last.join("\n"))
}

fn logs(folder: &Path) -> impl Iterator<Item = String> {
    (0..ENGINES).map(|engine| {
        let name = format!("{}.log", Place::Engine(engine).name());
        let raw = fs::read(folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&raw).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_lie_in_the_volume_and_each_once() {
        let blocks = blocks();
        assert!(blocks.iter().all(|block| block * 4096 < VOLUME_BYTES));
        assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
