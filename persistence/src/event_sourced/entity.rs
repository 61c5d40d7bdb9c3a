//! Entity: the life of one event-sourced state: recovery, then commands. Knows stores, not actors.

use crate::codec::Codec;
use crate::error::{AppendError, JournalError};
use crate::event_sourced::letter::{Delivery, Receiving, Sending, check_target};
use crate::event_sourced::post::{Change, Post};
use crate::event_sourced::{
    Courier, Effect, EventReader, EventSourced, Options, Parcel, Receipt, RecoveryError,
};
use crate::format::{self, FormatError};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, DeleteRequest, EventRecord, Fence, Journal};
use crate::keys::KeyStore;
use crate::logic::inbox::Verdict;
use crate::snapshot::SnapshotStore;
use otava_actor::ReplyTo;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The entity was deleted, and that is durable; but its events or snapshots could not be removed.
    /// Nothing was answered. It is tried again when the entity starts.
    #[error("{id}: deleted, but its events could not be removed: {source}")]
    Delete {
        /// Whose events.
        id: PersistenceId,
        /// What the store said.
        source: JournalError,
    },
    /// An event or a letter cannot be encoded; nothing was persisted. A mistake in its type.
    #[error("{id}: an event of {name}: {source}")]
    Encode {
        /// Whose event.
        id: PersistenceId,
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: FormatError,
    },
    /// A command wanted to send a letter, and the actor has no [`Courier`]. Nothing was persisted.
    #[error("{id}: a letter to {to}, but no courier was given")]
    NoCourier {
        /// Who wanted to send it.
        id: PersistenceId,
        /// Whom it was for.
        to: PersistenceId,
    },
    /// Somebody else has written to this id, or an append of an earlier instance, whose outcome nobody
    /// knew, was carried out late. Nothing was persisted or answered; the next instance reads what is
    /// there.
    #[error(
        "{id}: somebody else has written: expected to append after sequence number {expected}, but the \
         journal is at {actual}"
    )]
    Overtaken {
        /// Whose events.
        id: PersistenceId,
        /// What the entity took to be the newest sequence number.
        expected: u64,
        /// The newest sequence number.
        actual: u64,
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

/// Where an entity lives.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) id: PersistenceId,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) snapshots: Option<Arc<dyn SnapshotStore>>,
    pub(crate) fence: Option<Fence>,
    pub(crate) courier: Option<Arc<dyn Courier>>,
    pub(crate) keys: Option<Arc<dyn KeyStore>>,
    pub(crate) options: Options,
}

impl Place {
    pub(crate) async fn delete_events(&self, through: u64) -> Result<(), AppendError> {
        let request = DeleteRequest::new(self.id.clone(), through);
        let request = request.fenced(self.fence.clone());
        self.journal.delete(request).await
    }

    /// Removes events and snapshots up to `through`.
    pub(crate) async fn remove_until(&self, through: u64) -> Result<(), AppendError> {
        self.delete_events(through).await?;
        if let Some(store) = &self.snapshots {
            store.delete(&self.id, through).await?;
        }
        Ok(())
    }
}

/// Makes empty states.
pub(crate) struct Fresh<E>(Arc<Mutex<Box<dyn FnMut() -> E + Send>>>);

impl<E> Fresh<E> {
    pub(crate) fn new(create: impl FnMut() -> E + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(create))))
    }

    pub(crate) fn make(&self) -> E {
        // What panicked in it before is its own concern.
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))()
    }
}

impl<E> Clone for Fresh<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Told of every event that is durable, with its sequence number.
pub(crate) type Publish<E> = Box<dyn Fn(u64, &<E as EventSourced>::Event) + Send>;

/// What follows a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// The next command.
    Continue,
    /// The journal knows a newer owner.
    Fenced { current: u64 },
    /// The entity wants to stop.
    Stop,
}

pub(crate) struct Entity<E: EventSourced> {
    pub(crate) place: Place,
    pub(crate) state: E,
    /// The last event in the state.
    pub(crate) seq: u64,
    pub(crate) post: Post,
    pub(crate) codec: Codec,
    pub(crate) reader: EventReader<E>,
    pub(crate) fresh: Fresh<E>,
    pub(crate) publish: Option<Publish<E>>,
}

/// A letter that counts: it is taken with the effects it has.
struct Taken {
    from: PersistenceId,
    number: u64,
    reply_to: ReplyTo<Receipt>,
}

impl<E: EventSourced> Entity<E> {
    pub(crate) fn new(place: Place, fresh: Fresh<E>) -> Self {
        Self {
            codec: Codec::new(place.id.clone()),
            place,
            state: fresh.make(),
            seq: 0,
            post: Post::default(),
            reader: EventReader::new(),
            fresh,
            publish: None,
        }
    }

    /// Handles one command: everything that [`Effect`] promises, in that order.
    pub(crate) async fn handle(&mut self, command: E::Command) -> Result<Next, EntityError> {
        let mut effect = self.state.handle(command);
        let taken = match effect.receiving.take() {
            None => None,
            Some(receiving) => match self.open(receiving) {
                None => return Ok(Next::Continue),
                Some((of_letter, taken)) => {
                    effect = of_letter.followed_by(effect);
                    Some(taken)
                }
            },
        };
        if self.is_full(effect.letters.len()) {
            if let Some(Taken { reply_to, .. }) = taken {
                let reason = "its own letters do not get away".to_owned();
                let _ = reply_to.send(Receipt::Refused { reason });
            }
            return Ok(Next::Continue);
        }
        self.carry_out(effect, taken).await
    }

    /// Whether more letters would wait than may.
    fn is_full(&self, more: usize) -> bool {
        let (id, waiting) = (&self.place.id, self.post.outbox.len());
        let is_full = more > 0 && waiting + more > self.place.options.letters_waiting_max.get();
        if is_full {
            tracing::error!(%id, waiting, more, "too many letters wait: a command is refused");
        }
        is_full
    }

    /// Decides whether a letter counts, and what it leads to. One that does not is answered here.
    fn open(&self, receiving: Receiving<E>) -> Option<(Effect<E>, Taken)> {
        let Receiving { delivery, take } = receiving;
        let Delivery { parcel, reply_to } = delivery;
        let answer = match self.judge(&parcel) {
            Ok((from, Verdict::New)) => match take(&self.state, &from, &parcel) {
                Ok(effect) => {
                    let number = parcel.number;
                    let taken = Taken {
                        from,
                        number,
                        reply_to,
                    };
                    return Some((effect, taken));
                }
                Err(reason) => {
                    let id = &self.place.id;
                    tracing::warn!(%id, %from, reason, "a letter is refused");
                    Receipt::Refused { reason }
                }
            },
            Ok((_, Verdict::Gap { expected })) => Receipt::Gap { expected },
            Ok((_, Verdict::Taken { up_to })) => Receipt::Taken { up_to },
            Err(reason) => Receipt::Refused { reason },
        };
        // A sender that has gone asks again.
        let _ = reply_to.send(answer);
        None
    }

    fn judge(&self, parcel: &Parcel) -> Result<(PersistenceId, Verdict), String> {
        if *parcel.to != *self.place.id.as_str() {
            return Err(format!("this is {}", self.place.id));
        }
        let from = PersistenceId::parse(&parcel.from);
        let from = from.filter(|from| from.as_str().len() <= PersistenceId::BYTES_MAX);
        let from = from.ok_or_else(|| "the sender has no persistence id".to_owned())?;
        let verdict = self.post.inbox.judge(&from, parcel.number);
        Ok((from, verdict))
    }

    async fn carry_out(
        &mut self,
        effect: Effect<E>,
        taken: Option<Taken>,
    ) -> Result<Next, EntityError> {
        let before = self.seq;
        let mut wants_snapshot = false;
        let Effect {
            events,
            letters,
            confirm,
            delete,
            sequel,
            receiving: _,
        } = effect;
        let mut records = self.encode(&events)?;
        let changes = self.changes(letters, taken.as_ref(), delete, &mut records)?;
        if !records.is_empty() || confirm {
            if let Some(refused) = self.persist(records).await? {
                return Ok(refused);
            }
            wants_snapshot = self.take_in(&events, changes, before);
        }
        if delete && let Some(refused) = self.remove_all().await? {
            return Ok(refused);
        }
        if let Some(Taken {
            number: up_to,
            reply_to,
            ..
        }) = taken
        {
            let _ = reply_to.send(Receipt::Taken { up_to });
        }
        let stops = sequel.run(&self.state);
        if !delete {
            self.take_snapshot(before, wants_snapshot).await;
        }
        Ok(if stops { Next::Stop } else { Next::Continue })
    }

    fn encode(&self, events: &[E::Event]) -> Result<Vec<EventRecord>, EntityError> {
        let name: Arc<str> = E::EVENT_NAME.into();
        let record = |(seq, event)| {
            let payload = format::encode(event)?;
            let record = EventRecord::new(Arc::clone(&name), E::EVENT_VERSION, payload);
            let record = record.tagged(self.state.tags(event));
            self.codec.close_event(seq, record)
        };
        let records: Result<_, _> = (self.seq + 1..).zip(events).map(record).collect();
        records.map_err(|source| self.cannot_encode(E::EVENT_NAME, source))
    }

    fn cannot_encode(&self, name: &'static str, source: FormatError) -> EntityError {
        EntityError::Encode {
            id: self.place.id.clone(),
            name,
            source,
        }
    }

    /// What changes in outbox and inbox, with its records behind those of the events.
    fn changes(
        &self,
        letters: Vec<Sending>,
        taken: Option<&Taken>,
        delete: bool,
        records: &mut Vec<EventRecord>,
    ) -> Result<Vec<Change>, EntityError> {
        let mut changes = Vec::new();
        let add = |change: Change, name, changes: &mut Vec<Change>, records: &mut Vec<_>| {
            let seq = self.seq + records.len() as u64 + 1;
            let record = change.record(&self.codec, seq);
            records.push(record.map_err(|source| self.cannot_encode(name, source))?);
            changes.push(change);
            Ok::<_, EntityError>(())
        };
        let mut earlier = BTreeMap::<PersistenceId, u64>::new();
        for letter in letters {
            let (id, name) = (&self.place.id, letter.name);
            let refused = |source| EntityError::Append {
                id: id.clone(),
                source,
            };
            check_target(&letter.to).map_err(refused)?;
            if self.place.courier.is_none() {
                let (id, to) = (id.clone(), letter.to);
                return Err(EntityError::NoCourier { id, to });
            }
            let before = earlier.entry(letter.to.clone()).or_default();
            let seq = self.seq + records.len() as u64 + 1;
            let change = Change::sent(&self.post, letter, *before, seq);
            *before += 1;
            let change = change.map_err(|source| self.cannot_encode(name, source))?;
            add(change, name, &mut changes, records)?;
        }
        if let Some(Taken { from, number, .. }) = taken {
            let (from, number) = (from.clone(), *number);
            let received = Change::Received { from, number };
            add(received, "otava.received", &mut changes, records)?;
        }
        if delete {
            let mut post = self.post.clone();
            for change in changes.iter().cloned() {
                // They follow: they were made from it just now.
                let _ = post.apply(change);
            }
            add(
                Change::Deleted(post),
                "otava.deleted",
                &mut changes,
                records,
            )?;
        }
        Ok(changes)
    }

    /// Takes in what is durable now; true when a snapshot is wanted after it.
    fn take_in(&mut self, events: &[E::Event], changes: Vec<Change>, before: u64) -> bool {
        let mut wants_snapshot = false;
        for (seq, event) in (before + 1..).zip(events) {
            self.state.apply(event);
            wants_snapshot |= self.state.snapshot_when(event);
            if let Some(publish) = &self.publish {
                publish(seq, event);
            }
        }
        for change in changes {
            if matches!(change, Change::Deleted(_)) {
                self.state = self.fresh.make();
            }
            let applied = self.post.apply(change);
            assert_eq!(applied, Ok(()), "it was made from this state");
        }
        wants_snapshot
    }

    /// Makes events durable; tells what follows when the journal refuses.
    async fn persist(&mut self, records: Vec<EventRecord>) -> Result<Option<Next>, EntityError> {
        let id = &self.place.id;
        let request = AppendRequest::new(id.clone(), self.seq, records);
        let request = request.fenced(self.place.fence.clone());
        let appended = self.place.journal.append(request).await;
        match appended {
            Ok(appended) => {
                self.seq = appended.seq;
                Ok(None)
            }
            Err(error) => {
                let failed = |id, source| EntityError::Append { id, source };
                refusal(id.clone(), error, failed).map(Some)
            }
        }
    }

    /// Takes in that targets have letters: it is written, so that they are not delivered again.
    pub(crate) async fn confirm(
        &mut self,
        confirmed: impl IntoIterator<Item = (PersistenceId, u64)>,
    ) -> Result<Next, EntityError> {
        let news = confirmed
            .into_iter()
            .filter(|(to, up_to)| self.post.outbox.is_news(to, *up_to))
            .map(|(to, up_to)| Change::Confirmed { to, up_to });
        let changes: Vec<_> = news.collect();
        if changes.is_empty() {
            return Ok(Next::Continue);
        }
        let records = (self.seq + 1..).zip(&changes);
        let records = records.map(|(seq, change)| change.record(&self.codec, seq));
        let records: Result<Vec<_>, _> = records.collect();
        let records = records.map_err(|source| self.cannot_encode("otava.confirmed", source))?;
        let before = self.seq;
        if let Some(refused) = self.persist(records).await? {
            return Ok(refused);
        }
        self.take_in(&[], changes, before);
        self.take_snapshot(before, false).await;
        Ok(Next::Continue)
    }

    /// Removes everything before the record that says that the entity is deleted.
    async fn remove_all(&mut self) -> Result<Option<Next>, EntityError> {
        let Err(error) = self.place.remove_until(self.seq - 1).await else {
            return Ok(None);
        };
        let failed = |id, source| EntityError::Delete { id, source };
        refusal(self.place.id.clone(), error, failed).map(Some)
    }
}

/// What follows when the journal refuses. Who is no longer the owner has nothing to do any more; all
/// else is a failure, so that the next instance reads what is there.
fn refusal(
    id: PersistenceId,
    error: AppendError,
    failed: impl FnOnce(PersistenceId, JournalError) -> EntityError,
) -> Result<Next, EntityError> {
    match error {
        AppendError::Fenced { current } => Ok(Next::Fenced { current }),
        AppendError::Store(source) => Err(failed(id, source)),
        AppendError::WrongSequence { expected, actual } => Err(EntityError::Overtaken {
            id,
            expected,
            actual,
        }),
    }
}
