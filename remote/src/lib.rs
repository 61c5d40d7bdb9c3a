//! Remote: typed references and messages between nodes, over mutually authenticated QUIC.
//!
//! A [`Remote`] is one node's end. An actor that was published there, or whose reference was sent in
//! a message, is reached by an ordinary [`otava_actor::ActorRef`]: `tell`, `send`, `ask` and `watch`
//! work as in one process, and the compiler checks who may send what to whom.
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | [`remote`] | the handle: publish, resolve, control messages, quarantine, the end |
//! | [`message`] | what may cross: a stable name, a version, a serde form |
//! | [`wire`] | how references inside messages are written and read |
//! | `portable` | which collections may hold references |
//! | `protocol` | how the messages of a `#[protocol]` are written: each method by its tag |
//! | [`mod@network`] | what carries the bytes, as traits; [`conformance`] is their test kit |
//! | `core` | what all parts share; the way of a frame into an outbox |
//! | `exports` | what of this node others can reach: actors and reply ports |
//! | `remote_ref` | an actor of another node, as it plugs into `ActorRef` |
//! | [`Rights`] | who may reach which protocol |
//! | [`certificates`] | what certificates say, and who makes them |
//! | `peer` | one association: queues, runs of the node, watches, system messages |
//! | `watches` | what this node watches at one peer, and the peer here |
//! | `outbox` | the frames that wait on one lane, bounded by bytes |
//! | `wire_format` | the bytes of frames and payloads, and every limit on them |
//! | `logic/` | handshake, runs, redelivery of system messages: pure |
//! | `io/` | the tasks: acceptor, one driver a peer, lanes; QUIC and the network in memory |
//!
//! # What is promised
//! - User messages arrive at most once, in order for each pair of sender and receiver.
//! - Watch, unwatch and terminated arrive once and in order, or the peer is quarantined.
//! - A reference to one run of a node never reaches another run.
//! - Whoever was not given a reference, or a published name, reaches nothing; a frame decodes only
//!   into the message type of the actor that it names.
//! - Bytes from a peer never panic, allocate without bound or recurse without bound.

pub mod config;
pub mod conformance;
mod core;
mod exports;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod io;
mod logic;
pub mod message;
pub mod network;
mod node_id;
mod outbox;
mod peer;
mod portable;
#[doc(hidden)]
pub mod protocol;
pub mod remote;
mod remote_ref;
mod rights;
mod stats;
mod watches;
pub mod wire;
mod wire_format;

pub use config::{Compression, RemoteConfig};
pub use identity::{PeerIdentity, PeerKind};
pub use io::certificates;
pub use io::quic::{BindError, QuicConfig, QuicNetwork, QuicNetworkBuilder};
pub use io::virtual_net::{VirtualNetwork, VirtualWorld};
pub use io::{CredentialFiles, Credentials, CredentialsError, FilesError};
pub use message::{RemoteMessage, layout};
pub use network::{ConnectError, Connection, LaneError, LaneRank, LaneReader, LaneWriter, Network};
pub use node_id::NodeId;
pub use remote::{
    Channel, PublishError, Remote, RemoteBuilder, RemoteEvent, RemoteEvents, StartError,
};
pub use rights::{Rights, Who};
pub use stats::RemoteStats;
pub use wire_format::{DecodeError, EncodeError, ExportId, decode, encode};

/// The examples of the book.
#[cfg(doctest)]
#[doc = include_str!("../../docs/book/remoting.md")]
struct Book;
