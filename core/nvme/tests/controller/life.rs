//! Properties, and the life they drive: enable, reset, shutdown, I/O queues (Base 3.1.3, 3.5, 3.6,
//! 6.3 to 6.5).

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::connect::{Connect, Parameter, Refusal};
use braid_nvme::property::{Configuration, Property};
use braid_nvme::target::{Admin, Controller, ControllerLimits, Kind, State};

use crate::fixture::{
    CNTLID, HOSTID, LIMITS, Target, connect, get_feature, identify, log, nqn, set_feature,
};

/// CSTS: RDY, CFS, SHST.
const RDY: u64 = 1;
const CFS: u64 = 2;
const SHUTTING_DOWN: u64 = 1 << 2;
const SHUT_DOWN: u64 = 2 << 2;

fn csts(target: &mut Target) -> u64 {
    target.property(Property::Status)
}

#[test]
fn properties_read_what_the_controller_is() {
    let mut target = Target::connected(Kind::Io);
    assert_eq!(target.property(Property::Capabilities), 0x0000_0020_1e01_007f);
    assert_eq!(target.property(Property::Version), 0x0001_0400);
    assert_eq!(target.property(Property::Configuration), 0);
    assert_eq!(target.property(Property::Status), 0);
}

#[test]
fn a_property_that_is_not_there_or_not_writable_is_an_invalid_field() {
    let mut target = Target::connected(Kind::Io);
    for property in [Property::Capabilities, Property::Version, Property::Status] {
        assert_eq!(target.send(&property.set(1)).status, Status::INVALID_FIELD.dnr());
    }
    let mut nssr = Property::Configuration.set(0x4e56_4d65);
    nssr.set_cdw(11, 0x20);
    assert_eq!(target.send(&nssr).status, Status::INVALID_FIELD.dnr());
}

#[test]
fn enabling_makes_a_controller_ready() {
    let mut target = Target::connected(Kind::Io);
    assert!(target.configure(Configuration::ENABLE).status.is_success());
    assert_eq!(csts(&mut target), RDY);
    assert_eq!(target.property(Property::Configuration), 0x0046_0001);
}

#[test]
fn a_configuration_written_before_it_is_enabled_changes_nothing() {
    // As newer Linux does, to choose a command set first.
    let mut target = Target::connected(Kind::Io);
    target.configure(Configuration::from_wire(0x0046_0000));
    assert_eq!(csts(&mut target), 0);
    target.configure(Configuration::ENABLE);
    assert_eq!(csts(&mut target), RDY);
}

#[test]
fn enabling_with_what_is_not_offered_is_fatal() {
    let wrong = [
        ("IOSQES", 0x0045_0001),
        ("IOCQES", 0x0036_0001),
        ("no entry sizes", 0x0000_0001),
        ("MPS", 0x0046_0081),
        ("AMS", 0x0046_0801),
        ("CSS 110b", 0x0046_0061),
        ("CSS 111b", 0x0046_0071),
    ];
    for (what, cc) in wrong {
        let mut target = Target::connected(Kind::Io);
        assert!(target.configure(Configuration::from_wire(cc)).status.is_success());
        assert_eq!(csts(&mut target), CFS, "{what}");
        assert_eq!(target.send(&identify(1, 0)).status, Status::SEQUENCE_ERROR.dnr());
        target.configure(Configuration::from_wire(cc | 1 << 14));
        target.controller.shutdown_done();
        assert_eq!(csts(&mut target) & SHUT_DOWN, SHUT_DOWN, "{what}: may be shut down as it is");
    }
}

#[test]
fn a_discovery_controller_has_no_queue_entries_to_size() {
    let mut target = Target::connected(Kind::Discovery);
    target.configure(Configuration::from_wire(1));
    assert_eq!(csts(&mut target), RDY);
}

#[test]
fn after_a_fatal_status_a_reset_leads_back() {
    let mut target = Target::connected(Kind::Io);
    target.configure(Configuration::from_wire(1));
    assert_eq!(target.configure(Configuration::default()).admin, Some(Admin::Reset));
    target.controller.reset_done();
    target.configure(Configuration::ENABLE);
    assert_eq!(csts(&mut target), RDY);
}

#[test]
fn ready_falls_when_the_last_io_of_a_reset_controller_is_done() {
    let mut target = Target::ready(Kind::Io);
    target.controller.admit(&connect(1)).unwrap();
    let disabled = Configuration::from_wire(0x0046_0000);
    assert_eq!(target.configure(disabled).admin, Some(Admin::Reset));
    assert_eq!(csts(&mut target), RDY, "I/O may still be going on");
    assert_eq!(target.send(&identify(1, 0)).status, Status::SEQUENCE_ERROR.dnr());
    target.controller.leave(1);
    target.controller.reset_done();
    assert_eq!(csts(&mut target), 0);
}

#[test]
fn a_reset_forgets_features_but_not_the_host() {
    let mut target = Target::ready(Kind::Io);
    target.send(&set_feature(0x06, 0));
    target.send(&set_feature(0x0b, 0x100));
    target.send(&set_feature(0x07, 0));
    target.send(&set_feature(0x0f, 30_000));
    target.request_event(7);
    target.controller.namespace_changed(1);
    target.configure(Configuration::default());
    assert_eq!(target.controller.take_event_requests().as_slice(), [7]);
    target.controller.reset_done();
    target.configure(Configuration::ENABLE);
    for (fid, value) in [(0x06, 1), (0x0b, 0), (0x07, 0x000f_000f), (0x0f, 30_000)] {
        assert_eq!(target.send(&get_feature(fid, 0)).result, value, "{fid:02x}h");
    }
    assert_eq!(target.controller.hostid(), &HOSTID);
    target.send(&set_feature(0x0b, 0x100));
    target.request_event(8);
    assert_eq!(target.controller.next_event(), None);
    assert_eq!(target.send(&log(0x04, 0, 0, 4096)).data, [0; 4096]);
}

#[test]
fn a_shutdown_is_complete_when_caches_are_flushed() {
    for notification in [1 << 14, 2 << 14] {
        let mut target = Target::ready(Kind::Io);
        let cc = Configuration::from_wire(0x0046_0001 | notification);
        assert_eq!(target.configure(cc).admin, Some(Admin::Shutdown));
        assert_eq!(csts(&mut target), RDY | SHUTTING_DOWN);
        assert!(target.controller.admit(&connect(1)).is_err(), "no new queue");
        target.controller.shutdown_done();
        assert_eq!(csts(&mut target), RDY | SHUT_DOWN);
        assert_ne!(target.configure(cc).admin, Some(Admin::Shutdown), "once is enough");
    }
}

#[test]
fn a_controller_that_is_not_enabled_is_shut_down_at_once() {
    let mut target = Target::connected(Kind::Io);
    target.configure(Configuration::from_wire(1 << 14));
    assert_eq!(csts(&mut target), SHUT_DOWN);
}

#[test]
fn a_controller_can_be_disabled_and_shut_down_in_one_write() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(target.configure(Configuration::from_wire(1 << 14)).admin, Some(Admin::Reset));
    target.controller.reset_done();
    assert_eq!(csts(&mut target), SHUT_DOWN);
    target.configure(Configuration::default());
    target.configure(Configuration::ENABLE);
    assert_eq!(csts(&mut target), RDY, "and used again");
}

#[test]
fn the_keep_alive_timeout_is_rounded_up_to_a_second() {
    let rows = [
        (Kind::Io, 5_000, Some(5)),
        (Kind::Io, 1, Some(1)),
        (Kind::Io, 1_001, Some(2)),
        (Kind::Io, 0, None),
        // A host that only looks may stay two minutes.
        (Kind::Discovery, 0, Some(120)),
        // One that stays keeps itself alive, as often as it said.
        (Kind::Discovery, 5_000, Some(5)),
        (Kind::Discovery, 300_000, Some(300)),
    ];
    for (kind, kato, expected) in rows {
        let connect = Connect { kato: Duration::from_millis(kato), ..connect(0) };
        let controller = Controller::new(kind, CNTLID, &connect, LIMITS);
        assert_eq!(controller.keep_alive(), expected.map(Duration::from_secs), "{kind:?} {kato}");
    }
}

#[test]
fn after_a_shutdown_the_host_may_stay_silent_for_two_minutes() {
    let mut target = Target::ready(Kind::Io);
    target.configure(Configuration::SHUTDOWN);
    assert_eq!(target.controller.keep_alive(), Some(Duration::from_secs(5)));
    target.controller.shutdown_done();
    assert_eq!(target.controller.keep_alive(), Some(Duration::from_secs(120)));
}

#[test]
fn a_queue_is_refused_for_the_parameter_that_is_wrong() {
    let wrong = |parameter| Err(Refusal::parameter(parameter));
    // Offset 15:0, and bit 16 where it is one of the data (Fabrics 3.3.1).
    for (parameter, result) in [
        (Parameter::QueueId, 42),
        (Parameter::QueueSize, 44),
        (Parameter::ControllerId, 0x1_0010),
        (Parameter::Subsystem, 0x1_0100),
        (Parameter::Host, 0x1_0200),
    ] {
        assert_eq!(Refusal::parameter(parameter).result, result, "{parameter:?}");
    }
    let rows = [
        ("right", connect(1), Ok(())),
        ("other host", Connect { hostnqn: nqn("x"), ..connect(1) }, wrong(Parameter::ControllerId)),
        ("other id", Connect { hostid: [1; 16], ..connect(1) }, wrong(Parameter::ControllerId)),
        ("admin queue", Connect { qid: 0, ..connect(1) }, wrong(Parameter::QueueId)),
        ("too long", Connect { entries: 129, ..connect(1) }, wrong(Parameter::QueueSize)),
        ("too many", connect(17), Err(Refusal::new(Status::INVALID_QUEUE_ID))),
        ("far too many", connect(u16::MAX), Err(Refusal::new(Status::INVALID_QUEUE_ID))),
    ];
    for (what, connect, expected) in rows {
        let mut target = Target::ready(Kind::Io);
        assert_eq!(target.controller.admit(&connect), expected, "{what}");
        assert_eq!(target.controller.has_queues(), expected.is_ok(), "{what}");
    }
}

#[test]
fn a_refused_queue_may_be_tried_again() {
    // Linux gives a controller up when a Connect fails with DNR.
    let mut target = Target::ready(Kind::Io);
    for connect in [connect(17), Connect { entries: 129, ..connect(1) }] {
        assert!(!target.controller.admit(&connect).unwrap_err().status.do_not_retry());
    }
}

#[test]
fn a_queue_is_connected_once_at_a_time() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(target.controller.admit(&connect(1)), Ok(()));
    let taken = Err(Refusal::new(Status::SEQUENCE_ERROR));
    assert_eq!(target.controller.admit(&connect(1)), taken);
    assert_eq!(target.controller.admit(&connect(2)), Ok(()));
    target.controller.leave(1);
    assert_eq!(target.controller.admit(&connect(1)), Ok(()));
}

#[test]
fn there_are_no_queues_before_enable_nor_on_a_discovery_controller() {
    let refused = Err(Refusal::parameter(Parameter::QueueId));
    assert_eq!(Target::connected(Kind::Io).controller.admit(&connect(1)), refused);
    assert_eq!(Target::ready(Kind::Discovery).controller.admit(&connect(1)), refused);
}

#[test]
fn every_queue_that_can_be_granted_can_be_connected() {
    let limits = ControllerLimits { io_queues: 127, ..LIMITS };
    let mut target = Target::connected(Kind::Io);
    target.controller = Controller::new(Kind::Io, CNTLID, &connect(0), limits);
    target.configure(Configuration::ENABLE);
    for qid in 1..=127 {
        assert_eq!(target.controller.admit(&connect(qid)), Ok(()), "{qid}");
    }
    for qid in 0..=u16::MAX {
        target.controller.leave(qid);
    }
    assert!(!target.controller.has_queues());
    assert_eq!(target.controller.state(), State::Ready);
}
