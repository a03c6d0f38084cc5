//! What an association tells its user.

use alloc::boxed::Box;
use alloc::vec::Vec;

use braid_block::{Instant, Lease};

use super::discovery::Entry;
use super::identify::ControllerInfo;
use super::namespace::NamespaceInfo;
use super::why::Why;
use crate::Status;
use crate::pdu::Digests;

/// Something happened to an association.
#[derive(Debug)]
pub enum Event {
    /// Commands are taken from now on. Comes again after each reconnect, and when the target gave
    /// notice that its namespaces changed, with what they are now.
    Live(Box<Live>),
    /// The discovery log, after each `Live` of a discovery association.
    Discovered(Vec<Entry>),
    /// A command ended.
    Completed(Completed),
    /// The association is lost, or could not be made. Commands in work are handed back by
    /// `Completed` as soon as nothing touches their buffers any more.
    Lost {
        /// Why.
        why: Why,
        /// When it will be tried again; none: it will not, and everything is handed back once
        /// [`Event::Closed`] comes.
        retry: Option<Instant>,
    },
    /// The end: after [`super::Controller::close`], or when it was given up. All leases are back.
    Closed,
}

/// The end of a command.
#[derive(Debug)]
pub struct Completed {
    /// As submitted.
    pub cookie: u64,
    /// How it ended. When the association was lost: `ABORTED_BY_HOST` if the command may have
    /// been executed, `HOST_PATHING_ERROR` if it surely was not.
    pub status: Status,
    /// DW0 and DW1 of the completion.
    pub result: u64,
    /// As submitted.
    pub lease: Option<Lease>,
    /// CRC32C of the data that was read, if it came in one piece with a digest.
    pub digest: Option<u32>,
}

/// What was found out about a target.
#[derive(Clone, Debug)]
pub struct Live {
    /// The controller.
    pub controller: ControllerInfo,
    /// Its namespaces, ascending by id. Those whose format we do not serve are left out.
    pub namespaces: Vec<NamespaceInfo>,
    /// I/O queues that are connected.
    pub io_queues: u16,
    /// Commands that each of them takes at once.
    pub queue_commands: u16,
    /// Digests in use.
    pub digests: Digests,
}
