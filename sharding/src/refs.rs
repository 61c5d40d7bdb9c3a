//! Refs: references to entities inside messages.
//!
//! On the wire a reference is the kind, the id and the layout of the messages. Where it is read it
//! leads through the region, or the client, of that node: an entity moves, so there is no better way
//! that could be written down.

use crate::client::WeakClient;
use crate::entity_ref::{EntityRef, Entrance};
use crate::remember::is_valid_id;
use otava_remote::RemoteMessage;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// A reference as it stands in a message.
#[derive(Deserialize, Serialize)]
struct EntityForm {
    kind: Arc<str>,
    id: Arc<str>,
    /// That of the entity's messages.
    layout: u64,
}

/// How a node reaches the entities of a kind; kept with the remote layer.
pub(crate) enum Way<M> {
    Client(WeakClient<M>),
    Region(Entrance<M>),
}

/// Under which name the way to a kind is kept.
pub(crate) fn way_name(kind: &str) -> String {
    format!("sharding/{kind}")
}

/// Why a reference to an entity was not read.
#[derive(Debug, thiserror::Error)]
enum RefError {
    #[error("{bytes} bytes are no id of an entity")]
    BadId { bytes: usize },
    #[error(
        "a reference to an entity of kind {kind:?} was read where that kind is not started, or outside \
         of a message between nodes"
    )]
    NotStarted { kind: Arc<str> },
    #[error("a reference to an entity of kind {kind:?} is one to other messages than here")]
    OtherMessages { kind: Arc<str> },
}

impl<M: RemoteMessage> Serialize for EntityRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = EntityForm {
            kind: self.kind_arc().clone(),
            id: self.id_arc().clone(),
            layout: M::LAYOUT,
        };
        form.serialize(serializer)
    }
}

impl<'de, M: RemoteMessage> Deserialize<'de> for EntityRef<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = EntityForm::deserialize(deserializer)?;
        resolve(form).map_err(D::Error::custom)
    }
}

/// So it may stand beside other references in one collection.
impl<M: RemoteMessage> otava_remote::wire::Plain for EntityRef<M> {}

fn resolve<M: RemoteMessage>(form: EntityForm) -> Result<EntityRef<M>, RefError> {
    let EntityForm { kind, id, layout } = form;
    if !is_valid_id(&id) {
        return Err(RefError::BadId { bytes: id.len() });
    }
    let Some(way) = otava_remote::wire::provided(&way_name(&kind)) else {
        return Err(RefError::NotStarted { kind });
    };
    let way = way.downcast_ref::<Way<M>>();
    let Some(way) = way.filter(|_| layout == M::LAYOUT) else {
        return Err(RefError::OtherMessages { kind });
    };
    let entrance = match way {
        Way::Region(entrance) => Some(entrance.clone()),
        Way::Client(client) => client.way_to(&id),
    };
    match entrance {
        Some(entrance) => Ok(EntityRef::new(entrance, kind, id)),
        None => Err(RefError::NotStarted { kind }),
    }
}
