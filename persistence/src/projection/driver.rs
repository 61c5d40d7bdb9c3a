//! Driver: carries out what [`crate::logic::projection`] decides for one instance; decides nothing.

use crate::id::PersistenceId;
use crate::logic::projection::{Blame, End, Machine, Queued, Step, Verdict};
use crate::logic::slices::{SliceOffset, offset_of};
use crate::projection::handle::Command;
use crate::projection::metrics::Metrics;
use crate::projection::sink::{Sink, Trouble};
use crate::projection::{Envelope, ProjectionState, ProjectionStatus};
use crate::query::{EventQueries, EventQuery, FoundEvent, QueryPage};
use futures_util::FutureExt as _;
use otava_actor::{Time, describe_panic};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Decodes a stored event: to one, to several, or to none, which the projection passes over.
pub(super) type Decode<E> = Arc<dyn Fn(&FoundEvent) -> Result<Vec<E>, Arc<str>> + Send + Sync>;

/// How often the newest position is asked for while there is more to read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long that may take: there should be an answer at once.
const LOOK_WITHIN: Duration = Duration::from_millis(50);

/// An event that was read.
enum Item<E> {
    Broken(Broken),
    Good(Envelope<E>),
}

impl<E> Item<E> {
    fn position(&self) -> u64 {
        match self {
            Self::Broken(broken) => broken.position,
            Self::Good(event) => event.position,
        }
    }
}

/// One that could not be decoded.
struct Broken {
    id: PersistenceId,
    seq: u64,
    position: u64,
    reason: Arc<str>,
}

/// Where the driver says how it goes.
pub(super) struct Board {
    pub(super) statuses: Arc<watch::Sender<Vec<ProjectionStatus>>>,
    pub(super) index: usize,
}

impl Board {
    fn change(&self, change: impl FnOnce(&mut ProjectionStatus)) {
        self.statuses.send_if_modified(|all| {
            let status = &mut all[self.index];
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.change(|status| {
            if !status.state.has_ended() {
                status.state = ProjectionState::Stopped;
            }
        });
    }
}

pub(super) struct Driver<E> {
    pub(super) name: Arc<str>,
    pub(super) queries: Arc<dyn EventQueries>,
    pub(super) query: EventQuery,
    pub(super) decode: Decode<E>,
    pub(super) sink: Box<dyn Sink<E>>,
    pub(super) page_events: usize,
    pub(super) handle_within: Duration,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
}

/// What changes while a driver runs.
struct Life<E> {
    machine: Machine,
    clock: Instant,
    /// Where each slice was when the offset was loaded: events up to there are not wanted.
    pieces: Vec<SliceOffset>,
    events: VecDeque<Item<E>>,
    hand: Vec<Envelope<E>>,
    newest: u64,
    looked: Option<Instant>,
    last_event_at_ms: Option<u64>,
    last_error: Option<Arc<str>>,
    restarts: Vec<oneshot::Sender<()>>,
}

impl<E> Life<E> {
    /// Takes what was made of the next `count` stored events.
    fn take_in_hand(&mut self, count: usize) {
        self.hand.clear();
        let (mut taken, mut last) = (0, None);
        while let Some(item) = self.events.pop_front() {
            let begins = last != Some(item.position());
            last = Some(item.position());
            match item {
                Item::Good(event) if !begins || taken < count => self.hand.push(event),
                item => return self.events.push_front(item),
            }
            taken += usize::from(begins);
        }
    }

    /// Drops what was made of the next stored event; which one it was.
    fn drop_head(&mut self) -> Option<(PersistenceId, u64)> {
        let position = self.events.front()?.position();
        let mut dropped = None;
        while self
            .events
            .front()
            .is_some_and(|item| item.position() == position)
        {
            dropped = self.events.pop_front().map(|item| match item {
                Item::Broken(broken) => (broken.id, broken.seq),
                Item::Good(event) => (event.id, event.seq),
            });
        }
        dropped
    }

    fn now(&self) -> Time {
        Time::ZERO + self.clock.elapsed()
    }

    fn instant(&self, time: Time) -> Instant {
        self.clock + time.saturating_since(Time::ZERO)
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Pause(done)) => {
                self.machine.pause();
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Some(Command::RestartFrom(offset, done)) => {
                self.machine.restart_from(offset);
                self.restarts.push(done);
            }
            Some(Command::Resume) => self.machine.resume(),
            Some(Command::Stop) | None => self.machine.stop(),
        }
    }
}

impl<E: Send + Sync + 'static> Driver<E> {
    pub(super) async fn run(mut self, machine: Machine) {
        let mut life = Life {
            machine,
            clock: Instant::now(),
            pieces: Vec::new(),
            events: VecDeque::new(),
            hand: Vec::new(),
            newest: 0,
            looked: None,
            last_event_at_ms: None,
            last_error: None,
            restarts: Vec::new(),
        };
        let slices = self.query.slice_range();
        tracing::info!(projection = %self.name, ?slices, "projection starts");
        loop {
            self.take_commands(&mut life);
            let step = life.machine.step(life.now());
            self.publish(&life, step);
            if let Step::End(end) = step {
                let (offset, counts) = (life.machine.offset(), life.machine.counts());
                let error = life.last_error.as_deref().filter(|_| end != End::Stopped);
                tracing::info!(projection = %self.name, ?slices, ?end, offset, ?counts, error, "projection has ended");
                return;
            }
            if let Err(trouble) = self.carry_out(&mut life, step).await {
                self.take_failure(&mut life, step, trouble);
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    fn take_commands(&mut self, life: &mut Life<E>) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => life.obey(Some(command)),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return life.obey(None),
            }
        }
    }

    async fn carry_out(&mut self, life: &mut Life<E>, step: Step) -> Result<(), Trouble> {
        match step {
            Step::Load => {
                life.events.clear();
                life.pieces = guarded(self.handle_within, self.sink.load()).await?;
                let offset = life.pieces.iter().map(|piece| piece.offset).min();
                life.machine.loaded(offset.unwrap_or(0));
            }
            Step::Read { after } => self.read(life, after).await?,
            Step::Wait { after, until } => self.wait(life, after, until).await?,
            Step::Handle { count, offset } => self.handle(life, count, offset).await?,
            Step::Save { offset, restart } => {
                guarded(self.handle_within, self.sink.save(offset, restart)).await?;
                life.machine.saved_now();
                if restart {
                    life.events.clear();
                    life.pieces.clear();
                    for done in life.restarts.drain(..) {
                        // Whoever asked may have gone.
                        let _ = done.send(());
                    }
                }
            }
            Step::Sleep { until } => {
                let wake = life.instant(until);
                tokio::select! {
                    biased;
                    command = self.commands.recv() => life.obey(command),
                    () = sleep_until(wake) => {}
                }
            }
            Step::Rest => {
                let command = self.commands.recv().await;
                life.obey(command);
            }
            Step::End(_) => {}
        }
        Ok(())
    }

    async fn read(&mut self, life: &mut Life<E>, after: u64) -> Result<(), Trouble> {
        let page = tokio::select! {
            biased;
            command = self.commands.recv() => {
                life.obey(command);
                return Ok(());
            }
            page = self.queries.events(&self.query, after, self.page_events) => page,
        };
        let page = page.map_err(|error| Trouble::of_store("cannot read events", error))?;
        let QueryPage {
            events,
            through,
            more,
        } = page;
        life.events.clear();
        let mut queued = Vec::with_capacity(events.len());
        let mut before = after;
        for found in events {
            let position = found.event.position;
            // A store must give events in order; one that does not must not make an offset go back.
            let wanted = position > before.max(offset_of(&life.pieces, found.id.slice()));
            before = before.max(position);
            if wanted && let Some(broken) = self.take_in(life, &found) {
                queued.push(Queued { position, broken });
            }
        }
        let through = through.max(before);
        life.newest = life.newest.max(through);
        life.machine
            .page(life.now(), queued.into_iter(), through, more);
        if more {
            self.look(life, through).await;
        }
        Ok(())
    }

    /// Puts what a stored event is decoded to behind the others; `None` if that is nothing, else whether
    /// it is broken.
    fn take_in(&self, life: &mut Life<E>, found: &FoundEvent) -> Option<bool> {
        let decoded = catch_unwind(AssertUnwindSafe(|| (self.decode)(found)));
        let reason = match decoded {
            Ok(Ok(events)) => {
                let any = !events.is_empty();
                let events = events.into_iter();
                let items = events.map(|event| Item::Good(Envelope::new(found, event)));
                life.events.extend(items);
                return any.then_some(false);
            }
            Ok(Err(reason)) => reason,
            Err(panic) => format!("panic: {}", describe_panic(panic)).into(),
        };
        life.events.push_back(Item::Broken(Broken {
            id: found.id.clone(),
            seq: found.event.seq,
            position: found.event.position,
            reason,
        }));
        Some(true)
    }

    /// Asks now and then how far the store is, while the projection is behind.
    async fn look(&mut self, life: &mut Life<E>, after: u64) {
        if life.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        life.looked = Some(Instant::now());
        // That it is not known is no failure: it is only for people.
        if let Ok(Ok(newest)) = timeout(LOOK_WITHIN, self.queries.changed(after)).await {
            life.newest = life.newest.max(newest);
        }
    }

    async fn wait(
        &mut self,
        life: &mut Life<E>,
        after: u64,
        until: Option<Time>,
    ) -> Result<(), Trouble> {
        let end = until.map(|until| life.instant(until));
        tokio::select! {
            biased;
            command = self.commands.recv() => life.obey(command),
            changed = self.queries.changed(after) => {
                let newest = changed.map_err(|error| Trouble::of_store("cannot wait for events", error))?;
                life.newest = life.newest.max(newest);
                life.machine.news();
            }
            () = async { sleep_until(end.unwrap_or_else(Instant::now)).await }, if end.is_some() => {}
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        life: &mut Life<E>,
        count: usize,
        offset: u64,
    ) -> Result<(), Trouble> {
        if let Some(Item::Broken(broken)) = life.events.front() {
            return Err(Trouble::new(Blame::Event, "cannot decode", &broken.reason));
        }
        life.take_in_hand(count);
        let hand = &life.hand;
        let last = hand.last().map(|event| event.written_at_ms);
        let handled = guarded(self.handle_within, self.sink.handle(hand, offset)).await;
        if handled.is_err() {
            for event in life.hand.drain(..).rev() {
                life.events.push_front(Item::Good(event));
            }
            return handled;
        }
        life.last_event_at_ms = last;
        life.machine.handled(life.now());
        self.metrics.handled(count);
        Ok(())
    }

    fn take_failure(&mut self, life: &mut Life<E>, step: Step, trouble: Trouble) {
        let Trouble { blame, text, renew } = trouble;
        if renew {
            self.sink.renew();
        }
        let verdict = life.machine.failed(life.now(), step, blame);
        let (projection, slices) = (&self.name, self.query.slice_range());
        tracing::warn!(%projection, ?slices, ?step, ?verdict, error = %text, "projection failed");
        life.last_error = Some(text);
        self.metrics.failed();
        if verdict == Verdict::Skip {
            self.metrics.skipped();
            if let Some((id, seq)) = life.drop_head() {
                tracing::warn!(%projection, %id, seq, "an event is skipped");
            }
        }
    }

    fn publish(&self, life: &Life<E>, step: Step) {
        let machine = &life.machine;
        let counts = machine.counts();
        self.board.change(|status| {
            status.state = match step {
                Step::End(End::Failed) => ProjectionState::Failed,
                Step::End(End::Fenced) => ProjectionState::Fenced,
                Step::End(End::Stopped) => ProjectionState::Stopped,
                Step::Handle { .. } | Step::Save { .. } => ProjectionState::Handling,
                Step::Load => ProjectionState::Starting,
                Step::Read { .. } => ProjectionState::Reading,
                Step::Rest => ProjectionState::Paused,
                Step::Sleep { .. } => ProjectionState::BackingOff,
                Step::Wait { .. } => ProjectionState::Waiting,
            };
            status.offset = machine.offset();
            status.saved = machine.saved();
            status.newest = life.newest.max(machine.offset());
            status.handled = counts.handled;
            status.skipped = counts.skipped;
            status.failures = counts.failures;
            status.last_event_at_ms = life.last_event_at_ms;
            if status.last_error != life.last_error {
                status.last_error.clone_from(&life.last_error);
            }
            self.metrics.lag(status.lag());
        });
    }
}

/// Runs what may be the user's code: a panic and too long a time are failures, after which the handler
/// is made anew.
async fn guarded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let trouble = match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(done)) => return done,
        Ok(Err(panic)) => Trouble::new(Blame::Event, "panic", describe_panic(panic)),
        Err(_) => Trouble::new(
            Blame::Other,
            "no end",
            format!("it took longer than {limit:?}"),
        ),
    };
    Err(Trouble {
        renew: true,
        ..trouble
    })
}
