//! Acceptor: takes in connections, reads who is there, and hands them to the peer's driver.

use crate::core::Core;
use crate::io::lanes::{
    CONTROL_LANE, CONTROL_VERSION, FrameReader, Incoming, LaneFault, introduction_of,
    introduction_of_us, open,
};
use crate::logic::handshake::{Known, Verdict, judge};
use crate::network::Connection;
use crate::wire_format::{Frame, RefuseReason};
use std::sync::Arc;
use std::time::Duration;
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
            // Before anything is remembered of it: who it says it is must be true.
            let verdict = judge_stranger(&core, &incoming);
            if verdict != Verdict::Accept {
                if core.counters.refused_calls.add_and_log() {
                    tracing::warn!(%node, ?verdict, "refused");
                }
                let (reason, detail) = reason_of(verdict);
                return refuse(&connection, reason, detail, within).await;
            }
            let Some(peer) = core.peer(node.addr) else {
                if core.counters.refused_calls.add_and_log() {
                    tracing::warn!(%node, "refused: this node's own address, or too many peers");
                }
                let reason = RefuseReason::ShuttingDown;
                return refuse(&connection, reason, "not taken", within).await;
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

/// Judges a caller by what it brings along, whatever is known of it.
fn judge_stranger(core: &Core, incoming: &Incoming) -> Verdict {
    let caller = introduction_of(&incoming.hello);
    let addr = caller.node.addr;
    let identity = incoming.connection.identity_as(&caller.node.name);
    let known = Known {
        name_proven: identity.is_some(),
        address_proven: identity.is_some_and(|it| core.rights.allows_address(&it, addr)),
        ..Known::default()
    };
    judge(&introduction_of_us(core), &caller, known)
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

/// Tells a caller why it is refused, then closes the connection; waits no longer than `within` for
/// the caller to hear it.
pub(crate) async fn refuse(
    connection: &Arc<dyn Connection>,
    reason: RefuseReason,
    detail: &str,
    within: Duration,
) {
    let frame = Frame::Refuse {
        reason,
        detail: detail.to_owned(),
    };
    let told = async {
        if let Ok(mut writer) = open(connection, CONTROL_LANE, CONTROL_VERSION, Some(&frame)).await
        {
            writer.finish().await;
        }
    };
    // Whoever does not listen need not be told.
    let _ = tokio::time::timeout(within, told).await;
    connection.close(detail);
}

/// How a verdict is told to the peer.
pub(crate) fn reason_of(verdict: Verdict) -> (RefuseReason, &'static str) {
    let reason = match verdict {
        Verdict::Accept | Verdict::Duplicate => RefuseReason::Duplicate,
        Verdict::AddressHeld | Verdict::AddressNotProven | Verdict::NameNotProven => {
            RefuseReason::NameNotProven
        }
        Verdict::ClusterDiffers => RefuseReason::ClusterNameDiffers,
        Verdict::Quarantined => RefuseReason::Quarantined,
        Verdict::RunOver => RefuseReason::StaleIncarnation,
        Verdict::VersionDiffers => RefuseReason::VersionUnsupported,
    };
    let detail = match verdict {
        Verdict::Accept | Verdict::Duplicate => "this node's own call goes on",
        Verdict::AddressHeld => "this address belongs to another node",
        Verdict::AddressNotProven => "the certificate is not for this address",
        Verdict::ClusterDiffers => "the two nodes belong to different clusters",
        Verdict::NameNotProven => "the certificate is for another name",
        Verdict::Quarantined => "this run of the node is quarantined: start it anew",
        Verdict::RunOver => "a newer run of the node was met at its address",
        Verdict::VersionDiffers => "no common version of the protocol",
    };
    (reason, detail)
}
