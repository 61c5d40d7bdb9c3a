//! Event-sourced actor: lets an actor run an entity, and stops it when it is no longer the owner.

use crate::event_sourced::EventSourced;
use crate::event_sourced::delivering::Deliveries;
use crate::event_sourced::entity::{Entity, EntityError, Fresh, Next, Place};
use crate::id::PersistenceId;
use otava_actor::watch::Terminated;
use otava_actor::{Actor, Context, EventStream};
use std::sync::Arc;

/// The actor around an [`EventSourced`] state. Made by [`crate::event_sourced()`].
///
/// # Failure
/// It fails when its state cannot be recovered, when the journal cannot write, and when somebody else
/// has written: nothing is tried again, the next instance reads what happened. It stops, and its shard
/// is told, when the journal says that it is no longer the owner.
///
/// # Order
/// One command at a time: while the events of a command are on their way to the journal, those that
/// arrive wait in the mailbox, in order.
pub struct EventSourcedActor<E: EventSourced> {
    entity: Entity<E>,
    on_fenced: Arc<dyn Fn() + Send + Sync>,
    publish: Option<PublishTo<E>>,
    deliveries: Deliveries,
}

/// An event that is durable, as the event stream of the actor system has it
/// ([`crate::EventSourcedBuilder::publish_events`]).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Persisted<T> {
    /// Whose event.
    pub id: PersistenceId,
    /// Its sequence number.
    pub seq: u64,
    /// The event.
    pub event: T,
}

pub(super) type PublishTo<E> = fn(&EventStream, &PersistenceId, u64, &<E as EventSourced>::Event);

pub(super) fn publish<E: EventSourced<Event: Clone>>(
    stream: &EventStream,
    id: &PersistenceId,
    seq: u64,
    event: &E::Event,
) {
    let (id, event) = (id.clone(), event.clone());
    stream.publish(Persisted { id, seq, event });
}

/// What each instance of the actor is made of.
pub(super) struct Wiring<E: EventSourced> {
    pub(super) place: Place,
    pub(super) fresh: Fresh<E>,
    pub(super) on_fenced: Arc<dyn Fn() + Send + Sync>,
    pub(super) publish: Option<PublishTo<E>>,
}

impl<E: EventSourced> Clone for Wiring<E> {
    fn clone(&self) -> Self {
        Self {
            place: self.place.clone(),
            fresh: self.fresh.clone(),
            on_fenced: Arc::clone(&self.on_fenced),
            publish: self.publish,
        }
    }
}

impl<E: EventSourced> EventSourcedActor<E> {
    pub(super) fn new(wiring: Wiring<E>) -> Self {
        Self {
            entity: Entity::new(wiring.place, wiring.fresh),
            on_fenced: wiring.on_fenced,
            publish: wiring.publish,
            deliveries: Deliveries::default(),
        }
    }

    /// Does what follows a command or a confirmation, and sends letters on their way.
    fn go_on(&mut self, next: Next, ctx: &mut Context<Self>) {
        let place = &self.entity.place;
        let id = &place.id;
        match next {
            Next::Continue => {
                self.deliveries.start(&self.entity.post.outbox, place, ctx);
                return;
            }
            Next::Stop => {}
            Next::Fenced { current } => {
                let fence = &place.fence;
                tracing::warn!(%id, ?fence, current, "another owner has taken over: this one stops");
                (self.on_fenced)();
            }
        }
        ctx.stop_self();
    }
}

impl<E: EventSourced> Actor for EventSourcedActor<E> {
    type Msg = E::Command;
    type Err = EntityError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), EntityError> {
        if let Some(publish) = self.publish {
            let (stream, id) = (ctx.system().event_stream(), self.entity.place.id.clone());
            self.entity.publish = Some(Box::new(move |seq, event| {
                publish(&stream, &id, seq, event);
            }));
        }
        self.entity.recover().await?;
        let outbox = &self.entity.post.outbox;
        if self.entity.place.courier.is_none() && !outbox.is_empty() {
            let (id, letters) = (&self.entity.place.id, outbox.len());
            tracing::warn!(%id, letters, "letters wait, and no courier was given");
        }
        self.go_on(Next::Continue, ctx);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: E::Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), EntityError> {
        let next = self.entity.handle(command).await?;
        self.go_on(next, ctx);
        Ok(())
    }

    /// A child that delivered letters is done.
    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), EntityError> {
        let confirmed = self.deliveries.ended(&who);
        let next = self.entity.confirm(confirmed).await?;
        self.go_on(next, ctx);
        Ok(())
    }
}
