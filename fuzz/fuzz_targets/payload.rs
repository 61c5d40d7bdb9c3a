//! Target: a message that lies in itself, with collections.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::payload(bytes);
});
