//! What changes in a step: parameters, moments and the loss scale.

use crate::density_path::TIME_KNOTS;
use crate::error::{Result, check_len};

/// Parameters of one network and the state of its optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkState {
    /// Parameters, flat in the order of
    /// [`Architecture::layers`](crate::model::Architecture::layers).
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

    pub(super) fn validate(&self, n_parameters: usize) -> Result<()> {
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
    /// The growth head.
    pub growth: Option<NetworkState>,
    /// Running [`TimeMoments`](crate::density_path::TimeMoments) of the integrand, which
    /// [`TimeRule::Importance`](crate::density_path::TimeRule::Importance) follows.
    pub time_moments: Vec<f32>,
    /// The loss scale of products in f16; other products leave it as it is.
    pub loss_scale: LossScale,
}

impl TrainState {
    /// The state before the first step of an action with `parameters`, on a path that is not
    /// learned. [`Training::initial_state`] draws the parameters too, and serves every path.
    ///
    /// [`Training::initial_state`]: super::Training::initial_state
    #[must_use]
    pub fn initial(parameters: Vec<f32>) -> Self {
        let time_moments = vec![0.0; 2 * TIME_KNOTS];
        let action = NetworkState::initial(parameters);
        TrainState { step: 0, action, bend: None, growth: None, time_moments, loss_scale: LossScale::default() }
    }
}
