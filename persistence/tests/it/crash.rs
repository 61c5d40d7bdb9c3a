//! Crash: processes are killed while they write; what was acknowledged is there afterwards.

use crate::child::{command, start};
use crate::support::{Random, check_events, open};
use otava_persistence::{Journal, SqliteJournal};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// P1: kill -9 at random moments: every acknowledged event is there, once and in order, an append
/// of several events is whole or absent, and the file opens in less than a second.
#[tokio::test]
async fn every_acknowledged_event_survives_kill_9() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut acknowledged = BTreeMap::new();
    for round in 0..12 {
        let events = [1, 3, 40][round % 3];
        let mut writer = start(command(
            &path,
            &format!("w{events}"),
            &format!("append 20 {events}"),
        ));
        let acks = random.below(400);
        for _ in 0..acks {
            let (entity, seq) = writer.next_ack().expect("the child ended by itself");
            acknowledged.insert(entity, seq);
        }
        writer.kill();
        // What it said before it was killed counts, too.
        while let Some((entity, seq)) = writer.next_ack() {
            acknowledged.insert(entity, seq);
        }
        let begin = Instant::now();
        let journal = open(&path).await;
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "opened after {:?}",
            begin.elapsed()
        );
        for (entity, seq) in &acknowledged {
            let there = check_events(&journal, entity).await;
            assert!(
                there >= *seq,
                "round {round}: {entity} ends at {there}, {seq} was acknowledged"
            );
            let size: u64 = entity[1..].split('/').next().unwrap().parse().unwrap();
            assert_eq!(
                there % size,
                0,
                "round {round}: an append of {entity} is cut in two"
            );
        }
        journal.close().await;
    }
    SqliteJournal::verify(&path).await.unwrap();
}

/// P1 with company: one of three processes is killed while the others go on.
#[tokio::test]
async fn a_killed_process_does_not_disturb_the_others() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut others = [
        start(command(&path, "w2", "append 10 2")),
        start(command(&path, "w3", "append 10 3")),
    ];
    let mut acknowledged = BTreeMap::new();
    for _ in 0..5 {
        let mut victim = start(command(&path, "w5", "append 10 5"));
        for _ in 0..1 + random.below(60) {
            acknowledged.extend(victim.next_ack());
        }
        victim.kill();
        while let Some((entity, seq)) = victim.next_ack() {
            acknowledged.insert(entity, seq);
        }
        for other in &mut others {
            for _ in 0..20 {
                let (entity, seq) = other.next_ack().expect("a process was disturbed");
                acknowledged.insert(entity, seq);
            }
        }
    }
    for other in &mut others {
        other.kill();
        while let Some((entity, seq)) = other.next_ack() {
            acknowledged.insert(entity, seq);
        }
    }
    let journal = open(&path).await;
    assert_eq!(acknowledged.len(), 30);
    for (entity, seq) in &acknowledged {
        let there = check_events(&journal, entity).await;
        assert!(
            there >= *seq,
            "{entity} ends at {there}, {seq} was acknowledged"
        );
    }
    journal.close().await;
    SqliteJournal::verify(&path).await.unwrap();
}
