//! LogSpy: says what was logged on the thread of a test, with its spans.

use crate::sync::lock;
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

/// Collects the `tracing` events and spans of this thread for as long as it lives. A test with a
/// current-thread runtime sees all of its actors; nothing of the process is changed, so tests beside
/// it see nothing.
///
/// ```
/// use otava_actor::testkit::LogSpy;
/// use tracing::Level;
///
/// let log = LogSpy::new();
/// tracing::warn!(left = 3, "running low");
/// let event = log.expect_event(Level::WARN, "running low");
/// assert_eq!(event.fields["left"], "3");
/// ```
#[derive(Debug)]
pub struct LogSpy {
    seen: Arc<Mutex<Seen>>,
    /// While `tracing` knows one subscriber only, it asks the one of the thread that comes to an
    /// event first whether anybody listens, which may be a thread that has none, and keeps that
    /// answer for all threads. With a second subscriber it asks all of them.
    _twin: Dispatch,
    _guard: DefaultGuard,
}

/// One event that a [`LogSpy`] saw.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoggedEvent {
    /// How grave it is.
    pub level: Level,
    /// Where it comes from; the module unless the event says otherwise.
    pub target: String,
    /// The text.
    pub message: String,
    /// The other fields, as text.
    pub fields: BTreeMap<String, String>,
    /// The spans it is in, the innermost last.
    pub spans: Vec<LoggedSpan>,
}

/// One span that a [`LogSpy`] saw.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LoggedSpan {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub target: String,
    /// Its fields, as text.
    pub fields: BTreeMap<String, String>,
    /// The numbers of the spans that caused it; the first span that a spy saw is 1.
    pub follows_from: Vec<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<LoggedEvent>,
    /// By number, the first one is 1.
    spans: Vec<LoggedSpan>,
    /// The span in which each span was made, and its call site.
    parents: Vec<Option<u64>>,
    sites: Vec<&'static Metadata<'static>>,
    /// The spans that each thread is in.
    entered: HashMap<ThreadId, Vec<u64>>,
}

impl LogSpy {
    /// A spy on everything.
    pub fn new() -> Self {
        Self::up_to(Level::TRACE)
    }

    /// A spy on what is at least as grave as `level`; nothing else is enabled.
    pub fn up_to(level: Level) -> Self {
        let seen = Arc::default();
        let collector = || Collector {
            seen: Arc::clone(&seen),
            level,
        };
        let _twin = Dispatch::new(collector());
        let _guard = tracing::subscriber::set_default(collector());
        Self {
            seen,
            _twin,
            _guard,
        }
    }

    /// What was logged so far.
    pub fn events(&self) -> Vec<LoggedEvent> {
        lock(&self.seen).events.clone()
    }

    /// The spans that were made so far.
    pub fn spans(&self) -> Vec<LoggedSpan> {
        lock(&self.seen).spans.clone()
    }

    /// An event of this level, with `text` in its message, was logged: the first such is taken out.
    ///
    /// # Panics
    /// If there is none, with all that was logged.
    pub fn expect_event(&self, level: Level, text: &str) -> LoggedEvent {
        let mut seen = lock(&self.seen);
        let fits = |event: &LoggedEvent| event.level == level && event.message.contains(text);
        match seen.events.iter().position(fits) {
            Some(place) => seen.events.remove(place),
            None => panic!(
                "expected {level} {text:?} in the log, which says:\n{:#?}",
                seen.events
            ),
        }
    }

    /// Nothing at least as grave as `level` is in the log.
    ///
    /// # Panics
    /// If something is.
    pub fn expect_nothing(&self, level: Level) {
        let seen = lock(&self.seen);
        let found = seen.events.iter().find(|event| event.level <= level);
        assert!(
            found.is_none(),
            "expected nothing at {level} or graver, but this was logged: {found:#?}"
        );
    }
}

impl Default for LogSpy {
    fn default() -> Self {
        Self::new()
    }
}

/// The subscriber behind a spy.
struct Collector {
    seen: Arc<Mutex<Seen>>,
    level: Level,
}

impl Seen {
    fn here(&self) -> Option<u64> {
        let entered = self.entered.get(&thread::current().id())?;
        entered.last().copied()
    }

    /// The span of this number and those around it, the innermost last.
    fn around(&self, mut number: Option<u64>) -> Vec<LoggedSpan> {
        let mut spans = Vec::new();
        while let Some(at) = number.and_then(|number| usize::try_from(number).ok()) {
            spans.push(self.spans[at - 1].clone());
            number = self.parents[at - 1];
        }
        spans.reverse();
        spans
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut seen = lock(&self.seen);
        let parent = match attributes.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if attributes.is_contextual() => seen.here(),
            None => None,
        };
        seen.parents.push(parent);
        seen.sites.push(attributes.metadata());
        seen.spans.push(LoggedSpan {
            name: attributes.metadata().name().to_owned(),
            target: attributes.metadata().target().to_owned(),
            fields: fields.0,
            follows_from: Vec::new(),
        });
        Id::from_u64(seen.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let mut seen = lock(&self.seen);
        let at = usize::try_from(span.into_u64()).ok();
        if let Some(span) = at.and_then(|at| seen.spans.get_mut(at - 1)) {
            span.fields.extend(fields.0);
        }
    }

    fn record_follows_from(&self, span: &Id, cause: &Id) {
        let mut seen = lock(&self.seen);
        let at = usize::try_from(span.into_u64()).ok();
        if let Some(span) = at.and_then(|at| seen.spans.get_mut(at - 1)) {
            span.follows_from.push(cause.into_u64());
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap_or_default();
        let mut seen = lock(&self.seen);
        let span = match event.parent() {
            Some(parent) => Some(parent.into_u64()),
            None if event.is_contextual() => seen.here(),
            None => None,
        };
        let spans = seen.around(span);
        seen.events.push(LoggedEvent {
            level: *event.metadata().level(),
            target: event.metadata().target().to_owned(),
            message,
            fields: fields.0,
            spans,
        });
    }

    fn current_span(&self) -> Current {
        let seen = lock(&self.seen);
        let here = seen.here();
        let site = here
            .and_then(|number| usize::try_from(number).ok())
            .and_then(|at| seen.sites.get(at - 1));
        match (here, site) {
            (Some(number), Some(site)) => Current::new(Id::from_u64(number), site),
            _ => Current::none(),
        }
    }

    fn enter(&self, span: &Id) {
        let mut seen = lock(&self.seen);
        let entered = seen.entered.entry(thread::current().id()).or_default();
        entered.push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        let mut seen = lock(&self.seen);
        if let Some(entered) = seen.entered.get_mut(&thread::current().id())
            && let Some(place) = entered.iter().rposition(|&one| one == span.into_u64())
        {
            entered.remove(place);
        }
    }
}

/// Fields as text.
#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(
            field.name().to_owned(),
            fmt::format(format_args!("{value:?}")),
        );
    }
}
