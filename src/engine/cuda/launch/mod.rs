//! One function per kernel: checks the lengths of the buffers it is given, chooses grid and shared
//! memory, launches.

mod optimizer;
mod sweep;

pub use optimizer::*;
pub use sweep::*;
