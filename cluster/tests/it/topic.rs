//! Proves: what is published comes to all subscribers of the cluster, once, in order, and to one of
//! each group; and a copy crosses to a node once.

use crate::ontop::{MS, Note, SECOND, World};
use otava_actor::receptionist::KeyError;
use otava_cluster::Topics;
use otava_cluster::topic::{Topic, TopicError};
use otava_remote::RemoteMessage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;

fn topics(world: &World) -> BTreeMap<u16, Topic<Note>> {
    let topic = |node: &crate::ontop::Node| {
        let topics = Topics::start(&node.receptionist);
        topics.topic("notes").unwrap()
    };
    world
        .nodes
        .iter()
        .map(|(n, node)| (*n, topic(node)))
        .collect()
}

fn drain(inbox: &mut UnboundedReceiver<Note>) -> Vec<u64> {
    let mut got = Vec::new();
    while let Ok(note) = inbox.try_recv() {
        got.push(note.number);
    }
    got
}

#[tokio::test(start_paused = true)]
async fn all_subscribers_hear_everything_in_order() {
    let mut world = World::formed(21, 4).await;
    let mut topics = topics(&world);
    let mut inboxes = Vec::new();
    // Two subscribers each on nodes 1 to 3, none on the fourth.
    for n in 1..=3 {
        for name in ["a", "b"] {
            let (subscriber, inbox) = world.nodes[&n].spawn::<Note>(name);
            topics[&n].subscribe(&subscriber).unwrap();
            topics[&n].subscribe(&subscriber).unwrap();
            inboxes.push((n, subscriber, inbox));
        }
    }
    sleep(SECOND).await;
    for number in 1..=100 {
        let published = topics[&4].publish(Note { from: 4, number });
        assert_eq!((published.nodes, published.refused), (3, 0));
    }
    sleep(SECOND).await;
    let all: Vec<u64> = (1..=100).collect();
    for (n, _, inbox) in &mut inboxes {
        assert_eq!(drain(inbox), all, "node {n}");
    }

    // Who ends, or takes it back, hears nothing more; a node without subscribers gets nothing.
    assert!(topics[&1].unsubscribe(&inboxes[0].1));
    assert!(!topics[&1].unsubscribe(&inboxes[0].1));
    inboxes[2].1.stop();
    inboxes[3].1.stop();
    sleep(SECOND).await;
    assert_eq!(topics[&4].publish(Note { from: 4, number: 7 }).nodes, 2);
    sleep(SECOND).await;
    let heard: Vec<usize> = inboxes
        .iter_mut()
        .map(|(.., inbox)| drain(inbox).len())
        .collect();
    assert_eq!(heard, [0, 1, 0, 0, 1, 1]);

    // Nor does a node that is lost, once that is known.
    let dead = world.crash(3).await;
    topics.remove(&3);
    world.nodes[&1]
        .sees("its end", |state| {
            state.is_unreachable(&dead) || state.get(&dead).is_none()
        })
        .await;
    sleep(MS * 500).await;
    assert_eq!(topics[&1].publish(Note { from: 1, number: 8 }).nodes, 1);
}

#[tokio::test(start_paused = true)]
async fn one_of_each_group_hears_it() {
    let world = World::formed(22, 3).await;
    let topics = topics(&world);
    let mut inboxes = Vec::new();
    for (group, nodes) in [("x", [1, 1, 2]), ("y", [2, 3, 3])] {
        for (place, n) in nodes.into_iter().enumerate() {
            let (member, inbox) = world.nodes[&n].spawn::<Note>(&format!("{group}{place}"));
            topics[&n].subscribe_group(group, &member).unwrap();
            inboxes.push((group, member, inbox));
        }
    }
    sleep(SECOND).await;
    for number in 0..120 {
        let published = topics[&1].publish(Note { from: 1, number });
        assert!((1..=2).contains(&published.nodes));
    }
    sleep(SECOND).await;
    let mut counts = BTreeMap::new();
    for (group, _, inbox) in &mut inboxes {
        let got = drain(inbox);
        assert!(got.is_sorted());
        counts
            .entry(*group)
            .or_insert_with(Vec::new)
            .push(got.len());
    }
    // Nodes take turns, and members on each node.
    assert_eq!(counts["x"], [30, 30, 60]);
    assert_eq!(counts["y"], [60, 30, 30]);
    assert!(topics[&2].unsubscribe_group("x", &inboxes[2].1));
    sleep(SECOND).await;
    let published = topics[&3].publish(Note { from: 3, number: 0 });
    assert_eq!(published.refused, 0);
    sleep(SECOND).await;
    let heard: usize = inboxes
        .iter_mut()
        .map(|(.., inbox)| drain(inbox).len())
        .sum();
    assert_eq!(heard, 2);
}

#[tokio::test(start_paused = true)]
async fn a_topic_has_one_type_and_a_name() {
    #[derive(Clone, Deserialize, Serialize)]
    struct Other;
    impl RemoteMessage for Other {
        const NAME: &'static str = "test.OtherTopic";
    }
    let world = World::formed(23, 1).await;
    let topics = Topics::start(&world.nodes[&1].receptionist);
    topics.topic::<Note>("notes").unwrap();
    let other = topics.topic::<Other>("notes");
    assert!(matches!(
        other,
        Err(TopicError::Key(KeyError::OtherType { .. }))
    ));
    let bad = topics.topic::<Note>("a/b");
    assert!(matches!(bad, Err(TopicError::BadName(_))));
}
