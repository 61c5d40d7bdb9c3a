//! Revocation: certificates that count no more, and the connections that were made with them.
//!
//! A list holds SHA-256 fingerprints. It is looked at in every handshake, and when it changes the
//! connections that are there are held against it. A connection is noted before it is looked up in the
//! list, and a list is in force before the connections are gone through: so none slips through between.

use super::credentials::sha256;
use crate::network::Connection;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError, Weak};

/// What a peer is told whose connection is closed.
pub(crate) const REASON: &str = "the certificate is revoked";

/// A set of certificates, by the SHA-256 of each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fingerprints(BTreeSet<[u8; 32]>);

impl Fingerprints {
    /// Reads a list, one a line. A file of no bytes is no list: it is about to be written, and must not
    /// let everybody in for a moment.
    ///
    /// # Errors
    /// The number of the first line that is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, usize> {
        if text.is_empty() {
            return Err(1);
        }
        let mut found = BTreeSet::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
            let line = line.trim_ascii();
            if !line.is_empty() {
                found.insert(fingerprint(line).ok_or(index + 1)?);
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether any of these certificates is in the list.
    pub(crate) fn hold<'a>(
        &self,
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> bool {
        // What is mostly so costs nothing.
        !self.is_empty()
            && certificates
                .into_iter()
                .any(|der| self.0.contains(&sha256(der)))
    }

    /// All of them, one behind the other.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.iter().flatten().copied().collect()
    }
}

/// Sixty-four hexadecimal digits, in pairs that may have colons between them.
fn fingerprint(text: &[u8]) -> Option<[u8; 32]> {
    let digits: Vec<u8> = match text.len() {
        64 => text.to_vec(),
        95 => {
            let pairs = text.chunks(3);
            let parted = pairs
                .clone()
                .take(31)
                .all(|pair| pair.get(2) == Some(&b':'));
            parted.then(|| pairs.flat_map(|pair| &pair[..2]).copied().collect())?
        }
        _ => return None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// The connections of a node, as far as they are alive.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    alive: Vec<Alive>,
    /// Those that have ended are taken out when there are so many.
    sweep_at: usize,
}

struct Alive {
    connection: Weak<dyn Connection>,
    /// The certificate of the peer, and those between it and its authority.
    chain: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for Alive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alive").finish_non_exhaustive()
    }
}

/// The least number of connections that are gone through for those that have ended.
const SWEEP_MIN: usize = 64;

impl Connections {
    /// Notes a connection. Then look it up in the list that is in force.
    pub(crate) fn note(
        &self,
        connection: Weak<dyn Connection>,
        chain: Vec<CertificateDer<'static>>,
    ) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.alive.len() >= noted.sweep_at {
            noted
                .alive
                .retain(|alive| alive.connection.upgrade().is_some());
            noted.sweep_at = (2 * noted.alive.len()).max(SWEEP_MIN);
        }
        noted.alive.push(Alive { connection, chain });
    }

    /// Closes those of certificates in this list; how many that were.
    pub(crate) fn close(&self, revoked: &Fingerprints) -> usize {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = noted.alive.len();
        noted.alive.retain(|alive| {
            let Some(connection) = alive.connection.upgrade() else {
                return false;
            };
            let is_revoked = revoked.hold(&alive.chain);
            if is_revoked {
                connection.close(REASON);
            }
            !is_revoked
        });
        before - noted.alive.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_tools_write_them() {
        let plain = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        let one = Fingerprints::parse(plain.as_bytes()).unwrap();
        assert_eq!((one.len(), one.bytes()), (1, vec![0xab; 32]));
        let text = format!("# lost with the laptop\n\n{colons}  # node-7\r\n {plain}\n");
        assert_eq!(Fingerprints::parse(text.as_bytes()), Ok(one));
        assert!(Fingerprints::parse(b"# nobody").unwrap().is_empty());
        assert_eq!(Fingerprints::parse(b""), Err(1), "it is being written");
        for bad in [
            &plain[..63],
            &plain.replace('a', "g"),
            &colons.replacen(':', "-", 1),
            &format!("{}:", &colons[..94]),
            "node-7",
        ] {
            let text = format!("{colons}\n{bad}\n");
            assert_eq!(Fingerprints::parse(text.as_bytes()), Err(2), "{bad}");
        }
        assert_eq!(Fingerprints::parse(&[0xff; 64]), Err(1));
    }

    #[test]
    fn a_list_holds_what_is_in_it() {
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        let other = CertificateDer::from(vec![4]);
        let listed = Fingerprints(BTreeSet::from([sha256(&certificate)]));
        assert!(listed.hold([&other, &certificate]) && !listed.hold([&other]));
        assert!(!Fingerprints::default().hold([&certificate]));
    }
}
