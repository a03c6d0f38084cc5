//! What an engine refuses: one line that says what to do, and an exit code that says whose turn
//! it is (2: whoever typed it, 1: whoever runs the machine).

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Command;

use crate::process::{Ended, Engine, Folder, PROGRAM, run, run_command, tool, tool_output};

/// Expects one line with `words`, and `code`.
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    let errors: Vec<_> =
        ended.stderr.lines().filter(|line| line.starts_with("braid-engine: ")).collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    for word in words {
        assert!(errors[0].contains(word), "'{word}' is missing in: {}", errors[0]);
    }
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

fn serve(arguments: &[&str]) -> Ended {
    let runtime = Folder::brief();
    let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
    run_command(Command::new(PROGRAM).args(arguments).env("RUNTIME_DIRECTORY", runtime.path("")))
}

#[test]
fn a_command_line_that_makes_no_sense() {
    for (arguments, words) in [
        (&["disk"][..], &["'disk' is not a namespace", "mem:256MiB", "pool:/path"][..]),
        (&["pool:/a", "pool:/a"], &["pool /a is named twice"]),
        (&["pool:/a?size=1GiB"], &["unknown option 'size'", "share"]),
        (&["mem:1MiB", "--boot-id-file", "/a"], &["--allow-injection"]),
        (&["--boot-id-file", "/no/file", "--allow-injection"], &["/no/file", "cannot read"]),
        (&["mem:1MiB", "--poll", "often"], &["often", "adaptive"]),
        (&["mem:1MiB", "--log", "loud"], &["loud", "info"]),
        (&["mem:1MiB", "--nqn", "disk"], &["nqn."]),
        (&["mem:1MiB", "--nqn", &format!("nqn.{}", "x".repeat(220))], &["223"]),
        (&["mem:1MiB", "--allow-host", "me"], &["nqn."]),
        (&["mem:1MiB?nguid=123"], &["NGUID", "32 hex digits"]),
        (&["mem:1MiB?uuid=123"], &["UUID"]),
        (&["mem:1000"], &["multiple of the block size"]),
        (&["mem:1MiB", "--block-size", "1024"], &["512 or 4096"]),
        (&["mem:1MiB", "--arena", "64KiB"], &["1MiB at least"]),
        (&["mem:1MiB", "--connections", "1024"], &["an arena of 128MiB", "or take 512"]),
        (&["mem:1MiB", "--connections", "1"], &["between 2 and 16384"]),
        (&["mem:1MiB", "--connections-per-host", "1"], &["2 at least"]),
        (&["mem:1MiB", "--shards", "0"], &["between 1 and 64"]),
        (&["mem:1MiB", "--listen", "localhost"], &["127.0.0.1:4420"]),
        (&["mem:1MiB?inject=read,error"], &["--allow-injection"]),
        (&["mem:1MiB?inject=read,melt", "--allow-injection"], &["melt", "stall"]),
        (&["file:/a?size=1MiB", "file:/a?size=1MiB"], &["two namespaces on file:/a"]),
        (&["mem:1MiB", "--config", "/none.toml"], &["/none.toml", "cannot read"]),
        (&["--nonsense"], &["--nonsense", "--help"]),
    ] {
        refused(&serve(arguments), 2, words);
    }
    refused(&run(&["perf", "10.0.0.1"]), 2, &["nvme+tcp://"]);
    refused(&run(&["frobnicate"]), 2, &["frobnicate"]);
}

#[test]
fn a_mistake_in_the_file_names_its_line() {
    let folder = Folder::new();
    let config = folder.write("engine.toml", "namespaces = ['mem:1MiB']\nlisten = ['nowhere']\n");
    refused(&run(&["serve", "--config", &config]), 2, &["engine.toml: line 2", "nowhere"]);
}

#[test]
fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["serve", "mem:1MiB", "--listen", &address]);
    let own = format!("(process {})", std::process::id());
    refused(&ended, 1, &[&address, "in use", &own, "--listen"]);
    refused(&serve(&["mem:1MiB", "--metrics", &address]), 1, &[&address, "--metrics"]);
    let nobodys = run(&["serve", "mem:1MiB", "--listen", "192.0.2.1:4420"]);
    refused(&nobodys, 1, &["192.0.2.1", "no interface"]);
}

#[test]
fn a_file_that_is_not_what_was_asked_for() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    refused(&serve(&[&format!("file:{missing}")]), 1, &[&missing, "does not exist", "size="]);
    let nowhere = folder.path("no/where");
    refused(&serve(&[&format!("file:{nowhere}?size=1MiB")]), 1, &["no folder", "make it first"]);
    assert!(fs::metadata(&missing).is_err());

    let file = folder.path("file");
    File::create(&file).unwrap().set_len(1 << 20).unwrap();
    refused(&serve(&[&format!("file:{file}?size=2MiB")]), 1, &["has 1MiB", "not 2MiB"]);
    refused(&serve(&[&format!("dev:{file}")]), 1, &["not a block device", "file:"]);
    let odd = folder.path("odd");
    File::create(&odd).unwrap().set_len(1000).unwrap();
    refused(&serve(&[&format!("file:{odd}")]), 1, &["not a multiple of the block size 4096"]);
    let empty = folder.write("empty", "");
    refused(&serve(&[&format!("file:{empty}")]), 1, &["is empty", "size="]);
    refused(&serve(&[&format!("file:{}", folder.path(""))]), 1, &["neither a file nor"]);
    refused(&serve(&["/dev/no-such-device"]), 1, &["no such device", "lsblk"]);
}

#[test]
fn one_file_for_two() {
    let folder = Folder::new();
    let file = folder.path("file");
    File::create(&file).unwrap().set_len(1 << 20).unwrap();
    let link = folder.path("link");
    fs::hard_link(&file, &link).unwrap();
    let (file, link) = (format!("file:{file}"), format!("file:{link}"));
    refused(&serve(&[&file, &link]), 2, &["same file", "once"]);

    let engine = Engine::start(&[&file]);
    refused(&serve(&[&link]), 1, &["in use by braid-engine (process"]);
    engine.stop();
}

#[test]
fn a_full_file_system_leaves_nothing_behind() {
    let folder = Folder::new();
    let file = folder.path("huge");
    let ended = serve(&[&format!("file:{file}?size=1PiB")]);
    // Which of the two depends on the file system's own limits.
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(fs::metadata(&file).is_err(), "{ended:?}");
}

#[test]
fn a_file_system_without_direct_io() {
    let folder = Folder::new();
    let script = format!(
        "mount -t ramfs ramfs {0} && exec {PROGRAM} serve 'file:{0}/a?size=1MiB' \
         --listen 127.0.0.1:0",
        folder.path("")
    );
    if !tool("unshare", &["-m", "mount", "-t", "ramfs", "ramfs", &folder.path("")]) {
        return eprintln!("skipped: cannot mount ramfs here");
    }
    let ended = run_command(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    refused(&ended, 1, &["ramfs", "O_DIRECT", "ext4"]);
}

#[test]
fn too_few_descriptors() {
    if !tool("prlimit", &["--version"]) {
        return eprintln!("skipped: there is no prlimit here");
    }
    let arguments = ["--nofile=40:40", PROGRAM, "serve", "mem:1MiB", "--listen", "127.0.0.1:0"];
    let ended = run_command(Command::new("prlimit").args(arguments));
    refused(&ended, 1, &["file descriptors", "ulimit -n", "LimitNOFILE"]);
}

#[test]
fn too_little_lockable_memory() {
    if !tool("setpriv", &["--version"]) || !tool("prlimit", &["--version"]) {
        return eprintln!("skipped: there is no setpriv or prlimit here");
    }
    let limits = ["--bounding-set=-ipc_lock", "prlimit", "--memlock=0:0"];
    let serve = [PROGRAM, "serve", "mem:1MiB", "--listen", "127.0.0.1:0"];
    let ended = run_command(Command::new("setpriv").args(limits).args(serve));
    refused(&ended, 1, &["lockable memory", "ulimit -l", "LimitMEMLOCK"]);
}

#[test]
fn io_uring_is_forbidden() {
    // A seccomp filter like those of containers: io_uring_setup (425) ends with EPERM.
    const FILTER: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = struct.pack('HBBI' * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 425, 0x06, 0, 0, 0x50001,
                   0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";
    if tool_output("uname", &["-m"]).as_deref() != Some("x86_64") || !tool("python3", &["-V"]) {
        return eprintln!("skipped: no way to forbid io_uring here");
    }
    let arguments = ["-c", FILTER, PROGRAM, "serve", "mem:1MiB", "--listen", "127.0.0.1:0"];
    let ended = run_command(Command::new("python3").args(arguments));
    refused(&ended, 1, &["io_uring", "seccomp"]);
}

#[test]
fn a_target_that_does_not_let_us_in() {
    let nobody = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let words = ["connection refused", "is the target running"];
    refused(&run(&["discover", &nobody]), 1, &words);
    refused(&run(&["identify", &format!("nvme+tcp://{nobody}/nqn.a")]), 1, &words);
    refused(&run(&["perf", &format!("nvme+tcp://{nobody}/nqn.a")]), 1, &words);

    let engine = Engine::start(&["mem:1MiB", "--allow-host", "nqn.2026-01.io.braid:friend"]);
    let uri = engine.uri(1);
    refused(&run(&["identify", &uri]), 1, &["invalid host", "--host-nqn"]);
    let friend = run(&["identify", &uri, "--host-nqn", "nqn.2026-01.io.braid:friend"]);
    assert_eq!(friend.code, Some(0), "{friend:?}");
    let wrong = format!("nvme+tcp://{}/nqn.2026-01.io.braid:other", engine.address());
    refused(&run(&["identify", &wrong]), 1, &["discover"]);
    refused(
        &run(&["perf", &engine.uri(7), "--host-nqn", "nqn.2026-01.io.braid:friend"]),
        1,
        &["namespace 7"],
    );
    engine.stop();
}
