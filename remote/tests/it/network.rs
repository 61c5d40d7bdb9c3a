//! Networks: both of this crate pass the public kit, and keep what only real sockets can break.

use futures_util::future::join_all;
use otava_remote::{
    BindError, ConnectError, Credentials, Network as _, QuicConfig, QuicNetwork, VirtualWorld,
    conformance,
};
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A node of the authority in `folder`.
pub(crate) fn quic(folder: &Path, name: &str) -> QuicNetwork {
    let credentials = Credentials::development(folder, name).unwrap();
    QuicNetwork::builder(name, ANY_PORT, credentials)
        .bind()
        .unwrap()
}

#[tokio::test]
async fn quic_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conformance::network(async |name| Arc::new(quic(folder.path(), name))).await;
}

#[tokio::test(start_paused = true)]
async fn the_virtual_network_conforms() {
    let world = VirtualWorld::new(7);
    let port = AtomicU16::new(1);
    conformance::network(async |name| {
        let port = port.fetch_add(1, Ordering::Relaxed);
        Arc::new(world.network(SocketAddr::from(([10, 0, 0, 1], port)), name))
    })
    .await;
}

#[tokio::test]
async fn a_port_is_free_when_its_network_has_closed() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::development(folder.path(), "a").unwrap();
    let b = quic(folder.path(), "b");
    let first = quic(folder.path(), "a");
    let addr = first.local_addr();
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    let mut network = first;
    for _ in 0..3 {
        let taken = QuicNetwork::builder("a", addr, credentials.clone()).bind();
        assert!(matches!(taken, Err(BindError::Address { .. })));
        let (to_a, from_b) = tokio::join!(b.connect(addr), network.accept());
        let (to_a, from_b) = (to_a.unwrap(), from_b.unwrap());
        let writer = from_b.open_lane().await.unwrap();
        network.close().await;
        to_a.closed().await;
        // Handles that somebody has forgotten to drop do not keep the port.
        kept.push(Box::new((to_a, from_b, writer, network)));
        let again = QuicNetwork::builder("a", addr, credentials.clone()).bind();
        network = again.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_by_the_idle_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let short = QuicConfig::default()
        .idle_timeout(Duration::from_millis(500))
        .keep_alive(Duration::from_millis(100));
    let node = |name| {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        let builder = QuicNetwork::builder(name, ANY_PORT, credentials);
        builder.config(short.clone()).bind().unwrap()
    };
    let (a, b) = (node("a"), node("b"));
    let relay = Relay::to(b.local_addr()).await;
    let (to_b, from_a) = tokio::join!(a.connect(relay.addr), b.accept());
    let (to_b, from_a) = (to_b.unwrap(), from_a.unwrap());

    // Keep-alives hold an unused connection well past the timeout.
    let alive = tokio::time::timeout(Duration::from_millis(1200), to_b.closed()).await;
    assert!(alive.is_err(), "closed: {alive:?}");
    let cut = Instant::now();
    drop(relay);
    let (at_a, at_b) = tokio::join!(to_b.closed(), from_a.closed());
    assert_eq!((at_a.as_str(), at_b.as_str()), ("idle", "idle"));
    assert!(
        cut.elapsed() < Duration::from_secs(3),
        "{:?}",
        cut.elapsed()
    );
}

/// Callers with forged senders never hear the answer. They fill the part of the room that is theirs
/// and no more; the others get in.
#[tokio::test]
async fn callers_that_hear_nothing_hold_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::development(folder.path(), "b").unwrap();
    let limits = QuicConfig::default()
        .handshakes_max(8)
        .handshakes_unproved_max(4);
    let b = QuicNetwork::builder("b", ANY_PORT, credentials)
        .config(limits)
        .bind()
        .unwrap();

    let relay = Relay::one_way(b.local_addr()).await;
    let deaf = quic(folder.path(), "deaf");
    let calls = join_all((0..40).map(|_| deaf.connect(relay.addr)));
    let others = async {
        relay.passed(40).await;
        for n in 0..10 {
            let a = quic(folder.path(), &format!("a-{n}"));
            let (to_b, from_a) = tokio::join!(a.connect(b.local_addr()), b.accept());
            assert!(to_b.is_ok() && from_a.unwrap().proves_name(&format!("a-{n}")));
        }
    };
    tokio::select! {
        biased;
        _ = calls => panic!("the others took longer than the deaf"),
        () = others => {}
    }
}

#[tokio::test]
async fn more_callers_than_are_accepted_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::development(folder.path(), "b").unwrap();
    let limits = QuicConfig::default().handshakes_max(4);
    let b = QuicNetwork::builder("b", ANY_PORT, credentials)
        .config(limits)
        .bind()
        .unwrap();
    let a = quic(folder.path(), "a");
    // Nobody accepts: some wait, some are under way, the others are turned away.
    let results = join_all((0..30).map(|_| a.connect(b.local_addr()))).await;
    let in_time: Vec<_> = results.iter().filter(|result| result.is_ok()).collect();
    assert!((4..=12).contains(&in_time.len()), "{}", in_time.len());
    for refused in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(
            matches!(refused, ConnectError::Unreachable { .. }),
            "{refused:?}"
        );
    }
}

/// Passes datagrams on, until it is dropped.
struct Relay {
    addr: SocketAddr,
    passed: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn to(target: SocketAddr) -> Self {
        Self::begin(target, true).await
    }

    async fn one_way(target: SocketAddr) -> Self {
        Self::begin(target, false).await
    }

    async fn begin(target: SocketAddr, both_ways: bool) -> Self {
        let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let (passed, receiver) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut caller = None;
            let mut buffer = [0; 2048];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let to = if from == target {
                    caller.filter(|_| both_ways)
                } else {
                    caller = Some(from);
                    Some(target)
                };
                if let Some(to) = to {
                    socket.send_to(&buffer[..length], to).await.unwrap();
                    passed.send_modify(|n| *n += 1);
                }
            }
        });
        Self {
            addr,
            passed: receiver,
            task,
        }
    }

    async fn passed(&self, datagrams: usize) {
        let mut passed = self.passed.clone();
        passed.wait_for(|n| *n >= datagrams).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
