//! Proves: replicators over the virtual network share values, keep what a majority confirmed, and say why
//! not when they cannot. What random faults do to them is tested in `logic/replicated/machine/tests`.

use otava_actor::ActorSystem;
use otava_cluster::replicated::{
    Change, Crdt, Datum, DeleteError, DurableStore, Flag, GCounter, GSet, GetError, Key, Level,
    LwwRegister, MemoryDurableStore, MvRegister, OrMap, OrSet, PnCounter, Replicator,
    ReplicatorConfig, StartError, StoreError, StoredEntry, SubscribeError, UpdateError,
};
use otava_cluster::{Cluster, ClusterConfig, Dissemination};
use otava_remote::{Remote, VirtualWorld};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn addr(number: u16) -> SocketAddr {
    ([10, 0, 0, 1], 7_000 + number).into()
}

struct Node {
    replicator: Replicator,
    cluster: Cluster,
    _system: ActorSystem,
}

async fn start(world: &VirtualWorld, number: u16, config: ReplicatorConfig) -> Node {
    let name = format!("node-{number}");
    let system = ActorSystem::builder(&name).seed(u64::from(number)).build();
    let network = Arc::new(world.network(addr(number), &name));
    let remote = Remote::builder(&system, "test", &name, network);
    let remote = remote.start().unwrap();
    let config_of_cluster = ClusterConfig::default()
        .with_seeds([addr(1), addr(2)])
        .with_dissemination(Dissemination::Seeded(7));
    let cluster = Cluster::start(&remote, config_of_cluster).unwrap();
    let replicator = Replicator::start(&cluster, config).await.unwrap();
    Node {
        replicator,
        cluster,
        _system: system,
    }
}

async fn start_all(world: &VirtualWorld, count: u16, config: &ReplicatorConfig) -> Vec<Node> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(start(world, number, config.clone()).await);
    }
    sees(&nodes, nodes.len()).await;
    nodes
}

/// Waits until all of these see so many members that are up.
async fn sees(nodes: &[Node], up: usize) {
    for node in nodes {
        let mut state = node.cluster.subscribe();
        let seen = state.wait_for(|state| state.up().count() == up && state.members.len() == up);
        timeout(60 * SECOND, seen).await.unwrap().unwrap();
    }
}

/// Reads at a node again and again, on virtual time, until the value is so.
async fn until<C: Crdt>(node: &Node, key: &Key<C>, is: impl Fn(&C) -> bool) -> C {
    let end = Instant::now() + 60 * SECOND;
    loop {
        let read = node.replicator.get(key).await;
        match read {
            Ok(value) if is(&value) => return value,
            _ => assert!(Instant::now() < end, "{key:?} is never so: {read:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// Counters count what both nodes count, a flag is switched by both.
#[tokio::test(start_paused = true)]
async fn counters_and_a_flag_at_two_nodes() {
    let world = VirtualWorld::new(1);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let (a, b) = (&nodes[0].replicator, &nodes[1].replicator);

    let grows = Key::<GCounter>::new("grows");
    a.update(&grows, |count| count.add(3))
        .level(Level::All)
        .await
        .unwrap();
    b.update(&grows, |count| count.add(4))
        .level(Level::All)
        .await
        .unwrap();
    assert_eq!(a.get(&grows).await.unwrap().value(), 7);

    let sum = Key::<PnCounter>::new("sum");
    a.update(&sum, |sum| sum.add(3))
        .level(Level::All)
        .await
        .unwrap();
    let after = b.update(&sum, |sum| {
        sum.subtract(10);
        sum.value()
    });
    assert_eq!(after.level(Level::All).await, Ok(-7));
    assert_eq!(a.get(&sum).await.unwrap().value(), -7);

    let flag = Key::<Flag>::new("flag");
    a.update(&flag, Flag::enable)
        .level(Level::All)
        .await
        .unwrap();
    assert!(b.get(&flag).await.unwrap().is_on());
    b.update(&flag, Flag::disable)
        .level(Level::All)
        .await
        .unwrap();
    assert!(!a.get(&flag).await.unwrap().is_on());
}

/// The later write stays, or all that were at once.
#[tokio::test(start_paused = true)]
async fn registers_at_two_nodes() {
    let world = VirtualWorld::new(11);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let (a, b) = (&nodes[0].replicator, &nodes[1].replicator);
    let last = Key::<LwwRegister<String>>::new("last");
    a.update(&last, |last| last.set_at(&text("old"), 50))
        .level(Level::All)
        .await
        .unwrap();
    b.update(&last, |last| last.set_at(&text("new"), 1))
        .level(Level::All)
        .await
        .unwrap();
    let read = a.get(&last).await.unwrap();
    let read = (read.value(), read.written_at());
    assert_eq!(read, (Some(text("new")), Some(51)), "it had seen the other");

    let all = Key::<MvRegister<u64>>::new("all");
    a.update(&all, |all| all.set(&1)).await.unwrap();
    b.update(&all, |all| all.set(&2)).await.unwrap();
    let both = until(&nodes[0], &all, |all| all.values().len() == 2).await;
    assert_eq!(both.values().iter().sum::<u64>(), 3);
    a.update(&all, |all| all.set(&3))
        .level(Level::All)
        .await
        .unwrap();
    assert_eq!(b.get(&all).await.unwrap().values(), [3]);
}

/// Additions win, in sets and below the keys of maps.
#[tokio::test(start_paused = true)]
async fn sets_and_maps_at_two_nodes() {
    let world = VirtualWorld::new(12);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let (a, b) = (&nodes[0].replicator, &nodes[1].replicator);
    let grow = Key::<GSet<u32>>::new("grow");
    a.update(&grow, |set| (1..4).for_each(|n| set.insert(&n)))
        .level(Level::All)
        .await
        .unwrap();
    let set = b.get(&grow).await.unwrap();
    assert_eq!(set.iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(set.contains(&2) && !set.contains(&9) && set.len() == 3 && !set.is_empty());

    let set = Key::<OrSet<u32>>::new("set");
    a.update(&set, |set| (1..4).for_each(|n| set.insert(&n)))
        .level(Level::All)
        .await
        .unwrap();
    // At once: one adds what the other removes.
    a.update(&set, |set| set.insert(&2)).await.unwrap();
    b.update(&set, OrSet::clear).await.unwrap();
    until(&nodes[0], &set, |set| set.len() == 1).await;
    assert!(
        until(&nodes[1], &set, |set| set.len() == 1)
            .await
            .contains(&2)
    );

    let map = Key::<OrMap<String, OrMap<u8, GCounter>>>::new("map");
    let visit = |page: &'static str| {
        move |map: &mut OrMap<String, OrMap<u8, GCounter>>| {
            map.update(&text(page), |hours| hours.update(&7, |count| count.add(1)));
        }
    };
    a.update(&map, visit("/a")).level(Level::All).await.unwrap();
    b.update(&map, visit("/a")).level(Level::All).await.unwrap();
    b.update(&map, visit("/b")).level(Level::All).await.unwrap();
    let read = a.get(&map).await.unwrap();
    let hours = read.get(&text("/a")).unwrap();
    assert_eq!(hours.get(&7).unwrap().value(), 2);
    assert_eq!(
        read.keys().collect::<BTreeSet<_>>(),
        [text("/a"), text("/b")].into()
    );
    a.update(&map, |map| map.remove(&text("/a")))
        .level(Level::All)
        .await
        .unwrap();
    let read = b.get(&map).await.unwrap();
    assert!(!read.contains_key(&text("/a")) && read.len() == 1);
    assert_eq!(read.iter().count(), 1);
}

/// Something that has no encoded form.
struct Secret;

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not to be written"))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not to be read"))
    }
}

impl Datum for Secret {
    const NAME: &'static str = "test.Secret";
}

/// The type of a key is refused by its name, and what is not there is said.
#[tokio::test(start_paused = true)]
async fn another_type_is_named() {
    let world = VirtualWorld::new(2);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let replicator = &nodes[0].replicator;
    let key = Key::<OrSet<String>>::new("k");
    let name = || text("k");
    assert_eq!(
        replicator.get(&key).await.unwrap_err(),
        GetError::NotFound { key: name() }
    );
    replicator
        .update(&key, |set| set.insert(&text("a")))
        .level(Level::All)
        .await
        .unwrap();

    let wrong = Key::<GCounter>::new("k");
    let (held, asked) = (text("or-set<string>"), text("g-counter"));
    let mismatch = GetError::TypeMismatch {
        key: name(),
        held,
        asked,
    };
    assert_eq!(nodes[1].replicator.get(&wrong).await.unwrap_err(), mismatch);
    assert_eq!(
        mismatch.to_string(),
        "`k` holds a or-set<string>, not a g-counter"
    );
    let told = nodes[1].replicator.subscribe(&wrong).await;
    assert!(matches!(told, Err(SubscribeError::TypeMismatch { .. })));
}

/// A change that panics, or that puts another value in the place of the one it got, harms nothing.
#[tokio::test(start_paused = true)]
async fn changes_that_misbehave_harm_nothing() {
    let world = VirtualWorld::new(13);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let replicator = &nodes[0].replicator;
    let key = Key::<OrSet<String>>::new("k");
    let insert = replicator.update(&key, |set| set.insert(&text("a")));
    insert.level(Level::All).await.unwrap();
    // A panic is an error, and what was changed before it stands.
    let panicked = replicator.update(&key, |set| {
        set.insert(&text("b"));
        assert!(set.is_empty(), "as told");
    });
    let panicked = panicked.await.unwrap_err();
    let UpdateError::Panicked { why, .. } = &panicked else {
        panic!("{panicked}");
    };
    assert!(why.contains("as told"), "{why}");
    // Nor does it harm to put another value in the place of this one.
    let other = replicator.get(&key).await.unwrap();
    let replaced = replicator.update(&key, move |set| *set = other);
    replaced.await.unwrap();
    assert_eq!(replicator.get(&key).await.unwrap().len(), 2);
    let maps = Key::<OrMap<u8, OrSet<String>>>::new("maps");
    let inside = replicator.update(&maps, |map| {
        map.update(&1, |set| set.insert(&text("a")));
        map.update(&1, |set| {
            set.insert(&text("b"));
            assert!(set.is_empty(), "as told");
        });
    });
    assert!(matches!(inside.await, Err(UpdateError::Panicked { .. })));
    let inner = replicator.get(&maps).await.unwrap().get(&1).unwrap();
    assert_eq!(inner.len(), 2);
}

/// What cannot be written is refused.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_refused() {
    let world = VirtualWorld::new(14);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let replicator = &nodes[0].replicator;
    let key = Key::<OrSet<String>>::new("k");
    let secrets = Key::<GSet<Secret>>::new("secrets");
    let refused = replicator.update(&secrets, |set| set.insert(&Secret)).await;
    assert!(
        matches!(refused, Err(UpdateError::NotEncodable { .. })),
        "{refused:?}"
    );
    let name = || text("k");
    let large = replicator
        .update(&key, |set| set.insert(&"x".repeat(600 << 10)))
        .await;
    assert_eq!(large, Err(UpdateError::TooLarge { key: name() }));
    let empty = Key::<GCounter>::new("");
    let refused = replicator.update(&empty, |count| count.add(1)).await;
    assert_eq!(refused, Err(UpdateError::BadKey { key: String::new() }));
}

/// Who does not answer in time is counted; what was deleted stays so; there is one replicator a node.
#[tokio::test(start_paused = true)]
async fn silence_and_the_end_are_told() {
    let world = VirtualWorld::new(15);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let replicator = &nodes[0].replicator;
    let key = Key::<OrSet<String>>::new("k");
    let name = || text("k");
    let insert = replicator.update(&key, |set| set.insert(&text("a")));
    insert.level(Level::All).await.unwrap();

    // Nobody answers: who has, and who should.
    world.crash(addr(2));
    let begun = Instant::now();
    let write = replicator.update(&key, |set| set.insert(&text("c")));
    let timed_out = write.level(Level::All).within(SECOND).await;
    assert_eq!(
        timed_out,
        Err(UpdateError::Timeout {
            key: name(),
            answered: 1,
            needed: 2
        })
    );
    assert_eq!(begun.elapsed().as_millis(), 1_000);
    let read = replicator
        .get(&key)
        .level(Level::From(5))
        .within(SECOND)
        .await;
    assert_eq!(
        read.unwrap_err(),
        GetError::Timeout {
            key: name(),
            answered: 1,
            needed: 5
        }
    );

    replicator.delete(&key).await.unwrap();
    assert_eq!(
        replicator.get(&key).await.unwrap_err(),
        GetError::Deleted { key: name() }
    );
    let wrong = Key::<GCounter>::new("k");
    let refused = replicator.delete(&wrong).await;
    assert!(matches!(refused, Err(DeleteError::TypeMismatch { .. })));

    let config = ReplicatorConfig::default();
    let again = Replicator::start(&nodes[0].cluster, config).await;
    assert!(matches!(again, Err(StartError::NotStarted(_))), "{again:?}");
    nodes[0].cluster.remote().system().shutdown().await;
    let gone = replicator.get(&key).await;
    assert!(
        matches!(gone, Err(GetError::Unavailable { .. })),
        "{gone:?}"
    );
}

/// Changes are told on each node, the newest only; the end too.
#[tokio::test(start_paused = true)]
async fn changes_are_followed() {
    let world = VirtualWorld::new(3);
    let nodes = start_all(&world, 2, &ReplicatorConfig::default()).await;
    let key = Key::<GSet<u32>>::new("k");
    let mut changes = nodes[1].replicator.subscribe(&key).await.unwrap();
    for n in 0..100 {
        let insert = nodes[0].replicator.update(&key, move |set| set.insert(&n));
        insert.await.unwrap();
    }
    let mut told = 0;
    loop {
        let change = timeout(10 * SECOND, changes.next()).await.unwrap();
        let Some(Change::Updated(set)) = change else {
            panic!("{change:?}");
        };
        told += 1;
        if set.len() == 100 {
            break;
        }
    }
    assert!(told < 20, "{told}");
    let mut late = nodes[0].replicator.subscribe(&key).await.unwrap();
    let first = timeout(SECOND, late.next()).await.unwrap();
    assert!(matches!(first, Some(Change::Updated(set)) if set.len() == 100));
    nodes[0]
        .replicator
        .delete(&key)
        .level(Level::All)
        .await
        .unwrap();
    let last = timeout(SECOND, changes.next()).await.unwrap();
    assert!(matches!(last, Some(Change::Deleted)));
    nodes[1].cluster.remote().system().shutdown().await;
    assert!(timeout(SECOND, changes.next()).await.unwrap().is_none());
}

/// ddata, JepsenInspiredInsert, over the real layers: a cut into 3 and 2, and a network that loses.
#[tokio::test(start_paused = true)]
async fn a_majority_is_read_back_over_a_cut() {
    let world = VirtualWorld::new(4);
    world.set_loss(0.05);
    let nodes = start_all(&world, 5, &ReplicatorConfig::default()).await;
    let key = Key::<OrSet<u32>>::new("jepsen");
    let mut writers = Vec::new();
    for (number, node) in (0u32..).zip(&nodes) {
        let (replicator, key) = (node.replicator.clone(), key.clone());
        writers.push(tokio::spawn(async move {
            let mut confirmed = BTreeSet::new();
            for n in 0..60 {
                let name = number * 1_000 + n;
                let write = replicator.update(&key, move |set| set.insert(&name));
                let write = write.level(Level::majority()).within(2 * SECOND);
                if write.await.is_ok() {
                    confirmed.insert(name);
                }
                sleep(Duration::from_millis(30)).await;
            }
            confirmed
        }));
    }
    sleep(SECOND).await;
    for (one, other) in [(1, 4), (1, 5), (2, 4), (2, 5), (3, 4), (3, 5)] {
        world.cut(addr(one), addr(other));
    }
    // Shorter than it takes to declare anybody out.
    sleep(2 * SECOND).await;
    world.heal_all();
    let mut confirmed = BTreeSet::new();
    for writer in writers {
        confirmed.extend(writer.await.unwrap());
    }
    assert!(confirmed.len() > 3 * 55, "{} confirmed", confirmed.len());
    for node in &nodes {
        let read = node
            .replicator
            .get(&key)
            .level(Level::majority())
            .await
            .unwrap();
        let read: BTreeSet<u32> = read.iter().collect();
        assert!(
            read.is_superset(&confirmed),
            "{:?} lost",
            &confirmed - &read
        );
    }
    for node in &nodes {
        until(node, &key, |set| set.len() == 300).await;
    }
}

/// ddata, Durable: all nodes end and start again; what was stored is there.
#[tokio::test(start_paused = true)]
async fn durable_entries_outlive_the_cluster() {
    let world = VirtualWorld::new(5);
    let key = Key::<GCounter>::new("kept/visits");
    let mut stores = Vec::new();
    for round in 1..=3u64 {
        let mut nodes = Vec::new();
        for number in 1..=3u16 {
            let store = stores.get(usize::from(number) - 1).cloned();
            let store: Arc<MemoryDurableStore> = store.unwrap_or_default();
            if round == 1 {
                stores.push(store.clone());
            }
            let config = ReplicatorConfig::default().with_durable(store, ["kept/*"]);
            nodes.push(start(&world, number, config).await);
        }
        sees(&nodes, 3).await;
        let add = nodes[1].replicator.update(&key, |count| count.add(1));
        add.level(Level::All).await.unwrap();
        let read = nodes[2].replicator.get(&key).await.unwrap();
        assert_eq!(read.value(), u128::from(round));
        let other = Key::<GCounter>::new("other");
        let read = nodes[0].replicator.get(&other).level(Level::All).await;
        assert!(matches!(read, Err(GetError::NotFound { .. })));
        nodes[0]
            .replicator
            .update(&other, |count| count.add(1))
            .await
            .unwrap();
        for (number, node) in (1..).zip(nodes) {
            world.crash(addr(number));
            node.cluster.remote().system().shutdown().await;
        }
    }
    assert!(stores.iter().all(|store| store.len() == 1));
}

/// A store that fails when told.
#[derive(Default)]
struct Failing {
    inner: MemoryDurableStore,
    fails: AtomicBool,
    panics: AtomicBool,
}

type Rows = Vec<StoredEntry>;

impl DurableStore for Failing {
    fn load(&self) -> futures_util::future::BoxFuture<'_, Result<Rows, StoreError>> {
        Box::pin(async move {
            if self.fails.load(Ordering::Relaxed) {
                return Err(StoreError::new("as told"));
            }
            self.inner.load().await
        })
    }

    fn store(&self, batch: Rows) -> futures_util::future::BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            assert!(!self.panics.load(Ordering::Relaxed), "as told");
            if self.fails.load(Ordering::Relaxed) {
                return Err(StoreError::new("as told"));
            }
            self.inner.store(batch).await
        })
    }
}

/// ddata, Durable: what cannot be stored is said, tried again, and not loaded wrongly.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_told() {
    let world = VirtualWorld::new(6);
    let store = Arc::new(Failing::default());
    let config = ReplicatorConfig::default().with_durable(store.clone(), ["k"]);
    let node = start(&world, 1, config.clone()).await;
    let key = Key::<GCounter>::new("k");
    let add = || node.replicator.update(&key, |count| count.add(1));
    add().await.unwrap();
    for broken in [&store.fails, &store.panics] {
        broken.store(true, Ordering::Relaxed);
        assert_eq!(add().await, Err(UpdateError::NotStored { key: text("k") }));
        assert!(node.replicator.get(&key).await.is_ok(), "it goes on");
        broken.store(false, Ordering::Relaxed);
    }
    sleep(3 * SECOND).await;
    let stored = store.load().await.unwrap().remove(0);
    node.cluster.remote().system().shutdown().await;
    world.crash(addr(1));
    let node = start(&world, 1, config.clone()).await;
    assert_eq!(
        node.replicator.get(&key).await.unwrap().value(),
        3,
        "tried again"
    );

    store.fails.store(true, Ordering::Relaxed);
    let failed = Replicator::start(&node.cluster, config.clone()).await;
    assert!(matches!(failed, Err(StartError::Load(_))));
    store.fails.store(false, Ordering::Relaxed);
    for bytes in [vec![], vec![9, 1, 2], stored.bytes[..9].to_vec()] {
        store
            .inner
            .store(vec![StoredEntry::new("k", bytes)])
            .await
            .unwrap();
        let failed = Replicator::start(&node.cluster, config.clone()).await;
        assert!(
            matches!(failed, Err(StartError::Unreadable { .. })),
            "{failed:?}"
        );
    }
}

/// ddata, Pruning, over the real layers: a node crashes and is declared out, its count stays, its name
/// does not.
#[tokio::test(start_paused = true)]
async fn counts_of_a_node_that_is_gone_stay() {
    let world = VirtualWorld::new(7);
    let config = ReplicatorConfig::default()
        .with_pruning(5 * SECOND, 2 * SECOND)
        .with_gossip_interval(SECOND);
    let mut nodes = start_all(&world, 3, &config).await;
    let key = Key::<PnCounter>::new("sum");
    for (node, count) in nodes.iter().zip(1..) {
        let add = node.replicator.update(&key, move |sum| sum.add(count));
        add.level(Level::All).await.unwrap();
    }
    let store = Arc::new(MemoryDurableStore::new());
    world.crash(addr(3));
    let gone = nodes.pop().unwrap();
    let incarnation = gone.cluster.me().incarnation;
    gone.cluster.remote().system().shutdown().await;
    drop(gone);
    sees(&nodes, 2).await;
    sleep(30 * SECOND).await;
    for node in &nodes {
        node.replicator
            .update(&key, |sum| sum.add(1))
            .level(Level::All)
            .await
            .unwrap();
    }
    for node in &nodes {
        assert_eq!(until(node, &key, |sum| sum.value() == 8).await.value(), 8);
    }
    // A third node gets the value; what it stores shows who is named in it.
    let config = config.with_durable(store.clone(), ["*"]);
    nodes.push(start(&world, 3, config).await);
    sees(&nodes, 3).await;
    until(&nodes[2], &key, |sum| sum.value() == 8).await;
    sleep(SECOND).await;
    let rows = store.load().await.unwrap();
    // The mark says once whose writes these are now; the value does not name it.
    let needle = incarnation.to_le_bytes();
    let named = rows[0]
        .bytes
        .windows(8)
        .filter(|bytes| **bytes == needle)
        .count();
    assert_eq!(named, 1, "only in the mark");
}
