//! Profile: what a member says of itself when it joins and that never changes: roles and version.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The version of the program that a node runs, ordered as versions are: `1.9.0` is before `1.10.0`,
/// and `2.0.0-rc1` before `2.0.0`. The default is `0.0.0`.
///
/// ```
/// use otava_cluster::AppVersion;
///
/// let [old, new] = ["1.9.0", "1.10.0-rc2"].map(|text| AppVersion::new(text).unwrap());
/// assert!(old < new && new < AppVersion::new("1.10.0").unwrap());
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AppVersion(Arc<str>);

impl AppVersion {
    /// The longest version in bytes.
    pub const BYTES_MAX: usize = 64;

    /// The version that `text` names; `None` unless it is 1 to 64 ASCII letters, digits or one of
    /// `.`, `-`, `+`, `_`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-+_".contains(&b);
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    /// The text of the version.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The numbers at the front, without zeros at their end, and what follows them.
    fn parts(&self) -> (Vec<u64>, &str) {
        let cut = self.0.find(['-', '+', '_']).unwrap_or(self.0.len());
        let (front, rest) = self.0.split_at(cut);
        let number = |part: &str| part.parse().unwrap_or(0);
        let mut numbers: Vec<u64> = front.split('.').map(number).collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        (numbers, rest)
    }
}

impl Default for AppVersion {
    fn default() -> Self {
        Self("0.0.0".into())
    }
}

impl fmt::Display for AppVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for AppVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let rank = |version: &Self| {
            let (numbers, rest) = version.parts();
            (numbers, !rest.starts_with('-'))
        };
        rank(self)
            .cmp(&rank(other))
            .then_with(|| self.parts().1.cmp(other.parts().1))
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for AppVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What a member says of itself when it joins. The parts that most nodes do not set cost nothing.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Profile {
    /// What the node is for.
    pub roles: BTreeSet<String>,
    /// The version of the program that it runs.
    pub app_version: AppVersion,
}

impl Profile {
    /// The most roles of a node.
    pub const ROLES_MAX: usize = 32;
    /// The longest role in bytes.
    pub const ROLE_BYTES_MAX: usize = 64;

    /// Whether `role` may name a role: 1 to 64 ASCII letters, digits or one of `.`, `-`, `_`.
    #[must_use]
    pub fn is_role(role: &str) -> bool {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        (1..=Self::ROLE_BYTES_MAX).contains(&role.len()) && role.bytes().all(plain)
    }

    /// Whether all roles may be roles, and are not too many.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.roles.len() <= Self::ROLES_MAX && self.roles.iter().all(|role| Self::is_role(role))
    }

    /// Shares the profile; `None` if it says nothing.
    #[must_use]
    pub fn shared(self) -> Option<Arc<Self>> {
        (self != Self::default()).then(|| Arc::new(self))
    }
}

/// The join of two opinions about one profile. There is only one unless a run of a node says two
/// things of itself; then all settle for the greater.
#[must_use]
pub fn join(a: Option<Arc<Profile>>, b: Option<Arc<Profile>>) -> Option<Arc<Profile>> {
    match (&a, &b) {
        (Some(one), Some(other)) if Arc::ptr_eq(one, other) => a,
        _ => a.max(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(text: &str) -> AppVersion {
        AppVersion::new(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let sorted = [
            "0.0.0",
            "1",
            "1.9.0",
            "1.10.0-rc1",
            "1.10.0-rc2",
            "1.10.0",
            "1.10.0+build",
            "2.0",
            "10",
        ];
        assert!(sorted.map(version).is_sorted());
        assert!(version("1.0") != version("1.0.0"));
        for bad in ["", "1 0", "1,0", "ä", &"1".repeat(65)] {
            assert_eq!(AppVersion::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn roles_are_plain_words() {
        assert!(Profile::is_role("back-end.v2"));
        for bad in ["", "a b", "a,b", "ä", &"x".repeat(65)] {
            assert!(!Profile::is_role(bad), "{bad:?}");
        }
        let many = (0..33).map(|n| n.to_string()).collect();
        let many = Profile {
            roles: many,
            ..Profile::default()
        };
        assert!(!many.is_sound() && Profile::default().is_sound());
        assert_eq!(Profile::default().shared(), None);
    }

    proptest! {
        #[test]
        fn the_order_of_versions_is_total(texts in proptest::collection::vec("[0-9.a+-]{1,6}", 3)) {
            let [a, b, c]: [AppVersion; 3] = texts
                .iter().map(|text| version(text)).collect::<Vec<_>>().try_into().unwrap();
            prop_assert_eq!(a == b, a.cmp(&b).is_eq());
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert!(!(a <= b && b <= c) || a <= c);
        }
    }
}
