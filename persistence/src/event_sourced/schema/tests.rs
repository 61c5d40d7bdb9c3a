//! Schema tests: events as old versions wrote them, byte by byte, and what they are today.

use super::*;
use crate::event_sourced::entity::{Entity, Fresh, Place};
use crate::event_sourced::{Effect, EntityError, Options};
use crate::id::PersistenceId;
use crate::journal::{AppendRequest, Journal};
use crate::memory::MemoryJournal;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A cart: item and count, in order of the events.
#[derive(Debug, Default, PartialEq)]
struct Cart(Vec<(String, u32)>);

/// Version 3 of the event. Version 2 had no count; version 1 held many items in one event, and was
/// called `shop.Cart`; views were events once.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
enum Changed {
    Added { item: String, count: u32 },
    Emptied,
}

#[derive(Deserialize)]
enum ChangedV2 {
    Added { item: String },
    Emptied,
}

#[derive(Deserialize)]
struct CartV1 {
    items: Vec<String>,
}

fn added(item: String) -> Changed {
    Changed::Added { item, count: 1 }
}

impl EventSourced for Cart {
    type Command = ();
    type Event = Changed;
    type Snapshot = Vec<(String, u32)>;
    const EVENT_NAME: &'static str = "shop.CartChanged";
    const EVENT_VERSION: u16 = 3;
    const SNAPSHOT_VERSION: u16 = 2;

    fn upcasters() -> Vec<Upcaster<Self>> {
        vec![
            Upcaster::from_old("shop.CartChanged", 2, |old| match old {
                ChangedV2::Added { item } => vec![added(item)],
                ChangedV2::Emptied => vec![Changed::Emptied],
            }),
            Upcaster::from_old("shop.Cart", 1, |old: CartV1| {
                old.items.into_iter().map(added).collect()
            }),
            Upcaster::renamed("shop.Changed", 3),
            Upcaster::dropped("shop.CartViewed", 1),
        ]
    }

    fn upcast_snapshot(
        name: &str,
        version: u16,
        payload: &[u8],
    ) -> Option<Result<Self::Snapshot, FormatError>> {
        let items = |old: Vec<String>| old.into_iter().map(|item| (item, 1)).collect();
        (name == "shop.Cart" && version == 1).then(|| format::decode(payload).map(items))
    }

    fn handle(&self, (): ()) -> Effect<Self> {
        Effect::none()
    }

    fn apply(&mut self, event: &Changed) {
        match event {
            Changed::Added { item, count } => self.0.push((item.clone(), *count)),
            Changed::Emptied => self.0.clear(),
        }
    }

    fn restore(&mut self, items: Vec<(String, u32)>) {
        self.0 = items;
    }
}

/// What each released version wrote; these bytes never change.
const GOLDEN: [(&str, u16, &[u8]); 7] = [
    ("shop.Cart", 1, b"\x01\x02\x03tea\x05bread"),
    ("shop.CartViewed", 1, b"\x01\xff\xff\xff"),
    ("shop.CartChanged", 2, b"\x01\x01"),
    ("shop.CartChanged", 2, b"\x01\x00\x04milk"),
    ("shop.CartChanged", 3, b"\x01\x00\x03jam\x02"),
    ("shop.Changed", 3, b"\x01\x00\x04salt\x07"),
    ("shop.Cart", 1, b"\x01\x00"),
];

fn id() -> PersistenceId {
    PersistenceId::new("cart", "1")
}

async fn journal(records: &[(&str, u16, &[u8])]) -> MemoryJournal {
    let journal = MemoryJournal::new();
    let record = |&(name, version, payload): &(&str, u16, &[u8])| {
        EventRecord::new(name, version, payload.to_vec())
    };
    let request = AppendRequest::new(id(), 0, records.iter().map(record).collect());
    journal.append(request).await.unwrap();
    journal
}

async fn recovered(journal: MemoryJournal) -> Result<Cart, EntityError> {
    let place = Place {
        id: id(),
        snapshots: journal.snapshots(),
        journal: Arc::new(journal),
        fence: None,
        courier: None,
        keys: None,
        options: Options::default(),
    };
    let mut entity = Entity::new(place, Fresh::new(Cart::default));
    entity.recover().await.map(|()| entity.state)
}

/// P8: added field, renamed type, split event, dropped event: old events become those of today.
#[tokio::test]
async fn old_events_are_upcast() {
    let cart = recovered(journal(&GOLDEN).await).await.unwrap();
    let items = [("milk", 1), ("jam", 2), ("salt", 7)].map(|(item, n)| (item.to_owned(), n));
    assert_eq!(cart.0, items);
    let first = recovered(journal(&GOLDEN[..2]).await).await.unwrap();
    assert_eq!(first.0, [("tea".to_owned(), 1), ("bread".to_owned(), 1)]);
    assert_eq!(
        format::encode(&Changed::Added {
            item: "jam".to_owned(),
            count: 2
        })
        .unwrap(),
        GOLDEN[4].2,
        "what this version writes"
    );
}

/// P8: what nobody knows stops recovery with its name, wherever it stands.
#[tokio::test]
async fn an_unknown_version_stops_with_its_name() {
    for (name, version, what) in [
        ("shop.CartChanged", 1, "shop.CartChanged, version 1;"),
        ("shop.CartChanged", 4, "shop.CartChanged, version 4;"),
        ("shop.CartGone", 1, "shop.CartGone, version 1;"),
        ("otava.future", 1, "otava.future, version 1;"),
        ("otava.outgoing", 2, "otava.outgoing, version 2;"),
    ] {
        let mut records = GOLDEN[..4].to_vec();
        records.insert(2, (name, version, b"\x01"));
        let error = recovered(journal(&records).await).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("event 3 is {what}")), "{error}");
    }
    let damaged: [(&str, u16, &[u8]); 1] = [("shop.Cart", 1, b"\x01\x02\x03tea")];
    let error = recovered(journal(&damaged).await).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("event 1 (shop.Cart, version 1): cannot decode")
    );
}

/// P8: a snapshot of an old version is used when it can be read, and else passed over.
#[tokio::test]
async fn old_snapshots_are_upcast() {
    use crate::snapshot::{Snapshot, SnapshotStore as _};
    for (version, expected) in [(1, vec!["ink", "salt"]), (7, vec!["milk", "jam", "salt"])] {
        let journal = journal(&GOLDEN).await;
        let snapshot = Snapshot::new(id(), 5, "shop.Cart", version, b"\x01\x01\x03ink".to_vec());
        journal
            .save(snapshot, std::num::NonZeroU32::MIN)
            .await
            .unwrap();
        let cart = recovered(journal).await.unwrap();
        let items: Vec<_> = cart.0.iter().map(|(item, _)| item.as_str()).collect();
        assert_eq!(items, expected);
    }
}

/// Readers beside the entity see the same, and nothing of Otava's own records.
#[tokio::test]
async fn a_reader_beside_the_entity_upcasts_as_well() {
    let reader = EventReader::<Cart>::new();
    let stored = |name: &str, version, payload: &[u8]| {
        StoredEvent::new(1, 1, 0, EventRecord::new(name, version, payload.to_vec()))
    };
    let (name, version, payload) = GOLDEN[0];
    let events = reader.read(&stored(name, version, payload)).unwrap();
    assert_eq!(events, [added("tea".to_owned()), added("bread".to_owned())]);
    assert_eq!(reader.read(&stored("otava.outgoing", 9, b"")).unwrap(), []);
    assert!(reader.read(&stored("other", 1, b"\x01")).is_err());
}
