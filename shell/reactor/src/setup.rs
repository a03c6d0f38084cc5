//! Making everything a reactor drives, and telling the ring of memory and files.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::AtomicU64;

use braid_shard::Traffic;
use rustix::io::Errno;

use crate::accept::Acceptor;
use crate::arena::{Arena, ArenaOptions};
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::disk::OpenDisk;
use crate::drive::Drive;
use crate::files::Disks;
use crate::listener::Listener;
use crate::mesh::Port;
use crate::options::Options;
use crate::ring::Ring;
use crate::sockets::Sockets;
use crate::start::{self, StartError};

/// Events that wait to be told, without the queue growing.
const EVENTS: usize = 4096;

/// Makes the ring, the arena and all tables.
pub(crate) fn drive(
    options: &Options,
    mut port: Port,
    disks: Vec<OpenDisk>,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
    remarks: &mut Vec<String>,
) -> Result<Drive, StartError> {
    check(options)?;
    let disks_max = disks.len() as u64 + u64::from(options.disks_spare);
    let files = u64::from(options.sockets_max) + disks_max + listeners.len() as u64;
    start::allow_descriptors(files)?;
    let ring = start::ring(options.ring_entries)?;
    port.open().map_err(|errno| StartError::system("eventfd", errno))?;
    if !start::rings_wake_each_other() {
        port.wake_by_events();
    }
    register_files(&ring, options, &disks)?;
    let mut arena = new_arena(options.arena)?;
    if options.register_buffers {
        register_arena(&ring, &mut arena, remarks);
    } else {
        arena.stop_registering();
    }
    if !arena.lend(options.receive_buffers.iter().sum()) {
        return Err(StartError::Options("the arena cannot hold the receive buffers"));
    }
    Ok(Drive {
        buffers: buffer_rings(&ring, options.receive_buffers)?,
        sockets: Sockets::new(options.sockets_max, addresses),
        disks: Disks::new(disks, options.disks_spare, options.sockets_max, options.disk_ops_max),
        acceptors: listeners.into_iter().map(Acceptor::new).collect(),
        port,
        happened: VecDeque::with_capacity(EVENTS),
        counters: Counters::default(),
        called: false,
        mailed: false,
        listening: false,
        ending: false,
        call_count: Box::leak(Box::new(AtomicU64::new(0))),
        spare_since: None,
        syn_retries: options.syn_retries,
        now: crate::now(),
        ring,
        arena,
    })
}

fn check(options: &Options) -> Result<(), StartError> {
    let (mut each, mut few) =
        (options.receive_buffers.into_iter(), options.receive_buffers.into_iter());
    let rules = [
        (options.sockets_max > 0, "no sockets"),
        (options.sockets_max <= 1 << 20, "more than 2^20 sockets"),
        (options.disk_ops_max > 0, "no disk operations"),
        (options.disk_ops_max <= 1 << 20, "more than 2^20 disk operations"),
        (each.all(|count| count.is_power_of_two()), "receive buffers are not a power of two"),
        (few.all(|count| count <= 1 << 14), "more than 2^14 receive buffers"),
        (options.ring_entries >= 8, "fewer than 8 ring entries"),
        ((1..=127).contains(&options.syn_retries), "SYN retries are not 1 to 127"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(StartError::Options(what)),
        None => Ok(()),
    }
}

fn new_arena(options: ArenaOptions) -> Result<Arena, StartError> {
    Arena::new(options).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => {
            StartError::Options("the arena's chunk, start and limit do not fit each other")
        }
        _ => StartError::System { what: "reserving the arena", source },
    })
}

/// A table with a place for each socket, then the disks, then those that may be added.
fn register_files(ring: &Ring, options: &Options, disks: &[OpenDisk]) -> Result<(), StartError> {
    let sockets = options.sockets_max;
    let failed = |error| StartError::of_ring("registering files with the ring", error);
    let fds: Vec<RawFd> = disks.iter().map(|disk| disk.fd.as_raw_fd()).collect();
    let submitter = ring.submitter();
    let count = u32::try_from(fds.len()).unwrap_or(u32::MAX);
    let count = count.saturating_add(options.disks_spare.into());
    submitter.register_files_sparse(sockets.saturating_add(count)).map_err(failed)?;
    if !fds.is_empty() {
        submitter.register_files_update(sockets, &fds).map_err(failed)?;
    }
    Ok(())
}

fn buffer_rings(ring: &Ring, entries: [u16; Traffic::ALL.len()]) -> Result<Buffers, StartError> {
    let buffers = Buffers::new(entries)
        .map_err(|errno| StartError::system("reserving the buffer rings", errno))?;
    let failed = |error| StartError::of_ring("registering a buffer ring", error);
    for (group, made) in buffers.rings() {
        let (address, entries) = (made.address(), made.entries());
        // SAFETY: the pages hold `entries` entries, and outlive the ring: the drive drops its
        // ring first.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }
            .map_err(failed)?;
    }
    Ok(buffers)
}

/// Gives the ring a place for each chunk, and the chunks that are there.
fn register_arena(ring: &Ring, arena: &mut Arena, remarks: &mut Vec<String>) {
    let done = ring
        .submitter()
        .register_buffers_sparse(arena.chunks_max())
        .and_then(|()| try_register_fresh(ring, arena));
    if let Err(error) = done {
        arena.stop_registering();
        remarks.push(format!(
            "buffers are not registered with the kernel ({error}): raise `ulimit -l` to at least \
             {} KiB to save some CPU per disk operation",
            arena.limit_bytes() >> 10
        ));
    }
}

/// Registers chunks that the arena grew by. One that cannot be registered works as well.
pub(crate) fn register_fresh(ring: &Ring, arena: &mut Arena) {
    if try_register_fresh(ring, arena).is_err() {
        arena.stop_registering();
    }
}

fn try_register_fresh(ring: &Ring, arena: &mut Arena) -> std::io::Result<()> {
    while let Some((chunk, at, len)) = arena.next_fresh() {
        let piece = libc::iovec { iov_base: at.as_ptr().cast(), iov_len: len };
        // SAFETY: the chunk is mapped until the arena is dropped, which is after the ring.
        unsafe { ring.submitter().register_buffers_update(chunk.into(), &[piece], None) }?;
        arena.set_registered(chunk);
    }
    Ok(())
}

/// Gives back the memory of chunks that hold nothing.
pub(crate) fn release_idle(ring: &Ring, arena: &mut Arena) {
    while let Some((chunk, registered)) = arena.idle_chunk() {
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: an empty place refers to no memory.
        let update = |ring: &Ring| unsafe {
            ring.submitter().register_buffers_update(chunk.into(), &[nothing], None)
        };
        if registered && update(ring).is_err() {
            return;
        }
        if arena.release_chunk(chunk) != Ok::<(), Errno>(()) {
            return;
        }
    }
}
