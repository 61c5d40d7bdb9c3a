//! Passivation: which entities are stopped because nobody needs them, or because there are too many.
//! Pure: no clock, no IO.
//!
//! All active entities of a node and kind stand in one list, the one used last at its end, so that
//! idle ones and the least recently used one are found at its begin: one message costs a few writes.
//! Only a limit by frequency keeps an order of its own, at the cost of a look into a tree.

use otava_actor::Time;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// When entities are stopped although nothing is wrong with them. Their next message starts them
/// again. Limits are those of one kind on one node.
///
/// ```
/// use otava_sharding::Passivation;
/// use std::time::Duration;
///
/// // At most 100,000 at once, and none that was idle for ten minutes.
/// let both = Passivation::least_recently_used(100_000).idle_after(Duration::from_secs(600));
/// # let _ = both;
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Passivation {
    idle_after: Option<Duration>,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Limit {
    Bytes(u64),
    LeastFrequent(usize),
    LeastRecent(usize),
    None,
}

impl Passivation {
    /// Entities stop only when they want to.
    pub const fn never() -> Self {
        Self {
            idle_after: None,
            limit: Limit::None,
        }
    }

    /// Entities stop that had no message for this time. Timers of an entity, and messages that do not
    /// come through its reference, do not count.
    pub const fn idle(after: Duration) -> Self {
        Self::never().idle_after(after)
    }

    /// At most so many are active: beyond, the one that had no message for the longest time stops.
    /// The one that had the last message is spared, so at least one is active.
    pub const fn least_recently_used(active_max: usize) -> Self {
        Self {
            idle_after: None,
            limit: Limit::LeastRecent(active_max),
        }
    }

    /// At most so many are active: beyond, the one that had the fewest messages stops. What was
    /// frequent long ago does not count for ever: a newcomer begins with the count of the one that was
    /// stopped last. The one that had the last message is spared.
    pub const fn least_frequently_used(active_max: usize) -> Self {
        Self {
            idle_after: None,
            limit: Limit::LeastFrequent(active_max),
        }
    }

    /// At most so many bytes, as entities report them ([`crate::EntityContext::memory`]): beyond, those
    /// that had no message for the longest time stop. The one that had the last message is spared.
    pub const fn memory(bytes_max: u64) -> Self {
        Self {
            idle_after: None,
            limit: Limit::Bytes(bytes_max),
        }
    }

    /// Whether it matters when an entity had a message.
    #[must_use]
    pub(crate) const fn is_timed(&self) -> bool {
        self.idle_after.is_some() || !matches!(self.limit, Limit::None)
    }

    /// The same, and entities stop that had no message for this time.
    pub const fn idle_after(mut self, after: Duration) -> Self {
        self.idle_after = Some(after);
        self
    }
}

/// Entities that were idle for two minutes stop.
impl Default for Passivation {
    fn default() -> Self {
        Self::idle(Duration::from_secs(120))
    }
}

/// How an entity was used past the region, since that was asked for last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Use {
    /// The last time.
    pub at: Time,
    /// By whom: its place in the table.
    pub place: u32,
    /// How often.
    pub count: u64,
}

/// No place in the list.
const NONE: u32 = u32::MAX;

/// Who was used when, how often, and holds how much. Entities are places in a table of the caller's.
#[derive(Debug)]
pub struct Usage {
    strategy: Passivation,
    marks: Vec<Mark>,
    oldest: u32,
    newest: u32,
    /// Rank, the last use, and place; only where frequency counts.
    ranks: BTreeSet<(u64, Time, u32)>,
    /// The rank of the last victim, with which newcomers begin.
    age: u64,
    active: usize,
    bytes: u64,
}

/// What is known of one place.
#[derive(Clone, Copy, Debug)]
struct Mark {
    before: u32,
    after: u32,
    active: bool,
    used: Time,
    bytes: u64,
    rank: u64,
}

const UNUSED: Mark = Mark {
    before: NONE,
    after: NONE,
    active: false,
    used: Time::ZERO,
    bytes: 0,
    rank: 0,
};

impl Usage {
    /// Nobody is active.
    #[must_use]
    pub fn new(strategy: Passivation) -> Self {
        Self {
            strategy,
            marks: Vec::new(),
            oldest: NONE,
            newest: NONE,
            ranks: BTreeSet::new(),
            age: 0,
            active: 0,
            bytes: 0,
        }
    }

    /// How many are active.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active
    }

    /// What the active ones hold, as they reported it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entity at `place` becomes active.
    pub fn enter(&mut self, now: Time, place: u32) {
        let at = place as usize;
        if at >= self.marks.len() {
            self.marks.resize(at + 1, UNUSED);
        }
        if self.marks[at].active {
            return;
        }
        self.active += 1;
        self.marks[at] = Mark {
            active: true,
            rank: self.age,
            ..UNUSED
        };
        self.put_last(now, place);
        self.rank(place, 1);
    }

    /// It has got a message.
    pub fn touch(&mut self, now: Time, place: u32) {
        if !self.is_active(place) {
            return;
        }
        self.unrank(place);
        if self.newest == place {
            self.marks[place as usize].used = now;
        } else {
            self.unlink(place);
            self.put_last(now, place);
        }
        self.rank(place, 1);
    }

    /// These had messages that were not told of by [`Usage::touch`]; each one once.
    pub fn catch_up(&mut self, uses: &mut [Use]) {
        for of in &mut *uses {
            let known = self.marks.get(of.place as usize);
            of.at = of.at.max(known.map_or(Time::ZERO, |mark| mark.used));
        }
        // From the last one backwards, and so through the list: what lies behind the earliest use
        // was used since then, so this costs no more than those uses did.
        uses.sort_unstable_by_key(|of| (Reverse(of.at), of.place));
        let mut before = self.newest;
        for &Use { at, place, count } in &*uses {
            if !self.is_active(place) {
                continue;
            }
            self.unrank(place);
            if before == place {
                before = self.marks[place as usize].before;
            }
            self.unlink(place);
            while let Some(mark) = self.marks.get(before as usize)
                && mark.used > at
            {
                before = mark.before;
            }
            self.put_behind(before, at, place);
            self.rank(place, count);
        }
    }

    /// It holds so many bytes.
    pub fn weigh(&mut self, place: u32, bytes: u64) {
        if self.is_active(place) {
            let mark = &mut self.marks[place as usize];
            self.bytes = self.bytes.saturating_sub(mark.bytes).saturating_add(bytes);
            mark.bytes = bytes;
        }
    }

    /// It is not active any more.
    pub fn leave(&mut self, place: u32) {
        if !self.is_active(place) {
            return;
        }
        self.unrank(place);
        self.unlink(place);
        let mark = std::mem::replace(&mut self.marks[place as usize], UNUSED);
        self.active -= 1;
        self.bytes = self.bytes.saturating_sub(mark.bytes);
    }

    /// Whether somebody is to stop now.
    #[must_use]
    pub fn has_victim(&self, now: Time) -> bool {
        self.idle(now).or_else(|| self.excess()).is_some()
    }

    /// Who is to stop now, if anybody is; it is not active any more then.
    pub fn victim(&mut self, now: Time) -> Option<u32> {
        let place = self.idle(now).or_else(|| self.excess())?;
        self.age = self.marks[place as usize].rank;
        self.leave(place);
        Some(place)
    }

    /// When somebody is idle for too long, if nothing happens.
    #[must_use]
    pub fn next(&self) -> Option<Time> {
        let after = self.strategy.idle_after?;
        let oldest = self.marks.get(self.oldest as usize)?;
        Some(oldest.used + after)
    }

    fn idle(&self, now: Time) -> Option<u32> {
        (self.next()? <= now).then_some(self.oldest)
    }

    fn excess(&self) -> Option<u32> {
        let newest = self.newest;
        let spared = |place: u32| (place != newest).then_some(place);
        match self.strategy.limit {
            Limit::None => None,
            Limit::Bytes(most) if self.bytes <= most => None,
            Limit::LeastFrequent(most) | Limit::LeastRecent(most) if self.active <= most => None,
            Limit::Bytes(_) | Limit::LeastRecent(_) => spared(self.oldest),
            Limit::LeastFrequent(_) => {
                let mut places = self.ranks.iter().map(|(.., place)| *place);
                places.find(|place| *place != newest)
            }
        }
    }

    fn is_active(&self, place: u32) -> bool {
        let mark = self.marks.get(place as usize);
        mark.is_some_and(|mark| mark.active)
    }

    /// Counts uses, where that matters. To be called after the last use is noted.
    fn rank(&mut self, place: u32, uses: u64) {
        if matches!(self.strategy.limit, Limit::LeastFrequent(_)) {
            let mark = &mut self.marks[place as usize];
            mark.rank = mark.rank.saturating_add(uses);
            self.ranks.insert((mark.rank, mark.used, place));
        }
    }

    /// Before the last use or the rank changes.
    fn unrank(&mut self, place: u32) {
        if matches!(self.strategy.limit, Limit::LeastFrequent(_)) {
            let mark = &self.marks[place as usize];
            self.ranks.remove(&(mark.rank, mark.used, place));
        }
    }

    fn put_last(&mut self, now: Time, place: u32) {
        self.put_behind(self.newest, now, place);
    }

    fn put_behind(&mut self, before: u32, used: Time, place: u32) {
        let after = match self.marks.get_mut(before as usize) {
            Some(before) => std::mem::replace(&mut before.after, place),
            None => std::mem::replace(&mut self.oldest, place),
        };
        match self.marks.get_mut(after as usize) {
            Some(after) => after.before = place,
            None => self.newest = place,
        }
        let mark = &mut self.marks[place as usize];
        (mark.before, mark.after, mark.used) = (before, after, used);
    }

    fn unlink(&mut self, place: u32) {
        let Mark { before, after, .. } = self.marks[place as usize];
        match self.marks.get_mut(before as usize) {
            Some(mark) => mark.after = after,
            None => self.oldest = after,
        }
        match self.marks.get_mut(after as usize) {
            Some(mark) => mark.before = before,
            None => self.newest = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otava_actor::Rng;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn victims(usage: &mut Usage, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| usage.victim(at(now))).collect()
    }

    /// S5: the idle ones, in the order of their last use, at their time and not before.
    #[test]
    fn idle_ones_stop() {
        let mut usage = Usage::new(Passivation::idle(Duration::from_nanos(10)));
        assert_eq!(usage.next(), None);
        for place in 0..3 {
            usage.enter(at(u64::from(place)), place);
        }
        usage.touch(at(5), 0);
        assert_eq!(usage.next(), Some(at(11)));
        assert_eq!(victims(&mut usage, 10), []);
        assert_eq!(victims(&mut usage, 12), [1, 2]);
        assert_eq!((usage.next(), usage.active()), (Some(at(15)), 1));
        assert_eq!(victims(&mut usage, 15), [0]);
        assert_eq!((usage.next(), usage.active()), (None, 0));
    }

    #[test]
    fn the_least_recently_used_one_stops_and_the_last_one_stays() {
        let mut usage = Usage::new(Passivation::least_recently_used(2));
        usage.enter(at(1), 7);
        usage.enter(at(2), 3);
        usage.touch(at(3), 7);
        usage.enter(at(4), 5);
        assert_eq!(victims(&mut usage, 4), [3]);
        let mut usage = Usage::new(Passivation::least_recently_used(0));
        usage.enter(at(1), 0);
        assert_eq!(victims(&mut usage, 1), [], "nobody could ever be active");
        usage.enter(at(1), 1);
        assert_eq!(victims(&mut usage, 1), [0]);
    }

    #[test]
    fn the_least_frequently_used_one_stops_and_fame_fades() {
        let mut usage = Usage::new(Passivation::least_frequently_used(2));
        for (place, uses) in [(0, 10), (1, 4)] {
            usage.enter(at(0), place);
            (0..uses).for_each(|_| usage.touch(at(0), place));
        }
        usage.enter(at(1), 2);
        assert_eq!(victims(&mut usage, 1), [1], "not the newcomer");
        // Each newcomer begins higher than the one before: in the end the famous one goes.
        let mut gone = Vec::new();
        for place in 3..20 {
            usage.enter(at(2), place);
            gone.extend(victims(&mut usage, 2));
        }
        assert!(gone.contains(&0), "{gone:?}");
        assert_eq!(usage.active(), 2);
    }

    /// S5: a limit of memory stops the least recently used ones until it is kept.
    #[test]
    fn memory_is_kept_within_its_limit() {
        let mut usage = Usage::new(Passivation::memory(100));
        for place in 0..4 {
            usage.enter(at(0), place);
            usage.weigh(place, 25);
        }
        assert_eq!(victims(&mut usage, 0), []);
        usage.weigh(3, 60);
        assert_eq!((victims(&mut usage, 0), usage.bytes()), (vec![0, 1], 85));
        usage.weigh(3, 1_000);
        assert_eq!(victims(&mut usage, 0), [2], "the last one is spared");
        usage.leave(3);
        assert_eq!((usage.bytes(), usage.active()), (0, 0));
    }

    /// What is told late comes to the same as what was told at once.
    #[test]
    fn uses_that_are_told_late_agree_with_those_told_at_once() {
        for seed in 0..20 {
            let mut rng = Rng::seeded(seed);
            for strategy in [
                Passivation::idle(Duration::from_nanos(400)),
                Passivation::least_recently_used(20),
                Passivation::least_frequently_used(20),
            ] {
                let mut late = Usage::new(strategy);
                let mut at_once = Usage::new(strategy);
                let mut untold: Vec<Use> = Vec::new();
                for step in 0..2_000_u64 {
                    let (now, place) = (at(step), rng.below(60) as u32);
                    let known = at_once.is_active(place);
                    match rng.below(4) {
                        0 if !known => {
                            late.enter(now, place);
                            at_once.enter(now, place);
                        }
                        1 => {
                            late.touch(now, place);
                            at_once.touch(now, place);
                        }
                        _ if known => {
                            at_once.touch(now, place);
                            match untold.iter_mut().find(|of| of.place == place) {
                                Some(of) => (of.at, of.count) = (now, of.count + 1),
                                None => untold.push(Use {
                                    at: now,
                                    place,
                                    count: 1,
                                }),
                            }
                        }
                        _ => {}
                    }
                    if at_once.has_victim(now) || rng.below(50) == 0 {
                        assert!(late.has_victim(now) || !at_once.has_victim(now));
                        late.catch_up(&mut untold);
                        untold.clear();
                        while let Some(victim) = at_once.victim(now) {
                            assert_eq!(late.victim(now), Some(victim), "seed {seed}");
                        }
                        assert_eq!(late.victim(now), None, "seed {seed}");
                    }
                }
            }
        }
    }

    /// The list and the ranks agree with a simple model under random use.
    #[test]
    fn random_use_agrees_with_a_model() {
        let seed = 5;
        let mut rng = Rng::seeded(seed);
        for strategy in [
            Passivation::least_recently_used(20).idle_after(Duration::from_nanos(400)),
            Passivation::least_frequently_used(20),
            Passivation::never(),
        ] {
            let mut usage = Usage::new(strategy);
            let mut model: Vec<(Time, u32)> = Vec::new();
            for step in 0..20_000_u64 {
                let (now, place) = (at(step), rng.below(60) as u32);
                let known = model.iter().position(|(_, other)| *other == place);
                match (rng.below(8), known) {
                    (0, Some(known)) => {
                        usage.leave(place);
                        model.remove(known);
                    }
                    (_, Some(known)) => {
                        usage.touch(now, place);
                        model.remove(known);
                        model.push((now, place));
                    }
                    (_, None) => {
                        usage.enter(now, place);
                        model.push((now, place));
                    }
                }
                while let Some(victim) = usage.victim(now) {
                    let known = model.iter().position(|(_, other)| *other == victim);
                    let known = known.unwrap_or_else(|| panic!("seed {seed}: {victim} is gone"));
                    if strategy != Passivation::least_frequently_used(20) {
                        assert_eq!(known, 0, "seed {seed}: not the oldest");
                    }
                    model.remove(known);
                }
                assert_eq!(usage.active(), model.len(), "seed {seed}");
                let idle = strategy.idle_after.zip(model.first());
                assert_eq!(usage.next(), idle.map(|(after, (used, _))| *used + after));
            }
        }
    }
}
