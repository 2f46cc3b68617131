//! The distinct values of a column, numbered.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// The distinct values of a column while it is read, in the order of their first rows.
#[derive(Default)]
pub(super) struct Distinct<T> {
    pub values: Vec<T>,
    label_of: HashMap<T, u32>,
    /// Index into `values` of each row.
    pub labels: Vec<u32>,
}

impl<T: Clone + Eq + Hash> Distinct<T> {
    /// Adds the value of one more row.
    pub fn push<Q>(&mut self, value: &Q)
    where
        T: Borrow<Q>,
        Q: ToOwned<Owned = T> + Eq + Hash + ?Sized,
    {
        let label = self.label_of.get(value).copied().unwrap_or_else(|| {
            let label = self.values.len() as u32;
            self.values.push(value.to_owned());
            self.label_of.insert(value.to_owned(), label);
            label
        });
        self.labels.push(label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_number() {
        let mut distinct = Distinct::<String>::default();
        ["b", "a", "b", "c", "a"].into_iter().for_each(|text| distinct.push(text));
        assert_eq!(
            (&distinct.values[..], &distinct.labels[..]),
            (&["b", "a", "c"].map(String::from)[..], &[0, 1, 0, 2, 1][..])
        );
    }
}
