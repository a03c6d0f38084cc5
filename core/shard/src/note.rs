//! What is worth telling: read alike by the log, the metrics and the simulator's story.

use braid_block::{IoError, Key};
use braid_nvme::ana::AnaState;
use braid_nvme::auth::Reason;
use braid_nvme::{Status, pdu::FatalError};

use crate::event::{Disk, Socket};
use crate::pool::PoolId;

/// Something that people or programs may want to know. Rare: never one per I/O.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// A peer connected.
    Accepted {
        /// The stream.
        socket: Socket,
        /// The listener.
        listener: u16,
    },
    /// A stream was closed by us.
    Closed {
        /// The stream.
        socket: Socket,
        /// Why.
        why: Why,
    },
    /// A connection became a queue of a controller.
    QueueConnected {
        /// The stream.
        socket: Socket,
        /// The subsystem and the controller, for `Shard::controller`.
        subsystem: u16,
        /// The controller.
        controller: Key,
        /// 0 is the admin queue.
        queue: u16,
    },
    /// A Connect command was refused.
    ConnectRefused {
        /// The stream.
        socket: Socket,
        /// The answer.
        status: Status,
    },
    /// A host did not prove that it is who it says.
    AuthenticationFailed {
        /// The stream.
        socket: Socket,
        /// The subsystem and the controller, for `Shard::controller`.
        subsystem: u16,
        /// The controller.
        controller: Key,
        /// What it was told, or told us.
        reason: Reason,
    },
    /// A controller is gone; its number was this.
    ControllerGone {
        /// Its controller id.
        cntlid: u16,
        /// Why.
        why: Why,
    },
    /// A device operation failed.
    DiskFailed {
        /// Namespace it served.
        nsid: u32,
        /// What was tried.
        operation: Operation,
        /// First byte on the device.
        offset: u64,
        /// Why.
        error: IoError,
    },
    /// A limit keeps a peer waiting or out.
    Limit {
        /// Which.
        limit: Limit,
    },
    /// Our host side: a connection to a target is up, and how many I/O queues it has.
    HostConnected {
        /// The host, as given by `Shard::host_open`.
        host: Key,
        /// I/O queues granted.
        queues: u16,
    },
    /// Our host side: the connection to a target is lost or was refused.
    HostDisconnected {
        /// The host.
        host: Key,
        /// Why.
        why: braid_nvme::host::Why,
    },
    /// A pool has something to tell.
    Pool {
        /// Which.
        pool: PoolId,
        /// What.
        note: braid_pool::Note,
    },
    /// A command of `Shard::pool_command` ended: exactly once for each.
    PoolCommand {
        /// Of which pool.
        pool: PoolId,
        /// As given.
        tag: u64,
        /// What came of it.
        result: Result<braid_pool::Done, braid_pool::Failure>,
    },
    /// A pool that was to be closed is forgotten: nothing names its disk any more.
    PoolClosed {
        /// Which.
        pool: PoolId,
        /// The disk it was on.
        disk: Disk,
        /// It was stopped in order.
        clean: bool,
    },
    /// How a group of a subsystem is reached changed.
    AnaChanged {
        /// Position of the subsystem, for [`Shard::subsystem_name`](crate::Shard).
        subsystem: u16,
        /// The group.
        group: u32,
        /// For hosts that came by this listener.
        listener: u16,
        /// What it is now.
        state: AnaState,
        /// Nobody asked for it: it was changing for too long.
        late: bool,
    },
    /// A namespace that was to be detached is gone: no command to it is in work.
    NamespaceGone {
        /// As given.
        tag: u64,
    },
    /// A subsystem that was to be removed is gone: no command of its hosts is in work.
    SubsystemGone {
        /// As given.
        tag: u64,
    },
    /// The shell is to keep a namespace's reservations: `Shard::reservations_to_keep` has them,
    /// and `Shard::reservations_kept` takes the answer, exactly once for each.
    Reservations {
        /// For both.
        tag: u64,
    },
    /// Every connection is closed, and every pool, after a stop was asked for; or a pool failed
    /// because its disk does not answer: what that holds stays where it is as long as it likes.
    Drained,
}

/// Why a connection or a controller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The peer closed the stream.
    PeerClosed,
    /// The stream broke.
    Io(IoError),
    /// The peer broke the protocol; it was told so by a termination request.
    Protocol(FatalError),
    /// The peer sent a termination request with this fatal error status.
    Terminated(u16),
    /// A nexus fenced the replica, and is the only one that it obeys now.
    Fenced,
    /// The same host made a newer association, which takes its place.
    Replaced,
    /// The keep alive time-out passed without a command.
    KeepAlive,
    /// It took too long to get through a state before Connect was answered.
    HandshakeTimeout,
    /// It did not prove who it is.
    Authentication,
    /// It took too long to prove who it is.
    AuthenticationTimeout,
    /// It took no bytes for too long.
    SendTimeout,
    /// A command took too long (our host side).
    CommandTimeout,
    /// The host shut the controller down or reset it.
    Reset,
    /// A command was refused with this status (our host side).
    Status(Status),
    /// The admin queue ended, so its I/O queues do.
    AdminClosed,
    /// We are stopping.
    Stopping,
    /// Its subsystem is not served any more.
    Removed,
    /// A limit was reached.
    Limit(Limit),
}

impl Why {
    /// Whether we end it while its host did nothing wrong: commands in work still get their data
    /// and their answers.
    pub(crate) const fn is_orderly(self) -> bool {
        matches!(self, Self::Stopping | Self::Removed)
    }
}

/// What was tried on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// Making writes durable.
    Flush,
    /// Zeroing a range.
    Zero,
    /// Giving a range back.
    Discard,
}

/// The named limits of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Connections.
    Connections,
    /// Connections of one host.
    HostConnections,
    /// Controllers of a subsystem.
    Controllers,
    /// Buffers.
    Memory,
}
