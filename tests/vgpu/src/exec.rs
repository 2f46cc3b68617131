//! The executor: one block at a time, its warps in a seeded random order, threads of a warp in groups that share a program counter.
//!
//! Groups split where a branch divides them and join where they meet again. What needs several lanes together (barriers, shuffles, matrix
//! operations) waits until they are there, and is an error when they cannot come.

use crate::arithmetic::{self, Conversion, f32_of};
use crate::counters::{Counters, Pipe};
use crate::fragments;
use crate::memory::{Access, Fault, GlobalMemory, LOCAL_BASE, Region, SHARED_BASE};
use crate::ptx::{
    Address, AtomicOp, Binary, Instruction, Kernel, Op, Register, SINK, ShuffleMode, Source, Space, Special, Type,
    VoteMode,
};

pub const LANES: usize = 32;

/// Threads of a block at most.
pub const MAX_THREADS: u32 = 1024;

/// What a launch runs.
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub parameters: &'a [u8],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub memory: &'a GlobalMemory,
    /// Address of each variable of the module.
    pub globals: &'a [u64],
    /// Number of the launch, from 1.
    pub number: u32,
    pub seed: u64,
}

/// Why a kernel stopped.
#[derive(Clone, Debug)]
pub struct Failure {
    pub message: String,
    pub instruction: String,
    pub source: (u32, u32),
    pub block: u32,
    pub thread: Option<u32>,
}

type Step<T> = Result<T, Failure>;

/// A small generator for orders (splitmix64).
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

/// Lanes at one place of the program.
#[derive(Clone, Copy, Debug)]
struct Group {
    pc: usize,
    mask: u32,
    /// Waits at its instruction for other lanes of the warp.
    waits: bool,
}

/// An asynchronous copy on its way.
struct Copy {
    offset: usize,
    bytes: Vec<u8>,
}

struct Warp {
    index: u32,
    /// Values of each register in each lane.
    registers: Vec<[u64; LANES]>,
    groups: Vec<Group>,
    exited: u32,
    /// Passed block barriers, and warp barriers since.
    barriers: u32,
    warp_barriers: u32,
    /// At a block barrier.
    at_barrier: bool,
    local: Vec<Region>,
    /// Copies of each lane that are not in a group yet, and its groups, oldest first.
    open_copies: Vec<Vec<Copy>>,
    copy_groups: Vec<std::collections::VecDeque<Vec<Copy>>>,
}

/// Runs block `block` of `launch`.
pub fn run_block(launch: &Launch, block: u32, counters: &mut Counters) -> Step<()> {
    let n_threads: u32 = launch.block.iter().product();
    let n_warps = n_threads.div_ceil(LANES as u32);
    let mut state = Block {
        launch,
        block,
        n_threads,
        shared: Region::new(launch.kernel.shared_bytes + launch.dynamic_shared),
        counters,
        random: Random::new(launch.seed ^ u64::from(block) << 20 ^ u64::from(launch.number) << 44),
    };
    let mut warps: Vec<Warp> = (0..n_warps).map(|index| state.warp(index)).collect();
    loop {
        let ready: Vec<usize> =
            (0..warps.len()).filter(|&w| !warps[w].at_barrier && !warps[w].groups.is_empty()).collect();
        if ready.is_empty() {
            if warps.iter().all(|warp| warp.groups.is_empty()) {
                return Ok(());
            }
            state.release_barrier(&mut warps)?;
            continue;
        }
        // A stretch of one warp, then perhaps another's: every order of warps between barriers is possible.
        let chosen = ready[state.random.below(ready.len())];
        let stretch = 1 + state.random.below(200);
        for _ in 0..stretch {
            if warps[chosen].at_barrier || warps[chosen].groups.is_empty() {
                break;
            }
            state.step(&mut warps[chosen])?;
        }
    }
}

struct Block<'a> {
    launch: &'a Launch<'a>,
    block: u32,
    n_threads: u32,
    shared: Region,
    counters: &'a mut Counters,
    random: Random,
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

impl Block<'_> {
    fn warp(&self, index: u32) -> Warp {
        let live = (self.n_threads - index * LANES as u32).min(LANES as u32);
        let mask = if live == 32 { u32::MAX } else { (1 << live) - 1 };
        Warp {
            index,
            registers: vec![[0; LANES]; self.launch.kernel.n_registers],
            groups: vec![Group { pc: 0, mask, waits: false }],
            exited: !mask,
            barriers: 0,
            warp_barriers: 0,
            at_barrier: false,
            local: (0..LANES).map(|_| Region::new(self.launch.kernel.local_bytes)).collect(),
            open_copies: (0..LANES).map(|_| Vec::new()).collect(),
            copy_groups: (0..LANES).map(|_| Default::default()).collect(),
        }
    }

    fn fail(&self, instruction: &Instruction, thread: Option<u32>, message: String) -> Failure {
        Failure {
            message,
            instruction: self.launch.kernel.texts[instruction.text as usize].clone(),
            source: instruction.source,
            block: self.block,
            thread,
        }
    }

    /// All warps wait or are gone: the barrier opens if all threads are there.
    fn release_barrier(&mut self, warps: &mut [Warp]) -> Step<()> {
        for warp in warps.iter() {
            let own = (self.n_threads - warp.index * LANES as u32).min(LANES as u32);
            let missing = warp.exited.count_ones() - (LANES as u32 - own);
            if missing > 0 {
                let waiting = warps.iter().find(|warp| warp.at_barrier).and_then(|warp| warp.groups.first());
                let code = &self.launch.kernel.code;
                let at = &code[waiting.map_or(code.len() - 1, |group| group.pc)];
                let message =
                    format!("{missing} threads of warp {} left the kernel while others wait at a barrier", warp.index);
                return Err(self.fail(at, None, message));
            }
        }
        for warp in warps {
            warp.at_barrier = false;
            warp.barriers += 1;
            warp.warp_barriers = 0;
            for group in &mut warp.groups {
                group.pc += 1;
                group.waits = false;
            }
        }
        self.counters.barriers += 1;
        Ok(())
    }

    fn access(&self, warp: &Warp, lane: usize, atomic: bool) -> Access {
        Access {
            launch: self.launch.number % 511 + 1,
            block: self.block,
            thread: warp.index * LANES as u32 + lane as u32,
            barriers: warp.barriers,
            warp_barriers: warp.warp_barriers,
            atomic,
        }
    }

    /// One instruction of one group of `warp`.
    fn step(&mut self, warp: &mut Warp) -> Step<()> {
        merge(&mut warp.groups);
        let runnable: Vec<usize> = (0..warp.groups.len()).filter(|&g| !warp.groups[g].waits).collect();
        // The lanes furthest behind first, so that they catch up; now and then others.
        let chosen = match runnable.len() {
            0 => {
                // Those that wait met in `merge`; if none can go on now, none ever will.
                return self.stuck(warp);
            }
            1 => runnable[0],
            n if self.random.below(8) == 0 => runnable[self.random.below(n)],
            _ => runnable.into_iter().min_by_key(|&g| warp.groups[g].pc).unwrap_or(0),
        };
        let Group { pc, mask, .. } = warp.groups[chosen];
        let instruction = &self.launch.kernel.code[pc];
        let mut active = mask;
        if let Some((register, negated)) = instruction.guard {
            let values = &warp.registers[register as usize];
            active =
                lanes(mask).filter(|&lane| (values[lane] & 1 == 1) != negated).fold(0, |mask, lane| mask | 1 << lane);
        }
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
                warp.exited |= active;
                warp.groups[chosen] = Group { pc: pc + 1, mask: mask & !active, waits: false };
                if mask == active {
                    warp.groups.swap_remove(chosen);
                }
                // Lanes that wait for those that left must look again.
                warp.groups.iter_mut().for_each(|group| group.waits = false);
                return Ok(());
            }
            Op::Barrier { id, threads } => {
                if active != mask {
                    return Err(self.fail(instruction, None, "a barrier under a guard that divides the warp".into()));
                }
                let id = self.uniform(warp, *id, mask, instruction)?;
                let expected = threads
                    .map_or(Ok(u64::from(self.n_threads)), |threads| self.uniform(warp, threads, mask, instruction))?;
                if id != 0 || expected != u64::from(self.n_threads) {
                    return Err(self.fail(
                        instruction,
                        None,
                        "a named barrier or one of part of the block is not supported".into(),
                    ));
                }
                if mask | warp.exited != u32::MAX {
                    warp.groups[chosen].waits = true;
                    return Ok(());
                }
                warp.at_barrier = true;
                return Ok(());
            }
            Op::WarpBarrier { mask: named } | Op::Shuffle { mask: named, .. } | Op::Vote { mask: named, .. }
                if active != 0 =>
            {
                let named = self.uniform(warp, *named, active, instruction)? as u32;
                if active & !named != 0 {
                    let lane = (active & !named).trailing_zeros();
                    return Err(self.fail(
                        instruction,
                        Some(self.thread(warp, lane as usize)),
                        format!("the lane is not in its own mask {named:#x}"),
                    ));
                }
                if named & !active & !warp.exited != 0 {
                    if active != mask {
                        return Err(self.fail(
                            instruction,
                            None,
                            format!("lanes {:#x} of mask {named:#x} are guarded out", named & !active),
                        ));
                    }
                    warp.groups[chosen].waits = true;
                    return Ok(());
                }
                if named & warp.exited != 0 {
                    return Err(self.fail(
                        instruction,
                        None,
                        format!("lanes {:#x} of mask {named:#x} have left the kernel", named & warp.exited),
                    ));
                }
            }
            Op::LoadMatrix { .. } | Op::Mma { .. } if active != 0 && active != u32::MAX => {
                if warp.exited != 0 || active != mask {
                    return Err(self.fail(
                        instruction,
                        None,
                        format!("a matrix operation with lanes {:#x} missing", !active),
                    ));
                }
                warp.groups[chosen].waits = true;
                return Ok(());
            }
            _ => {}
        }
        if active != 0 {
            self.execute(warp, instruction, active)?;
        }
        warp.groups[chosen].pc += 1;
        Ok(())
    }

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
        Err(self.fail(first, Some(self.thread(warp, warp.groups[0].mask.trailing_zeros() as usize)), message))
    }

    fn thread(&self, warp: &Warp, lane: usize) -> u32 {
        warp.index * LANES as u32 + lane as u32
    }

    /// The value of `source`, the same in all lanes of `mask`.
    fn uniform(&self, warp: &Warp, source: Source, mask: u32, instruction: &Instruction) -> Step<u64> {
        let values = self.read(warp, source);
        let first = values[mask.trailing_zeros() as usize];
        if lanes(mask).any(|lane| values[lane] != first) {
            return Err(self.fail(instruction, None, "an operand that must be the same in all lanes is not".into()));
        }
        Ok(first)
    }

    fn read(&self, warp: &Warp, source: Source) -> [u64; LANES] {
        match source {
            Source::Register(register) => warp.registers[register as usize],
            Source::Immediate(bits) => [bits; LANES],
            Source::Shared(offset) | Source::Local(offset) => [offset; LANES],
            Source::Global(index, offset) => [self.launch.globals[index as usize] + offset; LANES],
            Source::Special(special) => {
                let block = |axis: usize| {
                    let [x, y, _] = self.launch.grid;
                    [self.block % x, self.block / x % y, self.block / x / y][axis]
                };
                std::array::from_fn(|lane| {
                    let thread = self.thread(warp, lane);
                    let [x, y, _] = self.launch.block;
                    u64::from(match special {
                        Special::Tid(axis) => [thread % x, thread / x % y, thread / x / y][axis],
                        Special::Ntid(axis) => self.launch.block[axis],
                        Special::Ctaid(axis) => block(axis),
                        Special::Nctaid(axis) => self.launch.grid[axis],
                        Special::LaneId => lane as u32,
                        Special::WarpId => warp.index,
                        Special::LaneMaskLt => (1u32 << lane) - 1,
                        Special::LaneMaskLe => u32::MAX >> (31 - lane),
                        Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
                        Special::LaneMaskGe => !((1u32 << lane) - 1),
                        Special::LaneMaskEq => 1 << lane,
                        Special::DynamicSharedSize => self.launch.dynamic_shared as u32,
                        Special::Clock => self.counters.total() as u32,
                    })
                })
            }
        }
    }

    fn write(warp: &mut Warp, register: Register, mask: u32, values: &[u64; LANES]) {
        if register == SINK {
            return;
        }
        let target = &mut warp.registers[register as usize];
        if mask == u32::MAX {
            *target = *values;
        } else {
            lanes(mask).for_each(|lane| target[lane] = values[lane]);
        }
    }

    /// Computes a value for each active lane.
    fn map(
        &self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        dst: Register,
        value: impl Fn(usize) -> Option<u64>,
    ) -> Step<()> {
        let mut values = [0; LANES];
        for lane in lanes(mask) {
            let Some(bits) = value(lane) else {
                return Err(self.fail(
                    instruction,
                    None,
                    "the executor does not know this instruction for these types".into(),
                ));
            };
            values[lane] = bits;
        }
        Self::write(warp, dst, mask, &values);
        Ok(())
    }

    fn execute(&mut self, warp: &mut Warp, instruction: &Instruction, mask: u32) -> Step<()> {
        let threads = u64::from(mask.count_ones());
        self.counters.count(Pipe::of(&instruction.op), threads);
        match &instruction.op {
            Op::Mov { dst, a, ty } => {
                let (a, ty) = (self.read(warp, *a), *ty);
                self.map(warp, instruction, mask, *dst, |lane| Some(ty.truncate(a[lane])))
            }
            Op::Pack { dst, parts, bits } => {
                let parts: Vec<_> = parts.iter().map(|&part| self.read(warp, part)).collect();
                let low = (1u64 << bits) - 1;
                self.map(warp, instruction, mask, *dst, |lane| {
                    Some(parts.iter().rev().fold(0, |value, part| value << bits | part[lane] & low))
                })
            }
            Op::Unpack { parts, a, bits } => {
                let (a, low) = (self.read(warp, *a), (1u64 << bits) - 1);
                for (index, &part) in parts.iter().enumerate() {
                    self.map(warp, instruction, mask, part, |lane| Some(a[lane] >> (index as u32 * bits) & low))?;
                }
                Ok(())
            }
            Op::Unary { op, ty, ftz, dst, a } => {
                let a = self.read(warp, *a);
                self.map(warp, instruction, mask, *dst, |lane| arithmetic::unary(*op, *ty, *ftz, a[lane]))
            }
            Op::Binary { op, ty, ftz, saturate, dst, a, b } => {
                let (a, b) = (self.read(warp, *a), self.read(warp, *b));
                self.map(warp, instruction, mask, *dst, |lane| {
                    arithmetic::binary(*op, *ty, *ftz, *saturate, a[lane], b[lane])
                })
            }
            Op::Ternary { op, ty, ftz, saturate, relu, dst, a, b, c } => {
                let (a, b, c) = (self.read(warp, *a), self.read(warp, *b), self.read(warp, *c));
                self.map(warp, instruction, mask, *dst, |lane| {
                    arithmetic::ternary(*op, *ty, *ftz, *saturate, *relu, a[lane], b[lane], c[lane])
                })
            }
            Op::Bfi { ty, dst, a, b, position, length } => {
                let (a, b) = (self.read(warp, *a), self.read(warp, *b));
                let (position, length) = (self.read(warp, *position), self.read(warp, *length));
                self.map(warp, instruction, mask, *dst, |lane| {
                    let width = 8 * ty.bytes() as u64;
                    let (position, length) = (position[lane] & 0xff, length[lane] & 0xff);
                    if length == 0 || position >= width {
                        return Some(ty.truncate(b[lane]));
                    }
                    let ones = if length >= 64 { u64::MAX } else { (1 << length) - 1 } << position;
                    Some(ty.truncate(b[lane] & !ones | a[lane] << position & ones))
                })
            }
            Op::Setp { compare, ty, dst, other, a, b, combine } => {
                let (a, b) = (self.read(warp, *a), self.read(warp, *b));
                let combine = combine.map(|(op, source, negated)| (op, self.read(warp, source), negated));
                for (register, complement) in [(*dst, false), (*other, true)] {
                    if register == SINK {
                        continue;
                    }
                    self.map(warp, instruction, mask, register, |lane| {
                        let holds = arithmetic::compare(*compare, *ty, a[lane], b[lane])? != complement;
                        Some(u64::from(match &combine {
                            None => holds,
                            Some((op, values, negated)) => {
                                let with = (values[lane] & 1 == 1) != *negated;
                                match op {
                                    Binary::And => holds && with,
                                    Binary::Or => holds || with,
                                    _ => holds != with,
                                }
                            }
                        }))
                    })?;
                }
                Ok(())
            }
            Op::Selp { dst, a, b, predicate } => {
                let (a, b, predicate) = (self.read(warp, *a), self.read(warp, *b), self.read(warp, *predicate));
                self.map(warp, instruction, mask, *dst, |lane| {
                    Some(if predicate[lane] & 1 == 1 { a[lane] } else { b[lane] })
                })
            }
            Op::Convert { to, from, rounding, integral, saturate, ftz, relu, dst, a } => {
                let how = Conversion {
                    to: *to,
                    from: *from,
                    rounding: *rounding,
                    integral: *integral,
                    saturate: *saturate,
                    ftz: *ftz,
                    relu: *relu,
                };
                let a = self.read(warp, *a);
                self.map(warp, instruction, mask, *dst, |lane| arithmetic::convert(how, a[lane]))
            }
            Op::ConvertPair { to, relu, dst, a, b } => {
                let (a, b) = (self.read(warp, *a), self.read(warp, *b));
                self.map(warp, instruction, mask, *dst, |lane| {
                    Some(arithmetic::convert_pair(*to, *relu, a[lane], b[lane]))
                })
            }
            Op::Cvta { dst, a, space, to_space } => {
                let base = match space {
                    Space::Shared => SHARED_BASE,
                    Space::Local => LOCAL_BASE,
                    _ => 0,
                };
                let a = self.read(warp, *a);
                self.map(warp, instruction, mask, *dst, |lane| {
                    Some(if *to_space { a[lane].wrapping_sub(base) } else { a[lane].wrapping_add(base) })
                })
            }
            Op::Load { space, ty, dst, address } => self.load(warp, instruction, mask, *space, *ty, dst, *address),
            Op::Store { space, ty, values, address } => {
                self.store(warp, instruction, mask, *space, *ty, values, *address)
            }
            Op::Atomic { op, space, ty, dst, address, b, c } => {
                let (b, c) = (self.read(warp, *b), self.read(warp, *c));
                let at = self.addresses(warp, *address);
                let mut before = [0; LANES];
                for lane in lanes(mask) {
                    let change = |old: u64| atomic_value(*op, *ty, old, b[lane], c[lane]);
                    let result = self.with_region(warp, lane, *space, at[lane], ty.bytes(), |region, offset| {
                        region.atomic(offset, ty.bytes(), self.access(warp, lane, true), at[lane], change)
                    });
                    before[lane] = result.map_err(|fault| self.fault(warp, instruction, lane, &fault))?;
                }
                Self::write(warp, *dst, mask, &before);
                Ok(())
            }
            Op::Trap => {
                Err(self.fail(instruction, Some(self.thread(warp, mask.trailing_zeros() as usize)), "a trap".into()))
            }
            Op::WarpBarrier { .. } => {
                warp.warp_barriers += 1;
                Ok(())
            }
            Op::Shuffle { mode, dst, valid, a, b, clamp, .. } => {
                let (a, b, c) = (self.read(warp, *a), self.read(warp, *b), self.read(warp, *clamp));
                let (mut values, mut inside) = ([0; LANES], [0; LANES]);
                for lane in lanes(mask) {
                    let (source, ok) = shuffle_source(*mode, lane, b[lane] as u32, c[lane] as u32);
                    if ok && mask >> source & 1 == 0 {
                        let message = format!("reads lane {source}, which does not take part");
                        return Err(self.fail(instruction, Some(self.thread(warp, lane)), message));
                    }
                    values[lane] = a[if ok { source } else { lane }];
                    inside[lane] = u64::from(ok);
                }
                Self::write(warp, *dst, mask, &values);
                Self::write(warp, *valid, mask, &inside);
                Ok(())
            }
            Op::Vote { mode, dst, predicate, negate, .. } => {
                let predicate = self.read(warp, *predicate);
                let ballot = lanes(mask)
                    .filter(|&lane| (predicate[lane] & 1 == 1) != *negate)
                    .fold(0u32, |ballot, lane| ballot | 1 << lane);
                let value = match mode {
                    VoteMode::All => u64::from(ballot == mask),
                    VoteMode::Any => u64::from(ballot != 0),
                    VoteMode::Uniform => u64::from(ballot == 0 || ballot == mask),
                    VoteMode::Ballot => u64::from(ballot),
                };
                Self::write(warp, *dst, mask, &[value; LANES]);
                Ok(())
            }
            Op::ActiveMask { dst } => {
                Self::write(warp, *dst, mask, &[u64::from(mask); LANES]);
                Ok(())
            }
            Op::LoadMatrix { count, transposed, dst, address } => {
                self.load_matrix(warp, instruction, *count, *transposed, dst, *address)
            }
            Op::Mma { product, d, a, b, c } => {
                let read =
                    |sources: &[Source]| sources.iter().map(|&source| self.read(warp, source)).collect::<Vec<_>>();
                let (a, b, c) = (read(a), read(b), read(c));
                let result = fragments::multiply(*product, &a, &b, &c);
                self.counters.multiply_adds += fragments::multiply_adds(*product);
                for (&register, values) in d.iter().zip(&result) {
                    Self::write(warp, register, mask, values);
                }
                Ok(())
            }
            Op::CopyAsync { bytes, shared, global, from_source } => {
                let (to, from) = (self.addresses(warp, *shared), self.addresses(warp, *global));
                let read = from_source.map_or([*bytes as u64; LANES], |source| self.read(warp, source));
                self.counters.global_access(&from, mask, *bytes);
                self.counters.shared_access(&to, mask, *bytes);
                for lane in lanes(mask) {
                    let copy =
                        self.copy_async(warp, lane, to[lane], from[lane], *bytes, (read[lane] as usize).min(*bytes));
                    let copy = copy.map_err(|fault| self.fault(warp, instruction, lane, &fault))?;
                    warp.open_copies[lane].push(copy);
                }
                Ok(())
            }
            Op::CommitGroup => {
                for lane in lanes(mask) {
                    let group = std::mem::take(&mut warp.open_copies[lane]);
                    warp.copy_groups[lane].push_back(group);
                }
                Ok(())
            }
            Op::WaitGroup { pending } => {
                for lane in lanes(mask) {
                    while warp.copy_groups[lane].len() > *pending as usize {
                        let by = self.access(warp, lane, false);
                        for copy in warp.copy_groups[lane].pop_front().into_iter().flatten() {
                            self.shared.deliver(copy.offset, &copy.bytes, by);
                        }
                    }
                }
                Ok(())
            }
            Op::Fence | Op::Nop => Ok(()),
            Op::Branch { .. } | Op::Exit | Op::Barrier { .. } => Ok(()), // handled with the groups
        }
    }

    fn addresses(&self, warp: &Warp, address: Address) -> [u64; LANES] {
        let mut at = self.read(warp, address.base);
        at.iter_mut().for_each(|at| *at = at.wrapping_add(address.offset as u64));
        at
    }

    /// The memory that holds `bytes` bytes at an address.
    fn with_region<T>(
        &self,
        warp: &Warp,
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        act: impl FnOnce(&Region, usize) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (space, at) = match space {
            Space::Generic if address >= LOCAL_BASE => (Space::Local, address - LOCAL_BASE),
            Space::Generic if address >= SHARED_BASE => (Space::Shared, address - SHARED_BASE),
            Space::Generic => (Space::Global, address),
            Space::Shared | Space::Local => (space, address & 0xffff_ffff),
            other => (other, address),
        };
        if at % bytes as u64 != 0 {
            return Err(Fault::Misaligned { address, bytes });
        }
        let inside = |region: &Region| at as usize + bytes <= region.len();
        match space {
            Space::Shared if inside(&self.shared) => act(&self.shared, at as usize),
            Space::Local if inside(&warp.local[lane]) => act(&warp.local[lane], at as usize),
            Space::Shared => Err(Fault::OutOfBounds { address, bytes, nearest: Some((0, self.shared.len())) }),
            Space::Local => Err(Fault::OutOfBounds { address, bytes, nearest: Some((0, warp.local[lane].len())) }),
            _ => self.launch.memory.find(at, bytes).and_then(|(region, offset)| act(region, offset)),
        }
    }

    fn check_alignment(&self, space: Space, address: u64, bytes: usize) -> Result<(), Fault> {
        let at = if space == Space::Generic { address % SHARED_BASE } else { address };
        if at % bytes as u64 == 0 { Ok(()) } else { Err(Fault::Misaligned { address, bytes }) }
    }

    fn count_access(&mut self, space: Space, at: &[u64; LANES], mask: u32, bytes: usize) {
        let first = at[mask.trailing_zeros() as usize];
        let shared = space == Space::Shared || space == Space::Generic && (SHARED_BASE..LOCAL_BASE).contains(&first);
        let local = space == Space::Local || space == Space::Generic && first >= LOCAL_BASE;
        if shared {
            self.counters.shared_access(at, mask, bytes);
        } else if !local {
            self.counters.global_access(at, mask, bytes);
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn load(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        space: Space,
        ty: Type,
        dst: &[Register],
        address: Address,
    ) -> Step<()> {
        if space == Space::Param {
            return self.load_parameters(warp, instruction, mask, ty, dst, address);
        }
        let at = self.addresses(warp, address);
        let bytes = ty.bytes();
        self.count_access(space, &at, mask, bytes * dst.len());
        for (index, &register) in dst.iter().enumerate() {
            let mut values = [0; LANES];
            for lane in lanes(mask) {
                let one = at[lane] + (index * bytes) as u64;
                let result = self.check_alignment(space, at[lane], bytes * dst.len()).and_then(|()| {
                    self.with_region(warp, lane, space, one, bytes, |region, offset| {
                        region.load(offset, bytes, self.access(warp, lane, false), one)
                    })
                });
                let bits = result.map_err(|fault| self.fault(warp, instruction, lane, &fault))?;
                // Narrow signed values fill their register with the sign.
                values[lane] = if ty.is_signed() {
                    ty.extend(bits) as u64 & u64::from(u32::MAX) | if bytes == 8 { bits } else { 0 }
                } else {
                    bits
                };
            }
            Self::write(warp, register, mask, &values);
        }
        Ok(())
    }

    fn load_parameters(
        &self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        ty: Type,
        dst: &[Register],
        address: Address,
    ) -> Step<()> {
        let at = self.addresses(warp, address);
        for (index, &register) in dst.iter().enumerate() {
            let mut values = [0; LANES];
            for lane in lanes(mask) {
                let start = at[lane] as usize + index * ty.bytes();
                let Some(bytes) = self.launch.parameters.get(start..start + ty.bytes()) else {
                    return Err(self.fail(
                        instruction,
                        Some(self.thread(warp, lane)),
                        "reads behind the parameters".into(),
                    ));
                };
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                values[lane] = u64::from_le_bytes(word);
            }
            Self::write(warp, register, mask, &values);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn store(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        space: Space,
        ty: Type,
        sources: &[Source],
        address: Address,
    ) -> Step<()> {
        let at = self.addresses(warp, address);
        let bytes = ty.bytes();
        self.count_access(space, &at, mask, bytes * sources.len());
        for (index, &source) in sources.iter().enumerate() {
            let values = self.read(warp, source);
            for lane in lanes(mask) {
                let one = at[lane] + (index * bytes) as u64;
                let result = self.check_alignment(space, at[lane], bytes * sources.len()).and_then(|()| {
                    self.with_region(warp, lane, space, one, bytes, |region, offset| {
                        region.store(offset, bytes, values[lane], self.access(warp, lane, false), one)
                    })
                });
                result.map_err(|fault| self.fault(warp, instruction, lane, &fault))?;
            }
        }
        Ok(())
    }

    /// Each lane gives the address of a row of 8 halves, and gets its part of the fragments.
    fn load_matrix(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        count: usize,
        transposed: bool,
        dst: &[Register],
        address: Address,
    ) -> Step<()> {
        let at = self.addresses(warp, address);
        for (matrix, &register) in dst.iter().enumerate().take(count) {
            let mut rows = [[0u16; 8]; 8];
            let addresses: [u64; LANES] = std::array::from_fn(|lane| at[8 * matrix + lane % 8]);
            self.counters.shared_access(&addresses, 0xff, 16);
            for (row, halves) in rows.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                for (word, pair) in halves.chunks_exact_mut(4).enumerate() {
                    let one = at[lane] + 8 * word as u64;
                    let bits = self.check_alignment(Space::Shared, at[lane], 16).and_then(|()| {
                        self.with_region(warp, lane, Space::Shared, one, 8, |region, offset| {
                            region.load(offset, 8, self.access(warp, lane, false), one)
                        })
                    });
                    let bits = bits.map_err(|fault| self.fault(warp, instruction, lane, &fault))?;
                    pair.iter_mut().enumerate().for_each(|(k, half)| *half = (bits >> (16 * k)) as u16);
                }
            }
            Self::write(warp, register, u32::MAX, &fragments::load_matrix(&rows, transposed));
        }
        Ok(())
    }

    fn copy_async(
        &self,
        warp: &Warp,
        lane: usize,
        to: u64,
        from: u64,
        bytes: usize,
        read: usize,
    ) -> Result<Copy, Fault> {
        self.check_alignment(Space::Global, from, bytes)?;
        let mut copied = vec![0; bytes];
        for start in (0..read).step_by(4) {
            let address = from + start as u64;
            let n = (read - start).min(4);
            let bits = self.with_region(warp, lane, Space::Global, address, n, |region, offset| {
                region.load(offset, n, self.access(warp, lane, false), address)
            })?;
            copied[start..start + n].copy_from_slice(&bits.to_le_bytes()[..n]);
        }
        self.with_region(warp, lane, Space::Shared, to, bytes, |region, offset| {
            region.promise(offset, bytes, self.access(warp, lane, false), to)?;
            Ok(Copy { offset, bytes: copied })
        })
    }

    fn fault(&self, warp: &Warp, instruction: &Instruction, lane: usize, fault: &Fault) -> Failure {
        let base = match instruction.op.space() {
            Space::Shared => SHARED_BASE,
            Space::Local => LOCAL_BASE,
            _ => 0,
        };
        let place = |address: u64| match address | base {
            generic if generic >= LOCAL_BASE => format!("local {:#x}", generic - LOCAL_BASE),
            generic if generic >= SHARED_BASE => format!("shared {:#x}", generic - SHARED_BASE),
            global => format!("{global:#x}"),
        };
        let message = match fault {
            Fault::OutOfBounds { address, bytes, nearest } => {
                let near = nearest.map_or("no allocation below".to_string(), |(start, size)| {
                    format!(
                        "the allocation below starts at {start:#x} and has {size} bytes: {} bytes past its end",
                        (address % SHARED_BASE).wrapping_sub(start).wrapping_sub(size as u64) as i64 + *bytes as i64
                    )
                });
                format!("out of bounds: {bytes} bytes at {}; {near}", place(*address))
            }
            Fault::Misaligned { address, bytes } => format!("misaligned: {bytes} bytes at {}", place(*address)),
            Fault::Uninitialised { address, bytes } => {
                format!("uninitialised: {bytes} bytes at {} were never written", place(*address))
            }
            Fault::Pending { address } => {
                format!("{} belongs to an asynchronous copy that was not waited for", place(*address))
            }
            Fault::Race { address, other, other_wrote } => format!(
                "data race at {}: thread {} of block {} {} it and nothing orders the two",
                place(*address),
                other.thread,
                other.block,
                if *other_wrote { "wrote" } else { "read" }
            ),
        };
        self.fail(instruction, Some(self.thread(warp, lane)), message)
    }
}

/// Joins groups at one place.
fn merge(groups: &mut Vec<Group>) {
    if groups.len() < 2 {
        return;
    }
    let mut index = 0;
    while index < groups.len() {
        let mut other = index + 1;
        while other < groups.len() {
            if groups[other].pc == groups[index].pc {
                groups[index].mask |= groups[other].mask;
                groups[index].waits = false;
                groups.swap_remove(other);
            } else {
                other += 1;
            }
        }
        index += 1;
    }
}

/// The lane that a shuffle reads, and whether it is inside the segment.
fn shuffle_source(mode: ShuffleMode, lane: usize, b: u32, c: u32) -> (usize, bool) {
    let (lane, b) = (lane as u32, b & 31);
    let (clamp, segment) = (c & 31, c >> 8 & 31);
    let (largest, least) = ((lane & segment) | (clamp & !segment), lane & segment);
    let (source, inside) = match mode {
        ShuffleMode::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= largest as i32),
        ShuffleMode::Down => (lane + b, lane + b <= largest),
        ShuffleMode::Butterfly => (lane ^ b, lane ^ b <= largest),
        ShuffleMode::Index => (least | (b & !segment), least | (b & !segment) <= largest),
    };
    (source as usize, inside)
}

fn atomic_value(op: AtomicOp, ty: Type, old: u64, b: u64, c: u64) -> u64 {
    let by = |op: Binary| arithmetic::binary(op, ty, false, false, old, b).unwrap_or(old);
    match op {
        AtomicOp::Add => by(Binary::Add),
        AtomicOp::Min => by(Binary::Min),
        AtomicOp::Max => by(Binary::Max),
        AtomicOp::And => old & b,
        AtomicOp::Or => old | b,
        AtomicOp::Xor => old ^ b,
        AtomicOp::Exch => b,
        AtomicOp::Cas => {
            if ty.truncate(old) == ty.truncate(b) {
                c
            } else {
                old
            }
        }
        AtomicOp::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        AtomicOp::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
    }
}

/// The f32 in the low bits of a register.
pub fn float(bits: u64) -> f32 {
    f32_of(bits)
}
