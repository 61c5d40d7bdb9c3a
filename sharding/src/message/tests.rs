//! Tests: the bytes of each message between regions are those that were written down.

use super::*;
use crate::logic::coordinator::Coordinator;
use crate::logic::region::{Delivery, Input, Region};
use crate::logic::view::Host;
use crate::wire::{Barrier, Claim, Entry, Legacy, Phase, Refused, Status, Table};
use otava_actor::{Rng, Time};
use otava_remote::{decode, encode};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Cmd {
    Add(u32),
}

impl RemoteMessage for Cmd {
    const NAME: &'static str = "test.Cmd";
    const VERSION: u16 = 3;
}

fn node(n: u16) -> NodeId {
    NodeId::new(
        format!("n{n}"),
        ([10, 0, 0, 1], n).into(),
        u64::from(n) << 33,
    )
}

fn epoch(counter: u32) -> Epoch {
    Epoch { term: 3, counter }
}

fn table() -> Table {
    Table {
        from: node(1),
        term: 3,
        revision: 300,
        begins_with: 16,
        previous: Some(8),
        regions: vec![node(1), node(2)],
        silent: vec![node(3)],
        entries: vec![
            Entry::Unallocated,
            Entry::Starting {
                home: 0,
                epoch: epoch(1),
            },
            Entry::Hosted {
                home: 2,
                epoch: epoch(1_000),
            },
            Entry::Moving {
                home: 1,
                epoch: epoch(2),
                move_no: epoch(70_000),
            },
        ],
    }
}

fn status() -> Status {
    let phases = [
        Phase::Active,
        Phase::Claiming,
        Phase::HandingOff,
        Phase::Stopping,
    ];
    let claims = (0..).zip(phases).map(|(shard, phase)| Claim {
        shard,
        epoch: epoch(shard),
        phase,
    });
    Status {
        from: node(2),
        number: 9,
        term: 4,
        revision: 0,
        begins_with: 16,
        shards: 4,
        resize: Some(8),
        claims: claims.collect(),
        refused: vec![Refused {
            shard: 1,
            epoch: epoch(1),
            current: epoch(2),
        }],
        loads: vec![(0, 70_000), (2, 0)],
        table: Some(Arc::new(table())),
    }
}

fn legacy() -> Legacy {
    Legacy {
        term: 4,
        table: Arc::new(table()),
        targets: vec![(3, node(2))],
    }
}

/// The messages of version 1, by the names of their fixtures.
fn messages() -> Vec<(&'static str, RegionMessage<Cmd>)> {
    let protocol = |message| RegionMessage(Command::Protocol(message));
    let deliver = Command::Deliver {
        entity: "N328AA".into(),
        hops: 2,
        message: Cmd::Add(300),
        under_way: None,
    };
    let barrier = Barrier {
        from: node(2),
        shard: 127,
        move_no: epoch(5),
    };
    let gather = ProtocolMessage::Gather {
        from: node(1),
        term: 4,
        shards: 16,
    };
    let wake = Command::Wake {
        entity: "N328AA".into(),
        hops: 1,
    };
    vec![
        ("deliver", RegionMessage(deliver)),
        ("wake", RegionMessage(wake)),
        ("barrier", protocol(ProtocolMessage::Barrier(barrier))),
        ("gather", protocol(gather)),
        (
            "legacy",
            protocol(ProtocolMessage::Legacy(Box::new(legacy()))),
        ),
        (
            "status",
            protocol(ProtocolMessage::Status(Box::new(status()))),
        ),
        ("table", protocol(ProtocolMessage::Table(Arc::new(table())))),
    ]
}

const WHEN_BYTES_CHANGE: &str = "the bytes of this message are not those of version 1 any more, so \
    regions of both programs would misread each other. Take the change back; or raise wire::VERSION and \
    put the new bytes into fixtures/v2, with UPDATE=1";

/// R10: wire contract. `UPDATE=1` writes the fixtures that are missing.
#[test]
fn bytes_are_those_of_the_fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    for (name, message) in messages() {
        let path = folder.join(format!("{name}.bin"));
        let bytes = encode(&message).unwrap();
        if std::env::var_os("UPDATE").is_some() && !path.exists() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(bytes, kept, "{name}: {WHEN_BYTES_CHANGE}");
        let read: RegionMessage<Cmd> = decode(&kept).unwrap();
        match (read.0, message.0) {
            (Command::Protocol(read), Command::Protocol(message)) => assert_eq!(read, message),
            (
                Command::Deliver {
                    entity,
                    hops,
                    message,
                    ..
                },
                Command::Deliver { .. },
            ) => {
                assert_eq!((&*entity, hops, message), ("N328AA", 2, Cmd::Add(300)));
            }
            (Command::Wake { entity, hops }, Command::Wake { .. }) => {
                assert_eq!((&*entity, hops), ("N328AA", 1));
            }
            _ => panic!("{name} is read as something else"),
        }
    }
}

/// R5: whatever comes from a peer is refused, or a region and a coordinator can live with it.
#[test]
fn damaged_bytes_are_refused_or_harmless() {
    let mut rng = Rng::seeded(1);
    let mut read = 0;
    for (_, message) in messages() {
        let bytes = encode(&message).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<RegionMessage<Cmd>>(&bytes[..end]).is_err());
        }
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            damaged[at] = rng.next_u64() as u8;
            if let Ok(message) = decode::<RegionMessage<Cmd>>(&damaged)
                && let Command::Protocol(message) = message.0
            {
                read += 1;
                survive(message);
            }
        }
    }
    assert!(read > 1_000, "{read}");
}

/// Gives the message to a region and a coordinator that are at work.
fn survive(message: ProtocolMessage) {
    let config = crate::ShardingConfig::default().shards(4);
    let now = Time::ZERO + Duration::from_secs(9);
    let mut view = View::empty(node(2));
    view.oldest = Some(node(2));
    view.hosts = [1, 2].map(|n| (node(n), Host::Up)).into();
    let mut region: Region<()> = Region::new(node(2), config.region());
    let mut coordinator = Coordinator::new(node(2), config.coordinator());
    coordinator.change_view(Time::ZERO, view.clone());
    coordinator.term_claimed(Time::ZERO, Some((4, Layout::first(4))));
    region.handle(now, Input::View(view));
    if let Some(message) = coordinator.handle(now, message) {
        region.handle(now, Input::Protocol(message));
    }
    for part in 0..5 {
        region.handle(now, Input::Deliver(Delivery::new(part << 61, 1, ())));
    }
    region.handle_timeout(now);
    coordinator.handle_timeout(now);
    while region.poll_output().is_some() || coordinator.poll_output().is_some() {}
}

#[test]
fn what_is_for_this_node_only_has_no_wire_form() {
    let local = RegionMessage::<Cmd>(Command::Local(Local::Tick));
    assert!(encode(&local).is_err());
}

#[test]
fn the_published_name_tells_message_types_apart() {
    assert_eq!(region_name::<Cmd>("account"), "sharding/account/test.Cmd.3");
}
