//! Ui: wrong types in the methods of an actor are errors at those methods.

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

    async fn touch(&mut self, _: String, _: &mut Context<Self>) -> Result<(), String> {
        Ok(())
    }

    async fn add(&mut self, _: u64, _: &mut Context<Self>) -> Result<String, String> {
        Ok(String::new())
    }
}

fn main() {}
