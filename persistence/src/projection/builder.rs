//! Builder: which events a projection reads, how they are decoded, and who handles them.

use crate::event_sourced::{EventReader, EventSourced};
use crate::id::SLICES;
use crate::journal::{Fence, Journal};
use crate::logic::projection::{Machine, Rules};
use crate::logic::slices::range_of;
use crate::offset::OffsetStore;
use crate::projection::driver::{Board, Decode, Driver};
use crate::projection::handle::Instance;
use crate::projection::metrics::Metrics;
use crate::projection::sink::{Batches, Exact, Kept, Made, OneByOne, Sink};
use crate::projection::{
    BatchHandler, Handler, ProjectionHandle, ProjectionOptions, ProjectionRun, ProjectionStatus,
    TransactionalHandler,
};
use crate::query::{EventQueries, EventQuery, FoundEvent};
use std::fmt::{self, Display};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Begins the description of a projection: its name, and whose events it is given.
///
/// # Examples
/// ```
/// # use otava_persistence::{Effect, EventSourced};
/// # struct Account;
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Deposited(u64);
/// # impl EventSourced for Account {
/// #     type Command = ();
/// #     type Event = Deposited;
/// #     type Snapshot = ();
/// #     const EVENT_NAME: &'static str = "bank.Event";
/// #     const EVENT_VERSION: u16 = 1;
/// #     fn handle(&self, _: ()) -> Effect<Self> { Effect::none() }
/// #     fn apply(&mut self, _: &Deposited) {}
/// # }
/// use otava_persistence::{Envelope, EventQuery, Handler, Journal, MemoryJournal, Projection};
/// use std::sync::Arc;
///
/// struct Report;
///
/// impl Handler<Deposited> for Report {
///     type Error = std::io::Error;
///
///     async fn handle(&mut self, event: &Envelope<Deposited>) -> Result<(), Self::Error> {
///         println!("{} got {}", event.id.entity(), event.event.0);
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::new());
/// let running = Projection::of::<Account>("report", journal)
///     .query(EventQuery::all().kind("account"))
///     .instances(4)
///     .each(|| Report)
///     .start()?;
/// running.stop().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "it does nothing until it is started"]
pub struct Projection<E> {
    name: Arc<str>,
    journal: Arc<dyn Journal>,
    queries: Option<Arc<dyn EventQueries>>,
    offsets: Option<Arc<dyn OffsetStore>>,
    query: EventQuery,
    instances: u16,
    options: ProjectionOptions,
    decode: Decode<E>,
}

impl<E> fmt::Debug for Projection<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Projection");
        shown.field("name", &self.name).finish_non_exhaustive()
    }
}

impl Projection<()> {
    /// The longest name in bytes.
    pub const NAME_BYTES_MAX: usize = 256;

    /// A projection of the events of `S`, which are decoded as for its recovery: by name and version,
    /// old ones by its upcasters. The query should be for its kind only ([`Projection::query`]).
    ///
    /// # Panics
    /// When the name is empty, longer than [`Projection::NAME_BYTES_MAX`] or contains `/`: offsets are
    /// kept under it. The name is a constant of the program.
    pub fn of<S: EventSourced<Event: Sync>>(
        name: &str,
        journal: Arc<dyn Journal>,
    ) -> Projection<S::Event> {
        let reader = EventReader::<S>::new();
        let decode = move |found: &FoundEvent| reader.read(&found.event);
        Self::decoded_by(name, journal, decode)
    }

    /// A projection of events that `decode` makes something of, for example those of several kinds: one
    /// event or several, which are handled together, or none. An error is a failure of the event
    /// ([`crate::OnPoison`]).
    ///
    /// # Panics
    /// As [`Projection::of`].
    pub fn decoded_by<E: Send + Sync + 'static, I: IntoIterator<Item = E>, X: Display>(
        name: &str,
        journal: Arc<dyn Journal>,
        decode: impl Fn(&FoundEvent) -> Result<I, X> + Send + Sync + 'static,
    ) -> Projection<E> {
        let fits = !name.is_empty() && name.len() <= Self::NAME_BYTES_MAX && !name.contains('/');
        assert!(
            fits,
            "the name {name:?} of a projection must have 1 to {} bytes and no '/'",
            Self::NAME_BYTES_MAX
        );
        let decode = move |found: &FoundEvent| match decode(found) {
            Ok(events) => Ok(events.into_iter().collect()),
            Err(error) => Err(error.to_string().into()),
        };
        Projection {
            name: name.into(),
            queries: journal.queries(),
            offsets: journal.offsets(),
            journal,
            query: EventQuery::all(),
            instances: 1,
            options: ProjectionOptions::default(),
            decode: Arc::new(decode),
        }
    }
}

impl<E: Send + Sync + 'static> Projection<E> {
    /// Which events it reads. Default: all. Slices that are asked for here do not count: each instance
    /// has its own.
    pub fn query(mut self, query: EventQuery) -> Self {
        self.query = query;
        self
    }

    /// How many instances share the slices. Default 1. It can be changed from one start to the next:
    /// the offsets are taken over.
    ///
    /// # Panics
    /// When it is 0, or more than there are slices.
    pub fn instances(mut self, instances: u16) -> Self {
        assert!(
            (1..=SLICES).contains(&instances),
            "a projection has 1 to {SLICES} instances, not {instances}"
        );
        self.instances = instances;
        self
    }

    /// The settings.
    pub fn options(mut self, options: ProjectionOptions) -> Self {
        self.options = options;
        self
    }

    /// Reads the events elsewhere, for example in a copy of the journal. Default: [`Journal::queries`].
    pub fn queries(mut self, queries: Arc<dyn EventQueries>) -> Self {
        self.queries = Some(queries);
        self
    }

    /// Keeps the offsets elsewhere. Default: [`Journal::offsets`].
    pub fn offsets(mut self, offsets: Arc<dyn OffsetStore>) -> Self {
        self.offsets = Some(offsets);
        self
    }

    /// Events are handled one by one, at least once. Each instance makes its own handler, and a new
    /// one after a panic.
    pub fn each<H: Handler<E>>(
        self,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> ProjectionPlan {
        self.at_least_once(Some(1), move || OneByOne(handler()))
    }

    /// Events are handled in batches, at least once.
    pub fn batches<H: BatchHandler<E>>(
        self,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> ProjectionPlan {
        self.at_least_once(None, handler)
    }

    fn at_least_once<H: BatchHandler<E>>(
        self,
        batch: Option<usize>,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> ProjectionPlan {
        let make: Arc<dyn Fn() -> H + Send + Sync> = Arc::new(handler);
        self.plan(batch, false, move |place| {
            let handler = Made::new(Arc::clone(&make));
            let kept = place.kept()?;
            Ok(Box::new(Batches { handler, kept }))
        })
    }

    /// Results are stored with the offset, in one transaction: exactly once.
    pub fn exactly_once<H: TransactionalHandler<E>>(
        self,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> ProjectionPlan {
        let make: Arc<dyn Fn() -> H + Send + Sync> = Arc::new(handler);
        let journal = Arc::clone(&self.journal);
        self.plan(None, true, move |place| {
            let (first, last) = place.slices;
            let run = ProjectionRun::new(Arc::clone(&place.name), first..=last, 0);
            Ok(Box::new(Exact {
                handler: Made::new(Arc::clone(&make)),
                journal: Arc::clone(&journal),
                fence: place.fence,
                run,
            }))
        })
    }

    fn plan(
        self,
        batch: Option<usize>,
        with_results: bool,
        sink: impl Fn(Place) -> Result<Box<dyn Sink<E>>, ProjectionStartError> + Send + Sync + 'static,
    ) -> ProjectionPlan {
        let (name, instances) = (Arc::clone(&self.name), self.instances);
        let options = &self.options;
        let rules = Rules {
            batch_max: batch.unwrap_or(options.batch_events.get()),
            save_every: options.save_every.max(1),
            save_after: options.save_after,
            backoff: options.backoff,
            on_poison: options.on_poison,
            with_results,
        };
        let start = move |index: u16, fence: Option<Fence>, board: Board| {
            let slices = range_of(index, self.instances);
            let queries = self
                .queries
                .clone()
                .ok_or(ProjectionStartError::NoQueries)?;
            let sink = sink(Place {
                name: Arc::clone(&self.name),
                slices,
                instances: self.instances,
                offsets: self.offsets.clone(),
                fence,
            })?;
            // A few commands wait at most: whoever gives them waits for the answer.
            let (sender, commands) = mpsc::channel(8);
            let driver = Driver {
                name: Arc::clone(&self.name),
                queries,
                query: self.query.clone().slices(slices.0..=slices.1),
                decode: Arc::clone(&self.decode),
                sink,
                page_events: self.options.page_events.get(),
                handle_within: self.options.handle_within,
                commands,
                board,
                metrics: Metrics::new(&self.name, slices),
            };
            let seed = self
                .options
                .seed
                .unwrap_or_else(|| RandomState::new().hash_one(index));
            let machine = Machine::new(rules.clone(), seed.wrapping_add(index.into()));
            let task = tokio::spawn(driver.run(machine)).abort_handle();
            Ok(Instance {
                commands: sender,
                task,
            })
        };
        let start = Arc::new(start);
        ProjectionPlan {
            name,
            instances,
            start,
        }
    }
}

/// Where an instance lives.
struct Place {
    name: Arc<str>,
    slices: (u16, u16),
    instances: u16,
    offsets: Option<Arc<dyn OffsetStore>>,
    fence: Option<Fence>,
}

impl Place {
    fn kept(self) -> Result<Kept, ProjectionStartError> {
        Ok(Kept {
            store: self.offsets.ok_or(ProjectionStartError::NoOffsets)?,
            name: self.name,
            slices: self.slices,
            instances: self.instances,
        })
    }
}

/// Why a projection could not be started.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionStartError {
    /// The journal keeps no offsets, and no other store was given.
    #[error("the journal keeps no offsets: give the projection a store of its own")]
    NoOffsets,
    /// The journal has no queries, and no others were given.
    #[error("the journal has no queries: give the projection some of its own")]
    NoQueries,
    /// There are not so many instances.
    #[error("there is no instance {index}, only {instances}, counted from 0")]
    NoSuchInstance {
        /// Which one was asked for.
        index: u16,
        /// How many there are.
        instances: u16,
    },
}

type Start =
    dyn Fn(u16, Option<Fence>, Board) -> Result<Instance, ProjectionStartError> + Send + Sync;

/// A projection that is ready to be started, here as a whole or instance by instance on several nodes.
#[derive(Clone)]
#[must_use = "it does nothing until it is started"]
pub struct ProjectionPlan {
    name: Arc<str>,
    instances: u16,
    start: Arc<Start>,
}

impl fmt::Debug for ProjectionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ProjectionPlan");
        shown.field("name", &self.name);
        shown
            .field("instances", &self.instances)
            .finish_non_exhaustive()
    }
}

impl ProjectionPlan {
    /// The name of the projection.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many instances it has.
    #[must_use]
    pub fn instances(&self) -> u16 {
        self.instances
    }

    /// Starts all instances in this process.
    ///
    /// # Errors
    /// See [`ProjectionStartError`].
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime.
    pub fn start(&self) -> Result<ProjectionHandle, ProjectionStartError> {
        self.start_some(0..self.instances, None)
    }

    /// Starts one instance, counted from 0. The others run elsewhere.
    ///
    /// `fence` is the right by which it runs, where something gives such rights: an instance with
    /// results in a transaction does not begin, after a failure too, once a higher epoch was claimed.
    ///
    /// # Errors
    /// See [`ProjectionStartError`].
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime.
    pub fn start_instance(
        &self,
        index: u16,
        fence: Option<Fence>,
    ) -> Result<ProjectionHandle, ProjectionStartError> {
        if index >= self.instances {
            let instances = self.instances;
            return Err(ProjectionStartError::NoSuchInstance { index, instances });
        }
        self.start_some(index..index + 1, fence)
    }

    fn start_some(
        &self,
        indices: std::ops::Range<u16>,
        fence: Option<Fence>,
    ) -> Result<ProjectionHandle, ProjectionStartError> {
        let ranges = indices.clone().map(|index| range_of(index, self.instances));
        let begin = ranges.map(ProjectionStatus::new).collect();
        let (sender, statuses) = watch::channel(begin);
        let sender = Arc::new(sender);
        let started = indices.enumerate().map(|(place, index)| {
            let statuses = Arc::clone(&sender);
            let board = Board {
                statuses,
                index: place,
            };
            (self.start)(index, fence.clone(), board)
        });
        let instances: Vec<_> = started.collect::<Result<_, _>>()?;
        Ok(ProjectionHandle {
            name: Arc::clone(&self.name),
            instances: instances.into(),
            statuses,
        })
    }
}
