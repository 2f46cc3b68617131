//! Snapshots of a population: reading, checking, standardizing and storing them.
//!
//! Formats: `.npz` (stored or deflated), pairs of `.npy`, tables (`.csv`, `.tsv`, also `.gz`),
//! `.safetensors` and `.h5ad` (the cells of AnnData), and with the feature `parquet` also
//! `.parquet`; f16, bf16, f32, f64 and integers of either byte order, C and Fortran order. Samples
//! that f32 cannot hold exactly are centered in f64 before they are rounded.
//!
//! Input files are untrusted: sizes are checked against the bytes present before anything is
//! allocated. Peak memory is at most the samples present, in f32, 4 bytes per row (if the rows of a
//! time are scattered), and 64 times the bytes of the file, whatever it claims; a robust scale
//! takes an eighth of the samples more, or one column. Components take, while they are fitted, 8
//! bytes for each of them and 18 more, times twice the rows and four times the columns, which is
//! checked before it is reserved. Names of rows, which only [`read_ids`] reads, take their text and
//! 24 bytes a row. A `.parquet` may hold 1024 values for each of its bytes, as equal values take
//! none; its zstd is the one exception: a block of a few bytes may expand to gigabytes before its
//! size is known. Time grows linearly with the bytes read; compressed ones count by the size of
//! their content.
//!
//! Without the feature `files` only `.npy` and `.safetensors` are read and written.
//!
//! ```
//! # #[cfg(feature = "files")] {
//! use action_matching::data::{DataSource, load};
//!
//! let folder = tempfile::tempdir().expect("a folder");
//! let file = folder.path().join("cells.csv");
//! std::fs::write(&file, "times,height\n5,1\n5,3\n8,4\n8,8\n").expect("written");
//!
//! let loaded = load(&DataSource::new(&file), &())?;
//! assert_eq!((loaded.coordinates.mean[0], loaded.coordinates.time_range), (4.0, [5.0, 8.0]));
//! assert_eq!((&loaded.training.times[..], loaded.training.n_rows(1)), (&[0.0, 1.0][..], 2));
//! assert_eq!(loaded.coordinates.columns, Some(vec!["height".to_string()]));
//! # }
//! # Ok::<(), action_matching::Error>(())
//! ```

mod analytic;
#[cfg(feature = "h5ad")]
mod anndata;
#[cfg(not(feature = "h5ad"))]
#[path = "disabled/anndata.rs"]
mod anndata;
mod array;
#[cfg(feature = "files")]
mod columns;
mod components;
mod conditions;
#[cfg(feature = "files")]
mod csv;
#[cfg(not(feature = "files"))]
#[path = "disabled/csv.rs"]
mod csv;
mod describe;
mod distinct;
mod draw;
mod file;
mod fits;
mod grouping;
mod hold_out;
mod hydrogen;
mod ids;
mod load;
mod npy;
#[cfg(feature = "files")]
mod npz;
#[cfg(not(feature = "files"))]
#[path = "disabled/npz.rs"]
mod npz;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(all(feature = "files", not(feature = "parquet")))]
#[path = "disabled/parquet.rs"]
mod parquet;
mod row_filter;
mod row_mass;
mod safetensors;
mod snapshots;
mod source;
mod standardize;
mod survey;
#[cfg(feature = "files")]
mod table;
#[cfg(not(feature = "files"))]
#[path = "disabled/table.rs"]
mod table;
#[cfg(feature = "files")]
mod time_text;
mod write;
mod written;

pub use analytic::AnalyticProblem;
#[cfg(feature = "h5ad")]
pub(crate) use anndata::{CellLabels, CellSamples, Cells, Coupled, Graph, Item, write_coupling, write_extended};
pub use components::{Components, Reduction};
pub use conditions::RowGroups;
#[doc(hidden)] // by way of `cli_support`
pub use describe::describe;
pub use draw::{draw_gaussian, draw_indices, draw_rows};
#[cfg(feature = "files")]
pub(crate) use file::names_data;
pub use fits::check_fits;
pub use hold_out::{HoldOut, RowShare, SplitColumn, SplitValue, TimeRange};
pub use hydrogen::{HYDROGEN_HORIZON, hydrogen_snapshots};
pub use load::{
    DataSet, DividedSet, Loaded, Points, load, load_single, read_divided, read_ids, read_points, read_row_times,
    read_snapshot_ids, read_snapshots,
};
#[cfg(feature = "files")]
pub(crate) use load::{load_on, load_single_on};
pub use row_filter::RowFilter;
pub use row_mass::RowMass;
pub use snapshots::Snapshots;
pub use source::{DataSource, Standardization};
pub use write::{PointArray, PointValues, check_points_format, write_points, writes_texts};
