//! Small machines and the application that runs them.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(unreachable_pub, reason = "included by each test")]

pub mod echo;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use braid_block::{Instant, Key, Lease, Span, Token};
use braid_nvme::connect::{Connect, Nqn};
use braid_nvme::pdu::Digests;
use braid_nvme::target::Handshake;
use braid_reactor::{
    Application, Arena, ArenaCounters, ArenaOptions, Counters, Listener, Machine, OpenDisk,
    Options, Port, Reactor, Remote, RunError, World, mesh,
};
use braid_shard::{Effect, Event, Note};

/// What a fake machine wants done.
#[derive(Default)]
pub struct Todo {
    pub effects: VecDeque<Effect>,
    pub batches: Vec<Vec<Span>>,
    pub leases: Vec<Lease>,
    pub due: Option<Instant>,
    pub finished: bool,
}

/// A machine whose behaviour is a closure.
pub struct Fake<F> {
    pub todo: Todo,
    pub act: F,
}

/// Whether a machine has done what it wanted.
pub trait Ends {
    fn ended(&self) -> bool;
}

impl<F> Fake<F>
where
    F: FnMut(&mut Todo, &mut Arena, Event),
{
    pub fn new(act: F) -> Self {
        Self { todo: Todo::default(), act }
    }
}

impl<F> Ends for Fake<F> {
    fn ended(&self) -> bool {
        self.todo.finished
    }
}

impl<F> Machine for Fake<F>
where
    F: FnMut(&mut Todo, &mut Arena, Event),
{
    fn handle(&mut self, mem: &mut Arena, _now: Instant, event: Event) {
        (self.act)(&mut self.todo, mem, event);
    }

    fn end_turn(&mut self, _mem: &mut Arena, _now: Instant) {}

    fn poll_effect(&mut self) -> Option<Effect> {
        self.todo.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.todo.due
    }

    fn has_work(&self) -> bool {
        false
    }

    fn batch(&self, batch: u32) -> &[Span] {
        &self.todo.batches[batch as usize]
    }

    fn drop_leases(&mut self, mem: &mut Arena) {
        use braid_block::Memory;
        self.todo.leases.drain(..).for_each(|lease| mem.free(lease));
    }
}

/// What a test asks of a running reactor.
pub enum Ask {
    Stop,
    Count(mpsc::Sender<(Counters, ArenaCounters)>),
}

/// Answers what a test asks.
#[derive(Default)]
pub struct Quiet {
    stopped: bool,
}

impl<M: Machine + Ends> Application<M> for Quiet {
    type Control = Ask;

    fn note(&mut self, _machine: &M, _world: &mut World<'_>, _note: Note) {}

    fn control(&mut self, _machine: &mut M, world: &mut World<'_>, control: Ask) {
        match control {
            Ask::Stop => self.stopped = true,
            Ask::Count(answer) => {
                let _ = answer.send((*world.counters, world.mem.counters()));
            }
        }
    }

    fn finished(&self, machine: &M) -> bool {
        self.stopped || machine.ended()
    }
}

/// A reactor on its thread.
pub struct Running {
    pub remote: Remote<Ask>,
    thread: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub fn counters(&self) -> (Counters, ArenaCounters) {
        let (sender, answer) = mpsc::channel();
        assert!(self.remote.post(Ask::Count(sender)).is_ok(), "it runs");
        answer.recv_timeout(Duration::from_secs(10)).expect("it answers")
    }

    pub fn stop(self) {
        let _ = self.remote.post(Ask::Stop);
        self.join();
    }

    /// Whether its thread ended by a panic.
    pub fn has_panicked(self) -> bool {
        self.thread.join().is_err()
    }

    /// Waits until the machine has ended by itself.
    pub fn join(self) {
        self.thread.join().expect("no panic").expect("the ring works");
    }
}

/// Small tables and a small arena.
pub fn options() -> Options {
    Options {
        arena: ArenaOptions {
            chunk_bytes: 128 << 10,
            start_bytes: 256 << 10,
            limit_bytes: 1 << 20,
        },
        sockets_max: 16,
        disk_ops_max: 32,
        receive_buffers: [8, 2, 2],
        ring_entries: 64,
        ..Options::default()
    }
}

pub struct Parts {
    pub options: Options,
    pub port: Port,
    pub disks: Vec<OpenDisk>,
    pub listeners: Vec<Listener>,
    pub addresses: Vec<SocketAddr>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            options: options(),
            port: mesh(1).remove(0),
            disks: Vec::new(),
            listeners: Vec::new(),
            addresses: Vec::new(),
        }
    }
}

impl Parts {
    pub fn run<M: Machine + Ends + Send + 'static>(self, machine: M) -> Running {
        let Self { options, port, disks, listeners, addresses } = self;
        let reactor = Reactor::new(options, port, disks, listeners, addresses)
            .expect("this system allows it");
        let remote = reactor.remote();
        let thread = std::thread::spawn(move || reactor.run(machine, Quiet::default()).map(|_| ()));
        Running { remote, thread }
    }
}

pub fn listener() -> (Listener, SocketAddr) {
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("loopback is there");
    let address = listener.address();
    (listener, address)
}

pub fn token(kind: u8, index: u32) -> Token {
    Token::new(kind, Key { index, generation: 1 })
}

/// What travels with a connection from shard to shard; its content is of no matter here.
pub fn handshake() -> Handshake {
    let nqn = Nqn::parse("nqn.2014-08.org.nvmexpress.discovery").expect("a name");
    let connect = Connect {
        cid: 1,
        qid: 0,
        entries: 32,
        flow_control: false,
        kato: Duration::ZERO,
        cntlid: 0xffff,
        hostid: [1; 16],
        subnqn: nqn,
        hostnqn: nqn,
    };
    Handshake { digests: Digests::default(), data_alignment: 1, connect }
}

/// A small generator, so that sizes differ but runs do not.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A directory of its own beside the build's output, removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is ours");
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
