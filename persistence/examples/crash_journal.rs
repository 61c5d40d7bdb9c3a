//! Crash journal: a writer whose every step is known, and the check of what a crash has left.
//!
//! ```text
//! cargo run -p otava-persistence --example crash_journal -- write FOLDER STEPS
//! cargo run -p otava-persistence --example crash_journal -- check FOLDER ACKED
//! cargo run -p otava-persistence --example crash_journal -- migrate OLD_FILE FOLDER
//! cargo run -p otava-persistence --example crash_journal -- migrated FORMAT FOLDER ACKED
//! ```
//! `write` prints `ack N` after each step that was acknowledged, and ends at the first refusal.
//! `check` opens what is there, compares it with the steps done in memory, and writes once more.
//! It passes when the journal is as after `ACKED` steps, or as after one more, which was under way.
//! `migrate` puts a file of an older format into the folder, which is a step, and opens it, which is
//! the second; `migrated` reads it. `scripts/crash-journal.sh` runs them with faults. It prints:
//! ```text
//! as after 17 of 17 acknowledged steps
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for a script: it prints, and stops when it cannot go on"
)]

use futures_util::TryStreamExt as _;
use otava_persistence::{
    AppendError, AppendRequest, DeleteRequest, EventPage, EventQueries as _, EventQuery,
    EventRecord, Fence, Journal, MemoryJournal, OpenError, PersistenceId, SaveState, Snapshot,
    SqliteConfig, SqliteJournal, StoredState, current_events,
};
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["write", folder, steps] => write(folder.as_ref(), steps.parse().unwrap()).await,
        ["check", folder, acked] => check(folder.as_ref(), acked.parse().unwrap()).await,
        ["migrate", old, folder] => migrate(old.as_ref(), folder.as_ref()).await,
        ["migrated", format, folder, acked] => {
            migrated(format, folder.as_ref(), acked.parse().unwrap()).await
        }
        _ => Err("write, check, migrate or migrated: see the head of the program".to_owned()),
    };
    match outcome {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(said) => {
            println!("{said}");
            ExitCode::FAILURE
        }
    }
}

/// A short log, so that it is copied into the main file while the steps go on, and few new places, so that
/// they are merged.
fn config() -> SqliteConfig {
    let mut config = SqliteConfig::default();
    config.checkpoint_pages = 8;
    config.new_places_max = 4;
    config
}

async fn write(folder: &Path, steps: u64) -> Result<String, String> {
    let opened = SqliteJournal::open(folder.join("journal.db"), config()).await;
    let journal = match opened {
        Ok(journal) => journal,
        // What an injected error may do; what is there is checked afterwards.
        Err(error) => return Ok(format!("not opened: {error}")),
    };
    for n in 0..steps {
        match step(&journal, n).await {
            Ok(()) => println!("ack {n}"),
            Err(error) => return Ok(format!("step {n}: {error}")),
        }
    }
    journal.close().await;
    Ok("closed".to_owned())
}

fn id(n: u64) -> PersistenceId {
    PersistenceId::new("crash", &n.to_string())
}

/// Step `n`, the same wherever it is done.
async fn step(journal: &dyn Journal, n: u64) -> Result<(), AppendError> {
    let entity = id(n % 3);
    let record = |m: u64| {
        let length = usize::try_from((n * 97 + m * 31) % 700).unwrap();
        let record = EventRecord::new("crash.Event", 1, vec![n.to_le_bytes()[0]; length]);
        record.tagged(vec![if m == 0 { "first" } else { "later" }.into()])
    };
    match n % 8 {
        0..=3 => {
            let seq = journal.highest_seq(&entity).await?;
            let request = AppendRequest::new(entity, seq, (0..=n % 4).map(record).collect());
            journal.append(request).await?;
        }
        4 => {
            let states = journal.states().unwrap();
            let revision = states
                .load(&entity)
                .await?
                .map_or(0, |state| state.revision);
            let record = (!n.is_multiple_of(3)).then(|| record(0));
            states
                .save(SaveState::new(entity, revision, record))
                .await?;
        }
        5 => {
            let seq = journal.highest_seq(&entity).await?;
            journal
                .delete(DeleteRequest::new(entity, seq.saturating_sub(2)))
                .await?;
        }
        6 => {
            journal.offsets().unwrap().save("report", n).await?;
            return Ok(());
        }
        _ => {
            let seq = journal.highest_seq(&entity).await?;
            let snapshot = Snapshot::new(entity, seq, "crash.State", 1, vec![7; 900]);
            let snapshots = journal.snapshots().unwrap();
            snapshots
                .save(snapshot, NonZeroU32::new(2).unwrap())
                .await?;
        }
    }
    Ok(())
}

/// Everything that can be read, but times.
#[derive(Debug, PartialEq)]
struct Seen {
    entities: Vec<(EventPage, Option<StoredState>, Option<Snapshot>)>,
    found: Vec<(u64, PersistenceId, u64)>,
    offset: Option<u64>,
}

async fn look(journal: &dyn Journal) -> Result<Seen, String> {
    let text = |error: otava_persistence::JournalError| error.to_string();
    let mut entities = Vec::new();
    for n in 0..3 {
        let mut page = journal.read(&id(n), 1, 100_000).await.map_err(text)?;
        page.events
            .iter_mut()
            .for_each(|event| event.written_at_ms = 0);
        let states = journal.states().unwrap();
        let mut state = states.load(&id(n)).await.map_err(text)?;
        state.iter_mut().for_each(|state| state.written_at_ms = 0);
        let snapshots = journal.snapshots().unwrap();
        let snapshot = snapshots.latest(&id(n), u64::MAX).await.map_err(text)?;
        entities.push((page, state, snapshot));
    }
    let query = EventQuery::all().tag("first");
    let stream = current_events(journal.queries().unwrap(), query, 0);
    let found: Vec<_> = stream.try_collect().await.map_err(text)?;
    let found = found.into_iter();
    Ok(Seen {
        entities,
        found: found
            .map(|found| (found.event.position, found.id, found.event.seq))
            .collect(),
        offset: journal
            .offsets()
            .unwrap()
            .load("report")
            .await
            .map_err(text)?,
    })
}

async fn check(folder: &Path, acked: u64) -> Result<String, String> {
    let path = folder.join("journal.db");
    let mut opened = SqliteJournal::open(&path, config()).await;
    if let Err(OpenError::Halted { marker, .. }) = &opened {
        // What the marker asks for: verify, then remove it.
        let verified = SqliteJournal::verify(&path).await;
        verified.map_err(|error| format!("halted, and: {error}"))?;
        std::fs::remove_file(marker).map_err(|error| error.to_string())?;
        opened = SqliteJournal::open(&path, config()).await;
    }
    let journal = opened.map_err(|error| error.to_string())?;
    let seen = look(&journal).await?;
    let model = MemoryJournal::new();
    for n in 0..acked {
        step(&model, n).await.map_err(|error| error.to_string())?;
    }
    let mut steps = acked;
    if look(&model).await? != seen {
        step(&model, acked)
            .await
            .map_err(|error| error.to_string())?;
        steps += 1;
        let expected = look(&model).await?;
        if expected != seen {
            return Err(format!(
                "after {acked} steps: {seen:?}, expected {expected:?}"
            ));
        }
    }
    let write = AppendRequest::new(id(9), 0, vec![EventRecord::new("x", 1, vec![1])]);
    let fence = Fence::new("after", 1);
    let claimed = journal.claim("after", 1).await;
    claimed.map_err(|error| error.to_string())?;
    let appended = journal.append(write.fenced(Some(fence))).await;
    appended.map_err(|error| error.to_string())?;
    journal.close().await;
    let verified = SqliteJournal::verify(&path).await;
    verified.map_err(|error| error.to_string())?;
    Ok(format!("as after {steps} of {acked} acknowledged steps"))
}

async fn migrate(old: &Path, folder: &Path) -> Result<String, String> {
    let path = folder.join("journal.db");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&std::fs::read(old).unwrap()).unwrap();
    file.sync_all().unwrap();
    std::fs::File::open(folder).unwrap().sync_all().unwrap();
    println!("ack 0");
    match SqliteJournal::open(&path, config()).await {
        Ok(journal) => {
            println!("ack 1");
            journal.close().await;
            Ok("closed".to_owned())
        }
        Err(error) => Ok(format!("not opened: {error}")),
    }
}

/// Reads what a file of `persistence/fixtures` has become.
async fn migrated(format: &str, folder: &Path, acked: u64) -> Result<String, String> {
    // Ids, events and snapshots.
    let wanted = match format {
        "1" => (2, 6, 1),
        _ => (6, 9, 1),
    };
    if acked == 0 {
        return Ok("nothing was promised".to_owned());
    }
    let path = folder.join("journal.db");
    for what in ["as it was found", "after it was opened"] {
        let verified = SqliteJournal::verify(&path).await;
        let verified = verified.map_err(|error| format!("{what}: {error}"))?;
        let there = (verified.ids, verified.events, verified.snapshots);
        if there != wanted {
            return Err(format!("{what}: {there:?}"));
        }
        let journal = SqliteJournal::open(&path, config()).await;
        let journal = journal.map_err(|error| error.to_string())?;
        let found = journal.events(&EventQuery::all(), 0, 10).await;
        let found = found.map_err(|error| error.to_string())?.events.len();
        journal.close().await;
        if found as u64 != wanted.1 {
            return Err(format!("{what}: {found} events are found"));
        }
    }
    Ok(format!("{} events", wanted.1))
}
