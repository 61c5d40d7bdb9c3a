//! Names: those that are made, those that are taken, and type text that is the same everywhere.

use proc_macro2::{Delimiter, Ident, Spacing, TokenStream, TokenTree};
use syn::ext::IdentExt;

/// Methods that references have already. A method of a protocol by one of these names could not be
/// called on them: the reference's own would win, silently.
pub(crate) const OF_REFERENCES: &[&str] = &[
    "adapt",
    "ask",
    "clock_time",
    "clone",
    "conversion",
    "from_remote",
    "id",
    "is_stopped",
    "mailbox_room",
    "narrow",
    "on_terminated",
    "path",
    "queued",
    "remote_target",
    "send",
    "stop",
    "stop_after_queued",
    "tell",
    "tell_expiring",
    "tell_uncounted",
    "uid",
];

/// Hooks of `Actor`, which may stand in the same block as the methods of a protocol.
pub(crate) const HOOKS: &[&str] = &["restarting", "started", "stopped", "terminated"];

/// `Cart` for `CartApi` and `CartProtocol`.
pub(crate) fn stem(of_trait: &Ident) -> String {
    let name = of_trait.unraw().to_string();
    let stem = name
        .strip_suffix("Api")
        .or_else(|| name.strip_suffix("Protocol"))
        .filter(|stem| !stem.is_empty());
    stem.unwrap_or(&name).to_owned()
}

/// `AddAll` for `add_all`.
pub(crate) fn pascal(method: &Ident) -> String {
    let name = method.unraw().to_string();
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    };
    name.split('_').map(word).collect()
}

/// The text of a type, written in one way for all compilers: no spaces but between two words. It is
/// a part of the fingerprint of a protocol, and the compiler's own printing may change.
pub(crate) fn type_text(tokens: TokenStream) -> String {
    let mut text = String::new();
    write(tokens, &mut text);
    text
}

fn write(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                text.push_str(open);
                write(group.stream(), text);
                text.push_str(close);
            }
            // The mark of a lifetime is joined to its name.
            TokenTree::Punct(punct)
                if punct.as_char() == '\'' && punct.spacing() == Spacing::Joint =>
            {
                space_between_words(text);
                text.push('\'');
            }
            TokenTree::Punct(punct) => text.push(punct.as_char()),
            TokenTree::Ident(_) | TokenTree::Literal(_) => {
                space_between_words(text);
                text.push_str(&token.to_string());
            }
        }
    }
}

fn space_between_words(text: &mut String) {
    if text.ends_with(|last: char| last.is_alphanumeric() || last == '_') {
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::{HOOKS, OF_REFERENCES, pascal, stem, type_text};
    use quote::{format_ident, quote};
    use std::fs;
    use std::path::{Path, PathBuf};

    #[test]
    fn names_of_types_come_from_names_of_traits_and_methods() {
        assert_eq!(stem(&format_ident!("CartApi")), "Cart");
        assert_eq!(stem(&format_ident!("CartProtocol")), "Cart");
        assert_eq!(stem(&format_ident!("Cart")), "Cart");
        assert_eq!(stem(&format_ident!("Api")), "Api");
        assert_eq!(pascal(&format_ident!("add")), "Add");
        assert_eq!(pascal(&format_ident!("add_all_2")), "AddAll2");
        assert_eq!(pascal(&format_ident!("r#move")), "Move");
    }

    #[test]
    fn type_text_does_not_depend_on_spaces() {
        let text = type_text(quote!(Option<Vec<(u8, &'static str)>>));
        assert_eq!(text, "Option<Vec<(u8,&'static str)>>");
        assert_eq!(
            type_text(quote!(Box<dyn Fn(u8) -> [u8; 4] + Send>)),
            "Box<dyn Fn(u8)->[u8;4]+Send>"
        );
    }

    /// Every source file of `otava-actor`.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(fs::read_to_string(path).unwrap());
            }
        }
    }

    /// The names of the functions in each block of `text` that begins with a line for which `opens`
    /// holds; such a block ends at the next line that is `}`.
    fn functions(text: &str, opens: impl Fn(&str) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        let mut inside = false;
        for line in text.lines() {
            inside = (inside || opens(line)) && line != "}";
            let begin = ["    pub fn ", "    pub async fn ", "    fn "];
            let rest = begin.iter().find_map(|begin| line.strip_prefix(begin));
            if let Some(rest) = rest.filter(|_| inside) {
                let end = rest.find(['(', '<']).unwrap();
                names.push(rest[..end].to_owned());
            }
        }
        names
    }

    fn source_folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../src")
    }

    #[test]
    fn every_method_of_a_reference_is_known_to_be_taken() {
        let mut texts = Vec::new();
        sources(&source_folder(), &mut texts);
        let opens = |line: &str| {
            line.starts_with("impl<") && line.contains("> ActorRef<") && !line.contains(" for ")
        };
        let methods = texts.iter().flat_map(|text| functions(text, opens));
        let methods: Vec<_> = methods.collect();
        assert!(methods.contains(&"tell".to_owned()), "{methods:?}");
        for method in methods {
            assert!(
                OF_REFERENCES.contains(&method.as_str()),
                "`{method}` is a method of ActorRef: add it to OF_REFERENCES"
            );
        }
    }

    #[test]
    fn every_hook_of_an_actor_is_known() {
        let text = fs::read_to_string(source_folder().join("actor.rs")).unwrap();
        let mut hooks = functions(&text, |line| line.starts_with("pub trait Actor:"));
        hooks.retain(|hook| hook != "handle");
        assert!(hooks.contains(&"started".to_owned()), "{hooks:?}");
        for hook in hooks {
            assert!(
                HOOKS.contains(&hook.as_str()),
                "`{hook}` is a hook of Actor: add it to HOOKS"
            );
        }
    }
}
