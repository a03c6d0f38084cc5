//! What a pool's journal may say: blocks that chain and bear right checksums, with cells that the
//! input chooses, behind a good journal.

use braid_sim::Ram;

use crate::input::Input;
use crate::pool_image::repair;
use crate::pool_use::{self, BLOCK, RING};

/// Blocks that are added, at most.
const BLOCKS: usize = 10;
const CELLS: usize = 252;
const HEADER: usize = 64;
/// First byte of the ring.
const RING_AT: u64 = 16384;
/// Kinds of cells, and one that is none.
const KINDS: u8 = 14;

/// A byte chooses the disk, then a byte for each block says what its header is like and how many
/// cells it has, then come cells: a byte for the kind, then what it needs, taken from ranges in
/// which something is found.
pub fn pool_cells(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut disk = pool_use::image(input.byte());
    for _ in 0..BLOCKS {
        if input.is_empty() {
            break;
        }
        let Some(last) = newest(&disk) else { break };
        append(&mut disk, last, &mut input);
    }
    pool_use::use_all(disk);
}

fn word(block: &[u8; 4096], at: usize) -> u64 {
    block[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The block of the ring with the highest number.
fn newest(disk: &Ram) -> Option<[u8; 4096]> {
    let ring = RING_AT / BLOCK..RING_AT / BLOCK + u64::from(RING);
    let blocks = disk.blocks().filter(|(number, _)| ring.contains(number));
    let journal = blocks.filter(|(_, block)| block.starts_with(b"BJNL"));
    journal.max_by_key(|(_, block)| word(block, 16)).map(|(_, block)| *block)
}

fn append(disk: &mut Ram, last: [u8; 4096], input: &mut Input<'_>) {
    let how = input.byte();
    let seq = word(&last, 16) + 1;
    let mut block = last;
    block[HEADER..].fill(0);
    block[16..24].copy_from_slice(&seq.to_le_bytes());
    block[24..28].copy_from_slice(&last[4..8]);
    if how & 0x10 != 0 {
        // Another incarnation began.
        block[8..16].copy_from_slice(&(word(&last, 8) + 1).to_le_bytes());
    }
    if how & 0x20 != 0 {
        // All before it is settled.
        block[40..48].copy_from_slice(&(seq - 1).to_le_bytes());
    }
    if how & 0x40 != 0 {
        // All before it is in the pages.
        block[32..40].copy_from_slice(&seq.to_le_bytes());
    }
    let cells = usize::from(how & 0x0f) * 2 + 1;
    let mut at = 0;
    for _ in 0..cells {
        at += cell(&mut block, at, input);
        if at >= CELLS {
            break;
        }
    }
    let used = u16::try_from(at.min(CELLS)).unwrap_or(0);
    block[28..30].copy_from_slice(&used.to_le_bytes());
    let number = (RING_AT / BLOCK) + seq % u64::from(RING);
    *disk.block_mut(number) = block;
    repair(disk, number, false);
}

/// Puts a cell at a position; tells how many positions it takes.
fn cell(block: &mut [u8; 4096], at: usize, input: &mut Input<'_>) -> usize {
    let kind = input.byte() % KINDS;
    let layer = match input.byte() {
        0xff => 0xff_ffff,
        0xfe => 0xff_fffe,
        n => u32::from(n % 12),
    };
    let mut cell = [0; 16];
    cell[0] = kind;
    cell[1..4].copy_from_slice(&layer.to_le_bytes()[..3]);
    fields(kind, &mut cell, input);
    let from = HEADER + at * 16;
    block[from..from + 16].copy_from_slice(&cell);
    let payload = match kind {
        8 => 36,
        9 => usize::from(u16::from_le_bytes([cell[4], cell[5]])).div_ceil(16),
        10 => 1,
        _ => 0,
    };
    let payload = payload.min(CELLS - at - 1);
    let from = from + 16;
    let bytes = input.bytes(payload * 16);
    block[from..from + bytes.len()].copy_from_slice(bytes);
    if kind == 10 && payload == 1 {
        // A cluster that there may be.
        let phys = u32::from(bytes.first().copied().unwrap_or(0) % 80);
        block[from + 8..from + 12].copy_from_slice(&phys.to_le_bytes());
    }
    1 + payload
}

/// The fields of a cell: each from a range in which something is found, or any.
fn fields(kind: u8, cell: &mut [u8; 16], input: &mut Input<'_>) {
    let wild = input.byte();
    if wild >= 0xf0 {
        let bytes = input.bytes(12);
        cell[4..4 + bytes.len()].copy_from_slice(bytes);
        return;
    }
    let small = u64::from(input.byte());
    let low = |n: u64, len: usize| n.to_le_bytes()[..len].to_vec();
    match kind {
        // A write: block, whether it is the first, checksum.
        1 => {
            let lblock = if wild & 1 == 0 { small * 5 } else { 16_384 + small };
            cell[4..9].copy_from_slice(&low(lblock, 5));
            cell[9] = wild >> 1 & 1;
            cell[12..16].copy_from_slice(&[small as u8; 4]);
        }
        // A cluster comes or goes: of the layer, on the device.
        2 | 4 => {
            let lcluster = if wild & 1 == 0 { small % 12 } else { 256 + small % 4 };
            cell[4..8].copy_from_slice(&low(lcluster, 4));
            cell[8..12].copy_from_slice(&low(u64::from(input.byte() % 80), 4));
            cell[12] = wild >> 1 & 1;
        }
        3 => {
            cell[4..9].copy_from_slice(&low(small * 5, 5));
            cell[10..12].copy_from_slice(&low(u64::from(input.byte() % 66), 2));
        }
        5 | 6 => {
            cell[4..8].copy_from_slice(&low(small % 70, 4));
            cell[8] = wild & 3;
            cell[10] = input.byte() % 66;
        }
        // A page: its kind, its index, a pair in a cluster that may hold pages.
        7 => {
            cell[4] = (wild >> 1) % 13;
            let pair = page_pair(small);
            cell[5..10].copy_from_slice(&low(pair, 5));
            cell[10] = wild & 1;
            cell[12..16].copy_from_slice(&low(u64::from(input.byte() % 6), 4));
        }
        8 => cell[4..6].copy_from_slice(&low(if wild & 1 == 0 { 572 } else { small }, 2)),
        9 => cell[4..6].copy_from_slice(&low(small, 2)),
        10 => {
            cell[4..7].copy_from_slice(&low(small % 12, 3));
            cell[8..12].copy_from_slice(&low(u64::from(wild % 12), 4));
        }
        _ => cell[8..16].copy_from_slice(&low(small, 8)),
    }
}

/// The pair at some place of the first slab, by its number: 4 KiB units from the beginning.
const fn page_pair(small: u64) -> u64 {
    // The superblocks, the root, the ring, both bitmaps and two pairs of checksums come first.
    let data = RING_AT / BLOCK + RING as u64 + 2 * 2 + 2 * 2;
    data + small % 8 * 64 + small / 8 % 32 * 2
}
