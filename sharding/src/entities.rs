//! Entities: the handle of one kind on one node, and references to single entities.

use crate::entity_ref::{EntityRef, Entrance};
use crate::error::{HandOverError, ResizeError};
use crate::logic::hash::{is_valid_shards, shard_of};
use crate::message::{Command, Local, RegionMessage};
use crate::query::{EntityPage, HomeChange, KindStats, Query, QueryAnswer, QueryError};
use crate::wire::Table;
use futures_util::future::join_all;
use otava_actor::{ActorRef, AskError, TellError};
use otava_remote::{NodeId, Remote, RemoteMessage};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// All entities of a kind, as one node reaches them. A handle, cheap to clone.
pub struct Entities<M> {
    entrance: Entrance<M>,
    shared: Arc<Shared>,
}

struct Shared {
    remote: Remote,
    /// The published name of the regions.
    name: String,
    kind: Arc<str>,
    /// The configured number of shards.
    shards: u32,
    resizable: bool,
    shown: watch::Receiver<Shown>,
    counters: Arc<Counters>,
}

/// What a region shows of what it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) table: Option<Arc<Table>>,
    pub(crate) coordinator: Option<NodeId>,
    pub(crate) handed_over: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) shards: AtomicUsize,
    pub(crate) entities: AtomicUsize,
    pub(crate) buffered: AtomicUsize,
    pub(crate) waiting: AtomicUsize,
}

/// What one node has of a kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct LocalStats {
    /// Shards that are here, including those that start or end.
    pub shards: usize,
    /// Entities that run here.
    pub entities: usize,
    /// Messages that wait for the home of their shard.
    pub buffered: usize,
    /// Messages that wait for their entity here: to be remembered, or to start again.
    pub waiting: usize,
}

impl<M: RemoteMessage> Entities<M> {
    pub(crate) fn new(entrance: Entrance<M>, known: Known) -> Self {
        let shared = Shared {
            remote: known.remote,
            name: known.name,
            kind: known.kind,
            shards: known.shards,
            resizable: known.resizable,
            shown: known.shown,
            counters: known.counters,
        };
        Self {
            entrance,
            shared: Arc::new(shared),
        }
    }

    /// The entity of this id, wherever it lives; the first message starts it. An id has 1 to 512
    /// bytes; messages to others become dead letters.
    pub fn entity(&self, id: impl AsRef<str>) -> EntityRef<M> {
        let (entrance, kind) = (self.entrance.clone(), self.shared.kind.clone());
        EntityRef::new(entrance, kind, id.as_ref().into())
    }

    /// Starts an entity without a message for it, as [`EntityRef::start`].
    ///
    /// # Errors
    /// As for [`EntityRef::start`].
    pub fn start_entity(&self, id: impl AsRef<str>) -> Result<(), TellError<()>> {
        self.entity(id).start()
    }

    /// How many shards there are, as this node knows: the configured number until that was changed.
    #[must_use]
    pub fn shards(&self) -> u32 {
        let table = self.shared.shown.borrow().table.clone();
        table.map_or(self.shared.shards, |table| table.layout().shards)
    }

    /// The shard of an entity.
    #[must_use]
    pub fn shard_of(&self, id: &str) -> u32 {
        shard_of(id, self.shards())
    }

    /// Changes the number of shards of the running kind to `shards`, and waits until every shard has a
    /// home, or for as long as `limit`.
    ///
    /// The number is doubled or halved, as often as it takes. Each time all shards are handed over at
    /// once, each to where it was: entities handle what they have and stop, what is sent meanwhile waits,
    /// and they start again as after any planned move. Entities of all nodes wait for as long as that
    /// takes, so choose a quiet moment; while a member is unreachable nothing begins.
    ///
    /// The number is kept in the allocation store and counts from then on, whatever is configured, also
    /// after all nodes have stopped.
    ///
    /// # Errors
    /// [`ResizeError`]. The change may still happen after [`ResizeError::TimedOut`].
    ///
    /// # Cancel safety
    /// The change goes on if this is dropped.
    pub async fn resize(&self, shards: u32, limit: Duration) -> Result<(), ResizeError> {
        if !is_valid_shards(shards) {
            return Err(ResizeError::BadShards(shards));
        }
        if !self.shared.resizable {
            return Err(ResizeError::Fixed);
        }
        let wish = RegionMessage(Command::Local(Local::Resize(shards)));
        let mut shown = self.shared.shown.clone();
        let done = async {
            let told = self.entrance.region.send(wish).await;
            let as_wished = |shown: &Shown| {
                let table = shown.table.as_ref();
                table.is_some_and(|table| table.layout().shards == shards && table.is_whole())
            };
            told.is_ok() && shown.wait_for(as_wished).await.is_ok()
        };
        match tokio::time::timeout(limit, done).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ResizeError::Stopped),
            Err(_) => Err(ResizeError::TimedOut {
                shards: self.shards(),
                waited: limit,
            }),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.shared.kind
    }

    /// Where each shard is, as this node knows; `None` for one that is on its way or nowhere.
    #[must_use]
    pub fn homes(&self) -> BTreeMap<u32, Option<NodeId>> {
        let table = self.shared.shown.borrow().table.clone();
        let home = |shard: u32| {
            let table = table.as_ref()?;
            table.hosted_at(shard).cloned()
        };
        let shards = table.as_ref().map(|table| table.layout().shards);
        (0..shards.unwrap_or(self.shared.shards))
            .map(|shard| (shard, home(shard)))
            .collect()
    }

    /// The node that decides where shards live, as this node knows.
    #[must_use]
    pub fn coordinator(&self) -> Option<NodeId> {
        self.shared.shown.borrow().coordinator.clone()
    }

    /// What is on this node.
    #[must_use]
    pub fn local_stats(&self) -> LocalStats {
        let get = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        LocalStats {
            shards: get(&counters.shards),
            entities: get(&counters.entities),
            buffered: get(&counters.buffered),
            waiting: get(&counters.waiting),
        }
    }

    /// The entities that live in a shard, wherever that is: at most `limit`, sorted, from behind `after`
    /// on. Entities come and go between two pages.
    ///
    /// # Errors
    /// [`QueryError`]: the shard has no home now, or it does not answer within `within`.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn ids_of(
        &self,
        shard: u32,
        after: Option<&str>,
        limit: u32,
        within: Duration,
    ) -> Result<EntityPage, QueryError> {
        let shards = self.shards();
        if shard >= shards {
            return Err(QueryError::NoSuchShard { shard, shards });
        }
        let table = self.shared.shown.borrow().table.clone();
        let home = table.as_ref().and_then(|table| table.hosted_at(shard));
        let home = home.ok_or(QueryError::NoHome { shard })?.clone();
        let query = Query::Ids {
            shard,
            after: after.unwrap_or_default().into(),
            limit,
        };
        match self.query(&home, query, within).await {
            Ok(QueryAnswer::Ids(Some(page))) => Ok(page),
            Ok(_) => Err(QueryError::NoHome { shard }),
            Err(error) => Err(QueryError::Silent { shard, home, error }),
        }
    }

    /// What all nodes have of this kind, counted by those who answer within `within`; the others are
    /// named.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn stats(&self, within: Duration) -> KindStats {
        let table = self.shared.shown.borrow().table.clone();
        let mut stats = KindStats::default();
        let Some(table) = table else {
            stats.homeless = (0..self.shards()).collect();
            return stats;
        };
        let mut here: BTreeMap<&NodeId, Vec<u32>> = BTreeMap::new();
        let nodes = table.regions.iter().chain(&table.silent);
        here.extend(nodes.map(|node| (node, Vec::new())));
        for shard in 0..table.layout().shards {
            match table.hosted_at(shard) {
                Some(home) => here.entry(home).or_default().push(shard),
                None => stats.homeless.push(shard),
            }
        }
        let asked = here.into_iter().map(|(node, shards)| async move {
            let answer = self.query(node, Query::Stats, within).await;
            (node, shards, answer)
        });
        for (node, shards, answer) in join_all(asked).await {
            match answer {
                Ok(QueryAnswer::Stats(of_node)) => {
                    stats.nodes.insert(node.clone(), of_node);
                }
                Ok(QueryAnswer::Ids(_)) | Err(_) => {
                    stats.silent.insert(node.clone(), shards);
                }
            }
        }
        stats
    }

    async fn query(
        &self,
        node: &NodeId,
        query: Query,
        within: Duration,
    ) -> Result<QueryAnswer, AskError> {
        let shared = &self.shared;
        let region: ActorRef<RegionMessage<M>> = shared.remote.resolve(node, &shared.name);
        let asked = region.ask(|reply_to| RegionMessage(Command::Query { query, reply_to }));
        asked.within(within).await
    }

    /// The changes of homes from now on, as this node learns of them.
    #[must_use]
    pub fn changes(&self) -> HomeChanges {
        let mut shown = self.shared.shown.clone();
        let table = shown.borrow_and_update().table.clone();
        HomeChanges {
            shown,
            table,
            found: VecDeque::new(),
        }
    }

    /// Waits until every shard has a home, as this node knows.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    pub async fn all_hosted(&self) {
        let all = |shown: &Shown| shown.table.as_ref().is_some_and(|table| table.is_whole());
        // An error means that the region is gone; then there is nothing to wait for.
        let _ = self.shared.shown.clone().wait_for(all).await;
    }

    /// Lets everything that is here leave in order: waits until this node, which is to be Leaving in
    /// the cluster's view, hosts nothing and has sent on what waited, or for as long as `limit`. If
    /// no Up member is left, the entities handle what they have and stop.
    ///
    /// # Errors
    /// [`HandOverError`]: what was still here when the time was up.
    ///
    /// # Cancel safety
    /// The hand-over goes on if this is dropped.
    pub async fn hand_over(&self, limit: Duration) -> Result<(), HandOverError> {
        let begin = RegionMessage(Command::Local(Local::HandOver));
        let mut shown = self.shared.shown.clone();
        let done = async {
            if self.entrance.region.send(begin).await.is_ok() {
                // An error means that the region is gone: nothing is here any more.
                let _ = shown.wait_for(|shown| shown.handed_over).await;
            }
        };
        if tokio::time::timeout(limit, done).await.is_ok() {
            return Ok(());
        }
        let left = self.local_stats();
        Err(HandOverError {
            kind: self.kind().to_owned(),
            shards: left.shards,
            buffered: left.buffered,
            waited: limit,
        })
    }
}

impl<M> Clone for Entities<M> {
    fn clone(&self) -> Self {
        Self {
            entrance: self.entrance.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<M> fmt::Debug for Entities<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entities").field(&self.shared.kind).finish()
    }
}

/// What the handle of a kind is made of.
pub(crate) struct Known {
    pub(crate) remote: Remote,
    pub(crate) name: String,
    pub(crate) kind: Arc<str>,
    pub(crate) shards: u32,
    pub(crate) resizable: bool,
    pub(crate) shown: watch::Receiver<Shown>,
    pub(crate) counters: Arc<Counters>,
}

/// The changes of homes of a kind's shards ([`Entities::changes`]).
#[derive(Debug)]
pub struct HomeChanges {
    shown: watch::Receiver<Shown>,
    table: Option<Arc<Table>>,
    found: VecDeque<HomeChange>,
}

impl HomeChanges {
    /// The next change; `None` when the kind has ended on this node. Steps that nobody looked at are
    /// passed over: what counts is where the shard was when this looked last, and where it is.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn recv(&mut self) -> Option<HomeChange> {
        loop {
            if let Some(change) = self.found.pop_front() {
                return Some(change);
            }
            self.shown.changed().await.ok()?;
            let table = self.shown.borrow_and_update().table.clone();
            let home = |table: &Option<Arc<Table>>, shard| {
                let table = table.as_ref()?;
                table.hosted_at(shard).cloned()
            };
            // Shards of another layout are others: those of the old one have left, the new ones come.
            let count = |table: &Option<Arc<Table>>| {
                table.as_ref().map_or(0, |table| table.layout().shards)
            };
            let (before, after) = (count(&self.table), count(&table));
            if before != after {
                self.table = None;
            }
            for shard in 0..after {
                let (from, to) = (home(&self.table, shard), home(&table, shard));
                if from != to {
                    self.found.push_back(HomeChange { shard, from, to });
                }
            }
            self.table = table;
        }
    }
}
