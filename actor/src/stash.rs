//! Stash: messages that an actor puts aside for later, and the line of those that come back.
//!
//! A stash is a plain value in the actor. What is unstashed goes to a line in the actor's context,
//! from which the actor is served before its mailbox, one message a turn: nothing is handled inside
//! the call, so no number of messages makes a stack grow.
//!
//! Each message has a number, given when it is put aside for the first time. It keeps it when it is
//! handled and put aside again, and stash and line are sorted by it. So the order is that of the
//! first arrival, in whatever pieces and turns messages are stashed and unstashed.

use crate::actor::Actor;
use crate::context::Context;
use crate::dead_letters::{DeadLetterReason, DeadLetters};
use crate::failure::drop_guarded;
use crate::mailbox::BATCH;
use crate::path::ActorPath;
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;

/// A line that grew beyond this many messages gives its memory back when it is empty.
const KEPT_MESSAGES_MAX: usize = 64;

/// Messages put aside by one actor, at most as many as it was made for.
///
/// It belongs into the actor, and dies with it: after a restart the new instance begins with an
/// empty one. What is in a stash when it is dropped is counted as dead letters
/// ([`DeadLetterReason::LeftInStash`]). What was unstashed before is not in it any more: it waits in
/// line like the mailbox, over a restart as well.
///
/// ```
/// use otava_actor::{Actor, Context, Stash, StashFull};
/// use std::num::NonZeroUsize;
///
/// enum Msg {
///     Ready,
///     Work(u32),
/// }
///
/// struct Worker {
///     ready: bool,
///     early: Stash<Msg>,
/// }
///
/// impl Actor for Worker {
///     type Msg = Msg;
///     type Err = StashFull<Msg>;
///
///     async fn handle(&mut self, msg: Msg, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
///         match msg {
///             Msg::Ready => {
///                 self.ready = true;
///                 ctx.unstash_all(&mut self.early);
///             }
///             Msg::Work(_) if !self.ready => self.early.stash(msg, ctx)?,
///             Msg::Work(n) => println!("working at {n}"),
///         }
///         Ok(())
///     }
/// }
/// # let _ = Stash::<Msg>::new(NonZeroUsize::new(100).unwrap());
/// ```
pub struct Stash<M> {
    messages: VecDeque<Numbered<M>>,
    capacity: NonZeroUsize,
    /// Where what is left is counted: known as soon as there is something to count.
    home: Option<(DeadLetters, ActorPath)>,
}

type Numbered<M> = (u64, M);

impl<M: Send + 'static> Stash<M> {
    /// An empty stash for `capacity` messages.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            messages: VecDeque::new(),
            capacity,
            home: None,
        }
    }

    /// Puts `message` aside. A message that came back from a stash and is put aside while it is
    /// handled returns to its old place.
    ///
    /// # Errors
    /// [`StashFull`] with the message, if the stash holds as many as it may.
    pub fn stash<A>(&mut self, message: M, ctx: &mut Context<A>) -> Result<(), StashFull<M>>
    where
        A: Actor<Msg = M>,
    {
        if self.is_full() {
            let capacity = self.capacity;
            return Err(StashFull { message, capacity });
        }
        if self.home.is_none() {
            self.home = Some((ctx.dead_letters().clone(), ctx.path().clone()));
        }
        let number = ctx.returning().number();
        insert(&mut self.messages, (number, message));
        Ok(())
    }

    /// How many messages are in it.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether it holds as many messages as it may.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity.get()
    }

    /// How many messages it may hold.
    pub fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }

    /// Drops all messages, and counts them as dead letters.
    pub fn clear(&mut self) {
        discard(&mut self.messages, self.home.as_ref());
    }

    pub(crate) fn take(&mut self, most: usize) -> VecDeque<Numbered<M>> {
        if most >= self.messages.len() {
            return std::mem::take(&mut self.messages);
        }
        self.messages.drain(..most).collect()
    }
}

impl<M> Drop for Stash<M> {
    fn drop(&mut self) {
        discard(&mut self.messages, self.home.as_ref());
    }
}

impl<M> fmt::Debug for Stash<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stash")
            .field("len", &self.messages.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

fn discard<M>(messages: &mut VecDeque<Numbered<M>>, home: Option<&(DeadLetters, ActorPath)>) {
    for (_, message) in std::mem::take(messages) {
        if let Some((letters, path)) = home {
            let kind = std::any::type_name::<M>();
            letters.report(path, DeadLetterReason::LeftInStash, kind);
        }
        drop_guarded(message);
    }
}

/// A message that found no room in a [`Stash`].
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct StashFull<M> {
    message: M,
    capacity: NonZeroUsize,
}

impl<M> StashFull<M> {
    /// The message.
    pub fn into_message(self) -> M {
        self.message
    }
}

impl<M> fmt::Debug for StashFull<M> {
    /// Without the message: it need not be printable, and may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StashFull(..)")
    }
}

impl<M> fmt::Display for StashFull<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stash holds {} messages already", self.capacity)
    }
}

impl<M> std::error::Error for StashFull<M> {}

/// The line of messages that came back from stashes: handled before the mailbox.
pub(crate) struct Returning<M> {
    line: VecDeque<Numbered<M>>,
    /// The last number that was given.
    numbers: u64,
    /// How many were taken from the line since a timer could have gone before it.
    since_timers: u8,
    /// The number of the message in work, if it came from the line and was not put aside again.
    in_work: Option<u64>,
}

impl<M> Returning<M> {
    pub(crate) fn new() -> Self {
        Self {
            line: VecDeque::new(),
            numbers: 0,
            since_timers: BATCH,
            in_work: None,
        }
    }

    /// The number for a message that is put aside now.
    pub(crate) fn number(&mut self) -> u64 {
        self.in_work.take().unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers
        })
    }

    /// Lines up what a stash gave back. Almost always it is all before or all behind what is there.
    pub(crate) fn put_back(&mut self, mut back: VecDeque<Numbered<M>>) {
        let bounds = |line: &VecDeque<Numbered<M>>| Some((line.front()?.0, line.back()?.0));
        let (Some((first, last)), Some((back_first, back_last))) =
            (bounds(&self.line), bounds(&back))
        else {
            if self.line.is_empty() {
                self.line = back;
            }
            return;
        };
        if back_last < first {
            back.into_iter()
                .rev()
                .for_each(|message| self.line.push_front(message));
        } else if back_first > last {
            self.line.append(&mut back);
        } else {
            back.into_iter()
                .for_each(|message| insert(&mut self.line, message));
        }
    }

    /// The next step begins: whether the line has something for it.
    pub(crate) fn begin(&mut self) -> bool {
        self.in_work = None;
        !self.line.is_empty()
    }

    /// Whether timers that are due go before the next of the line: a long line holds them up no
    /// longer than a batch of the mailbox would.
    pub(crate) fn lets_timers_pass(&mut self) -> bool {
        let pass = self.since_timers >= BATCH;
        if pass {
            self.since_timers = 0;
        }
        pass
    }

    pub(crate) fn pop(&mut self) -> Option<M> {
        let (number, message) = self.line.pop_front()?;
        self.since_timers += 1;
        self.in_work = Some(number);
        if self.line.is_empty() && self.line.capacity() > KEPT_MESSAGES_MAX {
            self.line = VecDeque::new();
        }
        Some(message)
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = M> + use<M> {
        std::mem::take(&mut self.line)
            .into_iter()
            .map(|(_, message)| message)
    }
}

/// Puts `message` where its number belongs, which is nearly always the end.
fn insert<M>(sorted: &mut VecDeque<Numbered<M>>, message: Numbered<M>) {
    if sorted.back().is_none_or(|last| last.0 <= message.0) {
        sorted.push_back(message);
    } else {
        let place = sorted.partition_point(|other| other.0 <= message.0);
        sorted.insert(place, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line after `back` came to `line`, as numbers.
    fn merged(line: &[u64], back: &[u64]) -> Vec<u64> {
        let numbered = |numbers: &[u64]| numbers.iter().map(|&n| (n, ())).collect();
        let mut returning = Returning::new();
        returning.put_back(numbered(line));
        returning.put_back(numbered(back));
        returning.line.iter().map(|(n, ())| *n).collect()
    }

    #[test]
    fn the_line_is_sorted_by_first_arrival() {
        assert_eq!(merged(&[], &[]), []);
        assert_eq!(merged(&[], &[1, 2]), [1, 2]);
        assert_eq!(merged(&[1], &[]), [1]);
        assert_eq!(merged(&[3, 4], &[1, 2]), [1, 2, 3, 4]);
        assert_eq!(merged(&[1, 2], &[3, 4]), [1, 2, 3, 4]);
        assert_eq!(merged(&[1, 4, 6], &[2, 3, 7]), [1, 2, 3, 4, 6, 7]);
    }
}
