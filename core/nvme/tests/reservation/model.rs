//! Random commands of five hosts, beside a model that knows no tricks: a map of keys, a set of
//! holders, and the sentences of the standard one by one.

use std::collections::{BTreeMap, BTreeSet};

use braid_nvme::Status;
use braid_nvme::target::reservation::{
    Access, Acquire, HostId, Keys, Notification, Register, Release, ReservationCommand,
    ReservationType, Reservations,
};

use crate::script::{CONFLICT, INVALID};

#[derive(Clone, Default, Debug)]
struct Model {
    keys: BTreeMap<HostId, u64>,
    kind: Option<ReservationType>,
    holders: BTreeSet<HostId>,
    generation: u32,
    persists: bool,
}

/// What a command did to others: told what, and whose commands are to be aborted.
#[derive(Default, PartialEq, Eq, Debug)]
struct Effects {
    told: BTreeMap<HostId, u8>,
    aborted: BTreeSet<HostId>,
}

fn shared(kind: ReservationType) -> bool {
    kind as u8 >= 3
}

fn of_all(kind: ReservationType) -> bool {
    kind as u8 >= 5
}

impl Model {
    /// Every registrant of a reservation of all holds it, and nothing is held by nobody.
    fn settle(&mut self) {
        if self.kind.is_some_and(of_all) {
            self.holders = self.keys.keys().copied().collect();
        }
        self.holders.retain(|holder| self.keys.contains_key(holder));
        if self.holders.is_empty() {
            self.kind = None;
        }
        if self.kind.is_none() {
            self.holders.clear();
        }
    }

    fn tell(&self, except: &HostId, what: Notification, effects: &mut Effects) {
        for host in self.keys.keys().filter(|host| *host != except) {
            effects.told.insert(*host, what as u8);
        }
    }

    fn apply(
        &mut self,
        host: &HostId,
        command: ReservationCommand,
        keys: Keys,
    ) -> Result<Effects, Status> {
        let mut effects = Effects::default();
        let own = self.keys.get(host).copied();
        match command {
            ReservationCommand::Report { .. } => return Ok(effects),
            ReservationCommand::Register { action, ignore_key, persists } => {
                self.register(host, action, ignore_key, keys, &mut effects)?;
                self.generation += 1;
                if let Some(persists) = persists {
                    self.persists = persists;
                }
            }
            _ if own != Some(keys.current) => return Err(CONFLICT),
            ReservationCommand::Acquire { action: Acquire::Acquire, kind } => match self.kind {
                None => {
                    self.kind = Some(kind);
                    self.holders.insert(*host);
                }
                Some(held) if held == kind && self.holders.contains(host) => {}
                Some(_) => return Err(CONFLICT),
            },
            ReservationCommand::Acquire { action, kind } => {
                self.preempt(host, kind, keys.other, &mut effects)?;
                self.generation += 1;
                if action == Acquire::Preempt {
                    effects.aborted.clear();
                }
            }
            ReservationCommand::Release(Release::Clear) => {
                self.tell(host, Notification::ReservationPreempted, &mut effects);
                self.keys.clear();
                self.generation += 1;
            }
            ReservationCommand::Release(Release::Release(kind)) => {
                if self.holders.contains(host) {
                    if self.kind != Some(kind) {
                        return Err(INVALID);
                    }
                    if shared(kind) {
                        self.tell(host, Notification::ReservationReleased, &mut effects);
                    }
                    self.kind = None;
                }
            }
        }
        self.settle();
        Ok(effects)
    }

    fn register(
        &mut self,
        host: &HostId,
        action: Register,
        ignore_key: bool,
        keys: Keys,
        effects: &mut Effects,
    ) -> Result<(), Status> {
        let own = self.keys.get(host).copied();
        let unregisters =
            action == Register::Unregister || (action == Register::Replace && keys.other == 0);
        if action == Register::Register {
            if keys.other == 0 {
                return Err(INVALID);
            }
            if own.is_some_and(|own| own != keys.other) {
                return Err(CONFLICT);
            }
        } else {
            if own.is_none() && (unregisters || !ignore_key) {
                return Err(CONFLICT);
            }
            if own.is_some_and(|own| own != keys.current) && !ignore_key {
                return Err(CONFLICT);
            }
        }
        if !unregisters {
            self.keys.insert(*host, keys.other);
            return Ok(());
        }
        self.keys.remove(host);
        let kind = self.kind;
        self.settle();
        if let (Some(kind), None) = (kind, self.kind)
            && shared(kind)
        {
            self.tell(host, Notification::ReservationReleased, effects);
        }
        Ok(())
    }

    fn preempt(
        &mut self,
        host: &HostId,
        kind: ReservationType,
        key: u64,
        effects: &mut Effects,
    ) -> Result<(), Status> {
        let before = self.kind;
        let takes = match before {
            None => false,
            Some(held) if of_all(held) => key == 0,
            Some(_) => self.holders.iter().any(|holder| self.keys[holder] == key),
        };
        if key == 0 && !takes {
            return Err(INVALID);
        }
        let mut victims: BTreeSet<HostId> = self
            .keys
            .iter()
            .filter(|(_, its)| **its == key || key == 0)
            .map(|(host, _)| *host)
            .collect();
        if victims.is_empty() {
            return Err(CONFLICT);
        }
        if takes {
            victims.remove(host);
        }
        for victim in &victims {
            self.keys.remove(victim);
            if victim != host {
                effects.told.insert(*victim, Notification::RegistrationPreempted as u8);
                effects.aborted.insert(*victim);
            }
        }
        if takes {
            self.kind = Some(kind);
            self.holders = [*host].into();
            if before != Some(kind) {
                self.tell(host, Notification::ReservationReleased, effects);
            }
        }
        Ok(())
    }

    fn permits(&self, host: &HostId, access: Access) -> bool {
        let Some(kind) = self.kind else { return true };
        let partner = shared(kind) && self.keys.contains_key(host);
        let reads_are_free = kind as u8 % 2 == 1;
        access == Access::Free
            || self.holders.contains(host)
            || partner
            || (access == Access::Read && reads_are_free)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as u32) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u32) as usize]
    }

    fn command(&mut self) -> ReservationCommand {
        let kind = self.one(&ReservationType::ALL);
        match self.below(10) {
            0..4 => ReservationCommand::Register {
                action: self.one(&[Register::Register, Register::Unregister, Register::Replace]),
                ignore_key: self.below(3) == 0,
                persists: self.one(&[None, None, Some(false), Some(true)]),
            },
            4..6 => ReservationCommand::Acquire { action: Acquire::Acquire, kind },
            6..8 => ReservationCommand::Acquire {
                action: self.one(&[Acquire::Preempt, Acquire::PreemptAndAbort]),
                kind,
            },
            8 => ReservationCommand::Release(Release::Release(kind)),
            _ if self.below(4) == 0 => ReservationCommand::Release(Release::Clear),
            _ => ReservationCommand::Report { bytes: 64 },
        }
    }
}

fn same(state: &Reservations, model: &Model) {
    let listed: BTreeMap<_, _> = state.registrants().iter().map(|r| (r.host, r.key)).collect();
    assert_eq!(listed, model.keys);
    assert_eq!((state.kind(), state.generation()), (model.kind, model.generation));
    assert_eq!(state.persists(), model.persists);
    for host in (1..=6).map(|n| [n; 16]) {
        assert_eq!(state.is_held_by(&host), model.holders.contains(&host));
        for access in [Access::Free, Access::Read, Access::Write] {
            assert_eq!(state.permits(&host, access), model.permits(&host, access), "{access:?}");
        }
    }
}

#[test]
fn random_commands_do_what_the_model_does() {
    let (mut done, mut taken) = (0, BTreeSet::new());
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut state, mut model) = (Reservations::new(true), Model::default());
        for step in 0..200 {
            let host = [1 + random.below(5) as u8; 16];
            let own = model.keys.get(&host).copied().unwrap_or(1);
            let others: Vec<u64> = model.keys.values().copied().chain([0, 1, 2]).collect();
            let current = if random.below(8) == 0 { random.below(4).into() } else { own };
            let keys = Keys { current, other: random.one(&others) };
            let command = random.command();
            let got = state.apply(&host, command, keys);
            let expected = model.apply(&host, command, keys);
            let got = got.map(|outcome| Effects {
                told: outcome.notices.iter().map(|(host, what)| (*host, *what as u8)).collect(),
                aborted: outcome.aborted.iter().copied().collect(),
            });
            assert_eq!(got, expected, "seed {seed}, step {step}: {command:?} {keys:?}");
            same(&state, &model);
            assert_eq!(
                Reservations::restore(&state.parts()).is_ok_and(|restored| restored == state),
                state.persists() || state == Reservations::new(true),
                "seed {seed}, step {step}"
            );
            if got.is_ok() {
                done += 1;
                taken.extend(state.kind().map(|kind| kind as u8));
            }
        }
    }
    // A model that refuses everything would agree with anything.
    assert!(done > 15_000, "{done} commands took effect");
    assert_eq!(taken.len(), 6, "every type was held");
}
