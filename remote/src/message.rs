//! RemoteMessage: what may cross from one node to another.

use crate::wire_format::type_tag;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message that can travel between nodes: it has a wire form, and a name by which both sides know
/// that they mean the same type.
///
/// Fields that hold an [`otava_actor::ActorRef`] or an [`otava_actor::ReplyTo`] carry
/// `#[serde(with = "otava_remote::wire")]` ([`crate::wire`]).
///
/// ```
/// use otava_actor::ReplyTo;
/// use otava_remote::RemoteMessage;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize, Serialize)]
/// enum Account {
///     Deposit(u64),
///     Balance(#[serde(with = "otava_remote::wire")] ReplyTo<u64>),
/// }
///
/// impl RemoteMessage for Account {
///     const NAME: &'static str = "bank.Account";
/// }
/// ```
///
/// # What the compiler refuses
/// A reference without the attribute:
/// ```compile_fail,E0277
/// # use otava_actor::ReplyTo;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Deserialize, Serialize)]
/// enum Account {
///     Balance(ReplyTo<u64>),
/// }
/// ```
///
/// A reference to an actor whose messages cannot cross:
/// ```compile_fail,E0277
/// # use otava_actor::ActorRef;
/// # use serde::{Deserialize, Serialize};
/// struct Local;
///
/// #[derive(Deserialize, Serialize)]
/// struct Account(#[serde(with = "otava_remote::wire")] ActorRef<Local>);
/// ```
///
/// A type of one's own beside references that does not say that it holds none
/// ([`Plain`](crate::wire::Plain)):
/// ```compile_fail,E0277
/// # use otava_actor::ActorRef;
/// # use otava_remote::RemoteMessage;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Deserialize, Serialize)]
/// # struct Line(String);
/// # impl RemoteMessage for Line { const NAME: &'static str = "chat.Line"; }
/// #[derive(Deserialize, Serialize)]
/// struct Seat(u32);
///
/// #[derive(Deserialize, Serialize)]
/// struct Room(#[serde(with = "otava_remote::wire")] Vec<(Seat, ActorRef<Line>)>);
/// ```
///
/// A protocol between nodes with an argument that has no serde form:
/// ```compile_fail,E0277
/// struct Opaque;
///
/// #[otava_actor::protocol(id = "chat.room", remote)]
/// trait RoomApi {
///     async fn join(&mut self, who: Opaque);
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross nodes: it is no `RemoteMessage`",
    note = "derive `Serialize` and `Deserialize` for it and give it a stable name: \
            `impl RemoteMessage for {Self} {{ const NAME: &'static str = \"..\"; }}`"
)]
pub trait RemoteMessage: Serialize + DeserializeOwned + Send + 'static {
    /// The name of the type on the wire. A contract: renaming the Rust type is free, changing this
    /// is not.
    const NAME: &'static str;

    /// The version of the layout. Peers that know another one refuse the message.
    const VERSION: u16 = 1;

    /// What both ends compare, in each message and for each reference inside of one: a hash of name
    /// and version ([`layout`]). For the messages of a protocol it is the fingerprint of its first
    /// version, so that later methods leave it as it is. A generic wrapper mixes that of its
    /// parameter in.
    const LAYOUT: u64 = layout(Self::NAME, Self::VERSION);

    /// The protocol whose rights decide who may send this ([`crate::Rights`]): its own, unless it
    /// only carries messages of another one.
    const RIGHTS: &'static str = Self::NAME;

    /// Whether messages of this protocol may be large: they have a lane of their own, beside which
    /// others are not held up, and the limit [`crate::RemoteConfig::large_bytes_max`]. One lane for
    /// all messages of a protocol, so that they keep their order.
    const LARGE: bool = false;

    /// Whether a client may send this very message, where it may reach the protocol at all.
    fn is_for_clients(&self) -> bool {
        true
    }
}

/// The layout of a type by its name and version: FNV-1a with 64 bits over the name and the two bytes
/// of the version, little endian. A contract of the wire: the same on every machine and for good.
#[must_use]
pub const fn layout(name: &str, version: u16) -> u64 {
    type_tag(name, version)
}
