//! Identify Controller (Base 5.17.2.1) as a host reads it: what it needs, checked once.

use core::time::Duration;

use arrayvec::ArrayString;

use super::why::Unsuitable;
use crate::connect::Nqn;

/// Bytes of every Identify data structure.
pub(super) const IDENTIFY_BYTES: u32 = 4096;

/// CNS of Identify Namespace.
pub(super) const CNS_NAMESPACE: u8 = 0x00;
/// CNS of Identify Controller.
pub(super) const CNS_CONTROLLER: u8 = 0x01;
/// CNS of the list of active namespaces.
pub(super) const CNS_ACTIVE: u8 = 0x02;
/// CNS of the list of namespace identification descriptors.
pub(super) const CNS_DESCRIPTORS: u8 = 0x03;

/// CNTRLTYPE of a discovery controller.
const TYPE_DISCOVERY: u8 = 2;
/// CNTRLTYPE of controllers older than the field.
const TYPE_NOT_REPORTED: u8 = 0;

/// A controller that we can use.
#[derive(Clone, Debug)]
pub struct ControllerInfo {
    /// Controller id.
    pub cntlid: u16,
    /// Version of the standard, as in the VS property: major 31:16, minor 15:8.
    pub version: u32,
    /// Serial number.
    pub serial: ArrayString<20>,
    /// Model number.
    pub model: ArrayString<40>,
    /// Firmware revision.
    pub firmware: ArrayString<8>,
    /// Its subsystem, if it says so.
    pub subnqn: Option<Nqn>,
    /// It is a discovery controller.
    pub is_discovery: bool,
    /// Bytes of the largest transfer.
    pub transfer_bytes_max: u32,
    /// Bytes of write data that an I/O command may carry in its capsule.
    pub in_capsule_bytes: u32,
    /// Commands outstanding on a queue, at most; 0: not told.
    pub commands_max: u16,
    /// Granularity of the keep alive time-out.
    pub keep_alive_granularity: Duration,
    /// How long it may take to shut down; zero: not told.
    pub shutdown_latency: Duration,
    /// It has a volatile write cache: a write is durable after a flush or with FUA only.
    pub volatile_cache: bool,
    /// It knows Dataset Management.
    pub deallocates: bool,
    /// It knows Write Zeroes.
    pub writes_zeroes: bool,
    /// Logical blocks that it writes whole or not at all when power fails (AWUPF, 1-based).
    pub atomic_blocks: u32,
    /// It tells by the ANA log how namespaces are reached (CMIC).
    pub reports_access: bool,
    /// Highest namespace id (NN).
    pub namespaces: u32,
    /// The events that it can give notice of (OAES).
    pub notices: u32,
}

/// What Identify Controller must fit to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) cntlid: u16,
    pub(super) version: u32,
    pub(super) well_known_discovery: bool,
    pub(super) keep_alive: bool,
}

impl ControllerInfo {
    /// Reads the structure, and checks that we can work with such a controller (the reasons are
    /// those for which Linux refuses one).
    pub(super) fn parse(page: &Page<'_>, expected: &Expected) -> Result<Self, Unsuitable> {
        let info = Self::read(page, expected);
        let connected = expected.cntlid;
        if info.cntlid != connected {
            return Err(Unsuitable::ControllerId { connected, identified: info.cntlid });
        }
        let controller_type = page.u8(111);
        let may_be_discovery = matches!(controller_type, TYPE_DISCOVERY | TYPE_NOT_REPORTED);
        if expected.well_known_discovery && !may_be_discovery {
            return Err(Unsuitable::NotDiscovery);
        }
        if page.u32(536) & 3 == 0 && !info.is_discovery {
            return Err(Unsuitable::NoSgl);
        }
        if expected.keep_alive && page.u16(320) == 0 && !info.is_discovery {
            return Err(Unsuitable::NoKeepAlive);
        }
        if !info.is_discovery {
            check_capsules(page)?;
        }
        Ok(info)
    }

    fn read(page: &Page<'_>, expected: &Expected) -> Self {
        let io_capsule = page.u32(1792).saturating_mul(16);
        let tenths = |n: u16| Duration::from_millis(u64::from(n) * 100);
        Self {
            cntlid: page.u16(78),
            version: expected.version,
            serial: page.text(4, 20),
            model: page.text(24, 40),
            firmware: page.text(64, 8),
            subnqn: page.nqn(768),
            is_discovery: expected.well_known_discovery || page.u8(111) == TYPE_DISCOVERY,
            transfer_bytes_max: transfer_bytes_max(page.u8(77)),
            in_capsule_bytes: io_capsule.saturating_sub(64),
            commands_max: page.u16(514),
            keep_alive_granularity: tenths(page.u16(320)),
            shutdown_latency: Duration::from_micros(u64::from(page.u32(88))),
            volatile_cache: page.u8(525) & 1 != 0,
            deallocates: page.u16(520) & 1 << 2 != 0,
            writes_zeroes: page.u16(520) & 1 << 3 != 0,
            atomic_blocks: u32::from(page.u16(528)) + 1,
            reports_access: page.u8(76) & 1 << 3 != 0,
            namespaces: page.u32(516),
            notices: page.u32(92),
        }
    }
}

/// The bytes that MDTS stands for: a power of two of 4 KiB pages, the smallest that we use.
const fn transfer_bytes_max(mdts: u8) -> u32 {
    const PAGE_SHIFT: u8 = 12;
    if mdts == 0 || mdts >= 32 - PAGE_SHIFT { u32::MAX } else { 1 << (mdts + PAGE_SHIFT) }
}

/// Checks what an I/O controller says about capsules (Base 5.17.2.1, fabrics part).
fn check_capsules(page: &Page<'_>) -> Result<(), Unsuitable> {
    if page.u32(1792) < 4 {
        return Err(Unsuitable::CommandCapsule);
    }
    if page.u32(1796) < 1 {
        return Err(Unsuitable::ResponseCapsule);
    }
    if page.u16(1800) != 0 { Err(Unsuitable::DataOffset) } else { Ok(()) }
}

/// A structure of the standard, read by byte offset as its figures give them.
///
/// Reading behind its end gives zeros, which every field of the standard takes for "not there".
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a>(pub(super) &'a [u8]);

impl Page<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().unwrap_or([0; N])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.array(at))
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(super) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.array(at)
    }

    /// The name in a NUL-padded field of 256 bytes.
    pub(super) fn nqn(&self, at: usize) -> Option<Nqn> {
        Nqn::from_field(&self.array(at))
    }

    /// The ASCII text of a field padded by spaces or NULs; other characters become `?`.
    pub(super) fn text<const N: usize>(&self, at: usize, len: usize) -> ArrayString<N> {
        let field = self.0.get(at..at + len).unwrap_or_default();
        let end = field.iter().rposition(|&b| b != b' ' && b != 0).map_or(0, |last| last + 1);
        let mut text = ArrayString::new();
        for &byte in field[..end].iter().take(N) {
            text.push(if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '?' });
        }
        text
    }
}
