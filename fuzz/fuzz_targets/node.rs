//! Target: frames to a whole node, with references and reply ports in them.
#![no_main]

use otava_remote::fuzzing::Receiver;
use std::cell::OnceCell;

thread_local! {
    static NODE: OnceCell<Receiver> = const { OnceCell::new() };
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    NODE.with(|node| node.get_or_init(Receiver::new).take(bytes));
});
