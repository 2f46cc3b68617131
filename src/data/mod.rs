//! Snapshots of a population: reading, checking, standardising and holding them.
//!
//! Formats: `.npz` (stored or deflated), pairs of `.npy`, `.csv` and `.safetensors`; f16, bf16, f32, f64 and integers
//! of either byte order, C and Fortran order. Files are taken for hostile: sizes are checked against the bytes that are
//! there before anything is allocated.

mod analytic;
mod array;
mod csv;
mod describe;
mod draw;
mod file;
mod grouping;
mod hydrogen;
mod load;
mod npy;
mod npz;
mod safetensors;
mod snapshots;
mod source;
mod standardise;
mod write;

pub use analytic::AnalyticProblem;
pub use describe::describe;
pub use draw::{draw_gaussian, draw_rows};
pub use hydrogen::{HYDROGEN_HORIZON, hydrogen_snapshots};
pub use load::{Loaded, load, load_single, read_points, read_snapshots};
pub use snapshots::Snapshots;
pub use source::{DataSource, Standardisation};
pub use write::{PointArray, check_points_format, write_points};
