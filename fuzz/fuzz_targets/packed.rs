//! Target: a packed frame, without its length.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::packed(bytes);
});
