//! Sharing: a replica or a snapshot becomes a subsystem of its own, or stops to be one.

use braid_api::v1::SharePolicy;
use braid_api::v1::event::{Shared, Unshared, What};
use braid_block::Geometry;
use braid_nvme::connect::Nqn;
use braid_pool::LayerInfo;
use tonic::Status;

use super::host::{Exposed, Exposure, Host};
use super::hub::About;
use super::manager::{Held, Manager, Pool};
use super::names::Names;

impl<H: Host> Manager<H> {
    /// Shares a replica or a snapshot with the hosts that a request names.
    pub(crate) async fn share(
        &self,
        held: &Held,
        layer: &LayerInfo,
        hosts: Vec<String>,
    ) -> Result<(), Status> {
        if let Some(wrong) = hosts.iter().find(|host| Nqn::parse(host).is_none()) {
            return Err(Status::invalid_argument(format!(
                "allowed host '{wrong}' is not an NVMe qualified name"
            )));
        }
        if layer.member {
            return Err(Status::failed_precondition(format!(
                "'{}' is a replica of a volume: hosts use the volume; share a snapshot of it, or a \
                 clone",
                layer.name
            )));
        }
        let hosts = if hosts.is_empty() { self.settings.allowed_hosts.clone() } else { hosts };
        match held.pool.shared_with(&layer.uuid) {
            Some(present) if same(&present, &hosts) => return Ok(()),
            Some(_) => {
                return Err(Status::already_exists(format!(
                    "'{}' is shared with other hosts; unshare it first",
                    layer.name
                )));
            }
            None => {}
        }
        let exposure = exposure(&held.pool, layer, hosts.clone());
        let nqn = exposure.names.nqn.clone();
        if !self.host.expose(exposure).await {
            return Err(Status::already_exists(format!("another subsystem is called {nqn}")));
        }
        held.pool.set_shared(layer.uuid, hosts);
        let text = format!("'{}' is shared as {nqn}", layer.name);
        let about = About::replica(held.pool.uuid, layer.uuid);
        self.hub.tell(about, text, What::Shared(Shared { nqn }));
        Ok(())
    }

    /// Ends the sharing of a replica or a snapshot, if it is shared.
    pub(crate) async fn unshare(&self, held: &Held, uuid: [u8; 16]) {
        if held.pool.shared_with(&uuid).is_none() {
            return;
        }
        let nqn = Names::of(uuid).nqn;
        self.host.hide(held.pool.home, &nqn).await;
        held.pool.set_unshared(&uuid);
        let about = About::replica(held.pool.uuid, uuid);
        self.hub.tell(
            about,
            format!("{nqn} is not shared any more"),
            What::Unshared(Unshared { nqn }),
        );
    }

    /// Shares a new replica as its pool's policy says.
    pub(crate) async fn share_by_policy(&self, held: &Held, layer: &LayerInfo) {
        if held.pool.policy == SharePolicy::None || layer.snapshot || layer.member {
            return;
        }
        if let Err(status) = self.share(held, layer, Vec::new()).await {
            // The replica is there, and can be shared by hand once its name is free.
            tracing::warn!(replica = layer.name, reason = status.message(), "not shared");
        }
    }
}

/// How hosts see a replica or a snapshot.
pub(crate) fn exposure(pool: &Pool, layer: &LayerInfo, allowed_hosts: Vec<String>) -> Exposure {
    Exposure {
        home: pool.home,
        what: Exposed::Layer { handle: layer.handle, read_only: layer.snapshot },
        uuid: layer.uuid,
        names: Names::of(layer.uuid),
        geometry: Geometry::of_bytes(layer.bytes, layer.block),
        allowed_hosts,
    }
}

/// Whether two lists name the same hosts, in any order.
fn same(left: &[String], right: &[String]) -> bool {
    let within = |all: &[String], some: &[String]| some.iter().all(|host| all.contains(host));
    within(left, right) && within(right, left)
}
