//! One stream and what it is to us.
//!
//! ```text
//!   Accepted           Connect parsed           attached
//!  ----------> Handshake ------------> (mail) ------------> Queue
//!                  |                                          |
//!                  +-------------- end() ---------------------+
//!                                   v
//!          ending: no new command is taken, replies still leave, then Shutdown
//!                                   |  the peer closed, or it took too long
//!                                   v
//!          closed: waits for the last Done, then its leases and its entry are freed
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::net::SocketAddr;

use braid_block::{Instant, Key, Lease, LeaseId};
use braid_nvme::target::Handshake;
use braid_nvme::target::connection::Connection;
use braid_nvme::transmit::Transmit;

use crate::authentication::Standing;
use crate::event::Socket;
use crate::fused::First;
use crate::note::Why;
use crate::op::Reply;
use crate::receive::Receive;

/// A stream.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) socket: Socket,
    pub(crate) listener: u16,
    /// The address it was reached at, where its listener takes any.
    pub(crate) local: Option<Box<SocketAddr>>,
    pub(crate) transmit: Transmit,
    pub(crate) receive: Receive,
    /// Exact receives land here; a queue keeps it as the buffer that in-capsule data always finds.
    pub(crate) reserve: Option<Lease>,
    /// The name of that buffer, also while a command has it.
    pub(crate) own: Option<LeaseId>,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    /// When bytes last arrived.
    pub(crate) last_seen: Instant,
    /// When the batch in flight was launched.
    pub(crate) sending_since: Instant,
    /// Whether it is listed to have its batch launched at the end of the turn.
    pub(crate) dirty: bool,
    /// Whether it is listed to be worked on in the next turn.
    pub(crate) runnable: bool,
}

/// Its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// No more input is looked at; what is in work still finishes.
    Ending {
        why: Why,
        /// Our end is closed already.
        shut: bool,
        /// When to stop waiting for the peer.
        until: Instant,
    },
    /// Close was emitted.
    Closed,
}

/// What it is to us.
#[derive(Debug)]
pub(crate) enum Role {
    Handshake(Greeting),
    Queue(Queue),
}

/// A connection that is no queue yet.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) connection: Connection,
    /// What ICReq and Connect said; held until an older association of the host has drained, or
    /// until the ICResp has left.
    pub(crate) held: Option<Box<Handshake>>,
    /// Digests and data alignment, once initialised.
    pub(crate) agreed: Option<(braid_nvme::pdu::Digests, u32)>,
    /// When it is too late.
    pub(crate) until: Instant,
}

/// A connection that is a queue of a controller.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) connection: Connection,
    pub(crate) subsystem: u16,
    pub(crate) controller: Key,
    pub(crate) qid: u16,
    pub(crate) entries: u32,
    /// Submission queue head, where flow control is used.
    pub(crate) sqhd: u16,
    pub(crate) flow_control: bool,
    /// Commands taken and not replied to.
    pub(crate) outstanding: u32,
    /// Replies that found no room in the batch.
    pub(crate) replies: VecDeque<Reply>,
    /// Bytes of buffers that its commands hold.
    pub(crate) pinned: u64,
    /// Where its host's connections and buffers are counted together.
    pub(crate) share: u16,
    /// It serves a nexus, which waits for it: its commands may use the whole arena.
    pub(crate) member: bool,
    /// The first of two commands that are done as one, if it came last.
    pub(crate) first: Option<First>,
    /// How far its host has proved itself.
    pub(crate) standing: Standing,
    /// A capsule waits for a buffer.
    pub(crate) starving: bool,
    /// The Abort command that waits for the end of the capsule that waited for a buffer.
    pub(crate) abandoner: Option<Key>,
    /// The turn in which it last gave a command, and how many it gave in it.
    pub(crate) turn: u64,
    pub(crate) taken: u32,
}

impl Conn {
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether its input is looked at: in an orderly end, too, for the data of commands that are
    /// in work.
    pub(crate) const fn is_reading(&self) -> bool {
        match self.phase {
            Phase::Open => true,
            Phase::Ending { why, shut, .. } => why.is_orderly() && !shut,
            Phase::Closed => false,
        }
    }

    /// Whether it is ending, and nothing is left to say on it.
    pub(crate) fn has_said_all(&self) -> bool {
        let busy = self.queue().is_some_and(|q| q.outstanding > 0 || !q.replies.is_empty());
        !self.is_open() && !busy && self.transmit.is_empty()
    }

    pub(crate) const fn queue_mut(&mut self) -> Option<&mut Queue> {
        match &mut self.role {
            Role::Queue(queue) => Some(queue),
            Role::Handshake(_) => None,
        }
    }

    pub(crate) const fn queue(&self) -> Option<&Queue> {
        match &self.role {
            Role::Queue(queue) => Some(queue),
            Role::Handshake(_) => None,
        }
    }
}

impl Queue {
    /// The submission queue head for the next completion.
    pub(crate) fn advance_head(&mut self) -> u16 {
        if !self.flow_control {
            return 0;
        }
        let next = (u32::from(self.sqhd) + 1) % self.entries;
        self.sqhd = u16::try_from(next).unwrap_or(0);
        self.sqhd
    }
}
