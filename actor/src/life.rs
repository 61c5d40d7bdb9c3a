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
//! - The instance is dropped before anyone is told of the end, so whoever is told can rely on what
//!   its `Drop` releases.

use crate::actor::Actor;
use crate::context::{Context, Step};
use crate::failure::{Failure, drop_guarded, guarded, guarded_call};
use crate::props::{Make, Supervision};
use crate::time::Time;
use crate::watch::Ended;
use std::collections::VecDeque;
use std::convert::Infallible;

/// Lives the whole life of one actor. Never panics: each piece of user code is guarded.
pub(crate) async fn live<A: Actor>(
    mut ctx: Context<A>,
    mut make: Make<A>,
    supervision: Supervision,
) {
    let mut restarts = Restarts::new(supervision);
    let mut actor = None;
    let reason = loop {
        let failure = match guarded_call(|| make.instance()) {
            Ok(instance) => match serve(actor.insert(instance), &mut ctx).await {
                Ok(()) => break Ended::Stopped,
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        let stopping = ctx.me().target().cell().mailbox.stop_requested();
        if stopping || !restarts.allow(ctx.now()) {
            tracing::warn!(actor = %ctx.path(), %failure, "the actor failed and stops");
            break Ended::Failed;
        }
        tracing::warn!(actor = %ctx.path(), %failure, "the actor failed and restarts");
        ctx.reset().await;
        drop_guarded(actor.take());
    };
    ctx.wind_up().await;
    if let Some(actor) = actor.as_mut()
        && let Err(failure) = stop_hook(actor, &mut ctx).await
    {
        tracing::warn!(actor = %ctx.path(), %failure, "the stop hook of the actor failed");
    }
    drop_guarded(actor.take());
    let me = ctx.me().clone();
    drop(ctx);
    tracing::debug!(actor = %me.path(), ?reason, "the actor ended");
    me.target().cell().end(reason);
}

/// Serves until the actor shall stop or fails.
async fn serve<A: Actor>(actor: &mut A, ctx: &mut Context<A>) -> Result<(), Failure> {
    guarded(guarded_call(|| actor.started(ctx))?).await?;
    loop {
        match ctx.next().await {
            Step::Message(message) => guarded(guarded_call(|| actor.handle(message, ctx))?).await?,
            Step::Terminated(who) => guarded(guarded_call(|| actor.terminated(who, ctx))?).await?,
            Step::Failed(failure) => return Err(failure),
            Step::Stop => return Ok(()),
        }
    }
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
