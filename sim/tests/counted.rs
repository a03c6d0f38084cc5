//! What the pool promises by number: writes and flushes of the device, passes of a checksum,
//! copies, look-ups, allocations. Exact bounds; no clock.

#[path = "../../shell/reactor/tests/support/allocator.rs"]
mod allocator;

use std::collections::VecDeque;
use std::time::Duration;

use braid_block::{BlockSize, Lease};
use braid_pool::{Command, Config, Counters, Create, Device, Format, Handle, Limits, Work};
use braid_sim::{Plain, Ram, Random};

const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const CLUSTER: u64 = 256 << 10;
/// Turns that anything here may take.
const TURNS: u64 = 1 << 22;

fn config(bytes: u64, limits: Limits) -> Config {
    Config {
        token_base: 0,
        device: Device { bytes, sector: 4096, discards: false },
        boot_id: [1; 16],
        owner: "counted".to_owned(),
        seed: 7,
        read_only: false,
        limits,
        plant: None,
    }
}

/// A pool with one replica.
struct Bed {
    plain: Plain,
    head: Handle,
    /// Buffers that wait to be used, with content.
    leases: Vec<Lease>,
    limits: Limits,
}

impl Bed {
    fn new(bytes: u64, replica: u64, limits: Limits) -> Self {
        let config = config(bytes, limits);
        let format = Format {
            uuid: [3; 16],
            bytes,
            ring_blocks: 16_384,
            slab_clusters: 32_512,
            reserve_clusters: 64,
        };
        let disk = Plain::create(config.clone(), format, Ram::new(bytes));
        let mut plain = Plain::open(config, disk);
        plain.must_open();
        let create = Create {
            uuid: [4; 16],
            name: "one".to_owned(),
            bytes: replica,
            block: BlockSize::B4096,
            thick: false,
            created: 0,
        };
        let made = plain.command(Command::Create(Box::new(create)), TURNS);
        let head = made.expect("a replica").handle.expect("its number");
        Self { plain, head, leases: Vec::new(), limits }
    }

    /// The same, every block of the replica written once, and all of it settled.
    fn filled(bytes: u64, replica: u64, limits: Limits) -> Self {
        let mut bed = Self::new(bytes, replica, limits);
        let mut at = 0;
        let len = 128 << 10;
        bed.load(8, replica / u64::from(len), usize::MAX, 0, || {
            at += u64::from(len);
            Work::Write { offset: at - u64::from(len), len, durable: false }
        });
        bed.flush();
        bed
    }

    fn reopen(mut self) -> Self {
        assert!(self.plain.stop(TURNS), "it stops");
        for lease in self.leases.drain(..) {
            self.plain.give_back(lease);
        }
        let disk = self.plain.into_disk();
        self.plain = Plain::open(config(disk.bytes(), self.limits), disk);
        self.plain.must_open();
        self.head = self.plain.pool.find(&[4; 16]).expect("the replica");
        self
    }

    fn counters(&self) -> Counters {
        *self.plain.pool.counters()
    }

    /// A flush of the host.
    fn flush(&mut self) {
        let flushed = self.plain.io(self.head, Work::Flush { number: None }, None, TURNS);
        flushed.expect("a flush");
        self.plain.settle(TURNS);
    }

    fn lease(&mut self) -> Lease {
        self.leases.pop().unwrap_or_else(|| self.plain.mem.filled(&[0x5a; 128 << 10]))
    }

    /// A closed loop of so many requests at a time, a flush after every so many; the disk ends at
    /// most `batch` operations in a turn.
    fn load(
        &mut self,
        depth: u64,
        count: u64,
        batch: usize,
        flush_every: u64,
        mut next: impl FnMut() -> Work,
    ) {
        let (mut begun, mut done, mut since) = (0, 0, 0);
        let mut flushes = VecDeque::new();
        while done < count {
            while begun < count && begun - done + (flushes.len() as u64) < depth {
                if flush_every > 0 && since == flush_every {
                    since = 0;
                    let work = Work::Flush { number: None };
                    flushes.push_back(self.plain.submit(self.head, work, None));
                    continue;
                }
                let lease = self.lease();
                self.plain.submit(self.head, next(), Some(lease));
                (begun, since) = (begun + 1, since + 1);
            }
            assert!(self.plain.step(batch), "{done} of {count} done, and nothing moves");
            while let Some(completion) = self.plain.done.pop_front() {
                completion.result.expect("a request");
                match completion.lease {
                    Some(lease) => {
                        self.leases.push(lease);
                        done += 1;
                    }
                    None => flushes.retain(|tag| *tag != completion.tag),
                }
            }
        }
        while !flushes.is_empty() {
            assert!(self.plain.step(batch), "a flush is missing");
            while let Some(completion) = self.plain.done.pop_front() {
                flushes.retain(|tag| *tag != completion.tag);
            }
        }
    }
}

/// Random blocks of a range.
fn overwrites(bytes: u64, seed: u64) -> impl FnMut() -> Work {
    let mut random = Random::new(seed);
    move || Work::Write {
        offset: random.below(bytes / BLOCK) * BLOCK,
        len: BLOCK as u32,
        durable: false,
    }
}

fn reads(bytes: u64, seed: u64) -> impl FnMut() -> Work {
    let mut random = Random::new(seed);
    move || Work::Read { offset: random.below(bytes / BLOCK) * BLOCK, len: BLOCK as u32 }
}

/// Each block of a range once, neighbours far apart.
fn scattered(bytes: u64) -> impl FnMut() -> Work {
    let (blocks, mut at) = (bytes / BLOCK, 0);
    assert!(blocks.is_power_of_two());
    move || {
        // An odd step reaches every block of a power of two.
        at = (at + ((blocks / 8 * 5) | 1)) % blocks;
        Work::Write { offset: at * BLOCK, len: BLOCK as u32, durable: false }
    }
}

fn per(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

/// As many cells between two checkpoints for each page of checksums as 128 GiB in use have with
/// the default limits.
fn scaled(replica: u64) -> Limits {
    let pages = replica / BLOCK / 960 + 1;
    let all = (128_u64 << 30) / BLOCK / 960;
    let delta = u64::from(Limits::default().delta_max) * pages / all;
    Limits { delta_max: u32::try_from(delta).expect("small"), ..Limits::default() }
}

#[test]
fn an_overwrite_is_one_device_write_and_a_twentieth() {
    const SET: u64 = 256 * MIB;
    const COUNT: u64 = 40_000;
    let mut bed = Bed::filled(1024 * MIB, SET, scaled(SET));
    bed.load(32, 10_000, 1, 0, overwrites(SET, 1));
    for (batch, flush_every) in [(1, 0), (usize::MAX, 0), (1, 32), (8, 32)] {
        let before = bed.counters();
        bed.load(32, COUNT, batch, flush_every, overwrites(SET, batch as u64));
        let after = bed.counters();
        let writes = per(after.device_writes() - before.device_writes(), COUNT);
        let opened = per(after.regions_opened - before.regions_opened, COUNT);
        println!("batch {batch}, flush every {flush_every}: {writes:.4}, opened {opened:.4}");
        println!("{before:?}\n{after:?}");
        // A flush finds cells of a block that is not full; it must write them.
        let flush = if flush_every > 0 { 1.0 / flush_every as f64 } else { 0.0 };
        assert!(writes <= 1.05 + flush, "{writes}");
        assert!(opened < 0.01, "{opened}");
        assert!(after.checkpoints > before.checkpoints, "it is the steady state");
    }
}

#[test]
fn what_is_overwritten_all_the_time_stays_open_and_what_is_not_is_closed() {
    const SET: u64 = 256 * MIB;
    let mut bed = Bed::filled(1024 * MIB, 2 * SET, Limits::default());
    bed.load(32, 10_000, 4, 0, overwrites(SET, 1));
    let before = bed.counters();
    let open = |counters: &Counters| counters.regions_opened - counters.regions_closed;
    assert!(open(&before) > 400, "{} regions", open(&before));
    // A flush, so that what is not written is quiet over one.
    bed.flush();
    bed.load(1, 100_000, 1, 0, overwrites(SET, 2));
    let after = bed.counters();
    assert_eq!(after.regions_opened, before.regions_opened, "none is opened again");
    assert_eq!(open(&after), SET / MIB, "those that are written");
    assert_eq!(after.device_flushes - before.device_flushes, 1, "that of the host");
}

#[test]
fn after_a_rest_what_was_overwritten_before_is_opened_for_one_flush() {
    const SET: u64 = 256 * MIB;
    let mut bed = Bed::filled(1024 * MIB, 2 * SET, Limits::default());
    let rest = |bed: &mut Bed| {
        for _ in 0..4 {
            bed.plain.wait(Duration::from_secs(1));
            bed.plain.settle(TURNS);
        }
        let counters = bed.counters();
        assert_eq!(counters.regions_opened, counters.regions_closed, "all are closed");
        counters
    };
    rest(&mut bed);
    // All were written once; half of them are overwritten.
    bed.load(32, 20_000, 4, 0, overwrites(SET, 1));
    let before = rest(&mut bed);
    bed.load(1, 100, 1, 0, overwrites(SET, 2));
    let after = bed.counters();
    assert_eq!(after.regions_opened - before.regions_opened, 512);
    assert_eq!(after.device_flushes - before.device_flushes, 1);
    assert_eq!(after.journal_writes - before.journal_writes, 1);
    assert_eq!(after.data_writes - before.data_writes, 100);
    // What is opened with others and not written any more is forgotten after some time.
    for round in 0..5 {
        let before = rest(&mut bed);
        let once = || Work::Write { offset: 0, len: 4096, durable: false };
        bed.load(1, 1, 1, 0, once);
        let after = bed.counters();
        let opened = after.regions_opened - before.regions_opened;
        assert_eq!(after.device_flushes - before.device_flushes, 1);
        match round {
            0 => assert_eq!(opened, 512),
            4 => assert_eq!(opened, 1),
            _ => assert!((1..=512).contains(&opened), "{opened}"),
        }
    }
}

#[test]
fn a_first_write_is_one_device_write_and_a_tenth() {
    const SET: u64 = 128 * MIB;
    for batch in [1, 8, usize::MAX] {
        let mut bed = Bed::new(1024 * MIB, SET, Limits::default());
        let before = bed.counters();
        bed.load(32, SET / BLOCK, batch, 0, scattered(SET));
        let after = bed.counters();
        let writes = per(after.device_writes() - before.device_writes(), SET / BLOCK);
        println!("batch {batch}: {writes:.4}\n{after:?}");
        assert!(writes <= 1.1, "{writes}");
        assert_eq!(after.data_writes - before.data_writes, SET / BLOCK);
    }
}

#[test]
fn a_flush_is_one_flush_and_none_if_nothing_is_new() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, Limits::default());
    let mut random = overwrites(MIB, 3);
    bed.load(1, 4, 1, 1, &mut random);
    for _ in 0..50 {
        let before = bed.counters();
        bed.load(4, 8, 1, 0, &mut random);
        bed.flush();
        let after = bed.counters();
        assert_eq!(after.flushes - before.flushes, 1);
        assert_eq!(after.device_flushes - before.device_flushes, 1, "{before:?}\n{after:?}");
        bed.flush();
        assert_eq!(bed.counters().device_flushes, after.device_flushes, "nothing is new");
    }
}

#[test]
fn flushes_that_wait_together_share_one() {
    let mut bed = Bed::filled(512 * MIB, 64 * MIB, Limits::default());
    bed.load(8, 8, 1, 0, overwrites(MIB, 3));
    let before = bed.counters().device_flushes;
    for _ in 0..8 {
        bed.plain.submit(bed.head, Work::Flush { number: None }, None);
    }
    bed.plain.settle(TURNS);
    assert_eq!(bed.plain.done.drain(..).filter(|done| done.result.is_ok()).count(), 8);
    assert_eq!(bed.counters().device_flushes, before + 1);
}

#[test]
fn a_write_and_its_flush_are_two_writes_and_a_flush() {
    const PAIRS: u64 = 1000;
    let mut bed = Bed::filled(512 * MIB, 64 * MIB, Limits::default());
    bed.load(1, 64, 1, 1, overwrites(8 * MIB, 5));
    let before = bed.counters();
    bed.load(1, PAIRS, 1, 1, overwrites(8 * MIB, 6));
    let after = bed.counters();
    // To mark a region anew takes a journal block and a flush of its own.
    let marked = after.regions_opened - before.regions_opened;
    assert!(marked * 100 <= PAIRS, "{marked} marks");
    assert_eq!(after.data_writes - before.data_writes, PAIRS);
    assert_eq!(after.journal_writes - before.journal_writes, PAIRS + marked);
    assert_eq!(after.page_writes, before.page_writes, "no checkpoint so soon");
    let flushes = after.device_flushes - before.device_flushes;
    assert!((PAIRS - 1..=PAIRS + marked).contains(&flushes), "{flushes}");
}

#[test]
fn a_first_write_and_its_flush_are_two_writes_and_a_flush() {
    const PAIRS: u64 = 200;
    let mut bed = Bed::new(512 * MIB, 64 * MIB, Limits::default());
    let mut next = scattered(32 * MIB);
    bed.load(1, 64, 1, 1, &mut next);
    let before = bed.counters();
    bed.load(1, PAIRS, 1, 1, &mut next);
    let after = bed.counters();
    assert_eq!(after.data_writes - before.data_writes, PAIRS);
    assert_eq!(after.journal_writes - before.journal_writes, PAIRS);
    assert!((PAIRS - 1..=PAIRS).contains(&(after.device_flushes - before.device_flushes)));
}

#[test]
fn each_block_passes_one_checksum_and_is_not_copied() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, Limits::default());
    let marks = |bed: &Bed| (bed.plain.mem.crc_passes(), bed.counters().crc_blocks);
    let before = marks(&bed);
    bed.load(32, 5000, 4, 32, overwrites(SET, 8));
    bed.load(32, 5000, 4, 0, reads(SET, 9));
    let mut at = 0;
    bed.load(4, 100, 4, 0, || {
        at += 128 << 10;
        Work::Read { offset: at, len: 128 << 10 }
    });
    let after = marks(&bed);
    assert_eq!(after.1 - before.1, 10_000 + 100 * 32);
    assert_eq!(after.0 - before.0, 10_000 + 100 * 32);
    assert_eq!((bed.plain.mem.copied(), bed.counters().copied_blocks), (0, 0));
}

#[test]
fn a_warm_chain_of_64_costs_one_look_up() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, Limits::default());
    for n in 0..64_u8 {
        let mut uuid = [0x77; 16];
        uuid[0] = n;
        let snapshot =
            Command::Snapshot { replica: [4; 16], uuid, name: format!("s{n}"), created: 0 };
        bed.plain.command(snapshot, TURNS).expect("a snapshot");
        let mut random = Random::new(u64::from(n));
        let mut next = || Work::Write { offset: random.below(16) * MIB, len: 4096, durable: false };
        bed.load(4, 8, 1, 0, &mut next);
    }
    let mut each = 0;
    let mut all = || {
        each += 1;
        Work::Read { offset: each % (SET / BLOCK) * BLOCK, len: 4096 }
    };
    bed.load(32, SET / BLOCK, 4, 0, &mut all);
    let before = bed.counters().lookups;
    bed.load(32, 10_000, 4, 0, reads(SET, 2));
    assert_eq!(bed.counters().lookups - before, 10_000);
}

#[test]
fn a_write_to_a_snapshotted_cluster_is_4_kib_and_one_cluster() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, Limits::default());
    let uuid = [9; 16];
    let snapshot = Command::Snapshot { replica: [4; 16], uuid, name: "s".to_owned(), created: 0 };
    bed.plain.command(snapshot, TURNS).expect("a snapshot");
    let once = |at: u64| move || Work::Write { offset: at, len: 4096, durable: false };
    // The first in 64 MiB gives the map a page.
    bed.load(1, 1, 1, 0, once(0));
    let (before, used) = (bed.counters(), bed.plain.pool.info().data);
    bed.load(1, 1, 1, 0, once(3 * CLUSTER + 5 * BLOCK));
    let (after, now) = (bed.counters(), bed.plain.pool.info().data);
    assert_eq!(after.data_writes - before.data_writes, 1);
    assert_eq!(after.journal_writes - before.journal_writes, 1);
    assert_eq!(after.device_written_bytes - before.device_written_bytes, 2 * BLOCK);
    assert_eq!(after.device_reads, before.device_reads);
    assert_eq!(now - used, CLUSTER);
    assert_eq!(after.copied_blocks, 0);
}

#[test]
fn requests_allocate_nothing() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, Limits::default());
    bed.plain.meter = || allocator::ALLOCATIONS.get();
    bed.load(32, SET / BLOCK, 4, 32, scattered(SET));
    bed.load(32, 20_000, 4, 32, overwrites(SET, 1));
    bed.load(32, 5_000, 4, 0, reads(SET, 3));
    let (before, checkpoints) = (bed.plain.metered, bed.counters().checkpoints);
    bed.load(32, 20_000, 4, 32, overwrites(SET, 2));
    let writes = bed.plain.metered - before;
    bed.load(32, 20_000, 4, 0, reads(SET, 3));
    let reads = bed.plain.metered - before - writes;
    assert_eq!((writes, reads), (0, 0));
    assert_eq!(bed.counters().checkpoints, checkpoints);
}

#[test]
fn a_checkpoint_allocates_for_its_pages_alone() {
    const SET: u64 = 64 * MIB;
    let mut bed = Bed::filled(512 * MIB, SET, scaled(SET));
    bed.plain.meter = || allocator::ALLOCATIONS.get();
    bed.load(32, 30_000, 4, 32, overwrites(SET, 1));
    let (before, checkpoints) = (bed.plain.metered, bed.counters().checkpoints);
    bed.load(32, 20_000, 4, 32, overwrites(SET, 2));
    let checkpoints = bed.counters().checkpoints - checkpoints;
    let each = per(bed.plain.metered - before, checkpoints);
    // The image of each of the few pages that change while it runs, and lists of checksums.
    assert!(checkpoints > 10 && each <= 10.0, "{checkpoints} checkpoints, {each} each");
}

#[test]
fn checksum_pages_that_are_not_there_are_read_beside_the_data() {
    const SET: u64 = 2048 * MIB;
    let limits = Limits { cache_bytes: 64 << 10, ..Limits::default() };
    let mut bed = Bed::filled(3072 * MIB, SET, limits).reopen();
    bed.load(32, 2000, usize::MAX, 0, reads(SET, 3));
    let before = bed.counters();
    let turns = bed.plain.turns;
    bed.load(1, 1000, usize::MAX, 0, reads(SET, 4));
    let after = bed.counters();
    let (misses, hits) =
        (after.cache_misses - before.cache_misses, after.cache_hits - before.cache_hits);
    assert!(misses > 700, "{misses} misses, {hits} hits");
    assert_eq!(after.device_reads - before.device_reads, 1000 + misses);
    // Both in one turn: the request goes out in one and is done in the next.
    assert!(bed.plain.turns - turns <= 2 * 1000 + 100, "{} turns", bed.plain.turns - turns);
}

#[test]
fn what_is_idle_is_silent() {
    let mut bed = Bed::filled(512 * MIB, 64 * MIB, Limits::default());
    for _ in 0..300 {
        bed.plain.wait(Duration::from_secs(1));
        bed.plain.settle(TURNS);
    }
    let (before, turns) = (bed.counters(), bed.plain.turns);
    assert_eq!(bed.plain.pool.poll_timeout(), None, "nobody asks to be woken");
    bed.plain.wait(Duration::from_secs(3600));
    bed.plain.settle(TURNS);
    assert_eq!(bed.counters(), before);
    assert!(bed.plain.turns - turns < 4);
}
