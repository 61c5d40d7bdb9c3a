//! Test kit: checks of a user's own events and states.

use crate::event_sourced::EventSourced;
use crate::format::{decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends each event through the codec, as the journal does, and back.
///
/// Returns what came back, in order, to be compared or applied. Types that look fine can fail here:
/// serde's `untagged`, `flatten` and `skip_serializing_if` do not work with a binary codec.
///
/// # Panics
/// When an event cannot be encoded or decoded, or comes back as something else; the message says
/// which.
pub fn round_trip_events<E: EventSourced>(
    events: impl IntoIterator<Item = E::Event>,
) -> Vec<E::Event> {
    let events = events.into_iter().enumerate();
    events
        .map(|(n, event)| round_trip(&format!("event {n} of {}", E::EVENT_NAME), &event))
        .collect()
}

/// Sends the snapshot of a state through the codec and back, and restores it into `empty`.
/// Returns `None` when the state takes no snapshot.
///
/// # Panics
/// As [`round_trip_events`]; and when the restored state gives another snapshot.
pub fn round_trip_snapshot<E: EventSourced>(state: &E, mut empty: E) -> Option<E> {
    let what = format!("the snapshot of {}", E::EVENT_NAME);
    let snapshot = state.snapshot()?;
    let bytes = encode(&snapshot).unwrap_or_else(|error| panic!("{what}: {error}"));
    empty.restore(round_trip(&what, &snapshot));
    let again = empty.snapshot().map(|again| encode(&again));
    assert_eq!(
        again,
        Some(Ok(bytes)),
        "{what}: a restored state gives another one"
    );
    Some(empty)
}

fn round_trip<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> T {
    let bytes = encode(value).unwrap_or_else(|error| panic!("{what}: {error}"));
    let back: T = decode(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(
        encode(&back),
        Ok(bytes),
        "{what}: it comes back as something else"
    );
    back
}
