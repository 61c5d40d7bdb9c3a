//! Child: a process that works on a journal and says what happened, to be paused and killed.
//!
//! The test binary starts itself with [`run_if_child`] as the only test and its task in the
//! environment. Everything the child prints is one line a fact.

use crate::support::{append, open};
use futures_util::FutureExt as _;
use otava_persistence::{AppendError, Fence, Journal};
use otava_postgres::{PostgresConfig, PostgresJournal};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// `fenced <scope> <epoch>`: appends events to the entity `shared` with this fence and prints
/// `ack <seq>` after each answer, `fenced <epoch>` when it is refused.
/// `hold`: locks the journal in a transaction, prints `locked`, and does nothing more.
/// `offset`: moves the offset of `p` from 1 to 2 and writes a row, prints `holding` with the
/// transaction open, commits after a line from outside, and prints `done` or `refused`.
const TASK: &str = "OTAVA_TEST_TASK";
const SCHEMA: &str = "OTAVA_TEST_SCHEMA";
const URL: &str = "OTAVA_TEST_URL";

pub(crate) struct Worker {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    input: ChildStdin,
}

pub(crate) fn start(url: &str, schema: &str, task: &str) -> Worker {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "child::run_if_child",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(TASK, task).env(SCHEMA, schema).env(URL, url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    Worker {
        lines: BufReader::new(process.stdout.take().unwrap()).lines(),
        input: process.stdin.take().unwrap(),
        process,
    }
}

impl Worker {
    /// The rest of the next line that begins with `word`.
    pub(crate) fn next(&mut self, word: &str) -> Option<String> {
        loop {
            // The harness prints on the same line before the first fact.
            let line = self.lines.next()?.ok()?;
            if let Some(at) = line.find(word) {
                return Some(line[at + word.len()..].trim().to_owned());
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// `STOP` or `CONT`. When it returns, a stopped process runs no more.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let mut kill = Command::new("kill");
        assert!(
            kill.args([&format!("-{signal}"), &pid])
                .status()
                .unwrap()
                .success()
        );
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        while signal == "STOP" && !state().contains(") T ") {
            std::thread::yield_now();
        }
    }
}

impl Drop for Worker {
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
    let url = std::env::var(URL).unwrap();
    let config = PostgresConfig::parse(&url)
        .unwrap()
        .schema(std::env::var(SCHEMA).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let words: Vec<_> = task.split(' ').collect();
    runtime.block_on(async {
        match words[..] {
            ["fenced", scope, epoch] => {
                let journal = open(&config).await;
                write_fenced(&*journal, scope, epoch.parse().unwrap()).await;
            }
            // Longer than any test: the server must not help, others must.
            ["hold"] => hold(&config.idle_in_transaction_timeout(Duration::from_secs(600))).await,
            ["offset"] => {
                let short = config.idle_in_transaction_timeout(Duration::from_millis(300));
                move_offset(&*open(&short).await).await;
            }
            _ => panic!("unknown task {task}"),
        }
    });
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

async fn write_fenced(journal: &dyn Journal, scope: &str, epoch: u64) {
    for seq in 0.. {
        let request = append("shared", seq, &[&format!("child {seq}")]);
        let request = request.fenced(Some(Fence::new(scope, epoch)));
        match journal.append(request).await {
            Ok(appended) => say(&format!("ack {}", appended.seq)),
            Err(AppendError::Fenced { current }) => return say(&format!("fenced {current}")),
            Err(other) => return say(&format!("failed {other}")),
        }
    }
}

async fn hold(config: &PostgresConfig) {
    let journal = open(config).await;
    let schema = std::env::var(SCHEMA).unwrap();
    let client = journal.postgres_offsets().client().await.unwrap();
    let claim = format!("BEGIN; SELECT \"{schema}\".claim_1('held', 1)");
    client.batch_execute(&claim).await.unwrap();
    say("locked");
    std::future::pending::<()>().await;
}

async fn move_offset(journal: &PostgresJournal) {
    let moved = journal
        .postgres_offsets()
        .with_offset("p", Some(1), 2, |transaction| {
            async move {
                let row = "INSERT INTO results (who) VALUES ('child')";
                transaction.execute(row, &[]).await?;
                say("holding");
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).unwrap();
                Ok::<_, tokio_postgres::Error>(())
            }
            .boxed()
        })
        .await;
    match moved {
        Ok(()) => say("done"),
        Err(error) => say(&format!("refused {error}")),
    }
}
