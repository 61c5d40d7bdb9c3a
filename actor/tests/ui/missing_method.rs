//! Ui: a method of the protocol that the actor does not have is E0046, and names it.

use otava_actor::Context;

#[otava_actor::protocol]
trait CartApi {
    async fn touch(&mut self, sku: u64);
    async fn add(&mut self, sku: u64) -> usize;
}

struct Cart;

#[otava_actor::actor]
impl CartApi for Cart {
    type Err = String;

    async fn touch(&mut self, _: u64, _: &mut Context<Self>) -> Result<(), String> {
        Ok(())
    }
}

fn main() {}
