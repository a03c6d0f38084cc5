//! What is known of checksums at each moment of their life.

use alloc::collections::BTreeMap;
use alloc::vec;

use super::*;
use crate::hash::mix;
use crate::layout::PAIR;

fn layout() -> Layout {
    let start = Layout::slabs_start(16);
    Layout::new(64 << 20, 16, 100, vec![(start, (64 << 20) - PAIR - start)]).unwrap()
}

/// Merges everything, as a checkpoint would, with all pages in memory.
fn merge_all(sums: &mut Sums, lsn: u64) -> Vec<u64> {
    let mut pages = Vec::new();
    let mut changes = Vec::new();
    sums.freeze();
    while let Some(page) = sums.next_page(&mut changes) {
        sums.add(page, None, 0);
        assert!(sums.merge(page, &changes, lsn).is_some());
        sums.written(page);
        pages.push(page);
    }
    sums.merged();
    pages
}

#[test]
fn the_newest_of_active_frozen_and_page_counts() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    assert_eq!(sums.get(&layout, 5), Sum::Missing(0));
    sums.set(&layout, 5, 50, 1);
    assert_eq!(sums.get(&layout, 5), Sum::Known(50));
    sums.freeze();
    assert_eq!(sums.get(&layout, 5), Sum::Known(50));
    sums.set(&layout, 5, 51, 2);
    assert_eq!(sums.get(&layout, 5), Sum::Known(51));
    let mut changes = Vec::new();
    assert_eq!(sums.next_page(&mut changes), Some(0));
    assert!(sums.merge(0, &changes, 1).is_none(), "the page is not in memory");
    sums.add(0, Some(1), 0).unwrap()[6] = 60;
    let (page, slot) = sums.merge(0, &changes, 1).unwrap();
    assert_eq!((page.sums[5], page.sums[6], page.lsn, slot), (50, 60, 1, 0..=0));
    sums.written(0);
    sums.merged();
    assert_eq!(sums.get(&layout, 5), Sum::Known(51));
    assert_eq!(sums.get(&layout, 6), Sum::Known(60));
    merge_all(&mut sums, 2);
    assert_eq!(sums.delta_len(), 0);
    assert_eq!(sums.get(&layout, 5), Sum::Known(51));
}

#[test]
fn a_page_that_was_never_written_knows_nothing_and_learns() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    sums.add(0, None, 0);
    assert_eq!(sums.get(&layout, 5), Sum::Unknown);
    sums.set(&layout, 5, 50, 1);
    assert_eq!(sums.get(&layout, 5), Sum::Known(50));
    merge_all(&mut sums, 1);
    assert_eq!(sums.get(&layout, 5), Sum::Known(50));
}

#[test]
fn what_was_replayed_counts_only_if_the_page_is_older() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    sums.set(&layout, 5, 50, 10);
    sums.set(&layout, 6, 60, 12);
    sums.replayed_to(12);
    assert_eq!(sums.get(&layout, 5), Sum::Missing(0), "the page decides");
    let page = sums.add(0, Some(0), 11).unwrap();
    (page[5], page[6]) = (55, 66);
    assert_eq!(sums.get(&layout, 5), Sum::Known(55));
    assert_eq!(sums.get(&layout, 6), Sum::Known(60));
    sums.set(&layout, 5, 51, 13);
    assert_eq!(sums.get(&layout, 5), Sum::Known(51), "written after the replay");
    merge_all(&mut sums, 13);
    assert_eq!(sums.get(&layout, 5), Sum::Known(51));
    assert_eq!(sums.get(&layout, 6), Sum::Known(60));
}

#[test]
fn a_stale_replayed_checksum_is_not_merged() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    sums.set(&layout, 5, 50, (1 << 32) + 1);
    sums.replayed_to((1 << 32) + 1);
    sums.add(0, Some(0), (1 << 32) + 1).unwrap()[5] = 55;
    merge_all(&mut sums, (1 << 32) + 9);
    assert_eq!(sums.get(&layout, 5), Sum::Known(55));
}

#[test]
fn journal_numbers_wrap_in_entries_and_nothing_notices() {
    let newest = (7 << 32) + 3;
    for back in [0, 1, 3, 4, 5, 1 << 20] {
        assert_eq!(whole(newest, lower(newest - back)), newest - back);
    }
}

#[test]
fn frozen_pages_come_in_the_order_of_the_device_each_once() {
    let layout = layout();
    let mut sums = Sums::new(1 << 20, 1 << 20);
    let mut model = BTreeMap::new();
    let blocks = layout.clusters() * 64;
    for i in 0..20_000u64 {
        // Clusters of a slab that is not whole are not numbered through: stay in the first two.
        let block = mix(i, 1) % (blocks.min(200 * 64));
        sums.set(&layout, block, lower(i), 1 + i / 100);
        model.insert(block, lower(i));
    }
    assert_eq!(sums.delta_len(), model.len());
    let pages = merge_all(&mut sums, 200);
    assert!(pages.is_sorted_by(|a, b| a < b));
    for (block, crc) in model {
        assert_eq!(sums.get(&layout, block), Sum::Known(crc));
    }
}

#[test]
fn pages_that_are_being_written_stay() {
    let mut sums = Sums::new(1000, 0);
    let mut changes = Vec::new();
    let layout = layout();
    sums.set(&layout, 0, 1, 1);
    sums.freeze();
    sums.next_page(&mut changes);
    sums.add(0, None, 0);
    sums.merge(0, &changes, 1);
    for page in 1..1000 {
        assert!(sums.add(page, None, 0).is_some());
        assert!(sums.holds(page) && sums.holds(0));
    }
    let full = sums.pages();
    sums.release();
    assert_eq!(sums.pages(), 1);
    sums.written(0);
    sums.release();
    assert_eq!(sums.pages(), 0);
    assert!(full <= 96);
}

#[test]
fn a_steady_load_keeps_its_tables_and_another_gives_them_back() {
    let layout = layout();
    let mut sums = Sums::new(1 << 20, 0);
    let fill = |sums: &mut Sums, from: u64| {
        for block in from..from + 3000 {
            sums.set(&layout, block, 1, 1);
        }
        merge_all(sums, 1);
    };
    fill(&mut sums, 0);
    fill(&mut sums, 0);
    let steady = sums.memory();
    for _ in 0..5 {
        fill(&mut sums, 0);
        assert_eq!(sums.memory(), steady);
    }
    sums.release();
    assert!(sums.memory() < 1000, "{}", sums.memory());
}

#[test]
fn what_lacks_a_page_is_what_get_would_miss() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    sums.set(&layout, 5, 50, 3);
    let other = SUMS_PER_PAGE as u64;
    let same = |sums: &mut Sums, block, lacks| {
        assert_eq!(sums.lacks(&layout, block), lacks);
        assert_eq!(matches!(sums.get(&layout, block), Sum::Missing(_)), lacks.is_some());
    };
    same(&mut sums, 5, None);
    same(&mut sums, 6, Some(0));
    sums.freeze();
    same(&mut sums, 5, None);
    // What was replayed counts only beside its page.
    sums.replayed_to(3);
    same(&mut sums, 5, Some(0));
    same(&mut sums, other, Some(1));
    sums.add(0, None, 0);
    same(&mut sums, 5, None);
    same(&mut sums, 6, None);
    same(&mut sums, other, Some(1));
}

#[test]
fn a_page_that_was_let_go_is_not_found_because_it_was_asked_for_last() {
    let layout = layout();
    let mut sums = Sums::new(1000, 0);
    // A slab of 100 clusters has seven pages, of which the last is not full.
    let first = |page: u64| page / 7 * 6400 + page % 7 * SUMS_PER_PAGE as u64;
    let mut seen = vec![None; 300];
    for number in 0..300_u32 {
        let page = u64::from(number % 290);
        if sums.lacks(&layout, first(page)).is_some() {
            sums.add(page, Some(0), 1).unwrap()[0] = number;
            seen[page as usize] = Some(number);
        }
        // Asked for last, then others come in its place.
        for page in [page, page / 2] {
            let sum = sums.get(&layout, first(page));
            match sum {
                Sum::Known(crc) => assert_eq!(Some(crc), seen[page as usize], "page {page}"),
                sum => assert_eq!(sum, Sum::Missing(page)),
            }
        }
    }
    sums.release();
    assert_eq!(sums.get(&layout, 0), Sum::Missing(0));
}

#[test]
fn what_was_merged_is_forgotten_at_once_and_put_away_little_by_little() {
    let layout = layout();
    let mut sums = Sums::new(1000, 0);
    // Groups of 128 pages, many of them.
    let block = |n: u64| n * 128 * SUMS_PER_PAGE as u64;
    for n in 0..1000 {
        sums.set(&layout, block(n), 1, 1);
    }
    merge_all(&mut sums, 1);
    let lost = (0..1000).filter(|n| matches!(sums.get(&layout, block(*n)), Sum::Missing(_)));
    assert!(lost.count() > 800, "what the few pages in memory do not tell, nobody tells");
    let mut turns = 0;
    while sums.tidy() {
        turns += 1;
    }
    assert!((3..20).contains(&turns), "{turns} turns for a thousand tables");
    sums.set(&layout, block(7), 2, 2);
    merge_all(&mut sums, 2);
    // Without a turn between.
    sums.set(&layout, block(8), 3, 3);
    assert_eq!(merge_all(&mut sums, 3).len(), 1);
}

#[test]
fn a_page_that_an_unfinished_checkpoint_wrote_stays_until_the_other_slot_is_written() {
    let layout = layout();
    let mut sums = Sums::new(1000, 1 << 20);
    // Leaves that were written after it may rely on it: what they hold is not replayed.
    sums.set(&layout, 5, 50, 21);
    sums.replayed_to(21);
    sums.add(0, Some(1), 20);
    let mut changes = Vec::new();
    sums.freeze();
    assert_eq!(sums.next_page(&mut changes), Some(0));
    let (page, slot) = sums.merge(0, &changes, 22).expect("it is in memory");
    assert_eq!((page.sums[5], slot), (50, 0..=0));
}
