//! Where a namespace's bytes are, and how its commands become device operations.

use alloc::vec;
use alloc::vec::Vec;

use braid_block::{Extent, Geometry, IoError, Key, Lease, Memory, Token};
use braid_nvme::Status;
use braid_nvme::target::NamespaceView;
use braid_nvme::target::reservation::{ReservationSupport, Reservations};
use braid_pool::{Failure, Handle};

use crate::config::{BackendConfig, NamespaceConfig};
use crate::counters::NamespaceCounters;
use crate::event::Disk;
use crate::fused::Locks;
use crate::inject::Injection;
use crate::note::Operation;
use crate::op::Work;
use crate::overlay::Overlay;
use crate::pool::PoolId;
use crate::reservation::Changes;

/// Status code type of media and data integrity errors.
const MEDIA_ERROR: u8 = 2;

/// A namespace at work.
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    /// Its ANA group.
    pub(crate) group: u32,
    pub(crate) uuid: [u8; 16],
    pub(crate) geometry: Geometry,
    pub(crate) backend: Backend,
    pub(crate) injections: Vec<Injection>,
    /// Unflushed writes kept aside, if a kill is to lose them.
    pub(crate) overlay: Option<Overlay>,
    pub(crate) counters: NamespaceCounters,
    /// As they are in force.
    pub(crate) reservations: Reservations,
    /// What of them hosts are not told.
    pub(crate) notification_mask: u32,
    /// What is being done about them.
    pub(crate) changes: Changes,
    /// Ranges that fused commands have to themselves.
    pub(crate) locks: Locks,
    /// What was flushed here may be lost.
    pub(crate) flush_failed: bool,
    pub(crate) standing: Standing,
}

/// Whether hosts find a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Attached,
    /// Not any more; its commands end. Who detached it is told with this tag.
    Leaving(u64),
    /// A hole, so that the numbers of the others stay.
    Gone,
}

/// Where its bytes are.
pub(crate) enum Backend {
    Memory(Vec<u8>),
    Disk {
        disk: Disk,
        discards: bool,
        zeroes: bool,
    },
    Replica {
        pool: PoolId,
        handle: Handle,
    },
    /// A replica, as nexuses use it.
    Member {
        replica: [u8; 16],
    },
    /// A volume.
    Volume {
        volume: [u8; 16],
    },
}

impl Namespace {
    /// With the reservations that were kept.
    pub(crate) fn new(config: &NamespaceConfig, reservations: Reservations) -> Self {
        let backend = match config.backend {
            // Zeroed pages cost nothing until they are written.
            BackendConfig::Memory => {
                let bytes = usize::try_from(config.geometry.bytes()).unwrap_or(usize::MAX);
                Backend::Memory(vec![0; bytes])
            }
            BackendConfig::Disk { disk, discards, .. } => {
                Backend::Disk { disk, discards, zeroes: true }
            }
            BackendConfig::Replica { pool, handle, .. } => Backend::Replica { pool, handle },
            BackendConfig::Member { replica } => Backend::Member { replica },
            BackendConfig::Volume { volume } => Backend::Volume { volume },
        };
        let keeps_aside = config.lose_unflushed && matches!(backend, Backend::Disk { .. });
        Self {
            nsid: config.nsid,
            group: config.ana_group,
            uuid: config.uuid,
            geometry: config.geometry,
            backend,
            injections: config.injections.clone(),
            overlay: keeps_aside.then(Overlay::new),
            counters: NamespaceCounters::default(),
            reservations,
            notification_mask: 0,
            changes: Changes::default(),
            locks: Locks::default(),
            flush_failed: false,
            standing: Standing::Attached,
        }
    }

    /// What SMART counts of it.
    pub(crate) const fn smart(&self) -> braid_nvme::target::Counters {
        let counters = &self.counters;
        braid_nvme::target::Counters {
            read_bytes: counters.read_bytes,
            written_bytes: counters.written_bytes,
            read_commands: counters.reads + counters.compares + counters.verifies,
            write_commands: counters.writes,
            media_errors: counters.media_errors,
            degraded: self.flush_failed,
        }
    }

    /// Whether it is a replica, as nexuses use it.
    pub(crate) const fn is_member(&self) -> bool {
        matches!(self.backend, Backend::Member { .. })
    }

    /// Becomes larger.
    pub(crate) fn resize(&mut self, geometry: Geometry) {
        self.geometry = geometry;
        if let Backend::Memory(store) = &mut self.backend {
            store.resize(usize::try_from(geometry.bytes()).unwrap_or(usize::MAX), 0);
        }
    }

    /// Counts a command that ended.
    pub(crate) fn count(&mut self, work: &Work, status: Status) {
        let counters = &mut self.counters;
        if !work.is_io() && !matches!(work, Work::Settle) {
            return;
        }
        if !status.is_success() {
            counters.errors += 1;
            counters.media_errors += u64::from(status.code_type() == MEDIA_ERROR);
            return;
        }
        match work {
            Work::Read { extent, .. } => {
                counters.reads += 1;
                counters.read_bytes += extent.len;
            }
            Work::Write { extent, .. } => {
                counters.writes += 1;
                counters.written_bytes += extent.len;
            }
            Work::Flush => counters.flushes += 1,
            Work::Check { extent, compare, .. } => {
                counters.compares += u64::from(*compare);
                counters.verifies += u64::from(!*compare);
                counters.read_bytes += extent.len;
            }
            Work::Zero { .. } => counters.write_zeroes += 1,
            Work::Deallocate { .. } => counters.dataset_managements += 1,
            Work::Settle | Work::Allocations { .. } | Work::Admin(_) | Work::Member(_) => {}
            Work::Reservation(_) | Work::Persistence(_) => {}
        }
    }
}

/// A namespace as controllers describe it, with the reservations that it begins with.
pub(crate) fn view(config: &NamespaceConfig, reservations: &Reservations) -> NamespaceView {
    let mut read_only = false;
    let (atomic_blocks, thin) = match config.backend {
        // A power failure leaves nothing of memory, so nothing can tear.
        BackendConfig::Memory => (1, true),
        BackendConfig::Disk { atomic_blocks, discards, .. } => (atomic_blocks, discards),
        BackendConfig::Member { .. } | BackendConfig::Volume { .. } => (1, true),
        // A power cut may mix the old and the new sectors of a block.
        BackendConfig::Replica { read_only: protected, .. } => {
            read_only = protected;
            (1, true)
        }
    };
    NamespaceView {
        nsid: config.nsid,
        group: config.ana_group,
        geometry: config.geometry,
        nguid: config.nguid,
        uuid: config.uuid,
        atomic_blocks,
        thin,
        read_only,
        reservations: match config.backend {
            // A volume's would have to go with it, and a member has its fence.
            BackendConfig::Member { .. } | BackendConfig::Volume { .. } => {
                ReservationSupport::Absent
            }
            _ if reservations.can_persist() => ReservationSupport::Persistent,
            _ => ReservationSupport::Volatile,
        },
    }
}

/// The bytes of an extent in memory.
pub(crate) fn range(extent: Extent) -> core::ops::Range<usize> {
    let at = usize::try_from(extent.offset).unwrap_or(usize::MAX);
    let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
    at..at.saturating_add(len)
}

/// The status of a command whose device operation failed: decided here and nowhere else.
///
/// A failed flush is final: the device may have dropped what it could not write, so a retry that
/// succeeds would claim what is gone.
pub(crate) const fn status_of(operation: Operation, error: IoError) -> Status {
    match (operation, error) {
        (Operation::Flush, _) => Status::WRITE_FAULT.dnr(),
        (Operation::Read, IoError::Media | IoError::Device) => Status::UNRECOVERED_READ,
        (Operation::Write | Operation::Zero | Operation::Discard, IoError::NoSpace) => {
            Status::CAPACITY_EXCEEDED.dnr()
        }
        (_, IoError::Gone) => Status::INTERNAL_ERROR.dnr(),
        (Operation::Read, _) => Status::UNRECOVERED_READ,
        (Operation::Write | Operation::Zero | Operation::Discard, _) => Status::WRITE_FAULT,
    }
}

/// The same for a command whose pool did not do it.
pub(crate) const fn status_of_failure(operation: Operation, failure: Failure) -> Status {
    match failure {
        Failure::NoSpace => status_of(operation, IoError::NoSpace),
        Failure::Media(_) => status_of(operation, IoError::Media),
        Failure::Failed => status_of(operation, IoError::Device),
        Failure::ReadOnly => Status::WRITE_PROTECTED.dnr(),
        Failure::OutOfRange => Status::LBA_OUT_OF_RANGE.dnr(),
        Failure::NotFound => Status::INVALID_NAMESPACE.dnr(),
        // The host may try again: another path, or the same one later, may do.
        Failure::Stopping => Status::NAMESPACE_NOT_READY,
        Failure::Limit => Status::INTERNAL_ERROR,
        Failure::Exists | Failure::Busy | Failure::Invalid => Status::INTERNAL_ERROR.dnr(),
    }
}

/// Flips one bit of what was read, for an injected corruption.
pub(crate) fn corrupt<M: Memory>(mem: &mut M, lease: &Lease) {
    if let Some(byte) = mem.bytes_mut(lease).first_mut() {
        *byte ^= 1;
    }
}

/// The token of an op's device operation.
pub(crate) const fn op_token(key: Key) -> Token {
    Token::new(crate::token::OP, key)
}
