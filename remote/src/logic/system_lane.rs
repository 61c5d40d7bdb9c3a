//! System lane: sees to it that watch, unwatch and terminated arrive, each once and in order.
//!
//! The sender numbers its messages from 1 and keeps each until it is acknowledged; the receiver takes
//! the next number and nothing else, and acknowledges the last one that it took. After a new
//! connection, and when acknowledgements stay away, everything that is not acknowledged is sent again.
//! Both ends are of one run of each node: when either starts anew, both ends start anew.

use otava_actor::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// The sending end.
#[derive(Debug)]
pub(crate) struct SystemOut<T> {
    /// Not acknowledged, in order; the first has the number `acked + 1`.
    unacked: VecDeque<T>,
    acked: u64,
    /// When everything is sent again.
    resend_at: Time,
    /// Since when nothing was acknowledged although something waits.
    silent_since: Time,
    resend: Duration,
    messages_max: usize,
}

/// More system messages wait than may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Overflow;

impl<T: Clone> SystemOut<T> {
    /// An end that has sent nothing.
    pub(crate) fn new(resend: Duration, messages_max: usize) -> Self {
        Self {
            unacked: VecDeque::new(),
            acked: 0,
            resend_at: Time::MAX,
            silent_since: Time::MAX,
            resend,
            messages_max,
        }
    }

    /// Takes a message and returns its number.
    ///
    /// # Errors
    /// [`Overflow`] if too many wait; the message is not taken.
    pub(crate) fn push(&mut self, now: Time, message: T) -> Result<u64, Overflow> {
        if self.unacked.len() >= self.messages_max {
            return Err(Overflow);
        }
        if self.unacked.is_empty() {
            self.silent_since = now;
            self.resend_at = now + self.resend;
        }
        self.unacked.push_back(message);
        Ok(self.acked + self.unacked.len() as u64)
    }

    /// The peer has taken everything up to `seq`. Numbers that were not sent are ignored.
    pub(crate) fn acknowledged(&mut self, now: Time, seq: u64) {
        let Some(count) = seq.checked_sub(self.acked) else {
            return;
        };
        if count == 0 || count > self.unacked.len() as u64 {
            return;
        }
        self.unacked.drain(..count as usize);
        self.acked = seq;
        let waits = !self.unacked.is_empty();
        self.silent_since = if waits { now } else { Time::MAX };
        self.resend_at = if waits { now + self.resend } else { Time::MAX };
    }

    /// Everything that is not acknowledged, with its numbers, to be sent again.
    pub(crate) fn all(&mut self, now: Time) -> Vec<(u64, T)> {
        if !self.unacked.is_empty() {
            self.resend_at = now + self.resend;
        }
        let numbers = self.acked + 1..;
        numbers.zip(self.unacked.iter().cloned()).collect()
    }

    /// When everything should be sent again.
    pub(crate) fn resend_at(&self) -> Time {
        self.resend_at
    }

    /// Since when the peer owes an acknowledgement.
    pub(crate) fn silent_since(&self) -> Time {
        self.silent_since
    }

    /// Whether nothing was ever sent.
    pub(crate) fn is_fresh(&self) -> bool {
        self.acked == 0 && self.unacked.is_empty()
    }

    /// Whether nothing waits for its acknowledgement.
    pub(crate) fn is_settled(&self) -> bool {
        self.unacked.is_empty()
    }
}

/// The receiving end.
#[derive(Debug, Default)]
pub(crate) struct SystemIn {
    taken: u64,
}

impl SystemIn {
    /// Whether the message of this number is to be handled now. If not it was handled before, or
    /// one before it is missing and will come again.
    pub(crate) fn take(&mut self, seq: u64) -> bool {
        let next = self.taken.checked_add(1) == Some(seq);
        self.taken += u64::from(next);
        next
    }

    /// The number to acknowledge.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::Rng;
    use proptest::prelude::*;

    const RESEND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_acknowledged_is_forgotten_and_nonsense_is_ignored() {
        let mut out = SystemOut::new(RESEND, 3);
        for message in ['a', 'b', 'c'] {
            out.push(Time::ZERO, message).unwrap();
        }
        assert_eq!(out.push(Time::ZERO, 'd'), Err(Overflow));
        out.acknowledged(Time::ZERO, 9);
        out.acknowledged(Time::ZERO, 0);
        assert_eq!(out.all(Time::ZERO).len(), 3);
        out.acknowledged(Time::ZERO + RESEND, 2);
        assert_eq!(out.all(Time::ZERO + RESEND), [(3, 'c')]);
        assert_eq!(out.silent_since(), Time::ZERO + RESEND);
        out.acknowledged(Time::MAX, 3);
        assert!(out.is_settled() && out.resend_at() == Time::MAX);
    }

    proptest! {
        /// R2: over a line that loses, repeats and reorders, each message arrives once, in order.
        #[test]
        fn every_message_arrives_once_and_in_order(seed: u64) {
            let mut rng = Rng::seeded(seed);
            let (mut out, mut end) = (SystemOut::new(RESEND, 1_000), SystemIn::default());
            let mut now = Time::ZERO;
            let (mut line, mut got) = (Vec::new(), Vec::new());
            for message in 0..500_u32 {
                let seq = out.push(now, message).unwrap();
                line.push((seq, message));
            }
            for _ in 0..100_000 {
                if out.is_settled() {
                    break;
                }
                if line.is_empty() {
                    now = now.max(out.resend_at());
                    line = out.all(now);
                }
                let (seq, message) = match rng.below(10) {
                    0 => line.swap_remove(rng.below(line.len() as u64) as usize),
                    1 => line[0],
                    _ => line.remove(0),
                };
                if rng.below(20) == 0 {
                    continue;
                }
                if end.take(seq) {
                    got.push(message);
                }
                if rng.below(20) > 0 {
                    out.acknowledged(now, end.taken());
                }
            }
            prop_assert!(out.is_settled());
            prop_assert_eq!(got, (0..500).collect::<Vec<_>>());
        }
    }
}
