//! Errors: why settings are refused, why the stores could not be opened.

/// Why settings are refused. Never holds a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is no address of a server.
    #[error("cannot understand the address of the server: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// A schema needs a name of at most 40 characters of `a-z`, `0-9` and `_`, not beginning with a
    /// digit or `pg_`.
    #[error("{name:?} is no name for a schema here: take a-z, 0-9 and _, at most 40 of them")]
    Schema {
        /// The name that was given.
        name: String,
    },
}

/// Why the stores could not be opened. Never holds a password.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server could not be reached, or did not let us in.
    #[error("cannot connect to {server}: {reason}")]
    Connect {
        /// Host, port and database.
        server: String,
        /// What was said.
        reason: String,
    },
    /// The schema was made by a newer version.
    #[error(
        "the schema {schema} has version {found}, this program knows up to {known}: use a newer program"
    )]
    NewerSchema {
        /// Its name.
        schema: String,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The schema is older, or is not there, and [`crate::PostgresConfig::migrate`] forbids to change that.
    #[error(
        "the schema {schema} has version {found}, this program needs {needed}: migrate it first"
    )]
    NotMigrated {
        /// Its name.
        schema: String,
        /// Its version; 0 if it is not there.
        found: u32,
        /// The version that this program needs.
        needed: u32,
    },
    /// The server is too old.
    #[error("the server is PostgreSQL {found}, the oldest that will do is {oldest}")]
    OldServer {
        /// Its major version.
        found: u32,
        /// The oldest that is supported.
        oldest: u32,
    },
    /// The server did not do what is needed to prepare the schema.
    #[error("cannot prepare the schema {schema}: {reason}")]
    Schema {
        /// Its name.
        schema: String,
        /// What the server said.
        reason: String,
    },
}
