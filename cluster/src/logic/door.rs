//! Door: what a node says when it asks to be let in, what must agree, and what it is told. Pure.

use crate::logic::profile::Profile;
use crate::logic::statement::Statement;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Asks to be let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRequest {
    /// When the asking node was started, in milliseconds of its wall clock.
    pub started: u64,
    /// The settings that must be the same on all nodes, by name.
    pub settings: BTreeMap<String, String>,
    /// Settings that must be the same where both sides have them, by name.
    pub shared: BTreeMap<String, String>,
    /// What the asking node says of itself.
    pub profile: Option<Arc<Profile>>,
}

/// Answers a [`JoinRequest`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JoinAnswer {
    /// You are a joining member; this is what I know.
    Accepted(Box<Statement>),
    /// I am in a cluster, but it lets nobody in at present, or I have no say in it; ask again.
    NotYet,
    /// I am in no cluster either.
    Outside {
        /// Whom I hold for the one that may form a cluster.
        candidate: Option<SocketAddr>,
    },
    /// No, for good.
    Refused(Refusal),
}

/// Why a node was not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// This run of the node was declared out; a new run may join.
    #[error("this run of the node was declared out of the cluster: start it again")]
    Out,
    /// A setting that must be the same on all nodes is not.
    #[error("the setting `{setting}` is {ours:?} here but {theirs:?} in the cluster")]
    SettingDiffers {
        /// Its name.
        setting: String,
        /// Its value on the node that asked; empty if it has none.
        ours: String,
        /// Its value in the cluster; empty if it has none.
        theirs: String,
    },
}

/// The first setting in which the asking node differs from the cluster, in the order of names.
///
/// # Errors
/// [`Refusal::SettingDiffers`].
pub fn compare(
    asking: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let names: BTreeSet<&String> = asking.keys().chain(cluster.keys()).collect();
    compare_these(names.into_iter(), asking, cluster)
}

/// As [`compare`], for settings that one side may not have (yet): only those count that both have.
///
/// # Errors
/// [`Refusal::SettingDiffers`].
pub fn compare_shared(
    asking: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    let both = asking.keys().filter(|name| cluster.contains_key(*name));
    compare_these(both, asking, cluster)
}

fn compare_these<'a>(
    mut names: impl Iterator<Item = &'a String>,
    asking: &BTreeMap<String, String>,
    cluster: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    match names.find(|name| asking.get(*name) != cluster.get(*name)) {
        None => Ok(()),
        Some(name) => Err(Refusal::SettingDiffers {
            setting: name.clone(),
            ours: asking.get(name).cloned().unwrap_or_default(),
            theirs: cluster.get(name).cloned().unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C11: the refusal names the difference.
    #[test]
    fn settings_must_agree() {
        let settings = |pairs: &[(&str, &str)]| {
            let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            owned.collect::<BTreeMap<String, String>>()
        };
        let cluster = settings(&[("downing", "keep-majority"), ("shards", "256")]);
        assert_eq!(compare(&cluster, &cluster), Ok(()));
        let other = settings(&[("downing", "keep-majority"), ("shards", "128")]);
        let refusal = compare(&other, &cluster).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the setting `shards` is \"128\" here but \"256\" in the cluster"
        );
        let lacking = settings(&[("downing", "keep-majority")]);
        assert!(compare(&lacking, &cluster).is_err());
        assert!(compare(&cluster, &lacking).is_err());
        assert!(compare_shared(&other, &cluster).is_err());
        assert_eq!(compare_shared(&lacking, &cluster), Ok(()));
        assert_eq!(compare_shared(&cluster, &lacking), Ok(()));
    }
}
