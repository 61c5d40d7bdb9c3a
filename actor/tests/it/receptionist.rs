//! Proves: L9, whoever looks for a service finds the living ones, and only those.

use crate::support::{Adder, Log, Order, Puppet, SOON, Sums, system};
use otava_actor::receptionist::{KeyError, WaitForError};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, Listing, Props, Receptionist, ReplyTo, ServiceKey,
    Terminated,
};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
static ADDERS: ServiceKey<Sums> = ServiceKey::new("adders");

fn adder(system: &ActorSystem, name: &str) -> ActorRef<Sums> {
    system.spawn(name, Adder(0)).unwrap()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// L9: a service comes, dies, and comes again.
#[tokio::test(start_paused = true)]
async fn a_subscriber_sees_services_come_and_go() {
    let system = system();
    let receptionist = system.receptionist();
    let first = adder(&system, "a");
    receptionist.register(&ADDERS, &first).unwrap();
    let mut probe = TestProbe::<Listing<Sums>>::new(&system);
    receptionist.subscribe(&ADDERS, probe.actor_ref()).unwrap();
    receptionist.subscribe(&ADDERS, probe.actor_ref()).unwrap();
    let begun = Instant::now();
    assert_eq!(
        probe.expect_msg(SOON).await.actors(),
        std::slice::from_ref(&first)
    );
    let second = adder(&system, "b");
    receptionist.register(&ADDERS, &second).unwrap();
    let both = [first.clone(), second.clone()];
    assert_eq!(probe.expect_msg(SOON).await.actors(), both);
    first.stop();
    assert_eq!(
        probe.expect_msg(SOON).await.actors(),
        std::slice::from_ref(&second)
    );
    let again = adder(&system, "a");
    receptionist.register(&ADDERS, &again).unwrap();
    let listing = probe.expect_msg(SOON).await;
    assert_eq!(listing.actors(), [again, second]);
    assert_eq!((listing.len(), listing.key()), (2, &ADDERS));
    assert!(begun.elapsed() < 100 * MS);
    probe.expect_no_msg(SOON).await;
}

/// L9: nothing is left of a dead subscriber, nor of one that unsubscribed.
#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_its_subscriber() {
    let system = system();
    let receptionist = system.receptionist();
    let before = tasks();
    let mut probes: Vec<_> = (0..2)
        .map(|_| TestProbe::<Listing<Sums>>::new(&system))
        .collect();
    for probe in &mut probes {
        receptionist.subscribe(&ADDERS, probe.actor_ref()).unwrap();
        assert!(probe.expect_msg(SOON).await.is_empty());
    }
    assert_eq!(tasks(), before + 2);
    probes[0].actor_ref().stop();
    let last = probes[1].actor_ref().clone();
    assert_eq!(receptionist.unsubscribe(&ADDERS, &last), Ok(true));
    assert_eq!(receptionist.unsubscribe(&ADDERS, &last), Ok(false));
    tokio::time::sleep(MS).await;
    assert_eq!(tasks(), before);
    receptionist
        .register(&ADDERS, &adder(&system, "a"))
        .unwrap();
    probes[1].expect_no_msg(SOON).await;
    // A subscriber that is dead from the start.
    let dead = probes[0].actor_ref();
    receptionist.subscribe(&ADDERS, dead).unwrap();
    tokio::time::sleep(MS).await;
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn registrations_are_taken_back_or_end_with_the_actor() {
    let system = system();
    let receptionist = system.receptionist();
    let other = ServiceKey::<Sums>::named(String::from("others"));
    let found = |key| receptionist.find(key).unwrap().len();
    assert_eq!(found(&ADDERS), 0);
    let actor = adder(&system, "a");
    for key in [&ADDERS, &ADDERS, &other] {
        receptionist.register(key, &actor).unwrap();
    }
    assert_eq!((found(&ADDERS), found(&other)), (1, 1));
    assert_eq!(receptionist.deregister(&ADDERS, &actor), Ok(true));
    assert_eq!(receptionist.deregister(&ADDERS, &actor), Ok(false));
    assert_eq!((found(&ADDERS), found(&other)), (0, 1));
    actor.stop();
    assert_eq!(found(&other), 0, "it accepts nothing any more");
    tokio::time::sleep(MS).await;
    receptionist.register(&ADDERS, &actor).unwrap();
    assert_eq!(
        receptionist.deregister(&ADDERS, &actor),
        Ok(false),
        "it is dead"
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_one_type_of_messages() {
    let system = system();
    let receptionist = system.receptionist();
    let wrong = ServiceKey::<u32>::new("adders");
    assert_eq!(
        receptionist.find(&wrong).unwrap().len(),
        0,
        "nobody has the name"
    );
    receptionist
        .register(&ADDERS, &adder(&system, "a"))
        .unwrap();
    let error = receptionist.find(&wrong).unwrap_err();
    let KeyError::OtherType { key, given, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((key.as_str(), *given), ("adders", "u32"));
    let probe = TestProbe::<u32>::new(&system);
    assert_eq!(
        receptionist.register(&wrong, probe.actor_ref()),
        Err(error.clone())
    );
    assert!(receptionist.listings(&wrong).is_err());
    let waited = receptionist.wait_for(&wrong, 1, SOON).await;
    assert_eq!(waited, Err(WaitForError::Key(error)));
}

#[tokio::test(start_paused = true)]
async fn code_that_is_no_actor_waits_for_a_number_of_services() {
    let system = system();
    let receptionist = system.receptionist();
    receptionist
        .register(&ADDERS, &adder(&system, "a"))
        .unwrap();
    assert_eq!(
        receptionist.wait_for(&ADDERS, 1, MS).await.unwrap().len(),
        1
    );
    let error = receptionist.wait_for(&ADDERS, 2, SOON).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 of 2 actors were registered as \"adders\" within 10s"
    );
    let (second, waiting) = (adder(&system, "b"), receptionist.clone());
    let waiting = tokio::spawn(async move { waiting.wait_for(&ADDERS, 2, SOON).await });
    tokio::time::sleep(MS).await;
    receptionist.register(&ADDERS, &second).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn code_that_is_no_actor_follows_the_listings() {
    let system = system();
    let receptionist = system.receptionist();
    let mut listings = receptionist.listings(&ADDERS).unwrap();
    assert!(listings.recv().await.unwrap().is_empty());
    let [a, b] = ["a", "b"].map(|name| adder(&system, name));
    receptionist.register(&ADDERS, &a).unwrap();
    receptionist.register(&ADDERS, &b).unwrap();
    assert_eq!(
        listings.recv().await.unwrap().actors(),
        [a.clone(), b.clone()]
    );
    assert!(tokio::time::timeout(SOON, listings.recv()).await.is_err());
    a.stop();
    assert_eq!(
        listings.recv().await.unwrap().actors(),
        std::slice::from_ref(&b)
    );
    drop((receptionist, a, b));
    drop(system);
    assert!(
        listings.recv().await.unwrap().is_empty(),
        "the system stops its actors"
    );
    assert_eq!(listings.recv().await, None);
}

/// Keeps what it is told, each after a while.
struct Slow(Arc<Mutex<Vec<usize>>>);

impl Actor for Slow {
    type Msg = Listing<Sums>;
    type Err = Infallible;

    async fn handle(
        &mut self,
        listing: Listing<Sums>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        tokio::time::sleep(SOON).await;
        self.0.lock().unwrap().push(listing.len());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_subscriber_gets_the_newest_listing_in_the_end() {
    let (system, seen) = (system(), Arc::new(Mutex::new(Vec::new())));
    let receptionist = system.receptionist();
    let props = Props::once(Slow(seen.clone())).mailbox_capacity(NonZeroUsize::MIN);
    let slow = system.spawn_with("slow", props).unwrap();
    receptionist.subscribe(&ADDERS, &slow).unwrap();
    for n in 0..50 {
        receptionist
            .register(&ADDERS, &adder(&system, &format!("a{n}")))
            .unwrap();
        tokio::time::sleep(MS).await;
    }
    tokio::time::sleep(10 * SOON).await;
    let seen = seen.lock().unwrap();
    assert!(seen.len() <= 5, "{seen:?}");
    assert!(seen.is_sorted() && seen.last() == Some(&50), "{seen:?}");
}

/// The conversion is code of the user.
#[tokio::test(start_paused = true)]
async fn a_conversion_that_panics_costs_one_listing() {
    struct Odd(usize);
    impl From<Listing<Sums>> for Odd {
        fn from(listing: Listing<Sums>) -> Self {
            assert!(listing.len() % 2 == 1, "an even number");
            Self(listing.len())
        }
    }
    let system = system();
    let receptionist = system.receptionist();
    let mut probe = TestProbe::<Odd>::new(&system);
    receptionist.subscribe(&ADDERS, probe.actor_ref()).unwrap();
    for n in 1..=3 {
        receptionist
            .register(&ADDERS, &adder(&system, &format!("a{n}")))
            .unwrap();
        tokio::time::sleep(MS).await;
    }
    assert_eq!(probe.expect_msg(SOON).await.0, 1);
    assert_eq!(probe.expect_msg(SOON).await.0, 3);
}

/// Neither registrations nor subscriptions keep a system alive.
#[tokio::test(start_paused = true)]
async fn a_dropped_system_ends_although_actors_are_registered() {
    let before = tasks();
    let (system, log) = (system(), Log::default());
    let receptionist = system.receptionist();
    let actor = system.spawn("a", Puppet::new("a", &log)).unwrap();
    let key = ServiceKey::<Order>::new("puppets");
    receptionist.register(&key, &actor).unwrap();
    let probe = TestProbe::<Listing<Order>>::new(&system);
    let subscriber = probe.actor_ref().clone();
    receptionist.subscribe(&key, &subscriber).unwrap();
    tokio::time::sleep(MS).await;
    drop((probe, system));
    tokio::time::sleep(MS).await;
    assert!(actor.is_stopped() && subscriber.is_stopped());
    assert_eq!(tasks(), before);
    assert_eq!(log.take(), ["a: started", "a: stopped"]);
}

/// Looks for a service whenever one of those that it watches has ended.
struct Seeker {
    watched: Vec<ActorRef<Sums>>,
    receptionist: Receptionist,
    answer: Option<ReplyTo<usize>>,
    found_dead: usize,
}

impl Actor for Seeker {
    type Msg = ReplyTo<usize>;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        self.watched.iter().for_each(|actor| ctx.watch(actor));
        Ok(())
    }

    async fn handle(
        &mut self,
        reply_to: ReplyTo<usize>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.answer = Some(reply_to);
        self.watched.iter().for_each(ActorRef::stop);
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let listing = self.receptionist.find(&ADDERS).unwrap();
        let dead = listing.actors().iter().filter(|actor| who.is(actor));
        self.found_dead += dead.count();
        self.watched.retain(|actor| !who.is(actor));
        if self.watched.is_empty()
            && let Some(answer) = self.answer.take()
        {
            let _ = answer.send(self.found_dead);
        }
        Ok(())
    }
}

/// L9: on threads, whoever knows that an actor is dead does not find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_finds_an_actor_of_whose_end_they_know() {
    let system = ActorSystem::new("test");
    let receptionist = system.receptionist();
    let watched: Vec<_> = (0..500).map(|n| adder(&system, &format!("a{n}"))).collect();
    let seeker = Seeker {
        watched: watched.clone(),
        receptionist: receptionist.clone(),
        answer: None,
        found_dead: 0,
    };
    let seeker = system.spawn("seeker", seeker).unwrap();
    let registers = {
        let receptionist = receptionist.clone();
        tokio::spawn(async move {
            for actor in &watched {
                receptionist.register(&ADDERS, actor).unwrap();
            }
        })
    };
    let found_dead = seeker.ask(|reply_to| reply_to).within(SOON * 3).await;
    assert_eq!(found_dead, Ok(0));
    registers.await.unwrap();
    assert!(receptionist.find(&ADDERS).unwrap().is_empty());
    let mut listings = receptionist.listings(&ADDERS).unwrap();
    assert!(
        listings.recv().await.unwrap().is_empty(),
        "none is left behind"
    );
}
