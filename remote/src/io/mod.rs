//! IO: tasks that move bytes between outboxes, connections and actors; `logic/` decides.

pub(crate) mod acceptor;
pub(crate) mod driver;
pub(crate) mod inbound;
pub(crate) mod lanes;
