//! System: system messages to and from one peer: numbered, sent until they are acknowledged.

use super::{News, Peer, Relation};
use crate::core::Core;
use crate::logic::system_lane::Overflow;
use crate::rights::Permit;
use crate::wire_format::{Frame, SystemMessage};
use otava_actor::Time;
use std::sync::Arc;

impl Peer {
    /// Sends a system message: once, in order, as long as both runs live.
    pub(super) fn send_system(&self, core: &Core, message: SystemMessage) {
        let now = core.system.now();
        let said = self.say(core, &mut self.lock(), now, message);
        self.said(core, said);
    }

    /// Numbers a system message and queues it, under one lock, so that the frames are in the order
    /// of their numbers.
    pub(super) fn say(
        &self,
        core: &Core,
        relation: &mut Relation,
        now: Time,
        message: SystemMessage,
    ) -> Result<(), Overflow> {
        let seq = relation.out.push(now, message.clone())?;
        match relation.runs.present().filter(|_| relation.connected) {
            Some(run) => self.push_system(core, run, seq, message),
            None => self.wake_if_apart(),
        }
        Ok(())
    }

    /// To be called unlocked with what [`Peer::say`] returned.
    pub(super) fn said(&self, core: &Core, said: Result<(), Overflow>) {
        if let Err(Overflow) = said {
            self.give_up(core, "too many system messages wait for it");
        }
    }

    fn push_system(&self, core: &Core, run: u64, seq: u64, message: SystemMessage) {
        let frame = Frame::System { seq, message };
        core.push_frame(self, &self.control, Some(run), &frame);
    }

    /// Takes a system message from `run` of the peer; `false` if the peer breaks the protocol.
    pub(crate) fn take_system(
        self: &Arc<Self>,
        core: &Arc<Core>,
        run: u64,
        seq: u64,
        message: SystemMessage,
        permit: &Permit,
    ) -> bool {
        let (new, taken) = {
            let mut relation = self.lock();
            if relation.runs.present() != Some(run) {
                return true;
            }
            (relation.inbound.take(seq), relation.inbound.taken())
        };
        let handled = !new || self.handle_system(core, run, message, permit);
        let ack = Frame::SystemAck { seq: taken };
        core.push_frame(self, &self.control, Some(run), &ack);
        handled
    }

    fn handle_system(
        self: &Arc<Self>,
        core: &Arc<Core>,
        run: u64,
        message: SystemMessage,
        permit: &Permit,
    ) -> bool {
        match message {
            SystemMessage::Terminated { watch, reason } => {
                let mut news = News::default();
                self.lock()
                    .terminated(core, run, watch, reason.into(), &mut news);
                news.tell(core, self.addr);
                true
            }
            SystemMessage::Unwatch { watch } => {
                let watching = self.lock().watched.remove(watch);
                drop(watching);
                true
            }
            SystemMessage::Watch { watch, target } => {
                self.begin_watched(core, watch, &target, permit)
            }
        }
    }

    /// The peer has taken the system messages up to `seq`.
    pub(crate) fn take_ack(&self, now: Time, run: u64, seq: u64) {
        let mut relation = self.lock();
        if relation.runs.present() == Some(run) {
            relation.out.acknowledged(now, seq);
        }
    }

    /// Queues again what was not acknowledged.
    pub(super) fn resend(&self, core: &Core, relation: &mut Relation, now: Time) {
        let run = relation.runs.present().unwrap_or_default();
        for (seq, message) in relation.out.all(now) {
            self.push_system(core, run, seq, message);
        }
    }
}
