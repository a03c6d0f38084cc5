//! Set Features and Get Features (Base 5.17, 5.27).
//!
//! Every feature is one row of [`Feature::of`]; nothing is saved over a reset, so SV is refused
//! and the saved value is the default one.

use core::time::Duration;

use super::admin::{Admin, NamespaceFeature};
use super::controller::{Controller, KEEP_ALIVE_UNIT, Kind};
use super::event::Notice;
use super::identify::{WARNING_TEMPERATURE_KELVIN, notices};
use super::window::Window;
use crate::Status;
use crate::command::{Command, admin};
use crate::connect::halves;

/// Bytes of the Host Behavior Support feature.
const HOST_BEHAVIOR_BYTES: u32 = 512;
/// Bytes of the Host Identifier feature, in its extended form.
const HOST_ID_BYTES: u32 = 16;

/// CDW10 of Set Features: save the value.
const SV: u32 = 1 << 31;
/// Error Recovery: an error for reads of deallocated blocks, which always read zero here.
const DULBE: u32 = 1 << 16;
/// CDW11 of the Host Identifier feature: 128 bits of it.
const EXHID: u32 = 1 << 0;
/// Critical warnings in the Asynchronous Event Configuration: of these only that of reliability is
/// raised. Discovery controllers have no log page that would tell more.
const SMART_WARNINGS: u32 = 0xff;

/// The features there are (Base 5.27.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    /// 01h. Round robin is all there is, so any value is kept and none has an effect.
    Arbitration,
    /// 02h. One power state, 0.
    PowerManagement,
    /// 04h. There is no thermometer: thresholds are kept and never crossed.
    TemperatureThreshold,
    /// 05h. No retries are made that a time limit could end: kept.
    ErrorRecovery,
    /// 06h.
    VolatileWriteCache,
    /// 07h.
    NumberOfQueues,
    /// 08h. There are no interrupts on fabrics: kept.
    InterruptCoalescing,
    /// 09h. As above.
    InterruptVector,
    /// 0Ah. Writes are as atomic as AWUN says whether or not the host needs it: kept.
    WriteAtomicity,
    /// 0Bh.
    AsynchronousEvents,
    /// 0Fh.
    KeepAlive,
    /// 16h.
    HostBehavior,
    /// 81h.
    HostIdentifier,
    /// 82h.
    ReservationMask,
    /// 83h.
    ReservationPersistence,
}

impl Feature {
    /// The feature that CDW10 of a command to this kind of controller names.
    fn of(kind: Kind, cdw10: u32) -> Result<Self, Status> {
        let discovery = kind == Kind::Discovery;
        Ok(match cdw10.to_le_bytes()[0] {
            0x0b => Self::AsynchronousEvents,
            0x0f => Self::KeepAlive,
            _ if discovery => return Err(Status::INVALID_FIELD.dnr()),
            0x01 => Self::Arbitration,
            0x02 => Self::PowerManagement,
            0x04 => Self::TemperatureThreshold,
            0x05 => Self::ErrorRecovery,
            0x06 => Self::VolatileWriteCache,
            0x07 => Self::NumberOfQueues,
            0x08 => Self::InterruptCoalescing,
            0x09 => Self::InterruptVector,
            0x0a => Self::WriteAtomicity,
            0x16 => Self::HostBehavior,
            0x81 => Self::HostIdentifier,
            0x82 => Self::ReservationMask,
            0x83 => Self::ReservationPersistence,
            _ => return Err(Status::INVALID_FIELD.dnr()),
        })
    }

    /// Bytes of its value, when that is more than a dword.
    const fn data_len(self) -> u32 {
        match self {
            Self::HostBehavior => HOST_BEHAVIOR_BYTES,
            Self::HostIdentifier => HOST_ID_BYTES,
            _ => 0,
        }
    }

    const fn changeable(self) -> bool {
        !matches!(self, Self::HostIdentifier)
    }

    /// The same, if each namespace has its own value.
    const fn of_namespace(self) -> Option<NamespaceFeature> {
        match self {
            Self::ReservationMask => Some(NamespaceFeature::ReservationMask),
            Self::ReservationPersistence => Some(NamespaceFeature::ReservationPersistence),
            _ => None,
        }
    }
}

/// SEL of Get Features: which value is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Select {
    Current,
    Default,
    Capabilities,
}

impl Select {
    const fn of(cdw10: u32) -> Result<Self, Status> {
        Ok(match cdw10 >> 8 & 7 {
            0 => Self::Current,
            // Saved: the default, as nothing was saved.
            1 | 2 => Self::Default,
            3 => Self::Capabilities,
            _ => return Err(Status::INVALID_FIELD.dnr()),
        })
    }
}

/// The values that a host can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Features {
    arbitration: u32,
    error_recovery: u32,
    interrupt_coalescing: u32,
    interrupt_vector: u32,
    write_atomicity: u32,
    /// Over and under temperature threshold, in kelvin.
    temperature: [u16; 2],
    write_cache: bool,
    /// Bits of the events that the host wants to be told of.
    notices: u32,
    queues: u16,
    keep_alive_ms: u32,
    /// The three bytes of Host Behavior Support that are defined.
    host_behavior: [u8; 3],
}

impl Features {
    /// The defaults, for a keep alive time-out as asked for with Connect.
    pub(crate) fn new(kato: Duration, io_queues: u16) -> Self {
        Self {
            arbitration: 0,
            error_recovery: 0,
            interrupt_coalescing: 0,
            interrupt_vector: 0,
            write_atomicity: 0,
            temperature: [WARNING_TEMPERATURE_KELVIN, 0],
            write_cache: true,
            notices: 0,
            queues: io_queues,
            keep_alive_ms: rounded(u32::try_from(kato.as_millis()).unwrap_or(u32::MAX)),
            host_behavior: [0; 3],
        }
    }

    /// Keep alive time-out, zero: none.
    pub(crate) fn keep_alive(&self) -> Duration {
        Duration::from_millis(u64::from(self.keep_alive_ms))
    }

    /// Whether the host wants to be told.
    pub(crate) const fn wants(&self, notice: Notice) -> bool {
        self.notices & notice as u32 != 0
    }

    /// I/O queues that the host may connect.
    pub(crate) const fn queues(&self) -> u16 {
        self.queues
    }

    /// Whether a write may be completed before it is durable.
    pub(crate) const fn write_cache(&self) -> bool {
        self.write_cache
    }
}

/// A keep alive time-out rounded up to what KAS can tell apart (Base 3.9).
fn rounded(milliseconds: u32) -> u32 {
    let unit = u32::try_from(KEEP_ALIVE_UNIT.as_millis()).unwrap_or(u32::MAX);
    milliseconds.div_ceil(unit).saturating_mul(unit)
}

/// Bytes that a Set Features or Get Features command moves.
pub(crate) fn data_len(kind: Kind, command: &Command) -> Result<u32, Status> {
    let feature = Feature::of(kind, command.cdw(10))?;
    match command.opcode {
        admin::GET_FEATURES if Select::of(command.cdw(10))? == Select::Capabilities => Ok(0),
        admin::SET_FEATURES if !feature.changeable() => Ok(0),
        // EXHID cleared asks for an identifier of 64 bits, which this one is not.
        _ if feature == Feature::HostIdentifier && command.cdw(11) & EXHID == 0 => {
            Err(Status::HOST_ID_INCONSISTENT.dnr())
        }
        _ => Ok(feature.data_len()),
    }
}

/// Set Features.
pub(crate) fn set(
    controller: &mut Controller,
    command: &Command,
    data: &[u8],
) -> Result<Admin, Status> {
    let feature = Feature::of(controller.kind, command.cdw(10))?;
    if command.cdw(10) & SV != 0 {
        return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
    }
    if let Some(feature) = feature.of_namespace() {
        let (nsid, value) = (command.nsid.get(), Some(command.cdw(11)));
        return Ok(Admin::Feature { nsid, feature, value });
    }
    if !matches!(command.nsid.get(), 0 | u32::MAX) {
        return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC.dnr());
    }
    let value = command.cdw(11);
    let features = &mut controller.features;
    match feature {
        Feature::Arbitration => features.arbitration = value,
        Feature::PowerManagement if value & 0x1f != 0 => return Err(Status::INVALID_FIELD.dnr()),
        Feature::PowerManagement => {}
        Feature::TemperatureThreshold => {
            features.temperature[threshold(value)?] = halves(value).0;
        }
        Feature::ErrorRecovery if value & DULBE != 0 => return Err(Status::INVALID_FIELD.dnr()),
        Feature::ErrorRecovery => features.error_recovery = value,
        Feature::VolatileWriteCache => {
            let was_on = core::mem::replace(&mut features.write_cache, value & 1 != 0);
            // What was completed before it is durable must be so before nobody flushes any more.
            if was_on && !features.write_cache {
                return Ok(Admin::Flush);
            }
        }
        Feature::NumberOfQueues => return grant(controller, value).map(Admin::done),
        Feature::InterruptCoalescing => features.interrupt_coalescing = value,
        Feature::InterruptVector => features.interrupt_vector = value,
        Feature::WriteAtomicity => features.write_atomicity = value & 1,
        Feature::AsynchronousEvents => {
            let warnings = if controller.kind == Kind::Io { SMART_WARNINGS } else { 0 };
            features.notices = value & (notices(controller.kind) | warnings);
        }
        Feature::KeepAlive => features.keep_alive_ms = keep_alive(controller.kind, value)?,
        Feature::HostBehavior => {
            features.host_behavior = *data.first_chunk().ok_or(Status::SGL_LENGTH_INVALID.dnr())?;
        }
        // It came with Connect, and identifies the host from then on (Base 5.27.1.25).
        Feature::HostIdentifier => return Err(Status::SEQUENCE_ERROR.dnr()),
        Feature::ReservationMask | Feature::ReservationPersistence => {}
    }
    Ok(Admin::done(0))
}

/// Get Features.
pub(crate) fn get(
    controller: &Controller,
    command: &Command,
    out: &mut [u8],
) -> Result<Admin, Status> {
    let feature = Feature::of(controller.kind, command.cdw(10))?;
    let select = Select::of(command.cdw(10))?;
    if let (Some(feature), Select::Current) = (feature.of_namespace(), select) {
        return Ok(Admin::Feature { nsid: command.nsid.get(), feature, value: None });
    }
    let defaults;
    let features = match select {
        Select::Capabilities => {
            let of_namespace = u64::from(feature.of_namespace().is_some()) << 1;
            return Ok(Admin::done(u64::from(feature.changeable()) << 2 | of_namespace));
        }
        Select::Current => &controller.features,
        Select::Default => {
            defaults = Features::new(controller.features.keep_alive(), controller.limits.io_queues);
            &defaults
        }
    };
    let value = match feature {
        Feature::Arbitration => features.arbitration,
        Feature::PowerManagement => 0,
        Feature::TemperatureThreshold => {
            u32::from(features.temperature[threshold(command.cdw(11))?])
        }
        Feature::ErrorRecovery => features.error_recovery,
        Feature::VolatileWriteCache => u32::from(features.write_cache),
        Feature::NumberOfQueues => both(features.queues),
        Feature::InterruptCoalescing => features.interrupt_coalescing,
        Feature::InterruptVector => features.interrupt_vector,
        Feature::WriteAtomicity => features.write_atomicity,
        Feature::AsynchronousEvents => features.notices,
        Feature::KeepAlive => features.keep_alive_ms,
        Feature::HostBehavior => {
            return Ok(data(out, &features.host_behavior, HOST_BEHAVIOR_BYTES));
        }
        Feature::HostIdentifier => return Ok(data(out, &controller.hostid, HOST_ID_BYTES)),
        // The default: everything is told, nothing persists.
        Feature::ReservationMask | Feature::ReservationPersistence => 0,
    };
    Ok(Admin::done(u64::from(value)))
}

/// Which threshold CDW11 of the temperature feature is about: over or under, of the composite
/// temperature, for there is no sensor to select.
const fn threshold(cdw11: u32) -> Result<usize, Status> {
    match (cdw11 >> 16 & 0xf, cdw11 >> 20 & 3) {
        (0 | 0xf, 0) => Ok(0),
        (0 | 0xf, 1) => Ok(1),
        _ => Err(Status::INVALID_FIELD.dnr()),
    }
}

/// Number of Queues: grants as many as asked for, allowed, and left: a host takes a queue that was
/// granted and is refused for an error of the whole controller (Base 5.27.1.5).
fn grant(controller: &mut Controller, asked: u32) -> Result<u64, Status> {
    let (submission, completion) = halves(asked);
    if submission == u16::MAX || completion == u16::MAX {
        return Err(Status::INVALID_FIELD.dnr());
    }
    if controller.has_queues() {
        return Err(Status::SEQUENCE_ERROR.dnr());
    }
    // A queue is a pair on fabrics. The numbers are 0-based.
    let allowed = controller.limits.io_queues.min(controller.spare.max(1));
    let queues = submission.min(completion).saturating_add(1).min(allowed);
    controller.features.queues = queues;
    Ok(u64::from(both(queues)))
}

/// The Number of Queues dword for so many pairs.
fn both(queues: u16) -> u32 {
    let zero_based = u32::from(queues.saturating_sub(1));
    zero_based | zero_based << 16
}

/// A keep alive time-out that the host sets. NVMe/TCP needs one, but a discovery host may do
/// without (TCP 3.5).
fn keep_alive(kind: Kind, milliseconds: u32) -> Result<u32, Status> {
    if milliseconds == 0 && kind == Kind::Io {
        return Err(Status::KEEP_ALIVE_INVALID.dnr());
    }
    Ok(rounded(milliseconds))
}

/// The value of a feature that takes more than a dword.
fn data(out: &mut [u8], value: &[u8], len: u32) -> Admin {
    Window::new(0, out).put(0, value);
    Admin::Data { len }
}
