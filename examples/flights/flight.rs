//! Flight: one departure with its lossless key, checked when it comes in from a file or over HTTP.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one flight: year, month, day, scheduled departure, carrier, number and origin, packed
/// into one integer. Two different flights never have the same key (it is no hash), and keys sort
/// by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct FlightKey(u128);

impl FlightKey {
    fn pack(fields: &FlightFields<'_>) -> Result<Self, FlightError> {
        let minutes = fields.sched_dep_time % 100;
        if !(0..=2400).contains(&fields.sched_dep_time) || minutes > 59 {
            return Err(FlightError::new(
                "sched_dep_time",
                fields.sched_dep_time,
                "a time as hhmm",
            ));
        }
        let parts = [
            (in_range("year", fields.year, 1, 4095)?, 12),
            (in_range("month", fields.month, 1, 12)?, 4),
            (in_range("day", fields.day, 1, 31)?, 5),
            (
                in_range("sched_dep_time", fields.sched_dep_time, 0, 2400)?,
                12,
            ),
            (code("carrier", fields.carrier, 3)?, 24),
            (in_range("flight", fields.flight, 0, 65_535)?, 16),
            (code("origin", fields.origin, 4)?, 32),
        ];
        Ok(Self(parts.iter().fold(0, |key, &(value, bits)| {
            (key << bits) | u128::from(value)
        })))
    }
}

impl fmt::Debug for FlightKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What became of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Its departure delay is unknown: it never left.
    Cancelled,
    /// It left. A diverted flight has no arrival delay.
    Flown {
        /// Distance in miles.
        miles: u32,
        /// Minutes late at the gate, negative when early.
        arr_delay: Option<i32>,
    },
}

/// One departure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) key: FlightKey,
    pub(crate) outcome: Outcome,
}

/// A departure as it was written down, before anything was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlightFields<'a> {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) sched_dep_time: i64,
    pub(crate) dep_delay: Option<i64>,
    pub(crate) arr_delay: Option<i64>,
    pub(crate) carrier: &'a str,
    pub(crate) flight: i64,
    pub(crate) origin: &'a str,
    pub(crate) distance: i64,
}

/// A field that no flight can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column} is `{found}`, expected {expected}")]
pub(crate) struct FlightError {
    column: &'static str,
    found: String,
    expected: String,
}

impl FlightError {
    pub(crate) fn new(
        column: &'static str,
        found: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            column,
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

impl TryFrom<FlightFields<'_>> for Flight {
    type Error = FlightError;

    fn try_from(fields: FlightFields<'_>) -> Result<Self, FlightError> {
        const DELAY_MAX: i64 = 100_000;
        let key = FlightKey::pack(&fields)?;
        let miles = in_range("distance", fields.distance, 0, 100_000)?;
        let delay = |column, value: Option<i64>| match value {
            Some(value) => signed_in_range(column, value, DELAY_MAX).map(Some),
            None => Ok(None),
        };
        let dep_delay = delay("dep_delay", fields.dep_delay)?;
        let arr_delay = delay("arr_delay", fields.arr_delay)?;
        let outcome = match dep_delay {
            Some(_) => Outcome::Flown { miles, arr_delay },
            None => Outcome::Cancelled,
        };
        Ok(Self { key, outcome })
    }
}

/// Checks a tail number: it becomes the name of an entity and a part of a URL.
pub(crate) fn check_tail_number(text: &str) -> Result<&str, FlightError> {
    let fits = (1..=32).contains(&text.len());
    if fits && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        Ok(text)
    } else {
        Err(FlightError::new(
            "tailnum",
            text,
            "1 to 32 printable ASCII characters without `/`",
        ))
    }
}

fn in_range(column: &'static str, value: i64, min: i64, max: i64) -> Result<u32, FlightError> {
    match u32::try_from(value) {
        Ok(small) if (min..=max).contains(&value) => Ok(small),
        _ => Err(FlightError::new(
            column,
            value,
            format!("a number from {min} to {max}"),
        )),
    }
}

fn signed_in_range(column: &'static str, value: i64, max: i64) -> Result<i32, FlightError> {
    match i32::try_from(value) {
        Ok(small) if (-max..=max).contains(&value) => Ok(small),
        _ => Err(FlightError::new(
            column,
            value,
            format!("minutes from -{max} to {max}"),
        )),
    }
}

/// An airport or airline code as a number: its bytes, which hold no zero, so it stays lossless.
fn code(column: &'static str, text: &str, len_max: usize) -> Result<u32, FlightError> {
    let fits = (1..=len_max).contains(&text.len());
    if !fits || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let expected = format!("a code of 1 to {len_max} letters or digits");
        return Err(FlightError::new(column, text, expected));
    }
    Ok(text
        .bytes()
        .fold(0, |number, byte| (number << 8) | u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: FlightFields<'static> = FlightFields {
        year: 2013,
        month: 1,
        day: 31,
        sched_dep_time: 2359,
        dep_delay: Some(7),
        arr_delay: Some(-3),
        carrier: "UA",
        flight: 1545,
        origin: "EWR",
        distance: 1400,
    };

    fn flight(fields: FlightFields<'_>) -> Flight {
        Flight::try_from(fields).unwrap()
    }

    #[test]
    fn keys_differ_in_every_part_and_sort_by_time() {
        let key = flight(LATE).key;
        let others = [
            FlightFields { year: 2014, ..LATE },
            FlightFields { month: 2, ..LATE },
            FlightFields { day: 30, ..LATE },
            FlightFields {
                sched_dep_time: 0,
                ..LATE
            },
            FlightFields {
                carrier: "U",
                ..LATE
            },
            FlightFields {
                flight: 1546,
                ..LATE
            },
            FlightFields {
                origin: "JFK",
                ..LATE
            },
        ];
        for other in others {
            assert_ne!(flight(other).key, key, "{other:?}");
        }
        assert_eq!(
            flight(FlightFields {
                arr_delay: None,
                distance: 2,
                ..LATE
            })
            .key,
            key
        );
        assert!(
            flight(FlightFields {
                day: 30,
                origin: "ZZZZ",
                ..LATE
            })
            .key < key
        );
    }

    #[test]
    fn an_unknown_departure_delay_is_a_cancelled_flight() {
        let cancelled = flight(FlightFields {
            dep_delay: None,
            arr_delay: None,
            ..LATE
        });
        assert_eq!(cancelled.outcome, Outcome::Cancelled);
        let diverted = flight(FlightFields {
            arr_delay: None,
            ..LATE
        });
        assert_eq!(
            diverted.outcome,
            Outcome::Flown {
                miles: 1400,
                arr_delay: None
            }
        );
    }

    #[test]
    fn what_no_flight_can_have_is_refused_by_name() {
        for (fields, message) in [
            (
                FlightFields { month: 13, ..LATE },
                "month is `13`, expected a number from 1 to 12",
            ),
            (
                FlightFields {
                    sched_dep_time: 1260,
                    ..LATE
                },
                "sched_dep_time is `1260`, expected a time as hhmm",
            ),
            (
                FlightFields {
                    origin: "NOWHERE",
                    ..LATE
                },
                "origin is `NOWHERE`, expected a code of 1 to 4 letters or digits",
            ),
            (
                FlightFields {
                    distance: -1,
                    ..LATE
                },
                "distance is `-1`, expected a number from 0 to 100000",
            ),
        ] {
            assert_eq!(Flight::try_from(fields).unwrap_err().to_string(), message);
        }
    }
}
