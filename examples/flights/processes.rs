//! Processes: starts nodes as processes of this very program, kills them, and leaves none behind.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::options::NodeOptions;

/// A graceful leave is given up, and the process killed, after this time.
const LEAVE_MAX: Duration = Duration::from_secs(30);
/// This much of a log is shown when something failed.
const LOG_LINES_SHOWN: usize = 8;

/// What the nodes have to say.
#[derive(Debug)]
pub(crate) enum NodeNews {
    /// A line that a node printed.
    Line(String),
    /// A node ended that nobody had asked to.
    Died(String),
}

/// What the parent wants from a node that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    Leave,
    Die,
}

/// A node process, or the place of one that was killed.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    options: NodeOptions,
    wish: watch::Sender<Wish>,
    ended: watch::Receiver<Option<ExitStatus>>,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts a node. What it prints and its sudden end go to `news`, its log to the data folder.
    ///
    /// # Errors
    /// When the log cannot be opened or the process not be started.
    pub(crate) fn start(
        options: NodeOptions,
        news: mpsc::UnboundedSender<NodeNews>,
    ) -> io::Result<Self> {
        let log = options.data.join(format!("{}.log", options.name));
        let mut child = spawn(
            &options,
            OpenOptions::new().create(true).append(true).open(&log)?,
        )?;
        let (wish, wishes) = watch::channel(Wish::Run);
        let (report_end, ended) = watch::channel(None);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let name = options.name.clone();
        tokio::spawn(async move {
            let printed = forward_lines(stdout, news.clone());
            let (status, ()) = tokio::join!(supervise(child, stdin, wishes.clone()), printed);
            if *wishes.borrow() == Wish::Run {
                // nobody listens any more when the parent is ending itself
                let _ = news.send(NodeNews::Died(format!("{name} ended unasked: {status}")));
            }
            report_end.send_replace(Some(status));
        });
        Ok(Self {
            options,
            wish,
            ended,
            log,
        })
    }

    /// Starts the node again: same name, addresses and folder.
    ///
    /// # Errors
    /// As [`NodeProcess::start`].
    pub(crate) fn start_again(&mut self, news: mpsc::UnboundedSender<NodeNews>) -> io::Result<()> {
        *self = Self::start(self.options.clone(), news)?;
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.options.name
    }

    /// Where it listens for its peers.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.options.listen
    }

    /// Where it answers HTTP.
    pub(crate) fn http(&self) -> SocketAddr {
        self.options.http
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) async fn kill(&mut self) {
        self.wish.send_replace(Wish::Die);
        // an error means that the supervising task is gone, and with it the process
        let _ = self.ended.wait_for(Option::is_some).await;
    }

    /// Asks the node to leave the cluster and waits until it has ended by itself.
    ///
    /// # Errors
    /// When it took too long (it is killed then) or ended with an error.
    pub(crate) async fn leave(&mut self) -> Result<(), String> {
        self.wish.send_if_modified(|wish| {
            let running = *wish == Wish::Run;
            *wish = if running { Wish::Leave } else { *wish };
            running
        });
        let mut ended = self.ended.clone();
        let left = timeout(LEAVE_MAX, ended.wait_for(Option::is_some)).await;
        let status = match left {
            Ok(status) => status.ok().and_then(|status| *status),
            Err(_) => {
                self.kill().await;
                return Err(format!(
                    "{} did not leave within {LEAVE_MAX:?}",
                    self.name()
                ));
            }
        };
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{} left with {status}", self.name())),
            None => Err(format!("{} is gone", self.name())),
        }
    }

    /// The path of its log and the last lines in it.
    pub(crate) fn log_tail(&self) -> (&Path, Vec<String>) {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
        (&self.log, lines[from..].to_vec())
    }
}

fn spawn(options: &NodeOptions, log: File) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("node").args(["--name", &options.name]);
    command.args(["--listen", &options.listen.to_string()]);
    command.args(["--http", &options.http.to_string()]);
    for seed in &options.seeds {
        command.args(["--seed", &seed.to_string()]);
    }
    command
        .arg("--data")
        .arg(&options.data)
        .arg("--end-with-stdin");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    // Ctrl-C on the terminal is for the parent alone: it lets the nodes leave one after the other
    #[cfg(unix)]
    command.process_group(0);
    command.spawn()
}

/// Owns the process until it has ended. The end of its standard input tells it to leave, so it
/// also leaves when this parent dies.
async fn supervise(
    mut child: Child,
    mut stdin: Option<ChildStdin>,
    mut wishes: watch::Receiver<Wish>,
) -> ExitStatus {
    loop {
        let wish = tokio::select! {
            biased;
            status = child.wait() => return status.unwrap_or_default(),
            changed = wishes.changed() => match changed {
                Ok(()) => *wishes.borrow_and_update(),
                Err(_) => Wish::Die,
            },
        };
        match wish {
            Wish::Run => {}
            Wish::Leave => stdin = None,
            Wish::Die => {
                // fails only when it has ended already
                let _ = child.start_kill();
                return child.wait().await.unwrap_or_default();
            }
        }
        // keeps the pipe open up to here
        let _ = &stdin;
    }
}

async fn forward_lines(stdout: Option<ChildStdout>, news: mpsc::UnboundedSender<NodeNews>) {
    let Some(stdout) = stdout else { return };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = news.send(NodeNews::Line(line));
    }
}

/// Addresses for `count` nodes: `from` and the ports after it, or ports of the loopback that are
/// free now. They lie below the range from which systems serve outgoing connections, so that a
/// node which is started again finds its port free.
///
/// # Errors
/// When no free ports were found.
pub(crate) fn addresses(from: Option<SocketAddr>, count: u32) -> io::Result<Vec<SocketAddr>> {
    let offsets = 0..u16::try_from(count).map_err(io::Error::other)?;
    if let Some(first) = from {
        let address = |offset| SocketAddr::new(first.ip(), first.port() + offset);
        return Ok(offsets.map(address).collect());
    }
    const LOWEST: u16 = 10_000;
    const HIGHEST: u16 = 32_000;
    let random = RandomState::new();
    let mut found = Vec::new();
    for attempt in 0..1_000_u32 {
        if found.len() == offsets.len() {
            return Ok(found);
        }
        let spread = random.hash_one(attempt) % u64::from(HIGHEST - LOWEST);
        let port = LOWEST + u16::try_from(spread).map_err(io::Error::other)?;
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let free = UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok();
        if free && !found.contains(&address) {
            found.push(address);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "found no free ports on 127.0.0.1",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_addresses_are_counted_up_and_free_ones_found() {
        let first = "127.0.0.1:7001".parse().unwrap();
        let given = addresses(Some(first), 3).unwrap();
        assert_eq!(
            given.iter().map(SocketAddr::port).collect::<Vec<_>>(),
            [7001, 7002, 7003]
        );
        let mut free = addresses(None, 16).unwrap();
        free.sort_unstable();
        free.dedup();
        assert_eq!(free.len(), 16);
    }
}
