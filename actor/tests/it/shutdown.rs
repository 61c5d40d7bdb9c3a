//! Proves: L10, a program ends in phases: in order, once, within limits, whatever its tasks do.

use crate::support::{Adder, Log, Order, Puppet, SOON, system};
use otava_actor::ActorSystem;
use otava_actor::shutdown::{
    ACTOR_SYSTEM_TERMINATE, AddTaskError, BEFORE_ACTOR_SYSTEM_TERMINATE, BEFORE_SERVICE_UNBIND,
    CoordinatedShutdown, Phase, PhaseError, SERVICE_REQUESTS_DONE, SERVICE_STOP, SERVICE_UNBIND,
    ShutdownReason, TaskFailureCause,
};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

/// A task that logs its begin and, after `time`, its end.
fn task(
    shutdown: &CoordinatedShutdown,
    phase: &str,
    name: &'static str,
    log: &Log,
    time: Duration,
) {
    let log = log.clone();
    let work = async move || {
        log.add(format!("{name} begins"));
        tokio::time::sleep(time).await;
        log.add(format!("{name} ends"));
        Ok::<(), Infallible>(())
    };
    shutdown.add_task(phase, name, work).unwrap();
}

#[tokio::test(start_paused = true)]
async fn phases_run_one_after_the_other_and_their_tasks_side_by_side() {
    let (system, log) = (system(), Log::default());
    let shutdown = CoordinatedShutdown::builder(&system)
        .phase(
            Phase::new("leave")
                .after(SERVICE_STOP)
                .before(BEFORE_ACTOR_SYSTEM_TERMINATE),
        )
        .build()
        .unwrap();
    let actor = system.spawn("a", Puppet::new("actor", &log)).unwrap();
    task(&shutdown, "leave", "leave", &log, MS);
    task(&shutdown, SERVICE_STOP, "slow", &log, 20 * MS);
    task(&shutdown, SERVICE_STOP, "fast", &log, 10 * MS);
    task(&shutdown, BEFORE_SERVICE_UNBIND, "first", &log, MS);
    task(&shutdown, ACTOR_SYSTEM_TERMINATE, "last", &log, MS);
    let begun = Instant::now();
    let report = shutdown.run(ShutdownReason::Requested).await;
    let expected = "actor: started, first begins, first ends, slow begins, fast begins, fast ends, \
                    slow ends, leave begins, leave ends, last begins, last ends, actor: stopped";
    assert_eq!(log.take().join(", "), expected);
    assert!(report.is_clean() && actor.is_stopped(), "{report:?}");
    assert!(begun.elapsed() < 30 * MS, "no task waits for a limit");
    let names: Vec<_> = report
        .phases
        .iter()
        .map(|phase| phase.name.as_str())
        .collect();
    assert_eq!(names, shutdown.phases().collect::<Vec<_>>());
    assert!((20..22).contains(&report.phases[3].took.as_millis()));
    system.ended().await;
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// L10: each is named, with what it did, and everything else runs nevertheless.
#[tokio::test(start_paused = true)]
async fn tasks_that_fail_panic_or_hang_are_named_and_the_rest_runs() {
    let (system, log) = (system(), Log::default());
    let limit = Duration::from_secs(3);
    let shutdown = CoordinatedShutdown::builder(&system)
        .configure(SERVICE_UNBIND, |phase| phase.within(limit))
        .build()
        .unwrap();
    let add = |name: &str, what: fn() -> Result<(), &'static str>| {
        shutdown
            .add_task(SERVICE_UNBIND, name, async move || what())
            .unwrap();
    };
    add("fails", || Err("no"));
    add("panics", || panic!("oh"));
    let hangs = async || {
        let _held = Grenade;
        std::future::pending::<Result<(), Infallible>>().await
    };
    shutdown.add_task(SERVICE_UNBIND, "hangs", hangs).unwrap();
    let unmade = || -> std::future::Ready<Result<(), Infallible>> { panic!("at once") };
    shutdown
        .add_task(SERVICE_UNBIND, "panics at once", unmade)
        .unwrap();
    task(&shutdown, SERVICE_UNBIND, "good", &log, MS);
    task(&shutdown, SERVICE_STOP, "later", &log, MS);
    let begun = Instant::now();
    let report = shutdown.run(ShutdownReason::Requested).await;
    let causes: Vec<_> = report
        .failures()
        .map(|(phase, failure)| (phase, failure.task.as_str(), failure.cause.clone()))
        .collect();
    let expected = [
        ("fails", TaskFailureCause::Failed("no".into())),
        ("panics", TaskFailureCause::Panicked("oh".into())),
        ("hangs", TaskFailureCause::TimedOut(limit)),
        (
            "panics at once",
            TaskFailureCause::Panicked("at once".into()),
        ),
    ]
    .map(|(task, cause)| (SERVICE_UNBIND, task, cause));
    assert_eq!(causes, expected);
    assert!(!report.is_clean() && report.finished);
    assert_eq!(
        log.take(),
        ["good begins", "good ends", "later begins", "later ends"]
    );
    assert!((limit..limit + 10 * MS).contains(&begun.elapsed()));
    system.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_phase_may_abort_the_run_and_then_the_system_lives() {
    let (system, log) = (system(), Log::default());
    let shutdown = CoordinatedShutdown::builder(&system)
        .configure(SERVICE_STOP, Phase::abort_on_failure)
        .build()
        .unwrap();
    let actor = system.spawn("a", Adder(0)).unwrap();
    let fails = async || Err::<(), _>("no");
    shutdown
        .add_task(SERVICE_UNBIND, "recovered", fails)
        .unwrap();
    shutdown.add_task(SERVICE_STOP, "essential", fails).unwrap();
    task(&shutdown, SERVICE_STOP, "beside", &log, MS);
    task(&shutdown, BEFORE_ACTOR_SYSTEM_TERMINATE, "later", &log, MS);
    let report = shutdown.run(ShutdownReason::Requested).await;
    assert_eq!(log.take(), ["beside begins", "beside ends"]);
    let skipped = report.phases.iter().filter(|phase| phase.skipped);
    let skipped: Vec<_> = skipped.map(|phase| phase.name.as_str()).collect();
    assert_eq!(
        skipped,
        [BEFORE_ACTOR_SYSTEM_TERMINATE, ACTOR_SYSTEM_TERMINATE]
    );
    assert!(report.finished && !report.is_clean());
    assert!(!actor.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn it_runs_once_and_everyone_gets_the_same_report() {
    let (system, log) = (system(), Log::default());
    let shutdown = CoordinatedShutdown::new(&system);
    task(&shutdown, SERVICE_STOP, "task", &log, 10 * MS);
    let other = shutdown.clone();
    let why = ShutdownReason::Other("the node was downed".into());
    let reports = tokio::join!(
        shutdown.run(why.clone()),
        other.run(ShutdownReason::Requested),
        shutdown.finished()
    );
    assert_eq!(reports.0.reason, why);
    assert_eq!(reports.0, reports.1);
    assert_eq!(reports.0, reports.2);
    assert_eq!(shutdown.run(ShutdownReason::Requested).await, reports.0);
    assert!(!shutdown.start(ShutdownReason::Requested));
    assert_eq!(log.take(), ["task begins", "task ends"]);
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_without_the_one_who_asked_for_it() {
    let (system, log) = (system(), Log::default());
    let shutdown = CoordinatedShutdown::new(&system);
    task(&shutdown, SERVICE_STOP, "task", &log, 10 * MS);
    let run = shutdown.run(ShutdownReason::Requested);
    assert!(tokio::time::timeout(5 * MS, run).await.is_err());
    drop(shutdown);
    system.ended().await;
    assert_eq!(log.take(), ["task begins", "task ends"]);
}

#[tokio::test(start_paused = true)]
async fn tasks_come_and_go_until_their_phase_begins() {
    let (system, log) = (system(), Log::default());
    let shutdown = CoordinatedShutdown::new(&system);
    let nothing = async || Ok::<(), Infallible>(());
    let unknown = shutdown.add_task("typo", "t", nothing).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no phase \"typo\" for the task \"t\""
    );
    let gone = {
        let log = log.clone();
        let work = async move || {
            log.add("never");
            Ok::<(), Infallible>(())
        };
        shutdown.add_task(SERVICE_STOP, "gone", work).unwrap()
    };
    assert!(shutdown.remove_task(gone) && !shutdown.remove_task(gone));
    let (handle, own) = (shutdown.clone(), log.clone());
    let adds = async move || {
        task(&handle, SERVICE_REQUESTS_DONE, "added", &own, MS);
        let late = handle.add_task(SERVICE_UNBIND, "late", nothing);
        assert!(matches!(late, Err(AddTaskError::TooLate { .. })));
        Ok::<(), Infallible>(())
    };
    shutdown.add_task(SERVICE_UNBIND, "adds", adds).unwrap();
    assert!(shutdown.run(ShutdownReason::Requested).await.is_clean());
    assert_eq!(log.take(), ["added begins", "added ends"]);
}

/// L10: who blocks the end of the system is in the report too.
#[tokio::test(start_paused = true)]
async fn blocked_actors_are_reported() {
    let system = ActorSystem::builder("test").shutdown_limit(2 * MS).build();
    let shutdown = CoordinatedShutdown::new(&system);
    let actor = system
        .spawn("a", Puppet::new("a", &Log::default()))
        .unwrap();
    actor.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(MS).await;
    let report = shutdown.run(ShutdownReason::Requested).await;
    assert_eq!(report.blocked, [actor.path().clone()]);
    assert!(report.finished && !report.is_clean());
}

#[tokio::test(start_paused = true)]
async fn phases_that_cannot_be_kept_in_order_are_refused() {
    let system = system();
    let builder = || CoordinatedShutdown::builder(&system);
    let circle = builder().configure(SERVICE_UNBIND, |phase| phase.after(SERVICE_STOP));
    assert!(matches!(circle.build(), Err(PhaseError::Cycle { phases }) if phases.len() == 3));
    let unknown = builder().configure("typo", |phase| phase);
    assert!(matches!(unknown.build(), Err(PhaseError::Unknown { .. })));
}

/// Whoever waits on another runtime does not wait forever.
#[test]
fn a_runtime_that_goes_away_ends_the_run() {
    let build = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let runtime = build();
    let shutdown = runtime.block_on(async {
        let shutdown = CoordinatedShutdown::new(&system());
        let hangs = async || std::future::pending::<Result<(), Infallible>>().await;
        shutdown.add_task(SERVICE_STOP, "hangs", hangs).unwrap();
        shutdown.start(ShutdownReason::Requested);
        tokio::task::yield_now().await;
        shutdown
    });
    drop(runtime);
    let report = build().block_on(shutdown.finished());
    assert!(!report.finished && !report.is_clean());
}

/// With real signals, to a process of its own.
#[cfg(unix)]
mod process {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};

    const IS_PROGRAM: &str = "OTAVA_TEST_ENDS_BY_SIGNAL";
    /// Far more than any step takes.
    const LIMIT: Duration = Duration::from_secs(60);

    fn say(line: &str) {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").unwrap();
        out.flush().unwrap();
    }

    #[test]
    #[ignore = "it is the program that the tests below start"]
    fn program() {
        if std::env::var_os(IS_PROGRAM).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let system = system();
            let shutdown = CoordinatedShutdown::builder(&system)
                .configure(SERVICE_STOP, |phase| phase.within(LIMIT))
                .build()
                .unwrap();
            let waits = async || {
                say("stopping");
                let mut line = String::new();
                let read = move || std::io::stdin().read_line(&mut line).map(|_| ());
                tokio::task::spawn_blocking(read).await.unwrap()
            };
            shutdown.add_task(SERVICE_STOP, "waits", waits).unwrap();
            shutdown.on_signals().unwrap();
            say("ready");
            let report = shutdown.finished().await;
            say(&format!(
                "over: {}, clean: {}",
                report.reason,
                report.is_clean()
            ));
        });
    }

    struct Program {
        child: Child,
        lines: Receiver<String>,
    }

    impl Program {
        fn start() -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "shutdown::process::program",
                    "--ignored",
                    "--nocapture",
                ])
                .env(IS_PROGRAM, "1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let out = BufReader::new(child.stdout.take().unwrap());
            let (sender, lines) = channel();
            std::thread::spawn(move || {
                // An error means that the test is over.
                out.lines()
                    .map_while(Result::ok)
                    .try_for_each(|line| sender.send(line))
            });
            Self { child, lines }
        }

        /// Reads on until a line ends with `text`.
        fn expect(&self, text: &str) {
            loop {
                let line = self.lines.recv_timeout(LIMIT);
                let line = line.unwrap_or_else(|error| panic!("expected {text:?}: {error}"));
                if line.ends_with(text) {
                    return;
                }
            }
        }

        fn signal(&self, signal: &str) {
            let pid = self.child.id().to_string();
            let status = Command::new("kill").args([signal, &pid]).status().unwrap();
            assert!(status.success());
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            // It has ended, unless the test failed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn ends_by(first: &str, name: &str) {
        let mut program = Program::start();
        program.expect("ready");
        program.signal(first);
        program.expect("stopping");
        program.signal("-TERM");
        program.signal("-INT");
        let mut stdin = program.child.stdin.take().unwrap();
        stdin.write_all(b"go on\n").unwrap();
        program.expect(&format!("over: {name}, clean: true"));
        assert!(program.child.wait().unwrap().success());
    }

    /// L10. The signals that follow the first one change nothing.
    #[test]
    fn sigterm_ends_a_program_in_phases() {
        ends_by("-TERM", "SIGTERM");
    }

    #[test]
    fn sigint_ends_a_program_in_phases() {
        ends_by("-INT", "SIGINT");
    }
}
