//! The last accesses to a word: accesses packed into stamps, and the order of two accesses from
//! their stamps.
//!
//! A race is two accesses to one word by different threads, at least one of them a write and not
//! both strong, that nothing orders. A barrier orders threads of one block (a warp barrier those of
//! one warp); different blocks are ordered by the end of a launch, or by what [`Order`] knows.

use super::order::Order;
use crate::ptx::Scope;

/// The thread that accesses, and the time of its warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub block: u32,
    pub thread: u32,
    /// Time of the thread's warp, see [`Time`].
    pub time: u32,
    /// The scope of a strong access.
    pub strong: Option<Scope>,
}

/// The time of a warp: it rises at each barrier, where all warps of a block get the same, and, if
/// blocks run side by side, with each access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub now: u32,
    /// That of the last barrier of the block: earlier accesses of all its threads are ordered
    /// before later ones.
    pub of_block: u32,
    /// That of the last barrier of the block or of the warp.
    pub of_warp: u32,
}

// Fields of a stamp, from the lowest bit on. The block number is stored plus one, so that no stamp
// is 0, which means no access.
const THREAD: u64 = (1 << 11) - 1;
const WARP: u64 = THREAD & !31;
const TIME: u64 = ((1 << 28) - 1) << 11;
const BLOCK: u64 = ((1 << 21) - 1) << 39;
/// Set in the numbers of units that access memory by themselves, see [`UNITS`].
const UNIT: u64 = UNITS as u64;
const STRONG: u64 = 1 << 60;
/// A strong access whose scope is its block.
const NARROW: u64 = 1 << 61;
/// In the record of readers: several threads read the word since the last barrier, unordered with
/// the last reader. With an [`Order`], the rest is the number of a set of readers.
pub(super) const SEVERAL: u64 = 1 << 62;
/// In the record of readers: several blocks read the word in the same launch.
const BLOCKS: u64 = 1 << 63;

/// Accesses of threads have their numbers in the block; those that copies and products of
/// warpgroups make by themselves (the asynchronous proxy) have numbers from here on. The time of a
/// unit rises with each access; no barrier orders it, only a wait for its end does.
pub const UNITS: u32 = 1 << 10;

/// Limits of a stamp's fields. Exceeding them is an error of the launch or the kernel, so that no
/// two stamps coincide.
pub const MAX_BLOCKS: u32 = (BLOCK >> 39) as u32 - 1;
pub const MAX_TIME: u32 = (TIME >> 11) as u32;

/// A packed [`Access`] with the launch it belongs to, and what is ordered before it.
#[derive(Clone, Copy)]
pub struct Stamp<'a> {
    /// Number of the launch, from 1.
    pub launch: u32,
    bits: u64,
    /// Times of the last barriers, in their place among the bits.
    of_block: u64,
    of_warp: u64,
    /// What orders threads besides barriers.
    pub(super) order: Option<&'a Order>,
}

impl<'a> Stamp<'a> {
    /// The stamp of an access by `thread` of `block` at `time`.
    #[inline(always)]
    pub fn new(
        launch: u32,
        block: u32,
        thread: u32,
        time: Time,
        strong: Option<Scope>,
        order: Option<&'a Order>,
    ) -> Stamp<'a> {
        let flags = match strong {
            None => 0,
            Some(Scope::Device) => STRONG,
            Some(Scope::Block) => STRONG | NARROW,
        };
        let bits = u64::from(thread) & THREAD
            | u64::from(time.now) << 11 & TIME
            | (u64::from(block) + 1) << 39 & BLOCK
            | flags;
        let [of_block, of_warp] = [time.of_block, time.of_warp].map(|time| u64::from(time) << 11);
        Stamp { launch, bits, of_block, of_warp, order }
    }

    /// The stamp of the thread `lane` lanes further in the same warp.
    #[inline(always)]
    pub fn of_lane(self, lane: usize) -> Stamp<'a> {
        Stamp { bits: self.bits + lane as u64, ..self }
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.bits
    }

    /// Times of the last barriers of the block and of the warp.
    pub(super) fn barriers(self) -> [u32; 2] {
        [self.of_block, self.of_warp].map(|time| (time >> 11) as u32)
    }

    /// True if barriers, or the program of the thread, order `earlier`, of the same launch, before
    /// this access.
    #[inline(always)]
    pub(super) fn is_after(self, earlier: u64) -> bool {
        let apart = self.bits ^ earlier;
        let before_block_barrier = (earlier & UNIT == 0) & (earlier & TIME < self.of_block);
        let before_warp_barrier = (apart & WARP == 0) & (earlier & TIME < self.of_warp);
        (apart & BLOCK == 0) & ((apart & THREAD == 0) | before_block_barrier | before_warp_barrier)
    }

    /// True if `earlier`, of the same launch, and this access are by different threads, unordered
    /// by barriers, and not both strong.
    #[inline(always)]
    pub(super) fn is_unordered(self, earlier: u64) -> bool {
        (earlier != 0) & !are_strong(self.bits, earlier) & !self.is_after(earlier)
    }

    /// True if nothing orders `earlier`, which barriers do not.
    #[cold]
    pub(super) fn races_with(self, earlier: u64) -> bool {
        self.order.is_none_or(|order| !order.is_known(self, earlier))
    }

    /// The record of a word's readers after this access reads it, if it was `read` before.
    #[inline(always)]
    pub(super) fn after_readers(self, read: u64) -> u64 {
        let earlier = read & !(SEVERAL | BLOCKS);
        if earlier == self.bits || read == 0 {
            return read | self.bits;
        }
        if let Some(order) = self.order {
            return order.after_readers(self, read);
        }
        let apart = earlier ^ self.bits;
        let blocks = if apart & BLOCK != 0 { BLOCKS } else { read & BLOCKS };
        // Readers before a barrier are ordered before this read, and so before later writes of this
        // thread.
        let several = self.is_unordered(earlier) | (read & SEVERAL != 0) & (apart & TIME == 0);
        self.bits | blocks | if several { SEVERAL } else { 0 }
    }

    /// A reader that is unordered with this write.
    #[inline(always)]
    pub(super) fn unordered_reader(self, read: u64) -> Option<Access> {
        if read == 0 {
            return None;
        }
        if let Some(order) = self.order {
            return order.unordered_reader(self, read);
        }
        let last = read & !(SEVERAL | BLOCKS);
        let apart = last ^ self.bits;
        // Only the last of several readers is recorded. If it is this thread, another one read the
        // word too.
        let other_thread = (read & SEVERAL != 0) & (apart & (BLOCK | THREAD | TIME) == 0);
        let other_block = read & BLOCKS != 0;
        if !self.is_unordered(last) & !other_thread & !other_block {
            return None;
        }
        let mut other = unpack(last);
        other.block ^= u32::from(other_block & (apart & BLOCK == 0));
        other.thread ^= u32::from(other_thread);
        Some(other)
    }
}

/// True if two accesses are strong and the scope of each includes the other's thread.
#[inline(always)]
pub(super) fn are_strong(one: u64, other: u64) -> bool {
    (one & other & STRONG != 0) & (((one ^ other) & BLOCK == 0) | ((one | other) & NARROW == 0))
}

/// True if an access is strong, whatever its scope.
pub(super) fn is_strong(bits: u64) -> bool {
    bits & STRONG != 0
}

/// The same access by lane 0 of its warp, and the lane.
pub(super) fn of_warp(bits: u64) -> (u64, u32) {
    (bits & !31, (bits & 31) as u32)
}

/// The access in a stamp's bits.
pub(super) fn unpack(bits: u64) -> Access {
    let scope = if bits & NARROW != 0 { Scope::Block } else { Scope::Device };
    Access {
        block: ((bits & BLOCK) >> 39).saturating_sub(1) as u32,
        thread: (bits & THREAD) as u32,
        time: ((bits & TIME) >> 11) as u32,
        strong: (bits & STRONG != 0).then_some(scope),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_survive_packing() {
        let largest = Access { block: MAX_BLOCKS, thread: 2047, time: MAX_TIME, strong: Some(Scope::Block) };
        let least = Access { block: 0, thread: 0, time: 0, strong: None };
        let stamp = |access: Access| {
            let time = Time { now: access.time, ..Time::default() };
            Stamp::new(1, access.block, access.thread, time, access.strong, None)
        };
        for access in [largest, least, Access { strong: Some(Scope::Device), ..largest }] {
            let bits = stamp(access).bits;
            assert!(bits != 0 && bits & (SEVERAL | BLOCKS) == 0);
            assert_eq!(unpack(bits), access);
        }
        assert_eq!(stamp(least).of_lane(9).bits, stamp(Access { thread: 9, ..least }).bits);
    }
}
