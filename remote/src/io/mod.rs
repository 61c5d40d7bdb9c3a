//! IO: tasks that move bytes between outboxes, connections and actors, and the networks themselves.

pub(crate) mod acceptor;
mod authority;
pub mod certificates;
mod credentials;
pub(crate) mod credits;
pub(crate) mod driver;
mod files;
pub(crate) mod inbound;
pub(crate) mod lanes;
pub(crate) mod quic;
mod revocation;
pub(crate) mod standby;
pub(crate) mod virtual_net;

pub use credentials::{Credentials, CredentialsError};
pub use files::{CredentialFiles, FilesError};
