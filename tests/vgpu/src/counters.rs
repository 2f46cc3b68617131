//! Counters, like those of a profiler.

use std::collections::HashMap;

use crate::fragments;
use crate::lanes::{LANES, Lanes, lanes};
use crate::ptx::{Binary, MatrixProduct, Op, Space, Ternary, Type, Unary, WarpgroupProduct};

/// The unit that an instruction occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    Float32,
    Float64,
    Half,
    Integer,
    /// Conversions with at least one floating-point type.
    Convert,
    Special,
    Tensor,
    Memory,
    Control,
}

const N_PIPES: usize = 9;

impl Pipe {
    pub const ALL: [Pipe; N_PIPES] = [
        Pipe::Float32,
        Pipe::Float64,
        Pipe::Half,
        Pipe::Integer,
        Pipe::Convert,
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
            // Exact division is a sequence of instructions around a reciprocal.
            Op::Binary { op: Binary::Div | Binary::DivApprox, ty: Type::F32, .. } => Pipe::Special,
            Op::Binary { ty, .. } | Op::Setp { ty, .. } => of_type(*ty),
            Op::Ternary { op: Ternary::Fma, ty, .. } => of_type(*ty),
            Op::Convert { to, from, .. } if !to.is_float() && !from.is_float() => Pipe::Integer,
            Op::Convert { .. } | Op::ConvertPair { .. } => Pipe::Convert,
            Op::Load { space: Space::Param, .. } => Pipe::Integer,
            Op::Load { .. }
            | Op::Store { .. }
            | Op::Atomic { .. }
            | Op::LoadMatrix { .. }
            | Op::CopyAsync { .. }
            | Op::BulkLoad { .. }
            | Op::BulkStore { .. }
            | Op::MbarrierInit { .. }
            | Op::MbarrierInvalidate { .. }
            | Op::MbarrierArrive { .. }
            | Op::MbarrierBytes { .. }
            | Op::MbarrierTest { .. }
            | Op::Prefetch { .. } => Pipe::Memory,
            Op::Mma { .. } | Op::WarpgroupProduct(_) => Pipe::Tensor,
            Op::Branch { .. }
            | Op::Exit
            | Op::Trap
            | Op::Barrier { .. }
            | Op::WarpBarrier { .. }
            | Op::Fence(_)
            | Op::Sleep
            | Op::Nop
            | Op::CommitGroup
            | Op::WaitGroup { .. }
            | Op::Elect { .. }
            | Op::WarpgroupFence
            | Op::WarpgroupCommit
            | Op::WarpgroupWait { .. }
            | Op::SetRegisters { .. }
            | Op::BulkCommit
            | Op::BulkWait { .. }
            | Op::ProxyFence { .. }
            | Op::MbarrierInitFence => Pipe::Control,
            _ => Pipe::Integer,
        }
    }
}

/// Types of the operands of matrix products, which run at different rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operands {
    F16,
    Bf16,
    Tf32,
    /// f16 or bf16, in products of warpgroups.
    Warpgroup,
}

const N_OPERANDS: usize = 4;

impl Operands {
    pub const ALL: [Operands; N_OPERANDS] = [Operands::F16, Operands::Bf16, Operands::Tf32, Operands::Warpgroup];

    pub fn of(product: MatrixProduct) -> Operands {
        match product {
            MatrixProduct::F16 | MatrixProduct::F16K8 => Operands::F16,
            MatrixProduct::Bf16 | MatrixProduct::Bf16K8 => Operands::Bf16,
            MatrixProduct::Tf32 | MatrixProduct::Tf32K4 => Operands::Tf32,
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
    /// Multiply–adds of matrix products, by the type of their operands.
    pub multiply_adds: [u64; N_OPERANDS],
    /// Passes through shared memory, each at most 128 bytes and one row of banks.
    pub shared_wavefronts: u64,
    /// Sectors of 32 bytes that warps requested from global memory (or a cache before it), and the
    /// bytes of them that lanes used.
    pub read_sectors: u64,
    pub read_bytes: u64,
    pub written_sectors: u64,
    pub written_bytes: u64,
    /// Of the sectors that were read, those that bulk copies brought to shared memory.
    pub bulk_sectors: u64,
    pub barriers: u64,
}

/// Launches of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    pub launches: u64,
    /// Blocks of all of them.
    pub blocks: u64,
    /// Most blocks that a multiprocessor holds at the same time.
    pub resident: u64,
}

impl Launches {
    /// One more launch, of `blocks` blocks.
    pub fn add(&mut self, blocks: u64, resident: u64) {
        *self = Launches {
            launches: self.launches + 1,
            blocks: self.blocks + blocks,
            resident: self.resident.max(resident),
        };
    }

    /// Each number with its name.
    pub(crate) fn fields(&mut self) -> [(&'static str, &mut u64); 3] {
        [("launches", &mut self.launches), ("blocks", &mut self.blocks), ("resident", &mut self.resident)]
    }
}

impl Counters {
    pub fn count(&mut self, pipe: Pipe, threads: u64) {
        self.warp_instructions[pipe as usize] += 1;
        self.thread_instructions[pipe as usize] += threads;
    }

    /// A matrix product of one warp.
    pub fn matrix_product(&mut self, product: MatrixProduct) {
        self.multiply_adds[Operands::of(product) as usize] += fragments::multiply_adds(product);
    }

    /// A matrix product of one warpgroup.
    pub fn warpgroup_product(&mut self, product: &WarpgroupProduct) {
        self.multiply_adds[Operands::Warpgroup as usize] += (64 * 16 * product.n) as u64;
    }

    /// A bulk copy between global and shared memory.
    pub fn bulk_access(&mut self, bytes: u64, written: bool) {
        self.shared_wavefronts += bytes / 128;
        let (sectors, n_bytes) = match written {
            true => (&mut self.written_sectors, &mut self.written_bytes),
            false => (&mut self.read_sectors, &mut self.read_bytes),
        };
        *sectors += bytes / 32;
        *n_bytes += bytes;
        if !written {
            self.bulk_sectors += bytes / 32;
        }
    }

    /// Each count with its name.
    pub(crate) fn fields(&mut self) -> Vec<(String, &mut u64)> {
        let lower = |name: String| name.to_lowercase();
        let warps = Pipe::ALL.iter().map(|pipe| lower(format!("{pipe:?}"))).zip(&mut self.warp_instructions);
        let threads =
            Pipe::ALL.iter().map(|pipe| lower(format!("{pipe:?}_threads"))).zip(&mut self.thread_instructions);
        let products = Operands::ALL
            .iter()
            .map(|operands| lower(format!("{operands:?}_multiply_adds")))
            .zip(&mut self.multiply_adds);
        let others = [
            ("shared_wavefronts", &mut self.shared_wavefronts),
            ("read_sectors", &mut self.read_sectors),
            ("read_bytes", &mut self.read_bytes),
            ("written_sectors", &mut self.written_sectors),
            ("written_bytes", &mut self.written_bytes),
            ("bulk_sectors", &mut self.bulk_sectors),
            ("barriers", &mut self.barriers),
        ];
        let others = others.into_iter().map(|(name, count)| (name.to_string(), count));
        warps.chain(threads).chain(products).chain(others).collect()
    }

    /// Each count with its name, in a fixed order.
    pub fn named(&self) -> Vec<(String, u64)> {
        self.clone().fields().into_iter().map(|(name, count)| (name, *count)).collect()
    }

    /// All counts times `factor`, rounded.
    pub fn scaled(&self, factor: f64) -> Counters {
        let mut scaled = self.clone();
        scaled.fields().into_iter().for_each(|(_, count)| *count = (*count as f64 * factor).round() as u64);
        scaled
    }

    pub fn total(&self) -> u64 {
        self.warp_instructions.iter().sum()
    }

    pub fn add(&mut self, other: &Counters) {
        for pipe in 0..N_PIPES {
            self.warp_instructions[pipe] += other.warp_instructions[pipe];
            self.thread_instructions[pipe] += other.thread_instructions[pipe];
        }
        self.multiply_adds.iter_mut().zip(other.multiply_adds).for_each(|(sum, more)| *sum += more);
        self.shared_wavefronts += other.shared_wavefronts;
        self.read_sectors += other.read_sectors;
        self.read_bytes += other.read_bytes;
        self.written_sectors += other.written_sectors;
        self.written_bytes += other.written_bytes;
        self.bulk_sectors += other.bulk_sectors;
        self.barriers += other.barriers;
    }

    /// An aligned access of `bytes` bytes per lane to shared memory. Wide accesses are split: two
    /// parts for 8 bytes, four for 16.
    pub fn shared_access(&mut self, at: &Lanes, mask: u32, bytes: usize) {
        // The part of a bank row that one lane accesses: lanes conflict if they access different
        // rows of the same part.
        let unit = bytes.max(4) as u64;
        let pieces = (128 / unit) as usize;
        for first in (0..LANES).step_by(pieces) {
            let part = mask & (u32::MAX >> (LANES - pieces)) << first;
            let mut rows = [u64::MAX; LANES];
            let mut collides = false;
            for lane in lanes(part) {
                let (row, piece) = (at[lane] / 128, (at[lane] / unit) as usize % pieces);
                collides |= rows[piece] != u64::MAX && rows[piece] != row;
                rows[piece] = row;
            }
            self.shared_wavefronts += if collides { most_rows(at, part, unit) } else { u64::from(part != 0) };
        }
    }

    /// An aligned access of `bytes` bytes per lane to global memory.
    pub fn global_access(&mut self, at: &Lanes, mask: u32, bytes: usize, written: bool) {
        let (mut sectors, mut last, mut ascending) = (0, None, true);
        for lane in lanes(mask) {
            let sector = Some(at[lane] / 32);
            ascending &= last <= sector;
            sectors += u64::from(last != sector);
            last = sector;
        }
        if !ascending {
            let mut all = [0; LANES];
            lanes(mask).for_each(|lane| all[lane] = at[lane] / 32 + 1);
            sectors = n_distinct(&mut all);
        }
        let n_bytes = u64::from(mask.count_ones()) * bytes as u64;
        if written {
            self.written_sectors += sectors;
            self.written_bytes += n_bytes;
        } else {
            self.read_sectors += sectors;
            self.read_bytes += n_bytes;
        }
    }
}

/// Counters and launches as lines of JSON, one per kernel.
pub fn report(counters: &HashMap<String, Counters>, launches: &HashMap<String, Launches>) -> String {
    let mut names: Vec<&String> = counters.keys().collect();
    names.sort();
    let line = |name: &String| {
        let mut counts = counters[name].clone();
        let mut launches = launches.get(name).copied().unwrap_or_default();
        let launches = launches.fields().map(|(field, count)| format!("\"{field}\":{count}"));
        let fields = counts.fields().into_iter().map(|(field, count)| format!("\"{field}\":{count}"));
        let fields: Vec<String> = launches.into_iter().chain(fields).collect();
        format!("{{\"kernel\":\"{name}\",{}}}\n", fields.join(","))
    };
    names.into_iter().map(line).collect()
}

/// Parses the output of [`report`]: each kernel with its counters.
pub fn read_report(text: &str) -> Vec<(String, Counters)> {
    read_launches(text).into_iter().map(|(kernel, _, counters)| (kernel, counters)).collect()
}

/// The same, with the launches.
pub fn read_launches(text: &str) -> Vec<(String, Launches, Counters)> {
    let kernel = |line: &str| {
        let fields: HashMap<&str, &str> =
            line.trim_matches(['{', '}']).split(',').filter_map(|field| field.split_once(':')).collect();
        let number = |name: &str| fields.get(format!("\"{name}\"").as_str())?.parse().ok();
        let (mut launches, mut counters) = (Launches::default(), Counters::default());
        for (name, count) in launches.fields() {
            *count = number(name)?;
        }
        for (name, count) in counters.fields() {
            *count = number(&name)?;
        }
        Some((fields.get("\"kernel\"")?.trim_matches('"').to_string(), launches, counters))
    };
    text.lines().filter_map(kernel).collect()
}

/// Maximum number of different bank rows that the lanes of `part` access in one bank.
#[cold]
fn most_rows(at: &Lanes, part: u32, unit: u64) -> u64 {
    let pieces = 128 / unit;
    let of_piece = |piece: u64| {
        let mut rows = [0; LANES];
        lanes(part).filter(|&lane| at[lane] / unit % pieces == piece).for_each(|lane| rows[lane] = at[lane] / 128 + 1);
        n_distinct(&mut rows)
    };
    (0..pieces).map(of_piece).max().unwrap_or(0)
}

/// Number of distinct values other than 0.
fn n_distinct(values: &mut Lanes) -> u64 {
    values.sort_unstable();
    let mut before = 0;
    values.iter().filter(|&&value| std::mem::replace(&mut before, value) != value).count() as u64
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
        assert_eq!(wavefronts(8, &|lane| 8 * lane), 2);
        assert_eq!(wavefronts(8, &|lane| 128 * (lane % 4)), 8);
        assert_eq!(wavefronts(2, &|lane| 2 * lane), 1);
        assert_eq!(wavefronts(4, &|lane| 128 * (lane % 3)), 3);
    }

    #[test]
    fn sectors_are_what_coalescing_leaves() {
        let sectors = |bytes: usize, address: &dyn Fn(u64) -> u64| {
            let mut counters = Counters::default();
            counters.global_access(&std::array::from_fn(|lane| address(lane as u64)), u32::MAX, bytes, false);
            counters.read_sectors
        };
        assert_eq!(sectors(4, &|lane| 4 * lane), 4);
        assert_eq!(sectors(4, &|lane| 4 * lane + 4), 5);
        assert_eq!(sectors(4, &|lane| 4 * (31 - lane)), 4);
        assert_eq!(sectors(4, &|lane| 64 * (lane % 2)), 2);
        assert_eq!(sectors(4, &|lane| 32 * lane), 32);
        assert_eq!(sectors(16, &|lane| 16 * lane), 16);
        assert_eq!(sectors(4, &|_| 0), 1);
    }

    #[test]
    fn reports_are_read_back() {
        let mut counters = Counters::default();
        counters.fields().into_iter().enumerate().for_each(|(index, (_, count))| *count = 1000 + index as u64);
        let named = HashMap::from([("a".to_string(), counters.clone()), ("b".to_string(), Counters::default())]);
        let mut launches = Launches::default();
        launches.add(7, 2);
        launches.add(5, 1);
        assert_eq!(launches, Launches { launches: 2, blocks: 12, resident: 2 });
        let text = report(&named, &HashMap::from([("a".to_string(), launches)]));
        assert_eq!(read_report(&text), [("a".to_string(), counters.clone()), ("b".to_string(), Counters::default())]);
        assert_eq!(read_launches(&text)[0], ("a".to_string(), launches, counters.clone()));
        assert_eq!(counters.scaled(2.0).barriers, 2 * counters.barriers);
    }
}
