//! Builder: collects where an event-sourced actor lives, and gives the recipe of it.

use crate::event_sourced::actor::{PublishTo, Wiring, publish};
use crate::event_sourced::entity::{Fresh, Place};
use crate::event_sourced::{Courier, EventSourced, EventSourcedActor, Options};
use crate::id::PersistenceId;
use crate::journal::{Fence, Journal};
use crate::keys::KeyStore;
use crate::snapshot::SnapshotStore;
use otava_actor::Props;
use std::sync::Arc;

/// Begins the description of an event-sourced actor: its id, how its empty state is made, and the
/// journal that keeps its events.
///
/// # Examples
/// ```
/// # use otava_persistence::{Effect, EventSourced};
/// # struct Account(String);
/// # impl EventSourced for Account {
/// #     type Command = ();
/// #     type Event = ();
/// #     type Snapshot = ();
/// #     const EVENT_NAME: &'static str = "bank.Event";
/// #     const EVENT_VERSION: u16 = 1;
/// #     fn handle(&self, _: ()) -> Effect<Self> { Effect::none() }
/// #     fn apply(&mut self, _: &()) {}
/// # }
/// use otava_persistence::{MemoryJournal, Options, PersistenceId, event_sourced};
/// use std::sync::Arc;
///
/// let journal = Arc::new(MemoryJournal::new());
/// let id = PersistenceId::new("account", "7");
/// let props = event_sourced(id, || Account("7".to_owned()), journal)
///     .options(Options::default().snapshot_every(100))
///     .props();
/// // system.spawn_with("account-7", props)?;
/// # let _ = props;
/// ```
pub fn event_sourced<E: EventSourced>(
    id: PersistenceId,
    create: impl FnMut() -> E + Send + 'static,
    journal: Arc<dyn Journal>,
) -> EventSourcedBuilder<E> {
    let (snapshots, options) = (journal.snapshots(), Options::default());
    EventSourcedBuilder {
        place: Place {
            id,
            journal,
            snapshots,
            fence: None,
            courier: None,
            keys: None,
            options,
        },
        fresh: Fresh::new(create),
        on_fenced: Arc::new(|| {}),
        publish: None,
    }
}

/// Where an event-sourced actor lives. Made by [`event_sourced()`].
#[must_use = "it does nothing until its `props` are spawned"]
pub struct EventSourcedBuilder<E: EventSourced> {
    place: Place,
    fresh: Fresh<E>,
    on_fenced: Arc<dyn Fn() + Send + Sync>,
    publish: Option<PublishTo<E>>,
}

impl<E: EventSourced> EventSourcedBuilder<E> {
    /// The right by which it writes. Default: none, for actors of which there is only one by other
    /// means.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.place.fence = Some(fence);
        self
    }

    /// Runs when the journal refuses the fence, before the actor stops. Whoever started it should
    /// then stop everything that writes by the same fence.
    pub fn on_fenced(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_fenced = Arc::new(hook);
        self
    }

    /// The way to other entities, for the letters that it sends ([`crate::Effect::send`]). Default:
    /// none; a command that sends a letter fails then.
    pub fn courier(mut self, courier: Arc<dyn Courier>) -> Self {
        self.place.courier = Some(courier);
        self
    }

    /// Encrypts its events, letters and snapshots with the key that `keys` has for its id. What was
    /// written before in the clear is still read. When the key was shredded it does not start:
    /// [`crate::KeyError::Shredded`], in [`crate::RecoveryError::Key`].
    pub fn encrypted(mut self, keys: Arc<dyn KeyStore>) -> Self {
        self.place.keys = Some(keys);
        self
    }

    /// Publishes each event in the actor system's event stream, as [`crate::Persisted`], when it is
    /// durable and the state holds it, before the replies go out.
    ///
    /// # Delivery
    /// At most once, and not at recovery. Who must not miss an event reads the journal.
    pub fn publish_events(mut self) -> Self
    where
        E::Event: Clone,
    {
        self.publish = Some(publish::<E>);
        self
    }

    /// The settings.
    pub fn options(mut self, options: Options) -> Self {
        self.place.options = options;
        self
    }

    /// Keeps snapshots elsewhere; `None` for no snapshots. Default: [`Journal::snapshots`].
    pub fn snapshots(mut self, snapshots: Option<Arc<dyn SnapshotStore>>) -> Self {
        self.place.snapshots = snapshots;
        self
    }

    /// The recipe of the actor. It can be restarted: each instance recovers anew. What is done
    /// after a failure is chosen there (`on_failure`), as for every actor.
    pub fn props(self) -> Props<EventSourcedActor<E>> {
        let wiring = Wiring {
            place: self.place,
            fresh: self.fresh,
            on_fenced: self.on_fenced,
            publish: self.publish,
        };
        Props::new(move || EventSourcedActor::new(wiring.clone()))
    }
}
