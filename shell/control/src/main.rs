//! The `braid-control` program: all of it is in the library, so that tests can call it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    braid_control::main(std::env::args_os())
}
