//! Coefficients of an AdamW step (Loshchilov & Hutter 2019). The CPU engine updates with them; a
//! GPU forms its own (`kernels/optimizer/finish_step.cuh`), since no host looks at a step there,
//! and tests compare them with these.

use super::Optimizer;

/// Coefficients of one step of one network, equal for all of its parameters.
#[derive(Clone, Copy, Debug)]
pub struct StepSizes {
    /// Factor of the gradient: min(1, clip / norm).
    pub gradient_scale: f32,
    /// 1 − β₁.
    pub toward1: f32,
    /// 1 − β₂.
    pub toward2: f32,
    /// η / (1 − β₁ⁿ).
    pub step_size: f32,
    /// 1 / √(1 − β₂ⁿ).
    pub root_correction: f32,
    /// ε.
    pub epsilon: f32,
    /// 1 − η·(weight decay).
    pub decay_factor: f32,
    /// [`Optimizer::ema_rate`].
    pub toward_ema: f32,
}

impl StepSizes {
    /// Coefficients of step `step` (from 0) with gradient norm `norm`, at `relative_rate` times the
    /// learning rate.
    pub fn new(optimizer: &Optimizer, step: u64, norm: f64, relative_rate: f64) -> Self {
        let rate = relative_rate * optimizer.learning_rate.at(step);
        let taken = (step + 1) as f64;
        let clip = optimizer.clip_norm.map_or(1.0, |limit| if norm > limit { limit / norm } else { 1.0 });
        StepSizes {
            gradient_scale: clip as f32,
            toward1: (1.0 - optimizer.beta1) as f32,
            toward2: (1.0 - optimizer.beta2) as f32,
            step_size: (rate / (1.0 - optimizer.beta1.powf(taken))) as f32,
            root_correction: (1.0 / (1.0 - optimizer.beta2.powf(taken)).sqrt()) as f32,
            epsilon: optimizer.epsilon as f32,
            decay_factor: (1.0 - rate * optimizer.weight_decay) as f32,
            toward_ema: optimizer.ema_rate(step) as f32,
        }
    }
}
