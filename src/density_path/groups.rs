//! Snapshots taken under several conditions: a path through those of each, and which of them a row
//! of a batch comes from.
//!
//! Samples are paired and moved within a group only, so a group has a [`DensityPath`] of its own,
//! and the loss is the mean of the groups' losses weighted by their samples.

use super::DensityPath;
use crate::error::{Error, Result, check_len};

/// The snapshots under one condition.
#[derive(Clone, Debug)]
pub struct Group {
    /// The condition, as inputs of the network.
    pub condition: Vec<f32>,
    /// The path through its snapshots, whose times may be a part of 0..=1.
    pub path: DensityPath,
}

/// The groups of a training, at least one. A row of a batch comes from each in proportion to its
/// samples.
#[derive(Clone, Debug)]
pub struct Groups {
    groups: Vec<Group>,
    /// Cumulative share of the samples up to each group, in units of 2⁻³².
    cumulative: Vec<u32>,
}

impl Groups {
    /// Groups with equally many condition inputs each, and paths of one kind.
    ///
    /// # Errors
    /// [`Error::Input`] for no group, and for paths of different kinds; [`Error::Shape`] for a
    /// condition of another length.
    pub fn new(groups: Vec<Group>) -> Result<Groups> {
        let Some(first) = groups.first() else {
            return Err(Error::input("training", "groups", "are none", "give one at least"));
        };
        for group in &groups {
            check_len("condition of a group", first.condition.len(), group.condition.len())?;
            if group.path.interpolant != first.path.interpolant {
                let problem = format!("have the paths {:?} and {:?}", first.path.interpolant, group.path.interpolant);
                return Err(Error::input("training", "groups", problem, "give them paths of one kind"));
            }
        }
        let rows: Vec<usize> = groups.iter().map(Group::n_rows).collect();
        let total: usize = rows.iter().sum();
        let mut below = 0;
        let cumulative = rows.iter().map(|n| {
            below += n;
            ((below as u128) << 32)
                .checked_div(total as u128)
                .map_or(u32::MAX, |units| units.min(u32::MAX.into()) as u32)
        });
        Ok(Groups { cumulative: cumulative.collect(), groups })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Group] {
        &self.groups
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> &Group {
        &self.groups[0]
    }

    /// Share of group `k` in the samples, and so in the rows of a batch.
    #[must_use]
    pub fn share(&self, k: usize) -> f64 {
        let total: usize = self.groups.iter().map(Group::n_rows).sum();
        self.groups[k].n_rows() as f64 / total as f64
    }

    /// The share of the samples up to each group, in units of 2⁻³²: a random word below it selects
    /// that group or one before.
    pub(crate) fn cumulative(&self) -> &[u32] {
        &self.cumulative
    }

    /// The number of the group that the random `word` selects.
    #[must_use]
    pub fn select(&self, word: u32) -> usize {
        // Integer arithmetic, so that every engine selects the same group.
        self.cumulative.partition_point(|&below| below <= word).min(self.groups.len() - 1)
    }

    /// Checks the path of each, and the conditions, for samples of `dim` dimensions and a network
    /// with `n_inputs` condition inputs.
    ///
    /// # Errors
    /// As [`DensityPath::validate`].
    pub fn validate(&self, dim: usize, n_inputs: usize) -> Result<()> {
        check_len("condition of a group", n_inputs, self.first().condition.len())?;
        for group in &self.groups {
            group.path.validate_within(dim)?;
            if let Some(value) = group.condition.iter().find(|value| !value.is_finite()) {
                let fix = "give finite inputs";
                return Err(Error::input("training", "condition of a group", format!("contains {value}"), fix));
            }
        }
        Ok(())
    }
}

impl Group {
    fn n_rows(&self) -> usize {
        self.path.snapshots.offsets.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Snapshots;

    fn group(n: usize, condition: &[f32]) -> Group {
        let rows = vec![0.5; n];
        let snapshots = Snapshots::from_rows(1, [(0.0, &rows[..]), (1.0, &rows[..])]).expect("snapshots");
        Group { condition: condition.to_vec(), path: DensityPath::linear(snapshots) }
    }

    #[test]
    fn groups_are_selected_in_proportion_to_their_samples() {
        let groups = Groups::new(vec![group(10, &[0.0]), group(30, &[1.0]), group(60, &[2.0])]).expect("groups");
        let mut counts = [0; 3];
        (0..1000u32).for_each(|i| counts[groups.select(i * (u32::MAX / 1000))] += 1);
        for (k, want) in [100, 300, 600].into_iter().enumerate() {
            assert!(i32::abs(counts[k] - want) <= 1, "{counts:?}");
            assert!((groups.share(k) - f64::from(want) / 1000.0).abs() < 1e-12);
        }
        assert_eq!((groups.select(0), groups.select(u32::MAX)), (0, 2));
    }

    #[test]
    fn groups_that_do_not_go_together_are_refused() {
        let nearest = Group { path: DensityPath::nearest(group(2, &[]).path.snapshots), ..group(2, &[1.0]) };
        for (groups, message) in [
            (vec![], "groups: are none"),
            (vec![group(2, &[1.0]), group(2, &[1.0, 2.0])], "condition of a group: expected 1 values, got 2"),
            (vec![group(2, &[1.0]), nearest], "have the paths Linear and Nearest"),
        ] {
            let error = Groups::new(groups).expect_err("do not go together").to_string();
            assert!(error.contains(message), "{error}, not {message}");
        }
        let infinite = Groups::new(vec![group(2, &[f32::INFINITY])]).expect("groups");
        assert!(infinite.validate(1, 1).expect_err("not finite").to_string().contains("contains inf"));
        assert!(infinite.validate(1, 2).is_err() && infinite.validate(2, 1).is_err());
    }
}
