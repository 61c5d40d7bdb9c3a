//! Message: what replicators say to each other.

use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::pruning::Marks;
use std::sync::Arc;

/// The name of an entry.
pub type Key = Arc<str>;

/// What there is under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// It was deleted, for good.
    Deleted,
    /// A value.
    Live(Arc<Causal>),
}

/// All of an entry that others may know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// Its key.
    pub key: Key,
    /// The name of the type of its value.
    pub type_name: Arc<str>,
    /// Its value.
    pub content: Content,
    /// Replicas that are gone.
    pub marks: Marks,
}

/// Writes of the sender to one key, gathered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delta {
    /// The key.
    pub key: Key,
    /// The name of the type of the value.
    pub type_name: Arc<str>,
    /// The receiver must have all deltas of the sender up to this number.
    pub base: u64,
    /// It has all up to this number afterwards.
    pub last: u64,
    /// The changes.
    pub delta: Arc<Causal>,
    /// The names in which they are written.
    pub marks: Marks,
}

/// What one replicator says to another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// All your deltas of `key` up to `last` are here, and stored if they must be.
    Ack {
        /// The key.
        key: Key,
        /// The number of the last one.
        last: u64,
    },
    /// A delta of yours was missing: send the state.
    Behind {
        /// The key.
        key: Key,
    },
    /// The fingerprints of all entries in a part of the keys.
    Bucket {
        /// Which bucket.
        bucket: u16,
        /// The part begins after this key.
        after: Option<Key>,
        /// And ends with this one.
        until: Option<Key>,
        /// The keys in it.
        held: Vec<(Key, u64)>,
    },
    /// New writes.
    Delta(Delta),
    /// What is there under `key`?
    Read {
        /// To be repeated in the answer.
        id: u64,
        /// The key.
        key: Key,
        /// The fingerprint of the asker's entry; 0 if it has none.
        known: u64,
    },
    /// To [`Message::Read`].
    ReadAnswer {
        /// From the question.
        id: u64,
        /// What is there.
        answer: ReadAnswer,
    },
    /// An entry. With a number, all of the sender's deltas up to it are in it, and it wants an
    /// [`Message::Ack`].
    State {
        /// The number of the last delta.
        last: Option<u64>,
        /// The entry.
        state: State,
    },
    /// The fingerprints of all buckets.
    Summary(Vec<u64>),
    /// Send these entries.
    Want(Vec<Key>),
}

/// What is there under a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReadAnswer {
    /// Nothing.
    Nothing,
    /// What the asker has.
    Same,
    /// This.
    State(State),
}

impl Message {
    /// About how many bytes this takes on the wire.
    #[must_use]
    pub fn weight(&self) -> usize {
        const HEAD: usize = 32;
        HEAD + match self {
            Self::Ack { key, .. } | Self::Behind { key } | Self::Read { key, .. } => key.len(),
            Self::Bucket { held, .. } => {
                let keys: usize = held.iter().map(|(key, _)| key.len() + 10).sum();
                keys + 512
            }
            Self::Delta(delta) => {
                let names = delta.key.len() + delta.type_name.len();
                names + delta.delta.weight() + 64 * delta.marks.len()
            }
            Self::ReadAnswer { answer, .. } => match answer {
                ReadAnswer::State(state) => state.weight(),
                ReadAnswer::Nothing | ReadAnswer::Same => 0,
            },
            Self::State { state, .. } => state.weight(),
            Self::Summary(buckets) => buckets.len() * 9,
            Self::Want(keys) => keys.iter().map(|key| key.len() + 2).sum(),
        }
    }
}

impl State {
    fn weight(&self) -> usize {
        let value = match &self.content {
            Content::Deleted => 0,
            Content::Live(value) => value.weight(),
        };
        let marks = self.marks.len() * 128;
        self.key.len() + self.type_name.len() + value + marks
    }
}
