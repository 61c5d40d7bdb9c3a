//! Prelude: what most programs that use Otava name, for `use otava::prelude::*`.

pub use crate::{
    Actor, ActorRef, ActorSystem, AskError, Backoff, Client, Context, Effect, EntityOptions,
    EntityRef, EventSourced, Fault, Node, PersistentEntity, Pool, Props, RemoteMessage, ReplyTo,
    Routing, ServiceKey, SpawnError, Stash, Supervision, TellError, Terminated, actor, protocol,
};
pub use serde::{Deserialize, Serialize};
