//! What lives on a shard's thread beside the shard: its notes become log lines, the management
//! thread's orders are carried out.

use braid_block::Instant;
use braid_reactor::{Application, Arena, World};
use braid_shard::{AnaChange, AnaInfo, Config, Injection, Note, Shard};
use tokio::sync::{mpsc, oneshot};

use crate::manage::host::{Access, Reach, Told};
use crate::serve::keys::Secrets;
use crate::serve::namespaces::{self, Namespaces};
use crate::serve::notes;
use crate::serve::pools::{Pools, Request};
use crate::serve::snapshot::Snapshot;
use crate::serve::state::Keep;
use crate::serve::volumes::{self, Volumes};

/// What the management thread sends to a shard.
#[derive(Debug)]
pub enum Control {
    /// Begin an orderly stop.
    Stop,
    /// Keys of hosts, in the place of those before.
    HostKeys(Box<Secrets>),
    /// Say what was counted.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Faults to inject from now on, instead of those there were; the answer says whether the
    /// namespace is at home there.
    Inject(Faults, oneshot::Sender<bool>),
    /// Say how hosts reach the groups at home there.
    Reached(oneshot::Sender<Vec<Reach>>),
    /// Change how hosts reach a group; the answer says whether it is at home there.
    Access(Access, oneshot::Sender<bool>),
    /// Reservations that the shard asked to be kept are durable, or could not be.
    Kept {
        /// What the shard calls this.
        tag: u64,
        /// They are.
        kept: bool,
    },
    /// Something about pools and subsystems that come and go.
    Pools(Request),
    /// Something about volumes.
    Volumes(volumes::Request),
    /// Something about namespaces, and what discovery tells.
    Namespaces(namespaces::Request),
}

/// The faults of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Its subsystem.
    pub nqn: String,
    /// Its id.
    pub nsid: u32,
    /// The faults, none to be rid of them.
    pub injections: Vec<Injection>,
}

fn reach(info: AnaInfo<'_>) -> Reach {
    let AnaInfo { subsystem, listener, group } = info;
    let (nqn, group, state, changes) = (subsystem.to_owned(), group.id, group.state, group.changes);
    Reach { nqn, group, listener, state, changes }
}

/// Where a shard's pools and volumes tell what they have to tell, and reservations go to be kept.
#[derive(Clone, Debug)]
pub struct Tellers {
    /// Notes of pools; of floods that do not fit a few are passed on, and the rest is counted.
    pub pools: mpsc::Sender<Told>,
    /// Questions and news of volumes, by shard.
    pub volumes: mpsc::UnboundedSender<(u16, braid_shard::Told)>,
    /// Reservations that are to be kept.
    pub keeper: mpsc::UnboundedSender<Keep>,
}

/// Serves one shard.
#[derive(Debug)]
pub struct Server {
    shard: u16,
    log: notes::Log,
    pools: Pools,
    volumes: Volumes,
    namespaces: Namespaces,
    keeper: mpsc::UnboundedSender<Keep>,
    drained: bool,
}

impl Server {
    /// For the shard of this configuration; what its pools and volumes tell goes to `tellers`.
    #[must_use]
    pub fn new(config: &Config, tellers: Tellers) -> Self {
        let shard = config.shard;
        let log = notes::Log::new(shard);
        let Tellers { pools, volumes, keeper } = tellers;
        let (pools, volumes) = (Pools::new(shard, pools), Volumes::new(shard, volumes));
        let namespaces = Namespaces::default();
        Self { shard, log, pools, volumes, namespaces, keeper, drained: false }
    }

    /// Has reservations kept. One change of a namespace at a time is, so the queue is short.
    fn keep(&self, machine: &Shard, tag: u64) {
        let Some((namespace, reservations)) = machine.reservations_to_keep(tag) else { return };
        let record = Box::new(reservations.to_record::<Arena>(namespace));
        // It fails when the management thread has ended, and the process is about to.
        let _ = self.keeper.send(Keep { shard: self.shard, tag, namespace: *namespace, record });
    }
}

impl Application for Server {
    type Control = Control;

    fn note(&mut self, machine: &Shard, world: &mut World<'_>, note: Note) {
        self.drained |= matches!(note, Note::Drained);
        if let Note::Reservations { tag } = note {
            self.keep(machine, tag);
        }
        self.namespaces.note(world, &note);
        self.pools.note(machine, world, note);
        self.log.note(machine, world.net, world.now, note);
    }

    fn control(&mut self, machine: &mut Shard, world: &mut World<'_>, control: Control) {
        match control {
            Control::Stop => machine.stop(world.mem, world.now),
            Control::HostKeys(secrets) => {
                let Secrets { keys, seed } = *secrets;
                machine.host_keys_set(keys, seed);
            }
            Control::Snapshot(answer) => {
                // Nobody waits any more: the scrape was given up.
                let _ = answer.send(Snapshot::take(self.shard, machine, world));
            }
            Control::Inject(Faults { nqn, nsid, injections }, answer) => {
                let found = machine.set_injections(&nqn, nsid, &injections);
                if found {
                    tracing::info!(shard = self.shard, nqn, nsid, ?injections, "faults set");
                }
                let _ = answer.send(found);
            }
            Control::Reached(answer) => {
                let _ = answer.send(machine.ana().map(reach).collect());
            }
            Control::Access(Access { nqn, group, listener, state }, answer) => {
                let change = AnaChange { subsystem: &nqn, group, listener, state };
                let _ = answer.send(machine.ana_set(world.mem, world.now, &change));
            }
            Control::Kept { tag, kept } => {
                machine.reservations_kept(world.mem, world.now, tag, kept);
            }
            Control::Pools(request) => self.pools.request(machine, world, request),
            Control::Namespaces(request) => self.namespaces.request(machine, world, request),
            Control::Volumes(request) => self.volumes.request(machine, world, request),
        }
    }

    fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        self.pools.turn(machine, world);
        self.volumes.turn(machine);
    }

    fn timeout(&self) -> Option<Instant> {
        self.pools.due()
    }

    fn finished(&self, _: &Shard) -> bool {
        self.drained
    }
}
