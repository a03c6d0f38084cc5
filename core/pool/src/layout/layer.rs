//! A layer: a replica's head, a clone's head, or a snapshot.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::page::PageHeader;

/// Directories of a layer.
pub(crate) const DIRECTORIES_MAX: usize = 512;

/// A host that registered a key.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Registrant {
    pub(crate) key: U64,
    pub(crate) host: [u8; 16],
}

/// Everything about a layer but where its blocks are: in its page, and in journal cells.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LayerFields {
    /// The identity of the replica or snapshot.
    pub(crate) uuid: [u8; 16],
    /// Of a snapshot, the replica it was taken of; of a clone, the snapshot; else zeros.
    pub(crate) source: [u8; 16],
    /// Binds checksums to the tree of layers that share blocks.
    pub(crate) tree: U64,
    /// Size in blocks of 4 KiB.
    pub(crate) blocks: U64,
    /// Clusters that it owns.
    pub(crate) clusters: U64,
    /// Seconds since 1970.
    pub(crate) created: U64,
    /// The layer below it plus one, 0: none.
    pub(crate) parent: U32,
    /// 0: a head; 1: sealed.
    pub(crate) sealed: u8,
    /// 1: space is set aside.
    pub(crate) thick: u8,
    /// 1: a member of a mirror.
    pub(crate) member: u8,
    /// 1: it went away, and gives its space back.
    pub(crate) deleted: u8,
    /// log2 of the logical block size that hosts see.
    pub(crate) block_shift: u8,
    /// Bytes of the name.
    pub(crate) name_len: u8,
    /// Type of the reservation; 0: none.
    pub(crate) reservation: u8,
    /// Position of its holder plus one; 0: none.
    pub(crate) holder: u8,
    /// Generation of the reservation.
    pub(crate) generation: U32,
    /// Registrants in use.
    pub(crate) registrant_count: U32,
    /// The fence: epoch, and its owner.
    pub(crate) epoch: U64,
    pub(crate) fence_owner: [u8; 16],
    /// Number of the last numbered flush.
    pub(crate) flush: U64,
    /// Random, part of the instance.
    pub(crate) birth: U64,
    pub(crate) name: [u8; 64],
    pub(crate) registrants: [Registrant; 16],
}

const _: () = assert!(size_of::<LayerFields>() == 572);

/// A layer's page.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LayerPage {
    pub(crate) header: PageHeader,
    pub(crate) fields: LayerFields,
    /// Pair number of the page of the membership record; 0: none.
    pub(crate) record: [u8; 5],
    /// Pair numbers of its directories; 0: none.
    pub(crate) directories: [[u8; 5]; DIRECTORIES_MAX],
    pub(crate) reserved: [u8; 927],
}

const _: () = assert!(size_of::<LayerPage>() == 4096);

/// The page of a copy of the membership record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RecordPage {
    pub(crate) header: PageHeader,
    /// Bytes in use.
    pub(crate) len: U32,
    pub(crate) record: [u8; 3072],
    pub(crate) reserved: [u8; 988],
}

const _: () = assert!(size_of::<RecordPage>() == 4096);
