//! Client: reaching entities from a process that is no member of the cluster.

use crate::entities::EntityRef;
use crate::error::StartError;
use crate::logic::hash::{is_valid_shards, shard_of};
use crate::message::{RegionMessage, region_name};
use otava_actor::ActorRef;
use otava_remote::{Remote, RemoteMessage};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sends to entities through the regions of some members, its contacts. A handle, cheap to clone.
///
/// Each shard has a contact of its own, so that the contacts share the work; while there is no
/// connection to it the next one takes its place. So messages to one entity keep their order for as
/// long as the connections stay as they are. Connections to all contacts are kept, and made again
/// when they are lost.
pub struct EntityClient<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    remote: Remote,
    contacts: Vec<Contact<M>>,
    shards: u32,
}

struct Contact<M> {
    addr: SocketAddr,
    region: ActorRef<RegionMessage<M>>,
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
    let contact = |&addr: &SocketAddr| {
        remote.keep_connected(addr);
        Contact {
            addr,
            region: remote.resolve_at(addr, &name),
        }
    };
    let shared = Shared {
        remote: remote.clone(),
        contacts: contacts.iter().map(contact).collect(),
        shards,
    };
    Ok(EntityClient {
        shared: Arc::new(shared),
    })
}

impl<M: RemoteMessage> EntityClient<M> {
    /// The entity of this id, wherever it lives.
    pub fn entity(&self, id: impl AsRef<str>) -> EntityRef<M> {
        let id = id.as_ref();
        EntityRef::new(self.contact(id).region.clone(), id.into())
    }

    /// The shard of an entity.
    #[must_use]
    pub fn shard_of(&self, id: &str) -> u32 {
        shard_of(id, self.shared.shards)
    }

    /// The contact of the shard, or the first after it to which there is a connection. If there is
    /// none to any, the one of the shard.
    fn contact(&self, id: &str) -> &Contact<M> {
        let contacts = &self.shared.contacts;
        let place = self.shard_of(id) as usize % contacts.len();
        let mut from_there = contacts.iter().cycle().skip(place).take(contacts.len());
        let connected = |contact: &&Contact<M>| self.shared.remote.is_connected_at(contact.addr);
        from_there.find(connected).unwrap_or(&contacts[place])
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
