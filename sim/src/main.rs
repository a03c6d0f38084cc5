//! `braid-sim`: runs a campaign; `cargo xtask powercut` and `cargo xtask corrupt` call it.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(usage) => {
            eprintln!("braid-sim: {usage}");
            ExitCode::from(2)
        }
    }
}
