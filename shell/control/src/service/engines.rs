//! Where engines report.

use std::sync::Arc;

use braid_api::control as wire;
use braid_api::control::registry_server::Registry;
use tonic::{Request, Response, Status, Streaming};

use super::Service;
use crate::registry::{Control, Stream, attend};

#[tonic::async_trait]
impl Registry for Service {
    type AttendStream = Stream;

    async fn attend(
        &self,
        request: Request<Streaming<wire::FromEngine>>,
    ) -> Result<Response<Stream>, Status> {
        attend(Arc::clone(&self.0), request.into_inner()).await.map(Response::new)
    }
}

impl Control {
    /// All engines that were heard of, by name.
    pub(crate) fn engines(&self) -> Vec<wire::Engine> {
        let now = self.now();
        let inside = self.inside();
        let mut engines: Vec<wire::Engine> = Vec::new();
        for (uuid, engine) in &inside.engines {
            let heard = inside.observed.engines.get(uuid).map(|seen| now.since(seen.heard));
            let optimized = i32::from(wire::Access::Optimized);
            let serves = engine.state.paths.iter().filter(|path| path.access == optimized).count();
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            engines.push(wire::Engine {
                node: engine.hello.node.clone(),
                id: engine.hello.id.clone(),
                version: engine.hello.version.clone(),
                alive: engine.is_connected() && inside.observed.is_alive(uuid, now),
                heard_ms: heard
                    .map_or(u64::MAX, |heard| u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)),
                portals: engine.hello.portals.clone(),
                boot: engine.hello.boot.clone(),
                pools: count(engine.state.pools.len()),
                replicas: count(engine.state.replicas.len()),
                serves: count(serves),
                stands_by: count(engine.state.paths.len() - serves),
            });
        }
        engines.sort_by(|a, b| a.node.cmp(&b.node));
        engines
    }
}
