//! Data: which way it goes, and that it arrives where it belongs.

use std::time::Duration;

use braid_block::{Class, Memory};
use braid_nvme::Status;
use braid_nvme::command::Command;
use braid_nvme::host::{Event, Operation, get_log_page, identify_command};
use braid_nvme::pdu::Digests;

use crate::bench::{Bench, PLAIN, SUBNQN, config};
use crate::wire::{self, LAST, SUCCESS};

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn all_digests() -> [Digests; 4] {
    [0, 1, 2, 3].map(Digests::from_wire)
}

#[test]
fn what_is_written_is_read_back_in_every_size_with_every_digest() {
    for digests in all_digests() {
        for (cpda, success_flag, r2t_bytes) in [(0, false, u32::MAX), (31, true, 20_480)] {
            let mut config = config(SUBNQN);
            config.digests = digests;
            let mut bench = Bench::new(config);
            (bench.model.cpda, bench.model.success_flag) = (cpda, success_flag);
            bench.model.r2t_bytes = r2t_bytes;
            bench.serve();
            bench.take_live();
            for len in [512, 4096, 8192, 8704, 65_536, 131_072] {
                let bytes = pattern(len, len as u8);
                bench.write(&bytes);
                bench.serve();
                let written = bench.completed();
                assert_eq!(written.status, Status::SUCCESS);
                bench.free(written);
                bench.read(len as u32);
                bench.serve();
                let read = bench.completed();
                assert_eq!(read.status, Status::SUCCESS);
                assert!(bench.mem.bytes(read.lease.as_ref().unwrap())[..len] == bytes);
                bench.free(read);
            }
            bench.finish();
        }
    }
}

#[test]
fn split_at_every_byte_the_stream_means_the_same() {
    for digests in all_digests() {
        for success_flag in [false, true] {
            let mut config = config(SUBNQN);
            config.digests = digests;
            let mut bench = Bench::live(config);
            let mut answer = Vec::new();
            bench.model.success_flag = success_flag;
            bench.read(512);
            bench.write(&pattern(8196, 3));
            while let Some(pdu) = bench.heard(1) {
                answer.extend(bench.model.answer(1, &pdu, digests));
            }
            // Hosts are alike: what one was answered fits every other.
            for at in 1..answer.len() {
                let mut fresh = Bench::live(bench.host.config().clone());
                fresh.read(512);
                fresh.write(&pattern(8196, 3));
                fresh.say(1, &answer[..at]);
                fresh.say(1, &answer[at..]);
                let Some(Event::Completed(read)) = fresh.events.pop() else { panic!("at {at}") };
                assert_eq!(read.status, Status::SUCCESS);
                let lease = read.lease.as_ref().unwrap();
                assert!(fresh.mem.bytes(lease)[..512] == bench.model.disk[..512]);
                fresh.free(read);
                assert!(fresh.events.is_empty(), "at {at}");
                assert_eq!(requested(&mut fresh), pattern(8196, 3), "at {at}");
                fresh.finish();
            }
            bench.finish();
        }
    }
}

/// The data of the H2CData that was heard.
fn requested(bench: &mut Bench) -> Vec<u8> {
    let heard = std::iter::from_fn(|| bench.heard(1));
    heard.filter(|pdu| pdu.kind == 6).flat_map(|pdu| pdu.data).collect()
}

#[test]
fn byte_by_byte_the_whole_life_means_the_same() {
    for digests in all_digests() {
        let mut config = config(SUBNQN);
        config.digests = digests;
        let mut bench = Bench::new(config);
        bench.piece = 1;
        bench.serve();
        bench.take_live();
        bench.read(4096);
        bench.serve();
        let read = bench.completed();
        assert_eq!(read.status, Status::SUCCESS);
        bench.free(read);
        bench.finish();
    }
}

#[test]
fn a_write_goes_in_the_capsule_up_to_its_capacity_and_is_fetched_beyond() {
    let mut bench = Bench::live(config(SUBNQN));
    for (len, in_capsule) in [(4096, true), (8192, true), (8196, false), (65_536, false)] {
        bench.write(&pattern(len, 1));
        let pdu = bench.heard(1).unwrap();
        assert_eq!(pdu.data.len(), if in_capsule { len } else { 0 });
        assert_eq!(pdu.header[8 + 39], if in_capsule { 0x01 } else { 0x5a });
        assert_eq!(pdu.u32(8 + 32) as usize, len);
        bench.say(1, &wire::response(PLAIN, pdu.cid(), 0x280, 0));
        let failed = bench.completed();
        assert_eq!(failed.status, Status::WRITE_FAULT);
        bench.free(failed);
    }
    bench.finish();
}

#[test]
fn fields_of_every_command_are_where_the_standard_has_them() {
    let mut bench = Bench::live(config(SUBNQN));
    let lba = 0x1234_5678_9abc;
    let rows: [(Operation, u8, u32); 5] = [
        (Operation::Read { lba, blocks: 8 }, 0x02, 7),
        (Operation::Write { lba, blocks: 1, durable: true }, 0x01, 1 << 30),
        (Operation::Write { lba, blocks: 65_536, durable: false }, 0x01, 0xffff),
        (Operation::WriteZeroes { lba, blocks: 16, deallocate: true }, 0x08, 1 << 25 | 15),
        (Operation::WriteZeroes { lba, blocks: 16, deallocate: false }, 0x08, 15),
    ];
    for (operation, opcode, cdw12) in rows {
        bench.submit(operation, None, 0);
        let pdu = bench.heard(1).unwrap();
        assert_eq!((pdu.opcode(), pdu.u32(12)), (opcode, 1));
        assert_eq!((pdu.cdw(10), pdu.cdw(11), pdu.cdw(12)), (0x5678_9abc, 0x1234, cdw12));
        assert_eq!((pdu.header[8 + 39], pdu.u32(8 + 32)), (0x5a, 0), "no data");
        bench.say(1, &wire::response(PLAIN, pdu.cid(), 0x006, 0));
        bench.completed();
    }
    bench.submit(Operation::Flush, None, 0);
    assert_eq!(bench.heard(1).unwrap().opcode(), 0x00);
    let ranges = bench.mem.filled(&pattern(48, 0));
    bench.submit(Operation::Deallocate { ranges: 3 }, Some(ranges), 48);
    let pdu = bench.heard(1).unwrap();
    assert_eq!((pdu.opcode(), pdu.cdw(10), pdu.cdw(11)), (0x09, 2, 4));
    assert_eq!(pdu.data, pattern(48, 0));
    bench.finish();
}

#[test]
fn admin_commands_pass_through() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.model.log = pattern(8192, 9);
    let rows: [(Command, u32, Vec<u8>); 2] = [
        (identify_command(1, 0), 4096, bench.model.identity.clone()),
        (get_log_page(2, 0xffff_ffff, 512, 1024, false), 1024, pattern(8192, 9)[512..1536].into()),
    ];
    for (command, len, expected) in rows {
        let lease = bench.mem.alloc(Class::Small).unwrap();
        bench.submit(Operation::Admin(command), Some(lease), len);
        bench.serve();
        let done = bench.completed();
        assert_eq!(done.status, Status::SUCCESS);
        assert!(bench.mem.bytes(done.lease.as_ref().unwrap())[..len as usize] == expected);
        bench.free(done);
    }
    bench.finish();
}

#[test]
fn a_result_comes_along() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.submit(Operation::Flush, None, 0);
    let cid = bench.heard(1).unwrap().cid();
    bench.say(1, &wire::response(PLAIN, cid, 0, 0x1122_3344_5566_7788));
    assert_eq!(bench.completed().result, 0x1122_3344_5566_7788);
    bench.finish();
}

#[test]
fn a_wrong_data_digest_fails_that_command_alone_and_after_its_data() {
    for success_flag in [false, true] {
        let mut config = config(SUBNQN);
        let digests = Digests { header: false, data: true };
        config.digests = digests;
        let mut bench = Bench::live(config);
        bench.read(4096);
        bench.read(4096);
        let (bad, good) = (bench.heard(1).unwrap().cid(), bench.heard(1).unwrap().cid());
        let flags = LAST | if success_flag { SUCCESS } else { 0 };
        let mut answer = wire::data(digests, bad, 0, 0, &[1; 2048]);
        answer[100] ^= 1;
        answer.extend(wire::data(digests, good, 0, flags, &[2; 4096]));
        answer.extend(wire::data(digests, bad, 2048, flags, &[3; 2048]));
        if !success_flag {
            answer.extend(wire::response(digests, good, 0, 0));
            answer.extend(wire::response(digests, bad, 0, 0));
        }
        bench.say(1, &answer);
        let bad = bench.completed_of(1);
        let good = bench.completed_of(2);
        assert_eq!((bad.status, good.status), (Status::TRANSIENT_TRANSPORT, Status::SUCCESS));
        assert_eq!(bench.mem.bytes(good.lease.as_ref().unwrap())[4095], 2);
        bench.free(bad);
        bench.free(good);
        assert!(bench.host.is_live());
        bench.finish();
    }
}

#[test]
fn success_without_all_the_data_is_no_success() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.read(4096);
    let cid = bench.heard(1).unwrap().cid();
    bench.say(1, &wire::data(PLAIN, cid, 0, 0, &[1; 2048]));
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    let short = bench.completed();
    assert_eq!(short.status, Status::DATA_TRANSFER_ERROR);
    bench.free(short);
    bench.write(&pattern(65_536, 1));
    let cid = bench.heard(1).unwrap().cid();
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    let short = bench.completed();
    assert_eq!(short.status, Status::DATA_TRANSFER_ERROR);
    bench.free(short);
    bench.finish();
}

#[test]
fn a_command_does_not_end_while_its_buffer_is_being_sent() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.lands = false;
    bench.write(&pattern(4096, 1));
    let cid = bench.heard(1).unwrap().cid();
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    bench.take_nothing();
    bench.land(1, Ok(()));
    bench.act();
    let done = bench.completed();
    assert_eq!(done.status, Status::SUCCESS);
    bench.free(done);
    // The same for data that was fetched, in several pieces.
    bench.write(&pattern(65_536, 1));
    let cid = bench.heard(1).unwrap().cid();
    bench.land(1, Ok(()));
    bench.say(1, &wire::r2t(PLAIN, cid, 9, 0, 65_536));
    let mut pieces = 0;
    while let Some(pdu) = bench.heard(1) {
        assert_eq!((pdu.kind, pdu.u16(8), pdu.u16(10)), (6, cid, 9));
        pieces += 1;
    }
    assert_eq!(pieces, 8);
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    bench.take_nothing();
    bench.land(1, Ok(()));
    bench.act();
    let done = bench.completed();
    bench.free(done);
    bench.finish();
}

#[test]
fn a_batch_takes_what_fits_and_the_rest_follows() {
    let mut config = config(SUBNQN);
    config.queue_entries = 128;
    let mut bench = Bench::new(config);
    bench.model.identity[514] = 200;
    bench.serve();
    bench.take_live();
    bench.lands = false;
    for n in 0..127 {
        bench.write(&pattern(4096, n));
    }
    assert!(bench.try_submit(Operation::Flush, None, 0).is_err(), "all slots are busy");
    let mut heard = Vec::new();
    for _ in 0..16 {
        while let Some(pdu) = bench.heard(1) {
            assert_eq!(pdu.data, pattern(4096, heard.len() as u8));
            heard.push(pdu.cid());
        }
        bench.land(1, Ok(()));
        bench.act();
    }
    assert_eq!(heard.len(), 127);
    for cid in heard.into_iter().rev() {
        bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    }
    assert_eq!(bench.events.len(), 127);
    bench.finish();
}

#[test]
fn a_command_larger_than_the_target_takes_ends_at_once() {
    let mut bench = Bench::new(config(SUBNQN));
    bench.model.identity[77] = 2;
    bench.serve();
    bench.take_live();
    bench.read(32 << 10);
    let refused = bench.completed();
    assert_eq!(refused.status, Status::INVALID_FIELD.dnr());
    bench.free(refused);
    assert!(bench.heard(1).is_none());
    bench.finish();
}

#[test]
fn commands_spread_over_queues_and_go_where_there_is_room() {
    let mut config = config(SUBNQN);
    (config.io_queues, config.queue_entries) = (2, 3);
    let mut bench = Bench::live(config);
    for _ in 0..4 {
        bench.submit(Operation::Flush, None, 0);
    }
    assert!(bench.try_submit(Operation::Flush, None, 0).is_err());
    for queue in [1, 2] {
        assert!(bench.heard(queue).is_some() && bench.heard(queue).is_some());
        assert!(bench.heard(queue).is_none());
    }
    bench.pass(Duration::ZERO);
    bench.finish();
}
