//! Proves: nothing yet.
