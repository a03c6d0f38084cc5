//! The discovery log page (Base 5.16.1.23).

use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl};
use braid_nvme::target::Kind;

use crate::fixture::{Target, log, nqn, portal, u16_at, u64_at};

/// Two portals, three subsystems of which the host may see two.
fn target() -> Target {
    let mut target = Target::ready(Kind::Discovery);
    target.portals = vec![portal(1, "10.0.0.7:4420"), portal(2, "[fd00::7]:8009")];
    target.directory.generation = 42;
    target.directory.names = vec![
        (nqn("a"), None),
        (nqn("hidden"), Some(nqn("other-host"))),
        (nqn("mine"), Some(nqn("host"))),
    ];
    target
}

fn read(target: &mut Target, offset: u64, len: u32) -> Vec<u8> {
    let reply = target.send(&log(0x70, 0, offset, len));
    assert!(reply.status.is_success(), "{}", reply.status);
    assert_eq!(reply.data.len(), len as usize);
    reply.data
}

fn text(field: &[u8]) -> String {
    String::from_utf8(field.to_vec()).unwrap()
}

#[test]
fn the_head_counts_what_the_host_may_see() {
    let head = read(&mut target(), 0, 1024);
    assert_eq!((u64_at(&head, 0), u64_at(&head, 8), u16_at(&head, 16)), (42, 6, 0));
    assert_eq!(head[18..], [0; 1006], "no flag, nothing reserved");
}

#[test]
fn every_subsystem_is_listed_at_every_portal_behind_the_discovery_subsystem() {
    let data = read(&mut target(), 0, 7 * 1024);
    let entries: Vec<_> = data[1024..]
        .chunks(1024)
        .map(|entry| {
            let name = text(&entry[256..512]);
            (entry[2], u16_at(entry, 4), name.trim_end_matches('\0').to_owned())
        })
        .collect();
    let discovery = "nqn.2014-08.org.nvmexpress.discovery".to_owned();
    let (a, mine) = (nqn("a").as_str().to_owned(), nqn("mine").as_str().to_owned());
    let expected = [
        (3, 1, discovery.clone()),
        (3, 2, discovery),
        (2, 1, a.clone()),
        (2, 2, a),
        (2, 1, mine.clone()),
        (2, 2, mine),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn an_entry_tells_how_to_connect() {
    let data = read(&mut target(), 1024 * 3, 2048);
    for (entry, family, service, address) in
        [(&data[..1024], 1, "4420", "10.0.0.7"), (&data[1024..], 2, "8009", "fd00::7")]
    {
        assert_eq!((entry[0], entry[1], entry[3]), (3, family, 4), "TRTYPE, ADRFAM, TREQ");
        assert_eq!((u16_at(entry, 6), u16_at(entry, 8)), (0xffff, 32), "CNTLID, ASQSZ");
        assert_eq!(u16_at(entry, 10), 0, "EFLAGS");
        assert_eq!(text(&entry[32..64]), format!("{service:<32}"), "space padded");
        assert_eq!(text(&entry[512..768]), format!("{address:<256}"), "space padded");
        assert_eq!(entry[768..], [0; 256], "no security");
    }
}

#[test]
fn the_discovery_subsystem_can_be_stayed_with_and_says_whether_it_is_the_same_everywhere() {
    let mut target = target();
    assert_eq!(u16_at(&read(&mut target, 1024, 1024), 10), 0b11);
    target.directory.same_everywhere = false;
    assert_eq!(u16_at(&read(&mut target, 1024, 1024), 10), 0b10);
}

/// Type, PORTID and name of every entry.
fn entries(data: &[u8]) -> Vec<(u8, u16, String)> {
    let entry = |entry: &[u8]| {
        let name = text(&entry[256..512]).trim_end_matches('\0').to_owned();
        (entry[2], u16_at(entry, 4), name)
    };
    let records = u64_at(data, 8) as usize;
    data[1024..].chunks(1024).take(records).map(entry).collect()
}

#[test]
fn paths_at_other_engines_and_other_discovery_services_are_listed() {
    let mut target = target();
    target.directory.names.clear();
    target.directory.elsewhere = vec![
        (Some(nqn("far")), portal(700, "10.0.0.8:4420")),
        (None, portal(701, "[fd00::9]:8009")),
    ];
    let data = read(&mut target, 0, 5 * 1024);
    let discovery = "nqn.2014-08.org.nvmexpress.discovery".to_owned();
    let there = [(2, 700, nqn("far").as_str().to_owned()), (1, 701, discovery)];
    assert_eq!(entries(&data)[2..], there);
    let (path, referral) = (&data[3 * 1024..4 * 1024], &data[4 * 1024..]);
    assert_eq!((path[3], u16_at(path, 10)), (4, 0), "TREQ and EFLAGS of a path");
    assert_eq!((referral[0], referral[1], referral[3], u16_at(referral, 10)), (3, 2, 0, 0));
    assert_eq!(text(&referral[32..64]).trim_end(), "8009");
    assert_eq!(text(&referral[512..768]).trim_end(), "fd00::9");
}

#[test]
fn who_asks_for_local_entries_gets_those_of_the_portal_it_asks_by() {
    let mut target = target();
    target.port = 2;
    target.directory.elsewhere = vec![
        (Some(nqn("far")), portal(700, "10.0.0.8:4420")),
        (None, portal(701, "10.0.0.9:8009")),
    ];
    let mut command = log(0x70, 0, 0, 8 * 1024);
    command.set_cdw(10, command.cdw(10) | 1 << 9);
    let data = target.send(&command).data;
    assert_eq!((u64_at(&data, 8), data[18]), (3, 0b10), "NUMREC, DLPF");
    let names: Vec<_> = entries(&data).into_iter().map(|(kind, port, _)| (kind, port)).collect();
    assert_eq!(names, [(3, 2), (2, 2), (2, 2)]);
}

#[test]
fn what_is_not_supported_of_the_log_is_not_said_to_be_done() {
    let mut target = target();
    let mut command = log(0x70, 0, 0, 8 * 1024);
    // Extended entries, and those that other hosts may see.
    command.set_cdw(10, command.cdw(10) | 0b101 << 8);
    let data = target.send(&command).data;
    assert_eq!((u64_at(&data, 8), u16_at(&data, 16), data[18]), (6, 0, 0));
    assert!(entries(&data).iter().all(|(.., name)| *name != nqn("hidden").as_str()));
    let pages = target.send(&log(0, 0, 0, 1024)).data;
    assert_eq!(pages[0x70 * 4..0x71 * 4], [1, 0, 0b10, 0], "LSUPP, and of LIDSP the local entries");
}

#[test]
fn an_explicit_registration_is_refused_and_the_host_is_heard_on() {
    let mut target = target();
    for task in 0..3 {
        let mut register = Command::new(0x21, 0);
        register.sgl = Sgl { identifier: Sgl::IN_CAPSULE, ..Sgl::transport(2048) };
        register.set_cdw(10, task);
        let reply = target.send_with(&register, &[0; 2048]);
        assert_eq!(reply.status, Status::INVALID_OPCODE.dnr(), "task {task}");
    }
    assert_eq!(u64_at(&read(&mut target, 0, 1024), 8), 6);
}

#[test]
fn the_log_read_in_any_parts_is_the_log() {
    let mut target = target();
    let whole = read(&mut target, 0, 8 * 1024);
    assert_eq!(whole[7 * 1024..], [0; 1024], "zeros behind the last entry");
    for len in [4, 100, 1020, 1024, 4096] {
        for offset in (0..8 * 1024).step_by(len) {
            let part = read(&mut target, offset as u64, len as u32);
            let end = (offset + len).min(whole.len());
            assert_eq!(part[..end - offset], whole[offset..end], "{len} from {offset}");
        }
    }
}

#[test]
fn beyond_its_end_the_log_is_zeros() {
    for offset in [1 << 20, 1 << 40, u64::MAX - 3] {
        assert_eq!(read(&mut target(), offset, 1024), [0; 1024], "from {offset}");
    }
}

#[test]
fn a_host_that_may_see_nothing_sees_the_discovery_subsystem() {
    let mut target = target();
    target.directory.names.clear();
    assert_eq!(u64_at(&read(&mut target, 0, 16), 8), 2);
}
