//! Acceptor: takes in callers, each in a task of its own, and never more than a limit at once.
//!
//! A caller counts from its first packet until the layer above has taken its connection. So neither
//! slow callers nor a layer above that does not keep up lets them pile up.

use super::lanes::{QuicConnection, reason};
use crate::io::credentials::Credentials;
use crate::io::quic::config::QuicConfig;
use crate::logic::callers::{Admission, Callers};
use crate::logic::lines::Lines;
use crate::network::Connection;
use otava_actor::Time;
use quinn::{Endpoint, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Runs until the endpoint is closed.
pub(crate) async fn run(
    endpoint: Endpoint,
    config: QuicConfig,
    credentials: Credentials,
    ready: mpsc::Sender<Arc<dyn Connection>>,
) {
    let (mut under_way, mut callers) = (JoinSet::new(), Callers::default());
    let (begun, mut lines) = (Instant::now(), Lines::default());
    loop {
        tokio::select! {
            biased;
            // It does not panic, and nobody aborts it but the end of this task.
            Some(Ok(Greeted { peer, problem })) = under_way.join_next() => {
                callers.leaves(peer.ip());
                let now = Time::ZERO + begun.elapsed();
                if let Some(reason) = problem
                    && let Some(left_out) = lines.next(now)
                {
                    let left_out = (left_out > 0).then_some(left_out);
                    tracing::warn!(%peer, reason, left_out, "refused a caller");
                }
            }
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if let Some(incoming) = admit(incoming, &mut callers, &config) {
                    let limit = config.connect_timeout;
                    under_way.spawn(greet(incoming, limit, credentials.clone(), ready.clone()));
                }
            }
        }
    }
}

/// Lets a caller in, sends it back to prove its address, or refuses it.
fn admit(incoming: Incoming, callers: &mut Callers, config: &QuicConfig) -> Option<Incoming> {
    let peer = incoming.remote_address();
    let may_prove = !incoming.remote_address_validated() && incoming.may_retry();
    match callers.comes(peer.ip(), may_prove, config.places()) {
        Admission::Admitted => return Some(incoming),
        // Cannot fail: whether it may was asked above.
        Admission::MustProve => _ = incoming.retry(),
        Admission::Refused => {
            tracing::debug!(%peer, "too many callers at once");
            incoming.refuse();
        }
    }
    None
}

/// What became of a caller.
struct Greeted {
    peer: SocketAddr,
    /// Why it has no connection.
    problem: Option<String>,
}

async fn greet(
    incoming: Incoming,
    limit: Duration,
    credentials: Credentials,
    ready: mpsc::Sender<Arc<dyn Connection>>,
) -> Greeted {
    let peer = incoming.remote_address();
    let accepted = async { incoming.accept()?.await };
    let problem = match tokio::time::timeout(limit, accepted).await {
        Ok(Ok(connection)) => {
            if let Some(connection) = QuicConnection::start(connection, credentials.inner()) {
                // Dropped, and so closed, if nobody accepts any more.
                let _ = ready.send(connection).await;
            }
            None
        }
        Ok(Err(error)) => Some(reason(&error)),
        Err(_) => Some(format!("it took longer than {limit:?}")),
    };
    Greeted { peer, problem }
}
