//! Lives: the life of each entity on its node, from its first message to its end. Pure: no clock, no IO.
//!
//! ```text
//!            remembered                        asked to stop, or stops by itself
//!  Storing -----------> Starting ---> Running ----------------------------------> Ending
//!                        ^  ^  |         |                                        |   |
//!     time, or a message |  |  | cannot  | fails                     messages wait|   | none waits
//!           Broken <--------|--+         v                                        |   v
//!                           +--------- BackOff          Starting <----------------+  (Forgetting)
//!                              time, if messages wait                                 |
//!                              or it is kept alive                                    gone
//! ```
//! There is at most one instance: the next one is started only after the end of the one before was
//! reported ([`Lives::ended`]).
//!
//! **Invariant:** a message is given to a running instance, waits (bounded), or comes back to the caller
//! with the reason. What waits goes to the next instance, in order, before anything newer.
//!
//! Entities are places in a table; whose name leads to which place is the caller's to know. The caller
//! carries out each output before the next call.

use crate::logic::passivation::{Passivation, Usage, Use};
use otava_actor::{Rng, Time};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Settings of the lives on one node.
#[derive(Clone, Copy, Debug)]
pub struct LivesConfig {
    /// Messages that may wait for one entity.
    pub waiting_max: usize,
    /// Messages that may wait for all of them.
    pub waiting_in_all_max: usize,
    /// The wait after a first failure; each further one doubles it.
    pub restart_min: Duration,
    /// The longest wait. Who ran for this long is forgiven.
    pub restart_max: Duration,
    /// By how much of itself a wait may be longer, at random, in percent.
    pub restart_jitter_percent: u32,
    /// How many remembered ones are started at once.
    pub starts_max: usize,
    /// How long to wait between two such groups.
    pub starts_pause: Duration,
    /// Who is stopped although it is well.
    pub passivation: Passivation,
}

/// Whether an entity lives without messages too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// Always: it is started again however it ends.
    Always,
    /// Only messages start it.
    No,
    /// Until it stops by itself: a store knows of it.
    Remembered,
}

/// What happened to a message.
#[derive(Debug)]
pub enum Put<'a, H, M> {
    /// As many wait as may.
    Full(M),
    /// The last start failed, and the next one is not tried yet.
    NotStarted(M),
    /// Give it to this instance; if that one has stopped, call [`Lives::refused`].
    Tell(&'a H, M),
    /// It waits for the next instance.
    Waits,
}

impl<H, M> Put<'_, H, M> {
    fn of(waits: Result<(), M>) -> Self {
        waits.map_or_else(Put::Full, |()| Put::Waits)
    }
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Have the entity forgotten, then call [`Lives::forgotten`].
    Forget(u32),
    /// The place is free: its name leads nowhere now.
    Gone {
        /// The shard of the entity that was there.
        shard: u32,
        /// Its id.
        id: Arc<str>,
        /// Which place it was: the name may lead to another one by now.
        place: u32,
    },
    /// Have the entity remembered, then call [`Lives::remembered`].
    Remember(u32),
    /// Call [`Lives::begin`], make an instance, then call [`Lives::started`] or [`Lives::not_started`].
    Start(u32),
    /// Tell the instance to stop after what it has.
    Stop(u32),
}

/// Of which entity a new instance is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Birth {
    /// Its shard.
    pub shard: u32,
    /// Its id.
    pub id: Arc<str>,
    /// Tells this instance of the place from those before.
    pub instance: u32,
}

#[derive(Debug)]
struct Life<H, M> {
    shard: u32,
    id: Arc<str>,
    state: State<H>,
    waiting: VecDeque<M>,
    kept: Kept,
    /// Its shard leaves: nothing is started any more.
    leaving: bool,
    instance: u32,
    /// Failures in a row.
    failures: u32,
    /// When the instance was started.
    since: Time,
}

#[derive(Debug)]
enum State<H> {
    /// It failed and is started again at this time, if somebody needs it.
    BackOff(Time),
    /// It could not be started; until this time nobody tries.
    Broken(Time),
    /// It stops, and may be at work for the last time.
    Ending(H),
    /// It has ended, and the store is told to forget it.
    Forgetting,
    /// It waits in the line of those that are to be started.
    InLine,
    /// It has failed lately, and nobody needs it; after this time that is forgotten.
    Resting(Time),
    Running(H),
    Starting,
    /// The store is told to remember it.
    Storing,
    Vacant,
}

/// All lives of a kind on one node. `H` is what an instance is reached by.
#[derive(Debug)]
pub struct Lives<H, M> {
    config: LivesConfig,
    lives: Vec<Life<H, M>>,
    free: Vec<u32>,
    usage: Usage,
    /// When to look at whom.
    due: BTreeSet<(Time, u32)>,
    line: VecDeque<u32>,
    line_at: Time,
    waiting: usize,
    instances: usize,
    rng: Rng,
    outputs: VecDeque<Output>,
}

impl<H, M> Lives<H, M> {
    /// Nobody lives.
    #[must_use]
    pub fn new(config: LivesConfig, rng: Rng) -> Self {
        Self {
            lives: Vec::new(),
            free: Vec::new(),
            usage: Usage::new(config.passivation),
            due: BTreeSet::new(),
            line: VecDeque::new(),
            line_at: Time::ZERO,
            waiting: 0,
            instances: 0,
            rng,
            outputs: VecDeque::new(),
            config,
        }
    }

    /// How many instances there are, those that end included.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// How many messages wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Lives::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let due = self.due.first().map(|(at, _)| *at);
        let line = (!self.line.is_empty()).then_some(self.line_at);
        let idle = self.usage.next();
        [due, line, idle].into_iter().flatten().min()
    }

    /// A place for an entity that has none. It starts now, once it is remembered if `kept` says so.
    pub fn insert(&mut self, shard: u32, id: Arc<str>, kept: Kept) -> u32 {
        let place = self.settle(shard, id, kept);
        if kept == Kept::Remembered {
            self.lives[place as usize].state = State::Storing;
            self.outputs.push_back(Output::Remember(place));
        } else {
            self.start(place);
        }
        place
    }

    /// A place for an entity that is to live without a message. It starts when its turn comes.
    pub fn insert_in_line(&mut self, shard: u32, id: Arc<str>, kept: Kept) -> u32 {
        let place = self.settle(shard, id, kept);
        self.lives[place as usize].state = State::InLine;
        self.line.push_back(place);
        place
    }

    /// Whose place it is.
    #[must_use]
    pub fn name(&self, place: u32) -> Option<(u32, &Arc<str>)> {
        let life = self.lives.get(place as usize)?;
        Some((life.shard, &life.id))
    }

    /// The instance at a place, running or ending.
    #[must_use]
    pub fn instance(&self, place: u32) -> Option<&H> {
        match &self.lives.get(place as usize)?.state {
            State::Running(instance) | State::Ending(instance) => Some(instance),
            _ => None,
        }
    }

    /// A message for the entity.
    pub fn message(&mut self, now: Time, place: u32, message: M) -> Put<'_, H, M> {
        let at = place as usize;
        match self.lives[at].state {
            State::Running(_) => {
                self.usage.touch(now, place);
                match &self.lives[at].state {
                    State::Running(instance) => Put::Tell(instance, message),
                    _ => unreachable!("it was running a moment ago"),
                }
            }
            State::Broken(until) if now < until => Put::NotStarted(message),
            State::Vacant => Put::NotStarted(message),
            State::Broken(_) | State::InLine | State::Resting(_) => {
                let waits = self.wait(place, message);
                self.start(place);
                Put::of(waits)
            }
            State::BackOff(_)
            | State::Ending(_)
            | State::Forgetting
            | State::Starting
            | State::Storing => Put::of(self.wait(place, message)),
        }
    }

    /// The instance at `place` has refused a message, because it stops: it waits for the next one.
    ///
    /// # Errors
    /// The message, if as many wait as may.
    pub fn refused(&mut self, place: u32, message: M) -> Result<(), M> {
        self.end(place);
        self.wait(place, message)
    }

    /// It is to live now, with or without a message: nothing happens if it does, or is about to.
    pub fn wake(&mut self, now: Time, place: u32) {
        match self.lives[place as usize].state {
            State::Broken(until) if now < until => {}
            State::Broken(_) | State::InLine | State::Resting(_) => self.start(place),
            _ => {}
        }
    }

    /// The new instance of a place.
    pub fn begin(&mut self, place: u32) -> Option<Birth> {
        let life = self.lives.get_mut(place as usize)?;
        if !matches!(life.state, State::Starting) {
            return None;
        }
        life.instance = life.instance.wrapping_add(1);
        Some(Birth {
            shard: life.shard,
            id: life.id.clone(),
            instance: life.instance,
        })
    }

    /// There is an instance. Returns what waited for it.
    pub fn started(&mut self, now: Time, place: u32, instance: H) -> VecDeque<M> {
        let life = &mut self.lives[place as usize];
        (life.state, life.since) = (State::Running(instance), now);
        self.instances += 1;
        // Who is kept alive is not stopped for being idle.
        if life.kept == Kept::No {
            self.usage.enter(now, place);
        }
        self.take_waiting(place)
    }

    /// There is none. Returns what waited for it: nobody will take it.
    pub fn not_started(&mut self, now: Time, place: u32) -> VecDeque<M> {
        let until = self.fail(now, place);
        self.lives[place as usize].state = State::Broken(until);
        self.due.insert((until, place));
        self.take_waiting(place)
    }

    /// The instance at `place` has ended.
    pub fn ended(&mut self, now: Time, place: u32, failed: bool) {
        let Some(life) = self.lives.get_mut(place as usize) else {
            return;
        };
        if !matches!(life.state, State::Running(_) | State::Ending(_)) {
            return;
        }
        self.instances -= 1;
        self.usage.leave(place);
        if life.leaving {
            return self.vacate(place);
        }
        if now.saturating_since(life.since) >= self.config.restart_max {
            life.failures = 0;
        }
        let wanted = !life.waiting.is_empty();
        match (failed, life.kept) {
            (true, _) | (false, Kept::Always) => {
                let until = self.fail(now, place);
                self.lives[place as usize].state = State::BackOff(until);
                self.due.insert((until, place));
            }
            (false, _) if wanted => self.start(place),
            (false, Kept::Remembered) => {
                life.state = State::Forgetting;
                self.outputs.push_back(Output::Forget(place));
            }
            (false, Kept::No) => self.vacate(place),
        }
    }

    /// The instance of this number is to stop after what it has: it wants to, and no message keeps it.
    pub fn passivate(&mut self, place: u32, instance: u32) {
        let life = self.lives.get(place as usize);
        let meant = |life: &&Life<H, M>| {
            let running = matches!(life.state, State::Running(_));
            running && life.instance == instance && life.kept != Kept::Always
        };
        if life.filter(meant).is_some() {
            self.end(place);
            self.outputs.push_back(Output::Stop(place));
        }
    }

    /// The instance of this number holds so many bytes.
    pub fn weigh(&mut self, place: u32, instance: u32, bytes: u64) {
        let life = self.lives.get(place as usize);
        if life.is_some_and(|life| life.instance == instance) {
            self.usage.weigh(place, bytes);
        }
    }

    /// The store remembers the entity.
    pub fn remembered(&mut self, place: u32) {
        let Some(life) = self.lives.get_mut(place as usize) else {
            return;
        };
        life.kept = Kept::Remembered;
        if matches!(life.state, State::Storing) {
            self.start(place);
        }
    }

    /// The store has forgotten the entity.
    pub fn forgotten(&mut self, place: u32) {
        let life = self.lives.get_mut(place as usize);
        let Some(life) = life.filter(|life| matches!(life.state, State::Forgetting)) else {
            return;
        };
        if life.waiting.is_empty() {
            self.vacate(place);
        } else {
            life.state = State::Storing;
            self.outputs.push_back(Output::Remember(place));
        }
    }

    /// The shard of this entity leaves. Returns what waited for it, which is to go where the shard goes;
    /// if there is an instance it has to be told to stop, else the place is free.
    pub fn leave(&mut self, place: u32) -> VecDeque<M> {
        let waiting = self.take_waiting(place);
        let life = &mut self.lives[place as usize];
        life.leaving = true;
        match life.state {
            State::Running(_) => self.end(place),
            State::Ending(_) | State::Vacant => {}
            _ => self.vacate(place),
        }
        waiting
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some((at, place)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, place));
            self.look(now, at, place);
        }
        if now >= self.line_at {
            for _ in 0..self.config.starts_max.max(1) {
                let Some(place) = self.line.pop_front() else {
                    break;
                };
                self.line_at = now + self.config.starts_pause;
                if matches!(self.lives[place as usize].state, State::InLine) {
                    self.start(place);
                }
            }
        }
        self.passivate_victims(now);
    }

    /// Whether somebody is idle or superfluous, as far as is known: then it is time for
    /// [`Lives::catch_up`], before anybody is stopped.
    #[must_use]
    pub fn has_victim(&self, now: Time) -> bool {
        self.usage.has_victim(now)
    }

    /// Instances had messages that did not come through [`Lives::message`].
    pub fn catch_up(&mut self, uses: &mut [Use]) {
        self.usage.catch_up(uses);
    }

    /// Stops those who are idle or too many. To be called after starts and reports of memory.
    pub fn passivate_victims(&mut self, now: Time) {
        while let Some(place) = self.usage.victim(now) {
            self.end(place);
            self.outputs.push_back(Output::Stop(place));
        }
    }

    // --- steps ---

    fn settle(&mut self, shard: u32, id: Arc<str>, kept: Kept) -> u32 {
        let life = Life {
            shard,
            id,
            state: State::Vacant,
            waiting: VecDeque::new(),
            kept,
            leaving: false,
            instance: 0,
            failures: 0,
            since: Time::ZERO,
        };
        if let Some(place) = self.free.pop() {
            let before = &mut self.lives[place as usize];
            let instance = before.instance;
            *before = Life { instance, ..life };
            return place;
        }
        let place = u32::try_from(self.lives.len()).unwrap_or(u32::MAX);
        self.lives.push(life);
        place
    }

    fn start(&mut self, place: u32) {
        self.lives[place as usize].state = State::Starting;
        self.outputs.push_back(Output::Start(place));
    }

    /// From running to ending.
    fn end(&mut self, place: u32) {
        let life = &mut self.lives[place as usize];
        life.state = match std::mem::replace(&mut life.state, State::Vacant) {
            State::Running(instance) => State::Ending(instance),
            state => state,
        };
        self.usage.leave(place);
    }

    fn vacate(&mut self, place: u32) {
        let life = &mut self.lives[place as usize];
        debug_assert!(life.waiting.is_empty(), "what waits is not forgotten");
        life.state = State::Vacant;
        life.waiting = VecDeque::new();
        let (shard, id) = (life.shard, life.id.clone());
        self.free.push(place);
        self.outputs.push_back(Output::Gone { shard, id, place });
    }

    fn wait(&mut self, place: u32, message: M) -> Result<(), M> {
        let life = &mut self.lives[place as usize];
        let full = life.waiting.len() >= self.config.waiting_max
            || self.waiting >= self.config.waiting_in_all_max;
        if full {
            return Err(message);
        }
        life.waiting.push_back(message);
        self.waiting += 1;
        Ok(())
    }

    fn take_waiting(&mut self, place: u32) -> VecDeque<M> {
        let waiting = std::mem::take(&mut self.lives[place as usize].waiting);
        self.waiting -= waiting.len();
        waiting
    }

    /// Counts a failure; until when to wait for it.
    fn fail(&mut self, now: Time, place: u32) -> Time {
        let life = &mut self.lives[place as usize];
        life.failures = life.failures.saturating_add(1);
        let LivesConfig {
            restart_min,
            restart_max,
            restart_jitter_percent,
            ..
        } = self.config;
        let doublings = (life.failures - 1).min(30);
        let wait = restart_min.saturating_mul(1 << doublings).min(restart_max);
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        let most = nanos / 100 * u64::from(restart_jitter_percent.min(100));
        let longer = self.rng.below(most.saturating_add(1));
        now + wait + Duration::from_nanos(longer)
    }

    /// The time of an entity has come.
    fn look(&mut self, now: Time, at: Time, place: u32) {
        let Some(life) = self.lives.get_mut(place as usize) else {
            return;
        };
        let wanted = life.kept != Kept::No || !life.waiting.is_empty();
        match life.state {
            State::BackOff(until) | State::Broken(until) if until == at => {
                if wanted {
                    return self.start(place);
                }
                let until = now + self.config.restart_max;
                life.state = State::Resting(until);
                self.due.insert((until, place));
            }
            State::Resting(until) if until == at => self.vacate(place),
            // It went on meanwhile.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
