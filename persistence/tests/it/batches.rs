//! Batches: whatever shares a commit, each request gets the answer it would have got alone.

use crate::support::{Random, id, open};
use futures_util::future::join_all;
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, DeleteRequest, EventQuery, EventRecord,
    Fence, Journal, MemoryJournal, SaveState, SavedState,
};

/// One request of a random script.
#[derive(Clone, Debug)]
enum Step {
    Append(AppendRequest),
    Claim(String, u64),
    Delete(DeleteRequest),
    Save(SaveState),
    Term(String),
}

/// An answer without what differs between stores.
#[derive(Debug, PartialEq)]
enum Answer {
    Appended(Appended),
    Claimed,
    Deleted,
    Fenced(u64),
    Saved(SavedState),
    Term(u64),
    WrongSequence(u64, u64),
}

fn step(random: &mut Random, highest: &mut [u64]) -> Step {
    let scope = format!("scope/{}", random.below(2));
    let entity = random.below(highest.len() as u64) as usize;
    let name = id(&entity.to_string());
    let fence = (random.below(3) == 0).then(|| Fence::new(scope.clone(), random.below(6)));
    match random.below(16) {
        0 => return Step::Claim(scope, random.below(6)),
        1 => return Step::Term(scope),
        2 | 3 => return Step::Delete(DeleteRequest::new(name, random.below(40)).fenced(fence)),
        4 | 5 => {
            let record = (random.below(4) > 0).then(|| record(random));
            return Step::Save(SaveState::new(name, random.below(3), record).fenced(fence));
        }
        _ => {}
    }
    let wrong = random.below(4) == 0;
    let expected = if wrong {
        random.below(20)
    } else {
        highest[entity]
    };
    let events: Vec<_> = (0..random.below(4)).map(|_| record(random)).collect();
    if !wrong && fence.is_none() {
        highest[entity] += events.len() as u64;
    }
    Step::Append(AppendRequest::new(name, expected, events).fenced(fence))
}

fn record(random: &mut Random) -> EventRecord {
    let tags = ["red", "blue"].into_iter().filter(|_| random.below(3) == 0);
    let tags = tags.map(Into::into).collect();
    EventRecord::new("test.Event", 1, random.next().to_le_bytes().to_vec()).tagged(tags)
}

fn refusal(error: AppendError) -> Answer {
    match error {
        AppendError::Fenced { current } => Answer::Fenced(current),
        AppendError::WrongSequence { expected, actual } => Answer::WrongSequence(expected, actual),
        error => panic!("{error}"),
    }
}

async fn run(journal: &dyn Journal, step: Step) -> Answer {
    match step {
        Step::Append(request) => {
            let appended = journal.append(request).await;
            appended.map_or_else(refusal, Answer::Appended)
        }
        Step::Delete(request) => {
            let deleted = journal.delete(request).await;
            deleted.map_or_else(refusal, |()| Answer::Deleted)
        }
        Step::Save(request) => {
            let saved = journal.states().unwrap().save(request).await;
            saved.map_or_else(refusal, Answer::Saved)
        }
        Step::Claim(scope, epoch) => match journal.claim(&scope, epoch).await {
            Ok(()) => Answer::Claimed,
            Err(ClaimError::Fenced { current }) => Answer::Fenced(current),
            Err(error) => panic!("{error}"),
        },
        Step::Term(scope) => Answer::Term(journal.next_term(&scope).await.unwrap()),
    }
}

/// Random requests, many of them refused, are sent together in batches of random size; the memory
/// journal takes them one by one. All answers and all events must be the same.
#[tokio::test]
async fn refused_requests_do_not_change_what_the_others_get() {
    let mut random = Random::from_environment();
    for _ in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let (model, journal) = (
            MemoryJournal::new(),
            open(&folder.path().join("journal.db")).await,
        );
        let mut highest = [0; 8];
        for _ in 0..12 {
            let steps: Vec<_> = (0..1 + random.below(120))
                .map(|_| step(&mut random, &mut highest))
                .collect();
            // `join_all` polls in order, and the queue keeps it; but when a task has used up its
            // budget, tokio wakes what it put off in another order: so there is no budget.
            let requests = join_all(steps.iter().map(|step| run(&journal, step.clone())));
            let answers = tokio::task::unconstrained(requests).await;
            for (step, answer) in steps.into_iter().zip(answers) {
                assert_eq!(answer, run(&model, step.clone()).await, "{step:?}");
            }
            // What was refused, the script does not know.
            for (entity, highest) in highest.iter_mut().enumerate() {
                *highest = model.highest_seq(&id(&entity.to_string())).await.unwrap();
            }
        }
        for entity in 0..highest.len() {
            let id = id(&entity.to_string());
            let (expected, read) = (
                model.read(&id, 1, 9999).await.unwrap(),
                journal.read(&id, 1, 9999).await.unwrap(),
            );
            assert_eq!(expected.highest_seq, read.highest_seq);
            assert_eq!(expected.deleted_seq, read.deleted_seq);
            assert_eq!(expected.events.len(), read.events.len());
            for (expected, read) in expected.events.iter().zip(&read.events) {
                assert_eq!((expected.seq, expected.position), (read.seq, read.position));
                assert_eq!(expected.record, read.record);
            }
        }
        compare_queries(&model, &journal).await;
        journal.close().await;
    }
}

async fn compare_queries(model: &dyn Journal, journal: &dyn Journal) {
    let all = EventQuery::all();
    for query in [
        all.clone(),
        all.clone().tag("red"),
        all.clone().tag("blue").slices(100..=700),
        all.clone().id(id("3")),
    ] {
        let (mut found, mut states) = (Vec::new(), Vec::new());
        for store in [model, journal] {
            let page = store.queries().unwrap().events(&query, 5, 100_000).await;
            let page = page.unwrap();
            assert!(!page.more);
            let seen = page.events.into_iter();
            found.push(
                seen.map(|found| (found.id, found.event.position, found.event.record))
                    .collect::<Vec<_>>(),
            );
            let changes = store.states().unwrap().changes(&query, 2, 1000).await;
            let seen = changes.unwrap().into_iter();
            states.push(
                seen.map(|state| (state.id, state.position, state.revision, state.record))
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(found[0], found[1], "{query:?}");
        assert_eq!(states[0], states[1], "{query:?}");
    }
}
