//! What of one shard comes and goes beside its pools: namespaces of the subsystems that the engine
//! was started with, and what its discovery service tells of other engines.

use braid_reactor::World;
use braid_shard::{BackendConfig, Disk, Elsewhere, NamespaceConfig, NamespaceKind, Note, Shard};
use tokio::sync::oneshot;

use crate::manage::host::{Attached, NotAttached, SubsystemView};
use crate::serve::backend;

/// What the management asks of a shard's subsystems.
#[derive(Debug)]
pub enum Request {
    /// What is served there.
    List(oneshot::Sender<Vec<SubsystemView>>),
    /// Let hosts find a namespace.
    Attach(Box<Attach>, oneshot::Sender<Result<(), NotAttached>>),
    /// Let them find it no more: the answer waits until no command is in work, and says whether it
    /// was there.
    Detach(String, u32, oneshot::Sender<bool>),
    /// What discovery tells of beside what is served here.
    Elsewhere(Vec<Elsewhere>, oneshot::Sender<()>),
}

/// A namespace that is to be served.
#[derive(Debug)]
pub struct Attach {
    /// Its subsystem.
    pub nqn: String,
    /// What it is; where its bytes are follows from the disk.
    pub namespace: NamespaceConfig,
    /// What its bytes are on; none: memory.
    pub disk: Option<backend::Disk>,
}

/// The namespaces of one shard that are being detached.
#[derive(Debug, Default)]
pub struct Namespaces {
    detaching: Vec<Detaching>,
    last_tag: u64,
}

/// A namespace whose last commands are in work.
#[derive(Debug)]
struct Detaching {
    tag: u64,
    disk: Option<Disk>,
    answer: oneshot::Sender<bool>,
}

impl Namespaces {
    /// Does what the management asks. Whoever does not wait any more needs no answer.
    pub fn request(&mut self, machine: &mut Shard, world: &mut World<'_>, request: Request) {
        match request {
            Request::List(answer) => {
                let _ = answer.send(list(machine));
            }
            Request::Attach(attach, answer) => {
                let _ = answer.send(attached(machine, world, *attach));
            }
            Request::Detach(nqn, nsid, answer) => self.detach(machine, world, &nqn, nsid, answer),
            Request::Elsewhere(elsewhere, answer) => {
                machine.elsewhere_set(elsewhere);
                let _ = answer.send(());
            }
        }
    }

    fn detach(
        &mut self,
        machine: &mut Shard,
        world: &mut World<'_>,
        nqn: &str,
        nsid: u32,
        answer: oneshot::Sender<bool>,
    ) {
        let found = machine.served().find(|(name, _)| *name == nqn);
        let kind = found.and_then(|(_, all)| all.iter().find(|n| n.nsid == nsid).map(|n| n.kind));
        let disk = match kind {
            Some(NamespaceKind::Disk(disk)) => Some(disk),
            _ => None,
        };
        self.last_tag += 1;
        let tag = self.last_tag;
        if machine.namespace_detach(world.mem, nqn, nsid, tag) {
            self.detaching.push(Detaching { tag, disk, answer });
        } else {
            let _ = answer.send(false);
        }
    }

    /// Takes what the shard tells of namespaces that are gone: their disks are let go.
    pub fn note(&mut self, world: &mut World<'_>, note: &Note) {
        let Note::NamespaceGone { tag } = *note else { return };
        let Some(at) = self.detaching.iter().position(|gone| gone.tag == tag) else { return };
        let Detaching { disk, answer, .. } = self.detaching.swap_remove(at);
        if let Some(disk) = disk {
            drop(world.disks.remove(disk));
        }
        let _ = answer.send(true);
    }
}

/// Attaches a namespace to a subsystem at home here.
fn attached(machine: &mut Shard, world: &mut World<'_>, attach: Attach) -> Result<(), NotAttached> {
    let Attach { nqn, mut namespace, disk } = attach;
    let disk = match disk {
        None => None,
        Some(backend::Disk { open, discards, atomic_blocks }) => {
            let disk = world.disks.add(open).map_err(|_| NotAttached::NoRoom)?;
            namespace.backend = BackendConfig::Disk { disk, discards, atomic_blocks };
            Some(disk)
        }
    };
    if machine.namespace_attach(&nqn, &namespace) {
        return Ok(());
    }
    if let Some(disk) = disk {
        drop(world.disks.remove(disk));
    }
    Err(NotAttached::Refused)
}

fn list(machine: &Shard) -> Vec<SubsystemView> {
    let view = |(nqn, namespaces): (&str, Vec<braid_shard::NamespaceInfo>)| SubsystemView {
        nqn: nqn.to_owned(),
        namespaces: namespaces.into_iter().map(Attached::from).collect(),
    };
    machine.served().map(view).collect()
}
