//! Proves: all nodes list the same services, nobody dead among them, whatever becomes of nodes.

use crate::ontop::{MS, Note, SECOND, World, addr};
use otava_actor::receptionist::{KeyError, WaitForError};
use otava_actor::{ActorRef, ServiceKey};
use otava_cluster::receptionist::{ClusterListing, RegisterError};
use otava_remote::{NodeId, RemoteMessage};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

static DESKS: ServiceKey<Note> = ServiceKey::new("desks");

/// The nodes of a listing.
fn all(listing: &ClusterListing<Note>) -> Vec<NodeId> {
    listing.all().iter().map(|s| s.node.clone()).collect()
}

fn reachable(listing: &ClusterListing<Note>) -> Vec<NodeId> {
    listing.reachable().map(|s| s.node.clone()).collect()
}

/// Waits until the listing of node `n` `is` so.
async fn listed(world: &World, n: u16, is: impl Fn(&ClusterListing<Note>) -> bool) -> Duration {
    let begin = Instant::now();
    let mut listings = world.nodes[&n].receptionist.listings(&DESKS).unwrap();
    let seen = async {
        while let Some(listing) = listings.recv().await {
            if is(&listing) {
                break;
            }
        }
    };
    if timeout(SECOND * 30, seen).await.is_err() {
        let found = world.nodes[&n].receptionist.find(&DESKS);
        panic!("node {n} lists {found:?}");
    }
    begin.elapsed()
}

/// L9 over nodes: actors of all nodes are listed by all, in the same order, and are reached; one that
/// stops is off all listings within 100 ms; those of a dead node are off the list of reachable ones
/// as soon as it is known to be unreachable, and off the listing when it is out; a new run at the
/// same address is listed anew.
#[tokio::test(start_paused = true)]
async fn listings_follow_actors_and_nodes() {
    let mut world = World::formed(1, 4).await;
    let mut inboxes = Vec::new();
    for node in world.nodes.values() {
        let (desk, inbox) = node.spawn::<Note>("desk");
        node.receptionist.register(&DESKS, &desk).unwrap();
        node.receptionist.register(&DESKS, &desk).unwrap();
        inboxes.push((desk, inbox));
    }
    let ids: Vec<NodeId> = world.nodes.values().map(|node| node.id().clone()).collect();
    for n in 1..=4 {
        let took = listed(&world, n, |listing| all(listing) == ids).await;
        assert!(took < MS * 100, "{took:?}");
        let listing = world.nodes[&n].receptionist.find(&DESKS).unwrap();
        for (number, actor) in listing.actors().enumerate() {
            let number = number as u64;
            actor.tell(Note { from: n, number }).unwrap();
        }
    }
    for (number, (_, inbox)) in inboxes.iter_mut().enumerate() {
        let mut senders = Vec::new();
        for _ in 1..=4 {
            let note = timeout(SECOND, inbox.recv()).await.unwrap().unwrap();
            assert_eq!(note.number, number as u64);
            senders.push(note.from);
        }
        senders.sort_unstable();
        assert_eq!(senders, [1, 2, 3, 4]);
    }

    // One stops: here at once, elsewhere soon.
    inboxes[1].0.stop();
    for n in 1..=4 {
        let took = listed(&world, n, |listing| listing.len() == 3).await;
        assert!(took < MS * 100, "{took:?}");
    }

    // One dies.
    let dead = world.crash(4).await;
    let unreachable = |listing: &ClusterListing<Note>| {
        reachable(listing).len() == 2 && all(listing).contains(&dead)
    };
    for n in 1..=3 {
        listed(&world, n, unreachable).await;
    }
    for node in world.nodes.values() {
        node.sees("its end", |state| {
            state.get(&dead).is_none_or(|m| !m.status.is_live())
        })
        .await;
        // Without a wait: the listing is as new as the view of the members.
        tokio::task::yield_now().await;
        let listing = node.receptionist.find(&DESKS).unwrap();
        assert_eq!(all(&listing), [ids[0].clone(), ids[2].clone()]);
    }

    // It comes back at the same address.
    world.start(4);
    world.settled().await;
    let node = &world.nodes[&4];
    let (desk, mut inbox) = node.spawn::<Note>("desk");
    node.receptionist.register(&DESKS, &desk).unwrap();
    let back = node.id().clone();
    assert_eq!((back.addr, &back.name), (dead.addr, &dead.name));
    for n in 1..=4 {
        listed(&world, n, |listing| reachable(listing).len() == 3).await;
        let listing = world.nodes[&n].receptionist.find(&DESKS).unwrap();
        assert_eq!(
            all(&listing),
            [ids[0].clone(), ids[2].clone(), back.clone()]
        );
        let last = listing.actors().last().unwrap();
        last.tell(Note { from: n, number: 9 }).unwrap();
        assert_eq!(
            timeout(SECOND, inbox.recv()).await.unwrap().unwrap().from,
            n
        );
    }
}

/// What is registered during a cut, and while every third packet is lost, is listed by all soon after.
#[tokio::test(start_paused = true)]
async fn a_cut_and_loss_are_made_up_for() {
    let world = World::formed(2, 3).await;
    world.net.isolate(addr(3));
    let mut kept = Vec::new();
    for n in 1..=3 {
        let (desk, inbox) = world.nodes[&n].spawn::<Note>("desk");
        world.nodes[&n]
            .receptionist
            .register(&DESKS, &desk)
            .unwrap();
        kept.push((desk, inbox));
    }
    // Shorter than it takes to be put down.
    sleep(SECOND * 2).await;
    for (n, count) in [(1, 2), (2, 2), (3, 1)] {
        let listing = world.nodes[&n].receptionist.find(&DESKS).unwrap();
        assert_eq!(listing.all().len(), count, "node {n}");
    }
    world.net.rejoin(addr(3));
    world.net.set_loss(0.3);
    for n in 1..=3 {
        let took = listed(&world, n, |listing| listing.len() == 3).await;
        assert!(took < SECOND * 8, "node {n} took {took:?}");
    }
    world.net.set_loss(0.0);
    world.settled().await;
}

/// A subscriber gets the listing as it is and each later one; who waits is told, or why not.
#[tokio::test(start_paused = true)]
async fn subscribers_and_waiters_are_told() {
    struct Heard(usize);
    impl From<ClusterListing<Note>> for Heard {
        fn from(listing: ClusterListing<Note>) -> Self {
            Self(listing.len())
        }
    }
    impl RemoteMessage for Heard {
        const NAME: &'static str = "test.Heard";
    }
    impl Serialize for Heard {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Heard {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            usize::deserialize(deserializer).map(Self)
        }
    }
    let world = World::formed(3, 2).await;
    let (one, two) = (&world.nodes[&1], &world.nodes[&2]);
    let (listener, mut heard) = one.spawn::<Heard>("listener");
    one.receptionist.subscribe(&DESKS, &listener).unwrap();
    one.receptionist.subscribe(&DESKS, &listener).unwrap();
    assert_eq!(heard.recv().await.unwrap().0, 0);
    let waiting = one.receptionist.wait_for(&DESKS, 2, SECOND * 5);
    let (a, _kept) = one.spawn::<Note>("a");
    one.receptionist.register(&DESKS, &a).unwrap();
    assert_eq!(heard.recv().await.unwrap().0, 1);
    let failed = one.receptionist.wait_for(&DESKS, 2, SECOND).await;
    assert!(matches!(
        failed,
        Err(WaitForError::Timeout { found: 1, .. })
    ));
    let (b, _kept_too) = two.spawn::<Note>("b");
    two.receptionist.register(&DESKS, &b).unwrap();
    assert_eq!(waiting.await.unwrap().len(), 2);
    assert_eq!(heard.recv().await.unwrap().0, 2);

    assert!(two.receptionist.deregister(&DESKS, &b).unwrap());
    assert!(!two.receptionist.deregister(&DESKS, &b).unwrap());
    assert_eq!(heard.recv().await.unwrap().0, 1);
    // A name is not reached any more under which nobody is registered.
    assert!(one.receptionist.unsubscribe(&DESKS, &listener).unwrap());
    a.stop();
    sleep(SECOND).await;
    assert!(heard.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn keys_have_one_type_and_a_name() {
    let world = World::formed(4, 1).await;
    let node = &world.nodes[&1];
    let (desk, _kept) = node.spawn::<Note>("desk");
    node.receptionist.register(&DESKS, &desk).unwrap();
    let other: ServiceKey<Other> = ServiceKey::new("desks");
    assert!(matches!(
        node.receptionist.find(&other),
        Err(KeyError::OtherType { .. })
    ));
    let long: ServiceKey<Note> = ServiceKey::named("x".repeat(200));
    let refused: Result<(), RegisterError> = node.receptionist.register(&long, &desk);
    assert!(matches!(refused, Err(RegisterError::BadName(_))));
    // One that has ended is not registered.
    let (gone, _kept): (ActorRef<Note>, _) = node.spawn("gone");
    gone.stop();
    sleep(SECOND).await;
    node.receptionist.register(&DESKS, &gone).unwrap();
    assert_eq!(node.receptionist.find(&DESKS).unwrap().all().len(), 1);
}

#[derive(Deserialize, Serialize)]
struct Other;

impl RemoteMessage for Other {
    const NAME: &'static str = "test.Other";
}
