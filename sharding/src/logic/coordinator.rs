//! Coordinator: whether this node decides where shards live. Pure: no clock, no IO.
//!
//! Each node has one for each kind; the one on the oldest Up member takes over: it claims the next
//! term in the store, and then reigns ([`crate::logic::reign`]) until another member is the oldest.
//!
//! Two nodes may believe to be the oldest, for a moment while the view changes, or on the two sides of
//! a split. The later term wins: regions that hear of both obey it, and the store refuses claims
//! of the earlier one. Who learns of a later term while it is still the oldest in its own view
//! claims a new one, but waits a while first, so that two do not outbid each other all the time.
//!
//! # A coordinator that leaves
//! When the oldest member leaves, it is not the oldest any more from the moment it says so, and its
//! successor learns of it a gossip later. Nobody would decide meanwhile, and what is in the middle of a
//! move would wait. So a leaving coordinator **reigns on**, moves what it has itself, and gives way only
//! to the next term. The successor has claimed that term before it says a word, so a slow store holds up
//! nothing. To its `Gather` the old coordinator answers with a [`Legacy`]: all that it had decided. The
//! successor goes on from there, moves under way included, without waiting for any region.
//!
//! A legacy counts only for the very next term: then nobody can have decided anything in between.

use crate::logic::allocation::AllocationStrategy;
use crate::logic::exchange::ClaimAnswer;
use crate::logic::layout::Layout;
use crate::logic::reign::{Reign, Superseded};
use crate::logic::view::View;
use crate::wire::{Legacy, ProtocolMessage, Status};
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Settings of a coordinator.
#[derive(Clone)]
pub struct CoordinatorConfig {
    /// With how many shards the kind begins.
    pub shards: u32,
    /// Who gets what.
    pub strategy: Arc<dyn AllocationStrategy>,
    /// How long a coordinator that takes over waits for the regions of all members.
    pub gather_limit: Duration,
    /// How many shards of leaving members are on their way at once.
    pub drain_shards_max: usize,
    /// How often the balance is looked at if nothing happens.
    pub rebalance_interval: Duration,
    /// What is not confirmed is said again after this time.
    pub resend: Duration,
    /// At most one table is pushed in this time.
    pub table_pause: Duration,
    /// How long to wait with a new term after a later one was met.
    pub superseded_pause: Duration,
}

impl fmt::Debug for CoordinatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorConfig")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// What is to be done for a coordinator.
#[derive(Debug)]
pub enum Output {
    /// Set the layout in the store, then call [`Coordinator::layout_set`].
    Layout {
        /// The term by which.
        term: u32,
        /// As the store keeps it.
        register: u64,
    },
    /// Claim the next term in the store and read the layout, as [`crate::logic::layout`] says, then call
    /// [`Coordinator::term_claimed`].
    NextTerm,
    /// Say this to a region.
    Send {
        /// Where to.
        to: NodeId,
        /// What to say.
        message: ProtocolMessage,
    },
}

/// The coordinator of one kind on one node, at work or not.
#[derive(Debug)]
pub struct Coordinator {
    config: CoordinatorConfig,
    view: View,
    role: Role,
    /// A claim of a term is on its way.
    claiming: bool,
    not_before: Time,
    /// Regions that count other shards, which was said.
    differing: BTreeSet<NodeId>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Role {
    /// Another member is the oldest.
    Idle,
    Reigning(Box<Reign>),
    /// The oldest, without a term.
    TakingOver,
}

impl Coordinator {
    /// The coordinator on node `me`, which knows of nobody yet.
    #[must_use]
    pub fn new(me: NodeId, config: CoordinatorConfig) -> Self {
        Self {
            config,
            view: View::empty(me),
            role: Role::Idle,
            claiming: false,
            not_before: Time::ZERO,
            differing: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The members have changed.
    pub fn change_view(&mut self, now: Time, view: View) {
        self.view = view;
        self.differing
            .retain(|node| self.view.hosts.contains_key(node));
        let oldest = self.view.oldest.as_ref() == Some(&self.view.me);
        match &mut self.role {
            Role::Reigning(reign) if !oldest && self.view.is_leaving(&self.view.me) => {
                reign.change_view(now, &self.view);
            }
            _ if !oldest => self.role = Role::Idle,
            Role::Idle => self.role = Role::TakingOver,
            Role::Reigning(reign) => reign.change_view(now, &self.view),
            Role::TakingOver => {}
        }
        self.advance(now);
    }

    /// The store's answer to [`Output::NextTerm`]: the term, and the layout by which shards are counted;
    /// `None` if it could not be asked.
    pub fn term_claimed(&mut self, now: Time, claimed: Option<(u32, Layout)>) {
        self.claiming = false;
        match claimed {
            Some((term, layout)) if matches!(self.role, Role::TakingOver) => {
                let me = &self.view.me;
                let shards = layout.shards;
                tracing::info!(node = %me, term, shards, "this node coordinates the shards");
                let reign = Reign::new(now, (term, layout), &self.view, self.config.clone());
                self.role = Role::Reigning(Box::new(reign));
            }
            Some(_) => {}
            None => self.not_before = now + self.config.resend,
        }
        self.advance(now);
    }

    /// The store's answer to [`Output::Layout`].
    pub fn layout_set(&mut self, now: Time, register: u64, answer: ClaimAnswer) {
        if let Role::Reigning(reign) = &mut self.role
            && let Err(Superseded { term }) = reign.layout_set(now, &self.view, register, answer)
        {
            tracing::warn!(term, "a later coordinator has read the number of shards");
            self.step_down(now);
        }
        self.advance(now);
    }

    /// Takes note of what reached this node; gives back what is for the region beside it.
    pub fn handle(&mut self, now: Time, message: ProtocolMessage) -> Option<ProtocolMessage> {
        match message {
            ProtocolMessage::Legacy(legacy) => {
                self.legacy(now, &legacy);
                return None;
            }
            ProtocolMessage::Status(status) => {
                self.status(now, *status);
                return None;
            }
            ProtocolMessage::Gather {
                ref from,
                term,
                shards,
            } if shards == self.config.shards => self.give_way(now, from, term),
            ProtocolMessage::Table(ref table)
                if self.term().is_some_and(|own| table.term > own) =>
            {
                self.step_down(now);
            }
            _ => {}
        }
        Some(message)
    }

    /// Another coordinator begins `term`: a later one than that of this node ends it.
    fn give_way(&mut self, now: Time, to: &NodeId, term: u32) {
        let Role::Reigning(reign) = &mut self.role else {
            return;
        };
        if term <= reign.term() {
            return;
        }
        tracing::info!(%to, term, "the next coordinator takes over");
        if let Some(legacy) = reign.legacy(term) {
            let message = ProtocolMessage::Legacy(Box::new(legacy));
            self.outputs.push_back(Output::Send {
                to: to.clone(),
                message,
            });
        }
        self.step_down(now);
    }

    /// The coordinator before this one says what it had decided.
    fn legacy(&mut self, now: Time, legacy: &Legacy) {
        if let Role::Reigning(reign) = &mut self.role {
            reign.inherit(now, &self.view, legacy);
            self.advance(now);
        }
    }

    /// A later term exists: wait for a while before the next one is claimed, or leave it to others.
    fn step_down(&mut self, now: Time) {
        self.role = Role::Idle;
        if self.view.oldest.as_ref() == Some(&self.view.me) {
            self.role = Role::TakingOver;
            self.not_before = now + self.config.superseded_pause;
        }
    }

    /// A region says what it has.
    pub fn status(&mut self, now: Time, status: Status) {
        if status.begins_with != self.config.shards {
            return self.differs(now, status);
        }
        let Role::Reigning(reign) = &mut self.role else {
            return;
        };
        let from = status.from.clone();
        if let Err(Superseded { term }) = reign.status(now, &self.view, status) {
            tracing::warn!(%from, term, "a later coordinator is at work elsewhere");
            self.step_down(now);
        }
        self.advance(now);
    }

    /// A region counts other shards, so that an entity is in another one there. It gets nothing. If
    /// it has something, whoever gave it was right before: allocating the same entities again, by
    /// other shards, would let two nodes write them.
    fn differs(&mut self, now: Time, status: Status) {
        let (from, theirs, ours) = (status.from, status.begins_with, self.config.shards);
        let Role::Reigning(reign) = &mut self.role else {
            return;
        };
        // So that it learns of the difference.
        reign.send_gather(&from);
        if reign.is_gathering() && !status.claims.is_empty() {
            tracing::error!(%from, theirs, ours, "shards are hosted by another count: none is given");
            self.step_down(now);
        } else if self.differing.insert(from.clone()) {
            tracing::error!(%from, theirs, ours, "a node counts other shards: it is given none");
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
    }

    /// The next thing to do; changes with every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.role {
            Role::Idle => None,
            Role::Reigning(reign) => Some(reign.poll_timeout()),
            Role::TakingOver => (!self.claiming).then_some(self.not_before),
        }
    }

    /// The term in which this node decides, if it does.
    #[must_use]
    pub fn term(&self) -> Option<u32> {
        match &self.role {
            Role::Reigning(reign) => Some(reign.term()),
            _ => None,
        }
    }

    fn advance(&mut self, now: Time) {
        match &mut self.role {
            Role::Idle => {}
            Role::Reigning(reign) => {
                reign.advance(now, &self.view);
                if let Some(register) = reign.poll_layout() {
                    let term = reign.term();
                    self.outputs.push_back(Output::Layout { term, register });
                }
                while let Some((to, message)) = reign.poll_output() {
                    self.outputs.push_back(Output::Send { to, message });
                }
            }
            Role::TakingOver => {
                if !self.claiming && now >= self.not_before {
                    self.claiming = true;
                    self.outputs.push_back(Output::NextTerm);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
