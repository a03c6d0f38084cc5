//! The target side: what answers hosts.

mod admin;
mod ana;
pub mod connection;
mod controller;
mod discovery;
mod errors;
mod event;
mod feature;
mod identify;
mod io;
mod lba_status;
mod log;
pub mod reservation;
mod transfer;
mod view;
mod window;

use core::net::SocketAddr;

use crate::connect::Connect;
use crate::pdu::Digests;

pub use admin::{ABORTS_MAX, Admin, NamespaceFeature};
pub use ana::AnaGroup;
pub use controller::{Controller, ControllerLimits, IO_QUEUES_MAX, Kind, State};
pub use discovery::{DiscoveryEntry, DiscoveryHeader};
pub use errors::{ERRORS_MAX, FailedCommand};
pub use event::{EVENT_REQUESTS_MAX, Notice};
pub use identify::{
    IdentifyController, IdentifyNamespace, VERIFY_BYTES_MAX, WRITE_ZEROES_BYTES_MAX,
};
pub use io::{IoCommand, Ranges};
pub use lba_status::write_allocations;
pub use log::Smart;
pub use transfer::{TRANSFER_BYTES_MAX, Transfer, check_flags};
pub use view::{Counters, Directory, Listed, NSID_MAX, NamespaceView, SubsystemView};

/// A transport address that hosts can reach this engine at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portal {
    /// PORTID of the discovery log.
    pub id: u16,
    /// Address and TCP port.
    pub address: SocketAddr,
}

/// How a subsystem gives out controller ids (Base 3.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ControllerModel {
    /// Every admin Connect makes a controller; hosts ask for FFFFh.
    #[default]
    Dynamic,
    /// Controllers have fixed ids; hosts ask for one, or for FFFEh: any free one.
    Static,
}

/// A connection that was initialised and asked to be a queue, not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// Digests in use.
    pub digests: Digests,
    /// Alignment of data that the host asked for, in dwords.
    pub data_alignment: u32,
    /// What the host asks for.
    pub connect: Connect,
}
