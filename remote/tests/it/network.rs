//! Networks: both of this crate pass the public kit, and keep what only real sockets can break.

use otava_remote::{Credentials, QuicNetwork, conformance};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

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
