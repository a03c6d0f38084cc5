//! The oracle is asked about histories whose answer is known.

use super::*;
use braid_block::BlockSize;

const V: Uuid = [1; 16];
const S: Uuid = [2; 16];

fn volume() -> Oracle {
    let mut oracle = Oracle::default();
    oracle.create(V, 1 << 20, BlockSize::B512, false);
    oracle.made(&V, false);
    oracle
}

/// Writes a range, acknowledged.
fn write(oracle: &mut Oracle, first: u64, sectors: u64) -> u32 {
    let number = oracle.begin_write(&V, first, sectors, false);
    oracle.end_write(number, End::Done { durable: false });
    number
}

fn flush(oracle: &mut Oracle) {
    let since = oracle.tick();
    oracle.end_flush(&V, since);
}

/// Block 0 with these writes in its sectors; the last is in the rest too.
fn bytes(writes: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (sector, piece) in bytes.chunks_exact_mut(512).enumerate() {
        let number = writes[sector.min(writes.len() - 1)];
        if number != 0 {
            payload::fill(piece, number, sector as u64);
        }
    }
    bytes
}

fn read(oracle: &mut Oracle, layer: &Uuid, writes: &[u32]) -> Result<(), &'static str> {
    let since = oracle.tick();
    oracle.end_read(layer, 0, &bytes(writes), since).map_err(|violation| violation.invariant)
}

/// What a reopened pool may say after a crash, each from the same history.
fn after(oracle: &Oracle, crash: Crash, writes: &[u32]) -> Result<(), &'static str> {
    let mut oracle = oracle.clone();
    oracle.crash(crash);
    read(&mut oracle, &V, writes)
}

#[test]
fn a_read_says_what_was_written_last() {
    let mut oracle = volume();
    assert_eq!(read(&mut oracle, &V, &[0]), Ok(()));
    let a = write(&mut oracle, 0, 8);
    let b = write(&mut oracle, 4, 4);
    assert_eq!(read(&mut oracle, &V, &[a, a, a, a, b]), Ok(()));
    assert_eq!(read(&mut oracle, &V, &[a]), Err("BlockLinearizable"));
    assert_eq!(read(&mut oracle, &V, &[99]), Err("NeverWrongData"));
    let mut other = bytes(&[a]);
    payload::fill(&mut other[..512], a, 1);
    let since = oracle.tick();
    let misplaced = oracle.end_read(&V, 0, &other, since).unwrap_err();
    assert_eq!(misplaced.invariant, "NeverWrongData");
}

#[test]
fn what_was_seen_of_two_writes_in_flight_stays_in_that_order() {
    let mut oracle = volume();
    let a = oracle.begin_write(&V, 0, 8, false);
    let b = oracle.begin_write(&V, 0, 8, false);
    assert_eq!(read(&mut oracle, &V, &[0]), Ok(()));
    assert_eq!(read(&mut oracle, &V, &[a]), Ok(()));
    assert_eq!(read(&mut oracle, &V, &[b]), Ok(()));
    assert_eq!(read(&mut oracle, &V, &[a]), Err("BlockLinearizable"));
    assert_eq!(read(&mut oracle, &V, &[0]), Err("BlockLinearizable"));
    assert_eq!(read(&mut oracle, &V, &[b]), Ok(()));
}

#[test]
fn a_read_is_never_torn() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    let b = oracle.begin_write(&V, 0, 8, false);
    assert_eq!(read(&mut oracle, &V, &[a, b]), Err("BlockLinearizable"));
    assert_eq!(read(&mut oracle, &V, &[b]), Ok(()));
}

#[test]
fn a_refused_write_is_not_there() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    let b = oracle.begin_write(&V, 0, 8, false);
    oracle.end_write(b, End::Nothing);
    assert_eq!(read(&mut oracle, &V, &[b]), Err("BlockLinearizable"));
    assert_eq!(read(&mut oracle, &V, &[a]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[b]), Err("FlushedDurable"));
}

#[test]
fn a_kill_keeps_the_acknowledged_and_a_power_cut_the_flushed() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    flush(&mut oracle);
    let b = write(&mut oracle, 0, 8);
    let c = oracle.begin_write(&V, 0, 8, false);
    for survives in [&[b][..], &[c], &[b, c]] {
        assert_eq!(after(&oracle, Crash::Kill, survives), Ok(()), "{survives:?}");
    }
    assert_eq!(after(&oracle, Crash::Kill, &[a]), Err("AckedSurvivesCrash"));
    for survives in [&[a][..], &[b], &[c], &[a, b, c], &[c, a]] {
        assert_eq!(after(&oracle, Crash::Power, survives), Ok(()), "{survives:?}");
    }
    assert_eq!(after(&oracle, Crash::Power, &[0]), Err("FlushedDurable"));
}

#[test]
fn a_first_write_survives_wholly_or_not_at_all() {
    let mut oracle = volume();
    let a = write(&mut oracle, 2, 4);
    let first = [0, 0, a, a, a, a, 0];
    assert_eq!(after(&oracle, Crash::Power, &[0]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &first), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[0, 0, a, 0]), Err("FirstWriteWhole"));
    let b = write(&mut oracle, 0, 3);
    assert_eq!(after(&oracle, Crash::Power, &[0, 0, a, a, a, a, 0]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[b, 0, a, a, a, a, 0]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[b, b, b, 0]), Err("FirstWriteWhole"));
    flush(&mut oracle);
    assert_eq!(after(&oracle, Crash::Power, &[0]), Err("FlushedDurable"));
}

#[test]
fn zeroed_and_written_again_is_a_first_write_again() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    flush(&mut oracle);
    assert_eq!(read(&mut oracle, &V, &[a]), Ok(()));
    let zero = oracle.begin_write(&V, 0, 8, true);
    oracle.end_write(zero, End::Done { durable: false });
    assert_eq!(read(&mut oracle, &V, &[0]), Ok(()));
    let b = write(&mut oracle, 0, 4);
    for survives in [&[a][..], &[0], &[b, b, b, b, 0]] {
        assert_eq!(after(&oracle, Crash::Power, survives), Ok(()), "{survives:?}");
    }
    assert_eq!(after(&oracle, Crash::Power, &[b, a]), Err("FirstWriteWhole"));
    assert_eq!(after(&oracle, Crash::Power, &[b, 0]), Err("FirstWriteWhole"));
    assert_eq!(after(&oracle, Crash::Kill, &[0]), Err("AckedSurvivesCrash"));
}

#[test]
fn what_was_cut_off_may_have_taken_no_effect_but_not_in_part() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 2);
    flush(&mut oracle);
    let zero = oracle.begin_write(&V, 0, 8, true);
    let acknowledged = {
        let mut oracle = oracle.clone();
        oracle.end_write(zero, End::Done { durable: false });
        let b = write(&mut oracle, 1, 7);
        after(&oracle, Crash::Power, &[a, b])
    };
    assert_eq!(acknowledged, Err("FirstWriteWhole"), "what follows zeros is a first write");
    // Nobody reads it before it is written again.
    oracle.crash(Crash::Power);
    let b = write(&mut oracle, 1, 7);
    let overwritten = [&[a, b][..], &[0, b], &[0], &[a, a, 0], &[a, b, b, 0]];
    for survives in overwritten {
        assert_eq!(after(&oracle, Crash::Power, survives), Ok(()), "{survives:?}");
    }
    for torn in [&[0, a, 0][..], &[0, a, b], &[0, 0, b], &[0, b, 0]] {
        assert_eq!(after(&oracle, Crash::Power, torn), Err("FirstWriteWhole"), "{torn:?}");
    }
    // Nor is a first write that was cut off one that was.
    let mut oracle = volume();
    let a = oracle.begin_write(&V, 0, 2, false);
    oracle.crash(Crash::Power);
    let b = write(&mut oracle, 1, 7);
    for survives in [&[0, b][..], &[a, b], &[a, a, 0], &[0]] {
        assert_eq!(after(&oracle, Crash::Power, survives), Ok(()), "{survives:?}");
    }
    for torn in [&[0, a, 0][..], &[a, 0], &[0, 0, b], &[0, b, 0]] {
        assert_eq!(after(&oracle, Crash::Power, torn), Err("FirstWriteWhole"), "{torn:?}");
    }
}

#[test]
fn zeros_that_were_seen_took_effect_although_they_were_cut_off() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    let _zero = oracle.begin_write(&V, 0, 8, true);
    assert_eq!(read(&mut oracle, &V, &[0]), Ok(()));
    oracle.crash(Crash::Kill);
    let b = write(&mut oracle, 1, 7);
    assert_eq!(after(&oracle, Crash::Power, &[0, b]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[a, b]), Err("FirstWriteWhole"));
}

#[test]
fn what_was_read_after_a_crash_stays() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    flush(&mut oracle);
    let b = write(&mut oracle, 0, 8);
    oracle.crash(Crash::Power);
    assert_eq!(read(&mut oracle, &V, &[a, b]), Ok(()));
    assert_eq!(after(&oracle, Crash::Power, &[b]), Err("NeverWrongData").or(Err("FlushedDurable")));
    assert_eq!(after(&oracle, Crash::Power, &[a, b]), Ok(()));
}

#[test]
fn a_snapshot_is_one_moment() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    oracle.snapshot(&V, S);
    let b = write(&mut oracle, 0, 8);
    let c = write(&mut oracle, 8, 8);
    oracle.made(&S, false);
    let with_c = |oracle: &mut Oracle| {
        let since = oracle.tick();
        let mut bytes = vec![0; 4096];
        for (sector, piece) in (8..).zip(bytes.chunks_exact_mut(512)) {
            payload::fill(piece, c, sector);
        }
        oracle.end_read(&S, 8, &bytes, since).map_err(|violation| violation.invariant)
    };
    let mut late = oracle.clone();
    assert_eq!(read(&mut late, &S, &[b]), Ok(()));
    assert_eq!(with_c(&mut late), Ok(()));
    assert_eq!(read(&mut oracle, &S, &[a]), Ok(()));
    assert_eq!(with_c(&mut oracle), Err("SnapshotPoint"));
    assert_eq!(read(&mut oracle, &S, &[b]), Err("SnapshotPoint").or(Err("NeverWrongData")));
    assert_eq!(read(&mut oracle, &V, &[b]), Ok(()));
}

#[test]
fn a_clone_shows_its_snapshot_until_it_is_written() {
    let mut oracle = volume();
    let a = write(&mut oracle, 0, 8);
    oracle.snapshot(&V, S);
    oracle.made(&S, false);
    let clone = [3; 16];
    oracle.clone_of(&S, clone);
    oracle.made(&clone, false);
    assert_eq!(read(&mut oracle, &clone, &[a]), Ok(()));
    let b = oracle.begin_write(&clone, 0, 1, false);
    assert_eq!(read(&mut oracle, &clone, &[b, a]), Ok(()));
    assert_eq!(read(&mut oracle, &S, &[a]), Ok(()));
    assert_eq!(read(&mut oracle, &V, &[a]), Ok(()));
    oracle.crash(Crash::Power);
    assert_eq!(read(&mut oracle, &S, &[a]), Ok(()));
    assert_eq!(read(&mut oracle, &clone, &[a]), Ok(()));
}
