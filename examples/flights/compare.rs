//! Comparison: the states that the cluster gave against the plain scan, aircraft by aircraft.

use std::fmt;
use std::sync::Arc;

use super::tally::Tally;

/// How many differences are listed.
const SHOWN_MAX: usize = 10;

/// What the comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub(crate) aircraft: usize,
    /// Aircraft whose state differs.
    pub(crate) differing: usize,
    /// Acknowledged commands that no aircraft has.
    pub(crate) lost: u64,
    /// Flights that an aircraft has beyond those of the file.
    pub(crate) counted_twice: u64,
    listed: Vec<String>,
}

impl Comparison {
    /// Compares `states` with `scanned`; `acknowledged` counts the commands of each aircraft that
    /// were acknowledged. All three are in the order of `tails`.
    pub(crate) fn new(
        tails: &[Arc<str>],
        scanned: &[Tally],
        states: &[Tally],
        acknowledged: &[u32],
    ) -> Self {
        let mut comparison = Self {
            aircraft: tails.len(),
            ..Self::default()
        };
        for (index, tail) in tails.iter().enumerate() {
            let (file, state) = (&scanned[index], &states[index]);
            comparison.lost += u64::from(acknowledged[index].saturating_sub(state.total()));
            comparison.counted_twice += u64::from(state.total().saturating_sub(file.total()));
            if file != state {
                comparison.differing += 1;
                if comparison.listed.len() < SHOWN_MAX {
                    comparison
                        .listed
                        .push(format!("{tail}: {}", difference(file, state)));
                }
            }
        }
        comparison
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.differing == 0
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exact() {
            return write!(f, "exact: {} aircraft as in the file", self.aircraft);
        }
        write!(
            f,
            "NOT exact: {} of {} aircraft differ",
            self.differing, self.aircraft
        )?;
        for line in &self.listed {
            write!(f, "\n  {line}")?;
        }
        if self.differing > self.listed.len() {
            write!(f, "\n  and {} more", self.differing - self.listed.len())?;
        }
        Ok(())
    }
}

fn difference(file: &Tally, state: &Tally) -> String {
    let columns = [
        ("flights", i64::from(file.flights), i64::from(state.flights)),
        (
            "cancelled",
            i64::from(file.cancelled),
            i64::from(state.cancelled),
        ),
        ("miles", file.miles.cast_signed(), state.miles.cast_signed()),
        ("arr_delay_sum", file.arr_delay_sum, state.arr_delay_sum),
    ];
    let differing = columns.iter().filter(|(_, file, state)| file != state);
    let named = differing.map(|(name, file, state)| format!("{name} {state}, in the file {file}"));
    named.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_and_named() {
        let tails: Vec<Arc<str>> = vec!["N1".into(), "N2".into(), "N3".into()];
        let file = [Tally {
            flights: 3,
            cancelled: 1,
            miles: 10,
            arr_delay_sum: -4,
        }; 3];
        let mut states = file;
        let exact = Comparison::new(&tails, &file, &states, &[4, 4, 4]);
        assert!(exact.is_exact());
        assert_eq!(exact.to_string(), "exact: 3 aircraft as in the file");

        states[0] = Tally {
            flights: 2,
            miles: 8,
            ..file[0]
        };
        states[2].cancelled = 3;
        let wrong = Comparison::new(&tails, &file, &states, &[4, 4, 4]);
        assert_eq!(
            (wrong.differing, wrong.lost, wrong.counted_twice),
            (2, 1, 2)
        );
        assert_eq!(
            wrong.to_string(),
            "NOT exact: 2 of 3 aircraft differ\n  \
             N1: flights 2, in the file 3; miles 8, in the file 10\n  \
             N3: cancelled 3, in the file 1"
        );
    }
}
