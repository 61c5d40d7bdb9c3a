//! Macros: `#[protocol]` on a trait and `#[actor]` on its implementation.
//!
//! Use them through `otava_actor` or `otava`, which re-export them.
//!
//! # The map
//! | module | decides or owns |
//! | --- | --- |
//! | `args` | what stands in the parentheses of `#[protocol(..)]` |
//! | `model` | the trait as it was understood, and every reason to refuse it |
//! | `borrows` | which types a message may carry |
//! | `names` | names that are made, names that are taken, type text for the wire |
//! | `expand` | what is generated from the trait |
//! | `serve` | what is generated from an implementation |
//! | `roots` | the paths by which generated code reaches the library |

mod args;
mod borrows;
mod expand;
mod model;
mod names;
mod roots;
mod serve;

use crate::roots::Roots;
use proc_macro::TokenStream;

#[doc = include_str!("protocol.md")]
#[proc_macro_attribute]
pub fn protocol(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::protocol(args.into(), item.into(), &Roots::of_actor_crate()).into()
}

#[doc = include_str!("actor.md")]
#[proc_macro_attribute]
pub fn actor(args: TokenStream, item: TokenStream) -> TokenStream {
    serve::actor(args.into(), item.into(), &Roots::of_actor_crate()).into()
}

/// For those who depend on `otava` only: generated code names nothing else.
#[doc = ""]
#[doc = include_str!("protocol.md")]
#[proc_macro_attribute]
pub fn otava_protocol(args: TokenStream, item: TokenStream) -> TokenStream {
    expand::protocol(args.into(), item.into(), &Roots::of_facade()).into()
}

/// For those who depend on `otava` only: generated code names nothing else.
#[doc = ""]
#[doc = include_str!("actor.md")]
#[proc_macro_attribute]
pub fn otava_actor(args: TokenStream, item: TokenStream) -> TokenStream {
    serve::actor(args.into(), item.into(), &Roots::of_facade()).into()
}
