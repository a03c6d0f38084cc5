//! Serving the management service: on the socket, and over TCP where that is asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use braid_api::v1::engine_server::EngineServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use super::host::Host;
use super::manager::Manager;
use super::service::Service;
use super::socket::Socket;
use crate::error::{Error, Result};

/// How often a client that says nothing is asked whether it is there: else one that vanished
/// would keep its stream for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long it may take to answer that.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Where the service is reached.
#[derive(Debug)]
pub struct Doors {
    /// The socket, unless another engine has it.
    pub socket: Option<Socket>,
    /// The TCP port, if one is wanted.
    pub tcp: Option<TcpListener>,
}

impl Doors {
    /// Takes the TCP address, if one is wanted.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn bind_tcp(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
        let Some(address) = address else { return Ok(None) };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::run(format!(
                "cannot serve the management at {address}: {error}; choose another --management"
            ))
        })?;
        let address = listener.local_addr().unwrap_or(address);
        tracing::warn!(%address, "management over TCP, without authentication");
        Ok(Some(listener))
    }

    /// Answers at every door until the tasks are aborted. The socket is taken away when the doors
    /// are dropped.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    pub fn open<H: Host>(&mut self, manager: &Arc<Manager<H>>) -> Result<Vec<JoinHandle<()>>> {
        let mut tasks = Vec::new();
        if let Some(socket) = &mut self.socket
            && let Some(listener) = socket.take()
        {
            let listener = UnixListener::from_std(listener).map_err(|error| {
                Error::run(format!("cannot serve {}: {error}", socket.path.display()))
            })?;
            let calls = UnixListenerStream::new(listener);
            let served = router(manager).serve_with_incoming(calls);
            tasks.push(tokio::spawn(async move { ended(served.await) }));
        }
        if let Some(listener) = self.tcp.take() {
            let calls = TcpListenerStream::new(listener);
            let served = router(manager).serve_with_incoming(calls);
            tasks.push(tokio::spawn(async move { ended(served.await) }));
        }
        Ok(tasks)
    }
}

fn router<H: Host>(manager: &Arc<Manager<H>>) -> tonic::transport::server::Router {
    let service = EngineServer::new(Service(Arc::clone(manager)));
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .add_service(service)
}

fn ended(result: std::result::Result<(), tonic::transport::Error>) {
    if let Err(error) = result {
        tracing::error!(%error, "the management is served no more");
    }
}
