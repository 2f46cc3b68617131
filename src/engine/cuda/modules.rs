//! What `build.rs` left: for each file of `kernels/` the names of its kernels and its fat binary, none where there was no compiler; and the
//! compiler with the architectures it assembled for, or why there was none.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
