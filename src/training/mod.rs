//! Settings and state of a training: plain data with their defaults, which every engine takes.
//!
//! ```
//! use action_matching::training::{LearningRate, Optimizer};
//!
//! let optimizer = Optimizer { learning_rate: LearningRate::over(2000), ..Optimizer::default() };
//! assert!(optimizer.learning_rate.at(2000) < optimizer.learning_rate.at(1000));
//! ```

mod bend;
mod estimator;
mod optimizer;
mod state;

pub use bend::Bend;
pub use estimator::Estimator;
pub use optimizer::{Cosine, LearningRate, Optimizer};
pub use state::{LossScale, NetworkState, TrainState};

use crate::density_path::{DensityPath, Groups, Interpolant, TIME_KNOTS, TimeRule};
use crate::error::{Error, Result, check_len};
use crate::laplacian::{Laplacian, MAX_PROBES};
use crate::model::{Architecture, initial_parameters};
use crate::objective::Objective;
use crate::ranks::shards;
use crate::rng::{Purpose, words};

/// Everything a [`Trainer`](crate::engine::Trainer) needs besides its starting state.
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
    /// The densities between snapshots that rows are drawn from; with groups, those of the first.
    pub path: DensityPath,
    /// The paths under each condition, for a network with condition inputs.
    pub groups: Option<Groups>,
    /// The network that bends the path [`Interpolant::Learned`].
    pub bend: Option<Bend>,
    /// True if growth is a network of its own, [`Architecture::growth_head`], in the place of λs.
    /// It fits the growth rates g of pairs, Σ m (g_θ − g)² / (2λ), and the action their velocities
    /// alone: outside the theory, in which one potential does both.
    pub growth_head: bool,
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
    /// Shards of a batch on GPUs, whose gradients are summed apart, so that up to as many GPUs can
    /// share it: a power of two up to [`MAX_SHARDS`](shards::MAX_SHARDS). A CPU does without.
    pub n_shards: usize,
    /// Optimizer settings.
    pub optimizer: Optimizer,
    /// Key of every random number.
    pub seed: u64,
}

impl Training {
    /// Interior rows of a step, and boundary rows at each end, of [`Training::new`].
    pub const ROWS: usize = 1024;

    /// Shards of a batch, of [`Training::new`].
    pub const SHARDS: usize = 8;

    /// Training of a network on `path` with every other setting at its default: continuity
    /// dynamics, the form of the loss that suits the path, [`Training::ROWS`] rows a step, seed 0.
    /// A learned path gets the default network that bends it.
    #[must_use]
    pub fn new(architecture: Architecture, path: DensityPath) -> Self {
        Training {
            objective: Objective::default(),
            bend: (path.interpolant == Interpolant::Learned).then(|| Bend::of(&architecture)),
            growth_head: false,
            estimator: Estimator::best_for(path.interpolant),
            time_rule: TimeRule::default(),
            laplacian: Laplacian::default(),
            n_interior: Self::ROWS,
            n_boundary: Self::ROWS,
            n_shards: Self::SHARDS,
            optimizer: Optimizer::default(),
            seed: 0,
            groups: None,
            architecture,
            path,
        }
    }

    /// [`Training::new`] of a network on the paths of `groups`, one for each condition.
    #[must_use]
    pub fn under_conditions(architecture: Architecture, groups: Groups) -> Self {
        let path = groups.first().path.clone();
        Training { groups: Some(groups), ..Training::new(architecture, path) }
    }

    /// The path and the condition inputs of row `row` of the batch of `step`, counted as its start
    /// noise is ([`RowKey`](crate::density_path::RowKey)).
    pub(crate) fn group_of(&self, step: u64, row: u32) -> (&DensityPath, &[f32]) {
        match &self.groups {
            None => (&self.path, &[]),
            Some(groups) => {
                let group = &groups.all()[groups.select(words(self.seed, Purpose::Group, step, row)[0])];
                (&group.path, &group.condition)
            }
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
        let of_growth = || NetworkState::initial(initial_parameters(&self.architecture.growth_head(), self.seed));
        let growth = self.growth_head.then(of_growth);
        let parameters = initial_parameters(&self.architecture, self.seed);
        Ok(TrainState { bend: bend.transpose()?, growth, ..TrainState::initial(parameters) })
    }

    /// Rows that the loss of a step looks at.
    #[must_use]
    pub fn rows_per_step(&self) -> usize {
        match self.estimator {
            Estimator::Action { centering: false } => self.n_interior + 2 * self.n_boundary,
            Estimator::Action { centering: true } => 2 * (self.n_interior + self.n_groups() + self.n_boundary),
            Estimator::Weak { .. } => self.n_interior + 4 * self.n_boundary,
            Estimator::Regression => self.n_interior,
        }
    }

    /// The paths of all groups; without conditions the path.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &DensityPath> {
        let groups = self.groups.iter().flat_map(|groups| groups.all().iter().map(|group| &group.path));
        self.groups.is_none().then_some(&self.path).into_iter().chain(groups)
    }

    /// Number of groups; 1 without conditions.
    pub(crate) fn n_groups(&self) -> usize {
        self.groups.as_ref().map_or(1, |groups| groups.all().len())
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
        let Architecture { dim, conditions, .. } = self.architecture;
        match &self.groups {
            Some(groups) => {
                groups.validate(dim, conditions)?;
                if groups.first().path.interpolant != self.path.interpolant {
                    return fail(
                        "groups",
                        "have another path than the training".into(),
                        "use Training::under_conditions",
                    );
                }
            }
            None => {
                self.path.validate(dim)?;
                check_len("conditions (inputs, without groups)", 0, conditions)?;
            }
        }
        match (&self.bend, &state.bend, self.path.interpolant == Interpolant::Learned) {
            (Some(bend), Some(state), true) => {
                bend.architecture.validate("training (bend)")?;
                check_len("bend (dimension)", 2 * dim, bend.architecture.dim)?;
                check_len("bend (conditions)", conditions, bend.architecture.conditions)?;
                state.validate(bend.architecture.n_parameters())?;
                if !matches!(self.estimator, Estimator::Action { .. }) {
                    return fail("estimator", "does not suit a learned path".into(), "use action");
                }
            }
            (None, None, false) => {}
            _ => return fail("bend", "does not suit the path".into(), "give one to the path learned, and to no other"),
        }
        match (self.growth_head, &state.growth) {
            (false, None) => {}
            (true, Some(state)) => {
                state.validate(self.architecture.growth_head().n_parameters())?;
                if self.estimator != Estimator::Regression || self.objective.growth == 0.0 {
                    let problem = "fits the growth rates of pairs, which this training does not have".into();
                    return fail("growth_head", problem, "use the estimator regression and a growth above 0");
                }
            }
            _ => return fail("growth_head", "does not suit the state".into(), "use Training::initial_state"),
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
        if !shards::are_possible(self.n_shards) {
            return fail("shards", format!("is {}", self.n_shards), shards::POSSIBLE);
        }
        if self.laplacian.n_probes == 0 || self.laplacian.n_probes > MAX_PROBES {
            return fail("probes", format!("is {}", self.laplacian.n_probes), "use 1 to 1024");
        }
        Ok(())
    }
}
