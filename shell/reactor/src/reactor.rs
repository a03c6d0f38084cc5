//! The turn.

use std::net::SocketAddr;

use crate::application::{Application, Machine};
use crate::disk::OpenDisk;
use crate::listener::Listener;
use crate::mesh::Port;
use crate::options::Options;
use crate::remote::Remote;
use crate::start::{RunError, StartError};

/// One thread's ring and everything it drives.
pub struct Reactor<C> {
    remarks: Vec<String>,
    remote: Remote<C>,
}

impl<C: Send + 'static> Reactor<C> {
    /// Makes the ring, the arena and all tables. May be called on any thread.
    ///
    /// # Errors
    /// When the system does not allow what is needed; the text says what to change.
    pub fn new(
        options: Options,
        port: Port,
        disks: Vec<OpenDisk>,
        listeners: Vec<Listener>,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, StartError> {
        let _ = (options, port, disks, listeners, addresses);
        Err(StartError::Options("not implemented yet"))
    }

    /// One-off facts worth a line in the log.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// How other threads reach this reactor.
    #[must_use]
    pub fn remote(&self) -> Remote<C> {
        self.remote.clone()
    }

    /// Runs a machine on this thread until its application has finished, closes all sockets,
    /// waits for everything in flight, and gives the machine (its leases freed) and the
    /// application back.
    ///
    /// # Errors
    /// When the ring itself fails.
    pub fn run<M, A>(self, machine: M, application: A) -> Result<(M, A), RunError>
    where
        M: Machine,
        A: Application<M, Control = C>,
    {
        Ok((machine, application))
    }
}
