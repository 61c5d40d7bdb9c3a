//! Projection: decides what one instance of a projection does next. Pure: time is passed in, and
//! randomness comes from a seed.
//!
//! ```text
//!            loaded                 page                  handled, n times
//!  Load ------------> Read <-----------------> Handle ----------------------> Save
//!   ^                  | nothing there                                         |
//!   |                  v                                                       |
//!   |                 Wait <---------------------------------------------------+
//!   |
//!   +---- Sleep (back-off) <---- whatever failed; what keeps its offset with its results loads again
//! ```
//!
//! **Invariant:** the offset never passes an event that was not handled or, by the rules, skipped.
//!
//! **Invariant:** after a failure whose outcome nobody knows (a commit whose answer was lost) the
//! offset that counts is the one in the store, where it is kept with the results.
//!
//! **Invariant:** an event is skipped alone: a batch that failed is tried again one by one.

use crate::projection::OnPoison;
use otava_actor::{Backoff, Rng, Time};
use std::collections::VecDeque;
use std::time::Duration;

/// Positions that may be passed over without a match before the offset is saved for their sake:
/// passing over them again costs little.
const PASSED_MAX: u64 = 10_000;

/// What the machine goes by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) batch_max: usize,
    pub(crate) save_every: u64,
    pub(crate) save_after: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) on_poison: OnPoison,
    /// Whether handling a batch saves the offset, in one transaction.
    pub(crate) with_results: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Read the offset from the store; events that were read before are forgotten.
    Load,
    /// Read events behind `after`.
    Read { after: u64 },
    /// Wait until there may be events behind `after`, but not longer than `until`.
    Wait { after: u64, until: Option<Time> },
    /// Handle the next `count` events. Afterwards the offset is `offset`.
    Handle { count: usize, offset: u64 },
    /// Save the offset. `restart`: also if it is lower than what is saved.
    Save { offset: u64, restart: bool },
    /// Back off.
    Sleep { until: Time },
    /// Do nothing until something is asked for.
    Rest,
    /// It is over.
    End(End),
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// By its rules, after a failure.
    Failed,
    /// Another run has taken over.
    Fenced,
    /// It was asked to.
    Stopped,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Blame {
    /// The event at the head: it may be poison.
    Event,
    /// Something else, which may pass.
    Other,
    /// Something that does not pass.
    Final,
    /// Another run has taken over.
    Newer,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    End(End),
    Retry,
    /// The event at the head is passed over.
    Skip,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) handled: u64,
    pub(crate) skipped: u64,
    pub(crate) failures: u64,
}

/// An event that was read and not yet handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) position: u64,
    /// It could not be decoded: it comes alone, and fails.
    pub(crate) broken: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Load,
    Run,
    End(End),
}

#[derive(Debug)]
pub(crate) struct Machine {
    rules: Rules,
    rng: Rng,
    phase: Phase,
    /// It backs off until then.
    wake: Option<Time>,
    paused: bool,
    stopping: bool,
    restart: Option<u64>,
    queue: VecDeque<Queued>,
    /// How far the store was looked through when the queue was filled.
    through: u64,
    /// Whether there may be events behind `through`.
    more: bool,
    in_hand: usize,
    offset: u64,
    saved: u64,
    /// Events behind `saved` that were handled, and since when there are any.
    unsaved: u64,
    unsaved_since: Option<Time>,
    save_now: bool,
    save_failed: bool,
    /// Back-offs since the last quiet time, which counts from the first success after a failure.
    waits: u32,
    well_since: Option<Time>,
    /// Failures in a row of the event at this position.
    attempts: (u64, u32),
    /// Up to here events are handled one by one.
    narrow_until: u64,
    counts: Counts,
}

impl Machine {
    pub(crate) fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            rng: Rng::seeded(seed),
            phase: Phase::Load,
            wake: None,
            paused: false,
            stopping: false,
            restart: None,
            queue: VecDeque::new(),
            through: 0,
            more: true,
            in_hand: 0,
            offset: 0,
            saved: 0,
            unsaved: 0,
            unsaved_since: None,
            save_now: false,
            save_failed: false,
            waits: 0,
            well_since: None,
            attempts: (0, 0),
            narrow_until: 0,
            counts: Counts::default(),
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn saved(&self) -> u64 {
        self.saved
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What is to be done next. The same answer until one of the methods below is called, or a time
    /// it gave has come.
    pub(crate) fn step(&mut self, now: Time) -> Step {
        let loaded = match self.phase {
            Phase::End(end) => return Step::End(end),
            Phase::Load => false,
            Phase::Run => true,
        };
        let dirty = loaded && self.offset != self.saved;
        if self.stopping {
            if dirty && !self.save_failed {
                return self.save();
            }
            return self.end(End::Stopped);
        }
        if let Some(until) = self.wake {
            if now < until {
                return Step::Sleep { until };
            }
            self.wake = None;
        }
        if self.paused && self.restart.is_none() {
            return if dirty { self.save() } else { Step::Rest };
        }
        if !loaded {
            return Step::Load;
        }
        if let Some(offset) = self.restart {
            return Step::Save {
                offset,
                restart: true,
            };
        }
        if dirty && self.save_is_due(now) {
            return self.save();
        }
        self.go_on()
    }

    fn go_on(&mut self) -> Step {
        if let Some(count) = self.batch() {
            self.in_hand = count;
            let offset = self.offset_after(count);
            return Step::Handle { count, offset };
        }
        let after = self.offset;
        if self.more {
            return Step::Read { after };
        }
        let until = self
            .unsaved_since
            .map(|since| since + self.rules.save_after);
        Step::Wait { after, until }
    }

    fn save(&self) -> Step {
        Step::Save {
            offset: self.offset,
            restart: false,
        }
    }

    fn end(&mut self, end: End) -> Step {
        self.phase = Phase::End(end);
        Step::End(end)
    }

    fn save_is_due(&self, now: Time) -> bool {
        let since = self.unsaved_since;
        self.save_now
            || self.unsaved >= self.rules.save_every
            || since.is_some_and(|since| now >= since + self.rules.save_after)
            || self.offset.saturating_sub(self.saved) >= PASSED_MAX
    }

    /// How many events at the head are handled together; `None` when there are none.
    fn batch(&self) -> Option<usize> {
        let head = self.queue.front()?;
        if head.broken || head.position <= self.narrow_until {
            return Some(1);
        }
        let good = self.queue.iter().take_while(|queued| !queued.broken);
        Some(good.take(self.rules.batch_max.max(1)).count())
    }

    fn offset_after(&self, count: usize) -> u64 {
        let last = count.checked_sub(1).and_then(|last| self.queue.get(last));
        match last {
            Some(last) if count < self.queue.len() => last.position,
            _ => self.through,
        }
    }

    /// The store says that the offset is `offset`.
    pub(crate) fn loaded(&mut self, offset: u64) {
        self.phase = Phase::Run;
        self.begin_at(offset);
    }

    fn begin_at(&mut self, offset: u64) {
        self.forget_page();
        self.offset = offset;
        self.through = offset;
        self.settle(offset);
    }

    fn forget_page(&mut self) {
        self.queue.clear();
        self.in_hand = 0;
        self.more = true;
    }

    fn settle(&mut self, saved: u64) {
        self.saved = saved;
        self.unsaved = 0;
        self.unsaved_since = None;
        self.save_now = false;
        self.save_failed = false;
    }

    /// Events were read, up to `through`; `more`: there may be others.
    pub(crate) fn page(
        &mut self,
        now: Time,
        events: impl Iterator<Item = Queued>,
        through: u64,
        more: bool,
    ) {
        self.queue = events.collect();
        let last = self.queue.back().map_or(0, |queued| queued.position);
        self.through = through.max(last).max(self.offset);
        self.more = more;
        if self.queue.is_empty() {
            self.offset = self.through;
            if !more {
                self.well(now);
            }
        }
    }

    /// There may be news to read.
    pub(crate) fn news(&mut self) {
        self.more = true;
    }

    /// The events of the last [`Step::Handle`] were handled.
    pub(crate) fn handled(&mut self, now: Time) {
        let count = std::mem::take(&mut self.in_hand);
        if count == 0 {
            return;
        }
        self.well(now);
        self.counts.handled += count as u64;
        self.pass(count);
        self.unsaved += count as u64;
        self.unsaved_since.get_or_insert(now);
        if self.rules.with_results {
            self.settle(self.offset);
        }
    }

    fn pass(&mut self, count: usize) {
        self.offset = self.offset_after(count);
        self.queue.drain(..count);
    }

    fn well(&mut self, now: Time) {
        self.well_since.get_or_insert(now);
    }

    /// The offset of the last [`Step::Save`] is saved.
    pub(crate) fn saved_now(&mut self) {
        match self.restart.take() {
            Some(offset) => {
                self.begin_at(offset);
                self.attempts = (0, 0);
                self.narrow_until = 0;
            }
            None => self.settle(self.offset),
        }
    }

    /// The last step failed.
    pub(crate) fn failed(&mut self, now: Time, step: Step, blame: Blame) -> Verdict {
        self.counts.failures += 1;
        self.save_failed = matches!(step, Step::Save { .. });
        let count = std::mem::take(&mut self.in_hand);
        match blame {
            Blame::Final => return self.over(End::Failed),
            Blame::Newer => return self.over(End::Fenced),
            Blame::Event | Blame::Other => {}
        }
        if let (Step::Handle { .. }, Some(last)) = (step, count.checked_sub(1)) {
            // A queue is never shorter than what was taken from it.
            let position = self.queue[last].position;
            if count > 1 {
                self.narrow_until = position;
            } else if blame == Blame::Event
                && let Some(verdict) = self.poisoned(position)
            {
                return verdict;
            }
        }
        if !self.back_off(now) {
            return self.over(End::Failed);
        }
        if self.rules.with_results {
            self.forget_page();
            self.phase = Phase::Load;
        }
        Verdict::Retry
    }

    /// Counts one more failure of one event; what follows if that was the last attempt.
    fn poisoned(&mut self, position: u64) -> Option<Verdict> {
        let before = if self.attempts.0 == position {
            self.attempts.1
        } else {
            0
        };
        self.attempts = (position, before.saturating_add(1));
        match self.rules.on_poison {
            OnPoison::Skip { retries } if before >= retries => {
                self.counts.skipped += 1;
                self.pass(1);
                self.save_now = true;
                Some(Verdict::Skip)
            }
            OnPoison::Stop { retries } if before >= retries => Some(self.over(End::Failed)),
            _ => None,
        }
    }

    fn over(&mut self, end: End) -> Verdict {
        self.phase = Phase::End(end);
        Verdict::End(end)
    }

    /// Whether it may: the back-off may have a limit.
    fn back_off(&mut self, now: Time) -> bool {
        let quiet = self
            .well_since
            .take()
            .map(|since| now.saturating_since(since));
        let backoff = self.rules.backoff;
        if quiet.is_some_and(|quiet| quiet >= backoff.quiet_time()) {
            self.waits = 0;
        }
        if backoff.limit_set().is_some_and(|limit| self.waits >= limit) {
            return false;
        }
        self.wake = Some(now + backoff.wait(self.waits, &mut self.rng));
        self.waits = self.waits.saturating_add(1);
        true
    }

    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Goes on, also if it backs off: whoever asks for it has mended what failed.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
        self.wake = None;
    }

    /// Begins again behind `offset`, paused or not.
    pub(crate) fn restart_from(&mut self, offset: u64) {
        self.restart = Some(offset);
        self.wake = None;
    }

    /// Ends, after the offset was saved.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
        self.save_failed = false;
    }
}

#[cfg(test)]
mod tests;
