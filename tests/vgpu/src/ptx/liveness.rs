//! Register allocation: PTX uses a fresh register for nearly every value; disjoint live ranges
//! share storage, so that registers stay in cache.
//!
//! A register is live from where a value is written to where it is last read, along every path.
//! Registers whose lives never overlap share storage. Lanes with different program counters do not
//! interfere, because each lane has its own element of every register.

use std::collections::{BTreeSet, HashMap};

use super::module::Kernel;
use super::{Instruction, Op, Register, SINK};

/// First and last moment of each register's life: twice the index of an instruction for its reads,
/// one more for its writes.
type Lives = HashMap<Register, (usize, usize)>;

/// Renames the registers of `kernel` so that few are needed. Those with presets keep storage of
/// their own.
pub(super) fn share_registers(kernel: &mut Kernel) {
    let mut fixed: Vec<Register> =
        std::iter::once(SINK).chain(kernel.presets.iter().map(|&(register, _)| register)).collect();
    // Products of warpgroups use their registers beyond the instruction.
    let mut known: BTreeSet<Register> = fixed.iter().copied().collect();
    for Instruction { op, .. } in &kernel.code {
        if let Op::WarpgroupProduct(product) = op {
            fixed.extend(product.held().filter(|&register| known.insert(register)));
        }
    }
    let mut places: HashMap<Register, Register> =
        fixed.iter().enumerate().map(|(place, &register)| (register, place as Register)).collect();
    let mut lives: Vec<(Register, (usize, usize))> = lives(&mut kernel.code, &places).into_iter().collect();
    lives.sort_unstable_by_key(|&(register, (first, _))| (first, register));
    let mut n_places = fixed.len();
    let mut free: Vec<Register> = Vec::new();
    let mut taken: BTreeSet<(usize, Register)> = BTreeSet::new();
    for (register, (first, last)) in lives {
        while let Some(&(end, place)) = taken.first()
            && end < first
        {
            taken.pop_first();
            free.push(place);
        }
        let place = free.pop().unwrap_or_else(|| {
            n_places += 1;
            n_places as Register - 1
        });
        taken.insert((last, place));
        places.insert(register, place);
    }
    for Instruction { guard, op, .. } in &mut kernel.code {
        op.visit_registers(&mut |register, _| *register = places[register]);
        guard.iter_mut().for_each(|(register, _)| *register = places[register]);
    }
    kernel.presets.iter_mut().for_each(|(register, _)| *register = places[register]);
    kernel.n_registers = n_places;
    kernel.held = held(&mut kernel.code);
}

/// Registers of products of warpgroups that each other instruction reads or writes.
fn held(code: &mut [Instruction]) -> Vec<Vec<Register>> {
    let of_products: BTreeSet<Register> = (code.iter())
        .flat_map(|instruction| match &instruction.op {
            Op::WarpgroupProduct(product) => product.held().collect(),
            _ => Vec::new(),
        })
        .collect();
    if of_products.is_empty() {
        return Vec::new();
    }
    let touched = |op: &mut Op| {
        let mut list = Vec::new();
        if !matches!(op, Op::WarpgroupProduct(_)) {
            op.visit_registers(&mut |&mut register, _| {
                list.extend(of_products.get(&register));
            });
        }
        list
    };
    code.iter_mut().map(|instruction| touched(&mut instruction.op)).collect()
}

/// The registers, other than `fixed` ones, that an instruction reads and writes.
fn touched(instruction: &mut Instruction, fixed: &HashMap<Register, Register>) -> (Vec<Register>, Vec<Register>) {
    let (mut read, mut written) = (Vec::new(), Vec::new());
    let guarded = instruction.guard.map(|(register, _)| register);
    read.extend(guarded);
    instruction.op.visit_registers(&mut |register, writes| {
        // Without the guard the old value stays.
        if !writes || guarded.is_some() {
            read.push(*register);
        }
        if writes {
            written.push(*register);
        }
    });
    for list in [&mut read, &mut written] {
        list.retain(|register| !fixed.contains_key(register));
    }
    (read, written)
}

/// Consecutive instructions that are entered only at the first one.
struct Stretch {
    first: usize,
    end: usize,
    next: Vec<usize>,
    /// Registers read before they are written here, and registers written.
    needs: Vec<Register>,
    writes: BTreeSet<Register>,
    /// Registers live at the beginning.
    live: BTreeSet<Register>,
}

fn lives(code: &mut [Instruction], fixed: &HashMap<Register, Register>) -> Lives {
    let touched: Vec<_> = code.iter_mut().map(|instruction| touched(instruction, fixed)).collect();
    let mut stretches = stretches(code);
    for stretch in &mut stretches {
        for (read, written) in &touched[stretch.first..stretch.end] {
            stretch.needs.extend(read.iter().filter(|register| !stretch.writes.contains(register)));
            stretch.writes.extend(written);
        }
        stretch.live.extend(&stretch.needs);
    }
    // A register that a successor needs and this one does not write is live here too.
    let mut changed = true;
    while changed {
        changed = false;
        for index in (0..stretches.len()).rev() {
            for next in stretches[index].next.clone() {
                let passed: Vec<Register> = (stretches[next].live.iter())
                    .filter(|register| {
                        !stretches[index].writes.contains(register) && !stretches[index].live.contains(register)
                    })
                    .copied()
                    .collect();
                changed |= !passed.is_empty();
                stretches[index].live.extend(passed);
            }
        }
    }
    let mut lives = Lives::new();
    let mut extend = |register: Register, moment: usize| {
        let (first, last) = lives.entry(register).or_insert((moment, moment));
        (*first, *last) = ((*first).min(moment), (*last).max(moment));
    };
    for stretch in &stretches {
        stretch.live.iter().for_each(|&register| extend(register, 2 * stretch.first));
        for &next in &stretch.next {
            stretches[next].live.iter().for_each(|&register| extend(register, 2 * stretch.end - 1));
        }
    }
    for (index, (read, written)) in touched.iter().enumerate() {
        read.iter().for_each(|&register| extend(register, 2 * index));
        written.iter().for_each(|&register| extend(register, 2 * index + 1));
    }
    lives
}

fn stretches(code: &[Instruction]) -> Vec<Stretch> {
    let mut starts = BTreeSet::from([0]);
    for (index, instruction) in code.iter().enumerate() {
        match instruction.op {
            Op::Branch { target } => starts.extend([target, index + 1]),
            Op::Exit => starts.extend([index + 1]),
            _ => {}
        }
    }
    starts.remove(&code.len());
    let starts: Vec<usize> = starts.into_iter().collect();
    let number = |at: usize| starts.binary_search(&at).ok();
    (starts.iter().enumerate())
        .map(|(index, &first)| {
            let end = starts.get(index + 1).copied().unwrap_or(code.len());
            let last = &code[end - 1];
            let falls_through = last.guard.is_some() || !matches!(last.op, Op::Branch { .. } | Op::Exit);
            let target = if let Op::Branch { target } = last.op { number(target) } else { None };
            let next = target.into_iter().chain(if falls_through { number(end) } else { None }).collect();
            Stretch { first, end, next, needs: Vec::new(), writes: BTreeSet::new(), live: BTreeSet::new() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::ptx::{Kernel, parse_module};

    fn kernel(body: &str) -> Kernel {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{{\n.reg .pred %p<4>; .reg .b32 %r<40>;\n{body}\nret;\n}}"
        );
        parse_module(&text).expect("parses").kernels.swap_remove(0)
    }

    /// Number of registers other than `_` and those of presets.
    fn n_places(kernel: &Kernel) -> usize {
        kernel.n_registers - 1 - kernel.presets.len()
    }

    #[test]
    fn values_that_never_meet_share_a_place() {
        let chain: String = (1..30).map(|i| format!("add.u32 %r{}, %r{i}, %r{i};\n", i + 1)).collect();
        assert_eq!(n_places(&kernel(&format!("mov.u32 %r1, 1;\n{chain}"))), 1);
        // Two results of one instruction need two registers even if nothing reads them.
        assert_eq!(n_places(&kernel("setp.eq.u32 %p1|%p2, 1, 2;")), 2);
    }

    #[test]
    fn values_live_around_loops_and_past_guards() {
        // %r2 is read at the beginning of each iteration, so nothing in the loop may share its
        // storage.
        let turn = "mov.u32 %r2, 1;
            $turn:
            add.u32 %r3, %r2, 1;
            add.u32 %r4, %r3, 1;
            setp.lt.u32 %p1, %r4, 5;
            @%p1 bra $turn;";
        assert_eq!(n_places(&kernel(turn)), 2);
        // Without the guard, %r2 keeps the value of the previous iteration.
        let guarded = "mov.u32 %r2, 1;
            setp.lt.u32 %p1, %r2, 5;
            $turn:
            @%p1 mov.u32 %r2, 2;
            add.u32 %r3, %r2, 1;
            add.u32 %r4, %r3, 1;
            setp.lt.u32 %p1, %r4, 5;
            @%p1 bra $turn;";
        assert_eq!(n_places(&kernel(guarded)), 3);
    }
}
