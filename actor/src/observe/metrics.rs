//! Metrics: what is counted about actors, by their type, through the `metrics` facade.
//!
//! Off unless [`crate::SystemBuilder::metrics`] switches it on. Then everything below is recorded with
//! the recorder that is installed where and when the first actor of a type is spawned (for dead
//! letters: when the system is built). Labels are `system` and `actor_type`, the latter without its
//! module paths; never a path or a number, so the number of series is bounded by the program's text.
//!
//! | name | kind, unit | meaning |
//! | --- | --- | --- |
//! | `otava_actors_spawned_total` | counter | actors started |
//! | `otava_actors_stopped_total` | counter | actors that have ended, for any reason |
//! | `otava_actors_alive` | gauge | actors that have started and not ended |
//! | `otava_actor_failures_total` | counter | hooks and handlers that failed |
//! | `otava_actor_restarts_total` | counter | restarts after a failure |
//! | `otava_actor_messages_total` | counter | messages and news of ends handled, with or without a failure |
//! | `otava_actor_handle_seconds` | histogram, seconds | from the begin of a handler to its end, what it awaits included |
//! | `otava_actor_mailbox_wait_seconds` | histogram, seconds | from the moment a message was sent to the begin of its handler |
//! | `otava_actor_mailbox_depth` | histogram, messages | messages that wait behind one when it is begun |
//! | `otava_dead_letters_total` | counter | dead letters, labels `system` and `reason` |
//!
//! Times are of the system's clock.

use super::LifeEvent;
use crate::dead_letters::DeadLetterReason;
use crate::sync::lock;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, Unit};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The metrics of one system.
pub(crate) struct SystemMetrics {
    system: SharedString,
    /// Looked up at each spawn, never at a message.
    by_type: Mutex<BTreeMap<TypeId, Arc<TypeMetrics>>>,
}

impl SystemMetrics {
    pub(crate) fn new(system: &str) -> Self {
        let metrics = Self {
            system: SharedString::from(system.to_owned()),
            by_type: Mutex::default(),
        };
        describe();
        metrics
    }

    /// The handles of actors of type `A`.
    pub(crate) fn of<A: 'static>(&self) -> Arc<TypeMetrics> {
        let key = TypeId::of::<A>();
        if let Some(known) = lock(&self.by_type).get(&key) {
            return known.clone();
        }
        // The recorder is foreign code and does not run under the lock. Registering twice is harmless.
        let actor_type = short_name(std::any::type_name::<A>());
        let new = Arc::new(TypeMetrics::new(&self.system, &actor_type));
        lock(&self.by_type).entry(key).or_insert(new).clone()
    }

    /// One counter for each reason, in the order of `reasons`.
    pub(crate) fn dead_letters(&self, reasons: &[DeadLetterReason]) -> Vec<Counter> {
        let counters = reasons.iter().map(|reason| {
            let labels = vec![
                Label::new("system", self.system.clone()),
                Label::new("reason", reason.name()),
            ];
            let key = Key::from_parts("otava_dead_letters_total", labels);
            metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA))
        });
        counters.collect()
    }
}

/// The handles for one type of actors.
pub(crate) struct TypeMetrics {
    spawned: Counter,
    stopped: Counter,
    alive: Gauge,
    failures: Counter,
    restarts: Counter,
    messages: Counter,
    handle_seconds: Histogram,
    mailbox_depth: Histogram,
    mailbox_wait_seconds: Histogram,
}

static METADATA: Metadata<'static> = Metadata::new("otava_actor", Level::INFO, None);

impl TypeMetrics {
    fn new(system: &SharedString, actor_type: &str) -> Self {
        let labels = vec![
            Label::new("system", system.clone()),
            Label::new("actor_type", actor_type.to_owned()),
        ];
        let key = |name: &'static str| Key::from_parts(name, labels.clone());
        metrics::with_recorder(|recorder| {
            let counter = |name| recorder.register_counter(&key(name), &METADATA);
            let histogram = |name| recorder.register_histogram(&key(name), &METADATA);
            Self {
                spawned: counter("otava_actors_spawned_total"),
                stopped: counter("otava_actors_stopped_total"),
                alive: recorder.register_gauge(&key("otava_actors_alive"), &METADATA),
                failures: counter("otava_actor_failures_total"),
                restarts: counter("otava_actor_restarts_total"),
                messages: counter("otava_actor_messages_total"),
                handle_seconds: histogram("otava_actor_handle_seconds"),
                mailbox_depth: histogram("otava_actor_mailbox_depth"),
                mailbox_wait_seconds: histogram("otava_actor_mailbox_wait_seconds"),
            }
        })
    }

    pub(crate) fn spawned(&self) {
        self.spawned.increment(1);
        self.alive.increment(1.0);
    }

    pub(crate) fn saw(&self, event: &LifeEvent<'_>) {
        match event {
            LifeEvent::Failed(_) => self.failures.increment(1),
            LifeEvent::Restarted => self.restarts.increment(1),
            LifeEvent::Started => {}
            LifeEvent::Ended(_) => {
                self.stopped.increment(1);
                self.alive.decrement(1.0);
            }
        }
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.mailbox_wait_seconds.record(time);
    }

    pub(crate) fn handled(&self, took: Duration, queued: usize) {
        self.messages.increment(1);
        self.handle_seconds.record(took);
        #[allow(
            clippy::cast_precision_loss,
            reason = "a mailbox of 2^52 messages does not fit any machine"
        )]
        self.mailbox_depth.record(queued as f64);
    }
}

/// Tells the recorder what the names mean.
fn describe() {
    metrics::with_recorder(|recorder| {
        let counter = |name: &'static str, text: &'static str| {
            recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
        };
        counter("otava_actors_spawned_total", "actors started");
        counter("otava_actors_stopped_total", "actors that have ended");
        counter(
            "otava_actor_failures_total",
            "hooks and handlers that failed",
        );
        counter("otava_actor_restarts_total", "restarts after a failure");
        counter("otava_actor_messages_total", "messages handled");
        counter(
            "otava_dead_letters_total",
            "messages that were not delivered",
        );
        recorder.describe_gauge(
            "otava_actors_alive".into(),
            Some(Unit::Count),
            "actors that have started and not ended".into(),
        );
        recorder.describe_histogram(
            "otava_actor_handle_seconds".into(),
            Some(Unit::Seconds),
            "from the begin of a handler to its end".into(),
        );
        recorder.describe_histogram(
            "otava_actor_mailbox_wait_seconds".into(),
            Some(Unit::Seconds),
            "from the moment a message was sent to the begin of its handler".into(),
        );
        recorder.describe_histogram(
            "otava_actor_mailbox_depth".into(),
            Some(Unit::Count),
            "messages that wait behind one when it is begun".into(),
        );
    });
}

/// A type's name without the paths of modules: `shop::Cart<shop::Item>` is `Cart<Item>`.
fn short_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    let mut word_from = 0;
    let mut rest = full.char_indices().peekable();
    while let Some((_, c)) = rest.next() {
        if c == ':' && rest.next_if(|&(_, next)| next == ':').is_some() {
            short.truncate(word_from);
            continue;
        }
        short.push(c);
        if !(c.is_alphanumeric() || c == '_' || c == '{' || c == '}') {
            word_from = short.len();
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::short_name;

    #[test]
    fn names_of_types_lose_their_paths() {
        for (full, short) in [
            ("shop::orders::Cart", "Cart"),
            (
                "shop::Cart<shop::Item, alloc::vec::Vec<u8>>",
                "Cart<Item, Vec<u8>>",
            ),
            ("it::f::{{closure}}::Local", "Local"),
            ("(a::B, &c::D)", "(B, &D)"),
            ("u8", "u8"),
        ] {
            assert_eq!(short_name(full), short);
        }
    }
}
