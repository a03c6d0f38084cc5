//! Random runs: engines die, go silent, come back, are deaf or fail; orders and answers are late
//! or lost; the control plane is started again or pauses; operators ask. The world checks every
//! action; in the end all is well again, as people asked, and quiet.

use std::time::Duration;

use braid_plan::{Asked, Snapshot, Stay};

use super::world::{World, id, place};

const ENGINES: &str = "abcd";
const VOLUMES: &str = "uvw";

/// A small generator: the same numbers for the same seed, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to - from)
    }

    pub(crate) fn once_in(&mut self, of: u64) -> bool {
        self.number().is_multiple_of(of)
    }

    fn pick(&mut self, of: &str) -> char {
        let at = self.within(0, of.len() as u64) as usize;
        of.chars().nth(at).unwrap()
    }
}

#[test]
fn whatever_fails_owners_are_appointed_one_by_one_and_for_a_reason() {
    let mut take_overs = 0;
    for seed in 0..300 {
        take_overs += run(seed);
    }
    // Else the runs show nothing.
    assert!(take_overs > 3000, "{take_overs}");
}

fn run(seed: u64) -> usize {
    let mut dice = Dice(seed);
    let mut world = World::new();
    world.dice = Some(Dice(!seed));
    for volume in VOLUMES.chars() {
        world.add_volume(volume, "abc", 1);
    }
    ENGINES.chars().for_each(|engine| world.start(engine));
    for _ in 0..600 {
        happen(&mut world, &mut dice);
        world.turn();
        calm(&world, seed);
    }
    let take_overs = world.log.iter().filter(|line| line.ends_with("takes over")).count();
    heal(&mut world);
    world.wait(Duration::from_secs(120));
    world.dice = None;
    world.wait(Duration::from_secs(60));
    world.log.clear();
    world.wait(Duration::from_secs(20));
    assert!(world.log.is_empty(), "seed {seed} is not quiet: {:?}", world.log);
    for volume in VOLUMES.chars() {
        let truth = &world.truth[&id(volume)];
        assert_eq!(world.serving(&id(volume)), 1, "seed {seed}: {volume} {truth:?}");
        assert!(truth.away.is_empty(), "seed {seed}: {volume} {truth:?}");
        let wanted = &world.desired.volumes[&id(volume)];
        let replicas = wanted.replicas.iter().map(|replica| replica.uuid).collect();
        assert_eq!(truth.members, replicas, "seed {seed}: the replicas of {volume}");
        let snapshots = wanted.snapshots.iter().filter(|snapshot| !snapshot.goes);
        let snapshots = snapshots.map(|snapshot| snapshot.uuid).collect();
        assert_eq!(truth.snapshots, snapshots, "seed {seed}: the snapshots of {volume}");
        assert_eq!(truth.bytes, wanted.bytes, "seed {seed}: the size of {volume}");
        assert!(world.parts(&id(volume)) >= 2, "seed {seed}: {volume} has no standby");
        assert_eq!(world.alerts(volume), "[]", "seed {seed}");
    }
    take_overs
}

/// No storm: few actions for a volume in a time, however much fails.
fn calm(world: &World, seed: u64) {
    for volume in VOLUMES.chars().map(id) {
        let recent = world.begun.iter().rev();
        let recent = recent.take_while(|(at, _)| world.now.since(*at) < Duration::from_secs(10));
        let count = recent.filter(|(_, of)| *of == volume).count();
        assert!(count <= 40, "seed {seed}: {count} actions in 10 s");
    }
}

fn happen(world: &mut World, dice: &mut Dice) {
    let engine = dice.pick(ENGINES);
    match dice.within(0, 200) {
        0..3 => world.kill(engine, dice.once_in(2)),
        3..9 => world.start(engine),
        9..11 => world.cut(engine, false),
        11..15 => world.cut(engine, true),
        15 => world.nodes.get_mut(&id(engine)).unwrap().deaf = true,
        16..19 => world.nodes.get_mut(&id(engine)).unwrap().deaf = false,
        19 => world.nodes.get_mut(&id(engine)).unwrap().fails = true,
        20..23 => world.nodes.get_mut(&id(engine)).unwrap().fails = false,
        23 => world.restart(),
        24 => {
            world.paused = world.now + Duration::from_millis(dice.within(0, 8000));
            world.observed.awake = world.paused;
        }
        27..30 => world.sever(engine),
        33..36 => {
            let volume = dice.pick(VOLUMES);
            let wanted = world.desired.volumes.get_mut(&id(volume)).unwrap();
            let staying = wanted.replicas.iter().filter(|replica| replica.stay == Stay::Stays);
            let enough = staying.count() > 2;
            let uuid = place(volume, engine).uuid;
            match wanted.replicas.iter_mut().find(|replica| replica.uuid == uuid) {
                Some(there) if enough => there.stay = Stay::Leaves,
                Some(_) => {}
                None => wanted.replicas.push(place(volume, engine)),
            }
        }
        36..38 => {
            let snapshot = Snapshot { uuid: [dice.number() as u8; 16], goes: false };
            let wanted = world.desired.volumes.get_mut(&id(dice.pick(VOLUMES))).unwrap();
            match wanted.snapshots.iter_mut().find(|known| known.uuid == snapshot.uuid) {
                Some(known) => known.goes = true,
                None => wanted.snapshots.push(snapshot),
            }
        }
        31..33 => {
            let wanted = world.desired.volumes.get_mut(&id(dice.pick(VOLUMES))).unwrap();
            wanted.bytes += dice.within(1, 9);
        }
        30 => world.nodes.get_mut(&id(engine)).unwrap().leaving = true,
        25..27 => {
            let meant = dice.once_in(2).then(|| id(dice.pick(ENGINES)));
            let (orderly, force) = (dice.once_in(2), dice.once_in(4));
            world.ask(dice.pick(VOLUMES), Asked { number: 0, engine: meant, orderly, force });
        }
        _ => {}
    }
}

fn heal(world: &mut World) {
    for engine in ENGINES.chars() {
        world.start(engine);
        world.cut(engine, true);
        let node = world.nodes.get_mut(&id(engine)).unwrap();
        (node.deaf, node.fails, node.leaving) = (false, false, false);
    }
    // What nobody can have any more is not waited for.
    for volume in world.desired.volumes.values_mut() {
        volume.asked = None;
    }
}
