//! The library's enums and numbers as the kernels know them. A variant or a value that is missing
//! here, or differs, does not compile.

use super::{Activation, Estimator, Head, Interpolant, LaplacianRule, Purpose, SigmaSchedule, TimeRule};
use crate::{density_path, engine, laplacian, model, objective, rng};

/// The variant of the same name.
macro_rules! same_name {
    ($($library:path => $device:ident { $($variant:ident),* $(,)? })*) => {
        $(impl From<$library> for $device {
            fn from(variant: $library) -> $device {
                use $library as Library;
                match variant {
                    $(Library::$variant => $device::$variant),*
                }
            }
        })*
    };
}

same_name! {
    model::Activation => Activation { Silu, Tanh, Softplus, Gelu, Sin }
    model::Head => Head { Scalar, Quadratic, Dot }
    density_path::Interpolant => Interpolant {
        Linear, Spline, Learned, Nearest, GenerativeLinear, GenerativeVp, GenerativeSqrt,
    }
    density_path::TimeRule => TimeRule {
        LowDiscrepancy, Uniform, Stratified, Importance, Trapezoid, Simpson, GaussLegendre,
    }
    laplacian::LaplacianRule => LaplacianRule { Rademacher, Gaussian, Exact }
    objective::SigmaSchedule => SigmaSchedule { Constant, OneMinusT }
}

impl From<&engine::Estimator> for Estimator {
    fn from(estimator: &engine::Estimator) -> Estimator {
        match estimator {
            engine::Estimator::Action { .. } => Estimator::Action,
            engine::Estimator::Weak { .. } => Estimator::Weak,
            engine::Estimator::Regression => Estimator::Regression,
        }
    }
}

/// The host's and the device's step sizes, field by field.
#[cfg(test)]
impl From<super::StepSizes> for engine::step_sizes::StepSizes {
    fn from(sizes: super::StepSizes) -> Self {
        let super::StepSizes {
            gradient_scale,
            toward1,
            toward2,
            step_size,
            root_correction,
            epsilon,
            decay_factor,
            toward_ema,
        } = sizes;
        engine::step_sizes::StepSizes {
            gradient_scale,
            toward1,
            toward2,
            step_size,
            root_correction,
            epsilon,
            decay_factor,
            toward_ema,
        }
    }
}

const _: () = {
    assert!(super::MAX_LAYERS == model::MAX_DEPTH + 1);
    assert!(super::TIME_KNOTS == density_path::TIME_KNOTS);
    assert!(super::MEMORY == density_path::MEMORY && super::UNIFORM_SHARE == density_path::UNIFORM_SHARE);
    assert!(super::STEPS_BEFORE_GROWTH == engine::LossScale::STEPS_BEFORE_GROWTH);
    assert!(super::LARGEST_SCALE == engine::LossScale::LARGEST);
    // Both draw the same random words.
    assert!(Purpose::Interior as u32 == rng::Purpose::Interior as u32);
    assert!(Purpose::Boundary0 as u32 == rng::Purpose::Boundary0 as u32);
    assert!(Purpose::Boundary1 as u32 == rng::Purpose::Boundary1 as u32);
    assert!(Purpose::TimeOffset as u32 == rng::Purpose::TimeOffset as u32);
    assert!(Purpose::Probe as u32 == rng::Purpose::Probe as u32);
    assert!(Purpose::Noise as u32 == rng::Purpose::Noise as u32);
    assert!(Purpose::StartNoise as u32 == rng::Purpose::StartNoise as u32);
};
