//! The first entries of an order, with some to spare: what a LIMIT, a MIN or a MAX needs to stay exact while rows come and go.

use std::collections::BTreeMap;

/// The first entries of a set, by key. Of what comes behind the last one it knew when it was cut short it knows nothing.
#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    entries: BTreeMap<Vec<u8>, T>,
    /// The greatest key that would be here; none: all there are, are here.
    ends: Option<Vec<u8>>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), ends: None }
    }
}

impl<T> Window<T> {
    /// Whether an entry of this key would be here.
    pub(super) fn reaches(&self, key: &[u8]) -> bool {
        self.ends.as_deref().is_none_or(|ends| key <= ends)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds an entry, if it would be here.
    pub(super) fn insert(&mut self, key: Vec<u8>, entry: T) -> bool {
        let reaches = self.reaches(&key);
        if reaches {
            self.entries.insert(key, entry);
        }
        reaches
    }

    /// The entry of a key that [`Self::reaches`], made where there is none.
    pub(super) fn entry_or(&mut self, key: &[u8], made: T) -> &mut T {
        self.entries.entry(key.to_vec()).or_insert(made)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<T> {
        self.entries.remove(key)
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &T)> {
        self.entries.iter()
    }

    /// Nothing is known behind the last entry from here on.
    pub(super) fn end_here(&mut self) {
        self.ends = self.entries.last_key_value().map(|(key, _)| key.clone());
    }

    /// Forgets the last entries until there are so many at the most, and gives them.
    pub(super) fn cut_to(&mut self, len_max: usize) -> Vec<T> {
        let mut gone = Vec::new();
        while self.entries.len() > len_max {
            gone.extend(self.entries.pop_last().map(|(_, entry)| entry));
        }
        if !gone.is_empty() {
            self.end_here();
        }
        gone
    }

    /// Whether there may be more of the first so many entries than are here.
    pub(super) fn is_short_of(&self, wanted: usize) -> bool {
        self.ends.is_some() && self.entries.len() < wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &[u8], len_max: usize) -> Window<u8> {
        let mut window = Window::default();
        for key in keys {
            window.insert(vec![*key], *key);
            window.cut_to(len_max);
        }
        window
    }

    #[test]
    fn the_first_entries_are_right_or_the_window_says_that_it_is_short() {
        let mut window = of(&[5, 1, 9, 3, 7], 3);
        assert!(window.iter().map(|(_, it)| *it).eq([1, 3, 5]));
        assert!(!window.insert(vec![6], 6), "what is behind its end is not known");
        assert!(window.insert(vec![4], 4));
        assert_eq!(window.cut_to(3), [5]);
        assert!(!window.reaches(&[5]) && window.reaches(&[4]));
        window.remove(&[1]);
        assert!(window.is_short_of(3) && !window.is_short_of(2));
        // One that never lost anything is short of nothing.
        let mut whole = of(&[5, 1], 3);
        whole.remove(&[5]);
        assert!(!whole.is_short_of(3) && whole.reaches(&[200]));
    }

    #[test]
    fn a_window_that_is_emptied_knows_what_it_did_not_have() {
        let mut window = of(&[5, 1, 9], 2);
        window.remove(&[1]);
        window.remove(&[5]);
        assert!(window.is_short_of(1));
        assert!(window.reaches(&[4]) && !window.reaches(&[6]));
    }
}
