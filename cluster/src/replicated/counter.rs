//! Counters: sums that all nodes add to, and a flag that all switch.

use super::crdt::Crdt;
use crate::logic::replicated::Sealed;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::store::{Dots, Store};

/// A counter that only grows.
#[derive(Clone, Debug)]
pub struct GCounter(Draft);

impl GCounter {
    /// Adds to it.
    pub fn add(&mut self, count: u64) {
        self.0.count(count, 0);
    }

    /// The sum of all that was added and is known here.
    #[must_use]
    pub fn value(&self) -> u128 {
        sums(self.0.store()).0
    }
}

/// A counter that goes up and down.
#[derive(Clone, Debug)]
pub struct PnCounter(Draft);

impl PnCounter {
    /// Adds to it.
    pub fn add(&mut self, count: u64) {
        self.0.count(count, 0);
    }

    /// Takes from it.
    pub fn subtract(&mut self, count: u64) {
        self.0.count(0, count);
    }

    /// All that was added, less all that was taken.
    #[must_use]
    pub fn value(&self) -> i128 {
        let (up, down) = sums(self.0.store());
        up.cast_signed() - down.cast_signed()
    }
}

/// All that was counted up and down. Each is a sum of 64-bit numbers, so 127 bits hold it.
fn sums(store: &Store) -> (u128, u128) {
    let Store::Counter(dots) = store else {
        return (0, 0);
    };
    dots.values().fold((0, 0), |(up, down), count| {
        (up + u128::from(count.up), down + u128::from(count.down))
    })
}

/// On or off. If it is switched both ways at once, it is on.
#[derive(Clone, Debug)]
pub struct Flag(Draft);

impl Flag {
    /// Switches it on: against all that switch it off and have not seen this.
    pub fn enable(&mut self) {
        self.0.switch(true);
    }

    /// Switches it off, as far as it is known to be on here.
    pub fn disable(&mut self) {
        self.0.switch(false);
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.0.store().is_empty()
    }
}

macro_rules! crdt {
    ($($type:ty, $name:literal, $blank:expr;)*) => {
        $(impl Sealed for $type {}

        impl Crdt for $type {
            fn type_name() -> String {
                $name.into()
            }

            fn blank() -> Store {
                $blank
            }

            fn open(draft: Draft) -> Self {
                Self(draft)
            }
        })*
    };
}

crdt! {
    GCounter, "g-counter", Store::Counter(Dots::new());
    PnCounter, "pn-counter", Store::Counter(Dots::new());
    Flag, "flag", Store::Flag(Dots::new());
}
