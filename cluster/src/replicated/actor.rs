//! Replicator actor: carries out what the machine decides: sends, stores, answers, sets the timer.
//!
//! Each node has one, published under the same name. Its handlers never wait: a question is answered when
//! the machine says so, a batch is stored beside it. A change runs in it, so all changes on a node are in
//! one order.

use super::config::ReplicatorConfig;
use super::durable::{DurableStore, StoredEntry};
use super::wire::{self, Blob};
use crate::logic::member::Status;
use crate::logic::replicated::causal::Causal;
use crate::logic::replicated::dots::Replica;
use crate::logic::replicated::draft::Draft;
use crate::logic::replicated::machine::{Failure, Machine, Members, Moment, Output, Request};
use crate::logic::replicated::message::{Content, Key, Message, State};
use crate::logic::replicated::store::Store;
use crate::logic::state::ClusterState;
use otava_actor::{Actor, ActorRef, Context, ReplyTo, TellError, Time};
use otava_remote::{NodeId, Remote, RemoteMessage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The published name of all replicators.
pub(super) const NAME: &str = "cluster/replicator";

/// How an operation has ended.
pub(super) type Answer = Result<Option<Arc<Causal>>, Failure>;

/// What a replicator understands.
#[derive(Deserialize, Serialize)]
pub(super) struct ReplicatorMessage(Command);

#[derive(Deserialize, Serialize)]
enum Command {
    /// From the replicator of another node: messages as `wire` writes them.
    Peer { from: NodeId, messages: Blob },
    /// From this node; it has no wire form.
    #[serde(skip)]
    Local(Local),
}

impl RemoteMessage for ReplicatorMessage {
    const NAME: &'static str = "otava.cluster.Replicator";
}

impl ReplicatorMessage {
    pub(super) fn local(local: Local) -> Self {
        Self(Command::Local(local))
    }
}

/// A change of a value.
type Edit = Box<dyn FnOnce(Draft) + Send>;

/// What this node wants of its replicator.
pub(super) enum Local {
    Delete {
        request: Request,
        reply_to: ReplyTo<Answer>,
    },
    Get {
        request: Request,
        reply_to: ReplyTo<Answer>,
    },
    /// The members have changed; the rest come through the receiver, if there is more.
    Members(Option<watch::Receiver<Arc<ClusterState>>>),
    Stored(bool),
    Subscribe {
        request: Request,
        changes: watch::Sender<Option<Content>>,
        reply_to: ReplyTo<Answer>,
    },
    Tick,
    Update {
        request: Request,
        blank: Store,
        edit: Edit,
        reply_to: ReplyTo<Answer>,
    },
}

/// What a replicator is started with.
pub(super) struct Start {
    pub(super) remote: Remote,
    pub(super) config: ReplicatorConfig,
    pub(super) stored: Vec<State>,
    pub(super) states: watch::Receiver<Arc<ClusterState>>,
}

pub(super) struct ReplicatorActor {
    remote: Remote,
    machine: Machine,
    store: Option<Arc<dyn DurableStore>>,
    clock: Option<Arc<dyn Fn() -> u64 + Send + Sync>>,
    states: Option<watch::Receiver<Arc<ClusterState>>>,
    peers: BTreeMap<NodeId, ActorRef<ReplicatorMessage>>,
    /// Who waits for the end of which operation.
    waiting: BTreeMap<u64, ReplyTo<Answer>>,
    subscribers: BTreeMap<Key, Vec<Subscriber>>,
    /// When the timer that is set fires.
    armed: Time,
    /// Entries of others that were not taken, as far as the log knows.
    refused: u64,
}

struct Subscriber {
    type_name: Arc<str>,
    changes: watch::Sender<Option<Content>>,
}

impl ReplicatorActor {
    pub(super) fn new(start: Start) -> Self {
        let Start {
            remote,
            config,
            stored,
            states,
        } = start;
        let system = remote.system();
        let now = moment(system.now(), config.wall_clock.as_deref());
        let (me, rng) = (remote.id().clone(), system.rng());
        Self {
            machine: Machine::new(me, config.machine(), rng, now, stored),
            store: config.durable.map(|(store, _)| store),
            clock: config.wall_clock,
            states: Some(states),
            peers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            armed: Time::MAX,
            refused: 0,
            remote,
        }
    }

    fn now(&self, ctx: &Context<Self>) -> Moment {
        moment(ctx.now(), self.clock.as_deref())
    }

    fn local(&mut self, ctx: &mut Context<Self>, local: Local) {
        let now = self.now(ctx);
        match local {
            Local::Delete { request, reply_to } => {
                let id = self.machine.delete(now, request);
                self.waiting.insert(id, reply_to);
            }
            Local::Get { request, reply_to } => {
                let id = self.machine.read(now, request);
                self.waiting.insert(id, reply_to);
            }
            Local::Members(states) => {
                let members = states.as_ref().map(|states| {
                    let state = states.borrow().clone();
                    members(self.remote.id(), &state)
                });
                // Without a membership there is nobody to exchange anything with.
                self.change_members(now, members.unwrap_or_default());
                if let Some(states) = states {
                    self.await_members(ctx, states);
                }
            }
            Local::Stored(is_stored) => self.machine.stored(now, is_stored),
            Local::Subscribe {
                request,
                changes,
                reply_to,
            } => self.subscribe(request, changes, reply_to),
            Local::Tick => {
                self.armed = Time::MAX;
                self.machine.handle_timeout(now);
            }
            Local::Update {
                request,
                blank,
                edit,
                reply_to,
            } => {
                let id = self.machine.write(now, request, &blank, edit);
                self.waiting.insert(id, reply_to);
            }
        }
    }

    fn change_members(&mut self, now: Moment, members: Members) {
        self.peers
            .retain(|node, _| members.peers.contains_key(node));
        self.machine.set_members(now, members);
    }

    fn await_members(
        &mut self,
        ctx: &mut Context<Self>,
        mut states: watch::Receiver<Arc<ClusterState>>,
    ) {
        let change = async move {
            let changed = states.changed().await;
            changed.is_ok().then_some(states)
        };
        ctx.pipe_to_self(change, |states| {
            ReplicatorMessage::local(Local::Members(states))
        });
    }

    fn subscribe(
        &mut self,
        request: Request,
        changes: watch::Sender<Option<Content>>,
        reply_to: ReplyTo<Answer>,
    ) {
        let Request { key, type_name, .. } = request;
        let held = self.machine.entry(&key);
        let held = held.map(|entry| entry.state().type_name.clone());
        let answer = match held {
            Some(held) if held != type_name => Err(Failure::TypeMismatch { held }),
            _ if !Machine::is_name(&key) => Err(Failure::BadKey),
            _ => {
                let subscriber = Subscriber { type_name, changes };
                let subscribers = self.subscribers.entry(key.clone()).or_default();
                subscribers.retain(|subscriber| !subscriber.changes.is_closed());
                subscribers.push(subscriber);
                self.machine.watch(&key);
                Ok(None)
            }
        };
        // Who asked may have gone: then its channel is closed.
        let _ = reply_to.send(answer);
    }

    /// Carries out everything that was decided.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Changed(key, content) => self.tell_subscribers(&key, &content),
                Output::Done(id, answer) => {
                    if let Some(reply_to) = self.waiting.remove(&id) {
                        // Who asked may have gone.
                        let _ = reply_to.send(answer);
                    }
                }
                Output::Send(to, messages) => self.send(&to, &messages),
                Output::Store(states) => self.store(ctx, &states),
            }
        }
        let refused = self.machine.refused();
        if refused > self.refused {
            tracing::warn!(
                node = %self.remote.id(),
                entries = refused - self.refused,
                "replicated entries of others are not taken: another type, or too many keys"
            );
            self.refused = refused;
        }
    }

    fn tell_subscribers(&mut self, key: &Key, content: &Content) {
        let Some(subscribers) = self.subscribers.get_mut(key) else {
            return;
        };
        subscribers.retain(|subscriber| !subscriber.changes.is_closed());
        let held = self.machine.entry(key);
        let held = held.map(|entry| entry.state().type_name.clone());
        for subscriber in subscribers.iter() {
            if Some(&subscriber.type_name) == held.as_ref() {
                subscriber.changes.send_replace(Some(content.clone()));
            }
        }
        if subscribers.is_empty() {
            self.subscribers.remove(key);
            self.machine.unwatch(key);
        }
    }

    fn send(&mut self, to: &NodeId, messages: &[Message]) {
        match wire::encode_messages(messages) {
            Ok(bytes) => self.tell(to, bytes),
            // One that cannot be written must not take the others with it.
            Err(error) if messages.len() == 1 => {
                tracing::error!(%to, %error, "replicated data is not sent");
            }
            Err(_) => {
                for message in messages {
                    self.send(to, std::slice::from_ref(message));
                }
            }
        }
    }

    fn tell(&mut self, to: &NodeId, bytes: Vec<u8>) {
        let remote = &self.remote;
        let peers = &mut self.peers;
        let peer = peers
            .entry(to.clone())
            .or_insert_with(|| remote.resolve(to, NAME));
        let from = remote.id().clone();
        let messages = Blob(bytes.into());
        match peer.tell(ReplicatorMessage(Command::Peer { from, messages })) {
            Ok(()) => {}
            Err(TellError::Unsendable(_, why)) => {
                tracing::error!(%to, %why, "a replicated value is too large to be sent");
            }
            // It is sent again, or gossip heals it.
            Err(error) => tracing::debug!(%to, %error, "replicated data is not sent now"),
        }
    }

    fn store(&mut self, ctx: &mut Context<Self>, states: &[State]) {
        let mut batch = Vec::with_capacity(states.len());
        for state in states {
            match wire::encode_state(state) {
                Ok(bytes) => batch.push(StoredEntry::new(&*state.key, bytes)),
                Err(error) => {
                    tracing::error!(key = %state.key, %error, "an entry is not stored");
                }
            }
        }
        let complete = batch.len() == states.len();
        let Some(store) = self.store.clone() else {
            return;
        };
        // In a task of its own: a panic of the store must be heard of.
        let stored = ctx
            .system()
            .handle()
            .spawn(async move { store.store(batch).await });
        let stored = async move {
            match stored.await {
                Ok(Ok(())) => complete,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "entries are stored again later");
                    false
                }
                Err(error) => {
                    tracing::error!(%error, "the store of replicated data has panicked");
                    false
                }
            }
        };
        ctx.pipe_to_self(stored, |is_stored| {
            ReplicatorMessage::local(Local::Stored(is_stored))
        });
    }

    /// Sets the timer to when something is due.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let next = self.machine.poll_timeout();
        if next < self.armed {
            self.armed = next;
            ctx.timer_at("tick", next, ReplicatorMessage::local(Local::Tick));
        }
    }

    fn take_from(&mut self, ctx: &Context<Self>, from: &NodeId, bytes: &[u8]) {
        let now = self.now(ctx);
        match wire::decode_messages(bytes) {
            Ok(messages) => {
                for message in messages {
                    self.machine.message(now, from, message);
                }
            }
            Err(error) => tracing::warn!(%from, %error, "replicated data is ignored"),
        }
    }
}

impl Actor for ReplicatorActor {
    type Msg = ReplicatorMessage;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        let states = self.states.take();
        self.local(ctx, Local::Members(states));
        self.pump(ctx);
        self.arm(ctx);
        Ok(())
    }

    async fn handle(
        &mut self,
        ReplicatorMessage(command): ReplicatorMessage,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Local(local) => self.local(ctx, local),
            Command::Peer { from, messages } => self.take_from(ctx, &from, &messages.0),
        }
        self.pump(ctx);
        self.arm(ctx);
        Ok(())
    }
}

fn moment(time: Time, clock: Option<&(dyn Fn() -> u64 + Send + Sync)>) -> Moment {
    let wall = clock.map_or_else(
        || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            let micros = since.map_or(0, |since| since.as_micros());
            u64::try_from(micros).unwrap_or(u64::MAX)
        },
        |clock| clock(),
    );
    Moment { time, wall }
}

/// What the machine must know of the members, as `me` sees them.
fn members(me: &NodeId, state: &ClusterState) -> Members {
    let is_live = state.get(me).is_some_and(|member| member.status.is_live());
    if !is_live {
        return Members::default();
    }
    let live = state.members.values();
    let live = live.filter(|member| member.status.is_live());
    let peers = live.clone().filter(|member| exchanges(member.status));
    Members {
        me_counts: state.get(me).is_some_and(|member| counts(member.status)),
        peers: peers
            .map(|member| (member.id.clone(), counts(member.status)))
            .collect(),
        all: live.map(|member| Replica(member.id.incarnation)).collect(),
        leads: state.leader.as_ref() == Some(me),
        all_reachable: state.unreachable.is_empty(),
    }
}

/// Whether a member in this state counts for quorums. A weakly up one does not: not everybody agreed on
/// it, so members could count different majorities, which need not meet.
fn counts(status: Status) -> bool {
    matches!(status, Status::Up)
}

/// Whether data is exchanged with a member in this state: also with one that is only weakly up, and with
/// one on its way out until it is removed, so that nothing which only it has is lost.
fn exchanges(status: Status) -> bool {
    status.is_live() && status != Status::Joining
}
