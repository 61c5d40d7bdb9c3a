//! Metrics: what is counted about projections, through the `metrics` facade.
//!
//! Recorded with the recorder that is installed when an instance starts; without one it costs nothing.
//! Labels are `projection` and `slices`.
//!
//! | name | kind, unit | meaning |
//! | --- | --- | --- |
//! | `otava_projection_handled_total` | counter | events that were handled |
//! | `otava_projection_skipped_total` | counter | events that were passed over since they could not be handled |
//! | `otava_projection_failures_total` | counter | failures of handlers and of stores |
//! | `otava_projection_lag_positions` | gauge, positions | how far it is behind the newest position that it knows |

use metrics::{Counter, Gauge, counter, gauge};

pub(super) struct Metrics {
    handled: Counter,
    skipped: Counter,
    failures: Counter,
    lag: Gauge,
}

impl Metrics {
    pub(super) fn new(name: &str, (first, last): (u16, u16)) -> Self {
        let labels = [
            ("projection", name.to_owned()),
            ("slices", format!("{first}-{last}")),
        ];
        Self {
            handled: counter!("otava_projection_handled_total", &labels),
            skipped: counter!("otava_projection_skipped_total", &labels),
            failures: counter!("otava_projection_failures_total", &labels),
            lag: gauge!("otava_projection_lag_positions", &labels),
        }
    }

    pub(super) fn handled(&self, events: usize) {
        self.handled.increment(events as u64);
    }

    pub(super) fn skipped(&self) {
        self.skipped.increment(1);
    }

    pub(super) fn failed(&self) {
        self.failures.increment(1);
    }

    pub(super) fn lag(&self, positions: u64) {
        self.lag.set(positions as f64);
    }
}
