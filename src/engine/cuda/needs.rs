//! What rows are for, which decides the buffers and the kernels that they get.

/// Purpose of rows, which decides the sweeps they get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// The loss of a batch and its gradient: all sweeps.
    #[default]
    Training,
    /// The value of a network and its adjoint.
    Bend,
    /// The gradient at the input, and the tangents of probes.
    Particles,
}

/// The gradient of a loss term in the point of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PointGradient {
    /// A bend reads it.
    Needed,
    /// Not formed.
    #[default]
    Unread,
}

/// Requirements of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowNeeds {
    /// Probes per row.
    pub n_probes: usize,
    /// Gradient of each row's loss term at its point.
    pub grad_x: PointGradient,
    /// Purpose of the rows.
    pub work: Work,
}
