//! Client: reaching entities from a process that is no member of the cluster.

use crate::error::StartError;
use crate::logic::hash::{is_valid_shards, shard_of};
use crate::message::{RegionMessage, region_name};
use otava_actor::{ActorRef, Ask, ReplyTo, TellError};
use otava_remote::{Remote, RemoteMessage};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sends to entities through the regions of some members, its contacts. Answers come straight back.
/// A handle, cheap to clone.
///
/// All messages take the same contact, so they keep their order, until that contact refuses one or
/// [`EntityClient::next_contact`] is called.
pub struct EntityClient<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    contacts: Vec<ActorRef<RegionMessage<M>>>,
    current: AtomicUsize,
    shards: u32,
}

/// Reaches the entities of `kind` through members at the addresses `contacts`. `shards` is the
/// number of shards that the kind has there.
///
/// # Errors
/// [`StartError::BadShards`]; [`StartError::NoContacts`].
pub fn client<M: RemoteMessage>(
    remote: &Remote,
    kind: &str,
    contacts: &[SocketAddr],
    shards: u32,
) -> Result<EntityClient<M>, StartError> {
    if !is_valid_shards(shards) {
        return Err(StartError::BadShards(shards));
    }
    if contacts.is_empty() {
        return Err(StartError::NoContacts);
    }
    let name = region_name::<M>(kind);
    let contacts = contacts.iter().map(|addr| remote.resolve_at(*addr, &name));
    let shared = Shared {
        contacts: contacts.collect(),
        current: AtomicUsize::new(0),
        shards,
    };
    Ok(EntityClient {
        shared: Arc::new(shared),
    })
}

impl<M: RemoteMessage> EntityClient<M> {
    /// The shard of an entity.
    #[must_use]
    pub fn shard_of(&self, id: &str) -> u32 {
        shard_of(id, self.shared.shards)
    }

    /// Queues `message` for the entity `id` without waiting. If the contact refuses it, the next ones
    /// are tried.
    ///
    /// # Delivery
    /// At most once, in order as long as the contact stays the same.
    ///
    /// # Errors
    /// The message comes back if no contact takes it.
    pub fn tell(&self, id: &str, message: M) -> Result<(), TellError<M>> {
        let mut message = RegionMessage::deliver(&id.into(), message);
        let mut left = self.shared.contacts.len();
        loop {
            let (place, contact) = self.contact();
            left -= 1;
            match contact.tell(message) {
                Ok(()) => return Ok(()),
                Err(refused @ TellError::Unsendable(..)) => {
                    return Err(refused.map(RegionMessage::into_delivered));
                }
                Err(refused) if left == 0 => {
                    return Err(refused.map(RegionMessage::into_delivered));
                }
                Err(refused) => {
                    self.leave(place);
                    message = refused.into_message();
                }
            }
        }
    }

    /// Asks the entity `id` a question, as [`ActorRef::ask`]. An error names the contact; who
    /// repeats a question after one calls [`EntityClient::next_contact`] first.
    pub fn ask<R: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(ReplyTo<R>) -> M,
    ) -> Ask<RegionMessage<M>, R> {
        let (_, contact) = self.contact();
        contact.ask(|reply_to| RegionMessage::deliver(&id.into(), question(reply_to)))
    }

    /// Uses the next contact from now on: this one does not answer.
    pub fn next_contact(&self) {
        self.leave(self.shared.current.load(Ordering::Relaxed));
    }

    /// The contact to use: the current one, or the first after it that is not known to be gone.
    fn contact(&self) -> (usize, &ActorRef<RegionMessage<M>>) {
        let contacts = &self.shared.contacts;
        for _ in 1..contacts.len() {
            let place = self.shared.current.load(Ordering::Relaxed);
            let contact = &contacts[place % contacts.len()];
            if !contact.is_stopped() {
                return (place, contact);
            }
            self.leave(place);
        }
        let place = self.shared.current.load(Ordering::Relaxed);
        (place, &contacts[place % contacts.len()])
    }

    /// Goes on to the next contact, unless somebody did already.
    fn leave(&self, place: usize) {
        let next = place.wrapping_add(1);
        // An error means that somebody did.
        let _ =
            self.shared
                .current
                .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl<M> Clone for EntityClient<M> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<M> fmt::Debug for EntityClient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityClient")
            .field("contacts", &self.shared.contacts.len())
            .finish_non_exhaustive()
    }
}
