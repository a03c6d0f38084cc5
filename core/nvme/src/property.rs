//! Controller properties, and the fabrics commands that read and write them (Base 3.1.3, 6.4,
//! 6.5).
//!
//! We are a 1.4 controller, not a 2.0 one. Version 2.0 would make hosts ask for more (Identify
//! CNS 08h, where a zeroed NRDY bit makes Linux skip the namespace without a word, and 1Ch) and
//! make more log pages mandatory, and would gain them nothing that they use. So there is no CRTO
//! either: CAP.CRMS is zero, and hosts wait for CAP.TO.

use crate::Status;
use crate::command::{Command, admin, fabrics};

/// The version that VS and Identify report: 1.4.0.
pub const VERSION: u32 = 0x0001_0400;

/// CAP.TO in units of 500 ms: how long a host waits for CSTS.RDY to follow CC.EN.
const TIMEOUT_HALF_SECONDS: u64 = 30;

/// Controller Capabilities (CAP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    const CONTIGUOUS_QUEUES: u64 = 1 << 16;
    const NVM_COMMAND_SET: u64 = 1 << 37;

    /// Those of a controller whose queues have up to `queue_entries` entries: the NVM command
    /// set, round robin, 4 KiB memory pages, no subsystem reset.
    #[must_use]
    pub const fn new(queue_entries: u16) -> Self {
        Self(
            queue_entries.saturating_sub(1) as u64
                | Self::CONTIGUOUS_QUEUES
                | TIMEOUT_HALF_SECONDS << 24
                | Self::NVM_COMMAND_SET,
        )
    }

    /// From the property's value.
    #[must_use]
    pub const fn from_wire(value: u64) -> Self {
        Self(value)
    }

    /// The property's value.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// Entries of a queue at most: MQES made 1-based.
    #[must_use]
    pub const fn queue_entries_max(self) -> u32 {
        (self.0 & 0xffff) as u32 + 1
    }

    /// TO in milliseconds: how long CSTS.RDY may take to follow CC.EN.
    #[must_use]
    pub const fn ready_timeout_ms(self) -> u32 {
        ((self.0 >> 24) & 0xff) as u32 * 500
    }

    /// CSS: whether the NVM command set is there.
    #[must_use]
    pub const fn has_nvm_command_set(self) -> bool {
        self.0 & Self::NVM_COMMAND_SET != 0
    }

    /// MPSMIN as a number of bytes is 4096, the only page size a host without pages can promise.
    #[must_use]
    pub const fn allows_4k_pages(self) -> bool {
        (self.0 >> 48) & 0xf == 0
    }
}

/// Controller Configuration (CC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration(u32);

impl Configuration {
    const EN: u32 = 1;
    /// CSS 6:4, MPS 10:7, AMS 13:11: all zero for the NVM command set, 4 KiB, round robin.
    const CSS_MPS_AMS: u32 = 0x3ff0;
    const SHN: u32 = 3 << 14;
    /// IOSQES 19:16 and IOCQES 23:20.
    const ENTRY_SIZES: u32 = 0xff << 16;
    /// Entries of 2^6 and 2^4 bytes.
    const ENTRY_SIZES_64_AND_16: u32 = 0x46 << 16;

    /// What a host writes to enable a controller.
    pub const ENABLE: Self = Self(Self::ENTRY_SIZES_64_AND_16 | Self::EN);
    /// What a host writes to shut a controller down in order.
    pub const SHUTDOWN: Self = Self(Self::ENABLE.0 | 1 << 14);

    /// From the property's value.
    #[must_use]
    pub const fn from_wire(value: u32) -> Self {
        Self(value)
    }

    /// The property's value.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// EN.
    #[must_use]
    pub const fn enabled(self) -> bool {
        self.0 & Self::EN != 0
    }

    /// SHN: whether a shutdown, normal or abrupt, is asked for.
    #[must_use]
    pub const fn shutdown(self) -> bool {
        self.0 & Self::SHN != 0
    }

    /// CSS, MPS and AMS: whether they ask for what [`Capabilities::new`] offers.
    #[must_use]
    pub const fn selects_what_we_offer(self) -> bool {
        self.0 & Self::CSS_MPS_AMS == 0
    }

    /// IOSQES and IOCQES: whether they are 64 and 16 bytes, the only sizes on fabrics.
    #[must_use]
    pub const fn has_our_entry_sizes(self) -> bool {
        self.0 & Self::ENTRY_SIZES == Self::ENTRY_SIZES_64_AND_16
    }
}

/// Controller Status (CSTS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus(u32);

impl ControllerStatus {
    /// Nothing holds.
    pub const IDLE: Self = Self(0);
    /// RDY.
    pub const READY: Self = Self(1);
    /// CFS.
    pub const FATAL: Self = Self(1 << 1);
    /// SHST 01b, RDY as it was.
    pub const SHUTTING_DOWN: Self = Self(1 << 2);
    /// SHST 10b, RDY as it was.
    pub const SHUT_DOWN: Self = Self(2 << 2);

    /// From the property's value.
    #[must_use]
    pub const fn from_wire(value: u32) -> Self {
        Self(value)
    }

    /// The property's value.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// RDY.
    #[must_use]
    pub const fn ready(self) -> bool {
        self.0 & Self::READY.0 != 0
    }

    /// CFS.
    #[must_use]
    pub const fn fatal(self) -> bool {
        self.0 & Self::FATAL.0 != 0
    }

    /// SHST: whether a shutdown is complete.
    #[must_use]
    pub const fn shut_down(self) -> bool {
        self.0 & 3 << 2 == Self::SHUT_DOWN.0
    }

    /// Both.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The properties that exist. Those for interrupts, admin queue addresses and subsystem reset do
/// not on fabrics, or not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// CAP.
    Capabilities,
    /// VS.
    Version,
    /// CC.
    Configuration,
    /// CSTS.
    Status,
}

impl Property {
    /// OFST, and ATTRIB: 0 for 4 bytes, 1 for 8.
    const fn place(self) -> (u32, u32) {
        match self {
            Self::Capabilities => (0x00, 1),
            Self::Version => (0x08, 0),
            Self::Configuration => (0x14, 0),
            Self::Status => (0x1c, 0),
        }
    }

    /// The Property Get command for it (Base 6.4).
    #[must_use]
    pub const fn get(self) -> Command {
        self.command(fabrics::PROPERTY_GET)
    }

    /// The Property Set command for it (Base 6.5).
    #[must_use]
    pub const fn set(self, value: u64) -> Command {
        let [low, high] = dwords(value);
        let mut command = self.command(fabrics::PROPERTY_SET);
        command.set_cdw(12, low);
        command.set_cdw(13, high);
        command
    }

    const fn command(self, fctype: u8) -> Command {
        let (offset, attrib) = self.place();
        let mut command = Command::new(admin::FABRICS, fctype as u32);
        command.set_cdw(10, attrib);
        command.set_cdw(11, offset);
        command
    }

    /// The property that a Property Get or Set command is about.
    ///
    /// # Errors
    /// Invalid Field if there is none of that size at that offset.
    pub(crate) fn of(command: &Command) -> Result<Self, Status> {
        let place = (command.cdw(11), command.cdw(10) & 7);
        [Self::Capabilities, Self::Version, Self::Configuration, Self::Status]
            .into_iter()
            .find(|property| property.place() == place)
            .ok_or(Status::INVALID_FIELD.dnr())
    }
}

/// The lower and the upper half of a quadword.
const fn dwords(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_say_what_the_standard_host_expects() {
        let cap = Capabilities::new(128);
        assert_eq!(cap.to_wire(), 0x0000_0020_1e01_007f);
        assert_eq!((cap.queue_entries_max(), cap.ready_timeout_ms()), (128, 15_000));
        assert!(cap.has_nvm_command_set() && cap.allows_4k_pages());
    }

    #[test]
    fn linux_enables_with_460001() {
        assert_eq!(Configuration::ENABLE.to_wire(), 0x0046_0001);
        let cc = Configuration::from_wire(0x0046_0001);
        assert!(cc.enabled() && !cc.shutdown());
        assert!(cc.has_our_entry_sizes() && cc.selects_what_we_offer());
        assert!(Configuration::SHUTDOWN.enabled() && Configuration::SHUTDOWN.shutdown());
    }

    #[test]
    fn a_property_command_names_the_property_it_was_made_for() {
        for property in
            [Property::Capabilities, Property::Version, Property::Configuration, Property::Status]
        {
            assert_eq!(Property::of(&property.get()), Ok(property));
            assert_eq!(Property::of(&property.set(7)), Ok(property));
        }
    }

    #[test]
    fn a_wrong_offset_or_size_is_an_invalid_field() {
        // (ATTRIB, OFST): CAP of 4 bytes, CC of 8, INTMS, AQA, NSSR, CRTO, beyond everything.
        let rows = [(0, 0), (1, 0x14), (0, 0x0c), (0, 0x24), (0, 0x20), (0, 0x68), (0, u32::MAX)];
        for (attrib, offset) in rows {
            let mut command = Property::Status.get();
            command.set_cdw(10, attrib);
            command.set_cdw(11, offset);
            assert_eq!(Property::of(&command), Err(Status::INVALID_FIELD.dnr()), "{offset:x}h");
        }
    }
}
