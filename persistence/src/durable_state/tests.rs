//! Durable state tests: what is answered is stored, what is refused is not, and what is old is read.

use super::*;
use crate::error::AppendError;
use crate::format;
use crate::id::PersistenceId;
use crate::journal::{EventRecord, Fence, Journal as _};
use crate::keys::{KeyStore as _, MemoryKeys};
use crate::memory::MemoryJournal;
use crate::state::{SaveState, StateStore};
use otava_actor::{ActorRef, ActorSystem, AskError, ReplyTo, Supervision};
use serde::Deserialize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Default, Deserialize, Serialize)]
struct Settings {
    language: String,
    size: u8,
    #[serde(skip)]
    made_for: &'static str,
}

enum Command {
    Set(&'static str, ReplyTo<String>),
    Look(ReplyTo<(String, u8, &'static str)>),
    Delete(ReplyTo<String>),
    SetAndStop(&'static str),
}

impl Settings {
    fn with(&self, language: &str) -> Self {
        let (language, made_for) = (language.to_owned(), self.made_for);
        Self {
            language,
            size: self.size + 1,
            made_for,
        }
    }
}

impl DurableState for Settings {
    type Command = Command;
    const STATE_NAME: &'static str = "test.Settings";
    const STATE_VERSION: u16 = 2;

    fn handle(&self, command: Command) -> StateEffect<Self> {
        let language = |state: &Self| state.language.clone();
        match command {
            Command::Set(to, reply_to) => {
                StateEffect::set(self.with(to)).reply_with(reply_to, language)
            }
            Command::Look(reply_to) => {
                let look = (self.language.clone(), self.size, self.made_for);
                StateEffect::none().reply(reply_to, look)
            }
            Command::Delete(reply_to) => StateEffect::delete().reply_with(reply_to, language),
            Command::SetAndStop(to) => StateEffect::set(self.with(to)).stop(),
        }
    }

    /// Version 1 was the language alone.
    fn upcast(name: &str, version: u16, payload: &[u8]) -> Option<Result<Self, FormatError>> {
        let old = |language| Self {
            language,
            ..Self::default()
        };
        (name == "test.Language" && version == 1).then(|| format::decode(payload).map(old))
    }

    fn tags(&self) -> Vec<Arc<str>> {
        vec![self.language.as_str().into()]
    }

    fn recovered(&mut self, empty: Self) {
        self.made_for = empty.made_for;
    }
}

fn id() -> PersistenceId {
    PersistenceId::new("settings", "1")
}

fn store() -> Arc<dyn StateStore> {
    MemoryJournal::new().states().unwrap()
}

fn builder(store: &Arc<dyn StateStore>) -> DurableStateBuilder<Settings> {
    let empty = || Settings {
        made_for: "me",
        ..Settings::default()
    };
    durable_state(id(), empty, Arc::clone(store))
}

fn spawn(system: &ActorSystem, builder: DurableStateBuilder<Settings>) -> ActorRef<Command> {
    system.spawn_anonymous(builder.props()).unwrap()
}

async fn set(actor: &ActorRef<Command>, to: &'static str) -> Result<String, AskError> {
    actor.ask(|reply_to| Command::Set(to, reply_to)).await
}

#[tokio::test]
async fn the_newest_state_outlives_its_actor() {
    let (system, store) = (ActorSystem::new("test"), store());
    let actor = spawn(&system, builder(&store));
    let empty = (String::new(), 0, "me");
    assert_eq!(actor.ask(Command::Look).await.unwrap(), empty);
    assert_eq!(set(&actor, "de").await.unwrap(), "de");
    assert_eq!(set(&actor, "fi").await.unwrap(), "fi");
    let again = spawn(&system, builder(&store));
    assert_eq!(
        again.ask(Command::Look).await.unwrap(),
        ("fi".to_owned(), 2, "me")
    );
    let stored = store.load(&id()).await.unwrap().unwrap();
    assert_eq!(stored.revision, 2);
    assert_eq!(*stored.record.unwrap().tags[0], *"fi");
    // The first one does not know what the second wrote.
    assert_eq!(set(&again, "sv").await.unwrap(), "sv");
    let overtaken = set(&actor, "et").await;
    assert!(
        matches!(overtaken, Err(AskError::NoReply { .. })),
        "{overtaken:?}"
    );
    assert_eq!(again.ask(Command::Delete).await.unwrap(), "");
    assert_eq!(set(&again, "la").await.unwrap(), "la");
    let third = spawn(&system, builder(&store));
    assert_eq!(
        third.ask(Command::Look).await.unwrap(),
        ("la".to_owned(), 1, "me")
    );
    assert_eq!(store.load(&id()).await.unwrap().unwrap().revision, 5);
    system.shutdown().await;
}

/// P9: somebody else has written: no reply, and a failure. The next instance reads it and goes on.
#[tokio::test]
async fn an_overtaken_state_is_read_again() {
    let (system, store) = (ActorSystem::new("test"), store());
    let restart = Supervision::Restart {
        limit: 9,
        within: Duration::from_secs(60),
    };
    let props = builder(&store).props().on_failure(restart);
    let actor = system.spawn_anonymous(props).unwrap();
    assert_eq!(set(&actor, "de").await.unwrap(), "de");
    let other = spawn(&system, builder(&store));
    assert_eq!(set(&other, "fi").await.unwrap(), "fi");
    let asked = set(&actor, "sv").await;
    assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    assert_eq!(
        actor.ask(Command::Look).await.unwrap(),
        ("fi".to_owned(), 2, "me")
    );
    assert_eq!(set(&actor, "et").await.unwrap(), "et");
    assert_eq!(store.load(&id()).await.unwrap().unwrap().revision, 3);
    system.shutdown().await;
}

/// P6: a newer epoch: no reply, no change, the hook runs once, the actor stops.
#[tokio::test]
async fn a_fenced_state_is_not_changed() {
    let (system, journal) = (ActorSystem::new("test"), MemoryJournal::new());
    let store = journal.states().unwrap();
    journal.claim("shard", 1).await.unwrap();
    let fenced = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&fenced);
    let hook = move || {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let builder = builder(&store)
        .fence(Fence::new("shard", 1))
        .on_fenced(hook);
    let actor = spawn(&system, builder);
    set(&actor, "de").await.unwrap();
    journal.claim("shard", 2).await.unwrap();
    let asked = set(&actor, "fi").await;
    assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    assert!(actor.ask(Command::Look).await.is_err(), "it still answers");
    assert_eq!(fenced.load(Ordering::Relaxed), 1);
    assert_eq!(store.load(&id()).await.unwrap().unwrap().revision, 1);
    system.shutdown().await;
}

#[tokio::test]
async fn an_entity_that_stops_has_stored_before() {
    let (system, store) = (ActorSystem::new("test"), store());
    let actor = spawn(&system, builder(&store));
    actor.tell(Command::SetAndStop("de")).unwrap();
    assert!(actor.ask(Command::Look).await.is_err());
    assert_eq!(store.load(&id()).await.unwrap().unwrap().revision, 1);
    system.shutdown().await;
}

async fn stored(store: &Arc<dyn StateStore>, name: &str, version: u16, payload: &[u8]) {
    let record = EventRecord::new(name, version, payload.to_vec());
    let saved = store.save(SaveState::new(id(), 0, Some(record))).await;
    assert!(matches!(
        saved,
        Ok(_) | Err(AppendError::WrongSequence { .. })
    ));
}

/// P8: an old state is upcast; what is not known stops with its name.
#[tokio::test]
async fn old_states_are_upcast() {
    let system = ActorSystem::new("test");
    for (name, version, payload, expected) in [
        ("test.Settings", 2, b"\x01\x02de\x07", Some(("de", 7))),
        ("test.Language", 1, b"\x01\x03deu", Some(("deu", 0))),
        ("test.Settings", 1, b"\x01\x02de\x07", None),
        ("test.Settings", 2, b"\x01\x09de\x07", None),
    ] as [(&str, u16, &[u8], Option<(&str, u8)>); 4]
    {
        let store = store();
        stored(&store, name, version, payload).await;
        let actor = spawn(&system, builder(&store));
        let look = actor.ask(Command::Look).await.ok();
        let expected = expected.map(|(language, size)| (language.to_owned(), size, "me"));
        assert_eq!(look, expected, "{name}, version {version}");
    }
    system.shutdown().await;
}

#[tokio::test]
async fn an_encrypted_state_can_be_forgotten() {
    let (system, store, keys) = (ActorSystem::new("test"), store(), MemoryKeys::new());
    let encrypted = || builder(&store).encrypted(Arc::new(keys.clone()));
    set(&spawn(&system, encrypted()), "secret").await.unwrap();
    let record = store.load(&id()).await.unwrap().unwrap().record.unwrap();
    assert_eq!(record.payload[0], 2);
    assert!(!record.payload.windows(6).any(|part| part == b"secret"));
    let again = spawn(&system, encrypted());
    assert_eq!(again.ask(Command::Look).await.unwrap().0, "secret");
    // Without keys, and when the key is gone, it does not start.
    assert!(
        spawn(&system, builder(&store))
            .ask(Command::Look)
            .await
            .is_err()
    );
    keys.shred(&id()).await.unwrap();
    assert!(
        spawn(&system, encrypted())
            .ask(Command::Look)
            .await
            .is_err()
    );
    system.shutdown().await;
}
