//! Store: terms and fences, shared by all nodes of a simulation. It judges who may write.

use otava_sharding::logic::epoch::Epoch;
use otava_sharding::logic::region::ClaimAnswer;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Store {
    term: u32,
    fences: BTreeMap<u32, Epoch>,
}

impl Store {
    pub(crate) fn next_term(&mut self) -> u32 {
        self.term += 1;
        self.term
    }

    pub(crate) fn claim(&mut self, shard: u32, epoch: Epoch) -> ClaimAnswer {
        let current = self.fences.entry(shard).or_default();
        if *current > epoch {
            return ClaimAnswer::Refused { current: *current };
        }
        *current = epoch;
        ClaimAnswer::Yes
    }

    pub(crate) fn may_write(&self, shard: u32, epoch: Epoch) -> bool {
        self.fences.get(&shard) == Some(&epoch)
    }
}
