//! Connecting: what is asked, in which order, and what is not accepted.

use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_nvme::host::{Event, Stage, Unsuitable, Why};
use braid_nvme::pdu::{Digests, FatalError};

use crate::bench::{Bench, PLAIN, SUBNQN, config};
use crate::model::CNTLID;
use crate::wire;

#[test]
fn it_becomes_live_and_tells_what_it_found() {
    let mut config = config(SUBNQN);
    config.io_queues = 2;
    let mut bench = Bench::new(config);
    bench.serve();
    let live = bench.take_live();
    assert_eq!((live.io_queues, live.queue_commands), (2, 7));
    assert_eq!(live.controller.cntlid, CNTLID);
    assert_eq!(live.controller.serial.as_str(), "SERIAL");
    assert_eq!(live.controller.model.as_str(), "a disk");
    assert_eq!(live.controller.transfer_bytes_max, 128 << 10);
    assert_eq!(live.controller.in_capsule_bytes, 8192);
    assert!(live.controller.volatile_cache && live.controller.deallocates);
    let found: Vec<_> = live.namespaces.iter().map(|n| (n.nsid, n.uuid[0])).collect();
    assert_eq!(found, [(1, 1), (5, 5)]);
    let geometry = Geometry { block: BlockSize::B4096, blocks: 1024 };
    assert_eq!(live.namespaces[0].geometry, geometry);
    assert_eq!(live.namespaces[0].nguid, [0xee; 16]);
    bench.finish();
}

#[test]
fn what_it_asks_comes_in_the_order_of_the_standard() {
    let mut bench = Bench::live(config(SUBNQN));
    let asked: Vec<_> = bench
        .model
        .commands
        .iter()
        .map(|pdu| match pdu.opcode() {
            0x7f => format!("fabrics {:02x} {:x}", pdu.header[12], pdu.cdw(11)),
            0x06 => format!("identify {:02x} of {}", pdu.cdw(10), pdu.u32(12)),
            other => format!("{other:02x} {:x} {:x}", pdu.cdw(10), pdu.cdw(11)),
        })
        .collect();
    let expected = [
        "fabrics 01 4001f",
        "fabrics 04 0",
        "fabrics 04 8",
        "fabrics 00 14",
        "fabrics 04 1c",
        "identify 01 of 0",
        "09 7 0",
        "fabrics 01 40007",
        "identify 02 of 0",
        "identify 00 of 1",
        "identify 03 of 1",
        "identify 00 of 5",
        "identify 03 of 5",
    ];
    assert_eq!(asked, expected);
    for pdu in &bench.model.commands {
        assert_eq!(pdu.header[9], 0x40, "PSDT");
    }
    assert!(bench.events.is_empty());
    bench.take_nothing();
    bench.finish();
}

#[test]
fn a_controller_that_takes_its_time_is_looked_at_again_until_cap_to() {
    let mut bench = Bench::new(config(SUBNQN));
    bench.model.not_ready = 20;
    bench.pass_served(Duration::from_millis(200));
    bench.take_live();
    bench.finish();

    let mut bench = Bench::new(config(SUBNQN));
    bench.model.not_ready = u32::MAX;
    bench.pass_served(Duration::from_millis(1100));
    assert_eq!(bench.lost(), (Why::Timeout(Stage::Enable), true));
    bench.finish();

    let mut bench = Bench::new(config(SUBNQN));
    bench.model.csts = 2;
    bench.serve();
    assert_eq!(bench.lost(), (Why::ControllerFailed, true));
    bench.finish();
}

#[test]
fn a_controller_that_we_cannot_use_is_left_with_the_reason() {
    type Bend = fn(&mut Vec<u8>);
    let rows: [(Bend, Unsuitable); 6] = [
        (|page| page[78] = 9, Unsuitable::ControllerId { connected: CNTLID, identified: 9 }),
        (|page| page[1792..1796].fill(0), Unsuitable::CommandCapsule),
        (|page| page[1796] = 0, Unsuitable::ResponseCapsule),
        (|page| page[1800] = 1, Unsuitable::DataOffset),
        (|page| page[536] = 0, Unsuitable::NoSgl),
        (|page| page[320] = 0, Unsuitable::NoKeepAlive),
    ];
    for (bend, reason) in rows {
        let mut bench = Bench::new(config(SUBNQN));
        bend(&mut bench.model.identity);
        bench.serve();
        assert_eq!(bench.lost(), (Why::Unsuitable(reason), true));
        bench.finish();
    }
    for (cap, reason) in
        [(0x0001_0020_0200_007f, Unsuitable::PageSize), (0x7f, Unsuitable::CommandSet)]
    {
        let mut bench = Bench::new(config(SUBNQN));
        bench.model.cap = cap;
        bench.serve();
        assert_eq!(bench.lost(), (Why::Unsuitable(reason), true));
        bench.finish();
    }
}

#[test]
fn a_refusal_is_told_and_ends_the_trying_only_if_it_says_do_not_retry() {
    const DNR: u16 = 1 << 14;
    let rows = [
        (0x101, 0x182, Stage::Connect, true),
        (0x101, 0x184 | DNR, Stage::Connect, false),
        (0x104, 0x002 | DNR, Stage::Property, true),
        (0x100, 0x006, Stage::Enable, true),
        (0x006, 0x006, Stage::IdentifyController, true),
        (0x009, 0x006, Stage::QueueCount, true),
    ];
    for (code, status, stage, again) in rows {
        let mut bench = Bench::new(config(SUBNQN));
        bench.model.refuse.insert(code, status);
        bench.serve();
        let (why, retry) = bench.lost();
        let Why::Refused { stage: told, status: with, .. } = why else { panic!("{why:?}") };
        assert_eq!((told, with.to_wire() >> 1, retry), (stage, status, again));
        assert_eq!(bench.host.is_ended(), !again);
        if !again {
            assert!(matches!(bench.events[..], [Event::Closed]));
        }
        bench.finish();
    }
}

#[test]
fn queue_sizes_are_the_least_that_all_agree_on() {
    for (mqes, maxcmd, asked, commands) in
        [(127, 128, 64, 63), (15, 128, 64, 15), (127, 10, 64, 9), (127, 0, 64, 63), (0, 0, 9, 1)]
    {
        let mut config = config(SUBNQN);
        config.queue_entries = asked;
        let mut bench = Bench::new(config);
        bench.model.cap = bench.model.cap & !0xffff | mqes;
        bench.model.identity[514..516].copy_from_slice(&u16::to_le_bytes(maxcmd));
        bench.serve();
        assert_eq!(bench.take_live().queue_commands, commands);
        bench.finish();
    }
}

#[test]
fn fewer_queues_than_asked_for_are_enough() {
    let mut config = config(SUBNQN);
    config.io_queues = 4;
    let mut bench = Bench::new(config);
    bench.model.granted = 2;
    bench.serve();
    assert_eq!(bench.take_live().io_queues, 2);
    bench.finish();
}

#[test]
fn more_namespaces_than_fit_a_page_are_all_found_up_to_the_limit() {
    for (there, limit, found) in [(1500, 2000, 1500), (1500, 1200, 1200), (1024, 2000, 1024)] {
        let mut config = config(SUBNQN);
        config.namespaces_max = limit;
        let mut bench = Bench::new(config);
        bench.model.namespaces = (1..=there).collect();
        bench.serve();
        assert_eq!(bench.take_live().namespaces.len(), found);
        bench.finish();
    }
}

#[test]
fn an_ic_resp_is_checked_field_by_field() {
    let good = wire::ic_resp(PLAIN, 0, 8192);
    let with = |at: usize, value: u8| {
        let mut pdu = good.clone();
        pdu[at] = value;
        pdu
    };
    let rows = [
        (with(8, 1), FatalError::InvalidHeaderField(8)),
        (with(10, 32), FatalError::InvalidHeaderField(10)),
        (with(11, 1), FatalError::UnsupportedParameter(11)),
        (with(12, 2), FatalError::InvalidHeaderField(12)),
        (wire::ic_resp(PLAIN, 0, 4092), FatalError::InvalidHeaderField(12)),
        (with(2, 127), FatalError::InvalidHeaderField(2)),
        (with(4, 129), FatalError::InvalidHeaderField(4)),
        (with(0, 0), FatalError::InvalidHeaderField(0)),
        (with(0, 4), FatalError::InvalidHeaderField(0)),
        (wire::response(PLAIN, 0, 0, 0), FatalError::Sequence),
        (wire::r2t(PLAIN, 0, 0, 0, 1), FatalError::Sequence),
    ];
    for (pdu, error) in rows {
        let mut bench = Bench::new(config(SUBNQN));
        bench.connect();
        let ic_req = bench.heard(0).unwrap();
        assert_eq!((ic_req.kind, ic_req.header.len()), (0, 128));
        bench.link(0).initialized = true;
        bench.say(0, &pdu);
        bench.expect_termination(0, error);
        bench.finish();
    }
}

#[test]
fn digests_that_were_asked_for_are_demanded() {
    let all = Digests { header: true, data: true };
    for offered in [PLAIN, Digests { header: true, data: false }] {
        let mut config = config(SUBNQN);
        config.digests = all;
        let mut bench = Bench::new(config);
        bench.connect();
        assert_eq!(bench.heard(0).unwrap().header[11], 3);
        bench.link(0).initialized = true;
        bench.say(0, &wire::ic_resp(offered, 0, 8192));
        bench.expect_termination(0, FatalError::UnsupportedParameter(11));
        bench.finish();
    }
}

#[test]
fn every_step_has_its_time() {
    let steps: [(usize, Stage); 4] =
        [(0, Stage::Tcp), (1, Stage::Initialize), (2, Stage::Connect), (3, Stage::Property)];
    for (answers, stage) in steps {
        let mut bench = Bench::new(config(SUBNQN));
        if answers > 0 {
            bench.connect();
        }
        for _ in 1..answers {
            let pdu = bench.heard(0).unwrap();
            bench.link(0).initialized = true;
            let answer = bench.model.answer(0, &pdu, PLAIN);
            bench.say(0, &answer);
        }
        bench.pass(Duration::from_millis(9_999));
        // A keep alive is due already once Connect was answered, and may be late before the step.
        if bench.events.is_empty() {
            bench.pass(Duration::from_millis(1));
            assert_eq!(bench.lost(), (Why::Timeout(stage), true));
        } else {
            assert_eq!(bench.lost(), (Why::KeepAlive, true));
        }
        bench.finish();
    }
}

#[test]
fn no_buffer_to_connect_with_is_tried_again() {
    for buffers in 0..3 {
        let mut bench = Bench::new(config(SUBNQN));
        bench.refuse();
        bench.lost();
        bench.mem.left = buffers;
        bench.pass(Duration::from_millis(150));
        bench.connect();
        assert_eq!(bench.lost(), (Why::NoMemory, true));
        bench.mem.left = 100;
        bench.pass_served(Duration::from_secs(1));
        bench.take_live();
        bench.finish();
    }
}
