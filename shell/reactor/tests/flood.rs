//! More arrives than the machine takes: buffers run out, the kernel holds back, nothing is lost.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use braid_block::Memory;
use braid_reactor::{Arena, now};
use braid_shard::{Effect, Event, Traffic};
use support::{Fake, Parts, Todo, listener, token};

const PEERS: usize = 6;
const BYTES: usize = 1_500_000;

#[test]
fn receivers_starve_and_go_on_when_buffers_come_back() {
    let (listener, address) = listener();
    let (sender, told) = mpsc::channel();
    let (mut totals, mut ended) = ([0; 16], 0);
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Accepted { socket, .. } => {
            let token = token(1, socket.0);
            todo.effects.push_back(Effect::ReceiveStream {
                token,
                socket,
                traffic: Traffic::Hosts,
            });
        }
        Event::Received { token, lease, len } => {
            let total = &mut totals[token.key().index as usize];
            for byte in &mem.bytes(&lease)[..len as usize] {
                assert_eq!(*byte, (*total % 251) as u8);
                *total += 1;
            }
            todo.leases.push(lease);
            // Everything is kept for a while, though there are only eight buffers.
            todo.due = todo.due.or_else(|| Some(now() + Duration::from_millis(1)));
        }
        Event::Elapsed => {
            todo.due = None;
            todo.leases.drain(..).for_each(|lease| mem.free(lease));
        }
        Event::Done { result, .. } => {
            assert_eq!(result, Ok(0));
            ended += 1;
            if ended == PEERS {
                let _ = sender.send(totals);
            }
        }
        _ => {}
    });
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(machine);
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
                stream.write_all(&bytes).expect("all is taken in the end");
            })
        })
        .collect();
    peers.into_iter().for_each(|peer| peer.join().expect("no panic"));
    let totals = told.recv_timeout(Duration::from_secs(60)).expect("all streams end");
    assert_eq!(totals.iter().filter(|total| **total == BYTES).count(), PEERS);
    let (counters, arena) = running.counters();
    assert!(counters.starved > 0, "{counters:?}");
    assert!(arena.leases_out <= 8);
    running.stop();
}

#[test]
fn what_one_kind_of_traffic_holds_is_not_missing_to_another() {
    let (listener, address) = listener();
    let (sender, told) = mpsc::channel();
    let (mut accepted, mut held) = (0, 0);
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Accepted { socket, .. } => {
            let token = token(1, accepted);
            let traffic = if accepted == 0 { Traffic::Hosts } else { Traffic::Targets };
            accepted += 1;
            todo.effects.push_back(Effect::ReceiveStream { token, socket, traffic });
        }
        // The host's bytes are never looked at.
        Event::Received { token, lease, .. } if token.key().index == 0 => {
            todo.leases.push(lease);
            held += 1;
            let _ = sender.send((held, 0));
        }
        Event::Received { lease, len, .. } => {
            mem.free(lease);
            let _ = sender.send((held, len));
        }
        Event::Done { .. } => todo.leases.drain(..).for_each(|lease| mem.free(lease)),
        _ => {}
    });
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(machine);
    let flood = TcpStream::connect(address).expect("it listens");
    let mut writer = flood.try_clone().expect("a descriptor");
    let flooding = std::thread::spawn(move || {
        // It ends with an error, when the stream is shut.
        let _ = writer.write_all(&vec![1; 8 << 20]);
    });
    let patience = Duration::from_secs(20);
    let next = || told.recv_timeout(patience).expect("something arrives");
    while next().0 < 8 {}
    let mut target = TcpStream::connect(address).expect("it listens");
    for _ in 0..100 {
        target.write_all(&[2; 1000]).expect("it is taken");
        let mut left = 1000;
        while left > 0 {
            let (held, len) = next();
            assert_eq!(held, 8, "all that there are for hosts");
            left -= len;
        }
    }
    flood.shutdown(std::net::Shutdown::Both).expect("it is open");
    flooding.join().expect("no panic");
    drop(target);
    running.stop();
}
