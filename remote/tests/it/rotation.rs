//! Rotation: certificates and authorities change while nodes run, and nothing is lost by it.

use crate::network::ANY_PORT;
use crate::nodes::{Command, Counter};
use otava_actor::{ActorRef, ActorSystem, Props};
use otava_remote::certificates::{Authority, Subject};
use otava_remote::{
    ConnectError, CredentialFiles, Credentials, CredentialsError, Network, QuicNetwork, Remote,
    RemoteEvent,
};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;

const DAY: Duration = Duration::from_secs(86_400);
const SOON: Duration = Duration::from_secs(10);

pub(crate) fn authority() -> Authority {
    Authority::generate("One of the authorities", 10 * DAY).unwrap()
}

/// The files of one node.
pub(crate) struct Home {
    folder: TempDir,
    name: &'static str,
    /// There is a list of revoked certificates.
    revokes: bool,
}

impl Home {
    pub(crate) fn new(name: &'static str, authority: &Authority) -> Self {
        let folder = TempDir::new().unwrap();
        let home = Self {
            folder,
            name,
            revokes: false,
        };
        home.certify(authority);
        home.trust(&[authority]);
        home
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn trust(&self, authorities: &[&Authority]) {
        let all = authorities.iter().map(|a| a.certificate_pem());
        let all: String = all.collect();
        fs::write(self.path(CredentialFiles::AUTHORITIES), all).unwrap();
    }

    /// The key first: for a moment the files do not fit each other.
    pub(crate) fn certify(&self, authority: &Authority) {
        self.certify_as(&Subject::node(self.name), authority);
    }

    fn certify_as(&self, subject: &Subject, authority: &Authority) {
        let issued = authority.issue(subject, DAY).unwrap();
        fs::write(self.path(CredentialFiles::KEY), issued.key_pem()).unwrap();
        fs::write(self.path(CredentialFiles::CERTIFICATE), issued.chain_pem()).unwrap();
    }

    /// From now on there is a list, of these certificates.
    pub(crate) fn revoke(&mut self, list: &str) {
        fs::write(self.path("revoked.txt"), list).unwrap();
        self.revokes = true;
    }

    pub(crate) fn files(&self) -> CredentialFiles {
        let mut files = CredentialFiles::in_folder(self.folder.path());
        if self.revokes {
            files = files.revoked(self.path("revoked.txt"));
        }
        files.every(Duration::from_millis(20))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::from_files(self.files()).unwrap()
    }
}

pub(crate) fn network(name: &str, credentials: Credentials) -> QuicNetwork {
    let builder = QuicNetwork::builder(name, ANY_PORT, credentials);
    builder.bind().unwrap()
}

/// Somebody who is not there yet: certified by one authority, trusting some.
fn stranger(name: &str, by: &Authority, trusted: &[&Authority]) -> QuicNetwork {
    let issued = by.issue(&Subject::node(name), DAY).unwrap();
    let trusted: String = trusted.iter().map(|a| a.certificate_pem()).collect();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let credentials = Credentials::from_pem(trusted.as_bytes(), chain.as_bytes(), key.as_bytes());
    network(name, credentials.unwrap())
}

pub(crate) struct Node {
    pub(crate) remote: Remote,
}

impl Node {
    pub(crate) fn start(home: &Home) -> Self {
        let network = Arc::new(network(home.name, home.credentials()));
        Self {
            remote: over(home.name, network),
        }
    }

    pub(crate) fn counter(&self) -> ActorRef<Command> {
        let props = Props::once(Counter(0));
        let counter = self.remote.system().spawn_anonymous(props).unwrap();
        self.remote.publish("counter", &counter).unwrap();
        counter
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.remote.id().addr
    }
}

pub(crate) fn over(name: &str, network: Arc<dyn Network>) -> Remote {
    let system = ActorSystem::new(name);
    let builder = Remote::builder(&system, "test", name, network);
    builder.start().unwrap()
}

/// Calls until the answer is as expected: how soon a change of the files counts.
pub(crate) async fn until(caller: &QuicNetwork, to: SocketAddr, accepted: bool) {
    let called = async {
        loop {
            let connected = caller.connect(to).await;
            // With TLS 1.3 the first word tells whether the other end accepts the caller.
            let hello = match &connected {
                Ok(connection) => timeout(Duration::from_millis(500), connection.closed()).await,
                Err(_) => Ok(String::new()),
            };
            if hello.is_err() == accepted {
                return;
            }
        }
    };
    timeout(SOON, called).await.expect("within 10 s");
}

/// X3: a new authority with an overlap, then new certificates, then the old authority is forgotten,
/// all by files alone and under load: new connections follow within 10 s, old ones go on, and
/// every question is answered.
#[tokio::test]
async fn an_authority_is_replaced_under_load() {
    let (old, new) = (authority(), authority());
    let homes = [Home::new("a", &old), Home::new("b", &old)];
    let [a, b] = homes.each_ref().map(Node::start);
    let _counter = b.counter();
    let mut events = a.remote.events();
    let counter = a.remote.resolve::<Command>(b.remote.id(), "counter");
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|_| tokio::spawn(ask_until(stop.clone(), counter.clone())))
        .collect();

    // Everybody trusts both.
    for (home, node) in homes.iter().zip([&a, &b]) {
        home.trust(&[&old, &new]);
        until(&stranger("x", &new, &[&old, &new]), node.addr(), true).await;
    }
    // Everybody shows a certificate of the new one: here calls who knows no other.
    for (home, node) in homes.iter().zip([&a, &b]) {
        home.certify(&new);
        until(&stranger("y", &new, &[&new]), node.addr(), true).await;
    }
    // The old one is forgotten.
    for (home, node) in homes.iter().zip([&a, &b]) {
        home.trust(&[&new]);
        until(&stranger("z", &old, &[&old, &new]), node.addr(), false).await;
    }
    let latecomer = over("c", Arc::new(stranger("c", &new, &[&new])));
    let seen = latecomer.resolve::<Command>(b.remote.id(), "counter");
    assert!(seen.ask(Command::Get).within(SOON).await.is_ok());

    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for asker in load {
        asked += asker.await.unwrap();
    }
    // All were counted over there, and the only connection of the two is the first one.
    let sum = counter.ask(Command::Get).within(SOON).await;
    assert_eq!(sum, Ok(asked));
    assert!(asked > 100, "{asked}");
    a.remote.shutdown().await;
    let mut connected = 0;
    while let Ok(Some(event)) = timeout(Duration::from_millis(100), events.recv()).await {
        match event {
            RemoteEvent::Connected(node) if &*node.name == "b" => connected += 1,
            _ => {}
        }
    }
    assert_eq!(connected, 1, "the old connection went on");
}

/// Adds one and asks, again and again; how often.
async fn ask_until(stop: Arc<AtomicBool>, counter: ActorRef<Command>) -> u64 {
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        counter.tell(Command::Add(1)).unwrap();
        counter.ask(Command::Get).within(SOON).await.unwrap();
        asked += 1;
    }
    asked
}

/// X3: what is no good is not taken: a damaged file, a key without its certificate, a certificate that
/// no peer would accept, or that of another node.
#[test]
fn a_change_that_is_no_good_changes_nothing() {
    let (old, new) = (authority(), authority());
    let home = Home::new("a", &old);
    let credentials = home.credentials();
    let before = credentials.certificate();
    assert!(!credentials.reload().unwrap(), "nothing is new");

    let stays = |what: &str, expected: fn(&CredentialsError) -> bool| {
        let error = credentials.reload().expect_err(what);
        assert!(expected(&error), "{what}: {error:?}");
        assert_eq!(credentials.certificate(), before, "{what}");
    };
    let key = fs::read(home.path(CredentialFiles::KEY)).unwrap();
    fs::write(home.path(CredentialFiles::KEY), &key[..40]).unwrap();
    stays("half a key", |e| matches!(e, CredentialsError::Pem { .. }));
    fs::remove_file(home.path(CredentialFiles::KEY)).unwrap();
    stays("no key", |e| matches!(e, CredentialsError::Files(_)));
    let issued = old.issue(&Subject::node("a"), DAY).unwrap();
    fs::write(home.path(CredentialFiles::KEY), issued.key_pem()).unwrap();
    stays("another key", |e| matches!(e, CredentialsError::Key { .. }));
    home.certify(&new);
    stays("of an authority that is not trusted", |e| {
        matches!(e, CredentialsError::NotAccepted { .. })
    });
    home.certify_as(&Subject::node("b"), &old);
    stays(
        "of another node",
        |e| matches!(e, CredentialsError::OtherName { name } if name == "a"),
    );
    home.certify_as(&Subject::client("a"), &old);
    stays("of a client", |e| {
        matches!(e, CredentialsError::OtherName { .. })
    });
    fs::write(home.path(CredentialFiles::AUTHORITIES), vec![b'x'; 2 << 20]).unwrap();
    stays("a huge file", |e| matches!(e, CredentialsError::Files(_)));

    home.trust(&[&old, &new]);
    home.certify(&new);
    assert!(credentials.reload().unwrap());
    assert_ne!(credentials.certificate(), before);
}

/// The same for programs that keep their secrets elsewhere. All clones change together.
#[tokio::test]
async fn credentials_are_replaced_by_hand() {
    let (old, new) = (authority(), authority());
    let issued = old.issue(&Subject::node("a"), DAY).unwrap();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let pem = old.certificate_pem().as_bytes();
    let credentials = Credentials::from_pem(pem, chain.as_bytes(), key.as_bytes()).unwrap();
    let a = network("a", credentials.clone());
    assert!(!credentials.reload().unwrap(), "there are no files");

    let x = stranger("x", &new, &[&new]);
    let refused = x.connect(a.local_addr()).await.err();
    assert!(matches!(refused, Some(ConnectError::Refused { .. })));
    let issued = new.issue(&Subject::node("a"), DAY).unwrap();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let pem = new.certificate_pem().as_bytes();
    credentials
        .replace(pem, chain.as_bytes(), key.as_bytes())
        .unwrap();
    let (to_a, from_x) = tokio::join!(x.connect(a.local_addr()), a.accept());
    assert!(to_a.unwrap().proves_name("a") && from_x.unwrap().proves_name("x"));
}
