//! Wire: the bytes of what members say to each other, apart from what it means.
//!
//! Every payload begins with the version of this format. What a version has written is read for
//! good: its bytes stand in `fixtures/v1` and are decoded by a test. The limits on size and depth
//! are those of [`otava_remote::decode`].

#[cfg(test)]
mod tests;

use crate::logic::door::{JoinAnswer, JoinRequest, Refusal};
use crate::logic::gossip::GossipMessage;
use crate::logic::member::Status;
use crate::logic::membership::{Beat, BeatKind, Message};
use crate::logic::statement::Statement;
use crate::logic::view::Entry;
use otava_remote::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of the format, the first byte of each payload.
const VERSION: u8 = 1;

/// Bytes from a peer that mean nothing here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the payload is not understood: {0}")]
    Malformed(String),
    #[error("version {0} of the format is not known here")]
    Version(u8),
}

#[derive(Deserialize, Serialize)]
struct WireEntry {
    node: NodeId,
    status: u8,
    age: Option<u64>,
    started: u64,
}

#[derive(Deserialize, Serialize)]
struct WireStatement {
    author: NodeId,
    cluster: u64,
    version: u64,
    digest: u64,
    view: Vec<WireEntry>,
    unreachable: Vec<NodeId>,
}

#[derive(Deserialize, Serialize)]
enum WireMessage {
    Ping {
        cluster: u64,
    },
    Pong {
        cluster: u64,
    },
    Verdict {
        cluster: u64,
        incarnation: u64,
        status: u8,
    },
    Request {
        started: u64,
        settings: BTreeMap<String, String>,
    },
    Accepted {
        to: u64,
        statement: WireStatement,
    },
    NotYet {
        to: u64,
    },
    RefusedOut {
        to: u64,
    },
    RefusedSetting {
        to: u64,
        setting: String,
        ours: String,
        theirs: String,
    },
}

#[derive(Deserialize, Serialize)]
enum WireGossip {
    Digest(Vec<(NodeId, u64)>),
    Delta {
        statements: Vec<WireStatement>,
        wanted: Vec<(NodeId, u64)>,
    },
}

/// The bytes of a message; `None`, with a line in the log, if it is too large to be sent.
pub(crate) fn encode_message(message: &Message) -> Option<Vec<u8>> {
    pack(&WireMessage::from(message))
}

pub(crate) fn decode_message(bytes: &[u8]) -> Result<Message, WireError> {
    unpack::<WireMessage>(bytes)?.into_message()
}

/// The bytes of a gossip message; `None`, with a line in the log, if it is too large to be sent.
pub(crate) fn encode_gossip(message: &GossipMessage) -> Option<Vec<u8>> {
    pack(&WireGossip::from(message))
}

pub(crate) fn decode_gossip(bytes: &[u8]) -> Result<GossipMessage, WireError> {
    unpack::<WireGossip>(bytes)?.into_message()
}

fn pack<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    match otava_remote::encode(value) {
        Ok(encoded) => {
            let mut bytes = Vec::with_capacity(encoded.len() + 1);
            bytes.push(VERSION);
            bytes.extend_from_slice(&encoded);
            Some(bytes)
        }
        Err(error) => {
            tracing::error!(%error, "a cluster message cannot be encoded and is not sent");
            None
        }
    }
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            otava_remote::decode(rest).map_err(|error| WireError::Malformed(error.to_string()))
        }
        Some((version, _)) => Err(WireError::Version(*version)),
        None => Err(WireError::Malformed("it is empty".into())),
    }
}

fn status(code: u8) -> Result<Status, WireError> {
    Status::from_code(code).ok_or_else(|| WireError::Malformed(format!("status {code}")))
}

impl From<&Statement> for WireStatement {
    fn from(statement: &Statement) -> Self {
        let entry = |(node, entry): (&NodeId, &Entry)| WireEntry {
            node: node.clone(),
            status: entry.status.code(),
            age: entry.age,
            started: entry.started,
        };
        Self {
            author: statement.author.clone(),
            cluster: statement.cluster,
            version: statement.version,
            digest: statement.digest,
            view: statement.view.iter().map(entry).collect(),
            unreachable: statement.unreachable.iter().cloned().collect(),
        }
    }
}

impl WireStatement {
    fn into_statement(self) -> Result<Statement, WireError> {
        let entry = |wire: WireEntry| {
            let entry = Entry {
                status: status(wire.status)?,
                age: wire.age,
                started: wire.started,
            };
            Ok((wire.node, entry))
        };
        let view = self.view.into_iter().map(entry);
        Ok(Statement {
            author: self.author,
            cluster: self.cluster,
            version: self.version,
            digest: self.digest,
            view: view.collect::<Result<_, WireError>>()?,
            unreachable: self.unreachable.into_iter().collect(),
        })
    }
}

impl From<&Message> for WireMessage {
    fn from(message: &Message) -> Self {
        match message {
            Message::Beat(Beat { cluster, kind }) => {
                let cluster = *cluster;
                match kind {
                    BeatKind::Ping => Self::Ping { cluster },
                    BeatKind::Pong => Self::Pong { cluster },
                    BeatKind::Verdict {
                        incarnation,
                        status,
                    } => Self::Verdict {
                        cluster,
                        incarnation: *incarnation,
                        status: status.code(),
                    },
                }
            }
            Message::Request(request) => Self::Request {
                started: request.started,
                settings: request.settings.clone(),
            },
            Message::Answer(to, answer) => {
                let to = *to;
                match answer {
                    JoinAnswer::Accepted(statement) => Self::Accepted {
                        to,
                        statement: WireStatement::from(&**statement),
                    },
                    JoinAnswer::NotYet => Self::NotYet { to },
                    JoinAnswer::Refused(Refusal::Out) => Self::RefusedOut { to },
                    JoinAnswer::Refused(Refusal::SettingDiffers {
                        setting,
                        ours,
                        theirs,
                    }) => Self::RefusedSetting {
                        to,
                        setting: setting.clone(),
                        ours: ours.clone(),
                        theirs: theirs.clone(),
                    },
                }
            }
        }
    }
}

impl WireMessage {
    fn into_message(self) -> Result<Message, WireError> {
        let beat = |cluster, kind| Message::Beat(Beat { cluster, kind });
        let refused = |to, refusal| Message::Answer(to, JoinAnswer::Refused(refusal));
        Ok(match self {
            Self::Ping { cluster } => beat(cluster, BeatKind::Ping),
            Self::Pong { cluster } => beat(cluster, BeatKind::Pong),
            Self::Verdict {
                cluster,
                incarnation,
                status: code,
            } => {
                let status = status(code)?;
                beat(
                    cluster,
                    BeatKind::Verdict {
                        incarnation,
                        status,
                    },
                )
            }
            Self::Request { started, settings } => {
                Message::Request(JoinRequest { started, settings })
            }
            Self::Accepted { to, statement } => {
                let statement = Box::new(statement.into_statement()?);
                Message::Answer(to, JoinAnswer::Accepted(statement))
            }
            Self::NotYet { to } => Message::Answer(to, JoinAnswer::NotYet),
            Self::RefusedOut { to } => refused(to, Refusal::Out),
            Self::RefusedSetting {
                to,
                setting,
                ours,
                theirs,
            } => refused(
                to,
                Refusal::SettingDiffers {
                    setting,
                    ours,
                    theirs,
                },
            ),
        })
    }
}

impl From<&GossipMessage> for WireGossip {
    fn from(message: &GossipMessage) -> Self {
        let pairs = |versions: &BTreeMap<NodeId, u64>| {
            let pairs = versions
                .iter()
                .map(|(node, version)| (node.clone(), *version));
            pairs.collect()
        };
        match message {
            GossipMessage::Digest(versions) => Self::Digest(pairs(versions)),
            GossipMessage::Delta { statements, wanted } => {
                let wire = |statement: &Arc<Statement>| WireStatement::from(&**statement);
                Self::Delta {
                    statements: statements.iter().map(wire).collect(),
                    wanted: pairs(wanted),
                }
            }
        }
    }
}

impl WireGossip {
    fn into_message(self) -> Result<GossipMessage, WireError> {
        Ok(match self {
            Self::Digest(versions) => GossipMessage::Digest(versions.into_iter().collect()),
            Self::Delta { statements, wanted } => {
                let statement = |wire: WireStatement| wire.into_statement().map(Arc::new);
                let statements = statements.into_iter().map(statement);
                GossipMessage::Delta {
                    statements: statements.collect::<Result<_, WireError>>()?,
                    wanted: wanted.into_iter().collect(),
                }
            }
        })
    }
}
