//! Proves: a trait with `#[protocol]` is an enum of messages, a server and a client.

use crate::support::{Log, SOON, system};
use otava_actor::protocol::{Method, Protocol, Recipient, fingerprint};
use otava_actor::{
    Actor, ActorRef, AskError, Context, Props, ReplyTo, Supervision, TellError, Terminated,
};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::time::Duration;

/// What a shop knows of a cart.
#[otava_actor::protocol(id = "shop.cart", version = 3)]
pub(crate) trait CartApi {
    /// Looks at an item.
    async fn touch(&mut self, sku: u64);
    /// Puts an item in, and returns how many there are.
    async fn add(&mut self, sku: u64) -> usize;
    #[since(2)]
    #[name = "observe"]
    async fn follow(&mut self, who: ActorRef<SeenMsg>);
    async fn clear(&mut self);
    #[since(3)]
    async fn rename(&mut self, name: String, reason: Option<String>) -> Result<(), String>;
}

#[otava_actor::protocol]
pub(crate) trait SeenApi {
    async fn seen(&mut self, sku: u64);
}

#[derive(Default)]
struct Cart {
    items: Vec<u64>,
    followers: Vec<ActorRef<SeenMsg>>,
    log: Log,
}

#[otava_actor::actor]
impl CartApi for Cart {
    type Err = String;

    async fn started(&mut self, _: &mut Context<Self>) -> Result<(), Self::Err> {
        self.log.add("started");
        Ok(())
    }

    async fn touch(&mut self, sku: u64, _: &mut Context<Self>) -> Result<(), Self::Err> {
        for follower in &self.followers {
            follower.seen(sku).map_err(|refused| refused.to_string())?;
        }
        Ok(())
    }

    async fn add(&mut self, sku: u64, _: &mut Context<Self>) -> Result<usize, Self::Err> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if sku == 0 {
            return Err("there is no item 0".into());
        }
        self.items.push(sku);
        Ok(self.items.len())
    }

    async fn follow(
        &mut self,
        who: ActorRef<SeenMsg>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Self::Err> {
        ctx.watch(&who);
        self.followers.push(who);
        Ok(())
    }

    async fn clear(&mut self, _: &mut Context<Self>) -> Result<(), Self::Err> {
        self.items.clear();
        Ok(())
    }

    async fn rename(
        &mut self,
        name: String,
        reason: Option<String>,
        _: &mut Context<Self>,
    ) -> Result<Result<(), String>, Self::Err> {
        self.log.add(format!("{name}, for {reason:?}"));
        Ok(if name.is_empty() {
            Err("no name".into())
        } else {
            Ok(())
        })
    }

    async fn terminated(&mut self, _: Terminated, _: &mut Context<Self>) -> Result<(), Self::Err> {
        self.log.add("a follower ended");
        Ok(())
    }

    async fn stopped(&mut self, _: &mut Context<Self>) {
        self.log.add("stopped");
    }
}

struct Eye(Log);

#[otava_actor::actor]
impl SeenApi for Eye {
    type Err = Infallible;

    async fn seen(&mut self, sku: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0.add(format!("seen {sku}"));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn methods_on_a_reference_tell_and_ask() {
    let system = system();
    let cart = system.spawn("cart", Cart::default()).unwrap();
    assert_eq!(cart.add(7).await, Ok(1));
    assert_eq!(cart.add(8).within(SOON).await, Ok(2));
    cart.clear().unwrap();
    assert_eq!(cart.add(9).await, Ok(1));
    assert_eq!(cart.rename("mine".into(), None).await, Ok(Ok(())));
    let refused = cart.rename(String::new(), Some("a whim".into())).await;
    assert_eq!(refused, Ok(Err("no name".into())));
}

#[tokio::test(start_paused = true)]
async fn the_enum_underneath_is_the_same_protocol() {
    let system = system();
    let cart = system.spawn("cart", Cart::default()).unwrap();
    cart.tell(CartMsg::Touch { sku: 1 }).unwrap();
    let added = cart.ask(|reply_to| CartMsg::Add { sku: 1, reply_to });
    assert_eq!(added.await, Ok(1));
    cart.send(CartMsg::Clear).await.unwrap();
    assert_eq!(cart.add(2).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn hooks_stand_beside_the_methods() {
    let system = system();
    let log = Log::default();
    let cart = Cart {
        log: log.clone(),
        ..Cart::default()
    };
    let cart = system.spawn("cart", cart).unwrap();
    let seen = Log::default();
    let eye = system.spawn("eye", Eye(seen.clone())).unwrap();
    cart.follow(eye.clone()).unwrap();
    cart.touch(3).unwrap();
    cart.add(3).await.unwrap();
    eye.stop_after_queued();
    let ended = tokio::sync::Notify::new();
    let ended = std::sync::Arc::new(ended);
    let told = ended.clone();
    let _watching = cart.on_terminated(move |_| told.notify_one());
    cart.add(4).await.unwrap();
    cart.stop();
    ended.notified().await;
    assert_eq!(seen.take(), ["seen 3"]);
    assert_eq!(log.take(), ["started", "a follower ended", "stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_method_that_fails_is_a_failure_of_the_actor() {
    let system = system();
    let log = Log::default();
    let in_factory = log.clone();
    let props = Props::new(move || Cart {
        log: in_factory.clone(),
        ..Cart::default()
    })
    .on_failure(Supervision::Restart {
        limit: 3,
        within: SOON,
    });
    let cart = system.spawn_with("cart", props).unwrap();
    assert_eq!(cart.add(1).await, Ok(1));
    let path = cart.path().clone();
    let answer = cart.add(0).await.unwrap_err();
    assert!(matches!(answer, AskError::NoReply { path: asked, .. } if asked == path));
    // A new instance: its cart is empty.
    assert_eq!(cart.add(1).await, Ok(1));
    assert_eq!(log.take(), ["started", "started"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_of_a_method_gives_the_message_back() {
    let system = system();
    let one = NonZeroUsize::new(1).unwrap();
    let props = Props::once(Cart::default()).mailbox_capacity(one);
    let cart = system.spawn_with("cart", props).unwrap();
    cart.touch(1).unwrap();
    let Err(TellError::Full(CartMsg::Touch { sku })) = cart.touch(2) else {
        panic!("the mailbox has room for one message");
    };
    assert_eq!(sku, 2);
}

#[test]
fn a_protocol_describes_its_methods_in_the_order_of_the_wire() {
    let expected = [
        Method::new("add", 1, true, "(u64)->usize"),
        Method::new("clear", 1, false, "()"),
        Method::new("touch", 1, false, "(u64)"),
        Method::new("observe", 2, false, "(ActorRef<SeenMsg>)"),
        Method::new(
            "rename",
            3,
            true,
            "(String,Option<String>)->Result<(),String>",
        ),
    ];
    assert_eq!(CartMsg::METHODS, expected);
    assert_eq!((CartMsg::ID, CartMsg::VERSION), ("shop.cart", 3));
    assert_eq!(
        CartMsg::FINGERPRINT,
        fingerprint("shop.cart", &expected[..3], 1)
    );
    assert_eq!((SeenMsg::ID, SeenMsg::VERSION), ("SeenApi", 1));
    assert_eq!(CartMsg::Touch { sku: 1 }.method().name, "touch");
    assert_eq!(CartMsg::Clear.method(), &expected[1]);
}

/// The same protocol at an earlier time, with its methods in another order.
mod before {
    #[otava_actor::protocol(id = "shop.cart")]
    pub(super) trait CartApi {
        async fn clear(&mut self);
        async fn add(&mut self, item: u64) -> usize;
        #[name = "touch"]
        async fn look_at(&mut self, sku: u64);
    }
}

#[test]
fn order_and_names_in_the_source_and_new_methods_keep_the_fingerprint() {
    assert_eq!(before::CartMsg::FINGERPRINT, CartMsg::FINGERPRINT);
    let newer = fingerprint(CartMsg::ID, CartMsg::METHODS, 2);
    assert_ne!(newer, CartMsg::FINGERPRINT);
}

/// One actor behind two protocols: messages of its own, made of both.
struct Both(u64);

enum BothMsg {
    Seen(SeenMsg),
    Total(TotalMsg),
}

#[otava_actor::protocol(message = TotalMsg, client = Total, derive(Debug))]
trait SumProtocol {
    async fn total(&mut self) -> u64;
    /// Answered later, or by somebody else.
    async fn total_later(&mut self, reply_to: ReplyTo<u64>);
}

#[derive(Debug)]
struct TooMuch;

#[derive(Debug)]
struct BothError(#[allow(dead_code, reason = "printed by Debug")] &'static str);

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too much")
    }
}

impl std::fmt::Display for BothError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl From<TooMuch> for BothError {
    fn from(_: TooMuch) -> Self {
        Self("too much")
    }
}

impl From<Infallible> for BothError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Actor for Both {
    type Msg = BothMsg;
    type Err = BothError;

    async fn handle(&mut self, msg: BothMsg, ctx: &mut Context<Self>) -> Result<(), BothError> {
        match msg {
            BothMsg::Seen(msg) => msg.dispatch(self, ctx).await,
            BothMsg::Total(msg) => msg.dispatch(self, ctx).await,
        }
    }
}

impl SeenApi for Both {
    type Err = TooMuch;

    async fn seen(&mut self, sku: u64, _: &mut Context<Self>) -> Result<(), TooMuch> {
        self.0 = self.0.checked_add(sku).ok_or(TooMuch)?;
        Ok(())
    }
}

impl SumProtocol for Both {
    type Err = Infallible;

    async fn total(&mut self, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0)
    }

    async fn total_later(
        &mut self,
        reply_to: ReplyTo<u64>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        ctx.pipe_to_self(async {}, |()| BothMsg::Total(TotalMsg::Total { reply_to }));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_by_hand_serves_two_protocols() {
    let system = system();
    let both = system.spawn("both", Both(0)).unwrap();
    both.tell(BothMsg::Seen(SeenMsg::Seen { sku: 5 })).unwrap();
    let total = both.ask(|reply_to| BothMsg::Total(TotalMsg::Total { reply_to }));
    assert_eq!(total.await, Ok(5));
    let later = both.ask(|reply_to| BothMsg::Total(TotalMsg::TotalLater { reply_to }));
    assert_eq!(later.await, Ok(5));
    both.tell(BothMsg::Seen(SeenMsg::Seen { sku: u64::MAX }))
        .unwrap();
    let total = both.ask(|reply_to| BothMsg::Total(TotalMsg::Total { reply_to }));
    let path = both.path().clone();
    let answer = total.await.unwrap_err();
    assert!(matches!(answer, AskError::NoReply { path: asked, .. } if asked == path));
}

#[test]
fn messages_derive_what_was_asked_for() {
    let (reply_to, _reply) = ReplyTo::channel(None);
    let message = TotalMsg::Total { reply_to };
    assert_eq!(format!("{message:?}"), "Total { reply_to: ReplyTo(..) }");
}

/// A protocol with a type parameter, and an actor that has one too.
#[otava_actor::protocol]
trait StoreApi<T> {
    async fn put(&mut self, key: u64, value: T);
    async fn take(&mut self, key: u64) -> Option<T>;
}

struct Store<T>(Vec<(u64, T)>);

#[otava_actor::actor]
impl<T: Send + 'static> StoreApi<T> for Store<T> {
    type Err = Infallible;

    async fn put(&mut self, key: u64, value: T, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0.push((key, value));
        Ok(())
    }

    async fn take(&mut self, key: u64, _: &mut Context<Self>) -> Result<Option<T>, Infallible> {
        let found = self.0.iter().position(|(known, _)| *known == key);
        Ok(found.map(|at| self.0.swap_remove(at).1))
    }
}

#[tokio::test(start_paused = true)]
async fn a_protocol_may_have_a_type_parameter() {
    let system = system();
    let store = system.spawn("store", Store(Vec::new())).unwrap();
    store.put(1, "one".to_owned()).unwrap();
    assert_eq!(store.take(1).await, Ok(Some("one".to_owned())));
    assert_eq!(store.take(1).await, Ok(None));
}

/// Code for every recipient of a protocol.
async fn add_twice(cart: &impl Recipient<CartMsg>, sku: u64) -> Result<usize, AskError> {
    cart.add(sku).await?;
    cart.add(sku).await
}

#[tokio::test(start_paused = true)]
async fn code_can_be_written_for_every_recipient() {
    let system = system();
    let cart = system.spawn("cart", Cart::default()).unwrap();
    assert_eq!(add_twice(&cart, 3).await, Ok(2));
}

/// Names that need care: a keyword, a context of the user's own, and a method that is the same word
/// as its parameter.
#[otava_actor::protocol]
trait OddApi {
    async fn r#move(&mut self, ctx: u64, r#type: u64) -> u64;
    async fn odd(&mut self, odd: u64) -> ();
}

struct Odd;

#[otava_actor::actor]
impl OddApi for Odd {
    type Err = Infallible;

    async fn r#move(
        &mut self,
        ctx: u64,
        r#type: u64,
        _: &mut Context<Self>,
    ) -> Result<u64, Infallible> {
        Ok(ctx + r#type)
    }

    async fn odd(&mut self, _: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn odd_names_work() {
    let system = system();
    let odd = system.spawn("odd", Odd).unwrap();
    assert_eq!(odd.r#move(1, 2).await, Ok(3));
    assert_eq!(odd.odd(1).await, Ok(()));
    let names: Vec<_> = OddMsg::METHODS.iter().map(|method| method.name).collect();
    assert_eq!(names, ["move", "odd"]);
}
