//! Entity: the life of one event-sourced state: recovery, then commands. Knows stores, not actors.

use crate::error::{AppendError, JournalError};
use crate::event_sourced::{Effect, EventSourced, Options};
use crate::format::{self, FormatError};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, EventRecord, Fence, Journal, StoredEvent};
use crate::snapshot::{Snapshot, SnapshotStore};
use std::sync::Arc;

/// Why an event-sourced actor failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError {
    /// The journal could not write, or nobody knows whether it did. Nothing was answered.
    #[error("{id}: cannot persist: {source}")]
    Append {
        /// Whose events.
        id: PersistenceId,
        /// What the journal said.
        source: JournalError,
    },
    /// An event cannot be encoded; nothing was persisted. A mistake in the event type.
    #[error("{id}: an event of {name}: {source}")]
    Encode {
        /// Whose event.
        id: PersistenceId,
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: FormatError,
    },
    /// The state could not be recovered; no command was handled.
    #[error("{id}: cannot recover: {source}")]
    Recovery {
        /// Whose state.
        id: PersistenceId,
        /// Why.
        source: RecoveryError,
    },
}

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
    /// The snapshot holds events that the journal does not have.
    #[error("the snapshot is of event {snapshot}, but the journal ends at {highest}")]
    EventsMissing {
        /// The last event in the snapshot.
        snapshot: u64,
        /// The last event in the journal.
        highest: u64,
    },
    /// A store could not be read, or found damage.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// An event is of another type, or of another version of it.
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

/// Where an entity lives.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) id: PersistenceId,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) snapshots: Option<Arc<dyn SnapshotStore>>,
    pub(super) fence: Option<Fence>,
    pub(super) options: Options,
}

/// What follows a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// The next command.
    Continue,
    /// The journal knows a newer owner.
    Fenced { current: u64 },
    /// Somebody else has written to this id.
    Overtaken { expected: u64, actual: u64 },
    /// The entity wants to stop.
    Stop,
}

pub(super) struct Entity<E> {
    place: Place,
    state: E,
    /// The last event in the state.
    seq: u64,
}

impl<E: EventSourced> Entity<E> {
    pub(super) fn new(place: Place, empty: E) -> Self {
        Self {
            place,
            state: empty,
            seq: 0,
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &E {
        &self.state
    }

    /// Brings the state to the last event in the journal. Waits for its turn first.
    pub(super) async fn recover(&mut self) -> Result<(), EntityError> {
        let recoveries = self.place.options.recoveries.clone();
        let _turn = recoveries.turn().await;
        let recovered = self.restore_and_replay().await;
        recovered.map_err(|source| EntityError::Recovery {
            id: self.place.id.clone(),
            source,
        })
    }

    async fn restore_and_replay(&mut self) -> Result<(), RecoveryError> {
        self.restore().await?;
        let snapshot = self.seq;
        let page_events = self.place.options.recovery_page.get();
        let journal = Arc::clone(&self.place.journal);
        loop {
            let page = journal
                .read(&self.place.id, self.seq + 1, page_events)
                .await?;
            let highest = page.highest_seq;
            if highest < snapshot {
                return Err(RecoveryError::EventsMissing { snapshot, highest });
            }
            let last = page.events.is_empty();
            for stored in page.events {
                let seq = stored.seq;
                self.state.apply(&decode_event::<E>(stored)?);
                self.seq = seq;
            }
            if last || self.seq >= highest {
                return Ok(());
            }
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
            match decode_snapshot::<E>(&snapshot) {
                Ok(content) => {
                    self.state.restore(content);
                    self.seq = seq;
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

    /// Handles one command: everything that [`Effect`] promises, in that order.
    pub(super) async fn handle(&mut self, command: E::Command) -> Result<Next, EntityError> {
        let Effect {
            events,
            confirm,
            replies,
            afterwards,
            stop,
        } = self.state.handle(command);
        let before = self.seq;
        if !events.is_empty() || confirm {
            let records = self.encode(&events)?;
            if let Some(refused) = self.persist(records).await? {
                return Ok(refused);
            }
            for event in &events {
                self.state.apply(event);
            }
        }
        for step in replies.into_iter().chain(afterwards) {
            step(&self.state);
        }
        self.take_snapshot(before).await;
        Ok(if stop { Next::Stop } else { Next::Continue })
    }

    fn encode(&self, events: &[E::Event]) -> Result<Vec<EventRecord>, EntityError> {
        let name: Arc<str> = E::EVENT_NAME.into();
        let record = |event| {
            let payload = format::encode(event).map_err(|source| EntityError::Encode {
                id: self.place.id.clone(),
                name: E::EVENT_NAME,
                source,
            })?;
            Ok(EventRecord::new(
                Arc::clone(&name),
                E::EVENT_VERSION,
                payload,
            ))
        };
        events.iter().map(record).collect()
    }

    /// Makes events durable; tells what follows when the journal refuses.
    async fn persist(&mut self, records: Vec<EventRecord>) -> Result<Option<Next>, EntityError> {
        let id = &self.place.id;
        let request = AppendRequest::new(id.clone(), self.seq, records);
        match self
            .place
            .journal
            .append(request.fenced(self.place.fence.clone()))
            .await
        {
            Ok(appended) => {
                self.seq = appended.seq;
                Ok(None)
            }
            Err(AppendError::Fenced { current }) => Ok(Some(Next::Fenced { current })),
            Err(AppendError::WrongSequence { expected, actual }) => {
                Ok(Some(Next::Overtaken { expected, actual }))
            }
            Err(AppendError::Store(source)) => Err(EntityError::Append {
                id: id.clone(),
                source,
            }),
        }
    }

    /// Stores a snapshot if a multiple of the configured number was passed. A snapshot that cannot
    /// be stored is no failure: the events are there.
    async fn take_snapshot(&mut self, before: u64) {
        let (Some(every), Some(store)) = (
            self.place.options.snapshot_every,
            self.place.snapshots.clone(),
        ) else {
            return;
        };
        if before / every == self.seq / every {
            return;
        }
        let Some(content) = self.state.snapshot() else {
            return;
        };
        let id = self.place.id.clone();
        let kept = self.place.options.snapshots_kept;
        let seq = self.seq;
        match format::encode(&content) {
            Ok(payload) => {
                let snapshot =
                    Snapshot::new(id.clone(), seq, E::EVENT_NAME, E::SNAPSHOT_VERSION, payload);
                if let Err(error) = store.save(snapshot, kept).await {
                    tracing::warn!(%id, seq, %error, "a snapshot could not be stored");
                }
            }
            Err(error) => tracing::warn!(%id, seq, %error, "a snapshot could not be encoded"),
        }
    }
}

fn decode_event<E: EventSourced>(stored: StoredEvent) -> Result<E::Event, RecoveryError> {
    let StoredEvent {
        seq,
        record:
            EventRecord {
                name,
                version,
                payload,
                ..
            },
        ..
    } = stored;
    if *name != *E::EVENT_NAME || version != E::EVENT_VERSION {
        let (known, known_version) = (E::EVENT_NAME, E::EVENT_VERSION);
        return Err(RecoveryError::UnknownEvent {
            seq,
            name,
            version,
            known,
            known_version,
        });
    }
    format::decode(&payload).map_err(|source| RecoveryError::Decode {
        seq,
        name,
        version,
        source,
    })
}

fn decode_snapshot<E: EventSourced>(snapshot: &Snapshot) -> Result<E::Snapshot, String> {
    if *snapshot.name != *E::EVENT_NAME || snapshot.version != E::SNAPSHOT_VERSION {
        return Err(format!(
            "it is of {}, version {}",
            snapshot.name, snapshot.version
        ));
    }
    format::decode(&snapshot.payload).map_err(|error| error.to_string())
}
