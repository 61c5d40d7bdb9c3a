//! Fuzzing: each decoder of stored bytes, behind a function of bytes. Only with the feature `fuzzing`.
//!
//! Each answers whether the bytes were accepted, and panics where a promise is broken: what was
//! accepted must be written and read again as the same.

use crate::format::mail::{Confirmed, Mail, Outgoing, Received, split_mail, with_mail};
use crate::format::sealed::{KEY_BYTES, Seal, Spot, What};
use crate::format::{decode, encode};
use crate::id::PersistenceId;
use crate::logic::tags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// What a user's state may look like.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
enum Content {
    Empty,
    Many(Vec<Content>),
    Named(BTreeMap<String, Option<u64>>),
}

/// What is stored of an event or a state: the first byte says as what the rest is read.
pub fn stored(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((0, rest)) => payload::<Outgoing>(rest),
        Some((1, rest)) => payload::<Confirmed>(rest),
        Some((2, rest)) => payload::<Received>(rest),
        Some((3, rest)) => payload::<Mail>(rest),
        Some((4, rest)) => payload::<Content>(rest),
        Some((5, rest)) => snapshot(rest),
        Some((6, rest)) => sealed(rest),
        Some((7, rest)) => tags::decode(rest).is_some_and(|tags| tags::encode(&tags) == rest),
        _ => false,
    }
}

fn payload<T: DeserializeOwned + Serialize + Debug + PartialEq>(bytes: &[u8]) -> bool {
    let Ok(value) = decode::<T>(bytes) else {
        return false;
    };
    let written = encode(&value).unwrap_or_default();
    assert_eq!(decode(&written), Ok(value));
    true
}

/// A snapshot with its mail, which is taken apart, put into its boxes and written from there.
fn snapshot(bytes: &[u8]) -> bool {
    let Ok((mail, state)) = split_mail(bytes) else {
        return false;
    };
    let Ok((outbox, inbox)) = mail.into_boxes() else {
        return false;
    };
    let mail = Mail::of(&outbox, &inbox);
    // A state that looks like one with mail is nobody's: each has the byte of its own format.
    if decode::<Content>(state).is_ok() {
        let written = with_mail(&mail, state.to_vec()).unwrap_or_default();
        assert_eq!(split_mail(&written), Ok((mail, state)));
    }
    true
}

fn spot(id: &PersistenceId) -> Spot<'_> {
    Spot {
        what: What::Event,
        id,
        seq: 7,
        name: "bank.Deposited",
        version: 3,
    }
}

fn sealed(bytes: &[u8]) -> bool {
    let id = PersistenceId::new("account", "7");
    let seal = Seal::new(&[9; KEY_BYTES]);
    let Ok(opened) = seal.open(spot(&id), bytes.to_vec().into()) else {
        return false;
    };
    let closed = seal.close(spot(&id), &opened).unwrap_or_default();
    assert_eq!(seal.open(spot(&id), closed.into()), Ok(opened));
    true
}

/// Seeds for [`stored`].
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let received = || Received {
        from: "account|c".to_owned(),
        number: 4,
    };
    let confirmed = Confirmed {
        to: "account|b".to_owned(),
        up_to: 300,
    };
    let outgoing = Outgoing {
        to: "account|b".to_owned(),
        number: 301,
        name: "bank.Credit".to_owned(),
        version: 2,
        payload: vec![1, 7],
    };
    let content = Content::Many(vec![
        Content::Empty,
        Content::Named(BTreeMap::from([("a".to_owned(), Some(300))])),
    ]);
    let golden = b"\x03\x2d\x00\x00\x00\
        \x01\x01\x09account|b\xfb\x2c\x01\x01\x0bbank.Credit\x02\x02\x01\x07\x0c\
        \x01\x09account|c\x04\x01\x00";
    // Format 2, as `format::sealed` has it.
    let opens = b"\x02\x01\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\x04\
        \xf1\x4e\x9f\x9f\xe8\x35\x8d\x2f\xa9\x5d\x86\x86\x0e\xeb\xdd\xe0\x7d\xd9";
    let mail = Mail {
        lanes: Vec::new(),
        taken: vec![received()],
    };
    let tags = tags::encode(&[Arc::from("vip"), Arc::from("ä")]);
    let seed = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let of = |kind, bytes: Result<Vec<u8>, _>| seed(kind, &bytes.unwrap_or_default());
    vec![
        ("confirmed", of(1, encode(&confirmed))),
        ("content", of(4, encode(&content))),
        ("mail", of(3, encode(&mail))),
        ("outgoing", of(0, encode(&outgoing))),
        ("received", of(2, encode(&received()))),
        ("sealed", seed(6, opens)),
        ("snapshot", seed(5, golden)),
        ("tags", seed(7, &tags)),
    ]
}
