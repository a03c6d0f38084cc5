//! What people ask of whoever runs volumes.

use std::num::NonZeroU64;

use braid_api::{control as wire, v1};
use braid_nexus::Pace;
use braid_nexus::record::Uuid;
use tonic::Status;

use super::runner::Runner;
use crate::manage::host::Host;
use crate::manage::nexuses::Ask;
use crate::manage::{hub, names};
use crate::serve::volumes::Request;

impl<H: Host> Runner<H> {
    pub(super) async fn asked(&mut self, ask: Ask) {
        // Who does not wait any more needs no answer.
        match ask {
            Ask::List(volume, answer) => drop(answer.send(self.list(&volume).await)),
            Ask::Pace(request, answer) => drop(answer.send(self.pace(&request).await)),
            Ask::History(volume, answer) => {
                let events = self.meant(&volume).map(|volume| self.parts[&volume].history());
                drop(answer.send(events));
            }
        }
    }

    async fn list(&mut self, volume: &str) -> Result<Vec<v1::Nexus>, Status> {
        let volumes = match volume {
            "" => self.parts.keys().copied().collect(),
            volume => vec![self.meant(volume)?],
        };
        let mut nexuses = Vec::with_capacity(volumes.len());
        for volume in volumes {
            nexuses.extend(self.nexus(volume).await);
        }
        Ok(nexuses)
    }

    async fn nexus(&mut self, volume: Uuid) -> Option<v1::Nexus> {
        let view = self.look_at(volume).await;
        let name = self.topology.get(&volume).map(|known| known.name.clone()).unwrap_or_default();
        let part = self.parts.get_mut(&volume)?;
        part.view = view.unwrap_or_default();
        Some(part.nexus(volume, &name))
    }

    /// Gives a volume another pace.
    async fn pace(&mut self, request: &v1::SetRebuildPaceRequest) -> Result<v1::Nexus, Status> {
        let volume = self.meant(&request.volume)?;
        let gone = || Status::not_found("this engine has no part in the volume any more");
        let before = self.look_at(volume).await.ok_or_else(gone)?.pace;
        let rate = |asked: Option<u64>, now| asked.map_or(now, NonZeroU64::new);
        let pace = Pace {
            paused: request.paused.unwrap_or(before.paused),
            beside: rate(request.beside_bytes_per_s, before.beside),
            alone: rate(request.alone_bytes_per_s, before.alone),
        };
        let shard = self.parts[&volume].shard;
        self.manager.host.volume(shard, Request::Pace(volume, pace));
        if pace != before {
            self.set_pace(volume, pace);
            let text = if pace.paused { "rebuilds are paused" } else { "rebuilds have a new pace" };
            self.happened(
                volume,
                v1::NexusEvent {
                    unix_ms: hub::unix_ms(),
                    what: "paced".into(),
                    text: text.into(),
                    ..v1::NexusEvent::default()
                },
            );
        }
        self.nexus(volume).await.ok_or_else(gone)
    }

    /// The next owner goes by it too: the control plane keeps the highest version.
    fn set_pace(&mut self, volume: Uuid, pace: Pace) {
        let rate = |rate: Option<NonZeroU64>| rate.map_or(0, NonZeroU64::get);
        let Some(part) = self.parts.get_mut(&volume) else { return };
        part.pace = Some(wire::RebuildPace {
            version: part.pace.map_or(0, |known| known.version).saturating_add(1),
            paused: pace.paused,
            beside_bytes_per_s: rate(pace.beside),
            alone_bytes_per_s: rate(pace.alone),
        });
        self.touch(volume);
    }

    /// Takes the pace that the control plane keeps, unless another one was set here since.
    pub(super) fn learn_pace(&mut self, volume: Uuid) {
        let told = self.topology.get(&volume).and_then(|known| known.pace);
        let (Some(part), Some(told)) = (self.parts.get_mut(&volume), told) else { return };
        let later = part.pace.is_none_or(|known| known.version <= told.version);
        if !later || part.pace.replace(told) == Some(told) {
            return;
        }
        let pace = Pace {
            paused: told.paused,
            beside: NonZeroU64::new(told.beside_bytes_per_s),
            alone: NonZeroU64::new(told.alone_bytes_per_s),
        };
        self.manager.host.volume(part.shard, Request::Pace(volume, pace));
    }

    /// Keeps what happened to a volume, and tells all who watch.
    pub(super) fn happened(&mut self, volume: Uuid, event: v1::NexusEvent) {
        self.tell(volume, &event);
        if let Some(part) = self.parts.get_mut(&volume) {
            part.keep(event);
        }
    }

    /// Tells all who watch.
    pub(super) fn tell(&self, volume: Uuid, event: &v1::NexusEvent) {
        let name = names::text(volume);
        let text = format!("volume {name}: {}", event.text);
        let what = v1::event::What::NexusChanged(v1::event::NexusChanged {
            volume: name,
            what: event.what.clone(),
            replica: event.replica.clone(),
            reason: event.reason.clone(),
        });
        self.manager.hub.tell(hub::About::default(), text, what);
    }

    /// The volume that a reference means: a uuid, a name, or the only one.
    fn meant(&self, reference: &str) -> Result<Uuid, Status> {
        let none = || Status::not_found(format!("this engine has no part in volume '{reference}'"));
        if reference.is_empty() {
            let mut all = self.parts.keys();
            return match (all.next(), all.next()) {
                (Some(only), None) => Ok(*only),
                (None, _) => Err(Status::not_found("this engine has no part in any volume")),
                _ => Err(Status::invalid_argument("which volume? there are several here")),
            };
        }
        let named = |volume: &&Uuid| {
            self.topology.get(*volume).is_some_and(|known| known.name == reference)
        };
        let by_name = self.parts.keys().find(named).copied();
        let by_uuid = || names::uuid(reference).ok().flatten();
        by_name.or_else(by_uuid).filter(|v| self.parts.contains_key(v)).ok_or_else(none)
    }
}
