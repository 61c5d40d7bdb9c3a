//! Queue: keeps the messages of a producer in the journal until they are confirmed.
//!
//! A queue is one id in the journal. Its events say where a numbering begins, which messages were stored (large ones
//! in pieces), and which were confirmed. Each claim is the next term of the queue's scope, claimed as an epoch and
//! the fence of every write: what an earlier run still writes is refused by the transaction that would write it.
//!
//! What must hold:
//! - After a claim nobody else writes, so what is read then is what there is.
//! - All pieces of a message are in one append. To read an event again that was written twice changes nothing.
//! - Nothing is removed unless a later `Begun`, and all messages that live, are stored behind it. So the log begins with
//!   a `Begun`, and its length is bounded by the messages that are not confirmed, also if one of them never is.

use futures_util::future::BoxFuture;
use otava_cluster::delivery::{DeliveryQueue, QueueError, QueueState, StoredMessage};
use otava_persistence::format::{decode, encode};
use otava_persistence::{
    AppendError, AppendRequest, ClaimError, DeleteRequest, EventRecord, Fence, Journal,
    PersistenceId,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The kind of the persistence ids of queues.
const KIND: &str = "otava-delivery";
const NAME: &str = "otava.Delivery";
const VERSION: u16 = 1;
/// The log is written anew when it has this many events, and [`EVENTS_PER_MESSAGE`] for each message that lives.
const COMPACT_EVERY: u64 = 1_024;
const EVENTS_PER_MESSAGE: u64 = 4;
/// Bytes of a message in one event; more become several.
const PIECE_BYTES: usize = 8 << 20;
/// Of one append. A message may always be in one.
const APPEND_BYTES: usize = 8 << 20;
const APPEND_EVENTS: usize = 1_000;
/// Numbers in one event; more become several.
const CONFIRMED_MAX: usize = 10_000;
/// Events that are read at once.
const PAGE: usize = 500;

/// What happens in a queue. Stored: see the golden bytes in the tests.
#[derive(Deserialize, Serialize)]
enum Change {
    /// The identity of the numbering, and the greatest number that was stored.
    Begun {
        series: u64,
        last: u64,
    },
    /// The first bytes of the message that follows.
    Piece(Arc<[u8]>),
    Stored {
        number: u64,
        chunks: u64,
        bytes: Arc<[u8]>,
    },
    Confirmed(Vec<u64>),
}

/// The queue of a producer in a journal: for [`ProducerConfig::with_queue`](otava_cluster::delivery::ProducerConfig::with_queue).
///
/// Each producer has a queue with a name of its own. It may start on another node of the cluster if the journal is
/// there, too: the run before is refused from then on. `Node::delivery_queue` makes one.
///
/// ```no_run
/// use otava::Node;
/// use otava::delivery::{Producer, ProducerConfig};
/// # use otava::prelude::*;
/// # #[derive(Deserialize, Serialize)]
/// # struct Order(u64);
/// # impl RemoteMessage for Order { const NAME: &'static str = "shop.Order"; }
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let config = ProducerConfig::default().with_queue(node.delivery_queue("orders"));
/// let orders = Producer::start(node.system(), "orders-out", config).await?;
/// let mut sent = orders.send(Order(17)).await?;
/// // It outlives this process from here on.
/// sent.stored().await?;
/// # Ok(())
/// # }
/// ```
pub struct JournalDeliveryQueue {
    journal: Arc<dyn Journal>,
    id: PersistenceId,
    scope: Arc<str>,
    log: Mutex<Log>,
}

/// The queue as its newest claim has read and written it.
#[derive(Default)]
struct Log {
    claim: u64,
    /// Whether the rest is what the journal has.
    read: bool,
    seq: u64,
    /// The number of the event before the last `Begun`.
    begun: u64,
    series: Option<u64>,
    last: u64,
    live: BTreeMap<u64, StoredMessage>,
    /// Of a message whose last piece is still to be read.
    pieces: Vec<u8>,
}

impl JournalDeliveryQueue {
    /// The queue `name` in `journal`.
    pub fn new(journal: Arc<dyn Journal>, name: &str) -> Self {
        Self {
            journal,
            id: PersistenceId::new(KIND, name),
            scope: format!("{KIND}/{name}").into(),
            log: Mutex::default(),
        }
    }

    fn fence(&self, log: &Log) -> Option<Fence> {
        Some(Fence::new(self.scope.clone(), log.claim))
    }

    async fn take_over(&self, series: u64) -> Result<QueueState, QueueError> {
        let mut log = self.log.lock().await;
        let claim = self.journal.next_term(&self.scope).await;
        let claim = claim.map_err(QueueError::failed)?;
        match self.journal.claim(&self.scope, claim).await {
            Ok(()) => {}
            Err(ClaimError::Fenced { .. }) => return Err(QueueError::Superseded { claim }),
            Err(error) => return Err(QueueError::failed(error)),
        }
        *log = Log {
            claim,
            ..Log::default()
        };
        self.read(&mut log).await?;
        if log.series.is_none() {
            self.append(&mut log, vec![Change::Begun { series, last: 0 }])
                .await?;
        }
        let unconfirmed = log.live.values().cloned().collect();
        let series = log.series.unwrap_or(series);
        Ok(QueueState::new(series, claim, log.last, unconfirmed))
    }

    /// Reads all there is, after a claim, or when it is not known what was written.
    async fn read(&self, log: &mut Log) -> Result<(), QueueError> {
        *log = Log {
            claim: log.claim,
            ..Log::default()
        };
        loop {
            let page = self.journal.read(&self.id, log.seq + 1, PAGE).await;
            let page = page.map_err(QueueError::failed)?;
            let is_last = page.events.is_empty();
            for event in page.events {
                let (name, version) = (&*event.record.name, event.record.version);
                if (name, version) != (NAME, VERSION) {
                    return Err(self.strange(format_args!("{name}, version {version}")));
                }
                let change = decode(&event.record.payload).map_err(QueueError::failed)?;
                let begins = matches!(change, Change::Begun { .. });
                if log.series.is_none() && !begins {
                    return Err(self.strange("events whose beginning is gone"));
                }
                log.take(event.seq, change);
            }
            if is_last {
                log.seq = log.seq.max(page.highest_seq);
                if log.series.is_none() && log.seq > 0 {
                    return Err(self.strange("nothing of all that was written"));
                }
                log.read = true;
                return Ok(());
            }
        }
    }

    fn strange(&self, what: impl std::fmt::Display) -> QueueError {
        QueueError::failed(format_args!("{} holds {what}", self.id))
    }

    /// Writes what `changes` says, if the claim holds. Without any the claim is looked at all the same.
    async fn write(
        &self,
        claim: u64,
        changes: impl IntoIterator<Item = Vec<Change>>,
    ) -> Result<(), QueueError> {
        let mut log = self.log.lock().await;
        if log.claim != claim {
            return Err(QueueError::Superseded { claim });
        }
        if !log.read {
            self.read(&mut log).await?;
        }
        for changes in appends(changes) {
            self.append(&mut log, changes).await?;
        }
        let length = log.seq - log.begun;
        if length > COMPACT_EVERY.max(log.live.len() as u64 * EVENTS_PER_MESSAGE)
            && let Err(error) = self.compact(&mut log).await
        {
            // What was asked for is done. It is tried again after the next change.
            tracing::debug!(id = %self.id, %error, "a queue of messages was not compacted");
        }
        Ok(())
    }

    async fn append(&self, log: &mut Log, changes: Vec<Change>) -> Result<(), QueueError> {
        let events = changes.iter().map(|change| {
            let payload = encode(change).map_err(QueueError::failed)?;
            Ok(EventRecord::new(NAME, VERSION, payload))
        });
        let events = events.collect::<Result<Vec<_>, QueueError>>()?;
        let request = AppendRequest::new(self.id.clone(), log.seq, events);
        // After an error, or when nobody waits any more, it is not known whether it was written.
        log.read = false;
        match self.journal.append(request.fenced(self.fence(log))).await {
            Ok(_) => {
                for change in changes {
                    log.take(log.seq + 1, change);
                }
                log.read = true;
                Ok(())
            }
            Err(AppendError::Fenced { .. }) => Err(QueueError::Superseded { claim: log.claim }),
            Err(error) => Err(QueueError::failed(error)),
        }
    }

    /// Writes what lives once more, and removes what was before.
    async fn compact(&self, log: &mut Log) -> Result<(), QueueError> {
        let before = log.seq;
        let begun = Change::Begun {
            series: log.series.unwrap_or_default(),
            last: log.last,
        };
        let live: Vec<_> = log.live.values().cloned().map(stored).collect();
        for changes in appends(std::iter::once(vec![begun]).chain(live)) {
            self.append(log, changes).await?;
        }
        let delete = DeleteRequest::new(self.id.clone(), before).fenced(self.fence(log));
        self.journal
            .delete(delete)
            .await
            .map_err(QueueError::failed)
    }
}

impl Log {
    fn take(&mut self, seq: u64, change: Change) {
        self.seq = seq;
        match change {
            Change::Begun { series, last } => {
                self.begun = seq - 1;
                self.series = Some(series);
                self.last = self.last.max(last);
            }
            Change::Piece(bytes) => self.pieces.extend_from_slice(&bytes),
            Change::Stored {
                number,
                chunks,
                bytes,
            } => {
                let bytes = if self.pieces.is_empty() {
                    bytes
                } else {
                    self.pieces.extend_from_slice(&bytes);
                    std::mem::take(&mut self.pieces).into()
                };
                let message = StoredMessage {
                    number,
                    chunks,
                    bytes,
                };
                self.last = self.last.max(number);
                self.live.insert(number, message);
            }
            Change::Confirmed(numbers) => {
                for number in numbers {
                    self.live.remove(&number);
                }
            }
        }
    }
}

/// The changes that store a message.
fn stored(message: StoredMessage) -> Vec<Change> {
    let StoredMessage {
        number,
        chunks,
        bytes,
    } = message;
    let whole = bytes.len().saturating_sub(1) / PIECE_BYTES * PIECE_BYTES;
    let pieces = bytes[..whole].chunks(PIECE_BYTES);
    let mut changes: Vec<_> = pieces.map(|piece| Change::Piece(piece.into())).collect();
    let bytes = if whole == 0 {
        bytes
    } else {
        bytes[whole..].into()
    };
    changes.push(Change::Stored {
        number,
        chunks,
        bytes,
    });
    changes
}

/// Joins changes that belong together to appends of a bounded size; to one that is empty if there are none.
fn appends(changes: impl IntoIterator<Item = Vec<Change>>) -> Vec<Vec<Change>> {
    let mut appends = vec![Vec::new()];
    let mut room = APPEND_BYTES;
    for together in changes {
        let bytes = together.iter().map(Change::bytes).sum();
        let append = appends.last_mut().filter(|append| {
            append.is_empty() || (bytes <= room && append.len() + together.len() <= APPEND_EVENTS)
        });
        match append {
            Some(append) => {
                room = room.saturating_sub(bytes);
                append.extend(together);
            }
            None => {
                room = APPEND_BYTES.saturating_sub(bytes);
                appends.push(together);
            }
        }
    }
    appends
}

impl Change {
    /// Roughly, in the journal.
    fn bytes(&self) -> usize {
        const ROW: usize = 64;
        ROW + match self {
            Self::Begun { .. } => 0,
            Self::Piece(bytes) | Self::Stored { bytes, .. } => bytes.len(),
            Self::Confirmed(numbers) => size_of_val(numbers.as_slice()),
        }
    }
}

impl DeliveryQueue for JournalDeliveryQueue {
    fn claim(&self, series: u64) -> BoxFuture<'_, Result<QueueState, QueueError>> {
        Box::pin(self.take_over(series))
    }

    fn store(
        &self,
        claim: u64,
        messages: Vec<StoredMessage>,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.write(claim, messages.into_iter().map(stored)))
    }

    fn confirm(&self, claim: u64, numbers: Vec<u64>) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let confirmed = numbers.chunks(CONFIRMED_MAX);
            let confirmed = confirmed.map(|numbers| vec![Change::Confirmed(numbers.to_vec())]);
            self.write(claim, confirmed).await
        })
    }
}

impl std::fmt::Debug for JournalDeliveryQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("JournalDeliveryQueue")
            .field(&self.id)
            .finish()
    }
}

#[cfg(test)]
mod tests;
