//! The format, told from the types themselves: `docs/pool-format.md` is made of this.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::mem::{offset_of, size_of};

use super::*;

/// A field of a structure.
struct Field {
    name: &'static str,
    offset: usize,
    bytes: usize,
    text: &'static str,
}

/// A structure on disk.
struct Structure {
    title: &'static str,
    bytes: usize,
    text: &'static str,
    fields: Vec<Field>,
}

/// Size of a field, by a pointer that is never followed.
const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! structure {
    ($title:literal, $type:ty, $text:literal, { $($field:ident: $about:literal),+ $(,)? }) => {
        Structure {
            title: $title,
            bytes: size_of::<$type>(),
            text: $text,
            fields: alloc::vec![$(Field {
                name: stringify!($field),
                offset: offset_of!($type, $field),
                bytes: size_of_field(|s: &$type| &s.$field),
                text: $about,
            }),+],
        }
    };
}

fn structures() -> Vec<Structure> {
    [whole(), journal(), layers(), pages()].into_iter().flatten().collect()
}

/// What the pool is.
fn whole() -> Vec<Structure> {
    alloc::vec![
        structure!("Page header", PageHeader,
            "Stands at the beginning of every page. A page that does not bear its own address, \
             its kind, its owner and the right CRC is not valid.", {
            kind: "1 superblock, 2 root, 3 table, 4 layer, 5 record, 6 directory, 7 leaf, \
                   8 bitmap, 9 bitmap of page clusters, 10 page map, 11 checksums",
            crc: "CRC32C of the page with this field zero, continued from the CRC32C of the \
                  pool's uuid (superblock: from 0)",
            address: "first byte of this slot on the device",
            lsn: "number of the newest journal block whose cells the page holds; of a \
                  superblock, its version",
            owner: "layer in the upper half, index in the lower",
        }),
        structure!("Superblock", Superblock,
            "Four copies: a pair at the beginning of the device, a pair at the end. The newest \
             valid one counts.", {
            header: "see there",
            magic: "`BRAIDPL1`",
            version: "1",
            flags: "1: stopped in order; 2: the device failed a write or a flush since; 4: regions \
                    may have to be adopted; 8: not before the machine starts again, for it failed; \
                    16: free clusters may be left that were not discarded",
            features: "all of these must be known to open the pool; 1: `birth` counts",
            features_compatible: "these may be ignored by an older version",
            uuid: "the pool's identity",
            bytes: "size of the device, as far as the pool uses it",
            ring_blocks: "blocks of the journal ring",
            slab_clusters: "clusters of a whole slab, at most 32,512",
            reserve_clusters: "clusters kept for metadata and merges",
            lanes: "journals and sets of slabs: 1",
            block_bytes: "4096",
            cluster_bytes: "262,144",
            incarnation: "bumped at each open",
            boot_id: "the kernel's boot id at the last open",
            session: "changes whenever the replicas' instances do",
            owner: "who opened it last, UTF-8, padded with zeros",
            last_seq: "after an orderly stop: number of the last journal block",
            last_crc: "and its CRC",
            segment_count: "stretches of slabs in use",
            tail: "after an orderly stop: the journal's tail",
            scrub: "cluster at which the running scrub goes on; all ones: none runs",
            segments: "first byte and bytes of each stretch: one at first, one more each time \
                       the pool grew",
            birth: "random, from when the pool was made; not 0: the CRC32C from which others go on \
                    covers it after the uuid",
            scrub_blocks: "blocks that the running scrub has read up to where it goes on",
            scrub_errors: "of these, blocks that are lost",
            reserved: "zeros",
        }),
    ]
}

/// What the journal is.
fn journal() -> Vec<Structure> {
    alloc::vec![
        structure!("Journal block", JournalBlock,
            "At `16384 + seq % ring_blocks * 4096`. A block belongs to the journal if it chains: \
             its CRC is right, its number is one more than the last one's, `previous` is the last \
             one's CRC, and its incarnation is not lower.", {
            header: "see below",
            cells: "252 cells of 16 bytes",
        }),
        structure!("Journal block header", JournalHeader,
            "The scan begins at the highest `tail` of any valid block.", {
            magic: "`BJNL`",
            crc: "CRC32C of the block with this field zero, continued from the CRC32C of the \
                  pool's uuid",
            incarnation: "the pool's incarnation",
            seq: "its number",
            previous: "CRC of the block before it",
            used: "cells in use",
            reserved: "zeros",
            tail: "everything before this block is in the pages",
            settled: "cells up to this block are durable, and so is the data of their first writes",
            reserved2: "zeros",
        }),
    ]
}

/// What layers are, and where their blocks.
fn layers() -> Vec<Structure> {
    alloc::vec![
        structure!("Leaf", LeafPage, "64 MiB of a layer: 256 clusters, 64 regions.", {
            header: "see there",
            open: "regions whose checksums may lag behind their content, a bit each",
            dirty: "regions that other members of a mirror may not have alike",
            entries: "256 entries",
            keys: "one byte a cluster for the generation of its encryption key: 0",
            reserved: "zeros",
        }),
        structure!("Leaf entry", LeafEntry, "One cluster.", {
            phys: "its cluster on the device plus one, 0 for none; the highest bit: opaque, the \
                   walk to parents ends here",
            own: "blocks that the layer owns, a bit each",
        }),
        structure!("Layer", LayerPage, "A head, a clone's head, or a snapshot.", {
            header: "see there",
            fields: "see below; these are in journal cells, too",
            record: "pair number of the copy of the membership record, 0 for none",
            directories: "pair numbers of 512 directories, 0 for none",
            reserved: "zeros",
        }),
        structure!("Layer fields", LayerFields, "Everything but where its blocks are.", {
            uuid: "identity of the replica or snapshot",
            source: "of a snapshot its replica, of a clone its snapshot",
            tree: "binds checksums to the layers that share blocks",
            blocks: "size in blocks of 4 KiB",
            clusters: "clusters that it owns",
            created: "seconds since 1970",
            parent: "the layer below plus one, 0 for none",
            sealed: "0: a head; 1: a snapshot, or what was one",
            thick: "1: space is set aside",
            member: "1: a member of a mirror",
            deleted: "1: it went away, and gives its space back",
            block_shift: "log2 of the block size that hosts see: 9 or 12",
            name_len: "bytes of the name",
            reservation: "type of the reservation, 0 for none; plus 128: it persists through power \
                          loss",
            holder: "position of its holder plus one, 0 for none",
            generation: "generation of the reservation",
            registrant_count: "registrants in use",
            epoch: "epoch of the fence",
            fence_owner: "owner of the fence",
            flush: "number of the last numbered flush",
            birth: "random, part of the instance",
            name: "UTF-8",
            registrants: "16 of key (8 bytes) and host identifier (16 bytes)",
        }),
        structure!("Record", RecordPage, "A layer's copy of the membership record.", {
            header: "see there",
            len: "bytes in use",
            record: "the copy",
            reserved: "zeros",
        }),
    ]
}

/// What leads to pages, and which places are in use.
fn pages() -> Vec<Structure> {
    alloc::vec![
        structure!("Pointers", PointersPage,
            "Root (to tables), table (to layers) or directory (to leaves).", {
            header: "see there",
            pairs: "800 pair numbers of 5 bytes: byte offset on the device by 4096; 0 for none",
            reserved: "zeros",
        }),
        structure!("Bitmap", BitmapPage, "Of a slab: clusters in use, or clusters of pages.", {
            header: "see there",
            words: "one bit a cluster",
        }),
        structure!("Page map", PageMapPage,
            "The first pair of a cluster of pages: which of its 32 pairs are in use.", {
            header: "see there",
            used: "one bit a pair; the first is always set",
            reserved: "zeros",
        }),
        structure!("Checksums", ChecksumPage,
            "Of 960 blocks by their place on the device. Of the pair the newest valid slot counts.",
            {
            header: "see there",
            sums: "`crc32c(data) ^ binding(tree, block of the layer)`",
            reserved: "zeros",
        }),
        structure!("Transferred", Transferred, "Follows a transfer cell.", {
            own: "blocks that are owned",
            phys: "the cluster",
            flags: "1: opaque; 2: the region is open; 4: it is dirty",
            reserved: "zeros",
        }),
    ]
}

/// Kinds of cells: number, name, bytes, meaning.
const CELLS: [(u8, &str, &str, &str); 12] = [
    (
        1,
        "Write",
        "lblock 4..9, first 9, crc 12..16",
        "a block was written, the first time or again",
    ),
    (2, "Alloc", "lcluster 4..8, phys 8..12", "a cluster got its place; layer ffffff: holds pages"),
    (3, "Clear", "lblock 4..9, count 10..12", "blocks are not owned any more"),
    (4, "Free", "lcluster 4..8, phys 8..12, opaque 12", "a cluster is not owned any more"),
    (5, "Open", "region 4..8, count 10..12", "regions become open and dirty"),
    (6, "Close", "region 4..8, bits 8", "1: not open, 2: not dirty any more"),
    (
        7,
        "Page",
        "kind 4, pair 5..10, free 10, index 12..16",
        "a page got its place, or gave it back",
    ),
    (8, "Image", "bytes 4..6", "the layer's fields follow, in cells"),
    (9, "Record", "bytes 4..6", "the copy of the membership record follows, in cells"),
    (10, "Transfer", "to 4..7, lcluster 8..12", "a cluster goes to a child; what moves follows"),
    (11, "Flush", "number 8..16", "number of the last numbered flush"),
    (12, "Remove", "", "the layer is gone"),
];

/// `docs/pool-format.md`.
#[must_use]
pub fn format_page() -> String {
    let mut out = String::from(
        "# The pool's format\n\n\
         Made by `cargo xtask docs` from the types in `core/pool/src/layout`; a test compares.\n\
         Everything is little endian. Offsets and sizes are in bytes.\n\n\
         ```text\n\
         superblock pair | root pair | journal ring | slab | slab | ... | superblock pair\n\
         slab: bitmap pair | bitmap of page clusters | checksum pairs | clusters\n\
         ```\n\n\
         A *pair* is two slots of one page each. Both slots of a map page are written at each\n\
         checkpoint, one after the other. Of a checksum page both are written at first, then the\n\
         older one each time.\n\n\
         | unit | bytes |\n|---|---|\n",
    );
    let units = [
        ("block", BLOCK),
        ("page pair", PAIR),
        ("cluster", CLUSTER),
        ("region", REGION_BLOCKS * BLOCK),
        ("leaf", LEAF_CLUSTERS * CLUSTER),
        ("directory", POINTERS_PER_PAGE as u64 * LEAF_CLUSTERS * CLUSTER),
        ("layer, at most", (DIRECTORIES_MAX * POINTERS_PER_PAGE) as u64 * LEAF_CLUSTERS * CLUSTER),
        ("slab's clusters, at most", u64::from(BITMAP_BITS) * CLUSTER),
    ];
    for (name, bytes) in units {
        let _ = writeln!(out, "| {name} | {bytes} |");
    }
    for Structure { title, bytes, text, fields } in structures() {
        let _ = write!(out, "\n## {title}: {bytes} bytes\n\n{text}\n\n");
        out.push_str("| offset | bytes | field | |\n|---|---|---|---|\n");
        for Field { name, offset, bytes, text } in fields {
            let _ = writeln!(out, "| {offset} | {bytes} | `{name}` | {text} |");
        }
    }
    out.push_str(
        "\n## Cells: 16 bytes\n\nByte 0 is the kind, 1 to 3 the layer. A cell of zeros is none.\n\n\
         | kind | name | fields | |\n|---|---|---|---|\n",
    );
    for (kind, name, fields, text) in CELLS {
        let _ = writeln!(out, "| {kind} | {name} | {fields} | {text} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_byte_of_a_structure_is_left_out() {
        for Structure { title, bytes, fields, .. } in structures() {
            let mut at = 0;
            for field in fields {
                assert_eq!(field.offset, at, "{title}.{}", field.name);
                at += field.bytes;
            }
            assert_eq!(at, bytes, "{title}");
        }
    }
}
