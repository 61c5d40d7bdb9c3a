//! Args: what stands in the parentheses of `#[protocol(..)]`.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Meta, Path, Result, Token};

/// The arguments, each at most once.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) client: Option<Ident>,
    pub(crate) derives: Vec<Path>,
    pub(crate) id: Option<LitStr>,
    pub(crate) message: Option<Ident>,
    /// The word itself, for errors about it.
    pub(crate) remote: Option<Path>,
    pub(crate) version: Option<LitInt>,
}

const KNOWN: &str = "known are `id = \"..\"`, `version = 1`, `remote`, `message = Name`, `client = Name` and `derive(..)`";

impl Args {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)?;
        let mut args = Self::default();
        let mut seen = Vec::new();
        for meta in metas {
            let name = meta.path().get_ident().map(Ident::to_string);
            let name = name.unwrap_or_default();
            if seen.contains(&name) {
                return Err(Error::new_spanned(meta, format!("`{name}` is given twice")));
            }
            args.take(&name, meta)?;
            seen.push(name);
        }
        Ok(args)
    }

    fn take(&mut self, name: &str, meta: Meta) -> Result<()> {
        match (name, meta) {
            ("client", Meta::NameValue(given)) => self.client = Some(ident(&given.value)?),
            ("derive", Meta::List(list)) => {
                let paths =
                    list.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated)?;
                self.derives = paths.into_iter().collect();
            }
            ("id", Meta::NameValue(given)) => self.id = Some(string(&given.value)?),
            ("message", Meta::NameValue(given)) => self.message = Some(ident(&given.value)?),
            ("remote", Meta::Path(path)) => self.remote = Some(path),
            ("version", Meta::NameValue(given)) => self.version = Some(number(&given.value)?),
            (_, meta) => {
                let why = format!("this is no argument of `protocol`: {KNOWN}");
                return Err(Error::new(meta.span(), why));
            }
        }
        Ok(())
    }
}

fn ident(value: &Expr) -> Result<Ident> {
    let path = match value {
        Expr::Path(path) => path.path.get_ident().cloned(),
        _ => None,
    };
    path.ok_or_else(|| Error::new_spanned(value, "a name is needed here, without quotes"))
}

pub(crate) fn string(value: &Expr) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Ok(text.clone()),
        _ => Err(Error::new_spanned(value, "a string is needed here")),
    }
}

fn number(value: &Expr) -> Result<LitInt> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => Ok(number.clone()),
        _ => Err(Error::new_spanned(value, "a number is needed here")),
    }
}
