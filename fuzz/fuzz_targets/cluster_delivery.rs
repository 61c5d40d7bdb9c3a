//! Target: what producers and consumers of reliable delivery say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_cluster::fuzzing::delivery(bytes);
});
