//! Local server: a PostgreSQL server of its own for a run of the tests, in a folder that vanishes.
//!
//! It is started from the programs of an installation, listens on a socket in its folder only, and
//! ends with the process that started it, however that ends: a guard waits at a pipe that the system
//! closes then. `OTAVA_POSTGRES_URL` names a server that is there already, and is used instead.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// The server that all tests share which do no harm to it, or `None`, after the reason was printed.
pub(crate) fn shared() -> Option<&'static str> {
    static SHARED: OnceLock<Result<(String, Option<LocalServer>), String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if let Ok(url) = std::env::var("OTAVA_POSTGRES_URL") {
            return Ok((url, None));
        }
        let server = LocalServer::start(&[])?;
        Ok((server.url(), Some(server)))
    });
    match shared {
        Ok((url, _)) => Some(url),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// A server of one's own, to be killed; or `None`, after the reason was printed.
pub(crate) fn own(settings: &[&str]) -> Option<LocalServer> {
    LocalServer::start(settings)
        .map_err(|reason| println!("skipped: {reason}"))
        .ok()
}

pub(crate) struct LocalServer {
    programs: PathBuf,
    folder: PathBuf,
    options: String,
    /// Whoever closes it tells the guard to clean up.
    _pipe: ChildStdin,
    guard: Child,
}

impl LocalServer {
    fn start(settings: &[&str]) -> Result<Self, String> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("otava-pg-")
            .tempdir_in("/tmp")
            .map_err(|error| format!("no folder for a server: {error}"))?
            .keep();
        if let Some(user) = server_user()? {
            std::os::unix::fs::chown(&folder, Some(user), None).unwrap();
        }
        let stop = "trap '' INT TERM HUP; cat >/dev/null; \
            \"$0\" -D \"$1/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$1\"";
        let mut guard = Command::new("sh");
        guard
            .args(["-c", stop])
            .arg(programs.join("pg_ctl"))
            .arg(&folder);
        let mut guard = as_server_user(&guard)?;
        let spawned = guard
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut guard = spawned.map_err(|error| format!("no guard for a server: {error}"))?;
        // No machine fails here: what the system was told is there when the server is killed.
        let mut options = format!(
            "-k {} -c listen_addresses= -c max_connections=300 -c fsync=off",
            folder.display()
        );
        for setting in settings {
            options.push_str(" -c ");
            options.push_str(setting);
        }
        let server = Self {
            _pipe: guard.stdin.take().unwrap(),
            programs,
            folder,
            options,
            guard,
        };
        let data = server.data();
        let mut init = Command::new(server.programs.join("initdb"));
        init.args(["--no-sync", "-A", "trust", "-U", "otava", "-E", "UTF8"]);
        init.args(["--locale=C", "-D"]).arg(&data);
        run(&init)?;
        server.start_again()?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("host={} user=otava dbname=postgres", self.folder.display())
    }

    /// Starts it after [`Self::kill`].
    pub(crate) fn start_again(&self) -> Result<(), String> {
        let mut start = Command::new(self.programs.join("pg_ctl"));
        start.args(["-s", "-w", "-D"]).arg(self.data());
        start.arg("-o").arg(&self.options);
        start.arg("-l").arg(self.folder.join("log")).arg("start");
        run(&start)
    }

    /// Kills all its processes, as a failing machine would.
    pub(crate) fn kill(&self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let children = Command::new("pgrep").args(["-P", pid]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let mut kill = Command::new("kill");
        kill.arg("-KILL").arg(pid).args(children.lines());
        kill.stderr(Stdio::null()).status().unwrap();
        // Whoever started them may take its time to notice; dead they are all the same.
        let runs = |pid: &str| {
            let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while runs(pid) || children.lines().any(runs) {
            std::thread::yield_now();
        }
        // To a new server the number of a dead process that nobody has noticed is a running one.
        for lock in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
            std::fs::remove_file(self.folder.join(lock)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        // The guard does the same for those that are never dropped.
        drop(self.guard.stdin.take());
    }
}

/// Where the programs of a server are.
fn programs() -> Result<PathBuf, String> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    for parent in ["/usr/lib/postgresql", "/usr/local", "/opt/homebrew/opt"] {
        let inside = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut inside: Vec<_> = inside.map(|entry| entry.path().join("bin")).collect();
        inside.sort();
        folders.extend(inside.into_iter().rev());
    }
    let whole = |folder: &PathBuf| {
        let there = |name: &str| folder.join(name).is_file();
        there("initdb") && there("pg_ctl") && there("postgres")
    };
    folders.into_iter().find(whole).ok_or_else(|| {
        "there is no PostgreSQL (apt-get install postgresql), and OTAVA_POSTGRES_URL is not set"
            .to_owned()
    })
}

/// Whom a server runs as; `None` for us. It refuses to run as root.
fn server_user() -> Result<Option<u32>, String> {
    if std::fs::metadata("/proc/self").is_ok_and(|of_us| of_us.uid() != 0) {
        return Ok(None);
    }
    let known = Command::new("id").args(["-u", "postgres"]).output();
    let text = known.map_err(|error| error.to_string())?.stdout;
    let user = String::from_utf8_lossy(&text).trim().parse();
    user.map(Some)
        .map_err(|_| "we are root, and there is no user postgres to run a server as".to_owned())
}

fn as_server_user(command: &Command) -> Result<Command, String> {
    let mut result = Command::new("setpriv");
    if server_user()?.is_some() {
        result.args([
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
        ]);
        result.arg(command.get_program());
    } else {
        result = Command::new(command.get_program());
    }
    result.args(command.get_args()).current_dir("/tmp");
    Ok(result)
}

fn run(command: &Command) -> Result<(), String> {
    let mut command = as_server_user(command)?;
    // Not to a pipe: the server would keep it open.
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} failed: {status}")),
        Err(error) => Err(format!("{command:?} cannot be started: {error}")),
    }
}
