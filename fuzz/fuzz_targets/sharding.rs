//! Target: what regions say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_sharding::fuzzing::region_message(bytes);
});
