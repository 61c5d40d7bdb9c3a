//! Wire tests: golden bytes of each released format, and refusal of everything else.

use super::*;
use proptest::prelude::*;
use std::path::Path;

fn node(port: u16) -> NodeId {
    NodeId::new(
        "node",
        ([127, 0, 0, 1], port).into(),
        0xC0FFEE + u64::from(port),
    )
}

fn statement() -> Statement {
    let entry = |code: u8| Entry {
        status: Status::from_code(code).unwrap(),
        age: (code > 0).then_some(u64::from(code) * 300),
        started: 1_700_000_000_000,
        profile: None,
    };
    let view: View = (0u8..6)
        .map(|code| (node(7_000 + u16::from(code)), entry(code)))
        .collect();
    Statement {
        author: node(7_001),
        cluster: u64::MAX,
        version: 3,
        digest: 0x0123_4567_89AB_CDEF,
        view,
        unreachable: [node(7_002)].into(),
    }
}

/// A statement that only version 2 can say.
fn statement_of_2() -> Statement {
    let mut statement = statement();
    let weak = Entry::joining(300);
    let weak = Entry {
        status: Status::WeaklyUp,
        ..weak.with_profile(profile())
    };
    statement.view.add(&node(7_009), weak);
    statement.view.stop();
    statement
}

fn profile() -> Option<Arc<Profile>> {
    let roles = ["api", "db"].map(str::to_owned).into();
    let app_version = AppVersion::new("2.1.0-rc1").unwrap();
    Profile { roles, app_version }.shared()
}

fn messages_of_2() -> Vec<(&'static str, Message)> {
    let request = JoinRequest {
        started: 1_700_000_000_000,
        settings: BTreeMap::from([("downing".into(), "keep-majority".into())]),
        shared: BTreeMap::from([("min-members".into(), "3".into())]),
        profile: profile(),
    };
    let accepted = JoinAnswer::Accepted(Box::new(statement_of_2()));
    let candidate = Some(node(7_000).addr);
    let outside = JoinAnswer::Outside { candidate };
    let elsewhere = Beat {
        cluster: 300,
        kind: BeatKind::Elsewhere,
    };
    vec![
        ("request", Message::Request(request)),
        ("accepted", Message::Answer(9, accepted)),
        ("outside", Message::Answer(9, outside)),
        ("elsewhere", Message::Beat(elsewhere)),
    ]
}

fn gossip_of_2() -> Vec<(&'static str, GossipMessage)> {
    let statements = vec![Arc::new(statement_of_2()), Arc::new(statement())];
    let wanted = BTreeMap::from([(node(7_000), 1)]);
    vec![("delta", GossipMessage::Delta { statements, wanted })]
}

/// A view of two authors, and one of a third.
fn gossip_of_3() -> Vec<(&'static str, GossipMessage)> {
    let same = Statement {
        author: node(7_000),
        version: 300,
        ..statement_of_2()
    };
    let other = Statement {
        author: node(7_003),
        ..statement()
    };
    let first = Statement {
        author: node(7_009),
        version: 4,
        unreachable: BTreeSet::new(),
        ..same.clone()
    };
    let statements = [same, other, first].map(Arc::new).to_vec();
    let wanted = BTreeMap::from([(node(7_000), 1)]);
    vec![("delta", GossipMessage::Delta { statements, wanted })]
}

fn messages() -> Vec<(&'static str, Message)> {
    let beat = |kind| Message::Beat(Beat { cluster: 7, kind });
    let verdict = BeatKind::Verdict {
        incarnation: 300,
        status: Status::Down,
    };
    let differs = Refusal::SettingDiffers {
        setting: "downing".into(),
        ours: "keep-oldest".into(),
        theirs: "keep-majority".into(),
    };
    let request = JoinRequest {
        started: 1_700_000_000_000,
        settings: BTreeMap::from([("downing".into(), "keep-majority".into())]),
        shared: BTreeMap::new(),
        profile: None,
    };
    let accepted = JoinAnswer::Accepted(Box::new(statement()));
    vec![
        ("ping", beat(BeatKind::Ping)),
        ("pong", beat(BeatKind::Pong)),
        ("verdict", beat(verdict)),
        ("request", Message::Request(request)),
        ("accepted", Message::Answer(9, accepted)),
        ("not_yet", Message::Answer(9, JoinAnswer::NotYet)),
        ("out", Message::Answer(9, JoinAnswer::Refused(Refusal::Out))),
        ("differs", Message::Answer(9, JoinAnswer::Refused(differs))),
    ]
}

fn gossip() -> Vec<(&'static str, GossipMessage)> {
    let versions = BTreeMap::from([(node(7_000), 1), (node(7_001), 300)]);
    let delta = GossipMessage::Delta {
        statements: vec![Arc::new(statement())],
        wanted: versions.clone(),
    };
    vec![
        ("digest", GossipMessage::Digest(versions)),
        ("delta", delta),
    ]
}

/// The bytes that the version of `bytes` wrote; with `UPDATE=1` a file that is not there yet is
/// written.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let version = format!("fixtures/v{}", bytes[0]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(version);
    let path = folder.join(format!("{name}.bin"));
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(path).unwrap()
}

const WHEN_BYTES_CHANGE: &str = "the bytes of this message are not those of its format any more, so \
    members of both programs would misread each other. Take the change back; or raise VERSION, read \
    the older formats on, and put the new bytes into a folder of their own";

/// R10: what each version wrote is read for good, and is written the same.
#[test]
fn golden_bytes_of_all_formats() {
    for (name, message) in messages().into_iter().chain(messages_of_2()) {
        let bytes = encode_message(&message).unwrap();
        assert_eq!(bytes, golden(name, &bytes), "{name}: {WHEN_BYTES_CHANGE}");
        assert_eq!(decode_message(&bytes), Ok(message));
    }
    let gossip = [gossip(), gossip_of_2(), gossip_of_3()].concat();
    for (name, message) in gossip {
        let bytes = encode_gossip(&message).unwrap();
        assert_eq!(bytes, golden(name, &bytes), "{name}: {WHEN_BYTES_CHANGE}");
        assert_eq!(decode_gossip(&bytes), Ok(message));
    }
}

#[test]
fn other_versions_and_states_are_refused() {
    assert!(matches!(decode_message(&[]), Err(WireError::Malformed(_))));
    assert_eq!(decode_message(&[4, 0, 0]), Err(WireError::Version(4)));
    let mut verdict = encode_message(&messages()[2].1).unwrap();
    *verdict.last_mut().unwrap() = 7;
    assert_eq!(
        decode_message(&verdict),
        Err(WireError::Malformed("status 7".into()))
    );
}

#[test]
fn every_cut_of_a_message_is_refused() {
    for message in [&gossip()[1].1, &gossip_of_2()[0].1, &gossip_of_3()[0].1] {
        let bytes = encode_gossip(message).unwrap();
        for end in 0..bytes.len() {
            assert!(decode_gossip(&bytes[..end]).is_err(), "at {end}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for version in 1..=VERSION {
            let versioned = [&[version], &bytes[..]].concat();
            let _ = decode_message(&versioned);
            let _ = decode_gossip(&versioned);
        }
        let _ = decode_message(&bytes);
    }
}
