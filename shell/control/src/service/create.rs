//! A volume is made: decided, then its replicas, then its record.
//!
//! What is decided is committed first, so that a call that was cut off goes on when it is repeated.

use std::sync::Arc;
use std::time::Duration;

use braid_api::control as wire;
use braid_nexus::record::{REPLICAS_MAX, Replica, Standing};
use braid_nexus::{Record, Uuid};
use tonic::{Code, Status};

use super::refused;
use crate::identity;
use crate::registry::{Control, Inside};
use crate::store::{Change, Place, Spec, Stage, Stay, random, unix_ms};

/// What sizes are multiples of.
const SIZE_UNIT: u64 = 4096;
/// What a pool's map of one replica reaches: 409,600 leaves of 64 MiB. Members that are asked for
/// more refuse each by itself, and an owner would lose them all.
const SIZE_MAX: u64 = 25 << 40;
/// How long an engine may take to make a replica: a thick one writes maps.
const PATIENCE: Duration = Duration::from_secs(30);

impl Control {
    /// `Create`.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: wire::CreateRequest,
    ) -> Result<wire::Volume, Status> {
        let spec = self.decided(request).await?;
        if spec.stage == Stage::Ready {
            return self.volume(&spec.uuid);
        }
        let uuid = spec.uuid;
        let made = match self.replicas_of(&spec).await {
            Ok(instances) => self.admit(&spec, &instances).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(status) = made {
            // What it cannot have any more is not kept for it. What was there before stays.
            let given = spec.places.iter().filter(|place| place.given);
            let forgotten = given.map(|place| place.replica).collect();
            let undone = self.store.change(Change::Delete { volume: uuid, forgotten }).await;
            tracing::warn!(volume = spec.name, reason = status.message(), ?undone, "not made");
            return Err(status);
        }
        self.store.note(uuid, format!("it was made, {} replicas", spec.places.len()));
        self.volume(&uuid)
    }

    /// What is to be made, as it was committed: by this call, or by the same one before.
    async fn decided(&self, request: wire::CreateRequest) -> Result<Spec, Status> {
        identity::check_name(&request.name)?;
        let uuid = identity::parse_optional("uuid", &request.uuid)?;
        let known = self.store.read(|state| {
            let mut volumes = state.volumes.values();
            let found = volumes.find(|volume| match uuid {
                Some(uuid) => volume.spec.uuid == uuid,
                None => volume.spec.name == request.name,
            });
            found.map(|volume| (*volume.spec).clone())
        });
        if let Some(known) = known {
            return self.same(known, &request);
        }
        if !(1..=REPLICAS_MAX).contains(&request.places.len()) {
            return Err(Status::invalid_argument(
                "a volume has 1 to 8 replicas: give so many places",
            ));
        }
        check_size(request.size_bytes)?;
        if request.standbys > 7 {
            return Err(Status::invalid_argument("standbys is above 7"));
        }
        let uuid = uuid.map_or_else(random, Ok);
        let uuid = uuid.map_err(|error| Status::internal(error.to_string()))?;
        let (places, bytes) = self.places(&request)?;
        let spec = Spec {
            uuid,
            name: request.name,
            bytes,
            places,
            snapshots: Vec::new(),
            standbys: request.standbys.max(1),
            created_unix_s: unix_ms() / 1000,
            stage: Stage::Creating,
            appointed: None,
            pace: None,
            ended: Vec::new(),
        };
        self.store.change(Change::Create(Box::new(spec.clone()))).await.map_err(refused)?;
        Ok(spec)
    }

    /// A volume that is there, if it is what is asked for.
    fn same(&self, known: Spec, request: &wire::CreateRequest) -> Result<Spec, Status> {
        let differs =
            || Status::already_exists(format!("volume {} is there, and differs", known.name));
        let inside = self.inside();
        let like = |(known, asked): (&Place, &wire::Place)| {
            let replica = identity::parse("replica", &asked.replica).ok();
            let given = replica == Some(known.replica) && known.given;
            let engine = inside.engine(&asked.engine).ok() == Some(known.engine);
            let pool = asked.pool.is_empty() || asked.pool == known.pool;
            given || (asked.replica.is_empty() && !known.given && engine && pool)
        };
        let bytes = rounded(request.size_bytes);
        let whole = known.name == request.name
            && (request.size_bytes == 0 || bytes == Some(known.bytes))
            && known.standbys == request.standbys.max(1)
            && known.places.len() == request.places.len()
            && known.places.iter().zip(&request.places).all(like);
        match known.stage {
            Stage::Deleting => {
                Err(Status::failed_precondition(format!("volume {} is being deleted", known.name)))
            }
            _ if !whole => Err(differs()),
            _ => Ok(known),
        }
    }

    /// Where the replicas are to be, and the size of the volume.
    fn places(&self, request: &wire::CreateRequest) -> Result<(Vec<Place>, u64), Status> {
        let inside = self.inside();
        let mut places: Vec<Place> = Vec::new();
        let mut bytes = rounded(request.size_bytes).filter(|bytes| *bytes > 0);
        for asked in &request.places {
            let place = if asked.replica.is_empty() {
                inside.new_place(asked)?
            } else {
                let (place, size) = inside.given_place(asked)?;
                if *bytes.get_or_insert(size) != size {
                    return Err(Status::invalid_argument(format!(
                        "replica {} has {size} bytes, not the size of the volume",
                        asked.replica
                    )));
                }
                place
            };
            if places.iter().any(|p| p.replica == place.replica || same_pool(p, &place)) {
                return Err(Status::invalid_argument(format!(
                    "two replicas in one pool of engine {} would be lost together",
                    place.node
                )));
            }
            places.push(place);
        }
        let taken = self.store.read(|state| {
            let used = state.volumes.values().flat_map(|volume| &volume.spec.places);
            used.filter(|used| places.iter().any(|place| place.replica == used.replica)).count()
        });
        if taken > 0 {
            return Err(Status::already_exists("a given replica belongs to another volume"));
        }
        let bytes = bytes.ok_or_else(|| {
            Status::invalid_argument("size_bytes is missing, or too large: how large shall it be?")
        })?;
        Ok((places, bytes))
    }

    /// Has all replicas made; their instances, in the order of the places.
    async fn replicas_of(self: &Arc<Self>, spec: &Spec) -> Result<Vec<u64>, Status> {
        let mut tasks = Vec::new();
        for (number, place) in spec.places.iter().enumerate() {
            let (control, place) = (Arc::clone(self), place.clone());
            let name = format!("{}.{number}", spec.name);
            let (volume, size_bytes) = (spec.uuid, spec.bytes);
            tasks.push(tokio::spawn(async move {
                if place.given {
                    let inside = control.inside();
                    let found = inside.replica(&place.replica).map(|(_, found)| found.instance);
                    return found.ok_or_else(|| Status::not_found("a given replica is gone"));
                }
                let made = wire::MakeReplica {
                    uuid: identity::text(&place.replica),
                    name,
                    pool: place.pool,
                    size_bytes,
                };
                control.make(volume, place.engine, made).await
            }));
        }
        let mut instances = Vec::new();
        let mut failure = None;
        for task in tasks {
            match task.await.unwrap_or_else(|error| Err(Status::internal(error.to_string()))) {
                Ok(instance) => instances.push(instance),
                Err(status) => failure = Some(status),
            }
        }
        failure.map_or(Ok(instances), Err)
    }

    async fn make(
        &self,
        volume: Uuid,
        engine: Uuid,
        replica: wire::MakeReplica,
    ) -> Result<u64, Status> {
        let id = random().map_err(|error| Status::internal(error.to_string()))?;
        let order = wire::Order {
            id: identity::text(&id),
            volume: identity::text(&volume),
            what: Some(wire::order::What::MakeReplica(replica)),
        };
        let done = self.order(engine, order, volume, PATIENCE).await?;
        let node = self.inside().node(&engine);
        match (done.code, done.replica) {
            (0, Some(replica)) => Ok(replica.instance),
            (0, None) => Err(Status::internal(format!("engine {node} does not say what it made"))),
            (code, _) => {
                let text = format!("engine {node}: {}", done.text);
                Err(match Code::from_i32(code) {
                    Code::ResourceExhausted => Status::resource_exhausted(text),
                    _ => Status::failed_precondition(text),
                })
            }
        }
    }

    /// The first record: all that were made hold the same, nothing; of those that were given the
    /// first holds what the others are to hold.
    async fn admit(&self, spec: &Spec, instances: &[u64]) -> Result<(), Status> {
        let first_given = spec.places.iter().position(|place| place.given);
        let mut record = Record {
            volume: spec.uuid,
            store: self.store.read(|state| state.id),
            version: 1,
            bytes: spec.bytes,
            unused: first_given.is_none(),
            ..Record::default()
        };
        let replicas = spec.places.iter().zip(instances).enumerate();
        for ((at, (place, instance)), slot) in replicas.zip(&mut record.slots) {
            let standing = match first_given {
                Some(first) if first != at => Standing::Away { whole: true },
                _ => Standing::Member { instance: *instance },
            };
            *slot = Some(Replica { uuid: place.replica, standing });
        }
        let admit = Change::Admit { volume: spec.uuid, record: Box::new(record) };
        self.store.change(admit).await.map(drop).map_err(refused)
    }
}

impl Inside {
    pub(super) fn new_place(&self, asked: &wire::Place) -> Result<Place, Status> {
        let engine = self.engine(&asked.engine)?;
        let known = self.engines.get(&engine).filter(|known| known.is_connected());
        let node = self.node(&engine);
        let known = known.ok_or_else(|| {
            Status::failed_precondition(format!("engine {node} is not connected"))
        })?;
        let fits = |pool: &&wire::PoolState| {
            asked.pool.is_empty() || pool.uuid == asked.pool || pool.path == asked.pool
        };
        let mut pools = known.state.pools.iter().filter(fits);
        let pool = match (pools.next(), pools.next()) {
            (Some(pool), None) => pool.uuid.clone(),
            (Some(_), Some(_)) => {
                return Err(Status::invalid_argument(format!(
                    "engine {node} has several pools: name one, as {node}/UUID or {node}/PATH"
                )));
            }
            (None, _) => {
                let which = if asked.pool.is_empty() { "no pool" } else { "no such pool" };
                return Err(Status::not_found(format!("engine {node} has {which}")));
            }
        };
        let replica = random().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Place { replica, engine, node, pool, given: false, stay: Stay::Stays })
    }

    fn given_place(&self, asked: &wire::Place) -> Result<(Place, u64), Status> {
        let replica = identity::parse("replica", &asked.replica)?;
        let (engine, found) = self.replica(&replica).ok_or_else(|| {
            Status::not_found(format!("no engine that is connected has replica {}", asked.replica))
        })?;
        let (node, pool, size) = (self.node(&engine), found.pool.clone(), found.size_bytes);
        Ok((Place { replica, engine, node, pool, given: true, stay: Stay::Stays }, size))
    }
}

fn same_pool(a: &Place, b: &Place) -> bool {
    a.engine == b.engine && a.pool == b.pool
}

/// Refuses what no replica can have.
pub(super) fn check_size(bytes: u64) -> Result<(), Status> {
    let text = || format!("size_bytes {bytes} is too large; a volume has at most 25TiB");
    if bytes > SIZE_MAX { Err(Status::invalid_argument(text())) } else { Ok(()) }
}

/// As replicas have it; None: beyond all sizes.
pub(super) const fn rounded(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(SIZE_UNIT)
}
