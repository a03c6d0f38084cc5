//! Reservation notifications: what a host is told of what others did, and the log page that holds
//! it (Base 5.16.1.24).

use alloc::collections::VecDeque;

use crate::target::window::Window;

/// Notifications that wait for one controller's host, at most: as many as the page can count. With
/// more, the oldest are lost, which the gap in their numbers tells.
const NOTIFICATIONS_MAX: usize = 255;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Notification {
    /// Another host unregistered this one.
    RegistrationPreempted = 1,
    /// A reservation that registrants shared was released.
    ReservationReleased = 2,
    /// Another host cleared all registrations.
    ReservationPreempted = 3,
}

/// The bits of the Reservation Notification Mask feature that mean something.
pub const NOTIFICATIONS: u32 = 0b1110;

impl Notification {
    /// Its bit in the Reservation Notification Mask feature: set, nobody is told.
    #[must_use]
    pub const fn mask_bit(self) -> u32 {
        1 << self as u32
    }
}

/// One that waits to be read.
#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    notice: Notification,
    nsid: u32,
}

/// The notifications of one controller, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifications {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Notifications {
    pub(crate) fn add(&mut self, notice: Notification, nsid: u32) {
        self.last += 1;
        if self.entries.len() == NOTIFICATIONS_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { number: self.last, notice, nsid });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The oldest was read.
    pub(crate) fn pop(&mut self) {
        self.entries.pop_front();
    }

    /// The log page: the oldest, or zeros if there is none.
    pub(crate) fn write(&self, page: &mut Window<'_>) {
        let Some(entry) = self.entries.front() else { return };
        let more = u8::try_from(self.entries.len() - 1).unwrap_or(u8::MAX);
        page.put(0, &entry.number.to_le_bytes());
        page.put(8, &[entry.notice as u8, more]);
        page.put(12, &entry.nsid.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(of: &Notifications) -> [u8; 64] {
        let mut out = [0xff; 64];
        of.write(&mut Window::new(0, &mut out));
        out
    }

    #[test]
    fn the_page_shows_the_oldest_and_how_many_more_there_are() {
        let mut waiting = Notifications::default();
        assert_eq!(page(&waiting), [0; 64]);
        waiting.add(Notification::ReservationReleased, 7);
        waiting.add(Notification::RegistrationPreempted, 8);
        assert_eq!(page(&waiting)[..16], [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 7, 0, 0, 0]);
        waiting.pop();
        assert_eq!(page(&waiting)[..16], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]);
        waiting.pop();
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_is_lost_leaves_a_gap_in_the_numbers() {
        let mut waiting = Notifications::default();
        for _ in 0..300 {
            waiting.add(Notification::ReservationPreempted, 1);
        }
        assert_eq!(page(&waiting)[..10], [46, 0, 0, 0, 0, 0, 0, 0, 3, 254]);
    }
}
