//! What a host may send to our target.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::pdu_stream_target(bytes));
