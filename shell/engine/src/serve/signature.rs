//! What a block device seems to hold already: the marks that other software leaves on it.
//!
//! Enough to keep a typing mistake from destroying somebody's data, without a library that
//! knows them all: the marks are those of `libblkid` for what is common on servers.

use std::io::{self, Read, Seek, SeekFrom};

use crate::offline::superblock;

/// Bytes at a place that tell a format.
struct Magic {
    format: &'static str,
    offset: u64,
    bytes: &'static [u8],
}

/// What a disk with a superblock of ours is called.
pub const POOL: &str = "a Braid pool";
/// And one that has superblocks of ours at its end alone.
pub const HEADLESS: &str = "a Braid pool that lost its first superblocks and has those at its end \
    (braid-engine verify --repair writes them again)";

const fn magic(format: &'static str, offset: u64, bytes: &'static [u8]) -> Magic {
    Magic { format, offset, bytes }
}

/// Bytes from the beginning that are looked at.
const HEAD_BYTES: u64 = 512 << 10;
/// Bytes before the end that are looked at.
const TAIL_BYTES: u64 = 512 << 10;

/// Linux software RAID, as it stands on little-endian machines.
const MD_MAGIC: &[u8] = &0xa92b_4efc_u32.to_le_bytes();

/// Marks near the beginning. The more telling come first: a boot sector is often left over.
const HEAD: &[Magic] = &[
    // Either of the two superblocks at the beginning may be the one that is whole.
    magic(POOL, 32, superblock::MAGIC),
    magic(POOL, 4096 + 32, superblock::MAGIC),
    magic("a LUKS volume", 0, b"LUKS\xba\xbe"),
    magic("a LUKS volume", 16 << 10, b"SKUL\xba\xbe"),
    magic("an LVM2 physical volume", 512 + 24, b"LVM2 001"),
    magic("an LVM2 physical volume", 24, b"LVM2 001"),
    magic("an LVM2 physical volume", 1024 + 24, b"LVM2 001"),
    magic("an LVM2 physical volume", 1536 + 24, b"LVM2 001"),
    magic("a Linux RAID member", 0, MD_MAGIC),
    magic("a Linux RAID member", 4096, MD_MAGIC),
    magic("an ext2, ext3 or ext4 file system", 1024 + 56, b"\x53\xef"),
    magic("an XFS file system", 0, b"XFSB"),
    magic("a Btrfs file system", (64 << 10) + 64, b"_BHRfS_M"),
    magic("a bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    magic("a bcachefs file system", 4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    magic("an F2FS file system", 1024, &0xf2f5_2010_u32.to_le_bytes()),
    magic("swap space", 4096 - 10, b"SWAPSPACE2"),
    magic("swap space", (64 << 10) - 10, b"SWAPSPACE2"),
    magic("swap space", 4096 - 10, b"SWAP-SPACE"),
    magic("a hibernated system", 4096 - 10, b"S1SUSPEND"),
    magic("a Ceph BlueStore device", 0, b"bluestore block device"),
    magic("a VDO device", 0, b"dmvdo001"),
    magic("a Stratis device", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    magic("a GFS2 file system", 64 << 10, &0x0116_1970_u32.to_be_bytes()),
    magic("an OCFS2 file system", 4096, b"OCFSV2"),
    magic("a JFS file system", 32 << 10, b"JFS1"),
    magic("a ReiserFS file system", (64 << 10) + 52, b"ReIsEr"),
    magic("a NILFS2 file system", 1024 + 6, &0x3434_u16.to_le_bytes()),
    magic("an EROFS file system", 1024, &0xe0f5_e1e2_u32.to_le_bytes()),
    magic("a SquashFS file system", 0, b"hsqs"),
    magic("an HFS+ file system", 1024, b"H+"),
    magic("an ISO 9660 file system", 32769, b"CD001"),
    magic("an NTFS file system", 3, b"NTFS    "),
    magic("an exFAT file system", 3, b"EXFAT   "),
    magic("a FAT file system", 54, b"FAT1"),
    magic("a FAT file system", 82, b"FAT32"),
    magic("a GPT partition table", 512, b"EFI PART"),
    magic("a GPT partition table", 4096, b"EFI PART"),
    magic("a partition table or boot sector", 510, b"\x55\xaa"),
];

/// ZFS keeps four labels of 256 KiB; the upper half of each is a ring of uberblocks.
const ZFS_LABEL_BYTES: usize = 256 << 10;
const ZFS_RING_OFFSET: usize = 128 << 10;
const ZFS_UBERBLOCK_BYTES: usize = 1 << 10;
const ZFS_MAGIC: u64 = 0x00ba_b10c;

/// What a device of `size` bytes seems to hold, if anything.
///
/// # Errors
/// When it cannot be read.
pub fn probe(device: &mut (impl Read + Seek), size: u64) -> io::Result<Option<&'static str>> {
    let head = read(device, 0, size.min(HEAD_BYTES))?;
    let tail_from = size - size.min(TAIL_BYTES);
    let tail = read(device, tail_from, size - tail_from)?;
    Ok(in_head(&head).or_else(|| in_tail(&tail, tail_from, size)))
}

fn read(device: &mut (impl Read + Seek), from: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    device.seek(SeekFrom::Start(from))?;
    device.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_head(head: &[u8]) -> Option<&'static str> {
    let known = HEAD.iter().find(|magic| has(head, magic.offset, magic.bytes));
    let zfs = || has_zfs_label(head).then_some("a ZFS pool member");
    // A boot sector is the weakest mark: whatever else is there tells more.
    match known {
        Some(magic) if magic.offset != 510 => Some(magic.format),
        weak => zfs().or(weak.map(|magic| magic.format)),
    }
}

fn in_tail(tail: &[u8], from: u64, size: u64) -> Option<&'static str> {
    let at = |offset: u64, bytes: &[u8]| offset >= from && has(tail, offset - from, bytes);
    let copies = superblock::copies(size).into_iter().flatten();
    if copies.into_iter().any(|copy| at(copy + 32, superblock::MAGIC)) {
        return Some(HEADLESS);
    }
    // md superblocks 1.0 and 0.90 stand 8 and 64 KiB before the end, rounded down (md.h).
    let md_1_0 = (size & !0xfff).saturating_sub(8 << 10);
    let md_0_90 = (size & !0xffff).saturating_sub(64 << 10);
    if at(md_1_0, MD_MAGIC) || at(md_0_90, MD_MAGIC) {
        return Some("a Linux RAID member");
    }
    if at(size.saturating_sub(512), b"EFI PART") || at(size.saturating_sub(4096), b"EFI PART") {
        return Some("a GPT partition table");
    }
    // Labels stand at multiples of their size, so they may begin within the tail.
    let labels = usize::try_from(from.next_multiple_of(ZFS_LABEL_BYTES as u64) - from).ok()?;
    has_zfs_label(tail.get(labels..)?).then_some("a ZFS pool member")
}

fn has(bytes: &[u8], offset: u64, magic: &[u8]) -> bool {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| bytes.get(offset..))
        .is_some_and(|bytes| bytes.starts_with(magic))
}

fn has_zfs_label(bytes: &[u8]) -> bool {
    let rings = bytes.chunks(ZFS_LABEL_BYTES).filter_map(|label| label.get(ZFS_RING_OFFSET..));
    rings.flat_map(|ring| ring.chunks_exact(ZFS_UBERBLOCK_BYTES)).any(|uberblock| {
        uberblock.starts_with(&ZFS_MAGIC.to_le_bytes())
            || uberblock.starts_with(&ZFS_MAGIC.to_be_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const SIZE: u64 = 4 << 20;

    fn found(marks: &[(u64, &[u8])]) -> Option<&'static str> {
        let mut disk = vec![0; usize::try_from(SIZE).unwrap()];
        for (offset, bytes) in marks {
            let offset = usize::try_from(*offset).unwrap();
            disk[offset..][..bytes.len()].copy_from_slice(bytes);
        }
        probe(&mut Cursor::new(disk), SIZE).unwrap()
    }

    #[test]
    fn an_empty_disk_holds_nothing() {
        assert_eq!(found(&[]), None);
        assert_eq!(probe(&mut Cursor::new(vec![0; 512]), 512).unwrap(), None);
        assert_eq!(probe(&mut Cursor::new(vec![]), 0).unwrap(), None);
    }

    #[test]
    fn every_mark_is_found() {
        for magic in HEAD {
            assert_eq!(found(&[(magic.offset, magic.bytes)]), Some(magic.format));
        }
    }

    #[test]
    fn marks_at_the_end_are_found() {
        for (offset, bytes, format) in [
            (SIZE - 512, &b"EFI PART"[..], "a GPT partition table"),
            (SIZE - (8 << 10) + 32, superblock::MAGIC, HEADLESS),
            (SIZE - (4 << 10) + 32, superblock::MAGIC, HEADLESS),
            (SIZE - (8 << 10), MD_MAGIC, "a Linux RAID member"),
            (SIZE - (64 << 10), MD_MAGIC, "a Linux RAID member"),
            (SIZE - (100 << 10), &ZFS_MAGIC.to_le_bytes(), "a ZFS pool member"),
        ] {
            assert_eq!(found(&[(offset, bytes)]), Some(format), "{offset}");
        }
    }

    #[test]
    fn a_pool_on_a_disk_that_ends_amid_a_block_is_found_by_its_end() {
        let mut disk = vec![0; usize::try_from(SIZE).unwrap() + 512];
        let copy = disk.len() - 512 - 8192 + 32;
        disk[copy..][..8].copy_from_slice(superblock::MAGIC);
        let size = disk.len() as u64;
        assert_eq!(probe(&mut Cursor::new(disk), size).unwrap(), Some(HEADLESS));
    }

    #[test]
    fn a_boot_sector_says_less_than_what_is_beside_it() {
        let boot: (u64, &[u8]) = (510, b"\x55\xaa");
        assert_eq!(found(&[boot, (512, b"EFI PART")]), Some("a GPT partition table"));
        let zfs = ZFS_MAGIC.to_be_bytes();
        assert_eq!(found(&[boot, (132 << 10, &zfs)]), Some("a ZFS pool member"));
        assert_eq!(found(&[boot]), Some("a partition table or boot sector"));
    }
}
