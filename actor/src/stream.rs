//! Stream: streams attached to an actor, whose items it handles one by one.
//!
//! An attached stream is polled by its actor itself, between two messages, and has no task of its
//! own. The next item is taken when the actor has handled the one before and has a turn for it: at
//! most one is under way, and a slow actor slows its streams down.

use crate::context::Step;
use crate::failure::{Failure, drop_guarded, guarded_call};
use futures_util::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// What comes from an attached stream ([`crate::Context::attach_stream`]).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent<T> {
    /// The stream is at its end. Nothing follows.
    Ended,
    /// The stream panicked, with this text, and was dropped. Nothing follows.
    Failed(String),
    /// The next item.
    Item(T),
}

/// Names a stream within its actor.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The streams of one actor.
pub(crate) struct Streams<M> {
    /// In the order in which they have their turns.
    attached: VecDeque<Attached<M>>,
    ids: u64,
    /// The last step was a stream's: others come next.
    had_a_turn: bool,
}

struct Attached<M> {
    id: StreamId,
    source: Box<dyn Source<M>>,
    wake: Arc<StreamWake>,
}

/// A stream and the function that makes messages of its events.
trait Source<M>: Send {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Polled<M>>;
}

struct Polled<M> {
    /// Or the panic of the function.
    message: Result<M, Failure>,
    is_last: bool,
}

/// Says that a stream is worth a look, and that its actor shall take it.
struct StreamWake {
    ready: AtomicBool,
    actor: Waker,
}

impl<M: 'static> Streams<M> {
    pub(crate) fn new() -> Self {
        Self {
            attached: VecDeque::new(),
            ids: 0,
            had_a_turn: false,
        }
    }

    /// Adds a stream; `actor` wakes the actor.
    pub(crate) fn attach<S: Stream + Send + 'static>(
        &mut self,
        stream: S,
        map: impl FnMut(StreamEvent<S::Item>) -> M + Send + 'static,
        actor: Waker,
    ) -> StreamId {
        self.ids += 1;
        let id = StreamId(self.ids);
        let source = Mapped {
            stream: Box::pin(stream),
            map,
        };
        let wake = StreamWake {
            ready: AtomicBool::new(true),
            actor,
        };
        self.attached.push_back(Attached {
            id,
            source: Box::new(source),
            wake: Arc::new(wake),
        });
        id
    }

    pub(crate) fn detach(&mut self, id: StreamId) -> bool {
        let place = self.attached.iter().position(|one| one.id == id);
        let detached = place.and_then(|place| self.attached.remove(place));
        detached.map(drop_guarded).is_some()
    }

    /// Drops all streams.
    pub(crate) fn clear(&mut self) {
        self.had_a_turn = false;
        std::mem::take(&mut self.attached)
            .into_iter()
            .for_each(drop_guarded);
    }

    /// Whether a stream may have something.
    pub(crate) fn is_ready(&self) -> bool {
        self.attached.iter().any(|one| one.wake.ready.load(SeqCst))
    }

    /// Whether a stream may go before the mailbox. Called once a step: it goes every second time.
    pub(crate) fn is_next(&mut self) -> bool {
        !std::mem::take(&mut self.had_a_turn) && self.is_ready()
    }

    /// The next message of a stream, if one has something.
    pub(crate) fn take(&mut self) -> Option<Step<M>> {
        for place in 0..self.attached.len() {
            let one = &mut self.attached[place];
            if !one.wake.ready.swap(false, SeqCst) {
                continue;
            }
            let waker = Waker::from(one.wake.clone());
            let Poll::Ready(polled) = one.source.poll_message(&mut Context::from_waker(&waker))
            else {
                continue;
            };
            one.wake.ready.store(true, SeqCst);
            let one = self.attached.remove(place);
            match one {
                Some(one) if !polled.is_last => self.attached.push_back(one),
                over => drop_guarded(over),
            }
            self.had_a_turn = true;
            return Some(
                polled
                    .message
                    .map_or_else(Step::Failed, |message| Step::Message(message, None)),
            );
        }
        None
    }
}

struct Mapped<S, F> {
    stream: Pin<Box<S>>,
    map: F,
}

impl<M, S, F> Source<M> for Mapped<S, F>
where
    S: Stream + Send,
    F: FnMut(StreamEvent<S::Item>) -> M + Send,
{
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Polled<M>> {
        let event = match guarded_call(|| self.stream.as_mut().poll_next(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Some(item))) => StreamEvent::Item(item),
            Ok(Poll::Ready(None)) => StreamEvent::Ended,
            Err(failure) => StreamEvent::Failed(failure.to_string()),
        };
        Poll::Ready(Polled {
            is_last: !matches!(event, StreamEvent::Item(_)),
            message: guarded_call(|| (self.map)(event)),
        })
    }
}

impl Wake for StreamWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, SeqCst);
        self.actor.wake_by_ref();
    }
}
