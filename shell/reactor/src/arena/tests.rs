//! What the arena promises.

use super::*;
use braid_block::Memory;

fn small() -> Arena {
    let options =
        ArenaOptions { chunk_bytes: 128 << 10, start_bytes: 256 << 10, limit_bytes: 1 << 20 };
    Arena::new(options).expect("a megabyte")
}

#[test]
fn it_grows_to_its_limit_then_says_no_and_serves_again() {
    let mut arena = small();
    assert_eq!(arena.counters().chunks, 2);
    let mut leases: Vec<Lease> = std::iter::from_fn(|| arena.alloc(Class::Large)).collect();
    assert_eq!((leases.len(), arena.counters().chunks), (8, 8));
    assert_eq!(arena.counters().bytes_out, 1 << 20);
    assert!(arena.alloc(Class::Small).is_none());
    arena.free(leases.remove(3));
    let lease = arena.alloc(Class::Small).expect("one was freed");
    leases.push(lease);
    for lease in leases {
        arena.free(lease);
    }
    assert_eq!(arena.leases_out(), 0);
}

#[test]
fn leases_do_not_overlap_and_keep_their_bytes() {
    let mut arena = small();
    let mut leases: Vec<Lease> = Vec::new();
    for round in 0..400u32 {
        let class = Class::ALL[(round * 7 % 11 % 3) as usize];
        if let Some(lease) = arena.alloc(class) {
            let mark = lease.id().generation.get() as u8 ^ lease.id().index as u8;
            arena.bytes_mut(&lease).fill(mark);
            leases.push(lease);
        }
        if round % 3 == 2 || leases.len() > 20 {
            arena.free(leases.swap_remove((round * 5) as usize % leases.len()));
        }
        for lease in &leases {
            let mark = lease.id().generation.get() as u8 ^ lease.id().index as u8;
            assert!(arena.bytes(lease).iter().all(|byte| *byte == mark));
        }
    }
    leases.drain(..).for_each(|lease| arena.free(lease));
}

#[test]
#[should_panic(expected = "stale lease")]
fn a_stale_lease_panics() {
    let mut arena = small();
    let lease = arena.alloc(Class::Small).expect("room");
    let twin = Lease::new(lease.id());
    arena.free(lease);
    let _again = arena.alloc(Class::Small);
    let _ = arena.bytes(&twin);
}

#[test]
#[should_panic(expected = "write to a buffer that the kernel holds")]
fn nobody_writes_what_the_kernel_reads() {
    let mut arena = small();
    let lease = arena.alloc(Class::Small).expect("room");
    let _ = arena.hold(lease.span(0, 10), false);
    assert_eq!(arena.bytes(&lease).len(), 4096);
    let _ = arena.bytes_mut(&lease);
}

#[test]
#[should_panic(expected = "free of a buffer that the kernel holds")]
fn nobody_frees_what_the_kernel_holds() {
    let mut arena = small();
    let lease = arena.alloc(Class::Small).expect("room");
    let _ = arena.hold(lease.span(0, 10), true);
    arena.free(lease);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "1 leases leaked")]
fn a_leak_is_reported() {
    let mut arena = small();
    let _lost = arena.alloc(Class::Medium);
}

#[test]
fn a_copy_with_crc_is_a_copy_and_a_crc() {
    let mut arena = small();
    let (a, b) =
        (arena.alloc(Class::Large).expect("room"), arena.alloc(Class::Large).expect("room"));
    for (i, byte) in arena.bytes_mut(&a).iter_mut().enumerate() {
        *byte = ((i * 31) >> 3) as u8;
    }
    let crc = arena.copy_crc(&b, 5, &a, 100..50_000, 7);
    assert_eq!(crc, arena.crc(&a, 100..50_000, 7));
    assert_eq!(crc, Arena::crc_bytes(&arena.bytes(&b)[5..49_905], 7));
    assert_eq!(Arena::crc_bytes(b"123456789", 0), 0xe306_9283);
    let counters = arena.counters();
    assert_eq!((counters.copies, counters.bytes_copied, counters.crc_passes), (1, 49_900, 2));
    arena.free(a);
    arena.free(b);
}

#[test]
fn a_lent_buffer_goes_home_when_it_is_freed() {
    let mut arena = small();
    assert!(arena.lend(4));
    let mut numbers: Vec<u16> =
        std::iter::from_fn(|| arena.next_returned()).map(|(number, _)| number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3]);
    let all: Vec<Lease> = std::iter::from_fn(|| arena.alloc(Class::Medium)).collect();
    assert_eq!(all.len(), 64 - 4);
    let lease = arena.deliver(2);
    arena.bytes_mut(&lease).fill(1);
    arena.free(lease);
    assert!(arena.alloc(Class::Medium).is_none());
    assert_eq!(arena.next_returned().map(|(number, _)| number), Some(2));
    all.into_iter().for_each(|lease| arena.free(lease));
    arena.end_lending();
    let larges: Vec<Lease> = std::iter::from_fn(|| arena.alloc(Class::Large)).collect();
    assert_eq!(larges.len(), 8);
    larges.into_iter().for_each(|lease| arena.free(lease));
}

#[test]
fn chunks_beyond_the_start_can_be_given_back_when_idle() {
    let mut arena = small();
    let leases: Vec<Lease> = std::iter::from_fn(|| arena.alloc(Class::Large)).collect();
    leases.into_iter().for_each(|lease| arena.free(lease));
    while let Some((chunk, registered)) = arena.idle_chunk() {
        assert!(!registered);
        arena.release_chunk(chunk).expect("madvise");
    }
    assert_eq!(arena.counters().chunks, 2);
    let leases: Vec<Lease> = std::iter::from_fn(|| arena.alloc(Class::Large)).collect();
    assert_eq!(leases.len(), 8);
    leases.into_iter().for_each(|lease| arena.free(lease));
}
