//! Connecting to a target once, to hear what it says about itself, or to have one command done.

use std::net::SocketAddr;
use std::time::Duration;

use braid_block::{Class, Key, Lease, Memory};
use braid_nvme::Status;
use braid_nvme::connect::Nqn;
use braid_nvme::host::{
    self, Completed, Entry, Event, Live, Operation, Reconnect, Submission, Why,
};
use braid_reactor::{Application, Polling, World};
use braid_shard::{HostConfig, Note, Shard};

use crate::client::uri::{HostName, TargetUri};
use crate::client::{Needs, reactor};
use crate::error::{Error, Result};

/// What a target said.
#[derive(Debug, Default)]
pub struct Answer {
    /// About its controller and its namespaces.
    pub live: Option<Box<Live>>,
    /// About where subsystems are, if it is a discovery subsystem.
    pub log: Option<Vec<Entry>>,
    /// How the one command ended, and its data.
    pub done: Option<(Status, Vec<u8>)>,
}

/// A command for one of a target's namespaces.
#[derive(Debug)]
pub struct Question {
    /// What is to be done.
    pub operation: Operation,
    /// To which namespace.
    pub nsid: u32,
    /// What is sent with it, or room for what comes; at most [`DATA_MAX`] bytes.
    pub data: Vec<u8>,
}

/// Bytes of data that a [`Question`] moves at most: a buffer of the smallest class.
pub const DATA_MAX: usize = Class::Small.bytes() as usize;

/// Asks one target.
struct Inquiry {
    config: Option<host::Config>,
    question: Option<Question>,
    host: Option<Key>,
    answer: Answer,
    why: Option<Why>,
    closed: bool,
}

/// Connects to a subsystem and hears what it says; of a discovery subsystem, its log too.
///
/// # Errors
/// Why it does not answer, in one line.
pub fn ask(
    address: SocketAddr,
    subnqn: Nqn,
    cntlid: u16,
    name: HostName,
    timeout: Duration,
) -> Result<Answer> {
    inquire(address, subnqn, cntlid, name, timeout, None)
}

/// Connects to a subsystem as this host and has it do one command; how that ended, and its data.
///
/// # Errors
/// Why the subsystem does not answer, in one line.
pub fn command(
    target: &TargetUri,
    name: HostName,
    timeout: Duration,
    question: Question,
) -> Result<(Status, Vec<u8>)> {
    let address = target.portal.resolve()?;
    let (nqn, cntlid) = (target.nqn, target.cntlid);
    let answer = inquire(address, nqn, cntlid, name, timeout, Some(question))?;
    answer.done.ok_or_else(|| Error::run(format!("{address} took no command")))
}

fn inquire(
    address: SocketAddr,
    subnqn: Nqn,
    cntlid: u16,
    name: HostName,
    timeout: Duration,
    question: Option<Question>,
) -> Result<Answer> {
    let never_again =
        Reconnect { min: Duration::ZERO, max: Duration::ZERO, give_up: Some(Duration::ZERO) };
    let config = host::Config {
        cntlid,
        connect_timeout: timeout,
        reconnect: never_again,
        kato: Duration::ZERO,
        ..host::Config::new(subnqn, name.nqn, name.id)
    };
    let needs = Needs { connections: 4, arena: 8 << 20, polling: Polling::Never };
    let (reactor, shard) = reactor(needs, vec![address])?;
    let inquiry = Inquiry {
        config: Some(config),
        question,
        host: None,
        answer: Answer::default(),
        why: None,
        closed: false,
    };
    let (_, inquiry) =
        reactor.run(shard, inquiry).map_err(|error| Error::run(error.to_string()))?;
    match (inquiry.answer.live.is_some(), inquiry.why) {
        (false, Some(why)) => Err(refused(address, subnqn, why)),
        (false, None) => Err(Error::run(format!("{address} gave no answer"))),
        (true, _) => Ok(inquiry.answer),
    }
}

/// Where a Connect command's data names the controller: what a refusal for it points to.
const CNTLID_OFFSET: u32 = 16;

/// What to do when a target does not let us in.
#[must_use]
pub fn refused(address: SocketAddr, subnqn: Nqn, why: Why) -> Error {
    use braid_block::IoError;
    let advice = match why {
        Why::Connect(IoError::Refused) => "; nobody listens there: is the target running?".into(),
        Why::Connect(IoError::Unreachable | IoError::TimedOut) | Why::Timeout(_) => {
            "; is the address right, and no firewall between?".into()
        }
        Why::Refused { status, .. } if status.is(Status::CONNECT_INVALID_HOST) => {
            "; the target does not let this host in: see its allow list, or give --host-nqn".into()
        }
        Why::Refused { status, result, .. }
            if status.is(Status::CONNECT_INVALID_PARAMETERS)
                && result & 0xffff == CNTLID_OFFSET =>
        {
            "; it gives out controller ids in another way: add controller=static to the URI, or \
             leave it out"
                .into()
        }
        Why::Refused { status, .. } if status.is(Status::CONNECT_INVALID_PARAMETERS) => {
            format!("; is there a subsystem {subnqn}? 'braid-engine discover {address}' shows")
        }
        _ => String::new(),
    };
    Error::run(format!("{address}: {why}{advice}"))
}

impl Application for Inquiry {
    type Control = ();

    fn note(&mut self, _: &Shard, _: &mut World<'_>, _: Note) {}

    fn control(&mut self, _: &mut Shard, _: &mut World<'_>, (): ()) {}

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if let Some(controller) = self.config.take() {
            self.host = machine.host_open(world.now, HostConfig { address: 0, controller });
            self.closed = self.host.is_none();
        }
        while let Some((key, event)) = machine.host_poll() {
            if self.hear(world, event) && !self.submit(machine, world, key) {
                machine.host_close(world.mem, world.now, key);
            }
        }
    }

    fn finished(&self, _: &Shard) -> bool {
        self.closed
    }
}

impl Inquiry {
    /// Takes what came; true when all is said, but for the command.
    fn hear(&mut self, world: &mut World<'_>, event: Event) -> bool {
        match event {
            Event::Live(live) => {
                let more = live.controller.is_discovery;
                self.answer.live = Some(live);
                return !more;
            }
            Event::Discovered(log) => {
                self.answer.log = Some(log);
                return true;
            }
            Event::Lost { why, .. } => self.why = self.why.or(Some(why)),
            Event::Closed => self.closed = true,
            Event::Completed(Completed { status, lease, .. }) => {
                let data = lease.as_ref().map(|lease| world.mem.bytes(lease).to_vec());
                self.answer.done = Some((status, data.unwrap_or_default()));
                put_back(world, lease);
                return true;
            }
        }
        false
    }

    /// Sends the command, if there is one that was not sent yet.
    fn submit(&mut self, machine: &mut Shard, world: &mut World<'_>, host: Key) -> bool {
        let Some(Question { operation, nsid, data }) = self.question.take() else { return false };
        let Some(lease) = world.mem.alloc(Class::Small) else { return false };
        world.mem.bytes_mut(&lease)[..data.len()].copy_from_slice(&data);
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let lease = Some(lease);
        let submission = Submission { operation, nsid, lease, len, cookie: 0, queue: 0 };
        let taken = machine.host_submit(world.mem, world.now, host, submission);
        taken.map_err(|submission| put_back(world, submission.lease)).is_ok()
    }
}

fn put_back(world: &mut World<'_>, lease: Option<Lease>) {
    if let Some(lease) = lease {
        world.mem.free(lease);
    }
}
