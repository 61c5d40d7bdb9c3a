//! Postgres: the stores of `otava-persistence` in a PostgreSQL database, for entities of many machines.
//!
//! [`PostgresJournal::open`] connects, brings the schema up to date and gives a
//! [`Journal`](otava_persistence::Journal). Snapshots, queries, states and offsets lie in the same
//! schema and come from its methods.
//!
//! ```no_run
//! use otava_postgres::{PostgresConfig, PostgresJournal};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = PostgresConfig::parse("postgres://bank@db.example/bank")?.schema("bank_journal");
//! let journal = PostgresJournal::open(config).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//! | to | look at |
//! | --- | --- |
//! | connect, and set limits | [`PostgresConfig`] |
//! | keep events | [`PostgresJournal`] |
//! | store the results of a projection exactly once | [`PostgresResults`], [`PostgresHandler`] |
//! | write a table and an offset together | [`PostgresOffsets::with_offset`] |
//! | decide splits and singletons by a lease | `PostgresLease`, with the feature `lease` |
//! | see what the tables are | `migrations/` |
//!
//! Inside: `logic/` turns batches into columns and answers, `io/committer.rs` writes them,
//! `migrations/` has the tables and the functions in which fences are checked. Why it is like this is
//! told in `docs/decisions/010-postgres.md`.

mod config;
mod error;
mod io;
mod logic;

pub use config::PostgresConfig;
pub use error::{ConfigError, OpenError};
pub use io::connect::{Connector, tls_connector};
pub use io::journal::PostgresJournal;
#[cfg(feature = "lease")]
pub use io::lease::PostgresLease;
pub use io::offsets::{OffsetError, PostgresOffsets};
pub use io::projection::{PostgresHandler, PostgresResults, ResultsError};
pub use tokio_postgres;
