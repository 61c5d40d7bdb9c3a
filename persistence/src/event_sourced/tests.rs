//! Entity tests: the order of effects, recovery, and what happens when the journal says no.

use super::entity::{Entity, Fresh, Next, Place};
use super::{Effect, EntityError, EventSourced, Options, Recoveries, RecoveryError};
use crate::error::{AppendError, ClaimError, JournalError};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, Appended, EventPage, EventRecord, Fence, Journal};
use crate::memory::MemoryJournal;
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::testkit;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use otava_actor::ReplyTo;
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Keeps every number that it was told, and what was done, in order.
#[derive(Clone, Default)]
struct List {
    numbers: Vec<u64>,
    applied: usize,
    done: Arc<Mutex<Vec<String>>>,
}

enum Command {
    Add(Vec<u64>),
    AddAndStop(u64),
    Confirm,
    Look,
    Panic,
    PanicAfterwards(u64),
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Added(u64);

impl EventSourced for List {
    type Command = Command;
    type Event = Added;
    type Snapshot = Vec<u64>;
    const EVENT_NAME: &'static str = "test.Added";
    const EVENT_VERSION: u16 = 2;

    fn handle(&self, command: Command) -> Effect<Self> {
        let done = |what: &'static str, state: &Self| {
            state
                .done
                .lock()
                .unwrap()
                .push(format!("{what} {:?}", state.numbers));
        };
        let log = Arc::clone(&self.done);
        let reply_to = ReplyTo::from_fn(move |text: String| log.lock().unwrap().push(text), None);
        let reply = |state: &Self| format!("reply {:?}", state.numbers);
        match command {
            Command::Add(numbers) => Effect::persist_all(numbers.into_iter().map(Added).collect())
                .then(move |state| done("then", state))
                .reply_with(reply_to, reply),
            Command::AddAndStop(number) => Effect::persist(Added(number)).stop(),
            Command::Confirm => Effect::none().confirm().reply_with(reply_to, reply),
            Command::Look => Effect::none().reply(reply_to, "look".to_owned()),
            Command::Panic => panic!("before persist"),
            Command::PanicAfterwards(number) => {
                Effect::persist(Added(number)).then(|_| panic!("after persist"))
            }
        }
    }

    fn apply(&mut self, event: &Added) {
        self.numbers.push(event.0);
        self.applied += 1;
    }

    fn snapshot(&self) -> Option<Vec<u64>> {
        Some(self.numbers.clone())
    }

    fn restore(&mut self, snapshot: Vec<u64>) {
        self.numbers = snapshot;
    }
}

fn id() -> PersistenceId {
    PersistenceId::new("list", "1")
}

fn place(journal: Arc<dyn Journal>) -> Place {
    let snapshots = journal.snapshots();
    Place {
        id: id(),
        journal,
        snapshots,
        fence: None,
        courier: None,
        keys: None,
        options: Options::default(),
    }
}

async fn recovered(place: Place) -> (Entity<List>, List) {
    let list = List::default();
    let made = list.clone();
    let mut entity = Entity::new(place, Fresh::new(move || made.clone()));
    entity.recover().await.unwrap();
    (entity, list)
}

fn done(list: &List) -> Vec<String> {
    std::mem::take(&mut *list.done.lock().unwrap())
}

/// A journal that can be held, and made to fail.
#[derive(Default)]
struct Gate {
    inner: MemoryJournal,
    /// Appends wait for a permit when this is set.
    held: Option<tokio::sync::Semaphore>,
    failing: AtomicBool,
    appends: AtomicUsize,
    reading: AtomicUsize,
    reading_max: AtomicUsize,
}

impl Journal for Gate {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            self.appends.fetch_add(1, Ordering::Relaxed);
            if self.failing.load(Ordering::Relaxed) {
                return Err(JournalError::Halted {
                    reason: "the test says so".into(),
                }
                .into());
            }
            let appended = self.inner.append(request).await;
            if let Some(held) = &self.held {
                held.acquire().await.unwrap().forget();
            }
            appended
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        async move {
            let reading = self.reading.fetch_add(1, Ordering::Relaxed) + 1;
            self.reading_max.fetch_max(reading, Ordering::Relaxed);
            tokio::task::yield_now().await;
            let page = self.inner.read(id, from_seq, max).await;
            self.reading.fetch_sub(1, Ordering::Relaxed);
            page
        }
        .boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.inner.highest_seq(id)
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.inner.claim(scope, epoch)
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.inner.next_term(scope)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// P9: no reply before the events are durable; then replies, then side effects.
#[tokio::test]
async fn the_reply_waits_for_the_journal() {
    let gate = Gate {
        held: Some(tokio::sync::Semaphore::new(0)),
        ..Gate::default()
    };
    let gate = Arc::new(gate);
    let (mut entity, list) = recovered(place(Arc::clone(&gate) as _)).await;
    let mut handled = Box::pin(entity.handle(Command::Add(vec![1, 2])));
    assert!(handled.as_mut().now_or_never().is_none());
    assert_eq!(
        gate.inner.highest_seq(&id()).await.unwrap(),
        2,
        "the events are on their way"
    );
    assert!(
        done(&list).is_empty(),
        "something happened before the journal answered"
    );
    gate.held.as_ref().unwrap().add_permits(1);
    assert_eq!(handled.await.unwrap(), Next::Continue);
    assert_eq!(done(&list), ["reply [1, 2]", "then [1, 2]"]);
}

#[tokio::test]
async fn without_events_the_journal_is_not_asked() {
    let gate = Arc::new(Gate::default());
    let (mut entity, list) = recovered(place(Arc::clone(&gate) as _)).await;
    entity.handle(Command::Look).await.unwrap();
    entity.handle(Command::Add(vec![])).await.unwrap();
    assert_eq!(done(&list), ["look", "reply []", "then []"]);
    assert_eq!(gate.appends.load(Ordering::Relaxed), 0);
    entity.handle(Command::Confirm).await.unwrap();
    assert_eq!(done(&list), ["reply []"]);
    assert_eq!(gate.appends.load(Ordering::Relaxed), 1);
    assert_eq!(
        entity.handle(Command::AddAndStop(5)).await.unwrap(),
        Next::Stop
    );
}

/// P6: a newer epoch is claimed: no reply, no event, the state stays.
#[tokio::test]
async fn a_fenced_entity_says_nothing() {
    let journal = Arc::new(MemoryJournal::new());
    journal.claim("shard", 1).await.unwrap();
    let fenced = Place {
        fence: Some(Fence::new("shard", 1)),
        ..place(Arc::clone(&journal) as _)
    };
    let (mut entity, list) = recovered(fenced).await;
    entity.handle(Command::Add(vec![1])).await.unwrap();
    done(&list);
    journal.claim("shard", 2).await.unwrap();
    for command in [Command::Add(vec![2]), Command::Confirm] {
        assert_eq!(
            entity.handle(command).await.unwrap(),
            Next::Fenced { current: 2 }
        );
        assert!(done(&list).is_empty());
    }
    assert_eq!(journal.highest_seq(&id()).await.unwrap(), 1);
}

/// P9: somebody else wrote: no reply, no event, and a failure, so that the next instance reads it.
#[tokio::test]
async fn an_overtaken_entity_says_nothing() {
    let journal = Arc::new(MemoryJournal::new());
    let (mut one, list) = recovered(place(Arc::clone(&journal) as _)).await;
    let (mut two, _) = recovered(place(Arc::clone(&journal) as _)).await;
    two.handle(Command::Add(vec![1])).await.unwrap();
    for command in [Command::Add(vec![2]), Command::Confirm] {
        let overtaken = one.handle(command).await.unwrap_err();
        assert!(
            matches!(
                overtaken,
                EntityError::Overtaken {
                    expected: 0,
                    actual: 1,
                    ..
                }
            ),
            "{overtaken}"
        );
        assert!(done(&list).is_empty());
    }
}

/// P9: an unknown outcome is a failure, is not tried again, and is not answered.
#[tokio::test]
async fn an_unknown_outcome_is_a_failure() {
    let gate = Arc::new(Gate::default());
    let (mut entity, list) = recovered(place(Arc::clone(&gate) as _)).await;
    gate.failing.store(true, Ordering::Relaxed);
    let failed = entity.handle(Command::Add(vec![1])).await.unwrap_err();
    assert!(
        failed.to_string().contains("list|1: cannot persist"),
        "{failed}"
    );
    assert!(done(&list).is_empty());
    assert_eq!(gate.appends.load(Ordering::Relaxed), 1);
}

/// P9: a panic before persist leaves nothing; after persist, recovery finds the event.
#[tokio::test]
async fn a_panic_loses_no_event_and_invents_none() {
    let journal = Arc::new(MemoryJournal::new());
    let (mut entity, _) = recovered(place(Arc::clone(&journal) as _)).await;
    entity.handle(Command::Add(vec![1])).await.unwrap();
    let before = AssertUnwindSafe(entity.handle(Command::Panic))
        .catch_unwind()
        .await;
    assert!(before.is_err());
    assert_eq!(journal.highest_seq(&id()).await.unwrap(), 1);
    let (mut entity, _) = recovered(place(Arc::clone(&journal) as _)).await;
    let after = AssertUnwindSafe(entity.handle(Command::PanicAfterwards(2)))
        .catch_unwind()
        .await;
    assert!(after.is_err());
    let (mut entity, list) = recovered(place(Arc::clone(&journal) as _)).await;
    entity.handle(Command::Add(vec![3])).await.unwrap();
    assert_eq!(done(&list)[0], "reply [1, 2, 3]");
}

async fn written(journal: &MemoryJournal, name: &str, version: u16, numbers: std::ops::Range<u64>) {
    let seq = journal.highest_seq(&id()).await.unwrap();
    let record = |n| EventRecord::new(name, version, crate::format::encode(&Added(n)).unwrap());
    let request = AppendRequest::new(id(), seq, numbers.map(record).collect());
    journal.append(request).await.unwrap();
}

async fn numbers(place: Place) -> Vec<u64> {
    let (mut entity, list) = recovered(place).await;
    entity.handle(Command::Confirm).await.unwrap();
    let text = done(&list).remove(0);
    let inner = text.trim_start_matches("reply [").trim_end_matches(']');
    inner
        .split(", ")
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().unwrap())
        .collect()
}

/// P7: 10,000 events, page by page, in order.
#[tokio::test]
async fn recovery_takes_in_every_event_in_order() {
    let journal = MemoryJournal::new();
    written(&journal, List::EVENT_NAME, 2, 0..10_000).await;
    for page in [1, 7, 500, 10_000, 20_000] {
        let mut place = place(Arc::new(journal.clone()));
        place.options.recovery_page = NonZeroUsize::new(page).unwrap();
        let expected: Vec<_> = (0..10_000).collect();
        assert_eq!(numbers(place).await, expected, "pages of {page}");
    }
}

/// P7: many recoveries at once are limited.
#[tokio::test]
async fn recoveries_wait_their_turn() {
    let gate = Arc::new(Gate::default());
    written(&gate.inner, List::EVENT_NAME, 2, 0..50).await;
    let recoveries = Recoveries::at_once(NonZeroUsize::new(8).unwrap());
    let entities = (0..500).map(|_| {
        let mut place = place(Arc::clone(&gate) as _);
        place.options = Options::default().recoveries(recoveries.clone());
        place.options.recovery_page = NonZeroUsize::new(10).unwrap();
        recovered(place)
    });
    let all = join_all(entities).await;
    assert_eq!(all.len(), 500);
    assert_eq!(gate.reading_max.load(Ordering::Relaxed), 8);
}

/// P8: what is not known stops recovery, with its name; nothing is skipped.
#[tokio::test]
async fn an_unknown_event_stops_recovery() {
    for (name, version) in [
        ("test.Removed", 2),
        (List::EVENT_NAME, 3),
        (List::EVENT_NAME, 1),
    ] {
        let journal = MemoryJournal::new();
        written(&journal, List::EVENT_NAME, 2, 0..3).await;
        written(&journal, name, version, 3..4).await;
        let mut entity = Entity::new(place(Arc::new(journal)), Fresh::new(List::default));
        match entity.recover().await {
            Err(EntityError::Recovery { source, .. }) => match source {
                RecoveryError::UnknownEvent {
                    seq: 4,
                    name: t,
                    version: v,
                    ..
                } => {
                    assert_eq!((&*t, v), (name, version));
                }
                other => panic!("{other}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_stops_recovery() {
    let journal = MemoryJournal::new();
    let record = EventRecord::new(List::EVENT_NAME, 2, vec![1, 255]);
    journal
        .append(AppendRequest::new(id(), 0, vec![record]))
        .await
        .unwrap();
    let mut entity = Entity::new(place(Arc::new(journal)), Fresh::new(List::default));
    let error = entity.recover().await.unwrap_err().to_string();
    assert!(
        error.contains("event 1 (test.Added, version 2): cannot decode"),
        "{error}"
    );
}

#[tokio::test]
async fn snapshots_are_taken_now_and_then() {
    let journal = MemoryJournal::new();
    let mut place = place(Arc::new(journal.clone()));
    place.options = Options::default()
        .snapshot_every(10)
        .snapshots_kept(NonZeroU32::MIN);
    let (mut entity, _) = recovered(place.clone()).await;
    let latest = async || {
        journal
            .latest(&id(), u64::MAX)
            .await
            .unwrap()
            .map(|found| found.seq)
    };
    for (add, expected) in [
        (9, None),
        (1, Some(10)),
        (9, Some(10)),
        (25, Some(44)),
        (1, Some(44)),
    ] {
        entity
            .handle(Command::Add((0..add).collect()))
            .await
            .unwrap();
        assert_eq!(latest().await, expected, "after {add} more");
    }
    let (mut entity, list) = recovered(place.clone()).await;
    entity.handle(Command::Look).await.unwrap();
    assert_eq!(numbers(place).await.len(), 45);
    drop(list);
}

/// P5: recovery starts from the newest usable snapshot, and from none if there is none.
#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_passed_over() {
    let journal = MemoryJournal::new();
    written(&journal, List::EVENT_NAME, 2, 0..5).await;
    let keep = NonZeroU32::new(9).unwrap();
    let snapshot =
        |seq, name: &str, version, payload| Snapshot::new(id(), seq, name, version, payload);
    // It says something else than the events, so that one can see that it was used.
    let good = crate::format::encode(&vec![70_u64, 71]).unwrap();
    let mut expected = vec![0, 1, 2, 3, 4];
    for (seq, name, version, payload, used) in [
        (0, "test.Other", 1, good.clone(), false),
        (2, List::EVENT_NAME, 1, good.clone(), true),
        (3, List::EVENT_NAME, 2, good.clone(), false),
        (4, List::EVENT_NAME, 1, vec![1, 255], false),
        (5, "test.Other", 1, good, false),
    ] {
        journal
            .save(snapshot(seq, name, version, payload), keep)
            .await
            .unwrap();
        if used {
            expected = vec![70, 71, 2, 3, 4];
        }
        assert_eq!(
            numbers(place(Arc::new(journal.clone()))).await,
            expected,
            "snapshot {seq}"
        );
    }
}

#[tokio::test]
async fn a_snapshot_of_events_that_are_gone_stops_recovery() {
    let journal = MemoryJournal::new();
    written(&journal, List::EVENT_NAME, 2, 0..5).await;
    let payload = crate::format::encode(&vec![1_u64; 9]).unwrap();
    let ahead = Snapshot::new(id(), 9, List::EVENT_NAME, 1, payload);
    journal.save(ahead, NonZeroU32::MIN).await.unwrap();
    let mut entity = Entity::new(place(Arc::new(journal)), Fresh::new(List::default));
    let error = entity.recover().await.unwrap_err().to_string();
    assert!(
        error.contains("of event 9, but the journal ends at 5"),
        "{error}"
    );
}

/// P9: `apply` is called once for each event while the entity lives.
#[tokio::test]
async fn each_event_is_applied_once() {
    let mut place = place(Arc::new(MemoryJournal::new()));
    place.options = Options::default().snapshot_every(2);
    let (mut entity, _) = recovered(place.clone()).await;
    for n in 0..5 {
        entity.handle(Command::Add(vec![n, n])).await.unwrap();
    }
    assert_eq!(entity.state.applied, 10);
    let (entity, _) = recovered(place).await;
    assert_eq!((entity.state.applied, entity.state.numbers.len()), (0, 10));
}

#[test]
fn the_test_kit_sends_events_and_states_through_the_codec() {
    let back = testkit::round_trip_events::<List>([Added(1), Added(u64::MAX)]);
    assert_eq!(back, [Added(1), Added(u64::MAX)]);
    let list = List {
        numbers: vec![1, 2],
        ..List::default()
    };
    let again = testkit::round_trip_snapshot(&list, List::default()).unwrap();
    assert_eq!(again.numbers, [1, 2]);
}

#[test]
#[should_panic(expected = "the snapshot of test.Forgetful: a restored state gives another one")]
fn the_test_kit_finds_a_state_that_forgets() {
    struct Forgetful(u8);
    impl EventSourced for Forgetful {
        type Command = ();
        type Event = ();
        type Snapshot = u8;
        const EVENT_NAME: &'static str = "test.Forgetful";
        const EVENT_VERSION: u16 = 1;
        fn handle(&self, (): ()) -> Effect<Self> {
            Effect::none()
        }
        fn apply(&mut self, (): &()) {}
        fn snapshot(&self) -> Option<u8> {
            Some(self.0)
        }
    }
    let _ = testkit::round_trip_snapshot(&Forgetful(7), Forgetful(0));
}
