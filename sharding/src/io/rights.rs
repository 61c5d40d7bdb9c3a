//! Rights: claims of terms, shards and layouts, in the order on which their safety rests.
//!
//! The orders are explained in [`crate::logic::layout`].

use crate::logic::epoch::Epoch;
use crate::logic::layout::Layout;
use crate::logic::region::ClaimAnswer;
use crate::store::{AllocationStore, ClaimError, StoreError};
use std::sync::Arc;

/// What a scope of a kind is called in the store.
pub(crate) fn scope(kind: &str, scope: u32) -> Arc<str> {
    format!("{kind}/{scope}").into()
}

/// Claims a shard: what has to be fenced first, whether that is refused or not, then its own scope.
pub(crate) async fn claim_shard(
    store: &dyn AllocationStore,
    kind: &str,
    (fenced, own): (&[u32], u32),
    epoch: Epoch,
) -> ClaimAnswer {
    for other in fenced {
        let claimed = store.claim(&scope(kind, *other), epoch.as_u64()).await;
        if let Err(ClaimError::Store(error)) = claimed {
            tracing::warn!(kind, scope = other, %epoch, %error, "a claim is tried again");
            return ClaimAnswer::Unavailable;
        }
    }
    answer(kind, store.claim(&scope(kind, own), epoch.as_u64()).await)
}

/// Claims the next term and reads the layout, which begins with `shards`, and may change or not. `None`
/// if that has to be tried again, with another term.
pub(crate) async fn take_over(
    store: &dyn AllocationStore,
    kind: &str,
    (shards, resizable): (u32, bool),
) -> Option<(u32, Layout)> {
    match try_take_over(store, kind, shards, resizable).await {
        Ok(taken) => Some(taken),
        Err(error) => {
            tracing::warn!(kind, %error, "a term is claimed again");
            None
        }
    }
}

async fn try_take_over(
    store: &dyn AllocationStore,
    kind: &str,
    first: u32,
    resizable: bool,
) -> Result<(u32, Layout), ClaimError> {
    let term = store.next_term(kind).await?;
    let term = u32::try_from(term).map_err(|_| StoreError::new("there are no more terms"))?;
    if !resizable {
        return Ok((term, Layout::first(first)));
    }
    store.claim(&term_scope(kind), u64::from(term)).await?;
    // Nothing is lower, so this only tells what is there.
    let register = match store.claim(&layout_scope(kind), 0).await {
        Ok(()) => 0,
        Err(ClaimError::Refused { current }) => current,
        Err(error) => return Err(error),
    };
    let layout = match register {
        0 => Layout::first(first),
        kept => Layout::from_register(kept)
            .ok_or_else(|| StoreError::new(format!("{kept:x} is no layout of shards")))?,
    };
    if layout.shards != first {
        let shards = layout.shards;
        tracing::info!(
            kind,
            configured = first,
            shards,
            "the number of shards was changed before"
        );
    }
    let register = layout.to_register(term, 0);
    store.claim(&layout_scope(kind), register).await?;
    Ok((term, layout))
}

/// Sets the layout, and looks whether this term is still the last one.
pub(crate) async fn set_layout(
    store: &dyn AllocationStore,
    kind: &str,
    term: u32,
    register: u64,
) -> ClaimAnswer {
    match store.claim(&layout_scope(kind), register).await {
        Ok(()) => {}
        refused => return answer(kind, refused),
    }
    match store.claim(&term_scope(kind), u64::from(term)).await {
        Err(ClaimError::Refused { current }) => ClaimAnswer::Refused {
            current: Epoch {
                term: u32::try_from(current).unwrap_or(u32::MAX),
                counter: 0,
            },
        },
        claimed => answer(kind, claimed),
    }
}

fn answer(kind: &str, claimed: Result<(), ClaimError>) -> ClaimAnswer {
    match claimed {
        Ok(()) => ClaimAnswer::Yes,
        Err(ClaimError::Refused { current }) => {
            let current = Epoch::from_u64(current);
            tracing::info!(kind, %current, "a claim was refused");
            ClaimAnswer::Refused { current }
        }
        Err(ClaimError::Store(error)) => {
            tracing::warn!(kind, %error, "a claim is tried again");
            ClaimAnswer::Unavailable
        }
    }
}

/// Where the layout is kept.
fn layout_scope(kind: &str) -> String {
    format!("{kind}/layout")
}

/// Where the last term is kept whose coordinator may set the layout.
fn term_scope(kind: &str) -> String {
    format!("{kind}/layout-term")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryAllocationStore;

    /// S9: the number of shards that was set counts, not the one that is configured.
    #[tokio::test]
    async fn the_layout_that_was_set_is_found_by_every_later_term() {
        let store = MemoryAllocationStore::new();
        let first = take_over(&store, "k", (32, true)).await;
        assert_eq!(first, Some((1, Layout::first(32))));
        let twice = Layout {
            shards: 64,
            previous: Some(32),
        };
        let set = set_layout(&store, "k", 1, twice.to_register(1, 1)).await;
        assert_eq!(set, ClaimAnswer::Yes);
        assert_eq!(take_over(&store, "k", (16, true)).await, Some((2, twice)));
        assert_eq!(
            take_over(&store, "other", (16, true)).await,
            Some((1, Layout::first(16)))
        );
    }

    /// S8: a coordinator that was replaced does not change the layout any more, whatever it has sent when.
    #[tokio::test]
    async fn a_replaced_coordinator_cannot_set_the_layout() {
        let store = MemoryAllocationStore::new();
        take_over(&store, "k", (32, true)).await;
        take_over(&store, "k", (32, true)).await;
        let half = Layout {
            shards: 16,
            previous: Some(32),
        };
        let set = set_layout(&store, "k", 1, half.to_register(1, 1)).await;
        assert!(matches!(set, ClaimAnswer::Refused { current } if current.term == 2));
        assert_eq!(
            take_over(&store, "k", (32, true)).await,
            Some((3, Layout::first(32)))
        );
        // Its write arrives between the term and the reading of the next one.
        let term = store.next_term("k").await.unwrap();
        store.claim(&term_scope("k"), term).await.unwrap();
        let set = set_layout(&store, "k", 3, half.to_register(3, 1)).await;
        assert!(matches!(set, ClaimAnswer::Refused { current } if current.term == 4));
    }

    /// Halves of a shard fence it, and it fences them, in any order of claims.
    #[tokio::test]
    async fn of_two_layouts_the_later_allocation_writes() {
        let epoch = |counter| Epoch { term: 1, counter };
        let whole = Layout {
            shards: 1,
            previous: Some(2),
        };
        let halves = Layout {
            shards: 2,
            previous: Some(1),
        };
        for later_first in [false, true] {
            let store = MemoryAllocationStore::new();
            let claim = async |layout: Layout, shard, counter| {
                let scopes = (&*layout.fenced(shard), layout.scope(shard));
                claim_shard(&store, "k", scopes, epoch(counter)).await
            };
            if later_first {
                assert_eq!(claim(halves, 1, 9).await, ClaimAnswer::Yes);
                assert_eq!(
                    claim(halves, 0, 8).await,
                    ClaimAnswer::Yes,
                    "beside the other half"
                );
                let late = claim(whole, 0, 3).await;
                assert_eq!(late, ClaimAnswer::Refused { current: epoch(9) });
            } else {
                assert_eq!(claim(whole, 0, 3).await, ClaimAnswer::Yes);
                assert_eq!(store.current("k/1"), epoch(3).as_u64());
                assert_eq!(claim(halves, 0, 8).await, ClaimAnswer::Yes);
                assert_eq!(claim(halves, 1, 9).await, ClaimAnswer::Yes);
                assert_eq!(
                    claim(halves, 0, 2).await,
                    ClaimAnswer::Refused { current: epoch(8) }
                );
            }
            assert!(
                store.current("k/1") >= epoch(8).as_u64(),
                "the whole is fenced"
            );
            assert_eq!(store.current("k/2"), epoch(8).as_u64());
            assert_eq!(store.current("k/3"), epoch(9).as_u64());
        }
    }
}
