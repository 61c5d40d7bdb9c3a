//! View: what a node says of its cluster as JSON, and the few lines of HTTP with which it is asked.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer is refused beyond this many bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The answer to `GET /cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterView {
    /// Who answers.
    pub(crate) node: String,
    /// Oldest first.
    pub(crate) members: Vec<MemberView>,
    pub(crate) leader: Option<String>,
    /// Where the shard coordinator is.
    pub(crate) oldest: Option<String>,
    /// Members that somebody cannot reach.
    pub(crate) unreachable: Vec<String>,
    /// Whether all reachable members hold this very view.
    pub(crate) converged: bool,
    /// The home of every shard; `null` while it has none, absent until the coordinator answered.
    pub(crate) shards: BTreeMap<u32, Option<String>>,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberView {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) incarnation: String,
    pub(crate) status: String,
}

impl ClusterView {
    /// Whether `name` is up and reachable.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        !self
            .unreachable
            .iter()
            .any(|unreachable| unreachable == name)
            && self
                .members
                .iter()
                .any(|member| member.name == name && member.status == "up")
    }

    /// The shards that `name` has.
    pub(crate) fn shards_of(&self, name: &str) -> Vec<u32> {
        let its = self
            .shards
            .iter()
            .filter(|(_, home)| home.as_deref() == Some(name));
        its.map(|(&shard, _)| shard).collect()
    }

    /// Whether every shard has a home.
    pub(crate) fn all_shards_placed(&self) -> bool {
        !self.shards.is_empty() && self.shards.values().all(Option::is_some)
    }

    /// The members in a few words: `node-1 up, node-2 unreachable, node-3 up; leader node-1`.
    pub(crate) fn members_line(&self) -> String {
        let words = self.members.iter().map(|member| {
            let gone = self.unreachable.contains(&member.name) && member.status != "down";
            format!(
                "{} {}",
                member.name,
                if gone { "unreachable" } else { &member.status }
            )
        });
        let members = words.collect::<Vec<_>>().join(", ");
        match &self.leader {
            Some(leader) => format!("{members}; leader {leader}"),
            None => format!("{members}; no leader"),
        }
    }

    /// The number of shards on each node, in the order of the names: `43/43/42`.
    pub(crate) fn shards_line(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for member in &self.members {
            counts.insert(&member.name, 0);
        }
        for home in self.shards.values().flatten() {
            *counts.entry(home).or_default() += 1;
        }
        let placed: usize = counts.values().sum();
        let mut line = counts
            .values()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join("/");
        if placed < self.shards.len() {
            line.push_str(&format!(" ({} without a home)", self.shards.len() - placed));
        }
        line
    }
}

/// Asks the node at `http` for its view.
///
/// # Errors
/// When there is no right answer within `within`.
pub(crate) async fn cluster(http: SocketAddr, within: Duration) -> io::Result<ClusterView> {
    let body = timeout(within, get(http, "/cluster")).await??;
    Ok(serde_json::from_slice(&body)?)
}

/// Asks nodes one after the other and returns the first view of a node that is up itself.
pub(crate) async fn any_cluster(
    nodes: impl IntoIterator<Item = SocketAddr>,
    within: Duration,
) -> Option<ClusterView> {
    for http in nodes {
        match cluster(http, within).await {
            Ok(view) if view.is_up(&view.node) => return Some(view),
            _ => {}
        }
    }
    None
}

/// `GET path` with HTTP/1.1, one request a connection; the body of a 200.
async fn get(http: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    body_of(&answer).map(<[u8]>::to_vec)
}

/// The body of an answer that was closed at its end and is not chunked.
fn body_of(answer: &[u8]) -> io::Result<&[u8]> {
    let head_end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let head_end = head_end.ok_or(io::ErrorKind::UnexpectedEof)?;
    let (head, body) = (&answer[..head_end], &answer[head_end + 4..]);
    if head.starts_with(b"HTTP/1.1 200 ") {
        Ok(body)
    } else {
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        Err(io::Error::other(String::from_utf8_lossy(line).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, status: &str) -> MemberView {
        MemberView {
            name: name.into(),
            status: status.into(),
            ..MemberView::default()
        }
    }

    #[test]
    fn a_view_is_told_in_two_short_lines() {
        let home = |name: &str| Some(name.to_owned());
        let view = ClusterView {
            node: "node-1".into(),
            members: vec![
                member("node-3", "up"),
                member("node-1", "up"),
                member("node-2", "up"),
            ],
            leader: Some("node-1".into()),
            unreachable: vec!["node-2".into()],
            shards: [
                (0, home("node-1")),
                (1, home("node-3")),
                (2, home("node-3")),
                (3, None),
            ]
            .into(),
            ..ClusterView::default()
        };
        assert_eq!(
            view.members_line(),
            "node-3 up, node-1 up, node-2 unreachable; leader node-1"
        );
        assert_eq!(view.shards_line(), "1/0/2 (1 without a home)");
        assert_eq!(view.shards_of("node-3"), [1, 2]);
        assert!(view.is_up("node-1") && !view.is_up("node-2") && !view.all_shards_placed());
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<ClusterView>(&json).unwrap(), view);
    }

    #[test]
    fn only_the_body_of_a_200_counts() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(body_of(answer).unwrap(), b"{}");
        let error = body_of(b"HTTP/1.1 503 Busy\r\na: b\r\n\r\n{}").unwrap_err();
        assert_eq!(error.to_string(), "HTTP/1.1 503 Busy");
        assert!(body_of(b"HTTP/1.1 200 OK\r\n").is_err());
    }
}
