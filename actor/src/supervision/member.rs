//! Member: how a group tells one of its actors to go down and to come up again.
//!
//! Both sides hold the [`Port`]. The group puts requests there, and the actor looks at them between
//! two messages, as at a request to stop: a flag in its cell says that there are some. The requests
//! need no room in any mailbox and cannot be lost: each carries a reply port, and whatever ends the
//! actor, also from outside, drops the [`Membership`], which closes the port and with it the
//! replies. So a group waits for an answer without a limit and never for one that cannot come.

use super::group::{GroupSignal, Roster};
use crate::actor_ref::ActorRef;
use crate::ask::{Reply, ReplyTo};
use crate::cell::Node;
use crate::mailbox::Free;
use crate::observe::mark::Extra;
use crate::sync::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

/// What a group wants of a member.
pub(crate) enum Request {
    /// Give the instance up and wait. Answered when that is done.
    Halt(ReplyTo<()>),
    /// Make an instance and go on. Answered when it is ready, or has failed: then with the failure.
    Start(ReplyTo<Result<(), String>>),
}

/// What a member and its group share.
#[derive(Default)]
pub(crate) struct Port(Mutex<State>);

#[derive(Default)]
struct State {
    actor: Option<Weak<dyn Node>>,
    requests: VecDeque<Request>,
    /// The last failure, until the group starts the member again.
    failure: Option<String>,
    /// Those who wait for the end of the member.
    mourners: Vec<ReplyTo<()>>,
    closed: bool,
}

impl Port {
    /// The member has a cell now.
    pub(crate) fn attach(&self, actor: &Arc<dyn Node>) {
        let wanted = {
            let mut state = lock(&self.0);
            state.actor = Some(Arc::downgrade(actor));
            !state.requests.is_empty()
        };
        if wanted {
            actor.clone().flag_request();
        }
    }

    /// The reply will be an error if the member has ended, or ends first.
    pub(crate) fn halt(&self) -> Reply<()> {
        self.request(Request::Halt)
    }

    /// As [`Port::halt`].
    pub(crate) fn start(&self) -> Reply<Result<(), String>> {
        self.request(Request::Start)
    }

    fn request<R: Send + 'static>(&self, request: impl FnOnce(ReplyTo<R>) -> Request) -> Reply<R> {
        let (reply_to, reply) = ReplyTo::channel(None);
        let request = request(reply_to);
        let (actor, refused) = {
            let mut state = lock(&self.0);
            match state.closed {
                true => (None, Some(request)),
                false => {
                    state.requests.push_back(request);
                    (state.actor.clone(), None)
                }
            }
        };
        drop(refused);
        if let Some(actor) = actor.as_ref().and_then(Weak::upgrade) {
            actor.flag_request();
        }
        reply
    }

    /// The member; `None` if it is gone, or not there yet.
    pub(crate) fn actor(&self) -> Option<Arc<dyn Node>> {
        lock(&self.0).actor.as_ref().and_then(Weak::upgrade)
    }

    /// Resolves, to an error, when the member has ended.
    pub(crate) fn gone(&self) -> Reply<()> {
        let (reply_to, reply) = ReplyTo::channel(None);
        let mut state = lock(&self.0);
        if !state.closed {
            state.mourners.push(reply_to);
        }
        reply
    }

    /// The failure that the member reported, if it was not started again since.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.0).failure.clone()
    }

    fn close(&self) {
        let (requests, mourners) = {
            let mut state = lock(&self.0);
            state.closed = true;
            state.actor = None;
            let requests = std::mem::take(&mut state.requests);
            (requests, std::mem::take(&mut state.mourners))
        };
        drop((requests, mourners));
    }
}

/// A member's own side of its port. Its drop is the end of the membership.
pub(crate) struct Membership {
    port: Arc<Port>,
    group: ActorRef<GroupSignal>,
    roster: Arc<Roster>,
    place: u64,
    /// The member waits for its group: it has failed, or was halted.
    pub(crate) held: bool,
    /// Who wants to know whether the next instance gets ready.
    starting: Option<ReplyTo<Result<(), String>>>,
}

impl Membership {
    pub(crate) fn new(
        port: Arc<Port>,
        group: ActorRef<GroupSignal>,
        roster: Arc<Roster>,
        place: u64,
    ) -> Self {
        Self {
            port,
            group,
            roster,
            place,
            held: false,
            starting: None,
        }
    }

    pub(crate) fn take_request(&self) -> Option<Request> {
        lock(&self.port.0).requests.pop_front()
    }

    /// The member has failed and cannot go on by itself: the group decides.
    pub(crate) fn failed(&mut self, failure: String) {
        self.held = true;
        lock(&self.port.0).failure = Some(failure.clone());
        if let Some(starting) = self.starting.take() {
            // The group waits for this, unless it is about to stop.
            let _ = starting.send(Err(failure));
            return;
        }
        let group = self.group.target();
        let signal = Free::Message(GroupSignal::failed(self.place), Extra::None);
        // An error means that the group is stopping, and its members with it.
        if let Ok(wake) = group.cell().mailbox.push_free(signal) {
            group.wake_if(wake);
        }
    }

    /// The member has given its instance up.
    pub(crate) fn halted(&mut self, reply_to: ReplyTo<()>) {
        self.held = true;
        let _ = reply_to.send(());
    }

    /// The member is to have an instance; `ready`: it has one that works.
    pub(crate) fn start(&mut self, ready: bool, reply_to: ReplyTo<Result<(), String>>) {
        if ready {
            let _ = reply_to.send(Ok(()));
            return;
        }
        self.held = false;
        lock(&self.port.0).failure = None;
        self.starting = Some(reply_to);
    }

    /// An instance has got through its start hook.
    pub(crate) fn ready(&mut self) {
        if let Some(starting) = self.starting.take() {
            let _ = starting.send(Ok(()));
        }
    }

    /// Whether the member has failed and was not started again since.
    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.port.0).failure.is_some()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.port.close();
        self.roster.leave(self.place);
    }
}
