//! Target: what the seeded dissemination says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_cluster::fuzzing::gossip(bytes);
});
