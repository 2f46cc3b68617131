//! Several models of the same data, trained from different seeds: their mean, and how far they
//! disagree.
//!
//! The spread is that of training: where data do not decide what the network does, members differ.
//! It does not show what all members share: the path that was assumed between snapshots, the
//! pairing, the sample that the data are, and whether the population goes on as before after the
//! last snapshot.

use std::collections::HashMap;

use crate::engine::{Differentiate, Engine, IntegrationReport};
use crate::error::{Error, Result, check_len};
use crate::flow::{Coordinate, Local};
use crate::integrate::{Plan, Solver, Trajectories};
use crate::model::{ConditionValue, Model};
use crate::stage::{Section, Watch};

/// Two or more models of the same data and dynamics.
///
/// ```
/// use action_matching::Ensemble;
/// use action_matching::prelude::*;
///
/// // Untrained models of two seeds, which disagree.
/// let model = |seed| Model::initial(Architecture::new(2, [8]), seed);
/// let ensemble = Ensemble::new(vec![model(0), model(1)])?;
/// let engine = CpuEngine::new(1);
/// let velocity = ensemble.velocity(&engine, &[0.5_f64, -1.0], 0.5)?;
/// let [a, b] = [0, 1].map(|seed| model(seed).velocity(&engine, &[0.5_f64, -1.0], 0.5));
/// let (a, b) = (a?[0], b?[0]);
/// assert!((velocity.mean[0] - (a + b) / 2.0).abs() < 1e-12);
/// assert!((velocity.spread[0] - (a - b).abs() / 2.0_f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ensemble {
    members: Vec<Model>,
}

/// What the members of an [`Ensemble`] say of some quantity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate<T> {
    /// Mean over the members.
    pub mean: Vec<T>,
    /// Standard deviation over the members (that of a sample, with n − 1).
    pub spread: Vec<T>,
}

/// Standard deviations over the members of an [`Ensemble`] that moved the same particles.
#[derive(Clone, Debug, PartialEq)]
pub struct TrajectorySpread {
    /// Of positions `[saved, n, dim]`, network coordinates.
    pub positions: Vec<f32>,
    /// Of log-weights `[saved, n]`, if the particles have weights.
    pub log_weights: Option<Vec<f32>>,
}

impl Ensemble {
    /// The ensemble of `members`, at least two.
    ///
    /// # Errors
    /// [`Error::Input`] for fewer, and for models of other coordinates or dynamics than the first.
    pub fn new(members: Vec<Model>) -> Result<Ensemble> {
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input("ensemble", field, problem, fix));
        let [first, others @ ..] = &members[..] else {
            return fail("members", "are none".into(), "give two models or more");
        };
        if others.is_empty() {
            return fail("members", "is one model, which has no spread".into(), "give two models or more");
        }
        for (index, model) in others.iter().enumerate() {
            let is_alike = model.coordinates == first.coordinates && model.objective == first.objective;
            if !is_alike || model.architecture.dim != first.architecture.dim {
                let problem = format!("has other coordinates or dynamics than the first of {}", members.len());
                return fail(&format!("member {}", index + 2), problem, "give models that one run has trained");
            }
        }
        Ok(Ensemble { members })
    }

    /// The ensemble that the run in `folder` has trained (`training.seeds`).
    ///
    /// # Errors
    /// [`Error::Input`] if the run has a single model, or not yet a model of each member; errors of
    /// [`Model::load`].
    #[cfg(feature = "files")]
    pub fn load(folder: &std::path::Path) -> Result<Ensemble> {
        let run = crate::run_folder::RunFolder::new(folder);
        let mut members = vec![Model::load(&run.model())?];
        while run.member(members.len() + 1).model().exists() {
            members.push(Model::load(&run.member(members.len() + 1).model())?);
        }
        // Without a configuration, the files alone say how many there are.
        let config = crate::config::Config::read(&run.config(), &[]).ok();
        let wanted = config.map_or(members.len(), |config| config.training.seeds);
        if members.len() < wanted {
            let problem = format!("does not exist, but the run has {wanted} members");
            let fix = "finish the run with `Existing::Resume`";
            let missing = Error::input(run.member(members.len() + 1).model(), "path", problem, fix);
            return Err(missing.of_kind(crate::error::InputKind::Missing));
        }
        if members.len() == 1 {
            let fix = "train an ensemble, with training.seeds = 5";
            return Err(Error::input(folder, "training.seeds", "is 1: a single model has no spread", fix));
        }
        Ensemble::new(members)
    }

    /// The members; the first one is `model.safetensors` of the run.
    #[must_use]
    pub fn members(&self) -> &[Model] {
        &self.members
    }

    /// The same ensemble under one condition, as [`Model::under`]; the ensemble itself for models
    /// without conditions and no values.
    ///
    /// # Errors
    /// As [`Model::under`].
    pub fn under(&self, condition: &[ConditionValue]) -> Result<Ensemble> {
        if condition.is_empty() && self.members[0].coordinates.conditions.is_empty() {
            return Ok(self.clone());
        }
        let members = self.members.iter().map(|model| model.under(condition)).collect::<Result<_>>()?;
        Ok(Ensemble { members })
    }

    /// [`Model::velocity`] of the members at points `x [n, dim]`.
    ///
    /// # Errors
    /// As [`Model::velocity`].
    pub fn velocity<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Estimate<T>> {
        self.estimate(|model| model.velocity(engine, x, t))
    }

    /// [`Model::potential`] of the members at points `x [n, dim]`. Without growth a potential is
    /// known up to a function of time, so that of each member is compared after its mean over the
    /// points is taken off; the mean is then 0.
    ///
    /// # Errors
    /// As [`Model::potential`].
    pub fn potential<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Estimate<T>> {
        self.estimate(|model| {
            let mut s = model.potential(engine, x, t)?;
            if model.growth_of_potential() == 0.0 {
                let mean = s.iter().map(|&s| s.into()).sum::<f64>() / s.len().max(1) as f64;
                s.iter_mut().for_each(|s| *s = T::rounded((*s).into() - mean));
            }
            Ok(s)
        })
    }

    /// [`Model::growth_rate`] of the members at points `x [n, dim]`.
    ///
    /// # Errors
    /// As [`Model::growth_rate`].
    pub fn growth_rate<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Estimate<T>> {
        self.estimate(|model| model.growth_rate(engine, x, t))
    }

    /// [`Model::local`] of the members at points `x [n, dim]` and the time `t [n]` of each: mean
    /// and spread. Without growth a potential is known up to a function of time, so that of each
    /// member is compared after its mean over the points of a time is taken off, and its slope in
    /// time and its residual alike.
    ///
    /// # Errors
    /// As [`Model::local`].
    pub fn local(&self, engine: &dyn Differentiate, x: &[f64], t: &[f64]) -> Result<[Local; 2]> {
        let found = self.members.iter().map(|model| model.local(engine, x, t)).collect::<Result<Vec<_>>>()?;
        let of = |values: Vec<Vec<f64>>| {
            let mut moments = Moments::of(values.first().map_or(0, Vec::len));
            values.into_iter().for_each(|values| moments.add(values.into_iter()));
            let spread = moments.spread().collect();
            Estimate { mean: moments.mean, spread }
        };
        // With growth the potential itself, not only its slope, is part of the dynamics.
        let is_free = self.members[0].growth_of_potential() == 0.0;
        let up_to_time = |values: &[f64]| if is_free { centered(values, t) } else { values.to_vec() };
        let potential = of(found.iter().map(|local| up_to_time(&local.potential)).collect());
        let time_derivative = of(found.iter().map(|local| up_to_time(&local.time_derivative)).collect());
        let hjb_residual = of(found.iter().map(|local| up_to_time(&local.hjb_residual)).collect());
        let velocity = of(found.iter().map(|local| local.velocity.clone()).collect());
        let growth_rate = of(found.iter().map(|local| local.growth_rate.clone()).collect());
        Ok([
            Local {
                potential: potential.mean,
                velocity: velocity.mean,
                time_derivative: time_derivative.mean,
                growth_rate: growth_rate.mean,
                hjb_residual: hjb_residual.mean,
            },
            Local {
                potential: potential.spread,
                velocity: velocity.spread,
                time_derivative: time_derivative.spread,
                growth_rate: growth_rate.spread,
                hjb_residual: hjb_residual.spread,
            },
        ])
    }

    /// [`Model::laplacian`] of the members at points `x [n, dim]` and the time `t [n]` of each.
    ///
    /// # Errors
    /// As [`Model::laplacian`].
    pub fn laplacian(&self, engine: &dyn Differentiate, x: &[f64], t: &[f64]) -> Result<Estimate<f64>> {
        self.estimate(|model| model.laplacian(engine, x, t))
    }

    /// [`Model::flow`] of the members: where each takes the particles at `x [n, dim]`. Noise is the
    /// same for all of them.
    ///
    /// # Errors
    /// As [`Model::flow`].
    pub fn flow<T: Coordinate>(
        &self,
        engine: &dyn Engine,
        x: &[T],
        times: [f64; 2],
        solver: Solver,
    ) -> Result<Estimate<T>> {
        self.estimate(|model| model.flow(engine, x, times, solver))
    }

    /// Moves the particles of `out` with each member, as [`Engine::integrate`] does. On return
    /// `out` holds the means over the members: of positions, and of weights, as their logarithm.
    /// All members have the noise of `plan`, so that the spread is that of the models.
    ///
    /// # Errors
    /// As [`Engine::integrate`]; [`Error::Input`] if `out` has a log-density, which is that at a
    /// position of one model.
    pub fn integrate(
        &self,
        engine: &dyn Engine,
        plan: &Plan,
        out: Trajectories<'_>,
        watch: &dyn Watch,
    ) -> Result<(IntegrationReport, TrajectorySpread)> {
        if out.log_density.is_some() {
            let problem = "are asked for, but a density belongs to the flow of one model";
            return Err(Error::input("ensemble", "log-densities", problem, "move the particles with one member"));
        }
        let start = (out.positions.to_vec(), out.log_weights.as_ref().map(|log_weights| log_weights.to_vec()));
        let mut positions = Moments::of(out.positions.len());
        // Weights are averaged, and their logarithms compared.
        let n_weights = out.log_weights.as_ref().map(|log_weights| log_weights.len());
        let mut log_weights = Moments::of(n_weights.unwrap_or(0));
        let mut weights = Moments::of(n_weights.unwrap_or(0));
        let mut report = IntegrationReport::default();
        let total = self.members.len() as u64;
        let Trajectories { positions: at, log_weights: mut log_w, log_density: _ } = out;
        for (model, before) in self.members.iter().zip(0..) {
            at.copy_from_slice(&start.0);
            if let Some((log_w, start)) = log_w.as_mut().zip(start.1.as_ref()) {
                log_w.copy_from_slice(start);
            }
            let watch = Section { watch, before: before * UNITS, units: UNITS, total: total * UNITS };
            let moved = Trajectories { log_weights: log_w.as_deref_mut(), ..Trajectories::of(at) };
            report.add(&engine.integrate(model, plan, moved, &watch)?);
            positions.add(at.iter().map(|&x| f64::from(x)));
            if let Some(log_w) = &log_w {
                log_weights.add(log_w.iter().map(|&w| f64::from(w)));
                weights.add(log_w.iter().map(|&w| f64::from(w).exp()));
            }
        }
        for (x, mean) in at.iter_mut().zip(&positions.mean) {
            *x = *mean as f32;
        }
        if let Some(log_w) = log_w {
            for (w, mean) in log_w.iter_mut().zip(&weights.mean) {
                *w = mean.ln() as f32;
            }
        }
        let spread = TrajectorySpread {
            positions: positions.spread().map(|x| x as f32).collect(),
            log_weights: n_weights.map(|_| log_weights.spread().map(|w| w as f32).collect()),
        };
        Ok((report, spread))
    }

    /// Mean and spread of what `of` says of each member.
    fn estimate<T: Coordinate>(&self, of: impl Fn(&Model) -> Result<Vec<T>>) -> Result<Estimate<T>> {
        let mut moments: Option<Moments> = None;
        for model in &self.members {
            let values = of(model)?;
            let moments = moments.get_or_insert_with(|| Moments::of(values.len()));
            check_len("values of a member", moments.mean.len(), values.len())?;
            moments.add(values.into_iter().map(Into::into));
        }
        let moments = moments.unwrap_or_else(|| Moments::of(0));
        let spread = moments.spread().map(T::rounded).collect();
        Ok(Estimate { mean: moments.mean.into_iter().map(T::rounded).collect(), spread })
    }
}

/// `values` less the mean of those that have the same time in `t`.
fn centered(values: &[f64], t: &[f64]) -> Vec<f64> {
    let mut sums: HashMap<u64, (f64, f64)> = HashMap::new();
    for (value, t) in values.iter().zip(t) {
        let (sum, n) = sums.entry(t.to_bits()).or_default();
        (*sum, *n) = (*sum + value, *n + 1.0);
    }
    let mean = |t: &f64| sums.get(&t.to_bits()).map_or(0.0, |(sum, n)| sum / n);
    values.iter().zip(t).map(|(value, t)| value - mean(t)).collect()
}

/// Units of progress of one member.
const UNITS: u64 = 1000;

/// Running means and sums of squared deviations (Welford 1962).
struct Moments {
    n: u32,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn of(len: usize) -> Moments {
        Moments { n: 0, mean: vec![0.0; len], squares: vec![0.0; len] }
    }

    fn add(&mut self, values: impl Iterator<Item = f64>) {
        self.n += 1;
        for ((mean, squares), value) in self.mean.iter_mut().zip(&mut self.squares).zip(values) {
            let before = value - *mean;
            *mean += before / f64::from(self.n);
            *squares += before * (value - *mean);
        }
    }

    /// Standard deviations of the values so far, with n − 1.
    fn spread(&self) -> impl Iterator<Item = f64> {
        let degrees = f64::from(self.n.saturating_sub(1).max(1));
        self.squares.iter().map(move |squares| (squares / degrees).sqrt())
    }
}
