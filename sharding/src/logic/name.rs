//! Name: the name of an entity's actor, made from its id.

use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_128;

/// Longer names are cut and end in a hash of the whole id.
const NAME_BYTES_MAX: usize = 200;

/// A name that an actor may have, another for each id. What cannot stand in a name (`/`, control
/// characters, a `$` at the begin) and the two signs of this scheme are written `%XX`.
#[must_use]
pub fn actor_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for (at, c) in id.char_indices() {
        let plain = !c.is_control() && !matches!(c, '/' | '%' | '~') && (c != '$' || at > 0);
        if plain {
            name.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            // Writing to a string does not fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.len() > NAME_BYTES_MAX {
        let end = (0..=NAME_BYTES_MAX)
            .rev()
            .find(|&end| name.is_char_boundary(end));
        name.truncate(end.unwrap_or(0));
        let _ = write!(name, "~{:032x}", xxh3_128(id.as_bytes()));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_id_has_a_name_of_its_own() {
        let long = "ä".repeat(256);
        let longer = format!("{}b", "a".repeat(511));
        let other = format!("{}c", "a".repeat(511));
        let ids = [
            "N1", "a/b", "a%2Fb", "$x", "%24x", "x$", "a~b", "\n", "\u{85}", &long, &longer, &other,
        ];
        let names: BTreeSet<String> = ids.iter().map(|id| actor_name(id)).collect();
        assert_eq!(names.len(), ids.len());
        for name in &names {
            assert!(
                (1..=255).contains(&name.len()) && !name.starts_with('$'),
                "{name}"
            );
            assert!(!name.chars().any(|c| c == '/' || c.is_control()), "{name}");
        }
        assert_eq!(actor_name("N328AA"), "N328AA");
        assert_eq!(actor_name("$a/b"), "%24a%2Fb");
    }
}
