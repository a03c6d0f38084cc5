//! The management's hands: what it wants of pools and subsystems goes to the shards as controls,
//! and comes back as answers.

use braid_block::Geometry;
use braid_pool::{Command, Config, Done, Failure, Format};
use braid_reactor::{OpenDisk, Remote};
use braid_shard::Injection;
use tokio::sync::oneshot;

use crate::manage::host::{Exposure, Home, Host, NotOpened, Picture};
use crate::serve::server::{Control, Faults};

/// The shards, as the management reaches them.
#[derive(Clone, Debug)]
pub struct Wires {
    remotes: Vec<Remote<Control>>,
}

impl Wires {
    /// To these shards.
    #[must_use]
    pub const fn new(remotes: Vec<Remote<Control>>) -> Self {
        Self { remotes }
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
        _: Home,
        _: OpenDisk,
        _: Config,
        _: Format,
    ) -> Result<OpenDisk, NotOpened> {
        Err(NotOpened::NoRoom)
    }

    async fn open(&self, _: Home, _: OpenDisk, _: Config) -> Result<(), NotOpened> {
        Err(NotOpened::NoRoom)
    }

    async fn close(&self, _: Home) -> Option<OpenDisk> {
        None
    }

    async fn command(&self, _: Home, _: Command) -> Result<Done, Failure> {
        Err(Failure::NotFound)
    }

    async fn picture(&self, _: Home) -> Option<Picture> {
        None
    }

    async fn expose(&self, _: Exposure) -> bool {
        false
    }

    async fn hide(&self, _: Home, _: &str) {}

    async fn resized(&self, _: Home, _: &str, _: Geometry) {}

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
}
