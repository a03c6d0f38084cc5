//! Who may do what to a namespace: reservations and asymmetric access.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| braid_replay::access(bytes));
