//! Hosts that prove who they are, and what becomes of those who do not.

mod support;

use std::time::Duration;

use braid_nvme::Status;
use braid_nvme::auth::{
    Generator, Group, HostKey, HostKeys, Message, Names, Offer, Proof, Reason, Secret, Security,
    Step,
};
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::connect::{AUTHENTICATION_REQUIRED, CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::pdu::Digests;
use braid_shard::Note;
use support::peer::{Got, Peer, connect, read};
use support::{HOST, NQN, World, config};

const NONE: Digests = Digests { header: false, data: false };
const KEY: &str = "DHHC-1:01:EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi9A/ow7:";
const OTHER: &str = "DHHC-1:00:ExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTJjyBkh:";

fn keys(of: &[(&str, &str, Option<&str>)]) -> HostKeys {
    let secret = |text: &str| Secret::parse(text).unwrap();
    let mut keys = HostKeys::default();
    for (host, key, controller) in of {
        let group = Some(Group::Ffdhe2048);
        let (host, controller) = (Nqn::parse(host).unwrap(), controller.map(secret));
        assert!(keys.insert(host, HostKey { host: secret(key), controller, hash: None, group }));
    }
    keys
}

/// A world whose one host has this key.
fn world(controller: Option<&str>) -> World {
    let mut world = World::new(config());
    world.shard.host_keys_set(keys(&[(HOST, KEY, controller)]), [5; 32]);
    world
}

/// A queue whose Connect was answered: it has to prove itself.
fn asked(world: &mut World, qid: u16, cntlid: u16) -> Peer {
    let mut peer = Peer::open(world, NONE);
    let completion = peer.connect(world, &connect(qid, cntlid));
    assert!(completion.status().is_success(), "{:?}", completion.status());
    assert_eq!(completion.result.get() & !0xffff, AUTHENTICATION_REQUIRED);
    peer.cntlid = (completion.result.get() & 0xffff) as u16;
    peer
}

fn send(peer: &mut Peer, world: &mut World, message: &[u8]) -> Status {
    let command = Security::Send.command(message.len() as u32);
    peer.command(world, command, message).status()
}

fn receive(peer: &mut Peer, world: &mut World) -> Result<Vec<u8>, Status> {
    peer.read(world, Security::Receive.command(4096))
}

/// How it ends for a host that has these keys; `each` sees every message that it sends.
fn prove(
    peer: &mut Peer,
    world: &mut World,
    (key, controller): (&str, Option<&str>),
    each: &mut dyn FnMut(&mut Peer, &mut World, &[u8]),
) -> Step {
    let secret = |text: &str| Secret::parse(text).unwrap();
    let mut proof = Proof::new(9, secret(key), controller.map(secret));
    let (host, subsystem) = (Nqn::parse(HOST).unwrap(), Nqn::parse(NQN).unwrap());
    let names = Names { host: &host, subsystem: &subsystem };
    let (mut out, mut dice) = ([0; 4096], Generator::new([6; 32]));
    let len = proof.begin(&mut out);
    assert!(send(peer, world, &out[..len]).is_success());
    loop {
        let message = receive(peer, world).unwrap();
        assert_eq!(message.len(), 4096);
        let step = proof.handle(&message, names, &mut dice, &mut out);
        match step {
            Step::Send(len) => {
                each(peer, world, &out[..len]);
                assert!(send(peer, world, &out[..len]).is_success());
            }
            Step::SendAndDone(len) | Step::SendAndFail(len, _) => {
                assert!(send(peer, world, &out[..len]).is_success());
                return step;
            }
            Step::Done | Step::Fail(_) => return step,
        }
    }
}

fn quietly(_: &mut Peer, _: &mut World, _: &[u8]) {}

fn identify() -> Command {
    let mut command = Command { sgl: Sgl::transport(4096), ..Command::new(admin::IDENTIFY, 0) };
    command.set_cdw(10, 1);
    command
}

fn is_open(world: &mut World, peer: &Peer) -> bool {
    let stream = world.stream(peer.socket);
    !stream.shut && !stream.closed
}

#[test]
fn every_queue_proves_its_host_and_nothing_is_done_for_it_before() {
    let mut world = world(None);
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    let required = Err(Status::AUTHENTICATION_REQUIRED.dnr());
    assert_eq!(admin.read(&mut world, identify()), required);
    let step = prove(&mut admin, &mut world, (KEY, None), &mut |admin, world, _| {
        assert_eq!(admin.read(world, identify()), required, "in the middle of it");
    });
    assert_eq!(step, Step::Done);
    admin.enable(&mut world);
    let mut io = asked(&mut world, 1, admin.cntlid);
    assert_eq!(io.read(&mut world, read(1, 0, 1, 4096)), required);
    assert_eq!(prove(&mut io, &mut world, (KEY, None), &mut quietly), Step::Done);
    assert_eq!(io.read(&mut world, read(1, 0, 1, 4096)).map(|data| data.len()), Ok(4096));
    assert_eq!(world.shard.counters().authentications, 2);
}

#[test]
fn a_wrong_key_is_told_noted_and_the_connection_ends() {
    let mut world = world(None);
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    let step = prove(&mut admin, &mut world, (OTHER, None), &mut quietly);
    assert_eq!(step, Step::Fail(Reason::Authentication));
    assert!(!is_open(&mut world, &admin));
    assert_eq!(world.shard.counters().authentications_failed, 1);
    let told = |note: &Note| {
        matches!(note, Note::AuthenticationFailed { reason: Reason::Authentication, .. })
    };
    assert!(world.notes.iter().any(told));
    world.end(admin.socket);
    assert_eq!(world.shard.controllers().count(), 0);
}

#[test]
fn a_host_may_ask_who_the_controller_is_and_not_believe_it() {
    let mut world = world(Some(OTHER));
    let mut good = asked(&mut world, 0, CNTLID_DYNAMIC);
    let step = prove(&mut good, &mut world, (KEY, Some(OTHER)), &mut quietly);
    assert!(matches!(step, Step::SendAndDone(_)));
    assert!(good.read(&mut world, identify()).is_err(), "not enabled");
    good.enable(&mut world);
    assert!(good.read(&mut world, identify()).is_ok());
    let mut wary = asked(&mut world, 0, CNTLID_DYNAMIC);
    let step = prove(&mut wary, &mut world, (KEY, Some(KEY)), &mut quietly);
    assert!(matches!(step, Step::SendAndFail(_, Reason::Authentication)));
    assert!(!is_open(&mut world, &wary));
    assert!(is_open(&mut world, &good));
}

#[test]
fn a_reply_that_was_heard_is_of_no_use() {
    let mut world = world(None);
    let mut heard = Vec::new();
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    let mut listen = |_: &mut Peer, _: &mut World, message: &[u8]| heard = message.to_vec();
    assert_eq!(prove(&mut admin, &mut world, (KEY, None), &mut listen), Step::Done);
    let mut thief = asked(&mut world, 0, CNTLID_DYNAMIC);
    let mut begin = [0; 128];
    let descriptors = &Offer::everything();
    let negotiate = Message::Negotiate { secure_channel: 0, descriptors };
    let len = negotiate.write(9, &mut begin).unwrap();
    assert!(send(&mut thief, &mut world, &begin[..len]).is_success());
    assert!(receive(&mut thief, &mut world).is_ok());
    assert!(send(&mut thief, &mut world, &heard).is_success());
    let told = receive(&mut thief, &mut world).unwrap();
    let failure = Message::Failure1(Reason::Authentication);
    assert_eq!(Message::parse(&told), Ok((9, failure)));
    assert!(!is_open(&mut world, &thief));
}

#[test]
fn an_io_queue_that_proves_nothing_takes_nobody_along() {
    let mut world = world(None);
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    assert_eq!(prove(&mut admin, &mut world, (KEY, None), &mut quietly), Step::Done);
    admin.enable(&mut world);
    let mut thief = asked(&mut world, 1, admin.cntlid);
    let step = prove(&mut thief, &mut world, (OTHER, None), &mut quietly);
    assert_eq!(step, Step::Fail(Reason::Authentication));
    assert!(!is_open(&mut world, &thief));
    assert!(is_open(&mut world, &admin));
    assert!(admin.read(&mut world, identify()).is_ok());
}

#[test]
fn a_host_that_fails_to_prove_itself_again_loses_its_controller() {
    let mut world = world(None);
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    assert_eq!(prove(&mut admin, &mut world, (KEY, None), &mut quietly), Step::Done);
    admin.enable(&mut world);
    let mut io = asked(&mut world, 1, admin.cntlid);
    assert_eq!(prove(&mut io, &mut world, (KEY, None), &mut quietly), Step::Done);
    let step = prove(&mut io, &mut world, (KEY, None), &mut |io, world, _| {
        assert!(io.read(world, read(1, 0, 1, 4096)).is_ok(), "I/O goes on meanwhile");
    });
    assert_eq!(step, Step::Done, "again, by the same key");
    world.shard.host_keys_set(keys(&[(HOST, OTHER, None)]), [8; 32]);
    assert!(io.read(&mut world, read(1, 0, 1, 4096)).is_ok(), "a new key throws nobody out");
    assert_eq!(prove(&mut admin, &mut world, (OTHER, None), &mut quietly), Step::Done);
    let step = prove(&mut io, &mut world, (KEY, None), &mut quietly);
    assert_eq!(step, Step::Fail(Reason::Authentication), "the old key");
    assert!(!is_open(&mut world, &io) && !is_open(&mut world, &admin));
}

#[test]
fn who_does_not_prove_himself_in_time_is_closed() {
    let mut world = world(None);
    let silent = asked(&mut world, 0, CNTLID_DYNAMIC);
    let mut keen = asked(&mut world, 0, CNTLID_DYNAMIC);
    assert_eq!(prove(&mut keen, &mut world, (KEY, None), &mut quietly), Step::Done);
    let mut without = connect(0, CNTLID_DYNAMIC);
    without.kato = Duration::ZERO;
    let mut slow = Peer::open(&mut world, NONE);
    assert!(slow.connect(&mut world, &without).status().is_success());
    world.pass(Duration::from_secs(29));
    assert!(is_open(&mut world, &slow), "without a keep alive");
    world.pass(Duration::from_secs(2));
    assert!(!is_open(&mut world, &slow) && !is_open(&mut world, &silent));
    assert!(world.shard.counters().authentications_failed >= 1);
}

#[test]
fn commands_that_carry_no_message_are_refused_and_nothing_is_lost() {
    let mut world = world(None);
    let mut admin = asked(&mut world, 0, CNTLID_DYNAMIC);
    assert_eq!(receive(&mut admin, &mut world), Err(Status::SEQUENCE_ERROR.dnr()));
    let mut other = Security::Send.command(8);
    other.set_cdw(10, 0xe8_01_01 << 8);
    assert!(admin.command(&mut world, other, &[0; 8]).status().is(Status::INVALID_FIELD));
    assert_eq!(prove(&mut admin, &mut world, (KEY, None), &mut quietly), Step::Done);
    let mut second = asked(&mut world, 0, CNTLID_DYNAMIC);
    assert!(send(&mut second, &mut world, &[0, 0, 0]).is_success(), "a message cut short");
    let told = receive(&mut second, &mut world).unwrap();
    assert_eq!(Message::parse(&told).unwrap().1, Message::Failure1(Reason::Payload));
}

#[test]
fn where_keys_are_only_hosts_with_a_key_may_connect_listed_or_not() {
    let stranger = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:stranger").unwrap();
    let come = |world: &mut World| {
        let mut peer = Peer::open(world, NONE);
        let connect = Connect { hostnqn: stranger, ..connect(0, CNTLID_DYNAMIC) };
        peer.connect(world, &connect)
    };
    let mut unlisted = world(None);
    assert!(come(&mut unlisted).status().is(Status::CONNECT_INVALID_HOST));
    let mut config = config();
    config.subsystems[0].allowed_hosts = vec![stranger.as_str().into()];
    let mut listed = World::new(config);
    assert!(come(&mut listed).status().is_success(), "nobody has a key");
    listed.shard.host_keys_set(keys(&[(stranger.as_str(), KEY, None)]), [5; 32]);
    let completion = come(&mut listed);
    assert!(completion.status().is_success());
    assert_ne!(completion.result.get() & AUTHENTICATION_REQUIRED, 0);
    listed.shard.host_keys_set(keys(&[(HOST, KEY, None)]), [6; 32]);
    let completion = come(&mut listed);
    assert!(completion.status().is(Status::CONNECT_INVALID_HOST), "its key was taken away");
}

#[test]
fn without_a_key_there_is_no_authentication_and_discovery_asks_nobody() {
    let mut world = World::new(config());
    let mut admin = Peer::admin(&mut world, NONE);
    assert!(send(&mut admin, &mut world, &[0; 72]).is(Status::INVALID_OPCODE));
    world.shard.host_keys_set(keys(&[(HOST, KEY, None)]), [5; 32]);
    let mut peer = Peer::open(&mut world, NONE);
    let subnqn = Nqn::parse(braid_nvme::DISCOVERY_NQN).unwrap();
    let hostnqn = Nqn::parse("nqn.2014-08.org.nvmexpress:uuid:stranger").unwrap();
    let connect = Connect { subnqn, hostnqn, ..connect(0, CNTLID_DYNAMIC) };
    let completion = peer.connect(&mut world, &connect);
    assert!(completion.status().is_success());
    assert_eq!(completion.result.get() & AUTHENTICATION_REQUIRED, 0);
    assert!(!matches!(peer.take(&mut world).as_slice(), [Got::Term { .. }]));
}
