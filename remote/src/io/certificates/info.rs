//! Certificate info: what a certificate says, for people to read.

use super::der::{self, date_of};
use super::names::CertificateNames;
use crate::CredentialsError;
use crate::io::credentials::{certificates, sha256};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

/// What stands in a certificate. Nothing of it is checked: TLS does that.
///
/// Its `Display` is the answer of `otava cert show`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// Whom it is for, in words.
    pub subject: String,
    /// Who made it, in words.
    pub issuer: String,
    /// From when it counts.
    pub not_before: SystemTime,
    /// Until when it counts.
    pub not_after: SystemTime,
    /// Whether it may make others.
    pub is_authority: bool,
    /// The nodes that it is for.
    pub nodes: Vec<String>,
    /// The clients that it is for.
    pub clients: Vec<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Where its holder may listen; anywhere if there is none.
    pub addresses: Vec<SocketAddr>,
    /// SHA-256 of all of it, as other tools show it.
    pub fingerprint: String,
}

impl CertificateInfo {
    /// All certificates in a file of PEM, in their order.
    ///
    /// # Errors
    /// [`CredentialsError::Pem`], if there is none or one cannot be read.
    pub fn read(pem: &[u8]) -> Result<Vec<Self>, CredentialsError> {
        let found = certificates("the certificates", pem)?;
        let read = found.iter().map(Self::of).collect::<Option<Vec<_>>>();
        read.ok_or_else(|| CredentialsError::Pem {
            what: "the certificates",
            reason: "one of them is damaged".to_owned(),
        })
    }

    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let fields = der::fields(certificate)?;
        let names = CertificateNames::of(certificate);
        let digits = sha256(certificate).map(|byte| format!("{byte:02X}"));
        Some(Self {
            subject: fields.subject,
            issuer: fields.issuer,
            not_before: fields.not_before,
            not_after: fields.not_after,
            is_authority: fields.is_authority,
            nodes: names.nodes.into_iter().collect(),
            clients: names.clients.into_iter().collect(),
            roles: names.roles.into_iter().collect(),
            addresses: names.addresses.into_iter().collect(),
            fingerprint: digits.join(":"),
        })
    }
}

impl fmt::Display for CertificateInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.is_authority, self.nodes.len(), self.clients.len()) {
            (true, ..) => "authority",
            (false, 0, 0) => "of no node and no client",
            (false, 0, _) => "client",
            (false, ..) => "node",
        };
        let line = |f: &mut fmt::Formatter<'_>, what: &str, list: String| match list.as_str() {
            "" => Ok(()),
            list => writeln!(f, "{what:<13}{list}"),
        };
        let addresses = self.addresses.iter().map(SocketAddr::to_string);
        line(f, "kind", kind.to_owned())?;
        line(f, "subject", printable(&self.subject))?;
        line(f, "issuer", printable(&self.issuer))?;
        line(f, "nodes", self.nodes.join(", "))?;
        line(f, "clients", self.clients.join(", "))?;
        line(f, "roles", self.roles.join(", "))?;
        line(f, "addresses", addresses.collect::<Vec<_>>().join(", "))?;
        line(f, "from", show_time(self.not_before))?;
        line(f, "until", show_time(self.not_after))?;
        line(f, "fingerprint", self.fingerprint.clone())
    }
}

/// A certificate of somebody else must not write to a terminal what it likes.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(clean).collect()
}

/// A time as people read it, in UTC, to the second.
#[must_use]
pub fn show_time(time: SystemTime) -> String {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (year, month, day) = date_of(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}
