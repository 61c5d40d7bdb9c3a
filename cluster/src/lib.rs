//! Cluster: who is a member of the cluster, who can be reached, and who is out for good.
//!
//! A [`Cluster`] is one node's membership. It asks the seeds to be let in, watches some of the others,
//! and follows what all publish, so that all nodes come to the same view.
//!
//! ```no_run
//! use otava_cluster::{Cluster, ClusterConfig};
//! use otava_remote::Remote;
//!
//! # async fn demo(remote: Remote) -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClusterConfig::default().with_seeds(["10.0.0.1:7000".parse()?]);
//! let cluster = Cluster::start(&remote, config)?;
//! cluster.join().await?;
//! println!("the oldest is {:?}", cluster.state().oldest());
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | `config` | the settings |
//! | `discovery`, `lease` | where addresses are found; what one owner holds at a time |
//! | `envelope` | a version before the bytes of all that is said and stored |
//! | `facts` | a statement as keys and values, as chitchat carries it |
//! | `io/` | the handle, the task that drives the membership, the two disseminations |
//! | `logic/` | the protocols as pure state machines; no promise of stability |
//! | `logic/membership` | one node's part in the cluster, read it first |
//! | `logic/view` | the lattice of facts |
//! | `logic/convergence` | when all know the same, who leads, what the leader does |
//! | `logic/phi`, `ring`, `monitor` | who watches whom, when silence becomes suspicion |
//! | `logic/downing`, `stability` | who goes on after a split, and when that is decided |
//! | `logic/knocking`, `door` | whom a node asks, who forms a cluster, who is let in |
//! | `logic/profile` | what a member says of itself: roles and version |
//! | `logic/gossip` | push and pull of statements, replayed from a seed |
//! | [`receptionist`] | who offers which service in the whole cluster |
//! | [`router`] | groups and pools over the cluster |
//! | [`singleton`] | one actor in the whole cluster, and the way to it |
//! | [`topic`] | publish and subscribe in the whole cluster |
//! | `logic/replicated` | replicated data: its values, deltas, quorums, gossip, pruning |
//! | [`replicated`] | the types of replicated data, and the replicator of a node |
//! | `logic/delivery` | sources and sinks of reliable delivery |
//! | [`delivery`] | messages that are delivered until they were handled |
//! | `wire` | the bytes of all that is said |
//!
//! # What is promised
//! - All nodes that are not cut off come to the same view; within it there is one leader.
//! - After a split one side goes on at most, and a node that is declared out ends.
//! - A run of a node that is out never comes back; a new run is a new member.

mod config;
pub mod delivery;
mod discovery;
mod envelope;
mod facts;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod io;
mod lease;
mod lock;
#[doc(hidden)]
pub mod logic;
pub mod receptionist;
pub mod replicated;
pub mod router;
pub mod singleton;
pub mod topic;
mod wire;

pub use config::{ClusterConfig, Dissemination, StartError};
pub use discovery::{Discovery, DiscoveryError, DnsDiscovery, FileDiscovery, StaticDiscovery};
pub use io::cluster::{Cluster, JoinError, LeaveError};
#[cfg(feature = "srv")]
pub use io::srv::SrvDiscovery;
pub use lease::{Lease, LeaseError, MemoryLease};
pub use logic::door::Refusal;
pub use logic::downing::Strategy;
pub use logic::leases::Grant;
pub use logic::member::{Member, Status};
pub use logic::profile::AppVersion;
pub use logic::state::{ClusterEvent, ClusterState};
pub use receptionist::{ClusterListing, ClusterReceptionist, Service};
pub use router::ClusterGroup;
pub use singleton::{SingletonProxy, Singletons};
pub use topic::{Topic, Topics};

/// The book's chapters on the cluster: their programs compile, and run where they can.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../docs/book/cluster.md")]
    mod cluster {}
    #[doc = include_str!("../../docs/book/downing.md")]
    mod downing {}
    #[doc = include_str!("../../docs/book/on-top-of-the-cluster.md")]
    mod on_top {}
}
