//! Remote: typed references and messages between nodes, over mutually authenticated QUIC.

pub mod network;
mod node_id;
#[allow(
    dead_code,
    unused_imports,
    reason = "the association that uses all of it is being written"
)]
mod wire_format;

pub use network::{ConnectError, Connection, LaneError, LaneReader, LaneWriter, Network};
pub use node_id::NodeId;
pub use wire_format::{DecodeError, EncodeError, ExportId, decode, encode};
