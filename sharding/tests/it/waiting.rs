//! Proves: how long a question waits while shards move as planned, over real memberships.

use crate::clusters::{Node, Whole};
use crate::support::{Cmd, SECOND, SHARDS};
use otava_sharding::Entities;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const IDS: u64 = 100;
/// What the issue allows: 200 ms at p99.
const P99_MAX: Duration = Duration::from_millis(200);
/// A few times what a question takes while nothing moves.
const USUAL_MAX: Duration = Duration::from_millis(25);

/// One question: for which entity, and how long its answer took.
struct Asked {
    id: String,
    at: Instant,
    waited: Duration,
}

/// Asks all entities from one node, one question every millisecond.
struct Load {
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Load {
    fn start(sender: u32, entities: Entities<Cmd>) -> Self {
        let (asked, stop): (Arc<Mutex<Vec<Asked>>>, Arc<AtomicBool>) = <_>::default();
        let (results, stopped) = (asked.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut answers = Vec::new();
            for number in 1.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let id = format!("e{}", number % IDS);
                let at = Instant::now();
                let question = entities.entity(&id).ask(|reply_to| Cmd::Put {
                    sender,
                    number,
                    reply_to: Some(reply_to),
                });
                let (results, question) = (results.clone(), question.within(SECOND * 5));
                answers.push(tokio::spawn(async move {
                    let answer = question.await;
                    assert!(answer.is_ok(), "{id}: {answer:?}");
                    let waited = at.elapsed();
                    results.lock().unwrap().push(Asked { id, at, waited });
                }));
                sleep(Duration::from_millis(1)).await;
            }
            let sent = answers.len() as u64;
            for answer in answers {
                answer.await.unwrap();
            }
            sent
        });
        Self { asked, stop, task }
    }

    /// Waits for all answers.
    async fn end(self) -> (u64, Vec<Asked>) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.task.await.unwrap();
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        (sent, asked)
    }
}

/// The value that 99 of 100 do not exceed, and the highest one.
fn p99_and_max(mut waited: Vec<Duration>) -> (Duration, Duration) {
    waited.sort_unstable();
    let at = |place: usize| waited.get(place).copied().unwrap_or_default();
    (at(waited.len() * 99 / 100), at(waited.len().max(1) - 1))
}

async fn formed(whole: &Whole, count: u16) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=count).map(|n| whole.start(n)).collect();
    for node in &nodes {
        node.cluster.join().await.unwrap();
        node.entities.all_hosted().await;
    }
    sleep(SECOND * 10).await;
    nodes
}

#[expect(clippy::print_stdout, reason = "the figures of the issue")]
/// Checks waiting in a window of time: of those questions whose entity moved, and of the others.
fn check(what: &str, seed: u64, asked: &[Asked], moved: impl Fn(&str) -> bool, begin: Instant) {
    let during = asked.iter().filter(|asked| asked.at >= begin);
    let (moving, staying): (Vec<&Asked>, Vec<_>) = during.partition(|asked| moved(&asked.id));
    let waited = |asked: &[&Asked]| p99_and_max(asked.iter().map(|asked| asked.waited).collect());
    let ((p99, most), (_, usual)) = (waited(&moving), waited(&staying));
    println!(
        "{what}, seed {seed}: {} questions to entities that move: p99 {p99:?}, max {most:?}; {} to \
         others: max {usual:?}",
        moving.len(),
        staying.len()
    );
    // Harder than what is allowed: not even the slowest of few questions waits longer.
    assert!(most <= P99_MAX, "{what}, seed {seed}: {most:?}");
    assert!(usual <= USUAL_MAX, "{what}, seed {seed}: {usual:?}");
}

/// S1, S2: the oldest node, which coordinates, leaves under load. Its entities are away for less than
/// 200 ms at p99, those of other nodes answer all the time, nothing is lost, order is kept, and the next
/// coordinator is at work before the old one is gone.
#[tokio::test(start_paused = true)]
async fn the_oldest_leaves_and_nobody_waits() {
    for seed in 0..2 {
        let whole = Whole::new(seed);
        whole.slow.set_delay(Duration::from_millis(5));
        let mut nodes = formed(&whole, 4).await;
        let oldest = nodes[0].entities.coordinator().unwrap();
        let place = nodes.iter().position(|node| *node.cluster.me() == oldest);
        let leaver = nodes.remove(place.unwrap());
        let before = leaver.entities.homes();
        let load = Load::start(1, nodes[0].entities.clone());
        let others = Load::start(2, nodes[1].entities.clone());
        sleep(SECOND).await;

        let begin = Instant::now();
        let entities = nodes[0].entities.clone();
        leaver.leave().await;
        let next = entities.coordinator();
        assert!(
            next.is_some_and(|next| next != oldest),
            "{oldest} coordinates"
        );
        sleep(SECOND).await;

        let of_leaver = |id: &str| before[&entities.shard_of(id)].as_ref() == Some(&oldest);
        let mut sent = 0;
        for load in [load, others] {
            let (number, asked) = load.end().await;
            sent += number;
            check("the oldest leaves", seed, &asked, of_leaver, begin);
        }
        whole.journal.check();
        assert_eq!(whole.journal.rows().len() as u64, sent);
        assert_eq!(*whole.journal.refused.lock().unwrap(), 0);
        // Who was not on the leaver has not moved.
        let after: BTreeMap<_, _> = entities.homes();
        let stayed = before.iter().filter(|(_, at)| at.as_ref() != Some(&oldest));
        assert!(stayed.clone().count() < SHARDS as usize);
        for (shard, at) in stayed {
            assert_eq!(&after[shard], at, "shard {shard}");
        }
    }
}

/// S2: the coordinator leaves while shards are on their way to a node that joins: the next one goes on
/// with what it finds, and nobody waits for that either.
#[tokio::test(start_paused = true)]
async fn the_coordinator_leaves_in_the_middle_of_moves() {
    for seed in 0..3 {
        let whole = Whole::new(seed);
        whole.slow.set_delay(Duration::from_millis(5));
        let mut nodes = formed(&whole, 4).await;
        let oldest = nodes[0].entities.coordinator().unwrap();
        let place = nodes.iter().position(|node| *node.cluster.me() == oldest);
        let leaver = nodes.remove(place.unwrap());
        let load = Load::start(1, nodes[0].entities.clone());
        let begin = Instant::now();
        let joiner = whole.start(5);
        joiner.cluster.join().await.unwrap();
        while joiner.entities.local_stats().shards == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(3 * seed)).await;
        leaver.leave().await;
        sleep(SECOND * 5).await;
        let (sent, asked) = load.end().await;
        let all = |_: &str| true;
        check(
            "the coordinator leaves amid moves",
            seed,
            &asked,
            all,
            begin,
        );
        whole.journal.check();
        assert_eq!(whole.journal.rows().len() as u64, sent);
    }
}

/// S1, S4: a node joins under load: the shards that it gets are away for less than 200 ms at p99, the
/// others are not.
#[tokio::test(start_paused = true)]
async fn a_rebalance_lets_nobody_wait() {
    for seed in 0..2 {
        let whole = Whole::new(seed);
        whole.slow.set_delay(Duration::from_millis(5));
        let nodes = formed(&whole, 3).await;
        let before = nodes[0].entities.homes();
        let load = Load::start(1, nodes[1].entities.clone());
        sleep(SECOND).await;
        let begin = Instant::now();
        let joiner = whole.start(4);
        joiner.cluster.join().await.unwrap();
        sleep(SECOND * 10).await;
        let after = nodes[0].entities.homes();
        let entities = nodes[0].entities.clone();
        let moves = |id: &str| {
            let shard = entities.shard_of(id);
            before[&shard] != after[&shard]
        };
        let moved = before.iter().filter(|(shard, at)| &after[shard] != *at);
        assert_eq!(moved.count(), SHARDS as usize / 4);
        let (sent, asked) = load.end().await;
        check("a node joins", seed, &asked, moves, begin);
        whole.journal.check();
        assert_eq!(whole.journal.rows().len() as u64, sent);
    }
}
