//! Identity: what an actor is called, and under whom it stands.

use super::Node;
use crate::late::Late;
use crate::path::ActorPath;
use crate::system::Core;
use std::sync::Arc;

/// What does not change, and why it lies where it lies: see
/// [`crate::mailbox::Mailbox`].
#[repr(C)]
pub(crate) struct Identity {
    pub(super) above: Arc<Above>,
    pub(crate) uid: u64,
    /// Of anonymous actors only when somebody asks.
    path: Late<Named>,
}

/// What all children of one parent share.
pub(crate) struct Above {
    pub(crate) core: Arc<Core>,
    /// `None`: the parent is the system.
    pub(crate) parent: Option<Arc<dyn Node>>,
}

struct Named {
    path: ActorPath,
    anonymous: bool,
}

impl Above {
    fn path(&self) -> &ActorPath {
        let parent = self.parent.as_ref();
        parent.map_or(self.core.path(), |parent| parent.path())
    }

    /// The path of the child of this name; without one, of the one with this number.
    pub(crate) fn child(&self, name: Option<&str>, uid: u64) -> ActorPath {
        match name {
            Some(name) => self.path().child(name),
            None => self.path().child(&format!("${uid}")),
        }
    }
}

impl Identity {
    pub(crate) fn new(above: Arc<Above>, uid: u64, path: Option<ActorPath>) -> Self {
        let named = path.map(|path| {
            Box::new(Named {
                path,
                anonymous: false,
            })
        });
        Self {
            above,
            uid,
            path: Late::new(named),
        }
    }

    pub(super) fn path(&self) -> &ActorPath {
        let named = self.path.get_or_make(|| Named {
            path: self.above.child(None, self.uid),
            anonymous: true,
        });
        &named.path
    }

    /// The last part of the path, if the actor was given one.
    pub(super) fn own_name(&self) -> Option<&str> {
        let named = self.path.get()?;
        (!named.anonymous).then(|| named.path.name())
    }
}
