//! A lower bound from counts: the least time that each unit of a named GPU needs for the counted
//! work. [`time`] estimates the time itself, and [`measured`] holds that against measured times.
//!
//! Assumptions of the bound: all multiprocessors have equal work, every unit is always busy, and
//! clocks are the highest that the vendor states, so no kernel is faster than its largest bound.
//! PTX is counted instead of machine code. Addresses that the compiler folds into loads and
//! predicates that it merges count as integer instructions, so [`Unit::Integer`] and
//! [`Unit::Issue`] are too high, by up to a half in loops full of address arithmetic. Sectors count
//! as if none were found in a multiprocessor's own cache, so [`Unit::L2`] is too high for kernels
//! that read the same operands again.

pub mod laboratory;
pub mod measured;
pub mod time;

use crate::counters::{Counters, Operands, Pipe};

/// Units that may limit the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The schedulers, with all warp instructions.
    Issue,
    Float32,
    Float64,
    Half,
    Integer,
    Convert,
    Special,
    Tensor,
    /// Shared memory.
    Shared,
    L2,
    Dram,
}

/// Throughput of a GPU per clock: of one multiprocessor, or of the whole chip if stated.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    pub name: &'static str,
    pub n_multiprocessors: f64,
    /// Hz.
    pub clock: f64,
    /// Warp instructions.
    pub issue: f64,
    // Thread instructions; one of [`Pipe::Half`] processes two numbers.
    pub float32: f64,
    pub float64: f64,
    pub half: f64,
    pub integer: f64,
    pub convert: f64,
    pub special: f64,
    /// Multiply–adds with sums in f32: of `mma.sync` for f16, bf16 and tf32, and of `wgmma` for the
    /// first two.
    pub tensor: [f64; 4],
    /// Wavefronts of 128 bytes.
    pub shared: f64,
    /// Bytes of the whole chip.
    pub l2: f64,
    /// Bytes per second of the whole chip.
    pub dram: f64,
}

/// The rate of products that a card does not have, and that no kernel asks of it.
const NO_WARPGROUPS: f64 = f64::INFINITY;

// Rates of thread instructions: CUDA C++ Programming Guide, "Throughput of Native Arithmetic
// Instructions", for 8.0, 8.9 and 9.0.

/// A100 SXM 80 GB (NVIDIA A100 Tensor Core GPU Architecture): 312 TFLOPS in bf16 are 1024
/// multiply–adds; L2 delivers 5120 bytes per clock.
pub const A100: Gpu = Gpu {
    name: "A100",
    n_multiprocessors: 108.0,
    clock: 1.41e9,
    issue: 4.0,
    float32: 64.0,
    float64: 32.0,
    half: 128.0,
    integer: 64.0,
    convert: 64.0,
    special: 16.0,
    tensor: [1024.0, 1024.0, 512.0, NO_WARPGROUPS],
    shared: 1.0,
    l2: 5120.0,
    dram: 2.039e12,
};

/// H100 SXM (NVIDIA H100 Tensor Core GPU Architecture). Its tensor cores do 2048 multiply–adds in
/// bf16 only with `wgmma`; `mma.sync` reaches 62 to 63 % of that (arXiv 2402.13499 and 2501.12084,
/// on an H800), which is the figure here for it. NVIDIA states no figure for L2, so that of the
/// A100 is assumed.
pub const H100: Gpu = Gpu {
    name: "H100",
    n_multiprocessors: 132.0,
    clock: 1.98e9,
    issue: 4.0,
    float32: 128.0,
    float64: 64.0,
    half: 128.0,
    integer: 64.0,
    convert: 64.0,
    special: 16.0,
    tensor: [0.63 * 2048.0, 0.63 * 2048.0, 0.63 * 1024.0, 2048.0],
    shared: 1.0,
    l2: 5120.0,
    dram: 3.35e12,
};

/// GeForce RTX 4090 (NVIDIA Ada GPU Architecture): 165.2 TFLOPS in bf16 with sums in f32 are 256
/// multiply–adds. For L2, 32 bytes per multiprocessor are assumed, more than has been measured.
pub const RTX_4090: Gpu = Gpu {
    name: "RTX 4090",
    n_multiprocessors: 128.0,
    clock: 2.52e9,
    issue: 4.0,
    float32: 128.0,
    float64: 2.0,
    half: 64.0,
    integer: 64.0,
    convert: 64.0,
    special: 16.0,
    tensor: [256.0, 256.0, 128.0, NO_WARPGROUPS],
    shared: 1.0,
    l2: 4096.0,
    dram: 1.008e12,
};

pub const ALL: [Gpu; 3] = [A100, H100, RTX_4090];

/// The least seconds that each unit of `gpu` needs.
pub fn bounds(counters: &Counters, gpu: &Gpu) -> [(Unit, f64); 11] {
    let clocks = gpu.n_multiprocessors * gpu.clock;
    let threads = |pipe: Pipe, rate: f64| counters.thread_instructions[pipe as usize] as f64 / (rate * clocks);
    let products = Operands::ALL.map(|operands| {
        let operands = operands as usize;
        counters.multiply_adds[operands] as f64 / (gpu.tensor[operands] * clocks)
    });
    let moved = 32.0 * (counters.read_sectors + counters.written_sectors) as f64;
    [
        (Unit::Issue, counters.total() as f64 / (gpu.issue * clocks)),
        (Unit::Float32, threads(Pipe::Float32, gpu.float32)),
        (Unit::Float64, threads(Pipe::Float64, gpu.float64)),
        (Unit::Half, threads(Pipe::Half, gpu.half)),
        (Unit::Integer, threads(Pipe::Integer, gpu.integer)),
        (Unit::Convert, threads(Pipe::Convert, gpu.convert)),
        (Unit::Special, threads(Pipe::Special, gpu.special)),
        (Unit::Tensor, products.iter().sum()),
        (Unit::Shared, counters.shared_wavefronts as f64 / (gpu.shared * clocks)),
        (Unit::L2, moved / (gpu.l2 * gpu.clock)),
        (Unit::Dram, moved / gpu.dram),
    ]
}

/// The unit that bounds the time, and that bound.
pub fn busiest(bounds: &[(Unit, f64)]) -> Option<(Unit, f64)> {
    bounds.iter().copied().filter(|&(unit, _)| unit != Unit::Dram).max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: Unit, counters: &Counters, gpu: &Gpu) -> f64 {
        bounds(counters, gpu).into_iter().find(|&(u, _)| u == unit).expect("every unit").1
    }

    /// The work that a unit does in one second has a bound of one second, at the rates that the
    /// vendor states.
    #[test]
    fn peaks_are_the_vendors() {
        let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 0.01, "{got}, not {want}");
        for (gpu, bf16, tf32, f32) in [
            (A100, 312e12, 156e12, 19.5e12),
            (H100, 0.63 * 1070e12, 0.63 * 535e12, 66.9e12),
            (RTX_4090, 165.2e12, 82.6e12, 82.6e12),
        ] {
            let mut counters = Counters { multiply_adds: [0, (bf16 / 2.0) as u64, 0, 0], ..Counters::default() };
            close(of(Unit::Tensor, &counters, &gpu), 1.0);
            counters.multiply_adds = [0, 0, (tf32 / 2.0) as u64, 0];
            close(of(Unit::Tensor, &counters, &gpu), 1.0);
            counters.thread_instructions[Pipe::Float32 as usize] = (f32 / 2.0) as u64;
            close(of(Unit::Float32, &counters, &gpu), 1.0);
        }
        let counters = Counters { multiply_adds: [0, 0, 0, (1070e12 / 2.0) as u64], ..Counters::default() };
        close(of(Unit::Tensor, &counters, &H100), 1.0);
        // 128 bytes per clock and multiprocessor: 19.5 TB/s of shared memory on an A100; 7.2 TB/s
        // of L2.
        let counters = Counters { shared_wavefronts: (19.49e12 / 128.0) as u64, ..Counters::default() };
        close(of(Unit::Shared, &counters, &A100), 1.0);
        let counters = Counters { read_sectors: (7.219e12 / 32.0) as u64, ..Counters::default() };
        close(of(Unit::L2, &counters, &A100), 1.0);
    }

    #[test]
    fn the_busiest_unit_is_the_slowest_of_those_that_bound() {
        let mut counters = Counters { read_sectors: 1000, written_sectors: 1000, ..Counters::default() };
        let (unit, seconds) = busiest(&bounds(&counters, &A100)).expect("a unit");
        assert_eq!(unit, Unit::L2);
        assert!((seconds - 64_000.0 / (5120.0 * 1.41e9)).abs() < 1e-15);
        counters.thread_instructions[Pipe::Special as usize] = 32 << 20;
        assert_eq!(busiest(&bounds(&counters, &A100)).expect("a unit").0, Unit::Special);
        // Twice the work takes twice as long.
        let mut twice = counters.clone();
        twice.add(&counters);
        for (one, two) in bounds(&counters, &H100).into_iter().zip(bounds(&twice, &H100)) {
            assert_eq!(2.0 * one.1, two.1);
        }
    }
}
