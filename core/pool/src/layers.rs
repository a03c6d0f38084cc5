//! Commands of the management: a queue of which one is in work at a time, and beside it one that
//! walks through a replica's marks: that may take long, and a fence must not wait for it.
//!
//! Invariants:
//! 1. What a command changes is one group of cells, in one journal block: after a crash all of it
//!    is there, or nothing. A layer that is made in several steps is made *deleted*, so that what
//!    a crash leaves of it is given back like everything else that went away.
//! 2. A command completes when the journal is durable up to its cells, or up to those of the
//!    command that it repeats.
//! 3. A layer's page gets its place in the block that holds its first image: a checkpoint never
//!    writes a pointer to a page that it does not write.
//! 4. A layer's number is used again only after the journal's tail passed its end.
//!
//! A command that lacks something (a page, space, the end of writes) says so and is tried again
//! from its top in the next turn; what it has done already it finds in the maps.

mod bear;
mod create;
mod destroy;
mod grow;
mod list;
mod marks;
mod snapshot;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use braid_block::{Instant, Memory};

use crate::hash::mix;
use crate::layout::{Cell, LayerFields, POINTERS_PER_PAGE};
use crate::map::{LayerState, PageId};
use crate::op::Waiter;
use crate::place::Placed;
use crate::{Command, Completion, Done, Failure, Handle, Pool, State};

use grow::Growing;
use marks::Walk;
use snapshot::Sealing;

/// Bytes of a name, at most.
const NAME_MAX: usize = 63;
/// Cells of an image with its payload.
pub(crate) const IMAGE_CELLS: usize = 1 + size_of::<LayerFields>().div_ceil(16);
/// Cells that a layer's page needs beside its image: its place, and a new cluster of pages.
const PLACE_CELLS: usize = 2;

/// How far a command came: `None` until it can go on no further in this turn.
type Progress<T> = Result<Option<T>, Failure>;

/// What a command remembers between turns.
#[derive(Debug)]
enum Stage {
    /// Nothing.
    Fresh,
    /// A snapshot on its way.
    Sealing(Sealing),
    /// A walk through a layer's marks.
    Walk(Walk),
    /// A pool that grows.
    Growing(Growing),
}

/// A command in work.
#[derive(Debug)]
struct Running {
    tag: u64,
    command: Command,
    stage: Stage,
}

/// All commands.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    queue: VecDeque<(u64, Command)>,
    /// In work: one that changes layers, and one that walks.
    running: [Option<Running>; 2],
    /// Done, but not durable: tag, journal block, answer.
    ending: VecDeque<(u64, u64, Done)>,
    /// Numbers of layers that went away, and the journal block that says so.
    retired: Vec<(u32, u64)>,
    /// Marks that were asked for and not taken yet, by tag.
    marks: BTreeMap<u64, Vec<(u32, u32)>>,
    /// Random numbers drawn so far.
    drawn: u64,
}

impl Commands {
    /// Whether no command is in work.
    pub(crate) fn is_idle(&self) -> bool {
        let running = self.running.iter().any(Option::is_some);
        self.queue.is_empty() && !running && self.ending.is_empty()
    }

    /// The command in work, or the next one.
    fn next(&mut self, walking: bool) -> Option<Running> {
        if let Some(running) = self.running[usize::from(walking)].take() {
            return Some(running);
        }
        let at = self.queue.iter().position(|(_, command)| walks(command) == walking)?;
        let (tag, command) = self.queue.remove(at)?;
        Some(Running { tag, command, stage: Stage::Fresh })
    }

    /// A layer is gone; journal block `seq` says so.
    pub(crate) fn retire(&mut self, layer: u32, seq: u64) {
        self.retired.push((layer, seq));
    }
}

impl Pool {
    /// Takes a command of the management; its completion bears `tag`.
    pub fn command<M: Memory>(&mut self, mem: &mut M, now: Instant, tag: u64, command: Command) {
        let refusal = match self.state {
            State::Open if self.config.read_only => Some(Failure::ReadOnly),
            State::Open => None,
            State::Stopping | State::Stopped => Some(Failure::Stopping),
            State::Opening | State::Failed => Some(Failure::Failed),
        };
        if let Some(failure) = refusal {
            return self.answer(tag, Err(failure));
        }
        self.watch.tick(now);
        if let Command::Clean { .. } = command {
            self.regions.clean_asked();
        }
        self.commands.queue.push_back((tag, command));
        self.layers_on(mem, now);
    }

    /// The number of a replica or snapshot.
    #[must_use]
    pub fn find(&self, uuid: &[u8; 16]) -> Option<Handle> {
        self.store.map.names.get(uuid).copied()
    }

    /// Takes commands as far as they go.
    pub(crate) fn layers_on<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for walks in [false, true] {
            while let Some(running) = self.commands.next(walks) {
                if !self.run_command(mem, now, running) {
                    break;
                }
            }
        }
        while let Some((tag, seq, done)) = self.commands.ending.front().copied() {
            if seq > self.sync.durable() {
                break;
            }
            self.commands.ending.pop_front();
            self.answer(tag, Ok(done));
        }
    }

    /// Takes a command as far as it goes; tells whether it ended.
    fn run_command<M: Memory>(&mut self, mem: &mut M, now: Instant, mut running: Running) -> bool {
        let progress = self.step(mem, now, &mut running);
        if let (Command::Clean { .. }, Ok(Some(_)) | Err(_)) = (&running.command, &progress) {
            self.regions.clean_ended();
        }
        match progress {
            Ok(None) => {
                let slot = usize::from(walks(&running.command));
                self.commands.running[slot] = Some(running);
                return false;
            }
            Ok(Some(done)) => {
                let seq = self.journal.assigned();
                self.sync.want_durable(seq);
                self.commands.ending.push_back((running.tag, seq, done));
                self.end_sealing(mem, now, &running.stage);
            }
            Err(failure) => self.answer(running.tag, Err(failure)),
        }
        true
    }

    fn step<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        running: &mut Running,
    ) -> Progress<Done> {
        if self.state == State::Failed {
            return Err(Failure::Failed);
        }
        if !self.journal.has_room() && matches!(running.stage, Stage::Fresh) {
            return Ok(None);
        }
        let Running { tag, command, stage } = running;
        match command {
            Command::Create(create) => self.create_replica(mem, now, create),
            Command::Destroy { uuid } => self.destroy(uuid, false),
            Command::DeleteSnapshot { uuid } => self.destroy(uuid, true),
            Command::Resize { uuid, bytes } => self.resize(uuid, *bytes),
            Command::Snapshot { .. } => self.snapshot(mem, now, command, stage),
            Command::Clone { snapshot, uuid, name, created } => {
                self.clone_snapshot(mem, now, snapshot, uuid, name, *created)
            }
            Command::Bear { uuid, bearing } => self.bear(mem, now, uuid, bearing),
            Command::Clean { uuid, regions } => self.clean(mem, now, uuid, regions, stage),
            Command::Marks { uuid } => self.list_marks(mem, now, uuid, *tag, stage),
            Command::Grow { bytes } => self.grow(mem, *bytes, stage),
            Command::Scrub { rate } => Ok(Some(self.set_scrub(now, *rate))),
        }
    }

    fn answer(&mut self, tag: u64, result: Result<Done, Failure>) {
        self.completions.push_back((Completion { tag, lease: None, result }, None));
    }

    /// Ends all commands in work with an error.
    pub(crate) fn fail_commands(&mut self) {
        let ending = core::mem::take(&mut self.commands.ending);
        let tags = ending.into_iter().map(|(tag, _, _)| tag);
        let running = core::mem::take(&mut self.commands.running);
        let running = running.into_iter().flatten().map(|running| running.tag);
        let queue = core::mem::take(&mut self.commands.queue);
        let tags: Vec<u64> =
            tags.chain(running).chain(queue.into_iter().map(|(tag, _)| tag)).collect();
        for tag in tags {
            self.answer(tag, Err(Failure::Failed));
        }
    }

    /// The layer of an identity that is served.
    fn served(&self, uuid: &[u8; 16]) -> Option<u32> {
        self.store.map.layer_of(self.find(uuid)?)
    }

    /// What a layer's page holds; the layer is there.
    fn state_of(&self, layer: u32) -> Option<&LayerState> {
        self.store.map.layers.get(&layer).map(crate::map::Layer::state)
    }

    /// A replica that is served, by its identity.
    fn replica(&self, uuid: &[u8; 16]) -> Result<(u32, &LayerState), Failure> {
        let layer = self.served(uuid).ok_or(Failure::NotFound)?;
        let state = self.state_of(layer).ok_or(Failure::NotFound)?;
        if state.sealed { Err(Failure::ReadOnly) } else { Ok((layer, state)) }
    }

    /// A number that is not drawn again.
    fn random(&mut self) -> u64 {
        self.commands.drawn += 1;
        mix(mix(self.config.seed, self.journal.incarnation), self.commands.drawn)
    }

    /// A free number for a layer, with a place for its page. The next group of at most `cells`
    /// cells is in the same journal block, and makes the layer: it must follow at once.
    fn place_layer<M: Memory>(&mut self, mem: &mut M, now: Instant, cells: usize) -> Progress<u32> {
        let id = self.free_layer().ok_or(Failure::Limit)?;
        let table = PageId::Table(id / POINTERS_PER_PAGE as u32);
        if self.placed(mem, now, table)?.is_none() {
            return Ok(None);
        }
        self.journal.keep_together(PLACE_CELLS + cells);
        Ok(self.placed(mem, now, PageId::Layer(id))?.map(|()| id))
    }

    /// Makes sure that a page has a place.
    fn placed<M: Memory>(&mut self, mem: &mut M, now: Instant, page: PageId) -> Progress<()> {
        match self.place_page(mem, now, page, Waiter::Job) {
            Placed::Done => Ok(Some(())),
            Placed::Wait => Ok(None),
            Placed::NoSpace => Err(Failure::NoSpace),
            Placed::Lost => Err(Failure::Media(0)),
        }
    }

    /// The lowest number that no layer has, nor had a short time ago.
    fn free_layer(&mut self) -> Option<u32> {
        let map = &self.store.map;
        if map.layers.len() >= self.config.limits.layers_max as usize {
            return None;
        }
        let tail = self.journal.tail;
        let retired = &mut self.commands.retired;
        retired.retain(|(_, seq)| *seq >= tail);
        let is_free = |id: &u32| {
            // A layer of which the page is lost has a pointer to it still.
            let lost = map.pair(PageId::Layer(*id)).is_some();
            !lost && !retired.iter().any(|(layer, _)| layer == id)
        };
        let mut next = 0;
        for id in map.layers.keys() {
            if let Some(free) = (next..*id).find(is_free) {
                return Some(free);
            }
            next = id + 1;
        }
        let most = (POINTERS_PER_PAGE * POINTERS_PER_PAGE) as u32;
        (next..most).find(is_free)
    }
}

/// Whether a command walks through a replica's map, and changes nothing that others depend on.
const fn walks(command: &Command) -> bool {
    matches!(command, Command::Marks { .. } | Command::Clean { .. })
}

/// The cell of an image.
pub(crate) const fn image_of(layer: u32) -> Cell {
    Cell::Image { layer, bytes: size_of::<LayerFields>() as u16 }
}
