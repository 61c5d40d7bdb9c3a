//! Floor: the same bytes over bare quinn with mutual TLS: one stream, writes of 64 KiB or one message.

use crate::{Found, SIZE, memory, sized};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{RecvStream, SendStream};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAME: &str = "localhost";
/// How many bytes are written at once, at most.
const WRITE_BYTES: usize = 64 << 10;
/// How many bytes are read at once, at most.
const READ_BYTES: usize = 256 << 10;
/// What the server is to do with a stream: the first byte on it.
const ECHO: u8 = b'e';
const SINK: u8 = b's';

/// Starts the server, until what is returned is dropped; with it, where it listens.
pub(crate) fn serve(folder: &Path) -> (String, Box<dyn Send>) {
    let issued = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    std::fs::write(folder.join("cert.der"), issued.cert.der()).unwrap();
    std::fs::write(folder.join("key.der"), issued.signing_key.serialize_der()).unwrap();
    let (roots, chain, key) = identity(folder);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = quinn::Endpoint::server(config, listen).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Some(caller) = endpoint.accept().await {
            let connection = caller.await.unwrap();
            tokio::spawn(async move {
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(answer(send, recv));
                }
            });
        }
    });
    (addr.to_string(), Box::new(accepting))
}

fn identity(
    folder: &Path,
) -> (
    Arc<RootCertStore>,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
) {
    let certificate = CertificateDer::from(std::fs::read(folder.join("cert.der")).unwrap());
    let key = std::fs::read(folder.join("key.der")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.into());
    (Arc::new(roots), vec![certificate], key)
}

async fn answer(mut send: SendStream, mut recv: RecvStream) {
    let mut order = [0; 9];
    recv.read_exact(&mut order).await.unwrap();
    let (what, n) = order.split_first().unwrap();
    let n = u64::from_le_bytes(n.try_into().unwrap());
    if *what == ECHO {
        let mut message = [0; SIZE];
        for _ in 0..n {
            recv.read_exact(&mut message).await.unwrap();
            send.write_all(&message).await.unwrap();
        }
    } else {
        sink(&mut recv, n).await;
    }
    // How it went, and what it took here.
    let (rss, peak) = memory();
    let mut words = rss.to_le_bytes().to_vec();
    words.extend_from_slice(&peak.to_le_bytes());
    send.write_all(&words).await.unwrap();
    let _ = send.finish();
    let _ = send.stopped().await;
}

/// Takes `n` messages behind their lengths, each into memory of its own, as a layer above would.
async fn sink(recv: &mut RecvStream, n: u64) {
    let mut buffer = vec![0; READ_BYTES];
    let (mut filled, mut taken) = (0, 0);
    while taken < n {
        filled += recv.read(&mut buffer[filled..]).await.unwrap().unwrap();
        let mut rest = &buffer[..filled];
        while let Some((length, more)) = rest.split_first_chunk() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((message, more)) = more.split_at_checked(length) else {
                break;
            };
            black_box(Box::<[u8]>::from(message));
            taken += 1;
            rest = more;
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

pub(crate) async fn run(workload: &str, folder: &Path, to: &str, scale: f64) -> Found {
    let (roots, chain, key) = identity(folder);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let connecting = endpoint.connect_with(config, to.parse().unwrap(), NAME);
    let connection = connecting.unwrap().await.unwrap();
    match workload {
        "floor_tell100" => {
            let n = sized(5_000_000, scale);
            tell100(&connection, n).await
        }
        "floor_rtt" => {
            let n = sized(50_000, scale);
            rtt(&connection, n).await;
            let since = Instant::now();
            let (waits, memory) = rtt(&connection, n).await;
            Found::new(n, since).with_waits(waits).with_server(memory)
        }
        _ => unreachable!("the names were checked"),
    }
}

async fn begin(connection: &quinn::Connection, what: u8, n: u64) -> (SendStream, RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    let mut order = vec![what];
    order.extend_from_slice(&n.to_le_bytes());
    send.write_all(&order).await.unwrap();
    (send, recv)
}

async fn end(recv: &mut RecvStream) -> (u64, u64) {
    let (mut rss, mut peak) = ([0; 8], [0; 8]);
    recv.read_exact(&mut rss).await.unwrap();
    recv.read_exact(&mut peak).await.unwrap();
    (u64::from_le_bytes(rss), u64::from_le_bytes(peak))
}

async fn rtt(connection: &quinn::Connection, n: u64) -> (Vec<Duration>, (u64, u64)) {
    let (mut send, mut recv) = begin(connection, ECHO, n).await;
    let mut waits = Vec::with_capacity(usize::try_from(n).unwrap());
    let mut message = [7; SIZE];
    for _ in 0..n {
        let since = Instant::now();
        send.write_all(&message).await.unwrap();
        recv.read_exact(&mut message).await.unwrap();
        waits.push(since.elapsed());
    }
    (waits, end(&mut recv).await)
}

async fn tell100(connection: &quinn::Connection, n: u64) -> Found {
    let since = Instant::now();
    let (mut send, mut recv) = begin(connection, SINK, n).await;
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    for _ in 0..n {
        if buffer.len() + 4 + SIZE > WRITE_BYTES {
            send.write_all(&buffer).await.unwrap();
            buffer.clear();
        }
        buffer.extend_from_slice(&(SIZE as u32).to_le_bytes());
        buffer.extend_from_slice(&[7; SIZE]);
    }
    send.write_all(&buffer).await.unwrap();
    let memory = end(&mut recv).await;
    Found::new(n, since).with_server(memory)
}
