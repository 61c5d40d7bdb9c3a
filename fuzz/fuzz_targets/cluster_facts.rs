//! Target: a statement as keys and values.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_cluster::fuzzing::facts(bytes);
});
