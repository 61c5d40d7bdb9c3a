//! Replay: keeps commands in flight until each was acknowledged, and counts what it took.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::latency::Latencies;
use super::window::Window;

/// A try that was not answered by then is given up and made again.
pub(crate) const TRY_MAX: Duration = Duration::from_millis(1_500);
/// The replay fails when nothing at all is acknowledged for this long.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Pause after the first failed try; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// What a replay took.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) acknowledged: u64,
    /// Sends beyond the first of each command.
    pub(crate) retried: u64,
    /// From the first send of a command to its acknowledgement.
    pub(crate) latencies: Latencies,
    pub(crate) took: Duration,
}

/// A replay that stands still.
#[derive(Debug, thiserror::Error)]
#[error("nothing was acknowledged for {}, {acknowledged} commands were before{}", seconds(STALL_MAX), reason(.last_error))]
pub(crate) struct Stalled {
    acknowledged: u64,
    last_error: Option<String>,
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

fn reason(error: &Option<String>) -> String {
    error.as_ref().map_or_else(String::new, |error| {
        format!("; the last failed try: {error}")
    })
}

/// Sends every command of `window` with `send` until it is acknowledged. `acknowledged` follows the count.
///
/// # Errors
/// [`Stalled`] when the cluster stops answering altogether.
pub(crate) async fn replay<F, Fut, E>(
    mut window: Window,
    send: F,
    acknowledged: &watch::Sender<u64>,
    mut on_acknowledged: impl FnMut(u32),
) -> Result<Replayed, Stalled>
where
    F: Fn(u32) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let started = Instant::now();
    let mut result = Replayed::default();
    let last_error = std::cell::RefCell::new(None);
    let mut in_flight = FuturesUnordered::new();
    loop {
        while let Some(command) = window.take() {
            in_flight.push(until_acknowledged(command, &send, &last_error));
        }
        let Ok(next) = timeout(STALL_MAX, in_flight.next()).await else {
            let acknowledged = result.acknowledged;
            let last_error = last_error.borrow().as_ref().map(E::to_string);
            return Err(Stalled {
                acknowledged,
                last_error,
            });
        };
        let Some(Acknowledged {
            command,
            tries,
            took,
        }) = next
        else {
            break;
        };
        window.done(command);
        on_acknowledged(command);
        result.acknowledged += 1;
        result.retried += u64::from(tries - 1);
        result.latencies.record(took);
        acknowledged.send_replace(result.acknowledged);
    }
    debug_assert!(window.is_finished());
    result.took = started.elapsed();
    Ok(result)
}

struct Acknowledged {
    command: u32,
    tries: u32,
    took: Duration,
}

async fn until_acknowledged<F, Fut, E>(
    command: u32,
    send: &F,
    last_error: &std::cell::RefCell<Option<E>>,
) -> Acknowledged
where
    F: Fn(u32) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let started = Instant::now();
    let mut tries = 1;
    while let Err(error) = send(command).await {
        last_error.replace(Some(error));
        sleep(pause_after(tries, command)).await;
        tries += 1;
    }
    Acknowledged {
        command,
        tries,
        took: started.elapsed(),
    }
}

/// The pause before the next try, spread so that what failed together does not come back together.
fn pause_after(tries: u32, command: u32) -> Duration {
    let pause = PAUSE_MIN
        .saturating_mul(1 << (tries - 1).min(10))
        .min(PAUSE_MAX);
    pause / 2 + pause * (command % 64) / 64
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_sent_again_until_each_command_is_acknowledged_once() {
        let tries = Cell::new(0_u32);
        let flaky = async |command: u32| {
            sleep(Duration::from_millis(5)).await;
            tries.set(tries.get() + 1);
            if command.is_multiple_of(3) && tries.get().is_multiple_of(2) {
                Err("busy")
            } else {
                Ok(())
            }
        };
        let mut seen = vec![0; 1_000];
        let window = Window::new((0..1_000).map(|command| command % 16).collect(), 16, 64);
        let (acknowledged, count) = watch::channel(0);
        let result = replay(window, flaky, &acknowledged, |command| {
            seen[command as usize] += 1
        });
        let result = result.await.unwrap();
        assert!(seen.iter().all(|&times| times == 1));
        assert_eq!((result.acknowledged, *count.borrow()), (1_000, 1_000));
        assert_eq!(u64::from(tries.get()), 1_000 + result.retried);
        assert!(result.retried > 100, "{}", result.retried);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_never_answers_ends_the_replay() {
        let (acknowledged, _count) = watch::channel(0);
        let dead = async |_command: u32| Err::<(), _>("no route");
        let stalled = replay(Window::new(vec![0; 9], 1, 4), dead, &acknowledged, |_| {}).await;
        let message = stalled.unwrap_err().to_string();
        assert_eq!(
            message,
            "nothing was acknowledged for 60 s, 0 commands were before; \
             the last failed try: no route"
        );
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause_after(1, 0), PAUSE_MIN / 2);
        assert!(pause_after(1, 63) < PAUSE_MIN * 2);
        assert!(pause_after(40, 63) < PAUSE_MAX * 2);
    }
}
