//! Snapshots of a population: reading, checking, standardising and holding them.

mod snapshots;

pub use snapshots::Snapshots;
