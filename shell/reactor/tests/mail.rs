//! Mail between shards, and the socket that travels in it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use braid_block::{Class, Memory};
use braid_nvme::target::Handshake;
use braid_reactor::{Arena, mesh};
use braid_shard::{Effect, Event, Mail, Socket};
use support::{Fake, Parts, Todo, handshake, listener, token};

fn hand_over(todo: &mut Todo, socket: Socket, listener: u16, handshake: Handshake) {
    let mail = Box::new(Mail::Connection { socket, listener, handshake });
    todo.effects.push_back(Effect::Mail { shard: 1, mail });
}

#[test]
fn a_connection_goes_to_another_shard_with_its_socket() {
    let (listener, address) = listener();
    let mut ports = mesh(2).into_iter();
    let (first, second) = (ports.next().expect("two"), ports.next().expect("two"));
    // The first shard keeps every other connection, so that the numbers differ.
    let mut accepted = 0;
    let door = Fake::new(move |todo: &mut Todo, _: &mut Arena, event| {
        if let Event::Accepted { socket, listener, .. } = event {
            accepted += 1;
            if accepted % 2 == 0 {
                hand_over(todo, socket, listener, handshake());
            }
        }
    });
    let (sender, told) = mpsc::channel();
    let home = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Mail(mail) => {
            #[allow(irrefutable_let_patterns, reason = "there may be other letters")]
            let Mail::Connection { socket, listener, .. } = *mail else { return };
            let _ = sender.send((socket, listener));
            let lease = mem.alloc(Class::Small).expect("there is room");
            let (token, span) = (token(1, socket.0), lease.span(0, 5));
            todo.leases.push(lease);
            todo.effects.push_back(Effect::ReceiveExact { token, socket, span });
        }
        Event::Done { token: done, result } if done.kind() == 1 => {
            assert_eq!(result, Ok(5));
            let socket = done.key().index;
            let lease = todo.leases.remove(0);
            todo.batches.push(vec![lease.span(0, 5)]);
            todo.leases.push(lease);
            let batch = todo.batches.len() as u32 - 1;
            let token = token(2, socket);
            todo.effects.push_back(Effect::Send { token, socket: Socket(socket), batch });
        }
        _ => {}
    });
    let door = Parts { listeners: vec![listener], port: first, ..Parts::default() }.run(door);
    let home = Parts { port: second, ..Parts::default() }.run(home);
    let mut kept = Vec::new();
    for expected in 0..3 {
        kept.push(TcpStream::connect(address).expect("it listens"));
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"hello").expect("it is open");
        let mut got = [0; 5];
        stream.read_exact(&mut got).expect("the other shard answers");
        assert_eq!(&got, b"hello");
        let told = told.recv_timeout(Duration::from_secs(10)).expect("it was told");
        assert_eq!(told, (Socket(expected), 0));
        kept.push(stream);
    }
    let (counters, _) = door.counters();
    assert_eq!((counters.sockets, counters.letters, counters.letters_lost), (3, 3, 0));
    assert_eq!(home.counters().0.sockets, 3);
    door.stop();
    home.stop();
}

#[test]
fn a_letter_whose_socket_is_gone_is_lost_and_counted() {
    let (listener, address) = listener();
    let mut ports = mesh(2).into_iter();
    let (first, second) = (ports.next().expect("two"), ports.next().expect("two"));
    let (sender, told) = mpsc::channel();
    let door = Fake::new(move |todo: &mut Todo, _: &mut Arena, event| {
        if let Event::Accepted { socket, .. } = event {
            hand_over(todo, socket, 1, handshake());
            hand_over(todo, socket, 2, handshake());
        }
    });
    let home = Fake::new(move |_: &mut Todo, _: &mut Arena, event| {
        if let Event::Mail(mail) = event {
            let _ = sender.send(mail);
        }
    });
    let door = Parts { listeners: vec![listener], port: first, ..Parts::default() }.run(door);
    let home = Parts { port: second, ..Parts::default() }.run(home);
    let _stream = TcpStream::connect(address).expect("it listens");
    let mail = told.recv_timeout(Duration::from_secs(10)).expect("the first arrives");
    assert!(matches!(*mail, Mail::Connection { listener: 1, .. }));
    let (counters, _) = door.counters();
    assert_eq!((counters.letters, counters.letters_lost), (1, 1));
    home.stop();
    // Nobody is there any more: the letter is lost, its socket is closed, and nothing hangs.
    let mut stream = TcpStream::connect(address).expect("it listens");
    assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
    door.stop();
}
