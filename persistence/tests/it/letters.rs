//! Letters: money that moves between accounts, with a crash at every step; none is made or lost.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use otava_actor::{ActorRef, ActorSystem, AskError, ReplyTo};
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, Courier, CourierError, DeleteRequest,
    Delivery, Effect, EntityError, EventPage, EventQueries, EventSourced, Journal, JournalError,
    KeyStore as _, Letter, MemoryJournal, MemoryKeys, OffsetStore, Options, OutboxFinder, Parcel,
    PersistenceId, Receipt, SnapshotStore, event_sourced,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// What moved, for each other account, in order.
type Moved = BTreeMap<String, Vec<u64>>;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Account {
    balance: i64,
    paid: Moved,
    credited: Moved,
}

enum Command {
    Deposit(u64, ReplyTo<()>),
    Pay(&'static str, Vec<u64>, ReplyTo<()>),
    Look(ReplyTo<Account>),
    Delete(ReplyTo<Account>),
    Arrived(Delivery),
}

#[derive(Deserialize, Serialize)]
enum Event {
    Deposited(u64),
    Paid(String, u64),
    Credited(String, u64),
}

#[derive(Deserialize, Serialize)]
struct Credit(u64);

impl Letter for Credit {
    const KIND: &'static str = "account";
    const NAME: &'static str = "test.Credit";
    const VERSION: u16 = 1;
}

impl EventSourced for Account {
    type Command = Command;
    type Event = Event;
    type Snapshot = Self;
    const EVENT_NAME: &'static str = "test.Account";
    const EVENT_VERSION: u16 = 1;

    fn handle(&self, command: Command) -> Effect<Self> {
        match command {
            Command::Deposit(amount, reply_to) => {
                Effect::persist(Event::Deposited(amount)).reply(reply_to, ())
            }
            Command::Pay(to, amounts, reply_to) => {
                let paid = amounts.iter().map(|&n| Event::Paid(to.to_owned(), n));
                let effect = Effect::persist_all(paid.collect()).reply(reply_to, ());
                amounts
                    .into_iter()
                    .fold(effect, |effect, n| effect.send(to, Credit(n)))
            }
            Command::Look(reply_to) => Effect::none().reply(reply_to, self.clone()),
            Command::Delete(reply_to) => Effect::none()
                .delete()
                .reply_with(reply_to, |account: &Self| account.clone()),
            // Every third of what arrives at b goes on to c: a letter that sends a letter.
            Command::Arrived(delivery) => {
                Effect::receive(delivery, |_: &Self, from, Credit(amount)| {
                    let from = from.entity().to_owned();
                    let credited = Event::Credited(from.clone(), amount);
                    if from == "a" && amount.is_multiple_of(3) {
                        let on = Event::Paid("c".to_owned(), amount / 3);
                        Effect::persist_all(vec![credited, on]).send("c", Credit(amount / 3))
                    } else {
                        Effect::persist(credited)
                    }
                })
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Deposited(amount) => self.balance += *amount as i64,
            Event::Paid(to, amount) => {
                self.balance -= *amount as i64;
                self.paid.entry(to.clone()).or_default().push(*amount);
            }
            Event::Credited(from, amount) => {
                self.balance += *amount as i64;
                self.credited.entry(from.clone()).or_default().push(*amount);
            }
        }
    }

    fn snapshot(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn restore(&mut self, snapshot: Self) {
        *self = snapshot;
    }
}

fn id(name: &str) -> PersistenceId {
    PersistenceId::new("account", name)
}

/// A journal whose process dies with one of its appends: before it is written, or after.
struct Mortal {
    inner: MemoryJournal,
    appends_left: AtomicI64,
    writes_the_last: bool,
    dead: AtomicBool,
}

impl Mortal {
    fn new(inner: MemoryJournal, appends: i64, writes_the_last: bool) -> Arc<Self> {
        Arc::new(Self {
            inner,
            appends_left: AtomicI64::new(appends),
            writes_the_last,
            dead: AtomicBool::new(false),
        })
    }

    fn immortal(inner: MemoryJournal) -> Arc<Self> {
        Self::new(inner, i64::MAX, true)
    }

    fn living(&self) -> Result<&MemoryJournal, JournalError> {
        let dead = self.dead.load(Ordering::Acquire);
        if dead {
            Err(JournalError::Closed)
        } else {
            Ok(&self.inner)
        }
    }
}

impl Journal for Mortal {
    fn append(&self, request: AppendRequest) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            let inner = self.living()?;
            if self.appends_left.fetch_sub(1, Ordering::AcqRel) > 1 {
                return inner.append(request).await;
            }
            self.dead.store(true, Ordering::Release);
            if self.writes_the_last {
                inner.append(request).await?;
            }
            let reason = "the process died".into();
            Err(JournalError::Halted { reason }.into())
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        id: &'a PersistenceId,
        from_seq: u64,
        max: usize,
    ) -> BoxFuture<'a, Result<EventPage, JournalError>> {
        async move { self.living()?.read(id, from_seq, max).await }.boxed()
    }

    fn highest_seq<'a>(
        &'a self,
        id: &'a PersistenceId,
    ) -> BoxFuture<'a, Result<u64, JournalError>> {
        async move { self.living()?.highest_seq(id).await }.boxed()
    }

    fn claim<'a>(&'a self, scope: &'a str, epoch: u64) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.inner.claim(scope, epoch)
    }

    fn next_term<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<u64, JournalError>> {
        self.inner.next_term(scope)
    }

    fn delete(&self, request: DeleteRequest) -> BoxFuture<'_, Result<(), AppendError>> {
        async move { Journal::delete(self.living()?, request).await }.boxed()
    }

    fn snapshots(&self) -> Option<Arc<dyn SnapshotStore>> {
        self.inner.snapshots()
    }

    fn queries(&self) -> Option<Arc<dyn EventQueries>> {
        self.inner.queries()
    }

    fn offsets(&self) -> Option<Arc<dyn OffsetStore>> {
        self.inner.offsets()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// One process: the accounts that it runs, each started by its first message. It is its own courier.
struct Bank {
    me: Weak<Self>,
    system: ActorSystem,
    journal: Arc<dyn Journal>,
    options: Options,
    keys: Option<MemoryKeys>,
    accounts: Mutex<BTreeMap<String, ActorRef<Command>>>,
}

impl Bank {
    fn open(journal: Arc<dyn Journal>, options: Options) -> Arc<Self> {
        Self::open_with(journal, options, None)
    }

    fn open_with(
        journal: Arc<dyn Journal>,
        options: Options,
        keys: Option<MemoryKeys>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            system: ActorSystem::new("bank"),
            journal,
            options,
            keys,
            accounts: Mutex::default(),
        })
    }

    fn account(&self, name: &str) -> ActorRef<Command> {
        let mut accounts = self.accounts.lock().unwrap();
        if let Some(account) = accounts.get(name).filter(|account| !account.is_stopped()) {
            return account.clone();
        }
        let mut builder = event_sourced(id(name), Account::default, Arc::clone(&self.journal));
        if let Some(me) = self.me.upgrade() {
            builder = builder.courier(me);
        }
        if let Some(keys) = &self.keys {
            builder = builder.encrypted(Arc::new(keys.clone()));
        }
        let props = builder.options(self.options.clone()).props();
        let account = self.system.spawn_anonymous(props).unwrap();
        accounts.insert(name.to_owned(), account.clone());
        account
    }

    async fn deposit(&self, name: &str, amount: u64) -> Result<(), AskError> {
        let account = self.account(name);
        account
            .ask(|reply_to| Command::Deposit(amount, reply_to))
            .await
    }

    async fn pay(&self, from: &str, to: &'static str, amounts: &[u64]) -> Result<(), AskError> {
        let account = self.account(from);
        account
            .ask(|reply_to| Command::Pay(to, amounts.to_vec(), reply_to))
            .await
    }

    async fn look(&self, name: &str) -> Account {
        self.account(name).ask(Command::Look).await.unwrap()
    }

    fn finder(self: &Arc<Self>) -> OutboxFinder {
        let finder = OutboxFinder::new(Arc::clone(&self.journal), Arc::clone(self) as _).unwrap();
        finder.grace(Duration::ZERO).again(Duration::from_secs(5))
    }

    /// Waits until no letter waits, as the journal says; nobody but the finder touches a sender.
    async fn until_delivered(self: &Arc<Self>) {
        let mut finder = self.finder();
        for _ in 0..1_000 {
            if finder.round().await.unwrap() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("letters are not delivered");
    }
}

impl Courier for Bank {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
        async move {
            let target = parcel.target().unwrap();
            let account = self.account(target.entity());
            let asked = account.ask(|reply_to| Command::Arrived(Delivery::new(parcel, reply_to)));
            asked
                .await
                .map_err(|error| CourierError::new(error.to_string()))
        }
        .boxed()
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

async fn fund(journal: &MemoryJournal, keys: Option<MemoryKeys>) {
    let journal = Mortal::immortal(journal.clone());
    let bank = Bank::open_with(journal, Options::default(), keys);
    for name in NAMES {
        bank.deposit(name, 100).await.unwrap();
    }
    bank.system.shutdown().await;
}

/// What was paid was credited, once and in order, and no money is made or lost.
async fn check(bank: &Bank, what: &str) {
    let mut accounts = BTreeMap::new();
    for name in NAMES {
        accounts.insert(name.to_owned(), bank.look(name).await);
    }
    let sum: i64 = accounts.values().map(|account| account.balance).sum();
    assert_eq!(sum, 300, "{what}: {accounts:?}");
    for (from, sender) in &accounts {
        for (to, target) in &accounts {
            let (paid, credited) = (sender.paid.get(to), target.credited.get(from));
            assert_eq!(paid, credited, "{what}: {from} to {to}");
        }
    }
}

/// P9: the process dies with the n-th append, before or after it is written, for every n; then the next
/// process finds by itself what waits. Effects are exactly once.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_neither_loses_nor_repeats_an_effect() {
    let often = Options::default().snapshot_every(1);
    let forgetful = often.clone().delete_covered_events(true);
    for (options, is_encrypted) in [
        (Options::default(), false),
        (often, false),
        (forgetful, true),
    ] {
        for writes_the_last in [false, true] {
            let mut survived = false;
            for appends in 1.. {
                assert!(appends < 100, "it never gets through");
                let what = format!("append {appends}, written: {writes_the_last}");
                let content = MemoryJournal::new();
                let keys = is_encrypted.then(MemoryKeys::new);
                fund(&content, keys.clone()).await;
                let mortal = Mortal::new(content.clone(), appends, writes_the_last);
                let journal = Arc::clone(&mortal) as _;
                let bank = Bank::open_with(journal, options.clone(), keys.clone());
                let _ = bank.pay("a", "b", &[30, 7]).await;
                let _ = bank.pay("a", "c", &[5]).await;
                let _ = bank.pay("a", "b", &[3]).await;
                let died = async {
                    while !mortal.dead.load(Ordering::Acquire) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                // If it lives on, everything is done long before.
                let lives = tokio::time::timeout(Duration::from_secs(60), died)
                    .await
                    .is_err();
                bank.system.shutdown().await;
                let journal = Mortal::immortal(content.reopen());
                let next = Bank::open_with(journal, options.clone(), keys);
                next.until_delivered().await;
                check(&next, &what).await;
                next.system.shutdown().await;
                if lives {
                    survived = true;
                    break;
                }
            }
            assert!(survived);
        }
    }
}

/// A letter that comes again, too early, of an unknown type or at the wrong door changes nothing.
#[tokio::test(start_paused = true)]
async fn a_letter_counts_once_and_in_order() {
    let journal = MemoryJournal::new();
    let bank = Bank::open(Mortal::immortal(journal.clone()), Options::default());
    bank.pay("a", "b", &[8, 10]).await.unwrap();
    bank.until_delivered().await;
    let before = bank.look("b").await;
    assert_eq!(before.balance, 18);
    let stored = journal.read(&id("a"), 1, 99).await.unwrap();
    let names: Vec<_> = stored
        .events
        .iter()
        .map(|e| e.record.name.to_string())
        .collect();
    assert_eq!(
        names[..4],
        [
            "test.Account",
            "test.Account",
            "otava.outgoing",
            "otava.outgoing"
        ]
    );
    let mut parcel = Parcel::wake(&id("b"));
    assert_eq!(
        bank.deliver(parcel.clone()).await,
        Ok(Receipt::Taken { up_to: 0 })
    );
    (parcel.from, parcel.name) = (id("a").as_str().into(), Credit::NAME.into());
    parcel.payload = otava_persistence::format::encode(&Credit(5)).unwrap();
    for (number, receipt) in [
        (1, Receipt::Taken { up_to: 2 }),
        (2, Receipt::Taken { up_to: 2 }),
        (4, Receipt::Gap { expected: 3 }),
    ] {
        parcel.number = number;
        assert_eq!(bank.deliver(parcel.clone()).await, Ok(receipt));
    }
    parcel.number = 3;
    for (name, version) in [("test.Other", 1), (Credit::NAME, 2)] {
        (parcel.name, parcel.version) = (name.into(), version);
        let receipt = bank.deliver(parcel.clone()).await.unwrap();
        assert!(
            matches!(&receipt, Receipt::Refused { reason } if reason.contains("not known here"))
        );
    }
    (parcel.name, parcel.version) = (Credit::NAME.into(), 1);
    let door = bank.account("c");
    let wrong = door
        .ask(|reply_to| Command::Arrived(Delivery::new(parcel.clone(), reply_to)))
        .await;
    assert!(matches!(wrong, Ok(Receipt::Refused { .. })), "{wrong:?}");
    assert_eq!(bank.look("b").await, before);
    assert_eq!(bank.deliver(parcel).await, Ok(Receipt::Taken { up_to: 3 }));
    assert_eq!(bank.look("b").await.balance, 23);
    bank.system.shutdown().await;
}

/// A target that answers nothing holds up no other, and gets its letters in the end.
#[tokio::test(start_paused = true)]
async fn one_dead_target_holds_up_no_other() {
    struct Half(Arc<Bank>, AtomicBool);
    impl Courier for Half {
        fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
            if &*parcel.to == "account|b" && !self.1.load(Ordering::Relaxed) {
                return async { panic!("no way to b") }.boxed();
            }
            self.0.deliver(parcel)
        }
    }
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let bank = Bank::open(Arc::clone(&journal), Options::default());
    let half = Arc::new(Half(Arc::clone(&bank), AtomicBool::new(false)));
    let a = event_sourced(id("a"), Account::default, Arc::clone(&journal))
        .courier(Arc::clone(&half) as _)
        .props();
    let a = bank.system.spawn_anonymous(a).unwrap();
    for (to, n) in [("b", 1), ("c", 2), ("b", 3), ("c", 4)] {
        a.ask(|reply_to| Command::Pay(to, vec![n], reply_to))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(bank.look("c").await.credited["a"], [2, 4]);
    assert_eq!(bank.look("b").await, Account::default());
    half.1.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bank.look("b").await.credited["a"], [1, 3]);
    bank.system.shutdown().await;
}

/// Far more targets that answer nothing than may be delivered to at once: those that do answer get
/// theirs at once all the same, and all the others when they answer.
#[tokio::test(start_paused = true)]
async fn many_dead_targets_hold_up_no_living_one() {
    struct Deaf(Arc<Bank>, AtomicBool);
    impl Courier for Deaf {
        fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
            if parcel.to.starts_with("account|dead") && !self.1.load(Ordering::Relaxed) {
                return async { Err(CourierError::new("dead")) }.boxed();
            }
            self.0.deliver(parcel)
        }
    }
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let bank = Bank::open(Arc::clone(&journal), Options::default());
    let deaf = Arc::new(Deaf(Arc::clone(&bank), AtomicBool::new(false)));
    let a = event_sourced(id("a"), Account::default, Arc::clone(&journal))
        .courier(Arc::clone(&deaf) as _)
        .props();
    let a = bank.system.spawn_anonymous(a).unwrap();
    let dead: Vec<&'static str> = (0..200)
        .map(|n| &*Box::leak(format!("dead-{n}").into_boxed_str()))
        .collect();
    for &to in dead.iter().chain(&["living"]) {
        a.ask(|reply_to| Command::Pay(to, vec![1, 2], reply_to))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bank.look("living").await.credited["a"], [1, 2]);
    deaf.1.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    for to in dead {
        assert_eq!(bank.look(to).await.credited["a"], [1, 2], "{to}");
    }
    bank.system.shutdown().await;
}

/// A deleted account takes no letter twice, sends what it had sent, and numbers go on.
#[tokio::test(start_paused = true)]
async fn letters_outlive_a_deletion() {
    let content = MemoryJournal::new();
    let options = Options::default().snapshot_every(1);
    let bank = Bank::open(Mortal::immortal(content.clone()), options.clone());
    bank.pay("a", "b", &[8]).await.unwrap();
    bank.until_delivered().await;
    bank.pay("b", "c", &[1]).await.unwrap();
    let emptied = bank.account("b").ask(Command::Delete).await.unwrap();
    assert_eq!(emptied, Account::default());
    let page = content.read(&id("b"), 1, 99).await.unwrap();
    assert!(page.deleted_seq > 0 && *page.events[0].record.name == *"otava.deleted");
    bank.system.shutdown().await;
    let bank = Bank::open(Mortal::immortal(content.reopen()), options);
    bank.pay("a", "b", &[5]).await.unwrap();
    bank.until_delivered().await;
    assert_eq!(
        bank.look("b").await.credited,
        BTreeMap::from([("a".to_owned(), vec![5])])
    );
    assert_eq!(bank.look("c").await.credited["b"], [1]);
    bank.system.shutdown().await;
}

/// Many letters from one to another, more than one child takes, arrive in order and once.
#[tokio::test(start_paused = true)]
async fn a_thousand_letters_arrive_in_order() {
    let options = Options::default()
        .snapshot_every(50)
        .delete_covered_events(true);
    let bank = Bank::open(Arc::new(MemoryJournal::new()), options);
    for n in 0..10 {
        let amounts: Vec<_> = (0..100).map(|m| n * 300 + 3 * m + 1).collect();
        bank.pay("a", "b", &amounts).await.unwrap();
    }
    bank.until_delivered().await;
    let expected: Vec<_> = (0..1_000).map(|n| 3 * n + 1).collect();
    assert_eq!(bank.look("b").await.credited["a"], expected);
    bank.system.shutdown().await;
}

/// The sender of many letters dies when some are taken and their records deleted: a finder that saw
/// them all finds the others.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_many_letters_is_found() {
    struct UpTo(Arc<Bank>, AtomicU64);
    impl Courier for UpTo {
        fn deliver(&self, parcel: Parcel) -> BoxFuture<'_, Result<Receipt, CourierError>> {
            if parcel.number > self.1.load(Ordering::Relaxed) {
                return async { Err(CourierError::new("not yet")) }.boxed();
            }
            self.0.deliver(parcel)
        }
    }
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let options = Options::default()
        .snapshot_every(1)
        .snapshots_kept(NonZeroU32::MIN)
        .delete_covered_events(true);
    let bank = Bank::open(Arc::clone(&journal), options.clone());
    let next = Bank::open(Arc::clone(&journal), options.clone());
    let up_to = Arc::new(UpTo(Arc::clone(&bank), AtomicU64::new(0)));
    let a = event_sourced(id("a"), Account::default, Arc::clone(&journal))
        .courier(Arc::clone(&up_to) as _)
        .options(options)
        .props();
    let a = bank.system.spawn_anonymous(a).unwrap();
    let amounts: Vec<u64> = (0..100).map(|n| 3 * n + 1).collect();
    a.ask(|reply_to| Command::Pay("b", amounts.clone(), reply_to))
        .await
        .unwrap();
    let grace = Duration::from_secs(1_000);
    let mut finder = next.finder().grace(grace);
    assert_eq!(finder.round().await.unwrap(), 1);
    up_to.1.store(80, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(300)).await;
    bank.system.shutdown().await;
    // The letters are the records 101 to 200.
    let page = journal.read(&id("a"), 1, 1).await.unwrap();
    assert_eq!(page.deleted_seq, 180);
    assert_eq!(finder.round().await.unwrap(), 1);
    tokio::time::sleep(grace * 2).await;
    finder.round().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(next.look("b").await.credited["a"], amounts);
    next.system.shutdown().await;
}

/// Events, letters that wait and snapshots are encrypted; when the key is gone nothing of it is read.
#[tokio::test(start_paused = true)]
async fn a_shredded_account_is_unreadable_for_good() {
    let (content, keys) = (MemoryJournal::new(), MemoryKeys::new());
    let options = Options::default().snapshot_every(2);
    let open = || {
        Bank::open_with(
            Arc::new(content.clone()),
            options.clone(),
            Some(keys.clone()),
        )
    };
    let bank = open();
    bank.deposit("a", 70_000).await.unwrap();
    bank.pay("a", "nobody-has-this-name", &[4, 5])
        .await
        .unwrap();
    assert_eq!(bank.look("a").await.balance, 69_991);
    bank.system.shutdown().await;
    let page = content.read(&id("a"), 1, 99).await.unwrap();
    for stored in &page.events {
        let record = &stored.record;
        // Whom a letter is for stands in the clear, so that it is found without the key.
        let is_letter = record.name.starts_with("otava.");
        let shows = record.payload.windows(6).any(|part| part == b"nobody");
        assert_eq!(shows, is_letter, "{record:?}");
        assert!(is_letter || record.payload[0] == 2);
    }
    let bank = open();
    assert_eq!(bank.look("a").await.balance, 69_991);
    bank.system.shutdown().await;
    keys.shred(&id("a")).await.unwrap();
    let bank = open();
    let asked = bank.account("a").ask(Command::Look).await;
    assert!(asked.is_err(), "{asked:?}");
    bank.system.shutdown().await;
    let bank = Bank::open(Arc::new(content.clone()), options);
    let asked = bank.account("a").ask(Command::Look).await;
    assert!(asked.is_err(), "without keys: {asked:?}");
    bank.system.shutdown().await;
}

/// A command that would let too many letters wait has no effect; others have.
#[tokio::test(start_paused = true)]
async fn too_many_waiting_letters_refuse_a_command() {
    let max = std::num::NonZeroUsize::new(3).unwrap();
    let options = Options::default().letters_waiting_max(max);
    let bank = Bank::open(Arc::new(MemoryJournal::new()), options);
    let refused = bank.pay("a", "b", &[1, 2, 4, 5]).await;
    assert!(
        matches!(refused, Err(AskError::NoReply { .. })),
        "{refused:?}"
    );
    bank.pay("a", "b", &[1, 2, 4]).await.unwrap();
    bank.until_delivered().await;
    bank.pay("a", "b", &[5]).await.unwrap();
    bank.until_delivered().await;
    assert_eq!(bank.look("b").await.credited["a"], [1, 2, 4, 5]);
    bank.system.shutdown().await;
}

/// Without a way to others a letter cannot be sent, and nothing is persisted.
#[tokio::test]
async fn without_a_courier_nothing_is_persisted() {
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
    let system = ActorSystem::new("test");
    let props = event_sourced(id("a"), Account::default, Arc::clone(&journal)).props();
    let a = system.spawn_anonymous(props).unwrap();
    let asked = a.ask(|reply_to| Command::Pay("b", vec![1], reply_to)).await;
    assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    assert_eq!(journal.highest_seq(&id("a")).await.unwrap(), 0);
    let (id, to) = (id("a"), id("b"));
    let error = EntityError::NoCourier { id, to }.to_string();
    assert_eq!(
        error,
        "account|a: a letter to account|b, but no courier was given"
    );
    system.shutdown().await;
}
