//! The management's hands: what it wants of pools and subsystems goes to the shards as controls,
//! and comes back as answers.

use std::sync::Arc;

use braid_block::Geometry;
use braid_nvme::ana::AnaState;
use braid_nvme::target::ControllerModel;
use braid_pool::{Command, Config, Done, Failure, Format};
use braid_reactor::{OpenDisk, Remote};
use braid_shard::{
    BackendConfig, Elsewhere, Injection, NamespaceConfig, Paths, PoolId, SubsystemConfig,
};
use tokio::sync::oneshot;

use crate::manage::host::{
    Access, Exposed, Exposure, Home, Host, NotAttached, NotOpened, Picture, Reach, SubsystemView,
};
use crate::manage::manager::Allotted;
use crate::manage::names::NSID;
use crate::serve::namespaces::{self, Attach};
use crate::serve::pools::Request;
use crate::serve::server::{Control, Faults};
use crate::serve::volumes;

/// The shards, as the management reaches them.
#[derive(Clone, Debug)]
pub struct Wires {
    remotes: Vec<Remote<Control>>,
    manners: Manners,
    allotted: Arc<Allotted>,
}

/// How the subsystems of replicas behave: as the options of the command line say for all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// How controller ids are given out.
    pub controllers: ControllerModel,
    /// Header digests are offered.
    pub header_digest: bool,
    /// Data digests are offered.
    pub data_digest: bool,
    /// What this engine's paths are, among those of other engines.
    pub paths: Paths,
}

impl Wires {
    /// To these shards.
    #[must_use]
    pub const fn new(
        remotes: Vec<Remote<Control>>,
        manners: Manners,
        allotted: Arc<Allotted>,
    ) -> Self {
        Self { remotes, manners, allotted }
    }

    /// What is configured goes first; otherwise it is what the control plane allotted.
    fn own(&self, paths: Paths) -> Paths {
        let ids = |paths: &Paths| (paths.cntlid_min, paths.cntlid_max);
        match self.allotted.range() {
            Some((cntlid_min, cntlid_max)) if ids(&paths) == ids(&Paths::default()) => {
                Paths { cntlid_min, cntlid_max, ..paths }
            }
            _ => paths,
        }
    }

    fn others(&self, home: u16) -> impl Iterator<Item = u16> + use<> {
        (0..self.shards()).filter(move |shard| *shard != home)
    }

    /// The subsystem of a replica or a snapshot.
    fn subsystem(&self, exposure: Exposure) -> SubsystemConfig {
        let Exposure { home, what, uuid, names, geometry, allowed_hosts } = exposure;
        let Manners { controllers, header_digest, data_digest, paths } = self.manners;
        let (backend, paths) = match what {
            Exposed::Layer { handle, read_only } => {
                let pool = PoolId(home.pool);
                (BackendConfig::Replica { pool, handle, read_only }, paths)
            }
            // Nexuses take what they are given: no other engine has this subsystem.
            Exposed::Member => (BackendConfig::Member { replica: uuid }, Paths::default()),
            Exposed::Volume => {
                let paths = Paths { state: AnaState::Inaccessible, ..self.own(paths) };
                (BackendConfig::Volume { volume: uuid }, paths)
            }
        };
        let namespace = NamespaceConfig {
            nsid: NSID,
            ana_group: 1,
            nguid: names.nguid,
            uuid,
            geometry,
            backend,
            reservations: None,
            injections: Vec::new(),
            lose_unflushed: false,
        };
        SubsystemConfig {
            home: home.shard,
            nqn: names.nqn,
            serial: names.serial,
            allowed_hosts,
            controllers,
            paths,
            header_digest,
            data_digest,
            namespaces: vec![namespace],
        }
    }

    /// Asks a shard; None: it has ended, and nobody will answer.
    async fn ask<T>(
        &self,
        shard: u16,
        control: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.remotes.get(usize::from(shard))?.post(control(sender)).ok()?;
        answer.await.ok()
    }
}

impl Host for Wires {
    fn shards(&self) -> u16 {
        u16::try_from(self.remotes.len()).unwrap_or(u16::MAX)
    }

    async fn create(
        &self,
        home: Home,
        disk: OpenDisk,
        config: Config,
        format: Format,
    ) -> Result<OpenDisk, NotOpened> {
        let (pool, config) = (home.pool, Box::new(config));
        let made = self.ask(home.shard, |answer| {
            Control::Pools(Request::Create { pool, disk, config, format, answer })
        });
        made.await.unwrap_or(Err(NotOpened::Gone))
    }

    async fn open(&self, home: Home, disk: OpenDisk, config: Config) -> Result<(), NotOpened> {
        let (pool, config) = (home.pool, Box::new(config));
        let opened = self
            .ask(home.shard, |answer| Control::Pools(Request::Open { pool, disk, config, answer }));
        opened.await.unwrap_or(Err(NotOpened::Gone))
    }

    async fn close(&self, home: Home) -> Option<OpenDisk> {
        let close = |answer| Control::Pools(Request::Close(home.pool, answer));
        self.ask(home.shard, close).await.flatten()
    }

    async fn command(&self, home: Home, command: Command) -> Result<Done, Failure> {
        let done = self
            .ask(home.shard, |answer| Control::Pools(Request::Command(home.pool, command, answer)));
        done.await.unwrap_or(Err(Failure::Stopping))
    }

    async fn picture(&self, home: Home) -> Option<Picture> {
        let picture = |answer| Control::Pools(Request::Picture(home.pool, answer));
        self.ask(home.shard, picture).await.flatten()
    }

    async fn expose(&self, exposure: Exposure) -> bool {
        let home = exposure.home.shard;
        let config = self.subsystem(exposure);
        let add = |config| |answer| Control::Pools(Request::Add(config, answer));
        // The home first: no other shard may send it hosts that it does not know.
        if self.ask(home, add(config.clone())).await != Some(true) {
            return false;
        }
        for shard in self.others(home) {
            self.ask(shard, add(config.clone())).await;
        }
        true
    }

    async fn hide(&self, home: Home, nqn: &str) {
        let remove = |at_home| {
            let nqn = nqn.to_owned();
            move |answer| Control::Pools(Request::Remove { nqn, at_home, answer })
        };
        for shard in self.others(home.shard) {
            self.ask(shard, remove(false)).await;
        }
        self.ask(home.shard, remove(true)).await;
    }

    async fn resized(&self, home: Home, nqn: &str, geometry: Geometry) {
        let nqn = nqn.to_owned();
        let resize = |answer| Control::Pools(Request::Resize(nqn, NSID, geometry, answer));
        self.ask(home.shard, resize).await;
    }

    async fn reached(&self) -> Vec<Reach> {
        let mut all = Vec::new();
        for shard in 0..self.shards() {
            all.extend(self.ask(shard, Control::Reached).await.unwrap_or_default());
        }
        all
    }

    async fn set_access(&self, access: Access) -> bool {
        for shard in 0..self.shards() {
            let access = access.clone();
            if self.ask(shard, |answer| Control::Access(access, answer)).await == Some(true) {
                return true;
            }
        }
        false
    }

    async fn subsystems(&self) -> Vec<(u16, SubsystemView)> {
        let mut all = Vec::new();
        for shard in 0..self.shards() {
            let list = |answer| Control::Namespaces(namespaces::Request::List(answer));
            let found = self.ask(shard, list).await.unwrap_or_default();
            all.extend(found.into_iter().map(|subsystem| (shard, subsystem)));
        }
        all
    }

    async fn attach(&self, shard: u16, attach: Attach) -> Result<(), NotAttached> {
        let attach = Box::new(attach);
        let attached = self
            .ask(shard, |answer| Control::Namespaces(namespaces::Request::Attach(attach, answer)));
        attached.await.unwrap_or(Err(NotAttached::Gone))
    }

    async fn detach(&self, shard: u16, nqn: &str, nsid: u32) -> bool {
        let nqn = nqn.to_owned();
        let detached = self.ask(shard, |answer| {
            Control::Namespaces(namespaces::Request::Detach(nqn, nsid, answer))
        });
        detached.await.unwrap_or(false)
    }

    async fn tell_elsewhere(&self, elsewhere: Vec<Elsewhere>) {
        for shard in 0..self.shards() {
            let elsewhere = elsewhere.clone();
            let told = self.ask(shard, |answer| {
                Control::Namespaces(namespaces::Request::Elsewhere(elsewhere, answer))
            });
            // A shard that has ended tells nobody any more.
            let _ended = told.await;
        }
    }

    fn volume(&self, shard: u16, request: volumes::Request) -> bool {
        let remote = self.remotes.get(usize::from(shard));
        remote.is_some_and(|remote| remote.post(Control::Volumes(request)).is_ok())
    }

    async fn inject(&self, nqn: &str, nsid: u32, faults: Vec<Injection>) -> bool {
        let faults = Faults { nqn: nqn.to_owned(), nsid, injections: faults };
        for shard in 0..self.shards() {
            let faults = faults.clone();
            if self.ask(shard, |answer| Control::Inject(faults, answer)).await == Some(true) {
                return true;
            }
        }
        false
    }

    async fn inject_disk(&self, home: Home, faults: Vec<Injection>) -> bool {
        let inject = |answer| Control::Pools(Request::Faults(home.pool, faults, answer));
        self.ask(home.shard, inject).await.unwrap_or(false)
    }
}
