//! Carrying the journal's cells out again.
//!
//! Invariants:
//! 1. Cells are carried out in order, each by the code that carried it out the first time, after
//!    every page that it touches is in memory.
//! 2. A page that the journal gave its place, and that was not written since, starts empty: the
//!    journal holds its whole life.
//! 3. Every first write above `settled` that no later cell took back is verified before it counts.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use braid_block::{Class, Instant, Key, Memory};
use zerocopy::FromBytes;

use crate::layout::{
    BLOCK, CELLS_PER_BLOCK, CLUSTER_BLOCKS, Cell, JournalHeader, LEAF_CLUSTERS, POINTERS_PER_PAGE,
};
use crate::load::PAGES_MAX;
use crate::map::{Look, PageId};
use crate::op::Waiter;
use crate::open::{Io, Opening, Phase, Progress};
use crate::scan::{Chain, WINDOW, head};
use crate::store::{mask, page_id, place, place_cluster};
use crate::verify::Verify;
use crate::{Plant, Pool, Refusal};

/// Reads of the journal in flight.
const AHEAD: usize = 3;
/// First writes to be verified, at most.
const CANDIDATES_MAX: usize = 1 << 22;
/// Leaves that the journal changes, at most. Checkpoints are due at far fewer; the limit for
/// ordinary times does not count here, because what is changed has to stay.
const LEAVES_MAX: usize = 1 << 18;
/// Bytes of a block before its cells.
const HEADER: usize = size_of::<JournalHeader>();

/// The way through the journal's blocks, some at a time.
#[derive(Debug)]
struct Walk {
    next: u64,
    last: u64,
    /// Reads in flight: first block, and how many.
    ahead: VecDeque<(Key, u64, u64)>,
}

/// Some blocks of the journal.
#[derive(Debug)]
struct Chunk {
    io: Io,
    first: u64,
}

impl Walk {
    const fn new(chain: &Chain) -> Self {
        Self { next: chain.tail, last: chain.last, ahead: VecDeque::new() }
    }

    fn is_over(&self) -> bool {
        self.next > self.last && self.ahead.is_empty()
    }
}

/// Calls `f` with each cell of a block and what follows it.
pub(crate) fn each_cell(block: &[u8], mut f: impl FnMut(Cell, &[u8])) {
    let Ok((header, _)) = JournalHeader::read_from_prefix(block) else { return };
    let used = usize::from(header.used.get()).min(CELLS_PER_BLOCK);
    let (cells, _) = block[HEADER..].as_chunks::<16>();
    let mut at = 0;
    while at < used {
        let cell = Cell::decode(&cells[at]);
        at += 1;
        let Some(cell) = cell else { continue };
        let end = at + cell.payload_cells();
        if end > used {
            break;
        }
        f(cell, cells[at..end].as_flattened());
        at = end;
    }
}

/// Calls `f` with each cell of some blocks, its block's number, and what follows it.
fn each_cell_of(bytes: &[u8], first: u64, mut f: impl FnMut(u64, Cell, &[u8])) {
    for (seq, block) in (first..).zip(bytes.chunks_exact(BLOCK as usize)) {
        each_cell(block, |cell, payload| f(seq, cell, payload));
    }
}

/// A first write that may not have reached the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its stored checksum.
    pub(crate) crc: u32,
}

/// How far the replay is.
#[derive(Debug)]
pub(crate) struct Replay {
    walk: Walk,
    chunk: Option<Chunk>,
    /// Pages that the chunk touches, and those of them that may not be in memory.
    touched: Vec<PageId>,
    pages: Vec<PageId>,
    /// By layer and block.
    candidates: BTreeMap<(u32, u64), Candidate>,
}

impl Replay {
    pub(crate) const fn new(chain: &Chain) -> Self {
        Self {
            walk: Walk::new(chain),
            chunk: None,
            touched: Vec::new(),
            pages: Vec::new(),
            candidates: BTreeMap::new(),
        }
    }

    /// Takes candidates among `count` blocks of a layer out.
    fn forget(&mut self, layer: u32, first: u64, count: u64) -> Vec<(u64, Candidate)> {
        let range = (layer, first)..(layer, first.saturating_add(count));
        let gone: Vec<u64> = self.candidates.range(range).map(|((_, at), _)| *at).collect();
        gone.into_iter()
            .filter_map(|at| Some((at, self.candidates.remove(&(layer, at))?)))
            .collect()
    }
}

impl Pool {
    /// Reads ahead, and takes the next blocks if they are there.
    fn walk<M: Memory>(
        &mut self,
        mem: &mut M,
        o: &mut Opening,
        w: &mut Walk,
    ) -> Result<Option<Chunk>, Refusal> {
        let ring = self.store.layout.ring_blocks;
        while w.ahead.len() < AHEAD && w.next <= w.last {
            let count = WINDOW.min(w.last - w.next + 1).min(ring - w.next % ring);
            let at = self.store.layout.journal_block(w.next);
            let Some(key) = self.open_read(mem, o, Class::Large, at, count * BLOCK) else { break };
            w.ahead.push_back((key, w.next, count));
            w.next += count;
        }
        let Some((key, first, count)) = w.ahead.front().copied() else { return Ok(None) };
        let Some(io) = o.take(key) else { return Ok(None) };
        w.ahead.pop_front();
        let whole = match io.result {
            Some(Err(error)) => Err(Refusal::Device(error)),
            _ => self.is_as_scanned(mem, o, &io, first, count),
        };
        match whole {
            Ok(()) => Ok(Some(Chunk { io, first })),
            Err(refusal) => {
                mem.free(io.lease);
                Err(refusal)
            }
        }
    }

    /// Whether blocks are those that the scan saw.
    pub(crate) fn is_as_scanned<M: Memory>(
        &self,
        mem: &M,
        o: &Opening,
        io: &Io,
        first: u64,
        count: u64,
    ) -> Result<(), Refusal> {
        let blocks = mem.bytes(&io.lease).chunks_exact(BLOCK as usize);
        for (seq, block) in (first..first + count).zip(blocks) {
            let now = head::<M>(block, self.store.seed, self.config.plant).map(|h| h.crc);
            if now.is_none() || now != o.chain.get(seq).map(|h| h.crc) {
                return Err(Refusal::Damaged { device: self.store.layout.journal_block(seq) });
            }
        }
        Ok(())
    }

    /// Carries out what can be carried out.
    pub(crate) fn replay_on<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        o: &mut Opening,
        r: &mut Replay,
    ) -> Progress {
        loop {
            if r.chunk.is_none() {
                let Some(chunk) = self.walk(mem, o, &mut r.walk)? else {
                    if r.walk.is_over() {
                        break;
                    }
                    return Ok(None);
                };
                r.touched = self.pages_of_chunk(mem, &chunk);
                r.pages.clone_from(&r.touched);
                r.chunk = Some(chunk);
            }
            if !self.gather(mem, now, &mut r.pages) {
                return Ok(None);
            }
            if r.touched.iter().any(|page| self.missing(*page).is_some()) {
                // Let go of meanwhile.
                r.pages.clone_from(&r.touched);
                continue;
            }
            let Some(chunk) = r.chunk.take() else { return Ok(None) };
            self.carry_out(mem, o, r, &chunk);
            mem.free(chunk.io.lease);
            let leaves = self.store.map.leaves.len();
            let layers = self.store.map.layers.len();
            if r.candidates.len() > CANDIDATES_MAX
                || leaves > LEAVES_MAX
                || layers > self.config.limits.layers_max as usize
            {
                return Err(Refusal::Limit);
            }
        }
        self.store.sums.replayed_to(o.chain.last);
        let verify = Verify::new(self.to_verify(&r.candidates));
        Ok(Some(Phase::Verify(verify)))
    }

    /// Pages that cells of a chunk change or look at, each once.
    fn pages_of_chunk<M: Memory>(&self, mem: &M, chunk: &Chunk) -> Vec<PageId> {
        let mut pages = Vec::new();
        let bytes = &mem.bytes(&chunk.io.lease)[..chunk.io.len as usize];
        let mut leaf = |layer, index| pages.push(PageId::Leaf(layer, index));
        let mut others = Vec::new();
        each_cell_of(bytes, chunk.first, |_, cell, _| match cell {
            Cell::Alloc { layer: Cell::PAGES, .. } | Cell::Free { layer: Cell::PAGES, .. } => {}
            Cell::Write { layer, lblock, .. } | Cell::Clear { layer, lblock, .. } => {
                leaf(layer, place(lblock).0);
            }
            Cell::Alloc { layer, lcluster, .. } | Cell::Free { layer, lcluster, .. } => {
                leaf(layer, place_cluster(lcluster).0);
            }
            Cell::Open { layer, region, .. } | Cell::Close { layer, region, .. } => {
                leaf(layer, region / 64);
            }
            Cell::Transfer { layer, to, lcluster } => {
                leaf(layer, place_cluster(lcluster).0);
                leaf(to, place_cluster(lcluster).0);
            }
            Cell::Page { kind, layer, index, pair, .. } => {
                if let Some((cluster, _)) = self.store.layout.pair_place(pair) {
                    others.push(PageId::PageMap(cluster));
                }
                if let Some(PageId::Leaf(layer, n)) = page_id(kind, layer, index) {
                    others.push(PageId::Directory(layer, n / POINTERS_PER_PAGE as u32));
                }
            }
            Cell::Image { .. } | Cell::Record { .. } | Cell::Flush { .. } | Cell::Remove { .. } => {
            }
        });
        pages.append(&mut others);
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// Reads pages that are not in memory; tells whether all are.
    fn gather<M: Memory>(&mut self, mem: &mut M, now: Instant, pages: &mut Vec<PageId>) -> bool {
        let mut asked = 0;
        let mut at = 0;
        while at < pages.len() && asked < PAGES_MAX {
            match self.missing(pages[at]) {
                None => {
                    pages.swap_remove(at);
                }
                Some(page) => {
                    if !self.is_fetching(page) {
                        self.fetch(mem, now, page, Waiter::Job);
                    }
                    asked += 1;
                    at += 1;
                }
            }
        }
        pages.is_empty()
    }

    /// The page to be read before this one can be used, if any.
    fn missing(&self, page: PageId) -> Option<PageId> {
        let map = &self.store.map;
        let wanted = match page {
            PageId::Leaf(layer, index) => match map.look(layer, index) {
                Look::Missing(page) => Some(page),
                Look::Here | Look::Absent | Look::Lost(_) => None,
            },
            PageId::Directory(layer, n) if !map.directories.contains_key(&(layer, n)) => {
                map.pair(page).map(|_| page)
            }
            PageId::PageMap(cluster) if !map.page_maps.contains_key(&cluster) => {
                self.store.space.is_map(cluster).then_some(page)
            }
            _ => None,
        };
        wanted.filter(|page| !map.lost.contains_key(page))
    }

    fn carry_out<M: Memory>(&mut self, mem: &M, o: &Opening, r: &mut Replay, chunk: &Chunk) {
        let bytes = &mem.bytes(&chunk.io.lease)[..chunk.io.len as usize];
        let settled = o.chain.settled;
        each_cell_of(bytes, chunk.first, |seq, cell, payload| {
            if seq > settled {
                self.before_cell(seq, cell, r);
            }
            let there = match cell {
                Cell::Remove { layer } => self.store.map.layers.contains_key(&layer),
                _ => false,
            };
            self.store.apply(seq, cell, payload);
            if let (Cell::Remove { layer }, true) = (cell, there) {
                // As when it was recorded: the next replay must not meet two lives of one number.
                self.commands.retire(layer, seq);
            }
            if seq > settled {
                self.after_cell(seq, cell, r);
            }
        });
    }

    /// What a cell that is not settled takes back.
    fn before_cell(&mut self, seq: u64, cell: Cell, r: &mut Replay) {
        match cell {
            Cell::Clear { layer, lblock, count } if self.takes(seq, layer, place(lblock).0) => {
                r.forget(layer, lblock, u64::from(count));
                self.unsettle_blocks(layer, lblock, count, seq);
            }
            Cell::Free { layer, lcluster, .. }
                if layer != Cell::PAGES && self.takes(seq, layer, place_cluster(lcluster).0) =>
            {
                r.forget(layer, u64::from(lcluster) * CLUSTER_BLOCKS, CLUSTER_BLOCKS);
            }
            Cell::Transfer { layer, to, lcluster } => {
                let first = u64::from(lcluster) * CLUSTER_BLOCKS;
                for (lblock, candidate) in r.forget(layer, first, CLUSTER_BLOCKS) {
                    r.candidates.insert((to, lblock), candidate);
                }
            }
            Cell::Page { kind, layer, index, free: true, .. } => {
                if let Some(PageId::Leaf(layer, n)) = page_id(kind, layer, index) {
                    let blocks = LEAF_CLUSTERS * CLUSTER_BLOCKS;
                    r.forget(layer, u64::from(n) * blocks, blocks);
                }
            }
            Cell::Remove { layer } => {
                r.forget(layer, 0, u64::MAX);
            }
            _ => {}
        }
    }

    /// What a cell that is not settled leaves to be watched.
    fn after_cell(&mut self, seq: u64, cell: Cell, r: &mut Replay) {
        match cell {
            Cell::Write { layer, lblock, first: true, crc }
                if self.takes(seq, layer, place(lblock).0) =>
            {
                r.candidates.insert((layer, lblock), Candidate { crc });
                self.unsettle_blocks(layer, lblock, 1, seq);
            }
            Cell::Free { phys, .. }
                if self.store.exists(phys) && !self.store.space.is_used(phys) =>
            {
                self.store.space.hold(phys, seq, 0);
            }
            Cell::Alloc { phys, .. } if self.store.space.is_used(phys) => {
                self.store.space.release(phys);
            }
            _ => {}
        }
    }

    /// Whether a cell of this block is not in the page of a leaf that is in memory.
    fn takes(&self, seq: u64, layer: u32, index: u32) -> bool {
        let leaf = self.store.map.leaves.get(&(layer, index));
        leaf.is_some_and(|leaf| leaf.page.takes(seq))
    }

    /// The slots of these blocks of a cluster have an unsettled cell.
    pub(crate) fn unsettle_blocks(&mut self, layer: u32, lblock: u64, count: u16, seq: u64) {
        let (index, at, first) = place(lblock);
        let Some(leaf) = self.store.map.leaves.get(&(layer, index)) else { return };
        let Some(phys) = leaf.page.get().phys(at) else { return };
        let mut blocks = mask(first, u32::from(count));
        while blocks != 0 {
            let block = u64::from(blocks.trailing_zeros());
            blocks &= blocks - 1;
            self.sync.unsettle(u64::from(phys) * CLUSTER_BLOCKS + block, seq);
        }
    }

    /// Everything that the journal tells is carried out and verified.
    pub(crate) fn recovered(&mut self, o: &mut Opening) -> Result<Phase, Refusal> {
        self.trees_are_sound()?;
        self.recount();
        let plant = self.config.plant == Some(Plant::IgnoreOpenRegion);
        for leaf in self.store.map.leaves.values_mut() {
            leaf.unadopted = if plant { 0 } else { leaf.page.get().open };
        }
        Ok(self.claim(o))
    }

    /// Parents exist and are sealed, and no layer is its own ancestor.
    fn trees_are_sound(&self) -> Result<(), Refusal> {
        let layers = &self.store.map.layers;
        let damaged = |id| {
            let pair = self.store.map.pair(PageId::Layer(id)).unwrap_or(0);
            Refusal::Damaged { device: pair.saturating_mul(BLOCK) }
        };
        let mut sound = alloc::collections::BTreeSet::new();
        for id in layers.keys() {
            let mut way = Vec::new();
            let mut next = Some(*id);
            while let Some(at) = next.filter(|at| !sound.contains(at)) {
                let Some(layer) = layers.get(&at) else { return Err(damaged(*id)) };
                if way.len() > layers.len() || !(way.is_empty() || layer.state().sealed) {
                    return Err(damaged(*id));
                }
                way.push(at);
                next = layer.state().parent;
            }
            sound.extend(way);
        }
        Ok(())
    }

    /// What is counted in memory, from what the maps say.
    fn recount(&mut self) {
        self.store.space.recount();
        let map = &mut self.store.map;
        let parents: Vec<u32> = map.layers.values().filter_map(|l| l.state().parent).collect();
        for layer in map.layers.values_mut() {
            layer.children = 0;
        }
        for parent in parents {
            if let Some(layer) = map.layers.get_mut(&parent) {
                layer.children += 1;
            }
        }
        let served: Vec<u32> =
            map.layers.iter().filter(|(_, l)| !l.state().deleted).map(|(id, _)| *id).collect();
        for id in served {
            map.serve(id);
        }
        let layers = self.store.map.layers.values();
        self.store.space.promised = layers.map(|layer| layer.state().promised()).sum();
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use crate::rig::Rig;
    use crate::{Command, Create};
    use braid_block::BlockSize;

    #[test]
    fn a_number_of_a_layer_is_not_given_anew_while_the_journal_tells_of_its_end() {
        let (mut rig, handle) = Rig::new();
        let first = rig.pool.store.map.layer_of(handle);
        rig.pool.command(&mut rig.mem, rig.now, 2, Command::Destroy { uuid: [1; 16] });
        rig.run();
        assert!(rig.pool.store.map.layers.is_empty());
        let mut rig = rig.reopen();
        let create = Create {
            uuid: [2; 16],
            name: String::from("two"),
            bytes: 4 << 30,
            block: BlockSize::B4096,
            thick: false,
            created: 2,
        };
        rig.pool.command(&mut rig.mem, rig.now, 1, Command::Create(create.into()));
        rig.run();
        let second = rig.pool.store.map.layer_of(rig.pool.find(&[2; 16]).unwrap());
        assert_ne!(first, second);
    }
}
