//! Acceptor: takes in callers, each in a task of its own, and never more than a limit at once.
//!
//! A caller counts from its first packet until the layer above has taken its connection. So neither
//! slow callers nor a layer above that does not keep up lets them pile up.

use super::lanes::{QuicConnection, reason};
use crate::io::quic::config::QuicConfig;
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
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = under_way.join_next() => {}
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                if let Some(incoming) = admit(incoming, under_way.len(), &config) {
                    under_way.spawn(greet(incoming, config.connect_timeout, ready.clone()));
                }
            }
        }
    }
}

/// Lets a caller in, sends it back to prove its address, or refuses it.
fn admit(incoming: Incoming, under_way: usize, config: &QuicConfig) -> Option<Incoming> {
    if under_way >= config.handshakes_max {
        tracing::debug!(peer = %incoming.remote_address(), "too many callers at once");
        incoming.refuse();
        return None;
    }
    let unproved = !incoming.remote_address_validated() && incoming.may_retry();
    if unproved && under_way >= config.handshakes_unproved_max {
        // Cannot fail: whether it may was asked above.
        let _ = incoming.retry();
        return None;
    }
    Some(incoming)
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
