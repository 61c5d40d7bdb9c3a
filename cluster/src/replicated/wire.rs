//! Wire: the bytes of replicated data: what replicators say to each other, and what is stored.
//!
//! A payload is the version of this format, then a value in the codec of [`otava_remote::encode`], whose
//! limits on size and depth hold. What a version has written is read for good: its bytes stand in
//! `fixtures/v1/replicated` and are decoded by a test. Dots name their replica by its place in a table,
//! so that a dot takes three bytes or so.

#[cfg(test)]
mod tests;

use crate::envelope::{self, EnvelopeError};
use crate::logic::replicated::causal::{Causal, Renaming};
use crate::logic::replicated::dots::{Context, Dot, Replica};
use crate::logic::replicated::message::{Content, Delta, Key, Message, ReadAnswer, State};
use crate::logic::replicated::pruning::{Marks, Pruning};
use crate::logic::replicated::store::{Count, Dots, Element, Store, Written};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The version of the format, the first byte of each payload.
const VERSION: u8 = 1;

/// Bytes that mean nothing here, or a value that has no bytes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum WireError {
    /// They do not hold what they should.
    #[error("the bytes are not understood: {0}")]
    Malformed(String),
    /// The value cannot be encoded.
    #[error("it cannot be encoded: {0}")]
    NotEncodable(String),
    /// A newer program has written them.
    #[error("version {0} of the format is not known here")]
    Version(u8),
}

/// The bytes of messages.
pub(crate) fn encode_messages(messages: &[Message]) -> Result<Vec<u8>, WireError> {
    let messages: Vec<WireMessage> = messages.iter().map(WireMessage::from).collect();
    pack(&messages)
}

pub(crate) fn decode_messages(bytes: &[u8]) -> Result<Vec<Message>, WireError> {
    let messages: Vec<WireMessage> = unpack(bytes)?;
    messages
        .into_iter()
        .map(WireMessage::into_message)
        .collect()
}

/// The bytes of an entry as it is stored.
pub(crate) fn encode_state(state: &State) -> Result<Vec<u8>, WireError> {
    pack(&WireState::from(state))
}

pub(crate) fn decode_state(bytes: &[u8]) -> Result<State, WireError> {
    unpack::<WireState>(bytes)?.into_state()
}

fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    envelope::seal(VERSION, value).map_err(|error| WireError::NotEncodable(error.to_string()))
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    envelope::open(VERSION, bytes).map_err(|error| match error {
        EnvelopeError::Malformed(what) => WireError::Malformed(what),
        EnvelopeError::Version(version) => WireError::Version(version),
    })
}

fn malformed<T>(what: &str) -> Result<T, WireError> {
    Err(WireError::Malformed(what.into()))
}

/// Bytes that are written as one piece, not number by number.
#[derive(Clone, Debug)]
pub(crate) struct Blob(pub(crate) Arc<[u8]>);

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

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[derive(Deserialize, Serialize)]
enum WireMessage {
    Ack {
        key: Key,
        last: u64,
    },
    Behind {
        key: Key,
    },
    Bucket {
        bucket: u16,
        after: Option<Key>,
        until: Option<Key>,
        held: Vec<(Key, u64)>,
    },
    Delta {
        key: Key,
        type_name: Arc<str>,
        base: u64,
        last: u64,
        delta: WireCausal,
        marks: Vec<WireMark>,
    },
    Read {
        id: u64,
        key: Key,
        known: u64,
    },
    Nothing {
        id: u64,
    },
    Same {
        id: u64,
    },
    Found {
        id: u64,
        state: WireState,
    },
    State {
        last: Option<u64>,
        state: WireState,
    },
    Summary(Vec<u64>),
    Want(Vec<Key>),
}

#[derive(Deserialize, Serialize)]
struct WireState {
    key: Key,
    type_name: Arc<str>,
    /// `None`: deleted.
    value: Option<WireCausal>,
    marks: Vec<WireMark>,
}

#[derive(Deserialize, Serialize)]
enum WireMark {
    Performed {
        from: u64,
        to: u64,
        offset: u64,
        count: u64,
        expires: u64,
    },
    Started {
        gone: u64,
        owner: u64,
        seen: Vec<u64>,
    },
}

#[derive(Deserialize, Serialize)]
struct WireCausal {
    replicas: Vec<u64>,
    /// The place of the replica, the first and the last number.
    seen: Vec<(u32, u64, u64)>,
    store: WireStore,
}

/// The place of the replica, and the number.
type WireDot = (u32, u64);

#[derive(Deserialize, Serialize)]
enum WireStore {
    Counter(Vec<(WireDot, u64, u64)>),
    Flag(Vec<WireDot>),
    Map(Vec<(Blob, WireStore)>),
    Register(Vec<(WireDot, u64, Blob)>),
    Set(Vec<(Blob, Vec<WireDot>)>),
}

impl From<&Message> for WireMessage {
    fn from(message: &Message) -> Self {
        match message.clone() {
            Message::Ack { key, last } => Self::Ack { key, last },
            Message::Behind { key } => Self::Behind { key },
            Message::Bucket {
                bucket,
                after,
                until,
                held,
            } => Self::Bucket {
                bucket,
                after,
                until,
                held,
            },
            Message::Delta(delta) => Self::Delta {
                key: delta.key,
                type_name: delta.type_name,
                base: delta.base,
                last: delta.last,
                delta: WireCausal::from(&*delta.delta),
                marks: marks_to_wire(&delta.marks),
            },
            Message::Read { id, key, known } => Self::Read { id, key, known },
            Message::ReadAnswer { id, answer } => match answer {
                ReadAnswer::Nothing => Self::Nothing { id },
                ReadAnswer::Same => Self::Same { id },
                ReadAnswer::State(state) => Self::Found {
                    id,
                    state: WireState::from(&state),
                },
            },
            Message::State { last, state } => Self::State {
                last,
                state: WireState::from(&state),
            },
            Message::Summary(buckets) => Self::Summary(buckets),
            Message::Want(keys) => Self::Want(keys),
        }
    }
}

impl WireMessage {
    fn into_message(self) -> Result<Message, WireError> {
        let answer = |id, answer| Message::ReadAnswer { id, answer };
        Ok(match self {
            Self::Ack { key, last } => Message::Ack { key, last },
            Self::Behind { key } => Message::Behind { key },
            Self::Bucket {
                bucket,
                after,
                until,
                held,
            } => Message::Bucket {
                bucket,
                after,
                until,
                held,
            },
            Self::Delta {
                key,
                type_name,
                base,
                last,
                delta,
                marks,
            } => Message::Delta(Delta {
                key,
                type_name,
                base,
                last,
                delta: Arc::new(delta.into_causal()?),
                marks: marks_from_wire(marks),
            }),
            Self::Read { id, key, known } => Message::Read { id, key, known },
            Self::Nothing { id } => answer(id, ReadAnswer::Nothing),
            Self::Same { id } => answer(id, ReadAnswer::Same),
            Self::Found { id, state } => answer(id, ReadAnswer::State(state.into_state()?)),
            Self::State { last, state } => Message::State {
                last,
                state: state.into_state()?,
            },
            Self::Summary(buckets) => Message::Summary(buckets),
            Self::Want(keys) => Message::Want(keys),
        })
    }
}

impl From<&State> for WireState {
    fn from(state: &State) -> Self {
        Self {
            key: state.key.clone(),
            type_name: state.type_name.clone(),
            value: match &state.content {
                Content::Deleted => None,
                Content::Live(value) => Some(WireCausal::from(&**value)),
            },
            marks: marks_to_wire(&state.marks),
        }
    }
}

impl WireState {
    fn into_state(self) -> Result<State, WireError> {
        let content = match self.value {
            None => Content::Deleted,
            Some(value) => Content::Live(Arc::new(value.into_causal()?)),
        };
        Ok(State {
            key: self.key,
            type_name: self.type_name,
            content,
            marks: marks_from_wire(self.marks),
        })
    }
}

fn marks_to_wire(marks: &Marks) -> Vec<WireMark> {
    let mark = |(gone, mark): (&Replica, &Pruning)| match mark {
        Pruning::Performed { renaming, expires } => WireMark::Performed {
            from: renaming.from.0,
            to: renaming.to.0,
            offset: renaming.offset,
            count: renaming.count,
            expires: *expires,
        },
        Pruning::Started { owner, seen } => WireMark::Started {
            gone: gone.0,
            owner: owner.0,
            seen: seen.iter().map(|replica| replica.0).collect(),
        },
    };
    marks.iter().map(mark).collect()
}

fn marks_from_wire(marks: Vec<WireMark>) -> Marks {
    let mark = |mark| match mark {
        WireMark::Performed {
            from,
            to,
            offset,
            count,
            expires,
        } => {
            let (from, to) = (Replica(from), Replica(to));
            let renaming = Renaming {
                from,
                to,
                offset,
                count,
            };
            (from, Pruning::Performed { renaming, expires })
        }
        WireMark::Started { gone, owner, seen } => {
            let seen = seen.into_iter().map(Replica).collect();
            let owner = Replica(owner);
            (Replica(gone), Pruning::Started { owner, seen })
        }
    };
    marks.into_iter().map(mark).collect()
}

impl From<&Causal> for WireCausal {
    fn from(value: &Causal) -> Self {
        let mut places = Places::default();
        let seen = value.context.ranges();
        let seen = seen.map(|(replica, first, last)| (places.of(replica), first, last));
        let seen = seen.collect();
        let store = places.store(&value.store);
        Self {
            replicas: places.replicas,
            seen,
            store,
        }
    }
}

/// Replicas by their place in a table.
#[derive(Default)]
struct Places {
    replicas: Vec<u64>,
    places: BTreeMap<Replica, u32>,
}

impl Places {
    fn of(&mut self, replica: Replica) -> u32 {
        let next = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        *self.places.entry(replica).or_insert_with(|| {
            self.replicas.push(replica.0);
            next
        })
    }

    fn dot(&mut self, dot: &Dot) -> WireDot {
        (self.of(dot.replica), dot.number)
    }

    fn store(&mut self, store: &Store) -> WireStore {
        match store {
            Store::Counter(dots) => {
                let pieces = dots.iter();
                let pieces = pieces.map(|(dot, count)| (self.dot(dot), count.up, count.down));
                WireStore::Counter(pieces.collect())
            }
            Store::Flag(dots) => WireStore::Flag(dots.keys().map(|dot| self.dot(dot)).collect()),
            Store::Map(values) => {
                let values = values.iter();
                let values = values.map(|(key, value)| (Blob(key.clone()), self.store(value)));
                WireStore::Map(values.collect())
            }
            Store::Register(dots) => {
                let pieces = dots.iter().map(|(dot, written)| {
                    let value = Blob(written.value.clone());
                    (self.dot(dot), written.at, value)
                });
                WireStore::Register(pieces.collect())
            }
            Store::Set(elements) => {
                let elements = elements.iter().map(|(element, dots)| {
                    let dots = dots.keys().map(|dot| self.dot(dot)).collect();
                    (Blob(element.clone()), dots)
                });
                WireStore::Set(elements.collect())
            }
        }
    }
}

impl WireCausal {
    fn into_causal(self) -> Result<Causal, WireError> {
        let mut context = Context::new();
        for (place, first, last) in &self.seen {
            let replica = replica(&self.replicas, *place)?;
            // In order and apart, as they are written: so each is put at the end.
            let before = context.highest(replica);
            let apart = before == 0 || *first > before.saturating_add(1);
            if *first == 0 || first > last || !apart {
                return malformed("ranges of writes are empty or out of order");
            }
            context.insert_range(replica, *first, *last);
        }
        let store = into_store(self.store, &self.replicas)?;
        let value = Causal { store, context };
        if value.is_sound() {
            Ok(value)
        } else {
            malformed("a write stands that was not seen")
        }
    }
}

fn replica(replicas: &[u64], place: u32) -> Result<Replica, WireError> {
    let replica = replicas.get(place as usize);
    replica.map_or_else(
        || malformed("a replica is not in the table"),
        |replica| Ok(Replica(*replica)),
    )
}

/// Recurses as deep as the value is, which the decoder has bounded.
fn into_store(store: WireStore, replicas: &[u64]) -> Result<Store, WireError> {
    let dot = |(place, number): WireDot| Ok(Dot::new(replica(replicas, place)?, number));
    Ok(match store {
        WireStore::Counter(pieces) => {
            let piece = |(at, up, down)| Ok((dot(at)?, Count { up, down }));
            Store::Counter(pieces.into_iter().map(piece).collect::<Result<_, _>>()?)
        }
        WireStore::Flag(dots) => {
            let piece = |at| Ok((dot(at)?, ()));
            Store::Flag(dots.into_iter().map(piece).collect::<Result<_, _>>()?)
        }
        WireStore::Map(values) => {
            let value = |(key, value): (Blob, WireStore)| Ok((key.0, into_store(value, replicas)?));
            Store::Map(values.into_iter().map(value).collect::<Result<_, _>>()?)
        }
        WireStore::Register(pieces) => {
            let piece = |(place, at, value): (WireDot, u64, Blob)| {
                let value = value.0;
                Ok((dot(place)?, Written { at, value }))
            };
            Store::Register(pieces.into_iter().map(piece).collect::<Result<_, _>>()?)
        }
        WireStore::Set(elements) => {
            let element = |(element, dots): (Blob, Vec<WireDot>)| {
                let piece = |at| Ok((dot(at)?, ()));
                let dots: Dots<()> = dots.into_iter().map(piece).collect::<Result<_, _>>()?;
                Ok::<(Element, Dots<()>), WireError>((element.0, dots))
            };
            let elements = elements.into_iter().map(element);
            Store::Set(elements.collect::<Result<_, _>>()?)
        }
    })
}
