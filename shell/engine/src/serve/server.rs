//! What lives on a shard's thread beside the shard: its notes become log lines, the management
//! thread's orders are carried out.

use braid_reactor::{Application, World};
use braid_shard::{Config, Injection, Note, Shard};
use tokio::sync::oneshot;

use crate::serve::notes;
use crate::serve::snapshot::Snapshot;

/// What the management thread sends to a shard.
#[derive(Debug)]
pub enum Control {
    /// Begin an orderly stop.
    Stop,
    /// Say what was counted.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Faults to inject from now on, instead of those there were; the answer says whether the
    /// namespace is at home there.
    Inject(Faults, oneshot::Sender<bool>),
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

/// Serves one shard.
#[derive(Debug)]
pub struct Server {
    shard: u16,
    log: notes::Log,
    drained: bool,
}

impl Server {
    /// For the shard of this configuration.
    #[must_use]
    pub const fn new(config: &Config) -> Self {
        Self { shard: config.shard, log: notes::Log::new(config.shard), drained: false }
    }
}

impl Application for Server {
    type Control = Control;

    fn note(&mut self, machine: &Shard, world: &mut World<'_>, note: Note) {
        self.drained |= matches!(note, Note::Drained);
        self.log.note(machine, world.net, world.now, note);
    }

    fn control(&mut self, machine: &mut Shard, world: &mut World<'_>, control: Control) {
        match control {
            Control::Stop => machine.stop(world.mem, world.now),
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
        }
    }

    fn finished(&self, _: &Shard) -> bool {
        self.drained
    }
}
