//! Family: the living children of one actor, or of the system.
//!
//! Children that understand the same messages stand in one list, which knows their type: a child
//! costs one pointer here.

use crate::cell::Node;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a child was not added.
#[derive(Debug)]
pub(crate) enum Refused {
    NameTaken,
    Stopping,
}

/// Where a child stands.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) list: u16,
    pub(crate) index: u32,
}

/// The living children, each at a place of its own.
#[derive(Default)]
pub(crate) struct Children {
    lists: Vec<Box<dyn List>>,
    by_name: BTreeMap<Box<str>, Place>,
    len: usize,
}

/// The children of one type, their type forgotten.
trait List: Any + Send {
    fn take(&mut self, index: u32, uid: u64) -> Option<Arc<dyn Node>>;
    fn get(&self, index: u32) -> Option<Arc<dyn Node>>;
    /// Adds the first ones to `all`, as many as it may hold.
    fn list(&self, most: usize, all: &mut Vec<Arc<dyn Node>>);
}

struct Siblings<N> {
    places: Vec<Option<Arc<N>>>,
    free: Vec<u32>,
}

impl<N: Node + 'static> List for Siblings<N> {
    fn take(&mut self, index: u32, uid: u64) -> Option<Arc<dyn Node>> {
        let place = self.places.get_mut(index as usize)?;
        let child = place.take_if(|child| child.uid() == uid)?;
        self.free.push(index);
        Some(child)
    }

    fn get(&self, index: u32) -> Option<Arc<dyn Node>> {
        let child = self.places.get(index as usize)?.clone()?;
        Some(child)
    }

    fn list(&self, most: usize, all: &mut Vec<Arc<dyn Node>>) {
        let room = most.saturating_sub(all.len());
        for child in self.places.iter().flatten().take(room) {
            all.push(child.clone());
        }
    }
}

impl Children {
    /// Adds `child`. The name of a child that has ended is free, also if that child is still about
    /// to take itself out.
    pub(crate) fn adopt<N: Node + 'static>(&mut self, child: Arc<N>) -> Result<(), Refused> {
        let name = child.own_name().map(Box::from);
        if let Some(name) = &name
            && self.named(name).is_some_and(|other| !other.has_ended())
        {
            return Err(Refused::NameTaken);
        }
        let (list, siblings) = self.list_of::<N>()?;
        let index = match siblings.free.pop() {
            Some(index) => index,
            None => {
                // More than four billion living children do not fit in memory.
                let index = u32::try_from(siblings.places.len()).map_err(|_| Refused::Stopping)?;
                siblings.places.push(None);
                index
            }
        };
        let place = Place { list, index };
        child.set_place(place);
        if let Some(free) = siblings.places.get_mut(index as usize) {
            *free = Some(child);
        }
        if let Some(name) = name {
            self.by_name.insert(name, place);
        }
        self.len += 1;
        Ok(())
    }

    fn list_of<N: Node + 'static>(&mut self) -> Result<(u16, &mut Siblings<N>), Refused> {
        let known = self.lists.iter().position(|list| {
            let list: &dyn Any = &**list;
            list.is::<Siblings<N>>()
        });
        let place = known.unwrap_or(self.lists.len());
        // No program has so many types of messages.
        let number = u16::try_from(place).map_err(|_| Refused::Stopping)?;
        if known.is_none() {
            self.lists.push(Box::new(Siblings::<N> {
                places: Vec::new(),
                free: Vec::new(),
            }));
        }
        let list: &mut dyn Any = &mut *self.lists[place];
        let siblings = list.downcast_mut().expect("it was found by its type");
        Ok((number, siblings))
    }

    /// Takes the child `uid` out, which has this place. Returns what to drop later.
    pub(crate) fn bury(&mut self, place: Place, uid: u64) -> Option<Arc<dyn Node>> {
        let list = self.lists.get_mut(usize::from(place.list))?;
        let child = list.take(place.index, uid)?;
        self.len -= 1;
        if !self.by_name.is_empty()
            && let Some(name) = child.own_name()
            && self.by_name.get(name) == Some(&place)
        {
            self.by_name.remove(name);
        }
        Some(child)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn named(&self, name: &str) -> Option<Arc<dyn Node>> {
        let place = self.by_name.get(name)?;
        self.lists.get(usize::from(place.list))?.get(place.index)
    }

    /// Those who live, by their types, in the order of their places.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Node>> {
        self.some(usize::MAX)
    }

    /// Some of them, at most `most`, in the order of their names, and how many there are.
    pub(crate) fn first(&self, most: usize) -> (Vec<Arc<dyn Node>>, usize) {
        let mut some = self.some(most);
        some.sort_by(|a, b| a.path().cmp(b.path()));
        (some, self.len)
    }

    fn some(&self, most: usize) -> Vec<Arc<dyn Node>> {
        let mut some = Vec::with_capacity(self.len.min(most));
        for list in &self.lists {
            list.list(most, &mut some);
        }
        some
    }
}
