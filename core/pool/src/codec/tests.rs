//! Pages give back what they were made of, and nothing else.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use braid_block::BlockSize;

use super::*;
use crate::arena::Arena;
use crate::hash::mix;
use crate::layout::{PAIR, POINTERS_PER_PAGE};
use crate::request::{Fence, Reservation};

const SEED: u32 = 0x1234_5678;

fn layout() -> Layout {
    let start = Layout::slabs_start(16);
    Layout::new(64 << 20, 16, 100, vec![(start, (64 << 20) - PAIR - start)]).unwrap()
}

/// Encodes a page and decodes it again.
fn round(page: PageId, image: Image<'_>) -> Content {
    let mut bytes = [0xaa; 4096];
    let stamp = Stamp::map(page, 0x8000);
    encode::<Arena>(&mut bytes, stamp, 77, SEED, image);
    assert_eq!(judge::<Arena>(&bytes, stamp, SEED), Some(77));
    decode(&bytes, page, &layout()).expect("it makes sense")
}

fn state() -> LayerState {
    let mut reservation = Reservation { kind: 3, holder: Some(1), generation: 9, ..<_>::default() };
    reservation.registrants.push((1, [1; 16]));
    reservation.registrants.push((u64::MAX, [2; 16]));
    LayerState {
        uuid: [7; 16],
        source: [8; 16],
        tree: 11,
        blocks: 1 << 30,
        clusters: 12,
        created: 1_800_000_000,
        parent: Some(0),
        sealed: true,
        thick: false,
        member: true,
        deleted: false,
        block: BlockSize::B512,
        name: String::from("größer"),
        fence: Fence { epoch: 4, owner: [5; 16] },
        reservation,
        flush: 6,
        birth: u64::MAX,
        record: layout().pair_in(3, 4),
        directories: vec![0, layout().pair_in(99, 31)],
    }
}

#[test]
fn every_kind_gives_back_what_it_was_made_of() {
    let layout = layout();
    let mut pairs = vec![0; POINTERS_PER_PAGE];
    pairs[799] = layout.pair_in(205, 1);
    for page in [PageId::Root, PageId::Table(3), PageId::Directory(5, 511)] {
        let Content::Pointers(read) = round(page, Image::Pointers(&pairs)) else { panic!() };
        assert_eq!(read, pairs);
    }
    let Content::Record(read) = round(PageId::Record(1), Image::Record(&[9; 3072])) else {
        panic!()
    };
    assert_eq!(read, [9; 3072]);
    let mut map = LeafMap::new();
    (map.open, map.dirty) = (1, u64::MAX);
    map.set_phys(255, Some(205));
    map.own[255] = 5;
    map.set_opaque(0);
    let Content::Leaf(read) = round(PageId::Leaf(2, 400), Image::Leaf(&map)) else { panic!() };
    assert_eq!((read.open, read.dirty, read.own), (1, u64::MAX, map.own));
    assert!((0..256).all(|at| read.raw(at) == map.raw(at)));
    let mut bits: Bits = Box::new([0; BITMAP_WORDS]);
    bits[1] = 1 << 35;
    for page in [PageId::Bitmap(0), PageId::MapBitmap(1)] {
        let Content::Bits(read) = round(page, Image::Bits(&bits)) else { panic!() };
        assert_eq!(read, bits);
    }
    let Content::Used(read) = round(PageId::PageMap(4), Image::Used(0x8000_0001)) else { panic!() };
    assert_eq!(read, 0x8000_0001);
}

#[test]
fn a_layer_gives_back_what_it_was_made_of() {
    let made = state();
    let Content::Layer(read) = round(PageId::Layer(2), Image::Layer(&made)) else { panic!() };
    assert_eq!(alloc::format!("{read:?}"), alloc::format!("{made:?}"));
    let least = LayerState {
        parent: None,
        name: String::new(),
        reservation: Reservation::default(),
        record: 0,
        directories: Vec::new(),
        ..made
    };
    let Content::Layer(read) = round(PageId::Layer(2), Image::Layer(&least)) else { panic!() };
    assert_eq!(alloc::format!("{read:?}"), alloc::format!("{least:?}"));
}

#[test]
fn checksums_give_back_what_they_were_made_of() {
    let mut sums = [0; SUMS_PER_PAGE];
    (sums[0], sums[959]) = (1, u32::MAX);
    let stamp = Stamp::sums(1 << 33, 0x1000);
    let mut bytes = [0; 4096];
    encode_sums::<Arena>(&mut bytes, stamp, 5, SEED, &sums);
    assert_eq!(judge::<Arena>(&bytes, stamp, SEED), Some(5));
    let mut read = [7; SUMS_PER_PAGE];
    decode_sums(&bytes, &mut read);
    assert_eq!(read, sums);
}

#[test]
fn a_page_elsewhere_of_another_pool_or_with_a_wrong_bit_is_none() {
    let mut bytes = [0; 4096];
    let stamp = Stamp::map(PageId::Leaf(1, 2), 0x8000);
    encode::<Arena>(&mut bytes, stamp, 1, SEED, Image::Leaf(&LeafMap::new()));
    for other in [
        Stamp::map(PageId::Leaf(1, 2), 0x9000),
        Stamp::map(PageId::Leaf(2, 2), 0x8000),
        Stamp::map(PageId::Leaf(1, 3), 0x8000),
        Stamp::map(PageId::Directory(1, 2), 0x8000),
    ] {
        assert_eq!(judge::<Arena>(&bytes, other, SEED), None);
    }
    assert_eq!(judge::<Arena>(&bytes, stamp, SEED + 1), None);
    assert_eq!(judge::<Arena>(&bytes[..512], stamp, SEED), None);
    for bit in (0..4096 * 8).step_by(61) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(judge::<Arena>(&bytes, stamp, SEED), None, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn what_leaves_the_pool_makes_no_sense() {
    let mut bytes = [0; 4096];
    let layout = layout();
    let mut refused = |page, image: Image<'_>| {
        encode::<Arena>(&mut bytes, Stamp::map(page, 0), 1, SEED, image);
        assert!(decode(&bytes, page, &layout).is_none(), "{page:?}");
    };
    let mut map = LeafMap::new();
    map.set_phys(3, Some(u32::try_from(layout.slabs.len()).unwrap() * 100));
    refused(PageId::Leaf(0, 0), Image::Leaf(&map));
    let mut map = LeafMap::new();
    map.own[3] = 1;
    refused(PageId::Leaf(0, 0), Image::Leaf(&map));
    for pair in [1, layout.pair_in(3, 4) + 1, layout.pair_in(3, 0), (1 << 40) - 1] {
        refused(PageId::Root, Image::Pointers(&vec![pair]));
        refused(PageId::Layer(1), Image::Layer(&LayerState { record: pair, ..state() }));
        let directories = vec![pair];
        refused(PageId::Layer(1), Image::Layer(&LayerState { directories, ..state() }));
    }
    let mut bits: Bits = Box::new([0; BITMAP_WORDS]);
    bits[1] = 1 << 36;
    refused(PageId::Bitmap(0), Image::Bits(&bits));
    refused(PageId::PageMap(0), Image::Used(2));
    refused(PageId::Layer(1), Image::Layer(&LayerState { blocks: u64::MAX, ..state() }));
}

#[test]
fn any_bytes_decode_without_a_panic() {
    let layout = layout();
    let pages = [
        PageId::Root,
        PageId::Layer(1),
        PageId::Record(1),
        PageId::Leaf(1, 1),
        PageId::Bitmap(0),
        PageId::Bitmap(99),
        PageId::PageMap(1),
    ];
    let mut state = 1;
    for _ in 0..2000 {
        let mut bytes = [0; 4096];
        for byte in &mut bytes {
            state = mix(state, 3);
            *byte = u8::try_from(state >> 56).unwrap();
        }
        for page in pages {
            let _ = decode(&bytes, page, &layout);
            let _ = decode(&bytes[..100], page, &layout);
        }
        let _ = judge::<Arena>(&bytes[..8], Stamp::sums(1, 2), SEED);
        decode_sums(&bytes[..9], &mut [0; SUMS_PER_PAGE]);
    }
}
