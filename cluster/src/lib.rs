//! Cluster: who is a member of the cluster, who can be reached, and who is out for good.
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | `logic` | the protocols as pure state machines; no promise of stability |

#[doc(hidden)]
pub mod logic;

pub use logic::downing::Strategy;
pub use logic::member::{Member, Status};
pub use logic::state::{ClusterEvent, ClusterState};
