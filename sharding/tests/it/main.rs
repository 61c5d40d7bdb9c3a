//! Proves: shards have one home at a time, and planned moves lose nothing and keep order.
