//! Family: the living children of one actor, or of the system.

use crate::cell::Node;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a child was not added.
#[derive(Debug)]
pub(crate) enum Refused {
    NameTaken,
    Stopping,
}

/// The living children, each at a place of its own. An anonymous child costs one pointer here.
#[derive(Default)]
pub(crate) struct Children {
    places: Vec<Option<Arc<dyn Node>>>,
    free: Vec<u32>,
    by_name: BTreeMap<Box<str>, u32>,
}

impl Children {
    /// Adds `child`. The name of a child that has ended is free, also if that child is still about
    /// to take itself out.
    pub(crate) fn adopt(&mut self, child: Arc<dyn Node>) -> Result<(), Refused> {
        let name = child.own_name();
        if let Some(name) = name
            && let Some(&place) = self.by_name.get(name)
            && self.at(place).is_some_and(|other| !other.has_ended())
        {
            return Err(Refused::NameTaken);
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                // More than four billion living children do not fit in memory.
                let place = u32::try_from(self.places.len()).map_err(|_| Refused::Stopping)?;
                self.places.push(None);
                place
            }
        };
        child.set_place(place);
        if let Some(name) = name {
            self.by_name.insert(name.into(), place);
        }
        if let Some(free) = self.places.get_mut(place as usize) {
            *free = Some(child);
        }
        Ok(())
    }

    /// Takes the child `uid` out, which has this place. Returns what to drop later.
    pub(crate) fn bury(&mut self, place: u32, uid: u64) -> Option<Arc<dyn Node>> {
        let child = self
            .places
            .get_mut(place as usize)?
            .take_if(|child| child.uid() == uid)?;
        self.free.push(place);
        if !self.by_name.is_empty()
            && let Some(name) = child.own_name()
            && self.by_name.get(name) == Some(&place)
        {
            self.by_name.remove(name);
        }
        Some(child)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<dyn Node>> {
        self.at(*self.by_name.get(name)?)
    }

    /// Those who live, in the order of their places.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Node>> {
        self.places.iter().flatten().cloned().collect()
    }

    /// Some of them, at most `most`, in the order of their names, and how many there are.
    pub(crate) fn first(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize) {
        let some = self.places.iter().flatten().take(most).cloned();
        let mut some: Vec<_> = some.collect();
        some.sort_by(|a, b| a.path().cmp(b.path()));
        (some, self.len())
    }

    fn at(&self, place: u32) -> Option<&Arc<dyn Node>> {
        self.places.get(place as usize)?.as_ref()
    }
}
