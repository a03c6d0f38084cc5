//! A model of pools for the tests of the service: what the interface of `core/pool` promises,
//! without a byte of data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use braid_block::Geometry;
use braid_nvme::ana::AnaState;
use braid_pool::{
    Command, Config, Counters, Done, Failure, Format, Handle, LayerInfo, PoolInfo, Refusal, State,
};
use braid_reactor::OpenDisk;
use braid_shard::{Elsewhere, Injection};

use crate::manage::host::{
    Access, Attached, AttachedKind, Exposed, Exposure, Home, Host, NotAttached, NotOpened, Picture,
    Reach, SubsystemView,
};
use crate::serve::namespaces::Attach;

/// Replicas and snapshots that a pool of the model has room for.
pub(super) const LAYERS_MAX: usize = 6;
/// The one namespace that is served beside the pools.
pub(super) const NQN: &str = "nqn.2026-01.io.braid:plain";

#[derive(Debug, Default)]
pub(super) struct Model(Mutex<World>);

#[derive(Debug, Default)]
pub(super) struct World {
    /// What stands on the disks.
    saved: BTreeMap<PathBuf, Saved>,
    open: BTreeMap<Home, (OpenDisk, bool)>,
    pub(super) exposed: BTreeMap<String, Exposure>,
    pub(super) faults: Vec<Injection>,
    pub(super) disk_faults: Option<(Home, Vec<Injection>)>,
    pub(super) access: Option<AnaState>,
    /// What is attached to the one plain subsystem, and on which disks.
    pub(super) attached: Vec<(Attached, Option<OpenDisk>)>,
    pub(super) elsewhere: Vec<Elsewhere>,
    /// What the next open or making ends with.
    pub(super) refusal: Option<Refusal>,
    /// What the next command ends with.
    pub(super) failure: Option<Failure>,
    pub(super) scrub: Option<(u64, u64)>,
    names: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Saved {
    uuid: [u8; 16],
    bytes: u64,
    layers: Vec<LayerInfo>,
}

impl Model {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// How many subsystems there are for hosts, and for nexuses.
    pub(super) fn exposures(&self) -> (usize, usize) {
        let members = self.exposed.values().filter(|e| e.what == Exposed::Member).count();
        (self.exposed.len() - members, members)
    }

    fn saved(&mut self, home: Home) -> Option<&mut Saved> {
        let (disk, _) = self.open.get(&home)?;
        self.saved.get_mut(&disk.path)
    }

    /// Lets a pool fail, as a bad device does.
    pub(super) fn fail(&mut self, home: Home) {
        self.open.get_mut(&home).unwrap().1 = true;
    }
}

impl Host for Model {
    fn shards(&self) -> u16 {
        2
    }

    async fn create(
        &self,
        _: Home,
        disk: OpenDisk,
        config: Config,
        format: Format,
    ) -> Result<OpenDisk, NotOpened> {
        assert_eq!(config.device.bytes, disk.size);
        if let Some(refusal) = self.world().refusal.take() {
            return Err(NotOpened::Refused(refusal));
        }
        let saved = Saved { uuid: format.uuid, bytes: format.bytes, layers: Vec::new() };
        self.world().saved.insert(disk.path.clone(), saved);
        Ok(disk)
    }

    async fn open(&self, home: Home, disk: OpenDisk, _: Config) -> Result<(), NotOpened> {
        let mut world = self.world();
        if let Some(refusal) = world.refusal.take() {
            return Err(NotOpened::Refused(refusal));
        }
        if !world.saved.contains_key(&disk.path) {
            return Err(NotOpened::Refused(Refusal::Foreign));
        }
        world.open.insert(home, (disk, false));
        Ok(())
    }

    async fn close(&self, home: Home) -> Option<OpenDisk> {
        let (disk, _) = self.world().open.remove(&home)?;
        Some(disk)
    }

    async fn command(&self, home: Home, command: Command) -> Result<Done, Failure> {
        // Other calls come in between, as they do with a real pool.
        tokio::task::yield_now().await;
        let mut world = self.world();
        if let Some(failure) = world.failure.take() {
            return Err(failure);
        }
        if let Command::Scrub { rate } = command {
            world.scrub = (rate > 0).then_some((0, 1 << 20));
            return Ok(Done::default());
        }
        match world.open.get(&home) {
            None => return Err(Failure::NotFound),
            Some((_, true)) => return Err(Failure::Failed),
            Some(_) => {}
        }
        world.saved(home).unwrap().command(command).map(|()| Done::default())
    }

    async fn picture(&self, home: Home) -> Option<Picture> {
        let mut world = self.world();
        let failed = world.open.get(&home)?.1;
        let scrub = world.scrub;
        let saved = world.saved(home)?;
        Some(Picture {
            state: if failed { State::Failed } else { State::Open },
            info: PoolInfo { scrub, ..saved.info() },
            layers: saved.layers.clone(),
            counters: Counters::default(),
        })
    }

    async fn expose(&self, exposure: Exposure) -> bool {
        let mut world = self.world();
        if exposure.names.nqn == NQN || world.exposed.contains_key(&exposure.names.nqn) {
            return false;
        }
        world.names.insert(exposure.names.nqn.clone());
        world.exposed.insert(exposure.names.nqn.clone(), exposure);
        true
    }

    async fn hide(&self, _: Home, nqn: &str) {
        assert!(self.world().exposed.remove(nqn).is_some(), "{nqn} is not exposed");
    }

    async fn resized(&self, _: Home, nqn: &str, geometry: Geometry) {
        self.world().exposed.get_mut(nqn).unwrap().geometry = geometry;
    }

    async fn reached(&self) -> Vec<Reach> {
        let state = self.world().access.unwrap_or_default();
        let reach = |listener| Reach { nqn: NQN.into(), group: 1, listener, state, changes: 1 };
        // As shards are asked one after the other, not in the order that is promised.
        vec![reach(1), reach(0)]
    }

    async fn set_access(&self, access: Access) -> bool {
        let known = access.nqn == NQN && access.group == 1;
        if known {
            self.world().access = Some(access.state);
        }
        known
    }

    async fn subsystems(&self) -> Vec<(u16, SubsystemView)> {
        let world = self.world();
        let namespaces = world.attached.iter().map(|(attached, _)| *attached).collect();
        let pool = world.exposed.values().map(|exposure| {
            let attached = Attached {
                nsid: 1,
                uuid: exposure.uuid,
                geometry: exposure.geometry,
                kind: AttachedKind::Pool,
            };
            let nqn = exposure.names.nqn.clone();
            (0, SubsystemView { nqn, namespaces: vec![attached] })
        });
        pool.chain([(1, SubsystemView { nqn: NQN.into(), namespaces })]).collect()
    }

    async fn attach(&self, shard: u16, attach: Attach) -> Result<(), NotAttached> {
        assert_eq!((shard, attach.nqn.as_str()), (1, NQN));
        let mut world = self.world();
        let config = attach.namespace;
        if world.attached.len() == 4 {
            return Err(NotAttached::NoRoom);
        }
        let kind = match attach.disk {
            Some(_) => AttachedKind::Disk,
            None => AttachedKind::Memory,
        };
        let (nsid, uuid, geometry) = (config.nsid, config.uuid, config.geometry);
        let disk = attach.disk.map(|disk| disk.open);
        world.attached.push((Attached { nsid, uuid, geometry, kind }, disk));
        world.attached.sort_by_key(|(attached, _)| attached.nsid);
        Ok(())
    }

    async fn detach(&self, _: u16, _: &str, nsid: u32) -> bool {
        let mut world = self.world();
        let before = world.attached.len();
        world.attached.retain(|(attached, _)| attached.nsid != nsid);
        world.attached.len() < before
    }

    async fn tell_elsewhere(&self, elsewhere: Vec<Elsewhere>) {
        self.world().elsewhere = elsewhere;
    }

    fn volume(&self, _: u16, _: crate::serve::volumes::Request) -> bool {
        false
    }

    async fn inject(&self, nqn: &str, nsid: u32, faults: Vec<Injection>) -> bool {
        let mut world = self.world();
        let known = nsid == 1 && (nqn == NQN || world.exposed.contains_key(nqn));
        if known {
            world.faults = faults;
        }
        known
    }

    async fn inject_disk(&self, home: Home, faults: Vec<Injection>) -> bool {
        let mut world = self.world();
        world.disk_faults = Some((home, faults));
        true
    }
}

impl Saved {
    fn command(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Create(create) => {
                if let Some(layer) = self.layers.iter().find(|layer| layer.uuid == create.uuid) {
                    // Of what it asks for the service compares all but how it gets its space. One
                    // with a snapshot may have been either.
                    let uuid = Some(layer.uuid);
                    let parted = self.layers.iter().any(|l| l.snapshot && l.source == uuid);
                    let same = layer.thick == create.thick || parted;
                    return if same { Ok(()) } else { Err(Failure::Exists) };
                }
                let available = self.info().available;
                if create.thick && create.bytes > available {
                    return Err(Failure::NoSpace);
                }
                let mut layer = self.layer(create.uuid, create.name, create.created)?;
                (layer.bytes, layer.block) = (create.bytes, create.block);
                layer.thick = create.thick;
                self.layers.push(layer);
            }
            Command::Destroy { uuid } | Command::DeleteSnapshot { uuid } => {
                self.layers.retain(|layer| layer.uuid != uuid);
            }
            Command::Resize { uuid, bytes } => self.find(uuid)?.bytes = bytes,
            Command::Snapshot { replica, uuid, name, created } => {
                self.find(replica)?.thick = false;
                self.derive(replica, uuid, name, created, true)?;
            }
            Command::Clone { snapshot, uuid, name, created } => {
                self.derive(snapshot, uuid, name, created, false)?;
            }
            Command::Grow { bytes } => self.bytes = bytes,
            _ => {}
        }
        Ok(())
    }

    fn derive(
        &mut self,
        of: [u8; 16],
        uuid: [u8; 16],
        name: String,
        created: u64,
        snapshot: bool,
    ) -> Result<(), Failure> {
        let source = self.find(of)?.clone();
        let mut layer = self.layer(uuid, name, created)?;
        (layer.bytes, layer.block) = (source.bytes, source.block);
        (layer.snapshot, layer.source) = (snapshot, Some(of));
        self.layers.push(layer);
        Ok(())
    }

    fn find(&mut self, uuid: [u8; 16]) -> Result<&mut LayerInfo, Failure> {
        self.layers.iter_mut().find(|layer| layer.uuid == uuid).ok_or(Failure::NotFound)
    }

    fn layer(&self, uuid: [u8; 16], name: String, created: u64) -> Result<LayerInfo, Failure> {
        if self.layers.len() == LAYERS_MAX {
            return Err(Failure::Limit);
        }
        assert!(self.layers.iter().all(|layer| layer.uuid != uuid), "the service looked first");
        let number = self.layers.iter().map(|layer| layer.handle.0 + 1).max().unwrap_or(0);
        Ok(LayerInfo {
            handle: Handle(number),
            uuid,
            name,
            snapshot: false,
            source: None,
            bytes: 0,
            block: braid_block::BlockSize::B4096,
            thick: false,
            member: false,
            created,
            instance: 1,
            flush_number: 0,
            own: 0,
            shared: 0,
            children: 0,
        })
    }

    fn info(&self) -> PoolInfo {
        let sizes = |thick: Option<bool>| {
            let heads = self.layers.iter().filter(|layer| !layer.snapshot);
            let some = heads.filter(|layer| thick.is_none_or(|thick| layer.thick == thick));
            some.map(|layer| layer.bytes).sum::<u64>()
        };
        let promised = sizes(Some(true));
        PoolInfo {
            uuid: self.uuid,
            version: 1,
            features: 0,
            incarnation: 1,
            owner: String::new(),
            clean: true,
            capacity: self.bytes,
            data: 0,
            maps: 0,
            quarantine: 0,
            reserve: 0,
            promised,
            available: self.bytes - promised,
            committed: sizes(None),
            journal_blocks: 16,
            journal_used: 1,
            leaves: 0,
            memory: 0,
            unverified_regions: 0,
            scrub: None,
        }
    }
}
