//! Gives a file to a fuzz target's body: `cargo run -p braid-replay --example one TARGET FILE`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, files @ ..] = arguments.as_slice() else { return ExitCode::FAILURE };
    let Some((_, body)) = braid_replay::TARGETS.iter().find(|(name, _)| name == target) else {
        return ExitCode::FAILURE;
    };
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => body(&bytes),
            Err(error) => eprintln!("{file}: {error}"),
        }
    }
    ExitCode::SUCCESS
}
