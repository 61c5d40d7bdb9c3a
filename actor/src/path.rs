//! ActorPath: where an actor hangs in its system's tree, as text.

use std::fmt;
use std::sync::Arc;

/// The name of an actor: its system's name, then the names from the top of the tree down to it,
/// joined by `/`, for example `orders/checkout/worker-3`.
///
/// A path is for people, logs and comparisons. It is not a capability: nobody reaches an actor by
/// knowing its path. After an actor has ended another one may get the same path; the two differ in
/// their [`crate::ActorRef::uid`].
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ActorPath(Arc<str>);

impl ActorPath {
    /// A path of this text, taken as it is. For references that come from elsewhere; the paths of
    /// local actors are made when they are spawned.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part: the actor's own name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    pub(crate) fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0).into())
    }
}

impl fmt::Debug for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether `name` may be the name of an actor: 1 to 255 bytes, no `/`, no control character, and not
/// beginning with `$` (names of anonymous actors do).
pub(crate) fn is_valid_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('$')
        && !name.chars().any(|c| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_extends_the_path() {
        let path = ActorPath::new("sys").child("a").child("b");
        assert_eq!((path.as_str(), path.name()), ("sys/a/b", "b"));
    }

    #[test]
    fn names_are_checked() {
        for (name, valid) in [
            ("a", true),
            ("å-1", true),
            ("", false),
            ("a/b", false),
            ("$1", false),
            ("a\n", false),
        ] {
            assert_eq!(is_valid_name(name), valid, "{name:?}");
        }
        assert!(!is_valid_name(&"x".repeat(256)));
    }
}
