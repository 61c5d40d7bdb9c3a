//! Proves: L1, a group restarts its members in place, in order, and not more often than it may.

use crate::supervision_support::{Do, Doll, Fail, act, end_of, fail, settle};
use crate::support::{Log, SOON, system};
use otava_actor::testkit::TestProbe;
use otava_actor::{
    ActorRef, ActorSystem, Backoff, Ended, Fault, Group, GroupBuilder, Props, SpawnError,
    Supervision,
};

/// A group of three, each with one instance that is ready.
async fn three(system: &ActorSystem, log: &Log, group: GroupBuilder) -> (Group, [ActorRef<Do>; 3]) {
    let group = system.spawn_group("g", group).unwrap();
    let members = ["a", "b", "c"].map(|name| group.spawn(name, Doll::props(name, log)).unwrap());
    settle().await;
    log.take();
    (group, members)
}

/// The lines of one member that restarts.
fn down(name: &str, instance: u32) -> [String; 2] {
    ["restarting", "dropped"].map(|what| format!("{name}{instance}: {what}"))
}

fn lines(parts: &[&[String]]) -> Vec<String> {
    parts.concat()
}

fn started(names: &[&str], instance: u32) -> Vec<String> {
    names
        .iter()
        .map(|name| format!("{name}{instance}: started"))
        .collect()
}

/// L1: all for one: down in reverse order, up in order; references, mailboxes and watches stay.
#[tokio::test(start_paused = true)]
async fn all_for_one_restarts_all_in_place_and_in_order() {
    let (system, log) = (system(), Log::default());
    let (_group, [a, b, c]) = three(&system, &log, Group::all_for_one()).await;
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&a);
    // The others have messages left, which wait for the next instance.
    a.tell(Do::Sleep(SOON)).unwrap();
    a.tell(Do::Say("kept")).unwrap();
    b.tell(fail(Fail::Hard)).unwrap();
    b.tell(Do::Say("next")).unwrap();
    tokio::time::sleep(2 * SOON).await;
    let expected = lines(&[
        &down("c", 1),
        &down("b", 1),
        &down("a", 1),
        &started(&["a"], 2),
        &["a2: kept".to_owned()],
        &started(&["b"], 2),
        &["b2: next".to_owned()],
        &started(&["c"], 2),
    ]);
    assert_eq!(log.take(), expected);
    for member in [&a, &b, &c] {
        assert_eq!(member.ask(Do::Which).await.unwrap(), 2);
    }
    probe.expect_no_msg(SOON).await;
}

/// L1: rest for one leaves those alone that were started before; one for one all others.
#[tokio::test(start_paused = true)]
async fn the_strategy_says_who_is_affected() {
    let (system, log) = (system(), Log::default());
    let (group, members) = three(&system, &log, Group::rest_for_one()).await;
    members[1].tell(fail(Fail::Hard)).unwrap();
    settle().await;
    let expected = lines(&[&down("c", 1), &down("b", 1), &started(&["b", "c"], 2)]);
    assert_eq!(log.take(), expected);
    group.stop();
    end_of(&system, group.actor_ref()).await;
    log.take();

    let (_group, members) = three(&system, &log, Group::one_for_one()).await;
    members[1].tell(act(|_, _| panic!("no"))).unwrap();
    settle().await;
    assert_eq!(log.take(), lines(&[&down("b", 1), &started(&["b"], 2)]));
}

/// L1: one limit for the whole group; beyond it the group fails, and its members end in order.
#[tokio::test(start_paused = true)]
async fn a_group_that_restarts_too_often_fails() {
    let (system, log) = (system(), Log::default());
    let settings = Group::one_for_one().limit(2, SOON);
    let (group, members) = three(&system, &log, settings).await;
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&members[2]);
    for member in &members {
        member.tell(fail(Fail::Hard)).unwrap();
        settle().await;
    }
    assert_eq!(end_of(&system, group.actor_ref()).await, Ended::Failed);
    // The one whose failure was the last straw has failed, the others were stopped.
    let news = probe.expect_terminated(&members[2], SOON).await;
    assert_eq!(news.reason, Ended::Failed);
    assert_eq!(end_of(&system, &members[0]).await, Ended::Stopped);
    let expected = lines(&[
        &down("a", 1),
        &started(&["a"], 2),
        &down("b", 1),
        &started(&["b"], 2),
        &["c1: stopped", "c1: dropped", "b2: stopped", "b2: dropped"].map(str::to_owned),
        &["a2: stopped", "a2: dropped"].map(str::to_owned),
    ]);
    assert_eq!(log.take(), expected);
    let refused = group.spawn("d", Doll::props("d", &log));
    assert!(matches!(refused, Err(SpawnError::Stopping { .. })));
}

/// L1: failures further apart than the window do not add up.
#[tokio::test(start_paused = true)]
async fn the_limit_of_a_group_holds_within_its_window() {
    let (system, log) = (system(), Log::default());
    let settings = Group::all_for_one().limit(1, SOON);
    let (_group, [a, ..]) = three(&system, &log, settings).await;
    for instance in 2..5 {
        a.tell(fail(Fail::Hard)).unwrap();
        assert_eq!(a.ask(Do::Which).await.unwrap(), instance);
        tokio::time::sleep(SOON).await;
    }
}

/// L1: a member that fails while it is being started makes one more round, and those that did not
/// have their turn yet stay down until it is theirs.
#[tokio::test(start_paused = true)]
async fn a_failed_start_is_one_more_round() {
    let (system, log) = (system(), Log::default());
    let group = system.spawn_group("g", Group::rest_for_one()).unwrap();
    let a = group.spawn("a", Doll::props("a", &log)).unwrap();
    let b = Doll::starting("b", &log, |doll, _| match doll.instance {
        2 => Err(Fail::Soft),
        3 => panic!("no"),
        _ => Ok(()),
    });
    group.spawn("b", b).unwrap();
    group.spawn("c", Doll::props("c", &log)).unwrap();
    settle().await;
    log.take();
    a.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    let expected = lines(&[
        &down("c", 1),
        &down("b", 1),
        &down("a", 1),
        &started(&["a", "b"], 2),
        &down("b", 2),
        &started(&["b"], 3),
        &down("b", 3),
        &started(&["b"], 4),
        &started(&["c"], 2),
    ]);
    assert_eq!(log.take(), expected);
}

/// L1: a member whose own decision ends it in the middle of a round is not waited for.
#[tokio::test(start_paused = true)]
async fn a_member_that_ends_in_a_round_is_left_out() {
    let (system, log) = (system(), Log::default());
    let group = system.spawn_group("g", Group::all_for_one()).unwrap();
    let a = Doll::starting("a", &log, |doll, _| match doll.instance {
        2 => panic!("no second one"),
        _ => Ok(()),
    });
    let a = a.decide(|fault| match fault {
        Fault::Panic(_) => Supervision::Stop,
        _ => Supervision::Escalate,
    });
    let a = group.spawn("a", a).unwrap();
    let b = group.spawn("b", Doll::props("b", &log)).unwrap();
    let mut probe = TestProbe::<()>::new(&system);
    probe.watch(&a);
    for instance in 2..4 {
        b.tell(fail(Fail::Hard)).unwrap();
        assert_eq!(b.ask(Do::Which).await.unwrap(), instance);
    }
    assert_eq!(
        probe.expect_terminated(&a, SOON).await.reason,
        Ended::Failed
    );
}

/// L1: two that fail at the same time are one round, not two.
#[tokio::test(start_paused = true)]
async fn failures_that_one_round_answers_are_counted_once() {
    let (system, log) = (system(), Log::default());
    let settings = Group::all_for_one().limit(1, 100 * SOON);
    let (_group, members) = three(&system, &log, settings).await;
    // All are inside their handlers when the first one fails.
    for member in &members {
        member.tell(Do::FailAfter(SOON)).unwrap();
    }
    tokio::time::sleep(2 * SOON).await;
    for member in &members {
        assert_eq!(member.ask(Do::Which).await.unwrap(), 2);
    }
}

/// L1: a member's own strategy comes first, and leaves to the group what it cannot deal with.
#[tokio::test(start_paused = true)]
async fn a_member_may_restart_alone_first() {
    let (system, log) = (system(), Log::default());
    let group = system.spawn_group("g", Group::all_for_one()).unwrap();
    let alone = Doll::props("a", &log).decide(|fault| match fault {
        Fault::Error(Fail::Soft) => Supervision::Resume,
        Fault::Error(_) => Supervision::Restart {
            limit: 1,
            within: SOON,
        },
        _ => Supervision::Stop,
    });
    let a = group.spawn("a", alone.escalate_at_limit()).unwrap();
    let b = group.spawn("b", Doll::props("b", &log)).unwrap();
    for (failure, instances) in [
        (Fail::Soft, (1, 1)),
        (Fail::Hard, (2, 1)),
        (Fail::Hard, (3, 2)),
    ] {
        a.tell(fail(failure)).unwrap();
        settle().await;
        let [a, b] = [&a, &b].map(|member| member.ask(Do::Which));
        assert_eq!((a.await.unwrap(), b.await.unwrap()), instances);
    }
    // Its own decision to stop is no failure of the group: it leaves, and later rounds go on.
    a.tell(act(|_, _| panic!("over"))).unwrap();
    assert_eq!(end_of(&system, &a).await, Ended::Failed);
    b.tell(fail(Fail::Hard)).unwrap();
    assert_eq!(b.ask(Do::Which).await.unwrap(), 3);
    assert!(!group.actor_ref().is_stopped());
    group.spawn("a", Doll::props("a", &log)).unwrap();
}

/// L1: the group's own strategy: a restart takes all members down and up again in place, and a
/// back-off leaves them down while it waits.
#[tokio::test(start_paused = true)]
async fn a_restart_of_the_group_restarts_its_members_in_place() {
    let (system, log) = (system(), Log::default());
    let wait = Backoff::new(SOON, SOON).jitter(0.0);
    let settings = Group::one_for_one().limit(0, SOON).on_failure(wait);
    let (group, [a, b, c]) = three(&system, &log, settings).await;
    b.tell(fail(Fail::Hard)).unwrap();
    a.tell(Do::Say("kept")).unwrap();
    tokio::time::sleep(SOON / 2).await;
    a.tell(Do::Say("kept")).unwrap();
    let expected = lines(&[&down("c", 1), &down("b", 1), &down("a", 1)]);
    assert_eq!(log.take(), expected);
    tokio::time::sleep(SOON).await;
    let expected = lines(&[
        &started(&["a"], 2),
        &["a2: kept", "a2: kept"].map(str::to_owned),
        &started(&["b", "c"], 2),
    ]);
    assert_eq!(log.take(), expected);
    // A stop while all are down works at once.
    c.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    let before = system.now();
    group.stop();
    assert_eq!(end_of(&system, group.actor_ref()).await, Ended::Stopped);
    assert_eq!(system.now(), before);
    assert!(a.is_stopped() && b.is_stopped() && c.is_stopped());
}

/// L1: a group that fails as a child of another actor, and as a member of another group.
#[tokio::test(start_paused = true)]
async fn groups_nest_and_escalate() {
    let (system, log) = (system(), Log::default());
    let outer = system.spawn_group("outer", Group::all_for_one()).unwrap();
    let first = outer.spawn("f", Doll::props("f", &log)).unwrap();
    let inner = outer
        .spawn_group("inner", Group::one_for_one().limit(1, SOON))
        .unwrap();
    let members = ["a", "b"].map(|name| inner.spawn(name, Doll::props(name, &log)).unwrap());
    settle().await;
    members[0].tell(fail(Fail::Hard)).unwrap();
    settle().await;
    assert_eq!(first.ask(Do::Which).await.unwrap(), 1);
    log.take();
    members[0].tell(fail(Fail::Hard)).unwrap();
    settle().await;
    let expected = lines(&[
        &down("b", 1),
        &down("a", 2),
        &down("f", 1),
        &started(&["f"], 2),
        &started(&["a"], 3),
        &started(&["b"], 2),
    ]);
    assert_eq!(log.take(), expected);

    // As a child: by default the group ends, and it can escalate.
    let own = log.clone();
    let parent = Doll::starting("p", &log, move |_, ctx| {
        let settings = Group::all_for_one().limit(0, SOON);
        let group = ctx
            .spawn_group("g", settings.on_failure(Supervision::Escalate))
            .unwrap();
        let member = group.spawn("m", Doll::props("m", &own)).unwrap();
        member.tell(fail(Fail::Hard)).unwrap();
        Ok(())
    });
    let parent = system.spawn_with("p", parent).unwrap();
    assert_eq!(end_of(&system, &parent).await, Ended::Failed);
}

/// L1, L4: a group that is stopped while a member hangs in its start does not hang with it longer
/// than the member does, and a shutdown is not kept.
#[tokio::test(start_paused = true)]
async fn a_stop_interrupts_a_round() {
    let (system, log) = (system(), Log::default());
    let group = system.spawn_group("g", Group::all_for_one()).unwrap();
    let a = group.spawn("a", Doll::props("a", &log)).unwrap();
    let (own, mut made) = (log.clone(), 0);
    let slow = Props::new_async(move || {
        made += 1;
        let doll = Doll::new("b", made, &own);
        async move {
            if doll.instance > 1 {
                std::future::pending::<()>().await;
            }
            Ok(doll)
        }
    });
    let b = group.spawn("b", slow).unwrap();
    settle().await;
    a.tell(fail(Fail::Hard)).unwrap();
    settle().await;
    log.take();
    let before = system.now();
    group.stop();
    assert_eq!(end_of(&system, group.actor_ref()).await, Ended::Stopped);
    assert_eq!(end_of(&system, &b).await, Ended::Stopped);
    assert_eq!(system.now(), before);
    let expected = ["b2: dropped", "a2: stopped", "a2: dropped"];
    assert_eq!(log.take(), expected);
}

/// A member that cannot be made again is refused, and leaves no trace.
#[tokio::test(start_paused = true)]
async fn a_member_needs_a_factory_and_a_name_of_its_own() {
    let (system, log) = (system(), Log::default());
    let (group, members) = three(&system, &log, Group::all_for_one()).await;
    let once = group.spawn("d", Props::once(Doll::new("d", 1, &log)));
    assert!(matches!(once, Err(SpawnError::NoFactory { .. })));
    let taken = group.spawn("a", Doll::props("a", &log));
    assert!(matches!(taken, Err(SpawnError::NameTaken { .. })));
    members[0].tell(fail(Fail::Hard)).unwrap();
    settle().await;
    assert_eq!(members[2].ask(Do::Which).await.unwrap(), 2);
}

/// L4: members that fail, are stopped and are added on threads while rounds go on: the group never
/// waits for somebody who is gone, and ends when it is told to, with all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_race_with_ends_and_new_members() {
    for round in 0..30 {
        let system = ActorSystem::new("test");
        let log = Log::default();
        let settings = Group::rest_for_one().limit(u32::MAX, SOON);
        let group = system.spawn_group("g", settings).unwrap();
        let mut members = Vec::new();
        for n in 0..30 {
            let name = format!("m{n}");
            let member = group.spawn(&name, Doll::props(&name, &log)).unwrap();
            let message = match (n + round) % 3 {
                0 => Do::FailLater(Err("no")),
                1 => fail(Fail::Hard),
                _ => Do::Say("nothing"),
            };
            let _ = member.tell(message);
            if (n + round) % 7 == 0 {
                member.stop();
            }
            members.push(member);
        }
        // A member that was not stopped works in the end.
        for member in members.iter().filter(|member| !member.is_stopped()) {
            let asked = member.ask(Do::Which).within(3 * SOON).await;
            assert!(asked.is_ok(), "round {round}: {asked:?}");
        }
        group.stop();
        assert_eq!(end_of(&system, group.actor_ref()).await, Ended::Stopped);
        assert!(members.iter().all(ActorRef::is_stopped));
        assert_eq!(system.shutdown().await.blocked, []);
    }
}
