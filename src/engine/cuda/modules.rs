//! The compiled kernels, as `build.rs` left them: for each file of `kernels/` the names of its kernels and its fat binary. Empty where there was no
//! compiler.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
