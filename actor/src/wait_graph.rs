//! WaitGraph: which actor waits in a handler for an answer of which, to find those who wait in a circle.
//!
//! An actor that awaits an ask in its handler takes no message until the answer is there. If the
//! actor that is asked waits, over any number of others, for the first one, no answer ever comes:
//! without this graph all of them would wait for their time to run out.
//!
//! # Rules
//! - An edge `asker -> asked` stands from before the question is sent until it was handled, or the
//!   ask is answered, has failed or is dropped. Only an ask that is polled by an activation of an
//!   actor makes one: asks in tasks, in pipes and outside of actors wait beside a mailbox and block
//!   nobody. An adapter on the way changes nothing: the edge is between the actors.
//! - When the question was handled without an answer, its port was kept or handed on: nobody knows
//!   who will answer, so the edge goes. A circle through such a port ends by its deadline.
//! - An edge that would close a circle is never added: the ask fails before its question is sent.
//!   Look and entry happen under one lock, so of several actors that ask in a circle at the same
//!   moment exactly one fails and the others are answered.
//! - The search visits at most [`SEARCH_EDGES_MAX`] edges. Beyond that the ask goes on and its
//!   deadline ends it.
//!
//! # What it does not see
//! - Actors of other systems and nodes: an ask there makes no edge.
//! - An ask through a router: which of its routees will have the question is not known before.
//! - A port that is handed on by the very handler that then asks back: the edge still stands, and
//!   the ask fails although a third actor could have ended the wait.
//! - A handler that returns while it keeps a begun ask in its state: the edge stands until that ask
//!   is done or dropped.

use crate::path::ActorPath;
use crate::sync::lock;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Edges that one search visits at most, so that no ask keeps others waiting for the lock.
const SEARCH_EDGES_MAX: usize = 1_000;

thread_local! {
    /// The system (by the address of its core) and the number of the actor whose life is polled on
    /// this thread; zeros if none is.
    static AT_WORK: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

/// Whom a thread was at before.
pub(crate) struct Before((usize, u64));

/// From here on this thread polls the life of the actor `uid`.
#[inline]
pub(crate) fn enter(system: usize, uid: u64) -> Before {
    Before(AT_WORK.replace((system, uid)))
}

/// It does so no more.
#[inline]
pub(crate) fn leave(before: Before) {
    AT_WORK.set(before.0);
}

/// The actor of `system` that is polled on this thread.
pub(crate) fn at_work(system: usize) -> Option<u64> {
    let (here, uid) = AT_WORK.get();
    (here == system && uid != 0).then_some(uid)
}

/// The graph of one system.
#[derive(Default)]
pub(crate) struct WaitGraph(Mutex<Edges>);

/// Names an edge, for taking it out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Edge {
    asker: u64,
    /// Tells the edges of one asker apart: it may wait for several answers at once.
    number: u64,
}

impl WaitGraph {
    /// `asker` is about to wait for `asked`.
    ///
    /// # Errors
    /// The circle that this would close, from the asker on: each waits for the next one, and the
    /// last for the first. Nothing was added.
    pub(crate) fn add(
        &self,
        asker: u64,
        asked: u64,
        asked_path: &ActorPath,
    ) -> Result<Edge, Vec<ActorPath>> {
        lock(&self.0).add(asker, asked, asked_path)
    }

    /// The wait is over.
    pub(crate) fn remove(&self, edge: Edge) {
        lock(&self.0).by_asker.remove(&edge);
    }

    /// How many waits there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).by_asker.len()
    }
}

#[derive(Default)]
struct Edges {
    by_asker: BTreeMap<Edge, Asked>,
    numbers: u64,
}

#[derive(Clone)]
struct Asked {
    uid: u64,
    path: ActorPath,
}

impl Edges {
    fn add(
        &mut self,
        asker: u64,
        asked: u64,
        asked_path: &ActorPath,
    ) -> Result<Edge, Vec<ActorPath>> {
        if asker == asked {
            return Err(vec![asked_path.clone()]);
        }
        if let Some(mut circle) = self.way(asked, asker) {
            // The way ends with the asker; the circle begins with it.
            circle.insert(1, asked_path.clone());
            return Err(circle);
        }
        self.numbers += 1;
        let edge = Edge {
            asker,
            number: self.numbers,
        };
        let asked = Asked {
            uid: asked,
            path: asked_path.clone(),
        };
        self.by_asker.insert(edge, asked);
        Ok(edge)
    }

    fn of(&self, asker: u64) -> impl Iterator<Item = &Asked> {
        let all = Edge { asker, number: 0 }..=Edge {
            asker,
            number: u64::MAX,
        };
        self.by_asker.range(all).map(|(_, asked)| asked)
    }

    /// A shortest way from `from` to `to`: the path of `to`, then those between the two in order.
    fn way(&self, from: u64, to: u64) -> Option<Vec<ActorPath>> {
        self.of(from).next()?;
        // From which actor each one was reached, and its path.
        let mut reached: BTreeMap<u64, (u64, &ActorPath)> = BTreeMap::new();
        let mut next = VecDeque::from([from]);
        let mut visits_left = SEARCH_EDGES_MAX;
        while let Some(actor) = next.pop_front() {
            for asked in self.of(actor) {
                visits_left = visits_left.checked_sub(1)?;
                if asked.uid == from || reached.contains_key(&asked.uid) {
                    continue;
                }
                reached.insert(asked.uid, (actor, &asked.path));
                if asked.uid == to {
                    return Some(walk_back(&reached, from, to));
                }
                next.push_back(asked.uid);
            }
        }
        None
    }
}

fn walk_back(reached: &BTreeMap<u64, (u64, &ActorPath)>, from: u64, to: u64) -> Vec<ActorPath> {
    let mut back = Vec::new();
    let mut actor = to;
    while actor != from {
        let (before, path) = reached[&actor];
        back.push(path.clone());
        actor = before;
    }
    back[1..].reverse();
    back
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn path(actor: u64) -> ActorPath {
        ActorPath::new(format!("s/{actor}"))
    }

    fn add(edges: &mut Edges, asker: u64, asked: u64) -> Result<Edge, Vec<u64>> {
        edges.add(asker, asked, &path(asked)).map_err(|circle| {
            let uids = circle.iter().map(|path| path.name().parse().unwrap());
            uids.collect()
        })
    }

    #[test]
    fn a_circle_is_told_from_the_asker_on() {
        let mut edges = Edges::default();
        add(&mut edges, 1, 2).unwrap();
        add(&mut edges, 2, 3).unwrap();
        add(&mut edges, 3, 4).unwrap();
        assert_eq!(add(&mut edges, 4, 1), Err(vec![4, 1, 2, 3]));
        assert_eq!(add(&mut edges, 2, 1), Err(vec![2, 1]));
        assert_eq!(add(&mut edges, 7, 7), Err(vec![7]));
        assert_eq!(edges.by_asker.len(), 3, "those that failed are not there");
    }

    #[test]
    fn a_search_gives_up_at_its_limit() {
        let mut edges = Edges::default();
        let last = SEARCH_EDGES_MAX as u64 + 1;
        for actor in 1..last {
            add(&mut edges, actor, actor + 1).unwrap();
        }
        assert!(add(&mut edges, last, 1).is_err(), "just within the limit");
        add(&mut edges, last, last + 1).unwrap();
        assert!(add(&mut edges, last + 1, 1).is_ok(), "one edge too far");
    }

    #[test]
    fn one_actor_is_at_work_on_a_thread() {
        let before = enter(7, 3);
        assert_eq!((at_work(7), at_work(8)), (Some(3), None));
        leave(before);
        assert_eq!(at_work(7), None);
    }

    /// The plain model: all actors that can be reached from `from`.
    fn reachable(model: &[(u64, u64)], from: u64) -> BTreeSet<u64> {
        let mut known = BTreeSet::from([from]);
        loop {
            let more: Vec<u64> = model
                .iter()
                .filter(|(asker, asked)| known.contains(asker) && !known.contains(asked))
                .map(|&(_, asked)| asked)
                .collect();
            if more.is_empty() {
                return known;
            }
            known.extend(more);
        }
    }

    proptest! {
        /// Asks come and go: an ask fails exactly if the one asked waits for the asker by then, and
        /// the circle it names is one.
        #[test]
        fn circles_are_found_exactly(ops in prop::collection::vec((0..8_u64, 0..8_u64, any::<bool>()), 0..60)) {
            let mut edges = Edges::default();
            let mut model: Vec<(u64, u64)> = Vec::new();
            let mut names: Vec<Edge> = Vec::new();
            for (asker, asked, goes) in ops {
                if goes && !names.is_empty() {
                    let at = (asker as usize * 8 + asked as usize) % names.len();
                    edges.by_asker.remove(&names.remove(at));
                    model.remove(at);
                    continue;
                }
                let closes = reachable(&model, asked).contains(&asker);
                match add(&mut edges, asker, asked) {
                    Ok(edge) => {
                        prop_assert!(!closes);
                        names.push(edge);
                        model.push((asker, asked));
                    }
                    Err(circle) => {
                        prop_assert!(closes);
                        prop_assert_eq!(circle[0], asker);
                        prop_assert_eq!(circle[1 % circle.len()], asked);
                        let distinct: BTreeSet<_> = circle.iter().collect();
                        prop_assert_eq!(distinct.len(), circle.len());
                        for (at, &one) in circle.iter().enumerate().skip(1) {
                            let other = circle[(at + 1) % circle.len()];
                            prop_assert!(model.contains(&(one, other)), "{one} does not wait for {other}");
                        }
                    }
                }
                prop_assert_eq!(edges.by_asker.len(), model.len());
            }
        }
    }
}
