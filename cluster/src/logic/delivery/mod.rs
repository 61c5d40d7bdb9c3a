//! Delivery: each message handled at least once and in order, over ways that lose, repeat and reorder. Pure.
//!
//! A [`source::Source`] has what was not confirmed yet; a [`sink::Sink`] hands it to the handler, one message
//! after the other. Messages are cut into chunks, and chunks are numbered in one **series**, which a
//! message keeps whoever gets it. The sink grants how far the source may send.
//!
//! ```text
//!   Source                                             Sink
//!     | -- Probe { session, start, sent } ------------> |  takes up the session
//!     | <- Report { received, confirmed, granted } ---- |
//!     | -- Chunk { seq } .. up to granted ------------> |  puts messages together, hands the first
//!     | <- Report { .., missing_to } ------------------ |  a gap: what lies in it is sent again
//!     | <- Report { confirmed } ----------------------- |  when handled, or half the window is used
//!     | -- Probe, when nothing was heard for a time --> |  so no lost message can stop them
//! ```
//!
//! A **session** is one source talking to one run of a consumer. A consumer that was made anew has another
//! number in its reports; the source then begins a new session, from the first unconfirmed message.
//! What was confirmed is confirmed whatever session says so: it is a fact about the series.
//!
//! A [`dealer::Dealer`] has many workers to choose from, and a source for each; [`outlets::Outlets`]
//! have a source for each key.
//!
//! **Invariant:** a source forgets a message only after a sink has said that it was handled, and a sink
//! says that only after its handler has. **Invariant:** one sink hands a message again only if the
//! handler has given it back unhandled.

pub mod dealer;
pub mod ledger;
pub mod outlets;
pub mod sink;
pub mod source;
#[cfg(test)]
mod tests;

use std::fmt;

/// Names one source talking to one run of a consumer. Of two with the same series the greater one is the
/// later.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Session {
    /// The numbering: the same number means the same message as long as this is the same.
    pub series: u64,
    /// The run of the producer, which grows where its queue outlives it.
    pub claim: u64,
    /// Which session of that run it is.
    pub number: u64,
}

/// A part of a message.
#[derive(Clone, Eq, PartialEq)]
pub struct Chunk {
    /// The session.
    pub session: Session,
    /// Its number.
    pub seq: u64,
    /// Whether a message begins with it.
    pub begins: bool,
    /// Whether a message ends with it.
    pub ends: bool,
    /// What it carries; never empty.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Chunk {
    /// Without the bytes, which are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("session", &self.session)
            .field("seq", &self.seq)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// Asks a sink where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The session.
    pub session: Session,
    /// The first that is not confirmed; all before it is of no interest any more.
    pub start: u64,
    /// The last that was sent.
    pub sent: u64,
    /// Comes back in the report.
    pub nonce: u64,
}

/// Where a sink is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    /// The session.
    pub session: Session,
    /// The run of the consumer.
    pub consumer: u64,
    /// That of the probe which this answers; zero if it answers none.
    pub nonce: u64,
    /// All up to here were handled.
    pub confirmed: u64,
    /// All up to here have arrived.
    pub received: u64,
    /// What comes after `received` is missing up to here; zero if nothing is.
    pub missing_to: u64,
    /// The source may send up to here.
    pub granted: u64,
}
