//! Notice of changes: asked for, looked into, told.

use std::time::Duration;

use braid_nvme::DISCOVERY_NQN;
use braid_nvme::host::{Event, Operation, get_features};

use crate::bench::{Bench, PLAIN, SUBNQN, config};
use crate::wire;

const NAMESPACES_CHANGED: u64 = 0x04_00_02;
const DISCOVERY_CHANGED: u64 = 0x70_f0_02;

/// A live host of a target that gives notice of namespaces.
fn watched() -> Bench {
    let mut bench = Bench::new(config(SUBNQN));
    bench.model.identity[92..96].copy_from_slice(&0x1_ff00_u32.to_le_bytes());
    bench.serve();
    bench.take_live();
    bench
}

fn notify(bench: &mut Bench, result: u64) {
    let cid = bench.model.notice_cids.pop().expect("a request for notice");
    bench.say(0, &wire::response(PLAIN, cid, 0, result));
}

/// Log pages read since the beginning, each with whether its notice stays masked.
fn pages(bench: &Bench) -> Vec<(u8, bool)> {
    let reads = bench.model.commands.iter().filter(|pdu| pdu.opcode() == 0x02);
    reads.map(|pdu| (pdu.cdw(10) as u8, pdu.cdw(10) & 1 << 15 != 0)).collect()
}

#[test]
fn only_what_we_look_into_is_asked_for() {
    let mut bench = watched();
    let configured = bench.model.commands.iter().rfind(|pdu| pdu.opcode() == 0x09).unwrap();
    assert_eq!((configured.cdw(10), configured.cdw(11)), (0x0b, 1 << 8 | 1 << 11));
    assert_eq!(bench.model.notice_cids.len(), 1);
    bench.take_nothing();
    bench.finish();
}

#[test]
fn a_change_of_namespaces_is_looked_into_and_told() {
    let mut bench = watched();
    for there in 3..6 {
        bench.model.namespaces.push(there * 100);
        notify(&mut bench, NAMESPACES_CHANGED);
        bench.serve();
        assert_eq!(bench.take_live().namespaces.len(), there as usize);
        bench.take_nothing();
        assert_eq!(bench.model.notice_cids.len(), 1, "the next notice is asked for");
        assert_eq!(pages(&bench).last(), Some(&(0x04, false)));
    }
    bench.finish();
}

#[test]
fn how_namespaces_are_reached_is_read_at_first_and_at_every_notice() {
    let mut bench = Bench::new(config(SUBNQN));
    bench.model.identity[92..96].copy_from_slice(&0x1_ff00_u32.to_le_bytes());
    bench.model.identity[76] |= 1 << 3;
    bench.serve();
    bench.take_live();
    assert_eq!(pages(&bench), [(0x0c, false)]);
    for notices in 1..3 {
        notify(&mut bench, 0x0c_03_02);
        bench.serve();
        bench.take_live();
        assert_eq!(pages(&bench).len(), 1 + notices);
        assert_eq!(pages(&bench).last(), Some(&(0x0c, false)), "the page, and nothing else");
    }
    bench.take_nothing();
    bench.finish();
}

#[test]
fn a_notice_while_one_is_looked_into_is_not_lost() {
    let mut bench = watched();
    notify(&mut bench, NAMESPACES_CHANGED);
    // The next request was sent; it is answered before anything that was read.
    let page = bench.heard(0).unwrap();
    let request = bench.heard(0).unwrap();
    assert_eq!((page.opcode(), request.opcode()), (0x02, 0x0c));
    bench.say(0, &wire::response(PLAIN, request.cid(), 0, NAMESPACES_CHANGED));
    bench.model.namespaces.push(9);
    let answer = bench.model.answer(0, &page, PLAIN);
    bench.say(0, &answer);
    bench.serve();
    assert_eq!(bench.take_live().namespaces.len(), 3);
    assert_eq!(bench.take_live().namespaces.len(), 3);
    bench.finish();
}

#[test]
fn other_notices_are_read_so_that_more_can_come() {
    let mut bench = watched();
    notify(&mut bench, 0x01_03_00);
    bench.serve();
    assert_eq!(pages(&bench), [(0x01, false)]);
    bench.take_nothing();
    bench.finish();
}

#[test]
fn a_target_that_gives_no_notice_is_let_alone() {
    // It does not know the feature; it refuses the request; it has nothing to tell.
    for (oaes, code) in [(1_u32 << 8, 0x09), (1 << 8, 0x0c), (0, 0x18)] {
        let mut bench = Bench::new(config(SUBNQN));
        bench.model.identity[92..96].copy_from_slice(&oaes.to_le_bytes());
        if code == 0x0c {
            bench.model.refuse.insert(code, 0x105);
        }
        bench.serve();
        bench.take_live();
        bench.pass_served(Duration::from_secs(60));
        bench.take_nothing();
        let asked = bench.model.commands.iter().filter(|pdu| pdu.opcode() == 0x0c).count();
        assert!(asked <= 1, "{asked}");
        bench.finish();
    }
}

#[test]
fn a_request_for_notice_waits_for_ever_and_takes_no_slot_from_others() {
    let mut config = config(SUBNQN);
    config.kato = Duration::ZERO;
    let mut bench = Bench::new(config);
    bench.model.identity[93] = 1;
    bench.serve();
    bench.take_live();
    bench.pass(Duration::from_secs(100_000));
    assert_eq!(bench.host.deadline(), None);
    bench.take_nothing();
    let mut taken = 0;
    while bench.try_submit(Operation::Admin(get_features(7, 0, 0)), None, 0).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 29);
    bench.finish();
}

#[test]
fn a_survey_that_fails_changes_nothing() {
    let mut bench = watched();
    bench.model.refuse.insert(0x06, 0x006);
    notify(&mut bench, NAMESPACES_CHANGED);
    bench.serve();
    bench.take_nothing();
    assert!(bench.host.is_live());
    bench.model.refuse.clear();
    notify(&mut bench, NAMESPACES_CHANGED);
    bench.serve();
    bench.take_live();
    bench.finish();
}

#[test]
fn a_namespace_that_vanishes_while_we_look_is_left_out() {
    let mut bench = watched();
    notify(&mut bench, NAMESPACES_CHANGED);
    let mut refused = false;
    while let Some(pdu) = bench.heard(0) {
        let identify = pdu.opcode() == 0x06 && pdu.cdw(10) == 0;
        let answer = if identify && !refused {
            refused = true;
            wire::response(PLAIN, pdu.cid(), 0x00b, 0)
        } else {
            bench.model.answer(0, &pdu, PLAIN)
        };
        bench.say(0, &answer);
    }
    let live = bench.take_live();
    assert_eq!(live.namespaces.iter().map(|n| n.nsid).collect::<Vec<_>>(), [5]);
    bench.finish();
}

#[test]
fn a_change_of_the_discovery_log_is_read_and_told() {
    let mut bench = Bench::new(config(DISCOVERY_NQN));
    bench.model.identity[111] = 2;
    bench.model.identity[95] = 0x80;
    bench.model.log = vec![0; 1024];
    bench.serve();
    bench.take_live();
    assert!(matches!(&bench.events.remove(0), Event::Discovered(log) if log.is_empty()));
    bench.model.log = vec![0; 2048];
    bench.model.log[8] = 1;
    notify(&mut bench, DISCOVERY_CHANGED);
    bench.serve();
    bench.take_live();
    assert!(matches!(&bench.events.remove(0), Event::Discovered(log) if log.len() == 1));
    bench.finish();
}

#[test]
fn closing_does_not_wait_for_notice() {
    for busy in [false, true] {
        let mut bench = watched();
        if busy {
            notify(&mut bench, NAMESPACES_CHANGED);
        }
        bench.host.close(&mut bench.mem, bench.now);
        bench.act();
        bench.serve();
        assert!(matches!(bench.events[..], [Event::Closed]), "{:?}", bench.events);
        bench.finish();
    }
}
