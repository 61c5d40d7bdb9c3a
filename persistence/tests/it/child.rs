//! Child: a process that writes to a journal and says what was acknowledged, until it is killed.
//!
//! The test binary starts itself with [`run_if_child`] as the only test and its task in the
//! environment. Everything the child prints is one line a fact.

use crate::support::{append, event, id, open_merging};
use otava_persistence::{
    AppendError, AppendRequest, DeleteRequest, Fence, Journal, JournalError, SaveState,
    SqliteJournal,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

/// `append <entities> <events>`: appends to entities `<name>/0 ..` at once, each `<events>` events
/// a time, and prints `ack <entity> <seq>` after each answer.
/// `keep <entities>`: appends, deletes, saves a state and an offset of each entity in turn, and prints
/// `kept <entity> <events> <deleted> <revision> <offset>` after each answer.
/// `fenced <scope> <epoch>`: appends single events to the entity `shared` with this fence.
const TASK: &str = "OTAVA_TEST_TASK";
const NAME: &str = "OTAVA_TEST_NAME";
const JOURNAL: &str = "OTAVA_TEST_JOURNAL";

pub(crate) struct Writer {
    pub(crate) process: Child,
    pub(crate) lines: std::io::Lines<BufReader<ChildStdout>>,
}

pub(crate) fn command(journal: &Path, name: &str, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "child::run_if_child",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(TASK, task)
        .env(NAME, name)
        .env(JOURNAL, journal);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

pub(crate) fn start(mut command: Command) -> Writer {
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    Writer { process, lines }
}

impl Writer {
    /// The next acknowledged entity and number; `None` when the child has ended.
    pub(crate) fn next_ack(&mut self) -> Option<(String, u64)> {
        self.next("ack ").map(|rest| {
            let (entity, seq) = rest.split_once(' ').unwrap();
            (entity.to_owned(), seq.parse().unwrap())
        })
    }

    /// The rest of the next line that begins with `word`.
    pub(crate) fn next(&mut self, word: &str) -> Option<String> {
        loop {
            // The harness prints on the same line before the first fact.
            let line = self.lines.next()?.ok()?;
            if let Some(at) = line.find(word) {
                return Some(line[at + word.len()..].to_owned());
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn run_if_child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let name = std::env::var(NAME).unwrap();
    let path = std::env::var_os(JOURNAL).unwrap();
    let words: Vec<_> = task.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        match words[..] {
            ["append", entities, events] => {
                append_for_ever(
                    path.as_ref(),
                    &name,
                    entities.parse().unwrap(),
                    events.parse().unwrap(),
                )
                .await;
            }
            ["keep", entities] => keep_for_ever(path.as_ref(), entities.parse().unwrap()).await,
            ["fenced", scope, epoch] => {
                write_fenced(path.as_ref(), scope, epoch.parse().unwrap()).await;
            }
            _ => panic!("unknown task {task}"),
        }
    });
}

/// One write system call a line, so that a kill leaves whole lines.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

async fn append_for_ever(path: &Path, name: &str, entities: u64, events: u64) {
    let journal = open_merging(path).await;
    say("open");
    let mut highest = Vec::new();
    for n in 0..entities {
        highest.push(
            journal
                .highest_seq(&id(&format!("{name}/{n}")))
                .await
                .unwrap(),
        );
    }
    let highest = Arc::new(highest);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..entities {
        let (journal, entity) = (journal.clone(), format!("{name}/{n}"));
        let highest = Arc::clone(&highest);
        tasks.spawn(async move {
            let mut seq = highest[n as usize];
            loop {
                match journal.append(append(&entity, seq, events)).await {
                    Ok(appended) => {
                        seq += events;
                        assert_eq!(appended.seq, seq);
                        say(&format!("ack {entity} {seq}"));
                    }
                    Err(AppendError::Store(JournalError::Halted { reason })) => {
                        return say(&format!("halted {reason}"));
                    }
                    Err(AppendError::Store(JournalError::Full)) => {
                        say(&format!("full {entity}"));
                    }
                    Err(error) => panic!("{entity} after {seq}: {error}"),
                }
            }
        });
    }
    tasks.join_all().await;
}

/// Events of one append of the task `keep`.
const KEPT: u64 = 60;

/// What the task `keep` has acknowledged of one entity.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Kept {
    pub(crate) events: u64,
    pub(crate) deleted: u64,
    pub(crate) revision: u64,
    pub(crate) offset: u64,
}

impl Writer {
    /// The next line of the task `keep`.
    pub(crate) fn next_kept(&mut self) -> Option<(String, Kept)> {
        let line = self.next("kept ")?;
        let words: Vec<_> = line.split(' ').collect();
        let [entity, events, deleted, revision, offset] = words[..] else {
            panic!("{line}");
        };
        let number = |word: &str| word.parse().unwrap();
        let kept = Kept {
            events: number(events),
            deleted: number(deleted),
            revision: number(revision),
            offset: number(offset),
        };
        Some((entity.to_owned(), kept))
    }
}

async fn keep_for_ever(path: &Path, entities: u64) {
    let journal = open_merging(path).await;
    say("open");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..entities {
        tasks.spawn(keep(journal.clone(), format!("k/{n}")));
    }
    tasks.join_all().await;
}

/// One entity of the task `keep`: its tag is its name.
async fn keep(journal: SqliteJournal, entity: String) {
    let (states, offsets) = (journal.states().unwrap(), journal.offsets().unwrap());
    let page = journal.read(&id(&entity), 1, 1).await.unwrap();
    let state = states.load(&id(&entity)).await.unwrap();
    let offset = offsets.load(&entity).await.unwrap();
    let mut kept = Kept {
        events: page.highest_seq,
        deleted: page.deleted_seq,
        revision: state.map_or(0, |state| state.revision),
        offset: offset.unwrap_or_default(),
    };
    let say = |kept: &Kept| {
        let Kept {
            events,
            deleted,
            revision,
            offset,
        } = kept;
        say(&format!(
            "kept {entity} {events} {deleted} {revision} {offset}"
        ));
    };
    loop {
        let record = |seq| event(&entity, seq).tagged(vec![entity.as_str().into()]);
        let events = (kept.events + 1..=kept.events + KEPT).map(record).collect();
        let request = AppendRequest::new(id(&entity), kept.events, events);
        kept.events = journal.append(request).await.unwrap().seq;
        say(&kept);
        // Every other time nothing is left of the events.
        let deleted = kept.events - (kept.events / KEPT) % 2;
        let request = DeleteRequest::new(id(&entity), deleted);
        journal.delete(request).await.unwrap();
        kept.deleted = deleted;
        say(&kept);
        let state = Some(event(&entity, kept.revision + 1));
        let request = SaveState::new(id(&entity), kept.revision, state);
        kept.revision = states.save(request).await.unwrap().revision;
        say(&kept);
        offsets.save(&entity, kept.events).await.unwrap();
        kept.offset = kept.events;
        say(&kept);
    }
}

async fn write_fenced(path: &Path, scope: &str, epoch: u64) {
    let journal = open_merging(path).await;
    journal.claim(scope, epoch).await.unwrap();
    let mut seq = journal.highest_seq(&id("shared")).await.unwrap();
    loop {
        let request = append("shared", seq, 1).fenced(Some(Fence::new(scope, epoch)));
        match journal.append(request).await {
            Ok(appended) => {
                seq = appended.seq;
                say(&format!("ack shared {seq}"));
            }
            Err(AppendError::Fenced { current }) => return say(&format!("fenced {current}")),
            Err(error) => panic!("after {seq}: {error}"),
        }
    }
}
