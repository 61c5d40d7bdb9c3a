//! Target: a message of hash maps.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::unordered(bytes);
});
