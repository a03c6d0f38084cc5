//! Reading what must be in memory before a pool can work: the root, bitmaps, tables and layers.

use alloc::vec::Vec;

use braid_block::{Instant, Memory};

use crate::geometry::ROOT;
use crate::layout::{BLOCK, POINTERS_PER_PAGE};
use crate::map::PageId;
use crate::op::Waiter;
use crate::open::{Opening, Phase, Progress};
use crate::replay::Replay;
use crate::{Pool, Refusal};

/// Pages asked for at a time.
pub(crate) const PAGES_MAX: usize = 64;

/// What is read: each needs the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Base,
    Tables,
    Layers,
}

/// How far it is.
#[derive(Debug)]
pub(crate) struct Load {
    /// What is being read; none before the first.
    stage: Option<Stage>,
    /// Pages to be read.
    left: Vec<PageId>,
    waiting: Vec<PageId>,
}

impl Load {
    pub(crate) const fn new() -> Self {
        Self { stage: None, left: Vec::new(), waiting: Vec::new() }
    }
}

impl Pool {
    /// Reads bitmaps and layers.
    pub(crate) fn load_on<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        o: &mut Opening,
        l: &mut Load,
    ) -> Progress {
        loop {
            l.waiting.retain(|page| self.is_fetching(*page));
            while l.waiting.len() < PAGES_MAX
                && let Some(page) = l.left.pop()
            {
                self.fetch(mem, now, page, Waiter::Job);
                l.waiting.push(page);
            }
            if !l.waiting.is_empty() {
                return Ok(None);
            }
            self.nothing_lost()?;
            l.stage = match l.stage {
                None => Some(Stage::Base),
                Some(Stage::Base) => Some(Stage::Tables),
                Some(Stage::Tables) => Some(Stage::Layers),
                Some(Stage::Layers) => break,
            };
            l.left = self.pages_of(l.stage);
            if l.stage == Some(Stage::Layers)
                && l.left.len() > self.config.limits.layers_max as usize
            {
                return Err(Refusal::Limit);
            }
        }
        self.store.space.recount();
        if o.chain.last < o.chain.tail {
            return self.recovered(o).map(Some);
        }
        Ok(Some(Phase::Replay(Replay::new(&o.chain))))
    }

    /// The pages of a stage, last first.
    fn pages_of(&self, stage: Option<Stage>) -> Vec<PageId> {
        let per_page = POINTERS_PER_PAGE as u32;
        let map = &self.store.map;
        let used = |pairs: &[u64]| -> Vec<u32> {
            (0..).zip(pairs).filter(|(_, pair)| **pair != 0).map(|(at, _)| at).collect()
        };
        match stage {
            Some(Stage::Base) => {
                let slabs = u32::try_from(self.store.layout.slabs.len()).unwrap_or(0);
                let bitmaps = (0..slabs).flat_map(|n| [PageId::MapBitmap(n), PageId::Bitmap(n)]);
                bitmaps.rev().chain([PageId::Root]).collect()
            }
            Some(Stage::Tables) => {
                used(map.root.get()).into_iter().rev().map(PageId::Table).collect()
            }
            Some(Stage::Layers) => {
                let tables = map.tables.iter().rev();
                let layers = tables.flat_map(|(table, page)| {
                    used(page.get()).into_iter().rev().map(move |at| table * per_page + at)
                });
                layers.map(PageId::Layer).collect()
            }
            None => Vec::new(),
        }
    }

    /// What everything hangs on must be there.
    fn nothing_lost(&self) -> Result<(), Refusal> {
        let layout = &self.store.layout;
        let place = |page: &PageId| match page {
            PageId::Root => Some(ROOT),
            PageId::Bitmap(slab) => Some(layout.bitmap(*slab as usize)),
            PageId::MapBitmap(slab) => Some(layout.map_bitmap(*slab as usize)),
            PageId::Table(_) | PageId::Layer(_) => {
                self.store.map.pair(*page).map(|pair| pair.saturating_mul(BLOCK))
            }
            _ => None,
        };
        match self.store.map.lost.keys().find_map(place) {
            Some(device) => Err(Refusal::Damaged { device }),
            None => Ok(()),
        }
    }
}
