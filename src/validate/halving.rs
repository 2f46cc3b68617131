//! Successive halving (Jamieson & Talwalkar, AISTATS 2016): all candidates with short trainings,
//! the better half with longer ones, until few are left.

use std::time::{Duration, Instant};

use super::candidates::Candidate;
use super::choice::{choose, difference, is_tie, noise};
use super::folds::{Fold, LeaveOut};
use super::progress::Progress;
use super::score::{PathOfFold, Score};
use super::{Mean, Scored, Validation};
use crate::config::Config;
use crate::data::Snapshots;
use crate::error::Result;
use crate::stage::Stage;

/// Rows of a step, at most: many steps of few rows tell candidates apart sooner than few of many.
const ROWS: usize = 256;
/// Candidates that have trainings of the full length, at most.
const FINALISTS: usize = 3;
/// Share of the best score within which a path goes on to be trained, if neither the standard error
/// of the difference nor that by sampling is more.
const NEAR: f64 = 0.1;

/// A comparison in progress.
pub(super) struct Halving<'a> {
    config: &'a Config,
    groups: &'a [Snapshots],
    folds: &'a [Fold],
    seeds: u64,
    /// Smallest difference of mean scores that says anything.
    noise: f64,
    stage: &'a Stage<'a>,
    /// Those that are left.
    candidates: Vec<Candidate>,
    /// The path of each of them through every fold; empty until it is needed.
    paths: Vec<(Candidate, Vec<PathOfFold<'a>>)>,
    /// Those that are left, scored; empty before the first scores.
    scored: Vec<Scored>,
    /// Those that are out, the last to go first.
    dropped: Vec<Scored>,
}

impl<'a> Halving<'a> {
    pub fn new(
        config: &'a Config,
        groups: &'a [Snapshots],
        folds: &'a [Fold],
        candidates: Vec<Candidate>,
        seeds: u64,
        stage: &'a Stage<'a>,
    ) -> Self {
        Halving {
            config,
            groups,
            folds,
            seeds,
            noise: noise(folds),
            stage,
            candidates,
            paths: Vec::new(),
            scored: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Scores the path of each candidate without a network, and keeps the candidates of the best
    /// `most` paths, of those near the best one.
    ///
    /// # Errors
    /// Errors of couplings; [`Error::Interrupted`](crate::Error::Interrupted).
    pub fn by_path(&mut self, most: usize) -> Result<()> {
        self.make_paths()?;
        let seed = self.config.training.seed;
        let tasks: Vec<&PathOfFold> = self.paths.iter().flat_map(|(_, of_folds)| of_folds).collect();
        let scores = self.stage.map(usize::MAX, &tasks, |path| path.path_scores(seed, self.stage.watch))?;
        let scored = |((candidate, _), scores): (&(Candidate, _), &[Vec<Score>])| Scored {
            candidate: candidate.clone(),
            steps: 0,
            scores: scores.concat(),
        };
        let mut scored: Vec<Scored> = self.paths.iter().zip(scores.chunks(self.folds.len())).map(scored).collect();
        sort(&mut scored);
        let best = scored[0].clone();
        let is_near = |path: &Scored| {
            let Mean { mean, standard_error } = difference(path, &best);
            let near = standard_error.unwrap_or(0.0).max(NEAR * best.energy().mean.abs()).max(self.noise);
            // What is chosen unless growth is clearly better is there to be chosen.
            let is_spared = best.candidate.growth > 0.0 && is_tie(path, &best, self.noise);
            *path == best || mean <= near || is_spared
        };
        let (near, far): (Vec<Scored>, Vec<Scored>) = scored.into_iter().partition(is_near);
        scored = near;
        // Of the candidates that do not grow, the best stays among `most`.
        let still = scored.iter().position(|path| path.candidate.growth == 0.0);
        if let Some(still) = still.filter(|&still| still >= most) {
            let best_still = scored.remove(still);
            scored.insert(most - 1, best_still);
        }
        self.dropped = scored.split_off(most.min(scored.len()));
        self.dropped.extend(far);
        let is_kept = |candidate: &Candidate| scored.iter().any(|kept| kept.candidate.has_path_of(candidate));
        self.candidates.retain(is_kept);
        self.paths.retain(|(candidate, _)| is_kept(candidate));
        self.scored = scored;
        Ok(())
    }

    /// Pairs the snapshots of every fold, once for all candidates of one path.
    fn make_paths(&mut self) -> Result<()> {
        if !self.paths.is_empty() {
            return Ok(());
        }
        let mut different: Vec<Candidate> = Vec::new();
        for candidate in &self.candidates {
            if !different.iter().any(|path| path.has_path_of(candidate)) {
                different.push(candidate.clone());
            }
        }
        let folds = self.folds;
        let tasks: Vec<(&Candidate, &'a Fold)> =
            different.iter().flat_map(|path| folds.iter().map(move |fold| (path, fold))).collect();
        let quiet = &Progress::quiet(self.stage.watch);
        let make = |&(candidate, fold): &(&Candidate, &'a Fold)| {
            PathOfFold::new(fold, &self.groups[fold.group], self.config, candidate, quiet)
        };
        let mut made = self.stage.map(usize::MAX, &tasks, make)?.into_iter();
        self.paths = different.into_iter().map(|path| (path, made.by_ref().take(folds.len()).collect())).collect();
        Ok(())
    }

    /// Numbers of candidates of each round of trainings.
    fn rounds(&self) -> Vec<usize> {
        let halves = std::iter::successors(Some(self.candidates.len()), |&n| (n > FINALISTS).then(|| n.div_ceil(2)));
        halves.collect()
    }

    /// Steps of the trainings of each round if those of the last are `longest`.
    pub fn lengths(&self, longest: u64) -> Vec<u64> {
        let rounds = self.rounds().len();
        (0..rounds).rev().map(|left| longest >> left).collect()
    }

    /// Steps of the last round if all take `work` rows × steps.
    pub fn longest_within(&self, work: u64) -> u64 {
        let rounds = self.rounds();
        let trainings = self.folds.len() as u64 * self.seeds;
        // In units of the last length.
        let weighted = |(k, &n): (usize, &usize)| n as f64 / f64::from(1u32 << (rounds.len() - 1 - k).min(31));
        let all: f64 = rounds.iter().enumerate().map(weighted).sum();
        (work as f64 / (all * (trainings * self.rows() as u64) as f64)) as u64
    }

    /// Steps of the last round if all take about `time`, by the time of some steps of the largest
    /// candidate.
    pub fn steps_within(&mut self, time: Duration) -> Result<u64> {
        const STEPS: u64 = 50;
        let size = |candidate: &&Candidate| candidate.hidden.iter().map(|width| width * width).sum::<usize>();
        let Some(largest) = self.candidates.iter().max_by_key(size).cloned() else { return Ok(1) };
        self.make_paths()?;
        let Some((_, of_folds)) = self.paths.iter().find(|(path, _)| path.has_path_of(&largest)) else { return Ok(1) };
        let began = Instant::now();
        let config = self.training(&largest, STEPS, 0);
        of_folds[0].trained_scores(&config, false, &Progress::quiet(self.stage.watch))?;
        Ok(self.steps_at(time, began.elapsed().as_secs_f64() / STEPS as f64))
    }

    /// Steps of the last round if all take about `time` and a step takes `per_step` seconds.
    fn steps_at(&self, time: Duration, per_step: f64) -> u64 {
        let rows = time.as_secs_f64() / per_step * self.stage.threads as f64 * self.rows() as f64;
        self.longest_within(rows as u64)
    }

    fn rows(&self) -> usize {
        self.config.training.interior_rows.min(ROWS)
    }

    /// The run of `candidate` on a fold.
    fn training(&self, candidate: &Candidate, steps: u64, seed: u64) -> Config {
        let mut config = candidate.applied_to(self.config);
        config.training.steps = steps;
        config.training.interior_rows = self.rows();
        config.training.boundary_rows = config.training.boundary_rows.min(self.rows());
        config.training.seed = config.training.seed.wrapping_add(seed);
        config
    }

    /// Trains what is left in rounds, the last one for `longest` steps.
    pub fn by_training(&mut self, longest: u64, with_w1: bool) -> Result<()> {
        if self.candidates.len() == 1 && !with_w1 {
            return Ok(()); // nothing left to choose
        }
        let (rounds, lengths) = (self.rounds(), self.lengths(longest));
        let trainings = self.folds.len() as u64 * self.seeds;
        let total = rounds.iter().zip(&lengths).map(|(&n, steps)| n as u64 * steps).sum::<u64>() * trainings;
        let progress = Progress::new(self.stage.watch, total);
        self.make_paths()?;
        self.scored.clear();
        for (round, &steps) in lengths.iter().enumerate() {
            let is_last = round + 1 == rounds.len();
            let steps = steps.max(1);
            let mut scored = self.trained(steps, with_w1 && is_last, &progress)?;
            sort(&mut scored);
            let kept = if is_last { scored.len() } else { rounds[round + 1] };
            let mut dropped = scored.split_off(kept);
            dropped.append(&mut self.dropped);
            self.dropped = dropped;
            self.candidates = scored.iter().map(|scored| scored.candidate.clone()).collect();
            self.scored = scored;
        }
        Ok(())
    }

    /// The scores of all candidates that are left, after trainings of `steps` steps.
    fn trained(&self, steps: u64, with_w1: bool, progress: &Progress) -> Result<Vec<Scored>> {
        let mut tasks = Vec::new();
        for candidate in &self.candidates {
            let Some((_, of_folds)) = self.paths.iter().find(|(path, _)| path.has_path_of(candidate)) else { continue };
            for seed in 0..self.seeds {
                tasks.extend(of_folds.iter().map(|path| (self.training(candidate, steps, seed), path)));
            }
        }
        let scores = (self.stage.watched_by(progress))
            .map(usize::MAX, &tasks, |(config, path)| path.trained_scores(config, with_w1, progress))?;
        let per_candidate = self.folds.len() * self.seeds as usize;
        // Trainings of one time are no independent evidence: their mean is one score.
        let scored = |(candidate, scores): (&Candidate, &[Vec<Score>])| {
            let seeds: Vec<Vec<Score>> = scores.chunks(self.folds.len()).map(<[_]>::concat).collect();
            let of_target = |k: usize| Score::mean(&seeds.iter().map(|scores| scores[k]).collect::<Vec<_>>());
            let scores = (0..seeds[0].len()).map(of_target).collect();
            Scored { candidate: candidate.clone(), steps, scores }
        };
        Ok(self.candidates.iter().zip(scores.chunks(per_candidate)).map(scored).collect())
    }

    /// All candidates, and the choice among those that are left.
    pub fn finish(self, baselines: Vec<(&'static str, Vec<Score>)>, leave_out: LeaveOut) -> Validation {
        let chosen = choose(&self.scored, self.noise).unwrap_or(0);
        let times = self.folds.iter().flat_map(|fold| fold.targets.iter().map(|target| target.time)).collect();
        Validation { scored: [self.scored, self.dropped].concat(), baselines, leave_out, times, chosen }
    }
}

/// The best first.
fn sort(scored: &mut [Scored]) {
    scored.sort_by(|a, b| a.energy().mean.total_cmp(&b.energy().mean));
}

#[cfg(test)]
mod tests {
    use super::super::candidates::{Scope, candidates};
    use super::super::folds::folds;
    use super::*;
    use crate::data::Standardization;

    /// All rounds together take the time that is given, whatever a step takes.
    #[test]
    fn a_time_is_divided_among_all_trainings() {
        let at = |k: u32| (0..60).map(|row| f64::from(k).sin() as f32 + row as f32 / 60.0).collect::<Vec<f32>>();
        let rows = (0..6).map(|k| (f64::from(k), at(k)));
        let snapshots = Snapshots::from_rows(1, rows).expect("snapshots");
        let (snapshots, coordinates) = snapshots.standardize(Standardization::default()).expect("standardizes");
        let config = Config::default();
        let groups = [snapshots.clone()];
        let folds = folds(&snapshots, &coordinates, Standardization::default(), LeaveOut::Middle, 0).expect("folds");
        for (threads, seeds) in [(1, 1), (4, 3)] {
            let all = candidates(&config, &snapshots, Scope::All);
            let stage = Stage::new(threads, &());
            let halving = Halving::new(&config, &groups, &folds, all, seeds, &stage);
            for per_step in [1e-4, 2e-3] {
                let longest = halving.steps_at(Duration::from_secs(600), per_step);
                let steps: u64 =
                    halving.rounds().iter().zip(halving.lengths(longest)).map(|(&n, steps)| n as u64 * steps).sum();
                let seconds = steps as f64 * (folds.len() as u64 * seeds) as f64 * per_step / threads as f64;
                assert!((590.0..=600.0).contains(&seconds), "{threads} threads, {per_step} s: {seconds}");
            }
        }
    }
}
