//! Large window: how many bytes of the large lane may be under way.
//!
//! An ordinary message waits for what was handed to the network before it, so a large one hands over
//! little at a time: what the path needs to be busy, and not more. How much that is, its round trips
//! tell (as in TCP Vegas; Brakmo and Peterson, 1995): a trip that is longer than the shortest one has
//! waited in a queue for the difference. The window becomes that share of itself which would not have
//! waited, and a quarter more. So it stays where it is where trips grow with what is sent, and grows
//! where they do not.
//!
//! ```text
//! sent                |=====piece=====|                 |
//! the peer's credit                        |---taken--->|
//!                     |<--------------trip------------->|
//! ```
//!
//! **Invariant:** with nothing under way there is room. So the lane goes on as long as the peer sends
//! credits for what it takes, at the latest when [`CREDIT_BYTES`] have come together.

use otava_actor::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// The least window, and the first one: of 24 to 64 KiB the one beside which a ping waited least.
const LEAST: u64 = 48 << 10;
/// The largest window; quinn keeps as much of one connection.
const MOST: u64 = 8 << 20;
/// The largest piece that is handed over in one go.
const PIECE: usize = 32 << 10;
/// Whoever takes a large lane sends a credit when so much has come since the last one.
pub(crate) const CREDIT_BYTES: u64 = 16 << 10;
/// Of pieces that end closer together one is timed, so that no more than 2,048 are remembered.
const APART: u64 = 4 << 10;
/// The window of a lane that waits for nothing.
const LIFTED: u64 = u64::MAX;
/// The shortest trip is forgotten after this time, twice that at most: the path may have changed.
const FORGET_AFTER: Duration = Duration::from_secs(5);

const _: () = assert!(
    LEAST >= PIECE as u64 + CREDIT_BYTES,
    "else a lane could stand still"
);

/// The bytes of one large lane, counted from its beginning.
#[derive(Debug)]
pub(crate) struct LargeWindow {
    window: u64,
    sent: u64,
    taken: u64,
    /// A piece that waits for room.
    held: Option<usize>,
    /// What is under way, in the order in which it was sent.
    pieces: VecDeque<Piece>,
    shortest: Shortest,
}

#[derive(Debug)]
struct Piece {
    /// What was sent with it and before.
    end: u64,
    at: Time,
    /// The window when it was sent.
    window: u64,
}

/// A credit for more than was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it claims to have taken {taken} bytes of a large lane, where {sent} were sent")]
pub(crate) struct FalseCredit {
    taken: u64,
    sent: u64,
}

impl LargeWindow {
    pub(crate) fn new() -> Self {
        Self {
            window: LEAST,
            sent: 0,
            taken: 0,
            held: None,
            pieces: VecDeque::new(),
            shortest: Shortest::default(),
        }
    }

    /// How many of `wanted` bytes may be sent now. 0 until a credit comes, rather than a few.
    pub(crate) fn room(&mut self, wanted: usize) -> usize {
        let piece = wanted.min(PIECE);
        if self.has_room(piece) {
            return piece;
        }
        self.held = Some(piece);
        0
    }

    fn has_room(&self, piece: usize) -> bool {
        self.sent - self.taken + piece as u64 <= self.window
    }

    /// Takes note of what is being sent.
    pub(crate) fn sent(&mut self, bytes: usize, now: Time) {
        self.held = None;
        self.sent += bytes as u64;
        let apart = |last: &Piece| self.sent - last.end >= APART;
        if self.window != LIFTED && self.pieces.back().is_none_or(apart) {
            self.pieces.push_back(Piece {
                end: self.sent,
                at: now,
                window: self.window,
            });
        }
    }

    /// A credit for all bytes up to `taken`. Returns whether there is room now for the piece that waits.
    pub(crate) fn take(&mut self, taken: u64, now: Time) -> Result<bool, FalseCredit> {
        if taken > self.sent {
            let sent = self.sent;
            return Err(FalseCredit { taken, sent });
        }
        let more = taken.saturating_sub(self.taken);
        self.taken += more;
        let mut newest = None;
        while self.pieces.front().is_some_and(|piece| piece.end <= taken) {
            newest = self.pieces.pop_front();
        }
        if let Some(piece) = newest {
            let trip = now.saturating_since(piece.at);
            self.adapt(more, piece.window, trip, now);
        }
        Ok(self.held.is_some_and(|held| self.has_room(held)))
    }

    /// From now on everything has room: there will be no credits.
    pub(crate) fn lift(&mut self) {
        self.window = LIFTED;
        self.pieces.clear();
    }

    /// A trip, and the window when it began; it took `more` bytes off what is under way.
    fn adapt(&mut self, more: u64, window: u64, trip: Duration, now: Time) {
        let shortest = self.shortest.with(trip, now).as_nanos().max(1);
        let unqueued = u128::from(window) * shortest / trip.as_nanos().max(1);
        let target = u64::try_from(unqueued * 5 / 4).unwrap_or(MOST);
        let target = target.clamp(LEAST, MOST);
        if target < self.window {
            // One long trip says little: the peer may have had something else to do.
            self.window -= (self.window - target).div_ceil(8);
        } else if self.held.is_some() {
            self.window = target.min(self.window + more);
        }
    }
}

/// The shortest trip of late.
#[derive(Debug, Default)]
struct Shortest {
    before: Option<Duration>,
    now: Option<Duration>,
    since: Time,
}

impl Shortest {
    /// The shortest one, with this one.
    fn with(&mut self, trip: Duration, now: Time) -> Duration {
        if now.saturating_since(self.since) >= FORGET_AFTER {
            self.before = self.now.take();
            self.since = now;
        }
        let shortest = self.now.map_or(trip, |shortest| shortest.min(trip));
        self.now = Some(shortest);
        self.before.map_or(shortest, |before| before.min(shortest))
    }
}

#[cfg(test)]
mod tests;
