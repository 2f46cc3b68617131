//! Output of `build.rs`: for each file of `kernels/` the names of its kernels and its fat binary
//! (none without a compiler); and the compiler with its architectures, or why there was none.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The kernel of a family for a precision.
macro_rules! kernel_of {
    ($precision:expr, $stem:literal) => {
        match $precision {
            Precision::F32 => concat!($stem, "_f32"),
            Precision::Tf32 => concat!($stem, "_tf32"),
            Precision::Bf16 => concat!($stem, "_bf16"),
            Precision::F16 => concat!($stem, "_f16"),
        }
    };
}
pub(in crate::engine::cuda) use kernel_of;
