//! NVMe status: the one place where an outcome becomes a status code (Base 3.3.3.2.1).

use core::fmt;

/// The status field of a completion without its phase bit: SC 7:0, SCT 10:8, CRD 12:11, M 13,
/// DNR 14.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// Do Not Retry: the same command would fail again.
const DNR: u16 = 1 << 14;
/// More: the error log says more.
const MORE: u16 = 1 << 13;
/// The bits that name the outcome.
const CODE: u16 = 0x07ff;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// What the code means, in the words of the standard.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 & CODE {
                    $($code => $text,)*
                    _ => "unknown status",
                }
            }
        }
    };
}

statuses! {
    /// SCT 0, SC 00h.
    SUCCESS = 0x000, "successful completion";
    /// SCT 0, SC 01h.
    INVALID_OPCODE = 0x001, "invalid command opcode";
    /// SCT 0, SC 02h.
    INVALID_FIELD = 0x002, "invalid field in command";
    /// SCT 0, SC 03h.
    COMMAND_ID_CONFLICT = 0x003, "command id conflict";
    /// SCT 0, SC 04h.
    DATA_TRANSFER_ERROR = 0x004, "data transfer error";
    /// SCT 0, SC 06h.
    INTERNAL_ERROR = 0x006, "internal error";
    /// SCT 0, SC 07h.
    ABORTED_BY_REQUEST = 0x007, "command abort requested";
    /// SCT 0, SC 08h.
    ABORTED_QUEUE_DELETED = 0x008, "command aborted due to queue deletion";
    /// SCT 0, SC 09h.
    FUSED_FAILED = 0x009, "command aborted due to failed fused command";
    /// SCT 0, SC 0Ah.
    FUSED_MISSING = 0x00a, "command aborted due to missing fused command";
    /// SCT 0, SC 0Bh.
    INVALID_NAMESPACE = 0x00b, "invalid namespace or format";
    /// SCT 0, SC 0Ch.
    SEQUENCE_ERROR = 0x00c, "command sequence error";
    /// SCT 0, SC 0Fh.
    SGL_LENGTH_INVALID = 0x00f, "data SGL length invalid";
    /// SCT 0, SC 11h.
    SGL_TYPE_INVALID = 0x011, "SGL descriptor type invalid";
    /// SCT 0, SC 16h.
    SGL_OFFSET_INVALID = 0x016, "SGL offset invalid";
    /// SCT 0, SC 18h.
    HOST_ID_INCONSISTENT = 0x018, "host identifier inconsistent format";
    /// SCT 0, SC 19h.
    KEEP_ALIVE_EXPIRED = 0x019, "keep alive timeout expired";
    /// SCT 0, SC 1Ah.
    KEEP_ALIVE_INVALID = 0x01a, "keep alive timeout invalid";
    /// SCT 0, SC 1Bh.
    ABORTED_BY_PREEMPT = 0x01b, "command aborted due to preempt and abort";
    /// SCT 0, SC 20h.
    WRITE_PROTECTED = 0x020, "namespace is write protected";
    /// SCT 0, SC 21h.
    COMMAND_INTERRUPTED = 0x021, "command interrupted";
    /// SCT 0, SC 22h.
    TRANSIENT_TRANSPORT = 0x022, "transient transport error";
    /// SCT 0, SC 80h.
    LBA_OUT_OF_RANGE = 0x080, "LBA out of range";
    /// SCT 0, SC 81h.
    CAPACITY_EXCEEDED = 0x081, "capacity exceeded";
    /// SCT 0, SC 82h.
    NAMESPACE_NOT_READY = 0x082, "namespace not ready";
    /// SCT 0, SC 83h.
    RESERVATION_CONFLICT = 0x083, "reservation conflict";
    /// SCT 1, SC 01h.
    INVALID_QUEUE_ID = 0x101, "invalid queue identifier";
    /// SCT 1, SC 03h.
    ABORT_LIMIT = 0x103, "abort command limit exceeded";
    /// SCT 1, SC 05h.
    ASYNC_EVENT_LIMIT = 0x105, "asynchronous event request limit exceeded";
    /// SCT 1, SC 09h.
    INVALID_LOG_PAGE = 0x109, "invalid log page";
    /// SCT 1, SC 0Dh.
    FEATURE_NOT_SAVEABLE = 0x10d, "feature identifier not saveable";
    /// SCT 1, SC 0Eh.
    FEATURE_NOT_CHANGEABLE = 0x10e, "feature not changeable";
    /// SCT 1, SC 0Fh.
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10f, "feature not namespace specific";
    /// SCT 1, SC 80h on Connect.
    CONNECT_INCOMPATIBLE_FORMAT = 0x180, "connect: incompatible format";
    /// SCT 1, SC 81h on Connect.
    CONNECT_CONTROLLER_BUSY = 0x181, "connect: controller busy";
    /// SCT 1, SC 82h on Connect.
    CONNECT_INVALID_PARAMETERS = 0x182, "connect: invalid parameters";
    /// SCT 1, SC 84h on Connect.
    CONNECT_INVALID_HOST = 0x184, "connect: invalid host";
    /// SCT 1, SC 91h.
    AUTHENTICATION_REQUIRED = 0x191, "authentication required";
    /// SCT 1, SC 83h of the NVM command set.
    COMMAND_SIZE_LIMIT = 0x183, "command size limit exceeded";
    /// SCT 2, SC 80h.
    WRITE_FAULT = 0x280, "write fault";
    /// SCT 2, SC 81h.
    UNRECOVERED_READ = 0x281, "unrecovered read error";
    /// SCT 2, SC 85h.
    COMPARE_FAILURE = 0x285, "compare failure";
    /// SCT 3, SC 00h.
    INTERNAL_PATH_ERROR = 0x300, "internal path error";
    /// SCT 3, SC 01h.
    ANA_PERSISTENT_LOSS = 0x301, "asymmetric access persistent loss";
    /// SCT 3, SC 02h.
    ANA_INACCESSIBLE = 0x302, "asymmetric access inaccessible";
    /// SCT 3, SC 03h.
    ANA_TRANSITION = 0x303, "asymmetric access transition";
    /// SCT 3, SC 60h.
    CONTROLLER_PATHING_ERROR = 0x360, "controller pathing error";
    /// SCT 3, SC 70h.
    HOST_PATHING_ERROR = 0x370, "host pathing error";
    /// SCT 3, SC 71h.
    ABORTED_BY_HOST = 0x371, "command aborted by host";
    /// SCT 7, SC C0h: a replica's copy of its volume's record is newer than the one it is shown.
    COPY_NEWER = 0x7c0, "the replica's record is newer";
    /// SCT 7, SC C1h: a replica's copy of the record is of another store.
    STORE_DIFFERS = 0x7c1, "the replica's record is of another store";
}

impl Status {
    /// The status in a completion's last halfword, whose lowest bit is the phase.
    #[must_use]
    pub const fn from_wire(halfword: u16) -> Self {
        Self(halfword >> 1)
    }

    /// The halfword for a completion; the phase bit is 0 on fabrics.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        self.0 << 1
    }

    /// The same, marked as pointless to retry.
    #[must_use]
    pub const fn dnr(self) -> Self {
        Self(self.0 | DNR)
    }

    /// The same, with an entry in the error log.
    #[must_use]
    pub const fn more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Whether the error log has an entry about it.
    #[must_use]
    pub const fn has_more(self) -> bool {
        self.0 & MORE != 0
    }

    /// Whether a retry of the same command is pointless.
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & DNR != 0
    }

    /// Whether the command did what it was asked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & CODE == 0
    }

    /// Whether the path is at fault, not the command (SCT 3): another path may do.
    #[must_use]
    pub const fn is_path_error(self) -> bool {
        self.code_type() == 3
    }

    /// Status code type.
    #[must_use]
    pub const fn code_type(self) -> u8 {
        self.0.to_le_bytes()[1] & 7
    }

    /// Status code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Whether both name the same outcome, whatever their retry bits say.
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        self.0 & CODE == other.0 & CODE
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dnr = if self.do_not_retry() { ", do not retry" } else { "" };
        write!(f, "{} ({}/{:02x}h{dnr})", self.text(), self.code_type(), self.code())
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
