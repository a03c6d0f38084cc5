//! What a host may ask a controller for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::command(bytes));
