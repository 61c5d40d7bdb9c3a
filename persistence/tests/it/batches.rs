//! Batches: whatever shares a commit, each request gets the answer it would have got alone.

use crate::support::{Random, id, open};
use futures_util::future::join_all;
use otava_persistence::{
    AppendError, AppendRequest, Appended, ClaimError, EventRecord, Fence, Journal, MemoryJournal,
};

/// One request of a random script.
#[derive(Clone, Debug)]
enum Step {
    Append(AppendRequest),
    Claim(String, u64),
    Term(String),
}

/// An answer without what differs between stores.
#[derive(Debug, PartialEq)]
enum Answer {
    Appended(Appended),
    Claimed,
    Fenced(u64),
    Term(u64),
    WrongSequence(u64, u64),
}

fn step(random: &mut Random, highest: &mut [u64]) -> Step {
    let scope = format!("scope/{}", random.below(2));
    match random.below(12) {
        0 => return Step::Claim(scope, random.below(6)),
        1 => return Step::Term(scope),
        _ => {}
    }
    let entity = random.below(highest.len() as u64) as usize;
    let wrong = random.below(4) == 0;
    let expected = if wrong {
        random.below(20)
    } else {
        highest[entity]
    };
    let events: Vec<_> = (0..random.below(4))
        .map(|_| EventRecord::new("test.Event", 1, random.next().to_le_bytes().to_vec()))
        .collect();
    let fence = (random.below(3) == 0).then(|| Fence::new(scope, random.below(6)));
    if !wrong && fence.is_none() {
        highest[entity] += events.len() as u64;
    }
    Step::Append(AppendRequest::new(id(&entity.to_string()), expected, events).fenced(fence))
}

async fn run(journal: &dyn Journal, step: Step) -> Answer {
    match step {
        Step::Append(request) => match journal.append(request).await {
            Ok(appended) => Answer::Appended(appended),
            Err(AppendError::Fenced { current }) => Answer::Fenced(current),
            Err(AppendError::WrongSequence { expected, actual }) => {
                Answer::WrongSequence(expected, actual)
            }
            Err(error) => panic!("{error}"),
        },
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
            for (expected, read) in expected.events.iter().zip(&read.events) {
                assert_eq!((expected.seq, expected.position), (read.seq, read.position));
                assert_eq!(expected.record, read.record);
            }
        }
        journal.close().await;
    }
}
