//! What a target must not say: each gets the specified termination request, and nothing else.

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::host::{Operation, Why};
use braid_nvme::pdu::{Digests, FatalError};

use crate::bench::{Bench, PLAIN, SUBNQN, config};
use crate::wire::{self, LAST, SUCCESS};

const HEADER_DIGEST: Digests = Digests { header: true, data: false };
const DATA_DIGEST: Digests = Digests { header: false, data: true };

/// The commands in work when the peer says something wrong: a read of 8 KiB, a write of 64 KiB
/// that waits for R2T, a write in its capsule, a flush.
struct Cids {
    read: u16,
    write: u16,
    in_capsule: u16,
    flush: u16,
}

fn busy(digests: Digests) -> (Bench, Cids) {
    let mut config = config(SUBNQN);
    config.digests = digests;
    let mut bench = Bench::live(config);
    bench.read(8192);
    bench.write(&[1; 65_536]);
    bench.write(&[2; 4096]);
    bench.submit(Operation::Flush, None, 0);
    let mut next = || bench.heard(1).unwrap().cid();
    let cids = Cids { read: next(), write: next(), in_capsule: next(), flush: next() };
    (bench, cids)
}

type Say = fn(&Cids) -> Vec<u8>;

fn check(digests: Digests, name: &str, say: Say, error: FatalError) {
    for piece in [usize::MAX, 1, 7] {
        let (mut bench, cids) = busy(digests);
        bench.piece = piece;
        bench.say(1, &say(&cids));
        assert!(!bench.events.is_empty(), "{name} was accepted");
        // The others are closed at once, this one when the peer has read why.
        assert!(bench.link(0).closed, "{name}");
        let why = &bench.events[0];
        assert!(format!("{why:?}").contains(&format!("{error:?}")), "{name}: {why:?}");
        bench.expect_termination(1, error);
        assert_eq!(bench.events.len(), 4, "{name}: every command is handed back");
        for cookie in 1..=4 {
            let completed = bench.completed_of(cookie);
            assert_eq!(completed.status, Status::ABORTED_BY_HOST, "{name}");
            bench.free(completed);
        }
        bench.finish();
    }
}

/// A PDU with one byte changed.
fn with(mut pdu: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    pdu[at] = value;
    pdu
}

#[test]
fn headers() {
    use FatalError::{InvalidHeaderField as Field, LimitExceeded, Sequence};
    let rows: [(&str, Say, FatalError); 16] = [
        ("a second ICResp", |_| wire::ic_resp(PLAIN, 0, 8192), Sequence),
        ("an ICReq", |_| with(wire::ic_resp(PLAIN, 0, 8192), 0, 0), Field(0)),
        ("an unknown type", |c| with(wire::response(PLAIN, c.flush, 0, 0), 0, 8), Field(0)),
        ("a command capsule", |c| with(wire::response(PLAIN, c.flush, 0, 0), 0, 4), Field(0)),
        ("H2CData", |c| with(wire::data(PLAIN, c.write, 0, 0, &[0; 8]), 0, 6), Field(0)),
        ("H2CTermReq", |_| with(wire::terminate(1), 0, 2), Field(0)),
        ("HLEN of a response", |c| with(wire::response(PLAIN, c.flush, 0, 0), 2, 20), Field(2)),
        ("HLEN of data", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 2, 72), Field(2)),
        ("HDGSTF without", |c| with(wire::response(PLAIN, c.flush, 0, 0), 1, 1), Field(1)),
        ("DDGSTF without", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 1, 2), Field(1)),
        ("PLEN of a response", |c| with(wire::response(PLAIN, c.flush, 0, 0), 4, 25), Field(4)),
        ("PLEN of R2T", |c| with(wire::r2t(PLAIN, c.write, 0, 0, 512), 4, 28), Field(4)),
        ("data without data", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 4, 24), Field(4)),
        ("PDO in the header", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 3, 20), Field(3)),
        ("DATAL is not PLEN", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 16, 4), Field(4)),
        ("data of 16 MiB", |c| with(wire::data(PLAIN, c.read, 0, 0, &[0; 8]), 7, 1), LimitExceeded),
    ];
    for (name, say, error) in rows {
        check(PLAIN, name, say, error);
    }
}

#[test]
fn digests_and_their_flags() {
    use FatalError::InvalidHeaderField as Field;
    check(
        HEADER_DIGEST,
        "HDGSTF is clear",
        |c| with(wire::response(HEADER_DIGEST, c.flush, 0, 0), 1, 0),
        Field(1),
    );
    check(
        DATA_DIGEST,
        "DDGSTF is clear",
        |c| with(wire::data(DATA_DIGEST, c.read, 0, 0, &[0; 8]), 1, 0),
        Field(1),
    );
}

#[test]
fn a_wrong_header_digest_is_told_with_the_digest_that_came() {
    let (mut bench, cids) = busy(HEADER_DIGEST);
    let mut pdu = wire::response(HEADER_DIGEST, cids.flush, 0, 0);
    pdu[24] ^= 1;
    let received = u32::from_le_bytes([pdu[24], pdu[25], pdu[26], pdu[27]]);
    bench.say(1, &pdu);
    bench.expect_termination(1, FatalError::HeaderDigest(received));
    bench.finish();
}

#[test]
fn a_second_response_to_one_command_is_a_stranger() {
    let (mut bench, cids) = busy(PLAIN);
    bench.say(1, &wire::response(PLAIN, cids.flush, 0, 0));
    let completed = bench.completed();
    assert_eq!(completed.status, Status::SUCCESS);
    bench.say(1, &wire::response(PLAIN, cids.flush, 0, 0));
    bench.expect_termination(1, FatalError::InvalidHeaderField(20));
    // The same while the first one waits for the buffer's send to land.
    let (mut bench, cids) = busy(PLAIN);
    bench.lands = false;
    bench.say(1, &wire::r2t(PLAIN, cids.write, 0, 0, 65_536));
    while bench.heard(1).is_some() {}
    bench.say(1, &wire::response(PLAIN, cids.write, 0, 0));
    bench.take_nothing();
    bench.say(1, &wire::response(PLAIN, cids.write, 0, 0));
    assert_eq!(bench.lost().0, Why::Protocol(FatalError::InvalidHeaderField(20)));
    bench.finish();
}

#[test]
fn command_ids() {
    use FatalError::InvalidHeaderField as Field;
    const OTHER_GENERATION: u16 = 1 << 10;
    let rows: [(&str, Say, FatalError); 6] = [
        ("an unknown id", |_| wire::response(PLAIN, 0x3ff, 0, 0), Field(20)),
        (
            "an id of yesterday",
            |c| wire::response(PLAIN, c.flush ^ OTHER_GENERATION, 0, 0),
            Field(20),
        ),
        ("data for an unknown id", |_| wire::data(PLAIN, 0x3ff, 0, 0, &[0; 8]), Field(8)),
        (
            "data for an id of yesterday",
            |c| wire::data(PLAIN, c.read ^ OTHER_GENERATION, 0, 0, &[0; 8]),
            Field(8),
        ),
        ("R2T for an unknown id", |_| wire::r2t(PLAIN, 0x3ff, 0, 0, 8), Field(8)),
        (
            "R2T for an id of yesterday",
            |c| wire::r2t(PLAIN, c.write ^ OTHER_GENERATION, 0, 0, 8),
            Field(8),
        ),
    ];
    for (name, say, error) in rows {
        check(PLAIN, name, say, error);
    }
}

#[test]
fn data_to_the_host() {
    use FatalError::{DataOutOfRange as Range, InvalidHeaderField as Field};
    let rows: [(&str, Say, FatalError); 11] = [
        ("for a flush", |c| wire::data(PLAIN, c.flush, 0, 0, &[0; 8]), Range),
        ("for a write", |c| wire::data(PLAIN, c.write, 0, 0, &[0; 8]), Range),
        ("not from the beginning", |c| wire::data(PLAIN, c.read, 8, 0, &[0; 8]), Range),
        (
            "with a gap",
            |c| {
                let first = wire::data(PLAIN, c.read, 0, 0, &[0; 8]);
                [first, wire::data(PLAIN, c.read, 12, 0, &[0; 8])].concat()
            },
            Range,
        ),
        (
            "twice",
            |c| {
                let first = wire::data(PLAIN, c.read, 0, 0, &[0; 8]);
                [first.clone(), first].concat()
            },
            Range,
        ),
        ("too much", |c| wire::data(PLAIN, c.read, 0, LAST, &[0; 8196]), Range),
        ("past the end", |c| wire::data(PLAIN, c.read, u32::MAX - 3, 0, &[0; 8]), Range),
        ("all of it without LAST", |c| wire::data(PLAIN, c.read, 0, 0, &[0; 8192]), Field(1)),
        ("LAST before the end", |c| wire::data(PLAIN, c.read, 0, LAST, &[0; 8]), Field(1)),
        ("SUCCESS before the end", |c| wire::data(PLAIN, c.read, 0, SUCCESS, &[0; 8]), Field(1)),
        (
            "SUCCESS and LAST before the end",
            |c| wire::data(PLAIN, c.read, 0, SUCCESS | LAST, &[0; 8]),
            Field(1),
        ),
    ];
    for (name, say, error) in rows {
        check(PLAIN, name, say, error);
    }
}

#[test]
fn ready_to_transfer() {
    use FatalError::{DataOutOfRange as Range, InvalidHeaderField as Field};
    let rows: [(&str, Say, FatalError); 7] = [
        ("for a flush", |c| wire::r2t(PLAIN, c.flush, 0, 0, 8), Range),
        ("for a read", |c| wire::r2t(PLAIN, c.read, 0, 0, 8), Range),
        ("for what went in the capsule", |c| wire::r2t(PLAIN, c.in_capsule, 0, 0, 4096), Range),
        ("for nothing", |c| wire::r2t(PLAIN, c.write, 0, 0, 0), Field(16)),
        ("not from the beginning", |c| wire::r2t(PLAIN, c.write, 0, 4, 8), Range),
        ("for too much", |c| wire::r2t(PLAIN, c.write, 0, 0, 65_540), Range),
        ("past the end", |c| wire::r2t(PLAIN, c.write, 0, 0, u32::MAX), Range),
    ];
    for (name, say, error) in rows {
        check(PLAIN, name, say, error);
    }
}

#[test]
fn ready_to_transfer_again() {
    use FatalError::DataOutOfRange as Range;
    // After the first one's data went out: again the same, one that leaves a gap, one too many.
    for (offset, length) in [(0, 32_768), (49_152, 8), (32_768, 32_772)] {
        let (mut bench, cids) = busy(PLAIN);
        bench.say(1, &wire::r2t(PLAIN, cids.write, 1, 0, 32_768));
        while bench.heard(1).is_some() {}
        bench.say(1, &wire::r2t(PLAIN, cids.write, 1, offset, length));
        bench.expect_termination(1, Range);
        bench.finish();
    }
}

#[test]
fn a_second_r2t_before_the_first_ones_data_is_out_exceeds_the_limit() {
    let mut config = config(SUBNQN);
    config.queue_entries = 8;
    let mut bench = Bench::new(config);
    // 4 KiB at a time: the data of two writes does not fit into a batch.
    bench.model.max_h2c_data = 4096;
    bench.serve();
    bench.take_live();
    bench.lands = false;
    bench.write(&[1; 131_072]);
    bench.write(&[1; 131_072]);
    bench.write(&[1; 131_072]);
    bench.land(1, Ok(()));
    bench.act();
    bench.land(1, Ok(()));
    bench.act();
    let cids = [(); 3].map(|()| bench.heard(1).unwrap().cid());
    // Three transfers of 32 pieces wait: the first flies, the last does not.
    let ready: Vec<u8> =
        cids.iter().flat_map(|cid| wire::r2t(PLAIN, *cid, *cid, 0, 131_068)).collect();
    bench.say(1, &ready);
    bench.take_nothing();
    bench.say(1, &wire::r2t(PLAIN, cids[2], 0, 131_068, 4));
    let (why, _) = bench.lost();
    assert_eq!(why, Why::Protocol(FatalError::LimitExceeded));
    bench.finish();
}

#[test]
fn a_termination_request_ends_it_without_a_reply() {
    for piece in [usize::MAX, 1] {
        let (mut bench, _) = busy(PLAIN);
        bench.piece = piece;
        bench.say(1, &wire::terminate(4));
        assert_eq!(bench.lost(), (Why::Terminated(4), true));
        assert!(bench.heard(1).is_none() && bench.link(1).closed);
        assert_eq!(bench.events.len(), 4);
        bench.finish();
    }
}

#[test]
fn a_peer_that_does_not_hang_up_after_it_was_told_is_closed_a_second_later() {
    let (mut bench, _) = busy(PLAIN);
    bench.say(1, &wire::response(PLAIN, 0x3ff, 0, 0));
    assert!(!bench.link(1).closed);
    bench.pass(Duration::from_millis(999));
    assert!(!bench.link(1).closed);
    // What it still says means nothing.
    bench.say(1, &[0xff; 100]);
    bench.pass(Duration::from_millis(1));
    assert!(bench.link(1).closed);
    bench.finish();
}

#[test]
fn the_termination_request_copies_the_header_that_caused_it() {
    let (mut bench, cids) = busy(PLAIN);
    let wrong = wire::r2t(PLAIN, cids.write, 0, 0, 0);
    bench.say(1, &wrong);
    let pdu = bench.heard(1).unwrap();
    assert_eq!(pdu.data, wrong);
    assert_eq!(pdu.u32(4) as usize, 24 + wrong.len());
    bench.finish();
}
