//! What may happen to a shard.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::shard_events(bytes));
