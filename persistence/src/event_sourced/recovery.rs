//! Recovery: brings an entity to the last event in its journal, from the newest usable snapshot.

use crate::codec::Codec;
use crate::error::JournalError;
use crate::event_sourced::entity::{Entity, EntityError};
use crate::event_sourced::post::{Change, Post};
use crate::event_sourced::{EventSourced, is_own_record};
use crate::format::sealed::What;
use crate::format::{self, FormatError, mail};
use crate::journal::{EventPage, EventRecord, StoredEvent};
use crate::keys::KeyError;
use crate::snapshot::Snapshot;
use std::sync::Arc;

/// Why a state could not be recovered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// An event has the right name and version, but cannot be decoded.
    #[error("event {seq} ({name}, version {version}): {source}")]
    Decode {
        /// Its sequence number.
        seq: u64,
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: u16,
        /// What is wrong.
        source: FormatError,
    },
    /// Events were deleted, and no snapshot that can be used stands for them.
    #[error(
        "events up to {deleted} were deleted, but the newest snapshot that can be used is of event \
         {snapshot}"
    )]
    EventsDeleted {
        /// The last event in the snapshot; 0 if there is none.
        snapshot: u64,
        /// The last event that was deleted.
        deleted: u64,
    },
    /// The snapshot holds events that the journal does not have.
    #[error("the snapshot is of event {snapshot}, but the journal ends at {highest}")]
    EventsMissing {
        /// The last event in the snapshot.
        snapshot: u64,
        /// The last event in the journal.
        highest: u64,
    },
    /// The entity is encrypted, and there is no key: it was shredded, or cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A record of a letter contradicts those before it.
    #[error("event {seq}: {reason}")]
    Letters {
        /// Its sequence number.
        seq: u64,
        /// The contradiction.
        reason: String,
    },
    /// A store could not be read, or found damage.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// An event is of another type, or of another version of it, and no upcaster knows it.
    #[error(
        "event {seq} is {name}, version {version}; this program knows {known}, version \
         {known_version}"
    )]
    UnknownEvent {
        /// Its sequence number.
        seq: u64,
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: u16,
        /// The name that is known.
        known: &'static str,
        /// The version that is known.
        known_version: u16,
    },
}

impl<E: EventSourced> Entity<E> {
    /// Brings the state to the last event in the journal. Waits for its turn first.
    pub(crate) async fn recover(&mut self) -> Result<(), EntityError> {
        let recoveries = self.place.options.recoveries.clone();
        let _turn = recoveries.turn().await;
        let recovered = self.restore_and_replay().await;
        recovered.map_err(|source| EntityError::Recovery {
            id: self.place.id.clone(),
            source,
        })
    }

    async fn restore_and_replay(&mut self) -> Result<(), RecoveryError> {
        if let Some(keys) = &self.place.keys {
            self.codec.seal = Some(keys.key(&self.place.id).await?.seal());
        }
        self.restore().await?;
        let snapshot = self.seq;
        let page_events = self.place.options.recovery_page.get();
        let journal = Arc::clone(&self.place.journal);
        let mut deletion = None;
        loop {
            let page = journal
                .read(&self.place.id, self.seq + 1, page_events)
                .await?;
            let highest = page.highest_seq;
            if highest < snapshot {
                return Err(RecoveryError::EventsMissing { snapshot, highest });
            }
            self.check_deleted(&page, snapshot)?;
            let last = page.events.is_empty();
            for stored in page.events {
                self.seq = stored.seq;
                let seq = stored.seq;
                if self.replay(stored)? {
                    deletion = Some((seq, page.deleted_seq));
                }
            }
            if last || self.seq >= highest {
                break;
            }
        }
        if let Some((seq, deleted)) = deletion {
            // Snapshots are removed after the events.
            let has_snapshot = 0 < snapshot && snapshot < seq;
            if deleted + 1 < seq || has_snapshot {
                self.finish_deletion(seq).await;
            }
        }
        Ok(())
    }

    /// Compares what was deleted with what is known: either a snapshot stands for it, or the record of
    /// a deletion follows.
    fn check_deleted(&self, page: &EventPage, snapshot: u64) -> Result<(), RecoveryError> {
        let deleted = page.deleted_seq;
        let follows = page.events.first();
        let is_end = follows.is_some_and(|stored| *stored.record.name == *mail::DELETED);
        if deleted > self.seq && !is_end {
            return Err(RecoveryError::EventsDeleted { snapshot, deleted });
        }
        Ok(())
    }

    /// Takes in one stored event; true when it says that the entity was deleted.
    fn replay(&mut self, stored: StoredEvent) -> Result<bool, RecoveryError> {
        if !is_own_record(&stored.record.name) {
            self.replay_event(stored)?;
            return Ok(false);
        }
        let change = Change::of(&stored, &self.codec)?;
        let is_end = matches!(change, Change::Deleted(_));
        if is_end {
            self.state = self.fresh.make();
        }
        let seq = stored.seq;
        let applied = self.post.apply(change);
        applied.map_err(|reason| RecoveryError::Letters { seq, reason })?;
        Ok(is_end)
    }

    fn replay_event(&mut self, stored: StoredEvent) -> Result<(), RecoveryError> {
        let StoredEvent { seq, record, .. } = stored;
        let EventRecord {
            name,
            version,
            payload,
            ..
        } = record;
        let opened = self
            .codec
            .open((What::Event, seq), (&name, version), payload);
        let payload = opened.map_err(|source| RecoveryError::Decode {
            seq,
            name: Arc::clone(&name),
            version,
            source,
        })?;
        for event in self.reader.read_payload(seq, &name, version, &payload)? {
            self.state.apply(&event);
        }
        Ok(())
    }

    /// A deletion was written and not carried out to its end: the process ended in between.
    async fn finish_deletion(&mut self, seq: u64) {
        if let Err(error) = self.place.remove_until(seq - 1).await {
            let id = &self.place.id;
            tracing::warn!(%id, %error, "the events of a deleted entity could not be removed");
        }
    }

    /// Takes the newest snapshot that can be used, if there is one.
    async fn restore(&mut self) -> Result<(), RecoveryError> {
        let Some(store) = self.place.snapshots.clone() else {
            return Ok(());
        };
        let mut seq_max = u64::MAX;
        while let Some(snapshot) = store.latest(&self.place.id, seq_max).await? {
            let seq = snapshot.seq;
            match decode_snapshot::<E>(snapshot, &self.codec) {
                Ok((content, post)) => {
                    self.state.restore(content);
                    (self.seq, self.post) = (seq, post);
                    return Ok(());
                }
                Err(reason) => {
                    let id = &self.place.id;
                    tracing::warn!(%id, seq, reason, "a snapshot is passed over");
                }
            }
            match seq.checked_sub(1) {
                Some(older) => seq_max = older,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

fn decode_snapshot<E: EventSourced>(
    snapshot: Snapshot,
    codec: &Codec,
) -> Result<(E::Snapshot, Post), String> {
    let (name, version) = (&*snapshot.name, snapshot.version);
    let read = || {
        let at = (What::Snapshot, snapshot.seq);
        let payload = codec.open(at, (name, version), snapshot.payload.into())?;
        let (mail, state) = mail::split_mail(&payload)?;
        let (outbox, inbox) = mail.into_boxes()?;
        let post = Post { outbox, inbox };
        let state = if name == E::EVENT_NAME && version == E::SNAPSHOT_VERSION {
            Some(format::decode(state))
        } else {
            E::upcast_snapshot(name, version, state)
        };
        state.transpose().map(|state| Some((state?, post)))
    };
    match read() {
        Ok(Some(content)) => Ok(content),
        Ok(None) => Err(format!("it is of {name}, version {version}")),
        Err(error) => Err(error.to_string()),
    }
}
