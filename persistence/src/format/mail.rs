//! Mail: the records of letters in an entity's own events, and the form they have in a snapshot.
//!
//! ```text
//! otava.outgoing, 1    to | number | name | version | payload of the letter (itself a payload)
//! otava.confirmed, 1   to | up to
//! otava.received, 1    from | number
//! otava.deleted, 1     mail: what was confirmed, waits, and was taken when the entity was deleted
//!
//! snapshot of an entity that has mail
//!                      format byte (3) | u32 length of mail, little endian | mail | payload of the state
//! ```
//!
//! Each record is a payload of format 1. Ids stand in them in the clear, also for an encrypted entity:
//! only payloads of letters are sealed. So who waits for whom can be found without keys.

use super::{FormatError, decode, encode};
use crate::id::PersistenceId;
use crate::journal::EventRecord;
use crate::logic::inbox::Inbox;
use crate::logic::outbox::{Lane, Outbox, Waiting};
use serde::{Deserialize, Serialize};

/// Names of event types that begin with this belong to Otava.
pub(crate) const RESERVED: &str = "otava.";
pub(crate) const OUTGOING: &str = "otava.outgoing";
pub(crate) const CONFIRMED: &str = "otava.confirmed";
pub(crate) const RECEIVED: &str = "otava.received";
pub(crate) const DELETED: &str = "otava.deleted";
/// The version of all these records.
pub(crate) const VERSION: u16 = 1;

/// The format byte of a state with mail before it.
pub(crate) const WITH_MAIL: u8 = 3;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Outgoing {
    pub(crate) to: String,
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) version: u16,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Confirmed {
    pub(crate) to: String,
    pub(crate) up_to: u64,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Received {
    pub(crate) from: String,
    pub(crate) number: u64,
}

/// All that an entity knows of its letters.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Mail {
    pub(crate) lanes: Vec<LaneForm>,
    pub(crate) taken: Vec<Received>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LaneForm {
    pub(crate) to: String,
    pub(crate) confirmed: u64,
    pub(crate) waiting: Vec<WaitingForm>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct WaitingForm {
    pub(crate) name: String,
    pub(crate) version: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) seq: u64,
}

impl Mail {
    pub(crate) fn of(outbox: &Outbox, inbox: &Inbox) -> Self {
        let waiting = |letter: &Waiting| WaitingForm {
            name: letter.name.to_string(),
            version: letter.version,
            payload: letter.payload.clone(),
            seq: letter.seq,
        };
        let lanes = outbox.lanes().map(|(to, lane)| LaneForm {
            to: to.to_string(),
            confirmed: lane.confirmed,
            waiting: lane.waiting.iter().map(waiting).collect(),
        });
        let taken = inbox.senders().map(|(from, number)| Received {
            from: from.to_string(),
            number,
        });
        Self {
            lanes: lanes.collect(),
            taken: taken.collect(),
        }
    }

    /// The letters that wait.
    pub(crate) fn letters(&mut self) -> impl Iterator<Item = &mut WaitingForm> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.waiting)
    }

    /// # Errors
    /// An id in it is none.
    pub(crate) fn into_boxes(self) -> Result<(Outbox, Inbox), FormatError> {
        let waiting = |form: WaitingForm| Waiting {
            name: form.name.into(),
            version: form.version,
            payload: form.payload,
            seq: form.seq,
        };
        let lanes = self.lanes.into_iter().map(|form| {
            let lane = Lane {
                confirmed: form.confirmed,
                waiting: form.waiting.into_iter().map(waiting).collect(),
            };
            Ok((parse_id(&form.to)?, lane))
        });
        let outbox = Outbox::from_lanes(lanes.collect::<Result<Vec<_>, _>>()?);
        let taken = self.taken.into_iter();
        let taken = taken.map(|form| Ok((parse_id(&form.from)?, form.number)));
        let inbox = Inbox::from_senders(taken.collect::<Result<Vec<_>, _>>()?);
        Ok((outbox, inbox))
    }
}

/// # Errors
/// The text is no persistence id.
pub(crate) fn parse_id(text: &str) -> Result<PersistenceId, FormatError> {
    PersistenceId::parse(text)
        .ok_or_else(|| FormatError::Decode("a letter's persistence id has no kind".to_owned()))
}

/// # Errors
/// [`FormatError::Encode`].
pub(crate) fn record<T: Serialize>(
    name: &'static str,
    content: &T,
) -> Result<EventRecord, FormatError> {
    Ok(EventRecord::new(name, VERSION, encode(content)?))
}

/// Puts mail before the payload of a state. Without mail the payload stays as it is.
///
/// # Errors
/// The mail is larger than 4 GiB, or cannot be encoded.
pub(crate) fn with_mail(mail: &Mail, state: Vec<u8>) -> Result<Vec<u8>, FormatError> {
    if mail.lanes.is_empty() && mail.taken.is_empty() {
        return Ok(state);
    }
    let mail = encode(mail)?;
    let length = u32::try_from(mail.len())
        .map_err(|_| FormatError::Encode("the mail is larger than 4 GiB".to_owned()))?;
    let mut bytes = Vec::with_capacity(5 + mail.len() + state.len());
    bytes.push(WITH_MAIL);
    bytes.extend(length.to_le_bytes());
    bytes.extend(mail);
    bytes.extend(state);
    Ok(bytes)
}

/// Takes apart what [`with_mail`] made: the mail and the payload of the state.
///
/// # Errors
/// See [`FormatError`].
pub(crate) fn split_mail(bytes: &[u8]) -> Result<(Mail, &[u8]), FormatError> {
    let Some((&WITH_MAIL, rest)) = bytes.split_first() else {
        return Ok((Mail::default(), bytes));
    };
    let short = || FormatError::Decode("a snapshot with mail is cut short".to_owned());
    let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short())?;
    let (mail, state) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok((decode(mail)?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> Mail {
        Mail {
            lanes: vec![LaneForm {
                to: "account|b".to_owned(),
                confirmed: 300,
                waiting: vec![WaitingForm {
                    name: "bank.Credit".to_owned(),
                    version: 2,
                    payload: vec![1, 7],
                    seq: 12,
                }],
            }],
            taken: vec![Received {
                from: "account|c".to_owned(),
                number: 4,
            }],
        }
    }

    /// P8: the bytes of the records are a contract, version 1.
    #[test]
    fn golden_bytes_of_records() {
        let outgoing = Outgoing {
            to: "account|b".to_owned(),
            number: 301,
            name: "bank.Credit".to_owned(),
            version: 2,
            payload: vec![1, 7],
        };
        let confirmed = Confirmed {
            to: "account|b".to_owned(),
            up_to: 300,
        };
        let received = &mail().taken[0];
        let bytes = b"\x01\x09account|b\xfb\x2d\x01\x0bbank.Credit\x02\x02\x01\x07";
        assert_eq!(encode(&outgoing).unwrap(), bytes);
        assert_eq!(decode::<Outgoing>(bytes).unwrap(), outgoing);
        assert_eq!(
            encode(&confirmed).unwrap(),
            b"\x01\x09account|b\xfb\x2c\x01"
        );
        assert_eq!(encode(received).unwrap(), b"\x01\x09account|c\x04");
    }

    /// P8: a snapshot with mail, format 3.
    #[test]
    fn golden_bytes_of_a_snapshot_with_mail() {
        let bytes = with_mail(&mail(), vec![1, 9]).unwrap();
        let golden = b"\x03\x2d\x00\x00\x00\
            \x01\x01\x09account|b\xfb\x2c\x01\x01\x0bbank.Credit\x02\x02\x01\x07\x0c\
            \x01\x09account|c\x04\x01\x09";
        assert_eq!(bytes, golden);
        assert_eq!(split_mail(golden).unwrap(), (mail(), &[1, 9][..]));
        let (outbox, inbox) = mail().into_boxes().unwrap();
        assert_eq!(Mail::of(&outbox, &inbox), mail());
    }

    #[test]
    fn a_state_without_mail_keeps_its_bytes() {
        let bytes = with_mail(&Mail::default(), vec![1, 9]).unwrap();
        assert_eq!(bytes, [1, 9]);
        assert_eq!(split_mail(&bytes).unwrap(), (Mail::default(), &[1, 9][..]));
    }

    #[test]
    fn a_snapshot_that_was_cut_is_refused() {
        let bytes = with_mail(&mail(), vec![]).unwrap();
        for length in 1..bytes.len() {
            assert!(split_mail(&bytes[..length]).is_err(), "{length}");
        }
        assert!(split_mail(&[WITH_MAIL, 255, 255, 255, 255, 1]).is_err());
        assert!(parse_id("no kind").is_err());
    }
}
