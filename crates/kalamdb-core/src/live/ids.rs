//! Who a route leads to.

/// Some subscribers, in order. Of most there is one: a set would take several times its place.
pub(super) struct Ids<T>(Vec<T>);

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + Ord> Ids<T> {
    pub(super) fn insert(&mut self, id: T) {
        if let Err(place) = self.0.binary_search(&id) {
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.insert(place, id);
        }
    }

    pub(super) fn remove(&mut self, id: T) {
        if let Ok(place) = self.0.binary_search(&id) {
            self.0.remove(place);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) const fn as_slice(&self) -> &[T] {
        self.0.as_slice()
    }
}
