//! Our host side in one file: writes a block of a target's first namespace and reads it back, by
//! whichever of the target's addresses answers; while one fails the commands take another.
//!
//! ```text
//! cargo run -p braid-examples --bin read_with_our_host -- NQN ADDRESS:PORT...
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use braid_block::{Class, Instant, Key, Lease, Memory};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{self, Ended, Event, Multipath, Operation, Policy, Submission};
use braid_reactor::{Application, Options, Reactor, World, mesh};
use braid_shard::{Config, HostConfig, Limits, Note, Shard};

const TEXT: &[u8] = b"written and read by our own host";
const WRITE: u64 = 1;
const READ: u64 = 2;
/// How long a command waits for a path.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: read_with_our_host NQN ADDRESS:PORT...";
    let subsystem = Nqn::parse(&arguments.next().ok_or(usage)?).ok_or("that is no NQN")?;
    let addresses: Vec<SocketAddr> = arguments.map(|a| a.parse()).collect::<Result<_, _>>()?;
    if !(1..=host::PATHS_MAX).contains(&addresses.len()) {
        return Err(usage.into());
    }
    let us = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:example").ok_or("that is no NQN")?;

    // A shard that serves nobody; its host side names targets by their place in the list.
    let shard = Shard::new(Config {
        shard: 0,
        shards: 1,
        subsystems: Vec::new(),
        portals: Vec::new(),
        limits: Limits::default(),
    });
    let port = mesh(1).remove(0);
    let paths = addresses.len();
    let reactor = Reactor::new(Options::default(), port, Vec::new(), Vec::new(), addresses)?;
    let user = User {
        config: host::Config::new(subsystem, us, [7; 16]),
        paths: vec![None; paths],
        multipath: Multipath::new(1, paths, 4, Policy::RoundRobin, Some(PATIENCE)),
        begun: false,
        over: None,
    };
    let (_, user) = reactor.run(shard, user)?;
    println!("{}", user.over.ok_or("the run ended without an answer")??);
    Ok(())
}

/// The user of the associations, called once a turn.
struct User {
    config: host::Config,
    paths: Vec<Option<Key>>,
    multipath: Multipath,
    begun: bool,
    over: Option<Result<String, String>>,
}

impl Application for User {
    type Control = ();

    fn note(&mut self, _: &Shard, _: &mut World<'_>, _: Note) {}

    fn control(&mut self, _: &mut Shard, _: &mut World<'_>, (): ()) {}

    fn turn(&mut self, shard: &mut Shard, world: &mut World<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            for (path, address) in self.paths.iter_mut().zip(0..) {
                let config = HostConfig { address, controller: self.config.clone() };
                *path = shard.host_open(world.now, config);
            }
            let lease = world.mem.alloc(Class::Small).expect("the first buffer");
            world.mem.bytes_mut(&lease)[..TEXT.len()].copy_from_slice(TEXT);
            self.submit(world, Operation::Write { lba: 0, blocks: 1, durable: true }, lease, WRITE);
        }
        while let Some((key, event)) = shard.host_poll() {
            if let Event::Lost { why, .. } = &event {
                eprintln!("lost a path: {why}");
            }
            if let Some(path) = self.paths.iter().position(|known| *known == Some(key)) {
                self.multipath.on_event(world.now, path, event);
            }
        }
        // A command that ends lets the next one begin, which is to leave in this turn too.
        while self.go_on(shard, world) {}
    }

    fn timeout(&self) -> Option<Instant> {
        self.multipath.deadline()
    }

    fn finished(&self, _: &Shard) -> bool {
        self.over.is_some()
    }
}

impl User {
    /// Sends what found a path, and hears what ended; whether anything did.
    fn go_on(&mut self, shard: &mut Shard, world: &mut World<'_>) -> bool {
        self.multipath.elapsed(world.now);
        while let Some((path, submission)) = self.multipath.poll_send(world.now) {
            let Some(key) = self.paths[path] else { return false };
            if let Err(back) = shard.host_submit(world.mem, world.now, key, submission) {
                self.multipath.refused(path, back);
            }
        }
        let Some(ended) = self.multipath.poll_ended() else { return false };
        self.hear(world, ended);
        true
    }

    fn hear(&mut self, world: &mut World<'_>, ended: Ended) {
        let outcome = ended.outcome();
        let Some(lease) = ended.lease else { return };
        match outcome {
            Err(error) => {
                self.over = Some(Err(format!("command {} failed: {error}", ended.cookie)))
            }
            Ok(_) if ended.cookie == WRITE => {
                world.mem.bytes_mut(&lease).fill(0);
                return self.submit(world, Operation::Read { lba: 0, blocks: 1 }, lease, READ);
            }
            Ok(_) => {
                let text = String::from_utf8_lossy(&world.mem.bytes(&lease)[..TEXT.len()]);
                self.over = Some(Ok(text.into_owned()));
            }
        }
        world.mem.free(lease);
    }

    /// The buffer is the command's until its `Ended` hands it back.
    fn submit(&mut self, world: &World<'_>, operation: Operation, lease: Lease, cookie: u64) {
        let submission =
            Submission { operation, nsid: 1, lease: Some(lease), len: 4096, cookie, queue: 0 };
        let taken = self.multipath.submit(world.now, submission);
        assert!(taken.is_ok(), "one command at a time");
    }
}
