//! Client: reaching entities from a process that is no member of the cluster.

use crate::entity_ref::{EntityRef, Entrance};
use crate::error::StartError;
use crate::logic::hash::{is_valid_shards, shard_of};
use crate::message::{Command, RegionMessage, region_name};
use crate::refs::{Way, way_name};
use crate::wire::Table;
use otava_actor::{ActorRef, ActorSystem};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

/// Sends to entities: straight to the node that has the shard while that is known and connected, else
/// through the region of a contact, which passes it on. A handle, cheap to clone.
///
/// It follows the table of homes: one contact at a time is asked for the next newer one. While there is
/// no connection to the home of a shard, each shard has a contact of its own, so that the contacts
/// share the work, and the next connected one takes the place of one that is not. Connections to all
/// contacts and homes are kept, and made again when they are lost.
///
/// # Delivery
/// At most once. Messages to one entity keep their order while its home stays; only members keep it
/// while a shard moves.
pub struct EntityClient<M> {
    shared: Arc<Shared<M>>,
}

pub(crate) struct Shared<M> {
    kind: Arc<str>,
    remote: Remote,
    /// The published name of the regions.
    name: String,
    contacts: Vec<Contact<M>>,
    shards: u32,
    homes: RwLock<Homes<M>>,
}

struct Contact<M> {
    addr: SocketAddr,
    region: ActorRef<RegionMessage<M>>,
}

/// The newest table, and the regions in it.
struct Homes<M> {
    table: Option<Table>,
    regions: BTreeMap<NodeId, ActorRef<RegionMessage<M>>>,
}

/// How long a contact has to come up with a newer table, and to say so.
const FOLLOW_WITHIN: Duration = Duration::from_secs(12);
/// The pause after a contact that does not answer.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

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
    let shared = Arc::new(Shared {
        kind: kind.into(),
        remote: remote.clone(),
        contacts: contacts.iter().map(contact).collect(),
        name,
        shards,
        homes: RwLock::new(Homes {
            table: None,
            regions: BTreeMap::new(),
        }),
    });
    let way = Way::Client(WeakClient(Arc::downgrade(&shared)));
    remote.provide(way_name(kind), Arc::new(way));
    let follow = follow(Arc::downgrade(&shared), remote.system().clone());
    remote.system().handle().spawn(follow);
    Ok(EntityClient { shared })
}

/// Keeps the table of homes fresh until the last handle of the client is gone.
async fn follow<M: RemoteMessage>(shared: Weak<Shared<M>>, system: ActorSystem) {
    for turn in 0_usize.. {
        let Some(client) = shared.upgrade() else {
            return;
        };
        let newer_than = client.known();
        let connected = client.connected_contact(turn);
        drop(client);
        let table = match connected {
            Some(contact) => {
                let asked = contact.ask(|reply_to| {
                    RegionMessage(Command::Follow {
                        newer_than,
                        reply_to,
                    })
                });
                asked.within(FOLLOW_WITHIN).await.ok()
            }
            None => None,
        };
        match (table, shared.upgrade()) {
            (Some(table), Some(client)) => client.learn(table),
            _ => system.sleep_until(system.now() + FOLLOW_PAUSE).await,
        }
    }
}

impl<M: RemoteMessage> Shared<M> {
    /// Term and revision of the table that is known.
    fn known(&self) -> (u32, u64) {
        let homes = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        let table = homes.table.as_ref();
        table.map_or((0, 0), |table| (table.term, table.revision))
    }

    fn connected_contact(&self, turn: usize) -> Option<ActorRef<RegionMessage<M>>> {
        self.first_connected(turn)
            .map(|contact| contact.region.clone())
    }

    /// The contact at `place`, or the first after it to which there is a connection.
    fn first_connected(&self, place: usize) -> Option<&Contact<M>> {
        let place = place % self.contacts.len();
        let (before, from_there) = self.contacts.split_at(place);
        let connected = |contact: &&Contact<M>| self.remote.is_connected_at(contact.addr);
        from_there.iter().chain(before).find(connected)
    }

    /// Takes a newer table, and keeps connections to the nodes in it.
    fn learn(&self, table: Table) {
        if !table.is_sound() {
            let shards = table.entries.len();
            tracing::warn!(from = %table.from, shards, "a table of homes does not fit");
            return;
        }
        let mut homes = self.homes.write().unwrap_or_else(PoisonError::into_inner);
        if homes
            .table
            .as_ref()
            .is_some_and(|known| !table.is_newer_than(known))
        {
            return;
        }
        let is_contact = |addr| self.contacts.iter().any(|contact| contact.addr == addr);
        let mut regions = BTreeMap::new();
        for node in &table.regions {
            self.remote.keep_connected(node.addr);
            let known = homes.regions.remove(node);
            let region = known.unwrap_or_else(|| self.remote.resolve(node, &self.name));
            regions.insert(node.clone(), region);
        }
        for gone in homes.regions.keys() {
            let still = regions.keys().any(|node| node.addr == gone.addr);
            if !still && !is_contact(gone.addr) {
                self.remote.release_connection(gone.addr);
            }
        }
        homes.regions = regions;
        homes.table = Some(table);
    }

    /// The shard of an entity, by the newest table, or as it was configured while there is none.
    fn shard_of(&self, id: &str) -> u32 {
        let homes = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        let table = homes.table.as_ref();
        let shards = table.map_or(self.shards, |table| table.layout().shards);
        shard_of(id, shards)
    }

    /// The region that has the shard, if it is known and connected.
    fn home(&self, shard: u32) -> Option<ActorRef<RegionMessage<M>>> {
        let homes = self.homes.read().unwrap_or_else(PoisonError::into_inner);
        let node = homes.table.as_ref()?.hosted_at(shard)?;
        let region = homes.regions.get(node)?;
        self.remote.is_connected(node).then(|| region.clone())
    }
}

impl<M: RemoteMessage> Shared<M> {
    /// The best way to an entity now.
    fn way_to(&self, id: &str) -> Entrance<M> {
        let shard = self.shard_of(id);
        let region = self.home(shard).unwrap_or_else(|| {
            let place = shard as usize;
            let contact = self.first_connected(place);
            let contacts = &self.contacts;
            contact
                .unwrap_or(&contacts[place % contacts.len()])
                .region
                .clone()
        });
        let doors = None;
        Entrance { region, doors }
    }
}

/// A client that is kept by those who use it, not by this.
pub(crate) struct WeakClient<M>(Weak<Shared<M>>);

impl<M: RemoteMessage> WeakClient<M> {
    /// The best way to an entity now; `None` if the client is gone.
    pub(crate) fn way_to(&self, id: &str) -> Option<Entrance<M>> {
        Some(self.0.upgrade()?.way_to(id))
    }
}

impl<M: RemoteMessage> EntityClient<M> {
    /// The entity of this id, by the way that is the best now. Ask for it anew for each message, or
    /// at least after each failure.
    pub fn entity(&self, id: impl AsRef<str>) -> EntityRef<M> {
        let id = id.as_ref();
        let entrance = self.shared.way_to(id);
        EntityRef::new(entrance, self.shared.kind.clone(), id.into())
    }

    /// The shard of an entity.
    #[must_use]
    pub fn shard_of(&self, id: &str) -> u32 {
        self.shared.shard_of(id)
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
