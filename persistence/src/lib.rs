//! Persistence: what lasts. Events and snapshots, the journals that keep them, and the actors that
//! live by them.
//!
//! An [`EventSourced`] state turns commands into events; [`event_sourced()`] makes an actor of it,
//! which answers a command when its events are durable in a [`Journal`]. When the actor starts
//! again, anywhere, it takes in its events again and is what it was.
//!
//! # Map
//! | to | look at |
//! | --- | --- |
//! | write an entity | [`EventSourced`], [`Effect`] |
//! | run it as an actor | [`event_sourced()`], [`Options`] |
//! | send messages between entities, with effects exactly once | [`Letter`], [`Effect::send`], [`Effect::receive`], [`Courier`] |
//! | keep the newest value only | [`DurableState`], [`durable_state()`] |
//! | make data of one entity unreadable for good | [`KeyStore`], [`EventSourcedBuilder::encrypted`] |
//! | choose a store | [`SqliteJournal`] for the processes of one machine, [`MemoryJournal`] for tests |
//! | write a store | [`Journal`], [`SnapshotStore`], [`EventQueries`], [`StateStore`], [`OffsetStore`], then run [`conformance`], or [`conformance_tests!`] for a test a case |
//! | read events across entities | [`EventQuery`], [`current_events`], [`live_events`] |
//! | keep a report up to date | [`Projection`], [`Handler`], [`TransactionalHandler`] |
//! | know who may write | [`Fence`], [`Journal::claim`] |
//! | know the bytes on disk | [`mod@format`] |
//! | test an entity | [`testkit`] |
//!
//! Inside: `logic/` decides without touching anything, `io/sqlite/` is the embedded journal (its
//! `mod.rs` draws it, `marks.rs` and `halt.rs` say why an acknowledged event cannot vanish in
//! silence), `event_sourced/entity.rs` is the life of an entity, `event_sourced/post.rs` its letters,
//! `projection/mod.rs` draws a projection.
//!
//! The book tells how it is used: `docs/book/persistence.md`.
//!
//! # What is promised
//! - An acknowledged event is there after any end of any process, once, in order; an append is
//!   whole or absent.
//! - An owner that was replaced cannot write: the epoch is checked in the transaction of the write.
//! - Damage is an error with a name, and never a state that looks fine.

mod codec;
pub mod conformance;
mod durable_state;
mod error;
mod event_sourced;
pub mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod io;
mod journal;
mod keys;
mod logic;
mod memory;
mod offset;
mod projection;
mod query;
mod sequel;
mod snapshot;
mod state;
pub mod testkit;

pub use durable_state::{
    DurableState, DurableStateActor, DurableStateBuilder, StateEffect, StateError, durable_state,
};
/// The chapter of the book: its programs are compiled and run as tests of this crate.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/persistence.md")]
mod book_persistence {}

pub use error::{AppendError, ClaimError, Damage, JournalError, OpenError};
pub use event_sourced::{
    Courier, CourierError, Delivery, Effect, EntityError, EventReader, EventSourced,
    EventSourcedActor, EventSourcedBuilder, Letter, NoLetters, Options, OutboxFinder, Parcel,
    Persisted, Receipt, Recoveries, RecoveryError, Upcaster, event_sourced, is_own_record,
};
pub use id::{PersistenceId, SLICES};
pub use io::sqlite::{MarkSync, SqliteConfig, SqliteJournal, Verified, VerifyError};
pub use journal::{
    APPEND_EVENTS_MAX, AppendRequest, Appended, DeleteRequest, EventPage, EventRecord, Fence,
    Journal, StoredEvent,
};
pub use keys::{EntityKey, KeyError, KeyStore, MemoryKeys, StateKeys};
pub use logic::slices::{Carved, SliceOffset, carve};
pub use memory::MemoryJournal;
pub use offset::{OFFSET_KEY_BYTES_MAX, OffsetStore, check_offset_key};
pub use projection::{
    BatchHandler, Envelope, Handler, OnPoison, Projection, ProjectionCommit, ProjectionEnded,
    ProjectionHandle, ProjectionOptions, ProjectionPlan, ProjectionRun, ProjectionStartError,
    ProjectionState, ProjectionStatus, RunFenced, SliceOffsets, TransactionError,
    TransactionalHandler, metrics as projection_metrics,
};
pub use query::{
    EventQueries, EventQuery, FoundEvent, QueryPage, TAGS_MAX, current_events, live_events,
};
pub use snapshot::{Snapshot, SnapshotStore};
pub use state::{SaveState, SavedState, StateStore, StoredState};

/// The program of `docs/book/projections.md`, as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/projections.md")]
mod book_projections {}
