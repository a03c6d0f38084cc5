//! `braid-control serve`: from options to a running control plane and to its end.

mod metrics;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use braid_api::control::membership_server::MembershipServer;
use braid_api::control::registry_server::RegistryServer;
use braid_api::control::volumes_server::VolumesServer;
use braid_nexus::record::RECORD_MAX;
use braid_terminal::log::{self, Level, LogFormat};
use braid_terminal::quantity::Address;
use braid_terminal::{Error, Result};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::admin::connection::ADDRESS;
use crate::identity;
use crate::registry::{Control, supervise};
use crate::service::Service;
use crate::store::Store;

/// What `serve --help` teaches below the list of options.
pub const HELP: &str = "\
The store is one file with the record of each volume: who its members are and who owns it. Engines
change it by compare-and-swap. While no control plane runs, volumes are served as before, but no
member can be excluded and nobody takes over.

Signals:
  SIGTERM, SIGINT           end; nothing is lost

A line 'braid-control: ready listen=ADDR:PORT store=UUID volumes=N' on stdout, and systemd's
READY=1, say that engines and people can connect.

Examples:
  braid-control serve --store /var/lib/braid/control.redb
  braid-control serve --store /var/lib/braid/control.redb --listen 0.0.0.0:4440 \\
      --metrics 127.0.0.1:9440

Exit codes: 0 ended by a signal, 1 the machine or the store does not allow it, 2 the options make
no sense.";

/// How often an engine or a client that says nothing is asked whether it is there: else one that
/// vanished would keep its stream for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long it may take to answer that.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);
/// Bytes of a message to the membership service: two records, and what is around them.
const SWAP_MAX: usize = 2 * RECORD_MAX + 1024;
/// Bytes of a message of an engine: ten thousand replicas, each with its copy of a record.
const REPORT_MAX: usize = 64 << 20;

/// What `serve` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// File of the store; made if it is not there
    #[arg(long, value_name = "FILE")]
    pub store: PathBuf,

    /// Where engines and people connect; port 0 takes a free one [default: 127.0.0.1:4440]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<Address>,

    /// Serve Prometheus metrics here, at /metrics
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<Address>,

    /// What is logged to stderr
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: Level,

    /// How it is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the options make no sense or the machine does not allow it.
pub fn serve(options: &Options) -> Result<()> {
    let log = log::start(options.log, options.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::run(format!("cannot start: {error}")))?;
    let served = runtime.block_on(run(options));
    runtime.shutdown_background();
    log.flush();
    served
}

async fn run(options: &Options) -> Result<()> {
    let listen = |kind| {
        signal(kind).map_err(|error| Error::run(format!("cannot listen to signals: {error}")))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let store = Store::open(&options.store)
        .map_err(|error| error.at(format_args!("--store {}", options.store.display())))?;
    let control = Arc::new(Control::new(store)?);
    let address = options.listen.map_or_else(
        || ADDRESS.parse().map_err(|_| Error::usage("no address to listen at")),
        |listen| Ok(listen.0),
    )?;
    let listener = bind(address, "--listen").await?;
    let address = listener.local_addr().unwrap_or(address);
    if let Some(Address(address)) = options.metrics {
        tokio::spawn(metrics::serve(bind(address, "--metrics").await?, Arc::clone(&control)));
    }
    tokio::spawn(supervise(Arc::clone(&control)));
    let service = Service(Arc::clone(&control));
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .add_service(MembershipServer::new(service.clone()).max_decoding_message_size(SWAP_MAX))
        .add_service(RegistryServer::new(service.clone()).max_decoding_message_size(REPORT_MAX))
        .add_service(VolumesServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let (store, volumes) = control.store.read(|state| (state.id, state.volumes.len()));
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "reached from other machines, without authentication");
    }
    announce(&line(address, &identity::text(&store), volumes));
    let signal = tokio::select! {
        served = served => {
            let error = served.err().map_or_else(String::new, |error| error.to_string());
            return Err(Error::run(format!("the service ended: {error}")));
        }
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal, "stopping");
    // Nobody who has no supervisor needs to be told: systemd is not there, or knows.
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    Ok(())
}

async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::run(format!("cannot listen at {address}: {error}; choose another {option}"))
    })
}

/// The readiness line. Scripts wait for it: it never changes its form.
fn line(listen: SocketAddr, store: &str, volumes: usize) -> String {
    format!("braid-control: ready listen={listen} store={store} volumes={volumes}")
}

fn announce(line: &str) {
    // Who closed our stdout does not wait for the line.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readiness_line_keeps_its_form() {
        let listen = "127.0.0.1:4440".parse().unwrap();
        assert_eq!(
            line(listen, "s", 2),
            "braid-control: ready listen=127.0.0.1:4440 store=s volumes=2"
        );
    }
}
