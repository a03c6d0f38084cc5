//! Identify (Base 5.17, NVM 4.1.5): what a controller and its namespaces are.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ControllerModel;
use super::controller::{Controller, KEEP_ALIVE_UNIT, Kind};
use super::event::{AERL, Notice};
use super::transfer::MDTS;
use super::view::{NSID_MAX, NamespaceView, SubsystemView};
use super::window::Window;
use crate::Status;
use crate::command::Command;
use crate::connect::Nqn;
use crate::property::VERSION;

/// Bytes of every Identify data structure.
pub(crate) const IDENTIFY_BYTES: u32 = 4096;

/// WCTEMP, and the default of the over temperature threshold: what hosts expect to read.
pub(crate) const WARNING_TEMPERATURE_KELVIN: u16 = 343;
/// CCTEMP.
const CRITICAL_TEMPERATURE_KELVIN: u16 = 373;

/// RTD3E in microseconds: how long a host waits for a shutdown, which may have caches to flush.
const SHUTDOWN_MICROSECONDS: u32 = 10_000_000;

/// WZSL: log2 of the largest Write Zeroes in units of 4 KiB. 8 MiB keep a shard busy for a
/// millisecond at most, and 65536 blocks of 512 bytes are more than that.
const WZSL: u8 = 11;
/// Bytes that one Write Zeroes may cover.
pub const WRITE_ZEROES_BYTES_MAX: u64 = 4096 << WZSL;

/// OAES of this kind of controller: the notices it sends.
pub(crate) const fn notices(kind: Kind) -> u32 {
    match kind {
        Kind::Io => Notice::NamespaceAttribute as u32,
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
    /// OACS.
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
    reserved_322: [u8; 190],
    /// SQES.
    pub sqes: u8,
    /// CQES.
    pub cqes: u8,
    /// MAXCMD.
    pub maxcmd: U16,
    /// NN.
    pub nn: U32,
    /// ONCS: bit 2 Dataset Management, bit 3 Write Zeroes, bit 4 select in Get Features.
    pub oncs: U16,
    /// FUSES.
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
    assert!(offset_of!(IdentifyController, sqes) == 512);
    assert!(offset_of!(IdentifyController, oncs) == 520);
    assert!(offset_of!(IdentifyController, vwc) == 525);
    assert!(offset_of!(IdentifyController, sgls) == 536);
    assert!(offset_of!(IdentifyController, subnqn) == 768);
    assert!(offset_of!(IdentifyController, ioccsz) == 1792);
    assert!(offset_of!(IdentifyController, msdbd) == 1803);
    assert!(offset_of!(IdentifyController, power_states) == 2048);
};

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
    /// RESCAP.
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
    reserved_64: [u8; 40],
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
    assert!(offset_of!(IdentifyNamespace, nguid) == 104);
    assert!(offset_of!(IdentifyNamespace, lba_formats) == 128);
};

/// Identify: writes the data structure into `out`, [`IDENTIFY_BYTES`] long.
pub(crate) fn identify(
    controller: &Controller,
    view: &SubsystemView<'_>,
    command: &Command,
    out: &mut [u8],
) -> Result<(), Status> {
    let cns = command.cdw(10).to_le_bytes()[0];
    let csi = command.cdw(11).to_le_bytes()[3];
    let mut page = Window::new(0, out);
    let nsid = command.nsid.get();
    match (controller.kind, cns) {
        (_, 0x01) => page.put(0, of_controller(controller, view).as_bytes()),
        (Kind::Io, 0x00) => page.put(0, of_namespace(view, nsid)?.as_bytes()),
        (Kind::Io, 0x02) => namespace_list(&mut page, view, nsid)?,
        (Kind::Io, 0x03) => descriptors(&mut page, namespace(view, nsid)?),
        // The NVM command set says nothing more of a namespace without protection information.
        (Kind::Io, 0x05) if csi == 0 => drop(namespace(view, nsid)?),
        (Kind::Io, 0x06) if csi == 0 => page.put(1, &[WZSL]),
        _ => return Err(Status::INVALID_FIELD.dnr()),
    }
    Ok(())
}

fn namespace<'a>(view: &'a SubsystemView<'_>, nsid: u32) -> Result<&'a NamespaceView, Status> {
    view.namespace(nsid).ok_or(Status::INVALID_NAMESPACE.dnr())
}

fn of_controller(controller: &Controller, view: &SubsystemView<'_>) -> IdentifyController {
    let mut id = IdentifyController::new_zeroed();
    describe(&mut id, view);
    administration(&mut id, controller);
    fabrics(&mut id, controller, view);
    if controller.kind == Kind::Io {
        input_output(&mut id, view);
    }
    id
}

/// Who the subsystem is.
fn describe(id: &mut IdentifyController, view: &SubsystemView<'_>) {
    id.serial = ascii(view.serial);
    id.model = ascii(view.model);
    id.firmware = ascii(view.firmware);
    id.subnqn = Nqn::parse(view.nqn).map_or([0; 256], |nqn| nqn.to_field());
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
    id.acl = 3;
    id.aerl = AERL;
    // One slot, read only.
    id.frmw = 1 << 1 | 1;
    id.kas = U16::new(u16::try_from(KEEP_ALIVE_UNIT.as_millis() / 100).unwrap_or(u16::MAX));
    id.lpa = match controller.kind {
        Kind::Io => 1 << 5 | 1 << 2 | 1 << 1,
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
    id.wctemp = U16::new(WARNING_TEMPERATURE_KELVIN);
    id.cctemp = U16::new(CRITICAL_TEMPERATURE_KELVIN);
    id.sqes = 0x66;
    id.cqes = 0x44;
    id.nn = U32::new(NSID_MAX);
    id.mnan = U32::new(NSID_MAX);
    id.oncs = U16::new(1 << 4 | 1 << 3 | 1 << 2);
    // Without bit 0 Linux would send neither Flush nor FUA. 10b: no Flush of all namespaces at
    // once, which would have to gather many devices' answers for the sake of no known host.
    id.vwc = 0b10 << 1 | 1;
    // What holds for every namespace; each says more of itself.
    let atomic = view.namespaces.iter().map(atomic_zero_based).min().unwrap_or(0);
    id.awun = U16::new(atomic);
    id.awupf = U16::new(atomic);
}

/// The atomic write unit as NVMe counts it.
fn atomic_zero_based(namespace: &NamespaceView) -> u16 {
    namespace.atomic_blocks.saturating_sub(1)
}

fn of_namespace(view: &SubsystemView<'_>, nsid: u32) -> Result<IdentifyNamespace, Status> {
    if nsid == 0 || nsid > NSID_MAX && nsid != u32::MAX {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let mut id = IdentifyNamespace::new_zeroed();
    // FFFFFFFFh asks for what all namespaces have in common.
    if nsid == u32::MAX {
        common(&mut id);
    } else if let Some(namespace) = view.namespace(nsid) {
        common(&mut id);
        own(&mut id, namespace);
    }
    Ok(id)
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
    let atomic = U16::new(atomic_zero_based(namespace));
    id.nawun = atomic;
    id.nawupf = atomic;
    id.nguid = namespace.nguid;
    id.lba_formats[0] = U32::new(geometry.block.shift() << 16);
}

/// CNS 02h: the ids above `after`, ascending.
fn namespace_list(
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

/// CNS 03h: the namespace's names, each behind its type and length.
fn descriptors(page: &mut Window<'_>, namespace: &NamespaceView) {
    const NGUID: u8 = 2;
    const UUID: u8 = 3;
    let names = [(UUID, namespace.uuid), (NGUID, namespace.nguid)];
    let known = names.into_iter().filter(|(_, name)| *name != [0; 16]);
    for (at, (kind, name)) in (0..).step_by(20).zip(known) {
        page.put(at, &[kind, 16, 0, 0]);
        page.put(at + 4, &name);
    }
}

/// A text field: printable ASCII, space padded, cut to its length.
pub(crate) fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = if (b' '..=b'~').contains(&from) { from } else { b'?' };
    }
    field
}
