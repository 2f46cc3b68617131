//! The only launches, one function per kernel: each borrows its buffers, checks their lengths,
//! makes the addresses, chooses grid and shared memory.

mod bend;
mod checks;
mod draw;
mod integrate;
mod optimizer;
mod packed;
mod path;
mod rows;
mod shared_layout;
mod sweep;
mod units;
mod weight_grad;

pub use bend::BendPass;
pub use draw::{Draw, DrawSettings};
pub use integrate::{FixedSteps, Integrate, IntegrationKernel, Steps, scratch_per_block};
pub use optimizer::*;
pub use packed::Packed;
pub use path::{PathTables, Samples};
pub use rows::Rows;
pub use shared_layout::SharedLayout;
pub use sweep::{Sweep, SweepNarrow, narrow_layout, narrow_room, sweep_kernel};
pub use units::{ChangeUnits, PlaceRows, Units, n_warps};
pub use weight_grad::WeightGrad;

use super::abi::{THREADS, WGMMA_THREADS};
use super::driver::Kernel;

/// Threads of a block of `kernel`: products of warpgroups have some that bring weights.
fn threads(kernel: Kernel) -> u32 {
    use Kernel::{IntegrateWgmmaBf16, IntegrateWgmmaF16, SweepWgmmaBf16, SweepWgmmaF16};
    match kernel {
        SweepWgmmaBf16 | SweepWgmmaF16 | IntegrateWgmmaBf16 | IntegrateWgmmaF16 => WGMMA_THREADS,
        _ => THREADS,
    }
}
