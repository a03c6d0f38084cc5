//! What persists, and what garbage in its place does.

use braid_nvme::target::reservation::{
    Corrupt, Parts, RECORD_BYTES, Register, ReservationCommand, ReservationType, Reservations,
};

use crate::memory::Arena;
use crate::script::{A, B, C, DONE, Script, keys};

const UUID: [u8; 16] = [7; 16];

/// A, B and C are registered, A holds a reservation, and all of it persists.
fn kept(kind: ReservationType) -> Reservations {
    let mut script = Script::held(kind);
    let persists = ReservationCommand::Register {
        action: Register::Register,
        ignore_key: false,
        persists: Some(true),
    };
    assert_eq!(script.send(B, persists, keys(0, 0xb)), DONE);
    script.state
}

fn parts() -> Parts {
    kept(ReservationType::WriteExclusive).parts()
}

fn sealed(mut record: [u8; RECORD_BYTES]) -> [u8; RECORD_BYTES] {
    record[12..16].fill(0);
    let crc = crc32c::crc32c(&record);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    record
}

#[test]
fn what_persists_is_restored_whole() {
    for kind in ReservationType::ALL {
        let state = kept(kind);
        assert_eq!(Reservations::restore(&state.parts()), Ok(state.clone()), "{kind:?}");
        let record = state.to_record::<Arena>(&UUID);
        assert_eq!(Reservations::from_record::<Arena>(&record, &UUID), Ok(state), "{kind:?}");
    }
}

#[test]
fn what_does_not_persist_leaves_nothing() {
    let state = Script::held(ReservationType::WriteExclusive).state;
    assert_eq!(state.parts(), Parts::default());
    assert_eq!(Reservations::restore(&state.parts()), Ok(Reservations::new(true)));
    let record = state.to_record::<Arena>(&UUID);
    let restored = Reservations::from_record::<Arena>(&record, &UUID);
    assert_eq!(restored, Ok(Reservations::new(true)));
}

#[test]
fn that_they_persist_is_kept_even_before_anybody_registers() {
    let state = Reservations::new(true).with_persistence(true).unwrap();
    assert_eq!(Reservations::restore(&state.parts()), Ok(state));
}

#[test]
fn the_record_is_as_documented() {
    let record = kept(ReservationType::ExclusiveAccess).to_record::<Arena>(&UUID);
    assert_eq!(record[..12], *b"BRAIDRSV\x01\0\0\0");
    assert_eq!(record[16..32], UUID);
    assert_eq!(record[32..40], [4, 0, 0, 0, 2, 1, 1, 3], "generation, type, holder, PTPL, count");
    assert_eq!(record[40..48], [0xa, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(record[48..64], A);
    assert_eq!(record[72..88], B);
    assert_eq!(record[96..112], C);
    assert_eq!(record[112..], [0; RECORD_BYTES - 112]);
    assert_eq!(sealed(record), record, "CRC32C of all of it, with its own field zero");
}

#[test]
fn a_record_of_another_namespace_is_refused() {
    let record = kept(ReservationType::WriteExclusive).to_record::<Arena>(&UUID);
    assert_eq!(Reservations::from_record::<Arena>(&record, &[8; 16]), Err(Corrupt));
}

#[test]
fn a_flipped_bit_or_another_length_is_refused() {
    let record = kept(ReservationType::WriteExclusiveAll).to_record::<Arena>(&UUID);
    for bit in 0..RECORD_BYTES * 8 {
        let mut wrong = record;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Reservations::from_record::<Arena>(&wrong, &UUID), Err(Corrupt), "bit {bit}");
    }
    for len in 0..RECORD_BYTES {
        assert_eq!(Reservations::from_record::<Arena>(&record[..len], &UUID), Err(Corrupt));
    }
    let longer = [record.as_slice(), &[0]].concat();
    assert_eq!(Reservations::from_record::<Arena>(&longer, &UUID), Err(Corrupt));
}

#[test]
fn nonsense_with_a_right_checksum_is_refused() {
    let record = kept(ReservationType::WriteExclusive).to_record::<Arena>(&UUID);
    // (where, what, why)
    let rows = [
        (8, 2, "a version to come"),
        (36, 0, "a holder of nothing"),
        (36, 7, "no such type"),
        (36, 5, "a holder of what all hold"),
        (37, 0, "nobody holds it"),
        (37, 4, "nobody of them holds it"),
        (38, 0, "it does not persist"),
        (38, 2, "neither yes nor no"),
        (39, 0, "no registrants"),
        (39, 4, "a registrant without a name"),
        (39, 17, "too many registrants"),
        (40, 0, "a key of zero"),
    ];
    for (at, value, why) in rows {
        let mut wrong = record;
        wrong[at] = value;
        let restored = Reservations::from_record::<Arena>(&sealed(wrong), &UUID);
        assert_eq!(restored, Err(Corrupt), "{why}");
    }
    let mut twice = record;
    twice[72..88].copy_from_slice(&A);
    assert_eq!(Reservations::from_record::<Arena>(&sealed(twice), &UUID), Err(Corrupt));
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    let wrong: [fn(&mut Parts); 6] = [
        |parts| parts.holder = Some(3),
        |parts| parts.holder = None,
        |parts| parts.kind = 9,
        |parts| parts.registrants[1].1 = [0xa; 16],
        |parts| parts.persists = false,
        |parts| parts.registrants.clear(),
    ];
    for (at, spoil) in wrong.into_iter().enumerate() {
        let mut spoilt = parts();
        spoil(&mut spoilt);
        assert_eq!(Reservations::restore(&spoilt), Err(Corrupt), "{at}");
    }
    assert!(Reservations::restore(&parts()).is_ok());
}

#[test]
fn random_bytes_behind_a_right_checksum_make_a_sound_state_or_none() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as u32
    };
    let record = kept(ReservationType::WriteExclusive).to_record::<Arena>(&UUID);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut wrong = record;
        for _ in 0..=next() % 4 {
            // Where what means something is.
            wrong[32 + next() as usize % 100] = (next() % 20) as u8;
        }
        if let Ok(state) = Reservations::from_record::<Arena>(&sealed(wrong), &UUID) {
            accepted += 1;
            let again = state.to_record::<Arena>(&UUID);
            assert_eq!(Reservations::from_record::<Arena>(&again, &UUID), Ok(state.clone()));
            let held = state.registrants().iter().any(|one| state.is_held_by(&one.host));
            assert_eq!(state.kind().is_some(), held, "a reservation has a holder");
        }
    }
    assert!(accepted > 100, "{accepted}");
}
