//! Each rule, by the state before and after (Base 8.19).

use braid_nvme::Status;
use braid_nvme::target::reservation::{
    Access, Notification, Register, ReservationCommand, ReservationType, Reservations,
};

use crate::script::{A, B, C, CONFLICT, DONE, INVALID, Script, ignoring, keys, register};
use Notification::{RegistrationPreempted, ReservationPreempted, ReservationReleased};
use ReservationType::{
    ExclusiveAccess, ExclusiveAccessAll, ExclusiveAccessRegistrants, WriteExclusive,
    WriteExclusiveAll, WriteExclusiveRegistrants,
};

#[test]
fn the_conflict_matrix_is_the_standards() {
    // For the holder, a registrant and anybody else: may it read, may it write?
    let rows = [
        (WriteExclusive, [(true, true), (true, false), (true, false)]),
        (ExclusiveAccess, [(true, true), (false, false), (false, false)]),
        (WriteExclusiveRegistrants, [(true, true), (true, true), (true, false)]),
        (ExclusiveAccessRegistrants, [(true, true), (true, true), (false, false)]),
        (WriteExclusiveAll, [(true, true), (true, true), (true, false)]),
        (ExclusiveAccessAll, [(true, true), (true, true), (false, false)]),
    ];
    for (kind, rights) in rows {
        let mut script = Script::held(kind);
        assert_eq!(script.send(C, register(Register::Unregister), keys(0xc, 0)), DONE);
        for (host, (reads, writes)) in [A, B, C].iter().zip(rights) {
            let permits = |access| script.state.permits(host, access);
            assert_eq!(permits(Access::Read), reads, "{kind:?} {host:?} reads");
            assert_eq!(permits(Access::Write), writes, "{kind:?} {host:?} writes");
            assert!(permits(Access::Free), "{kind:?} {host:?} asks");
        }
    }
}

#[test]
fn without_a_reservation_everybody_may_do_everything() {
    let mut script = Script::new();
    assert_eq!(script.send(A, register(Register::Register), keys(0, 1)), DONE);
    for host in [A, B] {
        assert!(script.state.permits(&host, Access::Write), "a registration reserves nothing");
    }
}

#[test]
fn registering_takes_a_key_and_keeps_the_one_there_is() {
    let mut script = Script::new();
    assert_eq!(script.send(A, register(Register::Register), keys(0, 0)), Err(INVALID));
    assert_eq!(script.send(A, register(Register::Register), keys(99, 1)), DONE, "no key to know");
    assert_eq!(script.send(A, register(Register::Register), keys(0, 1)), DONE, "the same again");
    assert_eq!(script.send(A, register(Register::Register), keys(1, 2)), Err(CONFLICT));
    assert_eq!(script.send(A, ignoring(Register::Register), keys(1, 2)), Err(CONFLICT));
    assert_eq!(script.send(B, register(Register::Register), keys(0, 1)), DONE, "keys may be alike");
    assert_eq!(script.state.registrants()[0].key, 1);
    assert_eq!(script.state.generation(), 3, "each success counts");
}

#[test]
fn a_host_without_an_identifier_registers_nothing() {
    let mut script = Script::new();
    let refused = script.send([0; 16], register(Register::Register), keys(0, 1));
    assert_eq!(refused, Err(Status::HOST_ID_INCONSISTENT.dnr()));
}

#[test]
fn a_seventeenth_host_is_one_too_many() {
    let mut script = Script::new();
    for host in 1..=16 {
        assert_eq!(script.send([host; 16], register(Register::Register), keys(0, 1)), DONE);
    }
    let full = Err(Status::INTERNAL_ERROR.dnr());
    assert_eq!(script.send([17; 16], register(Register::Register), keys(0, 1)), full);
    assert_eq!(script.send([17; 16], ignoring(Register::Replace), keys(0, 1)), full);
    assert_eq!(script.send([5; 16], register(Register::Unregister), keys(1, 0)), DONE);
    assert_eq!(script.send([17; 16], register(Register::Register), keys(0, 1)), DONE);
}

#[test]
fn replacing_needs_the_key_or_leave_to_ignore_it() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.send(A, register(Register::Replace), keys(9, 10)), Err(CONFLICT));
    assert_eq!(script.send(A, register(Register::Replace), keys(0xa, 10)), DONE);
    assert_eq!(script.send(A, ignoring(Register::Replace), keys(9, 11)), DONE);
    assert_eq!(script.release(A, 11, WriteExclusive), DONE, "the holder has the new key");
}

#[test]
fn replacing_registers_a_stranger_only_if_keys_are_ignored() {
    let mut script = Script::new();
    assert_eq!(script.send(A, register(Register::Replace), keys(0, 1)), Err(CONFLICT));
    assert_eq!(script.send(A, ignoring(Register::Replace), keys(0, 0)), Err(CONFLICT));
    assert_eq!(script.send(A, ignoring(Register::Replace), keys(0, 1)), DONE);
    assert_eq!(script.hosts(), [A]);
}

#[test]
fn replacing_by_no_key_unregisters_as_linux_means_it() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.send(A, register(Register::Replace), keys(0xb, 0)), Err(CONFLICT));
    assert_eq!(script.send(A, register(Register::Replace), keys(0xa, 0)), DONE);
    assert_eq!((script.hosts(), script.holders()), (vec![B, C], None));
}

#[test]
fn unregistering_needs_the_key_or_leave_to_ignore_it() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.send(B, register(Register::Unregister), keys(9, 0)), Err(CONFLICT));
    assert_eq!(script.send(B, ignoring(Register::Unregister), keys(9, 0)), DONE);
    assert_eq!(script.send(B, ignoring(Register::Unregister), keys(9, 0)), Err(CONFLICT));
    assert_eq!(script.hosts(), [A, C]);
    assert_eq!(script.holders(), Some((WriteExclusive, vec![A])));
}

#[test]
fn a_holder_that_unregisters_gives_its_reservation_up() {
    let released = vec![(B, ReservationReleased), (C, ReservationReleased)];
    let rows = [
        (WriteExclusive, None, vec![]),
        (ExclusiveAccess, None, vec![]),
        (WriteExclusiveRegistrants, None, released.clone()),
        (ExclusiveAccessRegistrants, None, released),
        (WriteExclusiveAll, Some((WriteExclusiveAll, vec![B, C])), vec![]),
        (ExclusiveAccessAll, Some((ExclusiveAccessAll, vec![B, C])), vec![]),
    ];
    for (kind, holders, told) in rows {
        let mut script = Script::held(kind);
        assert_eq!(script.send(A, register(Register::Unregister), keys(0xa, 0)), DONE);
        assert_eq!(script.holders(), holders, "{kind:?}");
        assert_eq!(script.told(), told, "{kind:?}");
    }
}

#[test]
fn a_reservation_of_all_registrants_ends_with_the_last_of_them() {
    let mut script = Script::held(WriteExclusiveAll);
    for (host, key) in [(A, 0xa), (B, 0xb)] {
        assert_eq!(script.send(host, register(Register::Unregister), keys(key, 0)), DONE);
        assert!(script.holders().is_some());
    }
    assert_eq!(script.send(C, register(Register::Unregister), keys(0xc, 0)), DONE);
    assert_eq!(script.holders(), None);
}

#[test]
fn acquiring_takes_a_registrant_and_a_free_namespace() {
    let mut script = Script::new();
    assert_eq!(script.acquire(A, 0xa, WriteExclusive), Err(CONFLICT), "not registered");
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.acquire(A, 9, WriteExclusive), Err(CONFLICT), "a wrong key");
    assert_eq!(script.acquire(A, 0xa, WriteExclusive), DONE, "what it has");
    assert_eq!(script.acquire(A, 0xa, ExclusiveAccess), Err(CONFLICT), "another type");
    assert_eq!(script.acquire(B, 0xb, WriteExclusive), Err(CONFLICT), "another's");
    assert_eq!(script.state.generation(), 3, "acquiring does not count");
    let mut script = Script::held(WriteExclusiveAll);
    assert_eq!(script.acquire(B, 0xb, WriteExclusiveAll), DONE, "all hold it");
    assert_eq!(script.acquire(B, 0xb, ExclusiveAccessAll), Err(CONFLICT));
}

#[test]
fn releasing_is_for_holders_and_of_the_right_type() {
    let mut script = Script::held(WriteExclusiveRegistrants);
    assert_eq!(script.release(B, 0xb, WriteExclusiveRegistrants), DONE, "nothing to release");
    assert_eq!(script.release(B, 9, WriteExclusiveRegistrants), Err(CONFLICT), "a wrong key");
    assert_eq!(script.release([9; 16], 9, WriteExclusive), Err(CONFLICT), "a stranger");
    assert_eq!(script.release(A, 0xa, WriteExclusive), Err(INVALID), "another type");
    assert_eq!(script.release(A, 0xa, WriteExclusiveRegistrants), DONE);
    assert_eq!(script.told(), [(B, ReservationReleased), (C, ReservationReleased)]);
    assert_eq!((script.hosts(), script.holders()), (vec![A, B, C], None));
    assert_eq!(script.release(A, 0xa, WriteExclusive), DONE, "nothing is held");
    assert_eq!(script.state.generation(), 3, "releasing does not count");
}

#[test]
fn any_registrant_releases_what_all_of_them_hold() {
    let mut script = Script::held(ExclusiveAccessAll);
    assert_eq!(script.release(B, 0xb, ExclusiveAccessAll), DONE);
    assert_eq!(script.told(), [(A, ReservationReleased), (C, ReservationReleased)]);
    assert_eq!(script.holders(), None);
}

#[test]
fn nobody_is_told_that_an_exclusive_reservation_is_released() {
    for kind in [WriteExclusive, ExclusiveAccess] {
        let mut script = Script::held(kind);
        assert_eq!(script.release(A, 0xa, kind), DONE);
        assert_eq!(script.told(), []);
    }
}

#[test]
fn clearing_unregisters_everybody() {
    let mut script = Script::held(ExclusiveAccess);
    assert_eq!(script.clear(B, 9), Err(CONFLICT), "a wrong key");
    assert_eq!(script.clear([9; 16], 9), Err(CONFLICT), "a stranger");
    assert_eq!(script.clear(B, 0xb), DONE);
    assert_eq!((script.hosts(), script.holders()), (vec![], None));
    assert_eq!(script.told(), [(A, ReservationPreempted), (C, ReservationPreempted)]);
    assert_eq!(script.state.generation(), 4);
}

#[test]
fn preempting_the_holder_takes_its_reservation_and_its_registration() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt(B, (0xb, 0xa), ExclusiveAccess), DONE);
    assert_eq!(script.hosts(), [B, C]);
    assert_eq!(script.holders(), Some((ExclusiveAccess, vec![B])));
    assert_eq!(script.told(), [(A, RegistrationPreempted), (C, ReservationReleased)]);
    assert!(script.last.aborted.is_empty(), "that was not asked for");
    assert_eq!(script.state.generation(), 4);
}

#[test]
fn preempting_with_abort_names_whose_commands_must_end() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt_and_abort(B, (0xb, 0xa), WriteExclusive), DONE);
    assert_eq!(script.last.aborted.as_slice(), [A]);
    assert_eq!(script.told(), [(A, RegistrationPreempted)], "C keeps what it had");
}

#[test]
fn preempting_another_key_only_unregisters() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt_and_abort(B, (0xb, 0xc), ExclusiveAccess), DONE);
    assert_eq!(script.hosts(), [A, B]);
    assert_eq!(script.holders(), Some((WriteExclusive, vec![A])));
    assert_eq!(script.last.aborted.as_slice(), [C]);
    assert_eq!(script.preempt(B, (0xb, 0xc), WriteExclusive), Err(CONFLICT), "nobody has it");
}

#[test]
fn preempting_itself_changes_the_type() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt(A, (0xa, 0xa), ExclusiveAccess), DONE);
    assert_eq!(script.hosts(), [A, B, C]);
    assert_eq!(script.holders(), Some((ExclusiveAccess, vec![A])));
    assert_eq!(script.told(), [(B, ReservationReleased), (C, ReservationReleased)]);
}

#[test]
fn preempting_a_shared_key_takes_all_who_have_it_but_the_one_who_asks() {
    let mut script = Script::held(WriteExclusive);
    for host in [B, C] {
        assert_eq!(script.send(host, ignoring(Register::Replace), keys(0, 0xa)), DONE);
    }
    assert_eq!(script.preempt_and_abort(C, (0xa, 0xa), WriteExclusive), DONE);
    assert_eq!(script.hosts(), [C]);
    assert_eq!(script.holders(), Some((WriteExclusive, vec![C])));
    assert_eq!(script.last.aborted.as_slice(), [A, B]);
}

#[test]
fn preempting_no_key_takes_what_all_hold_and_is_refused_otherwise() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt(B, (0xb, 0), WriteExclusive), Err(INVALID));
    let mut script = Script::held(WriteExclusiveAll);
    assert_eq!(script.preempt_and_abort(B, (0xb, 0), ExclusiveAccess), DONE);
    assert_eq!(script.hosts(), [B]);
    assert_eq!(script.holders(), Some((ExclusiveAccess, vec![B])));
    assert_eq!(script.last.aborted.as_slice(), [A, C]);
}

#[test]
fn preempting_one_of_all_who_hold_leaves_it_to_the_others() {
    let mut script = Script::held(ExclusiveAccessAll);
    assert_eq!(script.preempt(B, (0xb, 0xa), WriteExclusive), DONE);
    assert_eq!(script.hosts(), [B, C]);
    assert_eq!(script.holders(), Some((ExclusiveAccessAll, vec![B, C])), "the type stays");
    assert_eq!(script.preempt(B, (0xb, 0xa), WriteExclusive), Err(CONFLICT));
}

#[test]
fn preempting_without_a_reservation_unregisters_and_reserves_nothing() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.release(A, 0xa, WriteExclusive), DONE);
    assert_eq!(script.preempt(A, (0xa, 0xb), WriteExclusive), DONE);
    assert_eq!((script.hosts(), script.holders()), (vec![A, C], None));
    assert_eq!(script.preempt(A, (0xa, 0), WriteExclusive), Err(INVALID));
    assert_eq!(script.preempt(A, (0xa, 0xa), WriteExclusive), DONE, "itself, too");
    assert_eq!(script.hosts(), [C]);
}

#[test]
fn preempting_is_for_registrants_with_the_right_key() {
    let mut script = Script::held(WriteExclusive);
    assert_eq!(script.preempt([9; 16], (9, 0xa), WriteExclusive), Err(CONFLICT));
    assert_eq!(script.preempt(B, (0xc, 0xa), WriteExclusive), Err(CONFLICT));
    assert_eq!(script.holders(), Some((WriteExclusive, vec![A])));
}

#[test]
fn what_persists_is_what_the_last_registration_said() {
    let set = |persists| ReservationCommand::Register {
        action: Register::Register,
        ignore_key: false,
        persists,
    };
    let mut script = Script::new();
    for (persists, then) in [(None, false), (Some(true), true), (None, true), (Some(false), false)]
    {
        assert_eq!(script.send(A, set(persists), keys(0, 1)), DONE);
        assert_eq!(script.state.persists(), then);
    }
    assert_eq!(script.send(A, set(Some(true)), keys(0, 2)), Err(CONFLICT));
    assert!(!script.state.persists(), "a refused command changes nothing");
}

#[test]
fn what_cannot_persist_takes_the_wish_and_does_not_claim_it() {
    let mut script = Script { state: Reservations::new(false), ..Script::new() };
    let wish = ReservationCommand::Register {
        action: Register::Register,
        ignore_key: false,
        persists: Some(true),
    };
    assert_eq!(script.send(A, wish, keys(0, 1)), DONE, "Linux always asks for it");
    assert!(!script.state.persists());
    assert_eq!(script.state.with_persistence(true), None);
    assert!(script.state.with_persistence(false).is_some());
}

#[test]
fn the_generation_wraps() {
    let mut script = Script::new();
    for _ in 0..5 {
        assert_eq!(script.send(A, register(Register::Register), keys(0, 1)), DONE);
    }
    assert_eq!(script.state.generation(), 5);
}

#[test]
fn a_report_lists_each_controller_of_each_registrant() {
    let script = Script::held(ExclusiveAccess);
    let controllers = [(7, A), (8, B), (9, A), (10, [0xd; 16])];
    let mut out = [0xff; 64 * 5 + 8];
    script.state.report(&mut out, controllers.into_iter());
    assert_eq!(out[..10], [3, 0, 0, 0, 2, 4, 0, 0, 0, 0], "generation, type, count, PTPLS");
    assert!(out[10..64].iter().all(|byte| *byte == 0));
    let entry = |n: usize| &out[64 * n..64 * (n + 1)];
    let of = |controller: u16, holds: u8, key: u64, host: [u8; 16]| {
        let mut entry = [0; 64];
        entry[..2].copy_from_slice(&controller.to_le_bytes());
        entry[2] = holds;
        entry[8..16].copy_from_slice(&key.to_le_bytes());
        entry[16..32].copy_from_slice(&host);
        entry
    };
    assert_eq!(entry(1), of(7, 1, 0xa, A));
    assert_eq!(entry(2), of(9, 1, 0xa, A));
    assert_eq!(entry(3), of(8, 0, 0xb, B));
    assert_eq!(entry(4), of(0xffff, 0, 0xc, C), "C has no controller here");
    assert_eq!(out[64 * 5..], [0; 8], "no entry");
}

#[test]
fn a_short_report_is_cut_but_counts_all() {
    let mut script = Script::held(WriteExclusiveAll);
    let persists = ReservationCommand::Register {
        action: Register::Register,
        ignore_key: false,
        persists: Some(true),
    };
    assert_eq!(script.send(A, persists, keys(0, 0xa)), DONE);
    let mut out = [0xff; 12];
    script.state.report(&mut out, core::iter::empty());
    assert_eq!(out, [4, 0, 0, 0, 5, 3, 0, 0, 0, 1, 0, 0]);
}
