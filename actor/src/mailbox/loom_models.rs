//! Proves: the queue, the token, the side lane and the senders' line hold in every interleaving.
//!
//! Whoever is told to wake the actor runs it, on its own thread. What the actor consists of lies in a
//! cell that loom watches: two threads with the token at once, or a token passed on without an order
//! between the two, fail the model. A lost wake-up shows as a message that nobody has handled when
//! all threads are done. Laps have four indices here, so blocks change after three messages.

use super::{Consumer, Free, Mailbox, Phase, Signals, Taken, Wake};
use crate::error::TellError;
use crate::models::{Wakings, bounded, exhaustive};
use crate::observe::mark::Extra;
use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicU64, UnsafeCell};
use loom::sync::Arc;
use loom::thread;
use std::task::{Context, Poll, Waker};

struct Hands {
    consumer: Consumer,
    handled: Vec<u32>,
    stopped: bool,
}

/// An actor whose handlers never wait.
struct ModelOf<M> {
    mailbox: Mailbox<M, (), (), ()>,
    hands: UnsafeCell<Hands>,
}

type Model = ModelOf<u32>;

/// A message that does not fit into the place that is the queue's own.
struct Large(
    u32,
    #[allow(dead_code, reason = "it only takes room")] [u64; 4],
);

impl From<u32> for Large {
    fn from(n: u32) -> Self {
        Self(n, [0; 4])
    }
}

impl From<Large> for u32 {
    fn from(Large(n, _): Large) -> Self {
        n
    }
}

// SAFETY: the token says who touches the hands; that this is so is what the models check.
#[allow(unsafe_code, reason = "the token is under test")]
unsafe impl<M> Sync for ModelOf<M> {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the token is under test")]
unsafe impl<M> Send for ModelOf<M> {}

impl<M: From<u32> + Into<u32>> ModelOf<M> {
    /// The token is with the caller.
    fn new(capacity: u32) -> Arc<Self> {
        let (mailbox, consumer) = Mailbox::new(capacity, None, (), ());
        let hands = Hands {
            consumer,
            handled: Vec::new(),
            stopped: false,
        };
        Arc::new(Self {
            mailbox,
            hands: UnsafeCell::new(hands),
        })
    }

    fn hands<R>(&self, body: impl FnOnce(&mut Hands) -> R) -> R {
        // SAFETY: as for `Sync`.
        #[allow(unsafe_code, reason = "the token is under test")]
        self.hands.with_mut(|hands| body(unsafe { &mut *hands }))
    }

    /// Handles what there is, and parks. For the holder of the token.
    fn run(&self) {
        loop {
            let stop = self.hands(|hands| {
                let mut tries = 0;
                loop {
                    match self.mailbox.take(&mut hands.consumer) {
                        Taken::Message(n, _) | Taken::Free(Free::Message(n, _)) => {
                            hands.handled.push(n.into());
                        }
                        Taken::Free(Free::Ended(_)) => {}
                        Taken::Soon => crate::sync::spin(&mut tries),
                        Taken::Nothing => return false,
                        Taken::Stop => {
                            hands.stopped = true;
                            return true;
                        }
                    }
                }
            });
            if stop {
                return;
            }
            // As an actor does.
            // SAFETY: the caller has the token.
            #[allow(unsafe_code, reason = "the token is under test")]
            let parked = unsafe {
                match self.mailbox.has_no_signals() {
                    true => self.mailbox.park_unseen(),
                    false => self.mailbox.park_idle(),
                }
            };
            if parked {
                return;
            }
        }
    }

    fn run_if(&self, Wake(needed): Wake) {
        if needed {
            self.run();
        }
    }

    /// Tells, and runs the actor if that is due. `false`: refused as full.
    fn tell(&self, n: u32) -> Result<(), TellError<u32>> {
        let pushed = self.mailbox.push(n.into(), Extra::None, drop);
        let wake = pushed.map_err(|refused| refused.map(Into::into))?;
        self.run_if(wake);
        Ok(())
    }

    /// What was handled, when all threads are done.
    fn handled(&self) -> Vec<u32> {
        self.hands(|hands| hands.handled.clone())
    }
}

fn spawn<M: 'static>(
    model: &Arc<ModelOf<M>>,
    body: impl FnOnce(&ModelOf<M>) + 'static,
) -> thread::JoinHandle<()> {
    let model = model.clone();
    thread::spawn(move || body(&model))
}

fn assert_all(mut handled: Vec<u32>, expected: impl IntoIterator<Item = u32>) {
    handled.sort_unstable();
    assert!(
        handled.iter().copied().eq(expected),
        "each once, but {handled:?}"
    );
}

/// The first message meets the actor that parks: the one who pushes, or the one who parks, sees it.
#[test]
fn loom_a_push_and_parking_see_each_other() {
    exhaustive(|| {
        let model = Model::new(8);
        let producer = spawn(&model, |model| model.tell(1).unwrap());
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1]);
    });
}

/// The same with a block that parking frees while the producer comes with the next message.
#[test]
fn loom_parking_frees_a_block_that_nobody_uses() {
    exhaustive(|| {
        let model = Model::new(8);
        model.tell(1).unwrap();
        model.tell(2).unwrap();
        let producer = spawn(&model, |model| {
            model.tell(3).unwrap();
            model.tell(4).unwrap();
        });
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1, 2, 3, 4]);
    });
}

/// The first message lies in the queue's own place, and a block is begun beside the consumer.
#[test]
fn loom_a_block_behind_the_own_place_is_begun_beside_the_consumer() {
    bounded(3, || {
        let model = Model::new(8);
        let producer = spawn(&model, |model| {
            model.tell(1).unwrap();
            model.tell(2).unwrap();
        });
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1, 2]);
    });
}

/// The same where the first message needs a block already.
#[test]
fn loom_a_push_of_a_large_message_and_parking_see_each_other() {
    exhaustive(|| {
        let model = ModelOf::<Large>::new(8);
        let producer = spawn(&model, |model| model.tell(1).unwrap());
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1]);
    });
}

/// The queue's own place is used again and again, each time by another thread.
#[test]
fn loom_the_own_place_is_used_again() {
    exhaustive(|| {
        let model = Model::new(8);
        model.run();
        model.tell(1).unwrap();
        let producer = spawn(&model, |model| model.tell(2).unwrap());
        model.tell(3).unwrap();
        producer.join().unwrap();
        assert_all(model.handled(), 1..=3);
    });
}

/// Two producers race for the last place of a block and the first of the next one.
#[test]
fn loom_two_producers_change_blocks() {
    exhaustive(|| {
        let model = Model::new(8);
        model.tell(1).unwrap();
        model.tell(2).unwrap();
        let producers = [3, 4].map(|n| spawn(&model, move |model| model.tell(n).unwrap()));
        for producer in producers {
            producer.join().unwrap();
        }
        model.run();
        assert_all(model.handled(), 1..=4);
    });
}

/// Two producers and the consumer beside them, over a change of blocks; each producer's order holds.
#[test]
fn loom_two_producers_beside_the_consumer() {
    bounded(1, || {
        let model = Model::new(8);
        model.tell(1).unwrap();
        let producers = [10, 20].map(|n| {
            spawn(&model, move |model| {
                model.tell(n).unwrap();
                model.tell(n + 1).unwrap();
            })
        });
        model.run();
        for producer in producers {
            producer.join().unwrap();
        }
        let handled = model.handled();
        for first in [10, 20] {
            let place = |n| handled.iter().position(|&m| m == n);
            assert!(place(first) < place(first + 1), "{handled:?}");
        }
        assert_all(handled, [1, 10, 11, 20, 21]);
    });
}

/// Two producers find an idle actor: one of them wakes it, and only one.
#[test]
fn loom_one_of_two_wakes_an_idle_actor() {
    bounded(4, || {
        let model = Model::new(8);
        model.run();
        let producers = [1, 2].map(|n| spawn(&model, move |model| model.tell(n).unwrap()));
        for producer in producers {
            producer.join().unwrap();
        }
        assert_all(model.handled(), 1..=2);
    });
}

/// While blocks are changed, places that stay free count for nobody: a mailbox that has room says so.
#[test]
fn loom_nothing_is_refused_while_there_is_room() {
    exhaustive(|| {
        // The first message brings a block, and the second comes meanwhile.
        let model = Model::new(2);
        let producer = spawn(&model, |model| model.tell(1).unwrap());
        model.tell(2).unwrap();
        producer.join().unwrap();
        model.run();
        assert_all(model.handled(), 1..=2);
    });
    exhaustive(|| {
        // The actor has begun the only message and parks.
        let model = Model::new(1);
        model.tell(1).unwrap();
        model.hands(|hands| match model.mailbox.take(&mut hands.consumer) {
            Taken::Message(n, _) => hands.handled.push(n),
            _ => panic!("it was told before"),
        });
        let producer = spawn(&model, |model| model.tell(2).unwrap());
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1, 2]);
    });
}

/// Nor does a mailbox say that more wait than do.
#[test]
fn loom_the_length_is_never_above_the_truth() {
    exhaustive(|| {
        let model = Model::new(8);
        let producer = spawn(&model, |model| model.tell(1).unwrap());
        assert!(model.mailbox.len() <= 1);
        producer.join().unwrap();
        let reader = spawn(&model, |model| assert!(model.mailbox.len() <= 1));
        model.run();
        reader.join().unwrap();
        assert_eq!(model.handled(), [1]);
    });
}

/// The bound is exact: of three that race for two places, with nobody taking, one is refused.
#[test]
fn loom_the_bound_is_exact() {
    exhaustive(|| {
        let model = Model::new(2);
        let producer = spawn(&model, |model| {
            let refused = u32::from(model.tell(1).is_err()) + u32::from(model.tell(2).is_err());
            // Out of the way of the messages.
            model.mailbox.flag(Signals::CHILD_FAILED * refused as u8);
            assert!(refused <= 1);
        });
        let refused = model.tell(3).is_err();
        producer.join().unwrap();
        let other = model.mailbox.signals() & Signals::CHILD_FAILED != 0;
        model.mailbox.clear(Signals::CHILD_FAILED);
        assert!(refused != other, "one of them, and one only");
        model.run();
        assert_eq!(model.handled().len(), 2);
    });
}

/// What is told while the actor closes is handled or refused, and the actor learns of the end.
#[test]
fn loom_closing_accepts_or_refuses() {
    bounded(2, || {
        let model = Model::new(8);
        let told = Arc::new(AtomicU64::new(0));
        let told_there = told.clone();
        let producer = spawn(&model, move |model| {
            if model.tell(1).is_ok() {
                told_there.store(1, Release);
            }
        });
        let closer = spawn(&model, |model| {
            let wake = model.mailbox.request(Phase::Draining);
            model.run_if(wake);
        });
        model.run();
        producer.join().unwrap();
        closer.join().unwrap();
        let told = told.load(Acquire) == 1;
        assert_eq!(model.handled().len() == 1, told);
        assert!(model.hands(|hands| hands.stopped));
    });
}

/// The same for two alone: in every interleaving.
#[test]
fn loom_a_push_and_closing_agree() {
    exhaustive(|| {
        let model = Model::new(8);
        let closer = spawn(&model, |model| {
            let wake = model.mailbox.request(Phase::Draining);
            model.run_if(wake);
        });
        let told = model.mailbox.push(1, Extra::None, drop).is_ok();
        model.run();
        closer.join().unwrap();
        assert_eq!(model.handled().len() == 1, told);
        assert!(model.hands(|hands| hands.stopped));
    });
}

/// A notice for a pending handler meets its parking: either keeps the token with somebody.
#[test]
fn loom_a_notice_for_a_pending_handler_is_not_lost() {
    exhaustive(|| {
        let model = Model::new(8);
        let seen = Arc::new(AtomicU64::new(0));
        let news = seen.clone();
        let waker = spawn(&model, move |model| {
            news.store(1, Release);
            if model.mailbox.notify() == Wake(true) {
                // The handler is polled here.
                model.hands(|hands| hands.handled.push(1));
            }
        });
        // It is polled, and what it waits for may come now.
        let done = model.hands(|hands| match seen.load(Acquire) {
            1 => true,
            _ => {
                hands.stopped = false;
                false
            }
        });
        if !done && !model.mailbox.park() {
            model.hands(|hands| hands.handled.push(1));
            assert_eq!(seen.load(Acquire), 1, "the notice came after the news");
        } else if done {
            model.hands(|hands| hands.handled.push(1));
        }
        waker.join().unwrap();
        // The lost one would be here: nothing was polled after the news.
        assert_eq!(model.handled(), [1]);
    });
}

/// A message is no reason to run an actor whose handler is pending, and waits for it.
#[test]
fn loom_a_message_waits_for_a_pending_handler() {
    exhaustive(|| {
        let model = Model::new(8);
        let producer = spawn(&model, |model| {
            let wake = model.mailbox.push(1, Extra::None, drop).unwrap();
            assert_eq!(wake, Wake(false));
        });
        assert!(model.mailbox.park());
        producer.join().unwrap();
        assert_eq!(model.mailbox.notify(), Wake(true));
        model.run();
        assert_eq!(model.handled(), [1]);
    });
}

/// News beside the queue meets parking, and comes behind what was told before it.
#[test]
fn loom_news_is_not_lost_and_keeps_its_place() {
    bounded(2, || {
        let model = Model::new(8);
        let producer = spawn(&model, |model| {
            model.tell(1).unwrap();
            let wake = model.mailbox.push_free(Free::Message(2, Extra::None));
            model.run_if(wake.ok().expect("it is open"));
        });
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1, 2]);
    });
}

#[test]
fn loom_news_and_parking_see_each_other() {
    exhaustive(|| {
        let model = Model::new(8);
        let producer = spawn(&model, |model| {
            let wake = model.mailbox.push_free(Free::Message(1, Extra::None));
            model.run_if(wake.ok().expect("it is open"));
        });
        model.run();
        producer.join().unwrap();
        assert_eq!(model.handled(), [1]);
    });
}

/// A stop meets parking.
#[test]
fn loom_a_stop_reaches_an_actor_that_parks() {
    exhaustive(|| {
        let model = Model::new(8);
        let closer = spawn(&model, |model| {
            let wake = model.mailbox.request(Phase::Stopping);
            model.run_if(wake);
        });
        model.run();
        closer.join().unwrap();
        assert!(model.hands(|hands| hands.stopped));
    });
}

/// A sender that waits for room.
struct Sender {
    message: Option<u32>,
    place: Option<u64>,
    wakings: Wakings,
    waker: Waker,
}

impl Sender {
    fn new(n: u32) -> Self {
        let wakings = Wakings::default();
        Self {
            message: Some(n),
            place: None,
            waker: wakings.waker(),
            wakings,
        }
    }

    /// One look. `true`: it has sent, and the actor was run if that was due.
    fn poll(&mut self, model: &Model) -> bool {
        let Self { message, place, .. } = self;
        let mut cx = Context::from_waker(&self.waker);
        match model
            .mailbox
            .poll_push(message, || Extra::None, place, &mut cx, drop)
        {
            Poll::Ready(Ok(wake)) => {
                model.run_if(wake);
                true
            }
            Poll::Ready(Err(_)) => panic!("nobody closes"),
            Poll::Pending => false,
        }
    }
}

/// Looks again at what was woken until all is sent.
fn settle(model: &Model, mut senders: Vec<Sender>) {
    while !senders.is_empty() {
        let before = senders.len();
        let mut looked = false;
        senders.retain_mut(|sender| {
            let woken = sender.wakings.take();
            looked |= woken;
            !(woken && sender.poll(model))
        });
        assert!(looked, "{before} wait for room, and nobody was woken");
    }
}

/// Room is made while a sender gets in line: it sees the room, or the consumer sees the sender.
#[test]
fn loom_a_sender_in_line_does_not_miss_the_room() {
    bounded(2, || {
        let model = Model::new(1);
        model.tell(1).unwrap();
        let left = Arc::new(loom::sync::Mutex::new(Vec::new()));
        let waiting = left.clone();
        let sender = spawn(&model, move |model| {
            let mut sender = Sender::new(2);
            if !sender.poll(model) {
                waiting.lock().unwrap().push(sender);
            }
        });
        model.run();
        sender.join().unwrap();
        let senders = std::mem::take(&mut *left.lock().unwrap());
        settle(&model, senders);
        assert_eq!(model.handled(), [1, 2]);
    });
}

/// Two senders for one place: whoever is woken and finds it taken, or goes away, blocks nobody.
#[test]
fn loom_a_sender_that_goes_away_passes_the_room_on() {
    bounded(3, || {
        let model = Model::new(1);
        model.tell(1).unwrap();
        let [mut gone, mut stays] = [Sender::new(2), Sender::new(3)];
        assert!(!gone.poll(&model) && !stays.poll(&model));
        let leaver = spawn(&model, move |model| {
            model.mailbox.leave_line(gone.place.expect("it waits"));
        });
        model.run();
        leaver.join().unwrap();
        settle(&model, vec![stays]);
        assert_eq!(model.handled(), [1, 3]);
    });
}

/// A stop answers a sender that is just getting in line.
#[test]
fn loom_a_stop_answers_a_sender_in_line() {
    exhaustive(|| {
        let model = Model::new(1);
        model.tell(1).unwrap();
        let closer = spawn(&model, |model| {
            let wake = model.mailbox.request(Phase::Stopping);
            model.run_if(wake);
        });
        let mut sender = Sender::new(2);
        let look = |sender: &mut Sender| {
            let Sender { message, place, .. } = sender;
            let mut cx = Context::from_waker(&sender.waker);
            match model
                .mailbox
                .poll_push(message, || Extra::None, place, &mut cx, drop)
            {
                Poll::Ready(Err(TellError::Stopped(2))) => true,
                Poll::Pending => false,
                _ => panic!("there was no room"),
            }
        };
        let answered = look(&mut sender);
        closer.join().unwrap();
        assert!(answered || sender.wakings.take() && look(&mut sender));
    });
}
