//! What the asynchronous proxy of a block has under way: bulk copies, and the shared memory that
//! copies and products of warpgroups read.

use std::collections::{HashMap, VecDeque};

use super::access::address_of;
use super::warp::Warp;
use super::{Block, Step};
use crate::lanes::{Lanes, lanes};
use crate::memory::{Access, Clock, Fault, Order, SHARED_BASE, Stamp, Time, UNITS};
use crate::ptx::{Address, Instruction, Space};

/// Who accesses memory asynchronously. Work of one unit ends in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Copies that count their bytes at the `mbarrier` of this address.
    Mbarrier(u32),
    /// Products of a warpgroup, as far as this warp is concerned.
    Warp(u32),
    /// Copies of the bulk groups of a thread, as they read their sources.
    Reads(u32),
    /// The same, as they write what they copy.
    Writes(u32),
}

/// A bulk copy to shared memory under way.
pub struct Flight {
    first: usize,
    words: Vec<u32>,
    unit: u32,
    time: u32,
    pub barrier: u32,
    pub line: u32,
}

/// A bulk copy to global memory under way. Times are those of the two units of its thread.
struct Store {
    address: u64,
    words: Vec<u32>,
    read: u32,
    written: u32,
}

/// Bulk groups of a thread.
#[derive(Default)]
pub struct BulkGroups {
    open: Vec<Store>,
    /// Oldest first; and how many of them have read their sources.
    groups: VecDeque<Vec<Store>>,
    n_read: usize,
}

/// Bytes of shared memory whose readers are known together.
const PIECE: usize = 16;

#[derive(Default)]
pub struct Units {
    numbers: HashMap<Unit, u32>,
    time: u32,
    pub flights: Vec<Flight>,
    groups: HashMap<u32, BulkGroups>,
    /// By unit that reads shared memory: the time of its last read of each piece, or 0.
    reads: Vec<(u32, Vec<u32>)>,
}

impl Units {
    pub fn restart(&mut self) {
        *self = Units::default();
    }

    /// Notes that `unit` reads the pieces at `offsets` of shared memory of `n_bytes` bytes.
    pub fn read(&mut self, unit: u32, n_bytes: usize, time: u32, offsets: &[usize]) {
        let index = match self.reads.iter().position(|(reader, _)| *reader == unit) {
            Some(index) => index,
            None => {
                self.reads.push((unit, vec![0; n_bytes.div_ceil(PIECE)]));
                self.reads.len() - 1
            }
        };
        let times = &mut self.reads[index].1;
        offsets.iter().for_each(|offset| times[offset / PIECE] = time);
    }
}

impl<'a> Block<'a> {
    /// The number of `unit`, and the time of its next access.
    pub fn unit(&mut self, unit: Unit, instruction: &Instruction) -> Step<(u32, u32)> {
        let next = UNITS + self.units.numbers.len() as u32;
        let number = *self.units.numbers.entry(unit).or_insert(next);
        if number >= 2 * UNITS {
            return self.fail(instruction, None, "more asynchronous units than the executor can tell apart");
        }
        self.units.time = self.after(self.units.time, instruction)?;
        if let Some(order) = self.order {
            order.note_unit(self.block, number, self.units.time, instruction.text);
        }
        Ok((number, self.units.time))
    }

    fn unit_stamp(&self, unit: u32, now: u32) -> Stamp<'a> {
        Stamp::new(self.launch.number, self.block, unit, Time { now, ..Time::default() }, None, self.order)
    }

    /// What happened before the next access of the lanes of `mask`.
    pub fn clock(&self, warp: &Warp, mask: u32) -> Clock {
        self.order.map(|order| order.clock(self.stamp(warp, None), mask)).unwrap_or_default()
    }

    /// The race of a write by `by` to shared memory with a unit that reads there.
    pub fn unit_reads(&mut self, offset: usize, n_bytes: usize, knows: impl Fn(u32, u32) -> bool) -> Result<(), Fault> {
        let pieces = offset / PIECE..(offset + n_bytes).div_ceil(PIECE);
        for (unit, times) in &mut self.units.reads {
            // Another copy may have checked a part of the pieces; the same time need not be asked
            // twice.
            let mut known = 0;
            for piece in pieces.clone() {
                let Some(time) = times.get_mut(piece).filter(|time| **time != 0) else { continue };
                if *time != known && !knows(*unit, *time) {
                    let other = Access { block: self.block, thread: *unit, time: *time, strong: None };
                    return Err(Fault::Race {
                        address: SHARED_BASE + (piece * PIECE) as u64,
                        other,
                        other_wrote: false,
                    });
                }
                known = *time;
                // Later writes are ordered after this one.
                *time = 0;
            }
        }
        Ok(())
    }

    /// Checks writes of the lanes of `mask` against what units read and are not waited for.
    #[inline(always)]
    pub fn check_units(
        &mut self,
        warp: &Warp,
        instruction: &Instruction,
        mask: u32,
        space: Space,
        at: &Lanes,
        n_bytes: usize,
    ) -> Step<()> {
        match self.order {
            Some(order) => self.check_units_in(order, warp, instruction, mask, space, at, n_bytes),
            None => Ok(()),
        }
    }

    #[cold]
    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn check_units_in(
        &mut self,
        order: &Order,
        warp: &Warp,
        instruction: &Instruction,
        mask: u32,
        space: Space,
        at: &Lanes,
        n_bytes: usize,
    ) -> Step<()> {
        let sources = order.has_sources();
        if self.units.reads.is_empty() && !sources {
            return Ok(());
        }
        for lane in lanes(mask) {
            let by = self.stamp(warp, None).of_lane(lane);
            let checked = match Self::shared_offset(space, at[lane]) {
                Some(offset) => self.unit_reads(offset, n_bytes, |unit, time| order.knows_unit(by, unit, time)),
                None if sources && matches!(space, Space::Global | Space::Generic) => {
                    let reader = order.reader_of_source(by, at[lane], n_bytes);
                    reader.map_or(Ok(()), |other| Err(Fault::Race { address: at[lane], other, other_wrote: false }))
                }
                None => Ok(()),
            };
            if let Err(fault) = checked {
                return self.fault(warp.thread(lane), instruction, &fault);
            }
        }
        Ok(())
    }

    /// The sizes and places of a bulk copy: aligned, whole, and inside shared memory.
    fn bulk_range(&self, thread: u32, instruction: &Instruction, at: [u64; 2], n_bytes: u64) -> Step<usize> {
        let fail = |message: String| self.fail(instruction, Some(thread), message);
        if !n_bytes.is_multiple_of(16) || n_bytes == 0 {
            return fail(format!("a bulk copy of {n_bytes} bytes, which is no multiple of 16"));
        }
        if let Some(address) = at.into_iter().find(|address| !address.is_multiple_of(16)) {
            return fail(format!("misaligned: a bulk copy at {address:#x}, which is no multiple of 16"));
        }
        let offset = (at[0] & 0xffff_ffff) as usize;
        if offset + n_bytes as usize > self.shared.len() {
            let size = self.shared.len();
            return fail(format!(
                "out of bounds: a bulk copy of {n_bytes} bytes at shared {offset:#x}; the block has {size} bytes"
            ));
        }
        Ok(offset)
    }

    /// Starts copies to shared memory that count at an `mbarrier`.
    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    pub fn bulk_load(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        [shared, global, barrier]: [Address; 3],
        bytes: u32,
    ) -> Step<()> {
        self.begin_access(warp, instruction)?;
        for lane in lanes(mask) {
            let thread = warp.thread(lane);
            let (to, from) = (address_of(warp, shared, lane), address_of(warp, global, lane));
            let n_bytes = warp.register(bytes)[lane] & 0xffff_ffff;
            let offset = self.bulk_range(thread, instruction, [to, from], n_bytes)?;
            let barrier = self.mbarrier_address(thread, instruction, address_of(warp, barrier, lane))?;
            self.touch_mbarrier(warp, lane, instruction, barrier)?;
            self.check_mbarrier_fence(thread, instruction, barrier)?;
            let clock = [self.clock(warp, 1 << lane)];
            let (unit, time) = self.unit(Unit::Mbarrier(barrier), instruction)?;
            let n = n_bytes as usize / 4;
            let mut words = vec![0; n];
            let read = (self.launch.memory.find(from, 4 * n)).and_then(|(region, at)| {
                region.load_unit(at / 4, &mut words, self.launch.number, &clock, &mut 0, from)
            });
            let block = self.block;
            let started = read
                .and_then(|()| self.unit_reads(offset, 4 * n, |unit, time| clock[0].knows_unit(block, unit, time)))
                .and_then(|()| {
                    self.shared.promise_unit(
                        offset / 4,
                        n,
                        self.unit_stamp(unit, time),
                        &clock,
                        SHARED_BASE + offset as u64,
                    )
                });
            if let Err(fault) = started {
                return self.fault(thread, instruction, &fault);
            }
            if let Some(order) = self.order {
                order.note_source(self.block, unit, time, from, 4 * n);
            }
            self.counters.bulk_access(n_bytes, false);
            self.units.flights.push(Flight {
                first: offset / 4,
                words,
                unit,
                time,
                barrier,
                line: instruction.source.1,
            });
            self.changes += 1;
        }
        Ok(())
    }

    /// Starts copies to global memory.
    pub fn bulk_store(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        [global, shared]: [Address; 2],
        bytes: u32,
    ) -> Step<()> {
        self.begin_access(warp, instruction)?;
        for lane in lanes(mask) {
            let thread = warp.thread(lane);
            let (to, from) = (address_of(warp, global, lane), address_of(warp, shared, lane));
            let n_bytes = warp.register(bytes)[lane] & 0xffff_ffff;
            let offset = self.bulk_range(thread, instruction, [from, to], n_bytes)?;
            let clock = [self.clock(warp, 1 << lane)];
            let (reader, read) = self.unit(Unit::Reads(thread), instruction)?;
            let (writer, written) = self.unit(Unit::Writes(thread), instruction)?;
            let n = n_bytes as usize / 4;
            let mut words = vec![0; n];
            let loaded = self.shared.load_unit(
                offset / 4,
                &mut words,
                self.launch.number,
                &clock,
                &mut 0,
                SHARED_BASE + offset as u64,
            );
            let started = loaded.and_then(|()| {
                let (region, at) = self.launch.memory.find(to, 4 * n)?;
                region.promise_unit(at / 4, n, self.unit_stamp(writer, written), &clock, to)
            });
            if let Err(fault) = started {
                return self.fault(thread, instruction, &fault);
            }
            let pieces: Vec<usize> = (offset..offset + 4 * n).step_by(PIECE).collect();
            self.units.read(reader, self.shared.len(), read, &pieces);
            self.counters.bulk_access(n_bytes, true);
            self.units.groups.entry(thread).or_default().open.push(Store { address: to, words, read, written });
            self.changes += 1;
        }
        Ok(())
    }

    pub fn bulk_commit(&mut self, warp: &Warp, mask: u32) {
        for lane in lanes(mask) {
            // Empty groups before the first copy make no difference.
            let Some(groups) = self.units.groups.get_mut(&warp.thread(lane)) else { continue };
            let group = std::mem::take(&mut groups.open);
            groups.groups.push_back(group);
        }
    }

    pub fn bulk_wait(&mut self, warp: &Warp, mask: u32, pending: usize, read: bool) {
        let Some(order) = self.order else { return };
        for lane in lanes(mask) {
            let thread = warp.thread(lane);
            let Some(groups) = self.units.groups.get_mut(&thread) else { continue };
            let [reader, writer] = [Unit::Reads(thread), Unit::Writes(thread)].map(|unit| self.units.numbers[&unit]);
            let learn = |unit: u32, last: u32| order.learn(self.block, warp.index, 1 << lane, unit, last + 1);
            let n = groups.groups.len().saturating_sub(pending);
            if let Some(last) = groups.groups.iter().take(n).flatten().last() {
                learn(reader, last.read);
                if !read {
                    learn(writer, last.written);
                }
            }
            groups.n_read = groups.n_read.max(n);
            if !read {
                groups.n_read -= n;
                let ended: Vec<Store> = groups.groups.drain(..n).flatten().collect();
                self.deliver_stores(writer, ended);
            }
        }
    }

    fn deliver_stores(&mut self, writer: u32, stores: Vec<Store>) {
        for Store { address, words, written, .. } in stores {
            if let Ok((region, offset)) = self.launch.memory.find(address, 4 * words.len()) {
                region.deliver(offset / 4, &words, self.unit_stamp(writer, written));
            }
            self.changes += 1;
        }
    }

    /// The end of the lanes of `mask`: shared memory must have been read, and what is on its way to
    /// global memory arrives.
    pub fn end_bulk_groups(&mut self, warp: &Warp, instruction: &Instruction, mask: u32) -> Step<()> {
        for lane in lanes(mask) {
            let thread = warp.thread(lane);
            let Some(groups) = self.units.groups.remove(&thread) else { continue };
            if !groups.open.is_empty() || groups.n_read < groups.groups.len() {
                let message = "the thread ends with bulk copies from shared memory that it did not wait for";
                return self.fail(instruction, Some(thread), message);
            }
            let writer = self.units.numbers[&Unit::Writes(thread)];
            self.deliver_stores(writer, groups.groups.into_iter().flatten().collect());
        }
        Ok(())
    }

    /// Lets one of the copies under way arrive; `false` if there is none.
    pub fn land(&mut self) -> Step<bool> {
        if self.units.flights.is_empty() {
            return Ok(false);
        }
        let chosen = self.random.below(self.units.flights.len());
        let Flight { first, words, unit, time, barrier, .. } = self.units.flights.swap_remove(chosen);
        self.shared.deliver(first, &words, self.unit_stamp(unit, time));
        self.changes += 1;
        self.complete_bytes(barrier, 4 * words.len() as u32, Some((unit, time)))?;
        Ok(true)
    }

    /// The address of shared memory that a lane accesses, if it is one.
    pub fn shared_offset(space: Space, address: u64) -> Option<usize> {
        match space {
            Space::Shared => Some((address & 0xffff_ffff) as usize),
            Space::Generic if (SHARED_BASE..2 * SHARED_BASE).contains(&address) => {
                Some((address - SHARED_BASE) as usize)
            }
            _ => None,
        }
    }
}
