//! Actors: event-sourced actors on real journals, through failures, fences and new systems.

use crate::support::open;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use otava_actor::watch::Ended;
use otava_actor::{Actor, ActorRef, ActorSystem, AskError, Context, ReplyTo, Supervision};
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, Effect, EventPage, EventSourced, Fence,
    Journal, JournalError, MemoryJournal, Options, Persisted, PersistenceId, event_sourced,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An account that counts its deposits.
#[derive(Default)]
struct Account {
    deposits: u64,
    balance: u64,
}

enum Command {
    Deposit(u64, ReplyTo<u64>),
    DepositAndPanic(u64, ReplyTo<u64>),
    Look(ReplyTo<(u64, u64)>),
    Panic,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Deposited(u64);

impl EventSourced for Account {
    type Command = Command;
    type Event = Deposited;
    type Snapshot = (u64, u64);
    const EVENT_NAME: &'static str = "test.Deposited";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Deposit(amount, reply_to) => Effect::persist(Deposited(amount))
                .reply_with(reply_to, |account: &Self| account.balance),
            Command::DepositAndPanic(amount, reply_to) => Effect::persist(Deposited(amount))
                .reply_with(reply_to, |_: &Self| {
                    panic!("after persist, before the reply")
                }),
            Command::Look(reply_to) => {
                Effect::none().reply(reply_to, (self.deposits, self.balance))
            }
            Command::Panic => panic!("before persist"),
        }
    }

    fn apply(&mut self, event: &Deposited) {
        self.deposits += 1;
        self.balance += event.0;
    }

    fn snapshot(&self) -> Option<(u64, u64)> {
        Some((self.deposits, self.balance))
    }

    fn restore(&mut self, snapshot: (u64, u64)) {
        (self.deposits, self.balance) = snapshot;
    }
}

fn id(name: &str) -> PersistenceId {
    PersistenceId::new("account", name)
}

fn spawn(system: &ActorSystem, name: &str, journal: &Arc<dyn Journal>) -> ActorRef<Command> {
    let props = event_sourced(id(name), Account::default, Arc::clone(journal))
        .options(Options::default().snapshot_every(7))
        .props()
        .on_failure(Supervision::Restart {
            limit: 9,
            within: Duration::from_secs(60),
        });
    system.spawn_with(name, props).unwrap()
}

/// What was answered is there in the next system, which opens the file anew.
#[tokio::test]
async fn an_account_outlives_its_system() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    for round in 0..3 {
        let journal: Arc<dyn Journal> = Arc::new(open(&path).await);
        let system = ActorSystem::new("test");
        for name in ["a", "b"] {
            let account = spawn(&system, name, &journal);
            assert_eq!(
                account.ask(Command::Look).await.unwrap(),
                (10 * round, 50 * round)
            );
            for n in 1..=10 {
                let balance = account
                    .ask(|reply_to| Command::Deposit(5, reply_to))
                    .await
                    .unwrap();
                assert_eq!(balance, 50 * round + 5 * n);
            }
        }
        system.shutdown().await;
        journal.close().await;
    }
}

/// P9: the handler panics before persist: nothing is there. After persist: the event is there after
/// the restart, and was never answered.
#[tokio::test]
async fn a_restarted_account_has_exactly_what_was_persisted() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let system = ActorSystem::new("test");
    let account = spawn(&system, "a", &journal);
    account
        .ask(|reply_to| Command::Deposit(1, reply_to))
        .await
        .unwrap();
    assert!(account.tell(Command::Panic).is_ok());
    assert_eq!(account.ask(Command::Look).await.unwrap(), (1, 1));
    let asked = account
        .ask(|reply_to| Command::DepositAndPanic(10, reply_to))
        .await;
    assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    assert_eq!(account.ask(Command::Look).await.unwrap(), (2, 11));
    system.shutdown().await;
}

/// P6: a new owner has claimed the shard: the asker sees that there is no reply, the hook runs once,
/// the actor stops.
#[tokio::test]
async fn a_fenced_account_stops_without_a_word() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    journal.claim("shard/1", 1).await.unwrap();
    let system = ActorSystem::new("test");
    let fenced = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&fenced);
    let props = event_sourced(id("a"), Account::default, Arc::clone(&journal))
        .fence(Fence::new("shard/1", 1))
        .on_fenced(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .props();
    let account = system.spawn_with("a", props).unwrap();
    account
        .ask(|reply_to| Command::Deposit(1, reply_to))
        .await
        .unwrap();
    journal.claim("shard/1", 2).await.unwrap();
    let asked = account.ask(|reply_to| Command::Deposit(1, reply_to)).await;
    assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    assert!(
        account.ask(Command::Look).await.is_err(),
        "it still answers"
    );
    assert_eq!(fenced.load(Ordering::Relaxed), 1);
    assert_eq!(journal.highest_seq(&id("a")).await.unwrap(), 1);
    system.shutdown().await;
}

/// A journal that loses the connection in an append, and carries it out when it is told to.
#[derive(Default)]
struct Late {
    inner: MemoryJournal,
    loses_next: AtomicBool,
    lost: Mutex<Option<AppendRequest>>,
}

impl Late {
    async fn carry_out_lost(&self) {
        let lost = self.lost.lock().unwrap().take().unwrap();
        self.inner.append(lost).await.unwrap();
    }
}

impl Journal for Late {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        if !self.loses_next.swap(false, Ordering::Relaxed) {
            return self.inner.append(request);
        }
        *self.lost.lock().unwrap() = Some(request);
        let reason = "the test says so".into();
        ready(Err(JournalError::Unknown { reason }.into())).boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        self.inner.read(id, from_seq, max)
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.inner.highest_seq(id)
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.inner.claim(scope, epoch)
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.inner.next_term(scope)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// P9: an append that got lost is carried out after the next instance has recovered. That one fails as
/// soon as it writes, and the one after it has the late event and goes on.
#[tokio::test]
async fn an_account_that_was_overtaken_by_a_lost_append_goes_on() {
    let late = Arc::new(Late::default());
    let journal: Arc<dyn Journal> = Arc::clone(&late) as _;
    let system = ActorSystem::new("test");
    let account = spawn(&system, "a", &journal);
    let deposit = async |amount: u64| {
        let asked = account.ask(|reply_to| Command::Deposit(amount, reply_to));
        asked.await
    };
    assert_eq!(deposit(1).await.unwrap(), 1);
    late.loses_next.store(true, Ordering::Relaxed);
    let lost = deposit(10).await;
    assert!(matches!(lost, Err(AskError::NoReply { .. })), "{lost:?}");
    assert_eq!(account.ask(Command::Look).await.unwrap(), (1, 1));
    late.carry_out_lost().await;
    let overtaken = deposit(100).await;
    assert!(
        matches!(overtaken, Err(AskError::NoReply { .. })),
        "{overtaken:?}"
    );
    assert_eq!(deposit(1_000).await.unwrap(), 1_011);
    assert_eq!(account.ask(Command::Look).await.unwrap(), (3, 1_011));
    assert_eq!(journal.highest_seq(&id("a")).await.unwrap(), 3);
    system.shutdown().await;
}

/// P9: who supervises an overtaken account sees a failure, not one that wanted to stop.
#[tokio::test]
async fn an_overtaken_account_ends_as_failed() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let system = ActorSystem::new("test");
    let props = event_sourced(id("a"), Account::default, Arc::clone(&journal)).props();
    let account = system.spawn_with("one", props).unwrap();
    assert_eq!(account.ask(Command::Look).await.unwrap(), (0, 0));
    let (sender, ended) = tokio::sync::oneshot::channel();
    let watching = account.on_terminated(move |news| {
        let _ = sender.send(news.reason);
    });
    watching.detach();
    let other = event_sourced(id("a"), Account::default, Arc::clone(&journal)).props();
    let other = system.spawn_with("two", other).unwrap();
    for (account, is_answered) in [(&other, true), (&account, false)] {
        let asked = account.ask(|reply_to| Command::Deposit(1, reply_to)).await;
        assert_eq!(asked.is_ok(), is_answered, "{asked:?}");
    }
    assert_eq!(ended.await.unwrap(), Ended::Failed);
    system.shutdown().await;
}

/// P7: commands that arrive during recovery wait until it is complete.
#[tokio::test]
async fn no_command_is_handled_before_recovery_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let journal: Arc<dyn Journal> = Arc::new(open(&folder.path().join("journal.db")).await);
    let system = ActorSystem::new("test");
    let names: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    for name in &names {
        let account = spawn(&system, name, &journal);
        for _ in 0..3 {
            account
                .ask(|reply_to| Command::Deposit(2, reply_to))
                .await
                .unwrap();
        }
    }
    system.shutdown().await;
    let system = ActorSystem::new("test");
    let asked = names.iter().map(|name| {
        let account = spawn(&system, name, &journal);
        async move { account.ask(Command::Look).await.unwrap() }
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer, (3, 6));
    }
    system.shutdown().await;
    journal.close().await;
}

/// An actor that keeps what was published.
struct Follower(Vec<(u64, u64)>);

enum Followed {
    Event(Persisted<Deposited>),
    Look(ReplyTo<Vec<(u64, u64)>>),
}

impl From<Persisted<Deposited>> for Followed {
    fn from(event: Persisted<Deposited>) -> Self {
        Self::Event(event)
    }
}

impl Actor for Follower {
    type Msg = Followed;
    type Err = std::convert::Infallible;

    async fn handle(&mut self, message: Followed, _: &mut Context<Self>) -> Result<(), Self::Err> {
        match message {
            Followed::Event(persisted) => self.0.push((persisted.seq, persisted.event.0)),
            Followed::Look(reply_to) => drop(reply_to.send(self.0.clone())),
        }
        Ok(())
    }
}

/// Events are published when they are durable and before the reply, and not again at recovery.
#[tokio::test]
async fn durable_events_are_published() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let system = ActorSystem::new("test");
    let follower = system.spawn("follower", Follower(Vec::new())).unwrap();
    system
        .event_stream()
        .subscribe::<Persisted<Deposited>>(&follower);
    for (round, name) in ["one", "two"].iter().enumerate() {
        let props = event_sourced(id("a"), Account::default, Arc::clone(&journal))
            .publish_events()
            .props();
        let account = system.spawn_with(name, props).unwrap();
        for amount in [5, 6] {
            account
                .ask(|reply_to| Command::Deposit(amount, reply_to))
                .await
                .unwrap();
            let seen = follower.ask(Followed::Look).await.unwrap();
            assert_eq!(seen.last(), Some(&(2 * round as u64 + amount - 4, amount)));
        }
    }
    let seen = follower.ask(Followed::Look).await.unwrap();
    assert_eq!(seen, [(1, 5), (2, 6), (3, 5), (4, 6)]);
    system.shutdown().await;
}

/// Commands that arrive while events are on their way wait, and are handled in the order in which they
/// came, each with the state of those before it.
#[tokio::test]
async fn commands_wait_in_order_while_events_are_persisted() {
    let folder = tempfile::tempdir().unwrap();
    let journal: Arc<dyn Journal> = Arc::new(open(&folder.path().join("journal.db")).await);
    let system = ActorSystem::new("test");
    let account = spawn(&system, "a", &journal);
    let asked = (1..=200).map(|_| account.ask(|reply_to| Command::Deposit(1, reply_to)));
    // Each is a commit of its own, and disks may be slow.
    let asked = asked.map(|ask| ask.within(Duration::from_secs(60)));
    let asked: Vec<_> = asked.map(IntoFuture::into_future).collect();
    let answers = futures_util::future::join_all(asked).await;
    let balances: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(balances, (1..=200).collect::<Vec<_>>());
    system.shutdown().await;
    journal.close().await;
}
