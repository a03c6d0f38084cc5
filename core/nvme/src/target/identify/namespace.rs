//! Identify Namespace (NVM 4.1.5.1), and which namespaces there are and how they are called
//! (Base 5.17.2.2, 5.17.2.3).

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::IDENTIFY_BYTES;
use crate::Status;
use crate::target::view::{NSID_MAX, NamespaceView, SubsystemView};
use crate::target::window::Window;

/// Identify Namespace (CNS 00h) of the NVM command set.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// NSZE in blocks.
    pub nsze: U64,
    /// NCAP in blocks.
    pub ncap: U64,
    /// NUSE in blocks.
    pub nuse: U64,
    /// NSFEAT: bit 0 thin, bit 1 the atomic fields below hold.
    pub nsfeat: u8,
    /// NLBAF, 0-based.
    pub nlbaf: u8,
    /// FLBAS.
    pub flbas: u8,
    reserved_27: [u8; 3],
    /// NMIC: bit 0 shared between controllers.
    pub nmic: u8,
    /// RESCAP: bit 0 they persist, bits 1 to 6 types, bit 7 Ignore Existing Key as in NVMe 1.3.
    pub rescap: u8,
    /// FPI.
    pub fpi: u8,
    /// DLFEAT: bits 2:0 what deallocated blocks read as (001b: zeros), bit 3 DEAC works.
    pub dlfeat: u8,
    /// NAWUN in blocks, 0-based.
    pub nawun: U16,
    /// NAWUPF in blocks, 0-based.
    pub nawupf: U16,
    /// NACWU in blocks, 0-based.
    pub nacwu: U16,
    reserved_40: [u8; 8],
    /// NVMCAP in bytes, lower and upper half.
    pub nvmcap: [U64; 2],
    reserved_64: [u8; 28],
    /// ANAGRPID.
    pub anagrpid: U32,
    reserved_96: [u8; 3],
    /// NSATTR: bit 0 write protected.
    pub attributes: u8,
    reserved_100: [u8; 4],
    /// NGUID.
    pub nguid: [u8; 16],
    /// EUI64.
    pub eui64: [u8; 8],
    /// LBAF0 to LBAF15: LBADS in bits 23:16.
    pub lba_formats: [U32; 16],
    reserved_192: [u8; 3904],
}
const _: () = {
    assert!(size_of::<IdentifyNamespace>() == IDENTIFY_BYTES as usize);
    assert!(offset_of!(IdentifyNamespace, nsfeat) == 24);
    assert!(offset_of!(IdentifyNamespace, nmic) == 30);
    assert!(offset_of!(IdentifyNamespace, dlfeat) == 33);
    assert!(offset_of!(IdentifyNamespace, nvmcap) == 48);
    assert!(offset_of!(IdentifyNamespace, anagrpid) == 92);
    assert!(offset_of!(IdentifyNamespace, attributes) == 99);
    assert!(offset_of!(IdentifyNamespace, nguid) == 104);
    assert!(offset_of!(IdentifyNamespace, lba_formats) == 128);
};

impl IdentifyNamespace {
    pub(super) fn new(view: &SubsystemView<'_>, nsid: u32) -> Result<Self, Status> {
        if nsid == 0 || nsid > NSID_MAX && nsid != u32::MAX {
            return Err(Status::INVALID_NAMESPACE.dnr());
        }
        let mut id = Self::new_zeroed();
        // FFFFFFFFh asks for what all namespaces have in common.
        if nsid == u32::MAX {
            common(&mut id);
        } else if let Some(namespace) = view.namespace(nsid) {
            common(&mut id);
            own(&mut id, namespace);
        }
        Ok(id)
    }
}

/// The atomic write unit as NVMe counts it.
pub(super) fn atomic_blocks(namespace: &NamespaceView) -> u16 {
    namespace.atomic_blocks.saturating_sub(1)
}

fn common(id: &mut IdentifyNamespace) {
    id.nmic = 1;
    id.dlfeat = 1 << 3 | 1;
}

fn own(id: &mut IdentifyNamespace, namespace: &NamespaceView) {
    let geometry = namespace.geometry;
    id.nsze = U64::new(geometry.blocks);
    id.ncap = U64::new(geometry.blocks);
    id.nuse = U64::new(geometry.blocks);
    id.nvmcap[0] = U64::new(geometry.bytes());
    id.nsfeat = 1 << 1 | u8::from(namespace.thin);
    id.anagrpid = U32::new(namespace.group);
    id.attributes = u8::from(namespace.read_only);
    id.rescap = namespace.reservations.to_wire();
    let atomic = U16::new(atomic_blocks(namespace));
    id.nawun = atomic;
    id.nawupf = atomic;
    id.nguid = namespace.nguid;
    id.lba_formats[0] = U32::new(geometry.block.shift() << 16);
}

/// CNS 02h, Active Namespace ID list: the ids above `after`, ascending.
pub(super) fn list(
    page: &mut Window<'_>,
    view: &SubsystemView<'_>,
    after: u32,
) -> Result<(), Status> {
    if after >= u32::MAX - 1 {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let ids = view.namespaces.iter().map(|namespace| namespace.nsid).filter(|&nsid| nsid > after);
    for (at, nsid) in (0..).step_by(4).zip(ids) {
        page.put(at, &nsid.to_le_bytes());
    }
    Ok(())
}

/// CNS 08h: what holds of a namespace whatever its command set.
pub(super) fn independent(
    page: &mut Window<'_>,
    view: &SubsystemView<'_>,
    namespace: &NamespaceView,
) {
    /// NSTAT: the namespace is ready. Linux skips one without it, and says nothing.
    const READY: u8 = 1;
    let Ok(same) = IdentifyNamespace::new(view, namespace.nsid) else { return };
    page.put(1, &[same.nmic, same.rescap, same.fpi]);
    page.put(4, &namespace.group.to_le_bytes());
    page.put(8, &[same.attributes]);
    page.put(14, &[READY]);
}

/// CNS 03h: the namespace's names, each behind its type and length.
pub(super) fn descriptors(page: &mut Window<'_>, namespace: &NamespaceView) {
    const NGUID: u8 = 2;
    const UUID: u8 = 3;
    let names = [(UUID, namespace.uuid), (NGUID, namespace.nguid)];
    let known = names.into_iter().filter(|(_, name)| *name != [0; 16]);
    for (at, (kind, name)) in (0..).step_by(20).zip(known) {
        page.put(at, &[kind, 16, 0, 0]);
        page.put(at + 4, &name);
    }
}
