//! Watching: the actors that an actor watches or is linked to, and what their end does to it.
//!
//! There is one registration with each of them, whatever is wanted from it, so there is one piece of
//! news from each, in its place behind what the dead actor sent.

use super::{Context, Extras, Step};
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::adapter::Reached;
use crate::effects::Effect;
use crate::failure::{Failure, drop_guarded};
use crate::path::ActorPath;
use crate::watch::{Ended, Terminated, WatchSink, Watchable, Watcher};
use std::collections::BTreeMap;
use std::sync::Arc;

impl<A: Actor> Context<A> {
    /// Watches `actor`: [`Actor::terminated`] is called exactly once when it has ended, after
    /// everything that it sent to this actor; soon, if it has ended already. Watching twice is
    /// watching once. An actor that watches itself hears nothing: it is gone by then.
    pub fn watch<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        self.note(|| Effect::Watched(actor.path().clone()));
        self.relate(actor, |relation| relation.want(Wanted::Hook));
    }

    /// From now on [`Actor::terminated`] is called for the end of each child, once and after everything
    /// that it sent to this actor, as if each were watched: for actors with very many children, since
    /// it costs nothing for each of them. Until this instance ends; a child that is watched as well is
    /// told of twice.
    pub fn watch_children(&mut self) {
        self.extras().takes_all_news = true;
        self.me.target().watch_children();
    }

    /// Watches `actor` as [`Context::watch`] does, and gets `message` instead of a call of
    /// [`Actor::terminated`]: once, and in the same place. Watching again, in this way or that,
    /// replaces what is wanted; the message that was to come is dropped.
    pub fn watch_with<N: Send + 'static>(&mut self, actor: &ActorRef<N>, message: A::Msg) {
        self.note(|| Effect::Watched(actor.path().clone()));
        self.relate(actor, |relation| relation.want(Wanted::Message(message)));
    }

    /// Stops watching `actor`. From now on neither [`Actor::terminated`] is called nor a message
    /// comes for it, also if the news was already on its way. A link stays.
    pub fn unwatch<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        self.note(|| Effect::Unwatched(actor.path().clone()));
        self.unrelate(actor, |relation| relation.want(Wanted::Nothing));
    }

    /// Lets this actor fail when `actor` ends in any other way than by a stop: when it failed, when
    /// its node is lost, or when nobody knows how it ended. This comes behind what it sent to this
    /// actor; soon, if it has ended already. The failure is one like any other, and is supervised.
    ///
    /// A link holds for this instance and in this direction ([`Context::link_both`] for the other
    /// one as well); a restarted actor has to link again in [`Actor::started`].
    pub fn link<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        self.relate(actor, |relation| relation.is_linked = true);
    }

    /// Links this actor with `actor` as [`Context::link`] does, and `actor` with this one: neither
    /// outlives a failure that ends the other. `actor` is not asked and need not do anything. The link
    /// that is laid on it holds over its restarts; both end with this instance and with
    /// [`Context::unlink`]. On an actor of another node no link is laid: there this is
    /// [`Context::link`].
    pub fn link_both<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        let sink = Reached::sink(actor);
        if let Some(sink) = sink.clone() {
            let watcher = Watcher::new(LINK_OF_OTHER, sink);
            self.me.target().add_watcher(watcher);
        }
        self.relate(actor, |relation| {
            relation.is_linked = true;
            relation.back = sink;
        });
    }

    /// Takes back the links that this actor made with `actor`, also if the news was already on its
    /// way here. A watch stays.
    pub fn unlink<N: Send + 'static>(&mut self, actor: &ActorRef<N>) {
        let mut back = None;
        self.unrelate(actor, |relation| {
            relation.is_linked = false;
            back = relation.back.take();
        });
        self.lift_link(back);
    }

    /// Takes back the link that was laid on another actor.
    fn lift_link(&self, laid_on: Option<Arc<dyn WatchSink>>) {
        if let Some(sink) = laid_on {
            let id = Watcher::new(LINK_OF_OTHER, sink).id();
            self.me.target().remove_watcher(id);
        }
    }

    fn relate<N: Send + 'static>(
        &mut self,
        actor: &ActorRef<N>,
        change: impl FnOnce(&mut Relation<A::Msg>),
    ) {
        let number = self.cell().core().next_number();
        let key = (actor.uid(), actor.path().clone());
        let watched = &mut self.extras().watched;
        if let Some(relation) = watched.by_target.get_mut(&key) {
            return change(relation);
        }
        let mut relation = Relation {
            number,
            target: actor.watchable(),
            wanted: Wanted::Nothing,
            is_linked: false,
            back: None,
        };
        change(&mut relation);
        watched.by_number.insert(number, key.clone());
        watched.by_target.insert(key, relation);
        actor
            .watchable()
            .add_watcher(Watcher::new(number, self.me.target().clone()));
    }

    fn unrelate<N: Send + 'static>(
        &mut self,
        actor: &ActorRef<N>,
        change: impl FnOnce(&mut Relation<A::Msg>),
    ) {
        let key = (actor.uid(), actor.path().clone());
        let Some(extras) = self.rare() else {
            return;
        };
        let Some(relation) = extras.watched.by_target.get_mut(&key) else {
            return;
        };
        change(relation);
        if relation.is_of_use() {
            return;
        }
        let (number, target) = (relation.number, relation.target.clone());
        extras.watched.remove(number);
        target.remove_watcher(Watcher::new(number, self.me.target().clone()).id());
    }

    /// Takes back the links that were laid on others: before a restart, and not before the end, of
    /// which the others shall hear.
    pub(super) fn lift_links(&mut self) {
        let Some(extras) = self.rare() else {
            return;
        };
        let relations = extras.watched.by_target.values_mut();
        let laid: Vec<_> = relations.map(|relation| relation.back.take()).collect();
        laid.into_iter().for_each(|sink| self.lift_link(sink));
    }

    /// Takes all registrations back that this actor has with others.
    pub(super) fn forget_watches(&mut self) {
        let Some(extras) = self.rare() else {
            return;
        };
        let watched = std::mem::take(&mut extras.watched);
        for relation in watched.by_target.into_values() {
            let watcher = Watcher::new(relation.number, self.me.target().clone());
            relation.target.remove_watcher(watcher.id());
            drop_guarded(relation.wanted);
        }
    }
}

/// What the end of an actor, under the registration of this number, means here to `me`.
pub(super) fn take_news<M: Send + 'static>(
    extras: Option<&mut Extras<M>>,
    news: Box<(u64, Terminated)>,
    me: &ActorRef<M>,
) -> Option<Step<M>> {
    let number = news.0;
    if number == LINK_OF_OTHER {
        return (news.1.reason != Ended::Stopped).then(|| fall_with(&news.1));
    }
    let extras = extras?;
    let Some(relation) = extras.watched.of(number) else {
        return extras.takes_all_news.then(|| Step::Terminated(news.1));
    };
    if let Some(sink) = relation.back.take() {
        // It has ended, and nobody need tell it anything any more.
        let id = Watcher::new(LINK_OF_OTHER, sink).id();
        me.target().remove_watcher(id);
    }
    if std::mem::take(&mut relation.is_linked) && news.1.reason != Ended::Stopped {
        let failed = fall_with(&news.1);
        if relation.is_of_use() {
            // An actor that goes on in spite of the failure is told as well.
            me.target().cell().mailbox.return_news(news);
        } else {
            extras.watched.remove(number);
        }
        return Some(failed);
    }
    match extras.watched.remove(number)?.wanted {
        Wanted::Hook => Some(Step::Terminated(news.1)),
        Wanted::Message(message) => Some(Step::Message(message, None)),
        Wanted::Nothing => None,
    }
}

/// The failure that the end of a linked actor is.
fn fall_with<M>(news: &Terminated) -> Step<M> {
    Step::Failed(Failure::Linked {
        path: news.path.clone(),
        reason: news.reason,
    })
}

/// The number of a registration that another actor made for this one. Those that an actor makes
/// itself begin at 1.
const LINK_OF_OTHER: u64 = 0;

type Key = (u64, ActorPath);

/// The actors that one watches, by registration and by target.
pub(super) struct Watched<M> {
    by_number: BTreeMap<u64, Key>,
    by_target: BTreeMap<Key, Relation<M>>,
}

struct Relation<M> {
    /// Of the registration.
    number: u64,
    target: Arc<dyn Watchable>,
    wanted: Wanted<M>,
    is_linked: bool,
    /// The other actor, if it is linked with this one.
    back: Option<Arc<dyn WatchSink>>,
}

/// What an actor gets when one that it watches ends.
enum Wanted<M> {
    Nothing,
    Hook,
    Message(M),
}

impl<M> Relation<M> {
    fn want(&mut self, wanted: Wanted<M>) {
        drop_guarded(std::mem::replace(&mut self.wanted, wanted));
    }

    fn is_of_use(&self) -> bool {
        self.is_linked || !matches!(self.wanted, Wanted::Nothing)
    }
}

impl<M> Default for Watched<M> {
    fn default() -> Self {
        Self {
            by_number: BTreeMap::new(),
            by_target: BTreeMap::new(),
        }
    }
}

impl<M> Watched<M> {
    /// The relation of the registration `number`, unless it was taken back.
    fn of(&mut self, number: u64) -> Option<&mut Relation<M>> {
        let key = self.by_number.get(&number)?;
        self.by_target.get_mut(key)
    }

    fn remove(&mut self, number: u64) -> Option<Relation<M>> {
        let key = self.by_number.remove(&number)?;
        self.by_target.remove(&key)
    }
}
