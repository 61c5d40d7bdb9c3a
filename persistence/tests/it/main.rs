//! Proves: stores keep what they acknowledged, whatever ends the process.
#![allow(clippy::unwrap_used, reason = "a failed test is meant to panic")]

mod conforms;
