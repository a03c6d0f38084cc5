//! Numbers under which replicas and snapshots are served.
//!
//! Invariants:
//! 1. A number that was taken away is not given again soon: a request that comes late finds
//!    nobody, not another replica. A place is used again in turn, and its number then says for
//!    the how-manieth time.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::request::Handle;

/// Bits of a number that say its place: more places than a pool has layers.
const PLACE_BITS: u32 = 20;

/// A place of the table.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Its number now, or the next one.
    handle: Handle,
    layer: Option<u32>,
}

/// All numbers.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    places: Vec<Place>,
    /// Places that are free, those that are longest so first.
    free: VecDeque<usize>,
}

impl Handles {
    /// A number for a layer.
    pub(crate) fn serve(&mut self, layer: u32) -> Handle {
        let at = self.free.pop_front().unwrap_or_else(|| {
            let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            assert!(number >> PLACE_BITS == 0, "a pool has fewer layers");
            self.places.push(Place { handle: Handle(number), layer: None });
            self.places.len() - 1
        });
        self.places[at].layer = Some(layer);
        self.places[at].handle
    }

    /// The layer of a number.
    pub(crate) fn get(&self, handle: Handle) -> Option<u32> {
        self.places.get(place(handle)).filter(|place| place.handle == handle)?.layer
    }

    /// Gives a number to another layer, which takes the place of the one that had it.
    pub(crate) fn hand_over(&mut self, handle: Handle, layer: u32) {
        if self.get(handle).is_some() {
            self.places[place(handle)].layer = Some(layer);
        }
    }

    /// Takes a number away.
    pub(crate) fn remove(&mut self, handle: Handle) {
        if self.get(handle).is_some() {
            let at = place(handle);
            let next = Handle(handle.0.wrapping_add(1 << PLACE_BITS));
            self.places[at] = Place { handle: next, layer: None };
            self.free.push_back(at);
        }
    }

    /// Numbers in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Handle> {
        self.places.iter().filter(|place| place.layer.is_some()).map(|place| place.handle)
    }
}

const fn place(handle: Handle) -> usize {
    (handle.0 % (1 << PLACE_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn a_late_number_names_nobody() {
        let mut handles = Handles::default();
        let (one, two) = (handles.serve(11), handles.serve(22));
        assert_eq!((handles.get(one), handles.get(two)), (Some(11), Some(22)));
        handles.hand_over(two, 23);
        assert_eq!(handles.get(two), Some(23));
        let mut seen = BTreeSet::from([one, two]);
        let mut last = one;
        for layer in 100..4000 {
            handles.remove(last);
            let next = handles.serve(layer);
            assert!(seen.insert(next), "{next:?} was somebody's");
            assert_eq!((handles.get(last), handles.get(next)), (None, Some(layer)));
            handles.hand_over(last, 1);
            handles.remove(last);
            assert_eq!(handles.get(next), Some(layer));
            last = next;
        }
        assert_eq!(handles.places.len(), 2);
        assert_eq!(handles.iter().collect::<Vec<_>>(), [last, two]);
        assert_eq!(handles.get(Handle(u32::MAX)), None);
    }
}
