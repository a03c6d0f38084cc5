//! `braid-engine events`: what happens in an engine, as it happens.

use braid_api::v1::event::What;
use braid_api::v1::{self, Event};
use serde::Serialize;

use crate::admin::connection::{Common, answer, refused};
use crate::admin::output::{self, Format, moment};
use crate::command::print;
use crate::error::{Error, Result};

/// What `events --help` teaches below the list of options.
pub const HELP: &str = "\
Shows events from now on, a line each, until it is ended by Ctrl-C or the engine ends.

Examples:
  braid-engine events
  braid-engine events -o json | jq 'select(.kind == \"media_error\")'
  braid-engine events --count 1

Exit codes: 0 --count were shown, 1 the engine ended, 2 asked for what makes no sense,
3 no engine answers.";

/// `events`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// End after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// An event as programs read it.
#[derive(Debug, Serialize)]
struct View {
    number: u64,
    unix_ms: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pool: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    replica: String,
    text: String,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    facts: serde_json::Map<String, serde_json::Value>,
}

/// Runs the command.
///
/// # Errors
/// When the engine ends.
pub async fn run(options: Options) -> Result<()> {
    let Options { common, count } = options;
    let mut client = common.connect().await?;
    let call = client.watch_events(v1::WatchEventsRequest {});
    let mut stream = answer("asking", call).await?;
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let event = stream.message().await.map_err(|status| refused(&status))?;
        let event = event.ok_or_else(|| Error::run("the engine ended"))?;
        print(&shown(event, common.output)?);
        left -= 1;
    }
    Ok(())
}

fn shown(event: Event, format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(format!("{}  {}\n", moment(event.unix_ms / 1000), event.text)),
        Format::Json | Format::Yaml => output::piece(format, &View::from(event)),
    }
}

impl From<Event> for View {
    fn from(event: Event) -> Self {
        let (kind, facts) = event.what.map_or(("unknown", serde_json::json!({})), facts);
        Self {
            number: event.number,
            unix_ms: event.unix_ms,
            kind,
            pool: event.pool,
            replica: event.replica,
            text: event.text,
            facts: facts.as_object().cloned().unwrap_or_default(),
        }
    }
}

/// The name of an event, as in the `.proto`, and its fields.
fn facts(what: What) -> (&'static str, serde_json::Value) {
    use serde_json::json;
    match what {
        What::Missed(e) => ("missed", json!({ "events": e.events })),
        What::PoolOpened(e) => (
            "pool_opened",
            json!({
                "clean": e.clean, "replayed_blocks": e.replayed_blocks, "rejected": e.rejected,
            }),
        ),
        What::PoolClosed(_) => ("pool_closed", json!({})),
        What::PoolFailed(e) => (
            "pool_failed",
            json!({
                "operation": e.operation, "device_offset_bytes": e.device_offset_bytes,
                "error": e.error,
            }),
        ),
        What::PoolFull(_) => ("pool_full", json!({})),
        What::PoolStalled(e) => ("pool_stalled", json!({ "seconds": e.seconds })),
        What::PoolMoving(_) => ("pool_moving", json!({})),
        What::MediaError(e) => (
            "media_error",
            json!({
                "offset_bytes": e.offset_bytes, "device_offset_bytes": e.device_offset_bytes,
            }),
        ),
        What::MetadataRepaired(e) => {
            ("metadata_repaired", json!({ "device_offset_bytes": e.device_offset_bytes }))
        }
        What::MetadataLost(e) => {
            ("metadata_lost", json!({ "device_offset_bytes": e.device_offset_bytes }))
        }
        What::Scrubbed(e) => ("scrubbed", json!({ "blocks": e.blocks, "errors": e.errors })),
        What::Reclaimed(_) => ("reclaimed", json!({})),
        What::PoolGrown(e) => ("pool_grown", json!({ "capacity_bytes": e.capacity_bytes })),
        What::PoolDestroyed(_) => ("pool_destroyed", json!({})),
        What::ReplicaCreated(e) => {
            ("replica_created", json!({ "name": e.name, "size_bytes": e.size_bytes }))
        }
        What::ReplicaDestroyed(_) => ("replica_destroyed", json!({})),
        What::ReplicaResized(e) => ("replica_resized", json!({ "size_bytes": e.size_bytes })),
        What::Shared(e) => ("shared", json!({ "nqn": e.nqn })),
        What::Unshared(e) => ("unshared", json!({ "nqn": e.nqn })),
        What::SnapshotCreated(e) => ("snapshot_created", json!({ "name": e.name, "of": e.of })),
        What::SnapshotDestroyed(_) => ("snapshot_destroyed", json!({})),
        What::AnaStateSet(e) => {
            let state = super::views::ana_state(e.state());
            let facts = json!({
                "nqn": e.nqn, "group": e.group, "listen": e.listen, "state": state,
            });
            ("ana_state_set", facts)
        }
        What::NexusChanged(e) => (
            "nexus_changed",
            json!({
                "volume": e.volume, "what": e.what, "replica": e.replica, "reason": e.reason,
            }),
        ),
        What::NamespaceAttached(e) => {
            ("namespace_attached", json!({ "nqn": e.nqn, "nsid": e.nsid }))
        }
        What::NamespaceDetached(e) => {
            ("namespace_detached", json!({ "nqn": e.nqn, "nsid": e.nsid }))
        }
        What::FaultsSet(e) => {
            ("faults_set", json!({ "nqn": e.nqn, "nsid": e.nsid, "faults": e.faults }))
        }
    }
}

#[cfg(test)]
mod tests {
    use braid_api::v1::event::PoolStalled;

    use super::*;

    #[test]
    fn an_event_is_a_line_for_people_and_an_object_for_programs() {
        let event = Event {
            number: 7,
            unix_ms: 1000,
            text: "slow".into(),
            what: Some(What::PoolStalled(PoolStalled { seconds: 12 })),
            ..Event::default()
        };
        let line = shown(event.clone(), Format::Table).unwrap();
        assert_eq!(line, "1970-01-01 00:00:01  slow\n");
        let json = shown(event.clone(), Format::Json).unwrap();
        let expected = "{\"number\":7,\"unix_ms\":1000,\"kind\":\"pool_stalled\",\
                        \"text\":\"slow\",\"facts\":{\"seconds\":12}}\n";
        assert_eq!(json, expected);
        assert!(shown(event, Format::Yaml).unwrap().starts_with("---\nnumber: 7\n"));
    }
}
