//! Remote: typed references and messages between nodes, over mutually authenticated QUIC.

pub mod conformance;
mod io;
pub mod network;
mod node_id;

pub use io::quic::{BindError, QuicConfig, QuicNetwork, QuicNetworkBuilder};
pub use io::virtual_net::{VirtualNetwork, VirtualWorld};
pub use io::{Credentials, CredentialsError};
pub use network::{ConnectError, Connection, LaneError, LaneReader, LaneWriter, Network};
pub use node_id::NodeId;
