//! The services, as they are on the wire.

mod changes;
mod create;
mod engines;
mod members;
mod membership;
mod recover;
mod size;
mod snapshots;
mod view;
mod volumes;

use std::sync::Arc;

use tonic::Status;

use crate::registry::Control;
use crate::store::Refusal;

/// Answers calls.
#[derive(Clone, Debug)]
pub struct Service(pub Arc<Control>);

/// A refusal of the store, as the API tells it.
pub(crate) fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Invalid(text) => Status::invalid_argument(text),
        Refusal::Exists(text) => Status::already_exists(text),
        Refusal::NotFound => Status::not_found("there is no such volume"),
        Refusal::Stage(text) => Status::failed_precondition(text),
        Refusal::Unknown => Status::unavailable(
            "the store cannot be written now; what was asked for may have been done",
        ),
    }
}
