//! P7 and P8: the engine that serves is killed and started again at once, or cut off for a while,
//! under writes to 64 MiB of a volume that is full otherwise.

use std::io;
use std::time::{Duration, Instant};

use braid_chaos::{Cluster, ENGINES, Order, Place, Running, Trouble, Volume, Work, look, wait_for};
use braid_nvme::connect::Nqn;

use super::{Wanted, fill, make, there, unmarked, whole};
use crate::measure::Figure;
use crate::table::{Aim, Row};
use crate::wire::bad;

const NAME: &str = "full";
/// Where hosts write: the end of the volume.
const HOT: u64 = 64 << 20;
/// A pause of a client, at most: some thousand operations a second in all.
const THINK: Duration = Duration::from_millis(4);
/// Hosts write so long before each loss.
const BEFORE: Duration = Duration::from_secs(4);
/// How long one is cut off: longer than hosts may wait.
const CUT: Duration = Duration::from_secs(8);
/// Hosts that are not served after this will not be.
const SERVED: Duration = Duration::from_secs(30);

/// Seconds of each loss.
#[derive(Debug, Default)]
struct Lost {
    stalls: Vec<f64>,
    whole: Vec<f64>,
}

/// Kills, then cuts.
pub(super) fn rows(
    cluster: &mut Cluster,
    wanted: &Wanted,
    told: &mut dyn FnMut(Row),
) -> io::Result<()> {
    let replicas: Vec<usize> = (0..ENGINES).collect();
    let (full, standbys) = (wanted.gib << 30, ENGINES - 1);
    let bytes = full + HOT;
    let seen = make(cluster, &Volume { name: NAME, bytes, replicas: &replicas, standbys })?;
    let nqn = there(seen.nqn, "path")?;
    fill(wanted, &nqn, there(seen.serves, "owner")?)?;
    unmarked(cluster, NAME)?;
    let hosts = Running::start(Work {
        seed: 1,
        nqn: there(Nqn::parse(&nqn), "subsystem")?,
        portals: Cluster::portals(),
        // What hosts are answered is checked, and of these blocks nobody else wrote anything.
        blocks: (full / 4096..bytes / 4096).collect(),
        think: THINK,
        began: braid_reactor::now(),
    });
    let hosts = hosts.map_err(bad)?;
    let (mut killed, mut cut) = (Lost::default(), Lost::default());
    for number in 0..wanted.losses {
        let owner = calm(cluster)?;
        lose(cluster, &hosts, &mut killed, |cluster| {
            cluster.kill(Place::Engine(owner));
            cluster.start_engine(owner)
        })?;
        let owner = calm(cluster)?;
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        lose(cluster, &hosts, &mut cut, |cluster| cut_off(cluster, number, owner))?;
    }
    hosts.order(Order::Rest).map_err(bad)?;
    // An order is heard in the next turn of the hosts.
    std::thread::sleep(Duration::from_millis(200));
    let idle = || Ok((look(&hosts.seen).in_work == 0).then_some(()));
    there(wait_for(SERVED, idle).map_err(bad)?, "end of what hosts asked for")?;
    let finding = look(&hosts.seen).finding.clone();
    hosts.order(Order::Leave).map_err(bad)?;
    hosts.join().map_err(bad)?;
    finding.map_or(Ok(()), |finding| Err(bad(finding)))?;
    cluster.tell_control(&["volume", "delete", NAME, "--yes"]).map_err(bad)?;
    let gib = wanted.gib;
    let whole = format!("{gib} GiB, 64 MiB hot: kill -9 to full redundancy");
    told(row("P7", whole, killed.whole, Aim::AtMost(5.0), "< 5 s"));
    let stall = |how| format!("our host waits: the engine that serves is {how}");
    told(row("P8", stall("killed"), killed.stalls, Aim::AtMost(2.0), "< 2 s"));
    told(row("P8", stall("cut off"), cut.stalls, Aim::AtMost(6.0), "< 6 s"));
    Ok(())
}

fn row(id: &'static str, what: String, figures: Vec<f64>, aim: Aim, aim_text: &str) -> Row {
    let ours = Figure::of(figures);
    let aim_text = aim_text.to_owned();
    Row { id, what, unit: "s", ours, other: None, counts: ours, aim, aim_text }
}

/// Waits until the volume is whole and was written to for a while; who serves it.
fn calm(cluster: &Cluster) -> io::Result<usize> {
    whole(cluster, NAME, ENGINES)?;
    std::thread::sleep(BEFORE);
    there(whole(cluster, NAME, ENGINES)?.serves, "owner")
}

/// How long hosts wait when this happens, and how long until the volume is whole again.
fn lose(
    cluster: &mut Cluster,
    hosts: &Running,
    lost: &mut Lost,
    happens: impl FnOnce(&mut Cluster) -> Result<(), String>,
) -> io::Result<()> {
    let (begun, before) = (Instant::now(), look(&hosts.seen).stalls.len());
    let epoch = cluster.seen(NAME).map_err(bad)?.epoch;
    happens(cluster).map_err(bad)?;
    let taken = || Ok(cluster.seen(NAME).ok().filter(|seen| seen.epoch > epoch).map(drop));
    there(wait_for(SERVED, taken).map_err(bad)?, "other owner")?;
    whole(cluster, NAME, ENGINES)?;
    lost.whole.push(begun.elapsed().as_secs_f64());
    let seen = look(&hosts.seen);
    let longest = seen.stalls[before..].iter().map(|(_, stall)| *stall).max();
    lost.stalls.push(there(longest, "time without an answer")?.as_secs_f64());
    Ok(())
}

/// Nobody hears the engine and it hears nobody, for a while.
fn cut_off(cluster: &mut Cluster, number: u32, engine: usize) -> Result<(), String> {
    let alone = Place::Engine(engine);
    for other in Place::all().filter(|place| *place != alone) {
        cluster.net.begin(number, Trouble::Cut { from: alone, to: other });
        cluster.net.begin(number, Trouble::Cut { from: other, to: alone });
    }
    cluster.net.apply()?;
    std::thread::sleep(CUT);
    cluster.net.end(number);
    cluster.net.apply()
}
