//! Snapshots with what the training of a model knew of them, and which are compared with which.

use serde::Serialize;

use super::StartFrom;
use crate::data::Snapshots;
use crate::error::{Error, Result};
use crate::evenly::evenly;
use crate::rng::Purpose;

/// What the training of a model knew of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It was trained on.
    Seen,
    /// Nobody says.
    Unknown,
    /// It was held out.
    HeldOut,
    /// It is of a time that the data of the training did not have.
    NeverSeen,
}

impl Role {
    /// True if a score says how the model predicts.
    #[must_use]
    pub fn is_predicted(self) -> bool {
        matches!(self, Role::HeldOut | Role::NeverSeen)
    }

    /// In words, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Seen => "seen",
            Role::Unknown => "unknown",
            Role::HeldOut => "held out",
            Role::NeverSeen => "never seen",
        }
    }
}

/// Snapshots, each with its role. Several may have a time in common: rows that were seen, and rows
/// that were held out.
#[derive(Clone, Debug)]
pub struct Labeled<'a> {
    /// In data units.
    pub snapshots: &'a Snapshots,
    /// One for each time.
    pub roles: Vec<Role>,
}

impl<'a> Labeled<'a> {
    /// All `snapshots` in one role.
    #[must_use]
    pub fn all(snapshots: &'a Snapshots, role: Role) -> Self {
        Labeled { snapshots, roles: vec![role; snapshots.times.len()] }
    }
}

/// One snapshot and its role.
#[derive(Clone, Copy)]
pub(super) struct Truth<'a> {
    snapshots: &'a Snapshots,
    k: usize,
    pub role: Role,
}

impl<'a> Truth<'a> {
    pub fn time(&self) -> f64 {
        self.snapshots.times[self.k]
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.snapshots.n_rows(self.k)
    }

    /// Rows `[n, dim]`.
    pub fn rows(&self) -> &'a [f32] {
        self.snapshots.rows(self.k)
    }

    /// Mass in any unit: the sum of the weights of the rows, or their number.
    pub fn mass(&self) -> f64 {
        self.snapshots.total(self.k)
    }

    /// As many rows as there are, in random order; of weighted rows those of a resampling.
    pub fn random_order(&self, seed: u64) -> Vec<usize> {
        self.snapshots.random_order(self.k, seed, Purpose::Evaluation, self.time().to_bits())
    }

    /// All snapshots of `labeled` by time, at one time by role.
    pub fn list(labeled: &[Labeled<'a>]) -> Vec<Truth<'a>> {
        let mut truths: Vec<Truth> = labeled
            .iter()
            .flat_map(|&Labeled { snapshots, ref roles }| {
                roles.iter().enumerate().map(move |(k, &role)| Truth { snapshots, k, role })
            })
            .collect();
        truths.sort_by(|a, b| a.time().total_cmp(&b.time()).then(a.role.cmp(&b.role)));
        truths
    }
}

/// The kind of a comparison: means are taken over comparisons of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A time before the last one that was trained on, or that one.
    Between,
    /// A time after it.
    Forecast,
    /// Rows that were left out of a snapshot whose others were trained on.
    Rows,
}

/// One comparison: indices of snapshots in a list by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Where the particles start; `None` for noise.
    pub from: Option<usize>,
    /// The truth.
    pub to: usize,
    /// The last snapshot before the truth, and the first after it, that predictions may use, if the
    /// truth is predicted and between two.
    pub beside: Option<[usize; 2]>,
    /// Rows at the time of the truth that were trained on, if the truth is rows left out.
    pub twin: Option<usize>,
    pub kind: Kind,
}

impl Way {
    /// The snapshots that it is made of.
    pub fn snapshots(&self) -> impl Iterator<Item = usize> {
        self.from.into_iter().chain([self.to]).chain(self.beside.into_iter().flatten()).chain(self.twin)
    }
}

/// The comparisons of `truths`, which are in order of time.
pub(super) fn ways(truths: &[Truth<'_>], start: StartFrom) -> Result<Vec<Way>> {
    let twin_of = |to: usize| {
        let is_twin = |&k: &usize| truths[k].role <= Role::Unknown && truths[k].time() == truths[to].time();
        Some(to).filter(|_| truths[to].role.is_predicted()).and_then(|to| (0..to).rev().take(1).find(is_twin))
    };
    let fail = |problem: String, fix: &str| Err(Error::input("evaluation", "times", problem, fix));
    let mut times: Vec<f64> = truths.iter().map(Truth::time).collect();
    times.dedup();
    if start == StartFrom::Noise {
        if times.len() != 1 {
            let fix = "give one snapshot for a model that starts from noise";
            return fail(format!("hold {} times", times.len()), fix);
        }
        let way = |to| {
            let twin = twin_of(to);
            let kind = if twin.is_some() { Kind::Rows } else { Kind::Between };
            Way { from: None, to, beside: None, twin, kind }
        };
        return Ok((0..truths.len()).map(way).collect());
    }
    if times.len() < 2 {
        let fix = "give snapshots at two or more times, or `StartFrom::Noise` for a model of a generative path";
        return fail("hold one time only".into(), fix);
    }
    // Particles start from what was trained on; without any such, from every snapshot.
    let is_known: Vec<bool> = truths.iter().map(|truth| !truth.role.is_predicted()).collect();
    let has_known = is_known.contains(&true);
    let may_start = |k: usize| is_known[k] || !has_known || k == 0;
    let last_known = (0..truths.len()).rev().find(|&k| is_known[k]).map(|k| truths[k].time());
    // Of each snapshot, the first start at a later time.
    let mut next_start = vec![None; truths.len()];
    for k in (0..truths.len() - 1).rev() {
        let is_later = truths[k + 1].time() > truths[k].time();
        let first =
            (k + 1..truths.len()).take_while(|&j| truths[j].time() == truths[k + 1].time()).find(|&j| may_start(j));
        next_start[k] = if is_later { first.or(next_start[k + 1]) } else { next_start[k + 1] };
    }
    let mut ways = Vec::new();
    // One a time, in order.
    let mut starts = vec![0];
    for to in 1..truths.len() {
        let at = truths[to].time();
        let last_start = starts.iter().rev().take(2).copied().find(|&k| truths[k].time() < at);
        if let Some(last_start) = last_start {
            let from = if start == StartFrom::First { 0 } else { last_start };
            let twin = twin_of(to);
            let is_forecast = truths[to].role.is_predicted() && last_known.is_some_and(|last| at > last);
            let kind = match twin {
                Some(_) => Kind::Rows,
                None if is_forecast => Kind::Forecast,
                None => Kind::Between,
            };
            let may_have_beside = truths[to].role.is_predicted() && twin.is_none();
            let after = next_start[to];
            let beside = after.filter(|_| may_have_beside).map(|after| [last_start, after]);
            ways.push(Way { from: Some(from), to, beside, twin, kind });
        }
        let is_first_of_its_time = at > truths[to - 1].time();
        if may_start(to) && is_first_of_its_time {
            starts.push(to);
        }
    }
    Ok(ways)
}

/// An evenly chosen subset of `most` of `ways`: of those that predict, and of the others, each as
/// many as half of it or as there are, and the rest of the other.
pub(super) fn chosen(ways: Vec<Way>, truths: &[Truth<'_>], most: usize) -> Vec<Way> {
    if ways.len() <= most {
        return ways;
    }
    let (predicted, seen): (Vec<Way>, Vec<Way>) = ways.into_iter().partition(|way| truths[way.to].role.is_predicted());
    let n_predicted = predicted.len().min(most - seen.len().min(most / 2));
    let choose = |ways: &[Way], n: usize| -> Vec<Way> { evenly(ways.len(), n).into_iter().map(|i| ways[i]).collect() };
    let n_seen = seen.len().min(most - n_predicted);
    let mut few = [choose(&predicted, n_predicted), choose(&seen, n_seen)].concat();
    few.sort_by_key(|way| way.to);
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(times: &[f64]) -> Snapshots {
        Snapshots::from_rows(1, times.iter().map(|&time| (time, vec![0.0f32; 3]))).expect("snapshots")
    }

    /// (from, to, kind, before and after) of each comparison, as times.
    type Named = (f64, f64, Kind, Option<[f64; 2]>);

    fn named(labeled: &[Labeled<'_>], start: StartFrom) -> Vec<Named> {
        let truths = Truth::list(labeled);
        let time = |k: usize| truths[k].time();
        let name = |way: Way| {
            (time(way.from.expect("a start")), time(way.to), way.kind, way.beside.map(|ends| ends.map(time)))
        };
        ways(&truths, start).expect("fits").into_iter().map(name).collect()
    }

    #[test]
    fn held_out_times_start_from_the_last_one_that_was_seen() {
        use Kind::{Between, Forecast};
        use Role::{HeldOut, NeverSeen, Seen};
        let snapshots = snapshots(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let labeled = [Labeled { snapshots: &snapshots, roles: vec![Seen, HeldOut, NeverSeen, Seen, Seen, HeldOut] }];
        let beside = Some([0.0, 3.0]);
        let wanted = [
            (0.0, 1.0, Between, beside),
            (0.0, 2.0, Between, beside),
            (0.0, 3.0, Between, None),
            (3.0, 4.0, Between, None),
            (4.0, 5.0, Forecast, None),
        ];
        assert_eq!(named(&labeled, StartFrom::Previous), wanted);
        let from_first = named(&labeled, StartFrom::First);
        assert!(from_first.iter().all(|(from, ..)| *from == 0.0));
        assert_eq!((from_first[1].3, from_first.len()), (beside, 5));
    }

    /// A file of which nothing was trained on: each snapshot moves to the next.
    #[test]
    fn what_was_never_seen_moves_too() {
        let snapshots = snapshots(&[0.5, 1.5, 2.5]);
        let all = named(&[Labeled::all(&snapshots, Role::NeverSeen)], StartFrom::Previous);
        let wanted = [(0.5, 1.5, Kind::Between, Some([0.5, 2.5])), (1.5, 2.5, Kind::Between, None)];
        assert_eq!(all, wanted);
        // The first start is held out: nothing else is there.
        let mixed = Labeled { snapshots: &snapshots, roles: vec![Role::HeldOut, Role::Seen, Role::Seen] };
        let moved = named(&[mixed], StartFrom::Previous);
        assert_eq!(moved.iter().map(|(from, to, ..)| (*from, *to)).collect::<Vec<_>>(), [(0.5, 1.5), (1.5, 2.5)]);
    }

    #[test]
    fn rows_left_out_are_compared_beside_those_that_were_not() {
        let (seen, left_out) = (snapshots(&[0.0, 1.0, 2.0]), snapshots(&[0.0, 1.0, 2.0]));
        let labeled = [Labeled::all(&seen, Role::Seen), Labeled::all(&left_out, Role::HeldOut)];
        let truths = Truth::list(&labeled);
        let ways = ways(&truths, StartFrom::Previous).expect("fits");
        let named: Vec<_> = ways.iter().map(|way| (way.from, way.to, way.kind, way.twin)).collect();
        let wanted = [
            (Some(0), 2, Kind::Between, None),
            (Some(0), 3, Kind::Rows, Some(2)),
            (Some(2), 4, Kind::Between, None),
            (Some(2), 5, Kind::Rows, Some(4)),
        ];
        assert_eq!(named, wanted);
        let one = snapshots(&[1.0]);
        let labeled = [Labeled::all(&one, Role::Seen), Labeled::all(&one, Role::HeldOut)];
        let ways = super::ways(&Truth::list(&labeled), StartFrom::Noise).expect("fits");
        assert_eq!(ways.iter().map(|way| way.twin).collect::<Vec<_>>(), [None, Some(0)]);
    }

    #[test]
    fn a_subset_is_spread_over_all_times() {
        let times: Vec<f64> = (0..=1000).map(f64::from).collect();
        let snapshots = snapshots(&times);
        let role = |k: usize| if k % 100 == 50 { Role::HeldOut } else { Role::Seen };
        let labeled = [Labeled { snapshots: &snapshots, roles: (0..=1000).map(role).collect() }];
        let truths = Truth::list(&labeled);
        let all = ways(&truths, StartFrom::Previous).expect("fits");
        assert_eq!(chosen(all.clone(), &truths, 1000), all);
        let few = chosen(all, &truths, 50);
        let held_out: Vec<usize> = few.iter().map(|way| way.to).filter(|&to| to % 100 == 50).collect();
        assert_eq!((few.len(), held_out.len()), (50, 10), "all that predict");
        let seen: Vec<usize> = few.iter().map(|way| way.to).filter(|&to| to % 100 != 50).collect();
        assert!(
            seen[0] <= 25 && seen[39] >= 975 && seen.windows(2).all(|pair| (20..=30).contains(&(pair[1] - pair[0])))
        );
    }
}
