//! Leases: what lets a member be read without asking the others.
//!
//! A lease counts only while every member, and a joiner whose add is sent, promised to answer no
//! other owner's fence. So nobody else can have become the owner while it lasts.

use braid_block::Instant;

use crate::wire::{Answer, Command, Refusal};
use crate::{Effect, Plant};

use super::Volume;
use super::call::{Call, Purpose};
use super::state::{Line, slots};

impl Volume {
    /// Whether reads are allowed; `slot` is the member that is read, if one is.
    pub(crate) fn is_leased(&self, now: Instant, slot: Option<u8>) -> bool {
        let Some(nexus) = self.nexus.as_deref() else { return false };
        let leased = |slot: u8| nexus.links[usize::from(slot)].leased > now;
        match (self.config.plant, slot) {
            (Some(Plant::NoLeaseCheck), Some(_)) => true,
            (Some(Plant::LeaseOfOne), Some(slot)) => leased(slot),
            _ => slots(nexus.lessors()).all(leased),
        }
    }

    /// Asks for a lease wherever there is none, or not for long.
    pub(crate) fn want_lease(&mut self, now: Instant) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        let soon = now + self.config.timing.lease_renew;
        for slot in slots(nexus.lessors() & !nexus.failing) {
            let nexus = self.nexus.as_mut().expect("it is not ended here");
            let link = &mut nexus.links[usize::from(slot)];
            let up = matches!(link.line, Line::Up(_));
            if up && !link.asked && link.leased < soon {
                link.asked = true;
                self.send(now, slot, Purpose::Lease, Command::Lease, None);
            }
        }
    }

    /// A member answered; it was asked at `sent`, and the promise counts from there.
    pub(crate) fn on_leased(
        &mut self,
        now: Instant,
        slot: u8,
        sent: Instant,
        result: &Result<Answer, Refusal>,
    ) {
        let used = self.config.timing.lease_used;
        let Some(nexus) = self.nexus.as_mut() else { return };
        let link = &mut nexus.links[usize::from(slot)];
        link.asked = false;
        match result {
            Ok(_) => {
                link.leased = link.leased.max(sent + used);
                self.stirred = true;
            }
            Err(Refusal::Gone | Refusal::Failed | Refusal::Conflict { .. }) => {}
            Err(refusal) => self.fail(now, slot, *refusal),
        }
    }

    /// Tells whoever promised one that no lease is needed any more: the next owner need not wait
    /// for it. Nobody waits for the answer.
    pub(crate) fn release_leases(&mut self) {
        let Some(nexus) = self.nexus.as_mut() else { return };
        for slot in slots(nexus.able()) {
            let link = &mut nexus.links[usize::from(slot)];
            let promised = link.asked || link.leased > Instant::ZERO;
            let Some(association) = link.association().filter(|_| promised) else { continue };
            (link.asked, link.leased) = (false, Instant::ZERO);
            let call = Call { slot, association, sent: Instant::ZERO, purpose: Purpose::Release };
            if let Ok(key) = self.calls.insert(call) {
                let (token, command) = (Call::token(key), Command::Release);
                self.effects.push_back(Effect::Send { association, token, command, span: None });
            }
        }
    }
}
