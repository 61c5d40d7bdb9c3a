//! Extensions: what a system carries beside its actors, made when somebody first asks for it.

use crate::sync::lock;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// At most one value of each type. It lives as long as the system's memory, so what is put here must
/// hold no handle on the system: that would keep the system from ending by itself.
#[derive(Default)]
pub(crate) struct Extensions(Mutex<BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Extensions {
    /// The value of this type; `make`, which must be code of this crate, makes it the first time.
    pub(crate) fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut values = lock(&self.0);
        let value = values
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(make()))
            .clone();
        value
            .downcast()
            .expect("a value is stored under its own type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_one_value() {
        let extensions = Extensions::default();
        assert_eq!(*extensions.get(|| 1_u32), 1);
        assert_eq!(*extensions.get(|| 2_u32), 1);
        assert_eq!(*extensions.get(|| 3_u64), 3);
    }
}
