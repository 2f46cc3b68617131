//! Effects of single instructions on the lanes of a mask.

use super::warp::Warp;
use super::{Block, Step};
use crate::arithmetic::{self, Conversion};
use crate::counters::Pipe;
use crate::fragments;
use crate::lanes::{self, LANES, Lanes, holding, lanes};
use crate::memory::{LOCAL_BASE, SHARED_BASE};
use crate::ptx::{AtomicOp, Binary, Instruction, Op, Register, SINK, ShuffleMode, Space, Type, VoteMode};

impl Block<'_> {
    pub fn execute(&mut self, warp: &mut Warp, instruction: &Instruction, mask: u32) -> Step<()> {
        self.counters.count(Pipe::of(&instruction.op), u64::from(mask.count_ones()));
        self.check_held(warp, instruction)?;
        let mut out = [0; LANES];
        match &instruction.op {
            Op::Mov { dst, a, ty } => {
                let a = warp.register(*a);
                let values = a.map(|bits| ty.truncate(bits));
                warp.write(*dst, mask, &values);
                Ok(())
            }
            Op::Pack { dst, parts, bits } => {
                let low = (1u64 << bits) - 1;
                let mut values = [0; LANES];
                for (index, &part) in parts.iter().enumerate() {
                    let part = warp.register(part);
                    (0..LANES).for_each(|lane| values[lane] |= (part[lane] & low) << (index as u32 * bits));
                }
                warp.write(*dst, mask, &values);
                Ok(())
            }
            Op::Unpack { parts, a, bits } => {
                let (a, low) = (*warp.register(*a), (1u64 << bits) - 1);
                for (index, &part) in parts.iter().enumerate() {
                    warp.write(part, mask, &a.map(|value| value >> (index as u32 * bits) & low));
                }
                Ok(())
            }
            Op::Unary { op, ty, ftz, dst, a } => {
                let known = lanes::unary(*op, *ty, *ftz, warp.register(*a), &mut out);
                self.finish(warp, instruction, mask, *dst, known.then_some(&out))
            }
            Op::Binary { op, ty, ftz, saturate, dst, a, b } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                let known = lanes::binary(*op, *ty, *ftz, *saturate, a, b, &mut out);
                self.finish(warp, instruction, mask, *dst, known.then_some(&out))
            }
            Op::Ternary { op, ty, ftz, saturate, relu, dst, a, b, c } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                let c = warp.register(*c);
                let known = lanes::ternary(*op, *ty, *ftz, *saturate, *relu, a, b, c, &mut out);
                self.finish(warp, instruction, mask, *dst, known.then_some(&out))
            }
            Op::Bfi { ty, dst, a, b, position, length } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                let (position, length) = (warp.register(*position), warp.register(*length));
                let values = std::array::from_fn(|lane| {
                    arithmetic::insert_bits(*ty, a[lane], b[lane], position[lane], length[lane])
                });
                warp.write(*dst, mask, &values);
                Ok(())
            }
            Op::Setp { compare, ty, dst, other, a, b, combine } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                if !lanes::compare(*compare, *ty, a, b, &mut out) {
                    return self.unknown(instruction);
                }
                let with = combine.map(|(op, source, negated)| (op, *warp.register(source), negated));
                for (register, complement) in [(*dst, 0), (*other, 1)] {
                    if register == SINK {
                        continue;
                    }
                    let mut values = out.map(|holds| holds ^ complement);
                    if let Some((op, with, negated)) = &with {
                        let with = with.map(|with| with & 1 ^ u64::from(*negated));
                        for (value, with) in values.iter_mut().zip(with) {
                            match op {
                                Binary::And => *value &= with,
                                Binary::Or => *value |= with,
                                _ => *value ^= with,
                            }
                        }
                    }
                    warp.write(register, mask, &values);
                }
                Ok(())
            }
            Op::Selp { dst, a, b, predicate } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                let predicate = warp.register(*predicate);
                let values = std::array::from_fn(|lane| if predicate[lane] & 1 == 1 { a[lane] } else { b[lane] });
                warp.write(*dst, mask, &values);
                Ok(())
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
                let known = lanes::convert(how, warp.register(*a), &mut out);
                self.finish(warp, instruction, mask, *dst, known.then_some(&out))
            }
            Op::ConvertPair { to, relu, dst, a, b } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                lanes::convert_pair(*to, *relu, a, b, &mut out);
                warp.write(*dst, mask, &out);
                Ok(())
            }
            Op::Cvta { dst, a, space, to_space } => {
                let base = match space {
                    Space::Shared => SHARED_BASE,
                    Space::Local => LOCAL_BASE,
                    _ => 0,
                };
                let shift = if *to_space { base.wrapping_neg() } else { base };
                let values = warp.register(*a).map(|a| a.wrapping_add(shift));
                warp.write(*dst, mask, &values);
                Ok(())
            }
            Op::Load { strong, space, ty, dst, address } => {
                self.load(warp, instruction, mask, *strong, *space, *ty, dst, *address)
            }
            Op::Store { strong, space, ty, values, address } => {
                self.store(warp, instruction, mask, *strong, *space, *ty, values, *address)
            }
            Op::Atomic { .. } => self.atomic(warp, instruction, mask),
            Op::Trap => self.fail(instruction, Some(warp.thread(mask.trailing_zeros() as usize)), "a trap"),
            Op::WarpBarrier { .. } => {
                warp.time.now = self.after(warp.time.now, instruction)?;
                warp.time.of_warp = warp.time.now;
                if let Some(order) = self.order {
                    order.warp_barrier(self.block, warp.index);
                }
                Ok(())
            }
            Op::Shuffle { mode, dst, valid, a, b, clamp, .. } => {
                let (a, b) = (warp.register(*a), warp.register(*b));
                let clamp = warp.register(*clamp);
                let (mut values, mut inside) = ([0; LANES], [0; LANES]);
                for lane in lanes(mask) {
                    let (source, ok) = shuffle_source(*mode, lane, b[lane] as u32, clamp[lane] as u32);
                    if ok && mask >> source & 1 == 0 {
                        let message = format!("reads lane {source}, which does not take part");
                        return self.fail(instruction, Some(warp.thread(lane)), message);
                    }
                    values[lane] = a[if ok { source } else { lane }];
                    inside[lane] = u64::from(ok);
                }
                warp.write(*dst, mask, &values);
                warp.write(*valid, mask, &inside);
                Ok(())
            }
            Op::Vote { mode, dst, predicate, negate, .. } => {
                let holds = holding(warp.register(*predicate));
                let ballot = mask & if *negate { !holds } else { holds };
                let value = match mode {
                    VoteMode::All => u64::from(ballot == mask),
                    VoteMode::Any => u64::from(ballot != 0),
                    VoteMode::Uniform => u64::from(ballot == 0 || ballot == mask),
                    VoteMode::Ballot => u64::from(ballot),
                };
                warp.write(*dst, mask, &[value; LANES]);
                Ok(())
            }
            Op::ActiveMask { dst } => {
                warp.write(*dst, mask, &[u64::from(mask); LANES]);
                Ok(())
            }
            Op::LoadMatrix { transposed, dst, address } => {
                self.load_matrix(warp, instruction, *transposed, dst, *address)
            }
            Op::Mma { product, d, a, b, c } => {
                let of = |operand: &[Register]| -> [&Lanes; 4] {
                    std::array::from_fn(|i| warp.register(operand.get(i).copied().unwrap_or(SINK)))
                };
                let result = fragments::multiply(*product, &of(a)[..a.len()], &of(b)[..b.len()], &of(c));
                self.counters.matrix_product(*product);
                for (&register, values) in d.iter().zip(&result) {
                    warp.write(register, mask, values);
                }
                Ok(())
            }
            Op::CopyAsync { bytes, shared, global, from_source } => match bytes {
                4 => self.copy_async::<1>(warp, instruction, mask, *shared, *global, *from_source),
                8 => self.copy_async::<2>(warp, instruction, mask, *shared, *global, *from_source),
                16 => self.copy_async::<4>(warp, instruction, mask, *shared, *global, *from_source),
                _ => self.fail(instruction, None, format!("a copy of {bytes} bytes: 4, 8 and 16 are possible")),
            },
            Op::Prefetch { address } => self.prefetch(warp, instruction, mask, *address),
            Op::CommitGroup => {
                lanes(mask).for_each(|lane| warp.copies[lane].commit());
                Ok(())
            }
            Op::WaitGroup { pending } => self.wait_for_copies(warp, instruction, mask, *pending as usize),
            Op::Fence(strong) => {
                if let Some(order) = self.order {
                    let by = self.stamp(warp, None);
                    lanes(mask).for_each(|lane| order.fence(by.of_lane(lane), *strong));
                }
                Ok(())
            }
            Op::Elect { dst, predicate, .. } => {
                let leader = mask.trailing_zeros() as usize;
                warp.write(*dst, mask, &[leader as u64; LANES]);
                warp.write(*predicate, mask, &std::array::from_fn(|lane| u64::from(lane == leader)));
                Ok(())
            }
            Op::WarpgroupFence => {
                warp.products.fence();
                Ok(())
            }
            Op::WarpgroupCommit => {
                warp.products.commit();
                Ok(())
            }
            Op::WarpgroupWait { pending } => {
                self.wait_for_products(warp, *pending);
                Ok(())
            }
            Op::MbarrierInit { .. }
            | Op::MbarrierInvalidate { .. }
            | Op::MbarrierArrive { .. }
            | Op::MbarrierBytes { .. } => self.mbarrier(warp, instruction, mask),
            Op::BulkLoad { shared, global, bytes, barrier } => {
                self.bulk_load(warp, instruction, mask, [*shared, *global, *barrier], *bytes)
            }
            Op::BulkStore { global, shared, bytes } => {
                self.bulk_store(warp, instruction, mask, [*global, *shared], *bytes)
            }
            Op::BulkCommit => {
                self.bulk_commit(warp, mask);
                Ok(())
            }
            Op::BulkWait { pending, read } => {
                self.bulk_wait(warp, mask, *pending as usize, *read);
                Ok(())
            }
            Op::ProxyFence { shared, global } => {
                if *shared {
                    self.show_mbarriers(warp, mask);
                }
                if let Some(order) = self.order {
                    order.proxy_fence(self.stamp(warp, None), mask, [*global, *shared]);
                }
                Ok(())
            }
            Op::MbarrierInitFence => {
                self.show_mbarriers(warp, mask);
                Ok(())
            }
            Op::Sleep | Op::Nop => Ok(()),
            // Handled with the groups and the warpgroup.
            Op::Branch { .. }
            | Op::Exit
            | Op::Barrier { .. }
            | Op::MbarrierTest { .. }
            | Op::WarpgroupProduct(_)
            | Op::SetRegisters { .. } => Ok(()),
        }
    }

    #[inline(always)]
    fn finish(
        &self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        dst: Register,
        values: Option<&Lanes>,
    ) -> Step<()> {
        match values {
            Some(values) => {
                warp.write(dst, mask, values);
                Ok(())
            }
            None => self.unknown(instruction),
        }
    }

    #[cold]
    fn unknown(&self, instruction: &Instruction) -> Step<()> {
        self.fail(instruction, None, "the executor does not know this instruction for these types")
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

pub fn atomic_value(op: AtomicOp, ty: Type, old: u64, b: u64, c: u64) -> u64 {
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
