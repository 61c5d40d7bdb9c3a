//! Delivery wire: the bytes of what producers and consumers say to each other.
//!
//! The form of each message stands apart from the reference that some carry: a reference has bytes only
//! between two nodes, the rest is compared with golden bytes and fuzzed.

use crate::logic::delivery::{Chunk, Probe, Report, Session};
use otava_actor::ActorRef;
use otava_remote::{RemoteMessage, layout};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// What a consumer's actor understands. Opaque: it is made by producers.
#[derive(Deserialize, Serialize)]
#[serde(bound = "M: RemoteMessage")]
pub struct ConsumerMessage<M: Send + 'static>(pub(super) ToSink<ProducerRef<M>>);

/// What a producer's actor understands. Opaque: it is made by consumers.
#[derive(Deserialize, Serialize)]
#[serde(bound = "M: RemoteMessage")]
pub struct ProducerMessage<M: Send + 'static>(pub(super) ToSource<ConsumerRef<M>>);

#[derive(Deserialize, Serialize)]
#[serde(bound = "M: RemoteMessage")]
pub(super) struct ProducerRef<M: Send + 'static>(
    #[serde(with = "otava_remote::wire")] pub(super) ActorRef<ProducerMessage<M>>,
);

#[derive(Deserialize, Serialize)]
#[serde(bound = "M: RemoteMessage")]
pub(super) struct ConsumerRef<M: Send + 'static>(
    #[serde(with = "otava_remote::wire")] pub(super) ActorRef<ConsumerMessage<M>>,
);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum ToSink<R> {
    Chunk(ChunkForm),
    Probe {
        probe: ProbeForm,
        /// The registration that this answers; zero if none.
        registration: u64,
        /// Where reports go.
        producer: R,
    },
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum ToSource<R> {
    Register { consumer: R, registration: u64 },
    Report(ReportForm),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct SessionForm(u64, u64, u64);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ChunkForm {
    session: SessionForm,
    seq: u64,
    begins: bool,
    ends: bool,
    bytes: Blob,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ProbeForm {
    session: SessionForm,
    start: u64,
    sent: u64,
    nonce: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ReportForm {
    session: SessionForm,
    consumer: u64,
    nonce: u64,
    confirmed: u64,
    received: u64,
    missing_to: u64,
    granted: u64,
}

/// Bytes that are copied at once, where a `Vec<u8>` is written one by one.
#[derive(Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

const VERSION: u16 = 1;

impl<M: RemoteMessage> RemoteMessage for ConsumerMessage<M> {
    const NAME: &'static str = "otava.delivery.Consumer";
    const VERSION: u16 = VERSION;
    const LAYOUT: u64 = layout(Self::NAME, Self::VERSION) ^ M::LAYOUT.rotate_left(1);
    const RIGHTS: &'static str = M::RIGHTS;

    fn is_for_clients(&self) -> bool {
        false
    }
}

impl<M: RemoteMessage> RemoteMessage for ProducerMessage<M> {
    const NAME: &'static str = "otava.delivery.Producer";
    const VERSION: u16 = VERSION;
    const LAYOUT: u64 = layout(Self::NAME, Self::VERSION) ^ M::LAYOUT.rotate_left(1);

    fn is_for_clients(&self) -> bool {
        false
    }
}

impl From<Session> for SessionForm {
    fn from(session: Session) -> Self {
        Self(session.series, session.claim, session.number)
    }
}

impl From<SessionForm> for Session {
    fn from(SessionForm(series, claim, number): SessionForm) -> Self {
        Self {
            series,
            claim,
            number,
        }
    }
}

impl From<Chunk> for ChunkForm {
    fn from(chunk: Chunk) -> Self {
        Self {
            session: chunk.session.into(),
            seq: chunk.seq,
            begins: chunk.begins,
            ends: chunk.ends,
            bytes: Blob(chunk.bytes),
        }
    }
}

impl From<ChunkForm> for Chunk {
    fn from(form: ChunkForm) -> Self {
        Self {
            session: form.session.into(),
            seq: form.seq,
            begins: form.begins,
            ends: form.ends,
            bytes: form.bytes.0,
        }
    }
}

impl From<Probe> for ProbeForm {
    fn from(probe: Probe) -> Self {
        Self {
            session: probe.session.into(),
            start: probe.start,
            sent: probe.sent,
            nonce: probe.nonce,
        }
    }
}

impl From<ProbeForm> for Probe {
    fn from(form: ProbeForm) -> Self {
        Self {
            session: form.session.into(),
            start: form.start,
            sent: form.sent,
            nonce: form.nonce,
        }
    }
}

impl From<Report> for ReportForm {
    fn from(report: Report) -> Self {
        Self {
            session: report.session.into(),
            consumer: report.consumer,
            nonce: report.nonce,
            confirmed: report.confirmed,
            received: report.received,
            missing_to: report.missing_to,
            granted: report.granted,
        }
    }
}

impl From<ReportForm> for Report {
    fn from(form: ReportForm) -> Self {
        Self {
            session: form.session.into(),
            consumer: form.consumer,
            nonce: form.nonce,
            confirmed: form.confirmed,
            received: form.received,
            missing_to: form.missing_to,
            granted: form.granted,
        }
    }
}

impl<M: Send + 'static> ConsumerMessage<M> {
    pub(super) fn chunk(chunk: Chunk) -> Self {
        Self(ToSink::Chunk(chunk.into()))
    }

    pub(super) fn probe(
        probe: Probe,
        registration: u64,
        producer: ActorRef<ProducerMessage<M>>,
    ) -> Self {
        Self(ToSink::Probe {
            probe: probe.into(),
            registration,
            producer: ProducerRef(producer),
        })
    }
}

impl<M: Send + 'static> fmt::Debug for ConsumerMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsumerMessage(..)")
    }
}

impl<M: Send + 'static> fmt::Debug for ProducerMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProducerMessage(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_remote::{decode, encode};

    const SESSION: Session = Session {
        series: 0x0102_0304_0506_0708,
        claim: 2,
        number: 3,
    };

    /// These bytes are what other versions read: they never change. The reference is left out.
    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        let chunk = Chunk {
            session: SESSION,
            seq: 300,
            begins: true,
            ends: false,
            bytes: vec![7, 8],
        };
        let probe = Probe {
            session: SESSION,
            start: 1,
            sent: 9,
            nonce: 4,
        };
        let head = [253, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3];
        for (message, kind, rest) in [
            (
                ToSink::Chunk(chunk.into()),
                0,
                vec![251, 44, 1, 1, 0, 2, 7, 8],
            ),
            (
                ToSink::Probe {
                    probe: probe.into(),
                    registration: 5,
                    producer: (),
                },
                1,
                vec![1, 9, 4, 5],
            ),
        ] {
            let fixed = [&[1, kind], &head[..], &rest].concat();
            assert_eq!(encode(&message).unwrap(), fixed);
            assert_eq!(decode::<ToSink<()>>(&fixed).unwrap(), message);
        }
        let report = Report {
            session: SESSION,
            consumer: 10,
            nonce: 4,
            confirmed: 5,
            received: 6,
            missing_to: 7,
            granted: 60,
        };
        let message = ToSource::Report(report.into());
        let fixed = [&[1, 1], &head[..], &[10, 4, 5, 6, 7, 60]].concat();
        assert_eq!(encode(&message).unwrap(), fixed);
        assert_eq!(decode::<ToSource<()>>(&fixed).unwrap(), message);
        let message = ToSource::Register {
            consumer: (),
            registration: 5,
        };
        assert_eq!(encode(&message).unwrap(), [1, 0, 5]);
        assert_eq!(decode::<ToSource<()>>(&[1, 0, 5]).unwrap(), message);
    }

    /// The type of the messages inside is part of what both ends compare.
    #[test]
    fn the_layout_is_that_of_the_messages_too() {
        #[derive(Deserialize, Serialize)]
        struct A;
        impl RemoteMessage for A {
            const NAME: &'static str = "test.A";
        }
        #[derive(Deserialize, Serialize)]
        struct B;
        impl RemoteMessage for B {
            const NAME: &'static str = "test.B";
        }
        assert_ne!(ConsumerMessage::<A>::LAYOUT, ConsumerMessage::<B>::LAYOUT);
        assert_ne!(ProducerMessage::<A>::LAYOUT, ProducerMessage::<B>::LAYOUT);
        assert_ne!(ProducerMessage::<A>::LAYOUT, ConsumerMessage::<A>::LAYOUT);
    }
}
