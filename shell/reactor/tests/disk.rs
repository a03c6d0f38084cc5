//! Files: on the target directory's file system, and on tmpfs where there is one.

mod support;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use braid_block::{Class, IoError, Lease, Memory};
use braid_reactor::{Arena, DiskError, OpenDisk, OpenOptions, Options};
use braid_shard::{Disk, Effect, Event};
use support::{Directory, Fake, Parts, Todo, options, token};

const DISK: Disk = Disk(0);
const MIB: u64 = 1 << 20;

fn open(path: &Path) -> OpenDisk {
    let how = OpenOptions { create_bytes: Some(8 * MIB), ..OpenOptions::default() };
    OpenDisk::open(path, &how).expect("direct I/O works here")
}

/// One step: what to do with the answer to the last one, and what to ask for next.
type Step = fn(&mut Todo, &mut Arena, Result<u32, IoError>);

/// Runs steps one after another; each is called with the answer to what the one before asked.
fn run(disk: OpenDisk, options: Options, steps: &'static [Step]) {
    let mut next = 0;
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| {
        let result = match event {
            Event::Start { .. } => Ok(0),
            Event::Done { result, .. } => result,
            other => panic!("{other:?}"),
        };
        steps[next](todo, mem, result);
        next += 1;
        todo.finished = next == steps.len();
    });
    Parts { disks: vec![disk], options, ..Parts::default() }.run(machine).join();
}

fn lease(todo: &mut Todo, mem: &mut Arena, fill: u8) -> usize {
    let lease = mem.alloc(Class::Large).expect("there is room");
    mem.bytes_mut(&lease).fill(fill);
    todo.leases.push(lease);
    todo.leases.len() - 1
}

fn read(todo: &mut Todo, mem: &mut Arena, offset: u64) {
    let at = lease(todo, mem, 0xee);
    let span = todo.leases[at].span(0, 128 << 10);
    todo.effects.push_back(Effect::Read { token: token(1, 0), disk: DISK, span, offset });
}

fn write(todo: &mut Todo, mem: &mut Arena, offset: u64, fill: u8, durable: bool) {
    let at = lease(todo, mem, fill);
    let span = todo.leases[at].span(0, 128 << 10);
    let token = token(1, 0);
    todo.effects.push_back(Effect::Write { token, disk: DISK, durable, span, offset });
}

fn last<'a>(todo: &Todo, mem: &'a Arena) -> &'a [u8] {
    let lease: &Lease = todo.leases.last().expect("one was made");
    mem.bytes(lease)
}

const LEN: u32 = 128 << 10;

const STEPS: &[Step] = &[
    |todo, mem, _| write(todo, mem, MIB, 1, false),
    |todo, mem, result| {
        assert_eq!(result, Ok(LEN));
        write(todo, mem, 2 * MIB, 2, true);
    },
    |todo, _, result| {
        assert_eq!(result, Ok(LEN));
        todo.effects.push_back(Effect::Sync { token: token(1, 0), disk: DISK });
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(0));
        read(todo, mem, MIB);
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(LEN));
        assert!(last(todo, mem).iter().all(|byte| *byte == 1));
        let (token, len) = (token(1, 0), 64 << 10);
        todo.effects.push_back(Effect::Zero { token, disk: DISK, offset: MIB, len });
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(0));
        read(todo, mem, MIB);
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(LEN));
        let (zeros, ones) = last(todo, mem).split_at(64 << 10);
        assert!(zeros.iter().all(|byte| *byte == 0) && ones.iter().all(|byte| *byte == 1));
        let (token, len) = (token(1, 0), 128 << 10);
        todo.effects.push_back(Effect::Discard { token, disk: DISK, offset: 2 * MIB, len });
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(0));
        read(todo, mem, 2 * MIB);
    },
    |todo, mem, result| {
        assert_eq!(result, Ok(LEN));
        assert!(last(todo, mem).iter().all(|byte| *byte == 0));
    },
];

#[test]
fn what_is_written_is_read_and_what_is_zeroed_or_discarded_reads_as_zeros() {
    let directory = Directory::new("steps");
    run(open(&directory.file("a")), options(), STEPS);
    let plain = Options { register_buffers: false, ..options() };
    run(open(&directory.file("b")), plain, STEPS);
}

#[test]
fn tmpfs_works_too_though_it_can_do_less() {
    let path = PathBuf::from(format!("/dev/shm/braid-reactor-{}", std::process::id()));
    let how = OpenOptions { create_bytes: Some(8 * MIB), ..OpenOptions::default() };
    let Ok(disk) = OpenDisk::open(&path, &how) else { return };
    assert_eq!((disk.alignment, disk.remarks.len()), (4096, 1));
    run(disk, options(), STEPS);
    let _ = std::fs::remove_file(path);
}

/// `BRAID_TEST_DEVICE` names a block device whose content may be lost.
#[test]
fn a_block_device_works_like_a_file() {
    let Some(path) = std::env::var_os("BRAID_TEST_DEVICE") else { return };
    let disk = OpenDisk::open(Path::new(&path), &OpenOptions::default()).expect("it is a device");
    assert!(disk.is_block_device && disk.size >= 8 * MIB && disk.logical_block >= 512);
    let again = OpenOptions { patience: Duration::ZERO, ..OpenOptions::default() };
    let error = OpenDisk::open(Path::new(&path), &again).expect_err("it is held");
    assert!(matches!(error, DiskError::Busy { .. }), "{error}");
    run(disk, options(), STEPS);
}

#[test]
fn errors_come_back_as_kinds() {
    const STEPS: &[Step] = &[
        |todo, mem, _| {
            let at = lease(todo, mem, 1);
            let (token, span) = (token(1, 0), todo.leases[at].span(0, 4096));
            todo.effects.push_back(Effect::Read { token, disk: Disk(7), span, offset: 0 });
        },
        |todo, mem, result| {
            assert_eq!(result, Err(IoError::Gone));
            read(todo, mem, 8 * MIB - 4096);
        },
        |_, _, result| assert_eq!(result, Ok(4096), "the end of the file"),
    ];
    let directory = Directory::new("errors");
    run(open(&directory.file("a")), options(), STEPS);
}

#[test]
fn more_operations_than_the_table_holds_all_complete() {
    let directory = Directory::new("many");
    let (sender, answer) = mpsc::channel();
    let mut done = 0;
    let machine = Fake::new(move |todo: &mut Todo, mem: &mut Arena, event| match event {
        Event::Start { .. } => {
            let lease = mem.alloc(Class::Small).expect("there is room");
            for index in 0..200 {
                let (token, span) = (token(1, index), lease.span(0, 4096));
                let (disk, offset) = (DISK, u64::from(index) * 4096);
                let effect = Effect::Write { token, disk, durable: false, span, offset };
                todo.effects.push_back(effect);
            }
            todo.leases.push(lease);
        }
        Event::Done { result, .. } => {
            assert_eq!(result, Ok(4096));
            done += 1;
            todo.finished = done == 200;
            let _ = sender.send(done);
        }
        other => panic!("{other:?}"),
    });
    let disks = vec![open(&directory.file("a"))];
    Parts { disks, ..Parts::default() }.run(machine).join();
    assert_eq!(answer.iter().count(), 200);
}
