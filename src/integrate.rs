//! Plans of integration: method, steps, tolerances, saved times. Engines do the stepping.

use crate::error::{Error, Result, check_len};
use crate::laplacian::Laplacian;
use crate::model::Model;
use crate::objective::Objective;

/// Integration method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Forward Euler, order 1, one velocity per step.
    Euler,
    /// Heun's trapezoidal rule, order 2, two velocities per step.
    Heun,
    /// The classical Runge–Kutta method, order 4, four velocities per step.
    Rk4,
    /// Dormand–Prince 5(4), six velocities per step (first same as last); the step size is
    /// controlled per tile.
    Dopri5,
    /// Euler–Maruyama: Euler with the noise σ dW. Weak order 1; strong order 1 because the noise is
    /// additive; one velocity per step.
    EulerMaruyama,
    /// Heun's rule with the noise σ dW in predictor and corrector. Weak order 2, strong order 1
    /// (Itô and Stratonovich agree because the noise is additive); two velocities per step.
    StochasticHeun,
}

impl Method {
    /// Velocities per fixed step.
    #[must_use]
    pub fn velocities_per_step(self) -> u64 {
        match self {
            Method::Euler | Method::EulerMaruyama => 1,
            Method::Heun | Method::StochasticHeun => 2,
            Method::Rk4 => 4,
            Method::Dopri5 => 6,
        }
    }

    /// True if the method adds the noise of dynamics with diffusion.
    #[must_use]
    pub fn is_stochastic(self) -> bool {
        matches!(self, Method::EulerMaruyama | Method::StochasticHeun)
    }
}

/// The Brownian paths of a stochastic method: particle i has the same path on every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Key of the random numbers.
    pub seed: u64,
    /// Increments that a step sums, at least 1. Half the steps with twice the increments follow the
    /// same Brownian path.
    pub increments_per_step: u32,
}

impl Noise {
    /// One increment per step.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Noise { seed, increments_per_step: 1 }
    }
}

/// How the step size is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum StepControl {
    /// `steps` equal steps from start to end. If a saved time falls inside a step, each interval
    /// between saved times gets its fraction of the steps, rounded up.
    Fixed {
        /// Number of steps, at least 1.
        steps: u64,
    },
    /// Error per step at most `atol + rtol·|y|` (root mean square over the tile). Only for
    /// [`Method::Dopri5`].
    Adaptive {
        /// Relative tolerance.
        rtol: f64,
        /// Absolute tolerance, network units.
        atol: f64,
    },
}

/// Method, step control and noise of an integration: all of a [`Plan`] but its times.
///
/// ```
/// use action_matching::integrate::{Method, Solver};
///
/// let plan = Solver::rk4(50).plan(0.0, vec![0.5, 1.0]);
/// assert_eq!((plan.method, plan.fixed_steps(0.0, 0.5)), (Method::Rk4, 25));
/// assert!(Solver::default() == Solver::dopri5(1e-4, 1e-5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solver {
    /// Method.
    pub method: Method,
    /// Step control.
    pub control: StepControl,
    /// Noise of a stochastic method; others leave it alone.
    pub noise: Noise,
}

/// [`Solver::dopri5`] with the default tolerances of the program, for dynamics
/// without diffusion.
impl Default for Solver {
    fn default() -> Self {
        Solver::dopri5(1e-4, 1e-5)
    }
}

impl Solver {
    /// Steps from start to end that suit a method of fixed steps.
    pub const STEPS: u64 = 100;

    fn fixed(method: Method, steps: u64, seed: u64) -> Self {
        Solver { method, control: StepControl::Fixed { steps }, noise: Noise::new(seed) }
    }

    /// `steps` equal steps of [`Method::Euler`].
    #[must_use]
    pub fn euler(steps: u64) -> Self {
        Solver::fixed(Method::Euler, steps, 0)
    }

    /// `steps` equal steps of [`Method::Heun`].
    #[must_use]
    pub fn heun(steps: u64) -> Self {
        Solver::fixed(Method::Heun, steps, 0)
    }

    /// `steps` equal steps of [`Method::Rk4`].
    #[must_use]
    pub fn rk4(steps: u64) -> Self {
        Solver::fixed(Method::Rk4, steps, 0)
    }

    /// [`Method::Dopri5`] with steps as [`StepControl::Adaptive`] chooses them.
    #[must_use]
    pub fn dopri5(rtol: f64, atol: f64) -> Self {
        Solver { control: StepControl::Adaptive { rtol, atol }, ..Solver::fixed(Method::Dopri5, 0, 0) }
    }

    /// `steps` equal steps of [`Method::EulerMaruyama`]; `seed` draws the noise.
    #[must_use]
    pub fn euler_maruyama(steps: u64, seed: u64) -> Self {
        Solver::fixed(Method::EulerMaruyama, steps, seed)
    }

    /// `steps` equal steps of [`Method::StochasticHeun`]; `seed` draws the noise.
    #[must_use]
    pub fn stochastic_heun(steps: u64, seed: u64) -> Self {
        Solver::fixed(Method::StochasticHeun, steps, seed)
    }

    /// A solver that suits the dynamics of `objective`: the default, or 100 steps of
    /// [`Method::StochasticHeun`] with the noise of `seed` if there is diffusion.
    #[must_use]
    pub fn suited_to(objective: &Objective, seed: u64) -> Self {
        if objective.sigma > 0.0 { Solver::stochastic_heun(Self::STEPS, seed) } else { Solver::default() }
    }

    /// The plan from `t0` to the last of `save_at`, network times, with an exact divergence.
    #[must_use]
    pub fn plan(self, t0: f64, save_at: Vec<f64>) -> Plan {
        Plan { noise: self.noise, ..Plan::new(self.method, self.control, t0, save_at) }
    }
}

/// One integration from `t0` to the last of `save_at`, in network time; forward or backward.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Method.
    pub method: Method,
    /// Step control.
    pub control: StepControl,
    /// Start time.
    pub t0: f64,
    /// Saved times, monotone from `t0` on (`t0` may be the first of them); the last one is the end.
    pub save_at: Vec<f64>,
    /// Noise of a stochastic method; other methods ignore it.
    pub noise: Noise,
    /// How the divergence of the velocity is computed if the log-density is followed; probes stay
    /// the same along a path.
    pub divergence: Laplacian,
}

/// Start and results of an integration: slabs of `n` particles, one for each saved time. On entry
/// the first slab of each channel holds the start.
#[derive(Debug, Default)]
pub struct Trajectories<'a> {
    /// Positions `[saved, n, dim]`, network coordinates.
    pub positions: &'a mut [f32],
    /// log w `[saved, n]`, with d log w = λ s dt. The mean of w over particles is the mass relative
    /// to the start.
    pub log_weights: Option<&'a mut [f32]>,
    /// log q `[saved, n]` in network coordinates, with d log q = −∇·v dt along the flow.
    pub log_density: Option<&'a mut [f32]>,
}

impl<'a> Trajectories<'a> {
    /// Positions only.
    #[must_use]
    pub fn of(positions: &'a mut [f32]) -> Self {
        Trajectories { positions, log_weights: None, log_density: None }
    }

    /// All particles in one share, as `model` moves them along `plan`.
    ///
    /// # Errors
    /// As [`Engine::integrate`](crate::engine::Engine::integrate) for a plan that does not suit the
    /// model or the buffers.
    pub fn whole(self, model: &Model, plan: &Plan) -> Result<Share<'a>> {
        model.validate()?;
        plan.validate(&model.objective)?;
        let (n_saved, dim) = (plan.save_at.len(), model.architecture.dim);
        let n = self.positions.len() / n_saved / dim;
        let slabs = |name, channel: Option<&'a mut [f32]>, columns| -> Result<Vec<&'a mut [f32]>> {
            let Some(mut rest) = channel else { return Ok(Vec::new()) };
            check_len(name, n_saved * n * columns, rest.len())?;
            Ok((0..n_saved).map(|_| take(&mut rest, n * columns)).collect())
        };
        let share = Share {
            first: 0,
            n_all: n,
            positions: slabs("positions", Some(self.positions), dim)?,
            log_weights: slabs("log_weights", self.log_weights, 1)?,
            log_density: slabs("log_density", self.log_density, 1)?,
        };
        share.validate(model, plan)?;
        Ok(share)
    }
}

/// The first `n` values of `rest`, which loses them.
fn take<'a>(rest: &mut &'a mut [f32], n: usize) -> &'a mut [f32] {
    let (taken, left) = std::mem::take(rest).split_at_mut(n);
    *rest = left;
    taken
}

/// Consecutive particles of an integration. A channel has a slab for each saved time, or none if it
/// is not integrated; on entry the first slab of each holds the start.
#[derive(Debug, Default)]
pub struct Share<'a> {
    /// Number of the first particle among all of the integration: noise and probes depend on it.
    pub first: usize,
    /// Particles of the integration, on which the size of tiles may depend.
    pub n_all: usize,
    /// Positions `[n, dim]`, network coordinates.
    pub positions: Vec<&'a mut [f32]>,
    /// log w `[n]`.
    pub log_weights: Vec<&'a mut [f32]>,
    /// log q `[n]`.
    pub log_density: Vec<&'a mut [f32]>,
}

impl<'a> Share<'a> {
    /// Number of particles, after checks of model, plan and buffers that every engine makes.
    pub(crate) fn validate(&self, model: &Model, plan: &Plan) -> Result<usize> {
        plan.validate_for(model)?;
        let dim = model.architecture.dim;
        let n = self.n(dim);
        check_len("slabs of positions", plan.save_at.len(), self.positions.len())?;
        let others = [("log_weights", &self.log_weights, 1), ("log_density", &self.log_density, 1)];
        for (name, slabs, columns) in [("positions", &self.positions, dim)].into_iter().chain(others) {
            let n_slabs = if slabs.is_empty() { 0 } else { plan.save_at.len() };
            check_len("slabs of a channel", n_slabs, slabs.len())?;
            slabs.iter().try_for_each(|slab| check_len(name, n * columns, slab.len()))?;
        }
        if !self.log_density.is_empty() && model.objective.sigma > 0.0 {
            let problem = "needs a flow without noise, and this model has diffusion";
            return Err(Error::setting(PLAN, "Trajectories::log_density", problem, "leave it out"));
        }
        Ok(n)
    }

    /// Number of particles, which are in `dim` dimensions.
    pub(crate) fn n(&self, dim: usize) -> usize {
        self.positions.first().map_or(0, |slab| slab.len() / dim)
    }

    /// The first `n` of the particles, which the share loses.
    pub(crate) fn take(&mut self, n: usize, dim: usize) -> Share<'a> {
        let of =
            |slabs: &mut Vec<&'a mut [f32]>, columns| slabs.iter_mut().map(|slab| take(slab, n * columns)).collect();
        let taken = Share {
            first: self.first,
            n_all: self.n_all,
            positions: of(&mut self.positions, dim),
            log_weights: of(&mut self.log_weights, 1),
            log_density: of(&mut self.log_density, 1),
        };
        self.first += n;
        taken
    }
}

/// The particles that systematic resampling selects: `n` indices, each as often as its fraction of
/// the weights, within one. `offset` in 0..1 is the only random number that it needs (Kitagawa
/// 1996).
#[must_use]
pub fn systematic_resample(log_weights: &[f32], n: usize, offset: f64) -> Vec<usize> {
    let largest = log_weights.iter().fold(f32::NEG_INFINITY, |largest, &w| largest.max(w));
    let weights: Vec<f64> = log_weights.iter().map(|&w| f64::from(w - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (mut kept, mut particle, mut below) = (Vec::with_capacity(n), 0, 0.0);
    for k in 0..n {
        let mark = (k as f64 + offset) / n as f64 * total;
        while particle + 1 < weights.len() && below + weights[particle] <= mark {
            below += weights[particle];
            particle += 1;
        }
        kept.push(particle);
    }
    kept
}

/// Name of a plan in messages.
pub(crate) const PLAN: &str = "integration plan";

impl Plan {
    /// A plan with noise of seed 0 and an exact divergence.
    #[must_use]
    pub fn new(method: Method, control: StepControl, t0: f64, save_at: Vec<f64>) -> Self {
        Plan { method, control, t0, save_at, noise: Noise::new(0), divergence: Laplacian::EXACT }
    }

    /// Number of fixed steps between the neighboring saved times `from` and `to`: their fraction of
    /// all steps, rounded up. 0 if the times are equal or the steps are adaptive.
    #[must_use]
    pub fn fixed_steps(&self, from: f64, to: f64) -> u64 {
        let (StepControl::Fixed { steps }, Some(end)) = (self.control, self.save_at.last()) else { return 0 };
        let whole = (end - self.t0).abs();
        if whole == 0.0 {
            return 0;
        }
        // The small subtraction keeps a whole number that was rounded up from gaining a step.
        ((to - from).abs() / whole * steps as f64 - 1e-6).ceil().max(0.0) as u64
    }

    /// Time and size of each fixed step between the neighboring saved times `from` and `to`.
    pub(crate) fn steps_between(&self, from: f64, to: f64) -> impl Iterator<Item = (f64, f64)> + use<> {
        let n = self.fixed_steps(from, to);
        let at = move |step: u64| from + (to - from) * (step as f64 / n as f64);
        (0..n).map(move |step| (at(step), at(step + 1) - at(step)))
    }

    /// Standard deviation of each increment of the noise of a step of size `h` from `t`; 0 without
    /// noise.
    pub(crate) fn noise_deviation(&self, objective: &Objective, t: f64, h: f64) -> f32 {
        if !self.method.is_stochastic() {
            return 0.0;
        }
        (objective.noise_variance(t, h).max(0.0) / f64::from(self.noise.increments_per_step)).sqrt() as f32
    }

    /// Error of every engine if a particle becomes non-finite in step `step`.
    pub(crate) fn lost_particle(step: u64) -> Error {
        Error::NotFinite {
            what: "a particle's position",
            step,
            fix: "use more steps or a tolerance, or check that the particles start where the model was trained",
        }
    }

    /// Error of every engine if no step is small enough at `t`.
    pub(crate) fn impossible_tolerance(t: f64) -> Error {
        Error::setting(
            PLAN,
            "StepControl::Adaptive",
            format!("cannot be met near t = {t} (network time)"),
            "loosen the tolerances, or use `Method::Rk4` with `StepControl::Fixed`",
        )
    }

    /// Checks the model too, which is to move particles.
    pub(crate) fn validate_for(&self, model: &Model) -> Result<()> {
        model.validate()?;
        model.require_one_condition()?;
        model.objective.validate("objective")?;
        self.validate(&model.objective)
    }

    /// Checks the plan for the dynamics of `objective`.
    ///
    /// # Errors
    /// [`Error::Setting`] names the setting at fault.
    pub fn validate(&self, objective: &Objective) -> Result<()> {
        let fail = |setting, problem: String, fix: &str| Err(Error::setting(PLAN, setting, problem, fix));
        let Some(&end) = self.save_at.last() else {
            return fail("Plan::save_at", "names no time".into(), "name at least one");
        };
        if let Some(t) = self.save_at.iter().chain([&self.t0]).find(|t| !t.is_finite()) {
            return fail("Plan::t0, Plan::save_at", format!("contains {t}"), "use finite times");
        }
        if objective.sigma > 0.0 {
            let sigma = objective.sigma;
            if !self.method.is_stochastic() {
                let problem = format!("leaves out the noise of a model with sigma = {sigma}");
                return fail("Plan::method", problem, "use euler-maruyama or stochastic-heun");
            }
            if end < self.t0 {
                let problem = format!("runs backward with sigma = {sigma}, which needs the score of the population");
                return fail("Plan::t0", problem, "go forward in time");
            }
        }
        let direction = if end >= self.t0 { 1.0 } else { -1.0 };
        let mut previous = self.t0;
        for &t in &self.save_at {
            if (t - previous) * direction < 0.0 {
                return fail(
                    "Plan::save_at",
                    "is not ordered from the start to the end time".into(),
                    "list the times in the order they are reached",
                );
            }
            previous = t;
        }
        match self.control {
            StepControl::Fixed { steps: 0 } => fail("StepControl::Fixed", "is 0".into(), "use at least 1"),
            StepControl::Adaptive { rtol, atol } if !(rtol >= 0.0 && atol >= 0.0 && rtol + atol > 0.0) => fail(
                "StepControl::Adaptive",
                format!("are {rtol} and {atol}"),
                "use numbers ≥ 0, at least one of them positive",
            ),
            _ if self.noise.increments_per_step == 0 => {
                fail("Plan::noise", "has no increments in a step".into(), "use at least 1")
            }
            StepControl::Adaptive { .. } if self.method != Method::Dopri5 => {
                let problem = format!("do not apply to {:?}", self.method);
                fail("StepControl::Adaptive", problem, "use `StepControl::Fixed`, or `Method::Dopri5`")
            }
            _ => Ok(()),
        }
    }
}
