//! Node process: a member of the cluster that hosts aircraft and answers HTTP.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use otava::{ClusterConfig, ClusterEvent, Ended, EntityOptions, Node, Options, ShardingConfig};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

use super::aircraft::{Aircraft, SHARDS};
use super::http;
use super::options::NodeOptions;

/// The name of the cluster.
pub(crate) const CLUSTER: &str = "flights";
/// Stands between two names in what a node prints when a member becomes unreachable.
pub(crate) const ALARM: &str = " says unreachable: ";
/// A snapshot of an aircraft is taken every so many flights.
const SNAPSHOT_EVERY: u64 = 100;
/// A member that is silent for longer than this, beyond what is usual, counts as unreachable.
const PAUSE_ALLOWED: Duration = Duration::from_millis(2_500);
/// How long the view must be stable before the majority goes on without those that are unreachable.
const STABLE_AFTER: Duration = Duration::from_secs(2);
/// How long the first node looks for a cluster before it forms one.
const FORM_AFTER: Duration = Duration::from_secs(1);
/// Open HTTP connections get this long to finish when the node ends.
const HTTP_END_MAX: Duration = Duration::from_secs(1);

/// Runs one node until it is told to leave, or is downed.
///
/// # Errors
/// When it cannot be started or cannot join, with the reason.
pub(crate) async fn run(options: NodeOptions) -> Result<ExitCode, String> {
    let name = &options.name;
    let listener = listen_http(options.http).await?;
    let http_addr = listener.local_addr().map_err(|error| error.to_string())?;
    let mut membership = ClusterConfig::default();
    membership.acceptable_pause = PAUSE_ALLOWED;
    membership.stable_after = Some(STABLE_AFTER);
    membership.form_after = FORM_AFTER;
    let node = Node::builder(CLUSTER, name)
        .listen(options.listen)
        .seeds(options.seeds.clone())
        .data(&options.data)
        .cluster_config(membership)
        .start()
        .await
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let entity_options = EntityOptions::default()
        .persistence(Options::default().snapshot_every(SNAPSHOT_EVERY))
        .sharding(ShardingConfig::default().shards(SHARDS));
    let aircraft = node
        .entities::<Aircraft>(entity_options)
        .map_err(|error| format!("cannot host aircraft: {error}"))?;
    println!(
        "{name} listens on {} (QUIC) and http://{http_addr}",
        node.id().addr
    );

    tell_of_alarms(&node);
    let (end_http, http_ends) = tokio::sync::oneshot::channel::<()>();
    let app = http::app(node.clone(), aircraft);
    let served = tokio::spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(async move {
            // An error means the same: the node has ended.
            let _ = http_ends.await;
        });
        server.await
    });

    let how = tokio::select! {
        biased;
        how = node.run_until_ended() => how,
        () = stdin_ended(), if options.end_with_stdin => node.leave().await,
        result = node.join() => match result {
            Ok(()) => {
                println!("{name} is up");
                tokio::select! {
                    biased;
                    how = node.run_until_ended() => how,
                    () = stdin_ended(), if options.end_with_stdin => node.leave().await,
                }
            }
            Err(error) => {
                node.leave().await;
                return Err(format!("{name} could not join: {error}"));
            }
        },
    };
    drop(end_http);
    // Whatever is still open is closed with the process.
    let _ = tokio::time::timeout(HTTP_END_MAX, served).await;
    Ok(say_how_it_ended(name, how))
}

fn say_how_it_ended(name: &str, how: Ended) -> ExitCode {
    let (what, code) = match how {
        Ended::Left => ("has left", ExitCode::SUCCESS),
        Ended::Halted => ("has left, since its journal has halted", ExitCode::FAILURE),
        _ => ("was downed and has stopped", ExitCode::FAILURE),
    };
    println!("{name} {what}");
    code
}

/// Prints whom this node, or another that it can reach, cannot reach.
fn tell_of_alarms(node: &Node) {
    let mut events = node.cluster().events();
    let name = node.id().name.clone();
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(ClusterEvent::Unreachable(other)) => {
                    println!("{name}{ALARM}{}", other.name);
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
}

async fn listen_http(addr: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(addr)
        .await
        .map_err(|error| format!("cannot answer HTTP on {addr}: {error}"))
}

/// Waits for the end of standard input: whoever started this process is gone, or wants it to leave.
async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
