//! Figures, in the text format that Prometheus reads: one HTTP path.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::registry::Control;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until the process ends.
pub(super) async fn serve(listener: TcpListener, control: Arc<Control>) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics at /metrics");
    }
    let router = Router::new().route("/metrics", get(page)).with_state(control);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics are served no more");
    }
}

async fn page(State(control): State<Arc<Control>>) -> Response {
    let mut registry = Registry::with_prefix("braid_control");
    registry.register_collector(Box::new(Page(control)));
    let mut page = String::new();
    match text::encode(&mut page, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Debug)]
struct Page(Arc<Control>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (store, own) = (self.0.store.counters(), &self.0.counters);
        let counters: [(&str, &str, &AtomicU64); 9] = [
            ("store_commits", "Commits of the store", &store.commits),
            ("store_changes", "Changes that they made durable", &store.changes),
            ("store_commit_microseconds", "Time that they took", &store.commit_us),
            ("store_failures", "Commits that failed", &store.failures),
            ("swaps", "Changes of records", &store.swaps),
            ("swaps_lost", "Changes that found another record", &store.swaps_lost),
            ("orders", "Orders to engines", &own.orders),
            ("order_failures", "Orders that failed or were late", &own.failures),
            ("take_overs", "Orders to take over", &own.take_overs),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value.load(Ordering::Relaxed));
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        for (name, help, value) in self.gauges() {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}

impl Page {
    fn gauges(&self) -> [(&'static str, &'static str, u64); 5] {
        let (engines, volumes) = (self.0.engines(), self.0.volumes());
        let count = |count: usize| count as u64;
        let alive = engines.iter().filter(|engine| engine.alive).count();
        let alerted = volumes.iter().filter(|volume| !volume.alerts.is_empty()).count();
        let unserved = volumes.iter().filter(|volume| volume.engine.is_empty()).count();
        [
            ("engines", "Engines that were heard of", count(engines.len())),
            ("engines_alive", "Engines that are connected and heard of in time", count(alive)),
            ("volumes", "Volumes", count(volumes.len())),
            ("volumes_alerted", "Volumes that need somebody", count(alerted)),
            ("volumes_unserved", "Volumes that no engine serves", count(unserved)),
        ]
    }
}
