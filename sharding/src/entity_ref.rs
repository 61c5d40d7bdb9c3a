//! EntityRef: a reference to one entity, and the ways in which its messages go.

use crate::io::doors::{Doors, UnderWay, Way};
use crate::logic::hash::hash_of;
use crate::message::{Command, RegionMessage};
use otava_actor::protocol::Recipient;
use otava_actor::{ActorRef, Ask, Asked, Question, ReplyTo, TellError, Time, Went};
use otava_remote::RemoteMessage;
use std::fmt;
use std::sync::Arc;

/// Where messages for entities of a kind enter sharding.
pub(crate) struct Entrance<M> {
    pub(crate) region: ActorRef<RegionMessage<M>>,
    /// Those of entities beside the region, if that is on this node.
    pub(crate) doors: Option<Arc<Doors<M>>>,
}

impl<M: RemoteMessage> Entrance<M> {
    /// Gives a message that is sent `now` to an entity past the region.
    ///
    /// # Errors
    /// It has to go through the region.
    fn past(
        &self,
        (hash, id): (u64, &str),
        message: M,
        question: Option<&Question>,
        now: Option<Time>,
    ) -> Result<(), Through<M>> {
        let Some(doors) = &self.doors else {
            return Err((message, None));
        };
        let now = || {
            now.or_else(|| self.region.clock_time())
                .unwrap_or(Time::ZERO)
        };
        let entity = match doors.way_to((hash, id), now) {
            Way::Past(entity) => entity,
            Way::Through(under_way) => return Err((message, Some(under_way))),
        };
        entity.tell_uncounted(message, question).map_err(|refused| {
            let under_way = doors.under_way(hash);
            (refused.into_message(), Some(under_way))
        })
    }

    /// Gives what arrives from another region or a client to its entity past the region, if it is for
    /// one. It is of no use from `expires` on. Returns what has to go to the region.
    pub(crate) fn arrived(
        &self,
        RegionMessage(command): RegionMessage<M>,
        expires: Option<Time>,
    ) -> Option<RegionMessage<M>> {
        let Command::Deliver {
            entity,
            hops,
            message,
            ..
        } = command
        else {
            return Some(RegionMessage(command));
        };
        let (question, hash) = (expires.map(Question::expiring), hash_of(&entity));
        let past = self.past((hash, &entity), message, question.as_ref(), None);
        let (message, under_way) = past.err()?;
        Some(RegionMessage(Command::Deliver {
            entity,
            hops,
            message,
            under_way,
        }))
    }
}

impl<M> Clone for Entrance<M> {
    fn clone(&self) -> Self {
        Self {
            region: self.region.clone(),
            doors: self.doors.clone(),
        }
    }
}

/// A reference to one entity, wherever it lives and whether it runs or not.
///
/// It may stand in messages, as a field of its own or beside other references. Where it is read, it leads
/// through that node's region, so the kind must be started there, or a client of it; else the message is
/// not understood.
///
/// # Delivery
/// At most once. Messages from one sender to one entity are handled in order, also while its shard
/// moves as planned; a failure may lose some. Messages wait while the shard has no home, but no more
/// than the configured number; those beyond become dead letters, and who asked learns it at once.
pub struct EntityRef<M>(Arc<Inner<M>>);

struct Inner<M> {
    entrance: Entrance<M>,
    kind: Arc<str>,
    id: Arc<str>,
    hash: u64,
}

impl<M> EntityRef<M> {
    /// The entity `id`, reached through `entrance`.
    pub(crate) fn new(entrance: Entrance<M>, kind: Arc<str>, id: Arc<str>) -> Self {
        Self(Arc::new(Inner {
            hash: hash_of(&id),
            entrance,
            kind,
            id,
        }))
    }

    pub(crate) fn kind_arc(&self) -> &Arc<str> {
        &self.0.kind
    }

    pub(crate) fn id_arc(&self) -> &Arc<str> {
        &self.0.id
    }

    fn region(&self) -> &ActorRef<RegionMessage<M>> {
        &self.0.entrance.region
    }
}

impl<M: RemoteMessage> EntityRef<M> {
    /// The entity's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Starts the entity without a message for it, if it does not run.
    ///
    /// # Delivery
    /// At most once, as a message that is told.
    ///
    /// # Errors
    /// If this node's region has no room or is gone.
    pub fn start(&self) -> Result<(), TellError<()>> {
        let wake = RegionMessage(Command::Wake {
            entity: self.0.id.clone(),
            hops: 0,
        });
        self.region()
            .tell(wake)
            .map_err(|refused| refused.map(drop))
    }

    /// Queues `message` without waiting.
    ///
    /// # Errors
    /// The message comes back if this node's region has no room or is gone.
    pub fn tell(&self, message: M) -> Result<(), TellError<M>> {
        let (message, under_way) = match self.past(message, None, None) {
            Ok(()) => return Ok(()),
            Err(through) => through,
        };
        let told = self.region().tell(self.deliver(message, under_way));
        told.map_err(|refused| refused.map(RegionMessage::into_delivered))
    }

    /// Queues `message`, and waits for room at this node's region if there is none.
    ///
    /// # Errors
    /// The message comes back if the region is gone.
    ///
    /// # Cancel safety
    /// As for [`ActorRef::send`].
    pub async fn send(&self, message: M) -> Result<(), TellError<M>> {
        let (message, under_way) = match self.past(message, None, None) {
            Ok(()) => return Ok(()),
            Err(through) => through,
        };
        let sent = self.region().send(self.deliver(message, under_way)).await;
        sent.map_err(|refused| refused.map(RegionMessage::into_delivered))
    }

    /// Asks a question, as [`ActorRef::ask`]. Errors name the region.
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(ReplyTo<R>) -> M,
    ) -> Ask<M, R, Self> {
        Ask::new(self.clone(), question)
    }

    /// Gives a message that is sent `now` to the entity past the region.
    ///
    /// # Errors
    /// It has to go through the region.
    fn past(
        &self,
        message: M,
        question: Option<&Question>,
        now: Option<Time>,
    ) -> Result<(), Through<M>> {
        let Inner {
            entrance, id, hash, ..
        } = &*self.0;
        entrance.past((*hash, id), message, question, now)
    }

    fn deliver(&self, message: M, under_way: Option<UnderWay<M>>) -> RegionMessage<M> {
        RegionMessage::deliver(&self.0.id, message, under_way)
    }
}

/// A message that goes through the region.
type Through<M> = (M, Option<UnderWay<M>>);

impl<M: RemoteMessage> Asked<M> for EntityRef<M> {
    type Through = RegionMessage<M>;

    fn through(&self) -> &ActorRef<RegionMessage<M>> {
        self.region()
    }

    fn put(
        &self,
        message: M,
        question: &Question,
        now: Option<Time>,
    ) -> Result<Went, TellError<M>> {
        let (message, under_way) = match self.past(message, Some(question), now) {
            Ok(()) => return Ok(Went::Here),
            Err(through) => through,
        };
        let put = self
            .region()
            .put(self.deliver(message, under_way), question, now);
        put.map_err(|refused| refused.map(RegionMessage::into_delivered))?;
        Ok(Went::Away)
    }
}

/// So an entity has the methods of its protocol.
impl<M: RemoteMessage> Recipient<M> for EntityRef<M> {
    type Ask<R: Send + 'static> = Ask<M, R, Self>;

    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        Self::tell(self, message)
    }

    fn ask<R: Send + 'static>(&self, question: impl FnOnce(ReplyTo<R>) -> M) -> Self::Ask<R> {
        Self::ask(self, question)
    }
}

impl<M> Clone for EntityRef<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for EntityRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EntityRef").field(&self.0.id).finish()
    }
}
