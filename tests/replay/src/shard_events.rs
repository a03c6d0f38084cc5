//! What may happen to a shard: anything that a kernel, a host and strangers can do, in any order.
//!
//! One shard is both ends: its host side connects to its target side through a kernel in memory,
//! and reads and writes two namespaces, one in memory, one on a disk with a volatile cache.
//! Checked throughout:
//! 1. Reads return what some order of the writes allows; a flush or FUA keeps its promise.
//! 2. Every command ends once, every effect with a token is answered once, no lease is lost.
//! 3. A buffer is not changed while it is being sent; no operation leaves the disk.
//! 4. After a stop the shard comes to rest, whatever happened before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use braid_block::{BlockSize, Class, Geometry, Instant, IoError, Key, Lease, Memory};
use braid_nvme::Status;
use braid_nvme::connect::Nqn;
use braid_nvme::host::{self, Completed, Operation, Submission};
use braid_nvme::pdu::Digests;
use braid_nvme::target::{ControllerModel, Portal};
use braid_shard::{
    BackendConfig, Config, Disk, Effect, Event, Fault, HostConfig, Injection, Limits,
    NamespaceConfig, Note, Operation as Injected, Paths, Shard, SubsystemConfig,
};

use crate::arena::Arena;
use crate::input::Input;
use crate::kernel::{BLOCK, BLOCKS, Kernel, read_stamp, stamp};
use crate::oracle::Oracle;

const SUBSYSTEM: &str = "nqn.2026-01.io.braid:world";
/// The namespace on the disk; 1 is in memory.
const ON_DISK: u32 = 2;
/// Steps of a run. Longer ones find no more, and keep the fuzzer from trying short ones.
const STEPS_MAX: usize = 128;
/// Small, so that commands have to wait for buffers.
const ARENA_BYTES: u64 = 1 << 20;

/// The first byte chooses options; then each step is a byte that says what happens, and what it
/// needs.
pub fn shard_events(bytes: &[u8]) {
    walk(bytes);
}

/// Returns how many commands ended with success.
fn walk(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.byte());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.finish();
    world.served
}

struct World {
    shard: Shard,
    arena: Arena,
    kernel: Kernel,
    now: Instant,
    options: u8,
    host: Option<Key>,
    strangers: Vec<u32>,
    commands: BTreeMap<u64, Command>,
    cookie: u64,
    /// What a namespace may say, by its id less one.
    oracles: [Oracle; 2],
    /// Writes of an association that was lost: they end when the next one begins.
    limbo: Vec<(usize, usize)>,
    drained: bool,
    served: usize,
}

/// A command in work.
struct Command {
    namespace: usize,
    first: u64,
    count: u64,
    since: u64,
    what: What,
}

enum What {
    Read,
    Write { number: usize, durable: bool },
    Flush,
}

impl World {
    fn new(options: u8) -> Self {
        let mut world = Self {
            shard: Shard::new(config()),
            arena: Arena::new(ARENA_BYTES),
            kernel: Kernel::new(),
            now: Instant::from_nanos(1 << 30),
            options,
            host: None,
            strangers: Vec::new(),
            commands: BTreeMap::new(),
            cookie: 0,
            oracles: [Oracle::new(), Oracle::new()],
            limbo: Vec::new(),
            drained: false,
            served: 0,
        };
        world.handle(Event::Start { boot_id: [0; 16], seed: 3 });
        world.open_host();
        world.turn();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let which = usize::from(choice >> 4 & 7);
        match choice & 15 {
            // A disk that is stuck holds nothing else up.
            0 => self.converse(which == 0),
            1 => self.deliver(which, 1 + usize::from(input.byte())),
            2 => self.complete_send(which, Ok(())),
            3 => self.complete_operation(which, Ok(())),
            4 => self.complete_operation(which, Err(failure(input.byte()))),
            5..=7 => self.submit(input),
            8 => self.strangers.push(self.kernel.stranger()),
            9 => self.intrude(which, input),
            10 => self.wait(Duration::from_millis(20 * u64::from(input.byte()))),
            11 => self.cut(which),
            12 => self.complete_send(which, Err(IoError::Reset)),
            13 => self.interfere(input.byte()),
            14 => self.inject(input),
            _ => self.kernel.connect(if which == 7 { Err(IoError::Refused) } else { Ok(()) }),
        }
        // Half of the time several things happen in one turn.
        if choice & 128 == 0 {
            self.turn();
        }
    }

    /// Everything that can go on goes on, until nothing does; the disk if it is said to.
    fn converse(&mut self, disk: bool) {
        for _ in 0..400 {
            self.kernel.connect(Ok(()));
            if disk {
                self.complete_operation(0, Ok(()));
            }
            let sockets: Vec<u32> = self.kernel.sockets.keys().copied().collect();
            for socket in sockets {
                self.kernel.complete_send(&self.arena, socket, Ok(()));
                self.kernel.deliver(&mut self.arena, socket, usize::MAX);
            }
            self.turn();
            if !self.kernel.is_busy(disk) && !self.shard.has_work() {
                break;
            }
        }
    }

    /// What a shell does in a turn: events, the end of it, effects; then what it tells its user.
    fn turn(&mut self) {
        while let Some(event) = self.kernel.events.pop_front() {
            self.handle(event);
        }
        self.shard.end_turn(&mut self.arena, self.now);
        while let Some(effect) = self.shard.poll_effect() {
            if let Effect::Note(Note::Drained) = effect {
                self.drained = true;
            }
            self.kernel.submit(&self.arena, &self.shard, effect);
        }
        while let Some((host, event)) = self.shard.host_poll() {
            self.on_host(host, event);
        }
    }

    fn handle(&mut self, event: Event) {
        self.shard.handle(&mut self.arena, self.now, event);
    }

    /// The `n`-th socket there is.
    fn socket(&self, n: usize) -> u32 {
        let sockets = &self.kernel.sockets;
        sockets.keys().nth(n % sockets.len().max(1)).copied().unwrap_or(0)
    }

    fn deliver(&mut self, which: usize, len: usize) {
        let socket = self.socket(which);
        self.kernel.deliver(&mut self.arena, socket, len);
    }

    fn complete_send(&mut self, which: usize, result: Result<(), IoError>) {
        let socket = self.socket(which);
        self.kernel.complete_send(&self.arena, socket, result);
    }

    fn complete_operation(&mut self, which: usize, result: Result<(), IoError>) {
        self.kernel.complete_operation(&mut self.arena, which, result);
    }

    fn cut(&mut self, which: usize) {
        let socket = self.socket(which);
        self.kernel.cut(socket);
    }

    fn intrude(&mut self, which: usize, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        if let Some(socket) = self.strangers.get(which % self.strangers.len().max(1)) {
            self.kernel.put(*socket, bytes);
            self.kernel.deliver(&mut self.arena, *socket, usize::MAX);
        }
    }

    /// Time passes between turns only: within one it is one.
    fn wait(&mut self, time: Duration) {
        self.turn();
        self.now = self.now + time;
        if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
            self.handle(Event::Elapsed);
        }
    }

    fn open_host(&mut self) {
        let name = |text| Nqn::parse(text).expect("a name");
        let mut controller =
            host::Config::new(name(SUBSYSTEM), name("nqn.2014-08.org.nvmexpress:uuid:us"), [9; 16]);
        controller.digests = Digests::from_wire(self.options);
        controller.flow_control = self.options & 4 != 0;
        controller.io_queues = 1 + u16::from(self.options >> 3 & 1);
        controller.queue_entries = 16;
        self.host = self.shard.host_open(self.now, HostConfig { address: 0, controller });
    }

    /// The user's own will: closing, giving up, beginning anew.
    fn interfere(&mut self, choice: u8) {
        match (self.host, choice & 3) {
            (None, _) => self.open_host(),
            (Some(host), 0) => self.shard.host_close(&mut self.arena, self.now, host),
            (Some(host), 1) => self.shard.host_abort(&mut self.arena, self.now, host),
            (Some(_), _) => {}
        }
    }

    fn inject(&mut self, input: &mut Input<'_>) {
        let (choice, range) = (input.byte(), u64::from(input.byte()));
        let operation = match choice & 3 {
            0 => Injected::Read,
            1 => Injected::Write,
            _ => Injected::Flush,
        };
        let fault = match choice >> 2 & 3 {
            0 => Fault::Error,
            1 => Fault::Stall,
            _ => Fault::Delay(Duration::from_millis(u64::from(choice))),
        };
        let (offset, len) = ((range & 15) * 4096, (1 + (range >> 4)) * 4096);
        let injection =
            Injection { operation, fault, offset, len, count: 1 + u32::from(choice >> 6) };
        let injections = [injection];
        let which = if choice & 16 == 0 { &injections[..] } else { &[] };
        assert!(self.shard.set_injections(SUBSYSTEM, ON_DISK, which));
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let (kind, at, wide) = (input.byte(), input.byte(), input.byte());
        let Some(host) = self.host else { return };
        let namespace = usize::from(kind >> 7);
        let first = u64::from(at) % BLOCKS;
        let blocks = 1 + u32::from(wide) % u32::try_from(BLOCKS - first).expect("few blocks");
        let len = blocks * BLOCK as u32;
        let oracle = &mut self.oracles[namespace];
        let durable = kind & 8 != 0;
        let write = |number| What::Write { number, durable };
        let count = u64::from(blocks);
        let (operation, len, what) = match kind & 7 {
            0..=2 => (Operation::Read { lba: first, blocks }, len, What::Read),
            3 | 4 => {
                let number = oracle.begin(first, count, false);
                (Operation::Write { lba: first, blocks, durable }, len, write(number))
            }
            5 => {
                let number = oracle.begin(first, count, true);
                let deallocate = durable;
                let operation = Operation::WriteZeroes { lba: first, blocks, deallocate };
                (operation, 0, What::Write { number, durable: false })
            }
            _ => (Operation::Flush, 0, What::Flush),
        };
        let since = oracle.tick();
        let lease = self.buffer_for(len, &what);
        if lease.is_none() && len > 0 {
            return self.never_was(namespace, &what);
        }
        let nsid = u32::try_from(namespace + 1).expect("two namespaces");
        let (cookie, queue) = (self.cookie, u16::from(kind));
        self.cookie += 1;
        let submission = Submission { operation, nsid, lease, len, cookie, queue };
        match self.shard.host_submit(&mut self.arena, self.now, host, submission) {
            Ok(()) => {
                self.commands.insert(cookie, Command { namespace, first, count, since, what });
            }
            Err(Submission { lease, .. }) => {
                if let Some(lease) = lease {
                    self.arena.free(lease);
                }
                self.never_was(namespace, &what);
            }
        }
    }

    fn buffer_for(&mut self, len: u32, what: &What) -> Option<Lease> {
        if len == 0 {
            return None;
        }
        let lease = self.arena.alloc(Class::holding(len)?)?;
        let tag = if let What::Write { number, .. } = what { *number as u64 } else { u64::MAX };
        let blocks = self.arena.bytes_mut(&lease)[..len as usize].chunks_mut(BLOCK);
        blocks.for_each(|block| block.copy_from_slice(&stamp(tag)));
        Some(lease)
    }

    /// A write that was not taken has no effect, but may be thought to have one.
    fn never_was(&mut self, namespace: usize, what: &What) {
        if let What::Write { number, .. } = what {
            self.oracles[namespace].end(*number, false);
        }
    }

    fn on_host(&mut self, host: Key, event: host::Event) {
        assert_eq!(Some(host), self.host, "an association that ended speaks: {event:?}");
        match event {
            host::Event::Live(live) => {
                assert_eq!(live.namespaces.len(), 2);
                self.end_limbo();
            }
            host::Event::Discovered(_) => panic!("no discovery was asked for"),
            host::Event::Completed(completed) => self.completed(completed),
            host::Event::Lost { .. } => {}
            host::Event::Closed => self.host = None,
        }
    }

    /// A new association: what the old ones wrote is over.
    fn end_limbo(&mut self) {
        for (namespace, number) in std::mem::take(&mut self.limbo) {
            self.oracles[namespace].end(number, false);
        }
    }

    fn completed(&mut self, completed: Completed) {
        let Completed { cookie, status, lease, .. } = completed;
        let command = self.commands.remove(&cookie).expect("a command ends once");
        self.served += usize::from(status == Status::SUCCESS);
        match (&command.what, status) {
            (What::Read, Status::SUCCESS) => {
                let lease = lease.as_ref().expect("a read has its buffer");
                self.check_read(&command, lease);
            }
            (What::Flush, Status::SUCCESS) => {
                self.check_durable(command.namespace, 0..BLOCKS, command.since);
            }
            (What::Write { number, durable }, Status::SUCCESS) => {
                self.oracles[command.namespace].end(*number, true);
                if *durable {
                    let now = self.oracles[command.namespace].tick();
                    let blocks = command.first..command.first + command.count;
                    self.check_durable(command.namespace, blocks, now);
                }
            }
            (What::Write { number, .. }, status) => {
                let lost = status == Status::ABORTED_BY_HOST;
                if lost {
                    self.limbo.push((command.namespace, *number));
                } else {
                    self.oracles[command.namespace].end(*number, false);
                }
            }
            (What::Read | What::Flush, _) => {}
        }
        if let Some(lease) = lease {
            self.arena.free(lease);
        }
    }

    fn check_read(&mut self, command: &Command, lease: &Lease) {
        let oracle = &mut self.oracles[command.namespace];
        oracle.tick();
        let blocks = command.first..command.first + command.count;
        for (at, block) in blocks.zip(self.arena.bytes(lease).chunks(BLOCK)) {
            let tag = read_stamp(block);
            assert!(oracle.allows(at, tag, command.since), "block {at} says {tag}");
        }
    }

    /// What a loss of power would leave is what a reader at `since` might have seen.
    fn check_durable(&mut self, namespace: usize, blocks: Range<u64>, since: u64) {
        let oracle = &mut self.oracles[namespace];
        oracle.tick();
        for at in blocks.filter(|_| namespace + 1 == ON_DISK as usize) {
            let tag = self.kernel.durable(at);
            let kept = oracle.allows(at, tag, since);
            assert!(kept, "block {at} would say {tag} after a loss of power");
        }
    }

    /// The shell stops: all comes to rest, whatever happened before.
    fn finish(&mut self) {
        assert!(self.shard.set_injections(SUBSYSTEM, ON_DISK, &[]));
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
        assert_eq!((self.shard.ops(), self.shard.connections()), (0, 0));
        assert!(self.commands.is_empty(), "commands never ended");
        assert!(self.kernel.sockets.is_empty(), "sockets never closed: {:?}", self.kernel.sockets);
        assert_eq!(self.arena.leased(), 0, "leases lost");
    }
}

const fn failure(choice: u8) -> IoError {
    match choice & 3 {
        0 => IoError::Device,
        1 => IoError::Media,
        2 => IoError::NoSpace,
        _ => IoError::Unsupported,
    }
}

fn config() -> Config {
    let namespace = |nsid: u8, backend| NamespaceConfig {
        nsid: u32::from(nsid),
        ana_group: 1,
        nguid: [nsid; 16],
        uuid: [nsid + 100; 16],
        geometry: Geometry { block: BlockSize::B512, blocks: BLOCKS },
        backend,
        reservations: None,
        injections: Vec::new(),
        lose_unflushed: false,
    };
    let disk = BackendConfig::Disk { disk: Disk(0), discards: true, atomic_blocks: 1 };
    Config {
        shard: 0,
        shards: 1,
        subsystems: vec![SubsystemConfig {
            home: 0,
            nqn: SUBSYSTEM.into(),
            serial: "world".into(),
            allowed_hosts: Vec::new(),
            controllers: ControllerModel::Dynamic,
            paths: Paths::default(),
            header_digest: true,
            data_digest: true,
            namespaces: vec![namespace(1, BackendConfig::Memory), namespace(2, disk)],
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
        for seed in seeds.iter().filter(|seed| seed.target == "shard_events") {
            let served = super::walk(&seed.bytes);
            assert!(served >= 3, "{}: {served}", seed.name);
        }
    }
}
