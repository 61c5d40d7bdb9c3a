//! Batches: what is under way at once does not change what comes of it.

use crate::local_server::shared;
use crate::support::{append, fresh, open, texts};
use futures_util::future::join_all;
use otava_persistence::{AppendError, Journal};

/// Many appends of each id are sent without waiting for an answer, more than go into one statement. They
/// are carried out in the order in which they were sent, and one that is refused spoils no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_appends_of_an_id_keep_their_order_while_others_are_under_way() {
    const IDS: usize = 60;
    const EACH: u64 = 25;
    let Some(url) = shared() else { return };
    let journal = open(&fresh(url)).await;
    // The first ones show the committer how many there are.
    for round in 0..4 {
        let sent = (0..IDS).map(async |id| {
            // Not all come one after the other, as those of many tasks do not either.
            if !(id + round).is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            let begin = round as u64 * EACH;
            let appends = (begin..begin + EACH).map(async |seq| {
                let wrong = append(&id.to_string(), seq + 2, &["wrong"]);
                let right = append(&id.to_string(), seq, &[&seq.to_string()]);
                let done = join_all([journal.append(right), journal.append(wrong)]).await;
                (seq, done)
            });
            join_all(appends).await
        });
        for done in join_all(sent).await.into_iter().flatten() {
            let (seq, done) = done;
            assert_eq!(done[0].as_ref().unwrap().seq, seq + 1);
            // Nobody had come further when it was its turn.
            let refused = matches!(
                done[1],
                Err(AppendError::WrongSequence { actual, .. }) if actual == seq + 1
            );
            assert!(refused, "{:?}", done[1]);
        }
    }
    let expected: Vec<_> = (0..4 * EACH).map(|seq| seq.to_string()).collect();
    for id in 0..IDS {
        assert_eq!(texts(&*journal, &id.to_string()).await, expected, "{id}");
    }
}
