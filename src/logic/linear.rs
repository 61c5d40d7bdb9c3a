//! Linear: whether a history can be put in one order that explains every answer.
//!
//! A history is linearizable if its operations can be put in an order that respects time (what was
//! answered before another began comes first) and in which a sequential model gives the same answers.
//! An operation whose outcome is unknown may have happened at any time after it began, or never.
//!
//! The search takes operations one by one, each of those that no unfinished one must precede, and
//! remembers every pair of (taken, state) that it has seen. Source: J. Wing, C. Gong, "Testing and
//! verifying concurrent objects", 1993, and G. Lowe, "Testing for linearizability", 2017, for the memory.

use std::collections::BTreeSet;

/// What a sequential object does: the truth that a history is compared with.
pub trait Model {
    /// What is done to it.
    type Command: Clone;
    /// What it answers.
    type Answer: Clone + PartialEq;
    /// What it is. Two equal states must behave the same for ever.
    type State: Clone + Ord;

    /// The state of `key` before the first command.
    fn initial(&self, key: &str) -> Self::State;

    /// What a command does, alone.
    fn apply(&self, state: &mut Self::State, command: &Self::Command) -> Self::Answer;

    /// Whether a command changes nothing. Only for the name of a violation.
    fn is_read(&self, command: &Self::Command) -> bool {
        let _ = command;
        false
    }
}

/// One operation on one key.
#[derive(Clone, Debug)]
pub(crate) struct Operation<C, A> {
    pub(crate) command: C,
    /// When it began, by a counter that all operations share.
    pub(crate) began: u64,
    pub(crate) end: End<A>,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(crate) enum End<A> {
    /// It was done between its beginning and this time, and answered so.
    Answered(u64, A),
    /// It was done between its beginning and this time; the answer does not matter.
    Done(u64),
    /// Nobody knows whether it was done, or will be.
    Unknown,
}

impl<A> End<A> {
    pub(crate) fn at(&self) -> Option<u64> {
        match self {
            Self::Answered(at, _) | Self::Done(at) => Some(*at),
            Self::Unknown => None,
        }
    }
}

/// What a search found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// There is such an order.
    Linear,
    /// There is none.
    NotLinear,
    /// It was given up after so many steps.
    TooLong,
}

/// Searches for an order of `operations`, which are sorted by their beginnings.
pub(crate) fn search<M: Model>(
    model: &M,
    initial: M::State,
    operations: &[Operation<M::Command, M::Answer>],
    steps_max: usize,
) -> Found {
    let (ended, unknown): (Vec<_>, Vec<_>) = operations
        .iter()
        .partition(|operation| operation.end.at().is_some());
    let mut seen = BTreeSet::from([(Taken::default(), initial.clone())]);
    let mut open = vec![(Taken::default(), initial)];
    let mut steps = 0;
    while let Some((taken, state)) = open.pop() {
        // Nothing may be taken that began after one that is not taken had ended.
        let left = || (taken.below..ended.len()).filter(|at| !taken.above.contains(at));
        let mut horizon = u64::MAX;
        let mut next = Vec::new();
        for at in left() {
            if ended[at].began >= horizon {
                break;
            }
            let end = ended[at].end.at().unwrap_or(u64::MAX);
            horizon = horizon.min(end);
            next.push((end, at));
        }
        if next.is_empty() {
            return Found::Linear;
        }
        next.retain(|(_, at)| ended[*at].began < horizon);
        // What ended first is tried first, so it is put on the top; what is unknown comes last.
        next.sort_unstable();
        let begun = unknown.iter().take_while(|it| it.began < horizon);
        let untaken = (0..begun.count()).filter(|at| !taken.unknown.contains(at));
        let steps_of_unknown = untaken.map(|at| (unknown[at], taken.with_unknown(at)));
        let steps_of_ended = next
            .iter()
            .rev()
            .map(|(_, at)| (ended[*at], taken.with(*at)));
        for (operation, taken) in steps_of_unknown.chain(steps_of_ended) {
            steps += 1;
            if steps > steps_max {
                return Found::TooLong;
            }
            let mut after = state.clone();
            let answer = model.apply(&mut after, &operation.command);
            let possible = match &operation.end {
                End::Answered(_, said) => *said == answer,
                End::Done(_) => true,
                // Taking one that changes nothing leads nowhere.
                End::Unknown => after != state,
            };
            let place = (taken, after);
            if possible && seen.insert(place.clone()) {
                open.push(place);
            }
        }
    }
    Found::NotLinear
}

/// Which operations were taken, each list sorted.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Taken {
    /// All below this place among those that ended.
    below: usize,
    /// And these.
    above: Vec<usize>,
    /// These among those of unknown outcome.
    unknown: Vec<usize>,
}

impl Taken {
    fn with(&self, at: usize) -> Self {
        let mut taken = self.clone();
        insert(&mut taken.above, at);
        let run = (taken.below..).zip(&taken.above);
        let joined = run.take_while(|(place, above)| place == *above).count();
        taken.above.drain(..joined);
        taken.below += joined;
        taken
    }

    fn with_unknown(&self, at: usize) -> Self {
        let mut taken = self.clone();
        insert(&mut taken.unknown, at);
        taken
    }
}

fn insert(sorted: &mut Vec<usize>, at: usize) {
    let place = sorted.partition_point(|other| *other < at);
    sorted.insert(place, at);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use otava_actor::Rng;

    /// A number that can be set, added to, and read.
    pub(crate) struct Register;

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Do {
        Add(u64),
        Read,
    }

    impl Model for Register {
        type Command = Do;
        type Answer = u64;
        type State = u64;

        fn initial(&self, _: &str) -> u64 {
            0
        }

        fn apply(&self, state: &mut u64, command: &Do) -> u64 {
            if let Do::Add(n) = command {
                *state += n;
            }
            *state
        }

        fn is_read(&self, command: &Do) -> bool {
            matches!(command, Do::Read)
        }
    }

    pub(crate) fn op(began: u64, command: Do, ended: u64, answer: u64) -> Operation<Do, u64> {
        let end = End::Answered(ended, answer);
        Operation {
            command,
            began,
            end,
        }
    }

    pub(crate) fn unknown(began: u64, command: Do) -> Operation<Do, u64> {
        let end = End::Unknown;
        Operation {
            command,
            began,
            end,
        }
    }

    fn found(operations: &[Operation<Do, u64>]) -> Found {
        search(&Register, 0, operations, 100_000)
    }

    #[test]
    fn what_overlaps_may_be_put_in_any_order() {
        let reads = |a, b| {
            [
                op(0, Do::Add(1), 9, 1),
                op(1, Do::Read, 2, a),
                op(3, Do::Read, 4, b),
            ]
        };
        assert_eq!(found(&reads(0, 1)), Found::Linear);
        assert_eq!(found(&reads(1, 1)), Found::Linear);
        assert_eq!(found(&reads(0, 0)), Found::Linear);
        assert_eq!(found(&reads(1, 0)), Found::NotLinear);
    }

    #[test]
    fn what_is_unknown_may_have_happened_late_or_never() {
        let story = |answers: [u64; 3]| {
            let [a, b, c] = answers;
            [
                unknown(0, Do::Add(5)),
                op(1, Do::Read, 2, a),
                op(3, Do::Read, 4, b),
                op(5, Do::Read, 6, c),
            ]
        };
        for fine in [[0, 0, 0], [0, 0, 5], [0, 5, 5], [5, 5, 5]] {
            assert_eq!(found(&story(fine)), Found::Linear, "{fine:?}");
        }
        for wrong in [[0, 5, 0], [5, 0, 0], [0, 0, 10]] {
            assert_eq!(found(&story(wrong)), Found::NotLinear, "{wrong:?}");
        }
    }

    #[test]
    fn a_search_that_is_too_long_is_given_up() {
        let mut operations: Vec<_> = (0..40).map(|n| unknown(n, Do::Add(1 << n))).collect();
        operations.push(op(50, Do::Read, 51, u64::MAX));
        assert_eq!(search(&Register, 0, &operations, 10_000), Found::TooLong);
    }

    /// Histories of an object that is right are found right, whatever the clients saw of it; and
    /// with one answer changed to what it never was, wrong.
    #[test]
    fn random_histories_of_a_right_object_are_linear() {
        for seed in 0..300 {
            let mut rng = Rng::seeded(seed);
            let (mut clock, mut state) = (0, 0);
            let mut operations = Vec::new();
            // Each client has one operation at a time: begun, maybe done, not yet answered.
            let mut clients: [Option<(u64, Do, Option<u64>)>; 4] = [None; 4];
            for _ in 0..60 {
                clock += 1;
                let client = &mut clients[rng.below(4) as usize];
                *client = match *client {
                    None if rng.below(2) == 0 => Some((clock, Do::Read, None)),
                    None => Some((clock, Do::Add(1 + rng.below(3)), None)),
                    Some((began, command, None)) => {
                        let answer = Register.apply(&mut state, &command);
                        Some((began, command, Some(answer)))
                    }
                    Some((began, command, Some(answer))) => {
                        operations.push(match rng.below(8) {
                            0 => unknown(began, command),
                            _ => op(began, command, clock, answer),
                        });
                        None
                    }
                };
            }
            for (began, command, _) in clients.into_iter().flatten() {
                operations.push(unknown(began, command));
            }
            operations.sort_by_key(|operation| operation.began);
            assert_eq!(found(&operations), Found::Linear, "seed {seed}");
            let answered = operations.iter_mut().rev();
            let answer = answered
                .filter_map(|operation| match &mut operation.end {
                    End::Answered(_, answer) => Some(answer),
                    _ => None,
                })
                .next();
            if let Some(answer) = answer {
                *answer += 1_000;
                assert_eq!(found(&operations), Found::NotLinear, "seed {seed}");
            }
        }
    }
}
