//! Faults: what a seed does to a cluster: nodes that crash, leave and come, paths that are cut.

use crate::testkit::simulation::{SimCluster, addr};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// One thing that happens to a cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    CrashAndRestart,
    Isolate,
    LeaveAndJoin,
    Minority,
    ShortCut,
}

const STEPS: [Step; 5] = [
    Step::CrashAndRestart,
    Step::Isolate,
    Step::LeaveAndJoin,
    Step::Minority,
    Step::ShortCut,
];

impl<T: Clone + 'static> SimCluster<T> {
    /// Lets one random fault follow another for a while: crashes with restarts, planned leaves, nodes and
    /// minorities that are cut off for long or short, links that break. Returns when the last one is
    /// over, every node runs, and all agree.
    ///
    /// # Panics
    /// When the cluster does not recover from a fault.
    pub async fn random_faults(&self, lasting: Duration) {
        let began = Instant::now();
        let full = self.numbers();
        while began.elapsed() < lasting {
            self.pause(200, 3_000).await;
            let step = STEPS[usize::try_from(self.random_below(STEPS.len() as u64)).unwrap_or(0)];
            tracing::info!(?step, "the next fault");
            match step {
                Step::CrashAndRestart if full.len() > 2 => self.crash_and_restart().await,
                Step::Isolate if full.len() > 2 => self.cut_off(1, 300..20_000).await,
                Step::LeaveAndJoin if full.len() > 1 => {
                    let number = self.some(&self.numbers());
                    self.leave(number).await;
                }
                Step::Minority if full.len() > 2 => {
                    let size = 1 + self.random_below((full.len() as u64 - 1) / 2);
                    self.cut_off(size, 5_000..30_000).await;
                }
                Step::ShortCut if full.len() > 1 => self.cut_off(1, 100..2_000).await,
                _ => {}
            }
            self.refill(&full).await;
        }
    }

    async fn pause(&self, from_ms: u64, to_ms: u64) {
        let pause = from_ms + self.random_below(to_ms - from_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    async fn crash_and_restart(&self) {
        let victim = self.some(&self.numbers());
        self.crash(victim).await;
        self.pause(0, 9_000).await;
        self.start(victim).await;
    }

    /// Cuts some nodes off from the others for a while, together.
    async fn cut_off(&self, size: u64, lasts_ms: std::ops::Range<u64>) {
        let mut others = self.numbers();
        let mut cut = Vec::new();
        for _ in 0..size {
            let number = self.some(&others);
            others.retain(|other| *other != number);
            cut.push(number);
        }
        for a in &cut {
            for b in &others {
                self.inner.net.cut(addr(*a), addr(*b));
            }
        }
        self.pause(lasts_ms.start, lasts_ms.end).await;
        self.inner.net.heal_all();
    }

    /// Waits until those that were put down have ended and the others agree, and starts what is missing.
    async fn refill(&self, full: &[u16]) {
        let began = Instant::now();
        loop {
            for number in self.numbers() {
                let Some((node, _)) = self.node(number) else {
                    continue;
                };
                if timeout(Duration::from_millis(10), node.ended())
                    .await
                    .is_ok()
                {
                    self.forget(number);
                }
            }
            let numbers = self.numbers();
            let size = numbers.len();
            let agree = numbers
                .iter()
                .filter_map(|number| self.node(*number))
                .all(|(node, _)| {
                    let state = node.state();
                    state.up().count() == size && state.members.len() == size && state.converged
                });
            if agree && size > 0 {
                break;
            }
            let took = began.elapsed();
            assert!(took < Duration::from_secs(90), "the cluster stays in doubt");
            sleep(Duration::from_millis(100)).await;
        }
        for number in full {
            if self.node(*number).is_none() {
                self.start(*number).await;
            }
        }
        self.settled().await;
    }
}
