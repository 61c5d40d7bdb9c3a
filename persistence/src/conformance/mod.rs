//! Conformance kit: what every store must do, as functions that any implementer can call in a test,
//! and as tests of their own.
//!
//! ```no_run
//! # use otava_persistence::{conformance, Journal, MemoryJournal};
//! # use std::sync::Arc;
//! #[tokio::test]
//! async fn my_journal_conforms() {
//!     conformance::journal(async || Arc::new(MemoryJournal::new())).await;
//! }
//! ```
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each case instead.
//!
//! Every case gets an empty store of its own. The kit needs tokio's runtime around it, paused time
//! is fine. A case that waits for what never comes waits for ever. It cannot test what needs a
//! crash, a second process or a broken disk: those tests stand beside each store.

#[doc(hidden)]
pub mod cases;

use crate::journal::Journal;
use crate::offset::OffsetStore;
use crate::snapshot::SnapshotStore;
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Makes a test of each conformance case, so that a failing one has a name and the others still
/// run. `factory` is an async function that gives an empty store in an `Arc`; behind it stand the
/// kits that the store is to pass, which are the functions of [`conformance`](crate::conformance).
///
/// Each test is a `#[tokio::test]`, in a module named as its kit: the crate needs `tokio` with the
/// features `macros` and `rt`.
///
/// ```
/// # use otava_persistence::MemoryJournal;
/// # use std::sync::Arc;
/// async fn fresh() -> Arc<MemoryJournal> {
///     Arc::new(MemoryJournal::new())
/// }
///
/// otava_persistence::conformance_tests!(fresh: journal, deletes, queries, states, snapshots, offsets);
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($factory:ident: $($kit:ident),+ $(,)?) => {
        $($crate::__conformance_cases! { $kit __conformance_module ($factory) })+
    };
}

/// Hands the cases of a kit to another macro of this crate. The only list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    (journal $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) journal:
            a_new_id_has_no_events,
            events_come_back_as_they_were_written,
            events_of_one_append_follow_each_other,
            any_payload_comes_back,
            tags_come_back,
            ids_do_not_mix,
            a_page_begins_and_ends_where_it_should,
            positions_order_all_events,
            an_append_of_nothing_checks_and_writes_nothing,
            a_wrong_sequence_number_is_refused,
            one_of_many_writers_wins_each_number,
            appends_to_many_ids_at_once_are_all_there,
            refused_appends_spoil_no_others,
            a_claim_only_grows,
            only_the_claimed_epoch_may_write,
            the_older_of_two_writers_is_refused,
            scopes_do_not_mix,
            a_fence_is_checked_before_the_sequence_number,
            terms_count_up,
            no_term_is_given_twice,
            limits_hold,
            after_the_end_everything_is_refused,
            what_was_accepted_before_the_end_is_done,
        }
    };
    (deletes $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) deletes:
            deleted_events_are_gone_and_the_others_keep_their_numbers,
            no_number_is_given_twice,
            a_number_above_the_newest_removes_what_is_there,
            deleting_again_changes_nothing,
            deleting_what_never_was_changes_nothing,
            a_fence_is_checked,
            other_ids_stay,
            many_events_are_deleted_beside_appends,
            deleted_events_are_not_found,
            after_the_end_deleting_is_refused,
        }
    };
    (queries $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) queries:
            an_empty_store_gives_nothing,
            every_event_is_found_once_in_order,
            events_are_found_by_id,
            events_are_found_by_kind,
            events_are_found_by_tag,
            events_are_found_by_slice,
            all_conditions_hold_together,
            pages_of_any_size_give_the_same,
            a_page_passes_what_does_not_match,
            a_reader_goes_on_from_any_position,
            a_position_far_ahead_gives_nothing,
            a_current_stream_ends,
            a_live_stream_misses_nothing_of_many_writers,
            live_streams_by_tag_and_slice_miss_nothing,
            a_slow_reader_holds_nobody_up,
            a_waiting_reader_is_woken,
            ids_come_in_the_order_of_their_text,
            after_the_end_queries_are_refused,
        }
    };
    (states $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) states:
            a_new_id_has_no_state,
            a_state_comes_back_as_it_was_saved,
            revisions_count_up,
            a_wrong_revision_is_refused,
            one_of_many_writers_wins_each_revision,
            a_removed_state_has_a_revision,
            only_the_claimed_epoch_may_save,
            changes_come_in_order_and_only_the_last_of_each_id,
            changes_are_found_by_id_kind_tag_and_slice,
            pages_of_changes_give_the_same,
            states_and_events_do_not_mix,
            limits_hold,
            after_the_end_states_are_refused,
        }
    };
    (snapshots $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) snapshots:
            a_new_id_has_no_snapshot,
            a_snapshot_comes_back_as_it_was_saved,
            the_newest_within_the_bound_is_given,
            only_the_newest_are_kept,
            the_same_number_is_replaced,
            deleted_snapshots_are_gone,
            ids_do_not_mix,
            limits_hold,
        }
    };
    (offsets $then:ident ($($with:tt)*)) => {
        $crate::$then! { ($($with)*) offsets:
            a_new_key_has_no_offset,
            an_offset_comes_back,
            an_offset_may_go_back,
            a_cleared_offset_is_gone,
            keys_do_not_mix,
            limits_hold,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_module {
    (($factory:ident) $kit:ident: $($case:ident),+ $(,)?) => {
        mod $kit {
            use super::*;
            $(
                #[::tokio::test]
                async fn $case() {
                    $crate::conformance::cases::$kit::$case($factory().await).await;
                }
            )+
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_run {
    (($factory:ident) $kit:ident: $($case:ident),+ $(,)?) => {
        $(
            $crate::conformance::case(
                stringify!($case),
                $crate::conformance::cases::$kit::$case($factory().await),
            )
            .await;
        )+
    };
}

/// Runs all cases for a [`Journal`]. `factory` makes an empty one.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn journal<J: Journal>(factory: impl AsyncFn() -> Arc<J>) {
    crate::__conformance_cases! { journal __conformance_run (factory) }
}

/// Runs all cases for [`Journal::delete`]. `factory` makes an empty journal.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn deletes<J: Journal>(factory: impl AsyncFn() -> Arc<J>) {
    crate::__conformance_cases! { deletes __conformance_run (factory) }
}

/// Runs all cases for [`EventQueries`](crate::EventQueries). `factory` makes an empty journal that
/// has them ([`Journal::queries`]).
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn queries<J: Journal>(factory: impl AsyncFn() -> Arc<J>) {
    crate::__conformance_cases! { queries __conformance_run (factory) }
}

/// Runs all cases for a [`StateStore`](crate::StateStore). `factory` makes an empty journal that
/// has one ([`Journal::states`]).
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn states<J: Journal>(factory: impl AsyncFn() -> Arc<J>) {
    crate::__conformance_cases! { states __conformance_run (factory) }
}

/// Runs all cases for a [`SnapshotStore`]. `factory` makes an empty one.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn snapshots<S: SnapshotStore>(factory: impl AsyncFn() -> Arc<S>) {
    crate::__conformance_cases! { snapshots __conformance_run (factory) }
}

/// Runs all cases for an [`OffsetStore`]. `factory` makes an empty one.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn offsets<S: OffsetStore>(factory: impl AsyncFn() -> Arc<S>) {
    crate::__conformance_cases! { offsets __conformance_run (factory) }
}

/// Runs one case and names it when it fails.
async fn case(name: &str, run: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(run).catch_unwind().await {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let message = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        panic!("conformance case `{name}` failed: {message}");
    }
}
