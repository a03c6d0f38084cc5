//! What a controller is told about the subsystem it belongs to, for as long as one command takes.

use core::time::Duration;

use braid_block::Geometry;

use super::reservation::ReservationSupport;
use super::{AnaGroup, ControllerModel, Portal};
use crate::connect::Nqn;

/// Largest namespace id (NN, MNAN). Small enough that a log which names every namespace fits into
/// one transfer.
pub const NSID_MAX: u32 = 1024;

/// A subsystem, as it is while one admin command is carried out.
#[derive(Clone, Copy)]
pub struct SubsystemView<'a> {
    /// SUBNQN.
    pub nqn: &'a Nqn,
    /// SN, at most 20 ASCII characters: the same for every controller of the subsystem.
    pub serial: &'a str,
    /// MN, at most 40 ASCII characters.
    pub model: &'a str,
    /// FR, at most 8 ASCII characters.
    pub firmware: &'a str,
    /// How controller ids are given out (FCATT).
    pub controllers: ControllerModel,
    /// The namespaces, ascending by id, none above [`NSID_MAX`]. None for discovery.
    pub namespaces: &'a [NamespaceView],
    /// Their groups, ascending by id, as the controller's port sees them.
    pub groups: &'a [AnaGroup],
    /// Which epoch of the subsystem this is; zero: it counts none.
    pub epoch: u64,
    /// Where hosts reach the subsystem.
    pub portals: &'a [Portal],
    /// PORTID of the portal by which the controller's host came.
    pub port: u16,
    /// How long it has been served.
    pub uptime: Duration,
    /// What was done through all its controllers in that time.
    pub counters: Counters,
    /// What a discovery controller tells its host; no other kind looks at it.
    pub directory: &'a dyn Directory,
}

impl SubsystemView<'_> {
    /// The namespace with this id, if there is one.
    #[must_use]
    pub fn namespace(&self, nsid: u32) -> Option<&NamespaceView> {
        let at = self.namespaces.binary_search_by_key(&nsid, |namespace| namespace.nsid).ok()?;
        self.namespaces.get(at)
    }
}

/// One namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// Namespace id, from 1.
    pub nsid: u32,
    /// ANAGRPID, one of the subsystem's groups.
    pub group: u32,
    /// Size and block size.
    pub geometry: Geometry,
    /// Namespace globally unique identifier; zero: none.
    pub nguid: [u8; 16],
    /// Universally unique identifier; zero: none.
    pub uuid: [u8; 16],
    /// Logical blocks that are written whole or not at all when power fails, from 1.
    pub atomic_blocks: u16,
    /// Whether blocks take space only once written, and give it back when deallocated.
    pub thin: bool,
    /// Whether hosts may not change it: a snapshot.
    pub read_only: bool,
    /// Whether it takes reservations.
    pub reservations: ReservationSupport,
}

impl NamespaceView {
    /// Whether it takes reservations.
    #[must_use]
    pub fn takes_reservations(&self) -> bool {
        self.reservations != ReservationSupport::Absent
    }
}

/// What SMART counts, since the engine's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that hosts read.
    pub read_bytes: u64,
    /// Bytes that hosts wrote.
    pub written_bytes: u64,
    /// Read commands.
    pub read_commands: u64,
    /// Write commands.
    pub write_commands: u64,
    /// Commands that failed because a device lost data.
    pub media_errors: u64,
    /// A device failed, so that data may be lost.
    pub degraded: bool,
}

impl Counters {
    /// Takes what another one counted as well.
    pub const fn add(&mut self, other: &Self) {
        self.read_bytes += other.read_bytes;
        self.written_bytes += other.written_bytes;
        self.read_commands += other.read_commands;
        self.write_commands += other.write_commands;
        self.media_errors += other.media_errors;
        self.degraded |= other.degraded;
    }
}

/// One thing that discovery tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed<'a> {
    /// An NVM subsystem that is served here, at every portal.
    Here(&'a Nqn),
    /// An NVM subsystem at a portal of another engine.
    There(&'a Nqn, Portal),
    /// A discovery service that knows more.
    Referral(Portal),
}

/// What one host may connect to: the content of its discovery log (Base 5.16.1.23).
pub trait Directory {
    /// GENCTR: another number whenever the host would see something else.
    fn generation(&self) -> u64;

    /// Whether the host would see the same by every portal that is listed (DUPRETINFO).
    fn is_same_everywhere(&self) -> bool;

    /// Calls `each` with everything that the host may see, in the same order every time.
    fn entries(&self, host: &Nqn, each: &mut dyn FnMut(Listed<'_>));
}
