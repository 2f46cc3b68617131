//! A virtual GPU: executes the PTX that the compiler made of our kernels, and reports errors that
//! hardware would not.
//!
//! | module | what it is |
//! |---|---|
//! | `ptx` | modules and instructions from text |
//! | `memory` | allocations with a shadow: bounds, initialization, races |
//! | `arithmetic`, `lanes` | what a lane computes, and all lanes of a warp in one loop |
//! | `fragments` | which lane holds which element of a matrix, and products of matrices |
//! | `descriptors` | where a matrix of a warpgroup's product lies in shared memory |
//! | `exec` | warps, groups of lanes, barriers |
//! | `device` | memory, modules and launches together |
//! | `counters`, `model` | what a profiler counts, and the time that it takes on a named GPU |
//! | `queue` | streams, events and captures |
//! | `outside` | work of other libraries in streams |
//! | `driver` | the functions of the driver interface |
//! | `fatbin`, `overrides` | the PTX inside what the compiler writes, and other PTX in its place |

pub mod arithmetic;
pub mod counters;
pub mod descriptors;
pub mod device;
pub mod driver;
pub mod exec;
pub mod fatbin;
pub mod fragments;
pub mod lanes;
pub mod memory;
pub mod model;
pub mod outside;
pub mod overrides;
pub mod ptx;
pub mod queue;
