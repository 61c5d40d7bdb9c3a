//! Wire: the bytes of what members say to each other, apart from what it means.
//!
//! Every payload begins with the version of this format, which is the lowest that can say it: nodes
//! of neighbouring versions hear each other's heartbeats. What a version has written is read for
//! good: its bytes stand in `fixtures/v1` and so on, and are decoded by a test. The limits on size
//! and depth are those of [`otava_remote::decode`].
//!
//! | version | new in it |
//! | --- | --- |
//! | 2 | roles and versions of members; settings that not all have; weakly up; the end of the whole cluster; |
//! | | nodes that say that they are in no cluster, or in another one |
//! | 3 | a view that several statements share, said once |
//!
//! What members say of themselves stands once in a message, however many statements name them.

#[cfg(test)]
mod tests;

use crate::envelope::{self, EnvelopeError};
use crate::logic::door::{JoinAnswer, JoinRequest, Refusal};
use crate::logic::gossip::GossipMessage;
use crate::logic::member::Status;
use crate::logic::message::{Beat, BeatKind, Message};
use crate::logic::profile::{AppVersion, Profile};
use crate::logic::statement::Statement;
use crate::logic::view::{Entry, View};
use otava_remote::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The newest version of the format.
const VERSION: u8 = 3;

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
    // From here on version 2.
    RequestAs {
        started: u64,
        settings: BTreeMap<String, String>,
        shared: BTreeMap<String, String>,
        profile: WireProfile,
    },
    AcceptedInto {
        to: u64,
        statement: WireStatementOf2,
        profiles: Vec<(NodeId, WireProfile)>,
    },
    Outside {
        to: u64,
        candidate: Option<SocketAddr>,
    },
    Elsewhere {
        cluster: u64,
    },
}

/// What a member says of itself.
#[derive(Deserialize, Serialize)]
struct WireProfile {
    roles: Vec<String>,
    app_version: String,
}

/// What version 2 adds to a statement.
#[derive(Deserialize, Serialize)]
struct WireStatementOf2 {
    statement: WireStatement,
    stopping: bool,
}

type Profiles = BTreeMap<NodeId, Arc<Profile>>;

#[derive(Deserialize, Serialize)]
enum WireGossip {
    Digest(Vec<(NodeId, u64)>),
    Delta {
        statements: Vec<WireStatement>,
        wanted: Vec<(NodeId, u64)>,
    },
    // From here on version 2.
    DeltaOf2 {
        statements: Vec<WireStatementOf2>,
        wanted: Vec<(NodeId, u64)>,
        profiles: Vec<(NodeId, WireProfile)>,
    },
    // From here on version 3.
    Shared {
        views: Vec<WireView>,
        profiles: Vec<(NodeId, WireProfile)>,
        statements: Vec<WireRemark>,
        wanted: Vec<(NodeId, u64)>,
    },
}

/// A view, for the statements that name it by its place.
#[derive(Deserialize, Serialize)]
struct WireView {
    entries: Vec<WireEntry>,
    stopping: bool,
}

/// A statement, its view apart.
#[derive(Deserialize, Serialize)]
struct WireRemark {
    author: NodeId,
    cluster: u64,
    version: u64,
    digest: u64,
    view: u32,
    unreachable: Vec<NodeId>,
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

/// A payload that knows since which version it can be said.
trait Versioned {
    fn version(&self) -> u8;
}

impl Versioned for WireMessage {
    fn version(&self) -> u8 {
        match self {
            Self::RequestAs { .. }
            | Self::AcceptedInto { .. }
            | Self::Outside { .. }
            | Self::Elsewhere { .. } => 2,
            _ => 1,
        }
    }
}

impl Versioned for WireGossip {
    fn version(&self) -> u8 {
        match self {
            Self::Shared { .. } => 3,
            Self::DeltaOf2 { .. } => 2,
            Self::Digest(_) | Self::Delta { .. } => 1,
        }
    }
}

fn pack<T: Serialize + Versioned>(value: &T) -> Option<Vec<u8>> {
    envelope::seal(value.version(), value)
        .inspect_err(|error| {
            tracing::error!(%error, "a cluster message cannot be encoded and is not sent");
        })
        .ok()
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    envelope::open(VERSION, bytes).map_err(|error| match error {
        EnvelopeError::Malformed(what) => WireError::Malformed(what),
        EnvelopeError::Version(version) => WireError::Version(version),
    })
}

fn status(code: u8) -> Result<Status, WireError> {
    Status::from_code(code).ok_or_else(|| WireError::Malformed(format!("status {code}")))
}

/// Whether version 1 can say it.
fn is_plain(statement: &Statement) -> bool {
    let plain = |entry: &Entry| entry.profile.is_none() && entry.status != Status::WeaklyUp;
    !statement.view.is_stopping() && statement.view.iter().all(|(_, entry)| plain(entry))
}

/// What all members in these views say of themselves.
fn profiles_in<'a>(views: impl Iterator<Item = &'a View>) -> Vec<(NodeId, WireProfile)> {
    let entries = views.flat_map(View::iter);
    let said = entries.filter_map(|(node, entry)| Some((node, entry.profile.as_ref()?)));
    let said: BTreeMap<&NodeId, &Arc<Profile>> = said.collect();
    let wire =
        |(node, profile): (&NodeId, &Arc<Profile>)| (node.clone(), WireProfile::from(&**profile));
    said.into_iter().map(wire).collect()
}

fn read_profiles(wire: Vec<(NodeId, WireProfile)>) -> Result<Profiles, WireError> {
    let profiles = wire
        .into_iter()
        .map(|(node, profile)| Ok((node, Arc::new(profile.into_profile()?))));
    profiles.collect()
}

impl From<&Profile> for WireProfile {
    fn from(profile: &Profile) -> Self {
        Self {
            roles: profile.roles.iter().cloned().collect(),
            app_version: profile.app_version.to_string(),
        }
    }
}

impl WireProfile {
    fn into_profile(self) -> Result<Profile, WireError> {
        let malformed = || WireError::Malformed("roles or version of a member".into());
        let profile = Profile {
            roles: self.roles.into_iter().collect::<BTreeSet<_>>(),
            app_version: AppVersion::new(&self.app_version).ok_or_else(malformed)?,
        };
        profile.is_sound().then_some(profile).ok_or_else(malformed)
    }
}

impl From<&Statement> for WireStatementOf2 {
    fn from(statement: &Statement) -> Self {
        Self {
            statement: WireStatement::from(statement),
            stopping: statement.view.is_stopping(),
        }
    }
}

impl WireStatementOf2 {
    fn into_statement(self, profiles: &Profiles) -> Result<Statement, WireError> {
        let mut statement = self.statement.into_statement(profiles)?;
        if self.stopping {
            statement.view.stop();
        }
        Ok(statement)
    }
}

fn entries_of(view: &View) -> Vec<WireEntry> {
    let entry = |(node, entry): (&NodeId, &Entry)| WireEntry {
        node: node.clone(),
        status: entry.status.code(),
        age: entry.age,
        started: entry.started,
    };
    view.iter().map(entry).collect()
}

fn read_view(entries: Vec<WireEntry>, profiles: &Profiles) -> Result<View, WireError> {
    let entry = |wire: WireEntry| {
        let entry = Entry {
            status: status(wire.status)?,
            age: wire.age,
            started: wire.started,
            profile: profiles.get(&wire.node).cloned(),
        };
        Ok((wire.node, entry))
    };
    entries.into_iter().map(entry).collect()
}

/// The views of these statements, those that are copies of each other once, with their places.
fn views_of(statements: &[Arc<Statement>]) -> (Vec<&View>, Vec<u32>) {
    let mut views: Vec<&View> = Vec::new();
    let mut places = Vec::new();
    for statement in statements {
        let known = views
            .iter()
            .rposition(|view| statement.view.is_copy_of(view));
        let place = known.unwrap_or_else(|| {
            views.push(&statement.view);
            views.len() - 1
        });
        places.push(u32::try_from(place).unwrap_or(u32::MAX));
    }
    (views, places)
}

impl WireView {
    fn into_view(self, profiles: &Profiles) -> Result<View, WireError> {
        let mut view = read_view(self.entries, profiles)?;
        if self.stopping {
            view.stop();
        }
        Ok(view)
    }
}

impl WireRemark {
    fn new(statement: &Statement, view: u32) -> Self {
        Self {
            author: statement.author.clone(),
            cluster: statement.cluster,
            version: statement.version,
            digest: statement.digest,
            view,
            unreachable: statement.unreachable.iter().cloned().collect(),
        }
    }

    fn into_statement(self, views: &[View]) -> Result<Arc<Statement>, WireError> {
        let view = views.get(self.view as usize);
        let unknown = || WireError::Malformed("a statement's view is not there".into());
        Ok(Arc::new(Statement {
            author: self.author,
            cluster: self.cluster,
            version: self.version,
            digest: self.digest,
            view: view.ok_or_else(unknown)?.clone(),
            unreachable: self.unreachable.into_iter().collect(),
        }))
    }
}

impl From<&Statement> for WireStatement {
    fn from(statement: &Statement) -> Self {
        Self {
            author: statement.author.clone(),
            cluster: statement.cluster,
            version: statement.version,
            digest: statement.digest,
            view: entries_of(&statement.view),
            unreachable: statement.unreachable.iter().cloned().collect(),
        }
    }
}

impl WireStatement {
    fn into_statement(self, profiles: &Profiles) -> Result<Statement, WireError> {
        Ok(Statement {
            author: self.author,
            cluster: self.cluster,
            version: self.version,
            digest: self.digest,
            view: read_view(self.view, profiles)?,
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
                    BeatKind::Elsewhere => Self::Elsewhere { cluster },
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
            Message::Request(request) => {
                let (started, settings) = (request.started, request.settings.clone());
                if request.profile.is_none() && request.shared.is_empty() {
                    return Self::Request { started, settings };
                }
                let profile = request.profile.as_deref();
                Self::RequestAs {
                    started,
                    settings,
                    shared: request.shared.clone(),
                    profile: WireProfile::from(profile.unwrap_or(&Profile::default())),
                }
            }
            Message::Answer(to, answer) => {
                let to = *to;
                match answer {
                    JoinAnswer::Accepted(statement) if is_plain(statement) => Self::Accepted {
                        to,
                        statement: WireStatement::from(&**statement),
                    },
                    JoinAnswer::Accepted(statement) => Self::AcceptedInto {
                        to,
                        statement: WireStatementOf2::from(&**statement),
                        profiles: profiles_in([&statement.view].into_iter()),
                    },
                    JoinAnswer::NotYet => Self::NotYet { to },
                    JoinAnswer::Outside { candidate } => Self::Outside {
                        to,
                        candidate: *candidate,
                    },
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
            Self::Request { started, settings } => Message::Request(JoinRequest {
                started,
                settings,
                shared: BTreeMap::new(),
                profile: None,
            }),
            Self::RequestAs {
                started,
                settings,
                shared,
                profile,
            } => Message::Request(JoinRequest {
                started,
                settings,
                shared,
                profile: profile.into_profile()?.shared(),
            }),
            Self::Accepted { to, statement } => {
                let statement = statement.into_statement(&Profiles::new())?;
                Message::Answer(to, JoinAnswer::Accepted(Box::new(statement)))
            }
            Self::AcceptedInto {
                to,
                statement,
                profiles,
            } => {
                let statement = statement.into_statement(&read_profiles(profiles)?)?;
                Message::Answer(to, JoinAnswer::Accepted(Box::new(statement)))
            }
            Self::NotYet { to } => Message::Answer(to, JoinAnswer::NotYet),
            Self::Outside { to, candidate } => {
                Message::Answer(to, JoinAnswer::Outside { candidate })
            }
            Self::Elsewhere { cluster } => beat(cluster, BeatKind::Elsewhere),
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
                let all = || statements.iter().map(|statement| &**statement);
                let wanted = pairs(wanted);
                let (views, places) = views_of(statements);
                if views.len() < statements.len() {
                    let wire = |view: &&View| WireView {
                        entries: entries_of(view),
                        stopping: view.is_stopping(),
                    };
                    let remarks = all().zip(places);
                    return Self::Shared {
                        views: views.iter().map(wire).collect(),
                        profiles: profiles_in(views.iter().copied()),
                        statements: remarks.map(|(it, at)| WireRemark::new(it, at)).collect(),
                        wanted,
                    };
                }
                if all().all(is_plain) {
                    let statements = all().map(WireStatement::from).collect();
                    return Self::Delta { statements, wanted };
                }
                Self::DeltaOf2 {
                    statements: all().map(WireStatementOf2::from).collect(),
                    wanted,
                    profiles: profiles_in(all().map(|statement| &statement.view)),
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
                let none = Profiles::new();
                let statement = |wire: WireStatement| wire.into_statement(&none).map(Arc::new);
                let statements = statements.into_iter().map(statement);
                GossipMessage::Delta {
                    statements: statements.collect::<Result<_, WireError>>()?,
                    wanted: wanted.into_iter().collect(),
                }
            }
            Self::DeltaOf2 {
                statements,
                wanted,
                profiles,
            } => {
                let profiles = read_profiles(profiles)?;
                let statement =
                    |wire: WireStatementOf2| wire.into_statement(&profiles).map(Arc::new);
                let statements = statements.into_iter().map(statement);
                GossipMessage::Delta {
                    statements: statements.collect::<Result<_, WireError>>()?,
                    wanted: wanted.into_iter().collect(),
                }
            }
            Self::Shared {
                views,
                profiles,
                statements,
                wanted,
            } => {
                let profiles = read_profiles(profiles)?;
                let views = views.into_iter().map(|view| view.into_view(&profiles));
                let views = views.collect::<Result<Vec<View>, WireError>>()?;
                let statements = statements.into_iter();
                let statements = statements.map(|remark| remark.into_statement(&views));
                GossipMessage::Delta {
                    statements: statements.collect::<Result<_, WireError>>()?,
                    wanted: wanted.into_iter().collect(),
                }
            }
        })
    }
}
