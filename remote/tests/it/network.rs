//! Networks: both of this crate pass the public kit, and keep what only real sockets can break.

use otava_remote::{Credentials, QuicNetwork, VirtualWorld, conformance};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

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
