//! Topic hub: the actor of a topic on one node, which gives each message to the subscribers there.

use crate::logic::topic::PLAIN;
use crate::topic::lock;
use otava_actor::{Actor, ActorPath, ActorRef, Context, TellError};
use otava_remote::RemoteMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The message type of a topic's actor on each node. Opaque: it is made by
/// [`crate::topic::Topic::publish`].
#[derive(Deserialize, Serialize)]
#[serde(bound(serialize = "M: Serialize", deserialize = "M: Deserialize<'de>"))]
pub struct TopicMessage<M>(pub(super) Command<M>);

#[derive(Deserialize, Serialize)]
#[serde(bound(serialize = "M: Serialize", deserialize = "M: Deserialize<'de>"))]
pub(super) enum Command<M> {
    Deliver {
        /// For the plain subscribers.
        plain: bool,
        /// For one member of each of these groups.
        groups: Vec<u64>,
        message: M,
    },
}

impl<M: RemoteMessage> RemoteMessage for TopicMessage<M> {
    const NAME: &'static str = "otava.topic.Message";
}

impl<M> fmt::Debug for TopicMessage<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicMessage(..)")
    }
}

type Id = (ActorPath, u64);

/// Who hears of a topic on this node: the plain ones, and the members of each group.
pub(super) struct Subscribers<M> {
    sets: BTreeMap<u64, Set<M>>,
}

struct Set<M> {
    actors: BTreeMap<Id, ActorRef<M>>,
    turn: usize,
}

impl<M> Subscribers<M> {
    pub(super) fn new() -> Self {
        Self {
            sets: BTreeMap::new(),
        }
    }

    pub(super) fn contains(&self, set: u64, id: &Id) -> bool {
        let set = self.sets.get(&set);
        set.is_some_and(|set| set.actors.contains_key(id))
    }

    pub(super) fn has(&self, set: u64) -> bool {
        self.sets.contains_key(&set)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub(super) fn insert(&mut self, set: u64, id: Id, actor: ActorRef<M>) {
        let set = self.sets.entry(set).or_insert_with(|| Set {
            actors: BTreeMap::new(),
            turn: 0,
        });
        set.actors.insert(id, actor);
    }

    pub(super) fn remove(&mut self, number: u64, id: &Id) -> Option<ActorRef<M>> {
        let set = self.sets.get_mut(&number)?;
        let removed = set.actors.remove(id);
        if set.actors.is_empty() {
            self.sets.remove(&number);
        }
        removed
    }

    /// The plain ones.
    fn plain(&self) -> Vec<ActorRef<M>> {
        let plain = self.sets.get(&PLAIN);
        plain.map_or_else(Vec::new, |set| set.actors.values().cloned().collect())
    }

    /// The members of a group, in the order in which they are tried this time.
    fn round(&mut self, group: u64) -> Vec<ActorRef<M>> {
        let Some(set) = self.sets.get_mut(&group).filter(|_| group != PLAIN) else {
            return Vec::new();
        };
        let mut members: Vec<_> = set.actors.values().cloned().collect();
        let first = set.turn % members.len().max(1);
        set.turn = set.turn.wrapping_add(1);
        members.rotate_left(first);
        members
    }
}

pub(super) struct Hub<M> {
    subscribers: Arc<Mutex<Subscribers<M>>>,
}

impl<M> Hub<M> {
    pub(super) fn new(subscribers: Arc<Mutex<Subscribers<M>>>) -> Self {
        Self { subscribers }
    }
}

impl<M: RemoteMessage + Clone> Actor for Hub<M> {
    type Msg = TopicMessage<M>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        TopicMessage(command): TopicMessage<M>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let Command::Deliver {
            plain,
            groups,
            message,
        } = command;
        for group in groups {
            let members = lock(&self.subscribers).round(group);
            let mut copy = message.clone();
            for member in members {
                copy = match member.tell(copy) {
                    Err(TellError::Full(back) | TellError::Stopped(back)) => back,
                    // Taken, or not to be sent to anybody.
                    _ => break,
                };
            }
        }
        if plain {
            let plain = lock(&self.subscribers).plain();
            for subscriber in plain {
                // What is refused is counted by the mailbox.
                let _ = subscriber.tell(message.clone());
            }
        }
        Ok(())
    }
}
