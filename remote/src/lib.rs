//! Remote: typed references and messages between nodes, over mutually authenticated QUIC.

pub mod network;
mod node_id;

pub use network::{ConnectError, Connection, LaneError, LaneReader, LaneWriter, Network};
pub use node_id::NodeId;
