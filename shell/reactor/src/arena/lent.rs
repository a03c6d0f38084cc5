//! Buffers lent to the kernel's receive ring: a fixed set, each known by its number there.

use std::ptr::NonNull;

use braid_block::{Class, Lease, Memory};

use super::{Arena, State, UNIT};

const MEDIUM_UNITS: usize = Class::Medium.bytes() as usize / UNIT;

/// The set, and which of its members came back.
#[derive(Default)]
pub(super) struct Lent {
    /// First unit of each.
    units: Vec<u32>,
    /// For each medium piece of the arena: its number here plus one, or zero.
    homes: Vec<u16>,
    /// Numbers of those that were freed and wait to be lent again.
    returned: Vec<u16>,
}

impl Lent {
    pub(super) fn home(&self, unit: u32) -> Option<u16> {
        self.homes.get(unit as usize / MEDIUM_UNITS)?.checked_sub(1)
    }

    pub(super) fn give_back(&mut self, number: u16) {
        self.returned.push(number);
    }
}

impl Arena {
    /// Takes `count` medium buffers for the ring; false when there are not as many.
    pub(crate) fn lend(&mut self, count: u16) -> bool {
        self.lent.homes = vec![0; self.slots.len() / MEDIUM_UNITS];
        self.lent.units.reserve_exact(count.into());
        self.lent.returned.reserve_exact(count.into());
        for number in 0..count {
            let Some(lease) = self.alloc(Class::Medium) else { return false };
            let unit = lease.id().index;
            self.lent.homes[unit as usize / MEDIUM_UNITS] = number + 1;
            self.lent.units.push(unit);
            self.free(lease);
        }
        true
    }

    /// The next buffer that came back, now the kernel's to write.
    pub(crate) fn next_returned(&mut self) -> Option<(u16, NonNull<u8>)> {
        let number = self.lent.returned.pop()?;
        let unit = self.lent.units[number as usize];
        let slot = &mut self.slots[unit as usize];
        (slot.held, slot.written) = (1, 1);
        self.held += 1;
        Some((number, self.pages.at(unit as usize * UNIT)))
    }

    /// The kernel filled a buffer: makes it a lease.
    pub(crate) fn deliver(&mut self, number: u16) -> Lease {
        let unit = self.lent.units[number as usize];
        self.release(unit, true);
        self.lease(unit, Class::Medium)
    }

    /// The ring is gone: its buffers are as free as others.
    pub(crate) fn end_lending(&mut self) {
        for unit in std::mem::take(&mut self.lent.units) {
            self.lent.homes[unit as usize / MEDIUM_UNITS] = 0;
            let slot = &mut self.slots[unit as usize];
            if slot.state == State::Lent {
                self.held -= u64::from(slot.held);
                (slot.held, slot.written, slot.state) = (0, 0, State::Free);
                self.buddy.give(Class::Medium, unit);
            }
        }
        self.lent.returned.clear();
    }
}
