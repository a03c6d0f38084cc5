//! What a pool's journal may say, with right checksums.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::pool_cells(bytes));
