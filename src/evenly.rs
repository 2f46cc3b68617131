//! Some of many, evenly chosen.

/// Indices of `most` of `n` items, or of all if there are fewer: the middles of equal stretches.
#[must_use]
pub(crate) fn evenly(n: usize, most: usize) -> Vec<usize> {
    let chosen = n.min(most);
    let middle = |i: usize| ((2 * i as u128 + 1) * n as u128 / (2 * chosen as u128)) as usize;
    (0..chosen).map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_spread_over_all() {
        assert_eq!(evenly(3, 5), [0, 1, 2]);
        assert_eq!(evenly(9, 3), [1, 4, 7]);
        assert_eq!(evenly(10, 4), [1, 3, 6, 8]);
        assert_eq!(evenly(5, 1), [2]);
        assert!(evenly(0, 4).is_empty() && evenly(4, 0).is_empty());
        assert_eq!(evenly(usize::MAX, 2), [usize::MAX / 4, usize::MAX / 4 * 3 + 2]);
    }
}
