//! The metrics page: one HTTP path on the management thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use braid_reactor::Remote;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::control::Figures;
use crate::error::{Error, Result};
use crate::serve::metrics;
use crate::serve::server::Control;
use crate::serve::snapshot::Snapshot;

/// How long a shard may take to answer: it does so once a turn.
const ANSWER: Duration = Duration::from_secs(2);

/// Where metrics are served.
#[derive(Debug)]
pub struct Exporter {
    listener: TcpListener,
}

impl Exporter {
    /// Takes the address, if metrics are wanted.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn bind(address: Option<SocketAddr>) -> Result<Option<Self>> {
        let Some(address) = address else { return Ok(None) };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Error::run(format!(
                "cannot serve metrics at {address}: {error}; choose another --metrics"
            ))
        })?;
        let address = listener.local_addr().unwrap_or(address);
        tracing::info!(%address, "metrics at /metrics");
        Ok(Some(Self { listener }))
    }

    /// Answers until the process ends.
    pub async fn serve(self, shards: Vec<Remote<Control>>, control: Option<Arc<Figures>>) {
        let state = Sources { shards, control };
        let router = Router::new().route("/metrics", get(page)).with_state(state);
        if let Err(error) = axum::serve(self.listener, router).await {
            tracing::error!(%error, "metrics are served no more");
        }
    }
}

/// Where figures come from.
#[derive(Clone, Debug)]
struct Sources {
    shards: Vec<Remote<Control>>,
    control: Option<Arc<Figures>>,
}

async fn page(State(sources): State<Sources>) -> Response {
    let snapshots = match timeout(ANSWER, snapshots(&sources.shards)).await {
        Ok(snapshots) => snapshots,
        Err(_) => return (StatusCode::GATEWAY_TIMEOUT, "a shard does not answer").into_response(),
    };
    match metrics::encode(snapshots, sources.control) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Asks all shards at once; those that have ended are left out.
async fn snapshots(shards: &[Remote<Control>]) -> Vec<Snapshot> {
    let ask = |remote: &Remote<Control>| {
        let (sender, answer) = oneshot::channel();
        remote.post(Control::Snapshot(sender)).ok().map(|()| answer)
    };
    let answers: Vec<_> = shards.iter().filter_map(ask).collect();
    let mut snapshots = Vec::with_capacity(answers.len());
    for answer in answers {
        snapshots.extend(answer.await);
    }
    snapshots
}
