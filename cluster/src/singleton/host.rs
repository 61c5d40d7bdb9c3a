//! Host: the task that carries out what a singleton's logic decides on one node.

use crate::io::cluster::Cluster;
use crate::logic::member::Member;
use crate::logic::singleton::{Message, Output, Singleton};
use crate::logic::state::{ClusterEvent, ClusterState};
use crate::receptionist::ClusterReceptionist;
use crate::singleton::config::{SingletonConfig, SingletonContext};
use crate::singleton::tenure::{Tenure, TenureNews};
use crate::singleton::{CHANNEL, wire};
use otava_actor::{Actor, ActorRef, Props, ServiceKey, Time};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot, watch};

/// Messages of other nodes that wait; more are dropped, and said again.
const INBOX_MAX: usize = 256;
/// How long a hand-over waits for the proxies of others to know that the actor ends.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// A shorter lease could not be renewed in time.
const LEASE_MIN: Duration = Duration::from_secs(1);
/// What was sent before they knew may arrive this much later.
const LINGER: Duration = Duration::from_millis(50);

/// How others reach the task of a singleton. When it is dropped the task goes on.
pub(super) struct Handle {
    pub(super) inbox: mpsc::Sender<(NodeId, Message)>,
    news: mpsc::UnboundedSender<News>,
    done: watch::Receiver<bool>,
}

impl Handle {
    pub(super) fn hand_over(&self) {
        // An error means that the task has ended: then the actor has, too.
        let _ = self.news.send(News::HandOver);
    }

    /// Waits until the actor has ended on this node for good.
    pub(super) async fn done(&self) {
        let _ = self.done.clone().wait_for(|done| *done).await;
    }

    pub(super) fn is_done(&self) -> bool {
        *self.done.borrow()
    }
}

enum News {
    Acquired(u64, Option<u64>),
    Ended(u64),
    HandOver,
    LeaseLost(u64),
}

impl From<TenureNews> for News {
    fn from(news: TenureNews) -> Self {
        match news {
            TenureNews::Acquired(attempt, term) => Self::Acquired(attempt, term),
            TenureNews::Lost(attempt) => Self::LeaseLost(attempt),
        }
    }
}

/// What makes the actor.
pub(super) struct Recipe<A: Actor> {
    pub(super) name: Arc<str>,
    pub(super) key: ServiceKey<A::Msg>,
    pub(super) config: SingletonConfig,
    pub(super) factory: Box<dyn Fn(SingletonContext) -> Props<A> + Send>,
}

struct Host<A: Actor> {
    recipe: Recipe<A>,
    scope: String,
    remote: Remote,
    receptionist: ClusterReceptionist,
    singleton: Singleton,
    events: broadcast::Receiver<ClusterEvent>,
    states: watch::Receiver<Arc<ClusterState>>,
    inbox: mpsc::Receiver<(NodeId, Message)>,
    news: mpsc::UnboundedReceiver<News>,
    own_news: mpsc::UnboundedSender<News>,
    done: watch::Sender<bool>,
    /// The actor, its term, and the number of its start.
    actor: Option<(ActorRef<A::Msg>, u64)>,
    starts: u64,
    /// Attempts that hold the lease, or may get it. When one is dropped the lease is given back.
    tenures: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Starts the task. It holds no handle of the cluster, so that a node whose last handle is dropped
/// falls silent.
pub(super) fn start<A: Actor<Msg: RemoteMessage>>(
    cluster: &Cluster,
    receptionist: ClusterReceptionist,
    recipe: Recipe<A>,
) -> Handle {
    let (inbox_sender, inbox) = mpsc::channel(INBOX_MAX);
    let (own_news, news) = mpsc::unbounded_channel();
    let (done, is_done) = watch::channel(false);
    let handle = Handle {
        inbox: inbox_sender,
        news: own_news.clone(),
        done: is_done,
    };
    let host = Host {
        scope: format!("singleton/{}", recipe.name),
        remote: cluster.remote().clone(),
        receptionist,
        singleton: Singleton::new(cluster.me().clone(), recipe.config.settings()),
        events: cluster.events(),
        states: cluster.subscribe(),
        inbox,
        news,
        own_news,
        done,
        actor: None,
        starts: 0,
        tenures: BTreeMap::new(),
        recipe,
    };
    cluster.remote().system().handle().spawn(host.run());
    handle
}

impl<A: Actor<Msg: RemoteMessage>> Host<A> {
    async fn run(mut self) {
        let system = self.remote.system().clone();
        self.look();
        let mut is_out = false;
        loop {
            self.carry_out();
            if self.singleton.is_done() {
                self.done.send_replace(true);
            }
            let at = self.singleton.poll_timeout().unwrap_or(Time::MAX);
            tokio::select! {
                biased;
                event = self.events.recv(), if !is_out => match event {
                    Ok(ClusterEvent::SelfDowned) => self.out(),
                    Ok(_) | Err(RecvError::Lagged(_)) => self.look(),
                    // Without a membership it has no right to run.
                    Err(RecvError::Closed) => {
                        is_out = true;
                        self.out();
                    }
                },
                news = self.news.recv() => self.hear(system.now(), news),
                Some((from, message)) = self.inbox.recv() => {
                    self.singleton.handle(system.now(), &from, message);
                }
                () = system.sleep_until(at) => self.singleton.handle_timeout(system.now()),
            }
            if is_out && self.singleton.is_done() {
                self.done.send_replace(true);
                return;
            }
        }
    }

    /// The actor must end at once, also one that was ending in peace.
    fn out(&mut self) {
        self.singleton.out(self.remote.system().now());
        self.carry_out();
        if let Some((actor, _)) = &self.actor {
            actor.stop();
        }
    }

    fn look(&mut self) {
        let state = self.states.borrow_and_update().clone();
        let members = state.members.iter().filter(|(_, m)| self.may_host(m));
        let members: BTreeMap<NodeId, Member> = members
            .map(|(id, member)| (id.clone(), member.clone()))
            .collect();
        let now = self.remote.system().now();
        self.singleton.set_members(now, members);
    }

    /// Whether the oldest of these is to host it.
    fn may_host(&self, member: &Member) -> bool {
        let role = self.recipe.config.role.as_deref();
        role.is_none_or(|role| member.has_role(role))
    }

    fn hear(&mut self, now: Time, news: Option<News>) {
        match news {
            Some(News::Acquired(attempt, term)) => self.singleton.acquired(now, attempt, term),
            Some(News::Ended(start)) if start == self.starts => {
                self.actor = None;
                self.singleton.ended(now);
            }
            Some(News::HandOver) => self.singleton.hand_over(now),
            Some(News::LeaseLost(attempt)) => self.singleton.lost(attempt),
            // One end of the channel is here.
            Some(News::Ended(_)) | None => {}
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.singleton.poll_output() {
            match output {
                Output::Acquire { attempt, by_age } => self.acquire(attempt, by_age),
                Output::Send(to, message) => {
                    if let Some(bytes) = wire::encode(&self.recipe.name, message) {
                        self.remote.send_control(to.addr, CHANNEL, bytes.into());
                    }
                }
                Output::Start { term } => self.start_actor(term),
                Output::Stop { in_peace } => self.stop_actor(in_peace),
            }
        }
        let tenure = self.singleton.tenure();
        self.tenures.retain(|attempt, _| Some(*attempt) == tenure);
    }

    fn acquire(&mut self, attempt: u64, by_age: u64) {
        let news = self.own_news.clone();
        if let Some(lease) = self.recipe.config.lease.clone() {
            let (end, ended) = oneshot::channel();
            self.tenures.insert(attempt, end);
            let tenure = Tenure {
                lease,
                terms: self.recipe.config.terms.clone(),
                scope: self.scope.clone(),
                name: format!("otava-{}-{}", self.remote.cluster(), self.scope),
                owner: format!("{}/{attempt}", self.remote.id()),
                length: self.recipe.config.lease_for.max(LEASE_MIN),
                attempt,
                news,
            };
            self.remote.system().handle().spawn(tenure.run(ended));
            return;
        }
        let Some(terms) = self.recipe.config.terms.clone() else {
            // The task that hears it has the other end.
            let _ = news.send(News::Acquired(attempt, Some(by_age)));
            return;
        };
        let scope = self.scope.clone();
        self.remote.system().handle().spawn(async move {
            let term = terms.next_term(&scope).await;
            let term = term.inspect_err(|error| tracing::warn!(%scope, %error, "asked again"));
            let _ = news.send(News::Acquired(attempt, term.ok()));
        });
    }

    fn start_actor(&mut self, term: u64) {
        self.starts += 1;
        let (start, news) = (self.starts, self.own_news.clone());
        let name = &self.recipe.name;
        let context = SingletonContext {
            name: name.clone(),
            scope: self.scope.clone(),
            term,
        };
        let made = catch_unwind(AssertUnwindSafe(|| (self.recipe.factory)(context)));
        let made = made.map_err(otava_actor::describe_panic);
        let system = self.remote.system();
        let spawned = made.and_then(|props| {
            let actor = system.spawn_with(&format!("singleton-{name}"), props);
            actor.map_err(|error| error.to_string())
        });
        let actor = match spawned {
            Ok(actor) => actor,
            Err(error) => {
                tracing::error!(singleton = %name, %error, "the actor was not started");
                let _ = news.send(News::Ended(start));
                return;
            }
        };
        tracing::info!(singleton = %name, node = %self.remote.id(), term, "started");
        let told = move |_| {
            // An error means that nobody is interested any more.
            let _ = news.send(News::Ended(start));
        };
        actor.on_terminated(told).detach();
        let registered = self
            .receptionist
            .register_as(&self.recipe.key, &actor, term);
        if let Err(error) = registered {
            tracing::error!(singleton = %self.recipe.name, %error, "no proxy will find it");
        }
        self.actor = Some((actor, term));
    }

    fn stop_actor(&mut self, in_peace: bool) {
        let Some((actor, term)) = self.actor.clone() else {
            return;
        };
        // From now on proxies keep what is for it.
        self.receptionist
            .deregister_as(&self.recipe.key, &actor, term);
        if !in_peace {
            return actor.stop();
        }
        let receptionist = self.receptionist.clone();
        let mut done = self.done.subscribe();
        self.remote.system().handle().spawn(async move {
            let settle = async {
                receptionist.settled(SETTLE_WITHIN).await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                biased;
                // It ended another way.
                _ = done.wait_for(|done| *done) => {}
                () = settle => {}
            }
            actor.stop_after_queued();
        });
    }
}
