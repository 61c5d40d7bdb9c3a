//! Support: an actor for tests of supervision, which logs all that happens to each instance of it.

use crate::support::{Log, SOON};
use otava_actor::testkit::TestProbe;
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Ended, Props, ReplyTo, Terminated};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

/// What a doll fails with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fail {
    Hard,
    Soft,
    /// Its `Display` panics.
    Unspeakable,
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unspeakable => panic!("mute"),
            other => write!(f, "{other:?}"),
        }
    }
}

type Hook = Arc<dyn Fn(&Doll, &mut Context<Doll>) -> Result<(), Fail> + Send + Sync>;

/// An instance of the actor under test: the n-th of its name.
pub(crate) struct Doll {
    pub(crate) name: String,
    pub(crate) instance: u32,
    pub(crate) log: Log,
    pub(crate) on_started: Hook,
    pub(crate) on_restarting: fn(),
}

type Act = Box<dyn FnOnce(&mut Doll, &mut Context<Doll>) -> Result<(), Fail> + Send>;

pub(crate) enum Do {
    Act(Act),
    Say(&'static str),
    /// Answers with the number of the instance.
    Which(ReplyTo<u32>),
    /// Waits inside the handler.
    Sleep(Duration),
    /// Fails after a while.
    FailAfter(Duration),
    /// Lets others run and fails then, with an error or a panic.
    FailLater(Result<Fail, &'static str>),
}

pub(crate) fn act(
    act: impl FnOnce(&mut Doll, &mut Context<Doll>) -> Result<(), Fail> + Send + 'static,
) -> Do {
    Do::Act(Box::new(act))
}

/// Fails with an error.
pub(crate) fn fail(fail: Fail) -> Do {
    act(move |_, _| Err(fail))
}

impl Doll {
    pub(crate) fn new(name: &str, instance: u32, log: &Log) -> Self {
        Self {
            name: name.to_owned(),
            instance,
            log: log.clone(),
            on_started: Arc::new(|_, _| Ok(())),
            on_restarting: || {},
        }
    }

    /// A factory whose instances are numbered from 1.
    pub(crate) fn factory(name: &str, log: &Log) -> impl FnMut() -> Self + Send + use<> {
        let (name, log, made) = (name.to_owned(), log.clone(), AtomicU32::new(0));
        move || Self::new(&name, made.fetch_add(1, SeqCst) + 1, &log)
    }

    pub(crate) fn props(name: &str, log: &Log) -> Props<Self> {
        Props::new(Self::factory(name, log))
    }

    /// As [`Doll::props`], with something to do in the start hook.
    pub(crate) fn starting(
        name: &str,
        log: &Log,
        hook: impl Fn(&Self, &mut Context<Self>) -> Result<(), Fail> + Send + Sync + 'static,
    ) -> Props<Self> {
        let (mut factory, hook): (_, Hook) = (Self::factory(name, log), Arc::new(hook));
        Props::new(move || {
            let mut doll = factory();
            doll.on_started = hook.clone();
            doll
        })
    }

    pub(crate) fn say(&self, what: impl fmt::Display) {
        self.log
            .add(format!("{}{}: {what}", self.name, self.instance));
    }
}

impl Actor for Doll {
    type Msg = Do;
    type Err = Fail;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Fail> {
        self.say("started");
        let hook = self.on_started.clone();
        hook(self, ctx)
    }

    async fn handle(&mut self, msg: Do, ctx: &mut Context<Self>) -> Result<(), Fail> {
        match msg {
            Do::Act(act) => return act(self, ctx),
            Do::Say(text) => self.say(text),
            Do::Which(reply_to) => {
                let _ = reply_to.send(self.instance);
            }
            Do::Sleep(time) => tokio::time::sleep(time).await,
            Do::FailAfter(time) => {
                tokio::time::sleep(time).await;
                return Err(Fail::Hard);
            }
            Do::FailLater(how) => {
                one_turn().await;
                return match how {
                    Ok(fail) => Err(fail),
                    Err(text) => panic!("{text}"),
                };
            }
        }
        Ok(())
    }

    async fn terminated(&mut self, who: Terminated, _: &mut Context<Self>) -> Result<(), Fail> {
        self.say(format!("{} ended, {:?}", who.path.name(), who.reason));
        Ok(())
    }

    async fn restarting(&mut self, _: &mut Context<Self>) {
        self.say("restarting");
        (self.on_restarting)();
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        self.say("stopped");
    }
}

impl Drop for Doll {
    fn drop(&mut self) {
        self.say("dropped");
    }
}

/// Lets each other actor that can run do so before this one goes on.
async fn one_turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for the end of `actor` and says why it ended.
pub(crate) async fn end_of<M: Send + 'static>(system: &ActorSystem, actor: &ActorRef<M>) -> Ended {
    let mut probe = TestProbe::<()>::new(system);
    probe.watch(actor);
    probe.expect_terminated(actor, 100 * SOON).await.reason
}

/// Lets everybody run until nobody has anything to do but wait for a clock.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_nanos(1)).await;
}
