//! Proves: neither messages nor actors that have ended leave memory behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use otava_actor::{Actor, ActorRef, ActorSystem, Context, Props, ReplyTo};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;

/// Counts the bytes that each thread has and has not given back, so that tests beside each other do
/// not disturb. The systems here have one thread.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: i64) {
    // A thread that ends has no count any more, and nobody looks at it.
    let _ = LIVE.try_with(|live| live.set(live.get() + sign * bytes as i64));
}

#[allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; it only counts and passes on"
)]
// SAFETY: every call goes to `System` with the same arguments, so its promises are kept. Counting
// allocates nothing: the count is a plain cell without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as for this function.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as for this function.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as for this function.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: u64 = 1_000_000;
const ACTORS: u64 = 100_000;
/// What may stay: lists of the scheduler, of the runtime and of the tree keep room they once had, and a
/// thread keeps some pieces of memory of each size. One byte for each message or actor is more.
const KEPT_MAX: i64 = 64 * 1024;

struct Sum(u64);

enum Sums {
    Add(Box<u64>),
    Get(ReplyTo<u64>),
}

impl Actor for Sum {
    type Msg = Sums;
    type Err = Infallible;

    async fn handle(&mut self, msg: Sums, _: &mut Context<Self>) -> Result<(), Infallible> {
        match msg {
            Sums::Add(n) => self.0 += *n,
            Sums::Get(reply_to) => {
                let _ = reply_to.send(self.0);
            }
        }
        Ok(())
    }
}

async fn tell(actor: &ActorRef<Sums>, messages: u64) {
    let before = actor.ask(Sums::Get).await.unwrap();
    for n in 1..=messages {
        actor.tell(Sums::Add(Box::new(1))).unwrap();
        if n.is_multiple_of(500) {
            // So many lie in the mailbox at a time, over many blocks of it.
            actor.ask(Sums::Get).await.unwrap();
        }
    }
    assert_eq!(actor.ask(Sums::Get).await.unwrap(), before + messages);
}

async fn spawn_and_stop(system: &ActorSystem, actors: u64) {
    for round in 0..actors / 1_000 {
        let spawned: Vec<_> = (0..1_000)
            .map(|n| match n % 2 {
                0 => system.spawn(&format!("sum{round}-{n}"), Sum(0)).unwrap(),
                _ => system.spawn_anonymous(Props::once(Sum(0))).unwrap(),
            })
            .collect();
        for (n, actor) in spawned.iter().enumerate() {
            // Some were active before they end, some leave a message in their mailbox.
            if n % 3 == 0 {
                actor.ask(Sums::Get).await.unwrap();
            }
            if n % 5 == 0 {
                actor.tell(Sums::Add(Box::new(1))).unwrap();
            }
            actor.stop();
        }
        drop(spawned);
        while !system.actors().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_box_that_is_kept_is_counted() {
    let before = LIVE.get();
    let kept = std::hint::black_box(Box::new([0_u8; 1_000]));
    assert_eq!(LIVE.get() - before, 1_000);
    drop(kept);
    assert_eq!(LIVE.get(), before);
}

#[tokio::test(flavor = "current_thread")]
async fn a_million_messages_leave_nothing_behind() {
    let system = ActorSystem::new("memory");
    let actor = system.spawn("sum", Sum(0)).unwrap();
    tell(&actor, 2_000).await;
    let before = LIVE.get();
    tell(&actor, MESSAGES).await;
    let left = LIVE.get() - before;
    // A burst keeps its block no longer than the burst lasts: here all is as it was.
    assert!(left.abs() < KEPT_MAX, "{left} bytes");
}

#[tokio::test(flavor = "current_thread")]
async fn actors_that_have_ended_leave_nothing_behind() {
    let system = ActorSystem::new("memory");
    spawn_and_stop(&system, 2_000).await;
    let before = LIVE.get();
    spawn_and_stop(&system, ACTORS).await;
    let left = LIVE.get() - before;
    assert!(left.abs() < KEPT_MAX, "{left} bytes");
}

/// The system itself too.
#[test]
fn a_system_that_has_ended_leaves_nothing_behind() {
    let once = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let system = ActorSystem::new("memory");
            spawn_and_stop(&system, 1_000).await;
            assert_eq!(system.shutdown().await.blocked, []);
        });
    };
    once();
    let before = LIVE.get();
    (0..5).for_each(|_| once());
    let left = LIVE.get() - before;
    assert!(left.abs() < KEPT_MAX, "{left} bytes");
}
