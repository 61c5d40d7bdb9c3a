//! Host: the entities that run on this node, as children of the region.

use crate::entity::{EntityContext, FencedHandle};
use crate::logic::epoch::Epoch;
use crate::logic::name::actor_name;
use otava_actor::{Actor, ActorPath, ActorRef, Context, DeadLetterReason, Props, TellError};
use std::any::type_name;
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Makes the recipe of an entity.
pub(crate) type Factory<A> = Box<dyn Fn(EntityContext) -> Props<A> + Send>;

/// What the host needs to know once.
pub(crate) struct Place {
    pub(crate) kind: Arc<str>,
    /// Messages that may wait for one entity that is ending.
    pub(crate) waiting_max: usize,
    pub(crate) fences: mpsc::UnboundedSender<(u32, Epoch)>,
}

/// All entities of a kind on this node.
pub(crate) struct Host<A: Actor> {
    place: Place,
    factory: Factory<A>,
    shards: HashMap<u32, Shard<A::Msg>>,
    by_uid: HashMap<u64, (u32, Arc<str>)>,
}

struct Shard<M> {
    epoch: Epoch,
    scope: Arc<str>,
    fenced: FencedHandle,
    entities: HashMap<Arc<str>, Entity<M>>,
    /// Its entities are ending for good.
    stopping: bool,
}

struct Entity<M> {
    actor: ActorRef<M>,
    /// What came when it was ending by itself: for the next instance.
    waiting: VecDeque<M>,
}

impl<A: Actor> Host<A> {
    pub(crate) fn new(place: Place, factory: Factory<A>) -> Self {
        Self {
            place,
            factory,
            shards: HashMap::new(),
            by_uid: HashMap::new(),
        }
    }

    /// How many entities run or end.
    pub(crate) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// Gives the message to its entity, which is started if it does not run.
    pub(crate) fn deliver<R: Actor>(
        &mut self,
        ctx: &mut Context<R>,
        (shard, epoch): (u32, Epoch),
        id: Arc<str>,
        message: A::Msg,
    ) {
        let waiting_max = self.place.waiting_max;
        let here = self.shard(shard, epoch);
        let Some(entity) = here.entities.get_mut(&id) else {
            return self.start(ctx, shard, id, VecDeque::from([message]));
        };
        let refused = if entity.actor.is_stopped() {
            Err(TellError::Stopped(message))
        } else {
            entity.actor.tell(message)
        };
        if let Err(TellError::Stopped(message)) = refused {
            if entity.waiting.len() < waiting_max {
                entity.waiting.push_back(message);
            } else {
                let path = entity.actor.path().clone();
                report::<R, A>(ctx, &path, DeadLetterReason::RefusedFull);
            }
        }
        // Any other refusal was counted by the entity's mailbox.
    }

    /// Ends all entities of the shard; whether that is done, because there were none.
    pub(crate) fn stop(&mut self, shard: u32, after_queued: bool) -> bool {
        let Some(here) = self.shards.get_mut(&shard) else {
            return true;
        };
        here.stopping = true;
        for entity in here.entities.values_mut() {
            if after_queued {
                entity.actor.stop_after_queued();
            } else {
                entity.waiting.clear();
                entity.actor.stop();
            }
        }
        self.is_over(shard)
    }

    /// An actor has ended. Returns the shard whose last entity that was, if the shard is to end.
    pub(crate) fn ended<R: Actor>(&mut self, ctx: &mut Context<R>, uid: u64) -> Option<u32> {
        let (shard, id) = self.by_uid.remove(&uid)?;
        let here = self.shards.get_mut(&shard)?;
        let entity = here.entities.remove(&id)?;
        let stopping = here.stopping;
        if !entity.waiting.is_empty() {
            self.start(ctx, shard, id.clone(), entity.waiting);
            let here = self.shards.get(&shard)?;
            if let Some(entity) = here.entities.get(&id).filter(|_| stopping) {
                entity.actor.stop_after_queued();
            }
        }
        (stopping && self.is_over(shard)).then_some(shard)
    }

    fn is_over(&mut self, shard: u32) -> bool {
        let empty = |here: &Shard<A::Msg>| here.entities.is_empty();
        let over = self.shards.get(&shard).is_none_or(empty);
        if over {
            self.shards.remove(&shard);
        }
        over
    }

    fn shard(&mut self, shard: u32, epoch: Epoch) -> &mut Shard<A::Msg> {
        let place = &self.place;
        let make = || Shard {
            epoch,
            scope: scope(&place.kind, shard),
            fenced: FencedHandle::new(shard, epoch, place.fences.clone()),
            entities: HashMap::new(),
            stopping: false,
        };
        let here = self.shards.entry(shard).or_insert_with(make);
        if here.epoch != epoch && here.entities.is_empty() {
            *here = make();
        }
        here
    }

    fn start<R: Actor>(
        &mut self,
        ctx: &mut Context<R>,
        shard: u32,
        id: Arc<str>,
        messages: VecDeque<A::Msg>,
    ) {
        let Some(here) = self.shards.get_mut(&shard) else {
            return;
        };
        let context = EntityContext {
            kind: self.place.kind.clone(),
            id: id.clone(),
            shard,
            epoch: here.epoch.as_u64(),
            scope: here.scope.clone(),
            fenced: here.fenced.clone(),
        };
        let factory = &self.factory;
        let props = catch_unwind(AssertUnwindSafe(|| factory(context)));
        let spawned = match props {
            Ok(props) => ctx
                .spawn_with(&actor_name(&id), props)
                .map_err(|error| error.to_string()),
            Err(_) => Err("its factory panicked".to_owned()),
        };
        let actor = match spawned {
            Ok(actor) => actor,
            Err(error) => {
                let kind = &self.place.kind;
                tracing::warn!(%kind, %id, error, "an entity was not started");
                let path = ActorPath::new(format!("{}/{}", ctx.path(), actor_name(&id)));
                for _ in messages {
                    report::<R, A>(ctx, &path, DeadLetterReason::Unreachable);
                }
                return;
            }
        };
        ctx.watch(&actor);
        for message in messages {
            // A refusal was counted by the entity's mailbox.
            let _ = actor.tell(message);
        }
        self.by_uid.insert(actor.uid(), (shard, id.clone()));
        let waiting = VecDeque::new();
        here.entities.insert(id, Entity { actor, waiting });
    }
}

/// What an allocation of the shard is claimed for.
pub(crate) fn scope(kind: &str, shard: u32) -> Arc<str> {
    format!("{kind}/{shard}").into()
}

fn report<R: Actor, A: Actor>(ctx: &Context<R>, path: &ActorPath, reason: DeadLetterReason) {
    let system = ctx.system();
    system
        .dead_letters()
        .report(path, reason, type_name::<A::Msg>());
}
