//! What a target may send to our host side.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::pdu_stream_host(bytes));
