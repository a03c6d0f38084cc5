//! The pools of one shard, as the management reaches them: what it asks of the shard, and who
//! waits for which answer.
//!
//! A pool that does not come to life, or that was only made, is closed before anybody is answered:
//! its disk goes back with the answer, or is let go.

use braid_block::{Geometry, Instant, IoError};
use braid_pool::{Command, Config, Done, Failure, Format, Refusal};
use braid_reactor::{OpenDisk, World};
use braid_shard::{Injection, Note, PoolId, Shard, SubsystemConfig};
use tokio::sync::{mpsc, oneshot};

use crate::manage::host::{Home, NotOpened, Picture, Told};
use crate::serve::teller::Teller;

/// What the management asks of a shard's pools and subsystems.
#[derive(Debug)]
pub enum Request {
    /// Open a pool.
    Open {
        /// Its number.
        pool: u16,
        /// On which disk.
        disk: OpenDisk,
        /// How.
        config: Box<Config>,
        /// Who waits.
        answer: oneshot::Sender<Result<(), NotOpened>>,
    },
    /// Make a pool, and give its disk back.
    Create {
        /// Its number.
        pool: u16,
        /// On which disk.
        disk: OpenDisk,
        /// How.
        config: Box<Config>,
        /// With which shape.
        format: Format,
        /// Who waits.
        answer: oneshot::Sender<Result<OpenDisk, NotOpened>>,
    },
    /// Close a pool; None is answered for one that is not there.
    Close(u16, oneshot::Sender<Option<OpenDisk>>),
    /// Have a pool do something.
    Command(u16, Command, oneshot::Sender<Result<Done, Failure>>),
    /// What a pool is like.
    Picture(u16, oneshot::Sender<Option<Picture>>),
    /// Let hosts find a subsystem; whether its name was free.
    Add(SubsystemConfig, oneshot::Sender<bool>),
    /// Let them find it no more.
    Remove {
        /// Its name.
        nqn: String,
        /// It is at home here: the answer waits until no command is in work.
        at_home: bool,
        /// Who waits.
        answer: oneshot::Sender<()>,
    },
    /// Replace the faults of a pool's disk; whether it is there.
    Faults(u16, Vec<Injection>, oneshot::Sender<bool>),
    /// A namespace has another size.
    Resize(String, u32, Geometry, oneshot::Sender<bool>),
}

/// Who waits for what.
#[derive(Debug)]
pub struct Pools {
    shard: u16,
    teller: Teller,
    starting: Vec<Start>,
    commands: Vec<(u64, oneshot::Sender<Result<Done, Failure>>)>,
    closing: Vec<(PoolId, oneshot::Sender<Option<OpenDisk>>)>,
    removing: Vec<(u64, oneshot::Sender<()>)>,
    /// Pools to be closed in the next turn: a note only lets the machine be looked at.
    to_close: Vec<PoolId>,
    last_tag: u64,
}

/// A pool that is being opened or made.
#[derive(Debug)]
struct Start {
    pool: PoolId,
    refusal: Option<Refusal>,
    answer: Waiting,
}

#[derive(Debug)]
enum Waiting {
    Opened(oneshot::Sender<Result<(), NotOpened>>),
    Made(oneshot::Sender<Result<OpenDisk, NotOpened>>),
}

impl Waiting {
    fn refuse(self, reason: NotOpened) {
        // Whoever does not wait any more needs no answer, here and below.
        let _ = match self {
            Self::Opened(answer) => answer.send(Err(reason)).is_ok(),
            Self::Made(answer) => answer.send(Err(reason)).is_ok(),
        };
    }
}

impl Pools {
    /// Of a shard; what its pools tell goes to `told`.
    #[must_use]
    pub const fn new(shard: u16, told: mpsc::Sender<Told>) -> Self {
        Self {
            shard,
            teller: Teller::new(told),
            starting: Vec::new(),
            commands: Vec::new(),
            closing: Vec::new(),
            removing: Vec::new(),
            to_close: Vec::new(),
            last_tag: 0,
        }
    }

    /// Does what the management asks.
    pub fn request(&mut self, machine: &mut Shard, world: &mut World<'_>, request: Request) {
        match request {
            Request::Open { pool, disk, config, answer } => {
                let answer = Waiting::Opened(answer);
                self.start(world, PoolId(pool), disk, answer, |world, disk| {
                    machine.pool_open(world.mem, world.now, PoolId(pool), disk, *config)
                });
            }
            Request::Create { pool, disk, config, format, answer } => {
                let answer = Waiting::Made(answer);
                self.start(world, PoolId(pool), disk, answer, |world, disk| {
                    machine.pool_create(world.mem, world.now, PoolId(pool), disk, *config, format)
                });
            }
            Request::Close(pool, answer) => self.close(machine, world, PoolId(pool), answer),
            Request::Command(pool, command, answer) => {
                let tag = self.tag();
                self.commands.push((tag, answer));
                machine.pool_command(world.mem, world.now, PoolId(pool), tag, command);
            }
            Request::Picture(pool, answer) => {
                let _ = answer.send(picture(machine, PoolId(pool)));
            }
            Request::Add(config, answer) => {
                let _ = answer.send(machine.subsystem_add(config));
            }
            Request::Remove { nqn, at_home, answer } => {
                let tag = self.tag();
                let removed = machine.subsystem_remove(world.mem, world.now, &nqn, tag);
                if removed && at_home {
                    self.removing.push((tag, answer));
                } else {
                    let _ = answer.send(());
                }
            }
            Request::Faults(pool, faults, answer) => {
                let _ = answer.send(machine.set_disk_faults(PoolId(pool), &faults));
            }
            Request::Resize(nqn, nsid, geometry, answer) => {
                let _ = answer.send(machine.namespace_resize(&nqn, nsid, geometry));
            }
        }
    }

    /// Takes what the shard tells of pools and subsystems that came or went.
    pub fn note(&mut self, machine: &Shard, world: &mut World<'_>, note: Note) {
        match note {
            Note::Pool { pool, note } => self.pool_note(machine, world.now, pool, note),
            Note::PoolCommand { tag, result, .. } => {
                if let Some(answer) = take(&mut self.commands, |(of, _)| *of == tag) {
                    let _ = answer.1.send(result);
                }
            }
            Note::PoolClosed { pool, disk, .. } => {
                let disk = world.disks.remove(disk);
                self.closed(pool, disk);
            }
            Note::SubsystemGone { tag } => {
                if let Some(answer) = take(&mut self.removing, |(of, _)| *of == tag) {
                    let _ = answer.1.send(());
                }
            }
            _ => {}
        }
    }

    /// Does what a note asked for.
    pub fn turn(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        for pool in self.to_close.drain(..) {
            machine.pool_close(world.mem, world.now, pool);
        }
        self.teller.turn(world.now);
    }

    /// When [`Pools::turn`] has something to do, if no note comes before.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        // At once: a note came when the turn was nearly over.
        if self.to_close.is_empty() { self.teller.due() } else { Some(Instant::ZERO) }
    }

    fn start(
        &mut self,
        world: &mut World<'_>,
        pool: PoolId,
        disk: OpenDisk,
        answer: Waiting,
        begin: impl FnOnce(&mut World<'_>, braid_shard::Disk) -> bool,
    ) {
        let Ok(disk) = world.disks.add(disk) else { return answer.refuse(NotOpened::NoRoom) };
        if begin(world, disk) {
            self.starting.push(Start { pool, refusal: None, answer });
        } else {
            drop(world.disks.remove(disk));
            answer.refuse(NotOpened::NoRoom);
        }
    }

    fn close(
        &mut self,
        machine: &mut Shard,
        world: &mut World<'_>,
        pool: PoolId,
        answer: oneshot::Sender<Option<OpenDisk>>,
    ) {
        if machine.pool(pool).is_none() {
            let _ = answer.send(None);
            return;
        }
        self.closing.push((pool, answer));
        machine.pool_close(world.mem, world.now, pool);
    }

    fn pool_note(&mut self, machine: &Shard, now: Instant, pool: PoolId, note: braid_pool::Note) {
        self.tell(machine, now, pool, note);
        let Some(at) = self.starting.iter().position(|start| start.pool == pool) else { return };
        let start = &mut self.starting[at];
        match (note, &start.answer) {
            (braid_pool::Note::Opened { .. }, Waiting::Opened(_)) => {
                if let Waiting::Opened(answer) = self.starting.swap_remove(at).answer {
                    let _ = answer.send(Ok(()));
                }
            }
            (braid_pool::Note::Refused(refusal), _) => {
                start.refusal = Some(refusal);
                self.to_close.push(pool);
            }
            (braid_pool::Note::Failed { error, .. }, _) => {
                start.refusal = Some(Refusal::Device(error));
                self.to_close.push(pool);
            }
            (braid_pool::Note::Stopped, Waiting::Made(_)) => self.to_close.push(pool),
            _ => {}
        }
    }

    /// Passes a note on to the management.
    fn tell(&mut self, machine: &Shard, now: Instant, pool: PoolId, note: braid_pool::Note) {
        let handle = match note {
            braid_pool::Note::Media { handle, .. } => handle,
            _ => None,
        };
        let layer = handle.and_then(|handle| machine.pool(pool)?.layer(handle));
        let layer = layer.map(|layer| layer.uuid);
        let home = Home { shard: self.shard, pool: pool.0 };
        self.teller.tell(now, Told { home, note, layer, left_out: 0 });
    }

    fn closed(&mut self, pool: PoolId, disk: Option<OpenDisk>) {
        self.teller.end(Home { shard: self.shard, pool: pool.0 });
        if let Some(start) = take(&mut self.starting, |start| start.pool == pool) {
            match (start.answer, start.refusal, disk) {
                (Waiting::Made(answer), None, Some(disk)) => {
                    let _ = answer.send(Ok(disk));
                }
                (answer, refusal, _) => {
                    let refusal = refusal.unwrap_or(Refusal::Device(IoError::Cancelled));
                    answer.refuse(NotOpened::Refused(refusal));
                }
            }
        } else if let Some((_, answer)) = take(&mut self.closing, |(of, _)| *of == pool) {
            let _ = answer.send(disk);
        }
    }

    const fn tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

fn picture(machine: &Shard, pool: PoolId) -> Option<Picture> {
    let pool = machine.pool(pool)?;
    Some(Picture {
        state: pool.state(),
        info: pool.info(),
        layers: pool.layers().collect(),
        counters: *pool.counters(),
    })
}

/// Takes the first that matches out of a list.
fn take<T>(list: &mut Vec<T>, matches: impl Fn(&T) -> bool) -> Option<T> {
    let at = list.iter().position(matches)?;
    Some(list.swap_remove(at))
}
