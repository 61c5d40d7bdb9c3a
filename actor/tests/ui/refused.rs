//! Ui: what a protocol cannot say is refused where it stands, all at once.

#[otava_actor::protocol(id = "shop.cart", version = 2)]
trait CartApi {
    fn touch(&mut self, sku: u64);
    async fn add(&mut self, name: &str) -> usize;
    #[since(3)]
    async fn watch(&mut self, who: u64);
    #[name = "add"]
    async fn put(&mut self, sku: u64);
    async fn stop(&mut self);
    async fn count(&self) -> usize;
    async fn fill(&mut self, (sku, many): (u64, usize));
    async fn clear(&mut self) {}
    async fn any<T>(&mut self, what: T);
    async fn me(&mut self) -> Option<Self>;
    async fn find(&mut self, reply_to: u64) -> usize;
    const LIMIT: usize;
}

#[otava_actor::protocol(id = "shop.cart")]
trait DoubleApi {
    async fn add(&mut self, sku: u64) -> usize;
    #[name = "add"]
    async fn put(&mut self, sku: u64);
    async fn put_(&mut self, sku: u64);
}

#[otava_actor::protocol(remote)]
trait NamelessApi {
    async fn add(&mut self, sku: u64) -> usize;
}

#[otava_actor::protocol(name = "shop.cart")]
trait MistakenApi {
    async fn add(&mut self, sku: u64) -> usize;
}

fn main() {}
