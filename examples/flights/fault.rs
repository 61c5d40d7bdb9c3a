//! Fault: kills a node in the middle, measures how the cluster recovers, starts the node again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::aircraft::Command;
use super::options::Kill;
use super::processes::NodeProcess;
use super::run::Stage;
use super::table::Recovery;

/// The node dies when this part of all commands was acknowledged.
const KILL_AT: f64 = 1.0 / 3.0;
/// One try to get an answer from a shard that lost its home.
const PROBE_MAX: Duration = Duration::from_millis(250);
/// Every shard has to answer again by then.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// The node that was started again has to have shards by then.
const RETURN_MAX: Duration = Duration::from_secs(60);

/// Plays the fault beside the replay. `at_kill` is called right before the node dies.
///
/// # Errors
/// When the cluster does not recover, or does not take the node back.
pub(crate) async fn play(
    kill: Kill,
    stage: &Stage,
    nodes: &mut [NodeProcess],
    at_kill: impl FnOnce(),
) -> Result<Option<Recovery>, String> {
    if kill == Kill::None {
        return Ok(None);
    }
    let total = stage.input.departures.len() as f64;
    let mut acknowledged = stage.acknowledged.clone();
    let due = acknowledged.wait_for(|&count| count as f64 >= total * KILL_AT);
    if due.await.is_err() {
        return Err("the replay ended before a node was killed".to_owned());
    }
    let victim = choose(kill, stage, nodes)?;
    let shards = stage.view.borrow().shards_of(victim.name());
    at_kill();
    let name = victim.name().to_owned();
    let killed_at = Instant::now();
    victim.kill().await;
    let role = if kill == Kill::Coordinator {
        ", the coordinator,"
    } else {
        ""
    };
    stage.show.event(&format!(
        "killed {name}{role} with its {} shards",
        shards.len()
    ));

    let answers = join_all(shards.iter().map(|&shard| answered(stage, shard)));
    if timeout(RECOVERY_MAX, answers).await.is_err() {
        return Err(format!(
            "not all shards of {name} answered again within {RECOVERY_MAX:?}"
        ));
    }
    let answered_after = killed_at.elapsed();
    stage.show.event(&format!(
        "all {} shards of {name} answer again, {:.2} s after the kill",
        shards.len(),
        answered_after.as_secs_f64()
    ));

    let started_at = Instant::now();
    victim
        .start_again(stage.news.clone())
        .map_err(|error| format!("cannot start {name} again: {error}"))?;
    stage.show.event(&format!("started {name} again"));
    let given = async {
        while stage.view.borrow().shards_of(&name).is_empty() || !stage.view.borrow().is_up(&name) {
            sleep(PROBE_MAX / 10).await;
        }
    };
    if timeout(RETURN_MAX, given).await.is_err() {
        return Err(format!(
            "{name} was given no shards within {RETURN_MAX:?} after its return"
        ));
    }
    let given_shards_after = started_at.elapsed();
    stage.show.event(&format!(
        "{name} has shards again, {:.2} s after its start",
        given_shards_after.as_secs_f64()
    ));
    Ok(Some(Recovery {
        node: name,
        shards: shards.len(),
        answered_after,
        given_shards_after,
    }))
}

/// The node that is to die.
fn choose<'n>(
    kill: Kill,
    stage: &Stage,
    nodes: &'n mut [NodeProcess],
) -> Result<&'n mut NodeProcess, String> {
    let oldest = stage.view.borrow().oldest.clone();
    let oldest = oldest.ok_or("nobody knows where the coordinator is")?;
    let wanted = |node: &&mut NodeProcess| (node.name() == oldest) == (kill == Kill::Coordinator);
    // Of the workers the last one, so that it is not always the neighbour of the coordinator.
    let victim = nodes.iter_mut().rev().find(wanted);
    victim.ok_or_else(|| "there is no such node".to_owned())
}

/// Waits until a shard answers. Whom it is asked about does not matter: an aircraft that the shard
/// would have.
async fn answered(stage: &Stage, shard: u32) {
    let of_shard = |id: &String| stage.aircraft.shard_of(id) == shard;
    let tails = stage.input.tails.iter().map(|tail| tail.to_string());
    let invented = (0..u64::MAX).map(|number| format!("probe-{number}"));
    let Some(id) = tails.chain(invented).find(of_shard) else {
        return;
    };
    loop {
        let aircraft = stage.aircraft.entity(&id);
        let asked = aircraft.ask(|reply_to| Command::Get { reply_to });
        if asked.within(PROBE_MAX).await.is_ok() {
            return;
        }
        sleep(PROBE_MAX / 10).await;
    }
}
