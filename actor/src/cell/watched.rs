//! Watched: who is told of the end of an actor, and what an actor is told of others' ends.

use super::ended;
use crate::actor_ref::Target;
use crate::mailbox::Free;
use crate::watch::{Terminated, WatchSink, Watchable, Watcher, WatcherId};
use std::sync::Arc;

impl<M: Send + 'static> Target<M> {
    /// From now on the end of each child is told to this actor.
    pub(crate) fn watch_children(&self) {
        let cell = self.cell();
        cell.mailbox.kin_or_new(|kin| kin.watches_children = true);
    }
}

impl<M: Send + 'static> WatchSink for Target<M> {
    fn ended(self: Arc<Self>, number: u64, news: Terminated) {
        let entry = Free::Ended(Box::new((number, news)));
        if let Ok(wake) = self.cell().mailbox.push_free(entry) {
            self.wake_if(wake);
        }
    }
}

impl<M: Send + 'static> Watchable for Target<M> {
    fn add_watcher(&self, watcher: Watcher) {
        let cell = match self {
            Self::Local(cell) => cell,
            Self::Remote(remote) => return remote.watch(watcher),
            Self::Adapted(adapted) => return adapted.actor().watchable().add_watcher(watcher),
        };
        let refused = cell.mailbox.kin_or_new(|kin| {
            if let Some(reason) = ended(cell.settled_fate()) {
                return Some((watcher, reason));
            }
            let id = watcher.id();
            if kin.watchers.iter().all(|known| known.id() != id) {
                kin.watchers.push(watcher);
            }
            None
        });
        let Some((watcher, reason)) = refused else {
            return;
        };
        watcher.notify(Terminated::new(cell.path().clone(), cell.uid(), reason));
    }

    fn remove_watcher(&self, id: WatcherId) {
        let cell = match self {
            Self::Local(cell) => cell,
            Self::Remote(remote) => return remote.unwatch(id),
            Self::Adapted(adapted) => return adapted.actor().watchable().remove_watcher(id),
        };
        let watcher = cell.mailbox.kin(|kin| {
            let watchers = &mut kin?.watchers;
            let place = watchers.iter().position(|known| known.id() == id)?;
            Some(watchers.remove(place))
        });
        drop(watcher);
    }
}
