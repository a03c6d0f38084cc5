//! Our host side in one file: writes a block of a target's first namespace, reads it back.
//!
//! ```text
//! cargo run -p braid-examples --bin read_with_our_host -- ADDRESS:PORT NQN
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::net::SocketAddr;

use braid_block::{Class, Key, Lease, Memory};
use braid_nvme::connect::Nqn;
use braid_nvme::host::{self, Completed, Event, Operation, Submission};
use braid_reactor::{Application, Options, Reactor, World, mesh};
use braid_shard::{Config, HostConfig, Limits, Note, Shard};

const TEXT: &[u8] = b"written and read by our own host";
const WRITE: u64 = 1;
const READ: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, nqn] = arguments.as_slice() else {
        return Err("usage: read_with_our_host ADDRESS:PORT NQN".into());
    };
    let address: SocketAddr = address.parse()?;
    let subsystem = Nqn::parse(nqn).ok_or("that is no NQN")?;
    let us = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:example").ok_or("that is no NQN")?;

    // A shard that serves nobody; its host side names the target by its place in the list.
    let shard = Shard::new(Config {
        shard: 0,
        shards: 1,
        subsystems: Vec::new(),
        portals: Vec::new(),
        limits: Limits::default(),
    });
    let port = mesh(1).remove(0);
    let reactor = Reactor::new(Options::default(), port, Vec::new(), Vec::new(), vec![address])?;
    let user = User { begin: Some(host::Config::new(subsystem, us, [7; 16])), over: None };
    let (_, user) = reactor.run(shard, user)?;
    println!("{}", user.over.ok_or("the run ended without an answer")??);
    Ok(())
}

/// The user of an association, called once a turn.
struct User {
    begin: Option<host::Config>,
    over: Option<Result<String, String>>,
}

impl Application for User {
    type Control = ();

    fn note(&mut self, _: &Shard, _: &mut World<'_>, _: Note) {}

    fn control(&mut self, _: &mut Shard, _: &mut World<'_>, (): ()) {}

    fn turn(&mut self, shard: &mut Shard, world: &mut World<'_>) {
        if let Some(controller) = self.begin.take() {
            shard.host_open(world.now, HostConfig { address: 0, controller });
        }
        while let Some((host, event)) = shard.host_poll() {
            self.hear(shard, world, host, event);
        }
    }

    fn finished(&self, _: &Shard) -> bool {
        self.over.is_some()
    }
}

impl User {
    fn hear(&mut self, shard: &mut Shard, world: &mut World<'_>, host: Key, event: Event) {
        match event {
            Event::Live(_) => {
                let lease = world.mem.alloc(Class::Small).expect("the first buffer");
                world.mem.bytes_mut(&lease)[..TEXT.len()].copy_from_slice(TEXT);
                let write = Operation::Write { lba: 0, blocks: 1, durable: true };
                submit(shard, world, host, write, lease, WRITE);
            }
            Event::Completed(Completed { cookie, status, lease: Some(lease), .. }) => {
                if !status.is_success() {
                    self.over = Some(Err(format!("command {cookie} failed: {status}")));
                } else if cookie == WRITE {
                    world.mem.bytes_mut(&lease).fill(0);
                    let read = Operation::Read { lba: 0, blocks: 1 };
                    return submit(shard, world, host, read, lease, READ);
                } else {
                    let text = String::from_utf8_lossy(&world.mem.bytes(&lease)[..TEXT.len()]);
                    self.over = Some(Ok(text.into_owned()));
                }
                world.mem.free(lease);
            }
            Event::Lost { why, .. } => self.over = Some(Err(format!("lost the target: {why}"))),
            Event::Completed(_) | Event::Discovered(_) | Event::Closed => {}
        }
    }
}

/// The buffer is the association's until the command's `Completed` hands it back.
fn submit(
    shard: &mut Shard,
    world: &mut World<'_>,
    host: Key,
    operation: Operation,
    lease: Lease,
    cookie: u64,
) {
    let submission =
        Submission { operation, nsid: 1, lease: Some(lease), len: 4096, cookie, queue: 0 };
    let taken = shard.host_submit(world.mem, world.now, host, submission);
    assert!(taken.is_ok(), "a live association takes one command");
}
