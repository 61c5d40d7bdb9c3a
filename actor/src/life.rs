//! Life: what happens to one actor from its first instance to its end.
//!
//! ```text
//!  factory --> started --> handle / terminated ... --(stop)----------> wind up --> stopped --> end
//!     ^           |                |                                      ^
//!     |           +--- failure ----+-- what does the plan say? -- stop ---+
//!     |                                      | restart
//!     +-- (wait) <-- drop <-- children end <-- restarting
//! ```
//!
//! Rules:
//! - A failure is an `Err` or a panic, in a hook, in a handler, in a timer's function, in the factory,
//!   or the escalated failure of a child. What follows is the plan's to say ([`crate::supervision`]).
//! - A restart forgets timers and watches of the old instance, stops its children unless they are to
//!   be kept, and waits until they have ended. Messages stay where they are, the failed one is gone.
//! - While the actor waits without an instance (a back-off, an async factory, a group that holds its
//!   member), a stop is obeyed at once, and no hook runs. A restart without a wait is one step: the
//!   new instance starts, and then it stops.
//! - To wind up: accept nothing more, drop what is queued as dead letters, stop the children and
//!   wait for them. Then `stopped` runs on the instance there is, once; a panic in it is logged.
//! - A life is cut into activations: an actor that has nothing to do is a [`Life`] in its cell and no
//!   future. Its next message makes a future of it, which is kept while a handler is pending and
//!   gives the life back when there is nothing to do, or when others should have their turn. What
//!   happens after a failure is a future of its own, so that this one stays small.
//! - The instance is dropped before anyone is told of the end, so whoever is told can rely on what
//!   its `Drop` releases.

use crate::actor::{Actor, has_start_hook, has_stop_hook};
use crate::body::{self, Active, Dormant, Outcome};
use crate::context::{Context, Step};
use crate::failure::{Failure, drop_guarded, flatten, guarded, guarded_call};
use crate::observe::{self, LifeEvent, Seen};
use crate::serving::{serve, start};
use crate::supervision::{Factory, Membership, Plan, Request, Verdict};
use crate::time::far_away;
use crate::watch::{Ended, Terminated};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// One actor while it is in nobody's hands: between two activations.
pub(crate) struct Life<A: Actor> {
    pub(crate) ctx: Context<A>,
    /// `None` before the first instance and while a new one is needed.
    pub(crate) actor: Option<A>,
    /// `None` for an instance that was given by value and stops when it fails.
    plan: Option<Box<Plan<A>>>,
}

impl<A: Actor> Life<A> {
    pub(crate) fn new(ctx: Context<A>, actor: Option<A>, plan: Option<Box<Plan<A>>>) -> Self {
        Self { ctx, actor, plan }
    }

    /// Whether the actor, which was never active, has nothing to do but to wait for a message.
    pub(crate) fn is_born_idle(&self) -> bool {
        !has_start_hook::<A>() && self.actor.is_some() && self.plan.is_none() && self.ctx.is_bare()
    }

    /// Serves until there is nothing to do, the turn is over, or the actor has ended. Never panics:
    /// each piece of user code is guarded.
    async fn live(mut self: Box<Self>, mut newborn: bool) -> Outcome {
        self.ctx.begin_turn();
        let exit = loop {
            let served = self.serve(newborn).await;
            newborn = false;
            let exit = match served {
                Ok(Served::Idle) => return Outcome::Idle(self),
                Ok(Served::TurnOver) => return Outcome::TurnOver(self),
                Ok(Served::Stop) => Some(Exit::stopped()),
                Ok(Served::Requested) => Box::pin(self.obey()).await,
                Err(crash) => Box::pin(self.recover(crash)).await,
            };
            match exit {
                Some(exit) => break exit,
                // Who fails again and again without a limit shall not keep others waiting.
                None if !self.ctx.spend_turn() => {
                    return Outcome::TurnOver(self);
                }
                None => {}
            }
        };
        self.end(exit).await;
        Outcome::Ended
    }

    /// `newborn`: the actor has never been active.
    async fn serve(&mut self, newborn: bool) -> Result<Served, Crash<A::Err>> {
        if let Some(failure) = self.plan.as_mut().and_then(|plan| plan.crash.take()) {
            return Err(Crash::at_work(failure));
        }
        if newborn || self.actor.is_none() {
            let begun = self.begin().await;
            if let Some(interrupted) = begun.map_err(Crash::before_ready)? {
                return Ok(interrupted);
            }
        }
        let Self { ctx, actor, .. } = self;
        let Some(actor) = actor else {
            return Ok(Served::Requested);
        };
        loop {
            match ctx.next() {
                Step::Message(message, mut mark) => {
                    let seen = Seen::begin::<A, A::Msg>(ctx, mark.as_deref_mut());
                    let handler = guarded_call(|| actor.handle(message, ctx));
                    let handler = guarded(handler.map_err(Crash::panic)?);
                    let handled = match seen {
                        None => handler.await,
                        // In a box, so that those whom nobody looks at stay small.
                        Some(seen) => Box::pin(seen.over(handler, succeeded)).await,
                    };
                    ctx.handled(mark);
                    flatten(handled).map_err(Crash::at_work)?;
                }
                Step::Terminated(who) => {
                    let seen = Seen::begin::<A, Terminated>(ctx, None);
                    let hook = guarded_call(|| actor.terminated(who, ctx));
                    let hook = guarded(hook.map_err(Crash::panic)?);
                    let handled = match seen {
                        None => hook.await,
                        Some(seen) => Box::pin(seen.over(hook, succeeded)).await,
                    };
                    flatten(handled).map_err(Crash::at_work)?;
                }
                Step::Requested => match ctx.child_failure() {
                    Some(failure) => return Err(Crash::panic(failure)),
                    None => return Ok(Served::Requested),
                },
                Step::Failed(failure) => return Err(Crash::panic(failure)),
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

    /// Makes an instance if there is none, and starts it. `Some`: there is something else to do.
    async fn begin(&mut self) -> Result<Option<Served>, Failure<A::Err>> {
        let Self { ctx, actor, plan } = self;
        if actor.is_none() {
            let factory = plan.as_mut().and_then(|plan| plan.factory.as_mut());
            let made = match factory.expect("a spawn and a plan see to it that there is a factory")
            {
                Factory::Now(factory) => flatten(guarded_call(factory))?,
                Factory::Later(factory) => {
                    let making = guarded(guarded_call(factory).map_err(Failure::widen)?);
                    match unless_interrupted(ctx, making).await {
                        Some(made) => flatten(made)?,
                        None if ctx.is_stop_requested() => return Ok(Some(Served::Stop)),
                        None => return Ok(Some(Served::Requested)),
                    }
                }
            };
            *actor = Some(made);
        }
        if let Some(actor) = actor.as_mut() {
            let hook = guarded_call(|| actor.started(ctx)).map_err(Failure::widen)?;
            flatten(guarded(hook).await)?;
            ctx.saw(&LifeEvent::Started);
        }
        if let Some(plan) = plan {
            plan.ready(ctx.now());
        }
        Ok(None)
    }

    /// A handler failed: what follows is done by `live`.
    #[cold]
    pub(crate) fn crash(&mut self, failure: Failure<A::Err>) {
        self.plan.get_or_insert_default().crash = Some(failure);
    }

    /// Does what the plan says about a failure. `Some`: the actor ends.
    async fn recover(&mut self, crash: Crash<A::Err>) -> Option<Exit> {
        let Crash { failure, was_ready } = crash;
        let Self { ctx, plan, .. } = &mut *self;
        let text = failure.describe();
        ctx.saw(&LifeEvent::Failed(&text));
        let verdict = match plan {
            Some(plan) if !ctx.is_stop_requested() => {
                plan.judge(&failure, was_ready, ctx.path(), ctx.now(), || ctx.own_rng())
            }
            _ => Verdict::Stop,
        };
        drop_guarded(failure);
        let path = ctx.path();
        match verdict {
            Verdict::Resume => {
                tracing::warn!(actor = %path, failure = text, "the actor failed and goes on");
                None
            }
            Verdict::Restart(wait) => {
                tracing::warn!(actor = %path, failure = text, ?wait, "the actor failed and restarts");
                ctx.saw(&LifeEvent::Restarted);
                self.tear_down().await;
                if !wait.is_zero() {
                    self.wait(wait).await;
                    if self.ctx.is_stop_requested() {
                        return Some(Exit::stopped());
                    }
                }
                self.obey().await
            }
            Verdict::Escalate => {
                tracing::warn!(actor = %path, failure = text, "the actor failed and escalates");
                let Some(member) = plan.as_mut().and_then(|plan| plan.member.as_mut()) else {
                    return Some(Exit::failed(Some(text)));
                };
                member.failed(text);
                self.obey().await
            }
            Verdict::Exhausted | Verdict::Stop => {
                tracing::warn!(actor = %path, failure = text, "the actor failed and stops");
                Some(Exit::failed(None))
            }
        }
    }

    /// Does what the actor's group wants, for as long as the group holds the actor.
    async fn obey(&mut self) -> Option<Exit> {
        self.ctx.requests_seen();
        loop {
            let member = self.plan.as_mut().and_then(|plan| plan.member.as_mut());
            let held = member.as_ref().is_some_and(|member| member.held);
            if held && self.ctx.is_stop_requested() {
                let failed = member.is_some_and(|member| member.has_failed());
                return Some(match failed {
                    true => Exit::failed(None),
                    false => Exit::stopped(),
                });
            }
            match member.and_then(|member| member.take_request()) {
                Some(Request::Halt(reply_to)) => {
                    if self.actor.is_some() {
                        self.tear_down().await;
                    }
                    if let Some(member) = self.member() {
                        member.halted(reply_to);
                    }
                }
                Some(Request::Start(reply_to)) => {
                    if held && self.actor.is_some() {
                        // It failed while its group was not there to halt it.
                        self.tear_down().await;
                    }
                    let ready = self.actor.is_some();
                    if let Some(member) = self.member() {
                        member.start(ready, reply_to);
                    }
                }
                None if held => {
                    interruption(&self.ctx).await;
                    self.ctx.requests_seen();
                }
                None => return None,
            }
        }
    }

    fn member(&mut self) -> Option<&mut Membership> {
        self.plan.as_mut()?.member.as_mut()
    }

    /// The end of an instance that another one will follow.
    async fn tear_down(&mut self) {
        let Self { ctx, actor, plan } = self;
        if let Some(actor) = actor.as_mut()
            && let Err(failure) = replace_hook(actor, ctx).await
        {
            tracing::warn!(actor = %ctx.path(), %failure, "the restart hook of the actor failed");
        }
        let keep_children = plan.as_ref().is_some_and(|plan| plan.keeps_children);
        ctx.reset(keep_children).await;
        drop_guarded(actor.take());
    }

    /// Waits without an instance, until the time is over or there is something else to do.
    async fn wait(&mut self, wait: Duration) {
        let until = Instant::now().checked_add(wait).unwrap_or_else(far_away);
        unless_interrupted(&self.ctx, tokio::time::sleep_until(until)).await;
    }

    /// Winds up, if the actor is told to stop and nothing keeps it waiting, as almost always. `false`:
    /// that is for `live` to do.
    fn winds_up_at_once(&mut self) -> bool {
        let plan = self.plan.as_ref();
        self.actor.is_some()
            && plan.is_none_or(|plan| plan.crash.is_none() && plan.leads.is_none())
            && self.ctx.is_stop_requested()
            && self.ctx.winds_up_at_once()
    }

    async fn end(mut self: Box<Self>, exit: Exit) {
        if let Some(roster) = self.plan.as_ref().and_then(|plan| plan.leads.clone()) {
            self.ctx.close_family();
            Box::pin(roster.stop_all()).await;
        }
        self.ctx.wind_up().await;
        self.run_stop_hook(exit).await;
    }

    /// The stop hook, and then the end, of an actor that has wound up.
    async fn run_stop_hook(mut self: Box<Self>, exit: Exit) {
        if let Some(actor) = self.actor.as_mut()
            && let Err(failure) = stop_hook(actor, &mut self.ctx).await
        {
            tracing::warn!(actor = %self.ctx.path(), %failure, "the stop hook of the actor failed");
        }
        self.finish(exit);
    }

    fn finish(mut self: Box<Self>, exit: Exit) {
        drop_guarded(self.actor.take());
        drop_guarded(self.plan.take());
        let Exit { reason, escalated } = exit;
        self.ctx.ended(reason);
        tracing::debug!(actor = %self.ctx.path(), ?reason, "the actor ended");
        self.ctx.me().target().end_with(reason, escalated);
        drop_guarded(self);
    }
}

impl<A: Actor> Dormant for Life<A> {
    fn wake_newborn(self: Box<Self>) -> Active {
        let bare = self.plan.is_none() && self.ctx.is_bare();
        match self.actor {
            Some(_) if bare => start(self),
            _ => Active::new(self.live(true)),
        }
    }

    fn serve_now(
        &mut self,
        cx: &mut task::Context<'_>,
        pending: &mut Option<Active>,
    ) -> body::Served {
        match self.actor {
            Some(_) if !observe::messages_are_traced() => serve(self, cx, pending),
            _ => body::Served::Other,
        }
    }

    fn wake_for_other(mut self: Box<Self>) -> Option<Active> {
        if !self.winds_up_at_once() {
            return Some(Active::new(self.live(false)));
        }
        if !has_stop_hook::<A>() {
            self.finish(Exit::stopped());
            return None;
        }
        // The hook is all that may take time.
        Some(Active::new(async {
            self.run_stop_hook(Exit::stopped()).await;
            Outcome::Ended
        }))
    }
}

fn succeeded<T, E, F>(handled: &Result<Result<T, E>, F>) -> bool {
    matches!(handled, Ok(Ok(_)))
}

/// Why serving paused.
enum Served {
    Idle,
    /// The actor's group wants something.
    Requested,
    Stop,
    TurnOver,
}

/// A failure, and whether there was an instance to go on with.
struct Crash<E> {
    failure: Failure<E>,
    was_ready: bool,
}

impl<E> Crash<E> {
    fn at_work(failure: Failure<E>) -> Self {
        Self {
            failure,
            was_ready: true,
        }
    }

    fn before_ready(failure: Failure<E>) -> Self {
        Self {
            failure,
            was_ready: false,
        }
    }

    fn panic(failure: Failure) -> Self {
        Self::at_work(failure.widen())
    }
}

/// How the actor ends.
struct Exit {
    reason: Ended,
    /// What the parent fails with.
    escalated: Option<String>,
}

impl Exit {
    fn stopped() -> Self {
        Self {
            reason: Ended::Stopped,
            escalated: None,
        }
    }

    fn failed(escalated: Option<String>) -> Self {
        Self {
            reason: Ended::Failed,
            escalated,
        }
    }
}

async fn stop_hook<A: Actor>(actor: &mut A, ctx: &mut Context<A>) -> Result<(), Failure> {
    guarded(guarded_call(|| actor.stopped(ctx))?).await
}

async fn replace_hook<A: Actor>(actor: &mut A, ctx: &mut Context<A>) -> Result<(), Failure> {
    guarded(guarded_call(|| actor.restarting(ctx))?).await
}

/// Waits until the actor is asked to stop, or its group wants something.
async fn interruption<A: Actor>(ctx: &Context<A>) {
    unless_interrupted(ctx, std::future::pending::<()>()).await;
}

/// `None`: the actor is asked to stop, or its group wants something. Both notify the actor.
async fn unless_interrupted<A: Actor, T>(
    ctx: &Context<A>,
    future: impl Future<Output = T>,
) -> Option<T> {
    unless(|| ctx.is_interrupted(), future).await
}

/// The output of `future`; `None` as soon as `interrupted`, which is looked at whenever the actor is
/// notified.
pub(crate) async fn unless<T>(
    interrupted: impl Fn() -> bool,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if interrupted() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    struct Plain(#[allow(dead_code, reason = "it only takes room")] u64);

    impl Actor for Plain {
        type Msg = ();
        type Err = Infallible;

        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Infallible> {
            Ok(())
        }
    }

    /// An idle actor is its context, its instance, and one pointer for all that may follow a failure.
    #[test]
    fn supervision_costs_an_idle_actor_one_pointer() {
        let needed = size_of::<Context<Plain>>() + size_of::<Option<Plain>>();
        assert_eq!(size_of::<Life<Plain>>(), needed + size_of::<usize>());
        assert_eq!(
            needed, 32,
            "a pointer to itself, and one to what only some have"
        );
        let plan = size_of::<Plan<Plain>>();
        assert!(plan <= 216, "{plan} bytes for an actor that has a factory");
    }
}
