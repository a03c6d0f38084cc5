//! Get Log Page (Base 5.16).

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::command::{Command, admin, io};
use braid_nvme::target::{Counters, FailedCommand, Kind};

use crate::fixture::{Target, log, u16_at, u32_at, u64_at};

const ALL: u32 = u32::MAX;

fn page(target: &mut Target, lid: u8, len: u32) -> Vec<u8> {
    let reply = target.send(&log(lid, ALL, 0, len));
    assert!(reply.status.is_success(), "page {lid:02x}h: {}", reply.status);
    reply.data
}

/// The same with the event retained.
fn retaining(mut command: Command) -> Command {
    command.set_cdw(10, command.cdw(10) | 1 << 15);
    command
}

#[test]
fn supported_pages_are_those_that_are_answered() {
    for (kind, expected) in
        [(Kind::Io, vec![0, 1, 2, 3, 4, 5, 0x0c, 0x80]), (Kind::Discovery, vec![0, 1, 0x70])]
    {
        let mut target = Target::ready(kind);
        let answered: Vec<usize> = (0..=255)
            .filter(|&lid| target.send(&log(lid, 0, 0, 4)).status.is_success())
            .map(usize::from)
            .collect();
        assert_eq!(answered, expected);
        let pages = page(&mut target, 0, 1024);
        let supported: Vec<usize> =
            (0..256).filter(|lid| u32_at(&pages, lid * 4) & 1 != 0).collect();
        assert_eq!(supported, expected);
    }
}

#[test]
fn an_unknown_page_is_an_invalid_log_page() {
    let mut target = Target::ready(Kind::Io);
    for lid in [0x06, 0x0b, 0x0d, 0x70, 0x81, 0xc9] {
        let status = target.send(&log(lid, ALL, 0, 512)).status;
        assert_eq!(status, Status::INVALID_LOG_PAGE.dnr(), "{lid:02x}h");
    }
}

#[test]
fn a_page_of_the_controller_is_not_one_of_a_namespace() {
    let mut target = Target::ready(Kind::Io);
    let none = Status::INVALID_FIELD.dnr();
    for (nsid, status) in [(0, Status::SUCCESS), (ALL, Status::SUCCESS), (1, none)] {
        assert_eq!(target.send(&log(0x01, nsid, 0, 512)).status, status, "{nsid:x}h");
    }
    // But for SMART, of a namespace that there is.
    for (nsid, status) in [(1, Status::SUCCESS), (77, Status::INVALID_NAMESPACE.dnr())] {
        assert_eq!(target.send(&log(0x02, nsid, 0, 512)).status, status, "{nsid:x}h");
    }
}

#[test]
fn an_offset_must_be_in_the_page_and_a_multiple_of_four() {
    let mut target = Target::ready(Kind::Io);
    let rows = [
        (0, Status::SUCCESS),
        (508, Status::SUCCESS),
        (512, Status::SUCCESS),
        (2, Status::INVALID_FIELD.dnr()),
        (516, Status::INVALID_FIELD.dnr()),
        (u64::MAX - 3, Status::INVALID_FIELD.dnr()),
    ];
    for (offset, status) in rows {
        assert_eq!(target.send(&log(0x02, ALL, offset, 4)).status, status, "{offset}");
    }
}

#[test]
fn a_page_read_in_parts_is_the_page() {
    let mut target = Target::ready(Kind::Io);
    target.counters.read_bytes = u64::MAX;
    for (lid, size) in [(0x00, 1024), (0x02, 512), (0x03, 512), (0x05, 4096), (0x0c, 8208)] {
        let whole = page(&mut target, lid, size);
        for len in [4, 12, 100, size] {
            for offset in (0..size).step_by(len as usize) {
                let part = target.send(&log(lid, ALL, u64::from(offset), len)).data;
                let end = (offset + len).min(size) as usize;
                let shown = &whole[offset as usize..end];
                assert_eq!(&part[..shown.len()], shown, "{lid:02x}h from {offset}");
                assert!(part[shown.len()..].iter().all(|&byte| byte == 0), "zeros behind it");
            }
        }
    }
}

#[test]
fn smart_tells_what_was_counted() {
    let mut target = Target::ready(Kind::Io);
    target.uptime = Duration::from_secs(7_200 + 3_599);
    target.counters = Counters {
        read_bytes: 512_001,
        written_bytes: 512_000,
        read_commands: 3,
        write_commands: 4,
        media_errors: 5,
        degraded: false,
    };
    let smart = page(&mut target, 0x02, 512);
    assert_eq!((smart[0], smart[3], smart[4], smart[5]), (0, 100, 0, 0), "healthy");
    let rows = [(32, 2), (48, 1), (64, 3), (80, 4), (128, 2), (144, 0), (160, 5), (176, 0)];
    for (at, value) in rows {
        assert_eq!(u64_at(&smart, at), value, "byte {at}");
        assert_eq!(u64_at(&smart, at + 8), 0, "byte {}", at + 8);
    }
    target.counters.degraded = true;
    assert_eq!(page(&mut target, 0x02, 512)[0], 1 << 2, "the subsystem is degraded");
}

#[test]
fn the_error_log_holds_what_is_not_the_hosts_doing_newest_first() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(page(&mut target, 0x01, 1024), [0; 1024]);
    let mut fail = |cid: u16, status| {
        let failed = FailedCommand { queue: 3, cid, nsid: 1, lba: 1000 + u64::from(cid) };
        target.controller.keep_error(&failed, status)
    };
    for own in [
        Status::INVALID_FIELD.dnr(),
        Status::LBA_OUT_OF_RANGE,
        Status::COMPARE_FAILURE,
        Status::ANA_INACCESSIBLE,
        Status::ABORTED_BY_REQUEST,
    ] {
        assert_eq!(fail(99, own), own, "no entry, so no More bit");
    }
    for cid in 1..=17 {
        assert!(fail(cid, Status::WRITE_FAULT).has_more());
    }
    let lost = fail(18, Status::UNRECOVERED_READ.dnr());
    assert!(lost.has_more() && lost.do_not_retry() && lost.is(Status::UNRECOVERED_READ));
    let log = page(&mut target, 0x01, 1024);
    for (n, entry) in log.chunks(64).enumerate() {
        let cid = 18 - n as u16;
        assert_eq!((u64_at(entry, 0), u16_at(entry, 8), u16_at(entry, 10)), (cid.into(), 3, cid));
        assert_eq!((u64_at(entry, 16), u32_at(entry, 24)), (1000 + u64::from(cid), 1));
        assert_eq!((u16_at(entry, 14), entry[29]), (0xffff, 3), "no location; TCP");
    }
    assert_eq!(Status::from_wire(u16_at(&log, 12)), lost);
    assert_eq!(u64_at(&page(&mut target, 0x02, 512), 176), 18, "SMART counts them");
}

#[test]
fn the_first_firmware_slot_is_active() {
    let slots = page(&mut Target::ready(Kind::Io), 0x03, 512);
    assert_eq!((slots[0], &slots[8..16], slots[16]), (1, &b"0.1.0   "[..], 0));
}

#[test]
fn the_effects_are_those_of_the_commands_that_are_answered() {
    let mut target = Target::ready(Kind::Io);
    let effects = page(&mut target, 0x05, 4096);
    for opcode in 0..=255_u8 {
        let status = target.send(&Command::new(opcode, 0)).status;
        // The fabrics opcode is there, only none of its commands has the type 0 here.
        let answered = opcode == admin::FABRICS || !status.is(Status::INVALID_OPCODE);
        assert_eq!(u32_at(&effects, usize::from(opcode) * 4), u32::from(answered), "{opcode:02x}h");
    }
    let io = |opcode: u8| u32_at(&effects, 1024 + usize::from(opcode) * 4);
    assert_eq!((io(io::FLUSH), io(io::READ)), (1, 1));
    assert_eq!((io(io::WRITE), io(io::WRITE_ZEROES), io(io::DATASET_MANAGEMENT)), (3, 3, 3));
    assert_eq!([0x0d, 0x0e, 0x11, 0x15].map(io), [1; 4], "reservations");
    assert_eq!((io(io::COMPARE), io(io::VERIFY)), (1, 1));
    assert_eq!((io(0x04), io(0x19), u32_at(&effects, 2048)), (0, 0, 0));
}

#[test]
fn changed_namespaces_are_listed_once_ascending_until_they_are_read() {
    let mut target = Target::ready(Kind::Io);
    for nsid in [7, 3, 7, 9] {
        target.controller.namespace_changed(nsid);
    }
    let list = |data: &[u8]| [0, 4, 8, 12].map(|at| u32_at(data, at));
    let kept = target.send(&retaining(log(0x04, ALL, 0, 4096))).data;
    assert_eq!(list(&kept), [3, 7, 9, 0], "kept with RAE");
    assert_eq!(list(&page(&mut target, 0x04, 4096)), [3, 7, 9, 0]);
    assert_eq!(list(&page(&mut target, 0x04, 4096)), [0; 4], "cleared by the read");
}

#[test]
fn too_many_changed_namespaces_are_all_namespaces() {
    let mut target = Target::ready(Kind::Io);
    for nsid in 1..=33 {
        target.controller.namespace_changed(nsid);
    }
    let list = page(&mut target, 0x04, 4096);
    assert_eq!((u32_at(&list, 0), u32_at(&list, 4)), (u32::MAX, 0));
    assert_eq!(u32_at(&page(&mut target, 0x04, 4096), 0), 0);
}
