//! Argument blocks of `draw`: the path and the rows of a batch.

use super::{
    BatchParams, Const, DevicePtr, Estimator, Interpolant, LaplacianRule, NetworkParams, RowBuffers, SigmaSchedule,
    StepState, Tag, TimeRule,
};

device_types! {
    /// For each row of one side of a coupling, its partners on the other side: those of row i are
    /// partners[starts[i] .. starts[i + 1]].
    struct LinkParams {
        starts: DevicePtr<Const<u32>>,
        partners: DevicePtr<Const<u32>>,
        cumulative: DevicePtr<Const<u32>>,
        n_partners: u32,
        unused: u32,
    }

    /// The library's Coupling.
    struct CouplingParams {
        /// `[n_pairs][2]`.
        pairs: DevicePtr<Const<u32>>,
        /// `[n_pairs]`.
        cumulative: DevicePtr<Const<u32>>,
        /// `[n_pairs][2]`, or null if all are 1.
        masses: DevicePtr<Const<f32>>,
        /// `[n_pairs][3]`: angle, its cosine and sine; or null if masses and places change
        /// uniformly.
        turns: DevicePtr<Const<f32>>,
        n_pairs: u32,
        unused: u32,
        by_left: LinkParams,
        by_right: LinkParams,
    }

    /// The library's DensityPath. Rows offsets[k] .. offsets[k + 1] of the samples belong to
    /// snapshot k: those that are on the device now.
    struct PathParams {
        /// A generative path has two times, 0 and 1, and one snapshot.
        n_times: u32,
        n_snapshots: u32,
        interpolant: Tag<Interpolant>,
        /// The library's Spline::limit.
        limit: f32,
        times: DevicePtr<Const<f64>>,
        /// Lengths of the intervals in the knots of a spline, `[n_times - 1]`, or null.
        widths: DevicePtr<Const<f64>>,
        offsets: DevicePtr<Const<u64>>,
        /// `[row][dim]`.
        samples: DevicePtr<Const<f32>>,
        /// `[row]`: share of the snapshot's weight up to each row, in units of 2^-32; or null if
        /// the rows of a snapshot count alike.
        cumulative: DevicePtr<Const<u32>>,
        /// `[n_snapshots]`, or null if all are 1.
        masses: DevicePtr<Const<f64>>,
        /// `[n_times - 1]`, or null if rows are paired independently.
        couplings: DevicePtr<Const<CouplingParams>>,
    }

    /// The library's Groups: rows under several conditions, each with a path of its own.
    struct GroupParams {
        /// 0 without conditions; there is one path then.
        n_groups: u32,
        /// Inputs of the network that stand for conditions, behind the time features.
        n_conditions: u32,
        /// `[n_groups]`: share of the samples up to each group, in units of 2^-32.
        cumulative: DevicePtr<Const<u32>>,
        /// `[n_groups][n_conditions]`.
        conditions: DevicePtr<Const<f32>>,
        /// `[n_groups]`: share of the samples.
        shares: DevicePtr<Const<f64>>,
    }

    /// Arguments of `draw` and `draw_bend`. For `draw_bend`, network and rows are those of the
    /// bend, whose points are the two ends of a pair.
    struct DrawParams {
        network: NetworkParams,
        rows: RowBuffers,
        batch: BatchParams,
        /// One for each group.
        paths: DevicePtr<Const<PathParams>>,
        groups: GroupParams,
        state: DevicePtr<Const<StepState>>,
        /// The library's TimeDensity: density at the knots, then its cumulative integral.
        density: DevicePtr<Const<f64>>,
        /// Of the time weight, constant term first.
        coefficients: DevicePtr<Const<f64>>,
        /// Of the time features, in cycles; n_features = 1 + 2 n.
        frequencies: DevicePtr<Const<f64>>,
        seed: u64,
        sigma: f64,
        probe_weight: f64,
        time_rule: Tag<TimeRule>,
        estimator: Tag<Estimator>,
        weak_intervals: u32,
        n_coefficients: u32,
        laplacian_rule: Tag<LaplacianRule>,
        sigma_schedule: Tag<SigmaSchedule>,
    }
}
