//! Replicated: data that every node holds a copy of.

pub(crate) mod wire;
