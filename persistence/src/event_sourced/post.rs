//! Post: outbox and inbox of one entity, and the records by which they change.

use crate::event_sourced::RecoveryError;
use crate::event_sourced::letter::Sending;
use crate::format::mail::{self, Confirmed, Mail, Outgoing, Received};
use crate::format::sealed::{Seal, Spot, What};
use crate::format::{FormatError, decode};
use crate::id::PersistenceId;
use crate::journal::{EventRecord, StoredEvent};
use crate::logic::inbox::Inbox;
use crate::logic::outbox::{Outbox, Waiting};
use std::sync::Arc;

/// The tag of every record that says which letters wait: [`crate::OutboxFinder`] reads it.
pub(crate) const OUTBOX_TAG: &str = "otava.outbox";

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Post {
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
}

/// Encrypts and decrypts what one entity writes, if it has a key.
pub(super) struct Codec {
    id: PersistenceId,
    pub(super) seal: Option<Seal>,
}

impl Codec {
    /// Without a key nothing is encrypted, and what is stays so.
    pub(super) fn new(id: PersistenceId) -> Self {
        let seal = None;
        Self { id, seal }
    }

    fn spot<'a>(&'a self, what: What, seq: u64, name: &'a str, version: u16) -> Spot<'a> {
        Spot {
            what,
            id: &self.id,
            seq,
            name,
            version,
        }
    }

    pub(super) fn close(
        &self,
        (what, seq): (What, u64),
        (name, version): (&str, u16),
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, FormatError> {
        match &self.seal {
            Some(seal) => seal.close(self.spot(what, seq, name, version), &payload),
            None => Ok(payload),
        }
    }

    pub(super) fn open(
        &self,
        (what, seq): (What, u64),
        (name, version): (&str, u16),
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, FormatError> {
        match &self.seal {
            Some(seal) => seal.open(self.spot(what, seq, name, version), payload),
            None => Ok(payload),
        }
    }

    pub(super) fn close_event(
        &self,
        seq: u64,
        mut record: EventRecord,
    ) -> Result<EventRecord, FormatError> {
        let of = (&*record.name, record.version);
        record.payload = self.close((What::Event, seq), of, record.payload)?;
        Ok(record)
    }

    fn close_letter(
        &self,
        seq: u64,
        name: &str,
        version: u16,
        payload: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        self.close((What::Letter, seq), (name, version), payload.to_vec())
    }

    fn open_letter(
        &self,
        seq: u64,
        name: &str,
        version: u16,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, FormatError> {
        self.open((What::Letter, seq), (name, version), payload)
    }
}

/// One change of outbox or inbox, before it is a record and after it was one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Confirmed {
        to: PersistenceId,
        up_to: u64,
    },
    /// The entity was deleted; this is what outlives it.
    Deleted(Post),
    Received {
        from: PersistenceId,
        number: u64,
    },
    Sent {
        to: PersistenceId,
        number: u64,
        letter: Waiting,
    },
}

impl Change {
    /// A letter that an effect sends, as the record `seq`. `earlier`: how many letters to the same
    /// target the effect sends before it.
    pub(super) fn sent(
        post: &Post,
        sending: Sending,
        earlier: u64,
        seq: u64,
    ) -> Result<Self, FormatError> {
        let letter = Waiting {
            name: sending.name.into(),
            version: sending.version,
            payload: sending.payload?,
            seq,
        };
        let number = post.outbox.next_number(&sending.to) + earlier;
        let to = sending.to;
        Ok(Self::Sent { to, number, letter })
    }

    /// The record of this, which will be the one with the number `seq`.
    pub(super) fn record(&self, codec: &Codec, seq: u64) -> Result<EventRecord, FormatError> {
        let outbox_tag = || vec![Arc::from(OUTBOX_TAG)];
        Ok(match self {
            Self::Confirmed { to, up_to } => {
                let to = to.to_string();
                let content = Confirmed { to, up_to: *up_to };
                mail::record(mail::CONFIRMED, &content)?.tagged(outbox_tag())
            }
            Self::Deleted(post) => {
                let mut content = Mail::of(&post.outbox, &post.inbox);
                for letter in content.letters() {
                    letter.payload =
                        codec.close_letter(seq, &letter.name, letter.version, &letter.payload)?;
                }
                mail::record(mail::DELETED, &content)?.tagged(outbox_tag())
            }
            Self::Received { from, number } => {
                let (from, number) = (from.to_string(), *number);
                mail::record(mail::RECEIVED, &Received { from, number })?
            }
            Self::Sent { to, number, letter } => {
                let content = Outgoing {
                    to: to.to_string(),
                    number: *number,
                    name: letter.name.to_string(),
                    version: letter.version,
                    payload: codec.close_letter(
                        seq,
                        &letter.name,
                        letter.version,
                        &letter.payload,
                    )?,
                };
                mail::record(mail::OUTGOING, &content)?.tagged(outbox_tag())
            }
        })
    }

    /// Reads a record of Otava's own. What is sealed stays so when there is no key.
    pub(super) fn of(stored: &StoredEvent, codec: &Codec) -> Result<Self, RecoveryError> {
        let (seq, record) = (stored.seq, &stored.record);
        let (name, version, bytes) = (&record.name, record.version, &record.payload);
        if version != mail::VERSION {
            return Err(unknown(seq, name, version));
        }
        let change = match &**name {
            mail::CONFIRMED => decode(bytes).and_then(|Confirmed { to, up_to }| {
                let to = mail::parse_id(&to)?;
                Ok(Self::Confirmed { to, up_to })
            }),
            mail::DELETED => decode::<Mail>(bytes).and_then(|mut mail| {
                for letter in mail.letters() {
                    let payload = std::mem::take(&mut letter.payload);
                    letter.payload =
                        codec.open_letter(seq, &letter.name, letter.version, payload)?;
                }
                let (outbox, inbox) = mail.into_boxes()?;
                Ok(Self::Deleted(Post { outbox, inbox }))
            }),
            mail::RECEIVED => decode(bytes).and_then(|Received { from, number }| {
                let from = mail::parse_id(&from)?;
                Ok(Self::Received { from, number })
            }),
            mail::OUTGOING => decode(bytes).and_then(|outgoing| sent_of(outgoing, seq, codec)),
            _ => return Err(unknown(seq, name, version)),
        };
        change.map_err(|source| RecoveryError::Decode {
            seq,
            name: Arc::clone(name),
            version,
            source,
        })
    }
}

fn sent_of(outgoing: Outgoing, seq: u64, codec: &Codec) -> Result<Change, FormatError> {
    let (name, version) = (outgoing.name, outgoing.version);
    let letter = Waiting {
        payload: codec.open_letter(seq, &name, version, outgoing.payload)?,
        name: name.into(),
        version,
        seq,
    };
    Ok(Change::Sent {
        to: mail::parse_id(&outgoing.to)?,
        number: outgoing.number,
        letter,
    })
}

fn unknown(seq: u64, name: &Arc<str>, version: u16) -> RecoveryError {
    RecoveryError::UnknownEvent {
        seq,
        name: Arc::clone(name),
        version,
        known: "otava.*",
        known_version: mail::VERSION,
    }
}

impl Post {
    /// Takes in a change that is durable.
    ///
    /// # Errors
    /// It does not follow from what was before, said in words.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Confirmed { to, up_to } => {
                let confirmed = self.outbox.confirmed(&to, up_to);
                confirmed.map_err(|wrong| {
                    let (last, up_to) = (wrong.expected, wrong.found);
                    format!("letter {up_to} to {to} is confirmed, but the last one is {last}")
                })
            }
            Change::Deleted(post) => {
                *self = post;
                Ok(())
            }
            Change::Received { from, number } => {
                let taken = self.inbox.take(&from, number);
                taken.map_err(|next| {
                    format!("letter {number} of {from} is taken, but {next} would be next")
                })
            }
            Change::Sent { to, number, letter } => {
                let sent = self.outbox.sent(&to, number, letter);
                sent.map_err(|wrong| {
                    let (next, number) = (wrong.expected, wrong.found);
                    format!("letter {number} to {to} is sent, but {next} would be next")
                })
            }
        }
    }
}
