//! Table: the closing figures, for people and as one JSON line for scripts.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// What the death of a node cost.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    /// The node that was killed.
    pub(crate) node: String,
    /// How many shards it had.
    pub(crate) shards: usize,
    /// From the kill until the last of these shards answered again.
    pub(crate) answered_after: Duration,
    /// From the new start until the node was given shards.
    pub(crate) given_shards_after: Duration,
}

/// The figures of one run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) kill: &'static str,
    pub(crate) nodes: u32,
    pub(crate) acknowledged: u64,
    /// Sends beyond the first of a command.
    pub(crate) retried: u64,
    pub(crate) lost: u64,
    pub(crate) counted_twice: u64,
    pub(crate) exact: bool,
    /// From the first command to the last acknowledgement.
    pub(crate) replay: Duration,
    /// Commands acknowledged before the kill and the time this took; the whole replay without one.
    pub(crate) undisturbed: (u64, Duration),
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) slowest: Duration,
    /// How often a node called a member unreachable that had not been killed.
    pub(crate) false_alarms: usize,
    pub(crate) recovery: Option<Recovery>,
}

impl Figures {
    fn per_second(&self) -> f64 {
        rate(self.acknowledged, self.replay)
    }

    fn undisturbed_per_second(&self) -> f64 {
        rate(self.undisturbed.0, self.undisturbed.1)
    }

    /// One JSON object without a line break.
    pub(crate) fn to_json(&self) -> Value {
        let recovery = self.recovery.as_ref();
        json!({
            "peer": "otava",
            "workload": "flights",
            "kill": self.kill,
            "nodes": self.nodes,
            "n": self.acknowledged,
            "seconds": rounded(self.replay.as_secs_f64()),
            "per_sec": rounded(self.per_second()),
            "undisturbed_per_sec": rounded(self.undisturbed_per_second()),
            "retried": self.retried,
            "lost": self.lost,
            "counted_twice": self.counted_twice,
            "exact": self.exact,
            "p50_ms": millis(self.p50),
            "p99_ms": millis(self.p99),
            "max_ms": millis(self.slowest),
            "false_alarms": self.false_alarms,
            "recovery_s": recovery.map(|r| rounded(r.answered_after.as_secs_f64())),
            "shards_lost": recovery.map(|r| r.shards),
            "shards_given_s": recovery.map(|r| rounded(r.given_shards_after.as_secs_f64())),
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<28} {value:>12}");
        row("commands acknowledged", grouped(self.acknowledged))?;
        row("retried", grouped(self.retried))?;
        row("lost", grouped(self.lost))?;
        row("counted twice", grouped(self.counted_twice))?;
        row(
            "throughput, whole replay",
            format!("{}/s", grouped(self.per_second() as u64)),
        )?;
        if self.recovery.is_some() {
            let before = self.undisturbed_per_second() as u64;
            let rate = format!("{}/s", grouped(before));
            row("throughput, before the kill", rate)?;
        }
        row("latency p50", format!("{} ms", millis(self.p50)))?;
        row("latency p99", format!("{} ms", millis(self.p99)))?;
        row("latency slowest", format!("{} ms", millis(self.slowest)))?;
        row("false alarms", self.false_alarms.to_string())?;
        if let Some(recovery) = &self.recovery {
            let answered = recovery.answered_after.as_secs_f64();
            let given = recovery.given_shards_after.as_secs_f64();
            let shards = format!("{} shards answered after", recovery.shards);
            row(&shards, format!("{answered:.2} s"))?;
            let node = format!("{} given shards after", recovery.node);
            row(&node, format!("{given:.2} s"))?;
        }
        Ok(())
    }
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn rate(count: u64, took: Duration) -> f64 {
    if took.is_zero() {
        0.0
    } else {
        count as f64 / took.as_secs_f64()
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn millis(took: Duration) -> f64 {
    rounded(took.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        Figures {
            kill: "WORKER",
            nodes: 3,
            acknowledged: 26_849,
            retried: 17,
            lost: 0,
            counted_twice: 0,
            exact: true,
            replay: Duration::from_secs(4),
            undisturbed: (10_000, Duration::from_secs(1)),
            p50: Duration::from_micros(12_345),
            p99: Duration::from_millis(99),
            slowest: Duration::from_millis(3_500),
            false_alarms: 0,
            recovery: Some(Recovery {
                node: "node-2".into(),
                shards: 43,
                answered_after: Duration::from_millis(3_456),
                given_shards_after: Duration::from_millis(1_500),
            }),
        }
    }

    #[test]
    fn the_table_shows_every_figure() {
        let table = figures().to_string();
        for line in [
            "  commands acknowledged              26,849\n",
            "  retried                                17\n",
            "  lost                                    0\n",
            "  counted twice                           0\n",
            "  throughput, whole replay          6,712/s\n",
            "  throughput, before the kill      10,000/s\n",
            "  latency p50                      12.35 ms\n",
            "  latency p99                         99 ms\n",
            "  false alarms                            0\n",
            "  43 shards answered after           3.46 s\n",
            "  node-2 given shards after          1.50 s\n",
        ] {
            assert!(table.contains(line), "{line:?} is not in\n{table}");
        }
    }

    #[test]
    fn the_json_line_has_no_recovery_without_a_kill() {
        let whole = figures().to_json();
        assert_eq!(whole["recovery_s"], 3.46);
        assert_eq!(whole["per_sec"], 6712.25);
        let quiet = Figures {
            recovery: None,
            ..figures()
        }
        .to_json();
        assert!(quiet["recovery_s"].is_null());
        assert!(!quiet.to_string().contains('\n'));
    }
}
