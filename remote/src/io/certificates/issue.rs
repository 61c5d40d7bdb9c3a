//! Issue: an authority that makes certificates for nodes and clients.

use super::info::CertificateInfo;
use super::names::{Zone, encode};
use crate::NodeId;
use crate::io::credentials::certificates;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Clocks of nodes may be behind that of the authority by this much.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(300);

/// An authority with its key: whoever has it makes any node.
///
/// Its `Debug` shows no key.
///
/// ```
/// use otava_remote::certificates::{Authority, Subject};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// const DAY: Duration = Duration::from_secs(86_400);
/// let authority = Authority::generate("The bank's nodes", 3_650 * DAY)?;
/// let issued = authority.issue(&Subject::node("node-1").role("worker"), 90 * DAY)?;
/// let (trusted, chain, key) = (authority.certificate_pem(), issued.chain_pem(), issued.key_pem());
/// let credentials = otava_remote::Credentials::from_pem(
///     trusted.as_bytes(),
///     chain.as_bytes(),
///     key.as_bytes(),
/// )?;
/// assert!(credentials.proves_name("node-1"));
/// # Ok(())
/// # }
/// ```
pub struct Authority {
    certificate: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one. `name` is for people to read: only the key tells authorities apart.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn generate(name: &str, valid_for: Duration) -> Result<Self, CertificateError> {
        let now = SystemTime::now();
        let mut params = params(name)?;
        params.not_before = before(now).into();
        params.not_after = after(now, valid_for)?.into();
        Self::self_signed(params)
    }

    /// Makes the authority of a folder for development, which never expires.
    pub(crate) fn for_development() -> Result<Self, CertificateError> {
        Self::self_signed(params("Otava development authority")?)
    }

    fn self_signed(params: CertificateParams) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(made)?;
        let certificate = params.self_signed(&key).map_err(made)?;
        Ok(Self {
            certificate: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads what [`Authority::certificate_pem`] and [`Authority::key_pem`] have shown.
    ///
    /// # Errors
    /// [`CertificateError::Unreadable`]; whether certificate and key belong together shows when
    /// something is issued.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let unreadable = |what, reason: String| CertificateError::Unreadable { what, reason };
        let what = "the certificate of the authority";
        let mut found = certificates(what, certificate.as_bytes())
            .map_err(|error| unreadable(what, error.to_string()))?;
        let der = found.swap_remove(0);
        let info = CertificateInfo::of(&der)
            .ok_or_else(|| unreadable(what, "it is damaged".to_owned()))?;
        if !info.is_authority {
            return Err(unreadable(what, "it is that of a node".to_owned()));
        }
        let what = "the key of the authority";
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| unreadable(what, error.to_string()))?;
        let key = KeyPair::try_from(&key).map_err(|error| unreadable(what, error.to_string()))?;
        Ok(Self {
            certificate: certificate.to_owned(),
            der,
            issuer: Issuer::new(params(&info.subject)?, key),
        })
    }

    /// Its certificate, for all who are to trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Its key, to be kept where no node runs.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a certificate and its key.
    ///
    /// # Errors
    /// [`CertificateError`]: a name that cannot stand in a certificate, or a time out of reach.
    pub fn issue(&self, to: &Subject, valid_for: Duration) -> Result<Issued, CertificateError> {
        let now = SystemTime::now();
        let (from, until) = (before(now), after(now, valid_for)?);
        let ends = CertificateInfo::of(&self.der).map(|info| info.not_after);
        if ends.is_some_and(|ends| until > ends) {
            return Err(CertificateError::OutlivesAuthority);
        }
        self.issue_between(to, Some((from, until)))
    }

    /// Without an end: for credentials that live in memory only.
    pub(crate) fn issue_for_good(&self, to: &Subject) -> Result<Issued, CertificateError> {
        self.issue_between(to, None)
    }

    fn issue_between(
        &self,
        to: &Subject,
        valid: Option<(SystemTime, SystemTime)>,
    ) -> Result<Issued, CertificateError> {
        let mut params = to.params()?;
        if let Some((from, until)) = valid {
            params.not_before = from.into();
            params.not_after = until.into();
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(made)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(made)?;
        Ok(Issued { certificate, key })
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// What an authority shows of itself. The same in every process: an issuer is known by its name and
/// its key.
fn params(name: &str) -> Result<CertificateParams, CertificateError> {
    if name.is_empty() || name.len() > AUTHORITY_BYTES_MAX || name.contains(char::is_control) {
        return Err(CertificateError::Name {
            name: name.to_owned(),
        });
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The longest common name that X.509 allows.
const AUTHORITY_BYTES_MAX: usize = 64;

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn before(now: SystemTime) -> SystemTime {
    now.checked_sub(CLOCKS_DIFFER_BY).unwrap_or(now)
}

/// The last second that X.509 can name is that of the year 9999.
fn after(now: SystemTime, valid_for: Duration) -> Result<SystemTime, CertificateError> {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    now.checked_add(valid_for)
        .filter(|until| *until <= last && !valid_for.is_zero())
        .ok_or(CertificateError::Time { valid_for })
}

fn made(error: rcgen::Error) -> CertificateError {
    CertificateError::NotMade {
        reason: error.to_string(),
    }
}

/// Whom a certificate is for, and what it lets its holder do.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Subject {
    name: String,
    zone: Zone,
    roles: BTreeSet<String>,
    addresses: BTreeSet<SocketAddr>,
}

impl Subject {
    /// A node, which may be a member.
    pub fn node(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            zone: Zone::Node,
            roles: BTreeSet::new(),
            addresses: BTreeSet::new(),
        }
    }

    /// A client, which may not.
    pub fn client(name: &str) -> Self {
        Self {
            zone: Zone::Client,
            ..Self::node(name)
        }
    }

    /// Adds a role, for rights that ask for it ([`crate::Rights`]).
    pub fn role(mut self, role: &str) -> Self {
        self.roles.insert(role.to_owned());
        self
    }

    /// Adds an address at which it may listen. Without any, it may listen at all that nobody else
    /// holds; with one, nobody can take its place there while it is away.
    pub fn address(mut self, addr: SocketAddr) -> Self {
        self.addresses.insert(addr);
        self
    }

    fn params(&self) -> Result<CertificateParams, CertificateError> {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let roles = self.roles.iter().map(|role| (Zone::Role, role));
        let addresses = addresses.iter().map(|addr| (Zone::Address, addr));
        let names = [(self.zone, &self.name)];
        let mut params = CertificateParams::default();
        for (zone, text) in names.into_iter().chain(roles).chain(addresses) {
            let valid = zone == Zone::Address || NodeId::is_valid_name(text);
            let name = encode(zone, text).filter(|_| valid);
            let name = name.ok_or_else(|| CertificateError::Name { name: text.clone() })?;
            let name = SanType::DnsName(name.try_into().map_err(made)?);
            params.subject_alt_names.push(name);
        }
        params.distinguished_name = common_name(&self.name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Ok(params)
    }
}

/// A certificate and its key. Its `Debug` shows no key.
pub struct Issued {
    certificate: Certificate,
    key: KeyPair,
}

impl Issued {
    /// The certificate.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.certificate.pem()
    }

    /// The key.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub(crate) fn into_der(self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        (self.certificate.der().clone(), key.into())
    }

    /// A certificate that vouches for itself, for nodes without an authority.
    pub(crate) fn self_signed(subject: &Subject) -> Result<Self, CertificateError> {
        let key = KeyPair::generate().map_err(made)?;
        let certificate = subject.params()?.self_signed(&key).map_err(made)?;
        Ok(Self { certificate, key })
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

/// Why a certificate was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A name cannot stand in a certificate.
    #[error(
        "{name:?} cannot stand in a certificate: names of nodes, clients and roles have 1 to 128 letters, \
         digits, '-', '_' and '.'; about 70 characters always fit; an authority has 1 to 64 characters"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The library that makes certificates could not.
    #[error("cannot make a certificate: {reason}")]
    NotMade {
        /// What was wrong.
        reason: String,
    },
    /// It would be valid for longer than its authority, and be refused from then on.
    #[error(
        "the authority expires before the certificate would: ask for fewer days, or make a new authority"
    )]
    OutlivesAuthority,
    /// A time that no certificate can have.
    #[error("a certificate cannot be valid for {valid_for:?}")]
    Time {
        /// The time.
        valid_for: Duration,
    },
    /// A part of the authority is not what it should be.
    #[error("cannot read {what}: {reason}")]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// What was wrong.
        reason: String,
    },
}
