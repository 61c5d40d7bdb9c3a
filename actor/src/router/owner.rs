//! Owner: how the actor of a pool or group is started, and how its end reaches those who wait.

use super::handle::Shared;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::cell::Node;
use crate::context::Context;
use crate::error::SpawnError;
use crate::props::Props;
use crate::sync::lock;
use crate::system::Core;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// Spawns an actor that `build` makes when its context is there and its life has not begun: what
/// `build` starts with that context exists when this returns.
pub(super) fn spawn_owner<O: Actor>(
    core: &Arc<Core>,
    parent: Option<Arc<dyn Node>>,
    name: &str,
    build: impl FnOnce(&mut Context<O>) -> O,
) -> Result<ActorRef<O::Msg>, SpawnError> {
    let seat = Arc::new(Mutex::new(None));
    let taken = seat.clone();
    let props = Props::new(move || {
        let owner = lock(&taken).take();
        owner.expect("it was built before its life began, and is not restarted")
    });
    core.spawn_into(parent, Some(name), props, |ctx| {
        let owner = build(ctx);
        *lock(&seat) = Some(owner);
    })
}

/// Closes the router when it is dropped. It is an idle actor below the owner, so it ends as soon as
/// the owner is asked to stop: before the routees have ended, of whom one may itself be waiting for
/// room at this router.
pub(super) struct Sentinel<M: Send + 'static>(Arc<Shared<M>>);

impl<M: Send + 'static> Sentinel<M> {
    pub(super) fn spawn<O: Actor>(shared: &Arc<Shared<M>>, ctx: &Context<O>) {
        // An error would mean that the owner is stopping; then the sentinel is dropped, and closes.
        let _ = ctx.spawn_anonymous(Props::once(Self(shared.clone())));
    }
}

impl<M: Send + 'static> Drop for Sentinel<M> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<M: Send + 'static> Actor for Sentinel<M> {
    type Msg = Infallible;
    type Err = Infallible;

    async fn handle(&mut self, never: Infallible, _: &mut Context<Self>) -> Result<(), Infallible> {
        match never {}
    }
}
