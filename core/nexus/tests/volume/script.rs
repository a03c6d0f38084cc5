//! Stories: what the words of a transcript mean.

use std::num::NonZeroU64;
use std::time::Duration;

use braid_nexus::record::{Lossy, Standing};
use braid_nexus::wire::{BLOCK, Refusal};
use braid_nexus::{Command as Order, Event, Pace, Progress, Work};
use datadriven::TestCase;

use super::store::Mood;
use super::words;
use super::world::{Rule, Setup, World};

/// A file of stories: `new` and `serving` begin one, `play` goes on with it.
#[derive(Debug, Default)]
pub(crate) struct Script {
    world: Option<World>,
}

impl Script {
    pub(crate) fn run(&mut self, case: &TestCase) -> String {
        match case.directive.as_str() {
            "new" => self.world = Some(World::new(&setup(case))),
            "serving" => self.world = Some(World::serving(&setup(case))),
            "play" => {}
            other => return format!("unknown directive {other}\n"),
        }
        let world = self.world.as_mut().expect("a story begins with `new` or `serving`");
        for line in case.input.lines() {
            let line = line.split('#').next().unwrap_or("");
            let words: Vec<&str> = line.split_whitespace().collect();
            if let Some((verb, rest)) = words.split_first()
                && step(world, verb, rest).is_none()
            {
                return format!("cannot understand: {line}\n");
            }
        }
        world.take_told().iter().map(|line| format!("{line}\n")).collect()
    }
}

fn setup(case: &TestCase) -> Setup {
    let mut setup = Setup::default();
    let argument = |name: &str| case.args.get(name).and_then(|values| values.first());
    setup.members = argument("members").cloned().unwrap_or(setup.members);
    setup.away = argument("away").cloned().unwrap_or_default();
    setup.spare = argument("spare").cloned().unwrap_or_default();
    setup.unused = case.args.contains_key("unused");
    setup.recovered = case.args.contains_key("recovered");
    setup.near = argument("near").and_then(|near| near.chars().next());
    let number = |name: &str| argument(name).and_then(|n| size(n));
    setup.bytes = number("size").unwrap_or(setup.bytes);
    let requests = number("requests").map(|n| n as u32);
    setup.limits.requests_max = requests.unwrap_or(setup.limits.requests_max);
    setup
}

/// One thing that happens.
fn step(world: &mut World, verb: &str, rest: &[&str]) -> Option<()> {
    match verb {
        "take-over" => {
            let owner = rest.first()?.chars().next()?;
            world.take_over(owner, rest.contains(&"force"));
        }
        "connect" | "ana" | "gone" => host(world, verb, rest)?,
        "write" | "read" | "zero" | "flush" => {
            let (association, work, byte) = request(verb, rest)?;
            world.submit(association, work, byte);
        }
        "wait" => world.wait(duration(rest.first()?)?),
        "store" => store(world, rest)?,
        "view" => view(world),
        "linger" => world.lingers = true,
        "end-lingering" => world.end_lingering(),
        "memory" => world.heap.max = Some(rest.first()?.parse().ok()?),
        "pace" | "pause" | "resume" => pace(world, verb, rest)?,
        "turn" => {
            world.volume.set_turn(rest.first()? == &"yes");
            world.run();
        }
        "progress" => progress(world),
        "totals" => totals(world),
        "retire" => {
            world.volume.retire();
            world.run();
        }
        "shutdown" => world.order(Order::Shutdown),
        "resize" => world.order(Order::Resize { bytes: size(rest.first()?)? }),
        "snapshot" | "delete" | "return" | "add" | "give-up" | "exclude" => {
            let uuid = words::uuid(rest.first()?.chars().next()?);
            world.order(match verb {
                "snapshot" => Order::Snapshot { uuid },
                "delete" => Order::DeleteSnapshot { uuid },
                "return" => Order::Return { replica: uuid },
                "add" => Order::Add { replica: uuid },
                "give-up" => Order::GiveUp { replica: uuid },
                _ => Order::Exclude { replica: uuid },
            });
        }
        _ => {
            let name = rest.first()?.chars().next()?;
            replica(world, verb, name, &rest[1..])?;
        }
    }
    Some(())
}

fn host(world: &mut World, verb: &str, rest: &[&str]) -> Option<()> {
    let association = rest.first()?.parse().ok()?;
    match verb {
        "connect" => {
            let host = rest.get(1)?.chars().next()?;
            let origin = rest.get(2).map_or(Some(1), |n| n.parse().ok())?;
            world.connect(association, host, origin);
        }
        "ana" => world.event(Event::HostReadAna { association }),
        _ => world.event(Event::HostGone { association }),
    }
    Some(())
}

/// `write ASSOCIATION OFFSET LENGTH BYTE [fua]`, `zero ASSOCIATION OFFSET LENGTH [fua]`, `read
/// ASSOCIATION OFFSET LENGTH`, `flush ASSOCIATION`.
fn request(verb: &str, rest: &[&str]) -> Option<(u32, Work, u8)> {
    let association = rest.first()?.parse().ok()?;
    if verb == "flush" {
        return Some((association, Work::Flush, 0));
    }
    let (offset, bytes) = (size(rest.get(1)?)?, size(rest.get(2)?)?);
    let (len, durable) = (bytes as u32, rest.contains(&"fua"));
    Some(match verb {
        "write" => {
            let byte = rest.get(3)?.bytes().next()?;
            (association, Work::Write { offset, len, durable }, byte)
        }
        "zero" => (association, Work::Zero { offset, len: bytes, durable }, 0),
        _ => (association, Work::Read { offset, len }, 0),
    })
}

fn store(world: &mut World, rest: &[&str]) -> Option<()> {
    let mood = match *rest.first()? {
        "loses" => Mood::Lose,
        "hides" => Mood::Hide,
        "holds" => Mood::Hold,
        "answers" => {
            let (number, outcome) = world.store.release()?;
            world.event(Event::Swapped { number, outcome });
            return Some(());
        }
        "deaf" => {
            world.store.deaf = true;
            return Some(());
        }
        "hears" => {
            world.store.deaf = false;
            return Some(());
        }
        what => return edit(world, what, &rest[1..]),
    };
    world.store.moods.push_back(mood);
    Some(())
}

/// Somebody else changes the record.
fn edit(world: &mut World, what: &str, rest: &[&str]) -> Option<()> {
    let record = &mut world.store.record;
    match what {
        "usurped" => {
            record.epoch += 1;
            record.owner = words::uuid('Z');
        }
        "changed" => {}
        "other" => record.store = words::uuid('T'),
        "size" => record.bytes = size(rest.first()?)?,
        "older" => {
            record.version = rest.first()?.parse().ok()?;
            return Some(());
        }
        "lossy" => record.lossy = Some(Lossy { epoch: record.epoch, ..Lossy::default() }),
        "whole" => {
            let slot = record.slot_of(&words::uuid(rest.first()?.chars().next()?))?;
            let standing = Standing::Away { whole: true };
            record.slots[usize::from(slot)].as_mut()?.standing = standing;
        }
        _ => return None,
    }
    record.version += 1;
    Some(())
}

/// `pace BESIDE ALONE`, bytes a second or `any`; `pause`, `resume`.
fn pace(world: &mut World, verb: &str, rest: &[&str]) -> Option<()> {
    let mut pace = Pace { paused: verb == "pause", ..world.volume.pace() };
    if verb == "pace" {
        let rate = |word: &str| if word == "any" { Some(0) } else { size(word) };
        pace.beside = NonZeroU64::new(rate(rest.first()?)?);
        pace.alone = NonZeroU64::new(rate(rest.get(1)?)?);
    }
    world.volume.set_pace(world.now, pace);
    world.run();
    Some(())
}

fn progress(world: &mut World) {
    let Some(progress) = world.volume.view().rebuild else {
        return world.tell("no replica is copied to");
    };
    let Progress { slot, snapshot, snapshots_left, total, done, copied, rate } = progress;
    let of = snapshot.map_or(String::new(), |uuid| format!(" of {}", words::name(&uuid)));
    let left = progress.left().map_or("unknown".into(), |left| format!("{left:?}"));
    let (total, done, copied) = (words::bytes(total), words::bytes(done), words::bytes(copied));
    world.tell(format!(
        "{}: {done} of {total}{of}, {copied} copied, {rate} a second, left {left}, then \
         {snapshots_left} snapshots",
        words::letter(slot)
    ));
}

fn totals(world: &mut World) {
    let totals = world.volume.view().totals;
    let text = format!("{totals:?}");
    let parts = text.trim_start_matches("Totals { ").trim_end_matches(" }").split(", ");
    let told: Vec<&str> =
        parts.filter(|part| !part.ends_with(": 0") && !part.ends_with(" 0ns")).collect();
    world.tell(format!("totals {}", told.join(", ")));
}

fn view(world: &mut World) {
    let view = world.volume.view();
    let (members, failing) = (words::mask(view.members), words::mask(view.failing));
    let serving = if view.serving { "serving" } else { "not serving" };
    let (suspect, marked, locks) = (view.suspect, view.marked, view.locks);
    let (requests, calls, epoch) = (view.requests, view.calls, view.epoch);
    world.tell(format!(
        "epoch {epoch}, {serving}, members {members}, failing {failing}, suspect {suspect}, \
         marked {marked}, locks {locks}, requests {requests}, calls {calls}"
    ));
}

/// Something happens to a replica, or is asked of it.
fn replica(world: &mut World, verb: &str, name: char, rest: &[&str]) -> Option<()> {
    let at = world.index(name);
    let kind = || Some(rest.first()?.to_string());
    match verb {
        // What comes later is not held; what was held stays so.
        "pass" => world.rules.retain(|(of, which, _)| *of != at || which != rest[0]),
        "late" => world.rules.push((at, kind()?, Rule::Late)),
        "hold" => world.rules.push((at, kind()?, Rule::Hold)),
        "release" => world.release(at, rest.first()?),
        "refuse" => {
            let why = refusal(rest.get(1)?, rest.get(2))?;
            world.rules.push((at, kind()?, Rule::Refuse(why)));
        }
        "cut" => {
            world.cut(at, false);
            world.run();
        }
        "kill" => {
            world.kill(at);
            world.run();
        }
        "start" => {
            let instance = rest.first().map(|n| n.parse().ok());
            world.replicas[at].durable.instance = instance.unwrap_or(Some(1))?;
            world.replicas[at].start(world.now);
        }
        "vanish" => {
            world.vanished.insert(at);
        }
        "appear" => world.appear(at),
        "usurp" => {
            world.usurp(at);
            world.run();
        }
        _ => content(world, verb, at, rest)?,
    }
    Some(())
}

/// What is on a replica, or is done to it behind everybody's back.
fn content(world: &mut World, verb: &str, at: usize, rest: &[&str]) -> Option<()> {
    let number = |nth: usize| rest.get(nth).and_then(|n| size(n));
    let name = words::name(&world.replicas[at].uuid);
    let replica = &mut world.replicas[at];
    match verb {
        "has" => {
            let bytes = replica.head.read(number(0)?, number(1)?);
            world.tell(format!("{name} has {}", words::content(&bytes)));
        }
        "snapshots" => {
            let names: String =
                replica.snapshots.iter().map(|(uuid, _)| words::name(uuid)).collect();
            let names = if names.is_empty() { "none" } else { &names };
            world.tell(format!("{name} has snapshots {names}"));
        }
        "marks" => {
            let marks: Vec<u32> = replica.head.marks.iter().copied().collect();
            world.tell(format!("{name} has marks {marks:?}"));
        }
        "put" => {
            let byte = rest.get(1)?.bytes().next()?;
            replica.head.blocks.insert(number(0)? / BLOCK, [byte; 8]);
        }
        "mark" => {
            replica.head.marks.insert(number(0)? as u32);
        }
        "flushed" => {
            replica.durable.flush = number(0)?;
            replica.start(braid_block::Instant::ZERO);
        }
        "spoil" => {
            replica.bad.insert(number(0)? / BLOCK);
        }
        "lag" => {
            replica.lags.insert(number(0)? / BLOCK);
        }
        "wipe" => {
            replica.head = super::replica::Layer::default();
            replica.snapshots.clear();
            replica.durable.kept = None;
            replica.durable.fence = (0, [0; 16]);
            replica.durable.flush = 0;
        }
        "imprint" => {
            let uuid = words::uuid(rest.first()?.chars().next()?);
            let layer = replica.head.clone();
            replica.head.marks.clear();
            replica.snapshots.push((uuid, layer));
            replica.start(braid_block::Instant::ZERO);
        }
        _ => return None,
    }
    Some(())
}

fn refusal(word: &str, number: Option<&&str>) -> Option<Refusal> {
    let number = || number.map_or(Some(0), |n| size(n));
    Some(match word {
        "no-space" => Refusal::NoSpace,
        "failed" => Refusal::Failed,
        "gone" => Refusal::Gone,
        "invalid" => Refusal::Invalid,
        "media" => Refusal::Media(number()?),
        "conflict" => Refusal::Conflict { epoch: number()? },
        "store-differs" => Refusal::StoreDiffers,
        "copy-newer" => Refusal::CopyNewer { epoch: number()?, version: 99 },
        _ => return None,
    })
}

fn size(word: &str) -> Option<u64> {
    let (number, unit) = match word.strip_suffix('k') {
        Some(number) => (number, 1 << 10),
        None => (word.trim_end_matches('M'), if word.ends_with('M') { 1 << 20 } else { 1 }),
    };
    Some(number.parse::<u64>().ok()? * unit)
}

fn duration(word: &str) -> Option<Duration> {
    match word.strip_suffix("ms") {
        Some(number) => Some(Duration::from_millis(number.parse().ok()?)),
        None => Some(Duration::from_secs(word.strip_suffix('s')?.parse().ok()?)),
    }
}
