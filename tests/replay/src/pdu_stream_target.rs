//! What a host may send: any bytes, in any pieces, to the receiving half of our target.

use braid_block::{Class, Key, Lease, Memory};
use braid_nvme::command::{Direction, Sgl};
use braid_nvme::pdu::{Digests, FatalError};
use braid_nvme::target::connection::{
    Capsule, Connection, DATA_BYTES_MAX, Step, Transferred, check_ic_req,
};
use zerocopy::IntoBytes;

use crate::arena::Arena;
use crate::input::Input;

/// Entries of the queue that the connection becomes.
const ENTRIES: u16 = 4;
/// Room for one receive buffer, a capsule's, and one for each transfer.
const ARENA_BYTES: u64 = (2 + ENTRIES as u64) * DATA_BYTES_MAX as u64;

/// The first byte chooses digests and in-capsule data, the second how the stream is split; the
/// rest is the stream.
pub fn pdu_stream_target(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (options, split) = (input.byte(), input.byte());
    let whole = Run::new(options).feed(input.rest(), |_, _| usize::from(u16::MAX >> 2));
    let pieces = Run::new(options).feed(input.rest(), |n, _| piece(split, n));
    assert_eq!(whole, pieces, "split by {split:#x}, the stream means something else");
    let exact = Run::new(options).feed(input.rest(), |_, wanted| wanted);
    assert_eq!(whole, exact, "read by exact lengths, the stream means something else");
}

/// The length of the `n`-th piece: always the same, or a pattern of short and long ones.
const fn piece(split: u8, n: usize) -> usize {
    if split < 128 { 1 + split as usize } else { 1 + (split as usize * 31 * (n + 1)) % 97 }
}

/// What the stream meant, as far as a host could tell.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Initialized(Digests),
    Refused(FatalError),
    Command { command: Vec<u8>, len: u32, intact: bool, crc: u32 },
    Transferred { op: Key, intact: bool, crc: u32 },
    Terminated(u16),
    Failed(FatalError),
}

struct Run {
    arena: Arena,
    connection: Connection,
    offered: Digests,
    in_capsule_bytes: u32,
    is_queue: bool,
    transfers: u32,
    said: Vec<Said>,
}

impl Run {
    fn new(options: u8) -> Self {
        Self {
            arena: Arena::new(ARENA_BYTES),
            connection: Connection::new(),
            offered: Digests { header: options & 1 == 0, data: options & 2 == 0 },
            in_capsule_bytes: if options & 4 == 0 { 8 << 10 } else { 0 },
            is_queue: false,
            transfers: 0,
            said: Vec::new(),
        }
    }

    /// Feeds the stream in pieces: `len(n, wanted)` gives the n-th one's length.
    fn feed(mut self, stream: &[u8], len: impl Fn(usize, usize) -> usize) -> Vec<Said> {
        let receive = self.arena.alloc(Class::Medium).expect("the first lease");
        let room = self.arena.capacity(&receive) as usize;
        let mut left = stream;
        for n in 0.. {
            let wanted = self.connection.wanted() as usize;
            assert!(wanted > 0, "a live connection always wants bytes");
            let piece = len(n, wanted).min(room).min(left.len());
            if piece == 0 {
                break;
            }
            self.arena.bytes_mut(&receive)[..piece].copy_from_slice(&left[..piece]);
            left = &left[piece..];
            if !self.take(&receive, u32::try_from(piece).expect("a piece fits a buffer")) {
                break;
            }
        }
        self.end(receive)
    }

    /// Takes the received bytes; returns whether the connection goes on.
    fn take(&mut self, receive: &Lease, end: u32) -> bool {
        let mut at = 0;
        loop {
            match self.connection.step(&mut self.arena, receive, at, end) {
                Ok((consumed, step)) => {
                    at += consumed;
                    assert!(at <= end, "consumed more than there was");
                    let more = matches!(step, Step::More);
                    assert!(!more || at == end, "left bytes that nothing holds up");
                    if !self.on_step(step) {
                        return false;
                    }
                    if more {
                        return true;
                    }
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    fn on_step(&mut self, step: Step) -> bool {
        match step {
            Step::More => {}
            Step::Initialize(request) => match check_ic_req(&request, self.offered) {
                Ok((digests, _)) => {
                    self.connection.initialize(digests);
                    self.said.push(Said::Initialized(digests));
                }
                Err(error) => {
                    self.said.push(Said::Refused(error));
                    return false;
                }
            },
            Step::NeedBuffer(len) => {
                let class = Class::holding(len).expect("a capsule's data has a class");
                assert!(class <= Class::Medium, "{len} bytes in a capsule");
                let lease = self.arena.alloc(class).expect("a lease for each capsule");
                self.connection.provide(lease);
            }
            Step::Command(capsule) => self.on_command(capsule),
            Step::Transferred(transferred) => self.on_transferred(transferred),
            Step::Terminated(fes) => {
                self.said.push(Said::Terminated(fes));
                return false;
            }
        }
        true
    }

    fn on_command(&mut self, capsule: Capsule) {
        let Capsule { command, data, len, intact, .. } = capsule;
        assert_eq!(data.is_some(), len > 0);
        let crc = data.map_or(0, |lease| self.checked(lease, len));
        self.said.push(Said::Command { command: command.as_bytes().to_vec(), len, intact, crc });
        if !self.is_queue {
            self.connection.open_queue(ENTRIES, self.in_capsule_bytes);
            self.is_queue = true;
        }
        let (sgl, from_host) = (command.sgl, Direction::of(&command) == Direction::FromHost);
        let asks = len == 0 && from_host && sgl.identifier == Sgl::TRANSPORT;
        let length = sgl.length.get();
        if asks && (1..=DATA_BYTES_MAX).contains(&length) {
            self.ask(command.cid.get(), length);
        }
    }

    /// Begins a transfer, as an R2T would.
    fn ask(&mut self, cid: u16, length: u32) {
        let class = Class::holding(length).expect("a transfer has a class");
        let Some(lease) = self.arena.alloc(class) else { return };
        let op = Key { index: self.transfers, generation: length };
        match self.connection.expect(op, cid, lease, length) {
            Ok(ttag) => {
                assert!(ttag < ENTRIES);
                self.transfers += 1;
            }
            Err(lease) => self.arena.free(lease),
        }
    }

    fn on_transferred(&mut self, transferred: Transferred) {
        let Transferred { op, lease, intact } = transferred;
        let crc = self.checked(lease, op.generation);
        self.said.push(Said::Transferred { op, intact, crc });
    }

    fn checked(&mut self, lease: Lease, len: u32) -> u32 {
        let crc = self.arena.crc(&lease, 0..len, 0);
        self.arena.free(lease);
        crc
    }

    fn fail(&mut self, error: FatalError) -> bool {
        assert!((1..=6).contains(&error.status()));
        assert!(self.connection.offending_header().len() <= 128, "copies too much");
        self.said.push(Said::Failed(error));
        false
    }

    fn end(mut self, receive: Lease) -> Vec<Said> {
        if matches!(self.said.last(), Some(Said::Failed(_))) {
            let again = self.connection.step(&mut self.arena, &receive, 0, 1);
            assert!(
                matches!(again, Err(FatalError::Sequence)),
                "went on after an error: {again:?}"
            );
        }
        self.arena.free(receive);
        for lease in self.connection.into_leases() {
            self.arena.free(lease);
        }
        assert_eq!(self.arena.leased(), 0, "leases lost");
        self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the seed called `name` says, as the last thing after its beginning.
    fn last(name: &str) -> Said {
        let seed = crate::seeds::all().into_iter().find(|seed| seed.name == name).unwrap();
        let said = Run::new(0).feed(&seed.bytes[2..], |_, _| 1000);
        said.into_iter().next_back().unwrap()
    }

    #[test]
    fn the_seeds_reach_what_they_are_for() {
        for bits in 0..4 {
            let last = |name: &str| last(&format!("{name}-digests-{bits}"));
            let written = last("write-in-capsule");
            assert!(matches!(written, Said::Command { len: 64, intact: true, .. }));
            assert!(matches!(last("write-asked-for"), Said::Transferred { intact: true, .. }));
            assert_eq!(last("data-twice"), Said::Failed(FatalError::DataOutOfRange));
            assert_eq!(last("data-beyond"), Said::Failed(FatalError::DataOutOfRange));
            assert!(matches!(last("data-unasked"), Said::Failed(_)));
            assert_eq!(last("second-ic-req"), Said::Failed(FatalError::Sequence));
            assert_eq!(last("command-first"), Said::Failed(FatalError::Sequence));
            assert_eq!(last("terminated"), Said::Terminated(2));
            let whole = bits < 2;
            assert!(matches!(last("damaged"), Said::Command { intact, .. } if intact == whole));
        }
    }
}
