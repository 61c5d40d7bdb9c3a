//! Plan: all that an actor carries because it may fail: factory, decider, history, its group.
//!
//! Most actors carry none: given by value, they stop when they fail. A million idle ones shall not
//! pay for what a few need, so all of it stands behind one optional pointer.

use super::group::Roster;
use super::history::{History, Verdict};
use super::member::Membership;
use super::strategy::{Fault, Supervision};
use crate::actor::Actor;
use crate::failure::{Failure, drop_guarded, guarded_call};
use crate::path::ActorPath;
use crate::rng::Rng;
use crate::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Where instances come from, if there can be more than one.
pub(crate) enum Factory<A: Actor> {
    Now(Box<dyn FnMut() -> Result<A, A::Err> + Send>),
    Later(Box<dyn FnMut() -> Made<A> + Send>),
}

/// An instance on its way.
pub(crate) type Made<A> = Pin<Box<dyn Future<Output = Result<A, <A as Actor>::Err>> + Send>>;

pub(crate) type Decider<E> = Box<dyn FnMut(Fault<'_, E>) -> Supervision + Send>;

/// Who says what is done about a failure.
pub(crate) enum Strategy<A: Actor> {
    Decider(Decider<A::Err>),
    Fixed(Supervision),
}

pub(crate) struct Plan<A: Actor> {
    pub(crate) factory: Option<Factory<A>>,
    /// `None`: nobody chose one, so the actor stops.
    pub(crate) strategy: Option<Strategy<A>>,
    pub(crate) escalates_when_exhausted: bool,
    pub(crate) keeps_children: bool,
    pub(crate) member: Option<Membership>,
    /// The members of the group that this actor leads.
    pub(crate) leads: Option<Arc<Roster>>,
    /// A handler failed so, and nothing was done about it yet.
    pub(crate) crash: Option<Failure<A::Err>>,
    /// Only actors that have failed once have one.
    record: Option<Box<Record>>,
}

/// What an actor remembers of its failures.
struct Record {
    history: History,
    rng: Rng,
}

impl<A: Actor> Default for Plan<A> {
    fn default() -> Self {
        Self {
            factory: None,
            strategy: None,
            escalates_when_exhausted: false,
            keeps_children: false,
            member: None,
            leads: None,
            crash: None,
            record: None,
        }
    }
}

impl<A: Actor> Plan<A> {
    /// Whether what was chosen can be done.
    pub(crate) fn can_be_done(&self) -> bool {
        let restarts = matches!(
            self.strategy,
            Some(Strategy::Fixed(
                Supervision::Restart { .. } | Supervision::Backoff(_)
            ))
        );
        self.factory.is_some() || !(restarts || self.member.is_some())
    }

    /// An instance has got through its start hook.
    pub(crate) fn ready(&mut self, now: Time) {
        if let Some(record) = &mut self.record {
            record.history.ready(now);
        }
        if let Some(member) = &mut self.member {
            member.ready();
        }
    }

    /// What is to be done about `failure`. `was_ready`: the instance had got through its start hook.
    pub(crate) fn judge(
        &mut self,
        failure: &Failure<A::Err>,
        was_ready: bool,
        path: &ActorPath,
        now: Time,
        rng: impl FnOnce() -> Rng,
    ) -> Verdict {
        let supervision = match &mut self.strategy {
            None => Supervision::Stop,
            Some(Strategy::Fixed(supervision)) => *supervision,
            Some(Strategy::Decider(decide)) => {
                guarded_call(|| decide(failure.fault())).unwrap_or_else(|panic| {
                    tracing::error!(actor = %path, failure = %panic, "a decider failed: the actor stops");
                    Supervision::Stop
                })
            }
        };
        let record = self.record.get_or_insert_with(|| {
            let (history, rng) = (History::default(), rng());
            Box::new(Record { history, rng })
        });
        let verdict = record.history.judge(now, supervision, &mut record.rng);
        match verdict {
            Verdict::Exhausted if self.escalates_when_exhausted => Verdict::Escalate,
            Verdict::Exhausted => Verdict::Stop,
            Verdict::Resume if !was_ready => Verdict::Stop,
            Verdict::Restart(_) if self.factory.is_none() => {
                tracing::error!(actor = %path, "a decider chose restart, but there is no factory");
                Verdict::Stop
            }
            verdict => verdict,
        }
    }
}

impl<A: Actor> Drop for Plan<A> {
    /// What closures of users hold may panic when it is dropped: each on its own.
    fn drop(&mut self) {
        drop_guarded(self.factory.take());
        drop_guarded(self.strategy.take());
        drop_guarded(self.crash.take());
    }
}
