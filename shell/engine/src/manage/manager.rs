//! What an engine manages: its pools and what they share. One file a flow: `pools`, `replicas`,
//! `snapshots`.
//!
//! Invariants:
//! 1. One change of a pool at a time: whoever changes it holds its gate, and looks again at what
//!    it decided by once it has it.
//! 2. A pool is in the table from before its first event until after its last one.
//! 3. No lock of the table is held across an await.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use braid_api::v1::SharePolicy;
use braid_nvme::connect::CNTLID_MAX;
use braid_pool::{Done, Failure, LayerInfo};
use braid_shard::Elsewhere;
use tokio::sync::{Mutex as Gate, OwnedMutexGuard, mpsc};
use tonic::{Code, Status};

use super::host::{Home, Host, Picture, Told};
use super::hub::Hub;
use super::names::{self, Reference};
use super::nexuses::Ask;
use crate::serve::state::State;

/// Notes of a pool that is being opened, kept at most: one with more is badly damaged, and what
/// is kept says so. The last are kept: they tell how it went.
const EARLY_MAX: usize = 256;

/// What the management is told at start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who opens pools, for the message that a second engine gets.
    pub owner: String,
    /// Identifies this boot of the machine.
    pub boot_id: [u8; 16],
    /// Hosts that may connect where a request names none; none: all.
    pub allowed_hosts: Vec<String>,
    /// Faults may be injected.
    pub allows_injection: bool,
    /// Where hosts connect.
    pub listen: Vec<String>,
    /// Other discovery services that hosts are told of.
    pub referrals: Vec<SocketAddr>,
    /// Where reservations of files and devices are kept, if they are.
    pub state: Option<Arc<State>>,
    /// Controller ids that the control plane allotted.
    pub allotted: Arc<Allotted>,
}

/// Controller ids that the control plane allotted to this engine, for volumes; none at first.
#[derive(Debug, Default)]
pub struct Allotted(AtomicU32);

impl Allotted {
    /// From the least to the largest; what is no range is none.
    pub fn set(&self, min: u32, max: u32) {
        let sound = min >= 1 && min <= max && max <= CNTLID_MAX.into();
        self.0.store(if sound { min << 16 | max } else { 0 }, Ordering::Relaxed);
    }

    /// The least and the largest, if any are allotted.
    #[must_use]
    pub fn range(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = self.0.load(Ordering::Relaxed).to_be_bytes();
        let (min, max) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        (min > 0).then_some((min, max))
    }
}

/// An engine's management.
#[derive(Debug)]
pub struct Manager<H> {
    pub(crate) host: H,
    pub(crate) hub: Hub,
    pub(crate) settings: Settings,
    pub(crate) started_unix_s: u64,
    /// Held by whoever opens or makes a pool: two must not take one disk.
    pub(crate) opening: Gate<()>,
    pools: Mutex<BTreeMap<[u8; 16], Arc<Pool>>>,
    /// What pools told before they were in the table.
    early: Mutex<VecDeque<Told>>,
    /// Whom to ask about volumes, if there is a control plane that orders any.
    pub(crate) nexuses: OnceLock<mpsc::Sender<Ask>>,
    /// Number of the last pool: none is used again, so that a late note finds nothing.
    last: AtomicU16,
}

/// A pool that is open here.
#[derive(Debug)]
pub struct Pool {
    /// Its identity.
    pub uuid: [u8; 16],
    /// Where its disk was found.
    pub path: PathBuf,
    /// Where it lives.
    pub home: Home,
    /// What is shared without being asked for.
    pub policy: SharePolicy,
    /// On a block device, not a file.
    pub is_block_device: bool,
    /// Size of its disk.
    pub disk_bytes: AtomicU64,
    /// Held by whoever changes it.
    gate: Arc<Gate<Standing>>,
    /// What is shared, by uuid, and with which hosts.
    shares: Mutex<BTreeMap<[u8; 16], Vec<String>>>,
    /// What its notes told.
    pub(crate) heard: Mutex<Heard>,
}

/// Whether a pool can be changed still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Open,
    /// It is closed: whoever waited for it came too late.
    Closed,
}

/// What a pool's notes told so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Why it failed.
    pub(crate) failed: Option<String>,
    /// How the last scrub ended: when, blocks, errors.
    pub(crate) scrubbed: Option<(u64, u64, u64)>,
}

/// A pool, and the right to change it.
#[derive(Debug)]
pub struct Held {
    /// Which.
    pub pool: Arc<Pool>,
    pub(crate) gate: OwnedMutexGuard<Standing>,
}

impl<H: Host> Manager<H> {
    /// Manages the pools of `host`; there are none yet.
    #[must_use]
    pub fn new(host: H, settings: Settings) -> Self {
        Self {
            host,
            hub: Hub::default(),
            settings,
            started_unix_s: super::hub::unix_s(),
            opening: Gate::new(()),
            pools: Mutex::default(),
            early: Mutex::default(),
            nexuses: OnceLock::new(),
            last: AtomicU16::new(0),
        }
    }

    /// Says what discovery is to tell of: these paths by other engines, and other services.
    pub(crate) async fn tell_elsewhere(&self, mut elsewhere: Vec<Elsewhere>) {
        let referrals = self.settings.referrals.iter();
        elsewhere.extend(referrals.map(|&address| Elsewhere {
            nqn: None,
            address,
            allowed_hosts: Vec::new(),
        }));
        self.host.tell_elsewhere(elsewhere).await;
    }

    /// All pools, by path.
    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = locked(&self.pools).values().cloned().collect();
        pools.sort_by(|a, b| a.path.cmp(&b.path));
        pools
    }

    /// The pool of this identity.
    pub(crate) fn by_uuid(&self, uuid: [u8; 16]) -> Option<Arc<Pool>> {
        locked(&self.pools).get(&uuid).cloned()
    }

    /// The pool that lives there.
    pub(crate) fn by_home(&self, home: Home) -> Option<Arc<Pool>> {
        locked(&self.pools).values().find(|pool| pool.home == home).cloned()
    }

    /// The pool whose disk this path names.
    pub(crate) fn by_path(&self, path: &Path) -> Option<Arc<Pool>> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let wanted = real(path);
        self.pools().into_iter().find(|pool| real(&pool.path) == wanted)
    }

    /// The pool that a request means.
    pub(crate) fn pool(&self, reference: &str) -> Result<Arc<Pool>, Status> {
        if reference.is_empty() {
            return self.only();
        }
        if reference.starts_with('/') {
            return self.by_path(Path::new(reference)).ok_or_else(|| missing_pool(reference));
        }
        let uuid = names::uuid(reference).map_err(|_| {
            Status::invalid_argument(format!("pool '{reference}' is neither a uuid nor a path"))
        })?;
        uuid.and_then(|uuid| self.by_uuid(uuid)).ok_or_else(|| missing_pool(reference))
    }

    fn only(&self) -> Result<Arc<Pool>, Status> {
        let mut pools = self.pools();
        match (pools.pop(), pools.is_empty()) {
            (Some(pool), true) => Ok(pool),
            (None, _) => Err(Status::not_found("no pool is imported")),
            (Some(_), false) => {
                Err(Status::invalid_argument("pool is missing: there are several, so name one"))
            }
        }
    }

    /// The pools that a replica or snapshot may be in.
    pub(crate) fn candidates(&self, reference: &str) -> Result<Vec<Arc<Pool>>, Status> {
        if reference.is_empty() { Ok(self.pools()) } else { Ok(vec![self.pool(reference)?]) }
    }

    /// Where the next pool is to live: on the shard that has the fewest.
    pub(crate) fn next_home(&self) -> Result<Home, Status> {
        let pools = self.pools();
        let load = |shard: &u16| pools.iter().filter(|pool| pool.home.shard == *shard).count();
        let shard = (0..self.host.shards()).min_by_key(load).unwrap_or(0);
        let next = |last: u16| last.checked_add(1);
        match self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) => Ok(Home { shard, pool: last }),
            Err(_) => Err(Status::resource_exhausted(
                "65535 pools were opened since this engine started; restart it",
            )),
        }
    }

    /// Puts a pool into the table, and tells what it told before.
    pub(crate) fn insert(&self, pool: Arc<Pool>) {
        let home = pool.home;
        locked(&self.pools).insert(pool.uuid, pool);
        let early = std::mem::take(&mut *locked(&self.early));
        for told in early.into_iter().filter(|told| told.home == home) {
            self.told(told);
        }
    }

    /// Keeps what a pool tells that is not in the table: it may be on its way there. What pools
    /// told that never came is forgotten with the next one that does.
    pub(crate) fn keep_early(&self, told: Told) {
        // One pool is opened at a time, under the last number: one with another was here, and
        // what it tells late must not take the place of what the next one tells.
        let last = self.last.load(Ordering::Relaxed);
        if told.home.pool.saturating_add(1) < last {
            return;
        }
        let mut early = locked(&self.early);
        if early.len() == EARLY_MAX {
            early.pop_front();
        }
        early.push_back(told);
    }

    pub(crate) fn remove(&self, uuid: [u8; 16]) {
        locked(&self.pools).remove(&uuid);
    }

    /// Waits for the right to change a pool.
    pub(crate) async fn hold(&self, pool: Arc<Pool>) -> Result<Held, Status> {
        let gate = Arc::clone(&pool.gate).lock_owned().await;
        match *gate {
            Standing::Open => Ok(Held { pool, gate }),
            Standing::Closed => Err(missing_pool(&pool.path.display().to_string())),
        }
    }

    /// What a pool is like now.
    pub(crate) async fn picture(&self, pool: &Pool) -> Result<Picture, Status> {
        let picture = self.host.picture(pool.home).await;
        picture.ok_or_else(|| Status::unavailable("the pool is being closed"))
    }

    /// Has a pool do something; `what` says what, for the error.
    pub(crate) async fn command(
        &self,
        pool: &Pool,
        what: &str,
        command: braid_pool::Command,
    ) -> Result<Done, Status> {
        let done = self.host.command(pool.home, command).await;
        done.map_err(|failure| refused(failure, what, &pool.path))
    }

    /// The one replica or snapshot that is meant, with its pool held; None: there is none.
    pub(crate) async fn find(
        &self,
        pool: &str,
        reference: &Reference,
        snapshot: bool,
    ) -> Result<Option<(Held, LayerInfo)>, Status> {
        let mut found: Option<(Arc<Pool>, [u8; 16])> = None;
        for pool in self.candidates(pool)? {
            let layers = self.picture(&pool).await?.layers;
            for layer in matching(&layers, reference, snapshot) {
                if found.replace((Arc::clone(&pool), layer.uuid)).is_some() {
                    return Err(Status::invalid_argument(
                        "several are called so; name the pool, or give the uuid",
                    ));
                }
            }
        }
        let Some((pool, uuid)) = found else { return Ok(None) };
        let held = match self.hold(pool).await {
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            held => held?,
        };
        // Another change may have come first.
        let layers = self.picture(&held.pool).await?.layers;
        let layer = layers.into_iter().find(|layer| layer.uuid == uuid);
        Ok(layer.map(|layer| (held, layer)))
    }
}

impl Pool {
    /// A pool that was just opened.
    pub(crate) fn new(
        uuid: [u8; 16],
        path: PathBuf,
        home: Home,
        policy: SharePolicy,
        disk: (bool, u64),
    ) -> Self {
        Self {
            uuid,
            path,
            home,
            policy,
            is_block_device: disk.0,
            disk_bytes: AtomicU64::new(disk.1),
            gate: Arc::new(Gate::new(Standing::Open)),
            shares: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// The hosts that a replica or snapshot is shared with, if it is shared.
    pub(crate) fn shared_with(&self, uuid: &[u8; 16]) -> Option<Vec<String>> {
        locked(&self.shares).get(uuid).cloned()
    }

    pub(crate) fn set_shared(&self, uuid: [u8; 16], hosts: Vec<String>) {
        locked(&self.shares).insert(uuid, hosts);
    }

    pub(crate) fn set_unshared(&self, uuid: &[u8; 16]) -> bool {
        locked(&self.shares).remove(uuid).is_some()
    }

    /// Everything that is shared.
    pub(crate) fn all_shared(&self) -> Vec<[u8; 16]> {
        locked(&self.shares).keys().copied().collect()
    }
}

/// Of these, what is meant.
fn matching<'a>(
    layers: &'a [LayerInfo],
    reference: &'a Reference,
    snapshot: bool,
) -> impl Iterator<Item = &'a LayerInfo> {
    let of_kind = layers.iter().filter(move |layer| layer.snapshot == snapshot);
    of_kind.filter(move |layer| reference.means(layer, layers))
}

/// A lock that is only held for a moment. Whoever panicked with it ended the process.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing_pool(reference: &str) -> Status {
    Status::not_found(format!("pool {reference} is not imported here; import it first"))
}

/// A pool's refusal, as the API tells it: the one place that decides.
pub(crate) fn refused(failure: Failure, what: &str, path: &Path) -> Status {
    let path = path.display();
    match failure {
        Failure::NoSpace => Status::resource_exhausted(format!(
            "cannot {what}: no space in pool {path}; give some back, or grow the pool"
        )),
        Failure::Limit => {
            Status::resource_exhausted(format!("cannot {what}: a table of pool {path} is full"))
        }
        Failure::Media(offset) => Status::data_loss(format!(
            "cannot {what}: pool {path} cannot be read at byte {offset} of its maps"
        )),
        Failure::Failed => Status::failed_precondition(format!(
            "cannot {what}: pool {path} has failed; export it, mend its disk and import it again"
        )),
        Failure::NotFound => Status::not_found(format!("cannot {what}: it is not there")),
        Failure::Exists => {
            Status::already_exists(format!("cannot {what}: it is there already, and differs"))
        }
        Failure::Busy => Status::failed_precondition(format!(
            "cannot {what}: it is in use; end that first, then try again"
        )),
        Failure::ReadOnly => {
            Status::failed_precondition(format!("cannot {what}: a snapshot cannot be written"))
        }
        Failure::OutOfRange | Failure::Invalid => {
            Status::invalid_argument(format!("cannot {what}: it makes no sense to the pool"))
        }
        Failure::Stopping => {
            Status::unavailable(format!("cannot {what}: pool {path} is being closed"))
        }
    }
}
