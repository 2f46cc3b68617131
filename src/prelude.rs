//! The names that most programs need: `use action_matching::prelude::*;`.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! let engine = CpuEngine::new(1);
//! assert!(engine.describe().starts_with("cpu, 1 thread"));
//! ```

#[cfg(feature = "files")]
pub use crate::config::Config;
pub use crate::data::{DataSource, Snapshots, Standardization, draw_gaussian};
pub use crate::density_path::{DensityPath, Interpolant, TimeRule};
pub use crate::engine::cpu::CpuEngine;
pub use crate::engine::cuda::CudaEngine;
pub use crate::engine::{Differentiate, Engine, Records, StepRecord, Trainer};
pub use crate::integrate::Solver;
pub use crate::laplacian::Laplacian;
pub use crate::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding};
pub use crate::objective::Objective;
pub use crate::precision::Precision;
pub use crate::rng::Stream;
pub use crate::stage::{Stage, Watch};
#[cfg(feature = "files")]
pub use crate::train::{Existing, Observer, Outcome, Unobserved, train};
pub use crate::training::{Estimator, LearningRate, Optimizer, Training};
pub use crate::{Error, Result};
