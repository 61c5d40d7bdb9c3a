//! Diagnosis: what is wrong with a history that no order explains, in the smallest words.
//!
//! The history is cut after the first answer that cannot be explained: that operation is the witness.
//! Then one thing at a time is forgiven in the whole history. If the history is explained once an
//! acknowledged operation is left out, that operation was lost; once it may have happened again,
//! it was done twice; once the answer of a read may be anything, the read was not linear.

use crate::logic::linear::{End, Found, Model, Operation, search};

/// Steps of one search. A history of some hundred operations on one key takes far fewer.
const STEPS_MAX: usize = 200_000;
/// Operations for which something is forgiven, counted back from the witness.
const SUSPECTS_MAX: usize = 200;

/// What is wrong with the operations on one key; the numbers are places in the history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Diagnosis {
    /// This operation was acknowledged and has no effect.
    Lost(usize),
    /// This operation took effect more than once.
    Twice(usize),
    /// The answer of this read is of no time at which it could have been done.
    Read(usize),
    /// No order explains the answer of this operation.
    Unexplained(usize),
    /// Too many orders to try.
    TooLong,
}

type Operations<M> = [Operation<<M as Model>::Command, <M as Model>::Answer>];

/// Examines the operations on `key`, sorted by their beginnings; `None` if all is well.
pub(crate) fn examine<M: Model>(
    model: &M,
    key: &str,
    operations: &Operations<M>,
) -> Option<Diagnosis> {
    let found =
        |operations: &Operations<M>| search(model, model.initial(key), operations, STEPS_MAX);
    match found(operations) {
        Found::Linear => return None,
        Found::TooLong => return Some(Diagnosis::TooLong),
        Found::NotLinear => {}
    }
    let Some(witness) = witness(operations, found) else {
        return Some(Diagnosis::TooLong);
    };
    let suspects = || {
        (0..operations.len())
            .rev()
            .filter(|at| {
                let end = operations[*at].end.at();
                end.is_some() && operations[*at].began <= operations[witness].began
            })
            .take(SUSPECTS_MAX)
    };
    let explained = |changed: Vec<_>| found(&changed) == Found::Linear;
    let is_read = |at: usize| model.is_read(&operations[at].command);
    let with_end = |at: usize, end: End<M::Answer>| {
        let mut changed = operations.to_vec();
        changed[at].end = end;
        changed
    };
    let without = |at: usize| {
        let mut changed = operations.to_vec();
        changed.remove(at);
        changed
    };
    let again = |at: usize| {
        let mut changed = operations.to_vec();
        let (command, began) = (operations[at].command.clone(), operations[at].began);
        let end = End::Unknown;
        changed.insert(
            at + 1,
            Operation {
                command,
                began,
                end,
            },
        );
        changed
    };
    for at in suspects().filter(|at| !is_read(*at)) {
        if explained(without(at)) {
            return Some(Diagnosis::Lost(at));
        }
        if explained(again(at)) {
            return Some(Diagnosis::Twice(at));
        }
    }
    let any_answer = |at: usize| End::Done(operations[at].end.at().unwrap_or_default());
    if is_read(witness) && explained(with_end(witness, any_answer(witness))) {
        return Some(Diagnosis::Read(witness));
    }
    Some(Diagnosis::Unexplained(witness))
}

/// The operation whose answer, in the order of the answers, is the first that cannot be explained.
fn witness<C: Clone, A: Clone>(
    operations: &[Operation<C, A>],
    found: impl Fn(&[Operation<C, A>]) -> Found,
) -> Option<usize> {
    let mut ends: Vec<_> = (0..operations.len())
        .filter_map(|at| Some((operations[at].end.at()?, at)))
        .collect();
    ends.sort_unstable();
    let until = |count: usize| {
        let last = ends[count].0;
        let mut changed = operations.to_vec();
        changed.retain(|operation| operation.began < last);
        for operation in &mut changed {
            if operation.end.at().is_some_and(|at| at > last) {
                operation.end = End::Unknown;
            }
        }
        found(&changed) == Found::NotLinear
    };
    // What cannot be explained stays so, whatever follows: the first one is found by halving.
    let (mut low, mut high) = (0, ends.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if until(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    ends.get(low).map(|(_, at)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::linear::tests::{Do, Register, op, unknown};

    fn of(operations: &[Operation<Do, u64>]) -> Option<Diagnosis> {
        examine(&Register, "k", operations)
    }

    #[test]
    fn a_write_that_later_answers_do_not_know_was_lost() {
        let story = [
            op(0, Do::Add(1), 1, 1),
            op(2, Do::Add(2), 3, 3),
            op(4, Do::Read, 5, 1),
            op(6, Do::Read, 7, 1),
        ];
        assert_eq!(of(&story), Some(Diagnosis::Lost(1)));
        assert_eq!(of(&story[..2]), None);
    }

    #[test]
    fn a_write_that_counts_twice_is_named() {
        let story = [
            op(0, Do::Add(1), 1, 1),
            op(2, Do::Add(4), 3, 5),
            op(4, Do::Read, 5, 9),
        ];
        assert_eq!(of(&story), Some(Diagnosis::Twice(1)));
    }

    #[test]
    fn a_read_of_the_past_is_named() {
        let story = [
            op(0, Do::Add(1), 1, 1),
            op(2, Do::Add(2), 3, 3),
            op(4, Do::Read, 5, 1),
            op(6, Do::Read, 7, 3),
        ];
        assert_eq!(of(&story), Some(Diagnosis::Read(2)));
    }

    #[test]
    fn an_answer_that_never_was_is_named() {
        let story = [
            unknown(0, Do::Add(1)),
            op(1, Do::Add(2), 2, 77),
            op(3, Do::Read, 4, 2),
        ];
        assert_eq!(of(&story), Some(Diagnosis::Unexplained(1)));
    }
}
