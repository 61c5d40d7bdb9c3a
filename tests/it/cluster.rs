//! Proves: three processes on loopback keep what they acknowledged, over SIGKILL, SIGSTOP and SIGTERM.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Everything that is waited for has to happen by then.
const SOON: Duration = Duration::from_secs(60);

pub(crate) fn flights() -> Command {
    example("flights")
}

/// An example's program. A whole `cargo test` has built it already; a run of this file alone has not.
pub(crate) fn example(name: &str) -> Command {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--workspace", "--examples"]);
        // With other features it would all be built anew.
        for (is_on, feature) in [
            (cfg!(feature = "cli"), "otava/cli"),
            (cfg!(feature = "srv"), "otava/srv"),
        ] {
            if is_on {
                build.args(["--features", feature]);
            }
        }
        // What cargo tells a test about its package is, to a build script that looks at it, a change.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(tells_of_a_package) {
                build.env_remove(name);
            }
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.unwrap().success(), "the examples do not build");
    });
    // target/debug/deps/it-.. -> target/debug/examples/..
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    let program = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let mut command = Command::new(folder.join("examples").join(program));
    command.stdin(Stdio::null());
    command
}

fn tells_of_a_package(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

fn free_port() -> u16 {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

struct NodeProcess {
    name: String,
    http: SocketAddr,
    log: PathBuf,
    child: Child,
}

impl NodeProcess {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(status.success());
    }

    /// Stops it where it is, but not while it writes to the journal's file: whoever is stopped there
    /// keeps all others from writing until it goes on or is killed (docs/status.md).
    fn stop_outside_of_writes(&self) {
        eventually("it is stopped while it does not write", || {
            self.signal("-STOP");
            // A thread that is just in a system call stops when that is over.
            eventually("all of its threads are stopped", || {
                self.has_stopped().then_some(())
            });
            if !self.holds_the_write_lock() {
                return Some(());
            }
            self.signal("-CONT");
            None
        });
    }

    /// Whether each of its threads is stopped: state T behind the name in its status line (proc(5)).
    fn has_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let line = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            line.rsplit_once(')')
                .is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        })
    }

    /// Whether it holds SQLite's lock of writers: byte 120 of the shared index of the log
    /// (<https://sqlite.org/walformat.html#wal_locks>).
    fn holds_the_write_lock(&self) -> bool {
        let pid = self.child.id().to_string();
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields[..], [_, _, _, "WRITE", by, _, "120", _] if by == pid)
        })
    }

    fn wait(&mut self) -> ExitStatus {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                from.elapsed() < SOON,
                "{} does not end: {}",
                self.name,
                self.log()
            );
            pause();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn cluster(&self) -> Option<Value> {
        let (status, body) = http(self.http, "GET", "/cluster", None)?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between two looks at something that another process does.
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let from = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(from.elapsed() < SOON, "waited in vain: {what}");
        pause();
    }
}

fn start(folder: &Path, count: usize) -> Vec<NodeProcess> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let node = |index: usize| {
        let name = format!("node-{}", index + 1);
        let log = folder.join(format!("{name}.log"));
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = flights();
        command.args(["node", "--name", &name, "--http", &http.to_string()]);
        command.args(["--listen", &format!("127.0.0.1:{}", ports[index])]);
        for port in &ports {
            command.args(["--seed", &format!("127.0.0.1:{port}")]);
        }
        command.arg("--data").arg(folder);
        let err = std::fs::File::create(&log).unwrap();
        let child = command.stdout(Stdio::null()).stderr(err).spawn().unwrap();
        NodeProcess {
            name,
            http,
            log,
            child,
        }
    };
    let nodes: Vec<NodeProcess> = (0..count).map(node).collect();
    for node in &nodes {
        eventually("all nodes are up and every shard has a home", || {
            formed(&node.cluster()?, count)
        });
    }
    nodes
}

fn formed(view: &Value, count: usize) -> Option<()> {
    let up = view["members"]
        .as_array()?
        .iter()
        .filter(|member| member["status"] == "up")
        .count();
    let shards = view["shards"].as_object()?;
    let placed = !shards.is_empty() && shards.values().all(Value::is_string);
    (up == count && view["unreachable"].as_array()?.is_empty() && placed).then_some(())
}

/// One request; `None` when nobody answers whole.
pub(crate) fn http(
    to: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(to).ok()?;
    send_request(&mut stream, method, path, body).ok()?;
    read_answer(stream)
}

fn send_request(
    stream: &mut TcpStream,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> std::io::Result<()> {
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read_answer(mut stream: TcpStream) -> Option<(u16, String)> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn flight(number: u32) -> Value {
    json!({
        "year": 2013, "month": 1, "day": 1, "sched_dep_time": 515, "dep_delay": 2, "arr_delay": 11,
        "carrier": "UA", "flight": number, "origin": "EWR", "dest": "IAH", "distance": 100,
    })
}

fn record(at: SocketAddr, tail: &str, number: u32) -> Option<u16> {
    let path = format!("/aircraft/{tail}/flights");
    http(at, "POST", &path, Some(&flight(number))).map(|(status, _)| status)
}

fn flights_of(at: SocketAddr, tail: &str) -> Option<u64> {
    let (status, body) = http(at, "GET", &format!("/aircraft/{tail}"), None)?;
    let state: Value = serde_json::from_str(&body).ok()?;
    (status == 200).then(|| state["flights"].as_u64()).flatten()
}

#[test]
fn any_node_answers_http_and_says_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    let nodes = start(folder.path(), 2);
    let (a, b) = (nodes[0].http, nodes[1].http);
    assert_eq!(record(a, "N1", 1), Some(201));
    assert_eq!(record(b, "N1", 1), Some(200), "it was known");
    assert_eq!(record(b, "N1", 2), Some(201));
    for at in [a, b] {
        let (status, body) = http(at, "GET", "/aircraft/N1", None).unwrap();
        let state: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "tailnum": "N1", "flights": 2, "cancelled": 0, "miles": 200, "arr_delay_sum": 22,
        });
        assert_eq!((status, state), (200, expected));
    }
    let mut wrong = flight(3);
    wrong["month"] = json!(13);
    for (method, path, body, status) in [
        ("GET", "/aircraft/N2", None, 404),
        ("GET", "/aircraft/N%202", None, 400),
        ("GET", "/nothing", None, 404),
        ("DELETE", "/aircraft/N1", None, 405),
        ("POST", "/aircraft/N1/flights", Some(&wrong), 400),
        (
            "POST",
            "/aircraft/N1/flights",
            Some(&json!({"month": 1})),
            422,
        ),
    ] {
        let answer = http(a, method, path, body).unwrap();
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    }
}

/// SIGTERM is a graceful leave: shards are handed over, the others never count it as lost, status 0.
#[test]
fn sigterm_hands_over_and_leaves() {
    let folder = TempDir::new().unwrap();
    let mut nodes = start(folder.path(), 3);
    for n in 0..30 {
        assert_eq!(record(nodes[0].http, &format!("N{n}"), n), Some(201));
    }
    let mut leaving = nodes.remove(0);
    leaving.signal("-TERM");
    assert!(leaving.wait().success(), "{}", leaving.log());
    for node in &nodes {
        eventually("the two that stay have all shards", || {
            formed(&node.cluster()?, 2)
        });
        for n in 0..30 {
            assert_eq!(flights_of(node.http, &format!("N{n}")), Some(1));
        }
        assert!(!node.log().contains("is unreachable"), "{}", node.log());
    }
}

/// C5: a node is paused past its downing. When it wakes, a write that waited for it is refused by the
/// journal, its entities stop, and so does it.
#[test]
fn a_node_that_was_paused_past_its_downing_cannot_write() {
    let folder = TempDir::new().unwrap();
    let mut nodes = start(folder.path(), 3);
    let mut paused = nodes.remove(2);
    // One that came last has few shards at first; of sixty aircraft some have to live there.
    eventually(
        "the node that will be paused has its part of the shards",
        || {
            let view = paused.cluster()?;
            let shards = view["shards"].as_object()?;
            let here = shards.values().filter(|home| **home == paused.name).count();
            (here * 5 >= shards.len()).then_some(())
        },
    );
    // The writes to these, sent to that node, pass no other one.
    let tails: Vec<String> = (0..60).map(|n| format!("N{n}")).collect();
    for tail in &tails {
        assert_eq!(record(paused.http, tail, 1), Some(201));
    }

    paused.stop_outside_of_writes();
    // The kernel takes these in, as many as wait in a backlog; the node reads them when it wakes.
    let waiting: Vec<TcpStream> = tails
        .iter()
        .map(|tail| {
            let mut stream = TcpStream::connect(paused.http).unwrap();
            let path = format!("/aircraft/{tail}/flights");
            send_request(&mut stream, "POST", &path, Some(&flight(2))).unwrap();
            stream
        })
        .collect();
    for node in &nodes {
        eventually("the others have put the paused node down", || {
            formed(&node.cluster()?, 2)
        });
    }
    for tail in &tails {
        eventually("every aircraft answers elsewhere", || {
            flights_of(nodes[0].http, tail)
        });
        assert_eq!(record(nodes[0].http, tail, 3), Some(201));
    }

    paused.signal("-CONT");
    let mut refused = 0;
    for (tail, stream) in tails.iter().zip(waiting) {
        match read_answer(stream) {
            Some((201 | 200, _)) => {
                // Through another node, which has the aircraft now: then it must be there.
                assert_eq!(flights_of(nodes[0].http, tail), Some(3), "{tail}");
            }
            _ => refused += 1,
        }
    }
    let status = paused.wait();
    assert!(
        !status.success(),
        "it was downed, so it ends with an error: {status}"
    );
    let log = paused.log();
    assert!(
        log.contains("another owner has taken over"),
        "no write was refused:\n{log}"
    );
    assert!(log.contains("counts this node as lost"), "{log}");
    assert!(refused > 0);
    for tail in &tails {
        let flights = flights_of(nodes[1].http, tail).unwrap();
        assert!((2..=3).contains(&flights), "{tail} has {flights}");
    }
}
