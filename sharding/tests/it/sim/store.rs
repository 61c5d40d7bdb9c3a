//! Store: terms, layouts and fences, shared by all nodes of a simulation. It judges who may write.

use otava_sharding::logic::epoch::Epoch;
use otava_sharding::logic::region::ClaimAnswer;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Store {
    term: u32,
    /// The last term that may set the layout.
    layout_term: u32,
    layout: u64,
    /// By scope.
    fences: BTreeMap<u32, Epoch>,
}

impl Store {
    pub(crate) fn next_term(&mut self) -> u32 {
        self.term += 1;
        self.term
    }

    /// Whether no later term was there.
    pub(crate) fn claim_layout(&mut self, term: u32) -> bool {
        let claimed = term >= self.layout_term;
        self.layout_term = self.layout_term.max(term);
        claimed
    }

    pub(crate) fn layout(&self) -> u64 {
        self.layout
    }

    /// Whether nothing later was there.
    pub(crate) fn set_layout(&mut self, register: u64) -> bool {
        let set = register >= self.layout;
        self.layout = self.layout.max(register);
        set
    }

    pub(crate) fn claim(&mut self, scope: u32, epoch: Epoch) -> ClaimAnswer {
        let current = self.fences.entry(scope).or_default();
        if *current > epoch {
            return ClaimAnswer::Refused { current: *current };
        }
        *current = epoch;
        ClaimAnswer::Yes
    }

    pub(crate) fn may_write(&self, scope: u32, epoch: Epoch) -> bool {
        self.fences.get(&scope) == Some(&epoch)
    }
}
