//! A TCP proxy of our own that is slow, or breaks connections: one process, started where
//! connections are made, killed when it is over.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use braid_sim::Random;

use crate::Outcome;

/// Pieces that are on their way in one direction, at most: the sender is slowed down then.
const PIECES: usize = 256;
/// How long the real peer may take to accept.
const CONNECT: Duration = Duration::from_secs(2);

/// What it is to do.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// Where it connects to
    #[arg(long)]
    to: SocketAddr,
    /// Every piece arrives so many milliseconds later, in both directions
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// A connection is reset after at most so many bytes in one direction; 0: never
    #[arg(long, default_value_t = 0)]
    reset_after: u64,
    /// Where its chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Serves until it is killed.
pub fn serve(options: &Options) -> Outcome<()> {
    let listener = TcpListener::bind(options.listen)
        .map_err(|error| format!("cannot listen at {}: {error}", options.listen))?;
    pass_all(&listener, options);
    Ok(())
}

fn pass_all(listener: &TcpListener, options: &Options) {
    let mut random = Random::new(options.seed);
    while let Ok((near, _)) = listener.accept() {
        let limits = [(); 2].map(|()| match options.reset_after {
            0 => u64::MAX,
            most => random.within(1, most),
        });
        let (to, delay) = (options.to, Duration::from_millis(options.delay));
        thread::spawn(move || {
            // Whoever connected sees that nobody is there as the end of its connection.
            let Ok(far) = TcpStream::connect_timeout(&to, CONNECT) else { return reset(&near) };
            pass(&near, &far, delay, limits);
        });
    }
}

/// Passes both directions on.
fn pass(near: &TcpStream, far: &TcpStream, delay: Duration, limits: [u64; 2]) {
    for stream in [near, far] {
        // Without it small pieces wait for each other; they arrive all the same.
        let _ = stream.set_nodelay(true);
    }
    for ((from, to), limit) in [(near, far), (far, near)].into_iter().zip(limits) {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (sender, pieces) = sync_channel(PIECES);
        thread::spawn(move || deliver(to, &pieces));
        let both = (near.try_clone(), far.try_clone());
        thread::spawn(move || {
            if !collect(from, &sender, delay, limit) {
                both.0.iter().chain(&both.1).for_each(reset);
            }
        });
    }
}

/// A piece, and when it is to arrive; nothing: the end of the stream.
type Piece = (Instant, Vec<u8>);

/// Reads until the end, which is passed on: true; until it broke, or the limit: false.
fn collect(
    mut from: TcpStream,
    sender: &SyncSender<Piece>,
    delay: Duration,
    mut limit: u64,
) -> bool {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return false,
            Ok(read) => read,
        };
        limit = limit.saturating_sub(read as u64);
        let piece = (Instant::now() + delay, buffer[..read].to_vec());
        if limit == 0 || sender.send(piece).is_err() {
            return false;
        }
        if read == 0 {
            return true;
        }
    }
}

fn deliver(mut to: TcpStream, pieces: &Receiver<Piece>) {
    while let Ok((when, bytes)) = pieces.recv() {
        thread::sleep(when.saturating_duration_since(Instant::now()));
        if bytes.is_empty() {
            // It may be gone already.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

/// Ends a connection by a reset.
fn reset(stream: &TcpStream) {
    // Either fails on a connection that is gone.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the same one, behind a proxy.
    fn behind(delay: u64, reset_after: u64) -> TcpStream {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = proxy.local_addr().unwrap();
        let options = Options { listen, to, delay, reset_after, seed: 7 };
        thread::spawn(move || pass_all(&proxy, &options));
        TcpStream::connect(listen).unwrap()
    }

    #[test]
    fn what_is_delayed_arrives_whole_and_late() {
        let mut stream = behind(40, 0);
        let began = Instant::now();
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut answer).unwrap(), 0);
    }

    #[test]
    fn a_connection_breaks_after_its_bytes() {
        let mut stream = behind(0, 1000);
        let mut sent = 0;
        let mut byte = [7];
        while stream.write_all(&byte).is_ok() && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            sent += 1;
            assert!(sent <= 1000, "it does not break");
        }
    }
}
