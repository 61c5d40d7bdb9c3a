//! Support: seeds, ids and events that the tests share.

use otava_persistence::{
    AppendRequest, EventPage, EventRecord, Journal, PersistenceId, SqliteConfig, SqliteJournal,
};
use std::path::Path;

/// Small random numbers that a seed repeats.
pub(crate) struct Random(u64);

impl Random {
    /// From `SEED` in the environment, else new; printed, so that a failing test shows it.
    #[allow(clippy::print_stdout, reason = "a failing test must show its seed")]
    pub(crate) fn from_environment() -> Self {
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(rand_seed()));
        println!("SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Other numbers, which do not depend on how many of these are drawn later.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn rand_seed() -> u32 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) as u32
}

pub(crate) fn id(entity: &str) -> PersistenceId {
    PersistenceId::new("test", entity)
}

/// An event that says whose it is and which.
pub(crate) fn event(entity: &str, seq: u64) -> EventRecord {
    EventRecord::new(
        "test.Event",
        1,
        format!("{entity} {seq} {}", "-".repeat(100)).into_bytes(),
    )
}

/// An append of `count` events after `expected_seq`.
pub(crate) fn append(entity: &str, expected_seq: u64, count: u64) -> AppendRequest {
    let events = (1..=count)
        .map(|n| event(entity, expected_seq + n))
        .collect();
    AppendRequest::new(id(entity), expected_seq, events)
}

pub(crate) async fn open(path: &Path) -> SqliteJournal {
    SqliteJournal::open(path, SqliteConfig::default())
        .await
        .unwrap()
}

/// The same, with an index of events that is in two parts all the time.
pub(crate) async fn open_merging(path: &Path) -> SqliteJournal {
    let mut config = SqliteConfig::default();
    config.new_places_max = 2;
    SqliteJournal::open(path, config).await.unwrap()
}

/// Reads all events of an entity and checks that each is the one that belongs there. Returns how
/// many there are.
pub(crate) async fn check_events(journal: &SqliteJournal, entity: &str) -> u64 {
    let mut seq = 0;
    loop {
        let EventPage {
            events,
            highest_seq,
            ..
        } = journal.read(&id(entity), seq + 1, 700).await.unwrap();
        if events.is_empty() {
            assert_eq!(seq, highest_seq, "{entity} ends early");
            return seq;
        }
        for stored in events {
            seq += 1;
            assert_eq!(stored.seq, seq);
            assert_eq!(stored.record, event(entity, seq), "{entity} {seq}");
        }
    }
}
