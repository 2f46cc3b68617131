//! Which rank forms and adds which gradients, so that any number of ranks gives equal bits.
//!
//! A batch has V shards, a power of two, 8 by default (`training.shards`): tile t of it, and with
//! it every row, lies in shard t mod V, whatever the number of ranks. The gradients of shards are
//! added in pairs of neighbors, which makes a tree, here for V = 8:
//!
//! ```text
//! ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
//! ```
//!
//! Rank r of W forms the V / W consecutive shards from r V / W on and adds them: that is a node of
//! the tree, as W divides V. The gradient is cut into W slices. Each rank sends slice q of its sum
//! to rank q, adds its own slice of all W sums, which is the rest of the tree, and hands the result
//! to all. So one rank adds the same numbers in the same order, and a rank sends the gradient not
//! quite twice.
//!
//! A rank sends nothing before it has swept all its shards. What it sends is a whole gradient,
//! however many shards are in it: sending the sum of some of them earlier would send the gradient
//! once more, and leave as much to be sent after the last one.
//!
//! ```
//! use action_matching::ranks::shards::Plan;
//!
//! let plan = Plan::new(8, 2, 1, 1000, 4)?;
//! assert_eq!((plan.own_shards(), plan.slice(1)), (4..8, 500..1000));
//! # Ok::<(), action_matching::Error>(())
//! ```

use std::ops::Range;

use crate::error::{Error, Result};

/// Most shards of a batch.
pub const MAX_SHARDS: usize = 64;

/// True if a batch can have `n_shards` shards: a power of two up to [`MAX_SHARDS`], as they are
/// added in pairs.
#[must_use]
pub fn are_possible(n_shards: usize) -> bool {
    n_shards.is_power_of_two() && n_shards <= MAX_SHARDS
}

/// Shards with which each of `n_ranks` GPUs has as many blocks for its weight gradient as one GPU
/// has for that of a whole batch; [`MAX_SHARDS`] if that takes more.
#[must_use]
pub fn advised(n_ranks: usize) -> usize {
    const OF_RANK: usize = 8;
    (OF_RANK * n_ranks.next_power_of_two()).min(MAX_SHARDS)
}

/// The numbers of shards that are possible, as advice.
pub(crate) const POSSIBLE: &str = "use a power of two from 1 to 64";

/// Who forms, sends, adds and gathers what, as rank `rank` sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    n_shards: usize,
    n_ranks: usize,
    rank: usize,
    n_elements: usize,
    /// Slices begin at multiples of this.
    unit: usize,
}

/// Elements of a rank's sum that go to another rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The rank at the other end.
    pub peer: usize,
    /// The elements: a slice.
    pub elements: Range<usize>,
}

impl Plan {
    /// The plan of rank `rank` of `n_ranks` for a gradient of `n_elements` elements in `n_shards`
    /// shards; slices begin at multiples of `unit` elements, which kernels move at once.
    ///
    /// # Errors
    /// A number of shards that is not [possible](are_possible), or of ranks that does not divide
    /// it.
    pub fn new(n_shards: usize, n_ranks: usize, rank: usize, n_elements: usize, unit: usize) -> Result<Plan> {
        let refused = |problem: String, fix: &str| Err(Error::input("configuration", "training.shards", problem, fix));
        if !are_possible(n_shards) {
            return refused(format!("is {n_shards}"), POSSIBLE);
        }
        if n_ranks == 0 || !n_shards.is_multiple_of(n_ranks) {
            let divisors: Vec<String> = (0..=n_shards.ilog2()).map(|k| (1 << k).to_string()).collect();
            let mut fix = format!("take as many ranks as divide it ({})", divisors.join(", "));
            if are_possible(n_ranks) {
                fix += &format!(", or train anew with training.shards = {n_ranks} at least");
            }
            return refused(format!("is {n_shards}, and {n_ranks} ranks cannot share so many equally"), &fix);
        }
        if rank >= n_ranks || unit == 0 {
            let problem = format!("rank {rank} of {n_ranks}, slices of multiples of {unit}");
            return Err(Error::input("gradient", "ranks", problem, "ranks count from 0, a unit is 1 or more"));
        }
        Ok(Plan { n_shards, n_ranks, rank, n_elements, unit })
    }

    /// The shards whose gradients this rank forms and adds.
    #[must_use]
    pub fn own_shards(&self) -> Range<usize> {
        let n_own = self.n_shards / self.n_ranks;
        self.rank * n_own..(self.rank + 1) * n_own
    }

    /// The elements that rank `rank` adds for all, and hands to all. Slices are consecutive; those
    /// at the end may be shorter, or empty.
    #[must_use]
    pub fn slice(&self, rank: usize) -> Range<usize> {
        let length = self.slice_len();
        (rank * length).min(self.n_elements)..((rank + 1) * length).min(self.n_elements)
    }

    /// Elements of the longest slice: gathering moves as many from every rank.
    #[must_use]
    pub fn slice_len(&self) -> usize {
        self.n_elements.div_ceil(self.n_ranks).next_multiple_of(self.unit)
    }

    /// What this rank sends: to each other rank its slice.
    pub fn sends(&self) -> impl Iterator<Item = Transfer> {
        self.others().map(|peer| Transfer { peer, elements: self.slice(peer) })
    }

    /// What this rank receives: from each other rank the slice of this one.
    pub fn receives(&self) -> impl Iterator<Item = Transfer> {
        self.others().map(|peer| Transfer { peer, elements: self.slice(self.rank) })
    }

    /// The other ranks, beginning with the next: so not all send to one at once.
    fn others(&self) -> impl Iterator<Item = usize> {
        (1..self.n_ranks).map(|distance| (self.rank + distance) % self.n_ranks)
    }

    /// Elements that this rank sends in a step: slices of its sum, and the sum of its slice.
    #[must_use]
    pub fn sent_elements(&self) -> usize {
        let slices: usize = self.sends().map(|transfer| transfer.elements.len()).sum();
        slices + self.slice(self.rank).len() * (self.n_ranks - 1)
    }
}

/// The sum of an element over shards, or over the sums of ranks, in pairs of neighbors. Their
/// number is a power of two.
#[must_use]
pub fn sum(values: &[f32]) -> f32 {
    match values {
        [] => 0.0,
        [one] => *one,
        _ => {
            let (low, high) = values.split_at(values.len() / 2);
            sum(low) + sum(high)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, words};

    /// A gradient whose sums depend on their order.
    fn gradient(shard: usize, n: usize) -> Vec<f32> {
        let of = |i: usize| {
            let [a, b, ..] = words(shard as u64, Purpose::Group, i as u64, 0);
            (f64::from(a) / 2f64.powi(31) - 1.0) as f32 * 2f32.powi((b % 24) as i32)
        };
        (0..n).map(of).collect()
    }

    /// The sum of all shards' `gradient` at each of `n` elements.
    fn sums(shards: Range<usize>, n: usize) -> Vec<f32> {
        let gradients: Vec<Vec<f32>> = shards.map(|shard| gradient(shard, n)).collect();
        (0..n).map(|i| sum(&gradients.iter().map(|gradient| gradient[i]).collect::<Vec<_>>())).collect()
    }

    /// What each rank has in the end: ranks know nothing but their plans, their shards and
    /// messages.
    fn exchange(n_shards: usize, n_ranks: usize, n: usize, unit: usize) -> Vec<f32> {
        let plan = |rank| Plan::new(n_shards, n_ranks, rank, n, unit).expect("a plan");
        let plans: Vec<Plan> = (0..n_ranks).map(plan).collect();
        let own: Vec<Vec<f32>> = plans.iter().map(|plan| sums(plan.own_shards(), n)).collect();
        let mut gathered = vec![f32::NAN; n];
        for plan in &plans {
            let slice = plan.slice(plan.rank);
            let mut parts: Vec<Option<&[f32]>> = vec![None; n_ranks];
            parts[plan.rank] = Some(&own[plan.rank][slice.clone()]);
            for Transfer { peer, elements } in plan.receives() {
                let sent: Vec<Transfer> = plans[peer].sends().filter(|sent| sent.peer == plan.rank).collect();
                assert_eq!(sent, [Transfer { peer: plan.rank, elements: elements.clone() }], "what is awaited");
                assert_eq!(parts[peer].replace(&own[peer][elements]), None, "each comes once");
            }
            let parts: Vec<&[f32]> = parts.into_iter().map(|part| part.expect("all ranks")).collect();
            for (i, element) in slice.enumerate() {
                gathered[element] = sum(&parts.iter().map(|part| part[i]).collect::<Vec<_>>());
            }
        }
        gathered
    }

    #[test]
    fn a_rank_is_advised_to_have_the_blocks_of_one_gpu() {
        let advice = [(1, 8), (2, 16), (3, 32), (4, 32), (8, 64), (16, 64), (64, 64)];
        for (n_ranks, n_shards) in advice {
            assert_eq!(advised(n_ranks), n_shards, "{n_ranks} ranks");
            assert!(are_possible(n_shards));
        }
    }

    #[test]
    fn any_number_of_ranks_gives_the_bits_of_one() {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for n_shards in [1, 2, 8, 16, 64] {
            for (n, unit) in [(0, 4), (3, 4), (64, 4), (1000, 4), (1001, 1)] {
                let expected = bits(sums(0..n_shards, n));
                for n_ranks in (1..=n_shards).filter(|n_ranks| n_shards % n_ranks == 0) {
                    let gathered = bits(exchange(n_shards, n_ranks, n, unit));
                    assert_eq!(gathered, expected, "{n_shards} shards, {n_ranks} ranks, {n} elements");
                }
            }
        }
    }

    /// As `gather_gradient` adds them (`kernels/optimizer/gather.cuh`).
    #[test]
    fn shards_are_added_in_pairs() {
        let v: Vec<f32> = (0..8).map(|shard| gradient(shard, 1)[0]).collect();
        let expected = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
        assert_eq!(sum(&v).to_bits(), expected.to_bits());
        let orders_differ = (0..100).any(|i| {
            let values: Vec<f32> = (0..8).map(|shard| gradient(shard, 100)[i]).collect();
            sum(&values).to_bits() != values.iter().sum::<f32>().to_bits()
        });
        assert!(orders_differ, "sums in a row would pass too");
    }

    /// Shards and slices are each somebody's, and a rank sends the gradient not quite twice.
    #[test]
    fn all_is_covered_and_little_is_sent() {
        const N: usize = 10_001;
        for (n_shards, n_ranks) in [(8, 1), (8, 2), (8, 4), (8, 8), (64, 16), (64, 64)] {
            let (mut shards, mut elements) = (0, 0);
            for rank in 0..n_ranks {
                let plan = Plan::new(n_shards, n_ranks, rank, N, 4).expect("a plan");
                let slice = plan.slice(rank);
                assert!(slice.start == elements && slice.len() <= plan.slice_len());
                assert!(slice.is_empty() || slice.start.is_multiple_of(4));
                assert_eq!(plan.own_shards().start, shards);
                (shards, elements) = (plan.own_shards().end, slice.end);
                assert!(plan.sent_elements() <= 2 * (N + 4 * n_ranks) * (n_ranks - 1) / n_ranks);
            }
            assert_eq!((shards, elements), (n_shards, N));
        }
    }

    #[test]
    fn numbers_that_do_not_divide_are_refused() {
        let refused = |n_shards, n_ranks| Plan::new(n_shards, n_ranks, 0, 100, 4).expect_err("refused").to_string();
        for n_ranks in [0, 3, 5, 16, 128] {
            let message = refused(8, n_ranks);
            let of_both = format!("training.shards: is 8, and {n_ranks} ranks cannot share");
            assert!(message.contains(&of_both) && message.contains("(1, 2, 4, 8)"), "{message}");
            assert_eq!(message.contains("training.shards = 16 at least"), n_ranks == 16, "{message}");
        }
        assert!([0, 12, 128].iter().all(|&n_shards| refused(n_shards, 2).contains("a power of two from 1 to 64")));
        assert!(Plan::new(8, 2, 2, 100, 4).is_err() && Plan::new(8, 2, 1, 100, 0).is_err());
    }
}
