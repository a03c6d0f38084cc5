//! Streams over loopback.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpStream};

use braid_reactor::Listener;
use support::echo::Echo;
use support::{Lcg, Parts, listener};

/// Writes and reads at once; what comes back is what was sent.
fn exchange(stream: TcpStream, bytes: usize, seed: u64) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let sent: Vec<u8> = {
        let mut random = Lcg(seed);
        (0..bytes).map(|_| random.below(256) as u8).collect()
    };
    let expected = sent.clone();
    let thread = std::thread::spawn(move || {
        let mut random = Lcg(seed + 1);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let len = (1 + random.below(60_000) as usize).min(rest.len());
            writer.write_all(&rest[..len]).expect("the echo takes it");
            rest = &rest[len..];
        }
        writer.shutdown(Shutdown::Write).expect("it is open");
    });
    let mut got = Vec::new();
    (&stream).read_to_end(&mut got).expect("an orderly end");
    thread.join().expect("no panic");
    assert!(got == expected, "{} of {} bytes", got.len(), expected.len());
}

#[test]
fn what_is_sent_comes_back_in_order_from_several_peers_at_once() {
    let (listener, address) = listener();
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(Echo::new(16));
    let peers: Vec<_> = (0..4)
        .map(|seed| {
            let stream = TcpStream::connect(address).expect("it listens");
            std::thread::spawn(move || exchange(stream, 3_000_000, seed))
        })
        .collect();
    for peer in peers {
        peer.join().expect("no panic");
    }
    let (counters, arena) = running.counters();
    assert_eq!((counters.accepted, counters.sockets), (4, 0));
    assert_eq!(arena.leases_out, 0);
    running.stop();
}

#[test]
fn version_six_is_listened_at_too() {
    let Ok(listener) = Listener::bind((Ipv6Addr::LOCALHOST, 0).into()) else { return };
    let address = listener.address();
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(Echo::new(16));
    exchange(TcpStream::connect(address).expect("it listens"), 100_000, 9);
    running.stop();
}
