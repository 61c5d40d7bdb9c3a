//! Roots: the paths by which generated code reaches the library.

use proc_macro2::TokenStream;
use quote::quote;

/// Where the crates are, as seen from the crate that uses a macro. An attribute cannot know which
/// crate re-exported it, so each re-export is an entry point of its own with roots of its own.
pub(crate) struct Roots {
    pub(crate) actor: TokenStream,
    pub(crate) remote: TokenStream,
    pub(crate) serde: TokenStream,
}

impl Roots {
    /// For a crate that depends on `otava-actor`, and on `otava-remote` and `serde` if it says
    /// `remote`.
    pub(crate) fn of_actor_crate() -> Self {
        Self {
            actor: quote!(::otava_actor),
            remote: quote!(::otava_remote),
            serde: quote!(::serde),
        }
    }

    /// For a crate that depends on `otava` and nothing else.
    pub(crate) fn of_facade() -> Self {
        Self {
            actor: quote!(::otava::__private::actor),
            remote: quote!(::otava::__private::remote),
            serde: quote!(::otava::__private::serde),
        }
    }
}
