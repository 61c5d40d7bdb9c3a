//! Letter: a message from one entity to another that has its effects exactly once.
//!
//! ```text
//! sender   command -> events and letters, one append -> delivered until confirmed -> one append
//! target   letter  -> is it the next one of this sender? -> its events and "taken", one append -> receipt
//! ```
//!
//! Letters count from 1 for each pair of sender and target. Delivery is at least once; a letter that
//! the target has taken already changes nothing and is confirmed again.

use crate::error::JournalError;
use crate::event_sourced::{Effect, EventSourced};
use crate::format::{self, FormatError};
use crate::id::PersistenceId;
use futures_util::future::BoxFuture;
use otava_actor::ReplyTo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A message that entities of one kind take from other entities, each exactly once.
///
/// It is stored by its sender until the target has it, and may be read by a newer version of the
/// program than the one that wrote it: its layout is a contract, like that of events.
///
/// ```
/// use otava_persistence::Letter;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Credit {
///     cents: u64,
/// }
///
/// impl Letter for Credit {
///     const KIND: &'static str = "account";
///     const NAME: &'static str = "bank.Credit";
///     const VERSION: u16 = 1;
/// }
/// ```
pub trait Letter: Serialize + DeserializeOwned + Send + 'static {
    /// The kind of entities that take it: the kind of their persistence ids.
    const KIND: &'static str;

    /// Its stable name.
    const NAME: &'static str;

    /// The version of its layout.
    const VERSION: u16;

    /// Reads a letter of an older version or another name, from a payload ([`format::decode`]);
    /// `None`, the default, for what is not known. The sender of what is not known goes on trying.
    ///
    /// # Errors
    /// [`FormatError`]: it is known and cannot be read.
    fn upcast(name: &str, version: u16, payload: &[u8]) -> Option<Result<Self, FormatError>> {
        let _ = (name, version, payload);
        None
    }
}

/// The letters of entities that take none.
#[derive(Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub enum NoLetters {}

impl Letter for NoLetters {
    const KIND: &'static str = "otava-none";
    const NAME: &'static str = "otava.NoLetters";
    const VERSION: u16 = 1;
}

/// A letter on its way.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Parcel {
    /// Who sent it, as text ([`PersistenceId::as_str`]).
    pub from: Arc<str>,
    /// Whom it is for, as text.
    pub to: Arc<str>,
    /// Its number among the letters of this sender to this target, from 1 on. 0 is no letter: it asks
    /// the target to be there, and changes nothing.
    pub number: u64,
    /// What kind of letter it is ([`Letter::NAME`]).
    pub name: Arc<str>,
    /// The version of its layout.
    pub version: u16,
    /// The encoded letter ([`mod@format`]).
    pub payload: Vec<u8>,
}

impl Parcel {
    /// No letter: whoever gets it is started by it, and answers. Used to wake entities whose own
    /// letters wait ([`crate::OutboxFinder`]).
    #[must_use]
    pub fn wake(to: &PersistenceId) -> Self {
        Self {
            from: to.as_str().into(),
            to: to.as_str().into(),
            number: 0,
            name: Arc::from(NoLetters::NAME),
            version: NoLetters::VERSION,
            payload: Vec::new(),
        }
    }

    /// Whom it is for.
    #[must_use]
    pub fn target(&self) -> Option<PersistenceId> {
        PersistenceId::parse(&self.to)
    }
}

/// What the target says of a letter.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub enum Receipt {
    /// Letters before it are missing.
    Gap {
        /// The number of the letter that is wanted.
        expected: u64,
    },
    /// The target cannot take it, now or ever; nothing has changed.
    Refused {
        /// Why.
        reason: String,
    },
    /// All letters up to this number have had their effects, and that is durable.
    Taken {
        /// The number of the last one.
        up_to: u64,
    },
}

/// Brings letters to entities: the way is the business of whoever runs them. Given by
/// [`crate::EventSourcedBuilder::courier`].
///
/// # Delivery
/// It may lose letters and deliver them twice. It should keep the order of the letters of one sender to
/// one target; letters that come too early are refused by the target, and come again.
///
/// # Cancel safety
/// Dropping the future may leave the letter on its way.
pub trait Courier: Send + Sync + 'static {
    /// Hands a letter to the entity that it is for ([`Delivery`]), which is started if it does not
    /// run, and gives its answer. The future should end after a while, whatever happens.
    ///
    /// # Errors
    /// [`CourierError`]: there was no answer.
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>>;
}

/// Why there is no answer to a letter. Whether it arrived is not known.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no answer: {reason}")]
#[non_exhaustive]
pub struct CourierError {
    /// What happened.
    pub reason: String,
}

impl CourierError {
    /// For implementers of [`Courier`].
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// A letter that has arrived, as a part of a command. What is in it can only be had by
/// [`Effect::receive`], which sees to it that it counts once.
pub struct Delivery {
    pub(super) parcel: Parcel,
    pub(super) reply_to: ReplyTo<Receipt>,
}

impl Delivery {
    /// What a [`Courier`] brings, and where the answer goes.
    #[must_use]
    pub fn new(parcel: Parcel, reply_to: ReplyTo<Receipt>) -> Self {
        Self { parcel, reply_to }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("from", &self.parcel.from)
            .field("number", &self.parcel.number)
            .field("name", &self.parcel.name)
            .finish_non_exhaustive()
    }
}

/// What [`Effect::receive`] keeps until the entity knows whether the letter counts.
pub(super) struct Receiving<E: EventSourced> {
    pub(super) delivery: Delivery,
    pub(super) take: Take<E>,
}

/// Makes an effect of a letter, or says why it is none.
pub(super) type Take<E> =
    Box<dyn FnOnce(&E, &PersistenceId, &Parcel) -> Result<Effect<E>, String> + Send>;

/// A letter that an effect sends.
pub(super) struct Sending {
    pub(super) to: PersistenceId,
    pub(super) name: &'static str,
    pub(super) version: u16,
    pub(super) payload: Result<Vec<u8>, FormatError>,
}

impl Sending {
    pub(super) fn new<L: Letter>(to: &str, letter: &L) -> Self {
        Self {
            to: PersistenceId::new(L::KIND, to),
            name: L::NAME,
            version: L::VERSION,
            payload: format::encode(letter),
        }
    }
}

pub(super) fn open_letter<L: Letter>(parcel: &Parcel) -> Result<L, String> {
    let (name, version) = (&*parcel.name, parcel.version);
    let letter = if name == L::NAME && version == L::VERSION {
        Some(format::decode(&parcel.payload))
    } else {
        L::upcast(name, version, &parcel.payload)
    };
    match letter {
        Some(letter) => letter.map_err(|error| format!("{name}, version {version}: {error}")),
        None => Err(format!(
            "{name}, version {version}, is not known here: this program knows {}, version {}",
            L::NAME,
            L::VERSION
        )),
    }
}

/// Compares a target with what stores allow.
pub(super) fn check_target(to: &PersistenceId) -> Result<(), JournalError> {
    crate::journal::within(
        "persistence id in bytes",
        to.as_str().len(),
        PersistenceId::BYTES_MAX,
    )
}
