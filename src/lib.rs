//! Learn the dynamics of a population from snapshots: Action Matching (Neklyudov et al., ICML 2023, arXiv 2210.06662).
#![deny(missing_docs)]

mod atomic;
pub mod check;
pub mod data;
mod elements;
pub mod engine;
mod error;
pub mod evaluate;
pub mod integrate;
pub mod model;
pub mod objective;
pub mod rng;
mod tensors;
pub mod train;

pub use atomic::{check_writable, write_atomically};
pub use error::{Error, Result};
