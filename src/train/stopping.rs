//! Early stopping (`training.stop = "held-out"`): a share of the training rows is kept apart, the
//! model is measured on them now and then, and the best one is what the run saves.
//!
//! The measure moves the rows kept apart of one snapshot to the next and takes the squared energy
//! distance from those of that one, in network units, in the mean over the intervals. It is made at
//! fixed steps and on fixed rows, so that a resumed run goes on as if it had never ended.

use std::fmt;

use super::moved::Moved;
use crate::config::{Config, Stop};
use crate::data::{Loaded, RowMass, Snapshots, draw_gaussian};
use crate::density_path::Interpolant;
use crate::engine::{Engine, Training};
use crate::error::{Error, Result};
use crate::evaluate::energy_distance;
use crate::evenly::evenly;
use crate::model::Model;
use crate::rng::{Purpose, Stream, shuffled};

/// Fewest rows of a snapshot that say something.
const FEWEST: usize = 5;
/// Most rows of a snapshot that are moved.
const MOST: usize = 500;
/// Most intervals between snapshots.
const INTERVALS: usize = 8;
/// Measurements of a run, about, unless the rows are too few for so short a time.
const MEASUREMENTS: u64 = 50;
/// Share of the work of the steps between two measurements that one takes.
const SHARE_OF_WORK: f64 = 0.1;
/// Steps of the integration along an interval, and from noise.
const STEPS: u64 = 8;
const STEPS_FROM_NOISE: u64 = 32;

/// The rows that are trained on, and those kept apart from them, in random order; times are the
/// same.
pub(super) struct Parts {
    pub training: Snapshots,
    pub apart: Snapshots,
}

impl Parts {
    /// The training rows of `loaded` divided as `config` says; `None` if nothing is kept apart.
    ///
    /// # Errors
    /// [`Error::Input`] if a snapshot has too few rows.
    pub fn of(config: &Config, loaded: &Loaded) -> Result<Option<Parts>> {
        let Stop::HeldOut { share, .. } = config.training.stop else { return Ok(None) };
        let all = &loaded.training;
        // The same rows of every frame that follows the same particles.
        let follows_rows = config.objective.path.interpolant() == Interpolant::Nearest;
        let empty = || Snapshots {
            dim: all.dim,
            times: all.times.clone(),
            offsets: vec![0],
            samples: Vec::new(),
            mass: RowMass::default(),
        };
        let mut parts = Parts { training: empty(), apart: empty() };
        for k in 0..all.times.len() {
            let n = all.n_rows(k);
            let n_apart = (share * n as f64).round() as usize;
            if n_apart < FEWEST || n - n_apart < FEWEST {
                return Err(too_few(loaded, k, n_apart));
            }
            let rows: Vec<&[f32]> = all.rows(k).chunks_exact(all.dim).collect();
            let mut is_apart = vec![false; n];
            for &row in &shuffled(n, config.training.seed, Purpose::Stopping, if follows_rows { 0 } else { k as u64 })
                [..n_apart]
            {
                is_apart[row] = true;
                parts.apart.samples.extend_from_slice(rows[row]);
            }
            let others = rows.iter().zip(is_apart).filter(|(_, is_apart)| !is_apart);
            others.for_each(|(row, _)| parts.training.samples.extend_from_slice(row));
            for part in [&mut parts.training, &mut parts.apart] {
                part.offsets.push(part.samples.len() / all.dim);
            }
        }
        Ok(Some(parts))
    }
}

/// The error about snapshot `k`, of which `n_apart` rows would be kept apart.
fn too_few(loaded: &Loaded, k: usize, n_apart: usize) -> Error {
    let (n, time) = (loaded.training.n_rows(k), loaded.coordinates.data_time(loaded.training.times[k]));
    let problem = format!(
        "keeps {n_apart} of the {n} rows of time {time} apart: {FEWEST} or more are needed, and as many to train on"
    );
    let least = (100.0 * FEWEST as f64 / n as f64).ceil() / 100.0;
    let fix = if least <= *Stop::SHARES.end() {
        format!("set training.stop.share to {least} or more, or training.stop = \"never\"")
    } else {
        "give more rows, or set training.stop = \"never\"".into()
    };
    Error::input("configuration", "training.stop", problem, fix)
}

/// The best weights so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Steps after which they were taken.
    pub step: u64,
    /// Mean squared energy distance on the rows kept apart, network units.
    pub distance: f64,
    /// Measurements since then.
    pub in_vain: u64,
    /// The moving average of the parameters.
    pub weights: Vec<f32>,
}

/// What a run with early stopping saves in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    /// Steps after which the weights were taken.
    pub step: u64,
    /// Mean squared energy distance on the rows kept apart, network units.
    pub distance: f64,
    /// Steps of the run.
    pub taken: u64,
    /// Steps that the configuration asked for.
    pub asked: u64,
    /// Measurements after which a run ends without a better one.
    pub patience: u64,
    /// Number of the member of an ensemble, from 1; `None` in a run of a single model.
    pub member: Option<usize>,
}

/// One line for the user.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept { step, distance, taken, asked, patience, member } = self;
        if let Some(member) = member {
            write!(f, "member {member}: ")?;
        }
        write!(
            f,
            "the model is that of step {step} of {taken}: energy distance {distance:.4e} on the rows kept apart"
        )?;
        if taken < asked {
            write!(f, "; {patience} measurements after it were no better, so {} steps were left out", asked - taken)?;
        }
        Ok(())
    }
}

/// Early stopping of one run.
pub(super) struct Stopping {
    intervals: Vec<Interval>,
    /// Steps between two measurements.
    every: u64,
    patience: u64,
    seed: u64,
    pub best: Option<Best>,
}

/// Rows kept apart at both ends of an interval, network coordinates.
struct Interval {
    times: [f64; 2],
    steps: u64,
    departed: Vec<f32>,
    truth: Vec<f32>,
}

impl Stopping {
    /// Of a run of `config` on `training`, with the rows `apart`; `best` is that of the run so far.
    pub fn new(config: &Config, training: &Training, apart: &Snapshots, best: Option<Best>) -> Option<Stopping> {
        let Stop::HeldOut { patience, .. } = config.training.stop else { return None };
        let (seed, dim, steps) = (training.seed, apart.dim, config.training.steps);
        let is_generative = training.path.interpolant.is_generative();
        let integration = if is_generative { STEPS_FROM_NOISE } else { STEPS };
        let chosen = evenly(training.path.n_intervals(), INTERVALS);
        // In products with the weights: two a velocity (primal and reverse sweep), four velocities
        // a step; six a row of training.
        let of_row = (chosen.len() as u64 * integration * 4 * 2) as f64;
        let of_step = 6.0 * training.rows_per_step() as f64;
        let spacing = steps.div_ceil(MEASUREMENTS);
        let affordable = (SHARE_OF_WORK * spacing as f64 * of_step / of_row) as usize;
        let fewest = (0..apart.times.len()).map(|k| apart.n_rows(k)).min().unwrap_or(0).min(32);
        let n_rows = affordable.clamp(fewest, MOST);
        let every = spacing.max((fewest as f64 * of_row / (SHARE_OF_WORK * of_step)).ceil() as u64);
        let pick = |k: usize| apart.rows(k)[..dim * n_rows.min(apart.n_rows(k))].to_vec();
        let interval = |k: usize| {
            let times = [training.path.at(k, 0.0), training.path.at(k, 1.0)].map(|moment| f64::from(moment.t));
            let (departed, truth) = match is_generative {
                false => (pick(k), pick(k + 1)),
                true => {
                    let truth = pick(0);
                    (draw_gaussian(truth.len() / dim, dim, &mut Stream::of_normals(seed, dim)), truth)
                }
            };
            Interval { times, steps: integration, departed, truth }
        };
        Some(Stopping { intervals: chosen.into_iter().map(interval).collect(), every, patience, seed, best })
    }

    /// Steps from `step` to the next measurement.
    pub fn steps_left(&self, step: u64) -> u64 {
        self.every - step % self.every
    }

    /// True if the run is measured after `step` of its `end` steps.
    pub fn is_due(&self, step: u64, end: u64) -> bool {
        step.is_multiple_of(self.every) || step == end
    }

    /// True if the run has gone on in vain for long enough.
    pub fn is_spent(&self) -> bool {
        self.best.as_ref().is_some_and(|best| best.in_vain >= self.patience)
    }

    /// Measures `model` after `step` steps, and keeps its weights if none were better. `None` if it
    /// loses its rows.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn measure(&mut self, engine: &dyn Engine, model: Model, step: u64) -> Result<Option<f64>> {
        let mut sum = 0.0;
        for Interval { times, steps, departed, truth } in &self.intervals {
            // Not cancelled: a run that is continues from a checkpoint with this measurement.
            let way = (times.to_vec(), *steps);
            let Some(moved) = Moved::along(engine, &model, departed, way, self.seed, &())? else {
                self.best.iter_mut().for_each(|best| best.in_vain += 1);
                return Ok(None);
            };
            let dim = model.architecture.dim;
            sum += energy_distance(dim, moved.arrived(), moved.weights.as_deref(), truth, &())?;
        }
        let distance = sum / self.intervals.len() as f64;
        match &mut self.best {
            Some(best) if distance >= best.distance => best.in_vain += 1,
            _ => self.best = Some(Best { step, distance, in_vain: 0, weights: model.parameters }),
        }
        Ok(Some(distance))
    }

    /// What a run that took `taken` of `asked` steps saves; `None` if no model kept its rows.
    pub fn kept(&self, taken: u64, asked: u64) -> Option<Kept> {
        let Best { step, distance, .. } = *self.best.as_ref()?;
        Some(Kept { step, distance, taken, asked, patience: self.patience, member: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{RowGroups, Standardization};

    fn loaded(sizes: &[usize]) -> Loaded {
        let rows = sizes.iter().enumerate().map(|(k, &n)| (k as f64, (0..n).map(|row| row as f32).collect::<Vec<_>>()));
        let snapshots = Snapshots::from_rows(1, rows).expect("snapshots");
        let (training, coordinates) = snapshots.standardize(Standardization::default()).expect("standardizes");
        let held_out = Snapshots { dim: 1, times: vec![], offsets: vec![0], samples: vec![], mass: RowMass::default() };
        let groups = RowGroups::default();
        Loaded {
            training,
            held_out,
            coordinates,
            groups,
            components: None,
            table: String::new(),
            notices: vec![],
            warnings: vec![],
        }
    }

    fn config(share: f64) -> Config {
        let mut config = Config::default();
        config.training.stop = Stop::HeldOut { share, patience: 3 };
        config
    }

    #[test]
    fn each_row_is_in_one_part() {
        let loaded = loaded(&[60, 50, 73]);
        assert!(Parts::of(&Config::default(), &loaded).expect("divides").is_none());
        let parts = Parts::of(&config(0.1), &loaded).expect("divides").expect("parts");
        assert_eq!(parts.apart.offsets, [0, 6, 11, 18]);
        for part in [&parts.training, &parts.apart] {
            part.validate().expect("snapshots");
            assert_eq!(part.times, loaded.training.times);
        }
        for k in 0..3 {
            let mut both = [parts.training.rows(k), parts.apart.rows(k)].concat();
            both.sort_by(f32::total_cmp);
            assert_eq!(both, loaded.training.rows(k));
        }
        // Another seed keeps others apart.
        let mut other = config(0.1);
        other.training.seed = 1;
        let other = Parts::of(&other, &loaded).expect("divides").expect("parts");
        assert_ne!(other.apart.samples, parts.apart.samples);
    }

    #[test]
    fn too_few_rows_are_refused_with_a_share_that_works() {
        let message = |share: f64, sizes: &[usize]| {
            Parts::of(&config(share), &loaded(sizes)).err().expect("is refused").to_string()
        };
        let said = message(0.1, &[100, 30, 100]);
        assert!(said.contains("training.stop: keeps 3 of the 30 rows of time 1 apart"), "{said}");
        assert!(said.contains("set training.stop.share to 0.17 or more"), "{said}");
        assert!(Parts::of(&config(0.17), &loaded(&[100, 30, 100])).is_ok());
        let said = message(0.5, &[100, 7]);
        assert!(said.contains("give more rows, or set training.stop = \"never\""), "{said}");
    }
}
