//! Schema: how stored events become events of this program, also those of older versions.

use crate::event_sourced::post::Codec;
use crate::event_sourced::{EventSourced, RecoveryError};
use crate::format::sealed::What;
use crate::format::{self, FormatError, mail};
use crate::id::PersistenceId;
use crate::journal::{EventRecord, StoredEvent};
use crate::keys::KeyStore;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::Arc;

/// Makes events of today from a stored one of an older version, or of another name.
///
/// One old event may become one event, several, or none. Given by [`EventSourced::upcasters`]. What is
/// stored is never changed: the old type, or as much of it as is needed, stays in the program.
///
/// # Examples
/// ```
/// use otava_persistence::Upcaster;
/// # use otava_persistence::{Effect, EventSourced};
/// # #[derive(Default)] struct Cart(u32);
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// enum Changed {
///     Added { item: String, count: u32 },
///     Emptied,
/// }
///
/// /// Version 1 had no count.
/// #[derive(serde::Deserialize)]
/// enum ChangedV1 {
///     Added { item: String },
/// }
///
/// impl EventSourced for Cart {
/// #   type Command = ();
/// #   type Snapshot = ();
///     type Event = Changed;
///     const EVENT_NAME: &'static str = "shop.CartChanged";
///     const EVENT_VERSION: u16 = 2;
///
///     fn upcasters() -> Vec<Upcaster<Self>> {
///         vec![
///             Upcaster::from_old("shop.CartChanged", 1, |old: ChangedV1| match old {
///                 ChangedV1::Added { item } => vec![Changed::Added { item, count: 1 }],
///             }),
///             // A type that was given up: its events mean nothing today.
///             Upcaster::dropped("shop.CartViewed", 1),
///         ]
///     }
/// #   fn handle(&self, _: ()) -> Effect<Self> { Effect::none() }
/// #   fn apply(&mut self, _: &Changed) {}
/// }
/// ```
pub struct Upcaster<E: EventSourced> {
    name: &'static str,
    version: u16,
    read: Read<E>,
}

type Read<E> =
    Arc<dyn Fn(&[u8]) -> Result<Vec<<E as EventSourced>::Event>, FormatError> + Send + Sync>;

impl<E: EventSourced> Upcaster<E> {
    /// Stored events of this name and version are of the type `Old`, and `upcast` makes of each what it
    /// is today. It must be pure, as [`EventSourced::apply`].
    pub fn from_old<Old: DeserializeOwned>(
        name: &'static str,
        version: u16,
        upcast: impl Fn(Old) -> Vec<E::Event> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            version,
            read: Arc::new(move |payload| format::decode(payload).map(&upcast)),
        }
    }

    /// Stored events of this name and version are of today's type: it was renamed, or got a new
    /// version without a change of its layout.
    #[must_use]
    pub fn renamed(name: &'static str, version: u16) -> Self {
        Self::from_old(name, version, |event| vec![event])
    }

    /// Stored events of this name and version mean nothing any more. They are not even decoded.
    #[must_use]
    pub fn dropped(name: &'static str, version: u16) -> Self {
        Self {
            name,
            version,
            read: Arc::new(|_| Ok(Vec::new())),
        }
    }
}

impl<E: EventSourced> fmt::Debug for Upcaster<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcaster")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Reads stored events of one type of entity, whichever version wrote them. For those who read
/// events beside their entity, such as projections.
pub struct EventReader<E: EventSourced> {
    upcasters: Arc<[Upcaster<E>]>,
}

impl<E: EventSourced> Clone for EventReader<E> {
    fn clone(&self) -> Self {
        Self {
            upcasters: Arc::clone(&self.upcasters),
        }
    }
}

impl<E: EventSourced> Default for EventReader<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: EventSourced> fmt::Debug for EventReader<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventReader").field(&self.upcasters).finish()
    }
}

impl<E: EventSourced> EventReader<E> {
    /// A reader of today's type and of what its upcasters know.
    ///
    /// # Panics
    /// When the event type has a name that is Otava's own ([`is_own_record`]). A mistake in the program.
    #[must_use]
    pub fn new() -> Self {
        assert!(
            !is_own_record(E::EVENT_NAME),
            "the event name {:?} is reserved",
            E::EVENT_NAME
        );
        Self {
            upcasters: E::upcasters().into(),
        }
    }

    /// What a stored event is today: one event, several, or none. What Otava wrote beside the events
    /// of the entity ([`is_own_record`]) is none.
    ///
    /// # Errors
    /// [`RecoveryError::UnknownEvent`], [`RecoveryError::Decode`].
    pub fn read(&self, stored: &StoredEvent) -> Result<Vec<E::Event>, RecoveryError> {
        let EventRecord {
            name,
            version,
            payload,
            ..
        } = &stored.record;
        if is_own_record(name) {
            return Ok(Vec::new());
        }
        self.read_payload(stored.seq, name, *version, payload)
    }

    /// As [`Self::read`], of an entity that is encrypted.
    ///
    /// # Errors
    /// As [`Self::read`]; [`RecoveryError::Key`] when its key was shredded: nobody can read it any more.
    pub async fn read_encrypted(
        &self,
        keys: &dyn KeyStore,
        id: &PersistenceId,
        stored: &StoredEvent,
    ) -> Result<Vec<E::Event>, RecoveryError> {
        let (seq, record) = (stored.seq, &stored.record);
        if is_own_record(&record.name) {
            return Ok(Vec::new());
        }
        let mut codec = Codec::new(id.clone());
        codec.seal = Some(keys.key(id).await?.seal());
        let (name, version) = (&record.name, record.version);
        let opened = codec.open((What::Event, seq), (name, version), record.payload.clone());
        let payload = opened.map_err(|source| RecoveryError::Decode {
            seq,
            name: Arc::clone(name),
            version,
            source,
        })?;
        self.read_payload(seq, name, version, &payload)
    }

    pub(super) fn read_payload(
        &self,
        seq: u64,
        name: &Arc<str>,
        version: u16,
        payload: &[u8],
    ) -> Result<Vec<E::Event>, RecoveryError> {
        let mut upcasters = self.upcasters.iter();
        let events = if **name == *E::EVENT_NAME && version == E::EVENT_VERSION {
            format::decode(payload).map(|event| vec![event])
        } else if let Some(found) = upcasters.find(|of| of.name == &**name && of.version == version)
        {
            (found.read)(payload)
        } else {
            return Err(RecoveryError::UnknownEvent {
                seq,
                name: Arc::clone(name),
                version,
                known: E::EVENT_NAME,
                known_version: E::EVENT_VERSION,
            });
        };
        events.map_err(|source| RecoveryError::Decode {
            seq,
            name: Arc::clone(name),
            version,
            source,
        })
    }
}

/// Whether a record of this name is Otava's own: a letter, a confirmation, the end of an entity. Such
/// records stand among the events of an entity and have sequence numbers of their own; whoever reads
/// stored events passes over them. [`EventReader`] does.
#[must_use]
pub fn is_own_record(name: &str) -> bool {
    name.starts_with(mail::RESERVED)
}

#[cfg(test)]
mod tests;
