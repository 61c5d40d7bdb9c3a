//! Fuzzing: the messages between regions, behind a function of bytes. Only with the feature `fuzzing`.

use crate::message::RegionMessage;
use otava_remote::{RemoteMessage, decode, encode};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
enum Cmd {
    Add(u32),
    Many(Vec<Cmd>),
}

impl RemoteMessage for Cmd {
    const NAME: &'static str = "test.Cmd";
}

/// What one region says to another. Answers whether it was accepted; what was must be written and
/// read again as the same.
///
/// # Panics
/// If it is not.
pub fn region_message(bytes: &[u8]) -> bool {
    let Ok(message) = decode::<RegionMessage<Cmd>>(bytes) else {
        return false;
    };
    // A client's request has a reply port in it, which has no form outside of a message of a node:
    // so it was not accepted, and here is none.
    let written = encode(&message).unwrap_or_else(|error| panic!("cannot be written: {error}"));
    let again: RegionMessage<Cmd> =
        decode(&written).unwrap_or_else(|error| panic!("cannot be read: {error}"));
    assert_eq!(encode(&again).as_ref(), Ok(&written));
    true
}
