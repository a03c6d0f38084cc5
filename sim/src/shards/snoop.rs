//! What goes over a stream of a host, overheard: which of its commands came, which were answered.
//! It reads the bytes themselves, so that what is checked is what a host would see.
//!
//! Invariants:
//! 1. A command is known by what its host wrote into CDW2 and CDW3, which mean nothing in I/O
//!    commands: its line and its tag. What has none there is none of a workload.
//! 2. A command is received when the last of its data is, and its volume was told of it: before,
//!    nobody can carry it out, and no rule can see it.

use std::collections::BTreeMap;

use braid_block::Instant;
use braid_nvme::Status;
use braid_nvme::command::io;
use braid_nvme::pdu::{FLAG_LAST, FLAG_SUCCESS, PduType};

use crate::cluster::LineId;

/// Bytes of the common header; where what a capsule carries begins.
const HEADER: usize = 8;

/// A command of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: LineId,
    pub(super) tag: u64,
    pub(super) received: Instant,
    /// Its volume has it.
    taken: bool,
}

/// Its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) command: Command,
    pub(super) status: Status,
}

/// One direction: the PDU that is passing.
#[derive(Debug, Default)]
struct Passing {
    header: Vec<u8>,
    /// Bytes of it that are still to come and are not looked at, once its header is here.
    skip: Option<usize>,
}

impl Passing {
    /// How long the header is, once it says so.
    fn header_len(&self) -> usize {
        let said = self.header.get(2).filter(|_| self.header.len() >= HEADER);
        said.map_or(HEADER, |hlen| usize::from(*hlen).max(HEADER))
    }

    /// Calls with the type, the flags and the header of each PDU of which the last byte passes.
    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(PduType, u8, &[u8])) {
        while !bytes.is_empty() {
            let left = self.skip.unwrap_or_else(|| self.header_len() - self.header.len());
            let (head, rest) = bytes.split_at(left.min(bytes.len()));
            bytes = rest;
            match &mut self.skip {
                Some(left) => *left -= head.len(),
                None => {
                    self.header.extend_from_slice(head);
                    if self.header.len() < self.header_len() {
                        continue;
                    }
                    let plen = word(&self.header, 4) as usize;
                    self.skip = Some(plen.saturating_sub(self.header.len()));
                }
            }
            if self.skip == Some(0) {
                if let Some(kind) = PduType::from_wire(self.header[0]) {
                    each(kind, self.header[1], &self.header);
                }
                self.header.clear();
                self.skip = None;
            }
        }
    }

    /// How many commands of a nexus that change blocks pass.
    fn changes(&mut self, bytes: &[u8]) -> usize {
        let mut changes = 0;
        self.pass(bytes, |kind, _, header| {
            let opcode = header.get(HEADER).copied();
            let write = opcode == Some(io::WRITE) || opcode == Some(ZERO);
            changes += usize::from(kind == PduType::Command && write);
        });
        changes
    }
}

/// The opcode of a nexus's zeroing.
const ZERO: u8 = 0x98;

/// A stream of a host or a nexus, at the engine that it comes to.
#[derive(Debug, Default)]
pub(super) struct Snoop {
    coming: Passing,
    going: Passing,
    open: BTreeMap<u16, Command>,
}

impl Snoop {
    /// Bytes that the engine receives now: the commands that are whole with them.
    pub(super) fn commands(&mut self, bytes: &[u8], now: Instant) -> Vec<Command> {
        let (coming, open) = (&mut self.coming, &mut self.open);
        let mut came = Vec::new();
        coming.pass(bytes, |kind, _, header| match kind {
            PduType::Command if header.len() >= HEADER + 64 => {
                let entry = &header[HEADER..];
                let line = LineId(word(entry, 8).into());
                let tag = word(entry, 12).into();
                if line.0 != 0 {
                    let command = Command { line, tag, received: now, taken: false };
                    open.insert(half(entry, 2), command);
                    came.push(command);
                }
            }
            PduType::H2cData => {
                if let Some(command) = open.get_mut(&half(header, HEADER)) {
                    command.received = now;
                }
            }
            _ => {}
        });
        came
    }

    /// The command of this name is its volume's from now on.
    pub(super) fn taken(&mut self, cid: u16, now: Instant) {
        if let Some(command) = self.open.get_mut(&cid).filter(|command| !command.taken) {
            (command.taken, command.received) = (true, now);
        }
    }

    /// Bytes that come from a nexus: how many of its commands change blocks.
    pub(super) fn changes(&mut self, bytes: &[u8]) -> usize {
        self.coming.changes(bytes)
    }

    /// Bytes that the engine sends now: the commands that they answer.
    pub(super) fn answers(&mut self, bytes: &[u8]) -> Vec<Answer> {
        let (going, open) = (&mut self.going, &mut self.open);
        let mut answers = Vec::new();
        going.pass(bytes, |kind, flags, header| {
            let (cid, status) = match kind {
                PduType::Response if header.len() >= HEADER + 16 => {
                    (half(header, HEADER + 12), Status::from_wire(half(header, HEADER + 14)))
                }
                PduType::C2hData if flags & FLAG_LAST != 0 && flags & FLAG_SUCCESS != 0 => {
                    (half(header, HEADER), Status::SUCCESS)
                }
                _ => return,
            };
            if let Some(command) = open.remove(&cid) {
                answers.push(Answer { command, status });
            }
        });
        answers
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdu(kind: PduType, flags: u8, head: &[u8], data: usize) -> Vec<u8> {
        let hlen = u8::try_from(HEADER + head.len()).unwrap();
        let plen = u32::from(hlen) + u32::try_from(data).unwrap();
        let mut bytes = vec![kind as u8, flags, hlen, 0];
        bytes.extend(plen.to_le_bytes());
        bytes.extend(head);
        bytes.resize(bytes.len() + data, 0xdd);
        bytes
    }

    fn capsule(cid: u16, line: u32, tag: u32, data: usize) -> Vec<u8> {
        let mut entry = [0; 64];
        entry[2..4].copy_from_slice(&cid.to_le_bytes());
        entry[8..12].copy_from_slice(&line.to_le_bytes());
        entry[12..16].copy_from_slice(&tag.to_le_bytes());
        pdu(PduType::Command, 0, &entry, data)
    }

    fn response(cid: u16, status: Status) -> Vec<u8> {
        let mut entry = [0; 16];
        entry[12..14].copy_from_slice(&cid.to_le_bytes());
        entry[14..].copy_from_slice(&status.to_wire().to_le_bytes());
        pdu(PduType::Response, 0, &entry, 0)
    }

    #[test]
    fn commands_and_answers_are_heard_however_the_stream_is_cut() {
        let coming = [pdu(PduType::IcReq, 0, &[0; 120], 0), capsule(1, 0, 0, 1024)].concat();
        let coming = [coming, capsule(2, 7, 30, 4096), capsule(3, 7, 31, 0)].concat();
        let mut data = [0; 16];
        data[0] = 3;
        let going = [
            pdu(PduType::IcResp, 0, &[0; 120], 0),
            response(1, Status::SUCCESS),
            pdu(PduType::C2hData, 0, &data, 512),
            pdu(PduType::C2hData, FLAG_LAST | FLAG_SUCCESS, &data, 512),
            response(2, Status::ANA_INACCESSIBLE),
        ]
        .concat();
        for piece in [1, 3, 64, 100_000] {
            let mut snoop = Snoop::default();
            let now = Instant::from_nanos(5);
            let came = coming.chunks(piece).flat_map(|piece| snoop.commands(piece, now));
            let tags: Vec<(u64, u64)> = came.map(|command| (command.line.0, command.tag)).collect();
            assert_eq!(tags, [(7, 30), (7, 31)]);
            let answers = going.chunks(piece).flat_map(|piece| snoop.answers(piece));
            let answers: Vec<(u64, Status)> =
                answers.map(|answer| (answer.command.tag, answer.status)).collect();
            assert_eq!(answers, [(31, Status::SUCCESS), (30, Status::ANA_INACCESSIBLE)]);
        }
    }

    #[test]
    fn a_command_is_received_with_the_last_of_its_data() {
        let mut snoop = Snoop::default();
        let at = Instant::from_nanos;
        assert_eq!(snoop.commands(&capsule(9, 7, 30, 0), at(1)).len(), 1);
        let mut data = [0; 16];
        data[0] = 9;
        let data = pdu(PduType::H2cData, FLAG_LAST, &data, 4096);
        snoop.commands(&data[..100], at(2));
        snoop.commands(&data[100..], at(3));
        let answers = snoop.answers(&response(9, Status::SUCCESS));
        assert_eq!(answers[0].command.received, at(3));
        snoop.commands(&capsule(9, 7, 31, 0), at(4));
        snoop.taken(9, at(5));
        snoop.taken(9, at(6));
        let answers = snoop.answers(&response(9, Status::SUCCESS));
        assert_eq!(answers[0].command.received, at(5), "it had waited");
    }

    #[test]
    fn what_a_nexus_changes_is_counted() {
        let mut snoop = Snoop::default();
        let mut entries = [[0; 64]; 3];
        (entries[0][0], entries[1][0], entries[2][0]) = (io::WRITE, io::READ, ZERO);
        let bytes = entries.map(|entry| pdu(PduType::Command, 0, &entry, 512)).concat();
        assert_eq!(bytes.chunks(7).map(|piece| snoop.changes(piece)).sum::<usize>(), 2);
    }
}
