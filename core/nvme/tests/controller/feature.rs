//! Set Features and Get Features (Base 5.15, 5.27).

use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl};
use braid_nvme::target::{Admin, Kind, NamespaceFeature};

use crate::fixture::{HOSTID, Target, connect, get_feature, set_feature};

const INVALID: Status = Status::INVALID_FIELD.dnr();
/// SEL of Get Features.
const DEFAULT: u32 = 1 << 8;
const SAVED: u32 = 2 << 8;
const CAPABILITIES: u32 = 3 << 8;

#[test]
fn a_value_that_was_set_is_the_current_one_and_the_default_stays() {
    // (FID, default, set to, then)
    let rows = [
        (0x01, 0, 0x0101_0107, 0x0101_0107),
        (0x02, 0, 0, 0),
        (0x04, 343, 0x160, 0x160),
        (0x05, 0, 100, 100),
        (0x06, 1, 0, 0),
        (0x07, 0x000f_000f, 0x0003_0003, 0x0003_0003),
        (0x08, 0, 0x0102, 0x0102),
        (0x09, 0, 0x1_0003, 0x1_0003),
        (0x0a, 0, 1, 1),
        (0x0b, 0, 0x100, 0x100),
        (0x0f, 5_000, 10_000, 10_000),
    ];
    for (fid, default, value, then) in rows {
        let mut target = Target::ready(Kind::Io);
        assert_eq!(target.send(&get_feature(fid, 0)).result, default, "{fid:02x}h");
        assert!(target.send(&set_feature(fid, value)).status.is_success(), "{fid:02x}h");
        assert_eq!(target.send(&get_feature(fid, 0)).result, then, "{fid:02x}h");
        if fid != 0x0f {
            assert_eq!(target.send(&get_feature(fid | DEFAULT, 0)).result, default, "{fid:02x}h");
            assert_eq!(target.send(&get_feature(fid | SAVED, 0)).result, default, "{fid:02x}h");
        }
        let capabilities = target.send(&get_feature(fid | CAPABILITIES, 0)).result;
        assert_eq!(capabilities, 0b100, "{fid:02x}h: changeable, not saveable");
    }
}

#[test]
fn a_wrong_value_is_refused() {
    let rows = [
        (0x02, 1, INVALID),
        (0x04, 1 << 16, INVALID),
        (0x04, 2 << 20, INVALID),
        (0x05, 1 << 16, INVALID),
        (0x07, 0xffff_0001, INVALID),
        (0x07, 0x0001_ffff, INVALID),
        (0x0f, 0, Status::KEEP_ALIVE_INVALID.dnr()),
        (0x81, 1, Status::SEQUENCE_ERROR.dnr()),
    ];
    for (fid, value, status) in rows {
        let mut target = Target::ready(Kind::Io);
        assert_eq!(target.send(&set_feature(fid, value)).status, status, "{fid:02x}h");
    }
}

#[test]
fn an_unknown_feature_is_an_invalid_field() {
    let mut target = Target::ready(Kind::Io);
    for fid in [0x00, 0x03, 0x0c, 0x0d, 0x0e, 0x10, 0x11, 0x7f, 0x80, 0x84, 0xc0] {
        assert_eq!(target.send(&get_feature(fid, 4096)).status, INVALID, "get {fid:02x}h");
        assert_eq!(target.send(&set_feature(fid, 0)).status, INVALID, "set {fid:02x}h");
    }
}

#[test]
fn the_features_of_a_namespace_are_left_to_it() {
    use NamespaceFeature::{ReservationMask, ReservationPersistence};
    for (fid, feature) in [(0x82, ReservationMask), (0x83, ReservationPersistence)] {
        let mut target = Target::ready(Kind::Io);
        let mut set = set_feature(fid, 5);
        set.nsid.set(7);
        let admin = Admin::Feature { nsid: 7, feature, value: Some(5) };
        assert_eq!(target.send(&set).admin, Some(admin));
        let mut get = get_feature(fid, 0);
        get.nsid.set(7);
        let admin = Admin::Feature { nsid: 7, feature, value: None };
        assert_eq!(target.send(&get).admin, Some(admin));
        assert_eq!(target.send(&get_feature(fid | DEFAULT, 0)).result, 0);
        let capabilities = target.send(&get_feature(fid | CAPABILITIES, 0)).result;
        assert_eq!(capabilities, 0b110, "{fid:02x}h: changeable, of a namespace");
        let status = target.send(&set_feature(fid | 1 << 31, 0)).status;
        assert_eq!(status, Status::FEATURE_NOT_SAVEABLE.dnr());
    }
}

#[test]
fn nothing_can_be_saved() {
    let mut target = Target::ready(Kind::Io);
    let status = target.send(&set_feature(0x06 | 1 << 31, 0)).status;
    assert_eq!(status, Status::FEATURE_NOT_SAVEABLE.dnr());
    assert_eq!(target.send(&get_feature(0x06, 0)).result, 1);
}

#[test]
fn a_reserved_selection_is_an_invalid_field() {
    let mut target = Target::ready(Kind::Io);
    for select in 4..8 {
        assert_eq!(target.send(&get_feature(0x06 | select << 8, 0)).status, INVALID);
    }
}

#[test]
fn features_are_the_controllers_not_a_namespaces() {
    let mut target = Target::ready(Kind::Io);
    for (nsid, status) in [
        (0, Status::SUCCESS),
        (u32::MAX, Status::SUCCESS),
        (1, Status::FEATURE_NOT_NAMESPACE_SPECIFIC.dnr()),
    ] {
        let command = Command { nsid: nsid.into(), ..set_feature(0x06, 1) };
        assert_eq!(target.send(&command).status, status, "{nsid:x}h");
    }
    let command = Command { nsid: 1.into(), ..get_feature(0x06, 0) };
    assert!(target.send(&command).status.is_success(), "but may be asked for through one");
}

#[test]
fn queues_are_granted_as_asked_for_up_to_the_limit() {
    let rows = [
        (0x0000_0000, 0x0000_0000),
        (0x0003_0003, 0x0003_0003),
        (0x000f_000f, 0x000f_000f),
        (0x0010_0010, 0x000f_000f),
        (0xfffe_fffe, 0x000f_000f),
        (0x0001_0007, 0x0001_0001),
    ];
    for (asked, granted) in rows {
        let mut target = Target::ready(Kind::Io);
        assert_eq!(target.send(&set_feature(0x07, asked)).result, granted, "{asked:08x}h");
        assert_eq!(target.send(&get_feature(0x07, 0)).result, granted, "{asked:08x}h");
    }
}

#[test]
fn no_more_queues_are_granted_than_connections_are_left_for_but_one_always() {
    for (spare, granted) in [(100, 16), (16, 16), (5, 5), (1, 1), (0, 1)] {
        let mut target = Target::ready(Kind::Io);
        target.controller.set_spare(spare);
        let result = target.send(&set_feature(0x07, 0x001f_001f)).result;
        assert_eq!(result, (granted - 1) | (granted - 1) << 16, "{spare} left");
    }
}

#[test]
fn a_queue_beyond_those_granted_is_refused() {
    let mut target = Target::ready(Kind::Io);
    target.send(&set_feature(0x07, 0x0001_0001));
    assert!(target.controller.admit(&connect(2)).is_ok());
    assert_eq!(target.controller.admit(&connect(3)).unwrap_err().status, Status::INVALID_QUEUE_ID);
}

#[test]
fn the_number_of_queues_is_settled_once_one_is_connected() {
    let mut target = Target::ready(Kind::Io);
    target.controller.admit(&connect(1)).unwrap();
    let status = target.send(&set_feature(0x07, 0)).status;
    assert_eq!(status, Status::SEQUENCE_ERROR.dnr());
    target.controller.leave(1);
    assert!(target.send(&set_feature(0x07, 0)).status.is_success());
}

#[test]
fn the_keep_alive_timeout_is_in_milliseconds_and_rounded_up() {
    let mut target = Target::ready(Kind::Io);
    for (set, then) in [(1, 1_000), (1_001, 2_000), (u32::MAX, u64::from(u32::MAX))] {
        target.send(&set_feature(0x0f, set));
        assert_eq!(target.send(&get_feature(0x0f, 0)).result, then);
    }
}

#[test]
fn a_discovery_host_may_do_without_keep_alive() {
    let mut target = Target::ready(Kind::Discovery);
    assert!(target.send(&set_feature(0x0f, 0)).status.is_success());
    assert_eq!(target.send(&get_feature(0x0f, 0)).result, 0);
}

#[test]
fn events_that_there_are_not_cannot_be_enabled() {
    for (kind, expected) in [(Kind::Io, 0x0000_09ff), (Kind::Discovery, 0x8000_0000)] {
        let mut target = Target::ready(kind);
        assert!(target.send(&set_feature(0x0b, u32::MAX)).status.is_success());
        assert_eq!(target.send(&get_feature(0x0b, 0)).result, expected);
    }
}

#[test]
fn each_temperature_threshold_is_its_own() {
    let mut target = Target::ready(Kind::Io);
    let under = 1 << 20;
    target.send(&set_feature(0x04, under | 280));
    for (selected, expected) in [(0, 343), (under, 280)] {
        let mut get = get_feature(0x04, 0);
        get.set_cdw(11, selected);
        assert_eq!(target.send(&get).result, expected);
    }
}

#[test]
fn host_behaviour_is_set_and_read_as_512_bytes() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(target.send(&get_feature(0x16, 512)).data, [0; 512]);
    for sgl in [Sgl::in_capsule(512), Sgl::transport(512)] {
        let set = Command { sgl, ..set_feature(0x16, 0) };
        let mut data = [0; 512];
        data[0] = 1;
        assert!(target.send_with(&set, &data).status.is_success());
        assert_eq!(target.send(&get_feature(0x16, 512)).data, data);
        assert_eq!(target.send(&get_feature(0x16 | DEFAULT, 512)).data, [0; 512]);
    }
    assert_eq!(target.send(&get_feature(0x16 | CAPABILITIES, 0)).result, 0b100);
    assert_eq!(target.send(&get_feature(0x16, 511)).status, Status::SGL_LENGTH_INVALID.dnr());
    let short = Command { sgl: Sgl::in_capsule(511), ..set_feature(0x16, 0) };
    assert_eq!(target.send(&short).status, Status::SGL_LENGTH_INVALID.dnr());
}

#[test]
fn the_host_identifier_is_the_one_of_connect_in_128_bits() {
    let mut target = Target::ready(Kind::Io);
    let mut get = get_feature(0x81, 16);
    assert_eq!(target.send(&get).status, Status::HOST_ID_INCONSISTENT.dnr());
    get.set_cdw(11, 1);
    assert_eq!(target.send(&get).data, HOSTID);
    let capabilities = target.send(&get_feature(0x81 | CAPABILITIES, 0));
    assert_eq!(capabilities.result, 0, "not changeable");
}
