//! Fuzzing: each decoder of bytes from a member, behind a function of bytes. Only with the feature `fuzzing`.
//!
//! Each answers whether the bytes were accepted, and panics where a promise is broken: what was
//! accepted must be written and read again as the same.

use crate::delivery::wire::{ToSink, ToSource};
use crate::facts;
use crate::io::chitchat::decode_chitchat;
use crate::logic::delivery::sink::{Sink, SinkSettings};
use crate::logic::delivery::source::{Source, SourceSettings};
use crate::logic::delivery::{Chunk, Probe, Report, Session};
use crate::logic::gossip::GossipMessage;
use crate::logic::message::Message;
use crate::replicated::wire as replicated_wire;
use crate::wire::{decode_gossip, decode_message, encode_gossip, encode_message};
use otava_actor::Time;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

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

/// What producers and consumers say to each other, without the references inside, which only have bytes
/// between two nodes. What is understood goes to a sink or a source, which must stand it.
pub fn delivery(bytes: &[u8]) -> bool {
    let to_sink = otava_remote::decode::<ToSink<()>>(bytes);
    if let Ok(message) = &to_sink {
        let written = otava_remote::encode(message).unwrap_or_default();
        assert_eq!(otava_remote::decode(&written).as_ref(), Ok(message));
    }
    let understood = match to_sink {
        Ok(ToSink::Chunk(chunk)) => {
            let chunk: Chunk = chunk.into();
            let mut sink = sink(&Probe {
                session: chunk.session,
                start: 1,
                sent: 9,
                nonce: 1,
            });
            sink.chunk(chunk.clone());
            sink.chunk(Chunk { seq: 1, ..chunk });
            while sink.poll_output().is_some() {}
            true
        }
        Ok(ToSink::Probe { probe, .. }) => {
            let probe: Probe = probe.into();
            let mut sink = sink(&probe);
            sink.probe(&Probe {
                start: probe.start / 2,
                ..probe
            });
            sink.probe(&probe);
            true
        }
        Err(_) => false,
    };
    let Ok(message) = otava_remote::decode::<ToSource<()>>(bytes) else {
        return understood;
    };
    let written = otava_remote::encode(&message).unwrap_or_default();
    assert_eq!(otava_remote::decode(&written).as_ref(), Ok(&message));
    if let ToSource::Report(report) = message {
        let report: Report = report.into();
        let Session { series, claim, .. } = report.session;
        let mut source = Source::new(
            SourceSettings {
                chunk_bytes: 2,
                resend_min: Duration::from_millis(1),
                resend_max: Duration::from_secs(1),
            },
            series,
            claim,
            0,
        );
        source.push(Time::ZERO, vec![1; 9].into(), ());
        source.open(Time::ZERO);
        // A report of what was never sent is an error, and that is all.
        let _ = source.handle(Time::ZERO, &report);
        while source.poll_output().is_some() {}
    }
    true
}

/// What replicators say to each other, or an entry of replicated data as it is stored, where the first byte
/// is 0.
pub fn replicated(bytes: &[u8]) -> bool {
    if let Some((0, bytes)) = bytes.split_first() {
        let Ok(state) = replicated_wire::decode_state(bytes) else {
            return false;
        };
        let written = replicated_wire::encode_state(&state).unwrap_or_default();
        assert_eq!(replicated_wire::decode_state(&written), Ok(state));
        return true;
    }
    let Ok(messages) = replicated_wire::decode_messages(bytes) else {
        return false;
    };
    let written = replicated_wire::encode_messages(&messages).unwrap_or_default();
    assert_eq!(replicated_wire::decode_messages(&written), Ok(messages));
    true
}

fn sink(probe: &Probe) -> Sink {
    let settings = SinkSettings {
        window: 8,
        message_bytes_max: 100,
        buffer_bytes_max: 1_000,
        retry_after: Duration::from_secs(1),
    };
    Sink::new(settings, 1, probe)
}

/// Seeds for [`delivery`].
pub fn deliveries() -> Vec<(&'static str, Vec<u8>)> {
    let session = Session {
        series: 7,
        claim: 1,
        number: 1,
    };
    let chunk = Chunk {
        session,
        seq: 1,
        begins: true,
        ends: true,
        bytes: vec![7, 8],
    };
    let probe = Probe {
        session,
        start: 1,
        sent: 9,
        nonce: 1,
    };
    let report = Report {
        session,
        consumer: 1,
        nonce: 1,
        confirmed: 0,
        received: 0,
        missing_to: 3,
        granted: 5,
    };
    let to_sink = |message: &ToSink<()>| otava_remote::encode(message).unwrap_or_default();
    let to_source = |message: &ToSource<()>| otava_remote::encode(message).unwrap_or_default();
    let probe = ToSink::Probe {
        probe: probe.into(),
        registration: 2,
        producer: (),
    };
    let register = ToSource::Register {
        consumer: (),
        registration: 2,
    };
    vec![
        ("chunk", to_sink(&ToSink::Chunk(chunk.into()))),
        ("probe", to_sink(&probe)),
        ("register", to_source(&register)),
        ("report", to_source(&ToSource::Report(report.into()))),
    ]
}
