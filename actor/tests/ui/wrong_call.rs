//! Ui: wrong arguments and answers where a method is called are errors at the call.

use otava_actor::ActorRef;
use otava_actor::protocol::Recipient;

#[otava_actor::protocol]
trait CartApi {
    async fn touch(&mut self, sku: u64);
    async fn add(&mut self, sku: u64) -> usize;
}

#[otava_actor::protocol]
trait OtherApi {
    async fn other(&mut self);
}

async fn call(cart: ActorRef<CartMsg>, other: ActorRef<OtherMsg>) {
    cart.touch("42").unwrap();
    let _: String = cart.add(42).await.unwrap();
    use_up(&other);
}

fn use_up(_: &impl Recipient<CartMsg>) {}

fn main() {}
