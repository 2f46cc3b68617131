//! Tests that count allocations: one test program, because an allocator serves a whole process.

#[path = "../common/fuzz/mod.rs"]
mod common_fuzz;
#[path = "../data_support/mod.rs"]
mod data_support;

mod data_memory;
mod fuzz;
