//! The rarer turns of a socket's life.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use braid_block::{Class, IoError, Lease, Memory};
use braid_reactor::{Arena, Listener};
use braid_shard::{Effect, Event, Socket, Traffic};
use support::{Fake, Parts, Todo, listener, token};

const RECEIVE: u8 = 1;
const SEND: u8 = 2;
const CONNECT: u8 = 3;

/// What a test is told by its machine.
type Told = (u8, Result<u32, IoError>);

fn keep(todo: &mut Todo, lease: Lease) {
    todo.leases.push(lease);
}

fn receive_exact(todo: &mut Todo, mem: &mut Arena, socket: Socket, len: u32) {
    let lease = mem.alloc(Class::Large).expect("there is room");
    let (token, span) = (token(RECEIVE, socket.0), lease.span(0, len));
    todo.effects.push_back(Effect::ReceiveExact { token, socket, span });
    keep(todo, lease);
}

/// Fills a batch with a large buffer as often as asked, and sends it.
fn send(todo: &mut Todo, mem: &mut Arena, socket: Socket, pieces: usize) {
    let lease = mem.alloc(Class::Large).expect("there is room");
    mem.bytes_mut(&lease).fill(7);
    todo.batches.push(vec![lease.span(0, 128 << 10); pieces]);
    let batch = u32::try_from(todo.batches.len() - 1).expect("few");
    todo.effects.push_back(Effect::Send { token: token(SEND, socket.0), socket, batch });
    keep(todo, lease);
}

/// A server whose machine does `accepted` with each connection and reports each answer, then
/// does `done` with it.
fn serve(
    mut accepted: impl FnMut(&mut Todo, &mut Arena, Socket) + Send + 'static,
    mut done: impl FnMut(&mut Todo, &mut Arena, Told) + Send + 'static,
) -> (support::Running, SocketAddr, mpsc::Receiver<Told>) {
    let (listener, address) = listener();
    let (sender, answers) = mpsc::channel();
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Accepted { socket, .. } => accepted(todo, mem, socket),
        Event::Done { token, result } => {
            let _ = sender.send((token.kind(), result));
            done(todo, mem, (token.kind(), result));
        }
        Event::Received { lease, .. } => keep(todo, lease),
        _ => {}
    });
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(machine);
    (running, address, answers)
}

fn next(answers: &mpsc::Receiver<Told>) -> Told {
    answers.recv_timeout(Duration::from_secs(10)).expect("an answer")
}

fn nothing(_: &mut Todo, _: &mut Arena, _: Told) {}

#[test]
fn an_exact_receive_gathers_pieces_and_says_when_the_stream_ended_early() {
    let exact = |todo: &mut Todo, mem: &mut Arena, socket| receive_exact(todo, mem, socket, 50_000);
    let (running, address, answers) = serve(exact, move |todo, mem, told| {
        if told.1 == Ok(50_000) {
            let lease = todo.leases.last().expect("one");
            assert!(mem.bytes(lease)[..50_000].chunks(10).all(|c| c == b"0123456789"));
            receive_exact(todo, mem, Socket(0), 100);
        }
    });
    let mut stream = TcpStream::connect(address).expect("it listens");
    for _ in 0..50 {
        stream.write_all(&b"0123456789".repeat(100)).expect("it is open");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(next(&answers), (RECEIVE, Ok(50_000)));
    stream.write_all(&[1; 30]).expect("it is open");
    drop(stream);
    assert_eq!(next(&answers), (RECEIVE, Ok(30)));
    running.stop();
}

#[test]
fn a_reset_by_the_peer_ends_what_is_in_flight() {
    let stream = |todo: &mut Todo, mem: &mut Arena, socket: Socket| {
        let token = token(RECEIVE, socket.0);
        todo.effects.push_back(Effect::ReceiveStream { token, socket, traffic: Traffic::Hosts });
        send(todo, mem, socket, 64);
    };
    let (running, address, answers) = serve(stream, nothing);
    let stream = TcpStream::connect(address).expect("it listens");
    std::thread::sleep(Duration::from_millis(20));
    // Closing with unread bytes sends a reset.
    drop(stream);
    let mut ends = [next(&answers), next(&answers)];
    ends.sort_by_key(|end| end.0);
    // A socket tells its error once, here to the sender; the receiver may only see the end.
    assert!(matches!(ends[0], (RECEIVE, Ok(0) | Err(IoError::Reset))), "{ends:?}");
    assert_eq!(ends[1], (SEND, Err(IoError::Reset)));
    running.stop();
}

#[test]
fn closing_answers_everything_in_flight_and_frees_the_place() {
    let begin = |todo: &mut Todo, mem: &mut Arena, socket: Socket| {
        receive_exact(todo, mem, socket, 100);
        send(todo, mem, socket, 64);
        todo.effects.push_back(Effect::Close { socket });
    };
    let (running, address, answers) = serve(begin, |todo, mem, _| {
        // Eight megabytes do not fit an arena of one: they are one buffer, sent 64 times.
        if todo.leases.len() == 2 && mem.counters().leases_out == 2 && todo.effects.is_empty() {
            todo.due = None;
        }
    });
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut ends = [next(&answers), next(&answers)];
        ends.sort_by_key(|end| end.0);
        let cancelled = Err(IoError::Cancelled);
        assert_eq!(ends, [(RECEIVE, cancelled), (SEND, cancelled)]);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 8 << 20);
    }
    assert_eq!(running.counters().0.sockets, 0);
    running.stop();
}

#[test]
fn a_stopped_stream_can_be_received_exactly_from_where_it_stopped() {
    let stream = |todo: &mut Todo, _: &mut Arena, socket: Socket| {
        let token = token(RECEIVE, socket.0);
        todo.effects.push_back(Effect::ReceiveStream { token, socket, traffic: Traffic::Hosts });
        todo.effects.push_back(Effect::ReceiveStop { socket });
    };
    let (running, address, answers) = serve(stream, |todo, mem, told| {
        if told.1 == Err(IoError::Cancelled) {
            receive_exact(todo, mem, Socket(0), 5);
        }
    });
    let mut stream = TcpStream::connect(address).expect("it listens");
    assert_eq!(next(&answers), (RECEIVE, Err(IoError::Cancelled)));
    stream.write_all(b"hello").expect("it is open");
    assert_eq!(next(&answers), (RECEIVE, Ok(5)));
    running.stop();
}

#[test]
fn a_peer_that_takes_slowly_gets_all_of_a_batch() {
    let begin = |todo: &mut Todo, mem: &mut Arena, socket: Socket| send(todo, mem, socket, 64);
    let (running, address, answers) = serve(begin, |todo, _, _| {
        todo.effects.push_back(Effect::Shutdown { socket: Socket(0) });
    });
    let mut stream = TcpStream::connect(address).expect("it listens");
    let (mut total, mut buffer) = (0, vec![0; 100_000]);
    loop {
        let len = stream.read(&mut buffer).expect("an orderly end");
        if len == 0 {
            break;
        }
        assert!(buffer[..len].iter().all(|byte| *byte == 7));
        total += len;
        if total % 7 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(total, 8 << 20);
    assert_eq!(next(&answers), (SEND, Ok(8 << 20)));
    running.stop();
}

#[test]
fn connecting_gives_a_socket_or_says_why_not() {
    let there = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = there.local_addr().expect("it is bound");
    let nobody = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let refused = nobody.local_addr().expect("it is bound");
    drop(nobody);
    let (sender, answers) = mpsc::channel();
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Start { .. } => {
            for address in 0..3 {
                let token = token(CONNECT, address);
                todo.effects.push_back(Effect::Connect { token, address });
            }
        }
        Event::Done { token, result } => {
            let _ = sender.send((token.kind(), token.key().index, result));
            if token.kind() == CONNECT
                && let Ok(socket) = result
            {
                send(todo, mem, Socket(socket), 1);
            }
        }
        _ => {}
    });
    let parts = Parts { addresses: vec![address, refused], ..Parts::default() };
    let running = parts.run(machine);
    let mut ends: Vec<_> = answers.iter().take(4).collect();
    ends.sort_by_key(|(kind, index, _)| (*kind, *index));
    assert!(matches!(ends[0], (SEND, _, Ok(131_072))), "{ends:?}");
    assert!(matches!(ends[1], (CONNECT, 0, Ok(_))), "{ends:?}");
    assert_eq!(ends[2], (CONNECT, 1, Err(IoError::Refused)));
    assert_eq!(ends[3], (CONNECT, 2, Err(IoError::Gone)));
    let (mut stream, _) = there.accept().expect("it connected");
    let mut got = vec![0; 128 << 10];
    stream.read_exact(&mut got).expect("all of it");
    assert_eq!(running.counters().0.sockets, 1);
    running.stop();
}

#[test]
fn a_connection_beyond_the_table_is_turned_away() {
    let (running, address, _answers) = serve(|_, _, _| {}, nothing);
    let peers: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    let mut ended = 0;
    for mut peer in &peers {
        peer.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        ended += usize::from(matches!(peer.read(&mut [0]), Ok(0)));
    }
    assert_eq!(ended, 4);
    let (counters, _) = running.counters();
    assert_eq!((counters.accepted, counters.turned_away, counters.sockets), (16, 4, 16));
    running.stop();
}

#[test]
fn an_effect_on_a_socket_that_is_gone_is_answered() {
    let begin = |todo: &mut Todo, mem: &mut Arena, socket: Socket| {
        todo.effects.push_back(Effect::Close { socket });
        receive_exact(todo, mem, socket, 100);
        send(todo, mem, socket, 1);
    };
    let (running, address, answers) = serve(begin, nothing);
    let _stream = TcpStream::connect(address).expect("it listens");
    assert_eq!(next(&answers).1, Err(IoError::Gone));
    assert_eq!(next(&answers).1, Err(IoError::Gone));
    running.stop();
}

#[test]
fn a_panic_in_the_machine_ends_its_thread_and_nothing_else() {
    let (listener, address) = listener();
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Accepted { socket, .. } => {
            receive_exact(todo, mem, socket, 100);
            send(todo, mem, socket, 64);
        }
        Event::Elapsed => panic!("as the test wants it"),
        _ => todo.due = Some(braid_reactor::now() + Duration::from_millis(100)),
    });
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(machine);
    let mut stream = TcpStream::connect(address).expect("it listens");
    // The process closes the connection with the ring; nothing touches the freed memory.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.iter().all(|byte| *byte == 7));
    assert!(running.has_panicked());
}

#[test]
fn spans_that_follow_each_other_are_sent_as_one() {
    let begin = |todo: &mut Todo, mem: &mut Arena, socket: Socket| {
        let lease = mem.alloc(Class::Small).expect("there is room");
        (0..64u8).zip(mem.bytes_mut(&lease).chunks_mut(16)).for_each(|(i, part)| part.fill(i));
        let backwards = [lease.span(1008, 16), lease.span(0, 0), lease.span(992, 16)];
        let spans = (0..61).map(|i| lease.span(i * 16, 16));
        todo.batches.push(spans.chain(backwards).collect());
        todo.effects.push_back(Effect::Send { token: token(SEND, socket.0), socket, batch: 0 });
        keep(todo, lease);
    };
    let (running, address, answers) = serve(begin, nothing);
    let mut stream = TcpStream::connect(address).expect("it listens");
    let mut got = [0; 63 * 16];
    stream.read_exact(&mut got).expect("all of it");
    let expected: Vec<u8> = (0..61).chain([63, 62]).flat_map(|i| [i; 16]).collect();
    assert_eq!(got[..], expected);
    assert_eq!(next(&answers), (SEND, Ok(63 * 16)));
    running.stop();
}

#[test]
fn who_came_by_version_four_to_a_listener_for_both_is_told_so() {
    let Ok(listener) = Listener::bind((Ipv6Addr::UNSPECIFIED, 0).into()) else { return };
    let port = listener.address().port();
    let (sender, told) = mpsc::channel();
    let machine = Fake::new(move |_: &mut Todo, _: &mut Arena, event| {
        if let Event::Accepted { local, .. } = event {
            let _ = sender.send(local);
        }
    });
    let running = Parts { listeners: vec![listener], ..Parts::default() }.run(machine);
    let Ok(_stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let local = told.recv_timeout(Duration::from_secs(10)).expect("it was accepted");
    assert_eq!(local.as_deref(), Some(&SocketAddr::from(([127, 0, 0, 1], port))));
    running.stop();
}
