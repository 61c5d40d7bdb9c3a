//! Io: the actors and tasks that drive the logic: region, entities on this node, ways to other nodes.

pub(crate) mod doors;
pub(crate) mod host;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod peers;
pub(crate) mod region;
pub(crate) mod rights;
