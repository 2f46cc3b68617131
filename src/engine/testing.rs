//! AdamW in f64, against which the engines' optimizers are tested.

use super::{Cosine, LearningRate, NetworkState, Optimizer};

/// An optimizer that uses every setting: warm-up, decay, clipping, weight decay.
pub fn optimizer() -> Optimizer {
    Optimizer {
        learning_rate: LearningRate { peak: 0.01, warmup_steps: 3, cosine: Some(Cosine { end: 10, floor: 0.1 }) },
        beta1: 0.8,
        beta2: 0.95,
        weight_decay: 0.3,
        clip_norm: Some(0.7),
        ema_decay: 0.9,
        ..Optimizer::default()
    }
}

/// One network trained by AdamW (Loshchilov & Hutter 2019), each formula as in the paper.
pub struct AdamW {
    optimizer: Optimizer,
    /// In units of the learning rate.
    relative_rate: f64,
    /// Parameter, moving average, first and second moment of each.
    values: Vec<[f64; 4]>,
}

impl AdamW {
    /// The first step starts from `parameters`.
    pub fn new(optimizer: &Optimizer, parameters: &[f32], relative_rate: f64) -> Self {
        let values = parameters.iter().map(|&p| [f64::from(p), f64::from(p), 0.0, 0.0]).collect();
        AdamW { optimizer: optimizer.clone(), relative_rate, values }
    }

    /// Takes step number `step` (from 0) along `gradient`; returns its norm.
    pub fn step(&mut self, step: u64, gradient: &[f32]) -> f64 {
        let Optimizer { ref learning_rate, beta1, beta2, epsilon, weight_decay, clip_norm, .. } = self.optimizer;
        let rate = self.relative_rate * learning_rate.at(step);
        let taken = (step + 1) as i32;
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let clip = clip_norm.map_or(1.0, |limit| (limit / norm).min(1.0));
        for ([p, e, m, v], &g) in self.values.iter_mut().zip(gradient) {
            let g = f64::from(g) * clip;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (*m / (1.0 - beta1.powi(taken)), *v / (1.0 - beta2.powi(taken)));
            *p -= rate * (m_hat / (v_hat.sqrt() + epsilon) + weight_decay * *p);
            *e += self.optimizer.ema_rate(step) * (*p - *e);
        }
        norm
    }

    /// Checks every value of `state` to `tolerance`, relative to 1 + the value.
    #[track_caller]
    pub fn assert_close(&self, what: &str, state: &NetworkState, tolerance: f64) {
        let got = [&state.parameters, &state.ema, &state.moment1, &state.moment2];
        for (i, exact) in self.values.iter().enumerate() {
            for (column, (got, &want)) in got.iter().zip(exact).enumerate() {
                let error = (f64::from(got[i]) - want).abs();
                assert!(error <= tolerance * (1.0 + want.abs()), "{what}, {column} of {i}: {}, not {want}", got[i]);
            }
        }
    }
}
