//! Tally: what is known of one aircraft, and the plain count over a whole file to compare with.

use serde::{Deserialize, Serialize};

use super::flight::{Flight, FlightKey, Outcome};
use super::input::Input;

/// The sums over some flights of one aircraft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Flights that left.
    pub(crate) flights: u32,
    /// Flights that never left.
    pub(crate) cancelled: u32,
    /// Miles of the flights that left.
    pub(crate) miles: u64,
    /// Minutes: the sum of the known arrival delays of the flights that left.
    pub(crate) arr_delay_sum: i64,
}

impl Tally {
    /// Adds one flight.
    pub(crate) fn add(&mut self, flight: &Flight) {
        match flight.outcome {
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Flown { miles, arr_delay } => {
                self.flights += 1;
                self.miles += u64::from(miles);
                self.arr_delay_sum += i64::from(arr_delay.unwrap_or(0));
            }
        }
    }

    /// How many flights it counts, flown or not.
    pub(crate) fn total(&self) -> u32 {
        self.flights + self.cancelled
    }
}

/// A set of flight keys as a sorted list: flights come in nearly by date, so most land at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlightKeys(Vec<FlightKey>);

impl FlightKeys {
    pub(crate) fn contains(&self, key: FlightKey) -> bool {
        self.0.binary_search(&key).is_ok()
    }

    /// Adds a key; `false` when it was there.
    pub(crate) fn insert(&mut self, key: FlightKey) -> bool {
        match self.0.binary_search(&key) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, key);
                true
            }
        }
    }
}

/// Counts the file without any cluster: one tally an aircraft, in the order of `input.tails`.
pub(crate) fn scan(input: &Input) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); input.tails.len()];
    for departure in &input.departures {
        tallies[departure.tail as usize].add(&departure.flight);
    }
    tallies
}
