//! Effect: what a command leads to: events, letters, replies, side effects, the end.

use crate::event_sourced::EventSourced;
use crate::event_sourced::letter::{Delivery, Letter, Receiving, Sending, open_letter};
use crate::id::PersistenceId;
use crate::sequel::Sequel;
use otava_actor::ReplyTo;
use std::fmt;

/// What [`EventSourced::handle`] decided, to be carried out by its actor, in this order: the events
/// and letters become durable, the state takes the events in, the replies go out, the side effects
/// run, the actor stops if it should.
///
/// If the events cannot be made durable nothing else happens: who asked sees
/// [`otava_actor::AskError::NoReply`] at once.
#[must_use = "an effect does nothing unless `handle` returns it"]
pub struct Effect<E: EventSourced> {
    pub(super) events: Vec<E::Event>,
    pub(super) letters: Vec<Sending>,
    pub(super) receiving: Option<Receiving<E>>,
    pub(super) confirm: bool,
    pub(super) delete: bool,
    pub(super) sequel: Sequel<E>,
}

impl<E: EventSourced> Effect<E> {
    /// No event.
    pub fn none() -> Self {
        Self::persist_all(Vec::new())
    }

    /// One event.
    pub fn persist(event: E::Event) -> Self {
        Self::persist_all(vec![event])
    }

    /// Several events, in order: all of them become durable, or none. No event is fine.
    pub fn persist_all(events: Vec<E::Event>) -> Self {
        Self {
            events,
            letters: Vec::new(),
            receiving: None,
            confirm: false,
            delete: false,
            sequel: Sequel::default(),
        }
    }

    /// Replies a value.
    ///
    /// # Delivery
    /// At most once, after the events are durable. No reply does not mean that they are not: the
    /// node may end between the two. So commands should be such that a repeated one does no harm.
    pub fn reply<R: Send + 'static>(self, reply_to: ReplyTo<R>, value: R) -> Self {
        self.reply_with(reply_to, |_| value)
    }

    /// Replies what `answer` makes of the state that holds the events. Write its argument's type,
    /// `|state: &Self| ..`, where the compiler asks for it.
    ///
    /// # Delivery
    /// As [`Self::reply`].
    pub fn reply_with<R: Send + 'static>(
        mut self,
        reply_to: ReplyTo<R>,
        answer: impl FnOnce(&E) -> R + Send + 'static,
    ) -> Self {
        self.sequel.reply(reply_to, answer);
        self
    }

    /// Runs a side effect, after all replies: a message to another actor, a metric. It must not
    /// block.
    ///
    /// # Delivery
    /// At most once: not when the node ends before, and not at recovery.
    pub fn then(mut self, effect: impl FnOnce(&E) + Send + 'static) -> Self {
        self.sequel.side_effect(effect);
        self
    }

    /// Sends a letter to the entity `to` of the kind that takes such letters. It is written in the same
    /// append as the events, and delivered from then on until the target has taken it, also after any
    /// end of this actor, its node, or the target's. Letters to one target are taken in the order in
    /// which they were sent.
    ///
    /// # Delivery
    /// At least once, and the target takes it once: its effects are exactly once. When it arrives is not
    /// said. The actor needs a way to the target ([`crate::EventSourcedBuilder::courier`]); without
    /// one the command fails, and nothing is persisted.
    pub fn send<L: Letter>(mut self, to: &str, letter: L) -> Self {
        self.letters.push(Sending::new(to, &letter));
        self
    }

    /// Takes a letter that arrived, if it was not taken before. `take` makes an effect of it, from the
    /// state, the sender and the letter; its events, its own letters, and the record that this one was
    /// taken are one append. What is chained to the result happens after it, and for a letter that
    /// was taken before nothing happens: the sender is told so.
    ///
    /// A letter that was refused, since its type is not known here, changes nothing either. The sender
    /// comes again with it.
    ///
    /// # Examples
    /// ```
    /// # use otava_persistence::{Delivery, Effect, EventSourced, Letter};
    /// # #[derive(Default)] struct Account { balance: u64 }
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Credit { cents: u64 }
    /// # impl Letter for Credit {
    /// #     const KIND: &'static str = "account";
    /// #     const NAME: &'static str = "bank.Credit";
    /// #     const VERSION: u16 = 1;
    /// # }
    /// # #[derive(serde::Serialize, serde::Deserialize)] enum Event { Paid(u64), Credited(u64) }
    /// enum Command {
    ///     Pay { to: String, cents: u64 },
    ///     Arrived(Delivery),
    /// }
    ///
    /// # impl EventSourced for Account {
    /// # type Command = Command;
    /// # type Event = Event;
    /// # type Snapshot = ();
    /// # const EVENT_NAME: &'static str = "bank.Event";
    /// # const EVENT_VERSION: u16 = 1;
    /// # fn apply(&mut self, _: &Event) {}
    /// fn handle(&self, command: Command) -> Effect<Self> {
    ///     match command {
    ///         Command::Pay { to, cents } if cents <= self.balance => {
    ///             Effect::persist(Event::Paid(cents)).send(&to, Credit { cents })
    ///         }
    ///         Command::Pay { .. } => Effect::none(),
    ///         Command::Arrived(delivery) => Effect::receive(delivery, |_, _from, Credit { cents }| {
    ///             Effect::persist(Event::Credited(cents))
    ///         }),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn receive<L: Letter>(
        delivery: impl Into<Delivery>,
        take: impl FnOnce(&E, &PersistenceId, L) -> Self + Send + 'static,
    ) -> Self {
        let receiving = Receiving {
            delivery: delivery.into(),
            take: Box::new(move |state, from, parcel| Ok(take(state, from, open_letter(parcel)?))),
        };
        Self {
            receiving: Some(receiving),
            ..Self::none()
        }
    }

    /// Deletes the entity after the events and letters of this effect: a last record says so, then all
    /// its events before that and all its snapshots are removed. The state is empty again, and so
    /// it is after each start; replies see the empty state. Its sequence numbers go on, its letters are
    /// still delivered, and letters that it took before are not taken again.
    ///
    /// The actor lives on; add [`Self::stop`] to end it too.
    pub fn delete(mut self) -> Self {
        self.delete = true;
        self
    }

    /// Asks the journal, also when there is no event, whether this actor may still write, before
    /// the replies go out. So an answer is never read from the state of an owner that was replaced
    /// while its process was paused. It costs a look at the journal, no durable write.
    pub fn confirm(mut self) -> Self {
        self.confirm = true;
        self
    }

    /// Stops the actor in the end. Commands that wait in its mailbox go to the dead letters.
    pub fn stop(mut self) -> Self {
        self.sequel.stop();
        self
    }
}

impl<E: EventSourced> Effect<E> {
    /// Both effects as one, in this order. A letter within a letter is not received: its sender gets no
    /// answer, and comes again.
    pub(super) fn followed_by(mut self, other: Self) -> Self {
        self.events.extend(other.events);
        self.letters.extend(other.letters);
        self.sequel.extend(other.sequel);
        self.confirm |= other.confirm;
        self.delete |= other.delete;
        self
    }
}

impl<E: EventSourced> fmt::Debug for Effect<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect")
            .field("events", &self.events.len())
            .field("letters", &self.letters.len())
            .field("receives", &self.receiving.is_some())
            .field("confirm", &self.confirm)
            .field("delete", &self.delete)
            .field("sequel", &self.sequel)
            .finish()
    }
}
