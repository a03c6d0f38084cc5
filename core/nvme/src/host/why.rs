//! Why an association ended.

use core::fmt;

use braid_block::IoError;

use crate::Status;
use crate::pdu::FatalError;

/// Why an association ended, or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No connection could be made.
    Connect(IoError),
    /// A connection broke.
    Io(IoError),
    /// The target closed a connection.
    PeerClosed,
    /// The target broke the protocol, and was told so.
    Protocol(FatalError),
    /// The target sent a termination request with this fatal error status.
    Terminated(u16),
    /// The keep alive command was not answered in time.
    KeepAlive,
    /// A command was not answered in time.
    CommandTimeout,
    /// A step of connecting was not done in time.
    Timeout(Stage),
    /// The controller says of itself that it failed (CSTS.CFS).
    ControllerFailed,
    /// A step of connecting was refused.
    Refused {
        /// Which.
        stage: Stage,
        /// The answer.
        status: Status,
        /// DW0 of the answer: for Connect, which parameter is wrong.
        result: u32,
    },
    /// The controller is not one that we can use.
    Unsuitable(Unsuitable),
    /// There was no buffer to connect with.
    NoMemory,
    /// It was closed by its user.
    Closed,
}

/// A step of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Making the TCP connection.
    Tcp,
    /// ICReq and ICResp.
    Initialize,
    /// The Connect command.
    Connect,
    /// Reading a property.
    Property,
    /// Enabling the controller.
    Enable,
    /// Identify Controller.
    IdentifyController,
    /// Agreeing on the number of queues.
    QueueCount,
    /// Looking at namespaces.
    Namespaces,
    /// Reading the discovery log.
    DiscoveryLog,
}

/// What makes a controller one that we cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsuitable {
    /// Identify tells another controller id than Connect did.
    ControllerId {
        /// From Connect.
        connected: u16,
        /// From Identify.
        identified: u16,
    },
    /// IOCCSZ is smaller than a command.
    CommandCapsule,
    /// IORCSZ is smaller than a completion.
    ResponseCapsule,
    /// ICDOFF is not zero.
    DataOffset,
    /// It does not know SGLs.
    NoSgl,
    /// It does not support keep alive.
    NoKeepAlive,
    /// Its pages are larger than ours.
    PageSize,
    /// It wants hosts to authenticate themselves, which we cannot yet.
    Authentication,
    /// It does not know the NVM command set.
    CommandSet,
    /// It is no discovery controller, though it was found by the discovery name.
    NotDiscovery,
    /// Its discovery log has a format that we do not know, or changes faster than we read it.
    DiscoveryLog,
}

impl Why {
    /// Whether to try again is pointless: the target says so of our Connect.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Refused { stage: Stage::Connect, status, .. } if status.do_not_retry())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Io(error) => write!(f, "connection lost: {error}"),
            Self::PeerClosed => f.write_str("the target closed the connection"),
            Self::Protocol(error) => write!(f, "the target broke the protocol: {error:?}"),
            Self::Terminated(fes) => {
                write!(f, "the target terminated the connection, fatal error status {fes:02x}h")
            }
            Self::KeepAlive => f.write_str("the target does not answer keep alive"),
            Self::CommandTimeout => f.write_str("a command was not answered in time"),
            Self::Timeout(stage) => write!(f, "{stage} took too long"),
            Self::ControllerFailed => f.write_str("the controller reports a fatal failure"),
            Self::Refused { stage, status, .. } => write!(f, "{stage} was refused: {status}"),
            Self::Unsuitable(unsuitable) => write!(f, "unusable controller: {unsuitable}"),
            Self::NoMemory => f.write_str("no buffer to connect with"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "the TCP connection",
            Self::Initialize => "initialising the connection",
            Self::Connect => "Connect",
            Self::Property => "reading a property",
            Self::Enable => "enabling the controller",
            Self::IdentifyController => "Identify Controller",
            Self::QueueCount => "setting the number of queues",
            Self::Namespaces => "identifying namespaces",
            Self::DiscoveryLog => "reading the discovery log",
        })
    }
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::ControllerId { connected, identified } => {
                return write!(f, "Connect gave controller id {connected}, Identify {identified}");
            }
            Self::CommandCapsule => "its command capsules are too small",
            Self::ResponseCapsule => "its response capsules are too small",
            Self::DataOffset => "it wants an in-capsule data offset",
            Self::NoSgl => "it does not support SGLs",
            Self::NoKeepAlive => "it does not support keep alive",
            Self::PageSize => "its smallest page is larger than 4096 bytes",
            Self::Authentication => "it demands authentication",
            Self::CommandSet => "it does not support the NVM command set",
            Self::NotDiscovery => "it is no discovery controller",
            Self::DiscoveryLog => "its discovery log cannot be read",
        };
        f.write_str(text)
    }
}
