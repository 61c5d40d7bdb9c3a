//! Cases: one function each, a file for each kit; what [`crate::conformance_tests`] calls.
#![allow(missing_docs, reason = "the names of the cases say what they are")]

pub mod deletes;
pub mod journal;
pub mod offsets;
pub mod queries;
pub mod snapshots;
pub mod states;

use crate::error::{AppendError, JournalError};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, EventRecord};
use std::fmt::Debug;
use std::sync::Arc;

fn id(entity: &str) -> PersistenceId {
    PersistenceId::new("conformance", entity)
}

fn event(text: &str) -> EventRecord {
    EventRecord::new("conformance.Event", 1, text.as_bytes().to_vec())
}

fn append(entity: &str, expected_seq: u64, texts: &[&str]) -> AppendRequest {
    AppendRequest::new(
        id(entity),
        expected_seq,
        texts.iter().map(|text| event(text)).collect(),
    )
}

fn tags(tags: &[&str]) -> Vec<Arc<str>> {
    tags.iter().map(|tag| Arc::from(*tag)).collect()
}

fn assert_wrong<T: Debug>(result: Result<T, AppendError>, expected: u64, actual: u64) {
    match result {
        Err(AppendError::WrongSequence {
            expected: named,
            actual: found,
        }) => {
            assert_eq!((named, found), (expected, actual));
        }
        other => panic!("expected WrongSequence, got {other:?}"),
    }
}

fn assert_fenced<T: Debug>(result: Result<T, AppendError>, current: u64) {
    match result {
        Err(AppendError::Fenced { current: found }) => assert_eq!(found, current),
        other => panic!("expected Fenced, got {other:?}"),
    }
}

fn assert_closed<T: Debug>(result: Result<T, impl Into<AppendError>>) {
    match result.map_err(Into::into) {
        Err(AppendError::Store(JournalError::Closed)) => {}
        other => panic!("expected Closed, got {other:?}"),
    }
}

fn assert_too_large<T: Debug>(result: Result<T, impl Into<AppendError>>) {
    match result.map_err(Into::into) {
        Err(AppendError::Store(JournalError::TooLarge { actual, limit, .. })) => {
            assert!(actual > limit);
        }
        other => panic!("expected TooLarge, got {other:?}"),
    }
}
