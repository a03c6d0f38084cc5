//! What a system can refuse, and what it is told then. A filter and a capability belong to a
//! thread, so each test takes them from one of its own.

mod support;

use std::path::Path;

use braid_reactor::{OpenDisk, OpenOptions, Options, Reactor, StartError, mesh};
use support::{Ask, Directory, options};

type Made = Result<Reactor<Ask>, StartError>;

fn make(options: Options) -> Made {
    Reactor::new(options, mesh(1).remove(0), vec![], vec![], vec![])
}

/// Runs on a thread whose seccomp filter answers io_uring_setup with `errno`.
fn without_io_uring(errno: i32) -> Option<StartError> {
    let thread = std::thread::spawn(move || {
        forbid(errno).then(|| make(options()).err().expect("the filter refuses"))
    });
    thread.join().expect("no panic")
}

fn forbid(errno: i32) -> bool {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives across the calls.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

#[test]
fn a_filter_that_forbids_io_uring_is_named() {
    let Some(error) = without_io_uring(libc::EPERM) else { return };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.is_ok_and(|value| value.trim() == "0") {
        assert!(matches!(error, StartError::IoUringForbidden), "{error}");
    }
    let Some(error) = without_io_uring(libc::ENOSYS) else { return };
    assert!(matches!(error, StartError::NoIoUring), "{error}");
}

/// Takes CAP_IPC_LOCK from this thread, and most lockable memory from this process.
fn lock_no_more_than(bytes: u64) -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let header = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: 1 << 20 };
    // SAFETY: the kernel reads a header of two words, reads or writes two sets of three words,
    // and reads a limit; all live across the calls.
    unsafe {
        if libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) != 0 {
            return false;
        }
        sets[0] &= !(1 << IPC_LOCK);
        libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) == 0
            && libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) == 0
    }
}

#[test]
fn without_lockable_memory_it_works_and_says_so_once() {
    let thread = std::thread::spawn(|| {
        if !lock_no_more_than(0) {
            return;
        }
        // Newer kernels count the rings themselves.
        if let Err(error) = make(options()) {
            assert!(matches!(error, StartError::Memlock { limit_kib: 0 }), "{error}");
        }
        assert!(lock_no_more_than(128 << 10));
        let directory = Directory::new("memlock");
        let how = OpenOptions { create_bytes: Some(1 << 20), ..OpenOptions::default() };
        let disk = OpenDisk::open(&directory.file("a"), &how).expect("direct I/O works here");
        let reactor = Reactor::<Ask>::new(options(), mesh(1).remove(0), vec![disk], vec![], vec![])
            .expect("plain buffers do as well");
        let [remark] = reactor.remarks() else { panic!("{:?}", reactor.remarks()) };
        assert!(remark.contains("ulimit -l"), "{remark}");
    });
    thread.join().expect("no panic");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut Options)| {
        let mut changed = options();
        change(&mut changed);
        let error = make(changed).err().expect("refused");
        assert!(matches!(error, StartError::Options(_)), "{error}");
    };
    refused(|o| o.receive_buffers = [8, 3, 8]);
    refused(|o| o.receive_buffers = [32, 32, 128]);
    refused(|o| o.sockets_max = 0);
    refused(|o| o.disk_ops_max = 0);
    refused(|o| o.arena.chunk_bytes = 100_000);
    refused(|o| o.arena.start_bytes = 2 << 20);
}

#[test]
fn a_file_system_without_direct_io_is_refused_by_name() {
    // proc is the one that is everywhere and has regular files.
    let error = OpenDisk::open(Path::new("/proc/self/comm"), &OpenOptions::default());
    let error = error.expect_err("no direct I/O there").to_string();
    assert!(error.contains("O_DIRECT") && error.contains("type 0x9fa0"), "{error}");
}
