//! Discovery: the log in pieces, and again when it changes under our eyes.

use braid_nvme::DISCOVERY_NQN;
use braid_nvme::host::{Entry, Event, Subtype, TransportFamily, Unsuitable, Why};

use crate::bench::{Bench, PLAIN, config};

fn log(generation: u64, entries: u64) -> Vec<u8> {
    let mut log = vec![0; 1024 * (entries as usize + 1)];
    log[..8].copy_from_slice(&generation.to_le_bytes());
    log[8..16].copy_from_slice(&entries.to_le_bytes());
    for (at, entry) in log.chunks_mut(1024).enumerate().skip(1) {
        entry[..4].copy_from_slice(&[3, 1, 2, 4]);
        entry[4] = at as u8;
        entry[6..10].copy_from_slice(&[0xff, 0xff, 32, 0]);
        entry[32..64].fill(b' ');
        entry[32..36].copy_from_slice(b"4420");
        entry[512..768].fill(b' ');
        entry[512..521].copy_from_slice(b"127.0.0.1");
        let nqn = format!("nqn.2026-01.io.braid:{at}");
        entry[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
    }
    log
}

fn bench(log: Vec<u8>) -> Bench {
    let mut config = config(DISCOVERY_NQN);
    config.kato = std::time::Duration::ZERO;
    let mut bench = Bench::new(config);
    // A discovery controller, which need not say anything of capsules or keep alive.
    bench.model.identity[111] = 2;
    bench.model.identity[320] = 0;
    bench.model.identity[1792..1802].fill(0);
    bench.model.log = log;
    bench
}

fn discovered(bench: &mut Bench) -> Vec<Entry> {
    let live = bench.take_live();
    assert!(live.controller.is_discovery && live.io_queues == 0);
    match bench.events.remove(0) {
        Event::Discovered(entries) => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_of_any_length_is_read_to_its_end() {
    for count in [0, 1, 3, 4, 5, 8, 65] {
        let mut bench = bench(log(3, count));
        bench.serve();
        let entries = discovered(&mut bench);
        assert_eq!(entries.len() as u64, count);
        for (at, entry) in (1_u16..).zip(&entries) {
            assert_eq!((entry.transport, entry.port, entry.cntlid), (3, at, 0xffff));
            assert_eq!((entry.family, entry.subtype), (TransportFamily::Ipv4, Subtype::Nvm));
            assert_eq!((&*entry.service, &*entry.address), ("4420", "127.0.0.1"));
            assert_eq!(entry.subnqn.unwrap().as_str(), format!("nqn.2026-01.io.braid:{at}"));
        }
        let reads: Vec<_> = bench.model.commands.iter().filter(|c| c.opcode() == 2).collect();
        let (last, others) = reads.split_last().unwrap();
        assert_eq!(last.cdw(10) & 1 << 15, 0, "the last read lets the next change be told");
        assert!(others.iter().all(|read| read.cdw(10) & 1 << 15 != 0));
        bench.finish();
    }
}

#[test]
fn a_log_that_changes_meanwhile_is_read_again() {
    let mut bench = bench(log(3, 5));
    bench.connect();
    while let Some(pdu) = bench.heard(0) {
        bench.link(0).initialized = true;
        let answer = bench.model.answer(0, &pdu, PLAIN);
        let reads = bench.model.commands.iter().filter(|c| c.opcode() == 2).count();
        if reads == 2 {
            bench.model.log = log(4, 7);
        }
        bench.say(0, &answer);
    }
    assert_eq!(discovered(&mut bench).len(), 7);
    bench.finish();
}

#[test]
fn a_log_that_makes_no_sense_or_never_rests_is_given_up() {
    let mut wrong_format = log(3, 5);
    wrong_format[16] = 1;
    let endless = log(3, 1_u64 << 3);
    let mut endless_count = endless.clone();
    endless_count[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    for bad in [wrong_format, endless_count] {
        let mut bench = bench(bad);
        bench.serve();
        assert_eq!(bench.lost(), (Why::Unsuitable(Unsuitable::DiscoveryLog), true));
        bench.finish();
    }
    let mut restless = bench(log(1, 1));
    restless.connect();
    let mut generation = 1;
    while let Some(pdu) = restless.heard(0) {
        restless.link(0).initialized = true;
        let answer = restless.model.answer(0, &pdu, PLAIN);
        generation += 1;
        restless.model.log = log(generation, 1);
        restless.say(0, &answer);
    }
    assert_eq!(restless.lost(), (Why::Unsuitable(Unsuitable::DiscoveryLog), true));
    assert!(generation < 100);
    restless.finish();
}

#[test]
fn an_io_controller_behind_the_discovery_name_is_refused() {
    let mut bench = bench(log(1, 1));
    bench.model.identity[111] = 1;
    bench.serve();
    assert_eq!(bench.lost(), (Why::Unsuitable(Unsuitable::NotDiscovery), true));
    bench.finish();
}
