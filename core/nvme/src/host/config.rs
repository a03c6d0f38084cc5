//! What a host is told before it connects.

use core::time::Duration;

use crate::connect::{CNTLID_DYNAMIC, Nqn};
use crate::pdu::Digests;

/// Everything about an association but the address, which is the shell's.
#[derive(Clone, Debug)]
pub struct Config {
    /// The subsystem; the discovery NQN makes it a discovery association.
    pub subnqn: Nqn,
    /// Our name.
    pub hostnqn: Nqn,
    /// Our host identifier: the same on all paths of this host.
    pub hostid: [u8; 16],
    /// Controller to ask for: [`CNTLID_DYNAMIC`], or of a subsystem that gives out fixed ones
    /// [`CNTLID_STATIC_ANY`](crate::connect::CNTLID_STATIC_ANY) or one of its ids.
    pub cntlid: u16,
    /// I/O queues to ask for; the target may grant fewer.
    pub io_queues: u16,
    /// Entries of an I/O queue to ask for, 2 to [`Config::QUEUE_ENTRIES_MAX`]. One fewer commands
    /// can be outstanding.
    pub queue_entries: u16,
    /// Keep alive time-out; zero: none.
    pub kato: Duration,
    /// Digests to demand.
    pub digests: Digests,
    /// Whether to ask for submission queue flow control. We never have more commands outstanding
    /// than the queue holds, so it gives us nothing, and forbids the target to save responses.
    pub flow_control: bool,
    /// A command that is not answered in this time ends the association.
    pub io_timeout: Duration,
    /// The same for each step of connecting.
    pub connect_timeout: Duration,
    /// When to try again.
    pub reconnect: Reconnect,
    /// Namespaces to look at, at most; the rest is left alone.
    pub namespaces_max: u32,
}

/// When to connect again after a failure.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    /// The first pause.
    pub min: Duration,
    /// The longest pause.
    pub max: Duration,
    /// Give up when so much time passed since the association was last alive; zero: never try
    /// again; none: never give up.
    pub give_up: Option<Duration>,
}

impl Config {
    /// A command id holds ten bits of queue position.
    pub const QUEUE_ENTRIES_MAX: u16 = 1024;

    /// A configuration with the usual limits: one queue of 128 entries, 5 s keep alive, 30 s for a
    /// command, 10 s for a step of connecting, pauses of 0.1 s to 10 s, never giving up.
    #[must_use]
    pub const fn new(subnqn: Nqn, hostnqn: Nqn, hostid: [u8; 16]) -> Self {
        Self {
            subnqn,
            hostnqn,
            hostid,
            cntlid: CNTLID_DYNAMIC,
            io_queues: 1,
            queue_entries: 128,
            kato: Duration::from_secs(5),
            digests: Digests { header: false, data: false },
            flow_control: false,
            io_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            reconnect: Reconnect {
                min: Duration::from_millis(100),
                max: Duration::from_secs(10),
                give_up: None,
            },
            namespaces_max: 1024,
        }
    }
}
