//! Door: how a node gets in: whom it asks, what must agree, and what it is told. Pure.
//!
//! A node that starts asks the addresses on its list. Whoever is a member there lets it in, as a
//! joining member, or refuses with the reason. Nobody forms a cluster because nobody answered,
//! except the node whose own address is the first on the list, and that one only after having asked
//! all others for a while: so a first seed that is restarted joins the cluster that lives without
//! it, and all nodes of one list end in one cluster.

use crate::logic::profile::Profile;
use crate::logic::statement::Statement;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Asks to be let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRequest {
    /// When the asking node was started, in milliseconds of its wall clock.
    pub started: u64,
    /// The settings that must be the same on all nodes, by name.
    pub settings: BTreeMap<String, String>,
    /// What the asking node says of itself.
    pub profile: Option<Arc<Profile>>,
}

/// Answers a [`JoinRequest`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum JoinAnswer {
    /// You are a joining member; this is what I know.
    Accepted(Box<Statement>),
    /// I am no full member myself; ask again.
    NotYet,
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
    let value = |settings: &BTreeMap<String, String>, name: &String| {
        settings.get(name).cloned().unwrap_or_default()
    };
    for name in asking.keys().chain(cluster.keys()) {
        let (ours, theirs) = (value(asking, name), value(cluster, name));
        if ours != theirs {
            return Err(Refusal::SettingDiffers {
                setting: name.clone(),
                ours,
                theirs,
            });
        }
    }
    Ok(())
}

/// Asks around until the node is in.
#[derive(Clone, Debug)]
pub struct Knocking {
    seeds: Vec<SocketAddr>,
    retry: Duration,
    next: Time,
    asked: bool,
    /// When this node forms a cluster by itself; `None` if that is not its part.
    forms: Option<Time>,
}

impl Knocking {
    /// Starts asking at `now`. Without others to ask a cluster is formed at once; if this node is
    /// the first on the list, it is formed after `form_after`.
    #[must_use]
    pub fn start(
        me: &NodeId,
        seeds: &[SocketAddr],
        now: Time,
        retry: Duration,
        form_after: Duration,
    ) -> Self {
        let first = seeds.first().is_none_or(|first| *first == me.addr);
        let mut others: Vec<SocketAddr> = Vec::new();
        for seed in seeds {
            if *seed != me.addr && !others.contains(seed) {
                others.push(*seed);
            }
        }
        let wait = if others.is_empty() {
            Duration::ZERO
        } else {
            form_after
        };
        Self {
            seeds: others,
            retry,
            next: now,
            asked: false,
            forms: first.then(|| now + wait),
        }
    }

    /// Whom to ask, if it is time to ask (again).
    pub fn due(&mut self, now: Time) -> Vec<SocketAddr> {
        if now < self.next {
            return Vec::new();
        }
        self.next = now + self.retry;
        self.asked = !self.seeds.is_empty();
        self.seeds.clone()
    }

    /// Whether somebody was asked, who may answer yet.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// Whether it is time to form a cluster.
    #[must_use]
    pub fn forms(&self, now: Time) -> bool {
        self.forms.is_some_and(|at| now >= at)
    }

    /// When something is due next.
    #[must_use]
    pub fn timeout(&self) -> Time {
        let asks = if self.seeds.is_empty() {
            Time::MAX
        } else {
            self.next
        };
        self.forms.map_or(asks, |forms| forms.min(asks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(500);
    const FORM: Duration = Duration::from_secs(2);

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn start(port: u16, seeds: &[u16]) -> Knocking {
        let seeds: Vec<_> = seeds.iter().map(|port| addr(*port)).collect();
        let me = NodeId::new("n", addr(port), 1);
        Knocking::start(&me, &seeds, Time::ZERO, RETRY, FORM)
    }

    /// C1: only the first on the list forms a cluster, after having asked the others.
    #[test]
    fn the_first_seed_asks_before_it_forms() {
        let mut first = start(1, &[1, 2, 3]);
        assert_eq!(first.due(Time::ZERO), [addr(2), addr(3)]);
        assert!(first.due(Time::ZERO).is_empty());
        assert_eq!(first.timeout(), Time::ZERO + RETRY);
        assert!(!first.forms(Time::ZERO + RETRY) && first.forms(Time::ZERO + FORM));
        let mut second = start(2, &[1, 2, 1]);
        assert_eq!(second.due(Time::ZERO), [addr(1)]);
        assert!(!second.forms(Time::MAX));
    }

    #[test]
    fn a_node_without_others_forms_at_once() {
        assert!(start(1, &[]).forms(Time::ZERO));
        assert!(start(1, &[1]).forms(Time::ZERO));
        assert_eq!(start(1, &[1]).timeout(), Time::ZERO);
    }

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
    }
}
