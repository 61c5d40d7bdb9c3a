//! Builder: collects where an actor with durable state lives, and gives the recipe of it.

use crate::durable_state::actor::Place;
use crate::durable_state::{DurableState, DurableStateActor};
use crate::event_sourced::{Fresh, Recoveries};
use crate::id::PersistenceId;
use crate::journal::Fence;
use crate::keys::KeyStore;
use crate::state::StateStore;
use otava_actor::Props;
use std::sync::Arc;

/// Begins the description of an actor with durable state: its id, how its empty state is made, and the
/// store ([`crate::Journal::states`]).
///
/// # Examples
/// ```
/// # use otava_persistence::{DurableState, StateEffect};
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Settings;
/// # impl DurableState for Settings {
/// #     type Command = ();
/// #     const STATE_NAME: &'static str = "user.Settings";
/// #     const STATE_VERSION: u16 = 1;
/// #     fn handle(&self, _: ()) -> StateEffect<Self> { StateEffect::none() }
/// # }
/// use otava_persistence::{Journal, MemoryJournal, PersistenceId, durable_state};
///
/// let store = MemoryJournal::new().states().expect("it has a store of states");
/// let props = durable_state(PersistenceId::new("settings", "7"), Settings::default, store).props();
/// // system.spawn_with("settings-7", props)?;
/// # let _ = props;
/// ```
pub fn durable_state<S: DurableState>(
    id: PersistenceId,
    create: impl FnMut() -> S + Send + 'static,
    store: Arc<dyn StateStore>,
) -> DurableStateBuilder<S> {
    DurableStateBuilder {
        place: Place {
            id,
            store,
            fence: None,
            keys: None,
            recoveries: None,
        },
        fresh: Fresh::new(create),
        on_fenced: Arc::new(|| {}),
    }
}

/// Where an actor with durable state lives. Made by [`durable_state()`].
#[must_use = "it does nothing until its `props` are spawned"]
pub struct DurableStateBuilder<S> {
    place: Place,
    fresh: Fresh<S>,
    on_fenced: Arc<dyn Fn() + Send + Sync>,
}

impl<S: DurableState> DurableStateBuilder<S> {
    /// The right by which it writes. Default: none, for actors of which there is only one by other
    /// means.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.place.fence = Some(fence);
        self
    }

    /// Runs when the store refuses the fence, before the actor stops.
    pub fn on_fenced(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_fenced = Arc::new(hook);
        self
    }

    /// Encrypts the state, as [`crate::EventSourcedBuilder::encrypted`].
    pub fn encrypted(mut self, keys: Arc<dyn KeyStore>) -> Self {
        self.place.keys = Some(keys);
        self
    }

    /// A limit on how many are read at once. Default: none, a state is one read.
    pub fn recoveries(mut self, recoveries: Recoveries) -> Self {
        self.place.recoveries = Some(recoveries);
        self
    }

    /// The recipe of the actor. It can be restarted: each instance reads its state anew.
    pub fn props(self) -> Props<DurableStateActor<S>> {
        let Self {
            place,
            fresh,
            on_fenced,
        } = self;
        Props::new(move || {
            DurableStateActor::new(place.clone(), fresh.clone(), Arc::clone(&on_fenced))
        })
    }
}
