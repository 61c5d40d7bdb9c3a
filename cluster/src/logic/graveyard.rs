//! Graveyard: the runs of nodes that were removed and forgotten, so that late news cannot revive them.

use otava_remote::NodeId;
use std::collections::{BTreeSet, VecDeque};

/// A bounded memory of removed members; the oldest is forgotten first.
#[derive(Clone, Debug, Default)]
pub struct Graveyard {
    known: BTreeSet<NodeId>,
    order: VecDeque<NodeId>,
}

impl Graveyard {
    /// How many are remembered. An incarnation is 64 random bits: one that is forgotten can only
    /// come back through a message that outlived ten thousand removals.
    pub const LEN_MAX: usize = 10_000;

    /// Remembers `node`.
    pub fn bury(&mut self, node: NodeId) {
        if self.known.insert(node.clone()) {
            self.order.push_back(node);
        }
        if self.order.len() > Self::LEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether `node` is known to be gone.
    #[must_use]
    pub fn holds(&self, node: &NodeId) -> bool {
        self.known.contains(node)
    }

    /// How many are remembered at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C8: what is remembered of the dead is bounded.
    #[test]
    fn forgets_the_oldest_first() {
        let node = |run| NodeId::new("n", ([127, 0, 0, 1], 1).into(), run);
        let mut graveyard = Graveyard::default();
        for run in 0..=Graveyard::LEN_MAX as u64 {
            graveyard.bury(node(run));
            graveyard.bury(node(run));
        }
        assert_eq!(graveyard.len(), Graveyard::LEN_MAX);
        assert!(!graveyard.holds(&node(0)) && graveyard.holds(&node(1)));
    }
}
