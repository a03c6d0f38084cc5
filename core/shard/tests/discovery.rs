//! What the discovery service of a shard tells its hosts, and when.

mod support;

use core::time::Duration;

use braid_nvme::DISCOVERY_NQN;
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::connect::{CNTLID_DYNAMIC, Nqn};
use braid_nvme::pdu::Digests;
use braid_nvme::target::{DiscoveryEntry, DiscoveryHeader, Portal};
use braid_shard::{Config, Elsewhere, Note, Why};
use support::peer::{Got, Peer, connect};
use support::{HOST, NQN, World, config};
use zerocopy::FromBytes;

const NONE: Digests = Digests { header: false, data: false };
const FAR: &str = "nqn.2026-01.io.braid:far";
/// What a host enables to hear of the discovery log, and DW0 of the event.
const DISCOVERY_LOG: u32 = 1 << 31;
const DISCOVERY_EVENT: u64 = 0x70_f0_02;
/// LSP of who wants entries of the portal that it asks by.
const PORT_LOCAL: u32 = 1 << 9;

fn portal(id: u16, address: &str) -> Portal {
    Portal { id, address: address.parse().unwrap() }
}

fn elsewhere(nqn: Option<&str>, address: &str, hosts: &[&str]) -> Elsewhere {
    Elsewhere {
        nqn: nqn.map(|nqn| Nqn::parse(nqn).unwrap()),
        address: address.parse().unwrap(),
        allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    }
}

/// A world that listens at these, and a discovery controller of a host that came by one of them.
fn discovery(addresses: &[&str], listener: u16, came_to: Option<&str>) -> (World, Peer) {
    let portals = (0..).zip(addresses).map(|(id, address)| portal(id, address)).collect();
    let mut world = World::new(Config { portals, ..config() });
    world.listener = listener;
    world.local = came_to.map(|address| address.parse().unwrap());
    let peer = connected(&mut world, Duration::from_secs(5));
    (world, peer)
}

fn connected(world: &mut World, kato: Duration) -> Peer {
    let mut peer = Peer::open(world, NONE);
    let mut command = connect(0, CNTLID_DYNAMIC);
    command.subnqn = Nqn::parse(DISCOVERY_NQN).unwrap();
    command.kato = kato;
    assert!(peer.connect(world, &command).status().is_success());
    peer.enable(world);
    peer
}

/// The head of the log and its entries.
fn log(world: &mut World, peer: &mut Peer, lsp: u32) -> (DiscoveryHeader, Vec<DiscoveryEntry>) {
    let mut command = Command::new(admin::GET_LOG_PAGE, 0);
    command.sgl = Sgl::transport(16384);
    command.set_cdw(10, 0x70 | lsp | 4095 << 16);
    let data = peer.read(world, command).unwrap();
    let (header, entries) = DiscoveryHeader::read_from_prefix(&data).unwrap();
    let entries = entries.chunks_exact(1024).take(header.records.get() as usize);
    (header, entries.map(|entry| DiscoveryEntry::read_from_bytes(entry).unwrap()).collect())
}

/// Type, name's last part and address of every entry.
fn listed(world: &mut World, peer: &mut Peer, lsp: u32) -> Vec<(u8, String, String)> {
    let text = |field: &[u8]| {
        String::from_utf8(field.to_vec()).unwrap().trim_end_matches(['\0', ' ']).to_owned()
    };
    let of = |entry: &DiscoveryEntry| {
        let name = text(&entry.subnqn).rsplit(['.', ':']).next().unwrap().to_owned();
        (entry.subsystem_type, name, format!("{} {}", text(&entry.address), text(&entry.service)))
    };
    log(world, peer, lsp).1.iter().map(of).collect()
}

fn addresses(world: &mut World, peer: &mut Peer) -> Vec<String> {
    let of_subsystem = |(kind, _, address)| (kind == 2).then_some(address);
    listed(world, peer, 0).into_iter().filter_map(of_subsystem).collect()
}

/// Whether every discovery entry says that the others tell the same.
fn same_everywhere(world: &mut World, peer: &mut Peer) -> Vec<bool> {
    let entries = log(world, peer, 0).1;
    let discovery = entries.iter().filter(|entry| entry.subsystem_type == 3);
    discovery.map(|entry| entry.flags.get() & 1 == 1).collect()
}

#[test]
fn a_host_is_told_the_addresses_that_it_can_reach() {
    for (listen, listener, came_to, seen) in [
        // From this machine everything can be reached, from outside not its own addresses.
        (&["127.0.0.1:1", "10.0.0.7:2"][..], 0, None, &["127.0.0.1 1", "10.0.0.7 2"][..]),
        (&["127.0.0.1:1", "10.0.0.7:2"], 1, None, &["10.0.0.7 2"]),
        (&["[::1]:1", "[fd00::7]:2"], 1, None, &["fd00::7 2"]),
        // A wildcard is the address that the host came to, at each of its ports.
        (&["0.0.0.0:1", "0.0.0.0:2"], 1, Some("10.0.0.7:2"), &["10.0.0.7 1", "10.0.0.7 2"]),
        (&["0.0.0.0:1", "10.0.0.7:2"], 1, None, &["10.0.0.7 1", "10.0.0.7 2"]),
        (&["[::]:1", "10.0.0.7:2"], 1, None, &["10.0.0.7 1", "10.0.0.7 2"]),
        (&["[::]:1", "10.0.0.7:2"], 0, Some("[fd00::7]:1"), &["fd00::7 1", "10.0.0.7 2"]),
        (&["0.0.0.0:1", "[fd00::7]:2"], 1, None, &["fd00::7 2"]),
        // An address of a link means something there alone.
        (&["[fe80::7]:1", "10.0.0.7:2"], 1, None, &["10.0.0.7 2"]),
        (&["[fe80::7]:1", "10.0.0.7:2"], 0, None, &["fe80::7 1", "10.0.0.7 2"]),
    ] {
        let (mut world, mut peer) = discovery(listen, listener, came_to);
        let case = format!("{listen:?} by {listener}, {came_to:?}");
        assert_eq!(addresses(&mut world, &mut peer), seen, "{case}");
        assert_eq!(same_everywhere(&mut world, &mut peer).len(), seen.len(), "{case}");
    }
}

#[test]
fn portals_say_that_they_tell_the_same_only_if_they_do() {
    for (listen, listener, came_to, same) in [
        (&["10.0.0.7:1", "10.0.0.8:2"][..], 0, None, true),
        (&["127.0.0.1:1", "127.0.0.1:2"], 0, None, true),
        // By 10.0.0.7 nobody would hear of 127.0.0.1.
        (&["127.0.0.1:1", "10.0.0.7:2"], 0, None, false),
        (&["127.0.0.1:1", "10.0.0.7:2"], 1, None, true),
        (&["0.0.0.0:1", "0.0.0.0:2"], 0, Some("10.0.0.7:1"), true),
        // By 10.0.0.8 the wildcard would be that.
        (&["0.0.0.0:1", "10.0.0.8:2"], 0, Some("10.0.0.7:1"), false),
    ] {
        let (mut world, mut peer) = discovery(listen, listener, came_to);
        let said = same_everywhere(&mut world, &mut peer);
        assert!(said.iter().all(|said| *said == same), "{listen:?} by {listener}: {said:?}");
    }
}

#[test]
fn local_entries_are_those_of_the_portal_that_is_asked_by() {
    let (mut world, mut peer) = discovery(&["10.0.0.7:1", "10.0.0.7:2"], 1, None);
    world.shard.elsewhere_set(vec![elsewhere(None, "10.0.0.9:8009", &[])]);
    assert_eq!(listed(&mut world, &mut peer, 0).len(), 5);
    let local = listed(&mut world, &mut peer, PORT_LOCAL);
    let expected =
        [(3, "discovery", "10.0.0.7 2"), (2, NQN.rsplit(['.', ':']).next().unwrap(), "10.0.0.7 2")];
    assert_eq!(local, expected.map(|(kind, name, at)| (kind, name.to_owned(), at.to_owned())));
}

#[test]
fn what_is_elsewhere_is_listed_for_whom_may_see_it() {
    let (mut world, mut peer) = discovery(&["10.0.0.7:4420"], 0, None);
    let before = log(&mut world, &mut peer, 0).0.generation;
    world.shard.elsewhere_set(vec![
        elsewhere(Some(FAR), "10.0.0.8:4420", &[HOST]),
        elsewhere(Some(FAR), "10.0.0.9:4420", &["nqn.other"]),
        // Only hosts of that engine's machine could use this one.
        elsewhere(Some(FAR), "127.0.0.1:4420", &[]),
        elsewhere(None, "10.0.0.10:8009", &[]),
        // To where the host is nobody refers it.
        elsewhere(None, "10.0.0.7:4420", &[]),
    ]);
    let entries = listed(&mut world, &mut peer, 0);
    let there = [(2, "far", "10.0.0.8 4420"), (1, "discovery", "10.0.0.10 8009")];
    assert_eq!(entries[2..], there.map(|(kind, name, at)| (kind, name.to_owned(), at.to_owned())));
    let after = log(&mut world, &mut peer, 0).0.generation;
    assert!(after > before, "{before} to {after}");
    let ports =
        log(&mut world, &mut peer, 0).1.iter().map(|entry| entry.port.get()).collect::<Vec<_>>();
    assert!(ports[2] >= 0x8000 && ports[3] >= 0x8000 && ports[2] != ports[3], "{ports:?}");
}

#[test]
fn the_generation_counts_changes_and_never_goes_back() {
    let (mut world, mut peer) = discovery(&["10.0.0.7:4420"], 0, None);
    let mut generations = vec![log(&mut world, &mut peer, 0).0.generation.get()];
    let there = || vec![elsewhere(Some(FAR), "10.0.0.8:4420", &[])];
    // There, gone, and there as it was before: another number each time.
    for places in [there(), Vec::new(), there()] {
        world.shard.elsewhere_set(places);
        generations.push(log(&mut world, &mut peer, 0).0.generation.get());
    }
    assert!(generations.is_sorted_by(|a, b| a < b), "{generations:?}");
    world.shard.elsewhere_set(there());
    let same = log(&mut world, &mut peer, 0).0.generation.get();
    assert_eq!(Some(&same), generations.last(), "nothing changed");
}

#[test]
fn a_change_elsewhere_is_told_to_the_hosts_that_see_it_and_to_nobody_else() {
    let (mut world, mut peer) = discovery(&["10.0.0.7:4420"], 0, None);
    peer.enable_events(&mut world, DISCOVERY_LOG);
    let cid = peer.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    let told = |world: &mut World, peer: &mut Peer| {
        world.run();
        match peer.take(world).as_slice() {
            [] => false,
            [Got::Completion(event)] => {
                assert_eq!((event.cid.get(), event.result.get()), (cid, DISCOVERY_EVENT));
                true
            }
            other => panic!("no event but {other:?}"),
        }
    };
    let others = elsewhere(Some(FAR), "10.0.0.9:4420", &["nqn.other"]);
    world.shard.elsewhere_set(vec![others.clone()]);
    assert!(!told(&mut world, &mut peer), "another host's");
    world.shard.elsewhere_set(vec![others, elsewhere(Some(FAR), "10.0.0.8:4420", &[])]);
    assert!(told(&mut world, &mut peer));
    log(&mut world, &mut peer, 0);
    // The next one: the path is gone again.
    let again = peer.post(&mut world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    world.shard.elsewhere_set(Vec::new());
    world.run();
    match peer.take(&mut world).as_slice() {
        [Got::Completion(event)] => assert_eq!(event.cid.get(), again),
        other => panic!("no event but {other:?}"),
    }
}

#[test]
fn who_does_not_ask_to_stay_is_let_go_after_two_minutes_of_silence() {
    let (mut world, _) = discovery(&["10.0.0.7:4420"], 0, None);
    world.pass(Duration::from_secs(10));
    let mut passing = connected(&mut world, Duration::ZERO);
    for _ in 0..3 {
        world.pass(Duration::from_secs(100));
        assert_eq!(log(&mut world, &mut passing, 0).1.len(), 2, "it is heard on");
    }
    world.pass(Duration::from_secs(125));
    let gone = |note: &Note| matches!(note, Note::ControllerGone { why: Why::KeepAlive, .. });
    assert_eq!(world.notes.iter().filter(|note| gone(note)).count(), 2, "{:?}", world.notes);
}

#[test]
fn who_asks_to_stay_is_kept_as_long_as_it_keeps_alive_and_no_longer() {
    let (mut world, _) = discovery(&["10.0.0.7:4420"], 0, None);
    let mut staying = connected(&mut world, Duration::from_secs(10));
    for _ in 0..40 {
        world.pass(Duration::from_secs(5));
        let kept = staying.command(&mut world, Command::new(admin::KEEP_ALIVE, 0), &[]);
        assert!(kept.status().is_success());
    }
    let gone = |world: &World| {
        let gone = |note: &&Note| matches!(note, Note::ControllerGone { why: Why::KeepAlive, .. });
        world.notes.iter().filter(gone).count()
    };
    // The other one was silent for these 200 seconds.
    assert_eq!(gone(&world), 1);
    world.pass(Duration::from_secs(11));
    assert_eq!(gone(&world), 2, "its own time-out counts, not that of who asks for none");
}

#[test]
fn changes_that_come_while_one_is_read_are_told_afterwards_and_so_are_later_ones() {
    let (mut world, mut peer) = discovery(&["10.0.0.7:4420"], 0, None);
    peer.enable_events(&mut world, DISCOVERY_LOG);
    // As nvme-cli: the head, the entries, and the head again, the last of them without RAE; and
    // as it does up to 2.3, which never clears RAE when the log comes in several parts.
    let new = [(0, 4, 1 << 15), (1024, 767, 1 << 15), (0, 4, 0)];
    let old = [(0, 511, 1 << 15), (2048, 511, 1 << 15), (0, 4, 1 << 15)];
    let once = [(0, 1023, 1 << 15), (0, 4, 1 << 15), (0, 4, 1 << 15)];
    let mut place = 1;
    let mut change = |world: &mut World| {
        place += 1;
        world.shard.elsewhere_set(vec![elsewhere(Some(FAR), &format!("10.0.0.{place}:1"), &[])]);
        world.run();
    };
    let read = |world: &mut World, peer: &mut Peer, parts: [(u32, u32, u32); 3]| {
        for (offset, dwords, retain) in parts {
            let mut command = Command::new(admin::GET_LOG_PAGE, 0);
            command.sgl = Sgl::transport((dwords + 1) * 4);
            command.set_cdw(10, 0x70 | retain | dwords << 16);
            command.set_cdw(12, offset);
            peer.post(world, command, &[]);
        }
        world.run();
        let events = peer.take(world).into_iter().filter(
            |got| matches!(got, Got::Completion(one) if one.result.get() == DISCOVERY_EVENT),
        );
        events.count()
    };
    let request = |world: &mut World, peer: &mut Peer| {
        peer.post(world, Command::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
        world.run();
        peer.take(world).len()
    };
    assert_eq!(request(&mut world, &mut peer), 0);
    change(&mut world);
    assert_eq!(peer.take(&mut world).len(), 1, "told");
    assert_eq!(request(&mut world, &mut peer), 0);
    change(&mut world);
    change(&mut world);
    assert_eq!(peer.take(&mut world).len(), 0, "until it is read");
    assert_eq!(read(&mut world, &mut peer, once), 0, "who takes all of it at once can retain");
    assert_eq!(read(&mut world, &mut peer, new), 1, "there was more");
    for parts in [new, old, new] {
        assert_eq!(request(&mut world, &mut peer), 0);
        assert_eq!(read(&mut world, &mut peer, parts), 0, "that was all");
        change(&mut world);
        assert_eq!(peer.take(&mut world).len(), 1, "a later one");
    }
}
