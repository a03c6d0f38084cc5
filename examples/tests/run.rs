//! Runs the examples as a reader would: the target, and our host against it.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn our_host_reads_what_it_wrote_to_the_ramdisk() {
    let mut target = Command::new(env!("CARGO_BIN_EXE_ramdisk_target"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the target can be run");
    let mut lines = BufReader::new(target.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a first line").expect("text");
    let address = first.strip_prefix("listening at ").expect("its address");

    let host = Command::new(env!("CARGO_BIN_EXE_read_with_our_host"))
        // One of its addresses is dead: the commands take the other.
        .args(["nqn.2026-01.io.braid:ramdisk", "127.0.0.1:1", address])
        .output()
        .expect("the host can be run");
    let said = String::from_utf8_lossy(&host.stdout);
    assert_eq!(said.trim(), "written and read by our own host", "{host:?}");

    // The end of its stdin is the target's order to stop.
    drop(target.stdin.take());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(target.wait().expect("the target ends").success());
    assert_eq!(rest.last().map(String::as_str), Some("stopped"), "{rest:?}");
}

#[test]
fn a_target_that_is_not_there_is_an_error() {
    let host = Command::new(env!("CARGO_BIN_EXE_read_with_our_host"))
        .args(["nqn.2026-01.io.braid:ramdisk", "127.0.0.1:1"])
        .output()
        .expect("the host can be run");
    let said = String::from_utf8_lossy(&host.stderr);
    let words = ["lost a path", "no path for too long", "another try may do"];
    assert!(!host.status.success() && words.iter().all(|word| said.contains(word)), "{said}");
}
