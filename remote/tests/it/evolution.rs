//! Proves: programs of neighbouring versions of a protocol talk where they agree, and refuse the rest.

use crate::cuts::{Node, SOON, pair};
use otava_actor::protocol::Protocol;
use otava_actor::testkit::LogSpy;
use otava_actor::{ActorRef, AskError, Context};
use otava_remote::{DecodeError, RemoteMessage, VirtualWorld, decode, encode};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};
use std::convert::Infallible;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

/// The first version.
mod old {
    #[otava_actor::protocol(id = "test.stock", remote, derive(Debug))]
    pub(super) trait StockApi {
        async fn put(&mut self, item: String, many: u32);
        async fn count(&mut self, item: String) -> u32;
    }
}

/// Two versions later: methods that came between the others by name, one that is renamed in the
/// source, parameters with other names.
mod new {
    use super::old;
    use otava_actor::ActorRef;

    #[otava_actor::protocol(id = "test.stock", version = 3, remote)]
    pub(super) trait StockApi {
        /// In order of names it stands first.
        #[since(2)]
        async fn audit(&mut self) -> Vec<(String, u32)>;
        #[since(3)]
        async fn clear(&mut self);
        #[name = "count"]
        async fn how_many(&mut self, sku: String) -> u32;
        /// A reference to an actor that may be of the older version.
        #[since(3)]
        async fn other(&mut self) -> Option<ActorRef<old::StockMsg>>;
        async fn put(&mut self, item: String, many: u32);
    }
}

/// A version of somebody who came to other types for a later method.
mod fork {
    #[otava_actor::protocol(id = "test.stock", version = 2, remote)]
    pub(super) trait StockApi {
        async fn put(&mut self, item: String, many: u32);
        async fn count(&mut self, item: String) -> u32;
        #[since(2)]
        async fn audit(&mut self) -> Vec<String>;
    }
}

/// Another layout: the first version has other types.
mod broken {
    #[otava_actor::protocol(id = "test.stock", version = 3, remote)]
    pub(super) trait StockApi {
        async fn put(&mut self, item: String, many: u64);
        async fn count(&mut self, item: String) -> u32;
    }
}

#[derive(Default)]
struct OldStock(Vec<(String, u32)>);

impl OldStock {
    fn count(&self, item: &str) -> u32 {
        let of_it = self.0.iter().filter(|(known, _)| known == item);
        of_it.map(|(_, many)| many).sum()
    }
}

#[otava_actor::actor]
impl old::StockApi for OldStock {
    type Err = Infallible;

    async fn put(
        &mut self,
        item: String,
        many: u32,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.0.push((item, many));
        Ok(())
    }

    async fn count(&mut self, item: String, _: &mut Context<Self>) -> Result<u32, Infallible> {
        Ok(Self::count(self, &item))
    }
}

#[derive(Default)]
struct NewStock(OldStock, Option<ActorRef<old::StockMsg>>);

#[otava_actor::actor]
impl new::StockApi for NewStock {
    type Err = Infallible;

    async fn audit(&mut self, _: &mut Context<Self>) -> Result<Vec<(String, u32)>, Infallible> {
        Ok(self.0.0.clone())
    }

    async fn clear(&mut self, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0.0.clear();
        Ok(())
    }

    async fn how_many(&mut self, sku: String, _: &mut Context<Self>) -> Result<u32, Infallible> {
        Ok(self.0.count(&sku))
    }

    async fn other(
        &mut self,
        _: &mut Context<Self>,
    ) -> Result<Option<ActorRef<old::StockMsg>>, Infallible> {
        Ok(self.1.clone())
    }

    async fn put(
        &mut self,
        item: String,
        many: u32,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.0.0.push((item, many));
        Ok(())
    }
}

/// Publishes an actor of B, and shows it to A with the messages of another version.
fn shown<M: RemoteMessage, S: RemoteMessage>(
    a: &Node,
    b: &Node,
    stock: &ActorRef<M>,
) -> ActorRef<S> {
    b.remote.publish("stock", stock).unwrap();
    a.remote.resolve(b.remote.id(), "stock")
}

/// R10: an old program asks a new one.
#[tokio::test(start_paused = true)]
async fn an_old_program_is_understood_by_a_new_one() {
    use old::StockClient as _;
    let world = VirtualWorld::new(31);
    let (a, b) = pair(&world);
    let stock = b.system.spawn("stock", NewStock::default()).unwrap();
    let seen = shown::<new::StockMsg, old::StockMsg>(&a, &b, &stock);
    seen.put("nail".into(), 100).unwrap();
    seen.put("nail".into(), 5).unwrap();
    assert_eq!(seen.count("nail".into()).within(SOON).await, Ok(105));
    assert_eq!(b.remote.stats().not_understood, 0);
}

/// R10: a new program asks an old one; what that does not know is an error of the ask, at once, and
/// a line in its log for what is told.
#[tokio::test(start_paused = true)]
async fn a_new_program_learns_what_an_old_one_does_not_know() {
    use new::StockClient as _;
    let spy = LogSpy::new();
    let world = VirtualWorld::new(32);
    let (a, b) = pair(&world);
    let stock = b.system.spawn("stock", OldStock::default()).unwrap();
    let seen = shown::<old::StockMsg, new::StockMsg>(&a, &b, &stock);
    seen.put("nail".into(), 7).unwrap();
    let asked = seen.audit().within(HOUR).await;
    let path = seen.path().clone();
    assert_eq!(asked, Err(AskError::NotUnderstood { path }));
    for _ in 0..100 {
        seen.clear().unwrap();
    }
    // Nothing was misread, and the connection is the one it was.
    assert_eq!(seen.how_many("nail".into()).within(SOON).await, Ok(7));
    let stats = b.remote.stats();
    assert_eq!((stats.not_understood, stats.undelivered), (101, 101));
    assert_eq!((stats.peer_faults, a.remote.stats().open_ports), (0, 0));
    let lines = spy.events().into_iter();
    let lines = lines.filter(|event| event.message.contains("not understood"));
    assert_eq!(lines.count(), 2);
}

/// A later method with other types is another method, and an answer of it would not be read either.
#[tokio::test(start_paused = true)]
async fn a_later_method_with_other_types_is_not_understood() {
    let world = VirtualWorld::new(33);
    let (a, b) = pair(&world);
    let stock = b.system.spawn("stock", NewStock::default()).unwrap();
    let seen = shown::<new::StockMsg, fork::StockMsg>(&a, &b, &stock);
    fork::StockClient::put(&seen, "nail".into(), 7).unwrap();
    assert_eq!(fork::StockClient::count(&seen, "nail".into()).await, Ok(7));
    let asked = fork::StockClient::audit(&seen).within(HOUR).await;
    assert!(
        matches!(asked, Err(AskError::NotUnderstood { .. })),
        "{asked:?}"
    );
}

/// Another layout of the first version is refused as a whole, while other protocols of the node work.
#[tokio::test(start_paused = true)]
async fn another_layout_is_refused_for_its_protocol_only() {
    use old::StockClient as _;
    let world = VirtualWorld::new(34);
    let (a, b) = pair(&world);
    let stock = b.system.spawn("stock", OldStock::default()).unwrap();
    let seen = shown::<old::StockMsg, broken::StockMsg>(&a, &b, &stock);
    broken::StockClient::put(&seen, "nail".into(), 7).unwrap();
    let asked = broken::StockClient::count(&seen, "nail".into())
        .within(HOUR)
        .await;
    assert!(
        matches!(asked, Err(AskError::NotUnderstood { .. })),
        "{asked:?}"
    );
    assert_eq!(b.remote.stats().not_understood, 2);
    let right = a.remote.resolve::<old::StockMsg>(b.remote.id(), "stock");
    assert_eq!(right.count("nail".into()).within(SOON).await, Ok(0));
}

/// References to actors of either version travel in messages of either version.
#[tokio::test(start_paused = true)]
async fn an_answer_may_be_a_reference_of_another_version() {
    use new::StockClient as _;
    use old::StockClient as _;
    let world = VirtualWorld::new(35);
    let (a, b) = pair(&world);
    let older = b.system.spawn("older", OldStock::default()).unwrap();
    let stock = NewStock(OldStock::default(), Some(older.clone()));
    let stock = b.system.spawn("stock", stock).unwrap();
    let seen = shown::<new::StockMsg, new::StockMsg>(&a, &b, &stock);
    let other = seen.other().within(SOON).await.unwrap().unwrap();
    old::StockClient::put(&other, "nut".into(), 3).unwrap();
    assert_eq!(older.count("nut".into()).await, Ok(0));
    assert_eq!(other.count("nut".into()).within(SOON).await, Ok(3));
}

/// In a format that writes names, a method has its own.
#[test]
fn a_method_is_its_name_in_a_format_of_names() {
    let of = |name: &'static str| {
        let name: StrDeserializer<'_, ValueError> = name.into_deserializer();
        new::StockMsg::deserialize(name)
    };
    assert!(matches!(of("clear"), Ok(new::StockMsg::Clear)));
    let refused = of("empty").err().unwrap().to_string();
    assert!(refused.contains("empty"), "{refused}");
}

/// The bytes of a message of a protocol: format, tag of the method, fields. They are a contract.
#[test]
fn a_method_is_its_tag_on_the_wire() {
    let put = old::StockMsg::Put {
        item: "nut".into(),
        many: 300,
    };
    let bytes = encode(&put).unwrap();
    let of_put = old::StockMsg::METHODS
        .iter()
        .find(|method| method.name == "put");
    let tag = of_put.unwrap().tag.to_le_bytes();
    let golden = [&[1, 252][..], &tag, b"\x03nut", &[251, 44, 1]].concat();
    assert_eq!(bytes, golden);
    for read in [decode::<old::StockMsg>(&bytes).unwrap(), put] {
        let old::StockMsg::Put { item, many } = read else {
            panic!("read as another method");
        };
        assert_eq!((&*item, many), ("nut", 300));
    }
    assert!(decode::<new::StockMsg>(&bytes).is_ok());
    // The number of a place, as derived code would write it.
    let refused = decode::<old::StockMsg>(&[1, 0]);
    let unknown = DecodeError::NotUnderstood {
        method: "00000000".into(),
    };
    assert_eq!(refused.unwrap_err(), unknown);
    assert_eq!(old::StockMsg::LAYOUT, new::StockMsg::LAYOUT);
    assert_eq!(old::StockMsg::LAYOUT, fork::StockMsg::LAYOUT);
    assert_ne!(old::StockMsg::LAYOUT, broken::StockMsg::LAYOUT);
}
