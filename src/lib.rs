//! Learn how a population moves from snapshots of it, and move particles accordingly: Action
//! Matching (Neklyudov et al., ICML 2023, [arXiv 2210.06662](https://arxiv.org/abs/2210.06662)).
//!
//! Samples of a population at a few times, unpaired as those of cells that are destroyed when they
//! are measured, train one scalar function s(x, t), the *action*, whose gradient is a velocity
//! field that carries the population through all snapshots.
//!
//! ```
//! use action_matching::prelude::*;
//!
//! fn main() -> Result<()> {
//!     let before = draw_gaussian(400, 2, &mut Stream::of_normals(1, 2)); // rows [400, 2]
//!     let after: Vec<f32> = before.iter().map(|x| 0.5 * x + 3.0).collect();
//!     let snapshots = Snapshots::from_rows(2, [(0.0, &before), (7.0, &after)])?;
//!     let (snapshots, coordinates) = snapshots.standardize(Standardization::Isotropic)?;
//!     let engine = CpuEngine::new(0); // all cores
//!     let training = Training::new(Architecture::new(2, [32; 2]), DensityPath::linear(snapshots));
//!     let mut trainer = engine.start(training)?;
//!     trainer.steps(300, &mut ())?;
//!     let moved = trainer.model(coordinates)?.flow(&engine, &before, [0.0, 7.0], Solver::rk4(8))?;
//!     assert!((moved.iter().sum::<f32>() / 800.0 - 3.0).abs() < 0.2);
//!     Ok(())
//! }
//! ```
//!
//! `examples/*.rs` go on from here; the program `amatch` does the same for files.
//!
//! # Dynamics
//!
//! The loss is E\[s(x, 0)\] − E\[s(x, 1)\] + ∫ E\[interior term\] dt over the densities q_t of a
//! [`DensityPath`](density_path::DensityPath). The [`Objective`](objective::Objective) chooses the
//! interior term, and with it how particles move. Its parts can be combined.
//!
//! | dynamics | setting | interior term at (x, t) | particles |
//! |---|---|---|---|
//! | continuity | default | ∂ₜs + ½‖∇s‖² | dx = ∇s dt |
//! | entropic | `sigma` > 0 | … + ½σ²Δs | dx = ∇s dt + σ dW |
//! | unbalanced | `growth` > 0 | … + ½λs² | dx = ∇s dt, d log w = λ s dt |
//! | convex cost | `cost_exponent` = q | ∂ₜs + H(∇s), H(p) = Σ\|pᵢ\|^q / q | dx = ∇H(∇s) dt |
//!
//! # Modules
//!
//! From the ground up; a module uses those above it in this table, never those below.
//!
//! | modules | what they hold |
//! |---|---|
//! | [`stage`], [`rng`], [`memory`], [`display`] | threads and cancellation, random numbers, sizes, numbers as text |
//! | [`data`], [`model`], [`objective`] | snapshots, the network and its file, the dynamics |
//! | [`density_path`], [`transport`] | what lies between snapshots, exact optimal transport |
//! | [`laplacian`], [`precision`], [`training`] | settings that all engines share, and the state of a training |
//! | [`engine`], [`integrate`] | what an engine does: train, evaluate, move particles |
//! | [`engine::cpu`], [`engine::cuda`], [`engine::reference`] | f32 on all cores, on a GPU, and f64 to check both |
//! | `config`, `train`, `validate`, [`evaluate`], [`check`] | runs, choices, reports, files for porting models |
//! | `annotate` | what a model says about the cells of a file of AnnData |
//!
//! `config`, `train` and `validate` need the feature `files`, as do data files but `.npy` and
//! `.safetensors`; `annotate` needs `h5ad`. [`prelude`] holds the names that most programs need.
//!
//! # Invariants
//!
//! - Random numbers are a function of (seed, purpose, step, row) alone. Any number of threads gives
//!   the same bits, and a resumed run has the bits of one that was never stopped.
//! - Only engines touch rows. Nothing is allocated inside a step.
//! - A number that is not finite ends training and integration with an error. Input is not trusted:
//!   nothing that a caller or a file holds panics, and an error names the field and the fix.
//! - Functions of [`Model`](model::Model) and of [`data`] take data units; engines, paths and plans
//!   take network coordinates, y = (x − mean) / scale and times in 0..=1.
//! - Files are written whole or not at all, and the library does not print.
//!
//! # Deliberately absent
//!
//! Automatic differentiation (the derivatives are written out and checked against f64), a tensor
//! library, several GPUs in one run, an asynchronous runtime, plug-ins, network access but for
//! [`ranks`], global state.
#![deny(missing_docs)]
#![warn(clippy::must_use_candidate, clippy::missing_errors_doc)]

#[cfg(feature = "h5ad")]
pub mod annotate;
pub mod check;
#[cfg(feature = "files")]
pub mod config;
pub mod data;
pub mod density_path;
mod destination;
pub mod display;
mod element;
pub mod engine;
mod ensemble;
mod error;
pub mod evaluate;
mod evenly;
pub mod exchange;
mod files;
mod flow;
mod flow_on_device;
pub mod integrate;
pub mod laplacian;
mod log_density;
pub mod memory;
pub mod model;
pub mod objective;
mod onnx;
#[cfg(feature = "plot")]
mod picture;
pub mod precision;
pub mod prelude;
mod process;
#[cfg(any(feature = "h5ad", feature = "plot"))]
mod projection;
mod protobuf;
pub mod ranks;
#[cfg(feature = "plot")]
pub mod report;
pub mod rng;
mod run_folder;
pub mod stage;
mod tableau;
mod tensor_writer;
mod tensors;
#[cfg(feature = "files")]
pub mod train;
#[cfg(feature = "files")]
mod trained;
pub mod training;
pub mod transport;
#[cfg(feature = "files")]
pub mod validate;

pub use destination::{Destination, Replace};
pub use ensemble::{Ensemble, Estimate, TrajectorySpread};
pub use error::{DeviceKind, Error, InputKind, Origin, RankKind, Result};
pub use flow::{Coordinate, Local};
pub use flow_on_device::DeviceQuantity;
pub use log_density::StartDensity;
#[cfg(feature = "files")]
pub use trained::Trained;

/// Items that only the program `amatch` and the tests need; not part of the public interface.
#[doc(hidden)]
pub mod cli_support {
    pub use crate::data::describe;
    pub use crate::engine::cuda::{driver, images, kernels, oldest_driver};
    pub use crate::files::{check_writable, write_atomically};
    pub use crate::tensors::TensorFileKind;
}
