//! Cuts: which paths carry nothing, and what becomes of the connections on them.

use super::link::{Life, Link};
use super::world::{EndId, Timer, World};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// The paths that are cut. A path leads one way.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    paths: BTreeSet<(SocketAddr, SocketAddr)>,
    isolated: BTreeSet<SocketAddr>,
}

impl Cuts {
    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let isolated = |addr| self.isolated.contains(&addr);
        from != to && (isolated(from) || isolated(to) || self.paths.contains(&(from, to)))
    }

    /// Whether what this side of a link sends does not arrive.
    pub(crate) fn cuts(&self, link: &Link, side: usize) -> bool {
        self.is_cut(link.ends[side].addr, link.ends[1 - side].addr)
    }
}

impl World {
    pub(crate) fn cut_one_way(&mut self, from: SocketAddr, to: SocketAddr) {
        self.cuts.paths.insert((from, to));
        self.cuts_changed();
    }

    pub(crate) fn isolate(&mut self, addr: SocketAddr) {
        self.cuts.isolated.insert(addr);
        self.cuts_changed();
    }

    pub(crate) fn heal(&mut self, a: SocketAddr, b: SocketAddr) {
        self.cuts.paths.remove(&(a, b));
        self.cuts.paths.remove(&(b, a));
        self.cuts_changed();
    }

    pub(crate) fn rejoin(&mut self, addr: SocketAddr) {
        self.cuts.isolated.remove(&addr);
        self.cuts_changed();
    }

    pub(crate) fn heal_all(&mut self) {
        self.cuts = Cuts::default();
        self.cuts_changed();
    }

    fn cuts_changed(&mut self) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            self.note_cut(link);
            for side in [0, 1] {
                self.unstick(EndId { link, side });
            }
        }
    }

    /// Starts or stops the idle timer of a link, if its path was cut or has healed.
    pub(super) fn note_cut(&mut self, id: u64) {
        let due = self.now + self.idle_timeout;
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let is_cut = self.cuts.cuts(link, 0) || self.cuts.cuts(link, 1);
        let was_cut = std::mem::replace(&mut link.is_cut, is_cut);
        if was_cut && !is_cut && !link.doomed {
            link.heals += 1;
        }
        let heals = link.heals;
        if is_cut && !was_cut {
            self.at(due, Timer::Idle { link: id, heals });
        }
    }

    /// What could not pass is sent again, if it now can.
    fn unstick(&mut self, from: EndId) {
        let Some(link) = self.links.get(&from.link) else {
            return;
        };
        if self.cuts.cuts(link, from.side) {
            return;
        }
        let pipes = link.ends[from.side].pipes.iter();
        let stuck: Vec<_> = pipes.filter(|(_, pipe)| pipe.stuck).collect();
        let stuck: Vec<_> = stuck.into_iter().map(|(id, _)| *id).collect();
        for id in stuck {
            let due = self.now + self.draw_delay();
            let pipe = self.end(from).and_then(|end| end.pipes.get_mut(&id));
            if let Some(pipe) = pipe {
                pipe.stuck = false;
                for (time, _) in &mut pipe.under_way {
                    *time = due.max(*time);
                }
                self.at(due, Timer::Arrive { from, pipe: id });
            }
        }
    }

    /// Nothing has passed for the idle timeout: both ends give up. A caller that has no answer yet
    /// waits for its own time limit.
    pub(super) fn idle(&mut self, id: u64, heals: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.heals == heals) else {
            return;
        };
        let reason = Arc::from("idle");
        let mut gave_up = false;
        for (side, end) in link.ends.iter_mut().enumerate() {
            let is_calling = side == 0 && link.answer.is_none();
            if end.life == Life::Open && !is_calling {
                end.close(&reason);
                end.pipes.clear();
                gave_up = true;
            }
        }
        if gave_up {
            self.doom(id);
            self.forget(id);
        }
    }

    /// One end of a link has gone without a word; the other one notices in time.
    pub(super) fn doom(&mut self, id: u64) {
        let due = self.now + self.idle_timeout;
        if let Some(link) = self.links.get_mut(&id) {
            link.doomed = true;
            let heals = link.heals;
            self.at(due, Timer::Idle { link: id, heals });
        }
    }
}
