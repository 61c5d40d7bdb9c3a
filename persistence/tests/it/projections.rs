//! Projections: nothing lost, in order, and nobody held up, whatever fails.

use crate::support::{Random, append, event, id};
use otava_actor::Backoff;
use otava_persistence::{
    AppendRequest, Appended, Envelope, EventQuery, FoundEvent, Handler, Journal, JournalError,
    MemoryJournal, OffsetStore, OnPoison, Projection, ProjectionHandle, ProjectionOptions,
    ProjectionStartError, ProjectionState, ProjectionStatus,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

/// Entity and sequence number of what was handled, in order.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(String, u64)>>>);

impl Seen {
    pub(crate) fn note<E>(&self, event: &Envelope<E>) {
        let seen = (event.id.entity().to_owned(), event.seq);
        self.0.lock().unwrap().push(seen);
    }

    pub(crate) fn take(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A handler that is a function.
pub(crate) struct Call<F>(pub(crate) F);

impl<F, X> Handler<String> for Call<F>
where
    F: FnMut(&Envelope<String>) -> Result<(), X> + Send + 'static,
    X: std::fmt::Display + Send + 'static,
{
    type Error = X;

    async fn handle(&mut self, event: &Envelope<String>) -> Result<(), X> {
        (self.0)(event)
    }
}

/// A handler that waits for a permit before each event.
struct Gated(Arc<Semaphore>, Seen);

impl Handler<String> for Gated {
    type Error = Infallible;

    async fn handle(&mut self, event: &Envelope<String>) -> Result<(), Infallible> {
        self.0.acquire().await.unwrap().forget();
        self.1.note(event);
        Ok(())
    }
}

/// The text of an event of these tests; `broken` ones cannot be decoded.
pub(crate) fn text(found: &FoundEvent) -> Result<Option<String>, String> {
    let text = String::from_utf8(found.event.record.payload.to_vec()).unwrap();
    if text == "broken" {
        return Err("it is broken".into());
    }
    Ok(Some(text))
}

pub(crate) fn projection(name: &str, journal: &MemoryJournal) -> Projection<String> {
    Projection::decoded_by(name, Arc::new(journal.clone()), text).options(options())
}

pub(crate) fn options() -> ProjectionOptions {
    let backoff = Backoff::new(SECOND, 8 * SECOND);
    ProjectionOptions::default().backoff(backoff).seed(1)
}

/// A handler that only notes what it sees.
struct Note(Seen);

impl Handler<String> for Note {
    type Error = Infallible;

    async fn handle(&mut self, event: &Envelope<String>) -> Result<(), Infallible> {
        self.0.note(event);
        Ok(())
    }
}

fn noting(seen: &Seen) -> impl Fn() -> Note + Send + Sync + 'static {
    let seen = seen.clone();
    move || Note(seen.clone())
}

pub(crate) async fn put(journal: &MemoryJournal, entity: &str, count: u64) -> Appended {
    let before = journal.highest_seq(&id(entity)).await.unwrap();
    journal.append(append(entity, before, count)).await.unwrap()
}

async fn until(
    running: &ProjectionHandle,
    what: impl Fn(&ProjectionStatus) -> bool,
) -> ProjectionStatus {
    let mut statuses = running.watch();
    let all = statuses
        .wait_for(|all| all.iter().all(&what))
        .await
        .unwrap();
    all[0].clone()
}

fn numbered(entity: &str, seqs: std::ops::RangeInclusive<u64>) -> Vec<(String, u64)> {
    seqs.map(|seq| (entity.to_owned(), seq)).collect()
}

/// The events of each entity must be in order and without a gap from the first one seen.
pub(crate) fn check_order(seen: &[(String, u64)]) {
    let mut last = BTreeMap::<&str, u64>::new();
    for (entity, seq) in seen {
        let before = last.insert(entity, *seq);
        assert!(
            before.is_none_or(|before| *seq == before + 1),
            "{entity}: {seq} after {before:?}"
        );
    }
}

/// P10: live by id, by tag and by slice; each projection sees what it asked for, in order, those that
/// were there and those that come.
#[tokio::test]
async fn each_query_is_given_its_events_as_they_come() {
    let journal = MemoryJournal::new();
    let (by_id, by_tag, by_slice) = (Seen::default(), Seen::default(), Seen::default());
    put(&journal, "a", 3).await;
    let one = projection("by id", &journal)
        .query(EventQuery::all().id(id("a")))
        .each(noting(&by_id));
    let tagged = projection("by tag", &journal)
        .query(EventQuery::all().tag("red"))
        .each(noting(&by_tag));
    let sliced = projection("by slice", &journal)
        .query(EventQuery::all().kind("test"))
        .instances(7)
        .each(noting(&by_slice));
    let running = [one, tagged, sliced].map(|plan| plan.start().unwrap());
    for round in 0..20 {
        put(&journal, "a", 2).await;
        put(&journal, &format!("b{round}"), 1).await;
        let red = event("c", round + 1).tagged(vec!["red".into()]);
        let request = AppendRequest::new(id("c"), round, vec![red]);
        journal.append(request).await.unwrap();
    }
    let last = put(&journal, "a", 1).await;
    for projection in &running {
        projection.caught_up_with(last.position).await.unwrap();
    }
    assert_eq!(by_id.take(), numbered("a", 1..=44));
    assert_eq!(by_tag.take(), numbered("c", 1..=20));
    let mut all = by_slice.take();
    check_order(&all);
    all.sort();
    let mut expected = [numbered("a", 1..=44), numbered("c", 1..=20)].concat();
    expected.extend((0..20).map(|round| (format!("b{round}"), 1)));
    expected.sort();
    assert_eq!(all, expected);
    let statuses = running[2].statuses();
    assert_eq!(statuses.len(), 7);
    assert_eq!(
        statuses.iter().map(|status| status.handled).sum::<u64>(),
        84
    );
    assert!(statuses.iter().all(|status| status.lag() == 0));
    for projection in &running {
        projection.stop().await;
        let ended = projection.statuses();
        assert!(
            ended
                .iter()
                .all(|one| one.state == ProjectionState::Stopped && one.saved == one.offset)
        );
    }
}

/// P10: a consumer that is slow holds up neither the others nor the writers.
#[tokio::test(start_paused = true)]
async fn a_slow_projection_holds_up_nobody() {
    let journal = MemoryJournal::new();
    let (gate, late, seen) = (
        Arc::new(Semaphore::new(0)),
        Seen::default(),
        Seen::default(),
    );
    let options = options().handle_within(Duration::MAX);
    let slow = {
        let (gate, late) = (gate.clone(), late.clone());
        let slow = projection("slow", &journal).options(options);
        slow.each(move || Gated(gate.clone(), late.clone()))
            .start()
            .unwrap()
    };
    let fast = projection("fast", &journal)
        .each(noting(&seen))
        .start()
        .unwrap();
    let last = put(&journal, "a", 2_000).await;
    fast.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=2_000));
    until(&slow, |one| one.state == ProjectionState::Handling).await;
    assert_eq!(late.take(), []);
    gate.add_permits(2_000);
    slow.caught_up_with(last.position).await.unwrap();
    assert_eq!(late.take(), numbered("a", 1..=2_000));
}

/// P10: begun again behind an offset, it is given all that is behind it once, in order, and nothing before.
#[tokio::test]
async fn a_restart_loses_nothing_and_repeats_nothing_past_the_offset() {
    let journal = MemoryJournal::new();
    let seen = Seen::default();
    let plan = projection("report", &journal).each(noting(&seen));
    let middle = put(&journal, "a", 600).await;
    let last = put(&journal, "a", 600).await;
    let running = plan.start().unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=1_200));
    running.restart_from(middle.position).await.unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 601..=1_200));
    running.pause().await.unwrap();
    running.restart_from(0).await.unwrap();
    assert_eq!(journal.load("report/0-1023").await.unwrap(), Some(0));
    assert_eq!(seen.take(), []);
    running.resume().await.unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=1_200));
    running.stop().await;
    assert!(running.restart_from(0).await.is_err() && running.pause().await.is_err());
    // The next run goes on where this one has ended.
    let last = put(&journal, "a", 5).await;
    let running = plan.start().unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1_201..=1_205));
}

#[tokio::test]
async fn a_pause_holds_until_it_is_resumed() {
    let journal = MemoryJournal::new();
    let seen = Seen::default();
    let running = projection("report", &journal)
        .instances(3)
        .each(noting(&seen))
        .start()
        .unwrap();
    let first = put(&journal, "a", 5).await;
    running.caught_up_with(first.position).await.unwrap();
    running.pause().await.unwrap();
    let status = until(&running, |one| one.state == ProjectionState::Paused).await;
    assert_eq!(status.saved, status.offset);
    let second = put(&journal, "a", 5).await;
    // Others are given it meanwhile.
    let other = projection("other", &journal)
        .each(noting(&Seen::default()))
        .start()
        .unwrap();
    other.caught_up_with(second.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=5));
    running.resume().await.unwrap();
    running.caught_up_with(second.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 6..=10));
}

/// P10: a crash between handling and saving: what is handled again is what was not saved, and no more.
#[tokio::test(start_paused = true)]
async fn a_crash_repeats_what_was_handled_since_the_offset_was_saved() {
    let journal = MemoryJournal::new();
    let (gate, seen) = (Arc::new(Semaphore::new(57)), Seen::default());
    let options = options()
        .save_every(20)
        .save_after(Duration::MAX)
        .handle_within(Duration::MAX);
    let plan = {
        let (gate, seen) = (gate.clone(), seen.clone());
        let plan = projection("report", &journal).options(options);
        plan.each(move || Gated(gate.clone(), seen.clone()))
    };
    let last = put(&journal, "a", 100).await;
    let running = plan.start().unwrap();
    let status = until(&running, |one| one.handled == 57).await;
    assert_eq!((status.offset, status.saved), (57, 40));
    running.abort();
    running.ended().await;
    assert_eq!(seen.take(), numbered("a", 1..=57));
    gate.add_permits(1_000);
    let running = plan.start().unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 41..=100));
}

/// A failure is tried again, in order; a panic makes a new handler; both are to be seen.
#[tokio::test(start_paused = true)]
async fn failures_and_panics_are_tried_again_with_growing_waits() {
    let journal = MemoryJournal::new();
    let (seen, made, calls) = (
        Seen::default(),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
    );
    let plan = {
        let (seen, made, calls) = (seen.clone(), made.clone(), calls.clone());
        projection("report", &journal).each(move || {
            made.fetch_add(1, Ordering::Relaxed);
            let (seen, calls) = (seen.clone(), calls.clone());
            Call(move |event: &Envelope<String>| {
                match calls.fetch_add(1, Ordering::Relaxed) {
                    2 | 3 => return Err("no room"),
                    4 => panic!("no luck"),
                    _ => {}
                }
                seen.note(event);
                Ok(())
            })
        })
    };
    let last = put(&journal, "a", 5).await;
    let begun = tokio::time::Instant::now();
    let running = plan.start().unwrap();
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=5));
    assert_eq!(made.load(Ordering::Relaxed), 2);
    // 1 + 2 + 4 seconds, each up to a fifth longer.
    let took = begun.elapsed();
    assert!((7 * SECOND..9 * SECOND).contains(&took), "{took:?}");
    let status = &running.statuses()[0];
    assert_eq!(status.failures, 3);
    assert_eq!(status.last_error.as_deref(), Some("panic: no luck"));
    assert!(status.last_event_age_ms(u64::MAX).is_some());
}

/// An event that cannot be handled, or not be decoded, is passed over alone, or ends the projection.
#[tokio::test(start_paused = true)]
async fn poison_is_skipped_or_ends_it_as_it_was_told() {
    let journal = MemoryJournal::new();
    put(&journal, "a", 3).await;
    let mut broken = event("a", 4);
    broken.payload = b"broken".to_vec().into();
    journal
        .append(AppendRequest::new(id("a"), 3, vec![broken]))
        .await
        .unwrap();
    let last = put(&journal, "a", 3).await;
    let run = |name, on_poison, seen: &Seen| {
        let seen = seen.clone();
        let plan = projection(name, &journal).options(options().on_poison(on_poison));
        let plan = plan.each(move || {
            let seen = seen.clone();
            Call(move |event: &Envelope<String>| {
                seen.note(event);
                if event.seq == 2 {
                    Err("poison")
                } else {
                    Ok(())
                }
            })
        });
        plan.start().unwrap()
    };
    let seen = Seen::default();
    let skips = run("skips", OnPoison::Skip { retries: 2 }, &seen);
    skips.caught_up_with(last.position).await.unwrap();
    assert_eq!(
        seen.take().iter().map(|seen| seen.1).collect::<Vec<_>>(),
        [1, 2, 2, 2, 3, 5, 6, 7]
    );
    let status = &skips.statuses()[0];
    assert_eq!((status.handled, status.skipped, status.failures), (5, 2, 6));
    assert_eq!(
        status.last_error.as_deref(),
        Some("cannot decode: it is broken")
    );

    let stops = run("stops", OnPoison::Stop { retries: 1 }, &seen);
    stops.ended().await;
    let status = &stops.statuses()[0];
    assert_eq!((status.state, status.offset), (ProjectionState::Failed, 1));
    assert!(stops.caught_up_with(last.position).await.is_err());

    let waits = run("waits", OnPoison::Retry, &seen);
    until(&waits, |one| one.failures == 20).await;
    assert_eq!(waits.statuses()[0].offset, 1);
}

/// A handler that never ends is dropped, made anew, and not put down to the event.
#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_is_tried_again() {
    let journal = MemoryJournal::new();
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Seen::default());
    let options = options().on_poison(OnPoison::Skip { retries: 0 });
    let plan = {
        let (gate, seen) = (gate.clone(), seen.clone());
        let plan = projection("report", &journal).options(options);
        plan.each(move || Gated(gate.clone(), seen.clone()))
    };
    let last = put(&journal, "a", 2).await;
    let running = plan.start().unwrap();
    let status = until(&running, |one| one.failures == 3).await;
    assert_eq!(status.skipped, 0);
    gate.add_permits(2);
    running.caught_up_with(last.position).await.unwrap();
    assert_eq!(seen.take(), numbered("a", 1..=2));
}

/// Keeps offsets elsewhere, and refuses to when it is told.
struct Moody(MemoryJournal, AtomicBool);

impl Moody {
    fn check(&self) -> Result<(), JournalError> {
        let waited = SECOND;
        if self.1.load(Ordering::Relaxed) {
            Err(JournalError::Busy { waited })
        } else {
            Ok(())
        }
    }
}

impl OffsetStore for Moody {
    fn load<'a>(
        &'a self,
        key: &'a str,
    ) -> futures_util::future::BoxFuture<'a, Result<Option<u64>, JournalError>> {
        Box::pin(async move {
            self.check()?;
            self.0.load(key).await
        })
    }

    fn save<'a>(
        &'a self,
        key: &'a str,
        offset: u64,
    ) -> futures_util::future::BoxFuture<'a, Result<(), JournalError>> {
        Box::pin(async move {
            self.check()?;
            OffsetStore::save(&self.0, key, offset).await
        })
    }

    fn clear<'a>(
        &'a self,
        key: &'a str,
    ) -> futures_util::future::BoxFuture<'a, Result<(), JournalError>> {
        self.0.clear(key)
    }
}

/// A store of offsets that fails is waited for; an end is not held up by it.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_waited_for() {
    let journal = MemoryJournal::new();
    let seen = Seen::default();
    let offsets = Arc::new(Moody(MemoryJournal::new(), true.into()));
    let plan = projection("report", &journal)
        .offsets(offsets.clone())
        .each(noting(&seen));
    let last = put(&journal, "a", 150).await;
    let running = plan.start().unwrap();
    let status = until(&running, |one| one.failures == 4).await;
    assert!(
        status
            .last_error
            .unwrap()
            .starts_with("cannot load the offset: ")
    );
    assert_eq!(seen.take(), []);
    offsets.1.store(false, Ordering::Relaxed);
    running.caught_up_with(last.position).await.unwrap();
    offsets.1.store(true, Ordering::Relaxed);
    let last = put(&journal, "a", 150).await;
    let status = until(&running, |one| one.failures >= 6).await;
    assert_eq!(
        (status.offset, seen.take().len()),
        (last.position - 100, 200)
    );
    running.stop().await;
    // Closed for good: it ends by itself.
    offsets.1.store(false, Ordering::Relaxed);
    let running = plan.start().unwrap();
    running.caught_up_with(last.position).await.unwrap();
    journal.close().await;
    running.restart_from(0).await.unwrap();
    running.ended().await;
    assert_eq!(running.statuses()[0].state, ProjectionState::Failed);
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let journal = MemoryJournal::new();
    let plan = projection("report", &journal)
        .instances(4)
        .each(noting(&Seen::default()));
    let refused = plan.start_instance(4, None).unwrap_err();
    assert_eq!(
        refused,
        ProjectionStartError::NoSuchInstance {
            index: 4,
            instances: 4
        }
    );
    let one = plan.start_instance(3, None).unwrap();
    assert_eq!(one.statuses()[0].slices, 768..=1023);
    assert_eq!((plan.name(), plan.instances()), ("report", 4));
}

/// Whatever number of instances follows another, and whenever they crash: nothing is lost, and each
/// instance sees every entity in order.
#[tokio::test(start_paused = true)]
async fn any_number_of_instances_goes_on_where_others_were() {
    let mut random = Random::from_environment();
    for _ in 0..30 {
        let journal = MemoryJournal::new();
        let mut seen_once = BTreeMap::<(String, u64), u32>::new();
        let mut last = Appended::new(0, 0);
        let mut written = 0;
        for life in 0..6 {
            for _ in 0..random.below(20) {
                let entity = format!("e{}", random.below(12));
                let count = 1 + random.below(9);
                last = put(&journal, &entity, count).await;
                written += count;
            }
            let seen = Seen::default();
            let failing = random.next();
            let calls = Arc::new(AtomicU64::new(0));
            let instances = 1 + random.below(9) as u16;
            let options = options()
                .save_every(1 + random.below(20))
                .seed(random.next());
            let plan = projection("report", &journal)
                .instances(instances)
                .options(options);
            let handler = {
                let seen = seen.clone();
                move || {
                    let (seen, calls) = (seen.clone(), calls.clone());
                    Call(move |event: &Envelope<String>| {
                        let call = calls.fetch_add(1, Ordering::Relaxed);
                        if (call ^ failing).is_multiple_of(13) {
                            return Err("not now");
                        }
                        seen.note(event);
                        Ok(())
                    })
                }
            };
            let running = plan.each(handler).start().unwrap();
            if life == 5 {
                running.caught_up_with(last.position).await.unwrap();
                running.stop().await;
            } else {
                for _ in 0..random.below(400) {
                    tokio::task::yield_now().await;
                }
                running.abort();
                running.ended().await;
            }
            let seen = seen.take();
            check_order(&seen);
            for seen in seen {
                *seen_once.entry(seen).or_default() += 1;
            }
        }
        assert_eq!(seen_once.len() as u64, written, "events were lost");
    }
}
