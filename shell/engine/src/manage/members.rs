//! Replicas as nexuses see them: every replica of an open pool has a subsystem for them, whose name
//! follows from its identity, and which discovery does not list.

use braid_block::{BlockSize, Geometry};
use braid_nexus::record::Uuid;
use braid_pool::LayerInfo;
use braid_shard::member_nqn;

use super::host::{Exposed, Exposure, Home, Host};
use super::manager::{Held, Manager, Pool};
use super::names::Names;

impl<H: Host> Manager<H> {
    /// Lets nexuses find a replica.
    pub(crate) async fn expose_member(&self, held: &Held, layer: &LayerInfo) {
        if layer.snapshot {
            return;
        }
        let names = Names { nqn: member_nqn(&layer.uuid), ..Names::of(layer.uuid) };
        let exposure = Exposure {
            home: held.pool.home,
            what: Exposed::Member,
            uuid: layer.uuid,
            names,
            geometry: Geometry::of_bytes(layer.bytes, BlockSize::B512),
            allowed_hosts: Vec::new(),
        };
        if !self.host.expose(exposure).await {
            // Its name follows from its uuid: another pool has a replica of the same.
            tracing::error!(replica = layer.name, "another replica here has the same uuid");
        }
    }

    /// Lets them find it no more, and waits until no command of theirs is in work.
    pub(crate) async fn hide_member(&self, pool: &Pool, uuid: Uuid) {
        self.host.hide(pool.home, &member_nqn(&uuid)).await;
    }

    /// Lets nexuses find no replica of a pool any more.
    pub(crate) async fn hide_members(&self, pool: &Pool) {
        let Some(picture) = self.host.picture(pool.home).await else { return };
        for layer in picture.layers.iter().filter(|layer| !layer.snapshot) {
            self.hide_member(pool, layer.uuid).await;
        }
    }

    /// Where a replica lives, if it is in a pool here.
    pub(crate) async fn home_of(&self, replica: &Uuid) -> Option<Home> {
        for pool in self.pools() {
            let Some(picture) = self.host.picture(pool.home).await else { continue };
            if picture.layers.iter().any(|layer| !layer.snapshot && layer.uuid == *replica) {
                return Some(pool.home);
            }
        }
        None
    }
}
