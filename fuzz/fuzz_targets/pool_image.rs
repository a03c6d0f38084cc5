//! What may be on a disk that is said to be a pool.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::pool_image(bytes));
