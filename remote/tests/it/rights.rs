//! Rights: a peer reaches the protocols that it was granted, and learns what it was not.

use crate::cuts::{SOON, addr};
use crate::nodes::{Command, Counter, Number, Reference};
use bytes::Bytes;
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, AskError, Ended, Props};
use otava_remote::{Channel, NodeId, PeerIdentity, PeerKind, Remote, Rights, VirtualWorld, Who};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Waits until all that was said has been heard.
const A_WHILE: Duration = Duration::from_secs(2);

fn start(world: &VirtualWorld, port: u16, identity: PeerIdentity, rights: Rights) -> Remote {
    let name = identity.name().to_owned();
    let network = Arc::new(world.network_as(addr(port), identity));
    let system = ActorSystem::new(&name);
    let builder = Remote::builder(&system, "test", &name, network);
    // Each run has a number of its own.
    let seed = name
        .bytes()
        .fold(u64::from(port), |seed, byte| seed * 31 + u64::from(byte));
    let builder = builder.rights(rights).seeded(seed);
    builder.start().unwrap()
}

fn counter(remote: &Remote) -> ActorRef<Command> {
    let counter = remote
        .system()
        .spawn_anonymous(Props::once(Counter(0)))
        .unwrap();
    remote.publish("counter", &counter).unwrap();
    counter
}

async fn refused(counter: &ActorRef<Command>) {
    let answer = counter
        .ask(Command::Get)
        .within(Duration::from_secs(60))
        .await;
    assert!(
        matches!(answer, Err(AskError::NotPermitted { .. })),
        "{answer:?}"
    );
}

/// X9: by default members reach what is published, clients do not, and learn that at once.
#[tokio::test(start_paused = true)]
async fn clients_reach_only_what_is_exported_to_them() {
    let world = VirtualWorld::new(1);
    let closed = start(&world, 1, PeerIdentity::member("closed"), Rights::default());
    let rights = Rights::default().export_to_clients::<Command>();
    let open = start(&world, 2, PeerIdentity::member("open"), rights);
    let member = start(&world, 3, PeerIdentity::member("m"), Rights::default());
    let client = start(&world, 4, PeerIdentity::client("c"), Rights::default());
    let (_one, _two) = (counter(&closed), counter(&open));
    for (asker, node, permitted) in [
        (&member, &closed, true),
        (&member, &open, true),
        (&client, &closed, false),
        (&client, &open, true),
    ] {
        let counter = asker.resolve::<Command>(node.id(), "counter");
        let before = node.stats().not_permitted;
        if permitted {
            assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
        } else {
            refused(&counter).await;
            counter.tell(Command::Add(1)).unwrap();
            tokio::time::sleep(A_WHILE).await;
            assert_eq!(node.stats().not_permitted, before + 2);
        }
        assert_eq!(asker.stats().open_ports, 0);
    }
    let seen = member.resolve::<Command>(closed.id(), "counter");
    assert_eq!(
        seen.ask(Command::Get).within(SOON).await,
        Ok(0),
        "the tell did nothing"
    );
}

/// A right belongs to a peer: a reference that a client was given, or that a peer without the role has,
/// gives none. What the client itself hands out is reached by members.
#[tokio::test(start_paused = true)]
async fn a_reference_gives_no_right() {
    let world = VirtualWorld::new(2);
    let rights =
        Rights::default().protocol::<Command>(Who::nobody().or_role("teller").or_peer("boss"));
    let node = start(&world, 1, PeerIdentity::member("node"), rights);
    let _counter = counter(&node);
    let teller = start(
        &world,
        2,
        PeerIdentity::client("t").role("teller"),
        Rights::default(),
    );
    let boss = start(&world, 3, PeerIdentity::member("boss"), Rights::default());
    let other = start(&world, 4, PeerIdentity::member("other"), Rights::default());
    for granted in [&teller, &boss] {
        let counter = granted.resolve::<Command>(node.id(), "counter");
        let Reference(me) = counter.ask(Command::Me).within(SOON).await.unwrap();
        assert_eq!(me.ask(Command::Get).within(SOON).await, Ok(0));
    }
    refused(&other.resolve(node.id(), "counter")).await;
    let known = node.identity_of(teller.id()).unwrap();
    assert!(known.has_role("teller") && known.kind() == PeerKind::Client);
    assert_eq!(
        node.identity_of(&NodeId::new("t", addr(2), 1)),
        None,
        "another run"
    );

    // The teller passes its reference on.
    let counter = teller.resolve::<Command>(node.id(), "counter");
    let Reference(me) = counter.ask(Command::Me).within(SOON).await.unwrap();
    let mut probe = TestProbe::<Reference>::new(other.system());
    other.publish("inbox", probe.actor_ref()).unwrap();
    let inbox = boss.resolve::<Reference>(other.id(), "inbox");
    let from_boss = boss.resolve::<Command>(node.id(), "counter");
    let Reference(by_boss) = from_boss.ask(Command::Me).within(SOON).await.unwrap();
    inbox.tell(Reference(by_boss)).unwrap();
    let Reference(passed_on) = probe.expect_msg(SOON).await;
    refused(&passed_on).await;

    // Numbers come to the client, though it grants nothing to anybody but members.
    let mut numbers = TestProbe::<Number>::new(teller.system());
    me.tell(Command::Count(3, numbers.actor_ref().clone()))
        .unwrap();
    for n in 0..3 {
        assert_eq!(numbers.expect_msg(SOON).await.0, n);
    }
}

/// X9: to watch is a right like any other, to stop is nobody's, and control messages are for members.
#[tokio::test(start_paused = true)]
async fn watches_and_control_messages_need_a_right_too() {
    let world = VirtualWorld::new(3);
    let node = start(&world, 1, PeerIdentity::member("node"), Rights::default());
    let local = counter(&node);
    let member = start(&world, 2, PeerIdentity::member("m"), Rights::default());
    let client = start(&world, 3, PeerIdentity::client("c"), Rights::default());
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    node.on_control(Channel::JOIN, move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let seen = client.resolve::<Command>(node.id(), "counter");
    let mut probe = TestProbe::<Number>::new(client.system());
    probe.watch(&seen);
    let news = probe.expect_terminated(&seen, SOON).await;
    assert_eq!(
        news.reason,
        Ended::Unknown,
        "as if there were no such actor"
    );
    assert_eq!(node.stats().not_permitted, 1);

    for (sender, heard_then, not_permitted) in [(&client, 0, 2), (&member, 1, 2)] {
        sender.send_control(addr(1), Channel::JOIN, Bytes::from_static(b"let me in"));
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(heard.load(Ordering::Relaxed), heard_then);
        assert_eq!(node.stats().not_permitted, not_permitted);
    }
    for sender in [&client, &member] {
        let seen = sender.resolve::<Command>(node.id(), "counter");
        seen.stop();
        seen.stop_after_queued();
        tokio::time::sleep(A_WHILE).await;
        assert!(!local.is_stopped());
    }
}

/// X4: an address that stands in a certificate is nobody else's, also while its node is away; and no
/// client takes the place of a member.
#[tokio::test(start_paused = true)]
async fn an_address_in_a_certificate_is_nobody_elses() {
    let world = VirtualWorld::new(4);
    let node = start(&world, 1, PeerIdentity::member("node"), Rights::default());
    let bound = |name: &str| PeerIdentity::member(name).address(addr(2));
    // Another address than that in its certificate.
    let liar = start(&world, 9, bound("liar"), Rights::default());
    let _counter = counter(&node);
    let asked = |remote: &Remote| {
        let counter = remote.resolve::<Command>(node.id(), "counter");
        async move { counter.ask(Command::Get).within(SOON).await }
    };
    assert!(asked(&liar).await.is_err());
    assert_eq!(node.stats().refused_calls, 1);

    let b = start(&world, 2, bound("b"), Rights::default());
    assert_eq!(asked(&b).await, Ok(0));
    let mut probe = TestProbe::<Number>::new(node.system());
    let _of_b = counter(&b);
    let seen = node.resolve::<Command>(b.id(), "counter");
    probe.watch(&seen);
    tokio::time::sleep(A_WHILE).await;
    world.crash(addr(2));
    drop(b);
    // While b is away, somebody else comes up at its address.
    for thief in [PeerIdentity::member("thief"), PeerIdentity::client("thief")] {
        let thief = start(&world, 2, thief, Rights::default());
        assert!(asked(&thief).await.is_err());
        world.crash(addr(2));
    }
    assert!(node.stats().refused_calls >= 3);
    probe.expect_no_msg(SOON).await;
    // Whoever has the address in its certificate too may have it: the machine was given a new name.
    let heir = start(&world, 2, bound("heir"), Rights::default());
    assert_eq!(asked(&heir).await, Ok(0));
    let news = probe.expect_terminated(&seen, SOON).await;
    assert_eq!(news.reason, Ended::NodeLost);

    // Without addresses in certificates, a client still does not take the place of a member.
    let plain = start(&world, 3, PeerIdentity::member("plain"), Rights::default());
    assert_eq!(asked(&plain).await, Ok(0));
    world.crash(addr(3));
    drop(plain);
    // Its name is no proof either.
    for name in ["c", "plain"] {
        let client = start(
            &world,
            3,
            PeerIdentity::client(name).role("x"),
            Rights::default(),
        );
        let refused_before = node.stats().refused_calls;
        assert!(asked(&client).await.is_err(), "{name}");
        assert!(node.stats().refused_calls > refused_before, "{name}");
        world.crash(addr(3));
    }
}

/// X4: where addresses in certificates are demanded, a certificate without any is not enough.
#[tokio::test(start_paused = true)]
async fn addresses_in_certificates_can_be_demanded() {
    let world = VirtualWorld::new(5);
    let strict = Rights::default()
        .addresses_in_certificates()
        .export_to_clients::<Command>();
    let node = start(&world, 1, PeerIdentity::member("node"), strict);
    let _counter = counter(&node);
    for (identity, port, admitted) in [
        (PeerIdentity::member("a"), 2, false),
        (PeerIdentity::member("b").address(addr(3)), 3, true),
        (PeerIdentity::client("c"), 4, true),
    ] {
        let peer = start(&world, port, identity, Rights::default());
        let counter = peer.resolve::<Command>(node.id(), "counter");
        let answer = counter.ask(Command::Get).within(SOON).await;
        assert_eq!(answer.is_ok(), admitted, "{answer:?}");
    }
}
