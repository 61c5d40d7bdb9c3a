//! Tls: whoever has no good certificate is refused, whichever side called, and nothing of him is read.
//!
//! The rogues here speak QUIC and TLS themselves, accept everything, and lie as they please.

use crate::network::ANY_PORT;
use bytes::Bytes;
use otava_actor::testkit::{LogSpy, LoggedEvent};
use otava_remote::{
    ConnectError, Connection, Credentials, CredentialsError, Network as _, QuicNetwork,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tracing::Level;

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "The authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// All authorities have the same name: only the key tells them apart.
pub(crate) fn authority() -> Authority {
    CertifiedIssuer::self_signed(authority_params(), KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn node_params(name: &str) -> CertificateParams {
    let mut params =
        CertificateParams::new([Credentials::certificate_name(name).unwrap()]).unwrap();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// A certificate, those between it and its authority, and a key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    pub(crate) fn issued(authority: &Authority, params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, authority).unwrap().der().clone()];
        Self { chain, key }
    }

    fn credentials(&self, authority: &Authority) -> Result<Credentials, CredentialsError> {
        let pem = |der: &CertificateDer<'_>| pem("CERTIFICATE", der);
        let chain: String = self.chain.iter().map(pem).collect();
        let key = self.key.serialize_pem();
        Credentials::from_pem(authority.pem().as_bytes(), chain.as_bytes(), key.as_bytes())
    }

    /// What TLS shows. It is not checked that the key fits.
    pub(crate) fn shown(&self) -> Arc<SingleCertAndKey> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = provider().key_provider.load_private_key(key).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            self.chain.clone(),
            key,
        )))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in der.chunks(3) {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for n in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * n)) as usize & 63]);
            text.push(if n <= three.len() { digit } else { '=' });
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        text.trim_end()
    )
}

pub(crate) fn good(authority: &Authority, name: &str) -> QuicNetwork {
    let credentials = Identity::issued(authority, &node_params(name)).credentials(authority);
    let builder = QuicNetwork::builder(name, ANY_PORT, credentials.unwrap());
    builder.bind().unwrap()
}

/// Everything that must not get in, by name. `None` shows no certificate at all.
pub(crate) fn rogues(authority: &Authority) -> Vec<(&'static str, Option<Identity>)> {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = node_params("rogue");
        change(&mut params);
        Some(Identity::issued(authority, &params))
    };
    let of_another = Identity::issued(&self::authority(), &node_params("rogue"));
    let self_signed =
        CertifiedIssuer::self_signed(authority_params(), KeyPair::generate().unwrap());
    let self_signed = self_signed.unwrap();
    let node =
        CertifiedIssuer::signed_by(node_params("node"), KeyPair::generate().unwrap(), authority);
    let node = node.unwrap();
    let mut by_a_node = Identity::issued(&node, &node_params("rogue"));
    by_a_node.chain.push(node.der().clone());
    let mut stolen = Identity::issued(authority, &node_params("rogue"));
    stolen.key = KeyPair::generate().unwrap();
    vec![
        ("no certificate", None),
        ("of another authority", Some(of_another)),
        (
            "self-signed",
            Some(Identity {
                chain: vec![self_signed.der().clone()],
                key: KeyPair::generate_for(self_signed.key().algorithm()).unwrap(),
            }),
        ),
        ("issued by a node", Some(by_a_node)),
        (
            "expired",
            with(&|params| params.not_after = date_time_ymd(2020, 1, 1)),
        ),
        (
            "not yet valid",
            with(&|params| params.not_before = date_time_ymd(3000, 1, 1)),
        ),
        (
            "for servers only",
            with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        (
            "for clients only",
            with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        (
            "for code",
            with(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        ),
        (
            "an authority",
            with(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        ("of somebody else, whose key is missing", Some(stolen)),
    ]
}

#[derive(Debug)]
pub(crate) struct AcceptAll;

impl AcceptAll {
    fn schemes() -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for AcceptAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

pub(crate) fn rogue_client(identity: Option<&Identity>, alpn: &[u8]) -> quinn::Endpoint {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAll));
    let mut config = match identity {
        Some(identity) => config.with_client_cert_resolver(identity.shown()),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicClientConfig::try_from(config).unwrap();
    let mut endpoint = quinn::Endpoint::client(ANY_PORT).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

pub(crate) fn rogue_server(identity: &Identity, alpn: &[u8]) -> quinn::Endpoint {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(AcceptAll))
        .with_cert_resolver(identity.shown());
    config.alpn_protocols = vec![alpn.to_vec()];
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    quinn::Endpoint::server(config, ANY_PORT).unwrap()
}

/// Calls, sends something at once, and says how it ended. TLS lets it believe that it is in.
pub(crate) async fn knock(client: &quinn::Endpoint, at: &QuicNetwork) -> quinn::ConnectionError {
    let connecting = client.connect(at.local_addr(), "any.internal").unwrap();
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    let mut bytes = [Bytes::from_static(b"let me in")];
    if let Ok(mut stream) = connection.open_uni().await {
        let _ = stream.write_chunks(&mut bytes).await;
    }
    connection.closed().await
}

/// Waits for a warning.
pub(crate) async fn logged(log: &LogSpy, text: &str) -> LoggedEvent {
    let is_it = |event: &LoggedEvent| event.message.contains(text);
    let appears = async {
        while !log.events().iter().any(is_it) {
            tokio::task::yield_now().await;
        }
    };
    let appears = tokio::time::timeout(Duration::from_secs(10), appears);
    appears
        .await
        .unwrap_or_else(|_| panic!("no {text:?} in {log:?}"));
    log.expect_event(Level::WARN, text)
}

fn is_tls_alert(error: &quinn::ConnectionError) -> bool {
    let code = match error {
        quinn::ConnectionError::TransportError(error) => error.code,
        quinn::ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return false,
    };
    (0x100..0x200).contains(&u64::from(code))
}

/// X1, CVE-2025-61778: a server that does not look at its clients. The log has a line for each, with the
/// reason.
#[tokio::test]
async fn rogues_that_call_are_refused_and_not_heard() {
    let log = LogSpy::up_to(Level::WARN);
    let authority = authority();
    let network = good(&authority, "a");
    for (what, identity) in rogues(&authority) {
        let client = rogue_client(identity.as_ref(), b"otava/1");
        let limit = Duration::from_secs(5);
        let error = tokio::time::timeout(limit, knock(&client, &network)).await;
        let error = error.unwrap_or_else(|_| panic!("{what}: let in"));
        assert!(is_tls_alert(&error), "{what}: {error:?}");
        let line = logged(&log, "refused a caller").await;
        assert!(line.fields["reason"].len() > 10, "{what}: {line:?}");
        log.expect_nothing(Level::WARN);
    }
    // None of them was handed on: the first that is, is the good one.
    let other = good(&authority, "b");
    let (to_a, first) = tokio::join!(other.connect(network.local_addr()), network.accept());
    assert!(first.unwrap().proves_name("b"));
    assert!(to_a.unwrap().proves_name("a"));
}

/// X1, the other way round: what this node calls must prove itself, too.
#[tokio::test]
async fn rogues_that_are_called_are_refused_and_not_heard() {
    let authority = authority();
    let network = good(&authority, "a");
    for (what, identity) in rogues(&authority) {
        // TLS has no servers without certificates.
        let Some(identity) = identity else { continue };
        let server = rogue_server(&identity, b"otava/1");
        let addr = server.local_addr().unwrap();
        let called = async { server.accept().await.unwrap().accept()?.await };
        let (connected, called) = tokio::join!(network.connect(addr), called);
        match connected.map(|_| ()) {
            Err(ConnectError::Refused { to, reason }) => {
                assert_eq!(to, addr);
                assert!(!reason.is_empty());
            }
            other => panic!("{what}: {other:?}"),
        }
        let error = called.err().unwrap_or_else(|| panic!("{what}: let in"));
        assert!(is_tls_alert(&error), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn who_speaks_another_protocol_is_refused() {
    let authority = authority();
    let network = good(&authority, "a");
    let identity = Identity::issued(&authority, &node_params("b"));
    let error = knock(&rogue_client(Some(&identity), b"h3"), &network).await;
    assert!(is_tls_alert(&error), "{error:?}");
    let server = rogue_server(&identity, b"h3");
    let called = async { server.accept().await.unwrap().accept()?.await };
    let (connected, _) = tokio::join!(network.connect(server.local_addr().unwrap()), called);
    let error = connected.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    // The same one gets in with the right protocol, so that was the reason.
    let client = rogue_client(Some(&identity), b"otava/1");
    let connecting = client
        .connect(network.local_addr(), "any.internal")
        .unwrap();
    let (connected, accepted) = tokio::join!(connecting, network.accept());
    assert!(connected.is_ok() && accepted.unwrap().proves_name("b"));
}

#[tokio::test]
async fn a_certificate_proves_its_name_and_no_other() {
    let authority = authority();
    let (a, b) = (good(&authority, "node-1"), good(&authority, "node-2"));
    let (to_b, from_a) = tokio::join!(a.connect(b.local_addr()), b.accept());
    let proves = |peer: &Arc<dyn Connection>, name| peer.proves_name(name);
    let (to_b, from_a) = (to_b.unwrap(), from_a.unwrap());
    assert!(proves(&to_b, "node-2") && proves(&from_a, "node-1"));
    for name in ["node-1", "node", "NODE-2", "*", "node-2.x"] {
        assert!(!proves(&to_b, name), "{name}");
    }
    // What would do for a web server proves nothing here.
    let mut params = node_params("c");
    let wildcard = SanType::DnsName("*.node.otava.internal".try_into().unwrap());
    params.subject_alt_names = vec![wildcard];
    let credentials = Identity::issued(&authority, &params).credentials(&authority);
    let credentials = credentials.unwrap();
    assert!(!credentials.proves_name("c") && !credentials.proves_name("*"));
}

#[tokio::test]
async fn authorities_may_stand_between() {
    let authority = authority();
    let between = CertifiedIssuer::signed_by(
        {
            let mut params = authority_params();
            params
                .distinguished_name
                .push(DnType::CommonName, "Between");
            params
        },
        KeyPair::generate().unwrap(),
        &authority,
    )
    .unwrap();
    let mut identity = Identity::issued(&between, &node_params("a"));
    identity.chain.push(between.der().clone());
    let credentials = identity.credentials(&authority).unwrap();
    let a = QuicNetwork::builder("a", ANY_PORT, credentials)
        .bind()
        .unwrap();
    let b = good(&authority, "b");
    for (caller, called) in [(&a, &b), (&b, &a)] {
        let (out, inside) = tokio::join!(caller.connect(called.local_addr()), called.accept());
        assert!(out.is_ok() && inside.is_some());
    }
}

#[test]
fn credentials_that_no_peer_would_accept_are_refused_at_once() {
    let authority = authority();
    for (what, identity) in rogues(&authority) {
        let Some(identity) = identity else { continue };
        let error = identity.credentials(&authority).expect_err(what);
        let known = matches!(
            error,
            CredentialsError::NotAccepted { .. } | CredentialsError::Key { .. }
        );
        assert!(known, "{what}: {error:?}");
    }
    let good = Identity::issued(&authority, &node_params("a"));
    let (ca, key) = (authority.pem(), good.key.serialize_pem());
    let chain = pem("CERTIFICATE", &good.chain[0]);
    let parts = [ca.as_bytes(), chain.as_bytes(), key.as_bytes()];
    assert!(Credentials::from_pem(parts[0], parts[1], parts[2]).is_ok());
    for broken in 0..3 {
        for junk in [
            &b""[..],
            b"junk",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let mut parts = parts;
            parts[broken] = junk;
            let read = Credentials::from_pem(parts[0], parts[1], parts[2]);
            assert!(read.is_err(), "part {broken} is {junk:?}");
        }
    }
}
