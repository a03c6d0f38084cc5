//! Who may do what to a namespace: reservations and asymmetric access, asked for and changed in any
//! order, with a model of both beside the shard.
//!
//! Three associations of two hosts reach one subsystem with a namespace in memory and one on a
//! disk, each in an ANA group of its own. Checked after every step:
//! 1. A command of I/O ends as its path's state, the epoch and the reservations say, in this order.
//! 2. A command about reservations ends as the same commands one after another would, and a report
//!    says what is in force; what could not be kept is not.
//! 3. The ANA log is one that Linux takes, says what was set, and each host heard of it.
//! 4. A preempt with abort that succeeded left no command of its victims at work.

use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, Instant, Key, Memory};
use braid_nvme::Status;
use braid_nvme::ana::{ANA_LOG, ANA_TRANSITION_SECONDS, AnaState};
use braid_nvme::command::{Command, io};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{self, Operation, ReservationReport, ReservationType, Submission};
use braid_nvme::target::reservation::{Keys, ReservationCommand, Reservations};
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{
    AnaChange, BackendConfig, Config, Disk, Effect, Event, HostConfig, Limits, NamespaceConfig,
    Note, Paths, Shard, SubsystemConfig,
};

use crate::arena::Arena;
use crate::input::Input;
use crate::kernel::{BLOCKS, Kernel};

const SUBSYSTEM: &str = "nqn.2026-01.io.braid:access";
/// Whose association each is: the first and the last are two paths of one host.
const HOSTS: [[u8; 16]; 3] = [[1; 16], [2; 16], [1; 16]];
/// Steps of a run.
const STEPS_MAX: usize = 64;
const ARENA_BYTES: u64 = 2 << 20;
const TRANSITION: Duration = Duration::from_secs(ANA_TRANSITION_SECONDS as u64);
const DATA: usize = Class::Small.bytes() as usize;

/// Each step is a byte that says what happens, and the bytes that it happens with.
pub fn access(bytes: &[u8]) {
    walk(bytes);
}

/// Returns how many commands ended with success.
fn walk(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.check_views();
    }
    world.finish();
    world.served
}

/// One association, as its user sees it.
struct Association {
    key: Option<Key>,
    /// The last epoch in which it is known to the target.
    seen: u64,
    /// What it believes of the namespaces' access.
    access: Vec<AnaState>,
}

/// A write that the disk still has: whose, and its number.
struct Stuck {
    host: usize,
    cookie: u64,
    allowed: Status,
}

struct World {
    shard: Shard,
    arena: Arena,
    kernel: Kernel,
    now: Instant,
    hosts: [Association; 3],
    cookie: u64,
    /// Commands that ended: number, status, data.
    ended: Vec<(u64, Status, Vec<u8>)>,
    stuck: Option<Stuck>,
    /// Whose stuck write it was, if the last command ended before that.
    overtaken: Option<[u8; 16]>,
    /// Whether what persists can be kept now.
    keeps: bool,
    drained: bool,
    served: usize,
    // The model.
    reservations: [Reservations; 2],
    states: [AnaState; 2],
    changing: [Option<Instant>; 2],
    epoch: u64,
}

impl World {
    fn new() -> Self {
        let association = || Association { key: None, seen: 0, access: Vec::new() };
        let mut world = Self {
            shard: Shard::new(config()),
            arena: Arena::new(ARENA_BYTES),
            kernel: Kernel::new(),
            now: Instant::from_nanos(1 << 30),
            hosts: [association(), association(), association()],
            cookie: 0,
            ended: Vec::new(),
            stuck: None,
            overtaken: None,
            keeps: true,
            drained: false,
            served: 0,
            reservations: [Reservations::new(false), Reservations::new(true)],
            states: [AnaState::Optimized; 2],
            changing: [None; 2],
            epoch: 0,
        };
        world.handle(Event::Start { boot_id: [0; 16], seed: 3 });
        (0..3).for_each(|host| world.open(host));
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let host = usize::from(choice >> 4 & 3) % 3;
        let namespace = usize::from(choice >> 6 & 1);
        match choice & 15 {
            0..=6 => self.reserve(host, namespace, input),
            7..=9 => self.io(host, namespace, input.byte()),
            10 => self.get_stuck(host),
            11 => self.read_log(host, input.byte()),
            12 => self.set_state(namespace, input.byte()),
            13 => {
                self.epoch = u64::from(input.byte() & 3);
                assert!(self.shard.ana_epoch(SUBSYSTEM, self.epoch));
            }
            14 => self.wait(Duration::from_millis(100 * u64::from(input.byte()))),
            _ if choice & 128 == 0 => self.keeps = input.byte() & 1 == 0,
            _ => self.reopen(host),
        }
    }

    // === Commands ===

    /// How a command to this namespace would be refused by its path.
    fn path(&self, host: usize, namespace: usize) -> Option<Status> {
        let unseen = self.epoch != 0 && self.hosts[host].seen != self.epoch;
        self.states[namespace].refusal().or(unseen.then_some(Status::ANA_INACCESSIBLE))
    }

    fn reserve(&mut self, host: usize, namespace: usize, input: &mut Input<'_>) {
        let (what, how, keys) = (input.byte(), input.byte(), input.byte());
        let opcodes = [
            io::RESERVATION_REGISTER,
            io::RESERVATION_ACQUIRE,
            io::RESERVATION_RELEASE,
            io::RESERVATION_REPORT,
        ];
        let opcode = opcodes[usize::from(what & 3)];
        let mut command = Command::new(opcode, u32::try_from(namespace).unwrap_or(0) + 1);
        // Action and IEKEY, type, CPTPL; of a report how much, and EDS.
        let persists = u32::from(what >> 6) << 30;
        let report = opcode == io::RESERVATION_REPORT;
        let cdw10 = u32::from(how & 15) | u32::from(how >> 4 & 7) << 8 | persists;
        command.set_cdw(10, if report { u32::from(how) + 15 } else { cdw10 });
        command.set_cdw(11, u32::from(report && what & 32 == 0));
        let keys = Keys { current: u64::from(keys & 3), other: u64::from(keys >> 2 & 3) };
        let len = if report { (usize::from(how) + 16) * 4 } else { 16 };
        let (status, data) = self.run(host, Operation::Vendor(command), &keys.to_bytes(), len);
        if let Some(refusal) = self.path(host, namespace) {
            return assert_eq!(status, refusal, "{command:?}");
        }
        let parsed = match ReservationCommand::parse(&command) {
            Ok(parsed) => parsed,
            Err(refusal) => return assert_eq!(status, refusal, "{command:?}"),
        };
        if let ReservationCommand::Report { .. } = parsed {
            assert_eq!(status, Status::SUCCESS);
            return self.check_report(namespace, &data);
        }
        let mut next = self.reservations[namespace].clone();
        let keys = match parsed {
            ReservationCommand::Release(_) => Keys { other: 0, ..keys },
            _ => keys,
        };
        match next.apply(&HOSTS[host], parsed, keys) {
            Err(refusal) => assert_eq!(status, refusal, "{parsed:?}"),
            Ok(_) if !self.keeps && next.parts() != self.reservations[namespace].parts() => {
                assert!(status.is(Status::INTERNAL_ERROR), "{parsed:?}: {status}");
            }
            Ok(outcome) => {
                assert_eq!(status, Status::SUCCESS, "{parsed:?}");
                let overtaken = self.overtaken.filter(|_| namespace == 1);
                let aborted = overtaken.is_some_and(|host| outcome.aborted.contains(&host));
                assert!(!aborted, "a command of its victim is at work");
                self.reservations[namespace] = next;
            }
        }
    }

    fn check_report(&self, namespace: usize, data: &[u8]) {
        let known = &self.reservations[namespace];
        let report = ReservationReport::parse(data).expect("a report");
        assert_eq!((report.kind, report.persists), (known.kind(), known.persists()));
        let its = |host: &[u8; 16]| HOSTS.iter().filter(|other| *other == host).count();
        let entries: usize = known.registrants().iter().map(|one| its(&one.host)).sum();
        assert_eq!(usize::from(report.entries), entries);
        assert_eq!(report.registrants.len(), entries.min(data.len() / 64 - 1));
        for told in &report.registrants {
            let one = known.registrants().iter().find(|one| one.host == told.host);
            assert_eq!(one.expect("a registrant").key, told.key);
            assert_eq!(told.holds, known.is_held_by(&told.host));
        }
    }

    /// Base 7.1, figure of the reservation types: who may do what.
    fn permits(&self, namespace: usize, host: &[u8; 16], writes: bool) -> bool {
        use ReservationType::{
            ExclusiveAccess, ExclusiveAccessAll, ExclusiveAccessRegistrants, WriteExclusive,
            WriteExclusiveAll, WriteExclusiveRegistrants,
        };
        let known = &self.reservations[namespace];
        let registrant = known.registrants().iter().any(|one| one.host == *host);
        match known.kind() {
            None => true,
            Some(WriteExclusive) => !writes || known.is_held_by(host),
            Some(ExclusiveAccess) => known.is_held_by(host),
            Some(WriteExclusiveRegistrants | WriteExclusiveAll) => !writes || registrant,
            Some(ExclusiveAccessRegistrants | ExclusiveAccessAll) => registrant,
        }
    }

    /// How a command of I/O ends.
    fn expected(&self, host: usize, namespace: usize, writes: bool) -> Status {
        let conflict = (!self.permits(namespace, &HOSTS[host], writes))
            .then_some(Status::RESERVATION_CONFLICT.dnr());
        self.path(host, namespace).or(conflict).unwrap_or(Status::SUCCESS)
    }

    fn io(&mut self, host: usize, namespace: usize, choice: u8) {
        let lba = u64::from(choice >> 3) % BLOCKS;
        let (operation, writes, len) = match choice & 3 {
            0 => (Operation::Read { lba, blocks: 1 }, false, 512),
            1 => (Operation::Write { lba, blocks: 1, durable: choice & 4 != 0 }, true, 512),
            2 => (Operation::WriteZeroes { lba, blocks: 1, deallocate: choice & 4 != 0 }, true, 0),
            _ => (Operation::Flush, true, 0),
        };
        let expected = self.expected(host, namespace, writes);
        let (status, _) = self.run_at(host, namespace, operation, &[], len);
        assert_eq!(status, expected, "{operation:?} of {host} to {namespace}");
    }

    /// A write that the disk keeps for a while.
    fn get_stuck(&mut self, host: usize) {
        if self.stuck.is_some() {
            return;
        }
        let allowed = self.expected(host, 1, true);
        let write = Operation::Write { lba: 0, blocks: 1, durable: false };
        let cookie = self.submit(host, 1, write, &[], 512);
        self.converse(false);
        self.stuck = Some(Stuck { host, cookie, allowed });
    }

    fn read_log(&mut self, host: usize, choice: u8) {
        let groups_only = choice & 1 != 0;
        let len = [16, 64, 80, 88, 512][usize::from(choice >> 1) % 5];
        let retain = choice & 128 != 0;
        let bytes = u32::try_from(len).expect("a small log");
        let mut command = host::get_log_page(ANA_LOG, u32::MAX, 0, bytes, retain);
        let cdw10 = command.cdw(10) | u32::from(groups_only) << 8;
        command.set_cdw(10, cdw10);
        let (status, data) = self.run(host, Operation::Admin(command), &[], len);
        assert_eq!(status, Status::SUCCESS);
        let whole = 16 + 2 * 32 + if groups_only { 0 } else { 2 * 4 };
        if len >= whole {
            self.check_log(&data, groups_only);
            if self.states == [AnaState::Optimized; 2] {
                self.hosts[host].seen = self.epoch;
            }
        }
    }

    /// What Linux checks before it believes a log, and what was set.
    fn check_log(&self, log: &[u8], groups_only: bool) {
        let number = |at: usize| u32::from_le_bytes(*log[at..].first_chunk().expect("4 bytes"));
        assert_eq!(u16::from_le_bytes([log[8], log[9]]), 2, "NGRPS");
        let mut at = 16;
        for (group, state) in (1..).zip(self.states) {
            let listed = if groups_only { 0 } else { 1 };
            assert_eq!((number(at), number(at + 4)), (group, listed), "group, NNSIDS");
            assert_eq!(AnaState::from_wire(log[at + 16]), Some(state), "the state of {group}");
            at += 32;
            if !groups_only {
                assert_eq!(number(at), group, "the one namespace of its group");
                at += 4;
            }
        }
    }

    // === What the management does, and time ===

    fn set_state(&mut self, namespace: usize, choice: u8) {
        let state = AnaState::ALL[usize::from(choice & 7) % 5];
        let group = u32::try_from(namespace).unwrap_or(0) + 1;
        let listener = [None, Some(0), Some(1)][usize::from(choice >> 3) % 3];
        let change = AnaChange { subsystem: SUBSYSTEM, group, listener, state };
        let known = self.shard.ana_set(&mut self.arena, self.now, &change);
        assert_eq!(known, listener != Some(1), "there is one listener");
        if known && self.states[namespace] != state {
            self.states[namespace] = state;
            self.changing[namespace] = (state == AnaState::Change).then(|| self.now + TRANSITION);
            self.told();
        }
        let unknown = AnaChange { group: 3, ..change };
        assert!(!self.shard.ana_set(&mut self.arena, self.now, &unknown), "there are two groups");
        self.converse(false);
    }

    /// Every host reads the log because it was told of a change.
    fn told(&mut self) {
        if self.states == [AnaState::Optimized; 2] {
            self.hosts.iter_mut().for_each(|host| host.seen = self.epoch);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.turn();
        self.now = self.now + time;
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.handle(Event::Elapsed);
        }
        for (state, until) in self.states.iter_mut().zip(&mut self.changing) {
            if until.take_if(|until| *until <= self.now).is_some() {
                *state = AnaState::Inaccessible;
            }
        }
        self.converse(true);
        self.unstick();
    }

    /// An association ends in order and is made anew: its host stays a registrant.
    fn reopen(&mut self, host: usize) {
        self.settle();
        let key = self.hosts[host].key.expect("it is open");
        self.shard.host_close(&mut self.arena, self.now, key);
        self.converse(true);
        assert!(self.hosts[host].key.is_none(), "it ended");
        self.open(host);
    }

    // === The world's machinery ===

    fn open(&mut self, host: usize) {
        let name = |text: &str| Nqn::parse(text).expect("a name");
        let hostid = HOSTS[host];
        let hostnqn = name(&format!("nqn.2014-08.org.nvmexpress:uuid:{}", hostid[0]));
        let controller = host::Config {
            kato: Duration::ZERO,
            ..host::Config::new(name(SUBSYSTEM), hostnqn, hostid)
        };
        self.hosts[host].key =
            self.shard.host_open(self.now, HostConfig { address: 0, controller });
        self.converse(true);
        assert_eq!(self.hosts[host].access.len(), 2, "it is live");
        let optimized = self.states == [AnaState::Optimized; 2];
        self.hosts[host].seen = if optimized { self.epoch } else { 0 };
    }

    fn submit(
        &mut self,
        host: usize,
        namespace: usize,
        operation: Operation,
        data: &[u8],
        len: usize,
    ) -> u64 {
        let lease = (len > 0).then(|| self.arena.alloc(Class::Small).expect("a small arena"));
        if let Some(lease) = &lease {
            self.arena.bytes_mut(lease)[..DATA].fill(0);
            self.arena.bytes_mut(lease)[..data.len()].copy_from_slice(data);
        }
        self.cookie += 1;
        let nsid = u32::try_from(namespace).unwrap_or(0) + 1;
        let len = u32::try_from(len).expect("small data");
        let submission = Submission { operation, nsid, lease, len, cookie: self.cookie, queue: 0 };
        let key = self.hosts[host].key.expect("it is open");
        let taken = self.shard.host_submit(&mut self.arena, self.now, key, submission);
        assert!(taken.is_ok(), "a live association takes it");
        self.cookie
    }

    /// One command of an association to its end; commands that the disk has are held until it is
    /// decided what becomes of them.
    fn run_at(
        &mut self,
        host: usize,
        namespace: usize,
        operation: Operation,
        data: &[u8],
        len: usize,
    ) -> (Status, Vec<u8>) {
        let cookie = self.submit(host, namespace, operation, data, len);
        self.converse(false);
        let over = |cookie| self.ended.iter().any(|(ended, ..)| *ended == cookie);
        let waits = self.stuck.as_ref().filter(|stuck| !over(stuck.cookie));
        self.overtaken = waits.filter(|_| over(cookie)).map(|stuck| HOSTS[stuck.host]);
        self.settle();
        let at = self.ended.iter().position(|(ended, ..)| *ended == cookie);
        let (_, status, data) = self.ended.swap_remove(at.expect("it ended"));
        assert!(self.ended.is_empty(), "commands end once");
        self.served += usize::from(status.is_success());
        (status, data.into_iter().take(len).collect())
    }

    fn run(
        &mut self,
        host: usize,
        operation: Operation,
        data: &[u8],
        len: usize,
    ) -> (Status, Vec<u8>) {
        self.run_at(host, 0, operation, data, len)
    }

    /// Everything that can go on goes on, the disk too.
    fn settle(&mut self) {
        self.converse(true);
        self.unstick();
    }

    fn unstick(&mut self) {
        let Some(Stuck { cookie, allowed, .. }) = self.stuck.take() else { return };
        let at = self.ended.iter().position(|(ended, ..)| *ended == cookie).expect("it ended");
        let (_, status, _) = self.ended.swap_remove(at);
        let aborted = status.is(Status::ABORTED_BY_PREEMPT);
        assert!(status == allowed || aborted, "{status}, and was {allowed}");
    }

    fn converse(&mut self, disk: bool) {
        for _ in 0..400 {
            self.kernel.connect(Ok(()));
            if disk {
                self.kernel.complete_operation(&mut self.arena, 0, Ok(()));
            }
            let sockets: Vec<u32> = self.kernel.sockets.keys().copied().collect();
            for socket in sockets {
                self.kernel.complete_send(&self.arena, socket, Ok(()));
                self.kernel.deliver(&mut self.arena, socket, usize::MAX);
            }
            self.turn();
            if !self.kernel.is_busy(disk) && !self.shard.has_work() {
                return;
            }
        }
    }

    fn turn(&mut self) {
        while let Some(event) = self.kernel.events.pop_front() {
            self.handle(event);
        }
        self.shard.end_turn(&mut self.arena, self.now);
        while let Some(effect) = self.shard.poll_effect() {
            match effect {
                Effect::Note(Note::Drained) => self.drained = true,
                Effect::Note(Note::Reservations { tag }) => {
                    let (uuid, _) = self.shard.reservations_to_keep(tag).expect("what to keep");
                    assert_eq!(*uuid, [102; 16], "memory persists nothing");
                    let keeps = self.keeps;
                    self.shard.reservations_kept(&mut self.arena, self.now, tag, keeps);
                }
                effect => self.kernel.submit(&self.arena, &self.shard, effect),
            }
        }
        while let Some((key, event)) = self.shard.host_poll() {
            self.hear(key, event);
        }
    }

    fn handle(&mut self, event: Event) {
        self.shard.handle(&mut self.arena, self.now, event);
    }

    fn hear(&mut self, key: Key, event: host::Event) {
        let host = self.hosts.iter_mut().find(|host| host.key == Some(key));
        let host = host.expect("an association that is open");
        match event {
            host::Event::Live(live) => {
                host.access = live.namespaces.iter().map(|one| one.access).collect();
            }
            host::Event::Completed(host::Completed { cookie, status, lease, .. }) => {
                let data = lease.as_ref().map(|lease| self.arena.bytes(lease).to_vec());
                self.ended.push((cookie, status, data.unwrap_or_default()));
                if let Some(lease) = lease {
                    self.arena.free(lease);
                }
            }
            host::Event::Closed => host.key = None,
            host::Event::Lost { why, .. } => panic!("nobody cuts it: {why}"),
            host::Event::Discovered(_) => panic!("no discovery was asked for"),
        }
    }

    /// Every host believes what was set.
    fn check_views(&self) {
        for host in &self.hosts {
            assert_eq!(host.access, self.states, "a host was not told");
        }
    }

    fn finish(&mut self) {
        self.settle();
        self.shard.stop(&mut self.arena, self.now);
        for _ in 0..100 {
            self.converse(true);
            if self.drained {
                break;
            }
            self.now = self.shard.poll_timeout().unwrap_or(self.now).max(self.now);
            self.handle(Event::Elapsed);
        }
        assert!(self.drained, "stopped, but never drained: {:?}", self.shard);
        self.shard.drop_leases(&mut self.arena);
        assert_eq!((self.shard.ops(), self.arena.leased()), (0, 0), "commands or leases lost");
    }
}

fn config() -> Config {
    let namespace = |nsid: u8, backend, reservations| NamespaceConfig {
        nsid: u32::from(nsid),
        ana_group: u32::from(nsid),
        nguid: [nsid; 16],
        uuid: [nsid + 100; 16],
        geometry: Geometry { block: BlockSize::B512, blocks: BLOCKS },
        backend,
        reservations,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let disk = BackendConfig::Disk { disk: Disk(0), discards: true, atomic_blocks: 1 };
    let kept = Some(Box::new(Reservations::new(true)));
    Config {
        shard: 0,
        shards: 1,
        subsystems: vec![SubsystemConfig {
            home: 0,
            nqn: SUBSYSTEM.into(),
            serial: "access".into(),
            allowed_hosts: Vec::new(),
            controllers: ControllerModel::Dynamic,
            paths: Paths::default(),
            header_digest: true,
            data_digest: true,
            namespaces: vec![namespace(1, BackendConfig::Memory, None), namespace(2, disk, kept)],
        }],
        portals: vec![Portal { id: 1, address: "127.0.0.1:4420".parse().expect("an address") }],
        limits: Limits {
            connections_max: 16,
            controllers_max: 4,
            ops_max: 32,
            effects_max: 256,
            arena_bytes: ARENA_BYTES,
            ..Limits::default()
        },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_are_served() {
        let seeds = crate::seeds::all();
        let mut seen = 0;
        for seed in seeds.iter().filter(|seed| seed.target == "access") {
            let served = super::walk(&seed.bytes);
            assert!(served >= 2, "{}: {served}", seed.name);
            seen += 1;
        }
        assert!(seen >= 4);
    }
}
