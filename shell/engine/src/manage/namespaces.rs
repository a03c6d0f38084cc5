//! Namespaces of the subsystems that an engine was started with: shown, attached and detached while
//! hosts are connected. What pools and volumes serve comes and goes with them.

use std::collections::BTreeSet;

use braid_api::v1::event::{NamespaceAttached, NamespaceDetached, What};
use braid_api::v1::{self, NamespaceSource};
use braid_nvme::target::NSID_MAX;
use braid_shard::{BackendConfig, NamespaceConfig};
use tonic::Status;

use super::host::{Attached, AttachedKind, Host, NotAttached, SubsystemView};
use super::hub::About;
use super::manager::Manager;
use super::names;
use crate::error::Error;
use crate::serve::backend::{self, Backend};
use crate::serve::identity;
use crate::serve::namespaces::Attach;
use crate::serve::plan::NamespacePlan;
use crate::serve::uri::NamespaceUri;

/// The ANA group that namespaces are in unless said otherwise.
const GROUP: u32 = 1;

impl<H: Host> Manager<H> {
    /// `ListNamespaces`.
    pub(crate) async fn list_namespaces(&self, nqn: &str) -> Vec<v1::Namespace> {
        let mut all = self.host.subsystems().await;
        all.retain(|(_, subsystem)| nqn.is_empty() || subsystem.nqn == nqn);
        all.sort_by(|(_, a), (_, b)| a.nqn.cmp(&b.nqn));
        let of = |(_, subsystem): (u16, SubsystemView)| {
            let nqn = subsystem.nqn;
            let one = move |attached: Attached| on_wire(&nqn, &attached);
            subsystem.namespaces.into_iter().map(one).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(of).collect()
    }

    /// `AttachNamespace`.
    pub(crate) async fn attach_namespace(
        &self,
        request: v1::AttachNamespaceRequest,
    ) -> Result<v1::Namespace, Status> {
        let v1::AttachNamespaceRequest { nqn, uri, force } = request;
        let uri: NamespaceUri = uri.parse().map_err(Status::invalid_argument)?;
        if let Some(nsid) = uri.nsid.filter(|nsid| *nsid > NSID_MAX) {
            let text = format!("nsid={nsid} is above {NSID_MAX}, the largest that is served");
            return Err(Status::invalid_argument(text));
        }
        if (uri.lose_unflushed || !uri.injections.is_empty()) && !self.settings.allows_injection {
            return Err(Status::failed_precondition(
                "faults are injected into tests only; start the engine with --allow-injection",
            ));
        }
        // Two must not take one file, nor one id.
        let _opening = self.opening.lock().await;
        let (shard, subsystem, all) = self.subsystem(&nqn).await?;
        let taken: BTreeSet<u32> = subsystem.namespaces.iter().map(|n| n.nsid).collect();
        let free = || (1..=NSID_MAX).find(|nsid| !taken.contains(nsid));
        let nsid = uri.nsid.or_else(free).ok_or_else(|| {
            Status::resource_exhausted(format!("no namespace id of 1 to {NSID_MAX} is free"))
        })?;
        let identity = identity::namespace(&identity::machine(), &nqn, nsid, &uri);
        let same = |attached: &&Attached| attached.uuid == identity.uuid;
        if let Some(there) = subsystem.namespaces.iter().find(same) {
            return match uri.nsid {
                Some(asked) if asked != there.nsid => Err(Status::already_exists(format!(
                    "{} is namespace {} of {nqn} already",
                    uri.text, there.nsid
                ))),
                _ => Ok(on_wire(&nqn, there)),
            };
        }
        if let Some((_, other)) = all.iter().find(|(_, s)| s.namespaces.iter().any(|n| same(&n))) {
            let other = &other.nqn;
            return Err(Status::already_exists(format!("{} is served by {other}", uri.text)));
        }
        if taken.contains(&nsid) {
            return Err(Status::already_exists(format!(
                "{nqn} has another namespace {nsid}; leave nsid= out for a free one"
            )));
        }
        let text = uri.text.clone();
        let plan = NamespacePlan { nsid, block: uri.block, uri, identity };
        let (attach, attached) = self.opened(nqn.clone(), plan, force).await?;
        match self.host.attach(shard, attach).await {
            Ok(()) => {}
            Err(NotAttached::NoRoom) => {
                return Err(Status::resource_exhausted("too many disks for one shard"));
            }
            Err(NotAttached::Refused | NotAttached::Gone) => {
                return Err(Status::unavailable(format!("{nqn} is not served any more")));
            }
        }
        let text = format!("{text} is namespace {nsid} of {nqn} now");
        let what = What::NamespaceAttached(NamespaceAttached { nqn: nqn.clone(), nsid });
        self.hub.tell(About::default(), text, what);
        Ok(on_wire(&nqn, &attached))
    }

    /// `DetachNamespace`; whether it was there.
    pub(crate) async fn detach_namespace(
        &self,
        request: v1::DetachNamespaceRequest,
    ) -> Result<bool, Status> {
        let v1::DetachNamespaceRequest { nqn, nsid } = request;
        // Not one at a time: its last command may take as long as its disk, and whoever attaches
        // the file meanwhile is told that it is in use.
        let (shard, subsystem, _) = self.subsystem(&nqn).await?;
        if !subsystem.namespaces.iter().any(|attached| attached.nsid == nsid) {
            return Ok(false);
        }
        if !self.host.detach(shard, &nqn, nsid).await {
            return Ok(false);
        }
        let text = format!("namespace {nsid} of {nqn} is detached");
        let what = What::NamespaceDetached(NamespaceDetached { nqn, nsid });
        self.hub.tell(About::default(), text, what);
        Ok(true)
    }

    /// A subsystem whose namespaces may come and go, its shard, and all that is served.
    async fn subsystem(
        &self,
        nqn: &str,
    ) -> Result<(u16, SubsystemView, Vec<(u16, SubsystemView)>), Status> {
        if nqn.is_empty() {
            return Err(Status::invalid_argument("nqn is missing: which subsystem?"));
        }
        let all = self.host.subsystems().await;
        let found = all.iter().find(|(_, subsystem)| subsystem.nqn == nqn).cloned();
        let (shard, subsystem) =
            found.ok_or_else(|| Status::not_found(format!("{nqn} is not served here")))?;
        let own = |attached: &Attached| {
            matches!(attached.kind, AttachedKind::Memory | AttachedKind::Disk)
        };
        if !subsystem.namespaces.iter().all(own) {
            return Err(Status::failed_precondition(format!(
                "{nqn} is a replica, a snapshot or a volume: share and unshare those"
            )));
        }
        Ok((shard, subsystem, all))
    }

    /// Opens what a namespace's bytes are on, which may take long.
    async fn opened(
        &self,
        nqn: String,
        plan: NamespacePlan,
        force: bool,
    ) -> Result<(Attach, Attached), Status> {
        let (plan, opened) = tokio::task::spawn_blocking(move || {
            let opened = backend::open(&plan, force);
            (plan, opened)
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
        let Backend { geometry, disk } = opened.map_err(|e| refused(&e))?;
        let state = self.settings.state.as_ref().filter(|_| disk.is_some());
        let kept = state.map(|state| state.reservations(&plan.identity.uuid)).transpose();
        let namespace = NamespaceConfig {
            nsid: plan.nsid,
            ana_group: GROUP,
            nguid: plan.identity.nguid,
            uuid: plan.identity.uuid,
            geometry,
            backend: BackendConfig::Memory,
            reservations: kept.map_err(|e| refused(&e))?.map(Box::new),
            injections: plan.uri.injections.clone(),
            lose_unflushed: plan.uri.lose_unflushed,
        };
        let kind = if disk.is_some() { AttachedKind::Disk } else { AttachedKind::Memory };
        let uuid = plan.identity.uuid;
        let attached = Attached { nsid: plan.nsid, uuid, geometry, kind };
        Ok((Attach { nqn, namespace, disk }, attached))
    }
}

/// What cannot be opened, as the API tells it.
fn refused(error: &Error) -> Status {
    Status::failed_precondition(error.to_string())
}

fn on_wire(nqn: &str, attached: &Attached) -> v1::Namespace {
    let source = match attached.kind {
        AttachedKind::Memory => NamespaceSource::Memory,
        AttachedKind::Disk => NamespaceSource::Disk,
        AttachedKind::Pool => NamespaceSource::Pool,
        AttachedKind::Volume => NamespaceSource::Volume,
    };
    v1::Namespace {
        nqn: nqn.to_owned(),
        nsid: attached.nsid,
        uuid: names::text(attached.uuid),
        source: source.into(),
        size_bytes: attached.geometry.bytes(),
        block_bytes: attached.geometry.block.bytes(),
    }
}
