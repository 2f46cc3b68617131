//! The last accesses to a word: accesses packed into stamps, and the order of two accesses from
//! their stamps.
//!
//! A race is two accesses to one word by different threads, at least one of them a write and not
//! both atomic, that nothing orders. A barrier orders threads of one block (a warp barrier those of
//! one warp); only the end of a launch orders different blocks.

/// The thread that accesses, and the time in terms of barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub block: u32,
    pub thread: u32,
    /// Block barriers that the thread has passed.
    pub barriers: u32,
    /// Warp barriers since the last block barrier.
    pub warp_barriers: u32,
    pub atomic: bool,
}

// Fields of a stamp, from the lowest bit on. The block number is stored plus one, so that no stamp
// is 0, which means no access.
const THREAD: u64 = (1 << 10) - 1;
const WARP: u64 = THREAD & !31;
const WARP_BARRIERS: u64 = ((1 << 11) - 1) << 10;
const BARRIERS: u64 = ((1 << 18) - 1) << 21;
const BLOCK: u64 = ((1 << 22) - 1) << 39;
const ATOMIC: u64 = 1 << 61;
/// In the record of readers: several threads read the word since the last barrier, unordered with
/// the last reader.
const SEVERAL: u64 = 1 << 62;
/// In the record of readers: several blocks read the word in the same launch.
const BLOCKS: u64 = 1 << 63;

/// Limits of a stamp's fields. Exceeding them is an error of the launch or the kernel, so that no
/// two stamps coincide.
pub const MAX_BLOCKS: u32 = (BLOCK >> 39) as u32 - 1;
pub const MAX_BARRIERS: u32 = (BARRIERS >> 21) as u32;
pub const MAX_WARP_BARRIERS: u32 = (WARP_BARRIERS >> 10) as u32;

/// A packed [`Access`] with the launch it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the launch, from 1.
    pub launch: u32,
    bits: u64,
}

impl Stamp {
    pub fn new(launch: u32, by: Access) -> Stamp {
        let Access { block, thread, barriers, warp_barriers, atomic } = by;
        let bits = u64::from(thread) & THREAD
            | u64::from(warp_barriers) << 10 & WARP_BARRIERS
            | u64::from(barriers) << 21 & BARRIERS
            | (u64::from(block) + 1) << 39 & BLOCK
            | if atomic { ATOMIC } else { 0 };
        Stamp { launch, bits }
    }

    /// The stamp of the thread `lane` lanes further in the same warp.
    #[inline(always)]
    pub fn of_lane(self, lane: usize) -> Stamp {
        Stamp { bits: self.bits + lane as u64, ..self }
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u64 {
        self.bits
    }

    /// True if `earlier`, of the same launch, and this access are by different threads and
    /// unordered.
    #[inline(always)]
    pub(super) fn is_unordered(self, earlier: u64) -> bool {
        let apart = self.bits ^ earlier;
        let elsewhere = apart & BLOCK != 0;
        let since_block_barrier = apart & BARRIERS == 0;
        let since_warp_barrier = (apart & WARP != 0) | (apart & WARP_BARRIERS == 0);
        (earlier != 0)
            & (apart & (BLOCK | THREAD) != 0)
            & (self.bits & earlier & ATOMIC == 0)
            & (elsewhere | since_block_barrier & since_warp_barrier)
    }

    /// The record of a word's readers after this access reads it, if it was `read` before.
    #[inline(always)]
    pub(super) fn after_readers(self, read: u64) -> u64 {
        let earlier = read & !(SEVERAL | BLOCKS);
        if earlier == self.bits || read == 0 {
            return read | self.bits;
        }
        let apart = earlier ^ self.bits;
        let blocks = if apart & BLOCK != 0 { BLOCKS } else { read & BLOCKS };
        // Readers before a barrier are ordered before this read, and so before later writes of this
        // thread.
        let since = apart & (BARRIERS | WARP_BARRIERS) == 0;
        let several = self.is_unordered(earlier) | (read & SEVERAL != 0) & since;
        self.bits | blocks | if several { SEVERAL } else { 0 }
    }

    /// A reader that is unordered with this write.
    #[inline(always)]
    pub(super) fn unordered_reader(self, read: u64) -> Option<Access> {
        let last = read & !(SEVERAL | BLOCKS);
        let apart = last ^ self.bits;
        // Only the last of several readers is recorded. If it is this thread, another one read the
        // word too.
        let other_thread = (read & SEVERAL != 0) & (apart & (BLOCK | THREAD | BARRIERS | WARP_BARRIERS) == 0);
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

/// The access in a stamp's bits.
pub(super) fn unpack(bits: u64) -> Access {
    Access {
        block: ((bits & BLOCK) >> 39).saturating_sub(1) as u32,
        thread: (bits & THREAD) as u32,
        barriers: ((bits & BARRIERS) >> 21) as u32,
        warp_barriers: ((bits & WARP_BARRIERS) >> 10) as u32,
        atomic: bits & ATOMIC != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_survive_packing() {
        let largest = Access {
            block: MAX_BLOCKS,
            thread: 1023,
            barriers: MAX_BARRIERS,
            warp_barriers: MAX_WARP_BARRIERS,
            atomic: true,
        };
        let least = Access { block: 0, thread: 0, barriers: 0, warp_barriers: 0, atomic: false };
        for access in [largest, least] {
            let stamp = Stamp::new(1, access);
            assert!(stamp.bits != 0 && stamp.bits & (SEVERAL | BLOCKS) == 0);
            assert_eq!(unpack(stamp.bits), access);
        }
        assert_eq!(Stamp::new(1, least).of_lane(9), Stamp::new(1, Access { thread: 9, ..least }));
    }
}
