//! Payload tests: values cross unchanged, and hostile bytes are refused at little cost.

use super::*;
use crate::wire_format::payload::DecodeError::{Malformed, TooDeep, TooLong, TooManyEmpty};
use proptest::prelude::*;
use serde::de::Visitor;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// One of everything that serde tells apart.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Shape {
    Empty,
    Numbers(u8, u16, u32, u64, u128),
    Signed(i8, i16, i32, i64, i128),
    Other {
        real: f64,
        small: f32,
        letter: char,
        yes: bool,
    },
    Texts(Vec<String>, Option<Box<str>>, Blob),
    Wrapped(Wrapped),
    Nested(Option<Box<Shape>>),
    Map(BTreeMap<String, (Unit, [u16; 3])>),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Unit;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Wrapped(i64);

/// Goes through `serialize_bytes`.
#[derive(Clone, Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Empty),
        any::<(u8, u16, u32, u64, u128)>()
            .prop_map(|(a, b, c, d, e)| Shape::Numbers(a, b, c, d, e)),
        any::<(i8, i16, i32, i64, i128)>().prop_map(|(a, b, c, d, e)| Shape::Signed(a, b, c, d, e)),
        any::<(i32, i16, char, bool)>().prop_map(|(real, small, letter, yes)| Shape::Other {
            real: real.into(),
            small: small.into(),
            letter,
            yes,
        }),
        any::<(Vec<String>, Option<Box<str>>, Vec<u8>)>()
            .prop_map(|(texts, text, blob)| Shape::Texts(texts, text, Blob(blob))),
        any::<i64>().prop_map(|number| Shape::Wrapped(Wrapped(number))),
        any::<BTreeMap<String, [u16; 3]>>().prop_map(|map| Shape::Map(
            map.into_iter()
                .map(|(key, numbers)| (key, (Unit, numbers)))
                .collect()
        )),
    ];
    leaf.prop_recursive(8, 8, 1, |inner| {
        prop::option::of(inner.prop_map(Box::new)).prop_map(Shape::Nested)
    })
}

fn payload(parts: &[&[u8]]) -> Vec<u8> {
    [&[&[FORMAT][..]], parts].concat().concat()
}

/// What the codec itself makes of a value.
fn by_the_codec<T: Serialize>(value: &T) -> Vec<u8> {
    let config = bincode::config::standard();
    payload(&[&bincode::serde::encode_to_vec(value, config).unwrap()])
}

/// A length as the codec writes it when it takes 64 bits.
fn length(number: u64) -> [u8; 9] {
    let mut bytes = [253; 9];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn values_cross_unchanged(values in prop::collection::vec(shape(), 0..4)) {
        let bytes = encode(&values).unwrap();
        prop_assert_eq!(&bytes, &by_the_codec(&values));
        prop_assert_eq!(decode::<Vec<Shape>>(&bytes), Ok(values));
    }

    /// R5: the end may be missing anywhere.
    #[test]
    fn a_value_that_was_cut_is_refused(value in shape()) {
        let bytes = encode(&value).unwrap();
        for end in 0..bytes.len() {
            prop_assert!(decode::<Shape>(&bytes[..end]).is_err(), "{} bytes", end);
        }
    }

    /// R5: no bytes panic, and what is accepted is what the codec itself makes of the bytes.
    #[test]
    fn no_bytes_are_understood_differently(body in prop::collection::vec(any::<u8>(), 0..300)) {
        agrees_with_the_codec::<Shape>(&body);
        agrees_with_the_codec::<Vec<Shape>>(&body);
        agrees_with_the_codec::<BTreeMap<Option<u8>, Vec<Wrapped>>>(&body);
        agrees_with_the_codec::<(String, Option<char>, bool, Vec<(i16, u128)>)>(&body);
    }

    /// The same with bytes that lie close to a value.
    #[test]
    fn no_damage_is_understood_differently(
        value in prop::collection::vec(shape(), 0..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(&value).unwrap();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        agrees_with_the_codec::<Vec<Shape>>(&bytes[1..]);
    }

    #[test]
    fn a_limit_is_exact(value in shape()) {
        let whole = encode(&value).unwrap();
        let mut out = vec![7];
        prop_assert_eq!(encode_into(&value, &mut out, whole.len()), Ok(()));
        prop_assert_eq!(&out[1..], &whole[..]);
        let limit = whole.len() - 1;
        prop_assert_eq!(
            encode_into(&value, &mut out, limit),
            Err(EncodeError::TooLarge { limit })
        );
        prop_assert_eq!(&out[1..], &whole[..]);
    }
}

fn agrees_with_the_codec<T: DeserializeOwned + fmt::Debug + PartialEq>(body: &[u8]) {
    let ours = decode::<T>(&payload(&[body]));
    let config = bincode::config::standard().with_limit::<{ 1 << 20 }>();
    match (
        ours,
        bincode::serde::decode_from_slice::<T, _>(body, config),
    ) {
        // f32 and f64 may be no number
        (Ok(ours), Ok((theirs, read))) => {
            assert_eq!(
                (format!("{ours:?}"), body.len()),
                (format!("{theirs:?}"), read)
            );
        }
        (Ok(ours), Err(error)) => panic!("{ours:?}, but the codec says {error:?}"),
        (Err(DecodeError::LeftOver(left)), Ok((_, read))) => assert_eq!(left, body.len() - read),
        (Err(TooDeep { .. } | TooLong { .. } | TooManyEmpty { .. }), _) | (Err(_), Err(_)) => {}
        (Err(error), Ok((theirs, _))) => panic!("{error:?}, but the codec says {theirs:?}"),
    }
}

#[test]
fn what_is_not_of_this_format_is_refused() {
    assert_eq!(decode::<u8>(&[]), Err(DecodeError::UnknownFormat(None)));
    assert_eq!(
        decode::<u8>(&[2, 7]),
        Err(DecodeError::UnknownFormat(Some(2)))
    );
    assert_eq!(decode::<u8>(&[1]), Err(DecodeError::Truncated));
    assert_eq!(decode::<u8>(&[1, 7, 8]), Err(DecodeError::LeftOver(1)));
    assert_eq!(decode::<()>(&[1]), Ok(()));
}

#[test]
fn the_limit_holds_whatever_the_format_byte_takes() {
    let mut out = Vec::new();
    let refused = Err(EncodeError::TooLarge { limit: 0 });
    assert_eq!(encode_into(&(), &mut out, 0), refused);
    assert!(out.is_empty());
    assert_eq!(encode_into(&(), &mut out, 1), Ok(()));
}

/// X7: values in values, 10,000 times, in all the ways in which types can contain themselves.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Tree {
    Leaf,
    Newtype(Box<Tree>),
    Tuple(Box<Tree>, Box<Tree>),
    Struct { inner: Box<Tree> },
    Optional(Option<Box<Tree>>),
    Sequence(Vec<Tree>),
    Map(BTreeMap<u8, Tree>),
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Link(Option<Box<Link>>);

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Pair(Option<Box<Pair>>, u8);

/// Runs `test` on a stack of 256 KiB, an eighth of what threads have.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 * 1024);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn deep_values_are_refused_before_the_stack_ends() {
    on_a_small_stack(|| {
        let refused = TooDeep { limit: DEPTH_MAX };
        let levels: [&[u8]; 6] = [&[1], &[2], &[3], &[4, 1], &[5, 1], &[6, 1, 0]];
        for level in levels {
            let bytes = payload(&[&level.repeat(10_000)]);
            assert_eq!(decode::<Tree>(&bytes).unwrap_err(), refused, "{level:?}");
        }
        let bytes = payload(&[&[1].repeat(10_000)]);
        assert_eq!(decode::<Link>(&bytes).unwrap_err(), refused);
        assert_eq!(decode::<Chain>(&bytes).unwrap_err(), refused);
        assert_eq!(decode::<Pair>(&bytes).unwrap_err(), refused);
    });
}

#[test]
fn the_deepest_value_allowed_fits_a_small_stack() {
    on_a_small_stack(|| {
        let deepest = (1..DEPTH_MAX).fold(Tree::Leaf, |inner, _| Tree::Newtype(Box::new(inner)));
        let bytes = encode(&deepest).unwrap();
        assert_eq!(decode::<Tree>(&bytes).as_ref(), Ok(&deepest));
        let deeper = Tree::Newtype(Box::new(deepest));
        let refused = EncodeError::TooDeep { limit: DEPTH_MAX };
        assert_eq!(encode(&deeper), Err(refused));
        let bytes = by_the_codec(&deeper);
        assert_eq!(decode::<Tree>(&bytes), Err(TooDeep { limit: DEPTH_MAX }));
        let mut nested = Tree::Leaf;
        for level in 0..DEPTH_MAX / 2 - 1 {
            nested = match level % 2 {
                0 => Tree::Map(BTreeMap::from([(1, nested)])),
                _ => Tree::Sequence(vec![nested]),
            };
        }
        let bytes = encode(&nested).unwrap();
        assert_eq!(decode::<Tree>(&bytes), Ok(nested));
    });
}

/// X7: a length of 2^60, and the longest there is.
#[test]
fn a_claimed_length_is_not_believed() {
    fn refused<T: DeserializeOwned + fmt::Debug + PartialEq>() {
        for claimed in [1 << 60, u64::MAX, 1 << 40, 1 << 32] {
            let bytes = payload(&[&length(claimed), &[0; 20]]);
            let began = Instant::now();
            let error = decode::<T>(&bytes).unwrap_err();
            assert_eq!(error, TooLong { claimed, left: 20 });
            assert!(began.elapsed() < Duration::from_secs(5));
        }
    }
    refused::<Vec<u8>>();
    refused::<Vec<u64>>();
    refused::<Vec<[u64; 32]>>();
    refused::<Vec<()>>();
    refused::<Vec<Unit>>();
    refused::<BTreeMap<(), ()>>();
    refused::<HashMap<u8, String>>();
    let text = payload(&[&length(1 << 60), b"abc"]);
    assert_eq!(decode::<String>(&text), Err(DecodeError::Truncated));
    assert_eq!(decode::<Blob>(&text), Err(DecodeError::Truncated));
}

/// Collections in collections cannot each claim the same bytes.
#[test]
fn claims_add_up() {
    let five = [251, 0x88, 0x13];
    let bytes = payload(&[&five, &five, &[0; 5000]]);
    let error = decode::<Vec<Vec<u8>>>(&bytes).unwrap_err();
    assert_eq!(
        error,
        TooLong {
            claimed: 5000,
            left: 5000
        }
    );
    let honest = vec![vec![7_u8; 3000]; 3];
    assert_eq!(decode(&encode(&honest).unwrap()), Ok(honest));
}

/// X7: elements that take no byte are few, in all collections of a payload together.
#[test]
fn elements_of_no_size_are_counted() {
    let most = vec![(); EMPTY_ELEMENTS_MAX];
    assert_eq!(decode(&encode(&most).unwrap()), Ok(most));
    let more = vec![(); EMPTY_ELEMENTS_MAX + 1];
    let limit = EMPTY_ELEMENTS_MAX;
    assert_eq!(encode(&more), Err(EncodeError::TooManyEmpty { limit }));
    let more = by_the_codec(&more);
    let claimed = EMPTY_ELEMENTS_MAX as u64 + 1;
    assert_eq!(decode::<Vec<()>>(&more), Err(TooLong { claimed, left: 0 }));

    let hidden = by_the_codec(&(vec![(); 2000], vec![7_u8; 3000]));
    let error = decode::<(Vec<()>, Vec<u8>)>(&hidden).unwrap_err();
    assert_eq!(error, TooManyEmpty { limit });
    let spread = by_the_codec(&vec![vec![Unit; 200]; 50]);
    assert!(matches!(
        decode::<Vec<Vec<Unit>>>(&spread),
        Err(TooLong { .. } | TooManyEmpty { .. })
    ));

    let set: BTreeMap<u16, ()> = (0..5000).map(|key| (key, ())).collect();
    assert_eq!(
        decode(&encode(&set).unwrap()),
        Ok(set),
        "its keys take bytes"
    );
}

#[test]
fn texts_are_utf_8() {
    for text in [&[2, 0xff, 0xfe][..], &[1, 0xc3], &[3, 0xed, 0xa0, 0x80]] {
        let bytes = payload(&[text]);
        assert!(
            matches!(decode::<String>(&bytes), Err(Malformed(_))),
            "{text:?}"
        );
    }
    assert!(matches!(
        decode::<char>(&payload(&[&[0xff]])),
        Err(Malformed(_))
    ));
    assert!(matches!(
        decode::<bool>(&payload(&[&[2]])),
        Err(Malformed(_))
    ));
    assert!(matches!(
        decode::<Option<()>>(&payload(&[&[2]])),
        Err(Malformed(_))
    ));
    let variant = decode::<Shape>(&payload(&[&[200]])).unwrap_err();
    assert!(variant.to_string().contains("200"), "{variant}");
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
enum Untagged {
    Number(u8),
    Text(String),
}

/// Says that it has so many elements, and has 4.
struct Four(Option<usize>);

impl Serialize for Four {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut elements = serializer.serialize_seq(self.0)?;
        for number in 0..4_u8 {
            elements.serialize_element(&number)?;
        }
        elements.end()
    }
}

/// Turns whatever goes wrong inside it into an error of its own.
struct Secretive(Vec<u8>);

impl Serialize for Secretive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let result = self.0.serialize(serializer);
        result.map_err(|_| serde::ser::Error::custom("something"))
    }
}

#[test]
fn types_that_do_not_fit_are_refused() {
    let bytes = encode(&Untagged::Number(7)).unwrap();
    let error = decode::<Untagged>(&bytes).unwrap_err();
    assert!(matches!(error, DecodeError::Unsupported(_)), "{error:?}");
    let refused = |says: &str| Err(EncodeError::Refused(says.to_owned()));
    assert_eq!(
        encode(&Four(None)),
        refused("a collection of unknown length")
    );
    let wrong = refused("a collection has not as many elements as it says");
    assert_eq!(encode(&Four(Some(3))), wrong);
    assert_eq!(encode(&Four(Some(5))), wrong);
    assert_eq!(encode(&Four(Some(4))), encode(&[0_u8, 1, 2, 3][..]));
    let large = Secretive(vec![7; 100]);
    let too_large = Err(EncodeError::TooLarge { limit: 50 });
    assert_eq!(encode_into(&large, &mut Vec::new(), 50), too_large);
}

/// What the walk costs beside the codec's own, best of several rounds:
/// `cargo test -p otava-remote --release --lib -- --ignored --nocapture decoding_costs`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement prints its result")]
fn decoding_costs() {
    fn measure<T: Serialize + DeserializeOwned>(what: &str, value: &T) {
        let bytes = encode(value).unwrap();
        let config = bincode::config::standard().with_limit::<{ 1 << 24 }>();
        let ours = nanoseconds(|| decode::<T>(black_box(&bytes)).unwrap());
        let codec = nanoseconds(|| {
            let body = &black_box(&bytes)[1..];
            bincode::serde::decode_from_slice::<T, _>(body, config).unwrap()
        });
        let mut out = Vec::new();
        let written = nanoseconds(|| {
            out.clear();
            encode_into(black_box(value), &mut out, 1 << 24).unwrap();
        });
        let codec_written = nanoseconds(|| {
            out.clear();
            let config = bincode::config::standard();
            bincode::serde::encode_into_std_write(black_box(value), &mut out, config).unwrap()
        });
        let length = bytes.len();
        println!(
            "{what}: {length} B, decode {ours:.0} ns (codec {codec:.0}), \
             encode {written:.0} (codec {codec_written:.0})"
        );
    }
    fn nanoseconds<T>(mut run: impl FnMut() -> T) -> f64 {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let began = Instant::now();
            for _ in 0..2000 {
                black_box(run());
            }
            best = best.min(began.elapsed().as_nanos() as f64 / 2000.0);
        }
        best
    }
    let small = (
        Shape::Numbers(1, 2, 3, 4, 5),
        "account-17".to_owned(),
        Some(300_u64),
    );
    measure("small", &small);
    measure("numbers", &(0..1000_u64).map(|n| n * n).collect::<Vec<_>>());
    measure("texts", &vec!["a text of some length".to_owned(); 100]);
    measure("bytes", &vec![7_u8; 1000]);
    let map: BTreeMap<String, (u32, Option<bool>)> = (0..100)
        .map(|n| (format!("key {n}"), (n, Some(true))))
        .collect();
    measure("map", &map);
}

/// An enum whose small variants take as much memory as its large one.
#[expect(clippy::large_enum_variant, reason = "that is what is tested")]
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Wide {
    Small,
    Large([u64; 32]),
    Boxed(Box<Wide>),
    Both(Box<(Wide, Wide)>),
}

/// R5, X7: what elements take in memory is bounded by the bytes that came.
#[test]
fn elements_that_take_more_memory_than_bytes_are_bounded() {
    let small = |number: usize| payload(&[&length(number as u64), &vec![0; number]]);
    let in_memory = |number: usize| number * size_of::<Wide>();
    let fits = MEMORY_FREE / size_of::<Wide>();
    assert_eq!(decode::<Vec<Wide>>(&small(fits)).unwrap().len(), fits);
    let many = 100_000;
    let limit = many + length(0).len();
    let limit = limit * MEMORY_FACTOR + MEMORY_FREE;
    assert!(in_memory(many) > limit);
    let refused = Err(DecodeError::TooMuchMemory { limit });
    assert_eq!(decode::<Vec<Wide>>(&small(many)), refused);
    // as the values of a map: each key takes a byte too, so half as many are refused
    let entries: Vec<u8> = (0..many).flat_map(|n| [(n % 251) as u8, 0]).collect();
    let map = payload(&[&length(many as u64), &entries]);
    let refused = decode::<BTreeMap<u8, Wide>>(&map);
    assert!(
        matches!(refused, Err(DecodeError::TooMuchMemory { .. })),
        "{refused:?}"
    );
    // behind boxes: each pair is a byte and two values
    let mut pairs = vec![3; many / 2];
    let number = pairs.len();
    pairs = pairs.iter().flat_map(|&pair| [pair, 0, 0]).collect();
    let boxed = payload(&[&length(number as u64), &pairs]);
    let refused = decode::<Vec<Wide>>(&boxed);
    assert!(
        matches!(refused, Err(DecodeError::TooMuchMemory { .. })),
        "{refused:?}"
    );
    // and what is as long as it is large is not
    let large: Vec<Wide> = (0..2_000)
        .map(|_| Wide::Boxed(Box::new(Wide::Large([u64::MAX; 32]))))
        .collect();
    assert_eq!(decode(&encode(&large).unwrap()), Ok(large));
}

/// Reads a text and says what is wrong with it, as code of programs does.
#[derive(Debug)]
struct Quoting;

impl<'de> Deserialize<'de> for Quoting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        Err(match text.strip_prefix('m') {
            Some(_) => D::Error::unknown_variant(&text, &[]),
            None => D::Error::custom(text),
        })
    }
}

/// An error is logged and remembered: a peer must not decide how long it is.
#[test]
fn an_error_quotes_only_the_beginning_of_what_was_sent() {
    for begin in ["m", "", "xy"] {
        let text = format!("{begin}{}", "ä".repeat(100_000));
        let words = match decode::<Quoting>(&encode(&text).unwrap()) {
            Err(Malformed(words)) => words,
            Err(DecodeError::NotUnderstood { method }) => method,
            other => panic!("{other:?}"),
        };
        assert!(
            words.len() < 300 && words.capacity() < 600,
            "{begin}: {}",
            words.len()
        );
        assert!(
            words.starts_with(begin) && words.ends_with("ä..."),
            "{words}"
        );
    }
}
