//! What a profiler counts.

use crate::exec::LANES;
use crate::ptx::{Binary, Op, Space, Ternary, Type, Unary};

/// The unit that an instruction occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    Float32,
    Float64,
    Half,
    Integer,
    Special,
    Tensor,
    Memory,
    Control,
}

const N_PIPES: usize = 8;

impl Pipe {
    pub const ALL: [Pipe; N_PIPES] = [
        Pipe::Float32,
        Pipe::Float64,
        Pipe::Half,
        Pipe::Integer,
        Pipe::Special,
        Pipe::Tensor,
        Pipe::Memory,
        Pipe::Control,
    ];

    pub fn of(op: &Op) -> Pipe {
        let of_type = |ty: Type| match ty {
            Type::F32 => Pipe::Float32,
            Type::F64 => Pipe::Float64,
            Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => Pipe::Half,
            _ => Pipe::Integer,
        };
        match op {
            Op::Unary { op: Unary::Abs | Unary::Neg | Unary::Not, ty, .. } => of_type(*ty),
            Op::Unary { op: Unary::Clz | Unary::Brev, .. } => Pipe::Integer,
            Op::Unary { .. } => Pipe::Special,
            // Exact division is a sequence around a reciprocal.
            Op::Binary { op: Binary::Div | Binary::DivApprox, ty: Type::F32, .. } => Pipe::Special,
            Op::Binary { ty, .. } | Op::Setp { ty, .. } => of_type(*ty),
            Op::Ternary { op: Ternary::Fma, ty, .. } => of_type(*ty),
            Op::Convert { .. } | Op::ConvertPair { .. } => Pipe::Special,
            Op::Load { space: Space::Param, .. } => Pipe::Integer,
            Op::Load { .. } | Op::Store { .. } | Op::Atomic { .. } | Op::LoadMatrix { .. } | Op::CopyAsync { .. } => {
                Pipe::Memory
            }
            Op::Mma { .. } => Pipe::Tensor,
            Op::Branch { .. }
            | Op::Exit
            | Op::Trap
            | Op::Barrier { .. }
            | Op::WarpBarrier { .. }
            | Op::Fence
            | Op::Nop
            | Op::CommitGroup
            | Op::WaitGroup { .. } => Pipe::Control,
            _ => Pipe::Integer,
        }
    }
}

/// Counts of one kernel, over all its launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions of each pipe.
    pub warp_instructions: [u64; N_PIPES],
    /// The same in threads.
    pub thread_instructions: [u64; N_PIPES],
    /// Multiply–adds of matrix products.
    pub multiply_adds: u64,
    /// Passes through shared memory, each at most 128 bytes and one row of banks.
    pub shared_wavefronts: u64,
    /// Sectors of 32 bytes moved from or to global memory.
    pub global_sectors: u64,
    pub global_bytes: u64,
    pub barriers: u64,
}

impl Counters {
    pub fn count(&mut self, pipe: Pipe, threads: u64) {
        self.warp_instructions[pipe as usize] += 1;
        self.thread_instructions[pipe as usize] += threads;
    }

    pub fn total(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }

    pub fn add(&mut self, other: &Counters) {
        for pipe in 0..N_PIPES {
            self.warp_instructions[pipe] += other.warp_instructions[pipe];
            self.thread_instructions[pipe] += other.thread_instructions[pipe];
        }
        self.multiply_adds += other.multiply_adds;
        self.shared_wavefronts += other.shared_wavefronts;
        self.global_sectors += other.global_sectors;
        self.global_bytes += other.global_bytes;
        self.barriers += other.barriers;
    }

    /// An access of `bytes` bytes a lane to shared memory. Wide accesses go in parts: two of 8 bytes, four of 16.
    pub fn shared_access(&mut self, at: &[u64; LANES], mask: u32, bytes: usize) {
        let lanes_at_once = if bytes <= 4 { 32 } else { 128 / bytes };
        for first in (0..LANES).step_by(lanes_at_once) {
            let mut words: Vec<u64> = (first..first + lanes_at_once)
                .filter(|lane| mask >> lane & 1 == 1)
                .flat_map(|lane| (0..bytes.div_ceil(4) as u64).map(move |word| at[lane] / 4 + word))
                .collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u64; 32];
            words.iter().for_each(|word| banks[(word % 32) as usize] += 1);
            self.shared_wavefronts += banks.into_iter().max().unwrap_or(0);
        }
    }

    pub fn global_access(&mut self, at: &[u64; LANES], mask: u32, bytes: usize) {
        let mut sectors: Vec<u64> = (0..LANES)
            .filter(|lane| mask >> lane & 1 == 1)
            .flat_map(|lane| at[lane] / 32..=(at[lane] + bytes as u64 - 1) / 32)
            .collect();
        self.global_bytes += (sectors.len().min(mask.count_ones() as usize) * bytes) as u64;
        sectors.sort_unstable();
        sectors.dedup();
        self.global_sectors += sectors.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wavefronts_are_the_conflicts_of_banks() {
        let wavefronts = |bytes: usize, address: &dyn Fn(u64) -> u64| {
            let mut counters = Counters::default();
            counters.shared_access(&std::array::from_fn(|lane| address(lane as u64)), u32::MAX, bytes);
            counters.shared_wavefronts
        };
        assert_eq!(wavefronts(4, &|lane| 4 * lane), 1);
        assert_eq!(wavefronts(4, &|_| 64), 1);
        assert_eq!(wavefronts(4, &|lane| 8 * lane), 2);
        assert_eq!(wavefronts(4, &|lane| 128 * lane), 32);
        assert_eq!(wavefronts(16, &|lane| 16 * lane), 4);
        assert_eq!(wavefronts(16, &|lane| 144 * lane), 4);
        assert_eq!(wavefronts(16, &|lane| 128 * lane), 32);
    }

    #[test]
    fn sectors_are_what_coalescing_leaves() {
        let sectors = |bytes: usize, address: &dyn Fn(u64) -> u64| {
            let mut counters = Counters::default();
            counters.global_access(&std::array::from_fn(|lane| address(lane as u64)), u32::MAX, bytes);
            counters.global_sectors
        };
        assert_eq!(sectors(4, &|lane| 4 * lane), 4);
        assert_eq!(sectors(4, &|lane| 4 * lane + 4), 5);
        assert_eq!(sectors(4, &|lane| 32 * lane), 32);
        assert_eq!(sectors(16, &|lane| 16 * lane), 16);
        assert_eq!(sectors(4, &|_| 0), 1);
    }
}
