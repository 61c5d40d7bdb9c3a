//! Test kit: a whole cluster in one process, on virtual time and a network that breaks as a seed says,
//! and a checker of what its clients saw.
//!
//! | part | what it is for |
//! | --- | --- |
//! | [`Simulation`] | sets up nodes, network and journal from a seed, and runs a test in it |
//! | [`SimCluster`] | the cluster while the test runs: faults, load, nodes that come and go |
//! | [`History`], [`Model`] | what clients did and saw, compared with a sequential model |
//! | [`check_order`] | what an entity took, compared with the order in which it was sent |
//! | [`Violation`] | what did not hold, by name |
//!
//! It is behind the cargo feature `testkit`; enable it for tests only. A test looks like this:
//!
//! ```
//! # use otava::prelude::*;
//! # #[derive(Default)]
//! # struct Counter(u64);
//! # #[derive(Deserialize, Serialize)]
//! # struct Add(u64, #[serde(with = "otava::wire")] ReplyTo<u64>);
//! # impl RemoteMessage for Add { const NAME: &'static str = "doc.Add"; }
//! # impl EventSourced for Counter {
//! #     type Command = Add;
//! #     type Event = u64;
//! #     type Snapshot = ();
//! #     const EVENT_NAME: &'static str = "doc.Added";
//! #     const EVENT_VERSION: u16 = 1;
//! #     fn handle(&self, Add(n, to): Add) -> Effect<Self> {
//! #         Effect::persist(n).reply_with(to, |counter: &Self| counter.0)
//! #     }
//! #     fn apply(&mut self, n: &u64) { self.0 += n; }
//! # }
//! # impl PersistentEntity for Counter {
//! #     const KIND: &'static str = "counter";
//! #     fn create(_id: &str) -> Self { Self::default() }
//! # }
//! # struct Total;
//! # impl otava::testkit::Model for Total {
//! #     type Command = u64;
//! #     type Answer = u64;
//! #     type State = u64;
//! #     fn initial(&self, _: &str) -> u64 { 0 }
//! #     fn apply(&self, total: &mut u64, n: &u64) -> u64 { *total += n; *total }
//! # }
//! use otava::testkit::{History, Simulation};
//! use std::time::Duration;
//!
//! let host = |node: &Node| node.entities::<Counter>(EntityOptions::default()).unwrap();
//! Simulation::seeded(7).nodes(3).run(host, async |cluster| {
//!     let history = History::new(Total);
//!     let seen = history.clone();
//!     let load = cluster.load(3, async move |counters, n| {
//!         let id = format!("c-{}", n % 5);
//!         let asked = seen.begin(&id, n);
//!         if let Ok(total) = counters.entity(&id).ask(|to| Add(n, to)).await {
//!             asked.answered(total);
//!         }
//!     });
//!     cluster.random_faults(Duration::from_secs(20)).await;
//!     load.stop().await;
//!     history.check().unwrap_or_else(|violation| panic!("{violation}"));
//! });
//! ```

mod faults;
mod history;
mod simulation;

pub use crate::logic::linear::Model;
pub use history::{History, Life, Pending, Violation, check_order};
pub use simulation::{Load, SimCluster, Simulation, seeds};
