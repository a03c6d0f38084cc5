//! The volumes of one shard, as the management reaches them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use braid_nexus::record::Uuid;
use braid_nexus::{Command, Event, Pace, View};
use braid_reactor::World;
use braid_shard::{MemberInfo, Shard, Told, VolumeConfig};
use tokio::sync::{mpsc, oneshot};

/// What the management asks of a shard's volumes.
#[derive(Debug)]
pub enum Request {
    /// Be ready to serve a volume; whether it was not there yet.
    Add(Box<VolumeConfig>, oneshot::Sender<bool>),
    /// End its owner at once, and take no command for it any more: what its hosts wait for is
    /// answered that they should ask elsewhere.
    Retire(Uuid),
    /// Have no part in it any more; `News::Gone` tells when. Whether it was there.
    Remove(Uuid, oneshot::Sender<bool>),
    /// Have it do something: `News::Ended` tells with this tag how it ended. Whether it is there.
    Command(Uuid, u64, Command, oneshot::Sender<bool>),
    /// The answer of the store.
    Answer(Uuid, Event),
    /// Where a replica at another engine is.
    Place {
        /// Of which volume.
        volume: Uuid,
        /// Which replica.
        replica: Uuid,
        /// Its engine's portal; none: it is not known.
        portal: Option<SocketAddr>,
    },
    /// Its size, as the store has it.
    Size(Uuid, u64),
    /// How fast its replicas that return are brought up to date.
    Pace(Uuid, Pace),
    /// Whether its long rebuilds may go on.
    Turn(Uuid, bool),
    /// Where a volume stands.
    View(Uuid, oneshot::Sender<Option<View>>),
    /// What the replicas of this shard know of their volumes.
    Members(oneshot::Sender<Vec<MemberInfo>>),
}

/// The volumes of one shard.
#[derive(Debug)]
pub struct Volumes {
    shard: u16,
    told: mpsc::UnboundedSender<(u16, Told)>,
    /// The positions of portals in the reactor's table, which only grows.
    portals: BTreeMap<SocketAddr, u32>,
}

impl Volumes {
    /// Of a shard; what they ask and tell goes to `told`, which is as bounded as they are: a volume
    /// asks for one thing of the store at a time.
    #[must_use]
    pub const fn new(shard: u16, told: mpsc::UnboundedSender<(u16, Told)>) -> Self {
        Self { shard, told, portals: BTreeMap::new() }
    }

    /// Does what the management asks. Whoever does not wait any more needs no answer.
    pub fn request(&mut self, machine: &mut Shard, world: &mut World<'_>, request: Request) {
        match request {
            Request::Add(config, answer) => {
                let _ = answer.send(machine.volume_add(*config));
            }
            Request::Retire(volume) => {
                // It may be gone by now.
                machine.volume_retire(&volume);
            }
            Request::Remove(volume, answer) => {
                let _ = answer.send(machine.volume_remove(&volume));
            }
            Request::Command(volume, tag, command, answer) => {
                let _ = answer.send(machine.volume_command(world.now, &volume, tag, command));
            }
            Request::Answer(volume, event) => {
                // It may be gone by now.
                machine.volume_answer(&volume, event);
            }
            Request::Place { volume, replica, portal } => {
                let address = portal.map(|portal| {
                    let known = self.portals.entry(portal);
                    *known.or_insert_with(|| world.net.add_address(portal))
                });
                machine.volume_place(&volume, replica, address);
            }
            Request::Size(volume, bytes) => {
                // It may be gone by now.
                machine.volume_size(&volume, bytes);
            }
            Request::Pace(volume, pace) => {
                // It may be gone by now.
                machine.volume_pace(world.now, &volume, pace);
            }
            Request::Turn(volume, turn) => {
                // It may be gone by now.
                machine.volume_rebuilds(&volume, turn);
            }
            Request::View(volume, answer) => {
                let _ = answer.send(machine.volume_view(&volume));
            }
            Request::Members(answer) => {
                let _ = answer.send(machine.members().collect());
            }
        }
    }

    /// Passes on what volumes ask and tell.
    pub fn turn(&mut self, machine: &mut Shard) {
        while let Some(told) = machine.volume_poll() {
            // Fails when the management has ended, and then the process is about to.
            let _ = self.told.send((self.shard, told));
        }
    }
}
