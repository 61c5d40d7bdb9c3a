//! Tls: the one check that every peer must pass, whichever side called, and its configurations.
//!
//! Both sides show a certificate, and both are held to the same check: a chain to an authority that
//! this node trusts, valid now, allowed to act as client **and** as server. A stolen certificate of
//! some web server is therefore no way in. Neither side resumes sessions or sends early data: each
//! connection begins with the whole check.
//!
//! The name is not checked here. A node dials an address, and learns who is there from the peer's
//! first message; whoever reads that message calls [`crate::Connection::identity_as`].

use crate::io::credentials::{Credentials, CredentialsError, Inner, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// The protocol spoken inside; a peer that speaks another one is refused by TLS. Nodes that check
/// nobody speak one of their own, so that they and the others never meet.
fn protocol(credentials: &Credentials) -> Vec<Vec<u8>> {
    let name: &[u8] = match credentials.are_insecure() {
        true => b"otava-insecure/1",
        false => b"otava/1",
    };
    vec![name.to_vec()]
}

/// What this node shows and demands when it is called.
pub(crate) fn server(credentials: &Credentials) -> Result<rustls::ServerConfig, Error> {
    let verifier = Arc::new(PeerVerifier::new(credentials));
    let own = Arc::new(Own(credentials.inner().clone()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = protocol(credentials);
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// What this node shows and demands when it calls.
pub(crate) fn client(credentials: &Credentials) -> Result<rustls::ClientConfig, Error> {
    let verifier = Arc::new(PeerVerifier::new(credentials));
    let own = Arc::new(Own(credentials.inner().clone()));
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.alpn_protocols = protocol(credentials);
    config.enable_early_data = false;
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What this node holds peers to.
pub(crate) enum PeerCheck {
    /// A certificate of one of these authorities.
    Authorities {
        roots: Arc<RootCertStore>,
        as_client: Arc<dyn ClientCertVerifier>,
    },
    /// Nothing: [`Credentials::insecure`].
    Insecure,
}

impl PeerCheck {
    pub(crate) fn new(authorities: Vec<CertificateDer<'static>>) -> Result<Self, CredentialsError> {
        let unusable = |reason: String| CredentialsError::Pem {
            what: "the authorities",
            reason,
        };
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|e| unusable(e.to_string()))?;
        }
        let roots = Arc::new(roots);
        let as_client = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
        let as_client = as_client.build().map_err(|e| unusable(e.to_string()))?;
        Ok(Self::Authorities { roots, as_client })
    }

    pub(crate) fn insecure() -> Self {
        Self::Insecure
    }

    pub(crate) fn is_insecure(&self) -> bool {
        matches!(self, Self::Insecure)
    }

    /// How many authorities are trusted.
    pub(crate) fn authorities(&self) -> usize {
        match self {
            Self::Authorities { roots, .. } => roots.len(),
            Self::Insecure => 0,
        }
    }

    /// Checks this node's own certificate as its peers will, so that a mistake is found before
    /// anything depends on it.
    pub(crate) fn accepts(&self, own: &CertifiedKey) -> Result<(), CredentialsError> {
        let checked = match own.cert.split_first() {
            Some((own, between)) => self.check(own, between, UnixTime::now()),
            None => Err(Error::NoCertificatesPresented),
        };
        checked.map_err(|e| CredentialsError::NotAccepted {
            reason: e.to_string(),
        })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let Self::Authorities { roots, as_client } = self else {
            return Ok(());
        };
        as_client.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let all = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, all)
    }
}

/// Shows the certificate that is in force at the moment of the handshake.
#[derive(Debug)]
struct Own(Arc<Inner>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.present().own.clone())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.present().own.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Holds peers to the check that is in force at the moment of the handshake.
#[derive(Debug)]
struct PeerVerifier {
    credentials: Arc<Inner>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    fn new(credentials: &Credentials) -> Self {
        Self {
            credentials: credentials.inner().clone(),
            algorithms: provider().signature_verification_algorithms,
        }
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let present = self.credentials.present();
        present.check.check(end_entity, intermediates, now)?;
        if present
            .revoked
            .hold(intermediates.iter().chain([end_entity]))
        {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(
        PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
    ))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
