//! Losing a target, waiting, coming back; keep alive; time-outs; orderly ends.

use std::time::Duration;

use braid_block::IoError;
use braid_nvme::Status;
use braid_nvme::host::{Event, Operation, Why};

use crate::bench::{Bench, PLAIN, SUBNQN, config};
use crate::wire;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_command_that_takes_too_long_ends_the_association_and_keeps_its_buffer_until_all_is_at_rest() {
    let mut config = config(SUBNQN);
    config.kato = Duration::ZERO;
    let mut bench = Bench::live(config);
    (bench.lands, bench.rests) = (false, false);
    bench.write(&[1; 4096]);
    bench.pass(Duration::from_millis(29_999));
    bench.take_nothing();
    bench.pass(MS);
    assert_eq!(bench.lost(), (Why::CommandTimeout, true));
    assert!(bench.link(0).closed && bench.link(1).closed);
    // The kernel still reads the buffer, and bytes may still come: it is not handed back, however
    // long that takes, nor is a new connection begun.
    bench.pass(Duration::from_secs(100));
    bench.take_nothing();
    assert!(bench.connects.is_empty());
    // A late answer means nothing any more.
    let cid = bench.heard(1).unwrap().cid();
    bench.links[1].closed = false;
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    bench.take_nothing();
    bench.land(1, Err(IoError::Cancelled));
    bench.act();
    bench.take_nothing();
    bench.rest(1);
    bench.act();
    let completed = bench.completed();
    assert_eq!(completed.status, Status::ABORTED_BY_HOST);
    bench.free(completed);
    bench.rest(0);
    bench.finish();
}

#[test]
fn what_was_never_sent_is_told_apart_from_what_may_have_been_done() {
    let mut config = config(SUBNQN);
    config.queue_entries = 64;
    let mut bench = Bench::live(config);
    bench.lands = false;
    for _ in 0..63 {
        bench.write(&[1; 4096]);
    }
    bench.hang_up(0);
    assert_eq!(bench.lost(), (Why::PeerClosed, true));
    let statuses: Vec<_> = bench
        .events
        .iter()
        .map(|event| match event {
            Event::Completed(completed) => completed.status,
            other => panic!("{other:?}"),
        })
        .collect();
    let never = statuses.iter().filter(|status| **status == Status::HOST_PATHING_ERROR).count();
    let maybe = statuses.iter().filter(|status| **status == Status::ABORTED_BY_HOST).count();
    // One flies at once; a batch of 64 pieces holds header and payload of some; the rest waited.
    assert_eq!(maybe + never, 63);
    assert!(maybe >= 30 && never >= 10, "{maybe} {never}");
    bench.finish();
}

#[test]
fn an_answer_that_came_before_the_loss_counts() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.lands = false;
    bench.write(&[1; 4096]);
    let cid = bench.heard(1).unwrap().cid();
    bench.say(1, &wire::response(PLAIN, cid, 0, 0));
    bench.hang_up(1);
    bench.lost();
    let completed = bench.completed();
    assert_eq!(completed.status, Status::SUCCESS);
    bench.free(completed);
    bench.finish();
}

#[test]
fn pauses_grow_until_it_is_given_up() {
    let mut bench = Bench::new(config(SUBNQN));
    let mut pauses = Vec::new();
    let begun = bench.now;
    loop {
        bench.refuse();
        match bench.events.remove(0) {
            Event::Lost { why: Why::Connect(IoError::Refused), retry: Some(at) } => {
                assert_eq!(bench.host.deadline(), Some(at));
                pauses.push(at.since(bench.now));
                bench.pass(at.since(bench.now));
            }
            Event::Lost { retry: None, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bench.events[..], [Event::Closed]));
    assert!(pauses[0] < Duration::from_millis(151) && pauses[0] >= Duration::from_millis(100));
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(2)));
    assert_eq!(*pauses.last().unwrap(), Duration::from_secs(2));
    let whole = bench.now.since(begun);
    assert!(whole >= Duration::from_secs(30) && whole <= Duration::from_secs(32), "{whole:?}");
    assert_eq!(bench.host.deadline(), None);
    bench.finish();
}

#[test]
fn it_comes_back_and_looks_at_everything_anew() {
    let mut bench = Bench::live(config(SUBNQN));
    for round in 0..3 {
        bench.read(4096);
        bench.hang_up(1);
        assert_eq!(bench.lost(), (Why::PeerClosed, true));
        let completed = bench.completed();
        assert_eq!(completed.status, Status::ABORTED_BY_HOST);
        bench.free(completed);
        assert!(bench.try_submit(Operation::Flush, None, 0).is_err(), "not live");
        bench.model.namespaces.push(100 + round);
        bench.pass_served(Duration::from_millis(601));
        assert_eq!(bench.take_live().namespaces.len(), 3 + round as usize);
        bench.submit(Operation::Flush, None, 0);
        bench.serve();
        assert_eq!(bench.completed().status, Status::SUCCESS);
    }
    bench.finish();
}

#[test]
fn every_way_to_lose_a_connection_loses_the_association() {
    type Lose = fn(&mut Bench);
    let rows: [(Lose, Why); 4] = [
        (|bench| bench.hang_up(0), Why::PeerClosed),
        (
            |bench| {
                bench.host.ended(&mut bench.mem, bench.now, 1, Err(IoError::Reset));
                bench.act();
            },
            Why::Io(IoError::Reset),
        ),
        (
            |bench| {
                bench.submit(Operation::Flush, None, 0);
                bench.land(1, Err(IoError::TimedOut));
                bench.act();
            },
            Why::Io(IoError::TimedOut),
        ),
        (|bench| bench.say(0, &wire::terminate(2)), Why::Terminated(2)),
    ];
    for (lose, why) in rows {
        let mut bench = Bench::live(config(SUBNQN));
        bench.lands = false;
        lose(&mut bench);
        assert_eq!(bench.lost(), (why, true));
        assert!(bench.link(0).closed && bench.link(1).closed);
        bench.finish();
    }
}

#[test]
fn keep_alive_goes_out_at_half_its_time_even_when_the_admin_queue_is_full() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.pass_served(Duration::from_millis(10_100));
    assert_eq!(bench.model.keep_alives, 4);
    let command = braid_nvme::host::get_features(0x0b, 0, 0);
    while bench.try_submit(Operation::Admin(command), None, 0).is_ok() {}
    while bench.heard(0).is_some() {}
    bench.pass(Duration::from_millis(2_500));
    let pdu = bench.heard(0).expect("a keep alive");
    assert_eq!(pdu.opcode(), 0x18);
    bench.say(0, &wire::response(PLAIN, pdu.cid(), 0, 0));
    bench.finish();
}

#[test]
fn a_keep_alive_without_an_answer_is_the_end_of_the_path() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.pass(Duration::from_millis(7_499));
    bench.take_nothing();
    bench.pass(MS);
    assert_eq!(bench.lost(), (Why::KeepAlive, true));
    bench.finish();

    let mut bench = Bench::live(config(SUBNQN));
    bench.model.refuse.insert(0x18, 0x00c);
    bench.pass_served(Duration::from_millis(2_600));
    assert_eq!(bench.lost(), (Why::KeepAlive, true));
    bench.finish();
}

#[test]
fn an_orderly_close_lets_commands_finish_and_shuts_the_controller_down() {
    let mut bench = Bench::live(config(SUBNQN));
    bench.read(4096);
    bench.host.close(&mut bench.mem, bench.now);
    bench.act();
    assert!(bench.try_submit(Operation::Flush, None, 0).is_err());
    bench.take_nothing();
    assert!(!bench.link(1).closed);
    bench.serve();
    assert_eq!(bench.model.shutdowns, 1);
    let completed = bench.completed_of(1);
    assert_eq!(completed.status, Status::SUCCESS);
    bench.free(completed);
    assert!(matches!(bench.events[..], [Event::Closed]));
    assert!(bench.link(0).closed && bench.link(1).closed);
    bench.finish();
}

#[test]
fn an_orderly_close_does_not_wait_for_ever() {
    // Nothing is answered any more: not the command, not the shutdown.
    for (read, time) in [(true, 30_000), (false, 5_000)] {
        let mut config = config(SUBNQN);
        config.kato = Duration::ZERO;
        let mut bench = Bench::live(config);
        if read {
            bench.read(4096);
        }
        bench.host.close(&mut bench.mem, bench.now);
        bench.act();
        bench.pass(Duration::from_millis(time - 1));
        bench.take_nothing();
        bench.pass(MS);
        assert!(matches!(bench.events.last(), Some(Event::Closed)), "{:?}", bench.events);
        bench.finish();
    }
}

#[test]
fn it_can_be_closed_at_every_step() {
    for answers in 0..20 {
        let mut bench = Bench::new(config(SUBNQN));
        bench.connect();
        for _ in 0..answers {
            let queue = u16::from(bench.links[0].wire.is_empty());
            let Some(pdu) = bench.heard(queue) else { break };
            bench.link(queue).initialized = true;
            let answer = bench.model.answer(queue, &pdu, PLAIN);
            bench.say(queue, &answer);
            bench.connect();
        }
        bench.events.clear();
        bench.host.close(&mut bench.mem, bench.now);
        bench.act();
        bench.serve();
        assert!(matches!(bench.events[..], [Event::Closed]), "{answers}: {:?}", bench.events);
        bench.finish();
    }
}

#[test]
fn it_can_be_lost_at_every_step_and_comes_back() {
    for answers in 0..20 {
        let mut bench = Bench::new(config(SUBNQN));
        bench.connect();
        let mut queue = 0;
        for _ in 0..answers {
            queue = u16::from(bench.links[0].wire.is_empty());
            let Some(pdu) = bench.heard(queue) else { break };
            bench.link(queue).initialized = true;
            let answer = bench.model.answer(queue, &pdu, PLAIN);
            bench.say(queue, &answer);
            bench.connect();
        }
        bench.events.clear();
        bench.hang_up(0);
        assert_eq!(bench.lost(), (Why::PeerClosed, true));
        let _ = queue;
        bench.pass_served(Duration::from_millis(200));
        bench.take_live();
        bench.finish();
    }
}

#[test]
fn a_connection_that_was_made_too_late_is_not_used() {
    let mut bench = Bench::new(config(SUBNQN));
    let late = bench.connects.clone();
    bench.pass(Duration::from_secs(10));
    bench.lost();
    assert_eq!(late, [0]);
    assert!(bench.connects.is_empty(), "it was given up");
    bench.host.connected(&mut bench.mem, bench.now, 0, Ok(()));
    bench.act();
    assert!(bench.heard(0).is_none());
    bench.finish();
}
