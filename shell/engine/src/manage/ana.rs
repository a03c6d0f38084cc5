//! Asymmetric namespace access: how hosts reach what is served here is shown and changed.

use braid_api::v1::event::{AnaStateSet, What};
use braid_api::v1::{self};
use braid_nvme::ana::AnaState;
use tonic::Status;

use super::host::{Access, Host, Reach};
use super::hub::About;
use super::manager::Manager;

/// The group that namespaces are in unless said otherwise.
const GROUP: u32 = 1;

impl<H: Host> Manager<H> {
    /// `ListAnaGroups`.
    pub(crate) async fn list_ana_groups(&self, nqn: &str) -> Vec<v1::AnaGroup> {
        let mut reached = self.host.reached().await;
        reached.retain(|reach| nqn.is_empty() || reach.nqn == nqn);
        reached.sort_by(|a, b| (&a.nqn, a.group, a.listener).cmp(&(&b.nqn, b.group, b.listener)));
        reached.into_iter().map(|reach| self.group_on_wire(reach)).collect()
    }

    /// `SetAnaState`.
    pub(crate) async fn set_ana_state(
        &self,
        request: v1::SetAnaStateRequest,
    ) -> Result<v1::SetAnaStateResponse, Status> {
        let state = from_wire(request.state())?;
        let v1::SetAnaStateRequest { nqn, group, listen, state: on_wire } = request;
        if nqn.is_empty() {
            return Err(Status::invalid_argument("nqn is missing: which subsystem?"));
        }
        let group = if group == 0 { GROUP } else { group };
        let listener = self.listener(&listen)?;
        let access = Access { nqn: nqn.clone(), group, listener, state };
        if !self.host.set_access(access).await {
            return Err(Status::not_found(format!("group {group} of {nqn} is not served here")));
        }
        let by = if listen.is_empty() { String::new() } else { format!(" by {listen}") };
        let text = format!("group {group} of {nqn}{by} is {} now", state.text());
        let what = What::AnaStateSet(AnaStateSet { nqn, group, listen, state: on_wire });
        self.hub.tell(About::default(), text, what);
        Ok(v1::SetAnaStateResponse {})
    }

    /// The position of an address that hosts come by; none is all of them.
    fn listener(&self, listen: &str) -> Result<Option<u16>, Status> {
        if listen.is_empty() {
            return Ok(None);
        }
        let addresses = &self.settings.listen;
        let at = addresses.iter().position(|address| address == listen);
        let at = at.and_then(|at| u16::try_from(at).ok());
        at.map(Some).ok_or_else(|| {
            let known = addresses.join(", ");
            Status::not_found(format!("hosts do not come by {listen} but by {known}"))
        })
    }

    fn group_on_wire(&self, reach: Reach) -> v1::AnaGroup {
        let listen = self.settings.listen.get(usize::from(reach.listener));
        v1::AnaGroup {
            nqn: reach.nqn,
            group: reach.group,
            listen: listen.cloned().unwrap_or_default(),
            state: to_wire(reach.state).into(),
            changes: reach.changes,
        }
    }
}

fn from_wire(state: v1::AnaState) -> Result<AnaState, Status> {
    Ok(match state {
        v1::AnaState::Optimized => AnaState::Optimized,
        v1::AnaState::NonOptimized => AnaState::NonOptimized,
        v1::AnaState::Inaccessible => AnaState::Inaccessible,
        v1::AnaState::PersistentLoss => AnaState::PersistentLoss,
        v1::AnaState::Change => AnaState::Change,
        v1::AnaState::Unspecified => {
            return Err(Status::invalid_argument("state is missing, or one that there is not"));
        }
    })
}

pub(crate) const fn to_wire(state: AnaState) -> v1::AnaState {
    match state {
        AnaState::Optimized => v1::AnaState::Optimized,
        AnaState::NonOptimized => v1::AnaState::NonOptimized,
        AnaState::Inaccessible => v1::AnaState::Inaccessible,
        AnaState::PersistentLoss => v1::AnaState::PersistentLoss,
        AnaState::Change => v1::AnaState::Change,
    }
}
