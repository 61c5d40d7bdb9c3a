//! Serve: what is generated from an implementation of a protocol: the actor around it.

use crate::names;
use crate::roots::Roots;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Error, ImplItem, ItemImpl, Result};

/// `#[actor] item`.
pub(crate) fn actor(args: TokenStream, item: TokenStream, roots: &Roots) -> TokenStream {
    let expanded = match args.is_empty() {
        true => syn::parse2(item).and_then(|item| expand(item, roots)),
        false => Err(Error::new_spanned(args, "`actor` has no arguments")),
    };
    expanded.unwrap_or_else(Error::into_compile_error)
}

fn expand(mut item: ItemImpl, roots: &Roots) -> Result<TokenStream> {
    let Some((None, path, _)) = &item.trait_ else {
        let why = "this stands at the implementation of a protocol: `impl CartApi for Cart`";
        return Err(Error::new_spanned(&item.self_ty, why));
    };
    let path = path.clone();
    let is_hook = |item: &ImplItem| match item {
        ImplItem::Fn(function) => {
            let name = function.sig.ident.unraw().to_string();
            names::HOOKS.contains(&name.as_str())
        }
        _ => false,
    };
    let (hooks, methods): (Vec<_>, Vec<_>) = item.items.into_iter().partition(is_hook);
    item.items = methods;
    let actor = &roots.actor;
    let me = &item.self_ty;
    let (impl_generics, _, clause) = item.generics.split_for_impl();
    // Errors about the trait, for example that it is no protocol, belong to its name.
    let served = quote_spanned!(path.span()=> <dyn #path as #actor::protocol::Served>::Msg);
    Ok(quote! {
        #item

        #[automatically_derived]
        impl #impl_generics #actor::Actor for #me #clause {
            type Msg = #served;
            type Err = <#me as #path>::Err;

            #(#hooks)*

            fn handle(
                &mut self,
                msg: Self::Msg,
                ctx: &mut #actor::Context<Self>,
            ) -> impl ::core::future::Future<Output = ::core::result::Result<(), Self::Err>>
                   + ::core::marker::Send {
                msg.dispatch(self, ctx)
            }
        }
    })
}
