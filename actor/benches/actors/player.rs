//! Player: the actor that plays all parts of all workloads.

use otava_actor::{Actor, ActorRef, Context, ReplyTo, TellError};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

pub(crate) type Ref = ActorRef<Message>;

pub(crate) enum Message {
    Tick,
    /// So many are to be sent.
    Begin(u64),
    Ball,
    /// From the member of the crowd with this number.
    Ping(u32),
    Pong,
    /// Hops that are left.
    Token(u64),
    Next(Ref),
    Crowd(Arc<Vec<Ref>>),
    Ask(u64, ReplyTo<u64>),
}

/// Counts down and wakes one who waits for zero.
pub(crate) struct Countdown {
    left: AtomicU64,
    zero: Notify,
}

impl Countdown {
    pub(crate) fn new(from: u64) -> Arc<Self> {
        let (left, zero) = (AtomicU64::new(from), Notify::new());
        Arc::new(Self { left, zero })
    }

    pub(crate) fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.zero.notify_one();
        }
    }

    pub(crate) async fn zero(&self) {
        // A permit is kept for one who comes after the notification.
        while self.left.load(Ordering::Acquire) != 0 {
            self.zero.notified().await;
        }
    }
}

/// One type for all parts, so that state and messages are as large as the other libraries' are.
pub(crate) enum Player {
    Counter {
        left: u64,
        done: Arc<Countdown>,
    },
    Server {
        partner: Option<Ref>,
        rounds: u64,
        done: Arc<Countdown>,
    },
    Returner {
        partner: Option<Ref>,
    },
    Link {
        next: Option<Ref>,
        done: Arc<Countdown>,
    },
    /// Stops after its first message.
    Mayfly {
        done: Arc<Countdown>,
    },
    Idler {
        done: Arc<Countdown>,
    },
    Member {
        crowd: Option<Arc<Vec<Ref>>>,
        me: u32,
        random: u32,
        left: u32,
        done: Arc<Countdown>,
    },
    Producer {
        consumer: Ref,
    },
    Answerer,
}

impl Actor for Player {
    type Msg = Message;
    type Err = Infallible;

    async fn handle(&mut self, msg: Message, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        match (self, msg) {
            (Self::Counter { left, done }, Message::Tick) => {
                *left -= 1;
                if *left == 0 {
                    done.one_less();
                }
            }
            (Self::Answerer, Message::Ask(n, reply_to)) => drop(reply_to.send(n + 1)),
            (Self::Returner { partner }, Message::Ball) => pass(partner, Message::Ball),
            (
                Self::Server {
                    partner,
                    rounds,
                    done,
                },
                Message::Ball,
            ) => {
                *rounds -= 1;
                if *rounds == 0 {
                    done.one_less();
                } else {
                    pass(partner, Message::Ball);
                }
            }
            (Self::Link { next, .. }, Message::Token(left)) if left > 0 => {
                pass(next, Message::Token(left - 1));
            }
            (Self::Link { done, .. }, Message::Token(_))
            | (Self::Idler { done }, Message::Tick) => done.one_less(),
            (Self::Mayfly { done }, Message::Tick) => {
                done.one_less();
                ctx.stop_self();
            }
            (Self::Member { crowd, .. }, Message::Ping(from)) => {
                tell(&crowd.as_ref().unwrap()[from as usize], Message::Pong);
            }
            (player @ Self::Member { .. }, Message::Pong) => player.pong(),
            (player, setup) => player.begin(setup).await,
        }
        Ok(())
    }
}

impl Player {
    /// What comes once, before the work.
    async fn begin(&mut self, msg: Message) {
        match (self, msg) {
            (
                Self::Server { partner: to, .. }
                | Self::Returner { partner: to }
                | Self::Link { next: to, .. },
                Message::Next(next),
            ) => *to = Some(next),
            (Self::Member { crowd, .. }, Message::Crowd(all)) => *crowd = Some(all),
            (
                Self::Server {
                    partner, rounds, ..
                },
                Message::Begin(n),
            ) => {
                *rounds = n;
                pass(partner, Message::Ball);
            }
            (player @ Self::Member { .. }, Message::Begin(n)) => player.ping_first(n),
            (Self::Producer { consumer }, Message::Begin(n)) => {
                for _ in 0..n {
                    if let Err(refused) = consumer.tell(Message::Tick) {
                        wait(consumer, refused).await;
                    }
                }
            }
            _ => unreachable!("nobody sends that"),
        }
    }

    fn ping_first(&mut self, n: u64) {
        if let Self::Member { left, .. } = self {
            *left = n.try_into().unwrap();
        }
        self.ping_any();
    }

    fn pong(&mut self) {
        if let Self::Member { left, done, .. } = self {
            *left -= 1;
            if *left == 0 {
                done.one_less();
                return;
            }
        }
        self.ping_any();
    }

    fn ping_any(&mut self) {
        let Self::Member {
            crowd, me, random, ..
        } = self
        else {
            return;
        };
        // xorshift32: the choice must cost next to nothing.
        *random ^= *random << 13;
        *random ^= *random >> 17;
        *random ^= *random << 5;
        let crowd = crowd.as_ref().unwrap();
        tell(&crowd[*random as usize % crowd.len()], Message::Ping(*me));
    }
}

/// Waits for room if there is none.
pub(crate) async fn put(to: &Ref, message: Message) {
    if let Err(refused) = to.tell(message) {
        wait(to, refused).await;
    }
}

/// The mailbox has no room just now.
pub(crate) async fn wait(to: &Ref, refused: TellError<Message>) {
    match refused {
        TellError::Full(message) => to.send(message).await.unwrap(),
        refused => panic!("{refused:?}"),
    }
}

/// For those who have so few messages under way that no mailbox is ever full.
#[inline(always)]
fn tell(to: &Ref, message: Message) {
    if let Err(refused) = to.tell(message) {
        panic!("{refused:?}");
    }
}

#[inline(always)]
fn pass(to: &Option<Ref>, message: Message) {
    tell(to.as_ref().unwrap(), message);
}
