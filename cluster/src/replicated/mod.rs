//! Replicated: data that every node holds a copy of, changes without asking, and that always merges.
//!
//! A [`Replicator`] is one node's copy of all entries. Each entry has a typed [`Key`] and a value of one of
//! the [`Crdt`] types: whatever nodes do to their copies apart, the copies become equal. How many nodes
//! must have answered before a read or a write is done is chosen each time ([`Level`]).
//!
//! | type | what it is | concurrent changes |
//! | --- | --- | --- |
//! | [`GCounter`], [`PnCounter`] | a sum | all count |
//! | [`Flag`] | on or off | on wins |
//! | [`LwwRegister`] | a value | the later one by the clocks |
//! | [`MvRegister`] | a value | all are kept |
//! | [`GSet`], [`OrSet`] | a set | additions win |
//! | [`OrMap`] | values of these types by key | those of the values; a removal takes what it saw |
//!
//! ```
//! use otava_cluster::replicated::{Key, Level, OrSet, Replicator};
//!
//! # async fn demo(replicator: Replicator) -> Result<(), Box<dyn std::error::Error>> {
//! let cart = Key::<OrSet<String>>::new("cart-17");
//! let bought = replicator.update(&cart, |cart| cart.insert(&"apple".to_owned()));
//! bought.level(Level::majority()).await?;
//! let cart = replicator.get(&cart).level(Level::majority()).await?;
//! assert!(cart.contains(&"apple".to_owned()));
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//! - Copies that have seen the same writes are equal, and all nodes that can reach each other come to see
//!   all writes.
//! - A write that returned is seen by every later read if their levels overlap, for example a majority
//!   each, as long as no more than the other nodes lose their copies.
//! - A write that failed with a timeout stands on this node and may reach others: it is not undone.
//! - Nothing of removed elements, and nothing of nodes that are gone, is kept for good; deleted keys are.
//!
//! # What it is not
//! All of it is in the memory of every node; a value is sent whole to a node that is new, so it has a limit
//! ([`ReplicatorConfig::value_bytes_max`]). It is no database: for much data, or for decisions that must
//! be taken once, there are entities.
//!
//! The theory: P. S. Almeida, A. Shoker, C. Baquero, *Delta state replicated data types*, 2018; A. Bieniusa
//! et al., *An optimized conflict-free replicated set*, 2012.

mod actor;
mod config;
mod counter;
mod crdt;
mod durable;
mod error;
mod map;
mod register;
mod replicator;
mod set;
pub(crate) mod wire;

pub use crate::io::durable_file::FileDurableStore;
pub use crate::logic::replicated::level::Level;
pub use config::ReplicatorConfig;
pub use counter::{Flag, GCounter, PnCounter};
pub use crdt::{Crdt, Datum, Key};
pub use durable::{DurableStore, MemoryDurableStore, StoreError, StoredEntry};
pub use error::{DeleteError, GetError, StartError, SubscribeError, UpdateError};
pub use map::OrMap;
pub use register::{LwwRegister, MvRegister};
pub use replicator::{Change, Delete, Get, Replicator, Subscription, Update};
pub use set::{GSet, OrSet};

/// The book's chapter: its programs compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/book/replicated-data.md")]
mod book {}
