//! Gossip: carries statements from node to node, by push and pull with a random peer at a time. Pure.
//!
//! A node tells a random peer which version of whose statement it holds. The peer sends back what it
//! has newer and names what it lacks, and gets that in return. So news reaches all of n nodes in
//! about log n rounds, and what was lost is found in the next one. All randomness comes from a seed:
//! the same seed and the same messages give the same run.
//!
//! Each of n authors says a view of n members, so statements as they are would cost a node n² bytes
//! whenever somebody joins. But views are facts that only grow, and a node has joined what it passes
//! on with what it knows: so it passes a statement on with its *own* view in place of the author's,
//! if that holds all of it. Then one message of n statements has one view in it, not n, and an
//! author's digest says what the author holds, as before. Whoever hears this node hears its view
//! anyway, by its own statement; so nobody learns a fact from one that it would not listen to.
//! Rounds become rarer as they become longer, so what passes through a node grows with n.

use crate::logic::profile::Profile;
use crate::logic::statement::Statement;
use crate::logic::view::View;
use otava_actor::{Rng, Time};
use otava_remote::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How many bytes of statements go into one message, by estimate; at least one statement goes.
const DELTA_BYTES_MAX: usize = 192 * 1024;

/// What passes between two nodes that gossip.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GossipMessage {
    /// These versions I hold.
    Digest(BTreeMap<NodeId, u64>),
    /// These you lack; and those I lack.
    Delta {
        /// Statements that the receiver lacks.
        statements: Vec<Arc<Statement>>,
        /// Whose newer statements the sender wants, with the versions that it holds.
        wanted: BTreeMap<NodeId, u64>,
    },
}

/// What gossip wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum GossipOutput {
    /// Newer statements of others came in.
    Learnt(Vec<Arc<Statement>>),
    /// Send a message; it may be lost.
    Send(SocketAddr, GossipMessage),
}

/// The statements that a node knows, and whom it tells next.
#[derive(Debug)]
pub struct Gossip {
    rng: Rng,
    interval: Duration,
    /// Of the last round.
    last: Time,
    next: Time,
    peers: Vec<SocketAddr>,
    store: BTreeMap<NodeId, Arc<Statement>>,
    /// The view of this node.
    own: View,
    outputs: VecDeque<GossipOutput>,
}

impl Gossip {
    /// Knows nothing yet. With `interval` the time between two rounds of a small cluster.
    #[must_use]
    pub fn new(rng: Rng, interval: Duration, now: Time) -> Self {
        Self {
            rng,
            interval,
            last: now,
            next: now,
            peers: Vec::new(),
            store: BTreeMap::new(),
            own: View::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Whom to gossip with from now on.
    pub fn set_peers(&mut self, peers: &[SocketAddr]) {
        if self.peers != peers {
            self.peers = peers.to_vec();
        }
    }

    /// Forgets the statements of authors that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&NodeId) -> bool) {
        self.store.retain(|author, _| keep(author));
    }

    /// Takes this node's own newest statement, and tells a peer of it soon.
    pub fn publish(&mut self, now: Time, statement: Arc<Statement>) {
        self.own = statement.view.clone();
        self.store.insert(statement.author.clone(), statement);
        let soon = (self.last + self.round() / 4).max(now);
        self.next = self.next.min(soon);
    }

    /// Takes a message from the peer at `from`.
    pub fn handle(&mut self, from: SocketAddr, message: GossipMessage) {
        match message {
            GossipMessage::Digest(theirs) => {
                let statements = self.newer_than(&theirs, |author| !theirs.contains_key(author));
                let lacking = theirs
                    .iter()
                    .filter(|(author, version)| self.version(author) < Some(**version));
                let wanted: BTreeMap<NodeId, u64> = lacking
                    .map(|(author, _)| (author.clone(), self.version(author).unwrap_or(0)))
                    .collect();
                self.send_delta(from, statements, wanted);
            }
            GossipMessage::Delta { statements, wanted } => {
                self.learn(statements);
                let statements = self.newer_than(&wanted, |_| false);
                self.send_delta(from, statements, BTreeMap::new());
            }
        }
    }

    /// Starts a round, if it is time.
    pub fn handle_timeout(&mut self, now: Time) {
        if now < self.next {
            return;
        }
        self.last = now;
        self.next = now + self.round();
        if self.peers.is_empty() {
            return;
        }
        let one = self.rng.below(self.peers.len() as u64) as usize;
        let versions = self.store.iter();
        let digest = versions.map(|(author, statement)| (author.clone(), statement.version));
        let message = GossipMessage::Digest(digest.collect());
        self.outputs
            .push_back(GossipOutput::Send(self.peers[one], message));
    }

    /// When [`Gossip::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        Some(self.next)
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<GossipOutput> {
        self.outputs.pop_front()
    }

    fn round(&self) -> Duration {
        widened(self.interval, self.peers.len() + 1)
    }

    fn version(&self, author: &NodeId) -> Option<u64> {
        self.store.get(author).map(|statement| statement.version)
    }

    fn learn(&mut self, statements: Vec<Arc<Statement>>) {
        let mut learnt = Vec::new();
        for statement in statements {
            let news = self.version(&statement.author) < Some(statement.version);
            if news && statement.is_bounded() && self.store.len() < Statement::ENTRIES_MAX {
                let author = statement.author.clone();
                self.store.insert(author, statement.clone());
                learnt.push(statement);
            }
        }
        if !learnt.is_empty() {
            self.outputs.push_back(GossipOutput::Learnt(learnt));
        }
    }

    /// What is newer here than in `versions`, or is not in it and `unlisted` says so; as much as
    /// fits.
    fn newer_than(
        &mut self,
        versions: &BTreeMap<NodeId, u64>,
        unlisted: impl Fn(&NodeId) -> bool,
    ) -> Vec<Arc<Statement>> {
        let mut room = DELTA_BYTES_MAX;
        let mut newer: Vec<Arc<Statement>> = Vec::new();
        // The view that was looked at last, and whether this node's holds all of it.
        let mut looked = (View::new(), true);
        for (author, statement) in &mut self.store {
            let theirs = versions.get(author);
            let lacks = theirs.is_some_and(|version| *version < statement.version);
            if !lacks && (theirs.is_some() || !unlisted(author)) {
                continue;
            }
            if !statement.view.is_copy_of(&looked.0) {
                let covered = self.own.covers(&statement.view);
                looked = (statement.view.clone(), covered);
            }
            if looked.1 && !statement.view.is_copy_of(&self.own) {
                Arc::make_mut(statement).view = self.own.clone();
            }
            let before = newer.last().map(|before| &before.view);
            let bytes = estimate(statement, before);
            if bytes > room && !newer.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            newer.push(statement.clone());
        }
        newer
    }

    fn send_delta(
        &mut self,
        to: SocketAddr,
        statements: Vec<Arc<Statement>>,
        wanted: BTreeMap<NodeId, u64>,
    ) {
        if !statements.is_empty() || !wanted.is_empty() {
            let message = GossipMessage::Delta { statements, wanted };
            self.outputs.push_back(GossipOutput::Send(to, message));
        }
    }
}

/// The interval for a cluster of `nodes`: up to 16 nodes as configured, then in proportion, so that
/// what passes through a node does not grow with the square of their number.
#[must_use]
pub fn widened(interval: Duration, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    (interval * nodes.clamp(16, 10_000)) / 16
}

/// About how long a statement is on the wire, rather too long; its view counts if it is another one than
/// that `before` it.
fn estimate(statement: &Statement, before: Option<&View>) -> usize {
    let node = |node: &NodeId| 40 + node.name.len();
    let profile = |profile: &Arc<Profile>| {
        profile.app_version.as_str().len()
            + profile.roles.iter().map(|r| r.len() + 4).sum::<usize>()
    };
    let is_said = before.is_some_and(|before| statement.view.is_copy_of(before));
    let said_anew = statement.view.iter().filter(|_| !is_said);
    let entries = said_anew.map(|(id, entry)| {
        let profile = entry.profile.as_ref().map_or(0, profile);
        node(id) + 24 + profile
    });
    let observed = statement.unreachable.iter().map(node);
    64 + node(&statement.author) + entries.sum::<usize>() + observed.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::view::Entry;
    use std::collections::BTreeSet;

    fn node(port: u16) -> NodeId {
        NodeId::new("n", ([127, 0, 0, 1], port).into(), 9)
    }

    fn statement(port: u16, version: u64, entries: u16) -> Arc<Statement> {
        let view: View = (0..entries).map(|p| (node(p), Entry::joining(0))).collect();
        Arc::new(Statement {
            author: node(port),
            cluster: 1,
            version,
            digest: version,
            view,
            unreachable: BTreeSet::new(),
        })
    }

    /// Runs rounds of `nodes`, one after the other, and counts until all hold all.
    fn rounds_until_all_know(seed: u64, nodes: u16) -> usize {
        let mut rng = Rng::seeded(seed);
        let addrs: Vec<SocketAddr> = (0..nodes).map(|port| node(port).addr).collect();
        let mut all: Vec<Gossip> = (0..nodes)
            .map(|port| {
                let mut gossip = Gossip::new(rng.fork(), Duration::from_millis(200), Time::ZERO);
                let mut peers = addrs.clone();
                peers.remove(usize::from(port));
                gossip.set_peers(&peers);
                gossip.publish(Time::ZERO, statement(port, 1, 1));
                gossip
            })
            .collect();
        let knows_all = |gossip: &Gossip| gossip.store.len() == usize::from(nodes);
        let mut now = Time::ZERO;
        let mut rounds = 0;
        while !all.iter().all(knows_all) {
            now += Duration::from_secs(1);
            rounds += 1;
            for index in 0..all.len() {
                all[index].handle_timeout(now);
                let mut open: VecDeque<(usize, GossipOutput)> = VecDeque::new();
                open.extend(all[index].poll_output().map(|output| (index, output)));
                while let Some((sender, output)) = open.pop_front() {
                    let GossipOutput::Send(to, message) = output else {
                        continue;
                    };
                    let to = usize::from(to.port());
                    all[to].handle(addrs[sender], message);
                    while let Some(output) = all[to].poll_output() {
                        open.push_back((to, output));
                    }
                }
            }
        }
        rounds
    }

    #[test]
    fn news_reaches_all_in_a_few_rounds_and_replays() {
        for seed in 0..20 {
            let rounds = rounds_until_all_know(seed, 64);
            assert!(rounds <= 8, "seed {seed}: {rounds} rounds");
            assert_eq!(rounds, rounds_until_all_know(seed, 64));
        }
    }

    #[test]
    fn a_message_holds_what_fits_and_at_least_one() {
        let mut gossip = Gossip::new(Rng::seeded(1), Duration::from_millis(200), Time::ZERO);
        // This node, which is the last, knows less than each other.
        for port in (0..10).rev() {
            gossip.publish(Time::ZERO, statement(port, 1, 1_000 + port));
        }
        gossip.handle(node(99).addr, GossipMessage::Digest(BTreeMap::new()));
        let Some(GossipOutput::Send(_, GossipMessage::Delta { statements, .. })) =
            gossip.poll_output()
        else {
            panic!("nothing is sent");
        };
        assert!((1..10).contains(&statements.len()), "{}", statements.len());
    }

    /// The statements that a node would be sent that knows none.
    fn all_of(gossip: &mut Gossip) -> Vec<Arc<Statement>> {
        gossip.handle(node(99).addr, GossipMessage::Digest(BTreeMap::new()));
        match gossip.poll_output() {
            Some(GossipOutput::Send(_, GossipMessage::Delta { statements, .. })) => statements,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_node_knows_is_passed_on_as_one_view() {
        let mut gossip = Gossip::new(Rng::seeded(1), Duration::from_millis(200), Time::ZERO);
        let statements = vec![statement(2, 1, 3), statement(3, 1, 5), statement(4, 1, 20)];
        let wanted = BTreeMap::new();
        gossip.handle(node(2).addr, GossipMessage::Delta { statements, wanted });
        while gossip.poll_output().is_some() {}
        gossip.publish(Time::ZERO, statement(1, 7, 9));
        let sent = all_of(&mut gossip);
        let lengths = |sent: &[Arc<Statement>]| -> Vec<(u16, usize)> {
            let all = sent.iter();
            all.map(|s| (s.author.addr.port(), s.view.len())).collect()
        };
        // The fourth knows more than this node, which passes on what it said.
        assert_eq!(lengths(&sent), [(1, 9), (2, 9), (3, 9), (4, 20)]);
        assert!(sent[1].view.is_copy_of(&sent[0].view) && sent[2].digest == 1);
        gossip.publish(Time::ZERO, statement(1, 8, 20));
        let sent = all_of(&mut gossip);
        assert!(sent.iter().all(|s| s.view.is_copy_of(&sent[0].view)));
    }

    #[test]
    fn what_is_old_or_known_is_not_learnt_again() {
        let mut gossip = Gossip::new(Rng::seeded(1), Duration::from_millis(200), Time::ZERO);
        let delta = |version| GossipMessage::Delta {
            statements: vec![statement(1, version, 1)],
            wanted: BTreeMap::new(),
        };
        for version in [2, 2, 1] {
            gossip.handle(node(5).addr, delta(version));
        }
        let learnt = std::iter::from_fn(|| gossip.poll_output()).count();
        assert_eq!(learnt, 1);
    }

    #[test]
    fn large_clusters_gossip_less_often() {
        let base = Duration::from_millis(200);
        assert_eq!(widened(base, 3), base);
        assert_eq!(widened(base, 16), base);
        assert_eq!(widened(base, 80), base * 5);
    }
}
