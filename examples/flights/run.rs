//! Run: the parent: starts the nodes, replays the file, lets a node die, compares, tells.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt, iter};
use otava::{AskError, Client, Credentials, EntityClient, PersistentEntity as _};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::aircraft::{Aircraft, Command, SHARDS};
use super::compare::Comparison;
use super::fault;
use super::input::Input;
use super::node::{ALARM, CLUSTER};
use super::options::{NodeOptions, RunOptions};
use super::processes::{NodeNews, NodeProcess, addresses};
use super::replay::{Replayed, TRY_MAX, replay};
use super::report;
use super::show::{Progress, Show};
use super::table::{Figures, Recovery, grouped};
use super::tally::{Tally, scan};
use super::view::{self, ClusterView};
use super::window::Window;

/// The cluster has to be there by then.
const FORM_MAX: Duration = Duration::from_secs(60);
/// How long one answer to `GET /cluster` may take.
const VIEW_MAX: Duration = Duration::from_millis(500);
/// How often the nodes are asked what they see.
const VIEW_EVERY: Duration = Duration::from_millis(200);
/// Aircraft that are asked at once in the end, and how long each may take over all its tries.
const STATES_AT_ONCE: usize = 256;
const STATE_MAX: Duration = Duration::from_secs(30);
/// Exit status after Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

/// What the parts of a run share.
pub(crate) struct Stage {
    pub(crate) show: Rc<Show>,
    pub(crate) aircraft: EntityClient<Command>,
    pub(crate) input: Input,
    /// How many commands were acknowledged.
    pub(crate) acknowledged: watch::Receiver<u64>,
    pub(crate) news: mpsc::UnboundedSender<NodeNews>,
    /// Where nodes answer HTTP.
    pub(crate) http: Vec<SocketAddr>,
    /// What was seen last.
    pub(crate) view: RefCell<ClusterView>,
    alarms: Alarms,
}

/// The names of the members that nodes called unreachable, one for each time.
type Alarms = Rc<RefCell<Vec<String>>>;

/// Runs the whole and gives the exit status.
///
/// # Errors
/// With a text for people; the nodes' logs are shown then, and the folder is kept.
pub(crate) async fn run(options: RunOptions, input: Input) -> Result<ExitCode, String> {
    let total = input.departures.len() as u64;
    let show = Rc::new(Show::new(total));
    show.event(&describe(&input, &options));
    let (folder, temporary) = data_folder(&options)?;
    let (news, mut heard) = mpsc::unbounded_channel();
    let mut nodes = start_nodes(&options, &folder, &news)?;
    let serving = Cell::new(false);
    let result = tokio::select! {
        biased;
        result = on_stage(&options, input, &show, &folder, &mut nodes, news, &mut heard, &serving) => {
            result
        }
        () = interrupted(&serving) => Ok(ExitCode::from(EXIT_INTERRUPTED)),
    };
    let alarms = Alarms::default();
    let left = tokio::select! {
        biased;
        left = leave_all(&mut nodes) => left,
        died = listen_to_nodes(&show, &mut heard, &alarms) => Err(died),
    };
    while let Ok(NodeNews::Line(line)) = heard.try_recv() {
        show.event(&line);
    }
    match (result, left) {
        (Ok(code), Ok(())) => {
            drop(temporary);
            Ok(code)
        }
        (Err(error), _) | (_, Err(error)) => {
            let mut text = error;
            for node in &nodes {
                let (log, tail) = node.log_tail();
                let _ = write!(text, "\n--- the end of {}", log.display());
                for line in tail {
                    let _ = write!(text, "\n{line}");
                }
            }
            if let Some(temporary) = temporary {
                let _ = write!(text, "\nthe data is kept in {}", temporary.keep().display());
            }
            Err(text)
        }
    }
}

/// Waits for Ctrl-C, but not for the one that ends `--serve`.
async fn interrupted(serving: &Cell<bool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if !serving.get() {
            return;
        }
    }
    std::future::pending().await
}

fn describe(input: &Input, options: &RunOptions) -> String {
    let mut text = format!(
        "{} flights of {} aircraft in {}",
        grouped(input.departures.len() as u64),
        grouped(input.tails.len() as u64),
        options.input_file().display()
    );
    if input.without_tail > 0 {
        let _ = write!(
            text,
            "; {} rows without a tail number left out",
            grouped(input.without_tail)
        );
    }
    if input.repeated > 0 {
        let _ = write!(text, "; {} repeated rows left out", grouped(input.repeated));
    }
    text
}

/// The folder for everything, and its guard if it goes away at the end.
fn data_folder(options: &RunOptions) -> Result<(PathBuf, Option<TempDir>), String> {
    if let Some(folder) = &options.data {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        return Ok((folder.clone(), None));
    }
    let folder = tempfile::Builder::new()
        .prefix("otava-flights-")
        .tempdir()
        .map_err(|error| format!("cannot make a temporary folder: {error}"))?;
    Ok((folder.path().to_owned(), Some(folder)))
}

fn start_nodes(
    options: &RunOptions,
    folder: &Path,
    news: &mpsc::UnboundedSender<NodeNews>,
) -> Result<Vec<NodeProcess>, String> {
    let no_port = |error: io::Error| format!("no addresses for the nodes: {error}");
    let listen = addresses(options.listen, options.nodes).map_err(no_port)?;
    let http = addresses(options.http, options.nodes).map_err(no_port)?;
    let start = |index: usize| {
        let node = NodeOptions {
            name: format!("node-{}", index + 1),
            listen: listen[index],
            http: http[index],
            seeds: listen.clone(),
            data: folder.to_owned(),
            end_with_stdin: true,
        };
        NodeProcess::start(node, news.clone())
            .map_err(|error| format!("cannot start a node: {error}"))
    };
    (0..listen.len()).map(start).collect()
}

/// Everything between the start of the nodes and their end.
#[expect(
    clippy::too_many_arguments,
    reason = "called once; each is a thing of its own"
)]
async fn on_stage(
    options: &RunOptions,
    input: Input,
    show: &Rc<Show>,
    folder: &Path,
    nodes: &mut [NodeProcess],
    news: mpsc::UnboundedSender<NodeNews>,
    heard: &mut mpsc::UnboundedReceiver<NodeNews>,
    serving: &Cell<bool>,
) -> Result<ExitCode, String> {
    let http: Vec<_> = nodes.iter().map(NodeProcess::http).collect();
    let contacts: Vec<_> = nodes.iter().map(NodeProcess::listen).collect();
    let alarms = Alarms::default();
    let view = tokio::select! {
        biased;
        view = formed(show, &http) => view?,
        died = listen_to_nodes(show, heard, &alarms) => return Err(died),
    };
    let credentials = Credentials::development(&folder.join("authority"), "parent")
        .map_err(|error| format!("no certificate for the parent: {error}"))?;
    let client = Client::start(CLUSTER, "parent", credentials, contacts)
        .map_err(|error| format!("cannot reach the cluster: {error}"))?;
    let aircraft = client
        .entities(Aircraft::KIND, SHARDS)
        .map_err(|error| format!("cannot reach the aircraft: {error}"))?;
    let (acknowledged, counted) = watch::channel(0);
    let stage = Stage {
        show: show.clone(),
        aircraft,
        input,
        acknowledged: counted,
        news,
        http,
        view: RefCell::new(view),
        alarms: alarms.clone(),
    };
    let code = tokio::select! {
        biased;
        code = play(options, &stage, nodes, acknowledged) => code?,
        died = listen_to_nodes(&stage.show, heard, &alarms) => return Err(died),
    };
    if options.serve {
        serving.set(true);
        for (node, http) in nodes.iter().zip(&stage.http) {
            stage
                .show
                .event(&format!("{} answers at http://{http}/cluster", node.name()));
        }
        stage.show.event("Ctrl-C ends this");
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => stage.show.event("leaving"),
            died = listen_to_nodes(&stage.show, heard, &alarms) => return Err(died),
        }
    }
    client.shutdown().await;
    Ok(code)
}

/// Waits until all nodes are up and every shard has a home.
async fn formed(show: &Show, http: &[SocketAddr]) -> Result<ClusterView, String> {
    let wait = async {
        loop {
            if let Some(view) = view::any_cluster(http.iter().copied(), VIEW_MAX).await {
                let up = view
                    .members
                    .iter()
                    .filter(|member| view.is_up(&member.name))
                    .count();
                if up == http.len() && view.all_shards_placed() {
                    return view;
                }
            }
            sleep(VIEW_EVERY).await;
        }
    };
    let view = timeout(FORM_MAX, wait).await.map_err(|_| {
        format!(
            "the nodes formed no cluster within {} s",
            FORM_MAX.as_secs()
        )
    })?;
    show.event(&format!(
        "{}; shards {}",
        view.members_line(),
        view.shards_line()
    ));
    Ok(view)
}

/// Shows what nodes print; returns when one died unasked, with a text that says so.
async fn listen_to_nodes(
    show: &Show,
    heard: &mut mpsc::UnboundedReceiver<NodeNews>,
    alarms: &Alarms,
) -> String {
    while let Some(news) = heard.recv().await {
        match news {
            NodeNews::Line(line) => {
                if let Some((_, name)) = line.split_once(ALARM) {
                    alarms.borrow_mut().push(name.to_owned());
                }
                show.event(&line);
            }
            NodeNews::Died(text) => return text,
        }
    }
    std::future::pending().await
}

/// The replay with its fault, then the comparison.
async fn play(
    options: &RunOptions,
    stage: &Stage,
    nodes: &mut [NodeProcess],
    acknowledged: watch::Sender<u64>,
) -> Result<ExitCode, String> {
    let input = &stage.input;
    let shard_of = |tail: u32| stage.aircraft.shard_of(&input.tails[tail as usize]);
    let shards: Vec<u32> = (0..input.tails.len() as u32).map(shard_of).collect();
    let by_command = input
        .departures
        .iter()
        .map(|departure| shards[departure.tail as usize]);
    let window = Window::new(by_command.collect(), SHARDS, options.in_flight);
    let counts = RefCell::new(vec![0_u32; input.tails.len()]);
    let before_kill = Cell::new(None);
    let started = Instant::now();
    let send = |command: u32| record(stage, command);
    let work = async {
        let replayed = replay(window, send, &acknowledged, |command| {
            let tail = input.departures[command as usize].tail;
            counts.borrow_mut()[tail as usize] += 1;
        });
        let fault = fault::play(options.kill, stage, nodes, || {
            before_kill.set(Some((*stage.acknowledged.borrow(), started.elapsed())));
        });
        let (replayed, fault) = tokio::join!(replayed, fault);
        let replayed = replayed.map_err(|error| error.to_string())?;
        Ok::<_, String>((replayed, fault?))
    };
    let (replayed, fault) = tokio::select! {
        biased;
        done = work => done?,
        () = follow_view(stage) => unreachable!("it follows for as long as it is polled"),
        () = follow_progress(stage) => unreachable!("it follows for as long as it is polled"),
    };
    stage.show.end_progress();
    stage
        .show
        .event("every command is acknowledged; asking every aircraft for its state");
    let before_kill = before_kill
        .get()
        .unwrap_or((replayed.acknowledged, replayed.took));
    settle(
        options,
        stage,
        &counts.into_inner(),
        &replayed,
        before_kill,
        fault,
    )
    .await
}

/// Compares every aircraft with the file and tells how the run went.
async fn settle(
    options: &RunOptions,
    stage: &Stage,
    acknowledged: &[u32],
    replayed: &Replayed,
    undisturbed: (u64, Duration),
    fault: Option<Recovery>,
) -> Result<ExitCode, String> {
    let input = &stage.input;
    let states = states(stage).await?;
    let comparison = Comparison::new(&input.tails, &scan(input), &states, acknowledged);
    if let Some(file) = &options.report {
        report::write(file, &input.tails, &states)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    let killed = fault.as_ref().map(|fault| fault.node.clone());
    let false_alarm = |name: &&String| killed.as_ref() != Some(*name);
    let figures = Figures {
        kill: options.kill.name(),
        nodes: options.nodes,
        acknowledged: replayed.acknowledged,
        retried: replayed.retried,
        lost: comparison.lost,
        counted_twice: comparison.counted_twice,
        exact: comparison.is_exact(),
        replay: replayed.took,
        undisturbed,
        p50: replayed.latencies.quantile(0.5),
        p99: replayed.latencies.quantile(0.99),
        slowest: replayed.latencies.max(),
        false_alarms: stage.alarms.borrow().iter().filter(false_alarm).count(),
        recovery: fault,
    };
    stage.show.text(&format!("\n{comparison}\n{figures}"));
    if let Some(file) = &options.summary {
        add_line(file, &figures.to_json().to_string())
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    if comparison.is_exact() && comparison.lost + comparison.counted_twice == 0 {
        Ok(ExitCode::SUCCESS)
    } else {
        Err("the cluster and the file differ".to_owned())
    }
}

/// Sends one command and waits for its acknowledgement.
async fn record(stage: &Stage, command: u32) -> Result<(), AskError> {
    let departure = stage.input.departures[command as usize];
    let tail = &stage.input.tails[departure.tail as usize];
    let flight = departure.flight;
    let aircraft = stage.aircraft.entity(tail);
    let asked = aircraft.ask(|reply_to| Command::Record { flight, reply_to });
    asked.within(TRY_MAX).await.map(|_| ())
}

/// Keeps [`Stage::view`] fresh, and shows what changes in it.
async fn follow_view(stage: &Stage) {
    loop {
        sleep(VIEW_EVERY).await;
        let Some(new) = view::any_cluster(stage.http.iter().copied(), VIEW_MAX).await else {
            continue;
        };
        let old = stage.view.replace(new);
        let new = stage.view.borrow();
        if old.members_line() != new.members_line() {
            stage.show.event(&new.members_line());
        }
    }
}

/// Shows how far the replay is, now and then.
async fn follow_progress(stage: &Stage) {
    let mut before = (Instant::now(), 0);
    loop {
        sleep(stage.show.interval()).await;
        let (now, acknowledged) = (Instant::now(), *stage.acknowledged.borrow());
        let rate = (acknowledged - before.1) as f64 / (now - before.0).as_secs_f64();
        before = (now, acknowledged);
        let view = stage.view.borrow();
        stage.show.progress(&Progress {
            acknowledged,
            per_second: rate as u64,
            cluster: format!("{}; shards {}", view.members_line(), view.shards_line()),
        });
    }
}

/// The state of every aircraft, as the cluster says it, in the order of the tail numbers.
async fn states(stage: &Stage) -> Result<Vec<Tally>, String> {
    let tails = stage.input.tails.iter();
    let asks = iter(tails.map(|tail| state(stage, tail))).buffered(STATES_AT_ONCE);
    asks.collect::<Vec<_>>().await.into_iter().collect()
}

/// Asks one aircraft until it answers.
pub(crate) async fn state(stage: &Stage, tail: &str) -> Result<Tally, String> {
    let from = Instant::now();
    loop {
        let aircraft = stage.aircraft.entity(tail);
        match aircraft
            .ask(|reply_to| Command::Get { reply_to })
            .within(TRY_MAX)
            .await
        {
            Ok(tally) => return Ok(tally),
            Err(error) if from.elapsed() > STATE_MAX => {
                return Err(format!("{tail} does not answer: {error}"));
            }
            Err(_) => sleep(VIEW_EVERY / 10).await,
        }
    }
}

fn add_line(file: &Path, line: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{line}")
}

/// Lets all nodes leave, one after the other, each with its hand-over.
async fn leave_all(nodes: &mut [NodeProcess]) -> Result<(), String> {
    let mut result = Ok(());
    for node in nodes {
        if let Err(error) = node.leave().await {
            result = result.and(Err(error));
        }
    }
    result
}
