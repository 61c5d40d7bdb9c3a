//! DeadLetters: counts what could not be delivered, by reason, and tells subscribers.

use crate::path::ActorPath;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::broadcast;

/// How many dead letters a subscriber may be behind before it misses some.
const SUBSCRIBER_LETTERS_MAX: usize = 1_024;

/// Why something was not delivered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// The mailbox gives up its oldest message when it is full, and this was the oldest.
    DroppedOldest,
    /// Its asker had stopped waiting before it was handled, so it was not handled.
    Expired,
    /// An answer came when its asker no longer waited.
    LateReply,
    /// The message was accepted, but its actor stopped before it was handled.
    LeftInMailbox,
    /// The mailbox was full; the sender got the message back.
    RefusedFull,
    /// The actor had stopped; the sender got the message back.
    RefusedStopped,
    /// The message was on its way to another node and did not get there.
    Unreachable,
}

const REASONS: usize = 7;

/// One message, or answer, that was not delivered. The content is not kept.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Whom it was for. For a late answer: who was asked.
    pub path: ActorPath,
    /// Why it was not delivered.
    pub reason: DeadLetterReason,
    /// The Rust type of the message.
    pub message_type: &'static str,
}

/// The dead letters of one system: counters and a subscription. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters(Arc<Inner>);

struct Inner {
    counts: [AtomicU64; REASONS],
    subscribers: OnceLock<broadcast::Sender<DeadLetter>>,
}

impl DeadLetters {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            counts: Default::default(),
            subscribers: OnceLock::new(),
        }))
    }

    /// How many there were for this reason since the system started.
    pub fn count(&self, reason: DeadLetterReason) -> u64 {
        self.0.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Dead letters from now on. A subscriber that falls more than 1,024 behind misses the oldest
    /// and is told how many.
    pub fn subscribe(&self) -> DeadLetterEvents {
        let channel = self
            .0
            .subscribers
            .get_or_init(|| broadcast::Sender::new(SUBSCRIBER_LETTERS_MAX));
        DeadLetterEvents {
            receiver: channel.subscribe(),
        }
    }

    /// Counts one and tells the subscribers. For layers that carry messages further, and for
    /// programs that give up on a message which they got back.
    pub fn report(&self, path: &ActorPath, reason: DeadLetterReason, message_type: &'static str) {
        self.0.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(channel) = self.0.subscribers.get()
            && channel.receiver_count() > 0
        {
            // An error means that the last subscriber has just gone.
            let _ = channel.send(DeadLetter {
                path: path.clone(),
                reason,
                message_type,
            });
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

/// A subscription to dead letters.
#[derive(Debug)]
pub struct DeadLetterEvents {
    receiver: broadcast::Receiver<DeadLetter>,
}

/// What a subscriber sees.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DeadLetterEvent {
    /// Something was not delivered.
    Letter(DeadLetter),
    /// The subscriber was too slow: this many events were lost to it.
    Missed(u64),
}

impl DeadLetterEvents {
    /// The next event; `None` when the system is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<DeadLetterEvent> {
        match self.receiver.recv().await {
            Ok(letter) => Some(DeadLetterEvent::Letter(letter)),
            Err(broadcast::error::RecvError::Lagged(n)) => Some(DeadLetterEvent::Missed(n)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_missed() {
        let letters = DeadLetters::new();
        let mut events = letters.subscribe();
        let path = ActorPath::new("sys/a");
        for _ in 0..SUBSCRIBER_LETTERS_MAX + 3 {
            letters.report(&path, DeadLetterReason::LateReply, "u32");
        }
        assert_eq!(events.recv().await, Some(DeadLetterEvent::Missed(3)));
        assert!(matches!(events.recv().await, Some(DeadLetterEvent::Letter(l)) if l.path == path));
        assert_eq!(letters.count(DeadLetterReason::LateReply), letters.total());
    }
}
