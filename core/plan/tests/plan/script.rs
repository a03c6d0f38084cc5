//! Stories: what the words of a transcript mean.

use std::time::Duration;

use braid_plan::{Asked, Snapshot, Stay};
use datadriven::TestCase;

use super::world::{World, id, place, replica};

/// A file of stories: `new` begins one, `play` goes on with it.
#[derive(Debug, Default)]
pub(crate) struct Script {
    world: Option<World>,
}

impl Script {
    pub(crate) fn run(&mut self, case: &TestCase) -> String {
        if case.directive == "new" {
            self.world = Some(World::new());
        }
        let world = self.world.as_mut().expect("a story begins with `new`");
        let begun = world.now;
        let mut told = String::new();
        for line in case.input.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some((verb, rest)) = words.split_first() else { continue };
            if *verb == "wait" {
                let until = world.now + duration(rest[0]);
                while world.now < until {
                    world.turn();
                    let at = world.now.since(begun).as_millis();
                    for line in world.log.drain(..) {
                        told += &format!("+{at}ms {line}\n");
                    }
                }
                continue;
            }
            match step(world, verb, rest) {
                Some(line) => told += &line,
                None => return format!("cannot understand: {line}\n"),
            }
        }
        told
    }
}

/// One thing that happens; what it shows.
fn step(world: &mut World, verb: &str, rest: &[&str]) -> Option<String> {
    let letter = |at: usize| rest.get(at).and_then(|word| word.chars().next());
    match verb {
        "volume" => {
            let standbys = rest.get(2).map_or(Some(1), |text| text.parse().ok())?;
            world.add_volume(letter(0)?, rest.get(1)?, standbys);
        }
        "start" => rest.first()?.chars().for_each(|engine| world.start(engine)),
        "kill" => world.kill(letter(0)?, rest.contains(&"refused")),
        "cut" => world.cut(letter(0)?, false),
        "sever" => world.sever(letter(0)?),
        "heal" => world.cut(letter(0)?, true),
        "deaf" => world.nodes.get_mut(&id(letter(0)?))?.deaf = true,
        "hears" => world.nodes.get_mut(&id(letter(0)?))?.deaf = false,
        "fails" => world.nodes.get_mut(&id(letter(0)?))?.fails = true,
        "clings" => world.nodes.get_mut(&id(letter(0)?))?.clings = true,
        "leaves" => world.nodes.get_mut(&id(letter(0)?))?.leaving = true,
        "refuses" => world.nodes.get_mut(&id(letter(0)?))?.refuses = true,
        "works" => {
            let node = world.nodes.get_mut(&id(letter(0)?))?;
            (node.fails, node.refuses) = (false, false);
        }
        "stale" => world.truth.get_mut(&id(letter(0)?))?.stale = true,
        "away" => {
            let (volume, engine) = (letter(0)?, letter(1)?);
            let truth = world.truth.get_mut(&id(volume))?;
            let replica = truth.members.iter().find(|r| char::from(r[1]) == engine).copied()?;
            truth.members.remove(&replica);
            truth.away.insert(replica);
        }
        "slow" => {
            let replica = replica(letter(0)?, letter(1)?);
            world.truth.get_mut(&id(letter(0)?))?.slow.insert(replica);
        }
        "ask" => {
            let to = rest.iter().position(|word| *word == "to");
            let engine = to.and_then(|at| letter(at + 1)).map(id);
            let (orderly, force) = (rest.contains(&"orderly"), rest.contains(&"force"));
            world.ask(letter(0)?, Asked { number: 0, engine, orderly, force });
        }
        "delete" => world.desired.volumes.get_mut(&id(letter(0)?))?.deleting = true,
        "add" => {
            let wanted = world.desired.volumes.get_mut(&id(letter(0)?))?;
            wanted.replicas.push(place(letter(0)?, letter(1)?));
        }
        "remove" => {
            let stay = if rest.contains(&"forget") { Stay::Forgotten } else { Stay::Leaves };
            let wanted = world.desired.volumes.get_mut(&id(letter(0)?))?;
            let uuid = replica(letter(0)?, letter(1)?);
            wanted.replicas.iter_mut().find(|replica| replica.uuid == uuid)?.stay = stay;
        }
        "snapshot" => {
            let snapshot = Snapshot { uuid: id(letter(1)?), goes: false };
            world.desired.volumes.get_mut(&id(letter(0)?))?.snapshots.push(snapshot);
        }
        "unsnap" => {
            let wanted = world.desired.volumes.get_mut(&id(letter(0)?))?;
            let uuid = id(letter(1)?);
            wanted.snapshots.iter_mut().find(|snapshot| snapshot.uuid == uuid)?.goes = true;
        }
        "size" => {
            let wanted = world.desired.volumes.get_mut(&id(letter(0)?))?;
            wanted.bytes = rest.get(1)?.parse().ok()?;
        }
        "space" => {
            let truth = world.truth.get_mut(&id(letter(0)?))?;
            truth.space = Some(rest.get(1)?.parse().ok()?);
        }
        "restart-control" => world.restart(),
        "pause-control" => {
            world.paused = world.now + duration(rest[0]);
            // The shell notices that its clock jumped.
            world.observed.awake = world.paused;
        }
        "strip" => {
            let (volume, engine) = (letter(0)?, letter(1)?);
            let wanted = world.desired.volumes.get_mut(&id(volume))?;
            wanted.replicas.retain(|replica| replica.engine != id(engine));
        }
        "alerts" => return Some(format!("{}\n", world.alerts(letter(0)?))),
        _ => return None,
    }
    Some(String::new())
}

fn duration(text: &str) -> Duration {
    match text.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().unwrap()),
        None => Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap()),
    }
}
