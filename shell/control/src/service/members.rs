//! A volume gets another replica, or has one less.

use braid_api::control as wire;
use braid_nexus::Uuid;
use braid_plan::Step;
use tonic::{Code, Status};

use super::changes::Waited;
use super::refused;
use crate::identity;
use crate::registry::{Control, Inside};
use crate::store::{Change, Done, Place, Spec, Stay, Volume};

impl Control {
    /// `AddMember`.
    pub(crate) async fn add_member(
        &self,
        request: wire::AddMemberRequest,
    ) -> Result<wire::Volume, Status> {
        let volume = self.reference(&request.volume)?;
        let (spec, _) = self.changeable(&volume)?;
        let (replica, new) = match self.inside().wanted_place(&spec, &request)? {
            Wanted::There(replica) => (replica, None),
            Wanted::New(place) => (place.replica, Some(place)),
        };
        let meant = |step: &Step| match step {
            Step::MakeReplica { replica: made, .. } | Step::AddMember { replica: made, .. } => {
                *made == replica
            }
            _ => false,
        };
        self.ask_anew(&volume, meant);
        if let Some(place) = new {
            let text = format!("a replica on {} was asked for", place.node);
            self.store.change(Change::Place { volume, place }).await.map_err(refused)?;
            self.store.note(volume, text);
        }
        let look = |volume: &Volume| {
            let named = volume.record.as_ref().is_some_and(|r| r.slot_of(&replica).is_some());
            let place = volume.spec.places.iter().find(|place| place.replica == replica);
            match place.map(|place| place.stay) {
                Some(Stay::Stays) => named.then_some(Ok(())),
                _ => Some(Err(Status::aborted("it is being removed"))),
            }
        };
        match self.wait_until(&volume, meant, look).await {
            Ok(()) => self.volume(&volume),
            Err(Waited::Refused(why)) => Err(match why.code() {
                Code::ResourceExhausted => why,
                _ => Status::failed_precondition(why.message()),
            }),
            Err(waited) => Err(waited.status()),
        }
    }

    /// `RemoveMember`.
    pub(crate) async fn remove_member(
        &self,
        request: wire::RemoveMemberRequest,
    ) -> Result<bool, Status> {
        let volume = self.reference(&request.volume)?;
        let (spec, _) = self.changeable(&volume)?;
        let Some(place) = self.inside().listed_place(&spec, &request.replica)? else {
            return Ok(false);
        };
        let replica = place.replica;
        let leave = Change::Leave { volume, replica, forget: request.force };
        if self.store.change(leave).await.map_err(refused)? == Done::Absent {
            return Ok(false);
        }
        if place.stay == Stay::Stays {
            let how = if request.force { ", by force" } else { "" };
            self.store
                .note(volume, format!("it was asked to have no replica on {}{how}", place.node));
        }
        let meant = |step: &Step| match step {
            Step::TakeOut { replica: gone, .. } | Step::GiveUp { replica: gone, .. } => {
                *gone == replica
            }
            _ => false,
        };
        let look = |volume: &Volume| {
            let named = volume.record.as_ref().is_some_and(|r| r.slot_of(&replica).is_some());
            (!named).then_some(Ok(()))
        };
        self.wait_until(&volume, meant, look).await.map_err(Waited::status)?;
        Ok(true)
    }
}

enum Wanted {
    There(Uuid),
    New(Place),
}

impl Inside {
    /// The place that a volume is to have, or has already.
    fn wanted_place(
        &self,
        spec: &Spec,
        request: &wire::AddMemberRequest,
    ) -> Result<Wanted, Status> {
        let uuid = identity::parse_optional("uuid", &request.uuid)?;
        let engine = self.engine(&request.engine)?;
        let known = spec.places.iter().find(|place| uuid == Some(place.replica));
        let in_pool = |place: &&Place| {
            place.engine == engine && (request.pool.is_empty() || place.pool == request.pool)
        };
        let there = known.or_else(|| spec.places.iter().find(in_pool));
        if let Some(there) = there {
            let it = uuid.is_none_or(|uuid| uuid == there.replica);
            return match (it, there.stay) {
                (true, Stay::Stays) if there.engine == engine => Ok(Wanted::There(there.replica)),
                (_, Stay::Stays) => Err(Status::already_exists(format!(
                    "the volume has another replica on {}, or that one elsewhere",
                    there.node
                ))),
                _ => Err(Status::failed_precondition(format!(
                    "the replica on {} is being removed",
                    there.node
                ))),
            };
        }
        let (engine, pool) = (request.engine.clone(), request.pool.clone());
        let mut place = self.new_place(&wire::Place { replica: String::new(), engine, pool })?;
        // A pool is named by its path, too.
        let same = |known: &&Place| (known.engine, &known.pool) == (place.engine, &place.pool);
        if let Some(there) = spec.places.iter().find(same)
            && there.stay == Stay::Stays
            && uuid.is_none()
        {
            return Ok(Wanted::There(there.replica));
        }
        place.replica = uuid.unwrap_or(place.replica);
        if self.replica(&place.replica).is_some() {
            return Err(Status::already_exists("a replica of that uuid is there already"));
        }
        Ok(Wanted::New(place))
    }

    /// The place that is meant: by its replica, or by an engine that has one alone.
    fn listed_place(&self, spec: &Spec, reference: &str) -> Result<Option<Place>, Status> {
        if reference.is_empty() {
            return Err(Status::invalid_argument("which replica? name it, or its engine"));
        }
        let by_uuid = |place: &&Place| identity::text(&place.replica) == reference;
        if let Some(place) = spec.places.iter().find(by_uuid) {
            return Ok(Some(place.clone()));
        }
        let on =
            |place: &&Place| place.node == reference || identity::text(&place.engine) == reference;
        let mut found = spec.places.iter().filter(on);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Status::invalid_argument(format!(
                "the volume has several replicas on {reference}: name one by its uuid"
            ))),
            (place, _) => Ok(place.cloned()),
        }
    }
}
