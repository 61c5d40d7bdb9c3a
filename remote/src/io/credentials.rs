//! Credentials: whom a node trusts, and how it proves its name to others.
//!
//! A node has one certificate. Its peers accept it when it comes from an authority that they trust,
//! is valid today, and may be used by both clients and servers. It also says which node may use it:
//! among its DNS names is [`Credentials::certificate_name`] of the node.

use crate::io::authority;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use webpki::EndEntityCert;

/// The longest piece of a DNS name, and the longest name.
const LABEL_BYTES_MAX: usize = 63;
const DNS_NAME_BYTES_MAX: usize = 253;

/// Under this name the names of nodes stand in certificates. `.internal` is reserved for such use
/// and can never be anybody's in the public DNS.
const NODES: &str = "node.otava.internal";

/// What a node needs to prove its name, and to check that of others. Cheap to clone.
///
/// Its `Debug` shows no keys.
#[derive(Clone)]
pub struct Credentials {
    roots: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
}

impl Credentials {
    /// Credentials for development and tests: issued by an authority that lives in `folder`, which
    /// is created on first use. All processes that share the folder accept each other.
    ///
    /// **Whoever can read the folder is in**: it holds the key that makes any node. Keep it on one
    /// machine, and use [`Credentials::from_pem`] between machines.
    ///
    /// # Errors
    /// [`CredentialsError`], if the folder cannot be used or what stands in it is damaged.
    pub fn development(folder: &Path, node_name: &str) -> Result<Self, CredentialsError> {
        let name = certificate_name_or_error(node_name)?;
        let issued = authority::issue(folder, node_name, &name)?;
        Self::checked(vec![issued.authority], vec![issued.certificate], issued.key)
    }

    /// Credentials from your own authority, all in PEM: the certificates of the authorities to
    /// trust, this node's certificate followed by any between it and its authority, and its key.
    ///
    /// # Errors
    /// [`CredentialsError`]: a part cannot be read, or peers with the same authorities would not
    /// accept this node.
    pub fn from_pem(
        authorities: &[u8],
        chain: &[u8],
        key: &[u8],
    ) -> Result<Self, CredentialsError> {
        let authorities = certificates("the authorities", authorities)?;
        let chain = certificates("the certificate of this node", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| CredentialsError::Pem {
            what: "the key of this node",
            reason: e.to_string(),
        })?;
        Self::checked(authorities, chain, key)
    }

    /// The DNS name that the certificate of the node `node_name` must have; `None` for what cannot
    /// name a node in a certificate.
    ///
    /// DNS names know no case and few characters. Lower-case letters and digits stay, any other
    /// byte becomes `-` and its two hexadecimal digits; every 62 of these form a label, which
    /// begins with `n`. Different nodes have different names.
    ///
    /// ```
    /// use otava_remote::Credentials;
    ///
    /// let name = Credentials::certificate_name("shop_1");
    /// assert_eq!(name.as_deref(), Some("nshop-5f1.node.otava.internal"));
    /// ```
    #[must_use]
    pub fn certificate_name(node_name: &str) -> Option<String> {
        let mut name = String::new();
        let mut label_bytes = LABEL_BYTES_MAX;
        for byte in node_name.bytes() {
            let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let bytes = if plain { 1 } else { 3 };
            if label_bytes + bytes > LABEL_BYTES_MAX {
                name.push_str(if name.is_empty() { "n" } else { ".n" });
                label_bytes = 1;
            }
            if plain {
                name.push(char::from(byte));
            } else {
                write!(name, "-{byte:02x}").ok()?;
            }
            label_bytes += bytes;
            if name.len() > DNS_NAME_BYTES_MAX {
                return None;
            }
        }
        if name.is_empty() {
            return None;
        }
        name.push('.');
        name.push_str(NODES);
        (name.len() <= DNS_NAME_BYTES_MAX).then_some(name)
    }

    /// Whether peers will believe this node that it is `node_name`.
    #[must_use]
    pub fn proves_name(&self, node_name: &str) -> bool {
        self.own
            .end_entity_cert()
            .is_ok_and(|certificate| certificate_proves(certificate, node_name))
    }

    fn checked(
        authorities: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            let added = roots.add(authority);
            added.map_err(|e| CredentialsError::Pem {
                what: "the authorities",
                reason: e.to_string(),
            })?;
        }
        let own =
            CertifiedKey::from_der(chain, key, &provider()).map_err(|e| CredentialsError::Key {
                reason: e.to_string(),
            })?;
        let credentials = Self {
            roots: Arc::new(roots),
            own: Arc::new(own),
        };
        crate::io::quic::tls::accepts_itself(&credentials)?;
        Ok(credentials)
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(crate) fn own(&self) -> &Arc<CertifiedKey> {
        &self.own
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("authorities", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// The cryptography of all nodes. Always passed on, so that what else a process does with TLS
/// changes nothing here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Whether a certificate, that was checked before, belongs to the node `node_name`.
pub(crate) fn certificate_proves(certificate: &CertificateDer<'_>, node_name: &str) -> bool {
    let Some(name) = Credentials::certificate_name(node_name) else {
        return false;
    };
    let (Ok(certificate), Ok(name)) = (
        EndEntityCert::try_from(certificate),
        DnsName::try_from(name),
    ) else {
        return false;
    };
    certificate
        .verify_is_valid_for_subject_name(&ServerName::DnsName(name))
        .is_ok()
}

fn certificate_name_or_error(node_name: &str) -> Result<String, CredentialsError> {
    Credentials::certificate_name(node_name).ok_or_else(|| CredentialsError::Name {
        name: node_name.to_owned(),
    })
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(CredentialsError::Pem {
            what,
            reason: "it holds no certificate".to_owned(),
        }),
        Err(e) => Err(CredentialsError::Pem {
            what,
            reason: e.to_string(),
        }),
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The folder of the development authority cannot be used.
    #[error("cannot use {} for the development authority: {source}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot issue a certificate: {reason}")]
    Issue {
        /// What was wrong.
        reason: String,
    },
    /// The key does not fit the certificate, or is of a kind that is not supported.
    #[error("the key of this node cannot be used: {reason}")]
    Key {
        /// What was wrong.
        reason: String,
    },
    /// The name cannot stand in a certificate: it is empty or too long.
    #[error("`{name}` is empty or too long for a certificate: about 70 characters always fit")]
    Name {
        /// The name.
        name: String,
    },
    /// Peers that trust the same authorities would not accept this node.
    #[error("the certificate of this node would be refused by its peers: {reason}")]
    NotAccepted {
        /// What was wrong.
        reason: String,
    },
    /// A part is not the PEM that it should be.
    #[error("cannot read {what}: {reason}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// What was wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_that_differ_stay_different() {
        let long = "a".repeat(70);
        let names = [
            "a", "A", "a.b", "a-2eb", "ab", "a_b", "-", ".", "n", "-6e", "a-", "xn--a", &long,
        ];
        let encoded: BTreeSet<_> = names
            .iter()
            .map(|name| Credentials::certificate_name(name).unwrap())
            .collect();
        assert_eq!(encoded.len(), names.len(), "{encoded:?}");
        assert_eq!(Credentials::certificate_name(""), None);
        assert_eq!(Credentials::certificate_name(&"-".repeat(128)), None);
    }

    proptest! {
        #[test]
        fn every_name_is_good_dns(name in "[a-zA-Z0-9._-]{1,70}", other in "[a-zA-Z0-9._-]{1,70}") {
            let encoded = Credentials::certificate_name(&name).unwrap();
            prop_assert!(DnsName::try_from(encoded.as_str()).is_ok(), "{encoded}");
            let same = Some(encoded) == Credentials::certificate_name(&other);
            prop_assert_eq!(same, name == other);
        }
    }
}
