//! What a rude peer may send.

use braid_nexus::guard::{ASSOCIATIONS_MAX, CARRIED_MAX, COPIES_MAX, SNAPSHOTS_KNOWN_MAX};
use braid_nexus::wire::{Command, TRANSFER_MAX};

use super::bench::{ANNA, BERT, Bench, MIB, later, record};

#[test]
fn commands_that_leave_the_replica_or_are_too_long_are_refused() {
    let mut bench = Bench::held();
    let end = 256 * MIB;
    let commands = [
        Command::Read { offset: end, len: 512 },
        Command::Read { offset: 0, len: TRANSFER_MAX + 512 },
        Command::Read { offset: u64::MAX - 511, len: 4096 },
        Command::Read { offset: 0, len: 0 },
        Command::Read { offset: 100, len: 512 },
        Command::Write { offset: end - 512, len: 1024, durable: true },
        Command::Zero { offset: 512, len: end, durable: false },
        Command::Zero { offset: 512, len: u64::MAX - 511, durable: false },
        Command::Compare { snapshot: None, offset: 512, len: 4096 },
        Command::Compare { snapshot: None, offset: 0, len: 2 << 20 },
    ];
    for (tag, command) in (10..).zip(commands) {
        let told = bench.send(1, tag, command.clone());
        assert_eq!(told, [format!("answer 1/{tag} invalid")], "{command:?}");
    }
    let last = Command::Read { offset: end - 512, len: 512 };
    assert_eq!(bench.send(1, 1000, last), ["carry 1000 read"]);
    let compare = Command::Compare { snapshot: None, offset: end - MIB, len: 1 << 20 };
    assert_eq!(bench.send(1, 1001, compare), ["carry 1001 compare"]);
}

#[test]
fn a_replica_that_grew_is_larger() {
    let mut bench = Bench::held();
    let last = || Command::Read { offset: 300 * MIB - 512, len: 512 };
    assert_eq!(bench.send(1, 10, last()), ["answer 1/10 invalid"]);
    let bytes = 300 * MIB;
    assert_eq!(bench.send(1, 11, Command::Resize { bytes }), [format!("carry 11 resize {bytes}")]);
    assert_eq!(bench.send(1, 12, last()), ["answer 1/12 invalid"], "not yet");
    bench.carried(11);
    assert_eq!(bench.send(1, 13, last()), ["carry 13 read"]);
    let smaller = Command::Resize { bytes: 280 * MIB };
    assert_eq!(bench.send(1, 14, smaller), ["answer 1/14 done"], "large enough already");
    assert_eq!(bench.send(1, 15, last()), ["carry 15 read"]);
}

#[test]
fn snapshots_of_others_are_neither_read_nor_deleted() {
    let mut bench = Bench::held();
    let name = || Box::new([9; 16]);
    let read = || Command::ReadSnapshot { snapshot: name(), offset: 0, len: 4096 };
    let delete = || Command::DeleteSnapshot { uuid: name() };
    let compare = || Command::Compare { snapshot: Some(name()), offset: 0, len: 4096 };
    assert_eq!(bench.send(1, 10, read()), ["answer 1/10 invalid"]);
    assert_eq!(bench.send(1, 11, compare()), ["answer 1/11 invalid"]);
    let marks = Command::Marks { snapshot: Some(name()) };
    assert_eq!(bench.send(1, 12, marks), ["answer 1/12 invalid"]);
    assert_eq!(bench.send(1, 13, delete()), ["answer 1/13 done"], "there is nothing to delete");

    assert_eq!(bench.send(1, 14, Command::Snapshot { uuid: name() }), ["carry 14 snapshot"]);
    bench.carried(14);
    assert_eq!(bench.send(1, 15, read()), ["carry 15 read of a snapshot"]);
    assert_eq!(bench.send(1, 16, compare()), ["carry 16 compare"]);
    assert_eq!(bench.send(1, 17, delete()), ["carry 17 delete"]);
    bench.carried(17);
    assert_eq!(bench.send(1, 18, read()), ["answer 1/18 invalid"]);
}

#[test]
fn snapshots_are_limited_and_repeating_one_is_not() {
    let mut bench = Bench::held();
    for at in 0..SNAPSHOTS_KNOWN_MAX {
        let (tag, uuid) = (100 + at as u64, Box::new([at as u8; 16]));
        assert_eq!(
            bench.send(1, tag, Command::Snapshot { uuid }),
            [format!("carry {tag} snapshot")]
        );
        bench.carried(tag);
    }
    let snapshot = |byte| Command::Snapshot { uuid: Box::new([byte; 16]) };
    assert_eq!(bench.send(1, 10, snapshot(255)), ["answer 1/10 invalid"]);
    assert_eq!(bench.send(1, 11, snapshot(0)), ["carry 11 snapshot"]);
}

#[test]
fn an_association_that_sends_too_much_is_ended() {
    let mut bench = Bench::held();
    for tag in 0..CARRIED_MAX as u64 {
        bench.read(1, 100 + tag);
    }
    assert_eq!(bench.read(1, 10), ["answer 1/10 gone", "close 1"]);
    assert_eq!(bench.read(1, 11), ["answer 1/11 gone"]);
    assert_eq!(bench.guard.view().carried, CARRIED_MAX);
}

#[test]
fn copies_that_wait_are_limited() {
    let mut bench = Bench::held();
    for tag in 0..=COPIES_MAX as u64 {
        bench.copy(1, 10 + tag, &later(&record(5, ANNA), 1 + tag));
    }
    let told = bench.copy(1, 99, &later(&record(5, ANNA), 99));
    assert_eq!(told, ["answer 1/99 gone", "close 1"]);
}

#[test]
fn associations_are_limited_and_those_that_are_needed_stay() {
    let mut bench = Bench::held();
    bench.fence(2, 2, &record(6, BERT));
    for association in 3..=ASSOCIATIONS_MAX as u32 {
        assert_eq!(bench.open(association), [""; 0]);
    }
    assert_eq!(bench.open(100), ["close 3"], "1 holds, 2 fences");
    assert_eq!(bench.fence(101, 3, &record(7, ANNA)), ["close 4", "answer 2/2 conflict 7"]);
}

#[test]
fn what_ended_twice_or_was_never_asked_for_is_ignored() {
    let mut bench = Bench::held();
    assert_eq!(bench.carried(77), [""; 0]);
    assert_eq!(bench.kept(77), [""; 0]);
    assert_eq!(bench.close(77), [""; 0]);
    assert_eq!(bench.write(1, 10, 0), ["carry 10 write"]);
}

#[test]
fn numbers_from_which_nobody_could_count_on_are_refused() {
    use braid_nexus::wire::NUMBER_MAX;
    let mut bench = Bench::held();
    let number = NUMBER_MAX + 1;
    assert_eq!(bench.send(1, 10, Command::Flush { number }), ["answer 1/10 invalid"]);
    assert_eq!(
        bench.send(1, 11, Command::Flush { number: NUMBER_MAX }),
        [format!("carry 11 flush {NUMBER_MAX}")]
    );
    let mut late = record(5, ANNA);
    late.version = number;
    assert_eq!(bench.copy(1, 12, &late), ["answer 1/12 invalid"]);
    assert_eq!(bench.fence(2, 13, &late).last().unwrap(), "answer 2/13 invalid");
    late = record(6, BERT);
    late.epoch = number;
    assert_eq!(bench.fence(3, 14, &late).last().unwrap(), "answer 3/14 invalid");
}
