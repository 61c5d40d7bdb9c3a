//! Receptionist wire: the bytes of what receptionists say to each other, and the limits on them.

use crate::envelope::{EnvelopeError, pack, unpack};
use crate::logic::receptionist::{
    Changes, Message, NAME_BYTES_MAX, OFFERS_MAX, Offer, SERVICES_MAX, ServiceId,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
enum WireMessage {
    Changes {
        base: u64,
        version: u64,
        services: Vec<WireService>,
    },
    Digest {
        version: u64,
    },
    Have {
        version: u64,
        wants: bool,
    },
}

#[derive(Deserialize, Serialize)]
struct WireService {
    name: String,
    kind: String,
    /// Numbers and ranks.
    offers: Vec<(u64, u64)>,
}

/// The bytes of a message; `None`, with a line in the log, if it cannot be sent.
pub(super) fn encode(message: &Message) -> Option<Vec<u8>> {
    let offers = |offers: &[Offer]| {
        let offers = offers.iter().map(|offer| (offer.number, offer.rank));
        offers.collect()
    };
    let service = |(service, list): &(ServiceId, Vec<Offer>)| WireService {
        name: service.name.as_ref().into(),
        kind: service.kind.as_ref().into(),
        offers: offers(list),
    };
    pack(&match message {
        Message::Changes(changes) => WireMessage::Changes {
            base: changes.base,
            version: changes.version,
            services: changes.services.iter().map(service).collect(),
        },
        Message::Digest { version } => WireMessage::Digest { version: *version },
        Message::Have { version, wants } => WireMessage::Have {
            version: *version,
            wants: *wants,
        },
    })
}

pub(super) fn decode(bytes: &[u8]) -> Result<Message, EnvelopeError> {
    Ok(match unpack::<WireMessage>(bytes)? {
        WireMessage::Changes {
            base,
            version,
            services,
        } => Message::Changes(Changes {
            base,
            version,
            services: read_services(services)?,
        }),
        WireMessage::Digest { version } => Message::Digest { version },
        WireMessage::Have { version, wants } => Message::Have { version, wants },
    })
}

fn read_services(
    services: Vec<WireService>,
) -> Result<Vec<(ServiceId, Vec<Offer>)>, EnvelopeError> {
    let offers: usize = services.iter().map(|service| service.offers.len()).sum();
    if services.len() > SERVICES_MAX || offers > OFFERS_MAX {
        let (services, too_much) = (services.len(), "is more than a node may offer");
        let what = format!("{services} services with {offers} offers: that {too_much}");
        return Err(EnvelopeError::Malformed(what));
    }
    let read = |service: WireService| {
        let longest = service.name.len().max(service.kind.len());
        if longest > NAME_BYTES_MAX {
            return Err(EnvelopeError::Malformed(format!(
                "a name of {longest} bytes"
            )));
        }
        let offers = service.offers.into_iter();
        let offers = offers.map(|(number, rank)| Offer { number, rank });
        let id = ServiceId {
            name: service.name.into(),
            kind: service.kind.into(),
        };
        Ok((id, offers.collect()))
    };
    services.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn messages() -> [Message; 3] {
        let id = ServiceId {
            name: "printers".into(),
            kind: "office.Print.1".into(),
        };
        let offers = vec![Offer { number: 1, rank: 7 }];
        [
            Message::Changes(Changes {
                base: 3,
                version: 5,
                services: vec![(id, offers)],
            }),
            Message::Digest { version: 5 },
            Message::Have {
                version: 300,
                wants: true,
            },
        ]
    }

    /// These bytes are what other versions read: they never change.
    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        let fixed = [
            "010100030501087072696e746572730e6f66666963652e5072696e742e31010107",
            "01010105",
            "010102fb2c0101",
        ];
        for (message, fixed) in messages().iter().zip(fixed) {
            let bytes = encode(message).unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, fixed);
            assert_eq!(decode(&bytes).as_ref(), Ok(message));
        }
    }

    #[test]
    fn other_versions_are_named() {
        assert_eq!(decode(&[9, 1, 1, 5]), Err(EnvelopeError::Version(9)));
        assert!(matches!(decode(&[]), Err(EnvelopeError::Malformed(_))));
    }

    #[test]
    fn too_much_is_refused() {
        let id = |name: &str| ServiceId {
            name: name.into(),
            kind: "k".into(),
        };
        let changes = |services| {
            Message::Changes(Changes {
                base: 0,
                version: 1,
                services,
            })
        };
        let offer = Offer { number: 1, rank: 1 };
        let long = changes(vec![(id(&"x".repeat(201)), vec![])]);
        let many = changes(vec![(id("a"), vec![offer; OFFERS_MAX + 1])]);
        for bad in [long, many] {
            assert!(decode(&encode(&bad).unwrap()).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
