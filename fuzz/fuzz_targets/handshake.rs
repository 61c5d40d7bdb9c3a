//! Target: a node that introduces itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_remote::fuzzing::handshake(bytes);
});
