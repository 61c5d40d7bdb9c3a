//! Proves: the queue in the journal keeps what one in memory would, over failures, restarts and other runs.

use super::*;
use otava_actor::Rng;
use otava_persistence::{
    Appended, EventPage, JournalError, MemoryJournal, SqliteConfig, SqliteJournal,
};
use std::sync::Mutex as StdMutex;

/// A journal that fails now and then, some of the time after it has done what it was asked for.
struct Flaky {
    journal: MemoryJournal,
    rng: StdMutex<Rng>,
    fails_one_in: u64,
}

impl Flaky {
    fn new(seed: u64, fails_one_in: u64) -> Arc<Self> {
        Arc::new(Self {
            journal: MemoryJournal::new(),
            rng: StdMutex::new(Rng::seeded(seed)),
            fails_one_in,
        })
    }

    fn fails(&self) -> Result<(), JournalError> {
        let mut rng = self.rng.lock().unwrap();
        if rng.below(self.fails_one_in) == 0 {
            let reason = "a test".into();
            return Err(JournalError::Unknown { reason });
        }
        Ok(())
    }

    /// How many events the log has.
    async fn length(&self, id: &PersistenceId) -> u64 {
        let page = self.journal.read(id, 1, usize::MAX).await.unwrap();
        page.events.len() as u64
    }
}

impl Journal for Flaky {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.fails()?;
            let appended = self.journal.append(request).await?;
            self.fails()?;
            Ok(appended)
        })
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        Box::pin(async move {
            self.fails()?;
            self.journal.read(id, from_seq, max).await
        })
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.journal.highest_seq(id)
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        Box::pin(async move {
            self.fails()?;
            self.journal.claim(scope, epoch).await?;
            Ok(self.fails()?)
        })
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.journal.next_term(scope)
    }

    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            self.fails()?;
            self.journal.delete(request).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.journal.close()
    }
}

fn message(number: u64, bytes: usize) -> StoredMessage {
    let byte = u8::try_from(number % 251).unwrap();
    StoredMessage {
        number,
        chunks: 1,
        bytes: vec![byte; bytes].into(),
    }
}

/// As producers do: what has failed is asked for again.
async fn until_done<T>(mut ask: impl AsyncFnMut() -> Result<T, QueueError>) -> T {
    loop {
        match ask().await {
            Ok(done) => return done,
            Err(QueueError::Failed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a queue must hold.
#[derive(Default)]
struct Model {
    series: Option<u64>,
    claim: u64,
    last: u64,
    live: BTreeMap<u64, StoredMessage>,
}

impl Model {
    async fn claims(&mut self, queue: &JournalDeliveryQueue, series: u64) -> u64 {
        let state = until_done(async || queue.claim(series).await).await;
        assert!(state.claim > self.claim);
        assert!(self.series.is_none_or(|series| series == state.series));
        assert_eq!(state.last, self.last);
        let live: Vec<_> = self.live.values().cloned().collect();
        assert_eq!(state.unconfirmed, live);
        (self.series, self.claim) = (Some(state.series), state.claim);
        state.claim
    }

    async fn stores(&mut self, queue: &JournalDeliveryQueue, claim: u64, rng: &mut Rng) {
        let count = 1 + rng.below(60);
        let messages: Vec<_> = (0..count)
            .map(|n| message(self.last + 1 + n, rng.below(50) as usize + 1))
            .collect();
        until_done(async || queue.store(claim, messages.clone()).await).await;
        self.last += count;
        self.live
            .extend(messages.into_iter().map(|m| (m.number, m)));
    }

    /// Some of what lives, in any order; never the message `stuck`.
    async fn confirms(
        &mut self,
        queue: &JournalDeliveryQueue,
        claim: u64,
        rng: &mut Rng,
        stuck: u64,
    ) {
        let share = rng.below(10);
        let numbers = self.live.keys().copied();
        let numbers = numbers.filter(|n| *n != stuck && rng.below(10) <= share);
        let numbers: Vec<u64> = numbers.collect();
        until_done(async || queue.confirm(claim, numbers.clone()).await).await;
        for number in &numbers {
            self.live.remove(number);
        }
    }
}

/// Random work of several runs, one after the other, over a journal that fails: what the next run finds is
/// what the runs before have left, those are refused, and the log stays short although one message is
/// never confirmed.
#[tokio::test]
async fn what_is_kept_is_what_was_stored_and_not_confirmed() {
    for seed in 1..=6 {
        let mut rng = Rng::seeded(seed);
        let journal = Flaky::new(seed, 8);
        let run = || JournalDeliveryQueue::new(journal.clone(), "orders");
        let (mut model, mut queue) = (Model::default(), run());
        let mut claim = model.claims(&queue, rng.next_u64()).await;
        for _ in 0..300 {
            match rng.below(20) {
                0 => {
                    let before = std::mem::replace(&mut queue, run());
                    let claimed = std::mem::replace(&mut claim, model.claims(&queue, 7).await);
                    let late = async || before.store(claimed, vec![message(1, 1)]).await;
                    let refused = loop {
                        match late().await {
                            Err(QueueError::Failed(_)) => {}
                            answer => break answer,
                        }
                    };
                    let superseded = QueueError::Superseded { claim: claimed };
                    assert_eq!(refused, Err(superseded), "seed {seed}");
                }
                // The same object claims again.
                1 => claim = model.claims(&queue, 9).await,
                2..=10 => model.stores(&queue, claim, &mut rng).await,
                _ => model.confirms(&queue, claim, &mut rng, 5).await,
            }
            let live = model.live.len() as u64;
            let length = journal.length(&queue.id).await;
            // Compaction may have failed a few times, or left what it was to remove.
            let limit = 3 * (COMPACT_EVERY + EVENTS_PER_MESSAGE * live);
            assert!(
                length < limit,
                "seed {seed}: {length} events, {live} messages"
            );
        }
        assert!(model.live.contains_key(&5), "seed {seed}");
        model.claims(&run(), 1).await;
    }
}

/// A message that is larger than an event may be comes back whole, from a file that was opened again.
#[tokio::test]
async fn a_large_message_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let open = async || -> Arc<SqliteJournal> {
        let opened = SqliteJournal::open(&file, SqliteConfig::default());
        Arc::new(opened.await.unwrap())
    };
    let journal = open().await;
    let queue = JournalDeliveryQueue::new(journal.clone(), "films");
    let claim = queue.claim(3).await.unwrap().claim;
    let messages = vec![
        message(1, 1),
        message(2, EventRecord::PAYLOAD_BYTES_MAX + 5),
        message(3, PIECE_BYTES),
    ];
    queue.store(claim, messages.clone()).await.unwrap();
    queue.confirm(claim, vec![1]).await.unwrap();
    journal.close().await;

    let queue = JournalDeliveryQueue::new(open().await, "films");
    let state = queue.claim(4).await.unwrap();
    assert_eq!((state.series, state.last), (3, 3));
    assert!(state.unconfirmed == messages[1..], "not what was stored");
}

/// A queue of one name is not another's.
#[tokio::test]
async fn queues_have_names() {
    let journal = MemoryJournal::new();
    let queue = |name| JournalDeliveryQueue::new(Arc::new(journal.clone()), name);
    let (one, other) = (queue("one"), queue("other"));
    let claim = one.claim(1).await.unwrap().claim;
    one.store(claim, vec![message(1, 9)]).await.unwrap();
    let state = other.claim(2).await.unwrap();
    assert_eq!(
        (state.series, state.last, state.unconfirmed),
        (2, 0, vec![])
    );
    // That was no claim of this one.
    one.confirm(claim, vec![1]).await.unwrap();
}

/// Events that this program does not know are named, and nothing is written.
#[tokio::test]
async fn a_queue_of_a_later_version_is_refused() {
    let journal = Arc::new(MemoryJournal::new());
    let queue = JournalDeliveryQueue::new(journal.clone(), "orders");
    let later = EventRecord::new(NAME, VERSION + 1, vec![]);
    let request = AppendRequest::new(queue.id.clone(), 0, vec![later]);
    journal.append(request).await.unwrap();
    let refused = queue.claim(1).await.unwrap_err();
    assert!(refused.to_string().contains("version 2"), "{refused}");
    assert_eq!(journal.highest_seq(&queue.id).await.unwrap(), 1);
}

/// The bytes are a contract.
#[test]
fn changes_have_golden_bytes() {
    let bytes = |change: &Change| encode(change).unwrap();
    let begun = Change::Begun { series: 7, last: 9 };
    assert_eq!(bytes(&begun), [1, 0, 7, 9]);
    assert_eq!(bytes(&Change::Piece([5, 6].into())), [1, 1, 2, 5, 6]);
    let stored = Change::Stored {
        number: 3,
        chunks: 2,
        bytes: [8].into(),
    };
    assert_eq!(bytes(&stored), [1, 2, 3, 2, 1, 8]);
    assert_eq!(bytes(&Change::Confirmed(vec![1, 4])), [1, 3, 2, 1, 4]);
}
