//! Proves: a node whose journal has halted leaves by itself, also the oldest, and the others go on.

use crate::counter::{Command, Counter};
use crate::fleet::{options, start};
use crate::world::{World, addr, seed, settled};
use futures_util::future::{BoxFuture, ready};
use otava::prelude::*;
use otava::{Ended, Journal, MemoryJournal};
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, EventPage, JournalError, PersistenceId,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A journal over the one that all share, whose disk may fail.
#[derive(Clone)]
struct Mortal {
    shared: Arc<MemoryJournal>,
    halted: watch::Sender<Option<Arc<str>>>,
}

impl Mortal {
    fn alive(&self) -> Result<(), JournalError> {
        match &*self.halted.borrow() {
            Some(reason) => Err(JournalError::Halted {
                reason: reason.clone(),
            }),
            None => Ok(()),
        }
    }

    /// What the journal of all says, unless this one has halted.
    fn unless_halted<'a, T: Send + 'a, E: From<JournalError> + Send + 'a>(
        &self,
        ask: impl FnOnce() -> BoxFuture<'a, Result<T, E>>,
    ) -> BoxFuture<'a, Result<T, E>> {
        match self.alive() {
            Ok(()) => ask(),
            Err(halted) => Box::pin(ready(Err(halted.into()))),
        }
    }
}

impl Journal for Mortal {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.unless_halted(|| self.shared.append(request))
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        self.unless_halted(|| self.shared.read(id, from_seq, max))
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.unless_halted(|| self.shared.highest_seq(id))
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.unless_halted(|| self.shared.claim(scope, epoch))
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.unless_halted(|| self.shared.next_term(scope))
    }

    fn halted(&self) -> BoxFuture<'_, Arc<str>> {
        let mut halted = self.halted.subscribe();
        Box::pin(async move {
            let reason = halted.wait_for(Option::is_some).await.unwrap().clone();
            reason.unwrap()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

/// P4: the disk of the oldest node fails. It leaves in seconds and says why it ended, and each entity answers
/// on the others, with all that was acknowledged.
#[tokio::test(start_paused = true)]
async fn a_node_whose_journal_halts_leaves() {
    let seed = seed();
    let mut world = World::new(seed, 3);
    let journal = Mortal {
        shared: world.journal.clone(),
        halted: watch::Sender::new(None),
    };
    let first = Node::builder("sim", "node-1")
        .network(Arc::new(world.net.network(addr(1), "node-1")))
        .seeds((1..=3).map(addr))
        .cluster_config(
            otava::ClusterConfig::default().with_dissemination(otava::Dissemination::Seeded(seed)),
        )
        .journal(Arc::new(journal.clone()))
        .seed(seed)
        .start()
        .await
        .unwrap();
    first.entities::<Counter>(options()).unwrap();
    first.join().await.unwrap();
    let mut others = Vec::new();
    for number in 2..=3 {
        let member = start(&mut world, number).await;
        member.node.join().await.unwrap();
        others.push(member);
    }
    settled(&first, 3).await;
    let take = async |e: u64, n: u64| {
        let entity = others[0].counters.entity(format!("c-{e}"));
        let asked = entity.ask(|to| Command::Take(n, to));
        asked.within(Duration::from_secs(1)).await
    };
    for e in 0..30 {
        take(e, 1).await.unwrap();
    }

    let begin = Instant::now();
    let reason = Some(Arc::from("the disk burns"));
    journal.halted.send_replace(reason);
    let how = timeout(Duration::from_secs(5), first.ended()).await;
    assert_eq!(how, Ok(Ended::Halted));
    for member in &others {
        settled(&member.node, 2).await;
    }
    for e in 0..30 {
        while take(e, 2).await.is_err() {
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(10), "c-{e} does not answer");
            sleep(Duration::from_millis(100)).await;
        }
        let entity = others[1].counters.entity(format!("c-{e}"));
        let taken = entity.ask(Command::Get).await.unwrap();
        assert!(taken.contains(&1) && taken.contains(&2), "c-{e}: {taken:?}");
    }
}
