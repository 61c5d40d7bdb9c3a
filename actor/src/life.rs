//! Life: what happens to one actor from its first instance to its end.
//!
//! ```text
//!  factory --> started --> handle / terminated ... --(stop)----------> wind up --> stopped --> end
//!     ^           |                |                                      ^
//!     |           +--- failure ----+-- restart allowed? -- no ------------+
//!     |                                      | yes
//!     +---- children end <-- reset <---------+
//! ```
//!
//! Rules:
//! - A failure is an `Err` or a panic, in a hook, in a handler, in a timer's function, in the factory.
//! - A restart forgets timers, watches and children of the old instance, and waits until those
//!   children have ended. Messages stay where they are, the failed one is gone.
//! - To wind up: accept nothing more, drop what is queued as dead letters, stop the children and
//!   wait for them. Then `stopped` runs on the instance there is, once; a panic in it is logged.
//! - A life is cut into activations: an actor that has nothing to do is a [`Life`] in its cell and no
//!   future. Its next message makes a future of it, which is kept while a handler is pending and
//!   gives the life back when there is nothing to do, or when others should have their turn.
//! - The instance is dropped before anyone is told of the end, so whoever is told can rely on what
//!   its `Drop` releases.

use crate::actor::Actor;
use crate::cell::{Active, Dormant, Outcome};
use crate::context::{Context, Step};
use crate::failure::{Failure, drop_guarded, guarded, guarded_call};
use crate::observe::{LifeEvent, Seen};
use crate::props::{Make, Supervision};
use crate::time::Time;
use crate::watch::{Ended, Terminated};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::task::Poll;

/// One actor while it is in nobody's hands: between two activations.
pub(crate) struct Life<A: Actor> {
    ctx: Context<A>,
    /// `None` before the first instance and while a new one is needed.
    actor: Option<A>,
    make: Make<A>,
    restarts: Restarts,
}

impl<A: Actor> Life<A> {
    pub(crate) fn new(ctx: Context<A>, make: Make<A>, supervision: Supervision) -> Self {
        Self {
            ctx,
            actor: None,
            make,
            restarts: Restarts::new(supervision),
        }
    }

    /// Serves until there is nothing to do, the turn is over, or the actor has ended. Never panics:
    /// each piece of user code is guarded.
    async fn live(mut self: Box<Self>) -> Outcome {
        let reason = loop {
            let failure = match self.serve().await {
                Ok(Served::Idle) => return Outcome::Idle(self),
                Ok(Served::TurnOver) => return Outcome::TurnOver(self),
                Ok(Served::Stop) => break Ended::Stopped,
                Err(failure) => failure,
            };
            let ctx = &mut self.ctx;
            ctx.saw(&LifeEvent::Failed(&failure));
            let stopping = ctx.me().target().cell().mailbox.stop_requested();
            if stopping || !self.restarts.allow(ctx.now()) {
                tracing::warn!(actor = %ctx.path(), %failure, "the actor failed and stops");
                break Ended::Failed;
            }
            tracing::warn!(actor = %ctx.path(), %failure, "the actor failed and restarts");
            ctx.saw(&LifeEvent::Restarted);
            ctx.reset().await;
            drop_guarded(self.actor.take());
        };
        self.end(reason).await;
        Outcome::Ended
    }

    async fn serve(&mut self) -> Result<Served, Failure> {
        let ctx = &mut self.ctx;
        let actor = match &mut self.actor {
            Some(actor) => actor,
            None => {
                let made = guarded_call(|| self.make.instance())?;
                let actor = self.actor.insert(made);
                guarded(guarded_call(|| actor.started(ctx))?).await?;
                ctx.saw(&LifeEvent::Started);
                actor
            }
        };
        loop {
            match ctx.next() {
                Step::Message(message) => {
                    let seen = Seen::begin::<A, A::Msg>(ctx);
                    let handler = guarded(guarded_call(|| actor.handle(message, ctx))?);
                    match seen {
                        None => handler.await?,
                        // In a box, so that those whom nobody looks at stay small.
                        Some(seen) => Box::pin(seen.over(handler, Result::is_ok)).await?,
                    }
                }
                Step::Terminated(who) => {
                    let seen = Seen::begin::<A, Terminated>(ctx);
                    let hook = guarded(guarded_call(|| actor.terminated(who, ctx))?);
                    match seen {
                        None => hook.await?,
                        Some(seen) => Box::pin(seen.over(hook, Result::is_ok)).await?,
                    }
                }
                Step::Failed(failure) => return Err(failure),
                Step::Idle => {
                    if poll_fn(|cx| Poll::Ready(ctx.arm_timers(cx))).await {
                        return Ok(Served::Idle);
                    }
                }
                Step::TurnOver => return Ok(Served::TurnOver),
                Step::Stop => return Ok(Served::Stop),
            }
        }
    }

    async fn end(mut self: Box<Self>, reason: Ended) {
        self.ctx.wind_up().await;
        if let Some(actor) = self.actor.as_mut()
            && let Err(failure) = stop_hook(actor, &mut self.ctx).await
        {
            tracing::warn!(actor = %self.ctx.path(), %failure, "the stop hook of the actor failed");
        }
        drop_guarded(self.actor.take());
        self.ctx.ended(reason);
        let me = self.ctx.me().clone();
        drop_guarded(self);
        tracing::debug!(actor = %me.path(), ?reason, "the actor ended");
        me.target().cell().end(reason);
    }
}

impl<A: Actor> Dormant for Life<A> {
    fn wake(self: Box<Self>) -> Active {
        Box::pin(self.live())
    }
}

/// Why serving paused.
enum Served {
    Idle,
    TurnOver,
    Stop,
}

async fn stop_hook<A: Actor>(actor: &mut A, ctx: &mut Context<A>) -> Result<(), Failure> {
    let hook = guarded_call(|| actor.stopped(ctx))?;
    guarded(async {
        hook.await;
        Ok::<(), Infallible>(())
    })
    .await
}

impl<A> Make<A> {
    fn instance(&mut self) -> A {
        match self {
            Self::Once(actor) => actor
                .take()
                .expect("a spawn refuses to restart a given value"),
            Self::Many(factory) => factory(),
        }
    }
}

/// Counts restarts in a window.
struct Restarts {
    supervision: Supervision,
    /// When the restarts within the window were, the oldest first.
    times: VecDeque<Time>,
}

impl Restarts {
    fn new(supervision: Supervision) -> Self {
        Self {
            supervision,
            times: VecDeque::new(),
        }
    }

    /// Whether the failure at `now` may be followed by a restart; counts it if so.
    fn allow(&mut self, now: Time) -> bool {
        let Supervision::Restart { limit, within } = self.supervision else {
            return false;
        };
        while self
            .times
            .front()
            .is_some_and(|&first| now.saturating_since(first) >= within)
        {
            self.times.pop_front();
        }
        let allowed = self.times.len() < limit as usize;
        if allowed {
            self.times.push_back(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_window_of_restarts_slides() {
        let within = Duration::from_nanos(10);
        let mut restarts = Restarts::new(Supervision::Restart { limit: 2, within });
        let answers = [0, 5, 9, 10, 14, 15].map(|at| restarts.allow(Time::from_nanos(at)));
        // Those at 0 and 5 count until 10 and 15.
        assert_eq!(answers, [true, true, false, true, false, true]);
    }

    #[test]
    fn without_a_restart_strategy_nothing_is_allowed() {
        assert!(!Restarts::new(Supervision::Stop).allow(Time::ZERO));
    }
}
