//! Monitor: whom this node watches, and whom it finds unreachable. Pure: no clock, no IO.

use crate::logic::phi::{Detector, PhiConfig};
use crate::logic::ring::neighbours;
use crate::logic::view::View;
use otava_actor::Time;
use otava_remote::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many times as many are watched while anybody is unreachable: after a split whole stretches of
/// the ring are gone, and all of them must be found before it is decided who goes on.
const ALERT: usize = 4;

/// How much longer the first answer may take than any other: a connection has to be made before it, and
/// when all nodes start at once the machine is busy with just that.
const CONNECTING: Duration = Duration::from_millis(1_500);

/// The detectors of one node.
#[derive(Clone, Debug)]
pub struct Monitor {
    me: NodeId,
    config: PhiConfig,
    /// How many reachable neighbours are watched.
    neighbours: usize,
    watched: BTreeMap<NodeId, Detector>,
    unreachable: BTreeSet<NodeId>,
}

impl Monitor {
    /// Watches nobody yet.
    #[must_use]
    pub fn new(me: NodeId, config: PhiConfig, neighbours: usize) -> Self {
        Self {
            me,
            config,
            neighbours,
            watched: BTreeMap::new(),
            unreachable: BTreeSet::new(),
        }
    }

    /// Whom this node sends heartbeats to.
    pub fn watched(&self) -> impl Iterator<Item = &NodeId> {
        self.watched.keys()
    }

    /// Whom this node cannot reach.
    #[must_use]
    pub fn unreachable(&self) -> &BTreeSet<NodeId> {
        &self.unreachable
    }

    /// Chooses anew whom to watch: the neighbours on the ring, where all who are `unreachable` for
    /// anybody are passed over, and those that this node itself has lost, until they come back or
    /// are out. Those that are new get the time a first answer may take.
    pub fn follow(&mut self, now: Time, view: &View, unreachable: &BTreeSet<NodeId>) {
        self.unreachable.retain(|node| view.is_live(node));
        let mut wanted = self.ring_of(&self.me, view, unreachable);
        wanted.extend(self.unreachable.iter().cloned());
        self.watched.retain(|node, _| wanted.contains(node));
        for node in wanted {
            let answers_at = now + self.config.first_interval + CONNECTING;
            let begin = || Detector::new(&self.config, answers_at);
            self.watched.entry(node).or_insert_with(begin);
        }
    }

    /// Whom a member watches when `unreachable` are.
    #[must_use]
    pub fn ring_of(
        &self,
        member: &NodeId,
        view: &View,
        unreachable: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let members = view.live().map(|(node, _)| node);
        let alert = if unreachable.is_empty() { 1 } else { ALERT };
        neighbours(member, members, unreachable, self.neighbours * alert)
    }

    /// `node` answered a heartbeat. Returns whether it was unreachable until now.
    pub fn answered(&mut self, now: Time, node: &NodeId) -> bool {
        let Some(detector) = self.watched.get_mut(node) else {
            return false;
        };
        detector.heartbeat(now);
        self.unreachable.remove(node)
    }

    /// Marks those whose time is over. Returns whether there were any new ones.
    pub fn expire(&mut self, now: Time) -> bool {
        let before = self.unreachable.len();
        for (node, detector) in &self.watched {
            if now >= detector.deadline() && !self.unreachable.contains(node) {
                self.unreachable.insert(node.clone());
            }
        }
        self.unreachable.len() > before
    }

    /// When the next one would be marked.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let reachable = self.watched.iter();
        reachable
            .filter(|(node, _)| !self.unreachable.contains(node))
            .map(|(_, detector)| detector.deadline())
            .min()
    }

    /// This process was held up for `length`: nobody is blamed for that time.
    pub fn excuse(&mut self, length: Duration) {
        for detector in self.watched.values_mut() {
            detector.excuse(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::member::Status;
    use crate::logic::view::Entry;

    fn node(port: u16) -> NodeId {
        NodeId::new("n", ([127, 0, 0, 1], port).into(), 9)
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn monitor_of_three() -> (Monitor, View) {
        let config = PhiConfig {
            threshold: 8.0,
            acceptable_pause: Duration::from_secs(3),
            first_interval: Duration::from_millis(500),
            deviation_min: Duration::from_millis(100),
            history_max: 100,
        };
        let view: View = (1..=3).map(|p| (node(p), Entry::joining(0))).collect();
        let mut monitor = Monitor::new(node(1), config, 5);
        monitor.follow(at(0), &view, &BTreeSet::new());
        (monitor, view)
    }

    #[test]
    fn a_silent_node_is_marked_and_watched_until_it_answers() {
        let (mut monitor, view) = monitor_of_three();
        for millis in (500..12_000).step_by(500) {
            monitor.answered(at(millis), &node(2));
            monitor.expire(at(millis));
        }
        assert_eq!(monitor.unreachable(), &BTreeSet::from([node(3)]));
        monitor.follow(at(10_000), &view, &BTreeSet::from([node(3)]));
        assert_eq!(monitor.watched().count(), 2);
        assert!(monitor.answered(at(10_500), &node(3)));
        assert!(!monitor.answered(at(10_600), &node(3)));
        assert!(monitor.unreachable().is_empty());
    }

    /// C3: a node that was never heard gets the time that a connection takes, and no longer than one that
    /// was.
    #[test]
    fn the_first_answer_may_take_longer() {
        let (mut monitor, _) = monitor_of_three();
        monitor.answered(at(100), &node(2));
        assert!(!monitor.expire(at(4_200)));
        assert!(monitor.expire(at(4_300)), "it fell silent after its first");
        assert_eq!(monitor.unreachable(), &BTreeSet::from([node(2)]));
        assert!(!monitor.expire(at(5_900)));
        assert!(monitor.expire(at(6_300)), "it never said anything");
    }

    #[test]
    fn more_are_watched_while_somebody_is_unreachable() {
        let view: View = (1..=30).map(|p| (node(p), Entry::joining(0))).collect();
        let (mut monitor, _) = monitor_of_three();
        monitor.follow(at(0), &view, &BTreeSet::new());
        assert_eq!(monitor.watched().count(), 5);
        monitor.follow(at(0), &view, &BTreeSet::from([node(9)]));
        assert!((20..=21).contains(&monitor.watched().count()));
        monitor.follow(at(0), &view, &BTreeSet::new());
        assert_eq!(monitor.watched().count(), 5);
    }

    #[test]
    fn nobody_is_watched_who_is_out() {
        let (mut monitor, mut view) = monitor_of_three();
        assert!(monitor.expire(at(60_000)));
        view.advance(&node(3), Status::Down);
        monitor.follow(at(60_000), &view, &BTreeSet::new());
        assert_eq!(monitor.unreachable(), &BTreeSet::from([node(2)]));
        assert!(!monitor.answered(at(60_000), &node(3)));
        assert_eq!(monitor.deadline(), None);
    }

    #[test]
    fn an_excuse_moves_every_deadline() {
        let (mut monitor, _) = monitor_of_three();
        let before = monitor.deadline().unwrap();
        monitor.excuse(Duration::from_secs(9));
        assert_eq!(monitor.deadline(), Some(before + Duration::from_secs(9)));
    }
}
