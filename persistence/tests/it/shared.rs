//! Shared: several processes, or several handles, use one file at the same time.

use crate::child::{command, start};
use crate::support::{Random, append, check_events, id, open};
use otava_persistence::{
    AppendError, ClaimError, DeleteRequest, Fence, Journal, JournalError, MemoryJournal, OpenError,
    SqliteJournal,
};
use std::collections::BTreeMap;

/// Three processes make the file at once and all write to it: all of it is there.
#[tokio::test]
async fn three_processes_share_one_file_from_its_first_moment() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let mut writers = ["w1", "w2", "w3"].map(|name| start(command(&path, name, "append 8 1")));
        let mut acknowledged = BTreeMap::new();
        for writer in &mut writers {
            for _ in 0..100 {
                let (entity, seq) = writer.next_ack().expect("a writer ended by itself");
                acknowledged.insert(entity, seq);
            }
        }
        for writer in &mut writers {
            writer.kill();
            while let Some((entity, seq)) = writer.next_ack() {
                acknowledged.insert(entity, seq);
            }
        }
        let journal = open(&path).await;
        assert_eq!(acknowledged.len(), 24);
        for (entity, seq) in acknowledged {
            assert!(check_events(&journal, &entity).await >= seq);
        }
        journal.close().await;
        SqliteJournal::verify(&path).await.unwrap();
    }
}

/// P6: an owner is paused by SIGSTOP, another takes over; when the old one wakes up, its write is
/// refused. Exactly one event a sequence number.
#[tokio::test]
async fn a_paused_owner_is_fenced_when_it_wakes_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let mut old = start(command(&path, "old", "fenced shard/7 1"));
    for _ in 0..50 {
        old.next_ack().unwrap();
    }
    let config = otava_persistence::SqliteConfig::default()
        .busy_limit(std::time::Duration::from_millis(200));
    // The writer leaves little room between its commits, and a busy machine still less.
    let journal = loop {
        match SqliteJournal::open(&path, config.clone()).await {
            Ok(journal) => break journal,
            Err(OpenError::Store { reason, .. }) if reason.contains("locked") => {}
            Err(error) => panic!("{error}"),
        }
    };
    loop {
        old.signal("STOP");
        match journal.claim("shard/7", 2).await {
            Ok(()) => break,
            // It was stopped in the middle of a commit: nobody can write until it goes on.
            Err(ClaimError::Store(JournalError::Busy { .. })) => old.signal("CONT"),
            Err(error) => panic!("{error}"),
        }
    }
    let mut seq = journal.highest_seq(&id("shared")).await.unwrap();
    for _ in 0..10 {
        let request = append("shared", seq, 1).fenced(Some(Fence::new("shard/7", 2)));
        seq = journal.append(request).await.unwrap().seq;
    }
    old.signal("CONT");
    assert_eq!(old.next("fenced ").as_deref(), Some("2"));
    assert_eq!(check_events(&journal, "shared").await, seq);
    journal.close().await;
}

/// P6 within one process: two handles on one file.
#[tokio::test]
async fn of_two_writers_of_one_id_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let (one, two) = (open(&path).await, open(&path).await);
    one.append(append("a", 0, 1)).await.unwrap();
    let late = two.append(append("a", 0, 1)).await;
    assert!(
        matches!(
            late,
            Err(AppendError::WrongSequence {
                expected: 0,
                actual: 1
            })
        ),
        "{late:?}"
    );
    two.claim("s", 5).await.unwrap();
    let fenced = one
        .append(append("a", 1, 1).fenced(Some(Fence::new("s", 4))))
        .await;
    assert!(
        matches!(fenced, Err(AppendError::Fenced { current: 5 })),
        "{fenced:?}"
    );
    assert_eq!(one.next_term("t").await.unwrap(), 1);
    assert_eq!(two.next_term("t").await.unwrap(), 2);
    assert_eq!(check_events(&two, "a").await, 1);
    one.close().await;
    two.close().await;
}

/// P6: three handles that take turns at random, each with what it remembers of the file, are one
/// store: every answer is that of a store in memory.
#[tokio::test]
async fn handles_that_take_turns_are_one_store() {
    let mut random = Random::from_environment();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let handles = [open(&path).await, open(&path).await, open(&path).await];
    let (model, mut turn) = (MemoryJournal::new(), 0);
    let (mut done, mut refused) = (0, 0);
    for step in 0..1000 {
        if random.below(3) == 0 {
            turn = random.below(3) as usize;
        }
        let (journal, scope) = (&handles[turn], ["s", "t"][random.below(2) as usize]);
        let epoch = 1 + step / 100 + random.below(8) / 7;
        let entity = random.below(5).to_string();
        let seq = model.highest_seq(&id(&entity)).await.unwrap();
        let fence = Some(Fence::new(scope, epoch));
        let (ours, theirs) = match random.below(10) {
            0 => {
                let (ours, theirs) = (journal.claim(scope, epoch), model.claim(scope, epoch));
                (format!("{:?}", ours.await), format!("{:?}", theirs.await))
            }
            1 => {
                let request = DeleteRequest::new(id(&entity), random.below(seq + 1));
                let request = request.fenced(fence);
                let (ours, theirs) = (journal.delete(request.clone()), model.delete(request));
                (format!("{:?}", ours.await), format!("{:?}", theirs.await))
            }
            drawn => {
                let expected = seq.saturating_sub(u64::from(drawn == 2));
                let request = append(&entity, expected, random.below(3)).fenced(fence);
                let (ours, theirs) = (journal.append(request.clone()), model.append(request));
                (format!("{:?}", ours.await), format!("{:?}", theirs.await))
            }
        };
        assert_eq!(ours, theirs, "step {step}, handle {turn}");
        let count = if ours.starts_with("Ok") {
            &mut done
        } else {
            &mut refused
        };
        *count += 1;
    }
    assert!(
        done > 100 && refused > 100,
        "{done} done, {refused} refused"
    );
    for journal in &handles {
        for entity in 0..5 {
            let id = id(&entity.to_string());
            let (ours, theirs) = (journal.read(&id, 1, 5000), model.read(&id, 1, 5000));
            let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
            let numbers = |page: &otava_persistence::EventPage| {
                let events = page.events.iter();
                events
                    .map(|event| (event.seq, event.position))
                    .collect::<Vec<_>>()
            };
            assert_eq!(numbers(&ours), numbers(&theirs));
        }
    }
    for journal in &handles {
        journal.close().await;
    }
    SqliteJournal::verify(&path).await.unwrap();
}

/// A halted store stops the other processes that share it, also those that have it open, and
/// cannot be opened until somebody has looked.
#[tokio::test]
async fn a_halt_marker_stops_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = open(&path).await;
    journal.append(append("a", 0, 1)).await.unwrap();
    let waits = tokio::spawn({
        let journal = journal.clone();
        async move { journal.halted().await }
    });
    let marker = folder.path().join("journal.db-halted");
    std::fs::write(&marker, "the disk burns\n").unwrap();
    for _ in 0..2 {
        match journal.append(append("a", 1, 1)).await {
            Err(AppendError::Store(JournalError::Halted { reason })) => {
                assert_eq!(&*reason, "the disk burns");
            }
            other => panic!("expected Halted, got {other:?}"),
        }
    }
    assert!(matches!(
        journal.next_term("t").await,
        Err(JournalError::Halted { .. })
    ));
    assert_eq!(&*waits.await.unwrap(), "the disk burns");
    assert_eq!(&*journal.halted().await, "the disk burns");
    journal.close().await;
    let refused = SqliteJournal::open(&path, Default::default())
        .await
        .err()
        .unwrap();
    assert!(refused.to_string().contains("the disk burns"), "{refused}");
    assert_eq!(SqliteJournal::verify(&path).await.unwrap().events, 1);
    std::fs::remove_file(marker).unwrap();
    let journal = open(&path).await;
    assert_eq!(check_events(&journal, "a").await, 1);
    journal.append(append("a", 1, 1)).await.unwrap();
    journal.close().await;
}
