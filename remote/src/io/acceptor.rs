//! Acceptor: takes in connections, reads who is there, and hands them to the peer's driver.

use crate::core::Core;
use crate::io::lanes::{CONTROL_LANE, FrameReader, Incoming, LaneFault, open};
use crate::network::Connection;
use crate::wire_format::{Frame, RefuseReason};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Connections whose introduction is being waited for. While there are so many, further ones wait
/// in the network, which refuses what is too much.
const INTRODUCTIONS_MAX: usize = 256;

pub(crate) async fn run(core: Arc<Core>) {
    let mut introductions = JoinSet::new();
    loop {
        let full = introductions.len() >= INTRODUCTIONS_MAX;
        tokio::select! {
            biased;
            () = core.ending() => return,
            Some(_) = introductions.join_next() => {}
            connection = core.network.accept(), if !full => match connection {
                Some(connection) => {
                    introductions.spawn(introduce(core.clone(), connection));
                }
                None => return,
            },
        }
    }
}

async fn introduce(core: Arc<Core>, connection: Arc<dyn Connection>) {
    let within = core.config.handshake_within;
    let from = connection.peer_addr();
    let fault = match tokio::time::timeout(within, read_hello(&connection)).await {
        Ok(Ok(incoming)) => {
            let node = incoming.hello.node.clone();
            let Some(peer) = core.peer(node.addr) else {
                tracing::warn!(%node, "refused: it is this node's own address, or there are too many peers");
                return refuse(&connection, RefuseReason::ShuttingDown, "not taken").await;
            };
            if peer.incoming.try_send(incoming).is_err() {
                // Several calls of one peer wait already; it will call again.
                connection.close("busy");
            }
            return;
        }
        Ok(Err(fault)) => fault.to_string(),
        Err(_) => "it did not introduce itself in time".to_owned(),
    };
    if core.counters.peer_faults.add_and_log() {
        tracing::warn!(%from, fault, "a connection was given up before its handshake");
    }
    connection.close("no handshake");
}

async fn read_hello(connection: &Arc<dyn Connection>) -> Result<Incoming, LaneFault> {
    let mut reader = FrameReader::begin(connection.accept_lane().await?).await?;
    if reader.lane() != CONTROL_LANE {
        return Err(LaneFault::Peer(
            "it did not begin with the control lane".to_owned(),
        ));
    }
    match reader.next().await? {
        Some(Frame::Hello(hello)) => Ok(Incoming {
            connection: connection.clone(),
            hello,
            reader,
        }),
        _ => Err(LaneFault::Peer("it did not begin with a hello".to_owned())),
    }
}

/// Tells a caller why it is refused, then closes the connection.
pub(crate) async fn refuse(connection: &Arc<dyn Connection>, reason: RefuseReason, detail: &str) {
    let frame = Frame::Refuse {
        reason,
        detail: detail.to_owned(),
    };
    if let Ok(mut writer) = open(connection, CONTROL_LANE, Some(&frame)).await {
        writer.finish().await;
    }
    connection.close(detail);
}
