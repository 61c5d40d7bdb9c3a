//! Fuzzing: each decoder of bytes from a member, behind a function of bytes. Only with the feature `fuzzing`.
//!
//! Each answers whether the bytes were accepted, and panics where a promise is broken: what was
//! accepted must be written and read again as the same.

use crate::facts;
use crate::io::chitchat::decode_chitchat;
use crate::logic::gossip::GossipMessage;
use crate::logic::message::Message;
use crate::wire::{decode_gossip, decode_message, encode_gossip, encode_message};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How long a message is on the wire; 0 if it is too long to be sent.
pub fn message_bytes(message: &Message) -> u64 {
    encode_message(message).map_or(0, |bytes| bytes.len() as u64)
}

/// How long a message of the seeded gossip is on the wire; 0 if it is too long to be sent.
pub fn gossip_bytes(message: &GossipMessage) -> u64 {
    encode_gossip(message).map_or(0, |bytes| bytes.len() as u64)
}

/// What members say to each other.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = decode_message(bytes) else {
        return false;
    };
    if let Some(written) = encode_message(&message) {
        assert_eq!(decode_message(&written), Ok(message));
    }
    true
}

/// What the seeded dissemination says.
pub fn gossip(bytes: &[u8]) -> bool {
    let Ok(message) = decode_gossip(bytes) else {
        return false;
    };
    if let Some(written) = encode_gossip(&message) {
        assert_eq!(decode_gossip(&written), Ok(message));
    }
    true
}

/// A statement in the form in which chitchat carries it: lines of a key, a tab and a value.
pub fn facts(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    // A map of chitchat has each key once.
    let lines = text.lines().filter_map(|line| line.split_once('\t'));
    let lines: BTreeMap<&str, &str> = lines.collect();
    let addr = SocketAddr::from(([10, 0, 0, 1], 7_000));
    let Some(statement) = facts::read(addr, 7, lines.iter().map(|(&key, &value)| (key, value)))
    else {
        return false;
    };
    // What is too large, or not plain, is not written; so it was not written by anybody. Nor was a node
    // under two names, which have one key.
    if let Ok(written) = facts::write(&statement)
        && written.len() == 1 + statement.view.len() + statement.unreachable.len()
    {
        let lines = written
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        assert_eq!(facts::read(addr, 7, lines), Some(statement));
    }
    true
}

/// A message of chitchat itself.
pub fn chitchat(bytes: &[u8]) -> bool {
    decode_chitchat(bytes).is_some_and(|message| message.is_ok())
}
