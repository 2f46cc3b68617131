//! Settings of the optimizer.

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
/// [`Trainer`]: crate::engine::Trainer
///
/// ```
/// use action_matching::training::LearningRate;
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
