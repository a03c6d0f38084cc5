//! A pool on a disk that may hold anything: images to begin with, and everything that can be
//! done to what comes of them.
//!
//! A pool opens or is refused; requests end or fail; nothing panics, and nothing grows.

use std::cell::RefCell;
use std::time::Duration;

use braid_block::BlockSize;
use braid_pool::{
    Command, Config, Create, Device, Format, Handle, Limits, Scope, State, Work, check,
};
use braid_sim::{Plain, Ram};

/// Bytes of a pool to begin with.
pub(crate) const BYTES: u64 = 16 << 20;
/// Blocks of its ring.
pub(crate) const RING: u32 = 16;
/// The pool's identity.
pub(crate) const UUID: [u8; 16] = [3; 16];
/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
/// Turns that anything may take: a request that takes more hangs.
const TURNS: u64 = 20_000;
/// Bytes that a pool of this size may have in memory, whatever its disk says.
const MEMORY_MAX: u64 = 32 << 20;
/// Replicas that are looked at.
const LAYERS: usize = 12;
const MIB: u64 = 1 << 20;

fn config(bytes: u64, read_only: bool) -> Config {
    let limits = Limits {
        requests_max: 16,
        layers_max: 64,
        delta_max: 256,
        cache_bytes: 64 << 10,
        dirty_leaves_max: 16,
        unsettled_max: 64,
        leaves_max: 64,
        ..Limits::default()
    };
    Config {
        token_base: 0,
        device: Device { bytes, sector: 512, discards: true },
        boot_id: [1; 16],
        owner: "replay".to_owned(),
        seed: 7,
        read_only,
        limits,
        plant: None,
    }
}

thread_local! {
    static IMAGES: RefCell<Vec<Ram>> = const { RefCell::new(Vec::new()) };
}

/// One of the disks to begin with: stopped in order, killed at work, killed while layers go away.
pub(crate) fn image(number: u8) -> Ram {
    IMAGES.with_borrow_mut(|images| {
        if images.is_empty() {
            images.extend([made(false, false), made(true, false), made(true, true)]);
        }
        images[usize::from(number) % images.len()].clone()
    })
}

fn made(killed: bool, deletes: bool) -> Ram {
    let format = Format {
        uuid: UUID,
        bytes: BYTES,
        ring_blocks: RING,
        slab_clusters: 20,
        reserve_clusters: 4,
    };
    let disk = Plain::create(config(BYTES, false), format, Ram::new(BYTES));
    let mut plain = Plain::open(config(BYTES, false), disk);
    plain.must_open();
    for (id, bytes) in [(1, 3 * MIB), (2, 65 * MIB)] {
        let create = Create {
            uuid: [id; 16],
            name: format!("replica {id}"),
            bytes,
            block: if id == 1 { BlockSize::B4096 } else { BlockSize::B512 },
            thick: false,
            created: 0,
        };
        plain.command(Command::Create(Box::new(create)), TURNS).expect("there is room");
    }
    let find = |plain: &Plain, id: u8| plain.pool.find(&[id; 16]).expect("it was made");
    let (one, two) = (find(&plain, 1), find(&plain, 2));
    write(&mut plain, one, 0, 8192).expect("there is room");
    write(&mut plain, two, 64 * MIB, 1024).expect("there is room");
    plain.io(two, Work::Flush { number: Some(5) }, None, TURNS).expect("a flush");
    let (name, created) = (String::new(), 0);
    let snapshot = Command::Snapshot { replica: [1; 16], uuid: [3; 16], name, created };
    plain.command(snapshot, TURNS).expect("a snapshot");
    write(&mut plain, one, 4096, 4096).expect("there is room");
    let (name, created) = (String::new(), 0);
    let clone = Command::Clone { snapshot: [3; 16], uuid: [4; 16], name, created };
    plain.command(clone, TURNS).expect("a clone");
    let clone = find(&plain, 4);
    write(&mut plain, clone, 512 << 10, 16 << 10).expect("there is room");
    let zero = Work::Zero { offset: 516 << 10, len: 4096, durable: true };
    plain.io(clone, zero, None, TURNS).expect("zeros");
    if !killed {
        assert!(plain.stop(TURNS), "it stops");
        return plain.into_disk();
    }
    if deletes {
        plain.command(Command::Destroy { uuid: [4; 16] }, TURNS).expect("the clone goes away");
        let destroyed = plain.command(Command::DeleteSnapshot { uuid: [3; 16] }, TURNS);
        destroyed.expect("the snapshot goes away");
    }
    write(&mut plain, one, 2 * MIB, 4096).expect("there is room");
    plain.kill()
}

/// Writes so many bytes; they are the same everywhere.
fn write(
    plain: &mut Plain,
    handle: Handle,
    offset: u64,
    len: u32,
) -> Result<(), braid_pool::Failure> {
    let lease = plain.mem.filled(&vec![0x42; len as usize]);
    plain.io(handle, Work::Write { offset, len, durable: false }, Some(lease), TURNS).map(drop)
}

/// Opens a pool to be read only, then to be used, and does everything with it.
pub(crate) fn use_all(mut disk: Ram) {
    let before = disk.counts();
    let mut plain = Plain::open(config(disk.bytes(), true), disk);
    if opens(&mut plain) {
        read_all(&mut plain);
        let scope = Scope { findings_max: 16, ..Scope::default() };
        let now = plain.now;
        check(&mut plain.pool, &mut plain.mem, &mut plain.disk, now, scope);
        let _ = plain.stop(TURNS);
    }
    disk = plain.into_disk();
    let after = disk.counts();
    let changed = |counts: braid_sim::Counts| (counts.writes, counts.flushes, counts.discards);
    assert_eq!(changed(before), changed(after), "it was opened to be read only");
    let mut plain = Plain::open(config(disk.bytes(), false), disk);
    if opens(&mut plain) {
        read_all(&mut plain);
        change(&mut plain);
        plain.wait(Duration::from_secs(3));
        plain.settle(TURNS);
        read_all(&mut plain);
        let _ = plain.stop(TURNS);
    }
    let _ = plain.into_disk();
}

/// Whether a pool opens; it must do that or be refused.
fn opens(plain: &mut Plain) -> bool {
    plain.settle(TURNS);
    let state = plain.pool.state();
    assert!(matches!(state, State::Open | State::Failed), "{state:?}: {:?}", plain.notes);
    if state == State::Failed {
        assert!(!plain.notes.is_empty(), "a refusal says why");
        return false;
    }
    let memory = plain.pool.info().memory;
    assert!(memory < MEMORY_MAX, "{memory} bytes of memory");
    true
}

fn handles(plain: &Plain) -> Vec<(Handle, u64, [u8; 16], bool)> {
    let layers = plain.pool.layers().take(LAYERS);
    layers.map(|layer| (layer.handle, layer.bytes, layer.uuid, layer.snapshot)).collect()
}

/// Reads the first MiBs of everything, and where later ones begin. What ends in an error is as
/// good as what does not: that it ends is what counts.
fn read_all(plain: &mut Plain) {
    for (handle, bytes, ..) in handles(plain) {
        let near = (0..4 * MIB).step_by(128 << 10);
        let far = [64 * MIB, 128 * MIB, bytes.saturating_sub(128 << 10) / BLOCK * BLOCK];
        for offset in near.chain(far) {
            let len = bytes.saturating_sub(offset).min(128 << 10);
            let len = u32::try_from(len).unwrap_or(0) / 4096 * 4096;
            if len == 0 {
                continue;
            }
            let lease = plain.mem.filled(&vec![0; len as usize]);
            let _ = plain.io(handle, Work::Read { offset, len }, Some(lease), TURNS);
        }
        for offset in (0..4 * MIB).step_by(1 << 20).chain([64 * MIB, bytes / MIB * MIB]) {
            let len = u32::try_from(bytes.saturating_sub(offset).min(MIB)).unwrap_or(0);
            let lease = plain.mem.filled(&[0; 8192]);
            let work = Work::Compare { offset, len: len / 4096 * 4096 };
            let _ = plain.io(handle, work, Some(lease), TURNS);
        }
        let lease = plain.mem.filled(&[0; 4096]);
        let len = bytes.min(256 * MIB);
        let _ = plain.io(handle, Work::Status { offset: 0, len }, Some(lease), TURNS);
    }
}

/// Changes everything that can be changed.
fn change(plain: &mut Plain) {
    for (handle, bytes, uuid, snapshot) in handles(plain) {
        if snapshot || bytes < MIB {
            continue;
        }
        for offset in [4096, 300 << 10, bytes / BLOCK * BLOCK - 8192] {
            let _ = write(plain, handle, offset, 8192);
        }
        let zero = Work::Zero { offset: 0, len: 600 << 10, durable: true };
        let _ = plain.io(handle, zero, None, TURNS);
        let (name, created) = (String::new(), 0);
        let mut other = uuid;
        other[15] ^= 0x80;
        let snapshot = Command::Snapshot { replica: uuid, uuid: other, name, created };
        let _ = plain.command(snapshot, TURNS);
        let _ = write(plain, handle, 4096, 4096);
        let _ = plain.io(handle, Work::Flush { number: None }, None, TURNS);
    }
    for (_, _, uuid, snapshot) in handles(plain) {
        let command =
            if snapshot { Command::DeleteSnapshot { uuid } } else { Command::Destroy { uuid } };
        let _ = plain.command(command, TURNS);
    }
}
