//! Link: one connection of the virtual network, its two ends and what is on its way between them.
//!
//! ```text
//!  end 0 (caller)                                   end 1 (called)
//!    outgoing lanes  --- pipe of each lane --->       incoming lanes
//!                    --- control pipe --------->
//!    incoming lanes  <-- the same, back --------      outgoing lanes
//! ```
//!
//! A pipe keeps its order, as a QUIC stream does: what is lost or held up on the way holds up what
//! follows in the same pipe, and nothing else. A link decides nothing about time; `world.rs` does.

use crate::identity::PeerIdentity;
use bytes::Bytes;
use otava_actor::Time;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Notify;

/// Bytes that may be under way or unread on one lane, and lanes that one end may have open.
pub(crate) const LANE_BYTES_MAX: usize = 1 << 20;
pub(crate) const LANES_MAX: usize = 16;

/// Read bytes are reported to the writer in lumps, as QUIC does.
const CREDIT_BYTES_MIN: usize = LANE_BYTES_MAX / 8;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum PipeId {
    Control,
    Lane(u64),
}

#[derive(Debug)]
pub(crate) enum Parcel {
    // In the control pipe:
    Hello,
    Welcome,
    NobodyHere,
    Close(Arc<str>),
    /// The reader of a lane is gone.
    Stop(u64),
    /// So many bytes of a lane were read.
    Credit(u64, usize),
    /// All of a lane has arrived.
    Done(u64),
    /// Nobody reads a lane any more: another one may be opened.
    Retired(u64),
    // In the pipe of a lane:
    Data(Bytes),
    Finish,
    Reset,
}

/// What an end sends, and in which pipe.
pub(crate) type Sent = (PipeId, Parcel);

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) under_way: VecDeque<(Time, Parcel)>,
    /// The first parcel was due while the path was cut. It waits for the path to heal.
    pub(crate) stuck: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Life {
    /// The called end before the call has arrived.
    Absent,
    Open,
    Closed(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) addr: SocketAddr,
    pub(crate) identity: Arc<PeerIdentity>,
    /// Which run of the end point at `addr` has this end.
    pub(crate) run: u64,
    pub(crate) life: Life,
    /// Somebody has a handle on this end, or will get it from `accept`.
    pub(crate) held: bool,
    pub(crate) pipes: BTreeMap<PipeId, Pipe>,
    pub(crate) changed: Arc<Notify>,
    incoming: BTreeMap<u64, Incoming>,
    outgoing: BTreeMap<u64, Outgoing>,
    opened: u64,
    /// Lanes of the other end that were seen, and that were taken by `accept_lane`.
    seen: u64,
    taken: u64,
}

#[derive(Debug, Default)]
struct Incoming {
    arrived: VecDeque<Bytes>,
    end: Option<LaneEnd>,
    uncredited: usize,
    reader_gone: bool,
    retired: bool,
    changed: Arc<Notify>,
}

#[derive(Clone, Copy, Debug)]
enum LaneEnd {
    Finished,
    Reset,
}

#[derive(Debug)]
struct Outgoing {
    credit: usize,
    stopped: bool,
    done: bool,
    changed: Arc<Notify>,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Welcome,
    NobodyHere,
}

/// What can be had at once, or must be waited for.
pub(crate) enum Now<T> {
    Ready(T),
    Wait,
}

impl End {
    pub(crate) fn new(addr: SocketAddr, identity: Arc<PeerIdentity>, run: u64, life: Life) -> Self {
        Self {
            addr,
            identity,
            run,
            held: life == Life::Open,
            life,
            pipes: BTreeMap::new(),
            changed: Arc::default(),
            incoming: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            opened: 0,
            seen: 0,
            taken: 0,
        }
    }

    /// Why this end is closed, if it is.
    pub(crate) fn closed(&self) -> Option<&Arc<str>> {
        match &self.life {
            Life::Closed(reason) => Some(reason),
            Life::Absent | Life::Open => None,
        }
    }

    fn check_open(&self) -> Result<(), Arc<str>> {
        self.closed().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Closes this end and wakes all that wait for something of it. The first reason counts.
    pub(crate) fn close(&mut self, reason: &Arc<str>) {
        if self.life == Life::Open {
            self.life = Life::Closed(reason.clone());
            self.changed.notify_waiters();
            for lane in self.incoming.values() {
                lane.changed.notify_waiters();
            }
            for lane in self.outgoing.values() {
                lane.changed.notify_waiters();
            }
        }
    }

    pub(crate) fn open_lane(&mut self) -> Result<Now<(u64, Arc<Notify>)>, Arc<str>> {
        self.check_open()?;
        if self.outgoing.len() >= LANES_MAX {
            return Ok(Now::Wait);
        }
        let lane = self.opened;
        self.opened += 1;
        let changed = Arc::default();
        let outgoing = Outgoing {
            credit: LANE_BYTES_MAX,
            stopped: false,
            done: false,
            changed: Arc::clone(&changed),
        };
        self.outgoing.insert(lane, outgoing);
        Ok(Now::Ready((lane, changed)))
    }

    pub(crate) fn accept_lane(&mut self) -> Result<Now<(u64, Arc<Notify>)>, Arc<str>> {
        if self.taken < self.seen {
            let lane = self.taken;
            self.taken += 1;
            let changed = self.incoming.entry(lane).or_default().changed.clone();
            return Ok(Now::Ready((lane, changed)));
        }
        self.check_open()?;
        Ok(Now::Wait)
    }

    /// Takes as much of `bytes` as the peer has room for.
    pub(crate) fn write(&mut self, lane: u64, bytes: &mut Bytes) -> Result<Now<Sent>, Arc<str>> {
        self.check_open()?;
        let Some(outgoing) = self.outgoing.get_mut(&lane).filter(|lane| !lane.stopped) else {
            return Err("the reader is gone".into());
        };
        let length = outgoing.credit.min(bytes.len());
        if length == 0 {
            return Ok(Now::Wait);
        }
        outgoing.credit -= length;
        let data = Parcel::Data(bytes.split_to(length));
        Ok(Now::Ready((PipeId::Lane(lane), data)))
    }

    /// Whether the peer has all of a finished lane, or there is nobody who could take it.
    pub(crate) fn is_done(&self, lane: u64) -> bool {
        self.closed().is_some()
            || self
                .outgoing
                .get(&lane)
                .is_none_or(|outgoing| outgoing.done || outgoing.stopped)
    }

    /// The next bytes of a lane, and what to tell the writer.
    pub(crate) fn read(&mut self, lane: u64, max: usize) -> Result<Now<Read>, Arc<str>> {
        let closed = self.closed().cloned();
        let Some(incoming) = self.incoming.get_mut(&lane) else {
            return Err("the lane is gone".into());
        };
        let Some(mut bytes) = incoming.arrived.pop_front() else {
            return match (incoming.end, closed) {
                (Some(LaneEnd::Finished), _) => Ok(Now::Ready((None, incoming.retire(lane)))),
                (Some(LaneEnd::Reset), _) => Err("the writer is gone".into()),
                (None, Some(reason)) => Err(reason),
                (None, None) => Ok(Now::Wait),
            };
        };
        if bytes.len() > max {
            incoming.arrived.push_front(bytes.split_off(max));
        }
        incoming.uncredited += bytes.len();
        let credit = (incoming.uncredited >= CREDIT_BYTES_MIN).then(|| {
            let credit = Parcel::Credit(lane, std::mem::take(&mut incoming.uncredited));
            (PipeId::Control, credit)
        });
        Ok(Now::Ready((Some(bytes), credit)))
    }

    /// The reader of a lane was dropped.
    pub(crate) fn drop_reader(&mut self, lane: u64) -> Option<Sent> {
        let incoming = self.incoming.get_mut(&lane)?;
        if incoming.end.is_some() {
            let retired = incoming.retire(lane);
            self.incoming.remove(&lane);
            return retired;
        }
        incoming.reader_gone = true;
        incoming.arrived.clear();
        Some((PipeId::Control, Parcel::Stop(lane)))
    }

    /// Takes in what has arrived at this end, and says what this end answers by itself.
    pub(crate) fn receive(&mut self, pipe: PipeId, parcel: Parcel) -> Vec<Sent> {
        match pipe {
            PipeId::Lane(lane) => self.receive_on_lane(lane, parcel),
            PipeId::Control => {
                self.receive_control(parcel);
                Vec::new()
            }
        }
    }

    fn receive_control(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Close(reason) => {
                self.close(&reason);
                self.pipes.clear();
            }
            Parcel::Stop(lane) => self.on_outgoing(lane, |outgoing| outgoing.stopped = true),
            Parcel::Credit(lane, bytes) => {
                self.on_outgoing(lane, |outgoing| outgoing.credit += bytes);
            }
            Parcel::Done(lane) => self.on_outgoing(lane, |outgoing| outgoing.done = true),
            Parcel::Retired(lane) => {
                self.on_outgoing(lane, |outgoing| outgoing.done = true);
                self.outgoing.remove(&lane);
                self.changed.notify_waiters();
            }
            // Calls are the business of the world; data come in other pipes.
            Parcel::Hello
            | Parcel::Welcome
            | Parcel::NobodyHere
            | Parcel::Data(_)
            | Parcel::Finish
            | Parcel::Reset => {}
        }
    }

    fn on_outgoing(&mut self, lane: u64, change: impl FnOnce(&mut Outgoing)) {
        if let Some(outgoing) = self.outgoing.get_mut(&lane) {
            change(outgoing);
            outgoing.changed.notify_waiters();
        }
    }

    fn receive_on_lane(&mut self, lane: u64, parcel: Parcel) -> Vec<Sent> {
        // As in QUIC, a lane that is seen shows that those before it were opened, too.
        while self.seen <= lane {
            self.incoming.entry(self.seen).or_default();
            self.seen += 1;
            self.changed.notify_waiters();
        }
        let Some(incoming) = self.incoming.get_mut(&lane) else {
            return Vec::new();
        };
        incoming.changed.notify_waiters();
        incoming.end = match parcel {
            Parcel::Data(bytes) => {
                if !incoming.reader_gone {
                    incoming.arrived.push_back(bytes);
                }
                return Vec::new();
            }
            Parcel::Finish => Some(LaneEnd::Finished),
            _ => {
                incoming.arrived.clear();
                Some(LaneEnd::Reset)
            }
        };
        let mut answers = vec![(PipeId::Control, Parcel::Done(lane))];
        if incoming.reader_gone {
            answers.extend(incoming.retire(lane));
            self.incoming.remove(&lane);
        }
        answers
    }
}

/// Bytes, or none at the end of the lane; and what to tell the writer.
pub(crate) type Read = (Option<Bytes>, Option<Sent>);

impl Incoming {
    fn retire(&mut self, lane: u64) -> Option<Sent> {
        let first = !std::mem::replace(&mut self.retired, true);
        first.then_some((PipeId::Control, Parcel::Retired(lane)))
    }
}

/// Both ends, the caller first.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    pub(crate) answer: Option<Answer>,
    /// The path was cut, one way or both, when it was looked at last.
    pub(crate) is_cut: bool,
    /// One end has gone without a word: healing the path does not save the other one.
    pub(crate) doomed: bool,
    /// Counts how often the path has healed; the idle timers of an older cut mean nothing.
    pub(crate) heals: u64,
}
