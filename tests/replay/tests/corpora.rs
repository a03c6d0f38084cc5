//! Replays what the fuzzers begin with and what they once found.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use braid_replay::{TARGETS, seeds};

/// Files of all corpora together.
const FILES_MAX: usize = 200;
/// Their bytes.
const BYTES_MAX: u64 = 300_000;

#[test]
fn every_seed_passes_its_target() {
    for seed in seeds::all() {
        let (_, body) = TARGETS.iter().find(|(name, _)| *name == seed.target).expect("a target");
        println!("{} {}", seed.target, seed.name);
        body(&seed.bytes);
    }
}

#[test]
fn every_file_of_a_corpus_passes_its_target() {
    for (name, body) in TARGETS {
        let files = files_of(name);
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty: run the example `seeds`");
        for file in files {
            println!("{}", file.display());
            body(&fs::read(file).expect("a committed file"));
        }
    }
}

#[test]
fn every_target_can_be_fuzzed() {
    for (name, _) in TARGETS {
        let file = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains(&format!("braid_replay::{name}")), "{}", file.display());
    }
}

#[test]
fn the_corpora_are_small() {
    let files: Vec<PathBuf> = TARGETS.iter().flat_map(|(name, _)| files_of(name)).collect();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).map_or(0, |m| m.len())).sum();
    assert!(files.len() <= FILES_MAX, "{} files", files.len());
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}

#[test]
fn any_bytes_will_do() {
    // Some hundred inputs of a fixed generator, so that even without a fuzzer each body has
    // seen bytes that nobody chose.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for (_, body) in TARGETS {
        for len in (0..600).map(|n| n % 300) {
            let input: Vec<u8> = (0..len).map(|_| next(&mut state)).collect();
            body(&input);
        }
    }
}

/// xorshift64*, one byte.
const fn next(state: &mut u64) -> u8 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
}

fn files_of(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(fuzz().join("corpus").join(target)).into_iter().flatten();
    let mut files: Vec<PathBuf> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}
