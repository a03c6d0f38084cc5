//! Blocks that a disk damaged are mended from another member, and no host notices.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::must;
use super::stage::{FILLED, Stage, VOLUME};
use crate::Outcome;

/// Bytes of a block.
const BLOCK: usize = 4096;
/// Of the blocks of the volume that hold data, every so many-th is damaged.
const EVERY: u64 = 509;
/// How a block begins that a verifying load wrote, and where its address is.
const MAGIC: &[u8] = b"BRAIDPAT";
const ADDRESS: usize = 24;
/// The byte that is turned over: far behind what says where the block belongs.
const FLIPPED: usize = 1234;

/// First on the member that serves reads, then on one that comes to serve them.
pub(super) fn damaged(stage: &mut Stage) -> Outcome<String> {
    let (owner, other) = stage.full()?;
    let first = mended(stage, owner)?;
    let at = damage(stage, other)?;
    stage.cluster.hand_over(VOLUME, other)?;
    let serves = stage.whole(VOLUME)?.serves;
    must(serves == Some(other), || format!("{serves:?} serves after the hand-over"))?;
    let second = read_twice(stage, other, at)?;
    stage.equal(VOLUME)?;
    Ok(format!("{first} and {second} damaged blocks are mended; hosts read the right data"))
}

fn mended(stage: &Stage, owner: usize) -> Outcome<u64> {
    let blocks = damage(stage, owner)?;
    read_twice(stage, owner, blocks)
}

/// Reads everything by the engine whose replica is damaged: the first time all damaged blocks are
/// mended, and the second time there are none.
fn read_twice(stage: &Stage, engine: usize, damaged: u64) -> Outcome<u64> {
    let before = stage.totals(engine, VOLUME)?.repaired;
    let errors = stage.counted(engine, "checksum_errors_total")?;
    stage.read(engine, FILLED)?;
    let repaired = stage.totals(engine, VOLUME)?.repaired - before;
    must(repaired == damaged, || format!("{repaired} of {damaged} blocks were mended"))?;
    let noticed = stage.counted(engine, "checksum_errors_total")?;
    must(noticed >= errors + damaged, || {
        format!("the pool noticed {} of {damaged}", noticed - errors)
    })?;
    stage.read(engine, FILLED)?;
    let again = stage.counted(engine, "checksum_errors_total")? - noticed;
    must(again == 0, || format!("{again} blocks do not match after they were mended"))?;
    Ok(repaired)
}

/// Turns over a byte of some blocks in the file of a pool that an engine has; how many.
fn damage(stage: &Stage, engine: usize) -> Outcome<u64> {
    let path = stage.cluster.pool(engine);
    let wrong = |error: std::io::Error| format!("cannot damage {}: {error}", path.display());
    let file = File::options().read(true).write(true).open(&path).map_err(wrong)?;
    let (mut block, mut damaged) = ([0; BLOCK], 0);
    let blocks = file.metadata().map_err(wrong)?.len() / BLOCK as u64;
    for offset in (0..blocks).map(|number| number * BLOCK as u64) {
        file.read_exact_at(&mut block, offset).map_err(wrong)?;
        if block.starts_with(MAGIC) && address(&block).is_multiple_of(EVERY) {
            block[FLIPPED] ^= 0x10;
            file.write_all_at(&block, offset).map_err(wrong)?;
            damaged += 1;
        }
    }
    file.sync_data().map_err(wrong)?;
    let expected = (FILLED / BLOCK as u64).div_ceil(EVERY);
    must(damaged == expected, || format!("{damaged} of {expected} blocks were found"))?;
    Ok(damaged)
}

fn address(block: &[u8]) -> u64 {
    let bytes = block.get(ADDRESS..).and_then(|rest| rest.first_chunk());
    bytes.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}
