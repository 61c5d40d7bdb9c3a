//! Target: the first bytes of a lane.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::preamble(bytes);
});
