//! Conversations as text: what a peer sends, byte by byte, and what it gets for it.
//!
//! Each `tests/transcripts/*.txt` is a list of cases: `case stage=STAGE [digests=hd]`, the fields
//! of what is sent, one a line, `----`, and what came back. `REWRITE=1 cargo test` writes what
//! came back into the files, for review.

mod support;

use std::fmt::Write;

use braid_nvme::command::{Command, Sgl, io};
use braid_nvme::pdu::Digests;
use datadriven::TestCase;
use support::peer::{Got, Peer, crc};
use support::{World, config};

#[test]
fn transcripts() {
    datadriven::walk(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts"), |file| {
        file.run(|case| match case.directive.as_str() {
            "case" => play(case),
            other => format!("unknown directive {other}\n"),
        });
    });
}

/// Brings a connection to the stage, sends the case's bytes, and tells what came of it.
fn play(case: &TestCase) -> String {
    let flags = argument(case, "digests");
    let digests = Digests { header: flags.contains('h'), data: flags.contains('d') };
    let mut world = World::new(config());
    let (mut peer, ttag) = stage(&mut world, &argument(case, "stage"), digests);
    let bytes = match encode(&case.input, digests, ttag) {
        Ok(bytes) => bytes,
        Err(line) => return format!("cannot encode: {line}\n"),
    };
    world.send(peer.socket, &bytes);
    let mut told = String::new();
    for got in peer.take(&mut world) {
        writeln!(told, "{}", describe(&got)).expect("a string takes everything");
    }
    let stream = world.stream(peer.socket);
    told.push_str(match (stream.closed, stream.shut) {
        (true, _) => "closed\n",
        (false, true) => "our end closed\n",
        (false, false) => "open\n",
    });
    told
}

fn argument(case: &TestCase, name: &str) -> String {
    case.args.get(name).and_then(|values| values.first()).cloned().unwrap_or_default()
}

/// A connection at a stage of its life, and the tag of the transfer that it waits for, if any.
fn stage(world: &mut World, stage: &str, digests: Digests) -> (Peer, u16) {
    match stage {
        "fresh" => (Peer::fresh(world, digests), 0),
        "initialized" => (Peer::open(world, digests), 0),
        "admin" => (Peer::admin(world, digests), 0),
        "io" => (Peer::pair(world, digests).1, 0),
        "transfer" => {
            let (_, mut peer) = Peer::pair(world, digests);
            let mut write = support::peer::write(1, 0, 4, 16384);
            write.sgl = Sgl::transport(16384);
            peer.post_as(world, 7, write);
            match peer.take(world).as_slice() {
                [Got::R2t(r2t)] => (peer, r2t.ttag),
                other => panic!("no R2T but {other:?}"),
            }
        }
        other => panic!("unknown stage {other}"),
    }
}

/// Fields to bytes: `u8`, `u16`, `u32`, `u64` with a number, `zeros N`, `ttag [PLUS]`,
/// `write LEN ID` (an SQE of a write whose SGL has this length and identifier), `header-digest`
/// (of all before it), `data-digest N` (of the last N bytes).
fn encode(input: &str, digests: Digests, ttag: u16) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for line in input.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(kind) = words.next() else { continue };
        let numbers: Vec<u64> =
            words.map(number).collect::<Option<_>>().ok_or_else(|| line.to_string())?;
        let first = numbers.first().copied().unwrap_or(0);
        match kind {
            "u8" => bytes.push(first as u8),
            "u16" => bytes.extend((first as u16).to_le_bytes()),
            "u32" => bytes.extend((first as u32).to_le_bytes()),
            "u64" => bytes.extend(first.to_le_bytes()),
            "zeros" => bytes.resize(bytes.len() + first as usize, 0),
            "ttag" => bytes.extend((ttag + first as u16).to_le_bytes()),
            "write" => bytes.extend(write_command(&numbers)),
            "header-digest" => {
                let digest = crc(&bytes);
                bytes.extend(digest.to_le_bytes());
            }
            "data-digest" => {
                let digest = crc(&bytes[bytes.len() - first as usize..]);
                bytes.extend(digest.to_le_bytes());
            }
            _ => return Err(line.to_string()),
        }
    }
    let _ = digests;
    Ok(bytes)
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The SQE of a write of one block: SGL length, SGL identifier, SGL address.
fn write_command(numbers: &[u64]) -> Vec<u8> {
    let mut command = Command::new(io::WRITE, 1);
    command.cid.set(9);
    command.sgl = Sgl::in_capsule(numbers.first().copied().unwrap_or(4096) as u32);
    command.sgl.identifier = numbers.get(1).copied().unwrap_or(1) as u8;
    command.sgl.address.set(numbers.get(2).copied().unwrap_or(0));
    zerocopy::IntoBytes::as_bytes(&command).to_vec()
}

fn describe(got: &Got) -> String {
    match got {
        Got::IcResp(ic) => format!(
            "ICResp: digests {:#x}, CPDA {}, MAXH2CDATA {}",
            ic.digest,
            ic.data_alignment,
            ic.limit.get()
        ),
        Got::Completion(c) => format!("completion of {}: {}", c.cid.get(), c.status()),
        Got::Data { pdu, bytes } => format!("data of {}: {} bytes", pdu.cid, bytes.len()),
        Got::R2t(r2t) => format!("R2T for {}: {} at {}", r2t.cid, r2t.length, r2t.offset),
        Got::Term { fes, fei } => format!("C2HTermReq: FES {fes}, FEI {fei:#x}"),
    }
}
