//! Proves: no message is boxed, on either layer: 0 allocations a tell, at most 1 an ask.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use otava_actor::{Actor, ActorRef, ActorSystem, Context, ReplyTo};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;

/// Counts the allocations of each thread, so that tests beside each other do not disturb.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that ends has no count any more, and nobody looks at it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]
// SAFETY: every call goes to `System` with the same arguments, so its promises are kept. Counting
// allocates nothing: the count is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: as for this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: as for this function.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: u64 = 10_000;
/// How many are told before the actor has its turn.
const BURST: u64 = 100;

/// The layer with an enum by hand.
struct ByHand(u64);

enum Sums {
    Add(u64),
    Get(ReplyTo<u64>),
}

impl Actor for ByHand {
    type Msg = Sums;
    type Err = Infallible;

    async fn handle(&mut self, msg: Sums, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Sums::Add(n) => self.0 += n,
            Sums::Get(reply_to) => {
                let _ = reply_to.send(self.0);
            }
        }
        Ok(())
    }
}

/// The layer of the macro.
#[otava_actor::protocol]
trait SumApi {
    async fn add(&mut self, n: u64);
    async fn sum(&mut self) -> u64;
}

struct ByMacro(u64);

#[otava_actor::actor]
impl SumApi for ByMacro {
    type Err = Infallible;

    async fn add(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += n;
        Ok(())
    }

    async fn sum(&mut self, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0)
    }
}

/// Allocations of this thread while `work` runs.
async fn allocations(work: impl Future<Output = ()>) -> f64 {
    let before = COUNT.get();
    work.await;
    (COUNT.get() - before) as f64
}

/// Tells and asks on one thread, after a round that warms everything up, and returns the allocations
/// a tell and an ask.
async fn measure<M: Send + 'static>(
    actor: &ActorRef<M>,
    tell: impl Fn(&ActorRef<M>),
    ask: impl AsyncFn(&ActorRef<M>) -> u64,
) -> (f64, f64) {
    let tells = async || {
        for _ in 0..MESSAGES / BURST {
            for _ in 0..BURST {
                tell(actor);
            }
            // Until all of them are handled: the one ask among a burst of tells counts too.
            ask(actor).await;
        }
    };
    let asks = async || {
        for _ in 0..MESSAGES {
            ask(actor).await;
        }
    };
    tells().await;
    asks().await;
    let told = allocations(tells()).await - (MESSAGES / BURST) as f64;
    let asked = allocations(asks()).await;
    let sum = ask(actor).await;
    assert_eq!(sum, 2 * MESSAGES, "every message was handled");
    (told / MESSAGES as f64, asked / MESSAGES as f64)
}

/// The bounds leave room for what is not a cost of each message: the mailbox takes a new segment of its
/// queue at times. A box for each message would be 1.0 more. The handlers here never wait: one that does
/// is kept in a box meanwhile.
fn check(layer: &str, (told, asked): (f64, f64)) {
    assert!(told < 0.05, "{layer}: {told} allocations a tell");
    assert!(asked <= 1.05, "{layer}: {asked} allocations an ask");
}

#[tokio::test(flavor = "current_thread")]
async fn a_box_is_counted() {
    let counted = allocations(async { drop(std::hint::black_box(Box::new(1))) });
    assert_eq!(counted.await, 1.0);
}

#[tokio::test(flavor = "current_thread")]
async fn an_enum_by_hand_is_never_boxed() {
    let system = ActorSystem::new("by-hand");
    let actor = system.spawn("sum", ByHand(0)).unwrap();
    let tell = |actor: &ActorRef<Sums>| actor.tell(Sums::Add(1)).unwrap();
    let ask = async |actor: &ActorRef<Sums>| actor.ask(Sums::Get).await.unwrap();
    check("by hand", measure(&actor, tell, ask).await);
}

#[tokio::test(flavor = "current_thread")]
async fn a_message_of_a_protocol_is_never_boxed() {
    let system = ActorSystem::new("by-macro");
    let actor = system.spawn("sum", ByMacro(0)).unwrap();
    let tell = |actor: &ActorRef<SumMsg>| actor.add(1).unwrap();
    let ask = async |actor: &ActorRef<SumMsg>| actor.sum().await.unwrap();
    check("by macro", measure(&actor, tell, ask).await);
}
