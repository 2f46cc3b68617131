//! Learn the dynamics of a population from snapshots: Action Matching (Neklyudov et al., ICML 2023, arXiv 2210.06662).
#![deny(missing_docs)]

pub mod data;
pub mod engine;
mod error;
pub mod integrate;
pub mod model;
pub mod objective;
pub mod rng;

pub use error::{Error, Result};
