//! Target: an event or a state at rest.
//!
//! Without types that lie in themselves, and without elements of no size: what is at rest is guarded
//! by checksums, and its format does not count these.
#![no_main]

use otava_persistence::format::{decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Deserialize, Serialize)]
enum Event {
    Nothing,
    Numbers(u8, i16, u32, i64, u128, f64, char, bool),
    Text(String, Option<Box<str>>),
    Many(Vec<(u16, String)>),
    Map(BTreeMap<String, Option<[u64; 4]>>),
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = decode::<Event>(bytes) {
        let written = encode(&event).expect("it can be written");
        let again: Event = decode(&written).expect("it can be read again");
        assert_eq!(encode(&again).as_ref(), Ok(&written));
    }
});
