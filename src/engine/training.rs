//! Training: settings, state and the steps an engine takes.

use crate::density_path::{DensityPath, Interpolant, TIME_KNOTS, TimeRule};
use crate::error::{Error, Result, check_len};
use crate::laplacian::{Laplacian, MAX_PROBES};
use crate::model::{Architecture, Coordinates, Head, Model, initial_parameters};
use crate::objective::Objective;

/// Parameters of one network and the state of its optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkState {
    /// Parameters, flat in the order of [`Architecture::layers`].
    pub parameters: Vec<f32>,
    /// Exponential moving average of the parameters.
    pub ema: Vec<f32>,
    /// Adam's first moment.
    pub moment1: Vec<f32>,
    /// Adam's second moment.
    pub moment2: Vec<f32>,
}

impl NetworkState {
    /// The state before the first step: EMA equal to the parameters, moments zero.
    #[must_use]
    pub fn initial(parameters: Vec<f32>) -> Self {
        let zeros = vec![0.0; parameters.len()];
        NetworkState { ema: parameters.clone(), moment1: zeros.clone(), moment2: zeros, parameters }
    }

    fn validate(&self, n_parameters: usize) -> Result<()> {
        for (buffer, values) in [
            ("parameters", &self.parameters),
            ("ema", &self.ema),
            ("moment1", &self.moment1),
            ("moment2", &self.moment2),
        ] {
            check_len(buffer, n_parameters, values.len())?;
        }
        Ok(())
    }
}

/// Factor of gradients on their way through products in f16, so that small ones are
/// not lost there.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossScale {
    /// A power of two. Halved where the gradient is lost, doubled after
    /// [`LossScale::STEPS_BEFORE_GROWTH`] good steps.
    pub scale: f32,
    /// Good steps since it last changed.
    pub good_steps: u32,
}

impl LossScale {
    /// Good steps after which the scale doubles.
    pub const STEPS_BEFORE_GROWTH: u32 = 2000;
    /// It grows no further.
    pub const LARGEST: f32 = 16_777_216.0;
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { scale: 65_536.0, good_steps: 0 }
    }
}

/// Everything that changes in `step` steps of training: what a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Number of optimizer steps taken.
    pub step: u64,
    /// The action.
    pub action: NetworkState,
    /// The network that bends a learned path.
    pub bend: Option<NetworkState>,
    /// Running [`TimeMoments`](crate::density_path::TimeMoments) of the integrand, which
    /// [`TimeRule::Importance`] follows.
    pub time_moments: Vec<f32>,
    /// The loss scale of products in f16; other products leave it as it is.
    pub loss_scale: LossScale,
}

impl TrainState {
    /// The state before the first step of an action with `parameters`, on a path that is not
    /// learned. [`Training::initial_state`] draws the parameters too, and serves every path.
    #[must_use]
    pub fn initial(parameters: Vec<f32>) -> Self {
        let time_moments = vec![0.0; 2 * TIME_KNOTS];
        let action = NetworkState::initial(parameters);
        TrainState { step: 0, action, bend: None, time_moments, loss_scale: LossScale::default() }
    }
}

/// The network that bends a learned path: net(t, xₗ, xᵣ).
#[derive(Clone, Debug, PartialEq)]
pub struct Bend {
    /// Its shape. The two ends of a pair are one input of twice the data's dimension, and so are
    /// the outputs, of which the first half bends.
    pub architecture: Architecture,
    /// Learning rate, in units of the action's.
    pub relative_rate: f64,
}

impl Bend {
    /// Hidden layers of [`Bend::of`].
    pub const HIDDEN: [usize; 2] = [64; 2];
    /// Relative rate of [`Bend::of`].
    pub const RELATIVE_RATE: f64 = 0.3;

    /// A network of `hidden` layers for data like those of `action`.
    #[must_use]
    pub fn new(action: &Architecture, hidden: impl Into<Vec<usize>>, relative_rate: f64) -> Self {
        Bend {
            architecture: Architecture {
                dim: 2 * action.dim,
                hidden: hidden.into(),
                head: Head::Dot,
                ..action.clone()
            },
            relative_rate,
        }
    }

    /// The network of default size and rate for data like those of `action`.
    #[must_use]
    pub fn of(action: &Architecture) -> Self {
        Bend::new(action, Bend::HIDDEN, Bend::RELATIVE_RATE)
    }

    /// Parameters to start from: no bend at all.
    #[must_use]
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut parameters = initial_parameters(&self.architecture, seed);
        if let Some(last) = self.architecture.layers().last() {
            parameters[last.weight..].fill(0.0);
        }
        parameters
    }
}

/// Decay of a learning rate along half a cosine, from its peak after warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// Step at which the decay ends, counted from the start of training; the rate stays there.
    pub end: u64,
    /// Share of the peak that is left at the end, 0 to 1.
    pub floor: f64,
}

/// Learning rate of a step: linear warm-up, then constant or cosine decay.
///
/// The default is constant, as a [`Trainer`] does not know how many steps it will be asked for;
/// [`LearningRate::over`] warms up and decays over a known number.
///
/// ```
/// use action_matching::engine::LearningRate;
///
/// assert_eq!(LearningRate::default().at(0), LearningRate::default().at(1_000_000));
/// let rate = LearningRate::over(1000);
/// assert!(rate.at(0) < rate.at(99) && rate.at(99) == rate.peak);
/// assert!((rate.at(1000) / rate.peak - LearningRate::FLOOR).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    /// Rate after warm-up.
    pub peak: f64,
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// Decay after warm-up; `None` keeps the rate at `peak`.
    pub cosine: Option<Cosine>,
}

impl Default for LearningRate {
    fn default() -> Self {
        LearningRate::constant(1e-3)
    }
}

impl LearningRate {
    /// Most steps of warm-up of [`LearningRate::over`].
    pub const WARMUP_STEPS: u64 = 500;
    /// Share of its peak that the rate of [`LearningRate::over`] ends with.
    pub const FLOOR: f64 = 0.01;

    /// The rate `peak` at every step.
    #[must_use]
    pub fn constant(peak: f64) -> Self {
        LearningRate { peak, warmup_steps: 0, cosine: None }
    }

    /// The default rate for a run of `steps` steps: warm-up over a tenth of them, but no more than
    /// [`LearningRate::WARMUP_STEPS`], then a cosine to [`LearningRate::FLOOR`] of the peak.
    #[must_use]
    pub fn over(steps: u64) -> Self {
        LearningRate {
            warmup_steps: Self::WARMUP_STEPS.min(steps / 10),
            cosine: Some(Cosine { end: steps, floor: Self::FLOOR }),
            ..Self::default()
        }
    }

    /// Rate of the step with index `step` (from 0).
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.cosine {
            Some(Cosine { end, floor }) if end > self.warmup_steps => {
                let progress = (step - self.warmup_steps) as f64 / (end - self.warmup_steps) as f64;
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
                self.peak * (floor + (1.0 - floor) * cosine)
            }
            _ => self.peak,
        }
    }
}

/// Settings of AdamW (Loshchilov & Hutter 2019), clipping and the moving average.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Learning rate.
    pub learning_rate: LearningRate,
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε, added to √v̂.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to weights and biases alike.
    pub weight_decay: f64,
    /// Largest global gradient norm; `None` does not clip.
    pub clip_norm: Option<f64>,
    /// β of the moving average once it has run for 9 / (1 − β) steps: see [`Optimizer::ema_rate`].
    pub ema_decay: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer {
            learning_rate: LearningRate::default(),
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_norm: Some(1.0),
            ema_decay: 0.999,
        }
    }
}

impl Optimizer {
    /// Rate of the moving average in the step with index `step` (from 0), e += rate · (p − e):
    /// max(1 − β, 9 / (10 + step)).
    ///
    /// A constant 1 − β would leave a share βⁿ of the initial parameters in the average of n steps:
    /// 37 % after 1 / (1 − β) of them. With this rate that share is 9! n! / (n + 9)!, 10⁻¹⁰ after
    /// 50 steps, and the average is one of about the last tenth of the steps until 1 − β is
    /// reached. It depends on the step alone, so that a resumed run has the rates of one that went
    /// on.
    #[must_use]
    pub fn ema_rate(&self, step: u64) -> f64 {
        (1.0 - self.ema_decay).max(9.0 / (10.0 + step as f64))
    }
}

/// Forms of the one loss, with the same minimizer ∇s and different variance. An offset c(t) added
/// to s changes nothing in the exact loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Estimator {
    /// ω(0) E[s(x, 0)] − ω(1) E[s(x, 1)] + ∫ E[ω (∂ₜs + H(∇s) + …) + ω′ s] dt: the loss as the
    /// paper writes it.
    Action {
        /// Takes the same loss of c(t) = s(0, t) away, which is 0 but for the choice of times:
        /// exact invariance to offsets. Costs as many rows again. 0 is the mean of standardized
        /// data.
        #[serde(default)]
        centering: bool,
    },
    /// Without the time derivative, exactly invariant to offsets. Each interval between snapshots
    /// is divided into equal parts [a, b]; over each part, with s̄ = ½(s(·, a) + s(·, b)), the loss
    /// is ω ((E_{q_a} − E_{q_b}) [s̄] + (b − a) E[H(∇s) + …]) (compare arXiv 2507.05107).
    Weak {
        /// Parts of an interval.
        #[serde(default = "Estimator::default_intervals")]
        intervals: u32,
    },
    /// E[H(∇s) − u·∇s + …] where the path has the velocity u: ½‖∇s − u‖² up to a constant for the
    /// quadratic cost. No boundary rows.
    Regression,
}

impl Estimator {
    /// Intervals of [`Estimator::Weak`] that the program takes unless it is told.
    pub const WEAK_INTERVALS: u32 = 16;

    fn default_intervals() -> u32 {
        Estimator::WEAK_INTERVALS
    }

    /// The form of least variance on a path along `interpolant`: regression if the velocity of its
    /// points is known, else the action.
    #[must_use]
    pub fn best_for(interpolant: Interpolant) -> Self {
        if interpolant.has_velocity() { Estimator::Regression } else { Estimator::Action { centering: false } }
    }
}

/// Everything a [`Trainer`] needs besides its starting state.
///
/// [`Training::new`] sets all but the network and the path to their defaults; change a field with
/// struct-update syntax.
///
/// ```
/// use action_matching::prelude::*;
///
/// let rows = [0.0, 0.0, 1.0, 1.0];
/// let snapshots = Snapshots::from_rows(2, [(0.0, rows), (1.0, rows.map(|x| x + 2.0))])?;
/// let training = Training {
///     objective: Objective { sigma: 0.5, ..Objective::default() },
///     seed: 7,
///     ..Training::new(Architecture::new(2, [64; 3]), DensityPath::linear(snapshots))
/// };
/// assert_eq!(training.estimator, Estimator::Regression); // as the velocity of the path is known
/// assert_eq!(training.rows_per_step(), Training::ROWS);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Training {
    /// Shape of the network.
    pub architecture: Architecture,
    /// The dynamics to learn.
    pub objective: Objective,
    /// The densities between snapshots that rows are drawn from.
    pub path: DensityPath,
    /// The network that bends the path [`Interpolant::Learned`].
    pub bend: Option<Bend>,
    /// The form of the loss.
    pub estimator: Estimator,
    /// How times are drawn.
    pub time_rule: TimeRule,
    /// How the Laplacian is formed where σ > 0.
    pub laplacian: Laplacian,
    /// Interior rows of a step.
    pub n_interior: usize,
    /// Boundary rows of a step, at each of the two end times.
    pub n_boundary: usize,
    /// Optimizer settings.
    pub optimizer: Optimizer,
    /// Key of every random number.
    pub seed: u64,
}

impl Training {
    /// Interior rows of a step, and boundary rows at each end, of [`Training::new`].
    pub const ROWS: usize = 1024;

    /// Training of a network on `path` with every other setting at its default: continuity
    /// dynamics, the form of the loss that suits the path, [`Training::ROWS`] rows a step, seed 0.
    /// A learned path gets the default network that bends it.
    #[must_use]
    pub fn new(architecture: Architecture, path: DensityPath) -> Self {
        Training {
            objective: Objective::default(),
            bend: (path.interpolant == Interpolant::Learned).then(|| Bend::of(&architecture)),
            estimator: Estimator::best_for(path.interpolant),
            time_rule: TimeRule::default(),
            laplacian: Laplacian::default(),
            n_interior: Self::ROWS,
            n_boundary: Self::ROWS,
            optimizer: Optimizer::default(),
            seed: 0,
            architecture,
            path,
        }
    }

    /// The same training with the learning rate of a run of `steps` steps, [`LearningRate::over`].
    #[must_use]
    pub fn for_steps(mut self, steps: u64) -> Self {
        self.optimizer.learning_rate = LearningRate::over(steps);
        self
    }

    /// The state before the first step: parameters drawn from `seed`, and a bend that does nothing
    /// yet.
    ///
    /// # Errors
    /// [`Error::Input`] names a size of a network that is out of range.
    pub fn initial_state(&self) -> Result<TrainState> {
        self.architecture.validate("training")?;
        let bend = self.bend.as_ref().map(|bend| {
            bend.architecture.validate("training (bend)")?;
            Ok(NetworkState::initial(bend.initial_parameters(self.seed)))
        });
        let parameters = initial_parameters(&self.architecture, self.seed);
        Ok(TrainState { bend: bend.transpose()?, ..TrainState::initial(parameters) })
    }

    /// Rows that the loss of a step looks at.
    #[must_use]
    pub fn rows_per_step(&self) -> usize {
        match self.estimator {
            Estimator::Action { centering: false } => self.n_interior + 2 * self.n_boundary,
            Estimator::Action { centering: true } => 2 * (self.n_interior + 1 + self.n_boundary),
            Estimator::Weak { .. } => self.n_interior + 4 * self.n_boundary,
            Estimator::Regression => self.n_interior,
        }
    }

    /// Directions of second derivatives in each interior row: 0 without diffusion.
    #[must_use]
    pub fn n_probes(&self) -> usize {
        if self.objective.sigma == 0.0 { 0 } else { self.laplacian.n_directions(self.architecture.dim) }
    }

    /// Checks sizes, and `state` against them.
    ///
    /// # Errors
    /// [`Error::Shape`] names a buffer, [`Error::Input`] a setting.
    pub fn validate(&self, state: &TrainState) -> Result<()> {
        self.architecture.validate("training")?;
        state.action.validate(self.architecture.n_parameters())?;
        check_len("time_moments", 2 * TIME_KNOTS, state.time_moments.len())?;
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input("training", field, problem, fix));
        let LossScale { scale, good_steps: _ } = state.loss_scale;
        if !(1.0..=LossScale::LARGEST).contains(&scale) || scale.log2().fract() != 0.0 {
            return fail("loss_scale", format!("is {scale}"), "use a power of two, 1 to 2²⁴");
        }
        self.path.validate(self.architecture.dim)?;
        match (&self.bend, &state.bend, self.path.interpolant == Interpolant::Learned) {
            (Some(bend), Some(state), true) => {
                bend.architecture.validate("training (bend)")?;
                check_len("bend (dimension)", 2 * self.architecture.dim, bend.architecture.dim)?;
                state.validate(bend.architecture.n_parameters())?;
                if !matches!(self.estimator, Estimator::Action { .. }) {
                    return fail("estimator", "does not suit a learned path".into(), "use action");
                }
            }
            (None, None, false) => {}
            _ => return fail("bend", "does not suit the path".into(), "give one to the path learned, and to no other"),
        }
        match self.estimator {
            Estimator::Regression if !self.path.interpolant.has_velocity() => {
                let problem = "is regression, but the velocity of the path nearest is unknown".into();
                return fail("estimator", problem, "use action or weak");
            }
            Estimator::Weak { intervals: 0 } => return fail("weak_intervals", "is 0".into(), "use at least 1"),
            _ => {}
        }
        for (field, rows) in [("interior_rows", self.n_interior), ("boundary_rows", self.n_boundary)] {
            if rows == 0 || u32::try_from(rows).is_err() {
                return fail(field, format!("is {rows}"), "use 1 to 2³² − 1");
            }
        }
        if self.laplacian.n_probes == 0 || self.laplacian.n_probes > MAX_PROBES {
            return fail("probes", format!("is {}", self.laplacian.n_probes), "use 1 to 1024");
        }
        Ok(())
    }
}

/// Report of one optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepRecord {
    /// Index of the step, from 0.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// ω(0) E[s(x, 0)]; of [`Estimator::Weak`], E_{q_a}[s̄] over the parts.
    pub boundary0: f64,
    /// −ω(1) E[s(x, 1)]; of [`Estimator::Weak`], −E_{q_b}[s̄].
    pub boundary1: f64,
    /// The mean over interior rows: E[ω (∂ₜs + H(∇s) + …) + ω′ s] of [`Estimator::Action`].
    pub interior: f64,
    /// E[½‖∇s‖²] over the interior rows: the kinetic energy.
    pub kinetic: f64,
    /// Global gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
}

impl StepRecord {
    /// [`Error::NotFinite`] for a step whose loss or gradient norm is not finite: what its trainer
    /// returns.
    pub(crate) fn check(&self) -> Result<()> {
        let what = match (self.loss.is_finite(), self.gradient_norm.is_finite()) {
            (true, true) => return Ok(()),
            (false, _) => "the loss",
            (true, false) => "the gradient",
        };
        let fix = "lower the learning rate, warm up over more steps, or check the data for outliers";
        Err(Error::NotFinite { what, step: self.step, fix })
    }
}

/// Receives the records of steps, in order: `()` drops them, a `Vec` keeps them, and a closure is
/// called with each.
///
/// ```
/// use action_matching::engine::{Records, StepRecord};
///
/// fn two(records: &mut dyn Records) {
///     (0..2).for_each(|step| records.push(StepRecord { step, ..StepRecord::default() }));
/// }
/// let (mut all, mut last) = (Vec::new(), None);
/// two(&mut all);
/// two(&mut |record: StepRecord| last = Some(record.step));
/// two(&mut ());
/// assert_eq!((all.len(), last), (2, Some(1)));
/// ```
pub trait Records {
    /// Receives the record of one step.
    fn push(&mut self, record: StepRecord);
}

impl Records for () {
    fn push(&mut self, _record: StepRecord) {}
}

impl Records for Vec<StepRecord> {
    fn push(&mut self, record: StepRecord) {
        Vec::push(self, record);
    }
}

impl<F: FnMut(StepRecord)> Records for F {
    fn push(&mut self, record: StepRecord) {
        self(record);
    }
}

/// Draws batches and takes optimizer steps.
pub trait Trainer: Send {
    /// Takes `n` steps; `records` receives one record for each.
    ///
    /// # Errors
    /// [`Error::NotFinite`] after the first step whose loss or gradient norm is not finite. Its
    /// record is the last one, and the parameters are those before it. [`Error::Device`] if a
    /// device fails.
    fn steps(&mut self, n: u64, records: &mut dyn Records) -> Result<()>;

    /// The settings that it trains with.
    fn training(&self) -> &Training;

    /// A copy of the parameters and optimizer state.
    ///
    /// # Errors
    /// [`Error::Device`] when a device no longer answers.
    fn state(&self) -> Result<TrainState>;

    /// The model so far: the moving average of the parameters. `coordinates` are those that took
    /// the data to the snapshots of the path, as [`Snapshots::standardize`] returns them.
    ///
    /// [`Snapshots::standardize`]: crate::data::Snapshots::standardize
    ///
    /// # Errors
    /// [`Error::Shape`] if `coordinates` are of another dimension; [`Error::Device`] as
    /// [`Trainer::state`].
    fn model(&self, coordinates: Coordinates) -> Result<Model> {
        let Training { architecture, objective, .. } = self.training();
        let (architecture, objective) = (architecture.clone(), objective.clone());
        let model = Model { architecture, coordinates, objective, parameters: self.state()?.action.ema };
        model.validate()?;
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_forgets_the_start_before_it_goes_at_its_own_rate() {
        let optimizer = Optimizer::default();
        let share_of_start = |steps: u64| (0..steps).map(|step| 1.0 - optimizer.ema_rate(step)).product::<f64>();
        for (steps, most) in [(1, 0.11), (10, 1.1e-5), (50, 1e-10), (10_000, 1e-30)] {
            assert!(share_of_start(steps) < most, "{steps}: {}", share_of_start(steps));
        }
        for (step, rate) in [(0, 0.9), (80, 0.1), (8989, 9.0 / 8999.0), (8990, 0.001), (u64::MAX, 0.001)] {
            assert!((optimizer.ema_rate(step) - rate).abs() < 1e-15, "{step}: {}", optimizer.ema_rate(step));
        }
        // No average where none is asked for.
        let none = Optimizer { ema_decay: 0.0, ..optimizer };
        assert!((0..100).all(|step| none.ema_rate(step) == 1.0));
    }
}
