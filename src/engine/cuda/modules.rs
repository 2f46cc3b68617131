//! Output of `build.rs`: for each file of `kernels/` the names of its kernels and its fat binary
//! (none without a compiler); and the compiler with its architectures, or why there was none.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
