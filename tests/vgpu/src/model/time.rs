//! The time of a launch, from its counts and from what was measured on a card.
//!
//! A launch takes as long as its **throughput** and its **latency** together allow:
//!
//! * Throughput: the busiest unit, at rates that were measured rather than stated. Units of a
//!   multiprocessor wait for the multiprocessor with the most blocks; L2 and DRAM serve all.
//!   Integer instructions count half (`INTEGERS`).
//! * Latency: a warp has one instruction after the other, [`Card::wait_clocks`] apart: products,
//!   accesses to memory, conversions, special functions, barriers and branches, whose results the
//!   next ones need. Integer and f32 arithmetic is hidden between them. Blocks come in waves of as
//!   many as the multiprocessors hold.
//!
//! If both overlapped wholly, the larger would be the time; if not at all, their sum.
//! [`Card::overlap`] lies between: the time is `(throughput^p + latency^p)^(1/p)`. A constant time
//! per launch comes on top.
//!
//! DRAM sees what L2 does not keep: of the bytes that the blocks at work have in flight, the
//! fraction by which they exceed L2 ([`Traffic`]).
//!
//! Kernels with `wgmma` have roles ([`Turns`]): one warp brings weights by bulk copies, and two
//! warpgroups keep their rows in registers. Their instructions belong to many independent sums, so
//! that a warp waits less ([`Card::role_clocks`]). If both warpgroups multiply at the same time,
//! nothing hides what they do between products; if they multiply in turn, it overlaps as above. L2
//! serves their bulk copies and writes, the multiprocessor's own cache their other reads. When a
//! bulk copy lands, how long an `mbarrier` is waited for and a turn is handed over is not modelled,
//! but in the clocks of an instruction; stages are taken to be filled ahead.
//!
//! Not modelled: that interior and boundary tiles differ, but for the longest tile of a launch;
//! latencies that differ between kernels; clocks that fall with the power; copies from and to the
//! host; a kernel that runs beside another.

use super::{Gpu, H100, Unit, bounds};
use crate::counters::{Counters, Operands, Pipe};

/// Warps of a block: every kernel of this project has blocks of 256 threads, beside those that
/// bring weights, whose few instructions count as if they were the others'.
const WARPS: f64 = 8.0;

/// Integer instructions that the compiler leaves, of those of PTX: addresses of neighbours fold
/// into the accesses, and predicates merge.
const INTEGERS: f64 = 0.5;

/// A GPU as measured.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// Sustained rates.
    pub gpu: Gpu,
    /// Bytes that L2 keeps.
    pub l2_bytes: f64,
    /// Clocks between two instructions for which a warp waits.
    pub wait_clocks: f64,
    /// The same in kernels with roles.
    pub role_clocks: f64,
    /// The exponent that joins throughput and latency: 1 if nothing overlaps.
    pub overlap: f64,
    /// Seconds of a launch that does next to nothing: until its first block runs, and until what
    /// it reads first comes from DRAM.
    pub launch: f64,
}

/// H100 SXM. Measured with the program of commit d7d78ad and a laboratory kernel on one card:
/// 480 TFLOP/s of `mma.sync` alone, and 6.3 TB/s of weights from L2. Stated by NVIDIA: 50 MB of L2
/// and 3.35 TB/s of DRAM. The clock is the boost clock of the PCIe card, between the highest
/// of this one, 1.98 GHz, and the 1.59 GHz at which it ran products without a pause. `wgmma` alone
/// reached 858 TFLOP/s at that. `wait_clocks`, `overlap` and `launch` are fitted
/// (`measured::FITTED`), and `role_clocks` is, to one laboratory kernel (`laboratory::FITTED`).
pub const H100_MEASURED: Card = Card {
    gpu: Gpu {
        name: "H100, as measured",
        clock: MEASURED_CLOCK,
        tensor: [MMA_SYNC, MMA_SYNC, 0.5 * MMA_SYNC, 858.0 / 480.0 * MMA_SYNC],
        l2: 6.3e12 / MEASURED_CLOCK,
        ..H100
    },
    l2_bytes: 50e6,
    wait_clocks: 13.75,
    role_clocks: 6.3,
    overlap: 1.19,
    launch: 11.2e-6,
};
const MEASURED_CLOCK: f64 = 1.755e9;
/// Multiply–adds per clock and multiprocessor.
const MMA_SYNC: f64 = 480e12 / 2.0 / (132.0 * MEASURED_CLOCK);

/// What a launch asks of DRAM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Traffic {
    /// Tiles write what they read again in a later sweep. What the blocks at work write in one of
    /// `passes` is in flight together; the part of it that L2 does not keep goes out and comes
    /// back.
    Sweeps { passes: f64 },
    /// Blocks read operands that an earlier launch wrote, `readers` blocks each. The part that L2
    /// did not keep comes from DRAM, once.
    Operands { readers: f64 },
    /// All that is read is in L2.
    Cached,
}

/// How the products of a block overlap with the rest of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// All warps do the same, each for itself.
    Alike,
    /// Two warpgroups multiply at the same time.
    Together,
    /// One of two warpgroups multiplies while the other does the rest.
    InTurn,
}

impl Turns {
    /// Those of this project's kernels.
    pub fn of(counters: &Counters) -> Turns {
        if counters.multiply_adds[Operands::Warpgroup as usize] > 0 { Turns::InTurn } else { Turns::Alike }
    }
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Of all blocks.
    pub counters: Counters,
    pub blocks: u64,
    /// Most blocks that a multiprocessor holds at the same time.
    pub resident: u64,
    /// Work of the largest block, in units of the mean.
    pub largest: f64,
    pub traffic: Traffic,
    pub turns: Turns,
}

/// The modelled time of a launch, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// The busiest unit.
    pub unit: Unit,
    pub throughput: f64,
    pub latency: f64,
    /// Bytes between L2 and DRAM.
    pub dram_bytes: f64,
    pub seconds: f64,
}

impl Launch {
    /// Bytes between L2 and DRAM.
    fn dram_bytes(&self, card: &Card) -> f64 {
        let exceeding = |in_flight: f64| (1.0 - card.l2_bytes / in_flight.max(card.l2_bytes)).max(0.0);
        match self.traffic {
            Traffic::Sweeps { passes } => {
                let written = 32.0 * self.counters.written_sectors as f64;
                let at_work = self.resident as f64 * card.gpu.n_multiprocessors / self.blocks.max(1) as f64;
                2.0 * written * exceeding(written / passes * at_work.min(1.0))
            }
            Traffic::Operands { readers } => {
                let operands = 32.0 * self.counters.read_sectors as f64 / readers;
                operands * exceeding(operands)
            }
            Traffic::Cached => 0.0,
        }
    }

    /// The part of the sectors that L2 serves. Of the reads of kernels with roles, those are bulk
    /// copies: the others read small tables again and again.
    fn past_own_cache(&self) -> f64 {
        let Counters { read_sectors, written_sectors, bulk_sectors, .. } = self.counters;
        match self.turns {
            Turns::Alike => 1.0,
            _ => (bulk_sectors + written_sectors) as f64 / (read_sectors + written_sectors).max(1) as f64,
        }
    }

    /// The time on `card`.
    pub fn time(&self, card: &Card) -> Time {
        let Gpu { n_multiprocessors, clock, dram, .. } = card.gpu;
        let blocks = self.blocks.max(1) as f64;
        let dram_bytes = self.dram_bytes(card);
        // The blocks of the multiprocessor with the most, and those that one place has in turn.
        let most = (blocks / n_multiprocessors).ceil().max(self.largest);
        let waves = (blocks / (n_multiprocessors * self.resident.max(1) as f64)).ceil().max(self.largest);
        let uneven = most * n_multiprocessors / blocks;
        let warp_instructions = |pipe: Pipe| self.counters.warp_instructions[pipe as usize] as f64;
        let all = self.counters.total() as f64;
        let issued = 1.0 - (1.0 - INTEGERS) * warp_instructions(Pipe::Integer) / all.max(1.0);
        let units = bounds(&self.counters, &card.gpu).map(|(unit, seconds)| match unit {
            Unit::Dram => (unit, dram_bytes / dram),
            Unit::L2 => (unit, seconds * self.past_own_cache()),
            Unit::Integer => (unit, uneven * INTEGERS * seconds),
            Unit::Issue => (unit, uneven * issued * seconds),
            _ => (unit, uneven * seconds),
        });
        let (unit, throughput) = units.into_iter().fold((Unit::Issue, 0.0), |a, b| if b.1 > a.1 { b } else { a });
        let waited = (all - warp_instructions(Pipe::Integer) - warp_instructions(Pipe::Float32)) / (WARPS * blocks);
        let (wait_clocks, p) = match self.turns {
            Turns::Alike => (card.wait_clocks, card.overlap),
            Turns::Together => (card.role_clocks, 1.0),
            Turns::InTurn => (card.role_clocks, card.overlap),
        };
        let latency = waves * waited * wait_clocks / clock;
        let seconds = card.launch + (throughput.powf(p) + latency.powf(p)).powf(1.0 / p);
        Time { unit, throughput, latency, dram_bytes, seconds }
    }
}
