//! Codec: encrypts and decrypts what one entity writes, if it has a key.

use crate::format::FormatError;
use crate::format::sealed::{Seal, Spot, What};
use crate::id::PersistenceId;
use crate::journal::EventRecord;
use bytes::Bytes;

/// Encrypts and decrypts what one entity writes, if it has a key.
pub(crate) struct Codec {
    id: PersistenceId,
    pub(crate) seal: Option<Seal>,
}

impl Codec {
    /// Without a key nothing is encrypted, and what is stays so.
    pub(crate) fn new(id: PersistenceId) -> Self {
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

    pub(crate) fn close<P: AsRef<[u8]> + From<Vec<u8>>>(
        &self,
        (what, seq): (What, u64),
        (name, version): (&str, u16),
        payload: P,
    ) -> Result<P, FormatError> {
        let Some(seal) = &self.seal else {
            return Ok(payload);
        };
        let closed = seal.close(self.spot(what, seq, name, version), payload.as_ref())?;
        Ok(closed.into())
    }

    pub(crate) fn open(
        &self,
        (what, seq): (What, u64),
        (name, version): (&str, u16),
        payload: Bytes,
    ) -> Result<Bytes, FormatError> {
        match &self.seal {
            Some(seal) => seal.open(self.spot(what, seq, name, version), payload),
            None => Ok(payload),
        }
    }

    pub(crate) fn close_event(
        &self,
        seq: u64,
        mut record: EventRecord,
    ) -> Result<EventRecord, FormatError> {
        let of = (&*record.name, record.version);
        record.payload = self.close((What::Event, seq), of, record.payload)?;
        Ok(record)
    }

    pub(crate) fn close_letter(
        &self,
        seq: u64,
        name: &str,
        version: u16,
        payload: &[u8],
    ) -> Result<Vec<u8>, FormatError> {
        self.close((What::Letter, seq), (name, version), payload.to_vec())
    }

    pub(crate) fn open_letter(
        &self,
        seq: u64,
        name: &str,
        version: u16,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, FormatError> {
        let opened = self.open((What::Letter, seq), (name, version), payload.into());
        opened.map(Vec::from)
    }
}
