//! Region driver: the actor that carries out what the logic of region and coordinator decides.

use crate::config::ShardingConfig;
use crate::entities::{Counters, Shown};
use crate::entity::{ENTITY_ID_BYTES_MAX, Word};
use crate::io::doors::{Doors, UnderWay};
use crate::io::host::{Factory, Host, Left};
use crate::io::peers::Peers;
use crate::io::rights::{claim_shard, set_layout, take_over};
use crate::logic::coordinator::{self, Coordinator};
use crate::logic::epoch::Epoch;
use crate::logic::hash::hash_of;
use crate::logic::region::{Delivery, DropReason, Input, Output, Region};
use crate::logic::view::View;
use crate::message::{Command, Local, RegionMessage};
use crate::query::{EntityPage, NodeStats, Query, QueryAnswer};
use crate::store::AllocationStore;
use crate::wire::{ProtocolMessage, Table};
use otava_actor::{
    Actor, ActorPath, Context, DeadLetterReason, Refusal, ReplyTo, Rng, Terminated, Time,
};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::any::type_name;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use xxhash_rust::xxh3::xxh3_64;

/// Words of entities that are taken from the channel at once.
const WORDS_BATCH: usize = 64;

/// The most entities of a page.
const IDS_MAX: usize = 1_000;

/// Clients that may wait for a new table at once; more are not answered and ask again.
const FOLLOWERS_MAX: usize = 1_000;
/// How long a client waits for a new table before it has to ask again.
const FOLLOW_MAX: Duration = Duration::from_secs(10);

/// Of a message, what the region's logic carries without looking at it.
pub(crate) struct Parcel<M> {
    entity: Arc<str>,
    /// `None`: it is only to be started.
    message: Option<M>,
    under_way: Option<UnderWay<M>>,
}

/// The region of one kind on one node, with the coordinator beside it.
pub(crate) struct RegionActor<A: Actor> {
    me: NodeId,
    kind: Arc<str>,
    /// The configured number of shards, and whether it may change.
    shards: (u32, bool),
    region: Region<Parcel<A::Msg>>,
    coordinator: Coordinator,
    host: Host<A>,
    peers: Peers<A::Msg>,
    store: Arc<dyn AllocationStore>,
    /// How many claims may be under way.
    claims: Arc<Semaphore>,
    /// How many clients may wait.
    followers: Arc<Semaphore>,
    view: View,
    views: Option<watch::Receiver<View>>,
    words: Option<mpsc::UnboundedReceiver<Word>>,
    /// When the timer that is set fires.
    armed: Time,
    handing_over: bool,
    shown: watch::Sender<Shown>,
    counters: Arc<Counters>,
}

/// What a region is started with.
pub(crate) struct Start<A: Actor> {
    pub(crate) remote: Remote,
    pub(crate) kind: Arc<str>,
    /// The published name of the kind's regions.
    pub(crate) name: String,
    pub(crate) config: ShardingConfig,
    pub(crate) store: Arc<dyn AllocationStore>,
    pub(crate) views: watch::Receiver<View>,
    pub(crate) factory: Factory<A>,
    pub(crate) doors: Arc<Doors<A::Msg>>,
    pub(crate) shown: watch::Sender<Shown>,
    pub(crate) counters: Arc<Counters>,
}

impl<A: Actor<Msg: RemoteMessage>> RegionActor<A> {
    pub(crate) fn new(start: Start<A>) -> Self {
        let me = start.remote.id().clone();
        let (say, words) = mpsc::unbounded_channel();
        // Only for the length of waits: no two nodes of a system shall agree in them.
        let rng = Rng::seeded(xxh3_64(format!("{me}/{}", start.kind).as_bytes()));
        let (kind, doors) = (start.kind.clone(), start.doors);
        let host = Host::new(kind, &start.config, (say, doors), start.factory, rng);
        Self {
            kind: start.kind,
            shards: (start.config.shards, !start.config.only_fixed),
            region: Region::new(me.clone(), start.config.region()),
            coordinator: Coordinator::new(me.clone(), start.config.coordinator()),
            host,
            peers: Peers::new(start.remote, start.name, start.config.buffer_max),
            store: start.store,
            claims: Arc::new(Semaphore::new(start.config.claims_max.max(1))),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            view: View::empty(me.clone()),
            views: Some(start.views),
            words: Some(words),
            armed: Time::MAX,
            handing_over: false,
            shown: start.shown,
            counters: start.counters,
            me,
        }
    }

    /// Answers a client when there is a table that it does not know.
    fn follow(&self, ctx: &Context<Self>, newer_than: (u32, u64), reply_to: ReplyTo<Table>) {
        let Ok(place) = self.followers.clone().try_acquire_owned() else {
            return;
        };
        let mut shown = self.shown.subscribe();
        ctx.system().handle().spawn(async move {
            let newer = |shown: &Shown| {
                let table = shown.table.as_ref();
                table.is_some_and(|table| (table.term, table.revision) > newer_than)
            };
            let waited = tokio::time::timeout(FOLLOW_MAX, shown.wait_for(newer)).await;
            let table = waited.ok().and_then(|shown| shown.ok()?.table.clone());
            if let Some(table) = table {
                // The client may have gone.
                let _ = reply_to.send(Table::clone(&table));
            }
            drop(place);
        });
    }

    fn deliver(&mut self, ctx: &mut Context<Self>, hops: u8, parcel: Parcel<A::Msg>) {
        if !(1..=ENTITY_ID_BYTES_MAX).contains(&parcel.entity.len()) {
            let bytes = parcel.entity.len();
            tracing::warn!(kind = %self.kind, bytes, "an id of an entity has 1 to 512 bytes");
            return self.refuse(ctx, parcel, DeadLetterReason::Unreachable);
        }
        let delivery = Delivery::new(hash_of(&parcel.entity), hops, parcel);
        self.region.handle(ctx.now(), Input::Deliver(delivery));
    }

    /// A message for an entity has come.
    fn delivered(&mut self, ctx: &mut Context<Self>, hops: u8, parcel: Parcel<A::Msg>) {
        self.deliver(ctx, hops, parcel);
        self.pump(ctx);
        // A delivery moves no timer but those of entities.
        self.arm_at(ctx, self.host.next());
        self.count();
    }

    fn protocol(&mut self, now: Time, message: ProtocolMessage) {
        if let Some(message) = self.coordinator.handle(now, message) {
            self.region.handle(now, Input::Protocol(message));
        }
    }

    fn local(&mut self, ctx: &mut Context<Self>, local: Local) {
        let now = ctx.now();
        match local {
            Local::Claimed {
                shard,
                epoch,
                answer,
            } => {
                let input = Input::Claimed {
                    shard,
                    epoch,
                    answer,
                };
                self.region.handle(now, input);
                if self.region.running(shard) == Some(epoch) {
                    self.host.open(ctx, shard, epoch);
                }
            }
            Local::Heard(words, rest) => {
                for word in words {
                    match word {
                        Word::Entity(line) => self.host.heard(ctx, &line),
                        Word::Fenced(shard, epoch) => self.fenced(now, shard, epoch),
                    }
                }
                self.await_words(ctx, rest);
            }
            Local::Flushed(node) => self.peers.flushed(ctx, &node),
            Local::HandOver => {
                self.handing_over = true;
                self.region.hand_over(now);
            }
            Local::Layout(register, answer) => self.coordinator.layout_set(now, register, answer),
            Local::Recalled(recall) => self.host.recalled(ctx, recall),
            Local::Resize(shards) => self.region.handle(now, Input::Resize { shards }),
            Local::Term(term) => self.coordinator.term_claimed(now, term),
            Local::Tick => {
                self.armed = Time::MAX;
                if self.region.is_measuring(now) {
                    self.count_past();
                }
                self.region.handle_timeout(now);
                self.coordinator.handle_timeout(now);
                self.host.handle_timeout(ctx);
            }
            Local::View(view, rest) => {
                self.change_view(now, view);
                if let Some(rest) = rest {
                    self.await_view(ctx, rest);
                }
            }
        }
    }

    fn fenced(&mut self, now: Time, shard: u32, epoch: Epoch) {
        tracing::warn!(kind = %self.kind, shard, %epoch, "a later allocation exists");
        self.region.handle(now, Input::Fenced { shard, epoch });
    }

    fn change_view(&mut self, now: Time, view: View) {
        self.peers.forget(&view.gone);
        self.view = view.clone();
        self.coordinator.change_view(now, view.clone());
        self.region.handle(now, Input::View(view));
    }

    /// Carries out everything that was decided.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        loop {
            if let Some(output) = self.region.poll_output() {
                self.act(ctx, output);
            } else if let Some(output) = self.coordinator.poll_output() {
                match output {
                    coordinator::Output::Layout { term, register } => {
                        self.set_layout(ctx, term, register);
                    }
                    coordinator::Output::NextTerm => self.next_term(ctx),
                    coordinator::Output::Send { to, message } => self.say(ctx, &to, message),
                }
            } else if let Some(left) = self.host.poll_left() {
                self.take_back(ctx.now(), left);
            } else {
                return;
            }
        }
    }

    /// Counts what went past this actor.
    fn count_past(&mut self) {
        for (shard, messages) in self.host.catch_up() {
            self.region.count(shard, messages);
        }
    }

    /// Goes on with what the host has left to do.
    fn take_back(&mut self, now: Time, left: Left<A::Msg>) {
        match left {
            Left::Back(entity, message) => {
                let hash = hash_of(&entity);
                let parcel = Parcel {
                    message: Some(message),
                    under_way: Some(self.host.under_way(hash)),
                    entity,
                };
                let delivery = Delivery::new(hash, 0, parcel);
                self.region.handle(now, Input::Deliver(delivery));
            }
            Left::Counted(shard, messages) => self.region.count(shard, messages),
            Left::Fenced(shard, epoch) => self.fenced(now, shard, epoch),
            Left::Over(shard) => self.region.handle(now, Input::Ended { shard }),
        }
    }

    fn act(&mut self, ctx: &mut Context<Self>, output: Output<Parcel<A::Msg>>) {
        match output {
            Output::Claim {
                shard,
                epoch,
                fenced,
                scope,
            } => self.claim(ctx, (shard, epoch), fenced, scope),
            Output::Deliver { epoch, delivery } => {
                let Parcel {
                    entity,
                    message,
                    under_way,
                } = delivery.what;
                let allocation = (delivery.shard, epoch);
                self.host.deliver(ctx, allocation, &entity, message);
                // The entity has it, or has no door.
                drop(under_way);
            }
            Output::Drop { delivery, reason } => {
                tracing::debug!(kind = %self.kind, shard = delivery.shard, ?reason, "dropped");
                let reason = match reason {
                    DropReason::BufferFull => DeadLetterReason::RefusedFull,
                    DropReason::NobodyLeft | DropReason::TooManyHops => {
                        DeadLetterReason::Unreachable
                    }
                };
                self.refuse(ctx, delivery.what, reason);
            }
            Output::Forward { to, delivery } => {
                // It leaves this node, where its entity has no door.
                let Parcel {
                    entity, message, ..
                } = delivery.what;
                let hops = delivery.hops;
                let command = match message {
                    Some(message) => Command::Deliver {
                        entity,
                        hops,
                        message,
                        under_way: None,
                    },
                    None => Command::Wake { entity, hops },
                };
                self.peers.send(ctx, &to, RegionMessage(command));
            }
            Output::Send { to, message } => self.say(ctx, &to, message),
            Output::Stop {
                shard,
                after_queued,
            } => self.host.stop(ctx, shard, after_queued),
            Output::Homes => self.show(),
            Output::Layout(layout) => self.host.count_by(layout),
        }
    }

    fn say(&mut self, ctx: &mut Context<Self>, to: &NodeId, message: ProtocolMessage) {
        if *to == self.me {
            self.protocol(ctx.now(), message);
        } else {
            let message = RegionMessage(Command::Protocol(message));
            self.peers.send(ctx, to, message);
        }
    }

    fn claim(
        &mut self,
        ctx: &mut Context<Self>,
        (shard, epoch): (u32, Epoch),
        fenced: Vec<u32>,
        scope: u32,
    ) {
        let (store, claims) = (self.store.clone(), self.claims.clone());
        let kind = self.kind.clone();
        let claim = async move {
            // An error means that the semaphore is closed, and nobody closes it.
            let _permit = claims.acquire().await;
            claim_shard(&*store, &kind, (&fenced, scope), epoch).await
        };
        ctx.pipe_to_self(claim, move |answer| {
            RegionMessage(Command::Local(Local::Claimed {
                shard,
                epoch,
                answer,
            }))
        });
    }

    fn next_term(&mut self, ctx: &mut Context<Self>) {
        let (store, kind, first) = (self.store.clone(), self.kind.clone(), self.shards);
        let claim = async move { take_over(&*store, &kind, first).await };
        ctx.pipe_to_self(claim, |term| {
            RegionMessage(Command::Local(Local::Term(term)))
        });
    }

    fn set_layout(&mut self, ctx: &mut Context<Self>, term: u32, register: u64) {
        let (store, kind) = (self.store.clone(), self.kind.clone());
        let set = async move { set_layout(&*store, &kind, term, register).await };
        ctx.pipe_to_self(set, move |answer| {
            RegionMessage(Command::Local(Local::Layout(register, answer)))
        });
    }

    fn await_view(&mut self, ctx: &mut Context<Self>, mut views: watch::Receiver<View>) {
        let change = async move {
            let changed = views.changed().await;
            let view = views.borrow_and_update().clone();
            // Without a cluster layer nothing changes any more.
            (view, changed.is_ok().then_some(views))
        };
        ctx.pipe_to_self(change, |(view, rest)| {
            RegionMessage(Command::Local(Local::View(view, rest)))
        });
    }

    fn await_words(&mut self, ctx: &mut Context<Self>, mut words: mpsc::UnboundedReceiver<Word>) {
        let next = async move {
            let mut said = Vec::new();
            words.recv_many(&mut said, WORDS_BATCH).await;
            (said, words)
        };
        ctx.pipe_to_self(next, |(said, rest)| {
            RegionMessage(Command::Local(Local::Heard(said, rest)))
        });
    }

    /// Answers what this region has.
    fn answer(&mut self, query: Query, reply_to: ReplyTo<QueryAnswer>) {
        let answer = match query {
            Query::Ids {
                shard,
                after,
                limit,
            } => {
                let limit = (limit as usize).clamp(1, IDS_MAX);
                let mut ids = self.host.ids(shard, &after, limit + 1);
                if ids.is_none() && self.region.running(shard).is_some() {
                    // Nobody has sent to it yet.
                    ids = Some(Vec::new());
                }
                QueryAnswer::Ids(ids.map(|ids| EntityPage::of(ids, limit)))
            }
            Query::Stats => {
                self.count_past();
                QueryAnswer::Stats(NodeStats {
                    shards: self.host.stats(),
                    hosted: self.region.hosted() as u64,
                    entities: self.host.len() as u64,
                    buffered: self.region.buffered() as u64,
                    waiting: self.host.waiting() as u64,
                })
            }
        };
        // Whoever asked may have gone.
        let _ = reply_to.send(answer);
    }

    /// Sets the timer to when something is due.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let coordinator = self.coordinator.poll_timeout().unwrap_or(Time::MAX);
        let next = self.region.poll_timeout().min(coordinator);
        self.arm_at(ctx, next.min(self.host.poll_timeout()));
    }

    fn arm_at(&mut self, ctx: &mut Context<Self>, next: Time) {
        if next >= self.armed {
            return;
        }
        self.armed = next;
        let after = next
            .saturating_since(ctx.now())
            .max(Duration::from_millis(1));
        ctx.timer_once("tick", after, RegionMessage(Command::Local(Local::Tick)));
    }

    fn show(&self) {
        self.shown.send_replace(Shown {
            table: self.region.table().cloned(),
            coordinator: self.region.coordinator().cloned(),
            handed_over: self.has_handed_over(),
        });
    }

    fn has_handed_over(&self) -> bool {
        let named = self.region.table().is_some_and(|table| {
            let mut homes = table.entries.iter().filter_map(|entry| table.home(*entry));
            homes.any(|(node, _)| *node == self.me)
        });
        let out = !self.view.is_up(&self.me);
        let alone = !self.view.has_up();
        let empty = self.region.is_empty() && self.peers.is_idle();
        // The next coordinator is at work before this one goes.
        let reigns = self.coordinator.term().is_some();
        self.handing_over && out && empty && (alone || (!named && !reigns))
    }

    fn settle(&mut self, ctx: &mut Context<Self>) {
        self.pump(ctx);
        self.arm(ctx);
        if self.handing_over && self.shown.borrow().handed_over != self.has_handed_over() {
            self.show();
        }
        self.count();
    }

    fn count(&self) {
        let counters = &self.counters;
        let set =
            |counter: &std::sync::atomic::AtomicUsize, to| counter.store(to, Ordering::Relaxed);
        set(&counters.shards, self.region.hosted());
        set(&counters.entities, self.host.len());
        set(&counters.buffered, self.region.buffered());
        set(&counters.waiting, self.host.waiting());
    }

    /// Counts a message that goes nowhere, and tells whoever asked.
    fn refuse(&self, ctx: &Context<Self>, parcel: Parcel<A::Msg>, reason: DeadLetterReason) {
        let Some(message) = parcel.message else {
            return;
        };
        let path = ActorPath::new(format!("{}/{}", ctx.path(), parcel.entity));
        let system = ctx.system();
        let kind = type_name::<A::Msg>();
        system.dead_letters().report(&path, reason, kind);
        match reason {
            DeadLetterReason::RefusedFull => Refusal::Full.refuse(message),
            _ => Refusal::Unreachable.refuse(message),
        }
    }
}

impl<A: Actor<Msg: RemoteMessage>> Actor for RegionActor<A> {
    type Msg = RegionMessage<A::Msg>;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        // All children are entities, and there may be a million of them.
        ctx.watch_children();
        if let Some(words) = self.words.take() {
            self.await_words(ctx, words);
        }
        if let Some(mut views) = self.views.take() {
            let view = views.borrow_and_update().clone();
            self.change_view(ctx.now(), view);
            self.await_view(ctx, views);
        }
        self.settle(ctx);
        Ok(())
    }

    async fn handle(
        &mut self,
        RegionMessage(command): Self::Msg,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Deliver {
                entity,
                hops,
                message,
                under_way,
            } => {
                let parcel = Parcel {
                    entity,
                    message: Some(message),
                    under_way,
                };
                self.delivered(ctx, hops, parcel);
            }
            Command::Wake { entity, hops } => {
                let parcel = Parcel {
                    entity,
                    message: None,
                    under_way: None,
                };
                self.delivered(ctx, hops, parcel);
            }
            Command::Query { query, reply_to } => self.answer(query, reply_to),
            Command::Follow {
                newer_than,
                reply_to,
            } => self.follow(ctx, newer_than, reply_to),
            Command::Protocol(message) => {
                self.protocol(ctx.now(), message);
                self.settle(ctx);
            }
            Command::Local(local) => {
                self.local(ctx, local);
                self.settle(ctx);
            }
        }
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.host.ended(ctx, who.uid, who.reason);
        self.settle(ctx);
        Ok(())
    }
}
