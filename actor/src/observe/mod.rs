//! Observe: what is measured, traced and written down while actors run, at one branch a message.
//!
//! An actor that is observed has an `Observer`; one that is not has `None` there. Only when there is
//! one, or when somebody listens to spans of messages, is a handler wrapped.
//!
//! # Spans
//! With a `tracing` subscriber that takes target `otava::message` at level debug, each message is
//! handled in a span `message` with the fields `actor` (the path) and `message_type`. It follows from
//! the span in which the message was sent, such as the one of the message before: `tracing` calls that
//! `follows_from`. The contents of messages are never recorded.
//!
//! # Log
//! Births and ends of actors are events at level debug, failures at warn, with the fields `actor`,
//! `failure`, `reason`. Dead letters: see [`crate::dead_letters`].

pub(crate) mod mark;
pub mod metrics;

use self::mark::Mark;
use self::metrics::TypeMetrics;
use crate::actor::Actor;
use crate::context::Context;
use crate::effects::{Effect, Effects};
use crate::path::ActorPath;
use crate::time::{Clock, Time};
use crate::watch::Ended;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Level, Span};

/// Whether somebody listens to spans of messages. One load where no subscriber of the process takes
/// that level of anything.
#[inline]
pub(crate) fn messages_are_traced() -> bool {
    LevelFilter::current() >= Level::DEBUG && a_subscriber_takes_messages()
}

#[cold]
fn a_subscriber_takes_messages() -> bool {
    tracing::enabled!(target: "otava::message", Level::DEBUG)
}

/// Who looks at an actor.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) metrics: Option<Arc<TypeMetrics>>,
    pub(crate) effects: Option<Effects>,
}

/// What happens to an actor as a whole.
pub(crate) enum LifeEvent<'a> {
    Failed(&'a dyn Display),
    Restarted,
    Started,
    Ended(Ended),
}

impl Observer {
    pub(crate) fn saw(&self, event: &LifeEvent<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.saw(event);
        }
        if let Some(effects) = &self.effects {
            effects.add(match event {
                LifeEvent::Failed(failure) => Effect::Failed(failure.to_string()),
                LifeEvent::Restarted => Effect::Restarted,
                LifeEvent::Started => Effect::Started,
                LifeEvent::Ended(reason) => Effect::Ended(*reason),
            });
        }
    }
}

/// One message that somebody looks at while it is handled.
pub(crate) struct Seen {
    observer: Option<Arc<Observer>>,
    clock: Clock,
    begun: Time,
    queued: usize,
    span: Span,
}

impl Seen {
    /// A message of type `M`, with the mark it came with, is about to be handled; `None` if nobody looks.
    pub(crate) fn begin<A: Actor, M>(ctx: &Context<A>, mark: Option<&mut Mark>) -> Option<Self> {
        let traced = messages_are_traced();
        let observer = ctx.observer();
        if observer.is_none() && !traced {
            return None;
        }
        let clock = ctx.clock();
        let begun = clock.now();
        let span = span_of(ctx.path(), std::any::type_name::<M>());
        if let Some(mark) = mark {
            span.follows_from(mark.cause.take());
            let metrics = observer.as_ref().and_then(|seen| seen.metrics.as_ref());
            if let (Some(metrics), Some(sent_at)) = (metrics, mark.sent_at) {
                metrics.waited(begun.saturating_since(sent_at));
            }
        }
        Some(Self {
            observer,
            clock,
            begun,
            queued: ctx.me().queued(),
            span,
        })
    }

    /// Runs the handler; `succeeded` says of its result whether it is no failure.
    pub(crate) async fn over<T>(
        self,
        handler: impl Future<Output = T>,
        succeeded: impl FnOnce(&T) -> bool,
    ) -> T {
        let result = handler.instrument(self.span).await;
        if let Some(observer) = &self.observer {
            if let Some(metrics) = &observer.metrics {
                let took = self.clock.now().saturating_since(self.begun);
                metrics.handled(took, self.queued);
            }
            if let Some(effects) = &observer.effects
                && succeeded(&result)
            {
                effects.add(Effect::Handled);
            }
        }
        result
    }
}

/// The span of one message. It is a root: what happened to be on this worker before has nothing to
/// do with it.
fn span_of(actor: &ActorPath, message_type: &'static str) -> Span {
    tracing::debug_span!(target: "otava::message", parent: None, "message", %actor, message_type)
}
