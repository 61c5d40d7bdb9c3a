//! Expand: what is generated from the trait: the trait of the server, the messages, the client.

use crate::args::Args;
use crate::model::{Method, Param, Protocol};
use crate::names;
use crate::roots::Roots;
use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, GenericArgument, GenericParam, ItemTrait, PathArguments, Type, parse_quote};

/// `#[protocol(args)] item`.
pub(crate) fn protocol(args: TokenStream, item: TokenStream, roots: &Roots) -> TokenStream {
    let parsed = Args::parse(args).and_then(|args| {
        let item = syn::parse2::<ItemTrait>(item)?;
        Protocol::new(args, item)
    });
    match parsed {
        Ok(protocol) => Expansion { protocol, roots }.all(),
        Err(error) => error.into_compile_error(),
    }
}

struct Expansion<'a> {
    protocol: Protocol,
    roots: &'a Roots,
}

impl Expansion<'_> {
    fn all(&self) -> TokenStream {
        let parts = [
            self.server(),
            self.messages(),
            self.description(),
            self.dispatch(),
            self.client(),
            self.remote().unwrap_or_default(),
        ];
        parts.into_iter().collect()
    }

    /// The trait that an actor implements. Every method asks for `Self: Actor`, so the trait itself
    /// can be named as `dyn Trait`: that is how `#[actor]` finds the messages that belong to it.
    fn server(&self) -> TokenStream {
        let Protocol {
            attrs,
            vis,
            trait_token,
            ident,
            generics,
            message,
            ..
        } = &self.protocol;
        let actor = &self.roots.actor;
        let (impl_generics, ty_generics, clause) = generics.split_for_impl();
        let methods = self.protocol.methods.iter().map(|method| {
            let Method {
                docs,
                attrs,
                fn_token,
                receiver,
                ident: name,
                params,
                ..
            } = method;
            let params = params
                .iter()
                .map(|Param { ident, ty, .. }| quote!(#ident: #ty));
            // An actor goes on handling what nobody should send any more.
            let attrs = attrs.iter().filter(|attr| !is_deprecation(attr));
            let context = method.context();
            let answer = answer(method);
            // Errors about what an implementation returns belong to the method.
            let output = quote_spanned! {name.span()=>
                impl ::core::future::Future<
                    Output = ::core::result::Result<#answer, <Self as #ident #ty_generics>::Err>
                > + ::core::marker::Send
            };
            quote! {
                #(#docs)*
                #(#attrs)*
                #fn_token #name(
                    #receiver,
                    #(#params,)*
                    #context: &mut #actor::Context<Self>,
                ) -> #output
                where
                    Self: #actor::Actor;
            }
        });
        quote! {
            #(#attrs)*
            #[allow(
                clippy::too_many_arguments,
                reason = "a message has as many fields as it has, and the context comes on top"
            )]
            #vis #trait_token #ident #generics #clause {
                /// What a method may fail with: a failure, as of every handler. Whoever asked is told
                /// that no answer comes.
                type Err: ::core::fmt::Display + ::core::marker::Send + 'static
                where
                    Self: ::core::marker::Sized;

                #(#methods)*
            }

            #[automatically_derived]
            impl #impl_generics #actor::protocol::Served for dyn #ident #ty_generics #clause {
                type Msg = #message #ty_generics;
            }
        }
    }

    fn messages(&self) -> TokenStream {
        let Protocol {
            vis,
            ident,
            generics,
            message,
            args,
            ..
        } = &self.protocol;
        let clause = &generics.where_clause;
        let derives = (!args.derives.is_empty()).then(|| {
            let derives = &args.derives;
            quote!(#[derive(#(#derives),*)])
        });
        let docs = format!("The messages of [`{ident}`].");
        let variants = self.protocol.in_order().into_iter();
        let variants = variants.map(|method| self.variant(method));
        quote! {
            #[doc = #docs]
            #derives
            #[allow(dead_code, reason = "a program may use a part of a protocol only")]
            #vis enum #message #generics #clause {
                #(#variants,)*
            }
        }
    }

    fn variant(&self, method: &Method) -> TokenStream {
        let Method {
            docs,
            ident,
            variant,
            params,
            answer,
            ..
        } = method;
        let actor = &self.roots.actor;
        let of = &self.protocol.ident;
        let mut fields: Vec<_> = params
            .iter()
            .map(|Param { attrs, ident, ty }| {
                let docs = format!("The argument `{ident}`.");
                let attrs = attrs.iter().filter(|attr| !self.is_of_the_wire(attr));
                quote!(#[doc = #docs] #(#attrs)* #ident: #ty)
            })
            .collect();
        if let Some(answer) = answer {
            fields.push(quote! {
                /// Where the answer goes.
                reply_to: #actor::ReplyTo<#answer>
            });
        }
        let link = format!("Calls [`{of}::{ident}`].");
        let fields = (!fields.is_empty()).then(|| quote!({ #(#fields,)* }));
        quote! {
            #(#docs)*
            #[doc = ""]
            #[doc = #link]
            #variant #fields
        }
    }

    /// The same variant in the enum from which serde derives.
    fn wire_variant(&self, method: &Method) -> TokenStream {
        let Method {
            variant,
            params,
            name,
            answer,
            ..
        } = method;
        let actor = &self.roots.actor;
        let mut fields: Vec<_> = params
            .iter()
            .map(|Param { attrs, ident, ty }| {
                let mut own = attrs.iter().filter(|attr| self.is_of_the_wire(attr));
                let (first, rest) = (own.next(), own);
                let with = first.is_none().then(|| self.form_of(ty)).flatten();
                quote!(#first #(#rest)* #with #ident: #ty)
            })
            .collect();
        if let Some(answer) = answer {
            let with = self.form_of(&parse_quote!(ReplyTo<#answer>));
            fields.push(quote!(#with reply_to: #actor::ReplyTo<#answer>));
        }
        let fields = (!fields.is_empty()).then(|| quote!({ #(#fields,)* }));
        quote!(#[serde(rename = #name)] #variant #fields)
    }

    /// Whether an attribute of a parameter says how it stands on the wire.
    fn is_of_the_wire(&self, attr: &Attribute) -> bool {
        self.protocol.args.remote.is_some() && attr.path().is_ident("serde")
    }

    /// The attribute of a field of this type, if it holds references.
    fn form_of(&self, ty: &Type) -> Option<TokenStream> {
        let wire = format!("{}::wire", self.roots.remote).replace(' ', "");
        let with = match answer_of_port(ty) {
            Some(answer) if holds_reference(answer) => format!("{wire}::answer"),
            _ if holds_reference(ty) => wire,
            _ => return None,
        };
        Some(quote!(#[serde(with = #with)]))
    }

    fn description(&self) -> TokenStream {
        let Protocol {
            generics,
            message,
            id,
            version,
            ..
        } = &self.protocol;
        let actor = &self.roots.actor;
        let (impl_generics, ty_generics, clause) = generics.split_for_impl();
        let in_order = self.protocol.in_order();
        let methods = in_order.iter().map(|method| {
            let (name, since) = (&method.name, method.since);
            let (is_call, signature) = (method.answer.is_some(), signature(method));
            quote!(#actor::protocol::Method::new(#name, #since, #is_call, #signature))
        });
        let arms = in_order.iter().enumerate().map(|(index, method)| {
            let variant = &method.variant;
            quote!(Self::#variant { .. } => &Self::METHODS[#index])
        });
        quote! {
            #[automatically_derived]
            impl #impl_generics #actor::protocol::Protocol for #message #ty_generics #clause {
                const ID: &'static str = #id;
                const VERSION: u16 = #version;
                const METHODS: &'static [#actor::protocol::Method] = &[#(#methods),*];

                fn method(&self) -> &'static #actor::protocol::Method {
                    match self {
                        #(#arms,)*
                    }
                }
            }
        }
    }

    fn dispatch(&self) -> TokenStream {
        let Protocol {
            ident,
            generics,
            message,
            methods,
            ..
        } = &self.protocol;
        let actor = &self.roots.actor;
        let (impl_generics, ty_generics, clause) = generics.split_for_impl();
        let arms = methods.iter().map(|method| {
            let (name, variant) = (&method.ident, &method.variant);
            let fields: Vec<_> = method.params.iter().map(|param| &param.ident).collect();
            let call =
                quote!(<__A as #ident #ty_generics>::#name(__actor, #(#fields,)* __ctx).await?);
            match method.answer {
                None => quote!(Self::#variant { #(#fields,)* } => { #call; }),
                // Whether the asker still waits does not matter to the actor.
                Some(_) => quote! {
                    Self::#variant { #(#fields,)* reply_to: __reply_to } => {
                        let __answer = #call;
                        let _ = __reply_to.send(__answer);
                    }
                },
            }
        });
        quote! {
            impl #impl_generics #message #ty_generics #clause {
                /// Lets `actor` handle this message: calls the method that it stands for, and
                /// answers with what that returns.
                ///
                /// `#[actor]` does this. It is here for an actor with messages of its own, or of
                /// several protocols.
                ///
                /// # Errors
                /// What the method fails with. Then the reply port is dropped unanswered.
                ///
                /// # Cancel safety
                /// Dropping it leaves the actor in the middle of a handler.
                #[allow(dead_code, reason = "not every program has an actor by hand")]
                pub async fn dispatch<__A>(
                    self,
                    __actor: &mut __A,
                    __ctx: &mut #actor::Context<__A>,
                ) -> ::core::result::Result<(), <__A as #actor::Actor>::Err>
                where
                    __A: #ident #ty_generics + #actor::Actor,
                    <__A as #actor::Actor>::Err:
                        ::core::convert::From<<__A as #ident #ty_generics>::Err>,
                {
                    match self {
                        #(#arms)*
                    }
                    ::core::result::Result::Ok(())
                }
            }
        }
    }

    fn client(&self) -> TokenStream {
        let Protocol {
            vis,
            ident,
            generics,
            message,
            client,
            methods,
            ..
        } = &self.protocol;
        let actor = &self.roots.actor;
        let (_, ty_generics, clause) = generics.split_for_impl();
        let methods = methods.iter().map(|method| self.client_method(method));
        let docs = format!(
            "The methods of [`{ident}`] on everything that leads to an actor with this protocol."
        );
        let mut with_recipient = generics.clone();
        let recipient: GenericParam = parse_quote! {
            __R: #actor::protocol::Recipient<#message #ty_generics> + ?::core::marker::Sized
        };
        with_recipient.params.push(recipient);
        let (impl_generics, ..) = with_recipient.split_for_impl();
        let lints = quote! {
            #[allow(
                dead_code,
                clippy::result_large_err,
                clippy::too_many_arguments,
                reason = "a message comes back whole, and its method has all of its arguments"
            )]
        };
        quote! {
            #[doc = #docs]
            #lints
            #vis trait #client #generics:
                #actor::protocol::Recipient<#message #ty_generics> #clause
            {
                #(#methods)*
            }

            #[automatically_derived]
            impl #impl_generics #client #ty_generics for __R #clause {}
        }
    }

    fn client_method(&self, method: &Method) -> TokenStream {
        let Method {
            docs,
            ident,
            variant,
            params,
            ..
        } = method;
        let actor = &self.roots.actor;
        let (_, ty_generics, _) = self.protocol.generics.split_for_impl();
        let message = &self.protocol.message;
        let message = quote!(#message #ty_generics);
        let kept = method.attrs.iter().filter(|attr| is_deprecation(attr));
        let fields: Vec<_> = params.iter().map(|param| &param.ident).collect();
        let types = params.iter().map(|param| &param.ty);
        let name = &self.protocol.message;
        match &method.answer {
            None => quote! {
                #(#docs)*
                ///
                /// Does not wait. `Ok` means accepted, not handled.
                ///
                /// # Errors
                /// The message comes back if it is not accepted.
                #(#kept)*
                fn #ident(&self, #(#fields: #types),*)
                    -> ::core::result::Result<(), #actor::TellError<#message>>
                {
                    #actor::protocol::Recipient::tell(self, #name::#variant { #(#fields),* })
                }
            },
            Some(answer) => quote! {
                #(#docs)*
                ///
                /// The question is sent when this is awaited, and has a deadline.
                #(#kept)*
                #[must_use = "a question is sent when it is awaited"]
                fn #ident(&self, #(#fields: #types),*)
                    -> <Self as #actor::protocol::Recipient<#message>>::Ask<#answer>
                {
                    #actor::protocol::Recipient::ask(
                        self,
                        move |__reply_to| #name::#variant { #(#fields,)* reply_to: __reply_to },
                    )
                }
            },
        }
    }

    /// The traits of a message between nodes. serde derives them for an enum beside the messages, so
    /// that its derived code, which numbers variants by their place, is not called by mistake: on the
    /// wire each method has its tag, which does not move.
    fn remote(&self) -> Option<TokenStream> {
        let word = self.protocol.args.remote.as_ref()?;
        let Roots {
            actor,
            remote,
            serde,
        } = self.roots;
        let Protocol { message, id, .. } = &self.protocol;
        let (of, path) = (message.to_string(), serde.to_string().replace(' ', ""));
        let in_order = self.protocol.in_order().into_iter();
        let variants = in_order.map(|method| self.wire_variant(method));
        // Errors about a type that has no form on the wire belong to the type.
        let form = quote! {
            #[derive(#serde::Deserialize, #serde::Serialize)]
            #[serde(crate = #path, remote = #of)]
            #[allow(dead_code, reason = "only what is derived for it is used")]
            enum __Wire {
                #(#variants,)*
            }
        };
        let span = syn::spanned::Spanned::span(word);
        let described = quote!(<#message as #actor::protocol::Protocol>);
        Some(quote_spanned! {span=>
            const _: () = {
                ::core::assert!(
                    #actor::protocol::tags_differ(#described::METHODS),
                    "two methods have one tag on the wire: give one another `#[name = \"..\"]`",
                );

                #form

                #[automatically_derived]
                impl #serde::Serialize for #message {
                    fn serialize<__S: #serde::Serializer>(
                        &self,
                        __serializer: __S,
                    ) -> ::core::result::Result<__S::Ok, __S::Error> {
                        let __methods = #described::METHODS;
                        let __tagged = #remote::protocol::Tagged::new(__serializer, __methods);
                        __Wire::serialize(self, __tagged)
                    }
                }

                #[automatically_derived]
                impl<'de> #serde::Deserialize<'de> for #message {
                    fn deserialize<__D: #serde::Deserializer<'de>>(
                        __deserializer: __D,
                    ) -> ::core::result::Result<Self, __D::Error> {
                        let __methods = #described::METHODS;
                        let __tagged = #remote::protocol::Tagged::new(__deserializer, __methods);
                        __Wire::deserialize(__tagged)
                    }
                }

                #[automatically_derived]
                impl #remote::RemoteMessage for #message {
                    const NAME: &'static str = #id;
                    const VERSION: u16 = #actor::protocol::layout_version(#described::FINGERPRINT);
                    const LAYOUT: u64 = #described::FINGERPRINT;
                }
            };
        })
    }
}

fn is_deprecation(attr: &Attribute) -> bool {
    attr.path().is_ident("deprecated")
}

fn answer(method: &Method) -> TokenStream {
    method
        .answer
        .as_ref()
        .map_or_else(|| quote!(()), Type::to_token_stream)
}

/// `(u64,String)->usize`, or without an arrow for a one-way method.
fn signature(method: &Method) -> String {
    let text = |ty: &Type| names::type_text(ty.to_token_stream());
    let params: Vec<_> = method.params.iter().map(|param| text(&param.ty)).collect();
    let answer = method.answer.as_ref().map(|ty| format!("->{}", text(ty)));
    format!("({}){}", params.join(","), answer.unwrap_or_default())
}

/// `T` of a `ReplyTo<T>`, by name.
fn answer_of_port(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else {
        return None;
    };
    let last = path.path.segments.last()?;
    match &last.arguments {
        PathArguments::AngleBracketed(inside) if last.ident == "ReplyTo" => {
            match inside.args.first()? {
                GenericArgument::Type(answer) => Some(answer),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether a field of this type needs the wire form of references: `ActorRef`, `ReplyTo`, and the
/// collections in which `wire` knows them, by name.
fn holds_reference(ty: &Type) -> bool {
    let path = match ty {
        Type::Path(path) => path,
        Type::Array(array) => return holds_reference(&array.elem),
        Type::Tuple(tuple) => return tuple.elems.iter().any(holds_reference),
        Type::Paren(inside) => return holds_reference(&inside.elem),
        Type::Group(inside) => return holds_reference(&inside.elem),
        _ => return false,
    };
    let Some(last) = path.path.segments.last() else {
        return false;
    };
    let name = last.ident.to_string();
    match &last.arguments {
        _ if name == "ActorRef" || name == "ReplyTo" => true,
        PathArguments::AngleBracketed(inside) if COLLECTIONS.contains(&name.as_str()) => {
            inside.args.iter().any(|arg| match arg {
                GenericArgument::Type(ty) => holds_reference(ty),
                _ => false,
            })
        }
        _ => false,
    }
}

const COLLECTIONS: [&str; 8] = [
    "BTreeMap", "BTreeSet", "HashMap", "HashSet", "Option", "Result", "Vec", "VecDeque",
];
