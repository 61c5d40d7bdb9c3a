//! Halves: a long page is read by two threads, when one of them has nothing to do.
//!
//! Most of what a page costs are steps of SQLite, its reads of the file, and the hand-over of values, which
//! nothing makes much cheaper. So the thread that reads a page asks an idle one for the events behind its
//! middle. What that one gives counts only if it saw the same commit: a page is of one state of the file.
//!
//! **Invariant:** nothing depends on the other thread. When it is late, or saw another commit or a damaged
//! row, the asker reads those events, too, and says itself what is wrong with them.

use crate::io::sqlite::reader::{ReadFault, Reader};
use crate::io::sqlite::rows::PAGE_BYTES_MAX;
use crate::io::sqlite::{Severity, severity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};

/// A page of fewer events is read before another thread is awake and has read much of it.
const EVENTS_MIN: usize = 256;

/// The second half of a page, which another thread was asked for.
pub(super) struct Half<T> {
    /// Somebody reads it: that thread, or the asker.
    begun: Arc<AtomicBool>,
    outcome: Receiver<Result<T, ReadFault>>,
}

/// How many events of a page the asker reads: five of nine, for the other thread begins later. If it also
/// ended later, it would have to wake the asker: with as many for both, a scan was slower by a seventh.
/// `None` if the page is not worth two threads, or is likely to be full by its bytes.
pub(super) fn first_half(reader: &Reader, events: usize) -> Option<usize> {
    let bytes = reader.payload_bytes.saturating_mul(events);
    let worth = events >= EVENTS_MIN && bytes <= PAGE_BYTES_MAX;
    worth.then(|| events - events / 9 * 4)
}

impl<T: Send + 'static> Half<T> {
    /// Asks an idle thread to read; `None` if there is none.
    pub(super) fn ask(
        reader: &Reader,
        read: impl FnOnce(&mut Reader) -> Result<T, ReadFault> + Send + 'static,
    ) -> Option<Self> {
        let (reply, outcome) = mpsc::sync_channel(1);
        let begun = Arc::<AtomicBool>::default();
        let begins = Arc::clone(&begun);
        let asked = reader.tasks.ask_idle(Box::new(move |reader| {
            if !begins.swap(true, Ordering::AcqRel) {
                // Perhaps the asker has failed, and does not wait for it.
                drop(reply.send(read(reader)));
            }
        }));
        asked.then_some(Self { begun, outcome })
    }

    /// Waits for it. `None` if the asker has to read it: then the other thread does not, or could not.
    pub(super) fn join(self) -> Result<Option<T>, ReadFault> {
        if !self.begun.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        match self.outcome.recv() {
            Ok(Ok(half)) => Ok(Some(half)),
            // What the database cannot read halts the store, whichever thread meets it.
            Ok(Err(ReadFault::Sqlite(error))) if !matches!(severity(&error), Severity::Busy) => {
                Err(ReadFault::Sqlite(error))
            }
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PersistenceId;
    use crate::io::sqlite::reader::{self, TaskSender, Tasks};
    use crate::io::sqlite::{SqliteConfig, SqliteJournal, queries, rows, schema};
    use crate::journal::{AppendRequest, EventRecord, Journal as _};
    use crate::query::EventQuery;
    use rusqlite::Connection;
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    const EVENTS: u64 = 700;

    /// A file with the events of one id, and a few of another among them.
    async fn journal(path: &Path, payload: usize) -> PersistenceId {
        let journal = SqliteJournal::open(path, SqliteConfig::default())
            .await
            .unwrap();
        let (id, other) = (PersistenceId::new("a", "1"), PersistenceId::new("a", "2"));
        let event = |seq: u64| EventRecord::new("e", 1, vec![seq as u8; payload]);
        for seq in (0..EVENTS).step_by(100) {
            let events = (seq..seq + 100).map(event).collect();
            let request = AppendRequest::new(id.clone(), seq, events);
            journal.append(request).await.unwrap();
            let request = AppendRequest::new(other.clone(), seq / 100, vec![event(seq)]);
            journal.append(request).await.unwrap();
        }
        journal.close().await;
        id
    }

    fn reader(path: &Path, tasks: &Arc<Tasks>) -> Reader {
        let db = schema::connect(path, Duration::ZERO).unwrap();
        Reader::new(db, Arc::clone(tasks)).unwrap()
    }

    /// Runs with a reader of `path` beside an idle thread that reads `other`.
    fn beside<T>(path: &Path, other: &Path, run: impl FnOnce(&mut Reader) -> T) -> T {
        let tasks = Tasks::new(1);
        let sender = TaskSender::new(Arc::clone(&tasks));
        let idle = reader(other, &tasks);
        let thread = thread::spawn(move || reader::run(idle, 0));
        let mut asker = reader(path, &tasks);
        // Until it is idle.
        while Half::ask(&asker, |_| Ok(())).is_none() {
            thread::yield_now();
        }
        let outcome = run(&mut asker);
        drop(sender);
        thread.join().unwrap();
        outcome
    }

    /// Pages by two threads, or one, as they are seen.
    fn pages(reader: &mut Reader, id: &PersistenceId) -> Vec<String> {
        let mut pages = Vec::new();
        for (from, max) in [(1, 256), (1, 700), (1, 1000), (200, 400), (500, 1000)] {
            pages.push(format!("{:?}", rows::page(reader, id, from, max)));
            let query = EventQuery::all();
            pages.push(format!("{:?}", queries::page(reader, &query, from, max)));
        }
        pages
    }

    /// What one thread reads, and what two read that look into `path` and `other`.
    fn both(path: &Path, other: &Path, id: &PersistenceId) -> [Vec<String>; 2] {
        let alone = pages(&mut reader(path, &Tasks::new(1)), id);
        [alone, beside(path, other, |reader| pages(reader, id))]
    }

    #[tokio::test]
    async fn two_threads_give_the_page_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let id = journal(&path, 10).await;
        let [alone, beside] = both(&path, &path, &id);
        assert_eq!(alone, beside);
        let db = Connection::open(&path).unwrap();
        // Then some positions have no events.
        db.execute_batch("DELETE FROM events WHERE stream = 2 AND seq > 2")
            .unwrap();
        let [alone, beside] = both(&path, &path, &id);
        assert_eq!(alone, beside);
    }

    #[tokio::test]
    async fn a_page_of_two_threads_ends_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let id = journal(&path, 15_000).await;
        let [alone, beside] = both(&path, &path, &id);
        assert_eq!(alone, beside);
    }

    #[tokio::test]
    async fn damage_in_either_half_is_named_as_by_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let id = journal(&path, 10).await;
        let db = Connection::open(&path).unwrap();
        for seq in [600, 390, 40] {
            db.execute("UPDATE events SET payload = x'00' WHERE seq = ?1", [seq])
                .unwrap();
            let [alone, beside] = both(&path, &path, &id);
            assert_eq!(alone, beside);
            assert!(alone.iter().any(|page| page.contains("Checksum")));
        }
        db.execute_batch("DELETE FROM events WHERE seq = 500")
            .unwrap();
        let [alone, beside] = both(&path, &path, &id);
        assert_eq!(alone, beside);
    }

    /// The other thread sees a file with as many events, and other bytes, one commit further on.
    #[tokio::test]
    async fn what_is_of_another_commit_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a.db", "b.db"].map(|name| folder.path().join(name));
        let id = journal(&path, 10).await;
        journal(&other, 20).await;
        let db = Connection::open(&other).unwrap();
        db.execute_batch("UPDATE head SET commits = commits + 1")
            .unwrap();
        let [alone, beside] = both(&path, &other, &id);
        assert_eq!(alone, beside);
        // With as many commits its events are seen when it begins in time, so they were asked for.
        db.execute_batch("UPDATE head SET commits = commits - 1")
            .unwrap();
        let differ = |_| {
            let [alone, beside] = both(&path, &other, &id);
            alone != beside
        };
        assert!((0..100).any(differ));
    }

    #[tokio::test]
    async fn what_cannot_be_read_by_the_other_thread_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["a.db", "b.db"].map(|name| folder.path().join(name));
        let id = journal(&path, 10).await;
        // It has no tables, which is seen when it begins in time.
        let fails = |_| {
            let pages = beside(&path, &other, |reader| pages(reader, &id));
            pages.iter().any(|page| page.contains("no such table"))
        };
        assert!((0..100).any(fails));
    }

    #[test]
    fn nobody_idle_is_not_asked_and_a_half_not_begun_is_not_waited_for() {
        let tasks = Tasks::new(1);
        let asker = reader(Path::new(":memory:"), &tasks);
        assert!(Half::ask(&asker, |_| Ok(())).is_none());
        let (_reply, outcome) = mpsc::sync_channel::<Result<(), ReadFault>>(1);
        let begun = Arc::default();
        assert!(matches!(Half { begun, outcome }.join(), Ok(None)));
    }
}
