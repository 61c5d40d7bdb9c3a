//! Living: entities that write down each step of their lives outside of the cluster, and a kind of them on
//! the nodes of a test.

use crate::support::Cluster;
use otava_actor::{Actor, Context, Props, ReplyTo};
use otava_remote::RemoteMessage;
use otava_sharding::{
    AllocationStore, Entities, EntityContext, EntityRef, MemoryAllocationStore, Sharding,
    ShardingConfig,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Deserialize, Serialize)]
pub(crate) enum Do {
    /// It is handled; the answer is the number of the instance.
    Count {
        number: u64,
        #[serde(with = "otava_remote::wire")]
        reply_to: Option<ReplyTo<u64>>,
    },
    Fail,
    Idle,
    /// It asks to be passivated.
    Passivate,
    /// It says how much it holds.
    Hold(u64),
    /// It stops after what it has.
    Stop,
    /// It sends this number to the other one.
    Pass(EntityRef<Do>, u64),
}

impl RemoteMessage for Do {
    const NAME: &'static str = "test.Do";
}

/// The ledger of all lives, outside of the cluster.
#[derive(Default)]
pub(crate) struct Ledger {
    inner: Mutex<Lines>,
    /// Whoever starts fails.
    pub(crate) sick: AtomicBool,
}

#[derive(Default)]
struct Lines {
    alive: BTreeSet<String>,
    starts: BTreeMap<String, u64>,
    handled: BTreeMap<String, Vec<u64>>,
    faults: Vec<String>,
}

impl Ledger {
    /// One instance begins; its number among those of the entity.
    fn begin(&self, id: &str) -> u64 {
        let mut lines = self.inner.lock().unwrap();
        if !lines.alive.insert(id.to_owned()) {
            lines.faults.push(format!("{id} runs twice"));
        }
        let starts = lines.starts.entry(id.to_owned()).or_default();
        *starts += 1;
        *starts
    }

    fn end(&self, id: &str) {
        self.inner.lock().unwrap().alive.remove(id);
    }

    fn handle(&self, id: &str, instance: u64, number: u64) {
        let mut lines = self.inner.lock().unwrap();
        if !lines.alive.contains(id) || lines.starts[id] != instance {
            lines
                .faults
                .push(format!("{id} handled {number} after its end"));
        }
        lines.handled.entry(id.to_owned()).or_default().push(number);
    }

    /// Checks that no entity ran twice, and that each handled its numbers in order. How many were handled.
    pub(crate) fn check(&self) -> usize {
        let lines = self.inner.lock().unwrap();
        assert_eq!(lines.faults, [] as [String; 0]);
        for (id, handled) in &lines.handled {
            assert!(handled.is_sorted_by(|a, b| a < b), "{id}: {handled:?}");
        }
        lines.handled.values().map(Vec::len).sum()
    }

    pub(crate) fn handled(&self, id: &str) -> Vec<u64> {
        let lines = self.inner.lock().unwrap();
        lines.handled.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn starts(&self, id: &str) -> u64 {
        let lines = self.inner.lock().unwrap();
        lines.starts.get(id).copied().unwrap_or_default()
    }

    pub(crate) fn all_starts(&self) -> u64 {
        self.inner.lock().unwrap().starts.values().sum()
    }

    pub(crate) fn alive(&self) -> Vec<String> {
        self.inner.lock().unwrap().alive.iter().cloned().collect()
    }
}

/// Removes an entity from the ledger however it ends.
struct Entry {
    ledger: Arc<Ledger>,
    id: Arc<str>,
    instance: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.end(&self.id);
    }
}

/// An entity that writes into the ledger.
pub(crate) struct Living {
    context: EntityContext,
    ledger: Arc<Ledger>,
    entry: Option<Entry>,
}

impl Living {
    pub(crate) fn new(context: EntityContext, ledger: &Arc<Ledger>) -> Self {
        Self {
            context,
            ledger: ledger.clone(),
            entry: None,
        }
    }
}

impl Actor for Living {
    type Msg = Do;
    type Err = String;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), String> {
        self.entry = Some(Entry {
            ledger: self.ledger.clone(),
            id: self.context.id.clone(),
            instance: self.ledger.begin(&self.context.id),
        });
        if self.ledger.sick.load(Ordering::Relaxed) {
            return Err("it is sick".to_owned());
        }
        Ok(())
    }

    async fn handle(&mut self, what: Do, ctx: &mut Context<Self>) -> Result<(), String> {
        let instance = self.entry.as_ref().map_or(0, |entry| entry.instance);
        match what {
            Do::Count { number, reply_to } => {
                tokio::task::yield_now().await;
                self.ledger.handle(&self.context.id, instance, number);
                if let Some(reply_to) = reply_to {
                    let _ = reply_to.send(instance);
                }
            }
            Do::Fail => return Err("as told".to_owned()),
            Do::Idle => {}
            Do::Passivate => self.context.passivate.request(),
            Do::Hold(bytes) => self.context.memory.set(bytes),
            Do::Stop => ctx.stop_self_after_queued(),
            Do::Pass(to, number) => {
                let reply_to = None;
                let _ = to.send(Do::Count { number, reply_to }).await;
            }
        }
        Ok(())
    }
}

/// The kind on node `n` of `cluster`, whose own kind is another one.
pub(crate) fn living(
    cluster: &Cluster,
    n: u16,
    ledger: &Arc<Ledger>,
    store: &Arc<MemoryAllocationStore>,
    config: ShardingConfig,
) -> Entities<Do> {
    let ledger = ledger.clone();
    let factory = move |context: EntityContext| Props::once(Living::new(context, &ledger));
    let store: Arc<dyn AllocationStore> = store.clone();
    let (remote, views) = (&cluster.nodes[&n].remote, cluster.views(n));
    Sharding::start_with(remote, views, "living", store, config, factory).unwrap()
}

/// The kind on the first nodes of `cluster`, all shards at home.
pub(crate) async fn living_on(
    cluster: &Cluster,
    nodes: u16,
    ledger: &Arc<Ledger>,
    config: &ShardingConfig,
) -> Vec<Entities<Do>> {
    let store = Arc::new(MemoryAllocationStore::new());
    let start = |n| living(cluster, n, ledger, &store, config.clone());
    let all: Vec<Entities<Do>> = (1..=nodes).map(start).collect();
    for entities in &all {
        entities.all_hosted().await;
    }
    all
}

pub(crate) fn count(number: u64) -> Do {
    Do::Count {
        number,
        reply_to: None,
    }
}

/// Asks an entity to count; which instance answered.
pub(crate) async fn ask(entities: &Entities<Do>, id: &str, number: u64) -> u64 {
    let entity = entities.entity(id);
    let asked = entity.ask(|reply_to| Do::Count {
        number,
        reply_to: Some(reply_to),
    });
    asked.await.unwrap()
}
