//! Facts: a statement as keys and values, the form in which chitchat carries it. Pure.
//!
//! One key a member, so that a change of one member is carried as one small change. The header is
//! written last and names the version: a reader that sees the header of a version sees all its
//! other keys too, since chitchat carries the changes of a node in their order.
//!
//! chitchat has sharp edges, found by measurement: a key that does not begin with ASCII stops the
//! gossip of all other nodes for good, and a value beyond 65,500 bytes silently blocks all that
//! come after it. So keys and values are plain ASCII here, and their size is bounded.

use crate::logic::member::Status;
use crate::logic::profile::{AppVersion, Profile};
use crate::logic::statement::Statement;
use crate::logic::view::{Entry, View};
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The key of the header.
pub(crate) const HEADER: &str = "h";
/// The key that is there while the whole cluster prepares for its end.
const STOPPING: &str = "s";
/// The first byte of keys of members, of what they say of themselves, and of those that cannot be
/// reached. Keys of other kinds are for later versions, and skipped.
const MEMBER: char = 'm';
const PROFILE: char = 'p';
const UNREACHABLE: char = 'u';
/// How many bytes all keys and values of a node may have together: what fits into one message.
pub(crate) const BYTES_MAX: usize = 32 * 1024;
/// How many bytes one value may have.
const VALUE_BYTES_MAX: usize = 4 * 1024;

/// A statement that does not fit: the cluster is too large for this dissemination.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the view has {bytes} bytes but chitchat carries {BYTES_MAX} safely; use another dissemination"
)]
pub(crate) struct TooLarge {
    bytes: usize,
}

/// The keys and values of a statement. The author's address and incarnation are chitchat's to carry.
pub(crate) fn write(statement: &Statement) -> Result<BTreeMap<String, String>, TooLarge> {
    let mut facts = BTreeMap::new();
    for (node, entry) in statement.view.iter() {
        let age = entry.age.map_or_else(|| "-".into(), |age| age.to_string());
        let (status, started) = (entry.status.code(), entry.started);
        let value = format!("{status} {age} {started} {}", node.name);
        facts.insert(key(MEMBER, node), value);
        if let Some(profile) = &entry.profile {
            let roles: Vec<&str> = profile.roles.iter().map(String::as_str).collect();
            let value = format!("{} {}", profile.app_version, roles.join(","));
            facts.insert(key(PROFILE, node), value);
        }
    }
    if statement.view.is_stopping() {
        facts.insert(STOPPING.into(), "1".into());
    }
    for node in &statement.unreachable {
        facts.insert(key(UNREACHABLE, node), node.name.to_string());
    }
    let header = format!(
        "{} {:x} {:x} {}",
        statement.version, statement.cluster, statement.digest, statement.author.name
    );
    facts.insert(HEADER.into(), header);
    let lengths = facts.iter().map(|(key, value)| key.len() + value.len());
    let bytes = lengths.sum();
    let plain = |(key, value): (&String, &String)| {
        key.is_ascii() && value.is_ascii() && value.len() <= VALUE_BYTES_MAX
    };
    if bytes > BYTES_MAX || !facts.iter().all(plain) {
        return Err(TooLarge { bytes });
    }
    Ok(facts)
}

/// The statement of the author with this incarnation at `addr`; `None` if it is not complete or
/// not understood.
pub(crate) fn read<'a>(
    addr: SocketAddr,
    incarnation: u64,
    facts: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<Statement> {
    let mut members = BTreeMap::new();
    let mut profiles = BTreeMap::new();
    let mut stopping = false;
    let mut unreachable = BTreeSet::new();
    let mut header = None;
    for (key, value) in facts {
        if key == HEADER {
            header = Some(value);
        } else if let Some(rest) = key.strip_prefix(MEMBER) {
            members.insert(rest, value);
        } else if let Some(rest) = key.strip_prefix(PROFILE) {
            profiles.insert(rest, profile(value)?);
        } else if key == STOPPING {
            stopping = true;
        } else if let Some(rest) = key.strip_prefix(UNREACHABLE) {
            unreachable.insert(node(rest, value)?);
        }
    }
    let mut view = View::new();
    for (key, value) in members {
        let (node, entry) = member(key, value)?;
        view.add(&node, entry.with_profile(profiles.remove(key)));
    }
    if stopping {
        view.stop();
    }
    let mut parts = header?.splitn(4, ' ');
    let version = parts.next()?.parse().ok()?;
    let cluster = u64::from_str_radix(parts.next()?, 16).ok()?;
    let digest = u64::from_str_radix(parts.next()?, 16).ok()?;
    let name = parts.next().filter(|name| NodeId::is_valid_name(name))?;
    Some(Statement {
        author: NodeId::new(name, addr, incarnation),
        cluster,
        version,
        digest,
        view,
        unreachable,
    })
}

/// The version in a header.
pub(crate) fn version(header: &str) -> Option<u64> {
    header.split(' ').next()?.parse().ok()
}

fn key(kind: char, node: &NodeId) -> String {
    format!("{kind}{:016x}@{}", node.incarnation, node.addr)
}

fn node(key: &str, name: &str) -> Option<NodeId> {
    let (incarnation, addr) = key.split_once('@')?;
    let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
    let name = Some(name).filter(|name| NodeId::is_valid_name(name))?;
    Some(NodeId::new(name, addr.parse().ok()?, incarnation))
}

fn member(key: &str, value: &str) -> Option<(NodeId, Entry)> {
    let mut parts = value.splitn(4, ' ');
    let status = Status::from_code(parts.next()?.parse().ok()?)?;
    let age = match parts.next()? {
        "-" => None,
        age => Some(age.parse().ok()?),
    };
    let started = parts.next()?.parse().ok()?;
    let entry = Entry {
        status,
        age,
        started,
        profile: None,
    };
    Some((node(key, parts.next()?)?, entry))
}

fn profile(value: &str) -> Option<Arc<Profile>> {
    let (app_version, roles) = value.split_once(' ')?;
    let roles = roles.split(',').filter(|role| !role.is_empty());
    let profile = Profile {
        roles: roles.map(str::to_owned).collect(),
        app_version: AppVersion::new(app_version)?,
    };
    profile.is_sound().then(|| Arc::new(profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(port: u16) -> NodeId {
        NodeId::new("node-1", ([127, 0, 0, 1], port).into(), 0xC0FFEE)
    }

    fn statement(members: u16) -> Statement {
        let entry = Entry {
            status: Status::Up,
            age: Some(3),
            started: 1_700_000_000_000,
            profile: None,
        };
        Statement {
            author: node(1),
            cluster: 0xC1,
            version: 7,
            digest: 0xD1,
            view: (1..=members)
                .map(|port| (node(port), entry.clone()))
                .collect(),
            unreachable: BTreeSet::from([node(2)]),
        }
    }

    fn reread(facts: &BTreeMap<String, String>) -> Option<Statement> {
        let pairs = facts
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        read(node(1).addr, 0xC0FFEE, pairs)
    }

    /// These texts are what other versions read: they never change.
    #[test]
    fn the_texts_are_fixed_and_come_back() {
        let facts = write(&statement(2)).unwrap();
        let texts: Vec<String> = facts.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        assert_eq!(
            texts,
            [
                "h: 7 c1 d1 node-1",
                "m0000000000c0ffee@127.0.0.1:1: 1 3 1700000000000 node-1",
                "m0000000000c0ffee@127.0.0.1:2: 1 3 1700000000000 node-1",
                "u0000000000c0ffee@127.0.0.1:2: node-1",
            ]
        );
        assert_eq!(reread(&facts), Some(statement(2)));
        assert_eq!(version(&facts[HEADER]), Some(7));
    }

    /// Roles, version and the end of the cluster have keys of their own, which older readers skip.
    #[test]
    fn what_came_later_has_its_own_keys() {
        let profile = Profile {
            roles: ["api", "db"].map(str::to_owned).into(),
            app_version: AppVersion::new("2.1.0").unwrap(),
        };
        let mut statement = statement(1);
        let entry = statement.view.get(&node(1)).cloned().unwrap();
        statement
            .view
            .add(&node(1), entry.with_profile(profile.shared()));
        statement.view.stop();
        let facts = write(&statement).unwrap();
        assert_eq!(facts["p0000000000c0ffee@127.0.0.1:1"], "2.1.0 api,db");
        assert_eq!(facts["s"], "1");
        assert_eq!(reread(&facts), Some(statement));
        let mut facts = facts;
        facts.insert("z9".into(), "of a later version".into());
        assert!(reread(&facts).is_some());
        facts.insert("p0000000000c0ffee@127.0.0.1:1".into(), "2.1.0 a b".into());
        assert_eq!(reread(&facts), None);
    }

    #[test]
    fn without_its_header_nothing_is_read() {
        let mut facts = write(&statement(2)).unwrap();
        facts.remove(HEADER);
        assert_eq!(reread(&facts), None);
    }

    #[test]
    fn two_hundred_members_fit_and_a_thousand_are_refused() {
        assert!(write(&statement(200)).is_ok());
        assert!(write(&statement(1_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(pairs in proptest::collection::vec((".{0,40}", ".{0,40}"), 0..8)) {
            let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let _ = read(node(1).addr, 1, pairs);
        }
    }
}
