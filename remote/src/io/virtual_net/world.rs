//! World: end points, links, cuts and time. Everything that the virtual network decides.
//!
//! Nothing here waits or reads a clock: [`World::advance`] does what is due, in the order of time
//! and then of creation, and says when to call it again. The same calls at the same times therefore
//! have the same results, down to each random delay.
//!
//! Keep-alives are not sent one by one. A path that is cut, one way or both, for as long as the
//! idle timeout is a path on which they failed: both ends close with the reason `idle`. The same
//! happens to the peers of an end point that crashed.

use super::cuts::Cuts;
use super::link::{Answer, End, Life, Link, Parcel, PipeId, Sent};
use crate::identity::PeerIdentity;
use otava_actor::{Rng, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Calls that may wait to be accepted; beyond, nobody answers.
const BACKLOG_MAX: usize = 64;

/// A parcel is not lost more often than this, whatever the loss.
const LOST_MAX: u32 = 10;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) delay: Range<Duration>,
    pub(crate) loss: f64,
    /// How likely a packet is late, and by how long at the most.
    pub(crate) late: (f64, Duration),
    pub(crate) idle_timeout: Duration,
    pub(crate) links: BTreeMap<u64, Link>,
    rng: Rng,
    endpoints: BTreeMap<SocketAddr, Endpoint>,
    pub(super) cuts: Cuts,
    timers: BTreeMap<(Time, u64), Timer>,
    /// Number of the next link, run or timer.
    next: u64,
}

#[derive(Debug)]
struct Endpoint {
    identity: Arc<PeerIdentity>,
    run: u64,
    backlog: VecDeque<u64>,
    changed: Arc<Notify>,
}

/// One end of one link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndId {
    pub(crate) link: u64,
    pub(crate) side: usize,
}

impl EndId {
    pub(crate) fn other(self) -> Self {
        Self {
            link: self.link,
            side: 1 - self.side,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Arrive { from: EndId, pipe: PipeId },
    Idle { link: u64, heals: u64 },
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            delay: Duration::from_millis(1)..Duration::from_millis(2),
            loss: 0.0,
            late: (0.0, Duration::ZERO),
            idle_timeout: Duration::from_secs(2),
            links: BTreeMap::new(),
            rng: Rng::seeded(seed),
            endpoints: BTreeMap::new(),
            cuts: Cuts::default(),
            timers: BTreeMap::new(),
            next: 0,
        }
    }

    // --- time ---

    /// When the next thing is due.
    pub(crate) fn due(&self) -> Option<Time> {
        self.timers.keys().next().map(|(time, _)| *time)
    }

    /// Does everything that is due now.
    pub(crate) fn advance(&mut self) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            match entry.remove() {
                Timer::Arrive { from, pipe } => self.arrive(from, pipe),
                Timer::Idle { link, heals } => self.idle(link, heals),
            }
        }
    }

    pub(super) fn at(&mut self, time: Time, timer: Timer) {
        let number = self.number();
        self.timers.insert((time, number), timer);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn draw_delay(&mut self) -> Duration {
        let Range { start, end } = self.delay;
        let width = end.saturating_sub(start).as_nanos() as u64;
        let mut delay = start;
        if width > 0 {
            delay += Duration::from_nanos(self.rng.below(width));
        }
        let (probability, by) = self.late;
        if probability > 0.0 && self.rng.f64() < probability {
            delay += Duration::from_nanos(self.rng.below(by.as_nanos() as u64 + 1));
        }
        let again = 2 * end.max(start) + Duration::from_millis(10);
        for _ in 0..LOST_MAX {
            if self.loss <= 0.0 || self.rng.f64() >= self.loss {
                break;
            }
            delay += again;
        }
        delay
    }

    // --- parcels ---

    pub(crate) fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.links
            .get_mut(&id.link)
            .map(|link| &mut link.ends[id.side])
    }

    /// Sends something from an end; it arrives after a delay, behind what is in the same pipe.
    pub(crate) fn send(&mut self, from: EndId, (pipe_id, parcel): Sent) {
        let drawn = self.now + self.draw_delay();
        // A closed end says only that it is closed.
        let may_speak =
            |end: &&mut End| end.closed().is_none() || matches!(parcel, Parcel::Close(_));
        let Some(end) = self.end(from).filter(may_speak) else {
            return;
        };
        let pipe = end.pipes.entry(pipe_id).or_default();
        let due = match pipe.under_way.back() {
            Some((before, _)) => drawn.max(*before),
            None => drawn,
        };
        pipe.under_way.push_back((due, parcel));
        if pipe.under_way.len() == 1 {
            let pipe = pipe_id;
            self.at(due, Timer::Arrive { from, pipe });
        }
    }

    fn arrive(&mut self, from: EndId, pipe_id: PipeId) {
        let (now, is_cut) = (
            self.now,
            self.links
                .get(&from.link)
                .is_some_and(|link| self.cuts.cuts(link, from.side)),
        );
        let Some(end) = self.end(from) else { return };
        let Some(pipe) = end.pipes.get_mut(&pipe_id) else {
            return;
        };
        // A pipe that was emptied and used again has a later timer of its own.
        if pipe.under_way.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        if is_cut {
            pipe.stuck = true;
            return;
        }
        let first = pipe.under_way.pop_front();
        let next = pipe.under_way.front().map(|(due, _)| *due);
        match next {
            Some(due) => self.at(
                due,
                Timer::Arrive {
                    from,
                    pipe: pipe_id,
                },
            ),
            None => {
                end.pipes.remove(&pipe_id);
            }
        }
        if let Some((_, parcel)) = first {
            self.deliver(from.other(), pipe_id, parcel);
        }
    }

    fn deliver(&mut self, to: EndId, pipe: PipeId, parcel: Parcel) {
        match parcel {
            Parcel::Hello => return self.take_call(to),
            Parcel::Welcome => return self.answer(to, Answer::Welcome),
            Parcel::NobodyHere => return self.answer(to, Answer::NobodyHere),
            _ => {}
        }
        let Some(end) = self.end(to).filter(|end| end.life == Life::Open) else {
            return;
        };
        for answer in end.receive(pipe, parcel) {
            self.send(to, answer);
        }
    }

    // --- calls ---

    /// Begins a call; its answer appears in the link.
    pub(crate) fn call(&mut self, from: SocketAddr, run: u64, to: SocketAddr) -> Option<EndId> {
        let caller = self.endpoint(from, run)?.identity.clone();
        let link = self.number();
        let ends = [
            End::new(from, caller, run, Life::Open),
            End::new(to, Arc::new(PeerIdentity::member("")), 0, Life::Absent),
        ];
        self.links.insert(
            link,
            Link {
                ends,
                answer: None,
                is_cut: false,
                doomed: false,
                heals: 0,
            },
        );
        let end = EndId { link, side: 0 };
        self.send(end, (PipeId::Control, Parcel::Hello));
        self.note_cut(link);
        Some(end)
    }

    fn take_call(&mut self, to: EndId) {
        let Some(addr) = self.end(to).map(|end| end.addr) else {
            return;
        };
        let free = |endpoint: &&mut Endpoint| endpoint.backlog.len() < BACKLOG_MAX;
        let Some(endpoint) = self.endpoints.get_mut(&addr).filter(free) else {
            return self.send(to, (PipeId::Control, Parcel::NobodyHere));
        };
        endpoint.backlog.push_back(to.link);
        endpoint.changed.notify_waiters();
        let (identity, run) = (endpoint.identity.clone(), endpoint.run);
        if let Some(end) = self.end(to) {
            *end = End::new(addr, identity, run, Life::Open);
        }
        self.send(to, (PipeId::Control, Parcel::Welcome));
        self.doom_again(to.link);
    }

    fn answer(&mut self, to: EndId, answer: Answer) {
        if let Some(link) = self.links.get_mut(&to.link) {
            link.answer = Some(answer);
            link.ends[to.side].changed.notify_waiters();
        }
        self.doom_again(to.link);
    }

    /// An end that opens when its peer is gone already must end like all others.
    fn doom_again(&mut self, link: u64) {
        if self.links.get(&link).is_some_and(|link| link.doomed) {
            self.doom(link);
        }
    }

    // --- end points ---

    /// Listens at `addr`. What listened there before crashes.
    pub(crate) fn listen(
        &mut self,
        addr: SocketAddr,
        identity: Arc<PeerIdentity>,
    ) -> (u64, Arc<Notify>) {
        self.crash(addr);
        let run = self.number();
        let changed = Arc::default();
        let endpoint = Endpoint {
            identity,
            run,
            backlog: VecDeque::new(),
            changed: Arc::clone(&changed),
        };
        self.endpoints.insert(addr, endpoint);
        (run, changed)
    }

    fn endpoint(&mut self, addr: SocketAddr, run: u64) -> Option<&mut Endpoint> {
        self.endpoints
            .get_mut(&addr)
            .filter(|endpoint| endpoint.run == run)
    }

    /// The next call to accept, or `None` if the end point is gone.
    pub(crate) fn accept(&mut self, addr: SocketAddr, run: u64) -> Option<Option<EndId>> {
        let endpoint = self.endpoint(addr, run)?;
        let called = |link| EndId { link, side: 1 };
        Some(endpoint.backlog.pop_front().map(called))
    }

    /// Stops listening, and says good-bye to all peers.
    pub(crate) fn stop(&mut self, addr: SocketAddr, run: u64, reason: &str) {
        for id in self.remove_endpoint(addr, run) {
            self.close(id, reason);
        }
    }

    /// The end point at `addr` vanishes: it says nothing more, and hears nothing.
    pub(crate) fn crash(&mut self, addr: SocketAddr) {
        let Some(run) = self.endpoints.get(&addr).map(|endpoint| endpoint.run) else {
            return;
        };
        let reason = Arc::from("crashed");
        for id in self.remove_endpoint(addr, run) {
            if let Some(end) = self.end(id).filter(|end| end.life == Life::Open) {
                end.close(&reason);
                // What is under way arrives; what would have to be sent again does not.
                end.pipes.retain(|_, pipe| !pipe.stuck);
                self.doom(id.link);
            }
        }
    }

    /// Removes an end point; returns the ends that it has.
    fn remove_endpoint(&mut self, addr: SocketAddr, run: u64) -> Vec<EndId> {
        let Some(endpoint) = self.endpoint(addr, run) else {
            return Vec::new();
        };
        let unaccepted = std::mem::take(&mut endpoint.backlog);
        endpoint.changed.notify_waiters();
        self.endpoints.remove(&addr);
        for link in unaccepted {
            if let Some(end) = self.end(EndId { link, side: 1 }) {
                end.held = false;
            }
        }
        let ids = self
            .links
            .keys()
            .flat_map(|&link| [0, 1].map(|side| EndId { link, side }));
        let is_of_it = |id: &EndId| {
            let end = &self.links[&id.link].ends[id.side];
            end.addr == addr && end.run == run
        };
        ids.filter(is_of_it).collect()
    }

    // --- ends ---

    /// Closes an end, and tells the other one if the path allows.
    pub(crate) fn close(&mut self, id: EndId, reason: &str) {
        let Some(end) = self.end(id).filter(|end| end.life == Life::Open) else {
            return;
        };
        let reason: Arc<str> = Arc::from(reason);
        end.close(&reason);
        end.pipes.clear();
        self.send(id, (PipeId::Control, Parcel::Close(reason)));
        self.forget(id.link);
    }

    /// The last handle on an end is gone.
    pub(crate) fn release(&mut self, id: EndId) {
        self.close(id, "dropped");
        if let Some(end) = self.end(id) {
            end.held = false;
        }
        self.forget(id.link);
    }

    pub(super) fn forget(&mut self, link: u64) {
        let unheld = |link: &Link| link.ends.iter().all(|end| !end.held);
        // A call that is still under way finds the link, or nobody.
        if self.links.get(&link).is_some_and(unheld) {
            self.links.remove(&link);
        }
    }
}
