//! Proves: what else the end of an actor can mean to another: a message (`watch_with`), or a failure
//! (`link`), once and behind what it sent.

use crate::support::{self, Adder, Log, Order, Puppet, SOON, act, say, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{ActorRef, ActorSystem, Context, Ended, Supervision};

async fn sync(actor: &ActorRef<Order>) {
    actor.ask(Order::Sync).await.unwrap();
}

fn puppets<const N: usize>(
    system: &ActorSystem,
    log: &Log,
    names: [&'static str; N],
) -> [ActorRef<Order>; N] {
    names.map(|name| system.spawn(name, Puppet::new(name, log)).unwrap())
}

fn fail() -> Order {
    act(|_, _| Err("as told".into()))
}

/// Lets `actor` do `act` with its context, and waits for it.
async fn with(actor: &ActorRef<Order>, with: impl FnOnce(&mut Context<Puppet>) + Send + 'static) {
    support::with(actor, with);
    sync(actor).await;
}

/// L5 for `watch_with`: one message, behind what the dead actor sent.
#[tokio::test(start_paused = true)]
async fn the_message_comes_once_and_behind_what_was_sent() {
    let (system, log) = (system(), Log::default());
    let [watcher, dying] = puppets(&system, &log, ["w", "d"]);
    let watched = dying.clone();
    with(&watcher, move |ctx| ctx.watch_with(&watched, say("dead"))).await;
    let to = watcher.clone();
    dying
        .tell(act(move |_, _| {
            (0..100).for_each(|n| to.tell(say(n.to_string())).unwrap());
            Err("and dies".into())
        }))
        .unwrap();
    tokio::time::sleep(SOON).await;
    log.take().drain(..).rev().take(2).for_each(|line| {
        assert!(
            ["w: dead", "d: stopped", "w: 99"].contains(&line.as_str()),
            "{line}"
        );
    });
    // An actor that has ended already.
    let watched = dying.clone();
    with(&watcher, move |ctx| {
        ctx.watch_with(&watched, say("was dead"))
    })
    .await;
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["w: was dead"]);
}

/// What is wanted last counts, also when the news is queued already; unwatch takes all of it back.
#[tokio::test(start_paused = true)]
async fn watching_again_replaces_what_is_wanted() {
    let (system, log) = (system(), Log::default());
    let watcher = system.spawn("w", Puppet::new("w", &log)).unwrap();
    let targets = ["a", "b", "c", "d"].map(|name| system.spawn(name, Adder(0)).unwrap());
    let [a, b, c, d] = targets.clone();
    with(&watcher, move |ctx| {
        ctx.watch_with(&a, say("a, first"));
        ctx.watch_with(&a, say("a, second"));
        ctx.watch(&b);
        ctx.watch_with(&b, say("b"));
        ctx.watch_with(&c, say("c"));
        ctx.watch(&c);
        ctx.watch_with(&d, say("d"));
    })
    .await;
    watcher.tell(Order::Sleep(SOON)).unwrap();
    tokio::time::sleep(SOON / 2).await;
    let [a, _, _, d] = targets.clone();
    let late = act(move |_, ctx| {
        ctx.watch_with(&a, say("a, third"));
        ctx.unwatch(&d);
        Ok(())
    });
    watcher.tell(late).unwrap();
    targets.iter().for_each(ActorRef::stop);
    tokio::time::sleep(SOON).await;
    let mut lines = log.take();
    lines.sort();
    assert_eq!(
        lines,
        ["w: a, third", "w: b", "w: c ended, Stopped", "w: started"]
    );
}

/// A linked actor falls with the other, behind what it sent; a clean stop takes nobody along.
#[tokio::test(start_paused = true)]
async fn a_failure_takes_linked_actors_along_and_a_stop_does_not() {
    let (system, log) = (system(), Log::default());
    let [a, b, clean] = puppets(&system, &log, ["a", "b", "clean"]);
    let linked = [b.clone(), clean.clone()];
    with(&a, move |ctx| {
        linked.iter().for_each(|actor| ctx.link(actor))
    })
    .await;
    let back = a.clone();
    with(&b, move |ctx| ctx.link(&back)).await;
    clean.stop();
    tokio::time::sleep(SOON).await;
    sync(&a).await;
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&a);
    log.take();
    let to = a.clone();
    b.tell(act(move |_, _| {
        to.tell(say("last words")).unwrap();
        Err("dies".into())
    }))
    .unwrap();
    let news = probe.expect_terminated(&a, SOON).await;
    assert_eq!(news.reason, Ended::Failed);
    let lines = log.take();
    assert!(lines.contains(&"a: last words".to_owned()), "{lines:?}");

    // The other direction, and one that is dead already.
    let [c, d, e] = puppets(&system, &log, ["c", "d", "e"]);
    let linked = d.clone();
    with(&c, move |ctx| ctx.link(&linked)).await;
    c.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    sync(&d).await;
    let (dead, unlinked) = (c.clone(), clean.clone());
    e.tell(act(move |_, ctx| {
        ctx.link(&unlinked);
        ctx.link(&dead);
        Ok(())
    }))
    .unwrap();
    probe.watch(&e);
    let news = probe.expect_terminated(&e, SOON).await;
    assert_eq!(news.reason, Ended::Failed);
}

/// A link ends with the instance; unlink takes it back, also when the news is queued already.
#[tokio::test(start_paused = true)]
async fn a_link_holds_until_it_is_taken_back_or_the_instance_ends() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 5,
        within: SOON * 100,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let a = system.spawn_with("a", props).unwrap();
    let [b, c, d] = puppets(&system, &log, ["b", "c", "d"]);
    let linked = [b.clone(), c.clone(), d.clone()];
    with(&a, move |ctx| {
        linked.iter().for_each(|actor| ctx.link(actor))
    })
    .await;
    log.take();
    // The news of c waits while the link is taken back.
    a.tell(Order::Sleep(SOON)).unwrap();
    let unlinked = c.clone();
    a.tell(act(move |_, ctx| {
        ctx.unlink(&unlinked);
        Ok(())
    }))
    .unwrap();
    c.tell(fail()).unwrap();
    tokio::time::sleep(SOON * 2).await;
    assert_eq!(log.take(), ["c: stopped"]);
    b.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["b: stopped", "a: started"], "a restarts");
    d.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["d: stopped"], "the new instance is not linked");
    sync(&a).await;
}

/// A watch and a link with one actor do not disturb each other.
#[tokio::test(start_paused = true)]
async fn a_watch_and_a_link_stand_side_by_side() {
    let (system, log) = (system(), Log::default());
    let [a, b, c, d] = puppets(&system, &log, ["a", "b", "c", "d"]);
    let targets = [b.clone(), c.clone(), d.clone()];
    with(&a, move |ctx| {
        for target in &targets {
            ctx.link(target);
            ctx.watch(target);
        }
        ctx.unwatch(&targets[0]);
        ctx.unlink(&targets[1]);
    })
    .await;
    log.take();
    c.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["c: stopped", "a: c ended, Failed"]);
    d.stop();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["d: stopped", "a: d ended, Stopped"]);
    b.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(log.take(), ["b: stopped", "a: stopped"]);
}

/// One call for both directions; the end of either, or taking it back, ends it.
#[tokio::test(start_paused = true)]
async fn linked_both_ways_neither_outlives_the_other() {
    let (system, log) = (system(), Log::default());
    let [a, b, c, d, e, f] = puppets(&system, &log, ["a", "b", "c", "d", "e", "f"]);
    let mut probe = TestProbe::<()>::new(&system);
    for (one, other, first) in [(&a, &b, &a), (&c, &d, &d)] {
        // Through a narrowed reference, as well.
        let narrowed = other.adapt(|()| say("never"));
        with(one, move |ctx| {
            ctx.link_both(&narrowed);
            ctx.link_both(&narrowed);
        })
        .await;
        first.tell(fail()).unwrap();
        for actor in [one, other] {
            tokio::time::sleep(SOON).await;
            probe.watch(actor);
            let news = probe.expect_terminated(actor, SOON).await;
            assert_eq!(news.reason, Ended::Failed);
        }
    }
    // A link laid on an actor does not survive being taken back, nor a clean stop.
    let [to_f, unlinked] = [f.clone(), f.clone()];
    with(&e, move |ctx| {
        ctx.link_both(&to_f);
        ctx.unlink(&unlinked);
    })
    .await;
    e.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    sync(&f).await;
    let [g, h] = puppets(&system, &log, ["g", "h"]);
    let linked = [f.clone(), h.clone()];
    with(&g, move |ctx| {
        linked.iter().for_each(|actor| ctx.link_both(actor))
    })
    .await;
    f.stop();
    tokio::time::sleep(SOON).await;
    sync(&g).await;
    g.stop();
    tokio::time::sleep(SOON).await;
    sync(&h).await;
}

/// A restart of the one who made the links ends them, and is no end for the others.
#[tokio::test(start_paused = true)]
async fn a_restart_ends_the_links_in_both_directions() {
    let (system, log) = (system(), Log::default());
    let restart = Supervision::Restart {
        limit: 1,
        within: SOON * 100,
    };
    let props = Puppet::props("a", &log).on_failure(restart);
    let a = system.spawn_with("a", props).unwrap();
    let [b] = puppets(&system, &log, ["b"]);
    let linked = b.clone();
    with(&a, move |ctx| ctx.link_both(&linked)).await;
    log.take();
    a.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    sync(&b).await;
    assert_eq!(log.take(), ["a: started"]);
    a.tell(fail()).unwrap();
    tokio::time::sleep(SOON).await;
    assert!(a.is_stopped(), "its second failure");
    sync(&b).await;
}
