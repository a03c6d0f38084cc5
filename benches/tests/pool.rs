//! The process that has a pool, as those who measure it meet it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_braid-bench");
const BYTES: u64 = 64 << 20;
/// What takes longer has got stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A file that is removed with us.
struct Image(PathBuf);

impl Image {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        File::create(&path).and_then(|file| file.set_len(BYTES)).expect("room for a file");
        Self(path)
    }

    fn make(&self) {
        let status = Command::new(PROGRAM).arg("pool-make").arg(&self.0).status();
        assert!(status.expect("the program is here").success());
    }

    fn serve(&self) -> Child {
        let mut command = Command::new(PROGRAM);
        command.arg("pool-serve").arg(&self.0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().expect("the program is here")
    }

    /// The identity in the first superblock.
    fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        File::open(&self.0).and_then(|file| file.read_exact_at(&mut uuid, 64)).expect("it is read");
        uuid
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Who removed it already has done it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits for the end of a process whose orders have not ended; what it complained of.
fn end(mut child: Child) -> (bool, String) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("it is ours") {
            let mut said = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut said).expect("it is text");
            return (status.success(), said);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("it is ours");
    panic!("it goes on as if there were a pool");
}

#[test]
fn a_process_without_a_pool_ends_and_says_why() {
    let (success, said) = end(Image::new("foreign.img").serve());
    assert!(!success);
    assert!(said.contains("Refused(Foreign)"), "{said}");
}

#[test]
fn a_process_ends_when_its_pool_fails() {
    let image = Image::new("fails.img");
    image.make();
    let mut child = image.serve();
    let mut input = child.stdin.take().expect("piped");
    let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
    answers.next().expect("it is ready").expect("it is text");
    writeln!(input, "run 9 0 0 4096 1 0 0 1 4096 0 0").expect("it listens");
    let (success, said) = end(child);
    assert!(!success);
    assert!(said.contains("there is no replica 9"), "{said}");
    assert!(answers.next().is_none(), "no answer");
}

#[test]
fn an_order_that_makes_no_sense_ends_the_process() {
    let image = Image::new("senseless.img");
    image.make();
    let mut child = image.serve();
    writeln!(child.stdin.as_mut().expect("piped"), "frobnicate").expect("it listens");
    let (_, said) = end(child);
    assert!(said.contains("'frobnicate' is no order"), "{said}");
}

#[test]
fn a_pool_made_where_one_was_is_another() {
    let image = Image::new("twice.img");
    image.make();
    let first = image.uuid();
    image.make();
    assert_ne!(first, [0; 16]);
    assert_ne!(first, image.uuid());
}
