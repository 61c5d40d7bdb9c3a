//! Protocol: what a set of messages is called between programs, and what it can be sent to.
//!
//! [`crate::protocol`](macro@crate::protocol), the attribute, writes all of this for a trait. It can
//! be written by hand for an enum too: both layers have one representation, the enum.

use crate::actor_ref::ActorRef;
use crate::ask::{Ask, ReplyTo};
use crate::error::{AskError, TellError};
use std::future::IntoFuture;

/// Messages with a stable description: names and versions that outlive a rename in the source.
///
/// # Examples
/// By hand; [`crate::protocol`](macro@crate::protocol) does this for a trait.
/// ```
/// use otava_actor::protocol::{Method, Protocol};
///
/// enum Lamp {
///     Switch { on: bool },
/// }
///
/// impl Protocol for Lamp {
///     const ID: &'static str = "home.lamp";
///     const VERSION: u16 = 1;
///     const METHODS: &'static [Method] = &[Method::new("switch", 1, false, "(bool)")];
///
///     fn method(&self) -> &'static Method {
///         match self {
///             Self::Switch { .. } => &Self::METHODS[0],
///         }
///     }
/// }
///
/// assert_eq!(Lamp::Switch { on: true }.method().name, "switch");
/// ```
pub trait Protocol: Send + 'static {
    /// The name of the protocol between programs.
    const ID: &'static str;

    /// The newest version that is described here. A new method raises it.
    const VERSION: u16;

    /// The methods: by the version that brought them, then by name. Between nodes, where an enum is
    /// written by these, its variants stand in the same order.
    const METHODS: &'static [Method];

    /// The fingerprint of the first version: programs with the same one understand each other in all
    /// that the first version had. See [`fingerprint`].
    const FINGERPRINT: u64 = fingerprint(Self::ID, Self::METHODS, 1);

    /// The method that this message calls.
    fn method(&self) -> &'static Method;
}

/// A method of a [`Protocol`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Method {
    /// Its name between programs.
    pub name: &'static str,
    /// The version of the protocol that brought it, from 1.
    pub since: u16,
    /// Whether it is answered.
    pub is_call: bool,
    /// The text of its types without spaces, `(u64,String)->usize`.
    pub signature: &'static str,
    /// What stands for it between nodes, wherever it stands in the trait: see [`Method::new`].
    pub tag: u32,
}

impl Method {
    /// The description of a method.
    ///
    /// Its tag is a contract as [`fingerprint`] is: 64-bit FNV-1a over the name, `ff`, `01` for a call
    /// or `00`, and the signature, the upper half folded onto the lower. So a method with another
    /// type has another tag, and is unknown to those who have the first one.
    #[must_use]
    pub const fn new(
        name: &'static str,
        since: u16,
        is_call: bool,
        signature: &'static str,
    ) -> Self {
        let hash = fnv(FNV_OFFSET, name.as_bytes());
        let hash = fnv(hash, &[END, is_call as u8]);
        let hash = fnv(hash, signature.as_bytes());
        Self {
            name,
            since,
            is_call,
            signature,
            tag: (hash ^ (hash >> 32)) as u32,
        }
    }
}

/// Whether no two of the methods have one tag. Then one of them needs another name.
#[doc(hidden)]
#[must_use]
pub const fn tags_differ(methods: &[Method]) -> bool {
    let mut index = 0;
    while index < methods.len() {
        let mut before = 0;
        while before < index {
            if methods[before].tag == methods[index].tag {
                return false;
            }
            before += 1;
        }
        index += 1;
    }
    true
}

/// The fingerprint of a protocol as it was in `version`: 64-bit FNV-1a over its id and, in the order
/// of `methods`, those that the version has. Two programs agree on what both of them know if their
/// fingerprints of the lower of their versions are equal.
///
/// It is a contract: the same for every compiler and machine. It covers names and the text of types,
/// so it changes if a method is removed, renamed on the wire, or takes or returns another type; a new
/// method with a later `since` leaves it alone. It does not look into the types: what they are made
/// of can change under it, and a type that is written in another way counts as another type.
///
/// The bytes are the id and `ff`; then for each method its name, `ff`, `since` in two bytes (little
/// end first), `01` for a call or `00`, its signature, and `ff`.
#[must_use]
pub const fn fingerprint(id: &str, methods: &[Method], version: u16) -> u64 {
    let mut hash = fnv(FNV_OFFSET, id.as_bytes());
    hash = fnv(hash, &[END]);
    let mut index = 0;
    while index < methods.len() {
        let method = &methods[index];
        if method.since <= version {
            hash = fnv(hash, method.name.as_bytes());
            hash = fnv(hash, &[END]);
            hash = fnv(hash, &method.since.to_le_bytes());
            hash = fnv(hash, &[method.is_call as u8]);
            hash = fnv(hash, method.signature.as_bytes());
            hash = fnv(hash, &[END]);
        }
        index += 1;
    }
    hash
}

/// A byte that text never holds.
const END: u8 = 0xff;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(FNV_PRIME);
        index += 1;
    }
    hash
}

/// A fingerprint folded to the size of a layout's version, for names that hold one. What decides is
/// the whole fingerprint.
#[doc(hidden)]
#[must_use]
pub const fn layout_version(fingerprint: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = fingerprint.to_le_bytes();
    u16::from_le_bytes([a ^ c ^ e ^ g, b ^ d ^ f ^ h])
}

/// What leads to an actor that understands `M`: a reference, on this node or another, or the id of an
/// entity. Everything that implements it has the methods of the protocol with the messages `M`.
///
/// # Delivery
/// At most once, as for [`ActorRef`].
///
/// # Examples
/// ```
/// use otava_actor::AskError;
/// use otava_actor::protocol::Recipient;
///
/// #[otava_actor::protocol]
/// pub trait LampApi {
///     async fn switch(&mut self, on: bool);
///     async fn is_on(&mut self) -> bool;
/// }
///
/// /// For a lamp anywhere.
/// async fn toggle(lamp: &impl Recipient<LampMsg>) -> Result<(), AskError> {
///     let on = !lamp.is_on().await?;
///     // A lamp that takes nothing now stays as it is.
///     let _ = lamp.switch(on);
///     Ok(())
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not lead to an actor that understands `{M}`",
    label = "no reference to an actor with this protocol"
)]
pub trait Recipient<M: Send + 'static> {
    /// A question under way to this kind of recipient.
    type Ask<R: Send + 'static>: IntoFuture<Output = Result<R, AskError>>;

    /// Queues `message` without waiting, as [`ActorRef::tell`].
    ///
    /// # Errors
    /// The message comes back if it is not accepted.
    fn tell(&self, message: M) -> Result<(), TellError<M>>;

    /// Asks a question, as [`ActorRef::ask`].
    fn ask<R: Send + 'static>(&self, question: impl FnOnce(ReplyTo<R>) -> M) -> Self::Ask<R>;
}

impl<M: Send + 'static> Recipient<M> for ActorRef<M> {
    type Ask<R: Send + 'static> = Ask<M, R>;

    fn tell(&self, message: M) -> Result<(), TellError<M>> {
        Self::tell(self, message)
    }

    fn ask<R: Send + 'static>(&self, question: impl FnOnce(ReplyTo<R>) -> M) -> Ask<M, R> {
        Self::ask(self, question)
    }
}

/// The messages that belong to the trait of a protocol, for `#[actor]`: implemented for `dyn Trait`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no protocol",
    label = "this trait has no `#[protocol]`"
)]
pub trait Served {
    /// The enum.
    type Msg: Send + 'static;
}

#[cfg(test)]
mod tests {
    use super::{Method, fingerprint, layout_version};

    const ADD: Method = Method::new("add", 1, true, "(u64)->usize");
    const TOUCH: Method = Method::new("touch", 1, false, "(u64)");
    const WATCH: Method = Method::new("watch", 2, false, "(ActorRef<Tick>)");

    #[test]
    fn an_empty_protocol_has_the_hash_of_its_id() {
        // FNV-1a of the published vector "a", then of ff.
        let published = 0xaf63_dc4c_8601_ec8c_u64;
        let expected = (published ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
        assert_eq!(fingerprint("a", &[], 1), expected);
    }

    #[test]
    fn the_fingerprint_is_what_it_was() {
        let methods = [ADD, TOUCH, WATCH];
        assert_eq!(fingerprint("shop.cart", &methods, 1), 0x0fef_895c_a7b2_28e2);
        assert_eq!(fingerprint("shop.cart", &methods, 2), 0x07d5_d67f_8ff3_5c9f);
        assert_eq!(layout_version(0x1122_3344_5566_7788), 0x0088);
    }

    /// Computed elsewhere; they never change.
    #[test]
    fn tags_are_what_they_were() {
        assert_eq!((ADD.tag, TOUCH.tag), (0xc044_cb07, 0xfb10_7f5f));
        // Where a method comes from does not count, what it takes does.
        assert_eq!(Method::new("add", 9, true, ADD.signature).tag, ADD.tag);
        assert_ne!(Method::new("add", 1, true, "(u32)->usize").tag, ADD.tag);
        assert_ne!(Method::new("add", 1, false, ADD.signature).tag, ADD.tag);
        assert!(super::tags_differ(&[ADD, TOUCH, WATCH]));
        assert!(!super::tags_differ(&[ADD, TOUCH, ADD]));
    }

    #[test]
    fn a_later_method_leaves_earlier_fingerprints_alone() {
        let (old, new) = ([ADD, TOUCH], [ADD, TOUCH, WATCH]);
        assert_eq!(fingerprint("c", &old, 1), fingerprint("c", &new, 1));
        assert_ne!(fingerprint("c", &old, 2), fingerprint("c", &new, 2));
    }

    #[test]
    fn every_part_of_a_description_counts() {
        let of = |method: Method| fingerprint("c", &[method], 1);
        assert_ne!(of(ADD), fingerprint("d", &[ADD], 1));
        assert_ne!(of(ADD), of(Method { name: "sum", ..ADD }));
        assert_ne!(
            of(ADD),
            of(Method {
                is_call: false,
                ..ADD
            })
        );
        let signature = "(u32)->usize";
        assert_ne!(of(ADD), of(Method { signature, ..ADD }));
        // What belongs to one part does not count as the next one's.
        let (name, signature) = ("ad", "d(u64)->usize");
        assert_ne!(
            of(ADD),
            of(Method {
                name,
                signature,
                ..ADD
            })
        );
    }
}
