//! Durable state actor: reads its state, then handles commands one by one, and stops when it is fenced.

use crate::codec::Codec;
use crate::durable_state::effect::Change;
use crate::durable_state::{DurableState, StateEffect};
use crate::error::{AppendError, JournalError};
use crate::event_sourced::{Fresh, Recoveries};
use crate::format::sealed::What;
use crate::format::{self, FormatError};
use crate::id::PersistenceId;
use crate::journal::{EventRecord, Fence};
use crate::keys::{KeyError, KeyStore};
use crate::state::{SaveState, StateStore, StoredState};
use otava_actor::{Actor, Context};
use std::sync::Arc;

/// Why an actor with durable state failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The stored state has the right name and version, or an upcaster knows it, but cannot be decoded.
    #[error("{id}: revision {revision} ({name}, version {version}): {source}")]
    Decode {
        /// Whose state.
        id: PersistenceId,
        /// Its revision.
        revision: u64,
        /// Its name.
        name: Arc<str>,
        /// Its version.
        version: u16,
        /// What is wrong.
        source: FormatError,
    },
    /// The state cannot be encoded; nothing was stored. A mistake in its type.
    #[error("{id}: a state of {name}: {source}")]
    Encode {
        /// Whose state.
        id: PersistenceId,
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: FormatError,
    },
    /// There is no key to read it with: it was shredded, or cannot be had.
    #[error("{id}: {source}")]
    Key {
        /// Whose state.
        id: PersistenceId,
        /// Why.
        source: KeyError,
    },
    /// The state could not be read; no command was handled.
    #[error("{id}: cannot load: {source}")]
    Load {
        /// Whose state.
        id: PersistenceId,
        /// What the store said.
        source: JournalError,
    },
    /// Somebody else has written this state, or a save of an earlier instance, whose outcome nobody
    /// knew, was carried out late. Nothing was stored or answered; the next instance reads what is
    /// there.
    #[error(
        "{id}: somebody else has written: expected to save after revision {expected}, but the store is \
         at {actual}"
    )]
    Overtaken {
        /// Whose state.
        id: PersistenceId,
        /// What the actor took to be the newest revision.
        expected: u64,
        /// The newest revision.
        actual: u64,
    },
    /// The store could not write, or nobody knows whether it did. Nothing was answered.
    #[error("{id}: cannot save: {source}")]
    Save {
        /// Whose state.
        id: PersistenceId,
        /// What the store said.
        source: JournalError,
    },
    /// The stored state is of another type, or of another version of it, and [`DurableState::upcast`]
    /// does not know it.
    #[error(
        "{id}: revision {revision} is {name}, version {version}; this program knows {known}, version \
         {known_version}"
    )]
    UnknownState {
        /// Whose state.
        id: PersistenceId,
        /// Its revision.
        revision: u64,
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

/// Where an actor with durable state lives.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) id: PersistenceId,
    pub(super) store: Arc<dyn StateStore>,
    pub(super) fence: Option<Fence>,
    pub(super) keys: Option<Arc<dyn KeyStore>>,
    pub(super) recoveries: Option<Recoveries>,
}

/// The actor around a [`DurableState`]. Made by [`crate::durable_state()`].
///
/// # Failure
/// It fails when its state cannot be read, when the store cannot write, and when somebody else has
/// written: nothing is tried again, the next instance reads what is stored. It stops, and its shard is
/// told, when the store says that it is no longer the owner.
pub struct DurableStateActor<S> {
    place: Place,
    codec: Codec,
    fresh: Fresh<S>,
    state: S,
    revision: u64,
    on_fenced: Arc<dyn Fn() + Send + Sync>,
}

impl<S: DurableState> DurableStateActor<S> {
    pub(super) fn new(
        place: Place,
        fresh: Fresh<S>,
        on_fenced: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            codec: Codec::new(place.id.clone()),
            place,
            state: fresh.make(),
            fresh,
            revision: 0,
            on_fenced,
        }
    }

    async fn recover(&mut self) -> Result<(), StateError> {
        let recoveries = self.place.recoveries.clone();
        let _turn = match &recoveries {
            Some(recoveries) => recoveries.turn().await,
            None => None,
        };
        let id = || self.place.id.clone();
        if let Some(keys) = &self.place.keys {
            let key = keys.key(&self.place.id).await;
            let key = key.map_err(|source| StateError::Key { id: id(), source })?;
            self.codec.seal = Some(key.seal());
        }
        let loaded = self.place.store.load(&self.place.id).await;
        let loaded = loaded.map_err(|source| StateError::Load { id: id(), source })?;
        let Some(StoredState {
            revision, record, ..
        }) = loaded
        else {
            return Ok(());
        };
        self.revision = revision;
        if let Some(record) = record {
            let mut state = self.decode(record)?;
            state.recovered(self.fresh.make());
            self.state = state;
        }
        Ok(())
    }

    fn decode(&self, record: EventRecord) -> Result<S, StateError> {
        let EventRecord {
            name,
            version,
            payload,
            ..
        } = record;
        let (id, revision) = (self.place.id.clone(), self.revision);
        let opened = self
            .codec
            .open((What::State, revision), (&name, version), payload);
        let state = match opened {
            Err(error) => Some(Err(error)),
            Ok(payload) if *name == *S::STATE_NAME && version == S::STATE_VERSION => {
                Some(format::decode(&payload))
            }
            Ok(payload) => S::upcast(&name, version, &payload),
        };
        match state {
            Some(Ok(state)) => Ok(state),
            Some(Err(source)) => Err(StateError::Decode {
                id,
                revision,
                name,
                version,
                source,
            }),
            None => Err(StateError::UnknownState {
                id,
                revision,
                name,
                version,
                known: S::STATE_NAME,
                known_version: S::STATE_VERSION,
            }),
        }
    }

    fn encode(&self, state: &S) -> Result<EventRecord, StateError> {
        let of = (S::STATE_NAME, S::STATE_VERSION);
        let at = (What::State, self.revision + 1);
        let payload = format::encode(state).and_then(|plain| self.codec.close(at, of, plain));
        let payload = payload.map_err(|source| StateError::Encode {
            id: self.place.id.clone(),
            name: S::STATE_NAME,
            source,
        })?;
        Ok(EventRecord::new(S::STATE_NAME, S::STATE_VERSION, payload).tagged(state.tags()))
    }

    /// Makes a change durable; false when the store says that another one owns this.
    async fn save(&mut self, record: Option<EventRecord>) -> Result<bool, StateError> {
        let id = &self.place.id;
        let save = SaveState::new(id.clone(), self.revision, record);
        let save = save.fenced(self.place.fence.clone());
        match self.place.store.save(save).await {
            Ok(saved) => {
                self.revision = saved.revision;
                Ok(true)
            }
            Err(AppendError::Fenced { current }) => {
                let fence = &self.place.fence;
                tracing::warn!(%id, ?fence, current, "another owner has taken over: this one stops");
                (self.on_fenced)();
                Ok(false)
            }
            Err(AppendError::Store(source)) => Err(StateError::Save {
                id: id.clone(),
                source,
            }),
            Err(AppendError::WrongSequence { expected, actual }) => Err(StateError::Overtaken {
                id: id.clone(),
                expected,
                actual,
            }),
        }
    }

    /// Makes the change of an effect durable, and takes it in.
    async fn change(&mut self, change: Change<S>) -> Result<bool, StateError> {
        let (record, state) = match change {
            Change::None => return Ok(true),
            Change::Delete => (None, self.fresh.make()),
            Change::Set(state) => (Some(self.encode(&state)?), state),
        };
        let is_saved = self.save(record).await?;
        if is_saved {
            self.state = state;
        }
        Ok(is_saved)
    }
}

impl<S: DurableState> Actor for DurableStateActor<S> {
    type Msg = S::Command;
    type Err = StateError;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), StateError> {
        self.recover().await
    }

    async fn handle(
        &mut self,
        command: S::Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), StateError> {
        let StateEffect { change, sequel } = self.state.handle(command);
        if !self.change(change).await? || sequel.run(&self.state) {
            ctx.stop_self();
        }
        Ok(())
    }
}
