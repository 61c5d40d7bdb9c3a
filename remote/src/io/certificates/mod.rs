//! Certificates: what stands in them, how they are read, and an authority that makes them.
//!
//! A certificate of a node says all that others believe of it, as DNS names below
//! `otava.internal`, a zone that can never be anybody's in the public DNS:
//!
//! | name | says |
//! | --- | --- |
//! | `<name>.node.otava.internal` | this is the node `<name>`, which may be a member |
//! | `<name>.client.otava.internal` | this is the client `<name>`, which may not |
//! | `<role>.role.otava.internal` | it has this role |
//! | `<addr>.address.otava.internal` | it may listen here, and nowhere else that is not named |
//!
//! The command `otava cert` makes them from a shell; [`Authority`] does in a program. Any other
//! authority may, as long as the names are these ([`crate::Credentials::certificate_name`]).

mod der;
mod info;
mod issue;
pub(crate) mod names;

pub use info::{CertificateInfo, show_time};
pub use issue::{Authority, CertificateError, Issued, Subject};
