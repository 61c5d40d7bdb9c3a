//! Wire tests: golden bytes of each released format, and refusal of everything else.

use super::*;
use crate::logic::replicated::draft::Draft;
use proptest::prelude::*;
use std::path::Path;

const A: Replica = Replica(0xA11CE);
const B: Replica = Replica(0xB0B);

fn element(text: &str) -> Element {
    Element::from(text.as_bytes())
}

fn edited(blank: &Store, edit: impl Fn(&mut Draft)) -> Causal {
    let mut value = Arc::new(Causal::empty(blank));
    for replica in [A, B] {
        let mut draft = Draft::new(value, replica, 1_700_000_000_000_000);
        edit(&mut draft);
        value = draft.finish().value;
    }
    Arc::unwrap_or_clone(value)
}

fn values() -> Vec<(&'static str, Causal)> {
    let set = Store::Set(BTreeMap::new());
    let set_value = edited(&set, |draft| {
        draft.insert(element("one"));
        draft.insert(element("two"));
        draft.remove(&element("one"));
    });
    let map = edited(&Store::Map(BTreeMap::new()), |draft| {
        let key = element("cart");
        let mut inner = draft.take(&key, Store::Set(BTreeMap::new()));
        inner.insert(element("apple"));
        draft.put(key, inner.finish());
    });
    vec![
        (
            "counter",
            edited(&Store::Counter(Dots::new()), |draft| draft.count(300, 7)),
        ),
        (
            "flag",
            edited(&Store::Flag(Dots::new()), |draft| draft.switch(true)),
        ),
        (
            "register",
            edited(&Store::Register(Dots::new()), |draft| {
                draft.set(9, element("new"));
            }),
        ),
        ("set", set_value),
        ("map", map),
    ]
}

fn state(value: Causal) -> State {
    let renaming = Renaming {
        from: Replica(3),
        to: A,
        offset: 300,
        count: 5,
    };
    let performed = Pruning::Performed {
        renaming,
        expires: 1_700_000_000_000,
    };
    let started = Pruning::Started {
        owner: B,
        seen: [A, B].into(),
    };
    State {
        key: "cart-17".into(),
        type_name: "set<string>".into(),
        content: Content::Live(Arc::new(value)),
        marks: Marks::from([(Replica(3), performed), (Replica(4), started)]),
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let key = Key::from("cart-17");
    let value = values()[3].1.clone();
    let deleted = State {
        content: Content::Deleted,
        marks: Marks::new(),
        ..state(value.clone())
    };
    let answer = |answer| Message::ReadAnswer { id: 300, answer };
    let delta = Delta {
        key: key.clone(),
        type_name: "set<string>".into(),
        base: 7,
        last: 300,
        delta: Arc::new(value.clone()),
        marks: Marks::new(),
    };
    let bucket = Message::Bucket {
        bucket: 255,
        after: None,
        until: Some(key.clone()),
        held: vec![(key.clone(), u64::MAX)],
    };
    vec![
        (
            "ack",
            Message::Ack {
                key: key.clone(),
                last: 300,
            },
        ),
        ("behind", Message::Behind { key: key.clone() }),
        ("bucket", bucket),
        ("delta", Message::Delta(delta)),
        (
            "read",
            Message::Read {
                id: 7,
                key: key.clone(),
                known: 9,
            },
        ),
        ("nothing", answer(ReadAnswer::Nothing)),
        ("same", answer(ReadAnswer::Same)),
        ("found", answer(ReadAnswer::State(state(value.clone())))),
        (
            "state",
            Message::State {
                last: Some(4),
                state: state(value),
            },
        ),
        (
            "deleted",
            Message::State {
                last: None,
                state: deleted,
            },
        ),
        ("summary", Message::Summary(vec![1, u64::MAX])),
        ("want", Message::Want(vec![key])),
    ]
}

/// The bytes of version 1; with `UPDATE=1` a file that is not there yet is written.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1/replicated");
    let path = folder.join(format!("{name}.bin"));
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(path).unwrap()
}

/// What version 1 wrote is read for good, and is written the same.
#[test]
fn golden_bytes_of_format_1() {
    for (name, message) in messages() {
        let bytes = encode_messages(std::slice::from_ref(&message)).unwrap();
        assert_eq!(bytes, golden(&format!("message_{name}"), &bytes), "{name}");
        assert_eq!(decode_messages(&bytes), Ok(vec![message]));
    }
    for (name, value) in values() {
        let state = state(value);
        let bytes = encode_state(&state).unwrap();
        assert_eq!(bytes, golden(&format!("stored_{name}"), &bytes), "{name}");
        assert_eq!(decode_state(&bytes), Ok(state));
    }
}

#[test]
fn what_is_not_sound_is_refused() {
    let refused = |value: WireCausal| {
        let state = WireState {
            key: "k".into(),
            type_name: "t".into(),
            value: Some(value),
            marks: Vec::new(),
        };
        matches!(
            decode_state(&pack(&state).unwrap()),
            Err(WireError::Malformed(_))
        )
    };
    let value = |seen, dot| WireCausal {
        replicas: vec![1],
        seen,
        store: WireStore::Flag(vec![dot]),
    };
    assert!(!refused(value(vec![(0, 1, 2)], (0, 2))));
    assert!(refused(value(vec![(0, 1, 2)], (0, 3))), "not seen");
    assert!(refused(value(vec![(0, 1, 2)], (1, 2))), "nobody");
    assert!(refused(value(vec![(0, 2, 1)], (0, 2))), "an empty range");
    assert!(refused(value(vec![(0, 4, 4), (0, 1, 2)], (0, 2))), "order");
    assert!(
        refused(value(vec![(0, 1, 2), (0, 3, 4)], (0, 2))),
        "touching"
    );
    assert!(
        refused(value(vec![(0, 0, 1)], (0, 1))),
        "there is no write 0"
    );
    assert_eq!(decode_state(&[2, 0]), Err(WireError::Version(2)));
    assert!(decode_state(&[]).is_err());
}

#[test]
fn every_cut_of_a_message_is_refused() {
    let all: Vec<Message> = messages().into_iter().map(|(_, message)| message).collect();
    let bytes = encode_messages(&all).unwrap();
    for end in 0..bytes.len() {
        assert!(decode_messages(&bytes[..end]).is_err(), "at {end}");
    }
}

/// A hundred maps in each other are more than a peer reads: that is an error here, not over there.
#[test]
fn too_deep_a_value_is_not_encoded() {
    let mut store = Store::Flag(Dots::new());
    for _ in 0..100 {
        store = Store::Map(BTreeMap::from([(element("k"), store)]));
    }
    let value = Causal {
        store,
        context: Context::new(),
    };
    assert!(matches!(
        encode_state(&state(value)),
        Err(WireError::NotEncodable(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let versioned = [&[VERSION, 1], &bytes[..]].concat();
        let _ = decode_messages(&versioned);
        let _ = decode_state(&versioned);
        let _ = decode_messages(&bytes);
    }
}
