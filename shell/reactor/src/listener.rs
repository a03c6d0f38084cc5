//! Where hosts are listened for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted; the kernel clips it to net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// A listening socket; [`crate::Reactor`] accepts on it.
#[derive(Debug)]
pub struct Listener {
    pub(crate) fd: OwnedFd,
    address: SocketAddr,
}

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {source}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

impl Listener {
    /// Listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is not ours, in use, or forbidden.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        Self::try_bind(address).map_err(|source| ListenError { address, source })
    }

    /// The address with the port that was taken.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn try_bind(address: SocketAddr) -> io::Result<Self> {
        // The standard library sets SO_REUSEADDR, so that a restart need not wait for old
        // connections to leave TIME_WAIT.
        let listener = std::net::TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { fd: listener.into(), address })
    }
}
