//! Ui: `#[actor]` at something else than the implementation of a protocol says so.

struct Cart;

#[otava_actor::actor]
impl Cart {}

fn main() {}
