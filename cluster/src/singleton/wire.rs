//! Singleton wire: the bytes of what nodes say to each other about their singletons.

use crate::envelope::{EnvelopeError, pack, unpack};
use crate::logic::singleton::Message;
use crate::singleton::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
enum WireMessage {
    Claim { name: String },
    Released { name: String },
}

/// The bytes of a message about the singleton `name`; `None`, with a line in the log, if it cannot be
/// sent.
pub(super) fn encode(name: &str, message: Message) -> Option<Vec<u8>> {
    let name = name.to_owned();
    pack(&match message {
        Message::Claim => WireMessage::Claim { name },
        Message::Released => WireMessage::Released { name },
    })
}

pub(super) fn decode(bytes: &[u8]) -> Result<(String, Message), EnvelopeError> {
    let (name, message) = match unpack::<WireMessage>(bytes)? {
        WireMessage::Claim { name } => (name, Message::Claim),
        WireMessage::Released { name } => (name, Message::Released),
    };
    if name.len() > NAME_BYTES_MAX {
        return Err(EnvelopeError::Malformed(format!(
            "a name of {} bytes",
            name.len()
        )));
    }
    Ok((name, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// These bytes are what other versions read: they never change.
    #[test]
    fn the_bytes_are_fixed_and_come_back() {
        for (message, fixed) in [
            (Message::Claim, [1, 1, 0, 4, b'c', b'r', b'o', b'n']),
            (Message::Released, [1, 1, 1, 4, b'c', b'r', b'o', b'n']),
        ] {
            assert_eq!(encode("cron", message).unwrap(), fixed);
            assert_eq!(decode(&fixed), Ok(("cron".to_owned(), message)));
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(decode(&encode(&long, Message::Claim).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&bytes);
        }
    }
}
