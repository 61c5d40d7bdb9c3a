//! Credentials: whom a node trusts, and how it proves its name to others, today and after a change.
//!
//! A node has one certificate. Its peers accept it when it comes from an authority that they trust,
//! is valid today, and may be used by both clients and servers. It also says which node may use it,
//! and more ([`crate::certificates`]).
//!
//! What is in force is looked up at every handshake. So a change counts for the next connection, and
//! those that are there go on.

use crate::certificates::{Authority, CertificateError, CertificateInfo, Issued, Subject};
use crate::identity::{PeerIdentity, PeerKind};
use crate::io::authority;
use crate::io::certificates::names::{CertificateNames, Zone, encode};
use crate::io::files::{CredentialFiles, FilesError};
use crate::io::quic::tls::PeerCheck;
use crate::io::revocation::{self, Connections, Fingerprints};
use crate::network::Connection;
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// What a node needs to prove its name, and to check that of others. Cheap to clone; all clones
/// change together ([`Credentials::reload`], [`Credentials::replace`]).
///
/// Its `Debug` shows no keys.
#[derive(Clone)]
pub struct Credentials {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    present: RwLock<Arc<Present>>,
    files: Option<CredentialFiles>,
    /// One change at a time.
    changing: Mutex<()>,
    connections: Connections,
}

/// What is in force.
pub(crate) struct Present {
    pub(crate) check: PeerCheck,
    pub(crate) own: Arc<CertifiedKey>,
    /// Certificates that count no more.
    pub(crate) revoked: Fingerprints,
    /// Of all that it was made of, to tell whether anything is new.
    digest: [u8; 32],
}

impl Credentials {
    /// Credentials for development and tests: issued by an authority that lives in `folder`, which
    /// is created on first use. All processes that share the folder accept each other.
    ///
    /// **Whoever can read the folder is in**: it holds the key that makes any node. Keep it on one
    /// machine, and use [`Credentials::from_files`] between machines.
    ///
    /// # Errors
    /// [`CredentialsError`], if the folder cannot be used or what stands in it is damaged.
    pub fn development(folder: &Path, node_name: &str) -> Result<Self, CredentialsError> {
        Self::development_for(folder, &Subject::node(node_name))
    }

    /// As [`Credentials::development`], for a node with roles or addresses, or for a client.
    ///
    /// # Errors
    /// [`CredentialsError`], if the folder cannot be used or what stands in it is damaged.
    pub fn development_for(folder: &Path, subject: &Subject) -> Result<Self, CredentialsError> {
        Self::issued_by(&authority::in_folder(folder)?, subject)
    }

    /// Credentials that live in memory only, made by an authority that this process holds.
    ///
    /// # Errors
    /// [`CredentialsError`]: a name that cannot stand in a certificate, or an authority whose parts
    /// do not fit or that has expired.
    pub fn issued_by(authority: &Authority, subject: &Subject) -> Result<Self, CredentialsError> {
        let (certificate, key) = authority.issue_for_good(subject)?.into_der();
        let authorities = vec![authority.der().clone()];
        Self::fixed(Present::trusting(authorities, vec![certificate], key)?)
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
        Self::fixed(Present::from_pem(authorities, chain, key)?)
    }

    /// Credentials from files, as [`Credentials::from_pem`]. A network that uses them looks at the
    /// files again and again ([`CredentialFiles::every`]), so that they change without a restart:
    /// see [`Credentials::reload`].
    ///
    /// # Errors
    /// [`CredentialsError`]: a file cannot be read, or what [`Credentials::from_pem`] finds.
    pub fn from_files(files: CredentialFiles) -> Result<Self, CredentialsError> {
        let present = files.read()?;
        Ok(Self::new(present, Some(files)))
    }

    /// Credentials that prove nothing and check nothing: everybody who reaches the address is in,
    /// under any name. What is sent is encrypted, but nobody knows for whom.
    ///
    /// Only for networks that nobody else reaches. A network that uses them says so in its log at
    /// the start, and listens at loopback addresses only, unless it is told otherwise
    /// ([`crate::QuicNetworkBuilder::insecure_beyond_loopback`]). It does not talk to nodes that have
    /// certificates, nor they to it.
    ///
    /// # Errors
    /// [`CredentialsError::Certificate`]: a name that cannot stand in a certificate.
    pub fn insecure(node_name: &str) -> Result<Self, CredentialsError> {
        let own = Issued::self_signed(&Subject::node(node_name))?;
        let (certificate, key) = own.into_der();
        Self::fixed(Present::unchecked(vec![certificate], key)?)
    }

    /// Reads the files anew, and puts what is in them in force for all connections that are made
    /// from now on; `false` if nothing is new, or the credentials are not from files.
    ///
    /// To change an authority, first let all nodes trust both, then give out certificates of the new
    /// one, then let all forget the old one.
    ///
    /// # Errors
    /// [`CredentialsError`], and what was in force stays in force: a file cannot be read, the parts
    /// do not fit each other (perhaps only some of them were written by now), peers with the same
    /// authorities would not accept this node, or the certificate is for other names than before.
    pub fn reload(&self) -> Result<bool, CredentialsError> {
        self.inner.reload()
    }

    /// Puts other credentials in force, as [`Credentials::reload`] does, for programs that keep them
    /// elsewhere. What was revoked stays revoked. Files, if there are any, take their place again when
    /// they change.
    ///
    /// # Errors
    /// [`CredentialsError`], as for [`Credentials::reload`].
    pub fn replace(
        &self,
        authorities: &[u8],
        chain: &[u8],
        key: &[u8],
    ) -> Result<(), CredentialsError> {
        let next = Present::from_pem(authorities, chain, key)?;
        let revoked = self.inner.present().revoked.clone();
        self.inner.change_to(next.without(revoked)).map(|_| ())
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
        encode(Zone::Node, node_name)
    }

    /// Whether peers will believe this node, or client, that it is `name`.
    #[must_use]
    pub fn proves_name(&self, name: &str) -> bool {
        self.identity_as(name).is_some()
    }

    /// Who this process is to its peers if it calls itself `name`; `None` if they will not believe
    /// that.
    #[must_use]
    pub fn identity_as(&self, name: &str) -> Option<PeerIdentity> {
        let present = self.inner.present();
        let own = present.own.end_entity_cert().ok()?;
        CertificateNames::of(own).identity_as(name)
    }

    /// Whether they are those of a client called `name`, which cannot be a member.
    #[must_use]
    pub fn are_of_client(&self, name: &str) -> bool {
        let identity = self.identity_as(name);
        identity.is_some_and(|identity| identity.kind() == PeerKind::Client)
    }

    /// Whether they check nobody ([`Credentials::insecure`]).
    #[must_use]
    pub fn are_insecure(&self) -> bool {
        self.inner.present().check.is_insecure()
    }

    /// What this node's certificate says; `None` for one that cannot be shown.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateInfo> {
        self.inner.present().info()
    }

    fn fixed(present: Present) -> Result<Self, CredentialsError> {
        Ok(Self::new(present, None))
    }

    fn new(present: Present, files: Option<CredentialFiles>) -> Self {
        Self {
            inner: Arc::new(Inner {
                present: RwLock::new(Arc::new(present)),
                files,
                changing: Mutex::new(()),
                connections: Connections::default(),
            }),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(crate) fn present(&self) -> Arc<Present> {
        let present = self.present.read();
        present.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn files(&self) -> Option<&CredentialFiles> {
        self.files.as_ref()
    }

    pub(crate) fn reload(&self) -> Result<bool, CredentialsError> {
        match &self.files {
            Some(files) => self.change_to(files.read()?),
            None => Ok(false),
        }
    }

    /// Puts `next` in force if it is new.
    fn change_to(&self, next: Present) -> Result<bool, CredentialsError> {
        let changing = self.changing.lock();
        let _one_at_a_time = changing.unwrap_or_else(PoisonError::into_inner);
        let present = self.present();
        if present.digest == next.digest {
            return Ok(false);
        }
        if let Some(name) = present.name_lost_in(&next) {
            return Err(CredentialsError::OtherName { name });
        }
        let (until, authorities) = (
            next.info().map(|info| info.not_after),
            next.check.authorities(),
        );
        let until = until.map(crate::certificates::show_time);
        let next = Arc::new(next);
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        let (revoked, closed) = (next.revoked.len(), self.connections.close(&next.revoked));
        tracing::info!(
            until,
            authorities,
            revoked,
            closed,
            "new credentials are in force"
        );
        Ok(true)
    }

    /// Notes a connection, so that it ends when its certificate is revoked, or was since its handshake.
    pub(crate) fn note(
        &self,
        connection: &Arc<dyn Connection>,
        chain: Vec<CertificateDer<'static>>,
    ) {
        let is_revoked = |present: &Present| present.revoked.hold(&chain);
        let weak = Arc::downgrade(connection);
        self.connections.note(weak, chain.clone());
        if is_revoked(&self.present()) {
            connection.close(revocation::REASON);
        }
    }
}

impl Present {
    pub(crate) fn from_pem(
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
        Self::trusting(authorities, chain, key)
    }

    fn trusting(
        authorities: Vec<CertificateDer<'static>>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let parts: Vec<&[u8]> = authorities
            .iter()
            .chain(&chain)
            .map(|der| &der[..])
            .collect();
        let digest = digest_of(&parts, &key);
        let check = PeerCheck::new(authorities)?;
        let own = certified(chain, key)?;
        check.accepts(&own)?;
        Ok(Self {
            check,
            own,
            revoked: Fingerprints::default(),
            digest,
        })
    }

    /// The same, with these certificates revoked.
    pub(crate) fn without(mut self, revoked: Fingerprints) -> Self {
        if !revoked.is_empty() {
            self.digest = sha256(&[&self.digest[..], &revoked.bytes()].concat());
        }
        if revoked.hold(&self.own.cert) {
            tracing::warn!("the certificate of this node is revoked: its peers will refuse it");
        }
        self.revoked = revoked;
        self
    }

    fn unchecked(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let digest = digest_of(&[], &key);
        Ok(Self {
            check: PeerCheck::insecure(),
            own: certified(chain, key)?,
            revoked: Fingerprints::default(),
            digest,
        })
    }

    pub(crate) fn info(&self) -> Option<CertificateInfo> {
        CertificateInfo::of(self.own.end_entity_cert().ok()?)
    }

    /// A name that this certificate has and that of `next` has not.
    fn name_lost_in(&self, next: &Self) -> Option<String> {
        let names = |present: &Self| {
            let own = present.own.end_entity_cert();
            own.map(CertificateNames::of).unwrap_or_default()
        };
        let (before, after) = (names(self), names(next));
        let lost = before.nodes.difference(&after.nodes);
        lost.chain(before.clients.difference(&after.clients))
            .next()
            .cloned()
    }

    /// When there is little left of the life of this node's certificate: until when it is valid.
    pub(crate) fn expires_soon(&self, now: SystemTime) -> Option<SystemTime> {
        let info = self.info()?;
        let life = info.not_after.duration_since(info.not_before).ok()?;
        let left = info.not_after.duration_since(now).unwrap_or_default();
        (left < life / 10).then_some(info.not_after)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.inner, f)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("authorities", &self.present().check.authorities())
            .finish_non_exhaustive()
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let own = CertifiedKey::from_der(chain, key, &provider());
    own.map(Arc::new).map_err(|e| CredentialsError::Key {
        reason: e.to_string(),
    })
}

/// The cryptography of all nodes. Always passed on, so that what else a process does with TLS
/// changes nothing here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // Without TLS 1.2 in the build there is no other kind.
    #[allow(
        irrefutable_let_patterns,
        reason = "refutable if a program builds rustls with TLS 1.2"
    )]
    if let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 {
        digest.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    }
    digest
}

fn digest_of(parts: &[&[u8]], key: &PrivateKeyDer<'_>) -> [u8; 32] {
    let all = parts.iter().map(|part| sha256(part));
    let all: Vec<_> = all.chain([sha256(key.secret_der())]).collect();
    sha256(&all.concat())
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
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file cannot be used.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The folder of the development authority cannot be used.
    #[error("cannot use {} for the development authority: {source}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key does not fit the certificate, or is of a kind that is not supported.
    #[error("the key of this node cannot be used: {reason}")]
    Key {
        /// What was wrong.
        reason: String,
    },
    /// Peers that trust the same authorities would not accept this node.
    #[error("the certificate of this node would be refused by its peers: {reason}")]
    NotAccepted {
        /// What was wrong.
        reason: String,
    },
    /// The certificate that was to take the place of another one is not for the same node.
    #[error(
        "the new certificate is not for `{name}`, as the present one is: start the node anew to change its name"
    )]
    OtherName {
        /// The name that it lacks.
        name: String,
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
