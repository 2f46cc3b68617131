//! Warpgroups: matrix products of four warps, the registers that these hold until they are waited
//! for, and `setmaxnreg`.

use std::collections::VecDeque;

use super::units::Unit;
use super::warp::Warp;
use super::{Block, Step};
use crate::descriptors::Descriptor;
use crate::fragments::{self, WARPGROUP_DEPTH, WARPGROUP_ROWS};
use crate::lanes::LANES;
use crate::memory::{Clock, SHARED_BASE};
use crate::ptx::{Instruction, Kernel, LeftOperand, Op, Register, WarpgroupProduct};

/// Warps of a warpgroup.
pub const WARPS: usize = 4;
/// Bounds of `setmaxnreg`.
const LEAST_REGISTERS: u32 = 24;
const MOST_REGISTERS: u32 = 256;

/// How a product holds a register.
#[derive(Clone, Copy, Default)]
struct Held {
    /// Its group; 0 if none has held the register.
    group: u32,
    /// Number of fences when it began.
    fences: u32,
    /// Columns of the product of which this is a sum; 0 in a left operand.
    columns: usize,
}

/// Products of a warp that are under way, and what they hold.
pub struct Products {
    /// Number of fences, from 1.
    fences: u32,
    /// By register: the number of fences when another instruction last read or wrote it.
    touched: Vec<u32>,
    /// By register: the last product that holds it.
    held: Vec<Held>,
    /// The open group, from 1, and the last that was waited for.
    group: u32,
    done: u32,
    /// Of each group: its last product's unit and time.
    last: VecDeque<(u32, u32, u32)>,
}

impl Products {
    pub fn new(kernel: &Kernel) -> Products {
        let n = if kernel.held.is_empty() { 0 } else { kernel.n_registers };
        Products {
            fences: 1,
            touched: vec![0; n],
            held: vec![Held::default(); n],
            group: 1,
            done: 0,
            last: VecDeque::new(),
        }
    }

    pub fn restart(&mut self) {
        self.touched.fill(0);
        self.held.fill(Held::default());
        (self.fences, self.group, self.done) = (1, 1, 0);
        self.last.clear();
    }

    pub fn fence(&mut self) {
        self.fences += 1;
    }

    pub fn commit(&mut self) {
        self.group += 1;
    }
}

impl Block<'_> {
    /// Checks the registers of an instruction other than a product against those under way.
    #[inline(always)]
    pub fn check_held(&self, warp: &mut Warp, instruction: &Instruction) -> Step<()> {
        match self.launch.kernel.held.get(instruction.text as usize) {
            Some(registers) if !registers.is_empty() => self.touch_held(warp, instruction, registers),
            _ => Ok(()),
        }
    }

    fn touch_held(&self, warp: &mut Warp, instruction: &Instruction, registers: &[Register]) -> Step<()> {
        for &register in registers {
            let register = register as usize;
            if warp.products.held[register].group > warp.products.done {
                let message = format!(
                    "warp {} accesses a register of a wgmma.mma_async under way, before a wgmma.wait_group for it",
                    warp.index
                );
                return self.fail(instruction, Some(warp.thread(0)), message);
            }
            warp.products.touched[register] = warp.products.fences;
        }
        Ok(())
    }

    /// Waits until at most `pending` groups of products are under way.
    pub fn wait_for_products(&mut self, warp: &mut Warp, pending: u64) {
        let products = &mut warp.products;
        products.done = products.done.max((products.group - 1).saturating_sub(pending.min(u64::from(u32::MAX)) as u32));
        let mut learned = None;
        while let Some(&(group, unit, time)) = products.last.front()
            && group <= products.done
        {
            learned = Some((unit, time));
            products.last.pop_front();
        }
        if let (Some((unit, time)), Some(order)) = (learned, self.order) {
            order.learn(self.block, warp.index, u32::MAX, unit, time + 1);
        }
    }

    /// Lets warpgroups whose warps have all arrived go on. `true` if one did.
    pub fn meet(&mut self, warps: &mut [Warp]) -> Step<bool> {
        let mut any = false;
        for (group, warps) in warps.chunks_mut(WARPS).enumerate() {
            let Some(waiting) = warps.iter().find(|warp| warp.rendezvous.is_some()) else { continue };
            let Some(pc) = waiting.rendezvous else { continue };
            let (instruction, thread) = (&self.launch.kernel.code[pc], waiting.thread(0));
            if warps.len() < WARPS || warps.iter().any(|warp| warp.groups.is_empty()) {
                let message =
                    format!("warp {} waits for warps of its warpgroup that do not exist or have ended", waiting.index);
                return self.fail(instruction, Some(thread), message);
            }
            if let Some(other) = warps.iter().find(|warp| warp.rendezvous.is_some_and(|other| other != pc)) {
                let line = other.rendezvous.map_or(0, |pc| self.launch.kernel.code[pc].source.1);
                let message =
                    format!("warp {} of its warpgroup executes another instruction, at line {line}", other.index);
                return self.fail(instruction, Some(thread), message);
            }
            if !warps.iter().all(|warp| warp.rendezvous == Some(pc)) {
                continue;
            }
            let goes_on = match &instruction.op {
                Op::WarpgroupProduct(product) => {
                    self.warpgroup_product(warps, instruction, product)?;
                    true
                }
                Op::SetRegisters { increase, count } => {
                    self.check_met(group, warps, instruction)?;
                    let enough = self.set_registers(group, thread, instruction, *increase, *count)?;
                    if enough {
                        self.note_registers(group, warps, instruction)?;
                    }
                    enough
                }
                _ => true,
            };
            if goes_on {
                self.changes += 1;
                any = true;
                for warp in warps {
                    self.counters.count(crate::counters::Pipe::of(&instruction.op), LANES as u64);
                    warp.rendezvous = None;
                    warp.groups[0].pc += 1;
                }
            }
        }
        Ok(any)
    }

    /// The warps of a warpgroup must meet between one `setmaxnreg` and the next.
    fn check_met(&self, group: usize, warps: &[Warp], instruction: &Instruction) -> Step<()> {
        let Some(before) = self.resized[group] else { return Ok(()) };
        for warp in warps {
            let clock = self.clock(warp, u32::MAX);
            let is_unknown =
                |other: &Warp, time: u32| other.index != warp.index && !clock.knows_warp(self.block, other.index, time);
            if let Some((other, _)) = warps.iter().zip(before).find(|&(other, time)| is_unknown(other, time)) {
                let message =
                    format!("warps {} and {} did not meet since their last setmaxnreg", other.index, warp.index);
                return self.fail(instruction, Some(warp.thread(0)), message);
            }
        }
        Ok(())
    }

    fn note_registers(&mut self, group: usize, warps: &mut [Warp], instruction: &Instruction) -> Step<()> {
        let mut times = [0; WARPS];
        for (time, warp) in times.iter_mut().zip(warps) {
            *time = warp.time.now;
            warp.time.now = self.after(warp.time.now, instruction)?;
        }
        self.resized[group] = Some(times);
        Ok(())
    }

    /// `setmaxnreg`; `false` if it waits for registers that others release.
    fn set_registers(
        &mut self,
        group: usize,
        thread: u32,
        instruction: &Instruction,
        increase: bool,
        count: u32,
    ) -> Step<bool> {
        let fail = |message: String| self.fail(instruction, Some(thread), message);
        if self.launch.kernel.max_threads.is_none() {
            return fail("setmaxnreg in a kernel without launch bounds, where it has no effect".into());
        }
        if !count.is_multiple_of(8) || !(LEAST_REGISTERS..=MOST_REGISTERS).contains(&count) {
            return fail(format!("setmaxnreg to {count} registers: multiples of 8 from 24 to 256 are possible"));
        }
        let now = self.registers[group];
        if increase && count < now || !increase && count > now {
            let (name, relation) = if increase { ("inc", "at least") } else { ("dec", "at most") };
            return fail(format!("setmaxnreg.{name} to {count}, but a thread has {now} registers: {relation} so many"));
        }
        let groups = self.registers.len() as u32;
        let all = self.registers.iter().sum::<u32>() + self.free_registers;
        if count + LEAST_REGISTERS * (groups - 1) > all {
            return fail(format!(
                "setmaxnreg to {count} registers: the block has {all} for one thread of each of its {groups} warpgroups, \
                 of which the others keep {LEAST_REGISTERS}"
            ));
        }
        if count > now + self.free_registers {
            return Ok(false);
        }
        self.free_registers = self.free_registers + now - count;
        self.registers[group] = count;
        Ok(true)
    }

    /// One tile product of the whole warpgroup.
    fn warpgroup_product(
        &mut self,
        warps: &mut [Warp],
        instruction: &Instruction,
        product: &WarpgroupProduct,
    ) -> Step<()> {
        for warp in warps.iter_mut() {
            self.hold(warp, instruction, product)?;
            self.begin_access(warp, instruction)?;
        }
        let accumulate = self.of_warpgroup(warps, product.accumulate, instruction)? & 1 != 0;
        let clocks: Vec<Clock> = warps.iter().map(|warp| self.clock(warp, u32::MAX)).collect();
        let mut readers = Vec::with_capacity(WARPS);
        for warp in warps.iter_mut() {
            let (unit, time) = self.unit(Unit::Warp(warp.index), instruction)?;
            readers.push((unit, time));
            let (open, last) = (warp.products.group, &mut warp.products.last);
            match last.back_mut().filter(|(group, ..)| *group == open) {
                Some(entry) => *entry = (open, unit, time),
                None => last.push_back((open, unit, time)),
            }
        }
        let thread = warps[0].thread(0);
        let matrix = |block: &mut Self, bits: u64, transposed: bool, n_lines: usize| -> Step<Vec<u16>> {
            block.matrix(thread, instruction, Descriptor::new(bits), transposed, n_lines, &clocks, &readers)
        };
        let right = self.of_warpgroup(warps, product.b, instruction)?;
        let right = matrix(self, right, product.b_transposed, product.n)?;
        let left = match &product.a {
            LeftOperand::Fragments(registers) => {
                let of_warp = |warp: &Warp| registers.map(|register| *warp.register(register));
                fragments::warpgroup_rows(&warps.iter().map(of_warp).collect::<Vec<_>>())
            }
            LeftOperand::Shared { descriptor, transposed } => {
                let bits = self.of_warpgroup(warps, *descriptor, instruction)?;
                matrix(self, bits, *transposed, WARPGROUP_ROWS)?
            }
        };
        let left = fragments::left_tiles(product.bf16, product.negated, &left);
        let right = fragments::right_tiles(product.bf16, &right);
        let (parts, _) = product.d.as_chunks::<4>();
        for (warp, left) in warps.iter_mut().zip(&left) {
            for (d, right) in parts.iter().zip(&right) {
                let before = accumulate.then(|| d.map(|register| warp.register(register)));
                let sums = fragments::multiply_tiles(left, right, before);
                d.iter().zip(sums).for_each(|(&register, sums)| *warp.register_mut(register) = sums);
            }
        }
        self.counters.warpgroup_product(product);
        Ok(())
    }

    /// The same value in all threads of a warpgroup.
    fn of_warpgroup(&self, warps: &[Warp], register: Register, instruction: &Instruction) -> Step<u64> {
        let first = self.uniform(&warps[0], register, u32::MAX, instruction)?;
        for warp in warps {
            if self.uniform(warp, register, u32::MAX, instruction)? != first {
                return self.fail(
                    instruction,
                    Some(warp.thread(0)),
                    format!("an operand of a warpgroup that differs in warp {}", warp.index),
                );
            }
        }
        Ok(first)
    }

    /// Checks that the registers of `product` are fenced and not under way otherwise, and holds
    /// them.
    fn hold(&self, warp: &mut Warp, instruction: &Instruction, product: &WarpgroupProduct) -> Step<()> {
        let Products { fences, touched, held, group, done, .. } = &mut warp.products;
        let n_sums = product.d.len();
        let mut problem = (*fences == 1).then_some("the first wgmma.mma_async without a wgmma.fence before it");
        for (index, register) in product.held().enumerate() {
            let register = register as usize;
            if touched[register] == *fences {
                problem.get_or_insert("a register of a wgmma.mma_async that was accessed after the last wgmma.fence");
            }
            let before = held[register];
            if before.group <= *done {
                continue;
            }
            let conflict = match (index < n_sums, before.columns) {
                (false, 0) => None,
                (false, _) => Some("a left operand that is the sum of a product under way"),
                (true, 0) => Some("a sum that is the left operand of a product under way"),
                (true, columns) => (columns != product.n && before.fences == *fences)
                    .then_some("a sum of a product of another shape under way, without a wgmma.fence in between"),
            };
            if let Some(conflict) = conflict {
                problem.get_or_insert(conflict);
            }
        }
        if let Some(problem) = problem {
            return self.fail(instruction, Some(warp.thread(0)), format!("warp {}: {problem}", warp.index));
        }
        for (index, register) in product.held().enumerate() {
            let columns = if index < n_sums { product.n } else { 0 };
            held[register as usize] = Held { group: *group, fences: *fences, columns };
        }
        Ok(())
    }

    /// `n_lines` lines of 16 elements of a matrix in shared memory, one after the other.
    #[allow(clippy::too_many_arguments)] // where, what and when
    fn matrix(
        &mut self,
        thread: u32,
        instruction: &Instruction,
        descriptor: Descriptor,
        transposed: bool,
        n_lines: usize,
        clocks: &[Clock],
        readers: &[(u32, u32)],
    ) -> Step<Vec<u16>> {
        if let Some(problem) = descriptor.problem() {
            return self.fail(instruction, Some(thread), problem);
        }
        let mut elements = vec![0; n_lines * WARPGROUP_DEPTH];
        let mut pieces_read = Vec::with_capacity(2 * n_lines);
        let (lines, pieces) = if transposed { (WARPGROUP_DEPTH, n_lines / 8) } else { (n_lines, WARPGROUP_DEPTH / 8) };
        let mut seen = 0;
        for line in 0..lines {
            for piece in 0..pieces {
                let offset = descriptor.piece(transposed, line as u32, piece as u32) as usize;
                if offset + 16 > self.shared.len() {
                    let size = self.shared.len();
                    let message = format!(
                        "out of bounds: a matrix by the descriptor {descriptor:x?} reaches shared {offset:#x}; the block has {size} bytes"
                    );
                    return self.fail(instruction, Some(thread), message);
                }
                let (mut words, at) = ([0; 4], SHARED_BASE + offset as u64);
                let launch = self.launch.number;
                if let Err(fault) = self.shared.load_unit(offset / 4, &mut words, launch, clocks, &mut seen, at) {
                    return self.fault(thread, instruction, &fault);
                }
                pieces_read.push(offset);
                for (i, word) in words.into_iter().enumerate() {
                    for half in 0..2 {
                        let along = 8 * piece + 2 * i + half;
                        let index =
                            if transposed { along * WARPGROUP_DEPTH + line } else { line * WARPGROUP_DEPTH + along };
                        elements[index] = (word >> (16 * half)) as u16;
                    }
                }
            }
        }
        for &(unit, time) in readers {
            self.units.read(unit, self.shared.len(), time, &pieces_read);
        }
        Ok(elements)
    }
}
