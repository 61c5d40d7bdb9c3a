//! Proves: L6, a stash is bounded, keeps order whatever is put aside and taken back when, and loses
//! nothing uncounted.

use crate::support::{Log, SOON, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, DeadLetterReason, Props, ReplyTo, Rng, Stash, StashFull,
    Supervision,
};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

const RESTART: Supervision = Supervision::Restart {
    limit: 3,
    within: SOON,
};

/// Puts numbers aside until it is opened.
struct Gate {
    log: Log,
    stash: Stash<Msg>,
    open: bool,
}

enum Msg {
    Number(u32),
    Open,
    Close,
    /// Takes back this many, and stays as it is.
    Some(usize),
    /// Puts itself aside as well, this many times.
    Again(u32),
    Fail,
    Hold(Duration),
    Sync(ReplyTo<(usize, bool)>),
}

impl Gate {
    fn props(log: &Log, capacity: usize) -> Props<Self> {
        let log = log.clone();
        let capacity = NonZeroUsize::new(capacity).unwrap();
        Props::new(move || Self {
            log: log.clone(),
            stash: Stash::new(capacity),
            open: false,
        })
    }
}

impl Actor for Gate {
    type Msg = Msg;
    type Err = String;

    async fn handle(&mut self, msg: Msg, ctx: &mut Context<Self>) -> Result<(), String> {
        match msg {
            Msg::Open => {
                self.open = true;
                self.log.add("open");
                ctx.unstash_all(&mut self.stash);
            }
            Msg::Close => {
                self.open = false;
                self.log.add("close");
            }
            Msg::Some(n) => {
                let back = ctx.unstash(&mut self.stash, n);
                self.log.add(format!("{back} back"));
            }
            Msg::Again(0) => self.log.add("again"),
            Msg::Again(n) => {
                let put = self.stash.stash(Msg::Again(n - 1), ctx);
                put.map_err(|full| full.to_string())?;
                ctx.unstash_all(&mut self.stash);
            }
            Msg::Fail if self.open => return Err("as told".into()),
            Msg::Sync(reply_to) => {
                let _ = reply_to.send((self.stash.len(), self.stash.is_full()));
            }
            Msg::Hold(time) => tokio::time::sleep(time).await,
            later if !self.open => {
                if let Err(full) = self.stash.stash(later, ctx) {
                    let text = full.to_string();
                    match full.into_message() {
                        Msg::Number(n) => self.log.add(format!("{n} refused: {text}")),
                        _ => self.log.add(text),
                    }
                }
            }
            Msg::Number(n) => {
                self.log.add(n.to_string());
                if n % 10 == 3 {
                    self.open = false;
                }
            }
            Msg::Fail => unreachable!("it fails when open and is put aside when not"),
        }
        Ok(())
    }
}

fn spawn(system: &ActorSystem, log: &Log, capacity: usize) -> ActorRef<Msg> {
    let props = Gate::props(log, capacity).on_failure(RESTART);
    system.spawn_with("gate", props).unwrap()
}

fn tell_all(gate: &ActorRef<Msg>, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        gate.tell(Msg::Number(n)).unwrap();
    }
}

async fn sync(gate: &ActorRef<Msg>) -> (usize, bool) {
    gate.ask(Msg::Sync).await.unwrap()
}

async fn ended<M: Send + 'static>(system: &ActorSystem, gate: &ActorRef<M>) {
    let mut probe = TestProbe::<()>::new(system);
    probe.watch(gate);
    probe.expect_terminated(gate, SOON).await;
}

/// L6: overflow is an error that the actor sees, with the message; what fits comes back in order,
/// before everything queued.
#[tokio::test(start_paused = true)]
async fn a_full_stash_gives_the_message_back() {
    let (system, log) = (system(), Log::default());
    let gate = spawn(&system, &log, 100);
    tell_all(&gate, 1000..1101);
    assert_eq!(sync(&gate).await, (100, true));
    assert_eq!(
        log.take(),
        ["1100 refused: the stash holds 100 messages already"]
    );
    gate.tell(Msg::Hold(SOON)).unwrap();
    gate.tell(Msg::Some(3)).unwrap();
    gate.tell(Msg::Open).unwrap();
    tell_all(&gate, [9]);
    assert_eq!(gate.queued(), 4, "what is put aside waits elsewhere");
    tokio::time::sleep(SOON).await;
    assert_eq!(sync(&gate).await, (97, false), "1003 closed the gate");
    // Three came back to a closed gate, and kept their places.
    assert_eq!(
        log.take(),
        ["3 back", "open", "1000", "1001", "1002", "1003"]
    );
}

/// L6: putting aside while taking back keeps the order of arrival.
#[tokio::test(start_paused = true)]
async fn order_is_kept_when_messages_are_put_aside_again() {
    let (system, log) = (system(), Log::default());
    let gate = spawn(&system, &log, 100);
    tell_all(&gate, [1, 3, 4, 5, 13, 6]);
    gate.tell(Msg::Open).unwrap();
    // 3 closes the gate; those behind it are put aside again, and these two behind them.
    tell_all(&gate, [7, 8]);
    sync(&gate).await;
    assert_eq!(log.take(), ["open", "1", "3"]);
    tell_all(&gate, [9]);
    gate.tell(Msg::Open).unwrap();
    sync(&gate).await;
    assert_eq!(log.take(), ["open", "4", "5", "13"]);
    gate.tell(Msg::Open).unwrap();
    sync(&gate).await;
    assert_eq!(log.take(), ["open", "6", "7", "8", "9"]);
    assert_eq!(system.dead_letters().total(), 0);
}

/// L6: a failure while messages come back leaves the others in line, for the new instance; what is
/// in the stash dies with the old one and is counted.
#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_line_and_drops_the_stash() {
    let (system, log) = (system(), Log::default());
    let gate = spawn(&system, &log, 100);
    tell_all(&gate, [1]);
    gate.tell(Msg::Fail).unwrap();
    tell_all(&gate, [2, 4]);
    gate.tell(Msg::Open).unwrap();
    assert_eq!(sync(&gate).await.0, 2, "the new instance put 2 and 4 aside");
    assert_eq!(log.take(), ["open", "1"]);
    gate.tell(Msg::Open).unwrap();
    gate.tell(Msg::Close).unwrap();
    tell_all(&gate, [5, 6]);
    sync(&gate).await;
    assert_eq!(log.take(), ["open", "2", "4", "close"]);
    let letters = system.dead_letters();
    assert_eq!(letters.total(), 0, "the message that failed was handled");
    // Some are put aside again and again between the turns of another.
    gate.tell(Msg::Open).unwrap();
    gate.tell(Msg::Close).unwrap();
    tell_all(&gate, [7, 8, 9]);
    sync(&gate).await;
    gate.tell(Msg::Again(500)).unwrap();
    sync(&gate).await;
    assert_eq!(log.take(), ["open", "5", "6", "close", "again"]);

    let broken = Gate::props(&log, 1).on_failure(RESTART);
    let broken = system.spawn_with("broken", broken).unwrap();
    tell_all(&broken, [1]);
    broken.tell(Msg::Again(1)).unwrap();
    assert_eq!(sync(&broken).await, (0, false));
    assert_eq!(letters.count(DeadLetterReason::LeftInStash), 1);
}

/// L6: a stop counts exactly what is in the stash, in line and in the mailbox.
#[tokio::test(start_paused = true)]
async fn a_stop_with_a_stash_counts_each_message() {
    let (system, log) = (system(), Log::default());
    let gate = spawn(&system, &log, 100);
    tell_all(&gate, 0..10);
    sync(&gate).await;
    let stop = gate.clone();
    gate.tell(Msg::Hold(SOON / 2)).unwrap();
    gate.tell(Msg::Some(4)).unwrap();
    tell_all(&gate, 0..3);
    tokio::time::sleep(Duration::from_millis(1)).await;
    stop.stop();
    ended(&system, &gate).await;
    let letters = system.dead_letters();
    // The order to take four back was in the mailbox.
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 4);
    assert_eq!(letters.count(DeadLetterReason::LeftInStash), 10);

    let (system, log) = (self::system(), Log::default());
    let stopper = Stopper {
        log: log.clone(),
        stash: Stash::new(NonZeroUsize::new(10).unwrap()),
        taken_back: false,
    };
    let actor = system.spawn("stopper", stopper).unwrap();
    (0..10).for_each(|n| actor.tell(n).unwrap());
    ended(&system, &actor).await;
    let letters = system.dead_letters();
    assert_eq!(log.take(), ["0 again"]);
    // 9 is handled and not put aside; 0 is handled; 1 to 4 are in line, 5 to 8 in the stash.
    assert_eq!(letters.count(DeadLetterReason::LeftInMailbox), 4);
    assert_eq!(letters.count(DeadLetterReason::LeftInStash), 4);
}

/// Puts numbers aside; at 9 it takes five of them back, and it stops at the first that comes.
struct Stopper {
    log: Log,
    stash: Stash<u32>,
    taken_back: bool,
}

impl Actor for Stopper {
    type Msg = u32;
    type Err = StashFull<u32>;

    async fn handle(&mut self, n: u32, ctx: &mut Context<Self>) -> Result<(), StashFull<u32>> {
        if n == 9 {
            assert_eq!(ctx.unstash(&mut self.stash, 5), 5);
            self.taken_back = true;
        } else if self.taken_back {
            self.log.add(format!("{n} again"));
            ctx.stop_self();
        } else {
            self.stash.stash(n, ctx)?;
        }
        Ok(())
    }
}

/// A drain handles what came back before it ends.
#[tokio::test(start_paused = true)]
async fn a_drain_handles_the_line() {
    let (system, log) = (system(), Log::default());
    let gate = spawn(&system, &log, 10);
    tell_all(&gate, [1, 2]);
    gate.tell(Msg::Open).unwrap();
    gate.stop_after_queued();
    ended(&system, &gate).await;
    assert_eq!(log.take(), ["open", "1", "2"]);
    assert_eq!(system.dead_letters().total(), 0);
}

/// L6: many messages put aside and taken back at once, and one message a million times.
#[tokio::test(start_paused = true)]
async fn a_million_times_need_no_stack() {
    const MANY: u32 = 200_000;
    let (system, log) = (system(), Log::default());
    let counter = Counter {
        stash: Stash::new(NonZeroUsize::new(MANY as usize).unwrap()),
        next: 0,
        open: false,
    };
    let props =
        Props::once(counter).mailbox_capacity(NonZeroUsize::new(2 + MANY as usize).unwrap());
    let actor = system.spawn_with("counter", props).unwrap();
    for n in 0..MANY {
        actor.tell(Count::Number(n)).unwrap();
    }
    actor.tell(Count::Open).unwrap();
    let counted = actor.ask(Count::Get).within(SOON * 100).await;
    assert_eq!(counted, Ok(MANY));

    let gate = spawn(&system, &log, 1);
    gate.tell(Msg::Again(1_000_000)).unwrap();
    gate.ask(Msg::Sync).within(SOON * 100).await.unwrap();
    assert_eq!(log.take(), ["again"]);
}

/// Counts numbers that come in order.
struct Counter {
    stash: Stash<Count>,
    next: u32,
    open: bool,
}

enum Count {
    Number(u32),
    Open,
    Get(ReplyTo<u32>),
}

impl Actor for Counter {
    type Msg = Count;
    type Err = StashFull<Count>;

    async fn handle(&mut self, msg: Count, ctx: &mut Context<Self>) -> Result<(), Self::Err> {
        match msg {
            Count::Number(_) if !self.open => self.stash.stash(msg, ctx)?,
            Count::Number(n) => {
                assert_eq!(n, self.next);
                self.next += 1;
            }
            Count::Open => {
                self.open = true;
                ctx.unstash_all(&mut self.stash);
            }
            Count::Get(reply_to) => {
                let _ = reply_to.send(self.next);
            }
        }
        Ok(())
    }
}

/// Sees numbers in a random order of stashing and unstashing.
struct Shuffler {
    stash: Stash<u32>,
    rng: Rng,
    seen: Log,
}

impl Actor for Shuffler {
    type Msg = u32;
    type Err = Infallible;

    async fn handle(&mut self, n: u32, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        const LAST: u32 = u32::MAX;
        if n != LAST && (!self.stash.is_empty() || self.rng.below(3) > 0) {
            self.stash.stash(n, ctx).unwrap();
        } else if n != LAST {
            self.seen.add(n.to_string());
        }
        let back = match self.rng.below(3) {
            0 => ctx.unstash_all(&mut self.stash),
            1 => ctx.unstash(&mut self.stash, self.rng.below(4) as usize),
            _ => 0,
        };
        if n == LAST && back + self.stash.len() > 0 {
            ctx.me().tell(LAST).unwrap();
        }
        Ok(())
    }
}

/// L6: whatever is put aside and taken back in whichever pieces, the first to come is the first to be
/// handled, as long as nothing overtakes what is put aside.
#[tokio::test(start_paused = true)]
async fn order_is_kept_in_random_schedules() {
    for seed in 0..200 {
        let (system, seen) = (system(), Log::default());
        let shuffler = Shuffler {
            stash: Stash::new(NonZeroUsize::new(1_000).unwrap()),
            rng: Rng::seeded(seed),
            seen: seen.clone(),
        };
        let actor = system.spawn("shuffler", shuffler).unwrap();
        (0..100).for_each(|n| actor.tell(n).unwrap());
        actor.tell(u32::MAX).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(seen.take(), expected, "seed={seed}");
    }
}

/// Does anything with what it gets, and says how often it was done with a message.
struct Wild {
    stash: Stash<Dropped>,
    rng: Rng,
    done: Arc<AtomicU64>,
}

/// Panics when it is dropped, now and then.
struct Dropped {
    panics: bool,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        assert!(!self.panics, "a message that panics when dropped");
    }
}

impl Actor for Wild {
    type Msg = Dropped;
    type Err = &'static str;

    async fn handle(&mut self, msg: Dropped, ctx: &mut Context<Self>) -> Result<(), &'static str> {
        let choice = self.rng.below(20);
        if choice < 10 {
            match self.stash.stash(msg, ctx) {
                Ok(()) => {}
                Err(full) => {
                    self.done.fetch_add(1, SeqCst);
                    drop(full.into_message());
                }
            }
            return Ok(());
        }
        self.done.fetch_add(1, SeqCst);
        match choice {
            10 => return Err("as the dice say"),
            // A panic while another one unwinds is the end of any Rust program.
            11 if !msg.panics => panic!("as the dice say"),
            12 => self.stash.clear(),
            13 => tokio::time::sleep(Duration::from_millis(1)).await,
            14..16 => drop(ctx.unstash_all(&mut self.stash)),
            _ => {
                let most = self.rng.below(5) as usize;
                ctx.unstash(&mut self.stash, most);
            }
        }
        Ok(())
    }
}

/// L6, L4: whatever happens, and also if messages panic when they are dropped, each is handled or
/// counted once.
#[tokio::test(start_paused = true)]
async fn each_message_is_handled_or_counted_in_random_schedules() {
    for seed in 0..200 {
        let system = system();
        let mut rng = Rng::seeded(seed);
        let (done, instances) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counter = done.clone();
        let props = Props::new(move || Wild {
            stash: Stash::new(NonZeroUsize::new(7).unwrap()),
            rng: Rng::seeded(seed + (instances.fetch_add(1, SeqCst) << 32)),
            done: counter.clone(),
        });
        let props = props.on_failure(Supervision::Restart {
            limit: 10,
            within: SOON,
        });
        let actor = system.spawn_with("wild", props).unwrap();
        let mut accepted = 0;
        for _ in 0..rng.below(200) {
            let panics = rng.below(10) == 0;
            match actor.tell(Dropped { panics }) {
                Ok(()) => accepted += 1,
                Err(refused) => std::mem::forget(refused),
            }
            if rng.below(5) == 0 {
                tokio::time::sleep(Duration::from_micros(rng.below(2_000))).await;
            }
        }
        actor.stop();
        ended(&system, &actor).await;
        let letters = system.dead_letters();
        let left = letters.count(DeadLetterReason::LeftInMailbox)
            + letters.count(DeadLetterReason::LeftInStash);
        assert_eq!(done.load(SeqCst) + left, accepted, "seed={seed}");
        assert_eq!(system.shutdown().await.blocked, []);
    }
}
