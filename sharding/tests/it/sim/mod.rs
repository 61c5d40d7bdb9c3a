//! Simulation: regions and coordinators of a whole cluster in one thread, on virtual time.

pub(crate) mod ledger;
pub(crate) mod net;
pub(crate) mod store;
pub(crate) mod world;
