//! The ring: what is pushed, what is taken, and the one system call between.
//!
//! Invariants:
//! 1. The ring is made disabled and enabled by the thread that runs it, which is then its only
//!    issuer; completions run only when that thread enters (DEFER_TASKRUN).
//! 2. Whatever an entry points at stays in place until its completion was taken: buffers by their
//!    lease, all else by tables that never move.
//! 3. Nothing is entered when there is nothing to submit and nothing to wait for.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, Submitter, squeue};
use rustix::io::Errno;

use crate::counters::Counters;

const ENTER_GETEVENTS: libc::c_uint = 1;
const ENTER_EXT_ARG: libc::c_uint = 1 << 3;
const ENTER_REGISTERED_RING: libc::c_uint = 1 << 4;
const REGISTER_RING_FDS: libc::c_uint = 20;

/// How often a full queue is submitted before the ring counts as broken.
const SUBMIT_TRIES: u32 = 10_000;

/// A completion.
#[derive(Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

/// The argument of a wait with a time-out, as the kernel has it.
#[repr(C)]
struct GeteventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_micros: u32,
    timeout: u64,
}

/// The argument of registering a ring's own descriptor, as the kernel has it.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// An io_uring.
pub(crate) struct Ring {
    uring: IoUring,
    /// The descriptor to enter by: the real one, or its index in the kernel's table.
    enter_fd: RawFd,
    enter_flags: libc::c_uint,
    /// The first failure that means that the ring does not work any more.
    failed: Option<Errno>,
}

impl Ring {
    /// Makes a ring that [`Ring::enable`] brings to life.
    pub(crate) fn new(entries: u32) -> std::io::Result<Self> {
        let uring = IoUring::builder()
            .setup_defer_taskrun()
            .setup_single_issuer()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_clamp()
            .setup_cqsize(entries.saturating_mul(4))
            .build(entries)?;
        let enter_fd = uring.as_raw_fd();
        Ok(Self { uring, enter_fd, enter_flags: 0, failed: None })
    }

    /// Makes the calling thread the ring's only issuer.
    pub(crate) fn enable(&mut self) -> std::io::Result<()> {
        self.uring.submitter().register_enable_rings()?;
        let mut update =
            RsrcUpdate { offset: u32::MAX, reserved: 0, data: self.enter_fd.unsigned_abs().into() };
        // SAFETY: the kernel reads and writes one RsrcUpdate, which lives across the call.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.enter_fd,
                REGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
        // Refused, the ring works as well, by one look-up of a descriptor more per enter.
        if registered == 1
            && let Ok(index) = RawFd::try_from(update.offset)
        {
            self.enter_fd = index;
            self.enter_flags = ENTER_REGISTERED_RING;
        }
        Ok(())
    }

    /// For registrations.
    pub(crate) fn submitter(&self) -> Submitter<'_> {
        self.uring.submitter()
    }

    /// For other rings' messages to this one.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Why the ring stopped to work.
    pub(crate) const fn failed(&self) -> Option<Errno> {
        self.failed
    }

    /// Entries that can be pushed before a submit.
    pub(crate) fn room(&mut self) -> usize {
        let queue = self.uring.submission();
        queue.capacity() - queue.len()
    }

    /// Queues an entry; submits first when the queue is full.
    pub(crate) fn push(&mut self, entry: &squeue::Entry, counters: &mut Counters) {
        for _ in 0..SUBMIT_TRIES {
            if !self.uring.submission().is_full() {
                break;
            }
            // It fails when the kernel is short of memory for a moment.
            self.submit(counters);
        }
        // SAFETY: invariant 2: the callers keep what the entry points at until its completion.
        if unsafe { self.uring.submission().push(entry) }.is_err() {
            self.failed.get_or_insert(Errno::BUSY);
        }
        counters.sqes += 1;
    }

    /// Takes completions, as many as there are and fit.
    pub(crate) fn take(&mut self, into: &mut Vec<Completion>, counters: &mut Counters) {
        let room = into.capacity() - into.len();
        let before = into.len();
        into.extend(self.uring.completion().take(room).map(|cqe| Completion {
            user_data: cqe.user_data(),
            result: cqe.result(),
            flags: cqe.flags(),
        }));
        counters.cqes += (into.len() - before) as u64;
    }

    /// Whether completions can be taken without a system call.
    pub(crate) fn is_ready(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Whether the kernel has completions that only an enter brings forward.
    pub(crate) fn is_called(&mut self) -> bool {
        let queue = self.uring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether something was pushed that the kernel does not have yet.
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    /// Hands over what was pushed and brings forward what is done, without waiting; no system
    /// call when there is neither.
    pub(crate) fn submit(&mut self, counters: &mut Counters) {
        if self.has_queued() || self.is_called() {
            self.enter(0, None, counters);
        }
    }

    /// Hands over what was pushed and waits for a completion, no longer than `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, counters: &mut Counters) {
        counters.waits += 1;
        self.enter(1, timeout, counters);
    }

    fn enter(&mut self, want: u32, timeout: Option<Duration>, counters: &mut Counters) {
        counters.enters += 1;
        let queued = self.uring.submission().len();
        let timespec = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        let arg = GeteventsArg {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_micros: 0,
            timeout: timespec.as_ref().map_or(0, |t| std::ptr::from_ref(t).addr() as u64),
        };
        // SAFETY: the argument and the timespec it points at live across the call; the entries
        // follow invariant 2.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                queued,
                want,
                self.enter_flags | ENTER_GETEVENTS | ENTER_EXT_ARG,
                &raw const arg,
                size_of::<GeteventsArg>(),
            )
        };
        if entered < 0 {
            self.note_failure();
        }
    }

    fn note_failure(&mut self) {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        match Errno::from_raw_os_error(errno) {
            // Time is up, a signal came, or the kernel wants completions taken first: the next
            // turn enters again.
            Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN => {}
            errno => {
                self.failed.get_or_insert(errno);
            }
        }
    }
}
