//! Singleton config: the settings of a singleton and of its proxies, and what its factory is told.

use crate::lease::Lease;
use crate::logic::singleton::SingletonSettings;
use crate::singleton::terms::TermStore;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a singleton. The same on all nodes that may host it.
#[derive(Clone)]
#[non_exhaustive]
pub struct SingletonConfig {
    /// How long after an older member was lost (not after it left) the next one starts the actor.
    /// The lost node may live, and needs this time to learn that it is out and to stop its own.
    /// Shorter is faster and less safe. Default 3 s.
    pub margin: Duration,
    /// The pause before the actor is started again after it ended by itself. Default 1 s.
    pub restart_after: Duration,
    /// Messages that its proxy keeps on each node while the actor runs nowhere; one more is refused
    /// to its sender. Default 10,000.
    pub buffer_max: usize,
    /// Only members of this role may host it: it runs on the oldest of them. Default: all members.
    pub role: Option<String>,
    /// Where terms come from. Default: from the membership, which needs no store: they grow within
    /// one life of the cluster, and begin anew when all nodes were stopped at once.
    pub terms: Option<Arc<dyn TermStore>>,
    /// What a node must hold while it runs the actor, besides being the oldest: then two sides of a
    /// split that both go on do not both run it. Without a store of terms, terms are those of the
    /// lease. Default: none.
    pub lease: Option<Arc<dyn Lease>>,
    /// For how long the lease is taken; it is renewed every quarter of that. A node that has not
    /// renewed it for half of it stops the actor at once, so that the actor has the other half to end.
    /// When a node dies, the next one waits for the rest of it. Default 20 s, at least 1 s.
    pub lease_for: Duration,
}

impl Default for SingletonConfig {
    fn default() -> Self {
        let settings = SingletonSettings::default();
        Self {
            margin: settings.margin,
            restart_after: settings.restart_after,
            buffer_max: 10_000,
            role: None,
            terms: None,
            lease: None,
            lease_for: Duration::from_secs(20),
        }
    }
}

impl SingletonConfig {
    /// How long after the loss of an older member the actor is started.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Messages that a proxy keeps while the actor runs nowhere.
    #[must_use]
    pub fn buffer_max(mut self, messages: usize) -> Self {
        self.buffer_max = messages;
        self
    }

    /// Only members of this role may host it.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.role = Some(role.into());
        self
    }

    /// Where terms come from.
    #[must_use]
    pub fn terms(mut self, terms: Arc<dyn TermStore>) -> Self {
        self.terms = Some(terms);
        self
    }

    /// What a node must hold while it runs the actor, and for how long it is taken at once.
    #[must_use]
    pub fn lease(mut self, lease: Arc<dyn Lease>, length: Duration) -> Self {
        self.lease = Some(lease);
        self.lease_for = length;
        self
    }

    pub(super) fn settings(&self) -> SingletonSettings {
        SingletonSettings {
            margin: self.margin,
            restart_after: self.restart_after,
            ..SingletonSettings::default()
        }
    }
}

impl fmt::Debug for SingletonConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingletonConfig")
            .field("margin", &self.margin)
            .field("restart_after", &self.restart_after)
            .field("buffer_max", &self.buffer_max)
            .field("role", &self.role)
            .field("has_terms", &self.terms.is_some())
            .field("lease", &self.lease)
            .field("lease_for", &self.lease_for)
            .finish()
    }
}

/// What the factory of a singleton is told.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SingletonContext {
    /// The name of the singleton.
    pub name: Arc<str>,
    /// The scope of its terms, for a store that checks writes by scope and term.
    pub scope: String,
    /// Greater than that of every start before, on whichever node; kept when its supervision
    /// restarts the actor. Whatever the actor writes to can refuse a lower one than it has seen: then
    /// an instance that lives longer than it should does no harm.
    pub term: u64,
}
