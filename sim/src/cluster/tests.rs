//! The cluster as a whole: one host, and what may happen to it.

use std::time::Duration;

use braid_nexus::Work;

use super::*;
use crate::random::Random;

const HOST: Uuid = [0x40; 16];
const BLOCK: u32 = 4096;

/// A host with one line to each node, which sends on the one that is optimized.
struct Driver {
    cluster: Cluster,
    lines: Vec<LineId>,
    tag: u64,
    /// Lost its power, and the record may not say so yet.
    cut: Option<u8>,
}

impl Driver {
    fn new(config: ClusterConfig) -> Self {
        let mut cluster = Cluster::new(config);
        for node in 0..3 {
            cluster.run_until_ready(node);
        }
        let lines = (0..3).map(|node| cluster.host_connect(0, node, 0, HOST, 0)).collect();
        let mut driver = Self { cluster, lines, tag: 0, cut: None };
        driver.run(Duration::from_millis(100));
        driver
    }

    fn run(&mut self, time: Duration) {
        let until = self.cluster.now() + time;
        self.cluster.run_until(until);
    }

    /// What one command came to on one line; none if nobody answers.
    fn once(&mut self, line: LineId, work: Work, data: &[u8]) -> Option<(Status, Vec<u8>)> {
        self.tag += 1;
        if !self.cluster.host_send(line, self.tag, work, data) {
            return None;
        }
        let patience = self.cluster.now() + Duration::from_secs(20);
        while self.cluster.next_at().is_some_and(|at| at < patience) {
            self.cluster.step();
            while let Some(happened) = self.cluster.poll() {
                let Happened::Host { line: by, event } = happened else { continue };
                match event {
                    HostEvent::Completed { tag, status, data, .. } if tag == self.tag => {
                        return Some((status, data.map_or(Vec::new(), |data| data.to_vec())));
                    }
                    HostEvent::Broken if by == line => return None,
                    _ => {}
                }
            }
        }
        // As a host does that waited too long.
        self.cluster.host_leave(line);
        None
    }

    /// Reads the ANA log of a line.
    fn is_optimized(&mut self, line: LineId) -> bool {
        self.tag += 1;
        self.cluster.host_read_ana(line, self.tag);
        let patience = self.cluster.now() + Duration::from_secs(5);
        while self.cluster.next_at().is_some_and(|at| at < patience) {
            self.cluster.step();
            while let Some(happened) = self.cluster.poll() {
                if let Happened::Host { event: HostEvent::Ana { tag, optimized }, .. } = happened
                    && tag == self.tag
                {
                    return optimized;
                }
            }
        }
        false
    }

    /// Sends a command where it is taken, again and again.
    fn at_last(&mut self, work: Work, data: &[u8]) -> (Status, Vec<u8>) {
        for round in 0..400 {
            if round == 20 {
                self.mend();
            }
            for at in 0..self.lines.len() {
                let line = self.lines[at];
                if !self.is_optimized(line) {
                    if !self.cluster.has_line(line) {
                        let node = u8::try_from(at).unwrap();
                        self.lines[at] = self.cluster.host_connect(0, node, 0, HOST, 0);
                    }
                    continue;
                }
                match self.once(line, work, data) {
                    None | Some((Status::Inaccessible, _)) => {}
                    Some(answer) => return answer,
                }
            }
            self.run(Duration::from_millis(100));
        }
        panic!("nobody takes {work:?}");
    }

    fn write(&mut self, block: u64, byte: u8) {
        let offset = block * u64::from(BLOCK);
        let work = Work::Write { offset, len: BLOCK, durable: false };
        let (status, _) = self.at_last(work, &[byte; BLOCK as usize]);
        assert_eq!(status, Status::Success);
    }

    fn flush(&mut self) {
        assert_eq!(self.at_last(Work::Flush, &[]).0, Status::Success);
    }

    fn read(&mut self, block: u64) -> u8 {
        let sectors = self.sectors(block);
        assert_eq!(sectors, vec![sectors[0]; sectors.len()], "a block of one write");
        sectors[0]
    }

    /// What a block's sectors say.
    fn sectors(&mut self, block: u64) -> Vec<u8> {
        let work = Work::Read { offset: block * u64::from(BLOCK), len: BLOCK };
        let (status, bytes) = self.at_last(work, &[]);
        assert_eq!((status, bytes.len()), (Status::Success, BLOCK as usize));
        let sectors = bytes.chunks_exact(512);
        assert!(sectors.clone().all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        sectors.map(|sector| sector[0]).collect()
    }

    /// What the disks hold of a block of the volume, by node.
    fn on_disks(&self, block: u64) -> Vec<Option<u8>> {
        let byte = |node| {
            let layers = self.cluster.look(node)?;
            let layer = layers.iter().find(|layer| layer.info.uuid == replica_uuid(0, node))?;
            Some(layer.blocks.get(&block).map_or(0, |bytes| bytes.as_ref().unwrap()[0]))
        };
        (0..3).map(byte).collect()
    }
}

fn story() -> Story {
    if std::env::var_os("STORY").is_some() { Story::Aloud } else { Story::Silent }
}

fn driver(seed: u64) -> Driver {
    Driver::new(ClusterConfig { story: story(), ..ClusterConfig::new(seed) })
}

#[test]
fn a_host_writes_flushes_and_reads_through_three_replicas() {
    let mut driver = driver(1);
    for block in 0..8 {
        driver.write(block, 1 + block as u8);
    }
    driver.flush();
    for block in 0..8 {
        assert_eq!(driver.read(block), 1 + block as u8);
        assert_eq!(driver.on_disks(block), vec![Some(1 + block as u8); 3]);
    }
    assert_eq!(driver.read(100), 0, "never written");
}

impl Driver {
    /// The node whose engine takes I/O.
    fn owner(&self) -> Option<u8> {
        (0..3).find(|node| self.cluster.is_optimized(*node, 0))
    }

    /// A node that is not the owner.
    fn other(&self) -> u8 {
        let owner = self.owner();
        (0..3).find(|node| Some(*node) != owner).unwrap()
    }

    /// Goes on until all replicas are members, and their engine takes I/O.
    fn whole(&mut self) {
        for _ in 0..600 {
            let is_whole = |record: &Record| record.members() == 0b111;
            if self.cluster.record(0).is_some_and(is_whole) && self.owner().is_some() {
                return;
            }
            self.run(Duration::from_millis(100));
        }
        panic!("not whole after a minute: {:?}", self.cluster.record(0));
    }

    fn members(&self) -> u8 {
        self.cluster.record(0).unwrap().members()
    }
}

#[test]
fn a_killed_owner_is_followed_by_another_and_nothing_acknowledged_is_lost() {
    for seed in 1..20 {
        let mut driver = driver(seed);
        (0..4).for_each(|block| driver.write(block, 10));
        driver.flush();
        driver.write(0, 11);
        let owner = driver.owner().unwrap();
        driver.cluster.crash_process(owner);
        assert_eq!(driver.read(0), 11, "seed {seed}");
        driver.write(1, 12);
        driver.cluster.restart(owner);
        driver.whole();
        assert_eq!((driver.read(0), driver.read(1), driver.read(2)), (11, 12, 10));
        for block in 0..4 {
            let disks = driver.on_disks(block);
            assert_eq!(disks, vec![disks[0]; 3], "seed {seed} block {block}");
        }
    }
}

#[test]
fn a_replica_without_power_is_excluded_and_comes_back_with_what_it_missed() {
    for seed in 1..20 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        driver.write(300, 2);
        let away = driver.other();
        driver.cluster.power_cut(away);
        driver.write(0, 3);
        driver.write(600, 4);
        assert_eq!(driver.members().count_ones(), 2, "seed {seed}");
        driver.cluster.restart(away);
        driver.whole();
        for (block, byte) in [(0, 3), (300, 2), (600, 4)] {
            assert_eq!(driver.read(block), byte);
            assert_eq!(driver.on_disks(block), vec![Some(byte); 3], "seed {seed}");
        }
    }
}

#[test]
fn an_owner_that_was_cut_off_stops_and_loses_nothing() {
    for seed in 1..20 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        let owner = driver.owner().unwrap();
        let others = [Place::Store, Place::Planner, Place::Host(0)].into_iter();
        let nodes = (0..3).filter(|node| *node != owner).map(Place::Node);
        for place in others.chain(nodes) {
            driver.cluster.partition(Place::Node(owner), place, false);
        }
        driver.write(0, 2);
        assert_eq!(driver.read(0), 2, "seed {seed}");
        driver.cluster.heal_all();
        driver.whole();
        assert_eq!(driver.read(0), 2);
        assert_eq!(driver.on_disks(0), vec![Some(2); 3]);
    }
}

#[test]
fn a_new_disk_gets_everything() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        (0..10).for_each(|block| driver.write(block * 90, 7));
        let node = driver.other();
        driver.cluster.wipe(node);
        driver.write(5, 8);
        driver.cluster.restart(node);
        driver.whole();
        (0..10).for_each(|block| assert_eq!(driver.on_disks(block * 90), vec![Some(7); 3]));
        assert_eq!(driver.on_disks(5), vec![Some(8); 3]);
    }
}

#[test]
fn a_paused_owner_takes_nothing_when_it_goes_on() {
    for seed in 1..20 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        let owner = driver.owner().unwrap();
        driver.cluster.pause(owner, Duration::from_secs(8));
        driver.write(0, 2);
        assert_eq!(driver.read(0), 2, "seed {seed}");
        driver.run(Duration::from_secs(10));
        assert_eq!(driver.read(0), 2, "seed {seed}");
        driver.whole();
        assert_eq!(driver.on_disks(0), vec![Some(2); 3]);
    }
}

#[test]
fn a_process_goes_on_after_any_pause() {
    for seed in 1..40 {
        let mut driver = driver(seed);
        let line = driver.lines[0];
        for block in 0..4 {
            driver.cluster.host_read_ana(line, 1000 + block);
            driver.run(Duration::from_micros(200 * seed));
            (0..3).for_each(|node| driver.cluster.pause(node, Duration::from_millis(3)));
            driver.run(Duration::from_millis(5));
        }
        driver.write(0, 1);
        assert_eq!(driver.on_disks(0), vec![Some(1); 3], "seed {seed}");
    }
}

#[test]
fn only_an_association_that_is_resumed_hides_that_a_member_lost_its_memory() {
    for plant in [None, Some(Plant::ResumeAssociation)] {
        let config = ClusterConfig { plant, story: story(), ..ClusterConfig::new(1) };
        let mut driver = Driver::new(config);
        driver.write(0, 1);
        let node = driver.other();
        let versions = |driver: &Driver| driver.cluster.record(0).unwrap().version;
        let before = versions(&driver);
        driver.cluster.power_cut(node);
        driver.cluster.restart(node);
        driver.write(1, 2);
        driver.run(Duration::from_secs(2));
        assert_eq!(versions(&driver) == before, plant.is_some(), "{plant:?}");
    }
}

#[test]
fn a_store_that_loses_requests_and_answers_holds_nobody_up_for_good() {
    for seed in 1..20 {
        let whims = Whims { lose_request_in: 3, lose_answer_in: 3, late_in: 5, ..Whims::default() };
        let config = ClusterConfig { whims, story: story(), ..ClusterConfig::new(seed) };
        let mut driver = Driver::new(config);
        driver.write(0, 1);
        let node = driver.other();
        driver.cluster.crash_process(node);
        driver.write(0, 2);
        driver.cluster.restart(node);
        driver.whole();
        assert_eq!(driver.read(0), 2);
        assert_eq!(driver.on_disks(0), vec![Some(2); 3], "seed {seed}");
    }
}

#[test]
fn a_restored_store_is_followed_when_it_was_recovered() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        let node = driver.other();
        driver.cluster.crash_process(node);
        driver.write(0, 2);
        driver.cluster.restart(node);
        driver.whole();
        let commits = driver.cluster.commits().len();
        driver.cluster.restore_store(commits - 2, seed % 2 == 0);
        let owner = driver.owner().unwrap();
        driver.cluster.crash_process(owner);
        driver.cluster.restart(owner);
        assert_eq!(driver.read(0), 2, "seed {seed}");
        driver.whole();
    }
}

#[test]
fn an_owner_does_not_go_on_under_a_record_that_is_older_than_itself() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        let node = driver.other();
        driver.cluster.crash_process(node);
        driver.write(0, 2);
        driver.cluster.restart(node);
        driver.whole();
        // The same owner, but one that had just excluded somebody: it does not know that, and
        // has nothing to change.
        let excluded = |record: &Record| record.members().count_ones() == 2;
        let commits = driver.cluster.commits();
        let commits = 1 + commits.iter().rposition(|(_, record)| excluded(record)).unwrap();
        driver.cluster.restore_store(commits, seed % 2 == 0);
        driver.whole();
        assert_eq!(driver.read(0), 2, "seed {seed}");
    }
}

#[test]
fn a_store_that_is_lost_again_before_anybody_serves_is_recovered_all_the_same() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        driver.whole();
        // Recovered, and claimed, but one is not there who has to be fenced.
        let node = driver.other();
        driver.run(Duration::from_secs(2));
        driver.cluster.lose_store();
        driver.run(Duration::from_millis(300));
        driver.cluster.crash_process(node);
        driver.run(Duration::from_secs(3));
        driver.cluster.lose_store();
        driver.cluster.restart(node);
        driver.whole();
        assert_eq!(driver.read(0), 1, "seed {seed}");
    }
}

#[test]
fn all_nodes_without_power_keep_what_was_flushed() {
    for seed in 1..20 {
        let mut driver = driver(seed);
        (0..6).for_each(|block| driver.write(block, 5));
        driver.flush();
        driver.write(0, 6);
        (0..3).for_each(|node| driver.cluster.power_cut(node));
        driver.run(Duration::from_secs(1));
        (0..3).for_each(|node| driver.cluster.restart(node));
        (1..6).for_each(|block| assert_eq!(driver.read(block), 5, "seed {seed}"));
        let first = driver.sectors(0);
        assert!(first.iter().all(|byte| matches!(byte, 5 | 6)), "seed {seed}: {first:?}");
        let record = driver.cluster.record(0).unwrap();
        assert!(record.lossy.is_some(), "acknowledged writes may be gone");
    }
}

#[test]
fn a_node_that_stops_in_order_is_the_same_member_after_its_machine_started_anew() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        let node = driver.other();
        let instance = |driver: &Driver| driver.cluster.record(0).unwrap().instance(node);
        let before = instance(&driver);
        driver.cluster.stop_process(node);
        driver.run(Duration::from_secs(2));
        assert!(!driver.cluster.is_running(node), "seed {seed}");
        driver.write(0, 2);
        driver.cluster.power_cut(node);
        driver.cluster.restart(node);
        driver.whole();
        assert_eq!(instance(&driver), before, "seed {seed}");
        assert_eq!(driver.on_disks(0), vec![Some(2); 3], "seed {seed}");
    }
}

#[test]
fn a_volume_made_of_a_snapshot_has_what_was_there_then() {
    for seed in 1..10 {
        let mut driver = driver(seed);
        driver.write(0, 1);
        driver.write(300, 2);
        let snapshot = [0x55; 16];
        let owner = driver.owner().unwrap();
        let command = Command::Snapshot { uuid: snapshot };
        driver.cluster.command(owner, 0, command).unwrap();
        driver.run(Duration::from_secs(2));
        driver.write(0, 3);
        let volume = driver.cluster.clone_volume(0, &snapshot).unwrap();
        driver.run(Duration::from_secs(2));
        assert!(driver.cluster.record(volume).is_some(), "seed {seed}");
        driver.lines.clone().into_iter().for_each(|line| driver.cluster.host_leave(line));
        driver.lines =
            (0..3).map(|node| driver.cluster.host_connect(0, node, volume, HOST, 0)).collect();
        driver.run(Duration::from_millis(100));
        assert_eq!((driver.read(0), driver.read(300), driver.read(5)), (1, 2, 0), "seed {seed}");
        driver.write(5, 4);
        assert_eq!((driver.read(5), driver.on_disks(5)), (4, vec![Some(0); 3]));
    }
}

#[test]
fn a_seed_is_one_run() {
    let run = |seed| {
        let mut driver = driver(seed);
        driver.write(3, 1);
        driver.cluster.power_cut(0);
        driver.write(4, 2);
        driver.cluster.restart(0);
        driver.whole();
        let commits: Vec<u64> =
            driver.cluster.commits().iter().map(|(_, record)| record.version).collect();
        (driver.cluster.now(), driver.cluster.happened(), driver.cluster.packets(), commits)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7).1, run(8).1);
}

/// A place that a fault may cut off.
fn some_place(random: &mut Random) -> Place {
    match random.below(8) {
        0 => Place::Store,
        1 => Place::Planner,
        _ => Place::Node(u8::try_from(random.below(3)).unwrap()),
    }
}

impl Driver {
    /// Everything that can be made good is.
    fn mend(&mut self) {
        self.cluster.heal_all();
        (0..3).for_each(|node| self.cluster.restart(node));
    }

    /// Something goes wrong, or right again.
    fn disturb(&mut self, random: &mut Random) {
        let node = u8::try_from(random.below(3)).unwrap();
        let members = self.members();
        self.cut = self.cut.filter(|node| members >> node & 1 == 1);
        let whole = members == 0b111 && self.cut.is_none();
        let cluster = &mut self.cluster;
        match random.below(12) {
            0 | 1 => cluster.crash_process(node),
            // What one node loses the others have, if they are members.
            2 if whole => {
                cluster.power_cut(node);
                self.cut = Some(node);
            }
            3..=5 => (0..3).for_each(|node| cluster.restart(node)),
            6 | 7 => {
                let (one, other) = (some_place(random), some_place(random));
                if one != other {
                    cluster.partition(one, other, random.once_in(2));
                }
            }
            8 | 9 => cluster.heal_all(),
            10 => cluster.pause(node, Duration::from_millis(random.within(10, 6000))),
            _ => drop(cluster.disk_fault(node, DiskFault::Stall(Duration::from_secs(4)))),
        }
    }
}

/// One host writes and reads while everything fails, one command at a time: what it reads is what
/// it wrote last.
fn soak(seed: u64) -> (u64, Duration) {
    println!("seed {seed}");
    let mut random = Random::part(seed, 77);
    let noise = |random: &mut Random| if random.once_in(2) { 0 } else { random.within(8, 300) };
    let weather = Weather {
        slow_in: noise(&mut random),
        reset_in: noise(&mut random) * 4,
        half_open_in: noise(&mut random) / 4,
        ..Weather::default()
    };
    let whims = Whims {
        lose_request_in: noise(&mut random) / 4,
        lose_answer_in: noise(&mut random) / 4,
        late_in: noise(&mut random) / 4,
        ..Whims::default()
    };
    let temper = Temper { doubt_in: noise(&mut random), ..Temper::default() };
    let config =
        ClusterConfig { weather, whims, temper, story: story(), ..ClusterConfig::new(seed) };
    let mut driver = Driver::new(config);
    let mut written = BTreeMap::new();
    for step in 0..60_u64 {
        if random.once_in(3) {
            driver.disturb(&mut random);
        }
        if step % 20 == 19 {
            driver.mend();
        }
        let block = *random.pick(&[0, 1, 255, 256, 300, 511, 700]);
        match random.below(8) {
            0..=3 => {
                let byte = 1 + u8::try_from(step).unwrap();
                driver.write(block, byte);
                written.insert(block, byte);
            }
            4..=6 => {
                let expected = written.get(&block).copied().unwrap_or(0);
                let read = driver.read(block);
                assert_eq!(read, expected, "seed {seed} step {step} block {block}");
            }
            _ => driver.flush(),
        }
    }
    driver.mend();
    driver.cluster.set_weather(Weather::default());
    driver.cluster.set_whims(Whims::default());
    driver.cluster.set_temper(Temper::default());
    driver.whole();
    for (block, byte) in written {
        assert_eq!(driver.read(block), byte, "seed {seed} at the end, block {block}");
        assert_eq!(driver.on_disks(block), vec![Some(byte); 3], "seed {seed} block {block}");
    }
    (driver.cluster.happened(), driver.cluster.now().since(Instant::ZERO))
}

#[test]
fn one_host_reads_what_it_wrote_whatever_fails() {
    let number = |name, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let first = number("FIRST", 1);
    for seed in first..first + number("SEEDS", 20) {
        let begun = std::time::Instant::now();
        let (events, virtual_time) = soak(seed);
        let real = begun.elapsed().as_secs_f64();
        println!(
            "{events} events in {real:.2} s, {:.0} s of virtual time",
            virtual_time.as_secs_f64()
        );
    }
}
