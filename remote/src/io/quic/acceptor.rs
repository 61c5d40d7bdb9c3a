//! Acceptor: takes in callers, each in a task of its own, and never more than a limit at once.
//!
//! A caller counts from its first packet until the layer above has taken its connection. So neither
//! slow callers nor a layer above that does not keep up lets them pile up.

use super::lanes::{QuicConnection, reason};
use crate::io::quic::config::QuicConfig;
use crate::logic::callers::{Admission, Callers};
use crate::network::Connection;
use quinn::{Endpoint, Incoming};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Runs until the endpoint is closed.
pub(crate) async fn run(
    endpoint: Endpoint,
    config: QuicConfig,
    ready: mpsc::Sender<Arc<dyn Connection>>,
) {
    let (mut under_way, mut callers) = (JoinSet::new(), Callers::default());
    loop {
        tokio::select! {
            biased;
            // It does not panic, and nobody aborts it but the end of this task.
            Some(Ok(from)) = under_way.join_next() => callers.leaves(from),
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let from = incoming.remote_address().ip();
                if let Some(incoming) = admit(incoming, &mut callers, &config) {
                    let (limit, ready) = (config.connect_timeout, ready.clone());
                    under_way.spawn(async move {
                        greet(incoming, limit, ready).await;
                        from
                    });
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

async fn greet(incoming: Incoming, limit: Duration, ready: mpsc::Sender<Arc<dyn Connection>>) {
    let peer = incoming.remote_address();
    let accepted = async { incoming.accept()?.await };
    match tokio::time::timeout(limit, accepted).await {
        Ok(Ok(connection)) => {
            if let Some(connection) = QuicConnection::new(connection) {
                // Dropped, and so closed, if nobody accepts any more.
                let _ = ready.send(Arc::new(connection)).await;
            }
        }
        Ok(Err(error)) => tracing::warn!(%peer, reason = reason(&error), "refused a caller"),
        Err(_) => tracing::warn!(%peer, ?limit, "a caller took too long"),
    }
}
