//! The discovery log page (Base 5.16.1.23).

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
    assert_eq!(head[18..], [0; 1006]);
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
fn the_discovery_subsystem_is_the_same_everywhere_and_can_be_stayed_with() {
    assert_eq!(u16_at(&read(&mut target(), 1024, 1024), 10), 0b11);
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
