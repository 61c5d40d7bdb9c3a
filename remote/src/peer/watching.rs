//! Watching: the watches between this node and one peer, and when the peer is told of an end.

use super::Peer;
use crate::core::Core;
use crate::outbox::Outbox;
use crate::remote_ref::Address;
use crate::rights::Permit;
use crate::wire_format::{Frame, SystemMessage, Target};
use otava_actor::{ActorPath, Ended, Terminated, Watcher, WatcherId};
use std::sync::Arc;

/// The end of an actor that a peer watches: told when every lane is flushed, so that the news comes
/// after everything that the actor sent.
pub(super) struct PendingEnd {
    pub(super) message: SystemMessage,
    lanes_left: usize,
}

impl Peer {
    /// Registers a watcher of an actor of the peer.
    pub(crate) fn watch(
        &self,
        core: &Core,
        address: &Address,
        target: &Target,
        path: &ActorPath,
        uid: u64,
        watcher: Watcher,
    ) {
        let now = core.system.now();
        let said = {
            let mut relation = self.lock();
            let run = address.incarnation();
            if run.is_some_and(|run| relation.runs.is_over(run)) {
                drop(relation);
                return watcher.notify(Terminated::new(path.clone(), uid, Ended::NodeLost));
            }
            if relation.watches.is_empty() && !relation.connected {
                // The time in which nobody wanted anything of the node does not count.
                relation.apart_since = now;
            }
            let number = relation.watches.add(address, target, path, uid, watcher);
            let present = relation.runs.present();
            let watch = number.and_then(|number| Some((number, relation.watches.get(number)?)));
            let Some(message) = watch.map(|(number, watch)| watch.message(number, present)) else {
                return;
            };
            self.say(core, &mut relation, now, message)
        };
        self.said(core, said);
    }

    /// Takes a registration back.
    pub(crate) fn unwatch(&self, core: &Core, address: &Address, target: &Target, id: WatcherId) {
        let taken = self.lock().watches.take_back(address, target, id);
        if let Some((watch, _)) = taken {
            self.send_system(core, SystemMessage::Unwatch { watch });
        }
    }

    pub(super) fn begin_watched(
        self: &Arc<Self>,
        core: &Arc<Core>,
        watch: u64,
        target: &Target,
        permit: &Permit,
    ) -> bool {
        let found = core.exports.find(target);
        let (found, forbidden) = match found {
            Some(exported) if !permit.allows(exported.protocol()) => (None, true),
            found => (found, false),
        };
        if forbidden {
            core.counters.not_permitted.add(1);
        }
        let Some(exported) = found else {
            let reason = Ended::Unknown.into();
            self.send_system(core, SystemMessage::Terminated { watch, reason });
            return true;
        };
        {
            let mut relation = self.lock();
            let Ok(before) = relation.watched.begin(watch, target) else {
                return false;
            };
            drop(relation);
            // Unlocked: it takes a callback back.
            drop(before);
        }
        let (peer, for_callback) = (Arc::downgrade(self), Arc::downgrade(core));
        // Unlocked: an actor that has ended calls back at once.
        let watching = exported.on_terminated(Box::new(move |news| {
            let (Some(peer), Some(core)) = (peer.upgrade(), for_callback.upgrade()) else {
                return;
            };
            let watching = peer.lock().watched.remove(watch);
            if watching.is_some() {
                peer.send_end(&core, watch, news.reason);
            }
            // It is the callback that runs: its registration is gone already.
            if let Some(Some(watching)) = watching {
                watching.detach();
            }
        }));
        // Unlocked too, what is not kept.
        let over = self.lock().watched.began(watch, watching);
        drop(over);
        true
    }

    /// Tells the peer of an end, behind everything that was sent to it so far.
    fn send_end(&self, core: &Core, watch: u64, reason: Ended) {
        let reason = reason.into();
        let message = SystemMessage::Terminated { watch, reason };
        let lanes: Vec<&Outbox> = self.used_lanes().collect();
        let flush = {
            let mut relation = self.lock();
            let run = relation.runs.present().filter(|_| relation.connected);
            run.map(|run| {
                relation.next_end += 1;
                let end = PendingEnd {
                    message: message.clone(),
                    lanes_left: lanes.len(),
                };
                let token = relation.next_end;
                relation.ends.insert(token, end);
                (token, run)
            })
        };
        let Some((token, run)) = flush else {
            return self.send_system(core, message);
        };
        for lane in lanes {
            if !core.push_frame(self, lane, Some(run), &Frame::Flush { token }) {
                self.take_flushed(core, token);
            }
        }
    }

    /// The peer has read one lane up to this mark.
    pub(crate) fn take_flushed(&self, core: &Core, token: u64) {
        let end = {
            let mut relation = self.lock();
            let Some(end) = relation.ends.get_mut(&token) else {
                return;
            };
            end.lanes_left = end.lanes_left.saturating_sub(1);
            if end.lanes_left > 0 {
                return;
            }
            relation.ends.remove(&token)
        };
        if let Some(end) = end {
            self.send_system(core, end.message);
        }
    }
}
