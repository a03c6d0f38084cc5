//! The replicas once everything has ended: read from the pools' files, without any engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use braid_block::{Class, Memory};
use braid_pool::{Config, Device, Limits, State, Work};
use braid_sim::{History, Number, Plain, Ram, SECTOR};

use crate::Outcome;

/// Bytes that are read at once.
const PIECE: u32 = Class::Large.bytes();
/// Turns that opening a pool or reading a piece may take: far more than they do.
const TURNS: u64 = 1 << 20;
/// Bytes of a block.
const BLOCK: usize = 4096;

/// A replica's content, as hosts would read it.
pub(crate) fn read(file: &Path, replica: [u8; 16], bytes: u64) -> Outcome<Vec<u8>> {
    let disk = load(file)?;
    let config = Config {
        token_base: 0,
        device: Device { bytes: disk.bytes(), sector: 512, discards: false },
        boot_id: [0; 16],
        owner: "a look after the end".into(),
        seed: 0,
        read_only: true,
        limits: Limits::default(),
        plant: None,
    };
    let mut plain = Plain::open(config, disk);
    plain.settle(TURNS);
    let name = file.display();
    if plain.pool.state() != State::Open {
        return Err(format!("the pool in {name} does not open: {:?}", plain.notes));
    }
    let handle = plain.pool.find(&replica).ok_or_else(|| format!("{name} has no replica"))?;
    let mut content = Vec::new();
    for offset in (0..bytes).step_by(PIECE as usize) {
        let len = PIECE.min(u32::try_from(bytes - offset).unwrap_or(PIECE));
        let lease = plain.mem.alloc(Class::Large).ok_or("no buffer")?;
        let tag = plain.submit(handle, Work::Read { offset, len }, Some(lease));
        plain.settle(TURNS);
        let at = plain.done.iter().position(|done| done.tag == tag);
        let done = at.and_then(|at| plain.done.remove(at)).ok_or("a read does not end")?;
        let lease = done.lease.ok_or("a read without a buffer")?;
        if let Err(failure) = done.result {
            return Err(format!("{name}: byte {offset} of the replica: {failure:?}"));
        }
        content.extend_from_slice(&plain.mem.bytes(&lease)[..len as usize]);
        plain.give_back(lease);
    }
    Ok(content)
}

/// The file in memory; what is zero takes no space.
fn load(path: &Path) -> Outcome<Ram> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = File::open(path).map_err(wrong)?;
    let mut ram = Ram::new(file.metadata().map_err(wrong)?.len());
    let mut block = [0; BLOCK];
    for offset in (0..ram.bytes()).step_by(BLOCK) {
        match file.read_exact(&mut block) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read.map_err(wrong)?,
        }
        if block.iter().any(|byte| *byte != 0) {
            ram.write(offset, &block);
        }
    }
    Ok(ram)
}

/// The first block that is not alike in all of them.
pub(crate) fn difference(replicas: &[Vec<u8>]) -> Option<u64> {
    let pairs = replicas.windows(2);
    let differing = pairs.filter_map(|pair| {
        let (one, other) = (pair[0].chunks(BLOCK), pair[1].chunks(BLOCK));
        let differs = one.zip(other).position(|(one, other)| one != other);
        let cut = pair[0].len().min(pair[1].len()) / BLOCK;
        differs.or((pair[0].len() != pair[1].len()).then_some(cut))
    });
    differing.min().map(|block| block as u64)
}

/// Which write each sector of these blocks is from.
pub(crate) fn values(
    history: &History,
    content: &[u8],
    blocks: &[u64],
) -> Outcome<BTreeMap<u64, Number>> {
    let per_block = BLOCK / SECTOR;
    let sectors = blocks.iter().flat_map(|block| {
        let first = *block * per_block as u64;
        first..first + per_block as u64
    });
    sectors
        .map(|sector| {
            let at = usize::try_from(sector).unwrap_or(usize::MAX).saturating_mul(SECTOR);
            let bytes = content.get(at..at + SECTOR).ok_or("a sector beyond the end")?;
            let value = history.value(bytes, sector);
            Ok((sector, value.map_err(|v| format!("{}: {}", v.invariant, v.text))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_block_that_differs_is_named() {
        let one = vec![7; 4 * BLOCK];
        let mut other = one.clone();
        assert_eq!(difference(&[one.clone(), one.clone(), other.clone()]), None);
        other[3 * BLOCK + 5] = 0;
        assert_eq!(difference(&[one.clone(), one.clone(), other.clone()]), Some(3));
        other.truncate(2 * BLOCK);
        assert_eq!(difference(&[one, other]), Some(2));
    }
}
