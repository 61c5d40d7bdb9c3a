//! Io: the networks themselves, and the credentials with which nodes prove who they are.

mod authority;
mod credentials;
pub(crate) mod quic;
pub(crate) mod virtual_net;

pub use credentials::{Credentials, CredentialsError};
