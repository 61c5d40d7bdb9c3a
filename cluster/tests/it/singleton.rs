//! Proves: there is one actor in the whole cluster, never two, soon one again, and it is found.

use crate::ontop::{MS, Node, Note, SECOND, World, addr, seeds};
use otava_actor::{Actor, Context, Props, TellError};
use otava_cluster::SingletonProxy;
use otava_cluster::singleton::{MemoryTerms, SingletonConfig, SingletonContext, SingletonError};
use otava_remote::NodeId;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What is known outside of the cluster: who runs, and what each one was told.
#[derive(Default)]
pub(crate) struct Ledger {
    running: Vec<(NodeId, u64)>,
    pub(crate) starts: Vec<(NodeId, u64)>,
    /// Two at once, or a term that does not grow.
    pub(crate) faults: Vec<String>,
    notes: Vec<(NodeId, Note)>,
}

struct Only {
    node: NodeId,
    term: u64,
    ledger: Arc<Mutex<Ledger>>,
}

impl Actor for Only {
    type Msg = Note;
    type Err = String;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), String> {
        let mut ledger = self.ledger.lock().unwrap();
        if !ledger.running.is_empty() {
            let fault = format!("{} starts beside {:?}", self.node, ledger.running);
            ledger.faults.push(fault);
        }
        if ledger.starts.iter().any(|(_, term)| *term >= self.term) {
            let fault = format!("term {} after {:?}", self.term, ledger.starts);
            ledger.faults.push(fault);
        }
        ledger.running.push((self.node.clone(), self.term));
        ledger.starts.push((self.node.clone(), self.term));
        Ok(())
    }

    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), String> {
        if note.number == u64::MAX {
            return Err("as told".into());
        }
        self.ledger
            .lock()
            .unwrap()
            .notes
            .push((self.node.clone(), note));
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        // To end takes a moment, in which it still runs.
        sleep(MS * 200).await;
        let own = (self.node.clone(), self.term);
        self.ledger
            .lock()
            .unwrap()
            .running
            .retain(|known| *known != own);
    }
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) terms: Option<Arc<MemoryTerms>>,
}

impl Stage {
    async fn set(seed: u64, nodes: u16) -> Self {
        let terms = (seed.is_multiple_of(2)).then(|| Arc::new(MemoryTerms::new()));
        let stage = Self {
            world: World::formed(seed, nodes).await,
            ledger: Arc::default(),
            terms,
        };
        for node in stage.world.nodes.values() {
            stage.host(node);
        }
        stage
    }

    fn host(&self, node: &Node) -> SingletonProxy<Note> {
        self.host_with(node, SingletonConfig::default())
    }

    pub(crate) fn host_with(&self, node: &Node, config: SingletonConfig) -> SingletonProxy<Note> {
        let (id, ledger) = (node.id().clone(), self.ledger.clone());
        let make = move |context: SingletonContext| {
            Props::once(Only {
                node: id.clone(),
                term: context.term,
                ledger: ledger.clone(),
            })
        };
        let mut config = config.buffer_max(1_000);
        if let Some(terms) = &self.terms {
            config = config.terms(terms.clone());
        }
        node.singletons.host::<Only>("only", config, make).unwrap()
    }

    fn proxy(&self, n: u16) -> SingletonProxy<Note> {
        self.world.nodes[&n].singletons.proxy("only").unwrap()
    }

    /// How many run now.
    pub(crate) fn running(&self) -> usize {
        self.ledger.lock().unwrap().running.len()
    }

    /// Waits until it runs on node `n`, and says how long that took.
    pub(crate) async fn runs_on(&self, n: u16) -> Duration {
        let begin = Instant::now();
        let id = self.world.nodes[&n].id();
        loop {
            let running = self.ledger.lock().unwrap().running.clone();
            if running.len() == 1 && running[0].0 == *id {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < SECOND * 40, "{running:?} instead of {id}");
            sleep(MS * 10).await;
        }
    }

    pub(crate) fn check(&self, seed: u64) {
        let ledger = self.ledger.lock().unwrap();
        assert!(ledger.faults.is_empty(), "seed {seed}: {:?}", ledger.faults);
        // Notes of each sender come in order, and once.
        let mut last = std::collections::BTreeMap::new();
        for (node, note) in &ledger.notes {
            let before = last.insert(note.from, note.number);
            assert!(
                before < Some(note.number),
                "seed {seed}: {note:?} at {node} after {before:?}"
            );
        }
    }
}

/// Tells the singleton a note every few milliseconds, and counts what was accepted, until its node
/// ends.
fn chatter(from: u16, proxy: SingletonProxy<Note>) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        for number in 1..=400 {
            if proxy.tell(Note { from, number }).is_err() {
                return number - 1;
            }
            sleep(MS * 5).await;
        }
        400
    })
}

/// C2: the oldest leaves under load: the actor has ended there before it starts on the next, at once;
/// no note is lost and the order is kept, from every node.
#[tokio::test(start_paused = true)]
async fn a_leave_of_the_oldest_hands_over() {
    for seed in seeds(6) {
        let mut stage = Stage::set(seed, 3).await;
        stage.runs_on(1).await;
        let chats: Vec<_> = (1..=3).map(|n| chatter(n, stage.proxy(n))).collect();
        sleep(SECOND).await;
        let begin = Instant::now();
        stage.world.leave(1).await;
        stage.runs_on(2).await;
        assert!(
            begin.elapsed() < SECOND * 3,
            "seed {seed}: {:?}",
            begin.elapsed()
        );
        let sent = futures_util::future::join_all(chats).await;
        sleep(SECOND).await;
        stage.check(seed);
        let ledger = stage.ledger.lock().unwrap();
        for n in 2..=3 {
            let got = ledger
                .notes
                .iter()
                .filter(|(_, note)| note.from == n)
                .count();
            assert_eq!(got, 400, "seed {seed}, node {n}");
            assert_eq!(*sent[usize::from(n) - 1].as_ref().unwrap(), 400);
        }
        assert_eq!(ledger.starts.len(), 2, "seed {seed}");
    }
}

/// C3: the oldest dies, then three oldest of six at once: the next one has it in 25 seconds, and what
/// was told meanwhile arrives in order.
#[tokio::test(start_paused = true)]
async fn a_crash_of_the_oldest_is_taken_over() {
    for seed in seeds(6) {
        let mut stage = Stage::set(seed, 6).await;
        stage.runs_on(1).await;
        let crashed: Vec<u16> = if seed.is_multiple_of(2) {
            vec![1]
        } else {
            vec![1, 2, 3]
        };
        if crashed.len() == 3 {
            // A half alone would not go on: see the rules of downing.
            stage.world.start(7);
            stage.world.settled().await;
            stage.host(&stage.world.nodes[&7]);
        }
        for n in &crashed {
            stage.world.crash(*n).await;
        }
        let heir = crashed.last().unwrap() + 1;
        let proxy = stage.proxy(6);
        for number in 1..=100 {
            // What goes to the dead node is lost until its end is noticed.
            let _ = proxy.tell(Note { from: 6, number });
            sleep(MS * 100).await;
        }
        let took = stage.runs_on(heir).await + SECOND * 10;
        assert!(took < SECOND * 25, "seed {seed}: {took:?}");
        sleep(SECOND).await;
        stage.check(seed);
        let ledger = stage.ledger.lock().unwrap();
        assert!(
            ledger.notes.len() > 40,
            "seed {seed}: {}",
            ledger.notes.len()
        );
        assert_eq!(ledger.starts.len(), 2, "seed {seed}");
    }
}

/// C4: the oldest is cut off with one other: it stops there before it starts on the larger side.
#[tokio::test(start_paused = true)]
async fn a_partition_has_one_singleton() {
    for seed in seeds(8) {
        let mut stage = Stage::set(seed, 5).await;
        stage.runs_on(1).await;
        for low in 1..=2 {
            for high in 3..=5 {
                stage.world.net.cut(addr(low), addr(high));
            }
        }
        stage.runs_on(3).await;
        for n in 1..=2 {
            stage.world.nodes[&n].cluster.downed().await;
            let node = stage.world.nodes.remove(&n).unwrap();
            node.system.shutdown().await;
        }
        stage.world.net.heal_all();
        stage.world.settled().await;
        sleep(SECOND * 5).await;
        stage.runs_on(3).await;
        stage.check(seed);
        assert_eq!(stage.ledger.lock().unwrap().starts.len(), 2, "seed {seed}");
    }
}

/// One of a role runs on the oldest member of that role, and is found from all others.
#[tokio::test(start_paused = true)]
async fn a_role_has_its_own_singleton() {
    let mut stage = Stage {
        world: World::formed(14, 5).await,
        ledger: Arc::default(),
        terms: None,
    };
    for node in stage.world.nodes.values() {
        stage.host_with(node, SingletonConfig::default().role("even"));
    }
    stage.runs_on(2).await;
    let leaver = stage.world.leave(2).await;
    stage.runs_on(4).await;
    let proxy = stage.proxy(5);
    proxy.tell(Note { from: 5, number: 1 }).unwrap();
    sleep(SECOND).await;
    stage.check(14);
    let ledger = stage.ledger.lock().unwrap();
    assert_eq!(ledger.starts[0].0, leaver);
    assert_eq!(ledger.notes[0].0, *stage.world.nodes[&4].id());
}

/// While there is none, a proxy keeps so many messages, in order, and refuses the next.
#[tokio::test(start_paused = true)]
async fn a_proxy_keeps_what_it_may() {
    let stage = Stage {
        world: World::formed(11, 2).await,
        ledger: Arc::default(),
        terms: None,
    };
    let node = &stage.world.nodes[&2];
    let proxy = stage.host(node);
    for number in 1..=1_000 {
        proxy.tell(Note { from: 2, number }).unwrap();
    }
    let refused = proxy.tell(Note { from: 2, number: 9 });
    assert!(matches!(refused, Err(TellError::Full(_))));
    assert_eq!((proxy.buffered(), proxy.refused()), (1_000, 1));
    assert_eq!(proxy.host(), None);
    let waiting = proxy.clone();
    let late = tokio::spawn(async move {
        waiting
            .send(Note {
                from: 2,
                number: 1_001,
            })
            .await
    });
    sleep(SECOND).await;
    assert!(!late.is_finished());
    stage.host(&stage.world.nodes[&1]);
    stage.runs_on(1).await;
    late.await.unwrap().unwrap();
    sleep(SECOND).await;
    stage.check(11);
    assert_eq!(stage.ledger.lock().unwrap().notes.len(), 1_001);
    assert_eq!(proxy.host().as_ref(), Some(stage.world.nodes[&1].id()));
    assert_eq!(proxy.buffered(), 0);
    // It is an actor like any other, with an end of its own.
    proxy.stop();
    sleep(SECOND).await;
    let refused = proxy.tell(Note {
        from: 2,
        number: 2_000,
    });
    assert!(matches!(refused, Err(TellError::Stopped(_))));
}

/// One that ends by itself comes again, with a greater term; and some mistakes are refused.
#[tokio::test(start_paused = true)]
async fn one_that_fails_comes_again() {
    let stage = Stage::set(12, 2).await;
    stage.runs_on(1).await;
    let proxy = stage.proxy(2);
    proxy
        .tell(Note {
            from: 2,
            number: u64::MAX,
        })
        .unwrap();
    sleep(MS * 600).await;
    assert!(stage.ledger.lock().unwrap().running.is_empty());
    proxy.tell(Note { from: 2, number: 5 }).unwrap();
    stage.runs_on(1).await;
    sleep(SECOND).await;
    stage.check(12);
    assert_eq!(stage.ledger.lock().unwrap().notes.len(), 1);

    let singletons = &stage.world.nodes[&1].singletons;
    let again = singletons.host::<Only>("only", SingletonConfig::default(), |_| unreachable!());
    assert!(matches!(again, Err(SingletonError::Started(_))));
    let bad = singletons.proxy::<Note>("no name");
    assert!(matches!(bad, Err(SingletonError::BadName(_))));
}

/// Takes its time for each note.
struct Slow(Arc<Mutex<Vec<u64>>>);

impl Actor for Slow {
    type Msg = Note;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<(), Self::Err> {
        sleep(MS * 10).await;
        self.0.lock().unwrap().push(note.number);
        Ok(())
    }
}

/// One that is busy slows its senders: `tell` is refused by its mailbox, `send` waits for room there.
#[tokio::test(start_paused = true)]
async fn a_busy_singleton_slows_its_senders() {
    let world = World::formed(13, 1).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (seen, two) = (notes.clone(), std::num::NonZeroUsize::new(2).unwrap());
    let make = move |_| Props::once(Slow(seen.clone())).mailbox_capacity(two);
    let singletons = &world.nodes[&1].singletons;
    let proxy = singletons.host::<Slow>("slow", SingletonConfig::default(), make);
    let proxy = proxy.unwrap();
    while proxy.host().is_none() {
        sleep(MS).await;
    }
    for number in 1..=50 {
        proxy.send(Note { from: 1, number }).await.unwrap();
    }
    let told = (1..=5).map(|n| {
        proxy.tell(Note {
            from: 1,
            number: 50 + n,
        })
    });
    let refused = told
        .filter(|told| matches!(told, Err(TellError::Full(_))))
        .count();
    assert!(refused >= 2, "{refused}");
    sleep(SECOND).await;
    let notes = notes.lock().unwrap();
    assert!(
        notes.is_sorted() && notes.len() == 55 - refused,
        "{notes:?}"
    );
    assert_eq!((proxy.refused(), proxy.buffered()), (0, 0));
}
