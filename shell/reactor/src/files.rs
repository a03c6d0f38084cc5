//! Operations on disks.
//!
//! Invariants:
//! 1. An operation's buffer is held by the kernel from its issue to its last completion.
//! 2. A short transfer is taken up where it ended; only the end of a file ends it early.

use std::os::fd::AsRawFd;

use braid_block::{IoError, Key, Slab, Span, Token};
use braid_shard::Disk;
use io_uring::{opcode, squeue, types::Fixed, types::FsyncFlags};
use rustix::io::Errno;

use crate::arena::Held;
use crate::disk::OpenDisk;
use crate::drive::Drive;
use crate::errno;
use crate::operation::Operation;
use crate::pages::Pages;
use crate::ring::Ring;

/// Zeros are written in pieces of this size where the file system cannot zero a range itself.
const ZEROS_BYTES: usize = 128 << 10;

/// The open disks and what is in flight on them.
pub(crate) struct Disks {
    files: Box<[Option<OpenDisk>]>,
    pub(crate) ops: Slab<DiskOp>,
    /// Position of the first disk in the ring's table of files.
    base: u32,
    /// Zeros, once somebody needs them.
    zeros: Option<Pages>,
}

/// One operation.
pub(crate) struct DiskOp {
    token: Token,
    disk: u16,
    action: Action,
    offset: u64,
    len: u64,
    done: u64,
}

#[derive(Clone, Copy)]
enum Action {
    Read(Held),
    Write {
        held: Held,
        durable: bool,
    },
    /// Let the file system do it.
    Zero,
    /// Write zeros, because it cannot.
    WriteZeros,
    Discard,
    Sync,
}

impl Disks {
    /// A table with room for `room` more.
    pub(crate) fn new(files: Vec<OpenDisk>, room: u16, base: u32, ops_max: u32) -> Self {
        let rest = (0..room).map(|_| None);
        let files = files.into_iter().map(Some).chain(rest).collect();
        Self { files, ops: Slab::with_capacity(ops_max), base, zeros: None }
    }

    fn open(&self, disk: u16) -> Option<&OpenDisk> {
        self.files.get(usize::from(disk))?.as_ref()
    }

    /// The disk's place in the ring's table.
    fn place(&self, disk: u16) -> u32 {
        self.base + u32::from(disk)
    }

    fn zeros(&mut self) -> Option<*const u8> {
        if self.zeros.is_none() {
            self.zeros = Pages::reserve(ZEROS_BYTES, 4096).ok();
        }
        self.zeros.as_ref().map(|pages| pages.at(0).as_ptr().cast_const())
    }
}

/// The disks of a reactor that runs, for its application.
pub struct DiskTable<'a> {
    ring: &'a Ring,
    disks: &'a mut Disks,
}

impl<'a> DiskTable<'a> {
    pub(crate) const fn new(ring: &'a Ring, disks: &'a mut Disks) -> Self {
        Self { ring, disks }
    }

    /// Adds a disk, under a number that is free.
    ///
    /// # Errors
    /// The disk, when the table is full or the kernel does not take it.
    pub fn add(&mut self, disk: OpenDisk) -> Result<Disk, OpenDisk> {
        let free = self.disks.files.iter().position(Option::is_none);
        let Some(number) = free.and_then(|at| u16::try_from(at).ok()) else { return Err(disk) };
        let place = self.disks.place(number);
        let update = self.ring.submitter().register_files_update(place, &[disk.fd.as_raw_fd()]);
        if update.is_err() {
            return Err(disk);
        }
        self.disks.files[usize::from(number)] = Some(disk);
        Ok(Disk(number))
    }

    /// Takes a disk out. What the machine does to this number from now on ends with
    /// [`IoError::Gone`], until another disk gets it. None: there is none, or something is still in
    /// flight on it, whose completion must be waited for first.
    pub fn remove(&mut self, disk: Disk) -> Option<OpenDisk> {
        if self.disks.ops.iter().any(|(_, op)| op.disk == disk.0) {
            return None;
        }
        let open = self.disks.files.get_mut(usize::from(disk.0))?.take()?;
        // It only fails for a position outside of the table.
        let _ = self.ring.submitter().register_files_update(self.disks.place(disk.0), &[-1]);
        Some(open)
    }
}

impl Drive {
    pub(crate) fn read(&mut self, token: Token, disk: Disk, span: Span, offset: u64) {
        let held = self.arena.hold(span, true);
        self.begin(token, disk, Action::Read(held), offset, span.len.into());
    }

    pub(crate) fn write(
        &mut self,
        token: Token,
        disk: Disk,
        durable: bool,
        span: Span,
        offset: u64,
    ) {
        let held = self.arena.hold(span, false);
        self.begin(token, disk, Action::Write { held, durable }, offset, span.len.into());
    }

    pub(crate) fn zero(&mut self, token: Token, disk: Disk, offset: u64, len: u64) {
        self.begin(token, disk, Action::Zero, offset, len);
    }

    pub(crate) fn discard(&mut self, token: Token, disk: Disk, offset: u64, len: u64) {
        self.begin(token, disk, Action::Discard, offset, len);
    }

    pub(crate) fn sync(&mut self, token: Token, disk: Disk) {
        self.begin(token, disk, Action::Sync, 0, 0);
    }

    fn begin(&mut self, token: Token, disk: Disk, action: Action, offset: u64, len: u64) {
        let op = DiskOp { token, disk: disk.0, action, offset, len, done: 0 };
        if self.disks.open(disk.0).is_none() {
            return self.end(&op, Err(IoError::Gone));
        }
        match self.disks.ops.insert(op) {
            Ok(key) => self.issue(key),
            // Effects are taken from the machine only while there is room.
            Err(op) => self.end(&op, Err(IoError::NoSpace)),
        }
    }

    /// Hands the rest of an operation to the kernel.
    fn issue(&mut self, key: Key) {
        let zeros = match self.disks.ops.get(key) {
            Some(DiskOp { action: Action::WriteZeros, .. }) => self.disks.zeros(),
            _ => None,
        };
        let Some(op) = self.disks.ops.get(key) else { return };
        let file = Fixed(self.disks.place(op.disk));
        let entry = op.entry(file, zeros);
        self.push(entry, Operation::Disk.name(key.index, key.generation));
    }

    pub(crate) fn on_disk(&mut self, key: Key, result: i32) {
        let Some(op) = self.disks.ops.get(key) else { return };
        // A disk stays as long as something is in flight on it.
        let alignment = self.disks.open(op.disk).map_or(1, |open| u64::from(open.alignment));
        let Some(op) = self.disks.ops.get_mut(key) else { return };
        match op.step(result, alignment) {
            Step::Again => self.issue(key),
            Step::Ended(result) => {
                if let Some(op) = self.disks.ops.remove(key) {
                    self.end(&op, result);
                }
            }
        }
    }

    fn end(&mut self, op: &DiskOp, result: Result<u32, IoError>) {
        match op.action {
            Action::Read(held) => self.arena.release(held.unit, true),
            Action::Write { held, .. } => self.arena.release(held.unit, false),
            Action::Zero | Action::WriteZeros | Action::Discard | Action::Sync => {}
        }
        self.done(op.token, result);
    }
}

/// What follows a completion.
enum Step {
    Again,
    Ended(Result<u32, IoError>),
}

impl DiskOp {
    /// The operation that does what is left.
    fn entry(&self, file: Fixed, zeros: Option<*const u8>) -> squeue::Entry {
        let at = self.offset + self.done;
        match self.action {
            Action::Read(held) => self.read(file, held, at),
            Action::Write { held, durable } => self.write(file, held, at, durable),
            Action::WriteZeros => {
                let count = self.left().min(ZEROS_BYTES as u32);
                let from = zeros.unwrap_or(std::ptr::null());
                opcode::Write::new(file, from, count).offset(at).build()
            }
            Action::Zero => self.fallocate(file, libc::FALLOC_FL_ZERO_RANGE),
            Action::Discard => self.fallocate(file, libc::FALLOC_FL_PUNCH_HOLE),
            Action::Sync => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    fn read(&self, file: Fixed, held: Held, at: u64) -> squeue::Entry {
        let (into, count) = (self.resumed(held), self.left());
        match held.fixed {
            Some(fixed) => opcode::ReadFixed::new(file, into, count, fixed).offset(at).build(),
            None => opcode::Read::new(file, into, count).offset(at).build(),
        }
    }

    fn write(&self, file: Fixed, held: Held, at: u64, durable: bool) -> squeue::Entry {
        let (from, count) = (self.resumed(held).cast_const(), self.left());
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        match held.fixed {
            Some(fixed) => {
                let entry = opcode::WriteFixed::new(file, from, count, fixed);
                entry.offset(at).rw_flags(flags).build()
            }
            None => opcode::Write::new(file, from, count).offset(at).rw_flags(flags).build(),
        }
    }

    /// Where to go on in the buffer: inside the held span, because something is left.
    fn resumed(&self, held: Held) -> *mut u8 {
        held.at.as_ptr().wrapping_add(usize::try_from(self.done).unwrap_or(0))
    }

    /// Bytes to go; what is transferred is no longer than a span, which counts in 32 bits.
    fn left(&self) -> u32 {
        u32::try_from(self.len - self.done).unwrap_or(u32::MAX)
    }

    fn fallocate(&self, file: Fixed, mode: libc::c_int) -> squeue::Entry {
        let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
        opcode::Fallocate::new(file, self.len).offset(self.offset).mode(mode).build()
    }

    /// Takes a completion.
    fn step(&mut self, result: i32, alignment: u64) -> Step {
        let moved = match errno::result(result) {
            Ok(moved) => moved,
            Err(_) if result == -libc::EINTR || result == -libc::EAGAIN => return Step::Again,
            Err(_) if self.must_write_zeros(result) => {
                self.action = Action::WriteZeros;
                return Step::Again;
            }
            Err(error) => return Step::Ended(Err(error)),
        };
        match self.action {
            Action::Zero | Action::Discard | Action::Sync => Step::Ended(Ok(0)),
            Action::Read(_) | Action::Write { .. } | Action::WriteZeros => {
                self.transferred(moved, alignment)
            }
        }
    }

    fn transferred(&mut self, moved: u32, alignment: u64) -> Step {
        self.done += u64::from(moved);
        let at_end = moved == 0 || !self.done.is_multiple_of(alignment);
        if self.done < self.len && !at_end {
            return Step::Again;
        }
        let zeros = matches!(self.action, Action::WriteZeros);
        Step::Ended(match u32::try_from(self.done) {
            _ if zeros && self.done < self.len => Err(IoError::NoSpace),
            _ if zeros => Ok(0),
            Ok(done) => Ok(done),
            Err(_) => Ok(u32::MAX),
        })
    }

    fn must_write_zeros(&self, result: i32) -> bool {
        let errno = Errno::from_raw_os_error(-result);
        matches!(self.action, Action::Zero) && (errno == Errno::OPNOTSUPP || errno == Errno::NOSYS)
    }
}
