//! Format tests: golden bytes of each released format, and refusal of everything else.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Golden {
    Unit,
    Numbers {
        small: u8,
        large: u64,
        negative: i64,
        real: f64,
    },
    Nested(Option<Vec<String>>, BTreeMap<u16, (bool, char)>),
}

fn golden() -> [Golden; 3] {
    let names = vec!["".to_owned(), "Otava".to_owned(), "ä".to_owned()];
    [
        Golden::Unit,
        Golden::Numbers {
            small: 7,
            large: u64::MAX,
            negative: -300,
            real: 0.5,
        },
        Golden::Nested(
            Some(names),
            BTreeMap::from([(1, (true, 'x')), (300, (false, 'ö'))]),
        ),
    ]
}

/// P8: what version 1 wrote is read for good, and is written the same.
#[test]
fn golden_bytes_of_format_1() {
    let files: [&[u8]; 3] = [
        include_bytes!("../../fixtures/v1/unit.bin"),
        include_bytes!("../../fixtures/v1/numbers.bin"),
        include_bytes!("../../fixtures/v1/nested.bin"),
    ];
    for (value, bytes) in golden().iter().zip(files) {
        assert_eq!(encode(value).as_deref(), Ok(bytes), "{value:?}");
        assert_eq!(decode::<Golden>(bytes).as_ref(), Ok(value));
    }
}

/// The checksum is part of the format: its numbers never change.
#[test]
fn checksums_are_fixed() {
    let record = EventRecord::new("bank.Deposited", 3, vec![1, 2, 3]);
    let sum = |seq, at| checksum("account|7", seq, at, RecordRef::new(&record, &[]));
    assert_eq!(sum(1, 1_700_000_000_000), 0x347E_CC50);
    assert_ne!(sum(1, 1_700_000_000_000), sum(2, 1_700_000_000_000));
    assert_ne!(sum(1, 1_700_000_000_000), sum(1, 1_700_000_000_001));
    let tags = crate::logic::tags::encode(&["vip".into(), "ä".into()]);
    let tagged = RecordRef::new(&record, &tags);
    assert_eq!(
        checksum("account|7", 1, 1_700_000_000_000, tagged),
        0xC5E6_BA7F
    );
}

/// However long its parts are, it is the CRC-32 of all of them in a row.
#[test]
fn a_checksum_is_of_the_bytes_in_a_row() {
    for (id, name) in [
        (3, 3),
        (100, 100),
        (252, 9),
        (300, 3),
        (3, 255),
        (1024, 256),
    ] {
        let (id, name) = ("i".repeat(id), "n".repeat(name));
        let record = EventRecord::new(name.as_str(), 7, vec![5; 40]);
        let mut bytes = (id.len() as u32).to_le_bytes().to_vec();
        bytes.extend(id.as_bytes());
        bytes.extend(9_u64.to_le_bytes());
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(7_u16.to_le_bytes());
        bytes.extend(11_u64.to_le_bytes());
        bytes.extend([5; 40]);
        let sum = checksum(&id, 9, 11, RecordRef::new(&record, &[]));
        assert_eq!(sum, crc32fast::hash(&bytes));
    }
}

#[test]
fn what_is_not_of_this_format_is_refused() {
    assert_eq!(decode::<u8>(&[]), Err(FormatError::UnknownFormat(None)));
    assert_eq!(
        decode::<u8>(&[2, 7]),
        Err(FormatError::Sealed("no keys were given"))
    );
    assert_eq!(
        decode::<u8>(&[9, 7]),
        Err(FormatError::UnknownFormat(Some(9)))
    );
    assert_eq!(decode::<u8>(&[1, 7, 8]), Err(FormatError::LeftOver(1)));
    assert!(matches!(
        decode::<String>(&[1, 5, b'a']),
        Err(FormatError::Decode(_))
    ));
}

/// A length of 2^40 in a few bytes is refused at once, not allocated.
#[test]
fn a_claimed_length_is_not_believed() {
    let mut bytes = vec![FORMAT, 253];
    bytes.extend((1_u64 << 40).to_le_bytes());
    assert!(matches!(
        decode::<Vec<u8>>(&bytes),
        Err(FormatError::Decode(_))
    ));
    assert!(matches!(
        decode::<Vec<u64>>(&bytes),
        Err(FormatError::Decode(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        bytes.insert(0, FORMAT);
        drop(decode::<Golden>(&bytes));
        drop(decode::<Vec<Golden>>(&bytes));
    }
}
