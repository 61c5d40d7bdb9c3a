//! Discovery: where the addresses of nodes are found: the trait, and a list, a file, and DNS.
//!
//! What is found is asked to be let in, and may hold dead addresses or lack living ones. Only the
//! forming of a cluster leans on it: see [`crate::ClusterConfig::contacts_min`].

use futures_util::future::BoxFuture;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A file of addresses beyond this is refused.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Finds the addresses of nodes that may be members.
///
/// ```
/// use futures_util::future::BoxFuture;
/// use otava_cluster::{Discovery, DiscoveryError};
/// use std::net::SocketAddr;
///
/// /// Asks a registry of the house.
/// #[derive(Debug)]
/// struct Registry;
///
/// impl Discovery for Registry {
///     fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
///         Box::pin(async { Ok(vec![([10, 0, 0, 1], 7000).into()]) })
///     }
/// }
/// ```
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// All addresses that are known now, in any order, this node's own among them. Called anew until
    /// the node is in; a call that lasts longer than 5 s is given up.
    ///
    /// # Errors
    /// [`DiscoveryError`]: nothing is known now. What was found before counts on.
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>>;
}

/// Addresses that could not be found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no addresses from {place}: {reason}")]
pub struct DiscoveryError {
    place: String,
    reason: String,
}

impl DiscoveryError {
    /// Nothing was found at `place`, because of `reason`.
    pub fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            reason: reason.into(),
        }
    }
}

/// A list that never changes. Unlike [`crate::ClusterConfig::seeds`] its order means nothing: the
/// lowest address forms the cluster.
#[derive(Clone, Debug)]
pub struct StaticDiscovery {
    addrs: Vec<SocketAddr>,
}

impl StaticDiscovery {
    /// Finds these addresses.
    #[must_use]
    pub fn new(addrs: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            addrs: addrs.into_iter().collect(),
        }
    }
}

impl Discovery for StaticDiscovery {
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        Box::pin(async { Ok(self.addrs.clone()) })
    }
}

/// A file with one address a line, read anew each time: `10.0.0.1:7000` or `[fe80::1]:7000`. What
/// follows a `#` is a comment. A file with a line that is no address is refused as a whole, since it
/// may be half written.
#[derive(Clone, Debug)]
pub struct FileDiscovery {
    path: PathBuf,
}

impl FileDiscovery {
    /// Reads the file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Discovery for FileDiscovery {
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        let path = self.path.clone();
        Box::pin(async move {
            let place = path.display().to_string();
            // Disks may hang: not on a thread of the runtime.
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let text = match read {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => return Err(DiscoveryError::new(place, error.to_string())),
                Err(error) => return Err(DiscoveryError::new(place, error.to_string())),
            };
            parse(&text).map_err(|reason| DiscoveryError::new(place, reason))
        })
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

fn parse(text: &str) -> Result<Vec<SocketAddr>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (index + 1, line)
    });
    let addrs = lines.filter(|(_, line)| !line.is_empty());
    addrs
        .map(|(number, line)| {
            let wrong = |_| format!("line {number} is no address like 10.0.0.1:7000");
            line.parse().map_err(wrong)
        })
        .collect()
}

/// The A and AAAA records of a name, all with the same port: a headless service of Kubernetes, a
/// round-robin name. Asks the resolver of the system, which may answer from its cache.
///
/// SRV records (a port for each) are read by `SrvDiscovery`, with the feature `srv`.
#[derive(Clone, Debug)]
pub struct DnsDiscovery {
    host: String,
    port: u16,
}

impl DnsDiscovery {
    /// Finds the addresses of `host`, each with `port`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl Discovery for DnsDiscovery {
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        Box::pin(async {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
            let failed = |error: std::io::Error| {
                DiscoveryError::new(format!("the name {}", self.host), error.to_string())
            };
            found.map(Iterator::collect).map_err(failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_addresses() {
        let text = "# the rack\n10.0.0.1:7000 # first\n\n [fe80::1]:7000\n";
        let addrs = parse(text).unwrap();
        assert_eq!(
            addrs,
            ["10.0.0.1:7000", "[fe80::1]:7000"].map(|a| a.parse().unwrap())
        );
        assert_eq!(parse("\n#"), Ok(Vec::new()));
        let wrong = parse("10.0.0.1:7000\n10.0.0.").unwrap_err();
        assert_eq!(wrong, "line 2 is no address like 10.0.0.1:7000");
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes");
        let discovery = FileDiscovery::new(&path);
        let missing = discovery.lookup().await.unwrap_err().to_string();
        assert!(missing.contains("nodes"), "{missing}");
        std::fs::write(&path, "127.0.0.1:1\n").unwrap();
        assert_eq!(discovery.lookup().await.unwrap().len(), 1);
        std::fs::write(&path, "127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        assert_eq!(discovery.lookup().await.unwrap().len(), 2);
        std::fs::write(&path, [0xFF; 9]).unwrap();
        assert!(discovery.lookup().await.is_err());
    }

    /// Only the resolver of the system is asked, so a name that needs no network.
    #[tokio::test]
    async fn a_name_is_looked_up() {
        let found = DnsDiscovery::new("localhost", 7000).lookup().await.unwrap();
        assert!(
            found
                .iter()
                .all(|addr| addr.ip().is_loopback() && addr.port() == 7000)
        );
        assert!(!found.is_empty());
    }
}
