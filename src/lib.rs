//! Learn the dynamics of a population from snapshots: Action Matching (Neklyudov et al., ICML 2023, arXiv 2210.06662).
#![deny(missing_docs)]

pub mod check;
#[cfg(feature = "files")]
pub mod config;
pub mod data;
pub mod density_path;
mod destination;
pub mod display;
mod element;
pub mod engine;
mod error;
pub mod evaluate;
mod files;
mod flow;
pub mod integrate;
pub mod laplacian;
pub mod memory;
pub mod model;
pub mod objective;
pub mod precision;
pub mod prelude;
mod process;
pub mod rng;
mod run_folder;
pub mod stage;
mod tableau;
mod tensor_writer;
mod tensors;
#[cfg(feature = "files")]
pub mod train;
pub mod transport;

pub use destination::{Destination, Replace};
pub use error::{Error, Result};
pub use files::{check_writable, write_atomically};
pub use flow::Coordinate;
pub use tensors::TensorFileKind;
