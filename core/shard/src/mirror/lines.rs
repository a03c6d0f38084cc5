//! Associations of nexuses with replicas of this shard, by place, so that a command finds its own
//! without a search.

use alloc::vec::Vec;

use braid_block::Key;

/// Names a line: its place, and the number of its association, which is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineKey {
    place: u32,
    pub(super) association: u32,
}

/// An association of a nexus with a replica.
#[derive(Debug)]
pub(super) struct Line {
    association: u32,
    /// The place of its replica.
    pub(super) member: usize,
    pub(super) peer: Peer,
    /// A long answer, to be fetched.
    pub(super) held: Vec<u8>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A controller of a subsystem.
    Controller(u16, Key),
    /// A volume of this shard.
    Volume,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    places: Vec<Option<Line>>,
    associations: u32,
}

impl Lines {
    pub(super) fn open(&mut self, member: usize, peer: Peer) -> LineKey {
        self.associations += 1;
        let association = self.associations;
        let line = Some(Line { association, member, peer, held: Vec::new() });
        let place = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        match self.places.get_mut(place) {
            Some(free) => *free = line,
            None => self.places.push(line),
        }
        LineKey { place: u32::try_from(place).unwrap_or(u32::MAX), association }
    }

    pub(super) fn close(&mut self, key: LineKey) -> Option<Line> {
        let place = self.places.get_mut(key.place as usize)?;
        place.take_if(|line| line.association == key.association)
    }

    pub(super) fn get(&self, key: LineKey) -> Option<&Line> {
        let line = self.places.get(key.place as usize)?.as_ref();
        line.filter(|line| line.association == key.association)
    }

    pub(super) fn get_mut(&mut self, key: LineKey) -> Option<&mut Line> {
        let line = self.places.get_mut(key.place as usize)?.as_mut();
        line.filter(|line| line.association == key.association)
    }

    /// The first that is like this: a search, for what is rare.
    pub(super) fn find(&self, is_it: impl Fn(&Line) -> bool) -> Option<LineKey> {
        (0..).zip(&self.places).find_map(|(place, line)| {
            let line = line.as_ref().filter(|line| is_it(line))?;
            Some(LineKey { place, association: line.association })
        })
    }

    /// The one that a guard knows by this number.
    pub(super) fn by_number(&self, association: u32) -> Option<LineKey> {
        self.find(|line| line.association == association)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_an_old_name_finds_nobody() {
        let mut lines = Lines::default();
        let first = lines.open(3, Peer::Volume);
        let other = lines.open(4, Peer::Volume);
        assert_eq!(lines.close(first).map(|line| line.member), Some(3));
        let second = lines.open(5, Peer::Volume);
        assert_eq!((first.place, first.association), (second.place, 1));
        assert!(lines.get(first).is_none() && lines.get_mut(first).is_none());
        assert!(lines.close(first).is_none());
        assert_eq!(lines.get(second).map(|line| line.member), Some(5));
        assert_eq!(lines.by_number(2), Some(other));
        assert_eq!(lines.by_number(1), None);
    }
}
