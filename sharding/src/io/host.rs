//! Host: the entities that run on this node, as children of the region.
//!
//! What becomes of an entity is decided by [`Lives`], what is said to the store of remembered ones by
//! [`Remembering`]; here are the names, the actors, and the way to the store.

use crate::config::ShardingConfig;
use crate::entity::{EntityContext, EntityLine, FencedHandle, Memory, Passivate, Word};
use crate::io::doors::{Doors, UnderWay};
use crate::io::memory::{Recall, ask};
use crate::io::rights::scope;
use crate::logic::epoch::Epoch;
use crate::logic::hash::{hash_of, shard_of};
use crate::logic::layout::Layout;
use crate::logic::lives::{Kept, Lives, Output, Put};
use crate::logic::name::actor_name;
use crate::logic::remembering::{Outcome, Remembering, Retry};
use crate::message::RegionMessage;
use crate::query::ShardStats;
use crate::remember::{Remember, RememberStore, RememberedShard, is_valid_id};
use otava_actor::{
    Actor, ActorPath, ActorRef, Context, DeadLetterReason, Ended, Props, Refusal, Rng, TellError,
    Time,
};
use std::any::type_name;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The most entities that are named when a shard goes without them.
const NAMED_MAX: usize = 5;

/// Makes the recipe of an entity.
pub(crate) type Factory<A> = Box<dyn Fn(EntityContext) -> Props<A> + Send>;

/// What the host needs to know once.
pub(crate) struct Place {
    pub(crate) kind: Arc<str>,
    pub(crate) words: mpsc::UnboundedSender<Word>,
    layout: Layout,
    retry: Retry,
    within: Duration,
    stop_within: Duration,
    only_fixed: bool,
}

/// Who lives without messages.
enum Keeping {
    /// All of them, and by shard.
    Fixed(Arc<[Arc<str>]>, BTreeMap<u32, Vec<Arc<str>>>),
    Nobody,
    Started(Arc<dyn RememberStore>),
}

/// What the region has to do after a call.
pub(crate) enum Left<M> {
    /// This waited for an entity of a shard that leaves: it goes where the shard goes.
    Back(Arc<str>, M),
    /// So many messages went past the region to entities of the shard.
    Counted(u32, u64),
    /// The store has seen a later allocation.
    Fenced(u32, Epoch),
    /// All entities of the shard have ended, or had their time.
    Over(u32),
}

/// All entities of a kind on this node.
pub(crate) struct Host<A: Actor> {
    place: Place,
    factory: Factory<A>,
    keeping: Keeping,
    lives: Lives<ActorRef<A::Msg>, A::Msg>,
    shards: HashMap<u32, Shard>,
    by_uid: HashMap<u64, u32>,
    /// When the time of shards that leave is over.
    ends: BTreeSet<(Time, u32)>,
    doors: Arc<Doors<A::Msg>>,
    left: VecDeque<Left<A::Msg>>,
    rng: Rng,
}

struct Shard {
    epoch: Epoch,
    scope: Arc<str>,
    fenced: FencedHandle,
    /// Where each entity's life is.
    names: HashMap<Arc<str>, u32>,
    memory: Option<Remembering>,
    /// Its entities are ending for good, and have time until then.
    until: Option<Time>,
    /// Messages that were given to its entities.
    handled: u64,
}

impl<A: Actor> Host<A> {
    pub(crate) fn new(
        kind: Arc<str>,
        config: &ShardingConfig,
        (words, doors): (mpsc::UnboundedSender<Word>, Arc<Doors<A::Msg>>),
        factory: Factory<A>,
        mut rng: Rng,
    ) -> Self {
        let place = Place {
            kind,
            words,
            layout: Layout::first(config.shards),
            retry: config.retry(),
            within: config.remember_within,
            stop_within: config.stop_within,
            only_fixed: config.only_fixed,
        };
        let keeping = match &config.remember {
            Remember::Nothing => Keeping::Nobody,
            Remember::Started(store) => Keeping::Started(store.clone()),
            Remember::Fixed(ids) => Keeping::Fixed(ids.clone(), by_shard(ids, config.shards)),
        };
        Self {
            place,
            factory,
            keeping,
            lives: Lives::new(config.lives(), rng.fork()),
            shards: HashMap::new(),
            by_uid: HashMap::new(),
            ends: BTreeSet::new(),
            doors,
            left: VecDeque::new(),
            rng,
        }
    }

    /// Shards are counted by this layout from now on. None of the one before is here any more.
    pub(crate) fn count_by(&mut self, layout: Layout) {
        self.place.layout = layout;
        if let Keeping::Fixed(ids, by) = &mut self.keeping {
            *by = by_shard(ids, layout.shards);
        }
    }

    /// How many entities run or end.
    pub(crate) fn len(&self) -> usize {
        self.lives.instances()
    }

    /// How many messages wait for their entities.
    pub(crate) fn waiting(&self) -> usize {
        self.lives.waiting()
    }

    /// What is to be done after the last call.
    pub(crate) fn poll_left(&mut self) -> Option<Left<A::Msg>> {
        self.left.pop_front()
    }

    /// When to call [`Host::handle_timeout`], as far as entities are concerned.
    pub(crate) fn next(&self) -> Time {
        let lives = self.lives.poll_timeout().unwrap_or(Time::MAX);
        self.ends.first().map_or(lives, |(at, _)| lives.min(*at))
    }

    /// When to call [`Host::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Time {
        if !matches!(self.keeping, Keeping::Started(_)) {
            return self.next();
        }
        let memories = self.shards.values().filter_map(|here| here.memory.as_ref());
        let next = memories.filter_map(Remembering::poll_timeout).min();
        next.unwrap_or(Time::MAX).min(self.next())
    }

    /// What is known of each shard that is here.
    pub(crate) fn stats(&self) -> BTreeMap<u32, ShardStats> {
        let stats = self.shards.iter().map(|(shard, here)| {
            let entities = here.names.len() as u64;
            (*shard, ShardStats::new(entities, here.handled))
        });
        stats.collect()
    }

    /// A message comes back to the region.
    pub(crate) fn under_way(&self, hash: u64) -> UnderWay<A::Msg> {
        self.doors.under_way(hash)
    }

    /// Takes note of what went past the region. How many messages that were, by shard.
    pub(crate) fn catch_up(&mut self) -> BTreeMap<u32, u64> {
        let mut uses = self.doors.collect();
        self.lives.catch_up(&mut uses);
        let mut counts = BTreeMap::new();
        for of in uses {
            if let Some((shard, _)) = self.lives.name(of.place) {
                *counts.entry(shard).or_default() += of.count;
            }
        }
        for (shard, count) in &counts {
            if let Some(here) = self.shards.get_mut(shard) {
                here.handled += count;
            }
        }
        counts
    }

    /// As [`Host::catch_up`], if somebody would be stopped.
    fn catch_up_before_victims(&mut self, now: Time) {
        if self.lives.has_victim(now) {
            let counts = self.catch_up().into_iter();
            self.left
                .extend(counts.map(|(shard, count)| Left::Counted(shard, count)));
        }
    }

    /// The ids of entities of a shard, sorted, at most `limit` from behind `after` on; `None` if the shard
    /// is not here.
    pub(crate) fn ids(&self, shard: u32, after: &str, limit: usize) -> Option<Vec<Arc<str>>> {
        let here = self.shards.get(&shard)?;
        let mut ids: Vec<&Arc<str>> = here.names.keys().filter(|id| &***id > after).collect();
        if ids.len() > limit {
            ids.select_nth_unstable(limit);
            ids.truncate(limit);
        }
        ids.sort_unstable();
        Some(ids.into_iter().cloned().collect())
    }

    fn report<R: Actor>(&self, ctx: &Context<R>, id: &str, why: Refusal, message: A::Msg) {
        let reason = match why {
            Refusal::Full => DeadLetterReason::RefusedFull,
            _ => DeadLetterReason::Unreachable,
        };
        let path = ActorPath::new(format!("{}/{}", ctx.path(), actor_name(id)));
        let system = ctx.system();
        let letters = system.dead_letters();
        letters.report(&path, reason, type_name::<A::Msg>());
        why.refuse(message);
    }
}

impl<A: Actor> Host<A> {
    /// Gives the message to its entity, which is started if it does not run; without a message it is
    /// only started.
    pub(crate) fn deliver<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        (shard, epoch): (u32, Epoch),
        id: &Arc<str>,
        message: Option<A::Msg>,
    ) {
        self.open(ctx, shard, epoch);
        let Some(here) = self.shards.get_mut(&shard) else {
            return;
        };
        let place = match here.names.get(id) {
            Some(place) => *place,
            None if self.place.only_fixed => {
                if let Some(message) = message {
                    self.report(ctx, id, Refusal::Unreachable, message);
                }
                return;
            }
            None => {
                let kept = match &self.keeping {
                    Keeping::Started(_) => Kept::Remembered,
                    Keeping::Fixed(..) | Keeping::Nobody => Kept::No,
                };
                let place = self.lives.insert(shard, id.clone(), kept);
                here.names.insert(id.clone(), place);
                place
            }
        };
        let now = ctx.now();
        let Some(message) = message else {
            self.lives.wake(now, place);
            return self.pump(ctx);
        };
        here.handled += 1;
        let back = match self.lives.message(now, place, message) {
            Put::Tell(actor, message) => {
                let told = if actor.is_stopped() {
                    Err(TellError::Stopped(message))
                } else {
                    actor.tell(message)
                };
                match told {
                    Ok(()) => return,
                    Err(TellError::Stopped(message)) => {
                        let waits = self.lives.refused(place, message);
                        waits.err().map(|message| (Refusal::Full, message))
                    }
                    Err(refused) => {
                        // Counted by the entity's mailbox.
                        Refusal::Full.refuse(refused.into_message());
                        None
                    }
                }
            }
            Put::Waits => None,
            Put::Full(message) => Some((Refusal::Full, message)),
            Put::NotStarted(message) => Some((Refusal::NotStarted, message)),
        };
        if let Some((why, message)) = back {
            self.report(ctx, id, why, message);
        }
        self.pump(ctx);
    }

    /// The shard runs here from now on: whoever is remembered starts.
    pub(crate) fn open<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        shard: u32,
        epoch: Epoch,
    ) {
        let known = self.shards.get(&shard);
        if known.is_some_and(|here| here.epoch == epoch || !here.names.is_empty()) {
            return;
        }
        let memory = match &self.keeping {
            Keeping::Started(_) => Some(Remembering::new(self.place.retry, self.rng.fork())),
            Keeping::Fixed(..) | Keeping::Nobody => None,
        };
        let mut names = HashMap::new();
        if let Keeping::Fixed(_, ids) = &self.keeping {
            for id in ids.get(&shard).into_iter().flatten() {
                let place = self.lives.insert_in_line(shard, id.clone(), Kept::Always);
                names.insert(id.clone(), place);
            }
        }
        let here = Shard {
            epoch,
            scope: scope(&self.place.kind, self.place.layout.scope(shard)),
            fenced: FencedHandle::new(shard, epoch, self.place.words.clone()),
            names,
            memory,
            until: None,
            handled: 0,
        };
        self.shards.insert(shard, here);
        self.request(ctx, shard);
        self.handle_due(ctx.now());
        self.pump(ctx);
    }

    /// Ends all entities of the shard, which have a limited time for it; what waited for them comes back
    /// ([`Host::poll_left`]).
    pub(crate) fn stop<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        shard: u32,
        after_queued: bool,
    ) {
        let Some(here) = self.shards.get_mut(&shard) else {
            return self.left.push_back(Left::Over(shard));
        };
        let until = ctx.now() + self.place.stop_within;
        self.ends.insert((*here.until.get_or_insert(until), shard));
        match &mut here.memory {
            Some(memory) if after_queued => memory.close(),
            // Somebody else has it by now: what is to be forgotten is theirs to see.
            memory => *memory = None,
        }
        let names = here.names.iter().map(|(id, place)| (*place, id.clone()));
        let mut names: Vec<(u32, Arc<str>)> = names.collect();
        names.sort_unstable_by_key(|(place, _)| *place);
        for (place, id) in names {
            let waited = self.lives.leave(place);
            let back = waited.into_iter();
            self.left
                .extend(back.map(|message| Left::Back(id.clone(), message)));
            match self.lives.instance(place) {
                Some(actor) if after_queued => actor.stop_after_queued(),
                Some(actor) => actor.stop(),
                None => {}
            }
        }
        self.request(ctx, shard);
        self.pump(ctx);
        self.end_shard(shard);
    }

    /// An actor has ended.
    pub(crate) fn ended<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        uid: u64,
        reason: Ended,
    ) {
        if let Some(place) = self.by_uid.remove(&uid) {
            self.shut(place);
            let failed = reason != Ended::Stopped;
            self.lives.ended(ctx.now(), place, failed);
            self.pump(ctx);
        }
    }

    /// An entity has said something about itself.
    pub(crate) fn heard<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        line: &EntityLine,
    ) {
        let (bytes, passivate) = line.take();
        let (place, instance) = (line.place, line.instance);
        self.lives.weigh(place, instance, bytes);
        if passivate {
            self.lives.passivate(place, instance);
        }
        self.passivate_victims(ctx.now());
        self.pump(ctx);
    }

    fn passivate_victims(&mut self, now: Time) {
        self.catch_up_before_victims(now);
        self.lives.passivate_victims(now);
    }

    fn handle_due(&mut self, now: Time) {
        self.catch_up_before_victims(now);
        self.lives.handle_timeout(now);
    }

    /// The instance at `place` has ended.
    fn shut(&mut self, place: u32) {
        let Some((shard, id)) = self.lives.name(place) else {
            return;
        };
        let Some(of) = self.doors.shut(hash_of(id), place) else {
            return;
        };
        if let Some(here) = self.shards.get_mut(&shard) {
            here.handled += of.count;
        }
        self.left.push_back(Left::Counted(shard, of.count));
    }

    /// The store of remembered entities has answered.
    pub(crate) fn recalled<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        recall: Recall,
    ) {
        let Recall {
            shard,
            epoch,
            number,
            answer,
        } = recall;
        let here = self.shards.get_mut(&shard);
        let Some(here) = here.filter(|here| here.epoch == epoch) else {
            return;
        };
        let Some(memory) = &mut here.memory else {
            return;
        };
        let (now, stopping) = (ctx.now(), here.until.is_some());
        if answer.is_refused() {
            self.left.push_back(Left::Fenced(shard, epoch));
        }
        match memory.answered(now, number, answer.into_answer()) {
            Outcome::Added(ids) => {
                let places = ids.iter().filter_map(|id| here.names.get(id));
                places.for_each(|place| self.lives.remembered(*place));
            }
            Outcome::Loaded(ids) if !stopping => {
                for id in ids {
                    if let Some(place) = here.names.get(&id) {
                        self.lives.remembered(*place);
                    } else if is_valid_id(&id) && shard_of(&id, self.place.layout.shards) == shard {
                        let kept = Kept::Remembered;
                        let place = self.lives.insert_in_line(shard, id.clone(), kept);
                        here.names.insert(id, place);
                    } else {
                        let kind = &self.place.kind;
                        tracing::warn!(%kind, shard, "the store remembers an entity of another shard");
                    }
                }
                self.handle_due(now);
            }
            Outcome::Removed(ids) => {
                let places = ids.iter().filter_map(|id| here.names.get(id));
                places.for_each(|place| self.lives.forgotten(*place));
            }
            Outcome::Loaded(_) | Outcome::Nothing => {}
        }
        self.request(ctx, shard);
        self.pump(ctx);
        self.end_shard(shard);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
    ) {
        let now = ctx.now();
        self.handle_due(now);
        self.handle_overdue(now);
        self.pump(ctx);
        if !matches!(self.keeping, Keeping::Started(_)) {
            return;
        }
        let due = self.shards.iter().filter(|(_, here)| {
            let memory = here.memory.as_ref();
            let next = memory.and_then(Remembering::poll_timeout);
            next.is_some_and(|next| next <= now)
        });
        let mut due: Vec<u32> = due.map(|(shard, _)| *shard).collect();
        due.sort_unstable();
        due.into_iter().for_each(|shard| self.request(ctx, shard));
    }

    /// Carries out what was decided.
    fn pump<R: Actor<Msg = RegionMessage<A::Msg>>>(&mut self, ctx: &mut Context<R>) {
        while let Some(output) = self.lives.poll_output() {
            match output {
                Output::Start(place) => self.start(ctx, place),
                Output::Stop(place) => {
                    if let Some(actor) = self.lives.instance(place) {
                        actor.stop_after_queued();
                    }
                }
                Output::Remember(place) => self.note(ctx, place, Remembering::add),
                Output::Forget(place) => self.note(ctx, place, Remembering::remove),
                Output::Gone { shard, id, place } => {
                    if let Some(here) = self.shards.get_mut(&shard)
                        && here.names.get(&id) == Some(&place)
                    {
                        here.names.remove(&id);
                    }
                    self.end_shard(shard);
                }
            }
        }
    }

    /// Has an entity remembered or forgotten.
    fn note<R: Actor<Msg = RegionMessage<A::Msg>>>(
        &mut self,
        ctx: &mut Context<R>,
        place: u32,
        note: fn(&mut Remembering, Arc<str>),
    ) {
        let Some((shard, id)) = self.lives.name(place) else {
            return;
        };
        let here = self.shards.get_mut(&shard);
        if let Some(memory) = here.and_then(|here| here.memory.as_mut()) {
            note(memory, id.clone());
            self.request(ctx, shard);
        }
    }

    /// Asks the store what the memory of the shard wants to ask.
    fn request<R: Actor<Msg = RegionMessage<A::Msg>>>(&mut self, ctx: &mut Context<R>, shard: u32) {
        let Keeping::Started(store) = &self.keeping else {
            return;
        };
        let Some(here) = self.shards.get_mut(&shard) else {
            return;
        };
        let Some(memory) = &mut here.memory else {
            return;
        };
        if let Some((number, request)) = memory.poll_request(ctx.now()) {
            let of = RememberedShard::new(
                self.place.kind.clone(),
                (shard, self.place.layout.shards),
                here.scope.clone(),
                here.epoch.as_u64(),
            );
            ask(
                ctx,
                store,
                self.place.within,
                (of, here.epoch),
                number,
                request,
            );
        }
    }

    /// If the shard leaves and nothing is left of it, it is over.
    fn end_shard(&mut self, shard: u32) {
        let over = |here: &&Shard| {
            let idle = here.memory.as_ref().is_none_or(Remembering::is_idle);
            here.until.is_some() && here.names.is_empty() && idle
        };
        let here = self.shards.get(&shard).filter(over);
        if let Some(until) = here.and_then(|here| here.until) {
            self.ends.remove(&(until, shard));
            self.shards.remove(&shard);
            self.left.push_back(Left::Over(shard));
        }
    }

    fn handle_overdue(&mut self, now: Time) {
        while let Some((at, shard)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(at, shard));
            self.end_without(at, shard);
        }
    }

    /// The time of a shard that leaves is over: it ends without those that still run.
    ///
    /// Such an entity handles no further message: what is in its mailbox becomes dead letters when it ends.
    /// Until then it keeps its life and its name as an actor, and nothing leads to them. If the shard comes
    /// back earlier, the next instance cannot be started, which its messages are told: even then there
    /// are no two on a node.
    fn end_without(&mut self, at: Time, shard: u32) {
        let here = self.shards.get_mut(&shard);
        let Some(here) = here.filter(|here| here.until == Some(at)) else {
            return;
        };
        here.memory = None;
        let mut late: Vec<(Arc<str>, u32)> = here.names.drain().collect();
        late.sort_unstable();
        for (_, place) in &late {
            self.shut(*place);
            if let Some(actor) = self.lives.instance(*place) {
                actor.stop();
            }
        }
        if !late.is_empty() {
            let (kind, entities) = (&self.place.kind, late.len());
            let some: Vec<&str> = late.iter().map(|(id, _)| &**id).take(NAMED_MAX).collect();
            tracing::warn!(
                %kind, shard, entities, ?some,
                "entities did not end in time: their shard goes on without them"
            );
        }
        self.end_shard(shard);
    }

    fn start<R: Actor>(&mut self, ctx: &mut Context<R>, place: u32) {
        let Some(birth) = self.lives.begin(place) else {
            return;
        };
        let id = birth.id;
        let Some(here) = self.shards.get(&birth.shard) else {
            return;
        };
        let line = EntityLine::new(place, birth.instance, self.place.words.clone());
        let context = EntityContext {
            kind: self.place.kind.clone(),
            id: id.clone(),
            shard: birth.shard,
            epoch: here.epoch.as_u64(),
            scope: here.scope.clone(),
            fenced: here.fenced.clone(),
            passivate: Passivate::new(line.clone()),
            memory: Memory::new(line),
        };
        let factory = &self.factory;
        let props = catch_unwind(AssertUnwindSafe(|| factory(context)));
        let spawned = match props {
            Ok(props) => ctx
                .spawn_with(&actor_name(&id), props)
                .map_err(|error| error.to_string()),
            Err(_) => Err("its factory panicked".to_owned()),
        };
        let now = ctx.now();
        match spawned {
            Ok(actor) => {
                self.by_uid.insert(actor.uid(), place);
                for message in self.lives.started(now, place, actor.clone()) {
                    if let Err(refused) = actor.tell(message) {
                        // Counted by the entity's mailbox.
                        Refusal::Full.refuse(refused.into_message());
                    }
                }
                self.doors.open((hash_of(&id), &id), place, actor);
                self.passivate_victims(now);
            }
            Err(error) => {
                let kind = &self.place.kind;
                tracing::warn!(%kind, %id, error, "an entity was not started");
                for message in self.lives.not_started(now, place) {
                    self.report(ctx, &id, Refusal::NotStarted, message);
                }
            }
        }
    }
}

/// Whoever still has a reference keeps no entities by it.
impl<A: Actor> Drop for Host<A> {
    fn drop(&mut self) {
        self.doors.shut_all();
    }
}

fn by_shard(ids: &[Arc<str>], shards: u32) -> BTreeMap<u32, Vec<Arc<str>>> {
    let mut by_shard: BTreeMap<u32, Vec<Arc<str>>> = BTreeMap::new();
    for id in ids.iter().filter(|id| is_valid_id(id)) {
        let shard = shard_of(id, shards);
        by_shard.entry(shard).or_default().push(id.clone());
    }
    by_shard
}
