//! Fencing: whoever was replaced cannot write, however slow anything is.

use crate::child;
use crate::local_server::shared;
use crate::support::{append, connect, fresh, fresh_name, open, texts, until_one_waits};
use futures_util::future::{join, join_all, try_join_all};
use otava_persistence::{AppendError, ClaimError, DeleteRequest, Fence, Journal, JournalError};
use otava_postgres::PostgresConfig;
use std::time::Duration;

/// P6: two coordinators, made by hand, both believe in themselves; the later term wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_coordinators_the_later_one_writes() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let (older, newer) = (open(&config).await, open(&config).await);
    for round in 0..10 {
        let entity = format!("shard {round}");
        let scope = format!("kind/{round}");
        let epoch = async |journal: &dyn Journal| journal.next_term("kind").await.unwrap() << 32;
        let first = epoch(&*older).await;
        older.claim(&scope, first).await.unwrap();
        let writing = async {
            for seq in 0.. {
                let fence = Some(Fence::new(scope.as_str(), first));
                let request = append(&entity, seq, &["older"]).fenced(fence);
                if let Err(error) = older.append(request).await {
                    return (seq, error);
                }
            }
            unreachable!()
        };
        let taking_over = async {
            while newer
                .highest_seq(&crate::support::id(&entity))
                .await
                .unwrap()
                < round
            {}
            let second = epoch(&*newer).await;
            newer.claim(&scope, second).await.unwrap();
            // From here on nothing comes from the older one: what is read now is all there is.
            let seq = texts(&*newer, &entity).await.len() as u64;
            let fence = Some(Fence::new(scope.as_str(), second));
            let request = append(&entity, seq, &["newer"]).fenced(fence);
            (seq, second, newer.append(request).await)
        };
        let ((written, refused), (seq, second, taken)) = join(writing, taking_over).await;
        assert!(
            matches!(refused, AppendError::Fenced { current } if current == second),
            "{refused:?}"
        );
        assert_eq!((seq, taken.unwrap().seq), (written, written + 1));
        let all = texts(&*older, &entity).await;
        assert!(all[..all.len() - 1].iter().all(|text| text == "older"));
        assert_eq!(all.last().unwrap(), "newer");
        assert!(matches!(
            older.claim(&scope, first).await,
            Err(ClaimError::Fenced { .. })
        ));
    }
}

/// P6: the paused owner wakes up after another has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_is_refused_when_it_wakes_up() {
    let Some(url) = shared() else { return };
    for round in 1..=5 {
        let schema = fresh_name();
        let config = PostgresConfig::parse(url).unwrap().schema(&schema);
        let journal = open(&config).await;
        journal.claim("shard", 1).await.unwrap();
        let mut owner = child::start(url, &schema, "fenced shard 1");
        let mut acknowledged = 0;
        while acknowledged < round * 7 {
            acknowledged = owner.next("ack ").unwrap().parse().unwrap();
        }
        owner.signal("STOP");
        // It was stopped anywhere, also within an append: that must not hold anybody up.
        journal.claim("shard", 2).await.unwrap();
        let seq = texts(&*journal, "shared").await.len() as u64;
        let fence = Some(Fence::new("shard", 2));
        let taken = journal
            .append(append("shared", seq, &["next owner"]).fenced(fence))
            .await;
        assert_eq!(taken.unwrap().seq, seq + 1);
        owner.signal("CONT");
        let mut last = 0;
        let refused = loop {
            match owner.next("").unwrap().rsplit_once(' ').unwrap() {
                ("ack", number) => last = number.parse().unwrap(),
                (word, number) if word.ends_with("fenced") => break number.to_owned(),
                _ => {}
            }
        };
        assert_eq!(refused, "2");
        assert!(last <= seq, "{last} was acknowledged behind {seq}");
        assert_eq!(texts(&*journal, "shared").await.len() as u64, seq + 1);
    }
}

/// What a process knows of an id does not make it overlook what another wrote, and deleted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_wrote_and_deleted_is_not_overlooked() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let (one, other) = (open(&config).await, open(&config).await);
    let refused = async |entity: &str, expected, newest| {
        let refused = one.append(append(entity, expected, &["x", "y"])).await;
        let is_wrong = matches!(
            refused,
            Err(AppendError::WrongSequence { actual, .. }) if actual == newest
        );
        assert!(is_wrong, "{entity}: {refused:?}");
    };
    for entity in ["a", "b"] {
        one.append(append(entity, 0, &["1"])).await.unwrap();
        other.append(append(entity, 1, &["2"])).await.unwrap();
        refused(entity, 1, 2).await;
        let all = DeleteRequest::new(crate::support::id(entity), u64::MAX);
        other.delete(all).await.unwrap();
        refused(entity, 1, 2).await;
        refused(entity, 0, 2).await;
        refused(entity, 3, 2).await;
        let next = one.append(append(entity, 2, &["3", "4"])).await;
        assert_eq!(next.unwrap().seq, 4);
    }
}

/// Where only the insert finds that another process has written for an id, the others of its batch are
/// written, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_overtaken_spoils_no_other() {
    let Some(url) = shared() else { return };
    let config = fresh(url);
    let (one, other) = (open(&config).await, open(&config).await);
    let names: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    for round in 0..5 {
        let appends = names
            .iter()
            .map(|name| one.append(append(name, 2 * round, &["1"])));
        try_join_all(appends).await.unwrap();
        let overtaken = &names[3 * round as usize];
        let expected = 2 * round + 1;
        other
            .append(append(overtaken, expected, &["2"]))
            .await
            .unwrap();
        let appends = names
            .iter()
            .map(|name| one.append(append(name, expected, &["2"])));
        for (name, done) in names.iter().zip(join_all(appends).await) {
            let newest = expected + 1;
            match done {
                Ok(appended) => assert_eq!((appended.seq, name == overtaken), (newest, false)),
                Err(AppendError::WrongSequence { actual, .. }) => {
                    assert_eq!((actual, name), (newest, overtaken));
                }
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
    for name in &names {
        assert_eq!(texts(&*one, name).await, ["1", "2"].repeat(5), "{name}");
    }
}

/// A slow store: an append that waited behind the claim of another is refused, and a claim waits for
/// an append that is under way, which is then there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_transaction_does_not_get_past_a_fence() {
    let Some(url) = shared() else { return };
    let schema = fresh_name();
    let config = PostgresConfig::parse(url).unwrap().schema(&schema);
    let journal = open(&config).await;
    let (slow, looker) = (connect(url).await, connect(url).await);
    journal.claim("s", 1).await.unwrap();
    let claim = format!("BEGIN; SELECT \"{schema}\".claim_1('s', 2)");
    slow.batch_execute(&claim).await.unwrap();
    let fenced = |seq, epoch| append("a", seq, &["x"]).fenced(Some(Fence::new("s", epoch)));
    let (late, ()) = join(journal.append(fenced(0, 1)), async {
        until_one_waits(&looker, 1).await;
        slow.batch_execute("COMMIT").await.unwrap();
    })
    .await;
    assert!(
        matches!(late, Err(AppendError::Fenced { current: 2 })),
        "{late:?}"
    );
    let by_hand = format!(
        "BEGIN; SELECT \"{schema}\".append_1('{{s}}', '{{2}}', '{{test|a}}', '{{0}}', '{{1}}', '{{f}}', 0, \
         '{{1}}', '{{test|a}}', '{{1}}', '{{0}}', '{{0}}', '{{1}}', '{{n}}', '{{NULL}}', '{{slow}}', false)"
    );
    slow.batch_execute(&by_hand).await.unwrap();
    let (claimed, ()) = join(journal.claim("s", 3), async {
        until_one_waits(&looker, 1).await;
        slow.batch_execute("COMMIT").await.unwrap();
    })
    .await;
    claimed.unwrap();
    assert_eq!(texts(&*journal, "a").await, ["slow"]);
    let late = journal.append(fenced(1, 2)).await;
    assert!(
        matches!(late, Err(AppendError::Fenced { current: 3 })),
        "{late:?}"
    );
}

/// What waits too long is given up, nothing of it is written, and the journal goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_held_too_long_is_busy() {
    let Some(url) = shared() else { return };
    let schema = fresh_name();
    let config = PostgresConfig::parse(url).unwrap().schema(&schema);
    let journal = open(&config.lock_timeout(Duration::from_millis(150))).await;
    let slow = connect(url).await;
    // It is at work: its session waits for nothing, and is left alone.
    let hold = format!("SELECT \"{schema}\".claim_1('s', 2), pg_sleep(0.6)");
    let (held, busy) = join(slow.batch_execute(&hold), async {
        until_held(url, &schema).await;
        journal.append(append("a", 0, &["x"])).await
    })
    .await;
    held.unwrap();
    let is_busy = matches!(busy, Err(AppendError::Store(JournalError::Busy { .. })));
    assert!(is_busy, "{busy:?}");
    journal.append(append("a", 0, &["y"])).await.unwrap();
    assert_eq!(texts(&*journal, "a").await, ["y"]);
}

/// Waits until the lock of the journal is held.
async fn until_held(url: &str, schema: &str) {
    let looker = connect(url).await;
    let sql = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
               WHERE l.locktype = 'advisory' AND l.granted AND a.query LIKE '%' || $1 || '%'";
    loop {
        let held: i64 = looker.query_one(sql, &[&schema]).await.unwrap().get(0);
        if held > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// P6: a process that is paused with the journal locked. Not even a server that lets it do so for ten
/// minutes holds the others up: they end its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_does_not_keep_the_journal_locked() {
    let Some(url) = shared() else { return };
    let schema = fresh_name();
    let config = PostgresConfig::parse(url).unwrap().schema(&schema);
    let journal = open(&config.lock_timeout(Duration::from_millis(150))).await;
    let mut holder = child::start(url, &schema, "hold");
    holder.next("locked").unwrap();
    holder.signal("STOP");
    let busy = journal.append(append("a", 0, &["x"])).await;
    let is_busy = matches!(busy, Err(AppendError::Store(JournalError::Busy { .. })));
    assert!(is_busy, "{busy:?}");
    journal.append(append("a", 0, &["y"])).await.unwrap();
    assert_eq!(texts(&*journal, "a").await, ["y"]);
    // Its claim was not committed.
    journal.claim("held", 0).await.unwrap();
}
