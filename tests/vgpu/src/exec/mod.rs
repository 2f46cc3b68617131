//! The executor: blocks in turns ([`Residents`]), the warps of a block in a seeded random order,
//! threads of a warp in groups that share a program counter.
//!
//! Groups split if a branch divides them, and join when they reach the same instruction. Operations
//! of several lanes (barriers, shuffles, matrix operations) wait until all these lanes arrive, and
//! are an error if they cannot arrive.

mod access;
mod compute;
mod fault;
mod mbarrier;
mod named;
mod residents;
mod units;
mod warp;
mod warpgroup;

use self::access::Found;
use self::mbarrier::Mbarrier;
use self::units::Units;
use self::warp::{Group, Warp};
use self::warpgroup::WARPS;
use std::collections::BTreeMap;

use crate::counters::{Counters, Pipe};
use crate::device;
use crate::lanes::{LANES, Lanes, holding, lanes};
use crate::memory::{GlobalMemory, MAX_TIME, Order, Region, Stamp, Time};
use crate::ptx::{Instruction, Kernel, Op, Preset, Register, Scope, Special};

pub use self::residents::Residents;

/// Maximum number of threads of a block.
pub const MAX_THREADS: u32 = 1024;

/// Everything that defines a launch.
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub parameters: &'a [u8],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub memory: &'a GlobalMemory,
    /// Address of each variable of the module.
    pub globals: &'a [u64],
    /// Address of the workspace of a cooperative launch, else 0.
    pub workspace: u64,
    /// Number of the launch, from 1.
    pub number: u32,
    pub seed: u64,
}

/// The reason why a kernel stopped.
#[derive(Clone, Debug)]
pub struct Failure {
    pub message: String,
    pub instruction: String,
    pub source: (u32, u32),
    pub block: u32,
    pub thread: Option<u32>,
    /// Source and text of the other access of a race, if that is known.
    pub other: Option<((u32, u32), String)>,
}

type Step<T> = Result<T, Box<Failure>>;

/// A small random generator for orders (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) as u128 * n as u128) >> 64) as usize
    }
}

/// Runs a block of a launch, and then others.
struct Worker<'a> {
    block: Block<'a>,
    warps: Vec<Warp>,
    /// Warps that can run, listed anew in each turn.
    ready: Vec<usize>,
}

/// State shared by all warps of a block.
struct Block<'a> {
    launch: &'a Launch<'a>,
    block: u32,
    n_threads: u32,
    shared: Region,
    counters: Counters,
    random: Random,
    /// The last accessed allocation.
    found: Found<'a>,
    /// The order of accesses, if blocks run side by side.
    order: Option<&'a Order>,
    /// Rises with everything that may end a wait: writes, ends of threads, barriers.
    changes: u64,
    /// By address in shared memory.
    mbarriers: BTreeMap<u32, Mbarrier>,
    /// Number of `mbarrier`s begun.
    lives: u64,
    units: Units,
    /// Threads that have come to each barrier of some warps, and that must come.
    named: [(u32, u32); 16],
    /// Registers of a thread of each warpgroup, and those that no warpgroup has.
    registers: Vec<u32>,
    free_registers: u32,
    /// Times of the warps of each warpgroup at its last `setmaxnreg`.
    resized: Vec<Option<[u32; WARPS]>>,
    /// False while the executor looks for circles: then no warp sleeps.
    sleeps: bool,
}

impl<'a> Worker<'a> {
    fn new(launch: &'a Launch<'a>, order: Option<&'a Order>) -> Self {
        let n_threads: u32 = launch.block.iter().product();
        let n_warpgroups = n_threads.div_ceil((WARPS * LANES) as u32) as usize;
        let block = Block {
            launch,
            block: 0,
            n_threads,
            shared: Region::private(launch.kernel.shared_bytes + launch.dynamic_shared),
            counters: Counters::default(),
            random: Random::new(0),
            found: Found::default(),
            order,
            changes: 0,
            mbarriers: BTreeMap::new(),
            lives: 0,
            units: Units::default(),
            named: [(0, 0); 16],
            registers: vec![0; n_warpgroups],
            free_registers: 0,
            resized: vec![None; n_warpgroups],
            sleeps: true,
        };
        let n_warps = n_threads.div_ceil(LANES as u32);
        let warps = (0..n_warps).map(|index| Warp::new(index, launch.kernel)).collect();
        Worker { block, warps, ready: Vec::with_capacity(n_warps as usize) }
    }

    /// Begins block `index` of the launch.
    fn begin(&mut self, index: u32) {
        let Worker { block, warps, .. } = self;
        let launch = block.launch;
        block.block = index;
        block.random = Random::new(launch.seed ^ u64::from(index) << 20 ^ u64::from(launch.number) << 44);
        block.shared.clear();
        block.changes += 1;
        block.mbarriers.clear();
        block.units.restart();
        block.named = [(0, 0); 16];
        block.registers.fill(device::registers_of_thread(launch.kernel) as u32);
        block.free_registers = 0;
        block.resized.fill(None);
        if let Some(order) = block.order {
            order.begin_block(index, warps.len());
        }
        for warp in warps.iter_mut() {
            warp.restart(block.n_threads);
            for &(register, preset) in &launch.kernel.presets {
                warp.write(register, u32::MAX, &block.preset(warp.index, preset));
            }
        }
    }

    /// Executes some instructions of one warp, and then perhaps of another: every order of warps
    /// between barriers is possible. Returns their number, or `None` once the block has ended.
    fn turn(&mut self) -> Step<Option<usize>> {
        let Worker { block, warps, ready } = self;
        if !block.units.flights.is_empty() && block.random.below(4) == 0 {
            block.land()?;
        }
        loop {
            block.meet(warps)?;
            block.open_named(warps);
            ready.clear();
            for (index, warp) in warps.iter_mut().enumerate() {
                warp.asleep = !block.is_awake(warp);
                ready.extend(warp.is_ready().then_some(index));
            }
            if !ready.is_empty() {
                break;
            }
            if block.land()? {
                continue;
            }
            // Waits have a time limit.
            if warps.iter().any(|warp| warp.asleep) {
                for warp in warps.iter_mut().filter(|warp| warp.asleep) {
                    (warp.asleep, warp.awakened) = (false, true);
                    warp.waits_for = None;
                }
                continue;
            }
            block.check_partial_waits(warps)?;
            if warps.iter().all(|warp| warp.groups.is_empty()) {
                if let Some(order) = block.order {
                    order.end_block(block.block);
                }
                return Ok(None);
            }
            block.release_barrier(warps)?;
        }
        let chosen = ready[block.random.below(ready.len())];
        let stretch = 1 + block.random.below(200);
        block.advance(&mut warps[chosen], stretch).map(Some)
    }
}

impl<'a> Block<'a> {
    /// All warps wait or have ended: the barrier opens if all threads have arrived.
    fn release_barrier(&mut self, warps: &mut [Warp]) -> Step<()> {
        for warp in warps.iter() {
            let own = (self.n_threads - warp.index * LANES as u32).min(LANES as u32);
            let missing = warp.exited.count_ones() - (LANES as u32 - own);
            if missing > 0 {
                let message =
                    format!("{missing} threads of warp {} left the kernel while others wait at a barrier", warp.index);
                return self.fail(self.barrier(warps), None, message);
            }
        }
        let latest = warps.iter().map(|warp| warp.time.now).max().unwrap_or(0);
        let now = self.after(latest, self.barrier(warps))?;
        if let Some(order) = self.order {
            order.block_barrier(self.block);
        }
        self.changes += 1;
        for warp in warps {
            warp.at_barrier = false;
            warp.time = Time { now, of_block: now, of_warp: now };
            warp.polled = None;
            for group in &mut warp.groups {
                group.pc += 1;
                group.waits = false;
            }
        }
        self.counters.barriers += 1;
        Ok(())
    }

    /// The barrier at which warps wait.
    fn barrier(&self, warps: &[Warp]) -> &Instruction {
        let waiting = warps.iter().find(|warp| warp.at_barrier).and_then(|warp| warp.groups.first());
        let code = &self.launch.kernel.code;
        &code[waiting.map_or(code.len() - 1, |group| group.pc)]
    }

    /// The next time after `now`.
    #[inline(always)]
    fn after(&self, now: u32, instruction: &Instruction) -> Step<u32> {
        if now == MAX_TIME {
            return self.fail(
                instruction,
                None,
                format!("a time past {MAX_TIME}: races could no longer be told apart"),
            );
        }
        Ok(now + 1)
    }

    /// Executes up to `stretch` instructions of `warp`; returns their number.
    fn advance(&mut self, warp: &mut Warp, stretch: usize) -> Step<usize> {
        let mut left = stretch;
        warp.yields = false;
        while left > 0 && !warp.yields && warp.is_ready() {
            if warp.groups.len() == 1 {
                left -= self.straight(warp, left)?;
            } else {
                left -= 1;
                self.step(warp)?;
            }
        }
        Ok(stretch - left)
    }

    /// Executes instructions while all lanes of `warp` stay together, up to `limit`; returns their
    /// number.
    fn straight(&mut self, warp: &mut Warp, limit: usize) -> Step<usize> {
        let code = &self.launch.kernel.code;
        let Group { mut pc, mask, .. } = warp.groups[0];
        for done in 0..limit {
            let instruction = &code[pc];
            let active = active_lanes(warp, instruction, mask);
            match &instruction.op {
                Op::Branch { target } if active == 0 || active == mask => {
                    self.counters.count(Pipe::Control, 1);
                    pc = if active == 0 { pc + 1 } else { *target };
                }
                op if op.is_collective() && !(active == u32::MAX && op.is_matrix()) || op.yields() => {
                    warp.groups[0].pc = pc;
                    self.step(warp)?;
                    return Ok(done + 1);
                }
                _ => {
                    if active != 0 {
                        self.execute(warp, instruction, active)?;
                    }
                    pc += 1;
                }
            }
        }
        warp.groups[0].pc = pc;
        Ok(limit)
    }

    /// Executes one instruction of one group of `warp`.
    fn step(&mut self, warp: &mut Warp) -> Step<()> {
        warp.merge();
        let runnable = || warp.groups.iter().enumerate().filter(|(_, group)| !group.waits);
        // Usually the lanes furthest behind, so that they catch up; sometimes others.
        let chosen = match runnable().count() {
            // All groups wait, and those that can join have joined in `merge`: if none can run now,
            // none ever will.
            0 => return self.stuck(warp),
            n if n > 1 && self.random.below(8) == 0 => runnable().nth(self.random.below(n)),
            _ => runnable().min_by_key(|(_, group)| group.pc),
        };
        let chosen = chosen.map_or(0, |(index, _)| index);
        let Group { pc, mask, .. } = warp.groups[chosen];
        let instruction = &self.launch.kernel.code[pc];
        let active = active_lanes(warp, instruction, mask);
        warp.stepped |= mask;
        match &instruction.op {
            Op::Branch { target } => {
                self.counters.count(Pipe::Control, 1);
                warp.groups.swap_remove(chosen);
                for (pc, mask) in [(*target, active), (pc + 1, mask & !active)] {
                    if mask != 0 {
                        warp.groups.push(Group { pc, mask, waits: false });
                    }
                }
                return Ok(());
            }
            Op::Exit => {
                self.end_bulk_groups(warp, instruction, active)?;
                warp.exited |= active;
                self.changes += 1;
                warp.groups[chosen] = Group { pc: pc + 1, mask: mask & !active, waits: false };
                if mask == active {
                    warp.groups.swap_remove(chosen);
                }
                // Lanes that wait for those that have ended must check again.
                warp.groups.iter_mut().for_each(|group| group.waits = false);
                return Ok(());
            }
            Op::Barrier { id, threads, arrives } => {
                if active != mask {
                    return self.fail(instruction, None, "a barrier under a guard that divides the warp");
                }
                let id = self.uniform(warp, *id, mask, instruction)?;
                let expected = threads
                    .map_or(Ok(u64::from(self.n_threads)), |threads| self.uniform(warp, threads, mask, instruction))?;
                if mask | warp.exited != u32::MAX {
                    warp.groups[chosen].waits = true;
                    return Ok(());
                }
                if id != 0 || expected != u64::from(self.n_threads) || *arrives {
                    return self.come_to_named(warp, instruction, id, expected, *arrives);
                }
                warp.at_barrier = true;
                return Ok(());
            }
            op if op.needs_warpgroup() && active != 0 => {
                if warp.exited != 0 || active != mask {
                    let message = format!("an instruction of a warpgroup with lanes {:#x} missing", !active);
                    return self.fail(instruction, None, message);
                }
                if mask == u32::MAX {
                    warp.rendezvous = Some(pc);
                } else {
                    warp.groups[chosen].waits = true;
                }
                return Ok(());
            }
            Op::MbarrierTest { .. } if active != 0 && !self.test_mbarrier(warp, instruction, active)? => {
                return Ok(());
            }
            Op::WarpBarrier { mask: named }
            | Op::Shuffle { mask: named, .. }
            | Op::Vote { mask: named, .. }
            | Op::Elect { mask: named, .. }
                if active != 0 =>
            {
                let named = self.uniform(warp, *named, active, instruction)? as u32;
                if active & !named != 0 {
                    let thread = warp.thread((active & !named).trailing_zeros() as usize);
                    let message = format!("the lane is not in its own mask {named:#x}");
                    return self.fail(instruction, Some(thread), message);
                }
                if named & !active & !warp.exited != 0 {
                    if active != mask {
                        let message = format!("lanes {:#x} of mask {named:#x} are guarded out", named & !active);
                        return self.fail(instruction, None, message);
                    }
                    warp.groups[chosen].waits = true;
                    return Ok(());
                }
                if named & warp.exited != 0 {
                    let message = format!("lanes {:#x} of mask {named:#x} have left the kernel", named & warp.exited);
                    return self.fail(instruction, None, message);
                }
            }
            op if op.is_matrix() && active != 0 && active != u32::MAX => {
                if warp.exited != 0 || active != mask {
                    return self.fail(
                        instruction,
                        None,
                        format!("a matrix operation with lanes {:#x} missing", !active),
                    );
                }
                warp.groups[chosen].waits = true;
                return Ok(());
            }
            _ => {}
        }
        if active != 0 {
            self.execute(warp, instruction, active)?;
        }
        warp.yields |= instruction.op.yields();
        if instruction.op.polls() {
            warp.polled = Some((pc, active.trailing_zeros() as usize % LANES));
        }
        warp.groups[chosen].pc += 1;
        Ok(())
    }

    #[cold]
    fn stuck(&self, warp: &Warp) -> Step<()> {
        let at: Vec<String> = (warp.groups.iter())
            .map(|group| {
                let instruction = &self.launch.kernel.code[group.pc];
                format!("lanes {:#x} at line {}", group.mask, instruction.source.1)
            })
            .collect();
        let first = &self.launch.kernel.code[warp.groups[0].pc];
        let message =
            format!("divergent: lanes of one warp wait for each other at different places: {}", at.join("; "));
        self.fail(first, Some(warp.thread(warp.groups[0].mask.trailing_zeros() as usize)), message)
    }

    /// The stamp of an access by lane 0 of `warp` at this moment.
    #[inline(always)]
    fn stamp(&self, warp: &Warp, strong: Option<Scope>) -> Stamp<'a> {
        Stamp::new(self.launch.number, self.block, warp.thread(0), warp.time, strong, self.order)
    }

    /// The value of `source`, the same in all lanes of `mask`.
    fn uniform(&self, warp: &Warp, source: Register, mask: u32, instruction: &Instruction) -> Step<u64> {
        let values = warp.register(source);
        let first = values[mask.trailing_zeros() as usize];
        if lanes(mask).any(|lane| values[lane] != first) {
            return self.fail(instruction, None, "an operand that must be the same in all lanes is not");
        }
        Ok(first)
    }

    /// The value of `preset` in the lanes of warp `warp` of the block.
    fn preset(&self, warp: u32, preset: Preset) -> Lanes {
        match preset {
            Preset::Bits(bits) => [bits; LANES],
            Preset::Global(index, offset) => [self.launch.globals[index as usize].wrapping_add(offset); LANES],
            Preset::Special(special) => self.special(warp, special),
        }
    }

    fn special(&self, warp: u32, special: Special) -> Lanes {
        let block = |axis: usize| {
            let [x, y, _] = self.launch.grid;
            [self.block % x, self.block / x % y, self.block / x / y][axis]
        };
        std::array::from_fn(|lane| {
            let thread = warp * LANES as u32 + lane as u32;
            let [x, y, _] = self.launch.block;
            u64::from(match special {
                Special::Tid(axis) => [thread % x, thread / x % y, thread / x / y][axis],
                Special::Ntid(axis) => self.launch.block[axis],
                Special::Ctaid(axis) => block(axis),
                Special::Nctaid(axis) => self.launch.grid[axis],
                Special::LaneId => lane as u32,
                Special::WarpId => warp,
                Special::LaneMaskLt => (1u32 << lane) - 1,
                Special::LaneMaskLe => u32::MAX >> (31 - lane),
                Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
                Special::LaneMaskGe => !((1u32 << lane) - 1),
                Special::LaneMaskEq => 1 << lane,
                Special::DynamicSharedSize => self.launch.dynamic_shared as u32,
                Special::Workspace { upper: true } => (self.launch.workspace >> 32) as u32,
                Special::Workspace { upper: false } => self.launch.workspace as u32,
            })
        })
    }
}

/// The lanes of `mask` for which the guard of `instruction` holds.
#[inline(always)]
fn active_lanes(warp: &Warp, instruction: &Instruction, mask: u32) -> u32 {
    match instruction.guard {
        None => mask,
        Some((register, negated)) => {
            let holds = holding(warp.register(register));
            mask & if negated { !holds } else { holds }
        }
    }
}
