//! Barriers of some of a block's warps (`bar.sync` and `bar.arrive` with a number of threads).

use super::warp::Warp;
use super::{Block, Step};
use crate::lanes::LANES;
use crate::memory::SHARED_BASE;
use crate::ptx::{Instruction, Space};

/// Where clocks of these barriers are left, beyond all shared memory.
const CLOCKS: u64 = 0xff_f000;

impl Block<'_> {
    /// `warp` comes to barrier `id` of `expected` threads.
    pub fn come_to_named(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        id: u64,
        expected: u64,
        arrives: bool,
    ) -> Step<()> {
        let thread = Some(warp.thread(0));
        let Some(&(come, of)) = self.named.get(id as usize) else {
            return self.fail(instruction, thread, format!("barrier {id}: 0 to 15 are possible"));
        };
        if expected == 0
            || !expected.is_multiple_of(LANES as u64)
            || expected > u64::from(self.n_threads.next_multiple_of(LANES as u32))
        {
            let message = format!("a barrier of {expected} threads, which are no whole warps of the block");
            return self.fail(instruction, thread, message);
        }
        if come > 0 && u64::from(of) != expected {
            let message = format!("barrier {id} is one of {expected} threads here, and of {of} elsewhere");
            return self.fail(instruction, thread, message);
        }
        self.named[id as usize] = (come + LANES as u32, expected as u32);
        warp.time.now = self.after(warp.time.now, instruction)?;
        warp.time.of_warp = warp.time.now;
        if let Some(order) = self.order {
            order.warp_barrier(self.block, warp.index);
            order.leave_warp(self.stamp(warp, None), self.named_location(id));
        }
        self.counters.count(crate::counters::Pipe::Control, LANES as u64);
        self.changes += 1;
        warp.yields = true;
        if arrives {
            warp.groups[0].pc += 1;
        } else {
            warp.named = Some(id as u32);
        }
        Ok(())
    }

    /// Opens barriers to which all threads have come.
    pub fn open_named(&mut self, warps: &mut [Warp]) {
        for id in 0..self.named.len() {
            let (come, expected) = self.named[id];
            if expected == 0 || come < expected {
                continue;
            }
            self.named[id] = (0, 0);
            for warp in warps.iter_mut().filter(|warp| warp.named == Some(id as u32)) {
                if let Some(order) = self.order {
                    order.take_warp(self.block, warp.index, self.named_location(id as u64));
                }
                (warp.named, warp.polled) = (None, None);
                warp.groups[0].pc += 1;
                warp.groups[0].waits = false;
            }
            if let Some(order) = self.order {
                order.forget(self.named_location(id as u64));
            }
            self.counters.barriers += 1;
            self.changes += 1;
        }
    }

    fn named_location(&self, id: u64) -> u64 {
        self.location(Space::Shared, SHARED_BASE + CLOCKS + 8 * id)
    }

    /// No warp can run: an error if some wait for others that will not come.
    pub fn check_partial_waits(&self, warps: &[Warp]) -> Step<()> {
        let Some(warp) = warps.iter().find(|warp| warp.named.is_some() || warp.rendezvous.is_some()) else {
            return Ok(());
        };
        let pc = warp.rendezvous.unwrap_or(warp.groups[0].pc);
        let instruction = &self.launch.kernel.code[pc];
        let message = format!("a wait that nobody ends: all warps wait{}", self.who_waits(warps));
        self.fail(instruction, Some(warp.thread(0)), message)
    }
}
