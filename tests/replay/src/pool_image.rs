//! Any bytes as a pool's structures: a good pool's disk, on which the input says what is changed,
//! and whether its checksum is made right again.

use braid_sim::Ram;

use crate::input::Input;
use crate::pool_use::{self, BLOCK, UUID};

/// Changes of an input, at most.
const CHANGES: usize = 48;
/// Begins every journal block.
const JOURNAL: [u8; 4] = *b"BJNL";
/// Numbers that are often just inside or just outside.
const NUMBERS: [u64; 12] = [
    0,
    1,
    u64::MAX,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    1 << 56,
    4096,
    0x7fff_ffff_ffff_ffff,
    pool_use::BYTES,
    16,
    63,
];

/// Each change: what, which block (two bytes), where in it (two bytes), and what it needs.
pub fn pool_image(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut disk = pool_use::image(input.byte());
    let blocks: Vec<u64> = structures(&disk);
    for _ in 0..CHANGES {
        if input.is_empty() {
            break;
        }
        change(&mut disk, &mut input, &blocks);
    }
    pool_use::use_all(disk);
}

/// Blocks that are pages or journal.
fn structures(disk: &Ram) -> Vec<u64> {
    let is_structure = |block: &[u8; 4096]| is_page(block) || block.starts_with(&JOURNAL);
    disk.blocks().filter(|(_, block)| is_structure(block)).map(|(number, _)| number).collect()
}

fn is_page(block: &[u8; 4096]) -> bool {
    (1..=11).contains(&block[0]) && block[1..4] == [0; 3]
}

fn change(disk: &mut Ram, input: &mut Input<'_>, blocks: &[u64]) {
    let what = input.byte();
    let choice = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
    let number = blocks[choice % blocks.len()];
    let at = usize::from(u16::from_le_bytes([input.byte(), input.byte()]));
    let block = disk.block_mut(number);
    match what % 8 {
        0 => block[at % 4096] = input.byte(),
        1 => block[at % 4096] ^= 1 << (input.byte() % 8),
        2 => put(block, at, &NUMBERS[usize::from(input.byte()) % NUMBERS.len()].to_le_bytes()),
        3 => {
            let other = blocks[usize::from(input.byte()) % blocks.len()];
            let copy = *disk.block_mut(other);
            *disk.block_mut(number) = copy;
        }
        4 => block.fill(input.byte()),
        5 => put(block, at, input.bytes(16)),
        6 => {
            let from = usize::from(u16::from_le_bytes([input.byte(), input.byte()])) % 4080;
            let copy: [u8; 16] = std::array::from_fn(|i| block[from + i]);
            put(block, at, &copy);
        }
        _ => {
            let kept = u64::from(input.byte()) + 1;
            disk.resize(pool_use::BYTES / 128 * kept);
        }
    }
    if what & 0x80 != 0 {
        repair(disk, number, what & 0x40 != 0);
    }
}

fn put(block: &mut [u8; 4096], at: usize, bytes: &[u8]) {
    let at = at % (4096 - bytes.len());
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes a block's checksum right; of a page also its address, if that is wanted.
pub(crate) fn repair(disk: &mut Ram, number: u64, address: bool) {
    let block = disk.block_mut(number);
    if address && is_page(block) {
        block[8..16].copy_from_slice(&(number * BLOCK).to_le_bytes());
    }
    let seed = if is_page(block) && block[0] == 1 { 0 } else { crc32c::crc32c(&UUID) };
    block[4..8].fill(0);
    let crc = crc32c::crc32c_append(seed, block.as_slice());
    block[4..8].copy_from_slice(&crc.to_le_bytes());
}
