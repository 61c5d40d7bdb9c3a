//! Target: the frames of a lane, cut in every way.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::lane(bytes);
});
