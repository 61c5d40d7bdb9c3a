//! Phases: their names, their settings, and the order in which they run. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The first phase: what has to happen while the service still takes requests.
pub const BEFORE_SERVICE_UNBIND: &str = "before-service-unbind";
/// The service takes no new connections.
pub const SERVICE_UNBIND: &str = "service-unbind";
/// The requests under way are answered.
pub const SERVICE_REQUESTS_DONE: &str = "service-requests-done";
/// The service ends.
pub const SERVICE_STOP: &str = "service-stop";
/// Everything else that needs living actors.
pub const BEFORE_ACTOR_SYSTEM_TERMINATE: &str = "before-actor-system-terminate";
/// The last phase: its tasks run, then the actor system is shut down, within its own limit.
pub const ACTOR_SYSTEM_TERMINATE: &str = "actor-system-terminate";

/// The phases that are always there, each behind the one before it.
const DEFAULT_PHASES: [&str; 6] = [
    BEFORE_SERVICE_UNBIND,
    SERVICE_UNBIND,
    SERVICE_REQUESTS_DONE,
    SERVICE_STOP,
    BEFORE_ACTOR_SYSTEM_TERMINATE,
    ACTOR_SYSTEM_TERMINATE,
];

/// How long the tasks of a phase have unless configured otherwise.
const PHASE_LIMIT_DEFAULT: Duration = Duration::from_secs(5);

/// One step of a coordinated shutdown.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Phase {
    pub(super) name: Cow<'static, str>,
    after: BTreeSet<Cow<'static, str>>,
    before: BTreeSet<Cow<'static, str>>,
    pub(super) within: Duration,
    pub(super) aborts: bool,
}

impl Phase {
    /// A phase with 5 seconds for its tasks, whose failures do not keep later phases from running.
    /// Without an order it runs right before [`ACTOR_SYSTEM_TERMINATE`].
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            after: BTreeSet::new(),
            before: BTreeSet::new(),
            within: PHASE_LIMIT_DEFAULT,
            aborts: false,
        }
    }

    /// It runs after `phase` is over.
    pub fn after(mut self, phase: impl Into<Cow<'static, str>>) -> Self {
        self.after.insert(phase.into());
        self
    }

    /// It is over before `phase` runs.
    pub fn before(mut self, phase: impl Into<Cow<'static, str>>) -> Self {
        self.before.insert(phase.into());
        self
    }

    /// How long its tasks have, all together. Those that are not done by then are given up.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }

    /// If a task fails, panics or takes too long, no later phase runs, and the actor system is not
    /// shut down: for steps without which the rest would do damage.
    pub fn abort_on_failure(mut self) -> Self {
        self.aborts = true;
        self
    }

    /// Later phases run whatever happens in this one; so it is unless configured otherwise.
    pub fn recover_on_failure(mut self) -> Self {
        self.aborts = false;
        self
    }
}

/// Why phases cannot be put in order.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PhaseError {
    /// Each of these phases is to run before the next, and the last one before the first.
    #[error("the phases run in a circle: {}", .phases.join(" -> "))]
    Cycle {
        /// The phases of the circle.
        phases: Vec<String>,
    },
    /// Two phases have this name.
    #[error("there are two phases named {phase:?}")]
    Duplicate {
        /// The name.
        phase: String,
    },
    /// A phase is named that does not exist.
    #[error("there is no phase named {phase:?}")]
    Unknown {
        /// The name.
        phase: String,
    },
}

/// The phases that are always there, in the order of Pekko's.
pub(super) fn default_phases() -> Vec<Phase> {
    let mut phases: Vec<Phase> = DEFAULT_PHASES.into_iter().map(Phase::new).collect();
    for (phase, before) in phases.iter_mut().skip(1).zip(DEFAULT_PHASES) {
        phase.after.insert(before.into());
    }
    phases
}

/// Puts `phases` in an order that keeps all their wishes. Where they leave a choice, the one that
/// stands first in the list runs first; [`ACTOR_SYSTEM_TERMINATE`] runs last.
pub(super) fn in_order(mut phases: Vec<Phase>) -> Result<Vec<Phase>, PhaseError> {
    let mut waits_for = predecessors(&phases)?;
    let mut ordered = Vec::new();
    while !phases.is_empty() {
        let is_free = |phase: &Phase| {
            let waits_for = waits_for.get(&phase.name);
            waits_for.is_none_or(BTreeSet::is_empty)
        };
        let Some(free) = phases.iter().position(is_free) else {
            return Err(cycle(&phases[0].name, &waits_for));
        };
        let phase = phases.remove(free);
        waits_for.remove(&phase.name);
        for others in waits_for.values_mut() {
            others.remove(&phase.name);
        }
        ordered.push(phase);
    }
    Ok(ordered)
}

type Name = Cow<'static, str>;

/// For each phase the phases that must be over before it runs.
fn predecessors(phases: &[Phase]) -> Result<BTreeMap<Name, BTreeSet<Name>>, PhaseError> {
    let mut waits_for = BTreeMap::new();
    for phase in phases {
        let before = waits_for.insert(phase.name.clone(), BTreeSet::new());
        if before.is_some() {
            let phase = phase.name.clone().into_owned();
            return Err(PhaseError::Duplicate { phase });
        }
    }
    let known: BTreeSet<Name> = waits_for.keys().cloned().collect();
    for phase in phases {
        if let Some(unknown) = phase
            .after
            .union(&phase.before)
            .find(|n| !known.contains(*n))
        {
            let phase = unknown.clone().into_owned();
            return Err(PhaseError::Unknown { phase });
        }
        let last = (phase.name != ACTOR_SYSTEM_TERMINATE).then_some(ACTOR_SYSTEM_TERMINATE.into());
        for later in phase.before.iter().cloned().chain(last) {
            waits_for
                .entry(later)
                .or_default()
                .insert(phase.name.clone());
        }
        let own = waits_for.entry(phase.name.clone()).or_default();
        own.extend(phase.after.iter().cloned());
    }
    Ok(waits_for)
}

/// A circle among phases of which each waits for another.
fn cycle(from: &Name, waits_for: &BTreeMap<Name, BTreeSet<Name>>) -> PhaseError {
    // Going back from phase to phase must come to one that was seen before.
    let mut path: Vec<&Name> = vec![from];
    let start = loop {
        let last = path[path.len() - 1];
        let Some(before) = waits_for.get(last).and_then(BTreeSet::first) else {
            break 0;
        };
        if let Some(start) = path.iter().position(|&seen| seen == before) {
            break start;
        }
        path.push(before);
    };
    let circle = path[start..].iter().rev();
    PhaseError::Cycle {
        phases: circle.map(|&name| name.clone().into_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(more: impl IntoIterator<Item = Phase>) -> Result<Vec<String>, PhaseError> {
        let phases = default_phases().into_iter().chain(more).collect();
        let ordered = in_order(phases)?.into_iter();
        Ok(ordered.map(|phase| phase.name.into_owned()).collect())
    }

    #[test]
    fn the_default_phases_run_in_the_order_of_pekko() {
        assert_eq!(names([]).unwrap(), DEFAULT_PHASES);
    }

    #[test]
    fn a_layer_puts_its_phases_in_between() {
        let more = [
            Phase::new("cluster-shutdown").after("cluster-leave"),
            Phase::new("cluster-leave")
                .after(SERVICE_STOP)
                .before(BEFORE_ACTOR_SYSTEM_TERMINATE),
        ];
        let expected = [
            BEFORE_SERVICE_UNBIND,
            SERVICE_UNBIND,
            SERVICE_REQUESTS_DONE,
            SERVICE_STOP,
            "cluster-leave",
            BEFORE_ACTOR_SYSTEM_TERMINATE,
            "cluster-shutdown",
            ACTOR_SYSTEM_TERMINATE,
        ];
        assert_eq!(names(more).unwrap(), expected);
    }

    #[test]
    fn a_phase_without_an_order_runs_late_and_never_last() {
        let ordered = names([Phase::new("b"), Phase::new("a")]).unwrap();
        assert_eq!(
            ordered[4..],
            [
                BEFORE_ACTOR_SYSTEM_TERMINATE,
                "b",
                "a",
                ACTOR_SYSTEM_TERMINATE
            ]
        );
    }

    #[test]
    fn a_circle_is_named_without_its_tail() {
        let more = [
            Phase::new("tail").after("a"),
            Phase::new("a").after("c"),
            Phase::new("b").after("a"),
            Phase::new("c").after("b"),
        ];
        let Err(PhaseError::Cycle { mut phases }) = names(more) else {
            panic!("a circle")
        };
        assert_eq!(phases.len(), 3);
        let first = phases.iter().position(|name| name == "a").unwrap();
        phases.rotate_left(first);
        assert_eq!(phases, ["a", "b", "c"]);
    }

    #[test]
    fn nothing_runs_behind_the_end_of_the_system() {
        let error = names([Phase::new("late").after(ACTOR_SYSTEM_TERMINATE)]).unwrap_err();
        assert!(matches!(error, PhaseError::Cycle { .. }));
        let error = names([Phase::new("self").after("self")]).unwrap_err();
        assert_eq!(error.to_string(), "the phases run in a circle: self");
    }

    #[test]
    fn unknown_and_double_names_are_refused() {
        let phase = "typo".to_owned();
        let error = names([Phase::new("a").before("typo")]).unwrap_err();
        assert_eq!(error, PhaseError::Unknown { phase });
        let phase = SERVICE_STOP.to_owned();
        let error = names([Phase::new(SERVICE_STOP)]).unwrap_err();
        assert_eq!(error, PhaseError::Duplicate { phase });
    }
}
