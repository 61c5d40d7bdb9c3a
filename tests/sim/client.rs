//! Proves: a client uses a cluster without being one of it, over the loss of a contact, the same way twice.

use crate::counter::{Command, Counter};
use crate::fleet::{SHARDS, start};
use crate::world::{World, addr, seed};
use otava::prelude::*;
use otava::{Client, PeerIdentity, Published};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(2);
const IN_THE_END: Duration = Duration::from_secs(60);

/// Not exported to clients.
#[derive(Deserialize, Serialize)]
struct Admin(#[serde(with = "otava::wire")] ReplyTo<()>);

impl RemoteMessage for Admin {
    const NAME: &'static str = "sim.Admin";
}

/// On each node; says on which.
struct Desk(u64);

impl Actor for Desk {
    type Msg = Command;
    type Err = Infallible;

    async fn handle(&mut self, command: Command, _: &mut Context<Self>) -> Result<(), Infallible> {
        if let Command::Get(reply_to) = command {
            let _ = reply_to.send(vec![self.0]);
        }
        Ok(())
    }
}

struct Office;

impl Actor for Office {
    type Msg = Admin;
    type Err = Infallible;

    async fn handle(
        &mut self,
        Admin(reply_to): Admin,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let _ = reply_to.send(());
        Ok(())
    }
}

/// Which node answers, asked again until one does.
async fn answers(desk: &Published<Command>) -> u64 {
    let from = Instant::now();
    loop {
        let asked = desk.actor().unwrap().ask(Command::Get);
        match asked.within(SOON).await {
            Ok(numbers) => return numbers[0],
            Err(error) => assert!(from.elapsed() < IN_THE_END, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn story(seed: u64) -> Vec<String> {
    let mut world = World::new(seed, 2);
    let mut members = Vec::new();
    for number in 1..=3 {
        members.push(start(&mut world, number).await);
    }
    for (number, member) in (1..).zip(&members) {
        member.node.join().await.unwrap();
        let system = member.node.system();
        let desk = system.spawn_anonymous(Props::once(Desk(number))).unwrap();
        let office = system.spawn_anonymous(Props::once(Office)).unwrap();
        member.node.remote().publish("desk", &desk).unwrap();
        member.node.remote().publish("office", &office).unwrap();
    }
    for member in &members {
        member.counters.all_hosted().await;
    }
    let from = Instant::now();
    let mut log = Vec::new();
    let mut note = |what: String| log.push(format!("{:?} {what}", from.elapsed()));

    let identity = PeerIdentity::client("client");
    let network = Arc::new(world.net.network_as(addr(99), identity));
    let client = Client::builder("sim", "client", [addr(1), addr(2)])
        .network(network)
        .seed(seed)
        .start()
        .unwrap();
    client.connected(SOON).await.unwrap();
    let counters = client.entities::<Command>(Counter::KIND, SHARDS).unwrap();
    let desk = client.published::<Command>("desk");
    for n in 0..10 {
        let entity = counters.entity(format!("c-{n}"));
        let taken = entity.ask(|reply_to| Command::Take(n, reply_to));
        note(format!("take {n}: {:?}", taken.within(SOON).await));
    }
    let contact = answers(&desk).await;
    assert_eq!(answers(&desk).await, contact, "it stays with one");
    note(format!("contact {contact}"));
    let office = client.published::<Admin>("office").actor().unwrap();
    let refused = office.ask(Admin).within(IN_THE_END).await;
    assert!(
        matches!(refused, Err(AskError::NotPermitted { .. })),
        "{refused:?}"
    );

    world.net.crash(addr(u16::try_from(contact).unwrap()));
    let other = answers(&desk).await;
    assert_eq!(other, 3 - contact);
    note(format!("contact {other}"));
    for n in 10..20 {
        let mut tries = 0;
        loop {
            let entity = counters.entity(format!("c-{n}"));
            let taken = entity.ask(|reply_to| Command::Take(n, reply_to));
            match taken.within(SOON).await {
                Ok(()) => break note(format!("take {n} after {tries}")),
                Err(_) => tries += 1,
            }
            assert!(from.elapsed() < 2 * IN_THE_END, "{n}");
            sleep(Duration::from_millis(100)).await;
        }
    }
    let known = members[2].node.state();
    assert!(
        known.members.keys().all(|node| &*node.name != "client"),
        "{known:?}"
    );
    client.shutdown().await;
    log
}

/// X9: a client with a certificate of its own kind uses what is exported to clients and nothing else; when
/// its contact is lost it goes on with the other; and with a seed all of it replays.
#[test]
fn a_client_outlives_its_contact_the_same_way_twice() {
    let seed = seed();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(story(seed))
    };
    let first = run();
    assert!(first[0].ends_with("take 0: Ok(())"), "{first:#?}");
    assert_eq!(first, run(), "seed {seed}");
}
