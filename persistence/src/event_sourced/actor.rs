//! Event-sourced actor: lets an actor run an entity, and stops it when the journal refuses it.

use crate::event_sourced::EventSourced;
use crate::event_sourced::entity::{Entity, EntityError, Next, Place};
use otava_actor::{Actor, Context};
use std::sync::Arc;

/// The actor around an [`EventSourced`] state. Made by [`crate::event_sourced()`].
///
/// # Failure
/// It fails when its state cannot be recovered, and when the journal cannot write: nothing is tried
/// again, the next instance reads what happened. It stops, and its shard is told, when the journal
/// says that it is no longer the owner.
pub struct EventSourcedActor<E: EventSourced> {
    entity: Entity<E>,
    on_fenced: Arc<dyn Fn() + Send + Sync>,
}

impl<E: EventSourced> EventSourcedActor<E> {
    pub(super) fn new(place: Place, empty: E, on_fenced: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            entity: Entity::new(place, empty),
            on_fenced,
        }
    }
}

impl<E: EventSourced> Actor for EventSourcedActor<E> {
    type Msg = E::Command;
    type Err = EntityError;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), EntityError> {
        self.entity.recover().await
    }

    async fn handle(
        &mut self,
        command: E::Command,
        ctx: &mut Context<Self>,
    ) -> Result<(), EntityError> {
        let next = self.entity.handle(command).await?;
        let id = &self.entity.place().id;
        match next {
            Next::Continue => return Ok(()),
            Next::Stop => {}
            Next::Fenced { current } => {
                let fence = &self.entity.place().fence;
                tracing::warn!(%id, ?fence, current, "another owner has taken over: this one stops");
                (self.on_fenced)();
            }
            Next::Overtaken { expected, actual } => {
                tracing::error!(%id, expected, actual, "somebody else has written: this one stops");
            }
        }
        ctx.stop_self();
        Ok(())
    }
}
