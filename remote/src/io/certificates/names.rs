//! Names: how names of nodes, roles and addresses stand in certificates, and back.
//!
//! DNS names know no case and few characters. Lower-case letters and digits stay, any other byte
//! becomes `-` and its two hexadecimal digits; every 62 of these form a label, which begins with
//! `n`. Different texts have different names, and a name has one text.
//!
//! **Invariant:** only whole names count. A wildcard in a certificate proves nothing.

use crate::identity::PeerIdentity;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use webpki::EndEntityCert;

/// The longest piece of a DNS name, and the longest name.
const LABEL_BYTES_MAX: usize = 63;
const DNS_NAME_BYTES_MAX: usize = 253;

/// What a name in a certificate is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Zone {
    Address,
    Client,
    Node,
    Role,
}

impl Zone {
    const ALL: [Self; 4] = [Self::Address, Self::Client, Self::Node, Self::Role];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Address => ".address.otava.internal",
            Self::Client => ".client.otava.internal",
            Self::Node => ".node.otava.internal",
            Self::Role => ".role.otava.internal",
        }
    }
}

/// The DNS name for `text`; `None` for what cannot stand in a certificate.
pub(crate) fn encode(zone: Zone, text: &str) -> Option<String> {
    let mut name = String::new();
    let mut label_bytes = LABEL_BYTES_MAX;
    for byte in text.bytes() {
        let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = if plain { 1 } else { 3 };
        if label_bytes + bytes > LABEL_BYTES_MAX {
            name.push_str(if name.is_empty() { "n" } else { ".n" });
            label_bytes = 1;
        }
        if plain {
            name.push(char::from(byte));
        } else {
            write!(name, "-{byte:02x}").ok()?;
        }
        label_bytes += bytes;
        if name.len() > DNS_NAME_BYTES_MAX {
            return None;
        }
    }
    if name.is_empty() {
        return None;
    }
    name.push_str(zone.suffix());
    (name.len() <= DNS_NAME_BYTES_MAX).then_some(name)
}

/// What [`encode`] made a name of; `None` for any other name.
pub(crate) fn decode(name: &str) -> Option<(Zone, String)> {
    let name = name.to_ascii_lowercase();
    let (zone, labels) = Zone::ALL
        .into_iter()
        .find_map(|zone| Some((zone, name.strip_suffix(zone.suffix())?)))?;
    let mut bytes = Vec::new();
    for label in labels.split('.') {
        let mut rest = label.strip_prefix('n')?.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'-' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
                plain => plain,
            });
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    // One text, one name: else a certificate could say one thing in many ways.
    (encode(zone, &text)? == name).then_some((zone, text))
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// All that a certificate says of its holder.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CertificateNames {
    pub(crate) nodes: BTreeSet<String>,
    pub(crate) clients: BTreeSet<String>,
    pub(crate) roles: BTreeSet<String>,
    pub(crate) addresses: BTreeSet<SocketAddr>,
}

impl CertificateNames {
    /// What stands in a certificate. It is not checked here.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut names = Self::default();
        let Ok(certificate) = EndEntityCert::try_from(certificate) else {
            return names;
        };
        for (zone, text) in certificate.valid_dns_names().filter_map(decode) {
            match zone {
                Zone::Address => names.addresses.extend(text.parse::<SocketAddr>()),
                Zone::Client => _ = names.clients.insert(text),
                Zone::Node => _ = names.nodes.insert(text),
                Zone::Role => _ = names.roles.insert(text),
            }
        }
        names
    }

    /// Who the holder is if it may call itself `name`.
    pub(crate) fn identity_as(&self, name: &str) -> Option<PeerIdentity> {
        let identity = if self.nodes.contains(name) {
            PeerIdentity::member(name)
        } else if self.clients.contains(name) {
            PeerIdentity::client(name)
        } else {
            return None;
        };
        let with_roles = self.roles.iter().fold(identity, |it, role| it.role(role));
        let addresses = self.addresses.iter();
        Some(addresses.fold(with_roles, |it, addr| it.address(*addr)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::DnsName;

    #[test]
    fn names_that_differ_stay_different() {
        let long = "a".repeat(70);
        let names = [
            "a", "A", "a.b", "a-2eb", "ab", "a_b", "-", ".", "n", "-6e", "a-", "xn--a", &long,
        ];
        let encoded: BTreeSet<_> = names
            .iter()
            .map(|name| encode(Zone::Node, name).unwrap())
            .collect();
        assert_eq!(encoded.len(), names.len(), "{encoded:?}");
        assert_eq!(encode(Zone::Node, ""), None);
        assert_eq!(encode(Zone::Node, &"-".repeat(128)), None);
    }

    /// X4: a name that could be read in two ways is read in none.
    #[test]
    fn only_what_was_encoded_is_decoded() {
        for name in [
            "*.node.otava.internal",
            "n.node.otava.internal",
            ".node.otava.internal",
            "node.otava.internal",
            "na.other.otava.internal",
            "na.node.otava.internal.example.com",
            "a.node.otava.internal",
            "n-6.node.otava.internal",
            "n-zz.node.otava.internal",
            "n-61.node.otava.internal",
            "n-ff.node.otava.internal",
            "na.nb.node.otava.internal",
        ] {
            assert_eq!(decode(name), None, "{name}");
        }
        assert_eq!(
            decode("NA.Node.otava.internal"),
            Some((Zone::Node, "a".into()))
        );
    }

    proptest! {
        #[test]
        fn every_name_is_good_dns(name in "[a-zA-Z0-9._-]{1,70}", other in "[a-zA-Z0-9._-]{1,70}") {
            let encoded = encode(Zone::Role, &name).unwrap();
            prop_assert!(DnsName::try_from(encoded.as_str()).is_ok(), "{encoded}");
            prop_assert_eq!(decode(&encoded), Some((Zone::Role, name.clone())));
            let same = Some(encoded) == encode(Zone::Role, &other);
            prop_assert_eq!(same, name == other);
        }

        #[test]
        fn any_text_is_read_or_not(name in "[a-z0-9.-]{0,80}") {
            let _ = decode(&name);
            let _ = decode(&format!("{name}.address.otava.internal"));
        }
    }
}
