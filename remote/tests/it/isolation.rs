//! Proves: a node whose threads are all held by user code goes on answering on its control lane.

use crate::nodes::{Command, Counter};
use bytes::Bytes;
use otava_actor::{ActorSystem, Props};
use otava_remote::{Channel, Credentials, QuicConfig, QuicNetwork, Remote, RemoteEvent};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PING: Channel = Channel(40);
const WORKERS: usize = 2;
/// Far less than the threads are held, so that a node which is silent meanwhile is given up.
const IDLE: Duration = Duration::from_millis(1_500);
const HELD_FOR: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(10);

async fn start(folder: PathBuf, name: &'static str) -> Remote {
    let credentials = Credentials::development(&folder, name).unwrap();
    let config = QuicConfig::default()
        .idle_timeout(IDLE)
        .keep_alive(Duration::from_millis(100));
    let network = QuicNetwork::builder(name, SocketAddr::from(([127, 0, 0, 1], 0)), credentials)
        .config(config)
        .bind()
        .unwrap();
    let system = ActorSystem::new(name);
    let remote = Remote::builder(&system, "test", name, Arc::new(network));
    remote.start().unwrap()
}

/// Holds every worker of a runtime until what is returned is dropped.
fn hold(runtime: &tokio::runtime::Runtime) -> mpsc::Sender<()> {
    let all = Arc::new(Barrier::new(WORKERS + 1));
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    for _ in 0..WORKERS {
        let (all, held) = (all.clone(), held.clone());
        runtime.spawn(async move {
            all.wait();
            // Until nobody can send any more. The second one waits for the lock meanwhile.
            let _ = held.lock().unwrap().recv();
        });
    }
    // Both are at it at once, so both threads are held.
    all.wait();
    release
}

/// Answers pings by a task that is kept alive as membership is, not in the handler itself.
fn answer_pings(node: &Remote) {
    let (asked, mut to_answer) = tokio::sync::mpsc::channel::<(SocketAddr, Bytes)>(16);
    node.on_control(PING, move |from, payload| {
        let _ = asked.try_send((from.addr, payload));
    });
    let answering = node.clone();
    node.spawn_isolated(async move {
        while let Some((to, payload)) = to_answer.recv().await {
            let at = answering.system().now() + Duration::from_millis(1);
            answering.sleep_until(at).await;
            answering.send_control(to, PING, payload);
        }
    });
}

/// X: user code that blocks all workers does not get the node downed (issue 4, isolation).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_threads_are_all_held_answers_on_the_control_lane() {
    let folder = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap();
    let rude = runtime.spawn(start(folder.path().to_owned(), "rude"));
    let (rude, patient) = (
        rude.await.unwrap(),
        start(folder.path().to_owned(), "patient").await,
    );
    let counter = rude
        .system()
        .spawn_anonymous(Props::once(Counter(0)))
        .unwrap();
    rude.publish("counter", &counter).unwrap();
    answer_pings(&rude);
    let (heard, mut answers) = tokio::sync::mpsc::channel(16);
    patient.on_control(PING, move |_, payload| {
        let _ = heard.try_send(payload);
    });
    let remote = patient.resolve::<Command>(rude.id(), "counter");
    assert_eq!(remote.ask(Command::Get).within(SOON).await, Ok(0));
    let mut events = patient.events();

    let release = hold(&runtime);
    let since = Instant::now();
    remote.tell(Command::Add(1)).unwrap();
    let (mut pings, mut slowest) = (0_u64, Duration::ZERO);
    while since.elapsed() < HELD_FOR {
        pings += 1;
        let sent = Instant::now();
        patient.send_control(
            rude.id().addr,
            PING,
            Bytes::from(pings.to_le_bytes().to_vec()),
        );
        let answer = tokio::time::timeout(SOON, answers.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer[..], pings.to_le_bytes());
        slowest = slowest.max(sent.elapsed());
    }
    let lost = async {
        while let Some(event) = events.recv().await {
            assert!(
                !matches!(event, RemoteEvent::Disconnected(_)),
                "after {pings} pings"
            );
        }
    };
    assert!(tokio::time::timeout(Duration::ZERO, lost).await.is_err());
    assert!(
        patient.is_connected(rude.id()),
        "{pings} pings, slowest {slowest:?}"
    );

    // What waited for the threads is handled when they are back.
    drop(release);
    assert_eq!(remote.ask(Command::Get).within(SOON).await, Ok(1));
    patient.shutdown().await;
    runtime.shutdown_background();
}
