//! Persistence id: the name under which one entity's events are kept.

use std::fmt;
use std::sync::Arc;

/// The kind of an entity and its id within the kind, written `kind|id`.
///
/// Events are ordered within one persistence id and only there. The kind is the part up to the
/// first `|`; the id may hold any characters. Two entities that live at the same time must not
/// share a persistence id: the journal refuses the second writer ([`crate::AppendError`]).
///
/// ```
/// use otava_persistence::PersistenceId;
///
/// let id = PersistenceId::new("aircraft", "N14228");
/// assert_eq!(id.as_str(), "aircraft|N14228");
/// assert_eq!((id.kind(), id.entity()), ("aircraft", "N14228"));
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PersistenceId(Arc<str>);

/// How many slices there are: a persistence id belongs to one of them for good.
///
/// Slices are what projections are spread by. The number is part of the format.
pub const SLICES: u16 = 1024;

impl PersistenceId {
    /// The longest persistence id in bytes, `kind|id` together. Stores refuse longer ones.
    pub const BYTES_MAX: usize = 1024;

    /// Joins kind and id.
    ///
    /// # Panics
    /// When `kind` is empty or contains `|`: the two parts could not be told apart again. The kind
    /// is a constant of the program, so this is a mistake in it and not an input.
    #[must_use]
    pub fn new(kind: &str, entity: &str) -> Self {
        assert!(
            !kind.is_empty() && !kind.contains('|'),
            "the kind {kind:?} of a persistence id must not be empty and must not contain '|'"
        );
        Self(format!("{kind}|{entity}").into())
    }

    /// Takes the text that [`Self::as_str`] gave; `None` when there is no kind in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, _) = text.split_once('|')?;
        (!kind.is_empty()).then(|| Self(text.into()))
    }

    /// The whole, `kind|id`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `|`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0.split_once('|').map_or(&self.0, |(kind, _)| kind)
    }

    /// The part after the first `|`.
    #[must_use]
    pub fn entity(&self) -> &str {
        self.0.split_once('|').map_or("", |(_, entity)| entity)
    }

    /// The slice it belongs to, below [`SLICES`]: the CRC-32 (IEEE) of the text, modulo [`SLICES`].
    /// This is part of the format and never changes.
    #[must_use]
    pub fn slice(&self) -> u16 {
        let hash = crc32fast::hash(self.0.as_bytes());
        u16::try_from(hash % u32::from(SLICES)).expect("below 1024")
    }
}

impl fmt::Display for PersistenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_may_contain_the_separator() {
        let id = PersistenceId::new("order", "a|b");
        assert_eq!((id.kind(), id.entity()), ("order", "a|b"));
        assert_eq!(PersistenceId::parse(id.as_str()), Some(id));
        assert_eq!(PersistenceId::parse("no kind"), None);
        assert_eq!(PersistenceId::parse("|x"), None);
    }

    /// The slice is a contract: these numbers must never change.
    #[test]
    fn slices_are_fixed() {
        let slice = |entity| PersistenceId::new("aircraft", entity).slice();
        assert_eq!([slice("N14228"), slice(""), slice("Ä")], [792, 913, 510]);
    }

    #[test]
    #[should_panic(expected = "must not contain '|'")]
    fn a_kind_with_the_separator_is_a_mistake() {
        let _ = PersistenceId::new("a|b", "c");
    }
}
