//! RemoteMessage: what may cross from one node to another.

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

    /// Whether messages of this protocol may be large: they have a lane of their own, beside which
    /// others are not held up, and the limit [`crate::RemoteConfig::large_bytes_max`]. One lane for
    /// all messages of a protocol, so that they keep their order.
    const LARGE: bool = false;
}
