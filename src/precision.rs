//! The type of operands of matrix products. Sums, master weights, moments and the moving average
//! are f32 in every precision.
//!
//! ```
//! use action_matching::precision::Precision;
//!
//! assert_eq!((Precision::default(), Precision::F16.bytes()), (Precision::Bf16, 2));
//! ```

use serde::{Deserialize, Serialize};

/// Type of the operands of matrix products on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// f32 without tensor cores: the reference.
    F32,
    /// f32 rounded to 10 bits of mantissa.
    Tf32,
    /// bfloat16: the range of f32, 7 bits of mantissa.
    #[default]
    Bf16,
    /// IEEE half precision, with dynamic loss scaling.
    F16,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 4] = [Precision::F32, Precision::Tf32, Precision::Bf16, Precision::F16];

    /// The name, with which the names of kernels end.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// Bytes of an operand.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Precision::F32 | Precision::Tf32 => 4,
            Precision::Bf16 | Precision::F16 => 2,
        }
    }
}
