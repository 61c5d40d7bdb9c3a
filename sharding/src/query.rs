//! Query: what a region answers about what it has, on the wire and in public. Version 1.

use otava_remote::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of ids in one answer.
pub(crate) const IDS_BYTES_MAX: usize = 128 << 10;

/// What is asked of a region.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Query {
    /// The entities of a shard that is there, sorted, from behind `after` on.
    Ids {
        shard: u32,
        after: Arc<str>,
        limit: u32,
    },
    Stats,
}

/// What it answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum QueryAnswer {
    /// `None`: the shard is not there.
    Ids(Option<EntityPage>),
    Stats(NodeStats),
}

/// Some entities of a shard ([`crate::Entities::ids_of`]).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntityPage {
    /// Their ids, sorted.
    pub ids: Vec<Arc<str>>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

impl EntityPage {
    /// As many of `ids`, of which there are more than `limit` if there are more, as fit.
    pub(crate) fn of(mut ids: Vec<Arc<str>>, limit: usize) -> Self {
        let all = ids.len();
        ids.truncate(limit);
        let mut bytes = 0;
        let fits = ids.iter().take_while(|id| {
            bytes += id.len();
            bytes <= IDS_BYTES_MAX
        });
        let fits = fits.count();
        ids.truncate(fits);
        Self {
            more: ids.len() < all,
            ids,
        }
    }
}

/// What one node has of a kind.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NodeStats {
    /// The shards that are there, with their entities. A shard that nobody has sent to may be left out.
    pub shards: BTreeMap<u32, ShardStats>,
    /// Shards that are there in whatever state, those included that start or end.
    pub hosted: u64,
    /// Instances of entities, those that end included.
    pub entities: u64,
    /// Messages that wait there for the home of a shard.
    pub buffered: u64,
    /// Messages that wait there for their entities: to be remembered, or to start again.
    pub waiting: u64,
}

/// What a node has of one shard.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShardStats {
    /// Entities that live there, those included that wait to be started.
    pub entities: u64,
    /// Messages that were handed to them since the shard came there.
    pub handled: u64,
}

impl ShardStats {
    pub(crate) fn new(entities: u64, handled: u64) -> Self {
        Self { entities, handled }
    }
}

/// What all nodes have of a kind ([`crate::Entities::stats`]). Who did not answer in time is named.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct KindStats {
    /// The nodes that answered.
    pub nodes: BTreeMap<NodeId, NodeStats>,
    /// The nodes that did not, with the shards that they have as far as this node knows.
    pub silent: BTreeMap<NodeId, Vec<u32>>,
    /// Shards that are on their way or nowhere.
    pub homeless: Vec<u32>,
}

impl KindStats {
    /// Entities on the nodes that answered.
    #[must_use]
    pub fn entities(&self) -> u64 {
        self.nodes.values().map(|node| node.entities).sum()
    }

    /// Whether all nodes answered and every shard has a home.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.silent.is_empty() && self.homeless.is_empty()
    }
}

/// A shard has got another home, as this node knows ([`crate::Entities::changes`]).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HomeChange {
    /// The shard.
    pub shard: u32,
    /// Where it was; `None` if it had no home.
    pub from: Option<NodeId>,
    /// Where it is; `None` while it is on its way or nowhere.
    pub to: Option<NodeId>,
}

/// Why a question about entities was not answered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// There are not so many shards.
    #[error("there is no shard {shard}: there are {shards}")]
    NoSuchShard {
        /// The number that was asked for.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// The shard is on its way or nowhere; ask again.
    #[error("shard {shard} has no home at the moment")]
    NoHome {
        /// The shard.
        shard: u32,
    },
    /// Its home did not answer.
    #[error("the home of shard {shard}, {home}, did not answer: {error}")]
    Silent {
        /// The shard.
        shard: u32,
        /// Its home, as this node knows.
        home: NodeId,
        /// What is known of the failure.
        error: otava_actor::AskError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_remote::{decode, encode};
    use std::path::Path;

    fn check<T>(name: &str, value: &T)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
        let path = folder.join(format!("{name}.bin"));
        let bytes = encode(value).unwrap();
        if std::env::var_os("UPDATE").is_some() && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(bytes, kept, "{name}: not the bytes of version 1");
        assert_eq!(&decode::<T>(&kept).unwrap(), value);
        for end in 0..kept.len() {
            assert!(decode::<T>(&kept[..end]).is_err());
        }
    }

    /// R10: wire contract. `UPDATE=1` writes the fixtures that are missing.
    #[test]
    fn bytes_are_those_of_the_fixtures() {
        let ids = Query::Ids {
            shard: 127,
            after: "N328AA".into(),
            limit: 300,
        };
        check("query_ids", &ids);
        check("query_stats", &Query::Stats);
        let page = EntityPage {
            ids: vec!["a".into(), "b".into()],
            more: true,
        };
        check("answer_ids", &QueryAnswer::Ids(Some(page)));
        check("answer_not_there", &QueryAnswer::Ids(None));
        let stats = NodeStats {
            shards: [
                (7, ShardStats::new(2, 300)),
                (70_000, ShardStats::new(0, 1)),
            ]
            .into(),
            hosted: 3,
            entities: 2,
            buffered: 1_000,
            waiting: 4,
        };
        check("answer_stats", &QueryAnswer::Stats(stats));
    }

    #[test]
    fn a_page_is_bounded_in_number_and_bytes() {
        let ids = |n: usize, bytes: usize| vec![Arc::from("x".repeat(bytes)); n];
        let page = EntityPage::of(ids(3, 1), 2);
        assert_eq!((page.ids.len(), page.more), (2, true));
        let page = EntityPage::of(ids(2, 1), 2);
        assert_eq!((page.ids.len(), page.more), (2, false));
        let page = EntityPage::of(ids(1_000, 512), 1_000);
        assert_eq!((page.ids.len(), page.more), (256, true));
    }
}
