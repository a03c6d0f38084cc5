//! Who holds a volume.

use braid_api::control as wire;
use braid_api::control::membership_server::Membership;
use tonic::{Request, Response, Status};

use super::{Service, refused};
use crate::identity;
use crate::store::{Change, Done};

#[tonic::async_trait]
impl Membership for Service {
    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let volume = identity::parse("volume", &request.into_inner().volume)?;
        let record = self.0.store.read(|state| state.volumes.get(&volume)?.record.clone());
        let record = record.ok_or_else(|| Status::not_found("there is no such volume"))?;
        Ok(Response::new(wire::FetchResponse { record: record.encode() }))
    }

    async fn swap(
        &self,
        request: Request<wire::SwapRequest>,
    ) -> Result<Response<wire::SwapResponse>, Status> {
        let wire::SwapRequest { volume, old, new } = request.into_inner();
        let volume = identity::parse("volume", &volume)?;
        if self.0.is_stale(&volume) {
            return Err(Status::failed_precondition(
                "the store is older than what replicas know of this volume; recover it first",
            ));
        }
        let done = self.0.store.change(Change::Swap { volume, old, new }).await;
        match done.map_err(refused)? {
            Done::Done => Ok(Response::new(wire::SwapResponse { committed: true, record: vec![] })),
            Done::Changed(record) => {
                let record = record.encode();
                Ok(Response::new(wire::SwapResponse { committed: false, record }))
            }
            // A number answers no swap.
            Done::Absent | Done::Number(_) => Err(Status::not_found("there is no such volume")),
        }
    }
}
