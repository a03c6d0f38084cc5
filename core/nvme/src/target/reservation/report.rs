//! Reservation Report (Base 7.3), with host identifiers of 128 bits.

use super::{HostId, Reservations};
use crate::target::window::Window;

/// Bytes of the header and of each entry.
const HEADER_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 64;
/// CNTLID of a registrant that has no controller.
const NO_CONTROLLER: u16 = 0xffff;

impl Reservations {
    /// Writes as much of the report as there is room for: an entry for each controller of each
    /// registrant, and one for a registrant without any. `controllers` are the subsystem's, with
    /// their hosts.
    pub fn report(&self, out: &mut [u8], controllers: impl Iterator<Item = (u16, HostId)> + Clone) {
        let mut page = Window::new(0, out);
        let mut count: u16 = 0;
        for registrant in &self.registrants {
            let of_host = controllers.clone().filter(|(_, host)| *host == registrant.host);
            let mut listed = of_host.map(|(id, _)| id).peekable();
            let alone = listed.peek().is_none().then_some(NO_CONTROLLER);
            for controller in listed.chain(alone) {
                let at = HEADER_BYTES + u64::from(count) * ENTRY_BYTES;
                page.put(at, &controller.to_le_bytes());
                page.put(at + 2, &[u8::from(self.is_held_by(&registrant.host))]);
                page.put(at + 8, &registrant.key.to_le_bytes());
                page.put(at + 16, &registrant.host);
                count = count.saturating_add(1);
            }
        }
        page.put(0, &self.generation.to_le_bytes());
        page.put(4, &[self.kind().map_or(0, |kind| kind as u8)]);
        page.put(5, &count.to_le_bytes());
        page.put(9, &[u8::from(self.persists)]);
    }
}
