//! Argument blocks of the kernels that work on points which already lie on the device.

use super::{Const, DevicePtr, Opaque};

device_types! {
    /// Arguments of `change_units`: v in column c becomes (v · factor + offset) / divisor.
    struct UnitsParams {
        /// `[n_elements]`, rows of n_columns.
        from: DevicePtr<Const<f32>>,
        /// `[n_elements]`; may be `from`.
        to: DevicePtr<f32>,
        /// `[n_columns]`.
        factor: DevicePtr<Const<f64>>,
        /// `[n_columns]`.
        offset: DevicePtr<Const<f64>>,
        /// `[n_columns]`.
        divisor: DevicePtr<Const<f64>>,
        /// `[warps of the grid]`: the first element that is not finite, of those of the warp;
        /// n_elements if all are.
        first_not_finite: DevicePtr<u64>,
        n_elements: u64,
        n_columns: u32,
        unused: u32,
    }

    /// Arguments of `place_rows`.
    struct PlaceParams {
        /// `[n_given][dim]`.
        points: DevicePtr<Const<f32>>,
        /// `[n_rows][n_features]`.
        phi: DevicePtr<Const<f32>>,
        /// Written: `[n_rows][dim]`.
        x: DevicePtr<f32>,
        /// Written, T: `[n_rows][in_width]`.
        a_in: DevicePtr<Opaque>,
        n_rows: u32,
        /// Rows from here on fill a tile.
        n_given: u32,
        dim: u32,
        n_features: u32,
        in_width: u32,
        unused: u32,
    }
}
