//! DeadLetters: counts what could not be delivered, by reason, and tells subscribers.
//!
//! The log gets one line at level info for the first dead letter of each reason, then at most one a
//! second and reason at level debug that says how many there were since the last one.

use crate::observe::metrics::SystemMetrics;
use crate::path::ActorPath;
use crate::time::Clock;
use metrics::Counter;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::broadcast;
use tracing::Level;

/// How many dead letters a subscriber may be behind before it misses some.
const SUBSCRIBER_LETTERS_MAX: usize = 1_024;

/// Between two lines in the log about dead letters of one reason.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The message was put into a [`crate::Stash`], and dropped with it: its actor stopped or was
    /// made anew.
    LeftInStash,
    /// The function of an adapter ([`crate::ActorRef::adapt`]) panicked on the message.
    NotConverted,
    /// The mailbox was full; the sender got the message back.
    RefusedFull,
    /// The actor had stopped; the sender got the message back.
    RefusedStopped,
    /// The message was on its way to another node and did not get there.
    Unreachable,
}

impl DeadLetterReason {
    /// All of them, in the order of their counters.
    const ALL: [Self; 9] = [
        Self::DroppedOldest,
        Self::Expired,
        Self::LateReply,
        Self::LeftInMailbox,
        Self::LeftInStash,
        Self::NotConverted,
        Self::RefusedFull,
        Self::RefusedStopped,
        Self::Unreachable,
    ];

    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DroppedOldest => "dropped_oldest",
            Self::Expired => "expired",
            Self::LateReply => "late_reply",
            Self::LeftInMailbox => "left_in_mailbox",
            Self::LeftInStash => "left_in_stash",
            Self::NotConverted => "not_converted",
            Self::RefusedFull => "refused_full",
            Self::RefusedStopped => "refused_stopped",
            Self::Unreachable => "unreachable",
        }
    }
}

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
    tallies: [Tally; DeadLetterReason::ALL.len()],
    clock: Clock,
    subscribers: OnceLock<broadcast::Sender<DeadLetter>>,
}

/// One reason.
struct Tally {
    count: AtomicU64,
    metric: Option<Counter>,
    /// When the next line may be logged, in nanoseconds on the system's clock; 0 before the first.
    log_from: AtomicU64,
    /// The count at the last line.
    told: AtomicU64,
}

impl DeadLetters {
    pub(crate) fn new(clock: Clock, metrics: Option<&SystemMetrics>) -> Self {
        let mut counters = metrics.map_or_else(Vec::new, |metrics| {
            metrics.dead_letters(&DeadLetterReason::ALL)
        });
        counters.reverse();
        let tallies = DeadLetterReason::ALL.map(|_| Tally {
            count: AtomicU64::new(0),
            metric: counters.pop(),
            log_from: AtomicU64::new(0),
            told: AtomicU64::new(0),
        });
        Self(Arc::new(Inner {
            tallies,
            clock,
            subscribers: OnceLock::new(),
        }))
    }

    /// How many there were for this reason since the system started.
    pub fn count(&self, reason: DeadLetterReason) -> u64 {
        self.0.tallies[reason as usize]
            .count
            .load(Ordering::Relaxed)
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.0
            .tallies
            .iter()
            .map(|tally| tally.count.load(Ordering::Relaxed))
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
        let tally = &self.0.tallies[reason as usize];
        let count = tally.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(metric) = &tally.metric {
            metric.increment(1);
        }
        if tracing::enabled!(Level::INFO) {
            self.log(tally, count, path, reason, message_type);
        }
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

    /// One line for the first of a reason, then at most one a second, without the content.
    fn log(
        &self,
        tally: &Tally,
        count: u64,
        path: &ActorPath,
        reason: DeadLetterReason,
        message_type: &'static str,
    ) {
        let now = self.0.clock.now();
        let next = (now + LOG_INTERVAL).as_nanos();
        let from = tally.log_from.load(Ordering::Relaxed);
        let taken = || {
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            tally
                .log_from
                .compare_exchange(from, next, success, failure)
                .is_ok()
        };
        // Of those who come at the same moment one writes the line.
        if now.as_nanos() < from || !taken() {
            return;
        }
        let new = count.saturating_sub(tally.told.swap(count, Ordering::Relaxed));
        let reason = reason.name();
        if from == 0 {
            tracing::info!(
                actor = %path,
                reason,
                message_type,
                "the first dead letter of this reason; later ones are told at debug"
            );
        } else {
            tracing::debug!(actor = %path, reason, message_type, new, "dead letters");
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
        let letters = DeadLetters::new(Clock::start(), None);
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
