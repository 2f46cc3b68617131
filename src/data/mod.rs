//! Snapshots of a population: reading, checking, standardising and holding them; start particles; writing results.

mod array;
mod csv;
mod draw;
mod npy;
mod npz;
mod safetensors;
mod snapshots;
mod source;
mod write;

pub use draw::{draw_gaussian, draw_rows};
pub use snapshots::Snapshots;
pub use source::{DataSource, Loaded, Standardisation, describe, load, read_points, read_snapshots};
pub use write::{check_points_suffix, write_points};
