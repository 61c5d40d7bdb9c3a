//! Exactly once: results and offset in one transaction, whatever runs at the same time.

use crate::projections::{check_order, options, projection, put, text};
use crate::support::{Random, id};
use otava_persistence::{
    Envelope, Fence, Journal, MemoryJournal, OnPoison, Projection, ProjectionCommit,
    ProjectionHandle, ProjectionRun, ProjectionState, SliceOffset, SliceOffsets, TransactionError,
    TransactionalHandler,
};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// What was stored: entity and sequence number of every event, in order, and the offsets.
#[derive(Default)]
struct Table {
    offsets: SliceOffsets,
    rows: Vec<(String, u64)>,
}

type Shared = Arc<Mutex<Table>>;

/// What a store does for one transaction.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Commits,
    /// It commits, but the answer is lost.
    CommitsUnheard,
    Fails,
    Panics,
}

/// A store whose moods are given, one a transaction.
struct Store<F> {
    table: Shared,
    mood: F,
}

/// One that always commits.
type Calm = Store<fn(&[Envelope<String>]) -> Mood>;

impl<F: FnMut(&[Envelope<String>]) -> Mood + Send + 'static> TransactionalHandler<String>
    for Store<F>
{
    type Error = &'static str;

    async fn claim(
        &mut self,
        run: &ProjectionRun,
    ) -> Result<Vec<SliceOffset>, TransactionError<&'static str>> {
        tokio::task::yield_now().await;
        let claimed = self.table.lock().unwrap().offsets.claim(run);
        claimed.map_err(|fenced| TransactionError::Fenced {
            current: fenced.current,
        })
    }

    async fn handle(
        &mut self,
        events: &[Envelope<String>],
        commit: &ProjectionCommit,
    ) -> Result<(), TransactionError<&'static str>> {
        tokio::task::yield_now().await;
        let mood = (self.mood)(events);
        assert!(mood != Mood::Panics, "the store panics");
        if mood == Mood::Fails {
            return Err("not now".into());
        }
        {
            let mut table = self.table.lock().unwrap();
            let advanced = table.offsets.advance(commit);
            advanced.map_err(|fenced| TransactionError::Fenced {
                current: fenced.current,
            })?;
            let rows = events
                .iter()
                .map(|event| (event.id.entity().to_owned(), event.seq));
            table.rows.extend(rows);
        }
        tokio::task::yield_now().await;
        if mood == Mood::CommitsUnheard {
            return Err("no answer".into());
        }
        Ok(())
    }
}

fn start(
    projection: Projection<String>,
    table: &Shared,
    moods: impl Fn() -> Mood + Clone + Send + Sync + 'static,
) -> ProjectionHandle {
    let table = Arc::clone(table);
    let plan = projection.exactly_once(move || {
        let moods = moods.clone();
        Store {
            table: Arc::clone(&table),
            mood: move |_: &[Envelope<String>]| moods(),
        }
    });
    plan.start().unwrap()
}

/// P10: runs that crash, whose commits get lost or are done unheard, that overlap with others, with any
/// number of instances: every event is stored once, in the order of its entity.
#[tokio::test(start_paused = true)]
async fn whatever_runs_at_once_every_event_is_stored_once() {
    let mut random = Random::from_environment();
    for _ in 0..60 {
        let (journal, table) = (MemoryJournal::new(), Shared::default());
        let (mut written, mut running) = (0, Vec::<ProjectionHandle>::new());
        for _ in 0..8 {
            for _ in 0..random.below(12) {
                let count = 1 + random.below(9);
                put(&journal, &format!("e{}", random.below(12)), count).await;
                written += count;
            }
            // Old runs may still be there when the next one begins.
            if random.below(2) == 0 {
                running.drain(..).for_each(|old| old.abort());
            }
            let instances = 1 + random.below(9) as u16;
            let batch = 1 + random.below(6) as usize;
            let options = options()
                .batch_events(batch.try_into().unwrap())
                .seed(random.next());
            let moods = Arc::new(Mutex::new(random.fork()));
            let projection = projection("report", &journal)
                .instances(instances)
                .options(options);
            running.push(start(projection, &table, move || {
                match moods.lock().unwrap().below(12) {
                    0 => Mood::CommitsUnheard,
                    1 => Mood::Fails,
                    2 => Mood::Panics,
                    _ => Mood::Commits,
                }
            }));
            for _ in 0..random.below(200) {
                tokio::task::yield_now().await;
            }
        }
        let last = start(projection("report", &journal).instances(3), &table, || {
            Mood::Commits
        });
        let newest = put(&journal, "e0", 1).await;
        last.caught_up_with(newest.position).await.unwrap();
        let rows = table.lock().unwrap().rows.clone();
        check_order(&rows);
        assert!(
            rows.iter()
                .all(|(entity, seq)| *seq > 1 || rows.contains(&(entity.clone(), 1)))
        );
        assert_eq!(rows.len() as u64, written + 1);
        // Whoever is still there was replaced, and may only back off, wait or have ended.
        for old in running {
            old.stop().await;
        }
        assert_eq!(table.lock().unwrap().rows.len() as u64, written + 1);
    }
}

/// P10: a run that was stopped in the middle of its transaction and comes back after another one has
/// taken over commits nothing, and ends.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_replaced_cannot_commit() {
    struct Late(Arc<Semaphore>, Calm);

    impl TransactionalHandler<String> for Late {
        type Error = &'static str;

        async fn claim(
            &mut self,
            run: &ProjectionRun,
        ) -> Result<Vec<SliceOffset>, TransactionError<&'static str>> {
            self.1.claim(run).await
        }

        async fn handle(
            &mut self,
            events: &[Envelope<String>],
            commit: &ProjectionCommit,
        ) -> Result<(), TransactionError<&'static str>> {
            self.0.acquire().await.unwrap().forget();
            self.1.handle(events, commit).await
        }
    }

    let (journal, table) = (MemoryJournal::new(), Shared::default());
    let gate = Arc::new(Semaphore::new(0));
    let last = put(&journal, "a", 10).await;
    let (gated, stored) = (gate.clone(), table.clone());
    let plan = projection("report", &journal).exactly_once(move || {
        let table = Arc::clone(&stored);
        let calm = Calm {
            table,
            mood: |_| Mood::Commits,
        };
        Late(gated.clone(), calm)
    });
    journal.claim("workers/0", 1).await.unwrap();
    let old = plan
        .start_instance(0, Some(Fence::new("workers/0", 1)))
        .unwrap();
    let mut statuses = old.watch();
    let handling = |all: &Vec<_>| {
        all.iter()
            .all(|one: &otava_persistence::ProjectionStatus| one.state == ProjectionState::Handling)
    };
    statuses.wait_for(handling).await.unwrap();

    // Another worker is given the place; its plan waits for nothing.
    journal.claim("workers/0", 2).await.unwrap();
    let new = start(projection("report", &journal), &table, || Mood::Commits);
    new.caught_up_with(last.position).await.unwrap();
    gate.add_permits(10);
    old.ended().await;
    assert_eq!(old.statuses()[0].state, ProjectionState::Fenced);
    assert_eq!(table.lock().unwrap().rows.len(), 10);

    // One that begins late, by a right that is over, does not even take the slices.
    let late = plan
        .start_instance(0, Some(Fence::new("workers/0", 1)))
        .unwrap();
    late.ended().await;
    assert_eq!(late.statuses()[0].state, ProjectionState::Fenced);
    let newest = put(&journal, "a", 1).await;
    new.caught_up_with(newest.position).await.unwrap();
    assert_eq!(table.lock().unwrap().rows.len(), 11);
}

/// A restart sets the offset back in the same store; what is skipped is stored as skipped.
#[tokio::test(start_paused = true)]
async fn a_restart_and_a_skip_are_stored_with_the_results() {
    let (journal, table) = (MemoryJournal::new(), Shared::default());
    let last = put(&journal, "a", 20).await;
    let handler = {
        let table = table.clone();
        move || Store {
            table: table.clone(),
            mood: |events: &[Envelope<String>]| match events.iter().any(|event| event.seq == 7) {
                true => Mood::Fails,
                false => Mood::Commits,
            },
        }
    };
    let options = options().on_poison(OnPoison::Skip { retries: 1 });
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let projection = Projection::decoded_by("report", journal, text).options(options);
    let running = projection
        .instances(2)
        .exactly_once(handler)
        .start()
        .unwrap();
    running.caught_up_with(last.position).await.unwrap();
    let expected: Vec<_> = (1..=20)
        .filter(|seq| *seq != 7)
        .map(|seq| ("a".to_owned(), seq))
        .collect();
    assert_eq!(table.lock().unwrap().rows, expected);
    let skipped: u64 = running.statuses().iter().map(|one| one.skipped).sum();
    assert_eq!(skipped, 1);

    running.pause().await.unwrap();
    table.lock().unwrap().rows.clear();
    running.restart_from(10).await.unwrap();
    running.resume().await.unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(table.lock().unwrap().rows, expected[9..]);
    running.stop().await;
    let run = ProjectionRun::new("report", 0..=1023, u64::MAX);
    let offsets = table.lock().unwrap().offsets.claim(&run).unwrap();
    let slice = id("a").slice();
    let at = offsets
        .iter()
        .find(|at| (at.first..=at.last).contains(&slice));
    assert_eq!(at.unwrap().offset, last.position);
}
