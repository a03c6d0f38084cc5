//! Asynchronous events (Base 5.2).

use braid_nvme::Status;
use braid_nvme::property::Configuration;
use braid_nvme::target::reservation::Notification;
use braid_nvme::target::{Admin, Kind, Notice};

use crate::fixture::{Target, log, set_feature};

const NAMESPACE_CHANGED: (u16, u32) = (1, 0x04_00_02);

/// A controller whose host wants to know of namespaces and asked once.
fn asked() -> Target {
    let mut target = Target::ready(Kind::Io);
    target.send(&set_feature(0x0b, 1 << 8));
    assert_eq!(target.request_event(1).admin, Some(Admin::Held));
    target
}

#[test]
fn four_requests_may_wait_and_a_fifth_is_one_too_many() {
    let mut target = Target::ready(Kind::Io);
    for cid in 0..4 {
        assert_eq!(target.request_event(cid).admin, Some(Admin::Held));
    }
    assert_eq!(target.request_event(4).status, Status::ASYNC_EVENT_LIMIT.dnr());
    assert_eq!(target.controller.take_event_requests().as_slice(), [0, 1, 2, 3]);
    assert_eq!(target.request_event(5).admin, Some(Admin::Held));
}

#[test]
fn a_change_answers_a_request() {
    let mut target = asked();
    assert_eq!(target.controller.next_event(), None);
    target.controller.namespace_changed(3);
    assert_eq!(target.controller.next_event(), Some(NAMESPACE_CHANGED));
    assert_eq!(target.controller.next_event(), None);
}

#[test]
fn a_host_that_did_not_ask_to_be_told_is_not() {
    let mut target = Target::ready(Kind::Io);
    target.request_event(1);
    target.controller.namespace_changed(3);
    target.controller.raise(Notice::DiscoveryLog);
    assert_eq!(target.controller.next_event(), None);
}

#[test]
fn a_reported_change_is_masked_until_its_page_is_read_without_rae() {
    let mut target = asked();
    target.controller.namespace_changed(3);
    assert_eq!(target.controller.next_event(), Some(NAMESPACE_CHANGED));
    target.request_event(1);
    target.controller.namespace_changed(4);
    assert_eq!(target.controller.next_event(), None);
    let mut retain = log(0x04, u32::MAX, 0, 4096);
    retain.set_cdw(10, retain.cdw(10) | 1 << 15);
    target.send(&retain);
    assert_eq!(target.controller.next_event(), None, "RAE keeps the mask");
    target.send(&log(0x04, u32::MAX, 0, 4096));
    assert_eq!(target.controller.next_event(), Some(NAMESPACE_CHANGED), "the change since");
}

#[test]
fn a_discovery_host_is_told_of_its_log() {
    let mut target = Target::ready(Kind::Discovery);
    target.send(&set_feature(0x0b, 1 << 31));
    target.controller.raise(Notice::DiscoveryLog);
    target.request_event(9);
    assert_eq!(target.controller.next_event(), Some((9, 0x70_f0_02)));
    target.send(&log(0x70, 0, 0, 1024));
    target.controller.raise(Notice::DiscoveryLog);
    target.request_event(9);
    assert_eq!(target.controller.next_event(), Some((9, 0x70_f0_02)));
}

#[test]
fn a_reservation_notice_is_told_unless_there_is_nobody_to_hear_it() {
    let mut target = Target::ready(Kind::Io);
    target.request_event(1);
    target.request_event(2);
    target.controller.reservation_notice(Notification::RegistrationPreempted, 3);
    target.controller.reservation_notice(Notification::ReservationReleased, 3);
    assert_eq!(target.controller.next_event(), Some((1, 0x80_00_06)));
    assert_eq!(target.controller.next_event(), None, "masked until the page is read");
    let first = target.send(&log(0x80, 0, 0, 64)).data;
    assert_eq!((first[0], &first[8..16]), (1, &[1, 1, 0, 0, 3, 0, 0, 0][..]));
    assert_eq!(target.controller.next_event(), Some((2, 0x80_00_06)), "there is another");
    let second = target.send(&log(0x80, 0, 0, 64)).data;
    assert_eq!((second[0], &second[8..16]), (2, &[2, 0, 0, 0, 3, 0, 0, 0][..]));
    assert_eq!(target.send(&log(0x80, 0, 0, 64)).data, [0; 64]);
    assert_eq!(target.controller.next_event(), None);
}

#[test]
fn a_reservation_notice_that_is_retained_stays() {
    let mut target = Target::ready(Kind::Io);
    target.controller.reservation_notice(Notification::ReservationPreempted, 1);
    let mut retaining = log(0x80, 0, 0, 64);
    retaining.set_cdw(10, retaining.cdw(10) | 1 << 15);
    for _ in 0..2 {
        assert_eq!(target.send(&retaining).data[8], 3);
    }
    target.configure(Configuration::default());
    target.controller.reset_done();
    target.configure(Configuration::ENABLE);
    assert_eq!(target.send(&log(0x80, 0, 0, 64)).data, [0; 64], "a reset forgets it");
}
