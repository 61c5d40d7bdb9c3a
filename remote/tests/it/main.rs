//! Proves: what one node sends another arrives as promised, or fails as promised.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod nodes;
