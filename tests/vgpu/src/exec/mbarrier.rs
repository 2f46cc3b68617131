//! `mbarrier`: arrivals, bytes of bulk copies, and phases (PTX ISA, "Parallel Synchronization and
//! Communication Instructions: mbarrier").

use super::access::address_of;
use super::units::Flight;
use super::warp::Warp;
use super::{Block, Step};
use crate::lanes::{LANES, lanes};
use crate::memory::{SHARED_BASE, Stamp};
use crate::ptx::{Instruction, Op, Scope, Space, Strong};

/// One barrier in shared memory.
#[derive(Clone, Debug)]
pub struct Mbarrier {
    expected: u32,
    pending: u32,
    /// Bytes that are still to come.
    bytes: i64,
    pub phase: u32,
    /// The thread that began it, and whether it has shown it to the asynchronous proxy.
    owner: u32,
    fenced: bool,
    /// By this, states of its arrivals differ from those of any other.
    life: u64,
    /// The last instruction that changed it, for reports.
    instruction: u32,
}

/// What a barrier's words hold, so that a store to them is noticed.
const MARK: u64 = 0x5c3a_b0de_6d62_6172;
/// Largest count of arrivals or of bytes (PTX ISA, "Contents of the mbarrier object").
const MOST: u32 = (1 << 20) - 1;

impl Mbarrier {
    fn is_done(&self, phase: u32, parity: bool) -> bool {
        if parity { self.phase & 1 != phase & 1 } else { self.phase > phase }
    }

    /// What an arrival returns. Programs must not look inside.
    fn state(&self) -> u64 {
        self.life << 32 | u64::from(self.phase)
    }

    /// The phase that a test means by `operand`, a state or a parity, or what is wrong with it.
    fn named_phase(&self, operand: u64, parity: bool) -> Result<u32, String> {
        let (life, phase) = (operand >> 32, operand as u32);
        match parity {
            true if operand > 1 => Err(format!("a parity of {operand}: 0 and 1 are possible")),
            false if life != self.life || phase > self.phase => {
                Err("a state that no arrival at this mbarrier gave since its initialization".into())
            }
            false if phase + 1 < self.phase => Err(format!(
                "the state of phase {phase}, but the mbarrier is in phase {}: a state counts in its own phase and in \
                 the next",
                self.phase
            )),
            _ => Ok(phase),
        }
    }
}

impl Block<'_> {
    /// An address in shared memory of an `mbarrier`.
    pub fn mbarrier_address(&self, thread: u32, instruction: &Instruction, address: u64) -> Step<u32> {
        if address >> 32 != 0 && Self::shared_offset(Space::Generic, address).is_none() {
            return self.fail(instruction, Some(thread), format!("an mbarrier at {address:#x}, outside shared memory"));
        }
        let offset = Self::shared_offset(Space::Shared, address).unwrap_or_default();
        if offset % 8 != 0 || offset + 8 > self.shared.len() {
            let what = if offset % 8 != 0 { "misaligned" } else { "out of bounds" };
            return self.fail(instruction, Some(thread), format!("{what}: an mbarrier at shared {offset:#x}"));
        }
        Ok(offset as u32)
    }

    /// Addresses at which clocks are left for the threads that wait for phase `phase`.
    fn phase_location(&self, address: u32, phase: u32) -> u64 {
        self.location(Space::Shared, u64::from(address) + u64::from(phase & 1))
    }

    /// Checks that `address` holds an `mbarrier`, begun before.
    pub fn touch_mbarrier(&mut self, warp: &Warp, lane: usize, instruction: &Instruction, address: u32) -> Step<()> {
        let thread = warp.thread(lane);
        if !self.mbarriers.contains_key(&address) {
            let message = format!("no mbarrier at shared {address:#x}: it was not initialized, or invalidated since");
            return self.fail(instruction, Some(thread), message);
        }
        let by = self.stamp(warp, Some(Scope::Block)).of_lane(lane);
        let at = SHARED_BASE + u64::from(address);
        match self.shared.atomic(address as usize, 8, by, at, |old| old) {
            Ok(MARK) => Ok(()),
            Ok(_) => {
                let message = format!("the mbarrier at shared {address:#x} was overwritten");
                self.fail(instruction, Some(thread), message)
            }
            Err(fault) => self.fault(thread, instruction, &fault),
        }
    }

    /// The asynchronous proxy must know of a barrier that a copy completes.
    pub fn check_mbarrier_fence(&self, thread: u32, instruction: &Instruction, address: u32) -> Step<()> {
        if self.mbarriers.get(&address).is_some_and(|barrier| barrier.fenced) {
            return Ok(());
        }
        let message = format!(
            "the mbarrier at shared {address:#x} is used by a bulk copy, but no fence.mbarrier_init or \
             fence.proxy.async followed its initialization"
        );
        self.fail(instruction, Some(thread), message)
    }

    /// `fence.mbarrier_init` or `fence.proxy.async` by threads of `warp`.
    pub fn show_mbarriers(&mut self, warp: &Warp, mask: u32) {
        let own = |thread: u32| thread / LANES as u32 == warp.index && mask >> (thread % LANES as u32) & 1 != 0;
        self.mbarriers.values_mut().filter(|barrier| own(barrier.owner)).for_each(|barrier| barrier.fenced = true);
    }

    pub fn mbarrier(&mut self, warp: &mut Warp, instruction: &Instruction, mask: u32) -> Step<()> {
        self.begin_access(warp, instruction)?;
        for lane in lanes(mask) {
            let thread = warp.thread(lane);
            let value = |warp: &Warp, register: u32| warp.register(register)[lane] as u32;
            match &instruction.op {
                Op::MbarrierInit { address, count } => {
                    let address = self.mbarrier_address(thread, instruction, address_of(warp, *address, lane))?;
                    let count = value(warp, *count);
                    if count == 0 || count > MOST {
                        let message = format!("an mbarrier of {count} arrivals: 1 to {MOST} are possible");
                        return self.fail(instruction, Some(thread), message);
                    }
                    if self.mbarriers.contains_key(&address) {
                        let message =
                            format!("the mbarrier at shared {address:#x} is initialized again, without mbarrier.inval");
                        return self.fail(instruction, Some(thread), message);
                    }
                    let by = self.stamp(warp, None).of_lane(lane);
                    let words = [MARK as u32, (MARK >> 32) as u32];
                    let stored =
                        self.shared.store_words(address as usize / 4, words, by, SHARED_BASE + u64::from(address));
                    if let Err(fault) = stored {
                        return self.fault(thread, instruction, &fault);
                    }
                    self.lives += 1;
                    let barrier = Mbarrier {
                        expected: count,
                        pending: count,
                        bytes: 0,
                        phase: 0,
                        owner: thread,
                        fenced: false,
                        life: self.lives,
                        instruction: instruction.text,
                    };
                    self.mbarriers.insert(address, barrier);
                    // What an earlier barrier in this place released is no business of this one.
                    if let Some(order) = self.order {
                        (0..2).for_each(|phase| order.forget(self.phase_location(address, phase)));
                    }
                }
                Op::MbarrierInvalidate { address } => {
                    let address = self.mbarrier_address(thread, instruction, address_of(warp, *address, lane))?;
                    self.touch_mbarrier(warp, lane, instruction, address)?;
                    if let Some(flight) = self.flight_to(address) {
                        let message = format!(
                            "the mbarrier at shared {address:#x} is invalidated before the copy of line {} has come",
                            flight.line
                        );
                        return self.fail(instruction, Some(thread), message);
                    }
                    self.mbarriers.remove(&address);
                }
                Op::MbarrierArrive { dst, address, count, expected, releases } => {
                    let address = self.mbarrier_address(thread, instruction, address_of(warp, *address, lane))?;
                    self.touch_mbarrier(warp, lane, instruction, address)?;
                    if let Some(bytes) = expected {
                        self.expect_bytes(thread, instruction, address, value(warp, *bytes))?;
                    }
                    let count = value(warp, *count);
                    let barrier = &self.mbarriers[&address];
                    let (phase, pending, state) = (barrier.phase, barrier.pending, barrier.state());
                    if count == 0 || count > pending {
                        let message = format!(
                            "{count} arrivals at the mbarrier at shared {address:#x}, of which phase {phase} waits for {pending}"
                        );
                        return self.fail(instruction, Some(thread), message);
                    }
                    if *releases && let Some(order) = self.order {
                        let strong = Strong { scope: Scope::Block, acquires: false, releases: true };
                        let by = self.stamp(warp, None).of_lane(lane);
                        order.change(by, self.phase_location(address, phase), strong);
                    }
                    warp.write(*dst, 1 << lane, &[state; LANES]);
                    if let Some(barrier) = self.mbarriers.get_mut(&address) {
                        barrier.pending -= count;
                        barrier.instruction = instruction.text;
                    }
                    self.complete_phase(address)?;
                }
                Op::MbarrierBytes { address, bytes, complete } => {
                    let address = self.mbarrier_address(thread, instruction, address_of(warp, *address, lane))?;
                    self.touch_mbarrier(warp, lane, instruction, address)?;
                    let bytes = value(warp, *bytes);
                    if *complete {
                        self.complete_bytes(address, bytes, None)?;
                    } else {
                        self.expect_bytes(thread, instruction, address, bytes)?;
                    }
                }
                _ => {}
            }
            self.changes += 1;
        }
        Ok(())
    }

    fn expect_bytes(&mut self, thread: u32, instruction: &Instruction, address: u32, bytes: u32) -> Step<()> {
        let Some(barrier) = self.mbarriers.get_mut(&address) else { return Ok(()) };
        barrier.bytes += i64::from(bytes);
        barrier.instruction = instruction.text;
        if barrier.bytes > i64::from(MOST) {
            let message = format!("a transaction count of {} bytes: {MOST} are possible", barrier.bytes);
            return self.fail(instruction, Some(thread), message);
        }
        Ok(())
    }

    /// `bytes` bytes have come, by the access of a unit.
    pub fn complete_bytes(&mut self, address: u32, bytes: u32, by: Option<(u32, u32)>) -> Step<()> {
        let Some(barrier) = self.mbarriers.get_mut(&address) else { return Ok(()) };
        barrier.bytes -= i64::from(bytes);
        let (phase, instruction) = (barrier.phase, barrier.instruction);
        if barrier.bytes < -i64::from(MOST) {
            let message = format!("a transaction count of {} bytes: -{MOST} are possible", barrier.bytes);
            return self.fail(&self.launch.kernel.code[instruction as usize], None, message);
        }
        if let (Some((unit, time)), Some(order)) = (by, self.order) {
            order.leave_unit(self.block, self.phase_location(address, phase), unit, time + 1);
        }
        self.complete_phase(address)
    }

    /// A copy under way that counts at the barrier.
    fn flight_to(&self, address: u32) -> Option<&Flight> {
        self.units.flights.iter().find(|flight| flight.barrier == address)
    }

    /// Ends the phase of a barrier if nothing is missing.
    fn complete_phase(&mut self, address: u32) -> Step<()> {
        let Some(&Mbarrier { phase, pending, bytes, instruction, .. }) = self.mbarriers.get(&address) else {
            return Ok(());
        };
        if pending > 0 || bytes > 0 {
            return Ok(());
        }
        let flight = self.flight_to(address);
        if bytes < 0 || flight.is_some() {
            let message = match flight {
                Some(flight) if bytes == 0 => format!(
                    "wrong transaction count: phase {phase} of the mbarrier at shared {address:#x} ends before the \
                     copy of line {} has come",
                    flight.line
                ),
                _ => format!(
                    "wrong transaction count: {} bytes more than expected came to phase {phase} of the mbarrier at \
                     shared {address:#x}",
                    -bytes
                ),
            };
            return self.fail(&self.launch.kernel.code[instruction as usize], None, message);
        }
        if let Some(barrier) = self.mbarriers.get_mut(&address) {
            (barrier.phase, barrier.pending) = (phase + 1, barrier.expected);
        }
        if let Some(order) = self.order {
            order.forget(self.phase_location(address, phase + 1));
        }
        self.changes += 1;
        Ok(())
    }

    /// Tests a phase. `false` if the warp sleeps until it ends.
    pub fn test_mbarrier(&mut self, warp: &mut Warp, instruction: &Instruction, mask: u32) -> Step<bool> {
        let Op::MbarrierTest { dst, address, phase, parity, waits, acquires } = &instruction.op else {
            return Ok(true);
        };
        let mut done = [0; LANES];
        let mut first = None;
        for lane in lanes(mask) {
            let (thread, at) = (warp.thread(lane), address_of(warp, *address, lane));
            let at = self.mbarrier_address(thread, instruction, at)?;
            let Some(barrier) = self.mbarriers.get(&at) else {
                self.touch_mbarrier(warp, lane, instruction, at)?;
                continue;
            };
            let phase = match barrier.named_phase(warp.register(*phase)[lane], *parity) {
                Ok(phase) => phase,
                Err(problem) => return self.fail(instruction, Some(thread), problem),
            };
            first.get_or_insert((at, phase));
            done[lane] = u64::from(barrier.is_done(phase, *parity));
        }
        let Some((at, phase)) = first else { return Ok(true) };
        let alone = warp.groups.iter().filter(|group| !group.waits).count() == 1;
        warp.waits_for = Some((at, phase, *parity));
        if *waits && alone && self.sleeps && !warp.awakened && done.iter().all(|&done| done == 0) {
            warp.asleep = true;
            return Ok(false);
        }
        warp.awakened = false;
        self.begin_access(warp, instruction)?;
        for lane in lanes(mask) {
            let at = address_of(warp, *address, lane) as u32;
            self.touch_mbarrier(warp, lane, instruction, at)?;
            let ended = self.mbarriers[&at].phase.wrapping_sub(1);
            if done[lane] == 1
                && *acquires
                && let Some(order) = self.order
            {
                let strong = Strong { scope: Scope::Block, acquires: true, releases: false };
                let by: Stamp = self.stamp(warp, None).of_lane(lane);
                order.read(by, self.phase_location(at, ended), strong);
            }
        }
        if done.contains(&1) {
            warp.waits_for = None;
        }
        warp.write(*dst, mask, &done);
        Ok(true)
    }

    /// True if what a sleeping warp waits for has come.
    pub fn is_awake(&self, warp: &Warp) -> bool {
        let Some((address, phase, parity)) = warp.waits_for.filter(|_| warp.asleep) else { return true };
        self.mbarriers.get(&address).is_none_or(|barrier| barrier.is_done(phase, parity))
    }

    /// What each of `warps` waits for, by `mbarrier`.
    pub fn who_waits(&self, warps: &[Warp]) -> String {
        let mut text = String::new();
        for (&address, barrier) in &self.mbarriers {
            let waiting: Vec<String> = (warps.iter())
                .filter(|warp| !warp.groups.is_empty() && !warp.meets_others())
                .filter(|warp| warp.waits_for.is_some_and(|(at, ..)| at == address))
                .map(|warp| warp.index.to_string())
                .collect();
            if waiting.is_empty() {
                continue;
            }
            let Mbarrier { phase, pending, expected, bytes, .. } = barrier;
            text += &format!(
                "; block {}: warps {} wait for the mbarrier at shared {address:#x}, whose phase {phase} lacks {pending} \
                 of {expected} arrivals and {bytes} bytes",
                self.block,
                waiting.join(", ")
            );
        }
        for warp in warps.iter().filter(|warp| warp.named.is_some()) {
            let id = warp.named.unwrap_or_default() as usize;
            let (arrived, expected) = self.named[id];
            text += &format!(
                "; block {}: warp {} waits at barrier {id}, to which {arrived} of {expected} threads have come",
                self.block, warp.index
            );
        }
        for warp in warps.iter().filter(|warp| warp.rendezvous.is_some()) {
            text += &format!("; block {}: warp {} waits for its warpgroup", self.block, warp.index);
        }
        text
    }
}
