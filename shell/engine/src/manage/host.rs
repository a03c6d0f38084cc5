//! Where pools run, as the management sees it: requests that are answered later. The shards are
//! one such place, the tests' model of a pool another.

use std::future::Future;

use braid_block::Geometry;
use braid_nvme::ana::AnaState;
use braid_pool::{Command, Config, Counters, Done, Failure, Format, Handle, LayerInfo};
use braid_pool::{Note, PoolInfo, Refusal, State};
use braid_reactor::OpenDisk;
use braid_shard::{Elsewhere, Injection, NamespaceInfo, NamespaceKind};

use crate::serve::namespaces::Attach;
use crate::serve::volumes::Request as VolumeRequest;

/// Where a pool lives: a shard, and its number there, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Home {
    /// The shard.
    pub shard: u16,
    /// Its number there.
    pub pool: u16,
}

/// A pool as it was at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Where it stands.
    pub state: State,
    /// The pool as a whole.
    pub info: PoolInfo,
    /// Its replicas and snapshots.
    pub layers: Vec<LayerInfo>,
    /// What it counted.
    pub counters: Counters,
}

/// Why a pool did not come to life. The disk is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The pool says so.
    Refused(Refusal),
    /// The shard has no room for another disk.
    NoRoom,
    /// The shard has ended.
    Gone,
}

/// What a subsystem with one namespace stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// A replica or a snapshot, for hosts.
    Layer {
        /// Which of its pool.
        handle: Handle,
        /// A snapshot.
        read_only: bool,
    },
    /// A replica, for nexuses.
    Member,
    /// A volume, for hosts.
    Volume,
}

/// A subsystem that comes and goes, as hosts see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Its pool; of a volume, its shard alone counts.
    pub home: Home,
    /// What it is.
    pub what: Exposed,
    /// Its identity.
    pub uuid: [u8; 16],
    /// What follows from that.
    pub names: super::names::Names,
    /// Size and block size.
    pub geometry: Geometry,
    /// Hosts that may connect, by NQN; none: all.
    pub allowed_hosts: Vec<String>,
}

/// How hosts that come by one address reach a group of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The subsystem.
    pub nqn: String,
    /// The group.
    pub group: u32,
    /// Position of the address among those that hosts come by.
    pub listener: u16,
    /// How they reach it.
    pub state: AnaState,
    /// How often that changed, from 1.
    pub changes: u64,
}

/// How hosts are to reach a group of namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The subsystem.
    pub nqn: String,
    /// The group.
    pub group: u32,
    /// Position of the address among those that hosts come by; none: all.
    pub listener: Option<u16>,
    /// How they are to reach it.
    pub state: AnaState,
}

/// A subsystem that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemView {
    /// Its name.
    pub nqn: String,
    /// Its namespaces, ascending by id.
    pub namespaces: Vec<Attached>,
}

/// A namespace that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its id.
    pub nsid: u32,
    /// Its identity.
    pub uuid: [u8; 16],
    /// Size and block size.
    pub geometry: Geometry,
    /// Where its bytes are.
    pub kind: AttachedKind,
}

/// Where a namespace's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachedKind {
    /// In memory.
    Memory,
    /// In a file or on a device.
    Disk,
    /// In a pool.
    Pool,
    /// In a volume.
    Volume,
}

impl From<NamespaceInfo> for Attached {
    fn from(info: NamespaceInfo) -> Self {
        let NamespaceInfo { nsid, uuid, geometry, kind } = info;
        let kind = match kind {
            NamespaceKind::Memory => AttachedKind::Memory,
            NamespaceKind::Disk(_) => AttachedKind::Disk,
            NamespaceKind::Pool => AttachedKind::Pool,
            NamespaceKind::Volume => AttachedKind::Volume,
        };
        Self { nsid, uuid, geometry, kind }
    }
}

/// Why a namespace was not attached. Its disk is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAttached {
    /// The shard has no room for another disk.
    NoRoom,
    /// The subsystem is not there, or has a namespace of this id.
    Refused,
    /// The shard has ended.
    Gone,
}

/// Runs pools. None of the calls is cancelled by dropping its future: it is only not heard of.
pub trait Host: Send + Sync + 'static {
    /// Shards that pools can live on.
    fn shards(&self) -> u16;

    /// Makes a pool on a disk, which is given back for it to be opened.
    fn create(
        &self,
        home: Home,
        disk: OpenDisk,
        config: Config,
        format: Format,
    ) -> impl Future<Output = Result<OpenDisk, NotOpened>> + Send;

    /// Opens a pool.
    fn open(
        &self,
        home: Home,
        disk: OpenDisk,
        config: Config,
    ) -> impl Future<Output = Result<(), NotOpened>> + Send;

    /// Closes a pool, in order if it has not failed. None: it was not there.
    fn close(&self, home: Home) -> impl Future<Output = Option<OpenDisk>> + Send;

    /// Has a pool do something.
    fn command(
        &self,
        home: Home,
        command: Command,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;

    /// What a pool is like now. None: it is not there.
    fn picture(&self, home: Home) -> impl Future<Output = Option<Picture>> + Send;

    /// Lets hosts connect. False: its name is taken.
    fn expose(&self, exposure: Exposure) -> impl Future<Output = bool> + Send;

    /// Ends that, and waits until no command is in work.
    fn hide(&self, home: Home, nqn: &str) -> impl Future<Output = ()> + Send;

    /// Tells hosts of a new size.
    fn resized(&self, home: Home, nqn: &str, geometry: Geometry)
    -> impl Future<Output = ()> + Send;

    /// How hosts reach every group that is served.
    fn reached(&self) -> impl Future<Output = Vec<Reach>> + Send;

    /// Changes how hosts reach a group. False: it is not there.
    fn set_access(&self, access: Access) -> impl Future<Output = bool> + Send;

    /// Every subsystem that is served, and its shard.
    fn subsystems(&self) -> impl Future<Output = Vec<(u16, SubsystemView)>> + Send;

    /// Attaches a namespace to a subsystem of this shard.
    fn attach(
        &self,
        shard: u16,
        attach: Attach,
    ) -> impl Future<Output = Result<(), NotAttached>> + Send;

    /// Detaches one, and waits until no command is in work. False: it is not there.
    fn detach(&self, shard: u16, nqn: &str, nsid: u32) -> impl Future<Output = bool> + Send;

    /// Says what discovery is to tell of beside what is served here.
    fn tell_elsewhere(&self, elsewhere: Vec<Elsewhere>) -> impl Future<Output = ()> + Send;

    /// Gives a shard something to do about volumes. False: it has ended.
    fn volume(&self, shard: u16, request: VolumeRequest) -> bool;

    /// Replaces the faults of a namespace. False: it is not there.
    fn inject(
        &self,
        nqn: &str,
        nsid: u32,
        faults: Vec<Injection>,
    ) -> impl Future<Output = bool> + Send;

    /// Replaces the faults of a pool's disk. False: it is not there.
    fn inject_disk(&self, home: Home, faults: Vec<Injection>) -> impl Future<Output = bool> + Send;
}

/// What a pool has to tell.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Which.
    pub home: Home,
    /// What.
    pub note: Note,
    /// Of what replica or snapshot, where the note names one.
    pub layer: Option<[u8; 16]>,
    /// Notes that were left out before it: there were too many to tell all.
    pub left_out: u64,
}
