//! Snapshots: when one is taken, and which events need not be kept after it.

use crate::event_sourced::EventSourced;
use crate::event_sourced::entity::Entity;
use crate::format::sealed::What;
use crate::format::{self, FormatError, mail};
use crate::snapshot::{Snapshot, SnapshotStore};
use std::sync::Arc;

impl<E: EventSourced> Entity<E> {
    /// Stores a snapshot if it is `wanted`, or if a multiple of the configured number was passed since
    /// `before`. A snapshot that cannot be stored is no failure: the events are there.
    pub(super) async fn take_snapshot(&mut self, before: u64, wanted: bool) {
        let every = self.place.options.snapshot_every;
        let is_due = every.is_some_and(|every| before / every != self.seq / every);
        let Some(store) = self.place.snapshots.clone() else {
            return;
        };
        if !is_due && !wanted {
            return;
        }
        let Some(content) = self.state.snapshot() else {
            return;
        };
        let (id, seq) = (self.place.id.clone(), self.seq);
        let payload = match self.encode_snapshot(&content) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(%id, seq, %error, "a snapshot could not be encoded");
                return;
            }
        };
        let snapshot = Snapshot::new(id.clone(), seq, E::EVENT_NAME, E::SNAPSHOT_VERSION, payload);
        if let Err(error) = store
            .save(snapshot, self.place.options.snapshots_kept)
            .await
        {
            tracing::warn!(%id, seq, %error, "a snapshot could not be stored");
        } else if self.place.options.delete_covered_events {
            self.delete_covered(&store).await;
        }
    }

    fn encode_snapshot(&self, content: &E::Snapshot) -> Result<Vec<u8>, FormatError> {
        let state = format::encode(content)?;
        let mail = mail::Mail::of(&self.post.outbox, &self.post.inbox);
        let payload = mail::with_mail(&mail, state)?;
        let of = (E::EVENT_NAME, E::SNAPSHOT_VERSION);
        self.codec.close((What::Snapshot, self.seq), of, payload)
    }

    /// Deletes the events that every kept snapshot holds. Those that say that a letter waits stay, so
    /// that it is found. That it does not work is no failure: it is tried again with the next one.
    async fn delete_covered(&mut self, store: &Arc<dyn SnapshotStore>) {
        let id = self.place.id.clone();
        let mut oldest = self.seq;
        // The oldest of those that are kept; all but the newest were there before.
        for _ in 1..self.place.options.snapshots_kept.get() {
            let Some(below) = oldest.checked_sub(1) else {
                return;
            };
            match store.latest(&id, below).await {
                Ok(Some(older)) => oldest = older.seq,
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%id, %error, "snapshots could not be read; no event is deleted");
                    return;
                }
            }
        }
        let waits_from = self.post.outbox.oldest_seq().unwrap_or(u64::MAX);
        let through = oldest.min(waits_from.saturating_sub(1));
        if through == 0 {
            return;
        }
        if let Err(error) = self.place.delete_events(through).await {
            tracing::warn!(%id, through, %error, "events could not be deleted");
        }
    }
}

#[cfg(test)]
mod tests;
