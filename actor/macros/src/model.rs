//! Model: the trait as it was understood, and every reason to refuse it.

use crate::args::{self, Args};
use crate::{borrows, names};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::format_ident;
use std::collections::BTreeMap;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, FnArg, GenericParam, Generics, Ident, ItemTrait, LitInt, Meta, Pat,
    PatType, Receiver, Result, ReturnType, Token, TraitItem, TraitItemFn, Type, Visibility,
};

/// A trait that describes a protocol.
pub(crate) struct Protocol {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) trait_token: Token![trait],
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) message: Ident,
    pub(crate) client: Ident,
    pub(crate) id: String,
    pub(crate) version: u16,
    pub(crate) args: Args,
    /// In the order of the source.
    pub(crate) methods: Vec<Method>,
}

/// One method, and the variant that it becomes.
pub(crate) struct Method {
    pub(crate) docs: Vec<Attribute>,
    /// All attributes that are neither docs nor ours.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) fn_token: Token![fn],
    pub(crate) receiver: Receiver,
    pub(crate) ident: Ident,
    pub(crate) variant: Ident,
    pub(crate) params: Vec<Param>,
    /// What a call is answered with; `None` for a one-way method.
    pub(crate) answer: Option<Type>,
    pub(crate) name: String,
    name_span: Span,
    pub(crate) since: u16,
}

pub(crate) struct Param {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
}

impl Protocol {
    pub(crate) fn new(args: Args, item: ItemTrait) -> Result<Self> {
        let mut complaints = Vec::new();
        check_trait(&item, &mut complaints);
        let version = version(&args, &mut complaints);
        let id = id(&args, &item.ident, &mut complaints);
        let generics = generics(item.generics, args.remote.is_some(), &mut complaints);
        let mut methods = Vec::new();
        for inside in item.items {
            match inside {
                TraitItem::Fn(function) => match Method::new(function, version) {
                    Ok(method) => methods.push(method),
                    Err(error) => complaints.push(error),
                },
                other => complaints.push(Error::new_spanned(
                    other,
                    "a protocol has methods only: whoever sends a message knows nothing else",
                )),
            }
        }
        check_duplicates(&methods, &mut complaints);
        if methods.is_empty() && complaints.is_empty() {
            let why = "a protocol has at least one method";
            complaints.push(Error::new_spanned(&item.ident, why));
        }
        settle(complaints)?;
        let stem = names::stem(&item.ident);
        let name = |given: &Option<Ident>, end: &str| {
            let made = || format_ident!("{stem}{end}", span = item.ident.span());
            given.clone().unwrap_or_else(made)
        };
        Ok(Self {
            attrs: item.attrs,
            vis: item.vis,
            trait_token: item.trait_token,
            message: name(&args.message, "Msg"),
            client: name(&args.client, "Client"),
            ident: item.ident,
            generics,
            id,
            version,
            args,
            methods,
        })
    }

    /// The methods as they are described: by the version that brought them, then by name, wherever
    /// they stand in the trait.
    pub(crate) fn in_order(&self) -> Vec<&Method> {
        let mut methods: Vec<_> = self.methods.iter().collect();
        methods.sort_by_key(|method| (method.since, &method.name));
        methods
    }
}

impl Method {
    fn new(function: TraitItemFn, version: u16) -> Result<Self> {
        let mut complaints = Vec::new();
        check_function(&function, &mut complaints);
        let TraitItemFn { attrs, sig, .. } = function;
        let (mut docs, mut others) = (Vec::new(), Vec::new());
        let mut name = (sig.ident.unraw().to_string(), sig.ident.span());
        let mut since = 1;
        for attr in attrs {
            let taken = if attr.path().is_ident("since") {
                parse_since(&attr, version).map(|given| since = given)
            } else if attr.path().is_ident("name") {
                parse_name(&attr).map(|given| name = given)
            } else if attr.path().is_ident("cfg") {
                let why = "a protocol is the same in every build: leave the condition out";
                Err(Error::new_spanned(attr, why))
            } else {
                let list = if attr.path().is_ident("doc") {
                    &mut docs
                } else {
                    &mut others
                };
                list.push(attr);
                Ok(())
            };
            complaints.extend(taken.err());
        }
        let answer = match sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => {
                borrows::check(&ty, &mut complaints);
                Some(*ty)
            }
        };
        let mut inputs = sig.inputs.into_iter();
        let receiver = receiver(inputs.next(), &sig.ident);
        let mut params = Vec::new();
        for input in inputs {
            if let FnArg::Typed(input) = input {
                match Param::new(input, answer.is_some()) {
                    Ok(param) => params.push(param),
                    Err(error) => complaints.push(error),
                }
            }
        }
        let receiver = match receiver {
            Ok(receiver) => receiver,
            Err(error) => {
                complaints.push(error);
                return Err(join(complaints));
            }
        };
        settle(complaints)?;
        let variant = format_ident!("{}", names::pascal(&sig.ident), span = sig.ident.span());
        Ok(Self {
            docs,
            attrs: others,
            fn_token: sig.fn_token,
            receiver,
            ident: sig.ident,
            variant,
            params,
            answer,
            name: name.0,
            name_span: name.1,
            since,
        })
    }

    /// A name for the context that is no parameter's.
    pub(crate) fn context(&self) -> Ident {
        let free = |name: &&str| self.params.iter().all(|param| param.ident != name);
        let name = ["ctx", "context"].into_iter().find(free);
        format_ident!("{}", name.unwrap_or("actor_context"))
    }
}

impl Param {
    fn new(input: PatType, of_call: bool) -> Result<Self> {
        let mut complaints = Vec::new();
        borrows::check(&input.ty, &mut complaints);
        let ident = match *input.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.mutability.is_none() => Some(pat.ident),
            pattern => {
                let why =
                    "a parameter is a plain name here: it is the name of a field of the message";
                complaints.push(Error::new_spanned(pattern, why));
                None
            }
        };
        if let Some(ident) = ident
            .as_ref()
            .filter(|ident| of_call && *ident == "reply_to")
        {
            let why = "`reply_to` is the field in which a call carries its reply port: choose another name";
            complaints.push(Error::new_spanned(ident, why));
        }
        let Some(ident) = ident else {
            return Err(join(complaints));
        };
        settle(complaints)?;
        Ok(Self {
            attrs: input.attrs,
            ident,
            ty: *input.ty,
        })
    }
}

fn check_trait(item: &ItemTrait, complaints: &mut Vec<Error>) {
    if let Some(token) = &item.unsafety {
        complaints.push(Error::new_spanned(token, "a protocol is not unsafe"));
    }
    if !item.supertraits.is_empty() {
        let why = "a protocol has no supertraits: it says what can be sent, not what the actor is";
        complaints.push(Error::new_spanned(&item.supertraits, why));
    }
    if let Some(clause) = &item.generics.where_clause
        && mentions_self(quote::quote!(#clause))
    {
        let why = "a protocol asks nothing of the actor: leave `Self` out";
        complaints.push(Error::new_spanned(clause, why));
    }
}

fn mentions_self(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions_self(group.stream()),
        TokenTree::Ident(ident) => ident == "Self",
        _ => false,
    })
}

fn check_function(function: &TraitItemFn, complaints: &mut Vec<Error>) {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        let why = "a message is handled asynchronously: write `async fn`";
        complaints.push(Error::new_spanned(sig.fn_token, why));
    }
    if let Some(body) = &function.default {
        let why = "a protocol only says what can be sent: what a method does is written where the trait is implemented";
        complaints.push(Error::new_spanned(body, why));
    }
    if !sig.generics.params.is_empty() {
        let why = "a method of a protocol has no parameters of its own: one enum has a variant for each method. \
                   A type parameter can stand at the trait";
        complaints.push(Error::new_spanned(&sig.generics, why));
    }
    if let Some(clause) = &sig.generics.where_clause {
        let why = "a method of a protocol asks nothing of the actor: leave the clause out";
        complaints.push(Error::new_spanned(clause, why));
    }
    for token in [
        sig.unsafety.as_ref().map(Spanned::span),
        sig.constness.as_ref().map(Spanned::span),
        sig.abi.as_ref().map(Spanned::span),
        sig.variadic.as_ref().map(Spanned::span),
    ] {
        let why = "a method of a protocol is a plain `async fn`";
        complaints.extend(token.map(|span| Error::new(span, why)));
    }
    let name = sig.ident.unraw().to_string();
    let owner = if names::OF_REFERENCES.contains(&name.as_str()) {
        "a method of every reference"
    } else if name == "handle" || names::HOOKS.contains(&name.as_str()) {
        "a method of every actor"
    } else {
        return;
    };
    let why = format!(
        "`{name}` is {owner}: choose another name (`#[name = \"{name}\"]` keeps the one on the wire)"
    );
    complaints.push(Error::new_spanned(&sig.ident, why));
}

fn receiver(input: Option<FnArg>, method: &Ident) -> Result<Receiver> {
    let why = "an actor handles a message with `&mut self`";
    match input {
        Some(FnArg::Receiver(receiver)) => {
            let plain = receiver
                .reference
                .as_ref()
                .is_some_and(|(_, lifetime)| lifetime.is_none());
            let is_right = plain && receiver.mutability.is_some() && receiver.colon_token.is_none();
            is_right
                .then(|| receiver.clone())
                .ok_or_else(|| Error::new_spanned(receiver, why))
        }
        Some(other) => Err(Error::new_spanned(other, why)),
        None => Err(Error::new_spanned(method, why)),
    }
}

fn version(args: &Args, complaints: &mut Vec<Error>) -> u16 {
    let Some(given) = &args.version else {
        return 1;
    };
    match given.base10_parse::<u16>() {
        Ok(version) if version > 0 => version,
        _ => {
            let why = "a version is a number from 1 to 65535";
            complaints.push(Error::new_spanned(given, why));
            // Then nothing is above it, and this is the only complaint.
            u16::MAX
        }
    }
}

fn id(args: &Args, ident: &Ident, complaints: &mut Vec<Error>) -> String {
    match (&args.id, &args.remote) {
        (Some(id), _) => {
            complaints.extend(check_wire_name(&id.value(), id.span()).err());
            id.value()
        }
        (None, Some(remote)) => {
            let why = "a protocol between nodes has a stable name: give it as `id = \"..\"`";
            complaints.push(Error::new_spanned(remote, why));
            String::new()
        }
        (None, None) => ident.unraw().to_string(),
    }
}

fn generics(mut generics: Generics, remote: bool, complaints: &mut Vec<Error>) -> Generics {
    for param in &mut generics.params {
        if let GenericParam::Lifetime(lifetime) = param {
            let why = "a message owns what it carries: a protocol has no lifetimes";
            complaints.push(Error::new_spanned(lifetime, why));
        } else if remote {
            let why = "a protocol between nodes has one wire form, and so no type parameters: leave `remote` out, or name the type";
            complaints.push(Error::new_spanned(param, why));
        } else if let GenericParam::Type(ty) = param {
            ty.bounds.push(syn::parse_quote!(::core::marker::Send));
            ty.bounds.push(syn::parse_quote!('static));
        }
    }
    generics
}

fn parse_since(attr: &Attribute, version: u16) -> Result<u16> {
    let given = attr.parse_args::<LitInt>().map_err(|_| {
        let why = "the version that brought this method is needed: `#[since(2)]`";
        Error::new_spanned(attr, why)
    })?;
    match given.base10_parse::<u16>() {
        Ok(since) if (1..=version).contains(&since) => Ok(since),
        Ok(since) if since > version => {
            let why = format!(
                "the protocol is of version {version}: a method of version {since} needs `version = {since}` there"
            );
            Err(Error::new_spanned(given, why))
        }
        _ => Err(Error::new_spanned(given, "versions begin with 1")),
    }
}

fn parse_name(attr: &Attribute) -> Result<(String, Span)> {
    let given: Option<&Expr> = match &attr.meta {
        Meta::NameValue(given) => Some(&given.value),
        _ => None,
    };
    let why = "a name on the wire is written `#[name = \"..\"]`";
    let name = args::string(given.ok_or_else(|| Error::new_spanned(attr, why))?)?;
    check_wire_name(&name.value(), name.span())?;
    Ok((name.value(), name.span()))
}

fn check_wire_name(name: &str, span: Span) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || "_-./".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        let why = "a name on the wire has letters, digits, `_`, `-`, `.` and `/`, and at least one of them";
        return Err(Error::new(span, why));
    }
    Ok(())
}

fn check_duplicates(methods: &[Method], complaints: &mut Vec<Error>) {
    let mut names = BTreeMap::new();
    let mut variants = BTreeMap::new();
    for method in methods {
        let first = names.insert(&method.name, method).is_some();
        if first {
            let why = format!("a method before has the name `{}` on the wire", method.name);
            complaints.push(Error::new(method.name_span, why));
        }
        if let Some(before) = variants.insert(method.variant.to_string(), method)
            && !first
        {
            let why = format!(
                "`{}` and `{}` are both the variant `{}`: rename one of them",
                before.ident, method.ident, method.variant
            );
            complaints.push(Error::new_spanned(&method.ident, why));
        }
    }
}

fn settle(complaints: Vec<Error>) -> Result<()> {
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(join(complaints))
    }
}

/// All complaints, so that they can be met in one go.
fn join(complaints: Vec<Error>) -> Error {
    let joined = complaints.into_iter().reduce(|mut all, next| {
        all.combine(next);
        all
    });
    joined.unwrap_or_else(|| Error::new(Span::call_site(), "this trait was not understood"))
}
