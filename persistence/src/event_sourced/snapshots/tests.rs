//! Snapshot tests: when they are taken, what is deleted behind them, and what a deleted entity leaves.

use crate::codec::Codec;
use crate::error::AppendError;
use crate::event_sourced::entity::{Entity, EntityError, Fresh, Next, Place};
use crate::event_sourced::post::{Change, Post};
use crate::event_sourced::{Effect, EventSourced, Options, RecoveryError};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, DeleteRequest, Fence, Journal};
use crate::memory::MemoryJournal;
use crate::snapshot::SnapshotStore as _;
use std::num::NonZeroU32;
use std::sync::Arc;

#[derive(Default)]
struct Sum {
    sum: u64,
    /// How many events this instance has applied.
    applied: u64,
}

enum Command {
    Add(u64),
    Delete,
}

impl EventSourced for Sum {
    type Command = Command;
    type Event = u64;
    type Snapshot = u64;
    const EVENT_NAME: &'static str = "test.Added";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Add(n) => Effect::persist(n),
            Command::Delete => Effect::none().delete(),
        }
    }

    fn apply(&mut self, n: &u64) {
        self.sum += n;
        self.applied += 1;
    }

    fn tags(&self, n: &u64) -> Vec<Arc<str>> {
        let parity = if n.is_multiple_of(2) { "even" } else { "odd" };
        vec![parity.into()]
    }

    fn snapshot_when(&self, n: &u64) -> bool {
        *n == 100
    }

    fn snapshot(&self) -> Option<u64> {
        Some(self.sum)
    }

    fn restore(&mut self, sum: u64) {
        self.sum = sum;
    }
}

fn id() -> PersistenceId {
    PersistenceId::new("sum", "1")
}

fn place(journal: &MemoryJournal, options: Options) -> Place {
    Place {
        id: id(),
        snapshots: journal.snapshots(),
        journal: Arc::new(journal.clone()),
        fence: None,
        courier: None,
        keys: None,
        options,
    }
}

async fn recovered(place: Place) -> Entity<Sum> {
    let mut entity = Entity::new(place, Fresh::new(Sum::default));
    entity.recover().await.unwrap();
    entity
}

async fn add(entity: &mut Entity<Sum>, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        assert_eq!(
            entity.handle(Command::Add(n)).await.unwrap(),
            Next::Continue
        );
    }
}

async fn latest(journal: &MemoryJournal) -> Option<u64> {
    let latest = journal.latest(&id(), u64::MAX).await.unwrap();
    latest.map(|snapshot| snapshot.seq)
}

async fn deleted(journal: &MemoryJournal) -> u64 {
    journal.read(&id(), 1, 1).await.unwrap().deleted_seq
}

#[tokio::test]
async fn an_event_may_want_a_snapshot() {
    let journal = MemoryJournal::new();
    let mut entity = recovered(place(&journal, Options::default())).await;
    add(&mut entity, [1, 2]).await;
    assert_eq!(latest(&journal).await, None);
    add(&mut entity, [100]).await;
    assert_eq!(latest(&journal).await, Some(3));
}

#[tokio::test]
async fn events_have_their_tags() {
    let journal = MemoryJournal::new();
    let mut entity = recovered(place(&journal, Options::default())).await;
    add(&mut entity, [1, 2]).await;
    let page = journal.read(&id(), 1, 9).await.unwrap();
    let tags: Vec<_> = page.events.iter().map(|e| &*e.record.tags[0]).collect();
    assert_eq!(tags, ["odd", "even"]);
}

/// What all kept snapshots hold is deleted, nothing more; recovery needs nothing of it.
#[tokio::test]
async fn covered_events_are_deleted() {
    let journal = MemoryJournal::new();
    let options = Options::default()
        .snapshot_every(10)
        .delete_covered_events(true);
    let mut entity = recovered(place(&journal, options.clone())).await;
    add(&mut entity, 1..=19).await;
    assert_eq!(
        (latest(&journal).await, deleted(&journal).await),
        (Some(10), 0)
    );
    add(&mut entity, 20..=25).await;
    assert_eq!(
        (latest(&journal).await, deleted(&journal).await),
        (Some(20), 10)
    );
    let mut entity = recovered(place(&journal, options)).await;
    assert_eq!(
        (entity.state.sum, entity.state.applied, entity.seq),
        (325, 5, 25)
    );
    add(&mut entity, 26..=30).await;
    assert_eq!(
        deleted(&journal).await,
        20,
        "an instance learns which snapshots there are"
    );
    let one = Options::default()
        .snapshot_every(10)
        .snapshots_kept(NonZeroU32::MIN)
        .delete_covered_events(true);
    let mut entity = recovered(place(&journal, one)).await;
    add(&mut entity, 31..=40).await;
    assert_eq!(deleted(&journal).await, 40);
    let entity = recovered(place(&journal, Options::default())).await;
    assert_eq!((entity.state.sum, entity.seq), (820, 40));
}

/// P7: events are gone and no snapshot stands for them: an error with both numbers, never a wrong state.
#[tokio::test]
async fn deleted_events_without_a_snapshot_stop_recovery() {
    let journal = MemoryJournal::new();
    let options = Options::default()
        .snapshot_every(10)
        .delete_covered_events(true);
    let mut entity = recovered(place(&journal, options)).await;
    add(&mut entity, 1..=20).await;
    let snapshots = |through| journal.delete_snapshots(through);
    for (through, error) in [(19, None), (20, Some((0, 10)))] {
        snapshots(through).await;
        let mut entity = Entity::new(
            place(&journal, Options::default()),
            Fresh::new(Sum::default),
        );
        match (entity.recover().await, error) {
            (Ok(()), None) => assert_eq!(entity.state.sum, 210),
            (Err(EntityError::Recovery { source, .. }), Some((of, gone))) => assert!(
                matches!(source, RecoveryError::EventsDeleted { snapshot, deleted }
                    if (snapshot, deleted) == (of, gone)),
                "{source}"
            ),
            other => panic!("{other:?}"),
        }
    }
    // Not even when everything was deleted by hand.
    let journal = MemoryJournal::new();
    let mut entity = recovered(place(&journal, Options::default())).await;
    add(&mut entity, 1..=3).await;
    Journal::delete(&journal, DeleteRequest::new(id(), 9))
        .await
        .unwrap();
    let mut entity = Entity::new(
        place(&journal, Options::default()),
        Fresh::new(Sum::default),
    );
    assert!(entity.recover().await.is_err());
}

impl MemoryJournal {
    async fn delete_snapshots(&self, through: u64) {
        crate::snapshot::SnapshotStore::delete(self, &id(), through)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_deleted_entity_is_empty_and_its_numbers_go_on() {
    let journal = MemoryJournal::new();
    let options = Options::default().snapshot_every(2);
    let mut entity = recovered(place(&journal, options.clone())).await;
    add(&mut entity, [5, 6, 7]).await;
    assert_eq!(
        entity.handle(Command::Delete).await.unwrap(),
        Next::Continue
    );
    assert_eq!((entity.state.sum, entity.seq), (0, 4));
    assert_eq!((latest(&journal).await, deleted(&journal).await), (None, 3));
    add(&mut entity, [9]).await;
    let entity = recovered(place(&journal, options)).await;
    assert_eq!((entity.state.sum, entity.seq), (9, 5));
}

/// The process ends between the record of a deletion and the deletion, or when the events are removed
/// and the snapshots are not: it is finished at recovery.
#[tokio::test]
async fn a_deletion_that_was_cut_short_is_finished() {
    for removed in [0, 3] {
        let journal = MemoryJournal::new();
        let mut entity = recovered(place(&journal, Options::default().snapshot_every(2))).await;
        add(&mut entity, [5, 6, 7]).await;
        let end = Change::Deleted(Post::default());
        let record = end.record(&Codec::new(id()), 4).unwrap();
        let request = AppendRequest::new(id(), 3, vec![record]);
        journal.append(request).await.unwrap();
        let events = DeleteRequest::new(id(), removed);
        Journal::delete(&journal, events).await.unwrap();
        assert_eq!(
            (latest(&journal).await, deleted(&journal).await),
            (Some(2), removed)
        );
        let entity = recovered(place(&journal, Options::default())).await;
        assert_eq!((entity.state.sum, entity.seq), (0, 4));
        assert_eq!((latest(&journal).await, deleted(&journal).await), (None, 3));
    }
}

/// P6: an owner that was replaced deletes nothing.
#[tokio::test]
async fn a_fenced_entity_deletes_nothing() {
    let journal = MemoryJournal::new();
    journal.claim("shard", 1).await.unwrap();
    let fenced = Place {
        fence: Some(Fence::new("shard", 1)),
        ..place(&journal, Options::default())
    };
    let mut entity = recovered(fenced).await;
    add(&mut entity, [5]).await;
    journal.claim("shard", 2).await.unwrap();
    let next = entity.handle(Command::Delete).await.unwrap();
    assert_eq!(next, Next::Fenced { current: 2 });
    let fenced = entity.place.delete_events(1).await;
    assert!(matches!(fenced, Err(AppendError::Fenced { current: 2 })));
    assert_eq!(deleted(&journal).await, 0);
}
