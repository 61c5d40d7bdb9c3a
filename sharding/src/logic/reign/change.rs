//! Change: how a coordinator changes the number of shards.

use crate::logic::exchange::ClaimAnswer;
use crate::logic::layout::Layout;
use crate::logic::reign::{Reign, Shard, State, Superseded};
use crate::logic::view::View;
use otava_actor::Time;
use otava_remote::NodeId;

/// How far a change of the layout is.
#[derive(Debug)]
pub(super) enum Change {
    /// All shards move, to nowhere.
    Closing {
        to: u32,
        /// When it is given up.
        until: Time,
        /// Where shards were.
        homes: Vec<NodeId>,
    },
    /// None is under way; none begins before this time.
    None(Time),
    /// The store is asked to set it.
    Setting {
        layout: Layout,
        register: u64,
        homes: Vec<NodeId>,
        /// When to ask, if that has not been done.
        ask_at: Option<Time>,
    },
}

impl Reign {
    /// The next thing to set in the store as the layout.
    pub fn poll_layout(&mut self) -> Option<u64> {
        match &mut self.change {
            Change::Setting {
                register, ask_at, ..
            } => ask_at.take_if(|at| *at == Time::ZERO).map(|_| *register),
            _ => None,
        }
    }

    /// The store's answer to what [`Reign::poll_layout`] gave.
    ///
    /// # Errors
    /// [`Superseded`]: a later term has read the layout.
    pub fn layout_set(
        &mut self,
        now: Time,
        view: &View,
        register: u64,
        answer: ClaimAnswer,
    ) -> Result<(), Superseded> {
        let Change::Setting {
            layout,
            register: asked,
            homes,
            ask_at,
        } = &mut self.change
        else {
            return Ok(());
        };
        if *asked != register {
            return Ok(());
        }
        match answer {
            ClaimAnswer::Refused { current } => return Err(Superseded { term: current.term }),
            // It may be set or not. It is not given up before that is known.
            ClaimAnswer::Unavailable => *ask_at = Some(now + self.config.resend),
            ClaimAnswer::Yes => {
                let (layout, homes) = (*layout, std::mem::take(homes));
                self.change = Change::None(Time::ZERO);
                self.begin_layout(view, layout, &homes);
            }
        }
        Ok(())
    }

    /// Whether no shard may start, because their number is about to change.
    pub(super) fn is_closed(&self) -> bool {
        match &self.change {
            Change::Closing { .. } => true,
            Change::None(_) => false,
            Change::Setting { layout, .. } => layout.shards != self.layout.shards,
        }
    }

    pub(super) fn change_due(&self) -> Time {
        match &self.change {
            Change::Closing { until, .. } => *until,
            // Once that is over, what it waits for is news.
            Change::None(not_before) if *not_before > Time::ZERO => *not_before,
            Change::None(_) => Time::MAX,
            Change::Setting { ask_at, .. } => ask_at.unwrap_or(Time::MAX),
        }
    }

    /// Takes the next step to another layout.
    pub(super) fn change_layout(&mut self, now: Time, view: &View) {
        self.wish = self.wish.filter(|shards| *shards != self.layout.shards);
        match &mut self.change {
            Change::None(not_before) if now >= *not_before => {
                *not_before = Time::ZERO;
                if self.wish.is_none() && self.layout.previous.is_none() {
                    return;
                }
                let place = |shard: &Shard| match &shard.state {
                    State::Hosted { at, .. } => Some(at.clone()),
                    _ => None,
                };
                let Some(homes) = self.shards.iter().map(place).collect::<Option<Vec<_>>>() else {
                    return;
                };
                if !self.may_move(view) {
                    return;
                }
                let layout = Layout::first(self.layout.shards);
                if self.layout != layout {
                    // Each has been claimed anew: nothing of the layout before can write.
                    self.set_layout(layout, homes);
                } else if let Some(wish) = self.wish {
                    self.close(now, wish, homes);
                }
            }
            Change::Closing { to, until, homes } => {
                let free = |shard: &Shard| shard.state == State::Unallocated;
                if self.shards.iter().all(free) {
                    let previous = Some(self.layout.shards);
                    let (shards, homes) = (*to, std::mem::take(homes));
                    self.set_layout(Layout { shards, previous }, homes);
                } else if now >= *until {
                    tracing::warn!("some shards do not end: their number stays as it is for now");
                    self.change = Change::None(now + self.config.superseded_pause);
                }
            }
            Change::Setting {
                ask_at: Some(at), ..
            } if now >= *at => *at = Time::ZERO,
            Change::None(_) | Change::Setting { .. } => {}
        }
    }

    fn close(&mut self, now: Time, wish: u32, homes: Vec<NodeId>) {
        let shards = self.layout.shards;
        let to = if wish > shards {
            shards * 2
        } else {
            shards / 2
        };
        tracing::info!(from = shards, to, "the number of shards changes");
        for shard in 0..self.shards.len() {
            if let State::Hosted { at, epoch } = self.shards[shard].state.clone() {
                self.begin_move(shard, at, epoch, None);
            }
        }
        let until = now + self.config.gather_limit;
        self.change = Change::Closing { to, until, homes };
    }

    fn set_layout(&mut self, layout: Layout, homes: Vec<NodeId>) {
        let Some(number) = self.layouts.checked_add(1) else {
            // The next term begins anew.
            self.change = Change::None(Time::MAX);
            return;
        };
        self.layouts = number;
        self.change = Change::Setting {
            layout,
            register: layout.to_register(self.term, number),
            homes,
            ask_at: Some(Time::ZERO),
        };
    }

    /// Counts by `layout` from now on. Shards start where their entities were.
    fn begin_layout(&mut self, view: &View, layout: Layout, homes: &[NodeId]) {
        let before = std::mem::replace(&mut self.layout, layout);
        self.push.want();
        if before.shards == layout.shards {
            return;
        }
        tracing::info!(shards = layout.shards, "the number of shards has changed");
        self.loads.clear();
        let since = self.revision + 1;
        let state = State::Unallocated;
        self.shards = vec![Shard { state, since }; layout.shards as usize];
        for shard in 0..self.shards.len() {
            let place = shard * before.shards as usize / layout.shards as usize;
            let home = homes.get(place);
            let home = home.filter(|at| view.is_up(at) && self.regions.contains_key(at));
            if let Some(at) = home.cloned() {
                let next = self.start(at);
                self.set(shard, next);
            }
        }
    }
}
