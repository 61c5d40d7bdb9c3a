//! Proves: a mailbox does what a plain model of it does, over a million random operations.

use super::{Consumer, Free, Left, Look, Mailbox, Order, Phase, Rank, Taken, Wake};
use crate::error::TellError;
use crate::observe::mark::Extra;
use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// All kinds of mailboxes together.
const OPERATIONS: u64 = 1_200_000;
/// A mailbox is used for so long, then the next one.
const OPERATIONS_EACH: u64 = 2_000;

/// A message knows its number; all that were made are dropped once. Some are large.
#[derive(Debug)]
struct Message<const ROOM: usize>(u64, Arc<AtomicU64>, [u64; ROOM]);

impl<const ROOM: usize> Drop for Message<ROOM> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Fifo,
    DropOldest,
    Priority,
}

fn rank(number: u64) -> i64 {
    (number % 3) as i64
}

/// What a mailbox is said to do.
struct Model {
    kind: Kind,
    capacity: usize,
    /// Numbers, with expiries.
    waiting: VecDeque<(u64, u64)>,
    /// News, and behind how many of the messages each stands.
    news: VecDeque<(u64, u64)>,
    pushed: u64,
    closed: bool,
    stopped: bool,
    /// Where the token lies: `None` with the test, else whether the actor idles.
    parked: Option<bool>,
    notified: bool,
}

#[derive(Debug, PartialEq)]
enum Pushed {
    Kept(Option<u64>),
    Full,
    Stopped,
}

impl Model {
    fn push(&mut self, number: u64, expires: u64) -> Pushed {
        if self.closed {
            return Pushed::Stopped;
        }
        let full = self.waiting.len() >= self.capacity;
        if full && self.kind != Kind::DropOldest {
            return Pushed::Full;
        }
        let dropped = if full { self.waiting.pop_front() } else { None };
        self.waiting.push_back((number, expires));
        self.pushed += 1;
        Pushed::Kept(dropped.map(|(number, _)| number))
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        match self.kind {
            Kind::Fifo | Kind::DropOldest => self.waiting.pop_front(),
            Kind::Priority => {
                let first = (0..self.waiting.len())
                    .min_by_key(|&at| (Reverse(rank(self.waiting[at].0)), at))?;
                self.waiting.remove(first)
            }
        }
    }

    /// The number of what is taken next, and its expiry.
    fn take(&mut self) -> Option<(u64, u64)> {
        let taken = self.pushed - self.waiting.len() as u64;
        let drained = self.waiting.is_empty();
        let due = |&(_, behind): &(u64, u64)| behind <= taken || drained;
        if self.news.front().is_some_and(due) {
            return self.news.pop_front().map(|(number, _)| (number, 0));
        }
        self.pop()
    }

    /// Whether there is a reason to run an idle actor.
    fn wakes(&mut self) -> bool {
        if self.parked == Some(true) {
            self.parked = None;
            return true;
        }
        false
    }

    /// The same for what is no message in the queue: while the token is away it leaves a notice.
    fn wakes_by_news(&mut self) -> bool {
        self.notified |= self.parked.is_none();
        self.wakes()
    }
}

struct Pair<const ROOM: usize> {
    mailbox: Mailbox<Message<ROOM>, (), (), ()>,
    consumer: Consumer,
    model: Model,
    alive: Arc<AtomicU64>,
    next: u64,
    /// A sender that waits for room.
    sender: Option<(Option<Message<ROOM>>, Option<u64>)>,
    woken: Arc<Flag>,
}

/// Whether the sender in line was woken since it looked.
#[derive(Default)]
struct Flag(AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl<const ROOM: usize> Pair<ROOM> {
    fn new(rng: &mut Rng) -> Self {
        let kind =
            [Kind::Fifo, Kind::Fifo, Kind::DropOldest, Kind::Priority][rng.below(4) as usize];
        let capacity = [1, 2, 3, 14, 15, 16, 17, 31, 64][rng.below(9) as usize];
        let order = match kind {
            Kind::Fifo => None,
            Kind::DropOldest => Some(Order::drop_oldest(capacity)),
            Kind::Priority => {
                let ranks: Rank<Message<ROOM>> =
                    Arc::new(|message: &Message<ROOM>| rank(message.0));
                Some(Order::priority(ranks, capacity))
            }
        };
        let (mailbox, consumer) = Mailbox::new(capacity as u32, order.map(Box::new), (), ());
        let model = Model {
            kind,
            capacity,
            waiting: VecDeque::new(),
            news: VecDeque::new(),
            pushed: 0,
            closed: false,
            stopped: false,
            parked: None,
            notified: false,
        };
        Self {
            mailbox,
            consumer,
            model,
            alive: Arc::default(),
            next: 0,
            sender: None,
            woken: Arc::default(),
        }
    }

    fn message(&mut self) -> Message<ROOM> {
        self.next += 1;
        self.alive.fetch_add(1, Relaxed);
        Message(self.next, self.alive.clone(), [0; ROOM])
    }

    fn pushed(
        &mut self,
        pushed: Result<Wake, TellError<Message<ROOM>>>,
        dropped: Option<u64>,
        expected: &Pushed,
    ) {
        match pushed {
            Ok(Wake(wake)) => {
                assert_eq!(Pushed::Kept(dropped), *expected);
                let expected = match self.model.kind {
                    Kind::Fifo => self.model.wakes(),
                    Kind::DropOldest | Kind::Priority => self.model.wakes_by_news(),
                };
                assert_eq!(wake, expected);
            }
            Err(TellError::Full(_)) => assert_eq!(Pushed::Full, *expected),
            Err(TellError::Stopped(_)) => assert_eq!(Pushed::Stopped, *expected),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn push(&mut self, expires: u64) {
        let message = self.message();
        let expected = self.model.push(message.0, expires);
        let extra = match expires {
            0 => Extra::None,
            at => Extra::Expires(at),
        };
        let mut dropped = None;
        let pushed = self
            .mailbox
            .push(message, extra, |oldest| dropped = Some(oldest.0));
        self.pushed(pushed, dropped, &expected);
    }

    fn push_news(&mut self) {
        let message = self.message();
        let (number, behind) = (message.0, self.model.pushed);
        match self.mailbox.push_free(Free::Message(message, Extra::None)) {
            Ok(Wake(wake)) => {
                assert!(!self.model.closed);
                self.model.news.push_back((number, behind));
                assert_eq!(wake, self.model.wakes_by_news());
            }
            Err(_) => assert!(self.model.closed),
        }
    }

    /// A sender that stands in line looks, or a new one comes.
    fn send(&mut self) {
        let (mut message, mut place) = match self.sender.take() {
            Some(waiting) => waiting,
            None => (Some(self.message()), None),
        };
        let number = message.as_ref().expect("it was just made, or waits").0;
        let expected = self.model.push(number, 0);
        self.woken.0.store(false, Relaxed);
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let dropped = std::cell::Cell::new(None);
        let given_up = |oldest: Message<ROOM>| dropped.set(Some(oldest.0));
        let polled =
            self.mailbox
                .poll_push(&mut message, || Extra::None, &mut place, &mut cx, given_up);
        match polled {
            Poll::Ready(pushed) => self.pushed(pushed, dropped.get(), &expected),
            Poll::Pending => {
                assert_eq!(expected, Pushed::Full);
                self.model.notified |= self.model.parked.is_none();
                self.sender = Some((message, place));
            }
        }
    }

    fn leave(&mut self) {
        if let Some((_, Some(place))) = self.sender.take() {
            self.mailbox.leave_line(place);
        }
    }

    /// One step of the consumer, if the token is here.
    fn take(&mut self) {
        if self.model.parked.is_some() {
            return;
        }
        // The fast way first, as an actor does.
        let looked = match self.mailbox.look(&self.consumer) {
            Look::Message(seen) => Some((seen, 0)),
            Look::Expires(seen, at) => Some((seen, at)),
            Look::Nothing | Look::Other => None,
        };
        if let Some((seen, expires)) = looked {
            assert!(!self.model.stopped);
            // SAFETY: seen just now.
            #[allow(unsafe_code, reason = "the queue is under test")]
            let message = unsafe { self.mailbox.take_seen(&mut self.consumer, seen) };
            assert_eq!(self.model.take(), Some((message.0, expires)));
            return;
        }
        match self.mailbox.take(&mut self.consumer) {
            Taken::Message(message, extra) => {
                let expires = match extra {
                    Extra::None => 0,
                    Extra::Expires(at) => at,
                    Extra::Marked(_) => panic!("nobody marked it"),
                };
                assert!(!self.model.stopped);
                assert_eq!(self.model.take(), Some((message.0, expires)));
            }
            Taken::Free(Free::Message(message, _)) => {
                assert_eq!(self.model.take(), Some((message.0, 0)));
            }
            Taken::Free(Free::Ended(_)) => panic!("nobody sent that"),
            Taken::Nothing => {
                assert_eq!(self.model.take(), None);
                assert!(!self.model.closed);
                self.park_idle();
            }
            Taken::Soon => panic!("nobody else is here"),
            Taken::Stop => {
                assert!(self.model.closed);
                assert!(self.model.stopped || self.model.take().is_none());
            }
        }
    }

    fn park_idle(&mut self) {
        // As an actor does.
        // SAFETY: the model says that the token is here.
        #[allow(unsafe_code, reason = "the token is under test")]
        let parked = unsafe {
            match self.mailbox.has_no_signals() {
                true => self.mailbox.park_unseen(),
                false => self.mailbox.park_idle(),
            }
        };
        assert_eq!(parked, !self.model.notified);
        self.model.notified = false;
        self.model.parked = parked.then_some(true);
        if parked {
            self.check_sender();
        }
    }

    fn park_pending(&mut self) {
        if self.model.parked.is_some() {
            return;
        }
        assert_eq!(self.mailbox.park(), !self.model.notified);
        self.check_sender();
        self.model.parked = (!self.model.notified).then_some(false);
        self.model.notified = false;
    }

    /// The consumer has ended its turn: a sender for whom there is room was woken.
    fn check_sender(&self) {
        let room = self.model.waiting.len() < self.model.capacity || self.model.closed;
        if self.sender.is_some() && room {
            assert!(self.woken.0.load(Relaxed), "there is room, and it waits");
        }
    }

    fn notify(&mut self) {
        let Wake(wake) = self.mailbox.notify();
        assert_eq!(wake, self.model.parked.is_some());
        self.model.notified |= !wake;
        self.model.parked = None;
    }

    fn close(&mut self, phase: Phase) {
        let Wake(wake) = self.mailbox.request(phase);
        self.model.closed = true;
        self.model.stopped |= phase == Phase::Stopping;
        assert_eq!(wake, self.model.parked.is_some());
        self.model.notified |= !wake;
        self.model.parked = None;
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.below(1_000) {
            0..330 => self.push(0),
            330..370 => self.push(7),
            370..420 => self.push_news(),
            420..520 => self.send(),
            520..540 => self.leave(),
            540..920 => self.take(),
            920..950 => self.park_pending(),
            950..998 => self.notify(),
            998 => self.close(Phase::Draining),
            _ => self.close(Phase::Stopping),
        }
        assert_eq!(self.mailbox.len(), self.model.waiting.len());
        assert_eq!(self.mailbox.is_open(), !self.model.closed);
    }

    /// All that is left comes out, and every message was dropped once.
    fn end(mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            let expected = self.model.waiting.len() + self.model.news.len();
            let mut left = 0;
            let Wake(_) = self.mailbox.request(Phase::Stopping);
            while let Some(Left(_)) = self.mailbox.take_left(&mut self.consumer) {
                left += 1;
            }
            assert_eq!(left, expected);
        }
        self.sender = None;
        drop(self.mailbox);
        assert_eq!(
            self.alive.load(Relaxed),
            0,
            "a message was lost or dropped twice"
        );
    }
}

#[test]
fn a_mailbox_does_what_the_model_says() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(20_261_125);
    // Shown when the test fails; `SEED=n cargo test` tries another one.
    #[allow(clippy::print_stdout, reason = "a random test prints its seed")]
    {
        println!("seed={seed}");
    }
    let mut rng = Rng::seeded(seed);
    let mut done = 0;
    while done < OPERATIONS {
        // Messages that fit into the place that is the queue's own, and larger ones.
        done += compare::<0>(&mut rng);
        done += compare::<2>(&mut rng);
    }
}

/// The operations of one mailbox; how many they were.
fn compare<const ROOM: usize>(rng: &mut Rng) -> u64 {
    let mut pair = Pair::<ROOM>::new(rng);
    let mut done = 0;
    while done < OPERATIONS_EACH {
        pair.step(rng);
        done += 1;
        if pair.model.closed && rng.below(64) == 0 {
            break;
        }
    }
    pair.end(rng);
    done
}
