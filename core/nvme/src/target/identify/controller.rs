//! Identify Controller (Base 5.17.2.1).

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::namespace::atomic_blocks;
use super::{IDENTIFY_BYTES, ascii};
use crate::ana::{ANA_GROUPS_MAX, ANA_TRANSITION_SECONDS};
use crate::command::Command;
use crate::property::VERSION;
use crate::target::ControllerModel;
use crate::target::admin::ABORTS_MAX;
use crate::target::controller::{Controller, KEEP_ALIVE_UNIT, Kind};
use crate::target::errors::ERRORS_MAX;
use crate::target::event::{AERL, Notice};
use crate::target::transfer::MDTS;
use crate::target::view::{NSID_MAX, SubsystemView};

/// WCTEMP, and the default of the over temperature threshold: what hosts expect to read.
pub(crate) const WARNING_TEMPERATURE_KELVIN: u16 = 343;
/// CCTEMP.
const CRITICAL_TEMPERATURE_KELVIN: u16 = 373;

/// RTD3E in microseconds: how long a host waits for a shutdown, which may have caches to flush.
const SHUTDOWN_MICROSECONDS: u32 = 10_000_000;

/// OAES of this kind of controller: the notices it sends.
pub(crate) const fn notices(kind: Kind) -> u32 {
    match kind {
        Kind::Io => Notice::NamespaceAttribute as u32 | Notice::AnaChange as u32,
        Kind::Discovery => Notice::DiscoveryLog as u32,
    }
}

/// Identify Controller (CNS 01h).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// VID, SSVID.
    pub vendor: [U16; 2],
    /// SN, space padded.
    pub serial: [u8; 20],
    /// MN, space padded.
    pub model: [u8; 40],
    /// FR, space padded.
    pub firmware: [u8; 8],
    /// RAB.
    pub arbitration_burst: u8,
    /// IEEE.
    pub ieee: [u8; 3],
    /// CMIC: bit 0 more than one port, bit 1 more than one controller, bit 3 ANA.
    pub cmic: u8,
    /// MDTS.
    pub mdts: u8,
    /// CNTLID.
    pub cntlid: U16,
    /// VER.
    pub version: U32,
    /// RTD3R in microseconds.
    pub rtd3r: U32,
    /// RTD3E in microseconds.
    pub rtd3e: U32,
    /// OAES.
    pub oaes: U32,
    /// CTRATT: bit 0 host identifiers of 128 bits.
    pub ctratt: U32,
    reserved_100: [u8; 11],
    /// CNTRLTYPE: 1 I/O, 2 discovery.
    pub controller_type: u8,
    /// FGUID.
    pub fguid: [u8; 16],
    /// CRDT1 to CRDT3.
    pub retry_delays: [U16; 3],
    reserved_134: [u8; 122],
    /// OACS: bit 9 Get LBA Status.
    pub oacs: U16,
    /// ACL, 0-based.
    pub acl: u8,
    /// AERL, 0-based.
    pub aerl: u8,
    /// FRMW.
    pub frmw: u8,
    /// LPA: bit 1 effects log, bit 2 offsets and long pages, bit 5 supported log pages.
    pub lpa: u8,
    /// ELPE, 0-based.
    pub elpe: u8,
    /// NPSS, 0-based.
    pub npss: u8,
    reserved_264: [u8; 2],
    /// WCTEMP in kelvin.
    pub wctemp: U16,
    /// CCTEMP in kelvin.
    pub cctemp: U16,
    reserved_270: [u8; 50],
    /// KAS in units of 100 ms.
    pub kas: U16,
    reserved_322: [u8; 20],
    /// ANATT in seconds.
    pub anatt: u8,
    /// ANACAP: bits 4:0 the states that are told, bit 6 ids of groups stay, bit 7 nonzero ids in
    /// Namespace Management.
    pub anacap: u8,
    /// ANAGRPMAX.
    pub anagrpmax: U32,
    /// NANAGRPID.
    pub nanagrpid: U32,
    reserved_352: [u8; 160],
    /// SQES.
    pub sqes: u8,
    /// CQES.
    pub cqes: u8,
    /// MAXCMD.
    pub maxcmd: U16,
    /// NN.
    pub nn: U32,
    /// ONCS: bit 0 Compare, bit 2 Dataset Management, bit 3 Write Zeroes, bit 4 select in Get
    /// Features, bit 5 reservations, bit 7 Verify.
    pub oncs: U16,
    /// FUSES: bit 0 Compare and Write.
    pub fuses: U16,
    /// FNA.
    pub fna: u8,
    /// VWC: bit 0 present, bits 2:1 Flush with NSID FFFFFFFFh.
    pub vwc: u8,
    /// AWUN in blocks, 0-based.
    pub awun: U16,
    /// AWUPF in blocks, 0-based.
    pub awupf: U16,
    reserved_530: [u8; 6],
    /// SGLS.
    pub sgls: U32,
    /// MNAN.
    pub mnan: U32,
    reserved_544: [u8; 224],
    /// SUBNQN, NUL padded.
    pub subnqn: [u8; 256],
    reserved_1024: [u8; 768],
    /// IOCCSZ in units of 16 bytes.
    pub ioccsz: U32,
    /// IORCSZ in units of 16 bytes.
    pub iorcsz: U32,
    /// ICDOFF in units of 16 bytes.
    pub icdoff: U16,
    /// FCATT: bit 0 static controller model.
    pub fcatt: u8,
    /// MSDBD.
    pub msdbd: u8,
    /// OFCS: bit 0 Disconnect.
    pub ofcs: U16,
    /// DCTYPE.
    pub dctype: u8,
    reserved_1807: [u8; 241],
    /// PSD0 to PSD31.
    pub power_states: [[u8; 32]; 32],
    reserved_3072: [u8; 1024],
}
const _: () = {
    assert!(size_of::<IdentifyController>() == IDENTIFY_BYTES as usize);
    assert!(offset_of!(IdentifyController, cmic) == 76);
    assert!(offset_of!(IdentifyController, oaes) == 92);
    assert!(offset_of!(IdentifyController, controller_type) == 111);
    assert!(offset_of!(IdentifyController, oacs) == 256);
    assert!(offset_of!(IdentifyController, lpa) == 261);
    assert!(offset_of!(IdentifyController, wctemp) == 266);
    assert!(offset_of!(IdentifyController, kas) == 320);
    assert!(offset_of!(IdentifyController, anatt) == 342);
    assert!(offset_of!(IdentifyController, sqes) == 512);
    assert!(offset_of!(IdentifyController, oncs) == 520);
    assert!(offset_of!(IdentifyController, vwc) == 525);
    assert!(offset_of!(IdentifyController, sgls) == 536);
    assert!(offset_of!(IdentifyController, subnqn) == 768);
    assert!(offset_of!(IdentifyController, ioccsz) == 1792);
    assert!(offset_of!(IdentifyController, msdbd) == 1803);
    assert!(offset_of!(IdentifyController, power_states) == 2048);
};

impl IdentifyController {
    pub(super) fn new(controller: &Controller, view: &SubsystemView<'_>) -> Self {
        let mut id = Self::new_zeroed();
        describe(&mut id, view);
        administration(&mut id, controller);
        fabrics(&mut id, controller, view);
        if controller.kind == Kind::Io {
            input_output(&mut id, view);
        }
        id
    }
}

/// Who the subsystem is.
fn describe(id: &mut IdentifyController, view: &SubsystemView<'_>) {
    id.serial = ascii(view.serial);
    id.model = ascii(view.model);
    id.firmware = ascii(view.firmware);
    id.subnqn = view.nqn.to_field();
    // Linux refuses a second controller of a subsystem without bit 1.
    id.cmic = 1 << 1 | u8::from(view.portals.len() > 1);
}

/// What the admin queue does.
fn administration(id: &mut IdentifyController, controller: &Controller) {
    id.mdts = MDTS;
    id.cntlid = U16::new(controller.cntlid);
    id.version = U32::new(VERSION);
    id.rtd3e = U32::new(SHUTDOWN_MICROSECONDS);
    id.oaes = U32::new(notices(controller.kind));
    id.ctratt = U32::new(1);
    id.controller_type = match controller.kind {
        Kind::Io => 1,
        Kind::Discovery => 2,
    };
    id.acl = (ABORTS_MAX - 1) as u8;
    id.aerl = AERL;
    // One slot, read only.
    id.frmw = 1 << 1 | 1;
    id.kas = U16::new(u16::try_from(KEEP_ALIVE_UNIT.as_millis() / 100).unwrap_or(u16::MAX));
    id.lpa = match controller.kind {
        // Also the SMART log of one namespace.
        Kind::Io => 1 << 5 | 1 << 2 | 1 << 1 | 1,
        Kind::Discovery => 1 << 2,
    };
}

/// How capsules look.
fn fabrics(id: &mut IdentifyController, controller: &Controller, view: &SubsystemView<'_>) {
    id.maxcmd = U16::new(controller.limits.queue_entries);
    // SGLs of any alignment; in-capsule data is addressed by offset.
    id.sgls = U32::new(1 << 20 | 1);
    id.ioccsz = U32::new((size_of::<Command>() as u32 + controller.limits.in_capsule_bytes) / 16);
    id.iorcsz = U32::new(1);
    id.fcatt = u8::from(view.controllers == ControllerModel::Static);
    id.msdbd = 1;
}

/// What I/O queues do.
fn input_output(id: &mut IdentifyController, view: &SubsystemView<'_>) {
    id.cmic |= 1 << 3;
    id.anatt = ANA_TRANSITION_SECONDS;
    // All states are told, and a namespace stays in its group.
    id.anacap = 1 << 6 | 0x1f;
    id.anagrpmax = U32::new(ANA_GROUPS_MAX);
    id.nanagrpid = U32::new(ANA_GROUPS_MAX);
    id.oacs = U16::new(1 << 9);
    id.wctemp = U16::new(WARNING_TEMPERATURE_KELVIN);
    id.cctemp = U16::new(CRITICAL_TEMPERATURE_KELVIN);
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = U32::new(NSID_MAX);
    id.mnan = U32::new(NSID_MAX);
    id.oncs = U16::new(1 << 7 | 1 << 5 | 1 << 4 | 1 << 3 | 1 << 2 | 1);
    id.fuses = U16::new(1);
    id.elpe = (ERRORS_MAX - 1) as u8;
    // Without bit 0 Linux would send neither Flush nor FUA. 10b: no Flush of all namespaces at
    // once, which would have to gather many devices' answers for the sake of no known host.
    id.vwc = 0b10 << 1 | 1;
    // What holds for every namespace; each says more of itself.
    let atomic = view.namespaces.iter().map(atomic_blocks).min().unwrap_or(0);
    id.awun = U16::new(atomic);
    id.awupf = U16::new(atomic);
}
