//! Migrations: the versions of the schema, and which of them a database still needs. Pure.

/// The newest version of the schema that this program knows.
pub(crate) const KNOWN: u32 = MIGRATIONS.len() as u32;

/// From nothing to version 1, from 1 to 2, and so on. What stands here never changes: databases have it.
const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/001.sql"),
    include_str!("../../migrations/002.sql"),
    include_str!("../../migrations/003.sql"),
];

/// The schema is newer than this program.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct TooNew;

/// What is to be run on a schema of version `found` (0: it is empty), in order: version and statements.
pub(crate) fn plan(found: u32, schema: &str) -> Result<Vec<(u32, String)>, TooNew> {
    if found > KNOWN {
        return Err(TooNew);
    }
    let numbered = (1..).zip(MIGRATIONS);
    let needed = numbered.filter(|(version, _)| *version > found);
    Ok(needed
        .map(|(version, text)| (version, fill(text, schema)))
        .collect())
}

/// Whether a name can stand in statements as it is.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    (1..=40).contains(&name.len())
        && name.starts_with(first)
        && !name.starts_with("pg_")
        && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn fill(text: &str, schema: &str) -> String {
    text.replace("@events_lock@", &lock(schema, "events"))
        .replace("@states_lock@", &lock(schema, "states"))
        .replace("@schema@", &format!("\"{schema}\""))
}

/// The first half of the keys of all advisory locks: `OTAV`.
pub(crate) const LOCK_CLASS: u32 = 0x4F54_4156;

/// The second half of the key of an advisory lock.
pub(crate) fn lock_object(schema: &str, of: &str) -> u32 {
    crc32fast::hash(format!("{schema}/{of}").as_bytes())
}

/// The key of an advisory lock as the two arguments of the functions that take it.
pub(crate) fn lock(schema: &str, of: &str) -> String {
    let object = lock_object(schema, of).cast_signed();
    format!("{}, {object}", LOCK_CLASS.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_schema_needs_all_and_a_newer_one_is_refused() {
        let versions = |found| {
            let plan = plan(found, "otava")?;
            Ok(plan.iter().map(|(version, _)| *version).collect::<Vec<_>>())
        };
        assert_eq!(versions(0), Ok((1..=KNOWN).collect()));
        assert_eq!(versions(KNOWN), Ok(vec![]));
        assert_eq!(versions(KNOWN + 1), Err(TooNew));
    }

    #[test]
    fn no_placeholder_is_left_over() {
        for (_, text) in plan(0, "otava").unwrap() {
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"));
            assert!(code.into_iter().all(|line| !line.contains('@')));
        }
    }

    /// Processes of different versions must take the same locks.
    #[test]
    fn locks_are_fixed() {
        assert_eq!(lock("otava", "events"), "1330921814, 361094863");
        assert_ne!(lock("otava", "events"), lock("otava", "states"));
        assert_ne!(lock("otava", "events"), lock("other", "events"));
    }

    #[test]
    fn only_plain_names_are_taken() {
        for name in ["otava", "_x1", "a"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in [
            "",
            "Otava",
            "1a",
            "a-b",
            "a\"b",
            "pg_x",
            "ä",
            &"a".repeat(41),
        ] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
