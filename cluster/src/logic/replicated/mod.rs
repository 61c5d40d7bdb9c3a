//! Replicated: data that every node holds a copy of and that always merges. Pure.
//!
//! | module | decides or owns |
//! | --- | --- |
//! | `dots` | names of single writes, and which of them a copy has seen |
//! | `store` | what writes have left behind, and how two copies of it are joined |
//! | `causal` | a store with what its copy has seen: the value that is replicated |
//! | `draft` | a value while it is changed, and the delta of the changes |
//! | `deltas` | which deltas which peer has, and what to send it |
//! | `pruning` | how the writes of nodes that are gone become those of another |
//! | `entry` | all that a node holds for one key |
//! | `table` | the entries of a node, and their fingerprints |
//! | `message` | what replicators say to each other |
//! | `level` | how many nodes must answer |
//! | `machine` | one node's replicator: read it last |

pub mod causal;
pub mod deltas;
pub mod dots;
pub mod draft;
pub mod entry;
pub mod level;
pub mod machine;
pub mod message;
pub mod pruning;
pub mod store;
pub mod table;

/// Keeps the types of replicated data to those of this crate: all nodes must join them alike.
pub trait Sealed {}
