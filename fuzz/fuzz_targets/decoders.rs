//! Targets: every decoder of bytes from outside; the variable `FUZZ_TARGET` says which. Without it their names are printed.
//!
//! One program for all: linking, and most of compiling, is done once.
#![no_main]

use otava_remote::fuzzing::Receiver;
use std::cell::OnceCell;
use std::sync::OnceLock;

/// Answers whether the bytes were accepted.
type Decoder = fn(&[u8]) -> bool;

const DECODERS: &[(&str, Decoder)] = &[
    ("cluster_chitchat", otava_cluster::fuzzing::chitchat),
    ("cluster_delivery", otava_cluster::fuzzing::delivery),
    ("cluster_facts", otava_cluster::fuzzing::facts),
    ("cluster_gossip", otava_cluster::fuzzing::gossip),
    ("cluster_message", otava_cluster::fuzzing::message),
    ("frame", otava_remote::fuzzing::frame),
    ("handshake", otava_remote::fuzzing::handshake),
    ("lane", otava_remote::fuzzing::lane),
    ("node", node),
    ("packed", otava_remote::fuzzing::packed),
    ("payload", otava_remote::fuzzing::payload),
    ("preamble", otava_remote::fuzzing::preamble),
    ("replicated", otava_cluster::fuzzing::replicated),
    ("sharding", otava_sharding::fuzzing::region_message),
    ("stored", otava_persistence::fuzzing::stored),
    ("unordered", otava_remote::fuzzing::unordered),
];

static DECODER: OnceLock<Decoder> = OnceLock::new();

thread_local! {
    static NODE: OnceCell<Receiver> = const { OnceCell::new() };
}

/// Frames to a whole node, with references and reply ports in them.
fn node(bytes: &[u8]) -> bool {
    NODE.with(|node| node.get_or_init(Receiver::new).take(bytes))
}

fn choose() -> Decoder {
    let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
    if let Some((_, decoder)) = DECODERS.iter().find(|(name, _)| *name == wanted) {
        return *decoder;
    }
    for (name, _) in DECODERS {
        println!("{name}");
    }
    std::process::exit(i32::from(!wanted.is_empty()));
}

libfuzzer_sys::fuzz_target!(
    init: {
        DECODER.get_or_init(choose);
    },
    |bytes: &[u8]| {
        DECODER.get_or_init(choose)(bytes);
    }
);
