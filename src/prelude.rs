//! Prelude: what most programs that use Otava name, for `use otava::prelude::*`.

pub use crate::{
    Actor, ActorRef, ActorSystem, AskError, Client, Context, Effect, EntityOptions, EntityRef,
    EventSourced, Node, PersistentEntity, Props, RemoteMessage, ReplyTo, Supervision, TellError,
    Terminated, actor, protocol,
};
pub use serde::{Deserialize, Serialize};
