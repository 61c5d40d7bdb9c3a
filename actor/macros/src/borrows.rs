//! Borrows: which types a message may carry. It owns what it carries, and it is no actor.

use syn::visit::{self, Visit};
use syn::{Error, Lifetime, ParenthesizedGenericArguments, Path, TraitBound, Type};
use syn::{TypeBareFn, TypeImplTrait, TypeReference};

/// Says what is wrong with `ty` as a part of a message, at the right place.
pub(crate) fn check(ty: &Type, complaints: &mut Vec<Error>) {
    let mut visitor = Checker { complaints };
    visitor.visit_type(ty);
}

struct Checker<'a> {
    complaints: &'a mut Vec<Error>,
}

const BORROW: &str = "a message owns what it carries: it waits in a mailbox and may cross to another node. \
     Take an owned type (`String` for `&str`, `Vec<T>` for `&[T]`, `Arc<T>` to share)";

impl Visit<'_> for Checker<'_> {
    fn visit_type_reference(&mut self, reference: &TypeReference) {
        match &reference.lifetime {
            Some(lifetime) if lifetime.ident == "static" => {
                visit::visit_type_reference(self, reference);
            }
            _ => self.complaints.push(Error::new_spanned(reference, BORROW)),
        }
    }

    fn visit_lifetime(&mut self, lifetime: &Lifetime) {
        if lifetime.ident != "static" {
            self.complaints.push(Error::new_spanned(lifetime, BORROW));
        }
    }

    fn visit_type_impl_trait(&mut self, ty: &TypeImplTrait) {
        let why = "a message has fields of known types: name the type, or use a type parameter of the trait";
        self.complaints.push(Error::new_spanned(ty, why));
    }

    fn visit_path(&mut self, path: &Path) {
        if path
            .segments
            .first()
            .is_some_and(|first| first.ident == "Self")
        {
            let why =
                "`Self` is the actor, which whoever sends a message does not know: name the type";
            self.complaints.push(Error::new_spanned(path, why));
        }
        visit::visit_path(self, path);
    }

    // Lifetimes in the arguments of functions are their callers'.
    fn visit_type_bare_fn(&mut self, _: &TypeBareFn) {}

    fn visit_parenthesized_generic_arguments(&mut self, _: &ParenthesizedGenericArguments) {}

    fn visit_trait_bound(&mut self, bound: &TraitBound) {
        if bound.lifetimes.is_none() {
            visit::visit_trait_bound(self, bound);
        }
    }
}
