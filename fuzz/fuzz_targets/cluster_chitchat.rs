//! Target: a message of chitchat.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    otava_cluster::fuzzing::chitchat(bytes);
});
