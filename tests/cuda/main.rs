//! The CUDA engine, and the program with a GPU. One test program, so that all tests share a driver
//! and its kernels.
//!
//! Runs on GPU 0, which may be the virtual one: `LD_LIBRARY_PATH` with a folder where `libcuda.so`
//! is `libvgpu.so` of tests/vgpu.

#[path = "../common/mod.rs"]
mod common;

#[cfg(unix)]
#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../build.rs"]
mod build;

#[cfg(unix)]
mod cli;
mod derivatives;
mod devices;
mod divided;
mod ensemble;
mod examples;
mod integrate;
mod integrate_memory;
mod ranks;
mod training;
mod warpgroups;
