//! What orders threads besides barriers: releases that acquires see (PTX ISA, "Memory Consistency
//! Model"), across the blocks of a launch that run side by side.
//!
//! Each thread has a clock: for every block, the accesses that happened before what the thread does
//! next. A release leaves the clock of its thread at an address; an acquire that reads there, or
//! reads what atomics made of it, takes it. A fence does the same together with strong accesses
//! after and before it. Releases reach, and acquires take from, the threads of their scope only.
//! Barriers join the clocks of their threads.
//!
//! What the asynchronous proxy accesses (copies and products of warpgroups) has clocks of its own,
//! one by unit. A wait for the end of its work takes them. It sees what threads wrote only after a
//! proxy fence: the accesses before one are kept a second time, as those of the block `block |
//! FENCED[…]`, and spread with the rest.
//!
//! Readers of a word are kept exactly, as those that are unordered with one another.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::SHARED_BASE;
use super::shadow::{Access, MAX_BLOCKS, SEVERAL, Stamp, UNITS, are_strong, is_strong, of_warp, unpack};
use crate::lanes::{LANES, lanes};
use crate::ptx::{Scope, Strong};

/// Mark a block number: its accesses before a proxy fence of global memory, or of shared memory.
const FENCED: [u32; 2] = [1 << 30, 1 << 31];
const _: () = assert!(MAX_BLOCKS < FENCED[0]);

/// The threads of a part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Warp(u32),
    Thread(u32),
}

/// Accesses of one block: those before a time.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Of all its threads.
    all: u32,
    /// Of parts of it, where that is later.
    parts: Vec<(Part, u32)>,
}

impl Known {
    /// The lanes of warp `warp` whose accesses at `time` are among these.
    fn lanes(&self, warp: u32, time: u32) -> u32 {
        if time < self.all && warp < UNITS / LANES as u32 {
            return u32::MAX;
        }
        self.parts.iter().filter(|&&(_, before)| time < before).fold(0, |mask, &(part, _)| match part {
            Part::Warp(other) if other == warp => u32::MAX,
            Part::Thread(thread) if thread / LANES as u32 == warp => mask | 1 << (thread % LANES as u32),
            _ => mask,
        })
    }

    fn add(&mut self, other: &Known) {
        self.all = self.all.max(other.all);
        for &(part, before) in &other.parts {
            match self.parts.iter_mut().find(|(own, _)| *own == part) {
                Some((_, own)) => *own = before.max(*own),
                None => self.parts.push((part, before)),
            }
        }
        let all = self.all;
        let is_unit = |part| matches!(part, Part::Thread(thread) if thread >= UNITS);
        self.parts.retain(|&(part, before)| before > all || is_unit(part));
    }
}

/// Accesses by block.
#[derive(Clone, Debug, Default)]
pub struct Clock(BTreeMap<u32, Known>);

impl Clock {
    fn lanes(&self, block: u32, warp: u32, time: u32) -> u32 {
        self.0.get(&block).map_or(0, |known| known.lanes(warp, time))
    }

    fn add(&mut self, other: &Clock) {
        for (&block, known) in &other.0 {
            self.0.entry(block).or_default().add(known);
        }
    }

    fn take(&mut self, other: &mut Clock) {
        self.add(other);
        other.0.clear();
    }

    /// Adds the accesses of unit `unit` of `block` before `before`.
    fn add_unit(&mut self, block: u32, unit: u32, before: u32) {
        let known = Known { all: 0, parts: vec![(Part::Thread(unit), before)] };
        self.0.entry(block).or_default().add(&known);
    }

    /// True if the asynchronous proxy, started with this clock, sees what the access `bits` wrote
    /// to `address`: by the same proxy, or by a thread before a proxy fence.
    pub(super) fn sees(&self, bits: u64, address: u64) -> bool {
        let Access { block, thread, time, .. } = unpack(bits);
        let fenced = if thread < UNITS { FENCED[usize::from(address >= SHARED_BASE)] } else { 0 };
        self.lanes(block | fenced, thread / LANES as u32, time) >> (thread % LANES as u32) & 1 != 0
    }

    /// True if the access of `unit` of `block` at `time` was waited for.
    pub fn knows_unit(&self, block: u32, unit: u32, time: u32) -> bool {
        self.lanes(block, unit / LANES as u32, time) >> (unit % LANES as u32) & 1 != 0
    }

    /// True if all lanes of a warp of `block` were past `time`.
    pub fn knows_warp(&self, block: u32, warp: u32, time: u32) -> bool {
        self.lanes(block, warp, time) == u32::MAX
    }

    /// True if the access happened before, of whichever proxy.
    pub(super) fn is_after(&self, bits: u64) -> bool {
        let Access { block, thread, time, .. } = unpack(bits);
        self.lanes(block, thread / LANES as u32, time) >> (thread % LANES as u32) & 1 != 0
    }
}

/// Clocks at an address, or of a fence.
#[derive(Clone, Debug, Default)]
struct Left {
    /// For all threads.
    wide: Option<Rc<Clock>>,
    /// For the threads of a block.
    narrow: Vec<(u32, Rc<Clock>)>,
}

impl Left {
    fn of_block(&self, block: u32) -> Option<&Rc<Clock>> {
        self.narrow.iter().find(|(of, _)| *of == block).map(|(_, clock)| clock)
    }

    /// Leaves `clock` of a thread of `block` to the threads of `scope`.
    fn leave(&mut self, clock: &Rc<Clock>, scope: Scope, block: u32) {
        let join = |own: &mut Rc<Clock>| Rc::make_mut(own).add(clock);
        if scope == Scope::Device {
            match &mut self.wide {
                Some(wide) => join(wide),
                None => self.wide = Some(clock.clone()),
            }
        }
        match self.narrow.iter_mut().find(|(of, _)| *of == block) {
            Some((_, narrow)) => join(narrow),
            None => self.narrow.push((block, clock.clone())),
        }
    }
}

/// What a thread did that has not taken effect yet, and its own part of its clock.
#[derive(Debug, Default)]
struct Lane {
    clock: Clock,
    /// Clocks that relaxed accesses read, which a fence takes: those for all threads, and those for
    /// the block.
    read: [Clock; 2],
    /// Clocks as of the last fences of each scope, which relaxed writes leave.
    fenced: [Option<Rc<Clock>>; 2],
}

/// Clock that the lanes of a warp share, and the lanes' own.
#[derive(Debug, Default)]
struct WarpClock {
    clock: Clock,
    lanes: [Option<Box<Lane>>; LANES],
}

impl WarpClock {
    fn lane(&mut self, lane: u32) -> &mut Lane {
        self.lanes[lane as usize].get_or_insert_default()
    }
}

/// Clock that the threads of a block share, and the warps' own.
#[derive(Debug, Default)]
struct BlockClock {
    clock: Clock,
    warps: Vec<WarpClock>,
}

/// Lanes of a warp that read a word at the same time: the stamp of lane 0, and which.
#[derive(Clone, Copy, Debug)]
struct Readers {
    stamp: u64,
    lanes: u32,
}

/// The order of the accesses of blocks that run side by side on one thread of the host.
#[derive(Default)]
pub struct Order(RefCell<State>);

#[derive(Default)]
struct State {
    /// Blocks that run.
    blocks: HashMap<u32, BlockClock>,
    /// By address, shared memory by block.
    left: HashMap<u64, Left>,
    readers: Vec<Vec<Readers>>,
    /// Sets of readers in use by no word.
    free: Vec<usize>,
    /// The last instructions of each warp that accessed memory, and the time of the first.
    places: HashMap<(u32, u32), (u32, VecDeque<u32>)>,
    /// Instructions of units, by block, unit and time.
    started: HashMap<(u32, u32, u32), u32>,
    /// Global memory that units read, by its first byte.
    sources: BTreeMap<u64, Source>,
}

/// Global memory from a place on that units read.
#[derive(Default)]
struct Source {
    end: u64,
    /// The last read of each unit.
    readers: Vec<Access>,
}

/// Instructions of each warp that are kept to name the place of an earlier access.
const MAX_PLACES: usize = 1 << 14;

impl State {
    /// Clocks of the thread of `stamp`: its own, its warp's and its block's.
    fn clocks(&self, by: Access) -> impl Iterator<Item = &Clock> {
        let block = self.blocks.get(&by.block);
        let warp = block.and_then(|block| block.warps.get(by.thread as usize / LANES));
        let lane = warp.and_then(|warp| warp.lanes[by.thread as usize % LANES].as_deref());
        [block.map(|block| &block.clock), warp.map(|warp| &warp.clock), lane.map(|lane| &lane.clock)]
            .into_iter()
            .flatten()
    }

    fn lane(&mut self, by: Access) -> Option<&mut Lane> {
        let warp = self.blocks.get_mut(&by.block)?.warps.get_mut(by.thread as usize / LANES)?;
        Some(warp.lane(by.thread % LANES as u32))
    }

    /// Everything that happened before the end of the access `by`.
    fn clock(&self, by: Stamp) -> Rc<Clock> {
        let Access { block, thread, time, .. } = unpack(by.bits());
        let mut clock = Clock::default();
        self.clocks(unpack(by.bits())).for_each(|known| clock.add(known));
        let [all, of_warp] = by.barriers();
        let own = [(Part::Warp(thread / LANES as u32), of_warp), (Part::Thread(thread), time + 1)];
        clock.0.entry(block).or_default().add(&Known { all, parts: own.to_vec() });
        Rc::new(clock)
    }

    /// Everything that happened before the end of the accesses of the lanes of `mask`.
    fn clock_of(&self, by: Stamp, mask: u32) -> Clock {
        let Access { block, thread, time, .. } = unpack(by.bits());
        let warp = thread / LANES as u32;
        let [all, of_warp] = by.barriers();
        let mut own = vec![(Part::Warp(warp), if mask == u32::MAX { time + 1 } else { of_warp })];
        if mask != u32::MAX {
            own.extend(lanes(mask).map(|lane| (Part::Thread(warp * LANES as u32 + lane as u32), time + 1)));
        }
        let mut clock = Clock(BTreeMap::from([(block, Known { all: 0, parts: Vec::new() })]));
        if let Some(of_block) = self.blocks.get(&block) {
            clock.add(&of_block.clock);
            if let Some(of_warp) = of_block.warps.get(warp as usize) {
                clock.add(&of_warp.clock);
                let of_lanes = lanes(mask).filter_map(|lane| of_warp.lanes[lane].as_deref());
                of_lanes.for_each(|lane| clock.add(&lane.clock));
            }
        }
        clock.0.entry(block).or_default().add(&Known { all, parts: own });
        clock
    }

    /// The lanes of a warp whose access with the stamp of lane 0 happened before that of `by`.
    fn known(&self, by: Stamp, stamp: u64) -> u32 {
        let (own, other) = (unpack(by.bits()), unpack(stamp));
        let [own_warp, other_warp] = [own, other].map(|access| access.thread / LANES as u32);
        let mut known = 0;
        if own.block == other.block {
            let [of_block, of_warp] = by.barriers();
            let before_barrier = other.thread < UNITS && other.time < of_block;
            if before_barrier || own_warp == other_warp && other.time < of_warp {
                return u32::MAX;
            }
            known |= if own_warp == other_warp { 1 << (own.thread % LANES as u32) } else { 0 };
        }
        self.clocks(own).fold(known, |known, clock| known | clock.lanes(other.block, other_warp, other.time))
    }

    /// Takes what `left` has for a thread of `by`'s block, now or at its next fence.
    fn acquire(&mut self, by: Access, address: u64, strong: Strong) {
        let Some(left) = self.left.get(&address) else { return };
        let narrow = left.of_block(by.block).cloned();
        let wide = left.wide.clone().filter(|_| strong.scope == Scope::Device);
        let Some(lane) = self.lane(by) else { return };
        if strong.acquires {
            wide.iter().chain(&narrow).for_each(|clock| lane.clock.add(clock));
        } else {
            wide.iter().for_each(|clock| lane.read[0].add(clock));
            narrow.iter().for_each(|clock| lane.read[1].add(clock));
        }
    }

    /// Leaves at `address` what a strong write by the thread of `by` releases.
    fn release(&mut self, by: Stamp, address: u64, strong: Strong) {
        let access = unpack(by.bits());
        if strong.releases {
            let clock = self.clock(by);
            self.left.entry(address).or_default().leave(&clock, strong.scope, access.block);
            return;
        }
        let Some(lane) = self.lane(access) else { return };
        let [wide, narrow] = lane.fenced.clone();
        for (clock, scope) in [(wide, strong.scope), (narrow, Scope::Block)] {
            if let Some(clock) = clock {
                self.left.entry(address).or_default().leave(&clock, scope, access.block);
            }
        }
    }

    /// Removes readers that the thread of `by` makes superfluous when it reads too: a write that
    /// is ordered after it is ordered after them.
    fn prune(&mut self, set: usize, by: Stamp) {
        let mut readers = std::mem::take(&mut self.readers[set]);
        for readers in &mut readers {
            // A later strong write races with a weak reader only.
            if is_strong(readers.stamp) || !is_strong(by.bits()) {
                readers.lanes &= !self.known(by, readers.stamp);
            }
        }
        // A lane's later read of the same kind replaces its earlier one.
        for later in 1..readers.len() {
            let (before, rest) = readers.split_at_mut(later);
            let (stamp, lanes) = (rest[0].stamp, rest[0].lanes);
            let of = unpack(stamp);
            for earlier in before {
                let other = unpack(earlier.stamp);
                if (other.block, other.thread, other.strong) == (of.block, of.thread, of.strong) {
                    earlier.lanes &= !lanes;
                }
            }
        }
        readers.retain(|readers| readers.lanes != 0);
        self.readers[set] = readers;
    }
}

impl Order {
    pub fn begin_block(&self, block: u32, n_warps: usize) {
        let warps = (0..n_warps).map(|_| WarpClock::default()).collect();
        self.0.borrow_mut().blocks.insert(block, BlockClock { clock: Clock::default(), warps });
    }

    pub fn end_block(&self, block: u32) {
        self.0.borrow_mut().blocks.remove(&block);
    }

    /// A barrier of warp `warp` of `block`.
    pub fn warp_barrier(&self, block: u32, warp: u32) {
        let mut state = self.0.borrow_mut();
        let Some(warp) = state.blocks.get_mut(&block).and_then(|block| block.warps.get_mut(warp as usize)) else {
            return;
        };
        for lane in warp.lanes.iter_mut().flatten() {
            warp.clock.take(&mut lane.clock);
        }
    }

    /// A barrier of all threads of `block`.
    pub fn block_barrier(&self, block: u32) {
        let mut state = self.0.borrow_mut();
        let Some(block) = state.blocks.get_mut(&block) else { return };
        for warp in &mut block.warps {
            block.clock.take(&mut warp.clock);
            for lane in warp.lanes.iter_mut().flatten() {
                block.clock.take(&mut lane.clock);
            }
        }
    }

    /// A strong read at `address`. Addresses of shared memory must differ between blocks.
    #[inline(never)]
    pub fn read(&self, by: Stamp, address: u64, strong: Strong) {
        self.0.borrow_mut().acquire(unpack(by.bits()), address, strong);
    }

    /// A strong write, after which reads there see what this thread releases alone.
    #[inline(never)]
    pub fn write(&self, by: Stamp, address: u64, strong: Strong) {
        let mut state = self.0.borrow_mut();
        state.left.remove(&address);
        state.release(by, address, strong);
    }

    /// An atomic read and write, after which reads there see what this thread releases, too.
    #[inline(never)]
    pub fn change(&self, by: Stamp, address: u64, strong: Strong) {
        let mut state = self.0.borrow_mut();
        state.acquire(unpack(by.bits()), address, strong);
        state.release(by, address, strong);
    }

    pub fn fence(&self, by: Stamp, strong: Strong) {
        let mut state = self.0.borrow_mut();
        let wide = strong.scope == Scope::Device;
        if strong.acquires
            && let Some(lane) = state.lane(unpack(by.bits()))
        {
            let [of_all, of_block] = &mut lane.read;
            lane.clock.take(of_block);
            if wide {
                lane.clock.take(of_all);
            }
        }
        if strong.releases {
            let clock = state.clock(by);
            if let Some(lane) = state.lane(unpack(by.bits())) {
                let [of_all, of_block] = &mut lane.fenced;
                *of_block = Some(clock.clone());
                if wide {
                    *of_all = Some(clock);
                }
            }
        }
    }

    /// Everything that happened before, for the lanes of `mask` of the warp of `by` together.
    pub fn clock(&self, by: Stamp, mask: u32) -> Clock {
        self.0.borrow().clock_of(by, mask)
    }

    /// A fence between the threads' accesses and those of the asynchronous proxy, of global memory
    /// and of shared memory.
    pub fn proxy_fence(&self, by: Stamp, mask: u32, [global, shared]: [bool; 2]) {
        let mut state = self.0.borrow_mut();
        let mut clock = state.clock_of(by, mask);
        let marks = [(FENCED[0], global), (FENCED[1], shared)];
        clock.0 = (clock.0.into_iter())
            .filter(|(block, _)| block & (FENCED[0] | FENCED[1]) == 0)
            .flat_map(|(block, known)| {
                let marked = marks.into_iter().filter(|&(_, holds)| holds);
                marked.map(move |(mark, _)| (block | mark, known.clone()))
            })
            .collect();
        let Access { block, thread, .. } = unpack(by.bits());
        let warp = state.blocks.get_mut(&block).and_then(|block| block.warps.get_mut(thread as usize / LANES));
        let Some(warp) = warp else { return };
        if mask == u32::MAX {
            warp.clock.add(&clock);
        } else {
            lanes(mask).for_each(|lane| warp.lane(lane as u32).clock.add(&clock));
        }
    }

    /// The lanes of `mask` of warp `warp` have waited for the accesses of `unit` before `before`.
    pub fn learn(&self, block: u32, warp: u32, mask: u32, unit: u32, before: u32) {
        let mut state = self.0.borrow_mut();
        let of_block = state.blocks.get_mut(&block);
        let Some(of_warp) = of_block.and_then(|block| block.warps.get_mut(warp as usize)) else { return };
        if mask == u32::MAX {
            of_warp.clock.add_unit(block, unit, before);
        } else {
            lanes(mask).for_each(|lane| of_warp.lane(lane as u32).clock.add_unit(block, unit, before));
        }
    }

    /// Leaves at `address` the accesses of `unit` before `before`, to the threads of its block.
    pub fn leave_unit(&self, block: u32, address: u64, unit: u32, before: u32) {
        let mut clock = Clock::default();
        clock.add_unit(block, unit, before);
        self.0.borrow_mut().left.entry(address).or_default().leave(&Rc::new(clock), Scope::Block, block);
    }

    /// Leaves at `address` all that the warp of `by` did before this barrier.
    pub fn leave_warp(&self, by: Stamp, address: u64) {
        let mut state = self.0.borrow_mut();
        let clock = state.clock_of(by, u32::MAX);
        let block = unpack(by.bits()).block;
        state.left.entry(address).or_default().leave(&Rc::new(clock), Scope::Block, block);
    }

    /// Warp `warp` of `block` takes what was left at `address`.
    pub fn take_warp(&self, block: u32, warp: u32, address: u64) {
        let mut state = self.0.borrow_mut();
        let left = state.left.get(&address).and_then(|left| left.of_block(block)).cloned();
        let warp = state.blocks.get_mut(&block).and_then(|block| block.warps.get_mut(warp as usize));
        if let (Some(left), Some(warp)) = (left, warp) {
            warp.clock.add(&left);
        }
    }

    /// Nothing is left at `address` any more.
    pub fn forget(&self, address: u64) {
        self.0.borrow_mut().left.remove(&address);
    }

    /// Notes the instruction by which `unit` accesses memory at `time`.
    pub fn note_unit(&self, block: u32, unit: u32, time: u32, instruction: u32) {
        self.0.borrow_mut().started.insert((block, unit, time), instruction);
    }

    /// Notes that `unit` reads global memory.
    pub fn note_source(&self, block: u32, unit: u32, time: u32, address: u64, bytes: usize) {
        let mut state = self.0.borrow_mut();
        let source = state.sources.entry(address).or_default();
        source.end = source.end.max(address + bytes as u64);
        match source.readers.iter_mut().find(|reader| (reader.block, reader.thread) == (block, unit)) {
            Some(reader) => reader.time = time,
            None => source.readers.push(Access { block, thread: unit, time, strong: None }),
        }
    }

    /// True if units read global memory in this launch.
    pub fn has_sources(&self) -> bool {
        !self.0.borrow().sources.is_empty()
    }

    /// A unit that reads some of `bytes` bytes of global memory, and whose end `by` has not waited
    /// for.
    pub fn reader_of_source(&self, by: Stamp, address: u64, bytes: usize) -> Option<Access> {
        let state = self.0.borrow();
        let overlapping = state.sources.range(..address + bytes as u64).filter(|(_, source)| source.end > address);
        overlapping.flat_map(|(_, source)| &source.readers).copied().find(|reader| {
            let lane = reader.thread % LANES as u32;
            state
                .clocks(unpack(by.bits()))
                .all(|clock| clock.lanes(reader.block, reader.thread / LANES as u32, reader.time) >> lane & 1 == 0)
        })
    }

    /// True if the thread of `by` has waited for the access of `unit` of its block at `time`.
    pub fn knows_unit(&self, by: Stamp, unit: u32, time: u32) -> bool {
        let by = unpack(by.bits());
        let (warp, lane) = (unit / LANES as u32, unit % LANES as u32);
        self.0.borrow().clocks(by).any(|clock| clock.lanes(by.block, warp, time) >> lane & 1 != 0)
    }

    /// A reader in the record `read` that did not happen before `clock`.
    pub(super) fn reader_after(&self, clock: &Clock, read: u64) -> Option<Access> {
        if read == 0 {
            return None;
        }
        if read & SEVERAL == 0 {
            return (!clock.is_after(read)).then(|| unpack(read));
        }
        let state = self.0.borrow();
        state.readers[(read & !SEVERAL) as usize].iter().find_map(|readers| {
            let mut each = lanes(readers.lanes).map(|lane| readers.stamp | lane as u64);
            each.find(|&reader| !clock.is_after(reader)).map(unpack)
        })
    }

    /// True if the access `earlier` happened before that of `by`.
    #[inline(never)]
    pub(super) fn is_known(&self, by: Stamp, earlier: u64) -> bool {
        let (warp, lane) = of_warp(earlier);
        self.0.borrow().known(by, warp) >> lane & 1 != 0
    }

    /// The record of a word's readers after `by` reads it, if it was `read` before.
    #[inline(never)]
    pub(super) fn after_readers(&self, by: Stamp, read: u64) -> u64 {
        let supersedes = |earlier: u64| is_strong(earlier) || !is_strong(by.bits());
        if read == 0 || read & SEVERAL == 0 && supersedes(read) && (by.is_after(read) || self.is_known(by, read)) {
            return by.bits();
        }
        let mut state = self.0.borrow_mut();
        let (stamp, lane) = of_warp(by.bits());
        let set = if read & SEVERAL != 0 {
            (read & !SEVERAL) as usize
        } else {
            let set = state.free.pop().unwrap_or(state.readers.len());
            if set == state.readers.len() {
                state.readers.push(Vec::new());
            }
            let (stamp, lane) = of_warp(read);
            state.readers[set].push(Readers { stamp, lanes: 1 << lane });
            set
        };
        if let Some(same) = state.readers[set].iter_mut().rev().find(|readers| readers.stamp == stamp) {
            same.lanes |= 1 << lane;
        } else {
            if state.readers[set].len() == state.readers[set].capacity() {
                state.prune(set, by);
            }
            state.readers[set].push(Readers { stamp, lanes: 1 << lane });
        }
        SEVERAL | set as u64
    }

    /// A reader in the record `read` that is unordered with the write of `by`; without one, the
    /// record is to be forgotten.
    #[inline(never)]
    pub(super) fn unordered_reader(&self, by: Stamp, read: u64) -> Option<Access> {
        if read & SEVERAL == 0 {
            return (by.is_unordered(read) && !self.is_known(by, read)).then(|| unpack(read));
        }
        let mut state = self.0.borrow_mut();
        let set = (read & !SEVERAL) as usize;
        let unordered = state.readers[set].iter().find_map(|readers| {
            if are_strong(by.bits(), readers.stamp) {
                return None;
            }
            let unknown = readers.lanes & !state.known(by, readers.stamp);
            (unknown != 0).then(|| unpack(readers.stamp | u64::from(unknown.trailing_zeros())))
        });
        if unordered.is_none() {
            state.readers[set].clear();
            state.free.push(set);
        }
        unordered
    }

    /// Notes that warp `warp` of `block` accesses memory at `time`, by instruction `instruction`.
    #[inline(never)]
    pub fn note(&self, block: u32, warp: u32, time: u32, instruction: u32) {
        let mut state = self.0.borrow_mut();
        let (first, places) = state.places.entry((block, warp)).or_insert((time, VecDeque::new()));
        // Barriers take time, too.
        while *first + (places.len() as u32) < time {
            places.push_back(u32::MAX);
        }
        places.push_back(instruction);
        while places.len() > MAX_PLACES {
            places.pop_front();
            *first += 1;
        }
    }

    /// The instruction of an access, unless it is long ago.
    pub fn place(&self, access: Access) -> Option<u32> {
        let state = self.0.borrow();
        if access.thread >= UNITS {
            return state.started.get(&(access.block, access.thread, access.time)).copied();
        }
        let (first, places) = state.places.get(&(access.block, access.thread / LANES as u32))?;
        let at = access.time.checked_sub(*first)?;
        places.get(at as usize).copied().filter(|&instruction| instruction != u32::MAX)
    }
}
