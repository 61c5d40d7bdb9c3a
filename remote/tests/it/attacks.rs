//! Attacks: what somebody on the network, or with a certificate, does to a node is bounded and leaves no trace.

use crate::cuts::SOON;
use crate::network::{ANY_PORT, quic};
use crate::nodes::{Command, Counter};
use crate::tls::{
    self, Identity, authority, good, node_params, provider, rogue_client, rogue_server,
};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use otava_actor::testkit::{LogSpy, LoggedEvent};
use otava_actor::{ActorRef, ActorSystem, AskError, Props, ReplyTo};
use otava_remote::certificates::{Authority, Subject};
use otava_remote::{
    BindError, ConnectError, CredentialFiles, Credentials, Network, QuicConfig, QuicNetwork,
    Remote, RemoteMessage,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tracing::Level;

fn remote(name: &str, network: impl Network) -> Remote {
    let system = ActorSystem::new(name);
    let builder = Remote::builder(&system, "test", name, Arc::new(network));
    builder.start().unwrap()
}

fn counter(remote: &Remote) -> ActorRef<Command> {
    let props = Props::once(Counter(0));
    let counter = remote.system().spawn_anonymous(props).unwrap();
    remote.publish("counter", &counter).unwrap();
    counter
}

/// X1: a node that is called and has no good certificate is named in the log of the caller, with the
/// reason, and not at every try.
#[tokio::test]
async fn who_is_called_in_vain_is_in_the_log() {
    let log = LogSpy::up_to(Level::WARN);
    let (ours, theirs) = (authority(), authority());
    let a = remote("a", good(&ours, "a"));
    let server = rogue_server(&Identity::issued(&theirs, &node_params("b")), b"otava/1");
    let addr = server.local_addr().unwrap();
    let calls = async {
        for _ in 0..3 {
            let incoming = server.accept().await.unwrap();
            assert!(incoming.accept().unwrap().await.is_err());
        }
    };
    a.keep_connected(addr);
    timeout(SOON, calls).await.unwrap();
    let line = tls::logged(&log, "no connection").await;
    assert_eq!(line.fields["peer"], addr.to_string());
    assert!(
        line.fields["error"].contains("do not accept each other"),
        "{line:?}"
    );
    assert!(a.stats().refused_calls >= 1);
}

/// X2: who wants no certificates has to say so; then the log says it too, only this machine is
/// reached, and nobody with certificates is talked to.
#[tokio::test]
async fn insecure_is_said_warned_of_and_kept_at_home() {
    let log = LogSpy::up_to(Level::WARN);
    let insecure = |name: &str| Credentials::insecure(name).unwrap();
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    for addr in [everywhere, "[::]:0".parse().unwrap()] {
        let refused = QuicNetwork::builder("a", addr, insecure("a")).bind();
        assert!(
            matches!(refused, Err(BindError::Insecure { .. })),
            "{refused:?}"
        );
    }
    log.expect_nothing(Level::WARN);
    let open = QuicNetwork::builder("a", everywhere, insecure("a"));
    drop(open.insecure_beyond_loopback().bind().unwrap());
    log.expect_event(Level::WARN, "INSECURE");

    let bind = |name: &str| {
        QuicNetwork::builder(name, ANY_PORT, insecure(name))
            .bind()
            .unwrap()
    };
    let (a, b) = (bind("a"), bind("b"));
    log.expect_event(Level::WARN, "INSECURE");
    let (to_b, from_a) = tokio::join!(a.connect(b.local_addr()), b.accept());
    assert!(to_b.unwrap().proves_name("b") && from_a.unwrap().proves_name("a"));
    let secure = good(&authority(), "c");
    for (caller, called) in [(&a, &secure), (&secure, &a)] {
        let refused = caller.connect(called.local_addr()).await.err().unwrap();
        assert!(
            matches!(refused, ConnectError::Refused { .. }),
            "{refused:?}"
        );
    }
}

#[derive(Debug)]
struct Resumptions {
    cache: Arc<dyn StoresServerSessions>,
    asked_for: AtomicUsize,
}

impl StoresServerSessions for Resumptions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.asked_for.fetch_add(1, Ordering::Relaxed);
        self.cache.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.asked_for.fetch_add(1, Ordering::Relaxed);
        self.cache.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

/// X5: early data is never accepted and never sent, whatever the other side offers.
#[tokio::test]
async fn there_is_no_early_data() {
    let authority = authority();
    let a = good(&authority, "a");
    let b = Identity::issued(&authority, &node_params("b"));

    // A caller that would send early data gets no ticket to do so.
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(tls::AcceptAll))
        .with_client_cert_resolver(b.shown());
    config.alpn_protocols = vec![b"otava/1".to_vec()];
    config.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(config).unwrap();
    let mut client = quinn::Endpoint::client(ANY_PORT).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    for _ in 0..3 {
        let connecting = client
            .connect(a.local_addr(), "node.otava.internal")
            .unwrap();
        let Err(connecting) = connecting.into_0rtt() else {
            panic!("it may send before it was checked");
        };
        let (connected, accepted) = tokio::join!(connecting, a.accept());
        assert!(accepted.unwrap().proves_name("b"));
        let _ = timeout(Duration::from_millis(100), connected.unwrap().closed()).await;
    }

    // A server that hands out tickets never sees one again.
    let sessions = Arc::new(Resumptions {
        cache: ServerSessionMemoryCache::new(100),
        asked_for: AtomicUsize::new(0),
    });
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(tls::AcceptAll))
        .with_cert_resolver(b.shown());
    config.alpn_protocols = vec![b"otava/1".to_vec()];
    config.max_early_data_size = u32::MAX;
    config.session_storage = sessions.clone();
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = quinn::Endpoint::server(config, ANY_PORT).unwrap();
    for _ in 0..3 {
        let called = async { server.accept().await.unwrap().accept().unwrap().await };
        let (connected, called) = tokio::join!(a.connect(server.local_addr().unwrap()), called);
        assert!(connected.unwrap().proves_name("b"));
        let _ = timeout(Duration::from_millis(100), called.unwrap().closed()).await;
    }
    assert_eq!(sessions.asked_for.load(Ordering::Relaxed), 0);
    // Others do come back with one, so there was something to refuse.
    let client = rogue_client(Some(&b), b"otava/1");
    let addr = server.local_addr().unwrap();
    for _ in 0..3 {
        let called = async { server.accept().await.unwrap().accept().unwrap().await };
        let connecting = client.connect(addr, "b.internal").unwrap();
        let (connected, called) = tokio::join!(connecting, called);
        let _ = timeout(Duration::from_millis(100), called.unwrap().closed()).await;
        drop(connected);
    }
    assert!(sessions.asked_for.load(Ordering::Relaxed) > 0);
}

/// Passes datagrams on, and keeps those of the caller.
struct Tap {
    addr: SocketAddr,
    target: SocketAddr,
    socket: Arc<UdpSocket>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    async fn before(target: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::bind(ANY_PORT).await.unwrap());
        let tap = Self {
            addr: socket.local_addr().unwrap(),
            target,
            socket: socket.clone(),
            kept: Arc::default(),
        };
        let keeps = tap.kept.clone();
        tokio::spawn(async move {
            let (mut caller, mut buffer) = (None, [0; 2048]);
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let datagram = &buffer[..length];
                let to = if from == target {
                    caller
                } else {
                    caller = Some(from);
                    keeps.lock().unwrap().push(datagram.to_vec());
                    Some(target)
                };
                if let Some(to) = to {
                    let _ = socket.send_to(datagram, to).await;
                }
            }
        });
        tap
    }

    /// A node that says it is where the tap is.
    async fn of_node(credentials: &Credentials) -> (Remote, Self) {
        loop {
            let free = std::net::UdpSocket::bind(ANY_PORT).unwrap();
            let listen = free.local_addr().unwrap();
            drop(free);
            let tap = Self::before(listen).await;
            let builder = QuicNetwork::builder("b", listen, credentials.clone());
            // Somebody else may have taken the port meanwhile.
            if let Ok(network) = builder.advertise(tap.addr).bind() {
                return (remote("b", network), tap);
            }
        }
    }

    async fn replay(&self) {
        let recorded = self.kept.lock().unwrap().clone();
        assert!(recorded.len() > 20, "{} datagrams", recorded.len());
        for datagram in &recorded {
            self.socket.send_to(datagram, self.target).await.unwrap();
        }
    }
}

/// X5: whatever was recorded, sent again: while the connection lives, and when it is gone.
#[tokio::test]
async fn recorded_packets_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::development(folder.path(), "b").unwrap();
    let (b, tap) = Tap::of_node(&credentials).await;
    let _counter = counter(&b);
    let a = remote("a", quic(folder.path(), "a"));
    let seen = a.resolve::<Command>(b.id(), "counter");
    for _ in 0..50 {
        seen.tell(Command::Add(1)).unwrap();
        assert!(seen.ask(Command::Get).within(SOON).await.is_ok());
    }
    tap.replay().await;
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(50));
    a.shutdown().await;
    tap.replay().await;
    let late = remote("c", quic(folder.path(), "c"));
    let seen = late.resolve::<Command>(b.id(), "counter");
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(50));
}

/// X8: callers without certificates that call without end, and an honest node that is served meanwhile.
#[tokio::test]
async fn a_flood_of_handshakes_keeps_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let b = remote("b", quic(folder.path(), "b"));
    let _counter = counter(&b);
    let addr = b.id().addr;
    let calls = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let calls = calls.clone();
            tokio::spawn(async move {
                let client = rogue_client(None, b"otava/1");
                loop {
                    let many = (0..10).filter_map(|_| client.connect(addr, "any.internal").ok());
                    let ended = join_all(many).await;
                    calls.fetch_add(ended.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..2 {
        let a = remote(&format!("a-{n}"), quic(folder.path(), &format!("a-{n}")));
        let seen = a.resolve_at::<Command>(addr, "counter");
        let served = async {
            // It may be refused a few times for want of room, and calls again by itself.
            while seen.ask(Command::Get).within(SOON).await.is_err() {}
        };
        timeout(3 * SOON, served)
            .await
            .expect("an honest node is kept out");
        for _ in 0..5 {
            assert!(seen.ask(Command::Get).within(SOON).await.is_ok());
        }
    }
    floods.iter().for_each(tokio::task::JoinHandle::abort);
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 20, "{calls} calls are no flood");
}

/// X8: a peer with a certificate that opens all the streams it can, and never says who it is, gets a few.
#[tokio::test]
async fn streams_are_few_and_those_who_say_nothing_are_shown_out() {
    let authority = authority();
    let limits = QuicConfig::default();
    let b = remote("b", good(&authority, "b"));
    let _counter = counter(&b);
    let evil = Identity::issued(&authority, &node_params("evil"));
    let client = rogue_client(Some(&evil), b"otava/1");
    let connecting = client.connect(b.id().addr, "any.internal").unwrap();
    let connection = connecting.await.unwrap();
    let mut streams = Vec::new();
    while let Ok(Ok(mut stream)) = timeout(Duration::from_millis(300), connection.open_uni()).await
    {
        let _ = timeout(Duration::from_millis(50), stream.write(b"OTVA")).await;
        streams.push(stream);
        assert!(
            streams.len() <= limits.lanes_max as usize,
            "more lanes than are allowed"
        );
    }
    let both_ways = connection.open_bi().now_or_never();
    assert!(!matches!(both_ways, Some(Ok(_))));
    let a = remote("a", good(&authority, "a"));
    let seen = a.resolve::<Command>(b.id(), "counter");
    assert_eq!(seen.ask(Command::Get).within(SOON).await, Ok(0));
    timeout(SOON, connection.closed())
        .await
        .expect("it is shown out");
    assert!(b.stats().peer_faults >= 1);
}

const DAY: Duration = Duration::from_secs(86_400);
const MARKER: &str = "planted-marker-5f1d";

#[derive(Deserialize, Serialize)]
enum Secret {
    Tell(String),
    Ask(
        String,
        #[serde(with = "otava_remote::wire")] ReplyTo<String>,
    ),
}

impl RemoteMessage for Secret {
    const NAME: &'static str = "test.Secret";
}

/// The same name with another form: what it sends is not understood.
#[derive(Deserialize, Serialize)]
struct OtherSecret(u8, String);

impl RemoteMessage for OtherSecret {
    const NAME: &'static str = "test.Secret";
}

struct Keeper;

impl otava_actor::Actor for Keeper {
    type Msg = Secret;
    type Err = std::convert::Infallible;

    async fn handle(
        &mut self,
        secret: Secret,
        _: &mut otava_actor::Context<Self>,
    ) -> Result<(), Self::Err> {
        if let Secret::Ask(text, reply_to) = secret {
            let _ = reply_to.send(text);
        }
        Ok(())
    }
}

/// The credentials of the node `a` in a folder, and their key.
fn in_files(folder: &Path, authority: &Authority) -> (Credentials, String) {
    let issued = authority.issue(&Subject::node("a"), DAY).unwrap();
    let write = |file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
    write(CredentialFiles::AUTHORITIES, authority.certificate_pem());
    write(CredentialFiles::CERTIFICATE, &issued.chain_pem());
    write(CredentialFiles::KEY, &issued.key_pem());
    let files = CredentialFiles::in_folder(folder).every(Duration::from_millis(20));
    (Credentials::from_files(files).unwrap(), issued.key_pem())
}

fn ask(to: &ActorRef<Secret>) -> impl Future<Output = Result<String, AskError>> + use<> {
    let asked = to.ask(|reply_to| Secret::Ask(MARKER.to_owned(), reply_to));
    async move { asked.within(SOON).await }
}

/// Sends what is not understood, what comes to nobody, and lets a stranger call.
async fn misuse(a: &Remote, b: &Remote) {
    let other = a.resolve::<OtherSecret>(b.id(), "keeper");
    for n in [0, 1, 99] {
        other.tell(OtherSecret(n, MARKER.to_owned())).unwrap();
    }
    let nobody = a.resolve::<Secret>(b.id(), "nobody");
    nobody.tell(Secret::Tell(MARKER.to_owned())).unwrap();
    let refused = ask(&nobody).await;
    assert!(
        matches!(refused, Err(AskError::Stopped { .. })),
        "{refused:?}"
    );
    let stranger = good(&authority(), "s");
    assert!(stranger.connect(b.id().addr).await.is_err());
}

/// None of the keys in these texts is in the log, nor the marker: as text, as bytes in brackets, as
/// hexadecimal digits.
fn assert_kept(log: &LogSpy, pems: &[String]) {
    let events = log.events();
    assert!(events.len() > 100, "{} lines are not all", events.len());
    assert!(events.iter().any(|event| event.target.starts_with("quinn")));
    let lines = pems.iter().flat_map(|pem| pem.lines());
    let keys = lines.filter(|line| line.len() > 20 && !line.starts_with("-----"));
    let keys: Vec<&str> = keys.collect();
    assert!(keys.len() > 4);
    let bytes = format!("{:?}", MARKER.as_bytes());
    let hex: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let whole = format!("{events:?}{:?}", log.spans());
    let forms = [MARKER, bytes.trim_matches(['[', ']']), &hex];
    for secret in keys.into_iter().chain(forms) {
        let has = |event: &&LoggedEvent| format!("{event:?}").contains(secret);
        let found = events.iter().find(has);
        assert!(
            !whole.contains(secret),
            "{secret} is in the log: {found:#?}"
        );
    }
}

/// X11: a whole life of two nodes at the finest level of the log, with all that goes wrong in it: no
/// payload and no key.
#[tokio::test]
async fn nothing_secret_is_in_the_log() {
    let log = LogSpy::up_to(Level::TRACE);
    let authority = Authority::generate("Authority", 9 * DAY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (of_a, key) = in_files(folder.path(), &authority);
    let of_b = Credentials::issued_by(&authority, &Subject::node("b")).unwrap();
    let start = |name: &str, credentials: &Credentials| {
        let builder = QuicNetwork::builder(name, ANY_PORT, credentials.clone());
        remote(name, builder.bind().unwrap())
    };
    let (a, b) = (start("a", &of_a), start("b", &of_b));
    let keeper = b.system().spawn_anonymous(Props::once(Keeper)).unwrap();
    b.publish("keeper", &keeper).unwrap();
    let seen = a.resolve::<Secret>(b.id(), "keeper");
    seen.tell(Secret::Tell(MARKER.to_owned())).unwrap();
    assert_eq!(ask(&seen).await.as_deref(), Ok(MARKER));
    misuse(&a, &b).await;

    let damaged = key.replace("-----END", &format!("{MARKER}\n-----END"));
    fs::write(folder.path().join(CredentialFiles::KEY), &damaged).unwrap();
    assert!(of_a.reload().is_err());
    // A question takes its time, and the files are looked at meanwhile.
    let warned = async {
        let is_problem = |event: &LoggedEvent| event.message.contains("files are not taken");
        while !log.events().iter().any(is_problem) {
            ask(&seen).await.unwrap();
        }
    };
    timeout(SOON, warned).await.expect("a warning");
    a.shutdown().await;
    b.shutdown().await;
    assert_kept(&log, &[authority.key_pem(), key, damaged]);
}
