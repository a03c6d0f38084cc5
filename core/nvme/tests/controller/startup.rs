//! What hosts do when they connect, step by step, as it was seen: newer Linux, older Linux, SPDK.

use braid_nvme::command::{Command, admin};
use braid_nvme::property::{Capabilities, Configuration, ControllerStatus, Property};
use braid_nvme::target::{Admin, Kind};

use crate::fixture::{
    CNTLID, Reply, Target, connect, get_feature, identify, log, set_feature, u16_at, u32_at,
};

const ALL: u32 = u32::MAX;

fn good(reply: Reply) -> Reply {
    assert!(reply.status.is_success(), "{}", reply.status);
    reply
}

fn enable(target: &mut Target) {
    good(target.configure(Configuration::ENABLE));
    let csts = ControllerStatus::from_wire(target.property(Property::Status) as u32);
    assert!(csts.ready() && !csts.fatal());
}

/// Why Linux refuses a controller: every reason there is, in one place.
fn linux_accepts(id: &[u8], kind: Kind) {
    assert_eq!(u16_at(id, 78), CNTLID, "CNTLID is the one of the Connect response");
    assert_ne!(u16_at(id, 320), 0, "keep alive support is mandatory");
    assert!(u32_at(id, 1792) >= 4, "IOCCSZ");
    assert!(u32_at(id, 1796) >= 1, "IORCSZ");
    assert_eq!(u16_at(id, 1800), 0, "ICDOFF");
    assert_ne!(u32_at(id, 536) & 3, 0, "SGLS");
    assert_ne!(id[76] & 2, 0, "CMIC, for a second controller");
    if id[76] & 8 != 0 {
        let (nn, mnan) = (u32_at(id, 516), u32_at(id, 540));
        assert!(mnan != 0 && mnan <= nn, "with ANA, MNAN");
        assert!(ana_log_bytes(id) <= 4096 << id[77], "or it does without ANA");
    }
    assert_ne!(u16_at(id, 514), 0, "MAXCMD");
    assert_ne!(id[768], 0, "SUBNQN");
    assert_eq!(id[111], if kind == Kind::Discovery { 2 } else { 1 }, "CNTRLTYPE");
}

/// As many bytes as Linux sets aside for the ANA log, and asks for.
fn ana_log_bytes(id: &[u8]) -> u32 {
    16 + 32 * u32_at(id, 348) + 4 * u32_at(id, 540)
}

/// What Linux checks of the ANA log, and refuses all of it for.
fn linux_reads_ana(target: &mut Target, id: &[u8]) {
    let bytes = ana_log_bytes(id);
    let log = good(target.send(&log(0x0c, ALL, 0, bytes))).data;
    let mut at = 16;
    for _ in 0..u16_at(&log, 8) {
        let (group, count) = (u32_at(&log, at), u32_at(&log, at + 4) as usize);
        assert!((1..=u32_at(id, 344)).contains(&group), "ANAGRPID within ANAGRPMAX");
        assert!(matches!(log[at + 16], 1..=4 | 15), "a state that there is");
        let ids: Vec<u32> = (0..count).map(|n| u32_at(&log, at + 32 + 4 * n)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "NSIDs ascend");
        at += 32 + 4 * count;
    }
    assert!(at <= bytes as usize, "it ends inside the buffer");
}

fn four_queues(target: &mut Target) {
    let granted = good(target.send(&set_feature(0x07, 0x0003_0003)));
    assert_eq!(granted.result, 0x0003_0003);
    for qid in 1..=4 {
        target.controller.admit(&connect(qid)).unwrap();
    }
}

/// Sets the events up as Linux does: those of OAES that it knows, then one request.
fn linux_events(target: &mut Target, oaes: u32) {
    good(target.send(&set_feature(0x0b, oaes & (1 << 8 | 1 << 9 | 1 << 11 | 1 << 31))));
    assert_eq!(target.request_event(31).admin, Some(Admin::Held));
}

fn linux_scan(target: &mut Target) {
    assert_eq!(u32_at(&good(target.send(&identify(2, 0))).data, 0), 1);
    good(target.send(&identify(3, 1)));
    good(target.send(&identify(0, 1)));
    assert_eq!(u32_at(&good(target.send(&identify(2, 1))).data, 0), 0, "no more");
}

fn linux_teardown(target: &mut Target) {
    for qid in 1..=4 {
        target.controller.leave(qid);
    }
    assert_eq!(target.configure(Configuration::SHUTDOWN).admin, Some(Admin::Shutdown));
    target.controller.shutdown_done();
    assert!(ControllerStatus::from_wire(target.property(Property::Status) as u32).shut_down());
}

#[test]
fn linux_6_18_starts_and_stops() {
    let mut target = Target::connected(Kind::Io);
    let cap = Capabilities::from_wire(target.property(Property::Capabilities));
    assert!(cap.allows_4k_pages() && cap.has_nvm_command_set());
    assert_eq!(cap.to_wire() >> 43 & 1, 0, "one command set: CC.CSS stays 0");
    assert_eq!(cap.to_wire() >> 59 & 3, 0, "no CRTO to read");
    good(target.configure(Configuration::from_wire(0x0046_0000)));
    assert_eq!(Capabilities::from_wire(target.property(Property::Capabilities)), cap);
    enable(&mut target);
    assert!(target.property(Property::Version) < 0x0002_0000, "no CNS 08h is asked for");
    let id = good(target.send(&identify(1, 0))).data;
    linux_accepts(&id, Kind::Io);
    assert_ne!(id[261] & 2, 0, "LPA: so it reads the effects");
    good(target.send(&log(0x05, 0, 0, 4096)));
    linux_reads_ana(&mut target, &id);
    assert_eq!(u16_at(&id, 520) & 1 << 6, 0, "no timestamp to set");
    assert_eq!((u16_at(&id, 128), u16_at(&id, 256) & 1), (0, 0), "no CRDT, no security");
    good(target.send(&log(0x02, ALL, 0, 512)));
    for select in [0, 1 << 20] {
        let mut threshold = get_feature(0x04, 0);
        threshold.set_cdw(11, select);
        good(target.send(&threshold));
    }
    good(target.send(&Command::new(admin::KEEP_ALIVE, 0)));
    four_queues(&mut target);
    linux_events(&mut target, u32_at(&id, 92));
    good(target.send(&identify(6, 0)));
    linux_scan(&mut target);
    linux_teardown(&mut target);
}

#[test]
fn linux_5_15_starts_and_stops() {
    let mut target = Target::connected(Kind::Io);
    target.property(Property::Capabilities);
    enable(&mut target);
    target.property(Property::Version);
    let id = good(target.send(&identify(1, 0))).data;
    linux_accepts(&id, Kind::Io);
    good(target.send(&log(0x05, 0, 0, 4096)));
    linux_reads_ana(&mut target, &id);
    four_queues(&mut target);
    linux_events(&mut target, u32_at(&id, 92));
    linux_scan(&mut target);
    linux_teardown(&mut target);
}

#[test]
fn spdk_starts() {
    let mut target = Target::connected(Kind::Io);
    target.property(Property::Version);
    target.property(Property::Capabilities);
    assert_eq!(target.property(Property::Configuration) & 1, 0, "not enabled yet");
    enable(&mut target);
    let id = good(target.send(&identify(1, 0))).data;
    good(target.send(&set_feature(0x0b, u32_at(&id, 92) | 0xff)));
    for cid in 0..=u16::from(id[259]) {
        assert_eq!(target.request_event(cid).admin, Some(Admin::Held));
    }
    assert_eq!(good(target.send(&get_feature(0x0f, 0))).result, 5_000, "or it gives up");
    four_queues(&mut target);
    assert_eq!(u32_at(&good(target.send(&identify(2, 0))).data, 0), 1);
    good(target.send(&identify(0, 1)));
    good(target.send(&identify(3, 1)));
}

#[test]
fn linux_resets_and_starts_again() {
    let mut target = Target::ready(Kind::Io);
    four_queues(&mut target);
    linux_events(&mut target, 1 << 8);
    assert_eq!(target.configure(Configuration::from_wire(0x0046_0000)).admin, Some(Admin::Reset));
    for qid in 1..=4 {
        target.controller.leave(qid);
    }
    assert_eq!(target.controller.take_event_requests().as_slice(), [31]);
    target.controller.reset_done();
    assert_eq!(target.property(Property::Status), 0);
    enable(&mut target);
    four_queues(&mut target);
}

#[test]
fn linux_discovers() {
    let mut target = Target::connected(Kind::Discovery);
    target.property(Property::Capabilities);
    enable(&mut target);
    target.property(Property::Version);
    let id = good(target.send(&identify(1, 0))).data;
    linux_accepts(&id, Kind::Discovery);
    linux_events(&mut target, u32_at(&id, 92));
    let head = good(target.send(&log(0x70, 0, 0, 1024))).data;
    assert_eq!(head[8], 1);
    good(target.send(&log(0x70, 0, 1024, 4096)));
    linux_teardown(&mut target);
}
