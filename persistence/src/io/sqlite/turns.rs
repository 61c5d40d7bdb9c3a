//! Turns: lets the keeper come between two commits of this process.
//!
//! SQLite gives its write lock to whoever asks at the right moment. Under load that is the committer,
//! which asks again soon after each commit: beside other work the keeper asked in vain, and the log grew
//! past what it may (`the_log_stays_short`). So the committer takes a turn for each commit, and begins none while the keeper wants one. The
//! locks of other processes are still won by luck ([`super::busy`]).
//!
//! **Invariant:** a turn of the committer and one of the keeper never overlap.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    committing: bool,
    /// The keeper has its turn or waits for it.
    keeping: bool,
}

/// A turn; it ends when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    end: fn(&mut State),
}

impl Turns {
    /// Waits while the keeper has or wants its turn.
    pub(super) fn commit(&self) -> Turn<'_> {
        let state = self.lock();
        let mut state = self.wait_while(state, |state| state.keeping);
        state.committing = true;
        Turn {
            turns: self,
            end: |state| state.committing = false,
        }
    }

    /// Waits until the commit that is under way has ended.
    pub(super) fn keep(&self) -> Turn<'_> {
        let mut state = self.lock();
        state.keeping = true;
        drop(self.wait_while(state, |state| state.committing));
        Turn {
            turns: self,
            end: |state| state.keeping = false,
        }
    }

    fn wait_while<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        wait: fn(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_while(state, wait);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        (self.end)(&mut self.turns.lock());
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    /// Without turns the committer, which hardly pauses, would have the lock nearly always.
    #[test]
    fn a_busy_committer_lets_the_keeper_have_its_turns() {
        let (turns, over) = (Turns::default(), AtomicBool::new(false));
        let holders = AtomicU32::new(0);
        let hold = |turn: Turn<'_>| {
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "turns overlap");
            std::thread::yield_now();
            assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1, "turns overlap");
            drop(turn);
        };
        let commits = std::thread::scope(|threads| {
            let committer = threads.spawn(|| {
                let mut commits = 0;
                while !over.load(Ordering::SeqCst) {
                    hold(turns.commit());
                    commits += 1;
                }
                commits
            });
            for _ in 0..200 {
                hold(turns.keep());
            }
            over.store(true, Ordering::SeqCst);
            committer.join().unwrap()
        });
        assert!(commits > 0);
    }

    #[test]
    fn a_turn_ends_with_a_panic() {
        let turns = Turns::default();
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = turns.keep();
            panic!("as a fault of the keeper would");
        }));
        assert!(broken.is_err());
        drop(turns.commit());
    }
}
