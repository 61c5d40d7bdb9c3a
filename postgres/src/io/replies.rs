//! Replies: how those who wait for a batch are told: all of them, with one word to the runtime.
//!
//! To make a task run is cheap for a worker of tokio while the others are at work. One that sleeps is woken
//! for it: it comes, takes the one task, and sleeps again before the next is made to run. For a batch of 64
//! those were some 20 system calls, and sometimes 350 us in which the server had nothing to do (`perf
//! record -e syscalls:sys_enter_write`). A task that yields runs again when its worker has nothing else
//! to do, with all others that have yielded, and then one word is said to the other workers. So who is
//! answered is woken as if they had yielded. As for those, a task that blocks the worker keeps them waiting.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The side of the one who answers. Dropped unanswered, it says so.
pub(crate) struct Reply<T> {
    slot: Arc<Slot<T>>,
}

/// The future of an answer; nothing if there will be none.
pub(crate) struct Awaited<T> {
    slot: Arc<Slot<T>>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    Waiting(Option<Waker>),
    Answered(T),
    /// The answer was taken, or there will be none.
    Over,
}

pub(crate) fn channel<T>() -> (Reply<T>, Awaited<T>) {
    let state = Mutex::new(State::Waiting(None));
    let slot = Arc::new(Slot { state });
    (Reply { slot: slot.clone() }, Awaited { slot })
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the waiting, unless it has ended; returns who is to be woken.
    fn end(&self, with: State<T>) -> Option<Waker> {
        let mut state = self.lock();
        match &mut *state {
            State::Waiting(waker) => {
                let waker = waker.take();
                *state = with;
                waker
            }
            _ => None,
        }
    }
}

/// Answers each.
pub(crate) fn answer_all<T>(answers: impl Iterator<Item = (Reply<T>, T)>) {
    for (reply, answer) in answers {
        if let Some(waker) = reply.slot.end(State::Answered(answer)) {
            wake_with_others(waker);
        }
    }
}

/// Wakes a task together with all others that are woken so by this worker of the runtime; elsewhere at once.
fn wake_with_others(waker: Waker) {
    let yielding = pin!(tokio::task::yield_now());
    if yielding.poll(&mut Context::from_waker(&waker)).is_ready() {
        waker.wake();
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(waker) = self.slot.end(State::Over) {
            waker.wake();
        }
    }
}

impl<T> Future for Awaited<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.slot.lock();
        match &mut *state {
            State::Waiting(waker) => {
                // Not dropped under the lock: it may be the last that holds a task of the user.
                let before = match waker {
                    Some(known) if known.will_wake(cx.waker()) => None,
                    _ => waker.replace(cx.waker().clone()),
                };
                drop(state);
                drop(before);
                Poll::Pending
            }
            _ => match std::mem::replace(&mut *state, State::Over) {
                State::Answered(answer) => Poll::Ready(Some(answer)),
                _ => Poll::Ready(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_are_woken_and_have_their_own_answer() {
        for round in 0..50 {
            let (replies, awaited): (Vec<_>, Vec<_>) = (0..64).map(|_| channel()).unzip();
            let askers: Vec<_> = awaited.into_iter().map(tokio::spawn).collect();
            // On a worker, and with some who wait already and some who do not.
            let answering = tokio::spawn(async move {
                for _ in 0..round % 4 {
                    tokio::task::yield_now().await;
                }
                answer_all(replies.into_iter().zip(0..));
            });
            answering.await.unwrap();
            for (number, asker) in askers.into_iter().enumerate() {
                assert_eq!(asker.await.unwrap(), Some(number));
            }
        }
    }

    #[test]
    fn outside_of_a_runtime_they_are_woken_at_once() {
        let (reply, awaited) = channel();
        let asker = std::thread::spawn(|| block_on(awaited));
        answer_all(std::iter::once((reply, 7)));
        assert_eq!(asker.join().unwrap(), Some(7));
    }

    fn block_on<T>(awaited: Awaited<T>) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(awaited)
    }

    #[tokio::test]
    async fn who_is_dropped_unanswered_says_so() {
        let (reply, mut awaited) = channel::<u32>();
        let mut asker = std::pin::pin!(&mut awaited);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(asker.as_mut().poll(&mut cx).is_pending());
        drop(reply);
        assert_eq!(asker.await, None);
        // An asker that is gone is no reason to fail.
        let (reply, awaited) = channel();
        drop(awaited);
        answer_all(std::iter::once((reply, 1)));
    }
}
