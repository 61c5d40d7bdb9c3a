//! Pruning: how the writes of nodes that are gone become those of another, so that values do not keep
//! an entry for every run of a node that ever wrote to them.
//!
//! # The protocol, for one key and one replica `r` that is gone
//! 1. **Started.** The leader, once `r` has been gone for a while and all members can be reached, marks
//!    the entry: it will own the writes of `r`. The mark travels with the state, by gossip.
//! 2. **Seen.** Every member that has the mark joins its own copy into the state that came with it and
//!    adds itself. So a copy whose mark all members have signed holds every write of `r` that any of
//!    them knew, and `r` itself writes no more.
//! 3. **Performed.** When all members have signed, the owner fixes how many writes of `r` there are
//!    (`count`) and takes as many numbers of its own for them, from `offset` on: a [`Renaming`]. The mark
//!    is now that renaming; it is final.
//! 4. **Everywhere.** Whoever joins a state or delta first gives both sides the names that the marks of
//!    both say. The same piece has the same name on all nodes then, whenever each of them heard of it,
//!    so nothing is counted twice and nothing that was removed comes back. The owner, which alone writes
//!    under its name, makes one count of all that it now has.
//! 5. **Forgotten.** A while later (`expires`, on the wall clock) the mark is dropped.
//!
//! # Invariants
//! - Only a live member owns, and only the owner performs, after every live member has signed its mark. A
//!   member signs one owner's mark at a time: of two, the lower replica's remains. So there are no two
//!   renamings of `r`, unless two leaders each count the other as no member.
//! - `Performed` wins over `Started`; of two renamings the lower one remains.
//! - Writes of `r` beyond `count`, which no member had, are dropped wherever they turn up.
//!
//! After a mark is forgotten, a copy from before (a node that comes back with its old file after longer
//! than that) brings `r` back as an unknown replica, and its counts are counted again. So `expires` must
//! be longer than a node may stay away and keep its data.
//!
//! (Compare Pekko's `PruningState`; there the owner merges the entry of `r` into its own, which needs a
//! rule for each type. A renaming needs none.)

use crate::logic::digest::Digest;
use crate::logic::replicated::causal::{Causal, Renaming};
use crate::logic::replicated::dots::Replica;
use std::collections::{BTreeMap, BTreeSet};

/// Where a replica that is gone stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Pruning {
    /// Its writes have new names.
    Performed {
        /// Which.
        renaming: Renaming,
        /// When this may be forgotten: milliseconds of the wall clock.
        expires: u64,
    },
    /// Its writes are being collected.
    Started {
        /// Who will own them.
        owner: Replica,
        /// Who has signed.
        seen: BTreeSet<Replica>,
    },
}

impl Pruning {
    /// Whether the writes have new names.
    #[must_use]
    pub fn is_performed(&self) -> bool {
        matches!(self, Self::Performed { .. })
    }
}

/// The marks of an entry, by the replica that is gone.
pub type Marks = BTreeMap<Replica, Pruning>;

/// Joins marks; whether that changed `mine`. Those of owners that are no members any more, and those
/// that have expired, are dropped.
pub fn join(
    mine: &mut Marks,
    theirs: &Marks,
    wall: u64,
    is_member: impl Fn(Replica) -> bool,
) -> bool {
    let before = mine.clone();
    for (gone, mark) in theirs {
        match mine.get_mut(gone) {
            None => {
                mine.insert(*gone, mark.clone());
            }
            Some(here) => join_mark(here, mark, &is_member),
        }
    }
    mine.retain(|_, mark| match mark {
        Pruning::Performed { expires, .. } => *expires > wall,
        Pruning::Started { owner, .. } => is_member(*owner),
    });
    *mine != before
}

fn join_mark(here: &mut Pruning, mark: &Pruning, is_member: &impl Fn(Replica) -> bool) {
    let replaces = match (&mut *here, mark) {
        (
            Pruning::Performed {
                renaming: ours,
                expires: our_expiry,
            },
            Pruning::Performed { renaming, expires },
        ) => (*renaming, *expires) < (*ours, *our_expiry),
        (Pruning::Performed { .. }, Pruning::Started { .. }) => false,
        (Pruning::Started { .. }, Pruning::Performed { .. }) => true,
        (
            Pruning::Started { owner: ours, seen },
            Pruning::Started {
                owner,
                seen: others,
            },
        ) => {
            if ours == owner {
                seen.extend(others);
            }
            let valid = is_member(*owner);
            valid && (*owner < *ours || !is_member(*ours))
        }
    };
    if replaces {
        here.clone_from(mark);
    }
}

/// The renamings among the marks.
pub fn renamings(marks: &Marks) -> impl Iterator<Item = &Renaming> {
    marks.values().filter_map(|mark| match mark {
        Pruning::Performed { renaming, .. } => Some(renaming),
        Pruning::Started { .. } => None,
    })
}

/// Gives all writes the names that the marks say; whether that changed something. An owner may be gone
/// by now itself, so a write may be renamed several times.
pub fn rename_all(value: &mut Causal, marks: &Marks) -> bool {
    let mut changed = false;
    // Each pass settles one link of a chain; marks that lead in a circle are a forgery.
    for _ in 0..marks.len() {
        let mut any = false;
        for renaming in renamings(marks) {
            any |= value.rename(renaming);
        }
        changed |= any;
        if !any {
            break;
        }
    }
    changed
}

/// Whether [`rename_all`] would change something.
#[must_use]
pub fn concerns(value: &Causal, marks: &Marks) -> bool {
    renamings(marks).any(|renaming| value.context.highest(renaming.from) > 0)
}

/// Adds the marks to a fingerprint.
pub fn digest(marks: &Marks, digest: &mut Digest) {
    for (gone, mark) in marks {
        digest.number(gone.0);
        match mark {
            Pruning::Performed { renaming, expires } => {
                digest.number(renaming.to.0).number(renaming.offset);
                digest.number(renaming.count).number(*expires);
            }
            Pruning::Started { owner, seen } => {
                digest.number(owner.0).number(seen.len() as u64);
                seen.iter().for_each(|replica| {
                    digest.number(replica.0);
                });
            }
        }
    }
}
