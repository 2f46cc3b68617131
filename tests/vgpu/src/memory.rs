//! Memory with a shadow: what is allocated, what was written, and who touched it last since the barrier before.
//!
//! A race is two accesses to one word by different threads, one of them at least a write and not both atomic, with nothing between
//! them that orders them: in one block a barrier (or between threads of one warp a warp barrier), between blocks the end of the launch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where shared and local memory lie among generic addresses; everything below is global.
pub const SHARED_BASE: u64 = 1 << 56;
pub const LOCAL_BASE: u64 = 1 << 57;

/// Who accesses, and when: the key of the shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Number of the launch, from 1.
    pub launch: u32,
    pub block: u32,
    pub thread: u32,
    /// Block barriers that the thread has passed.
    pub barriers: u32,
    /// Warp barriers since the last block barrier.
    pub warp_barriers: u32,
    pub atomic: bool,
}

/// Number of bits of each field of a packed access.
const BITS: [u32; 6] = [9, 22, 10, 12, 8, 1];

impl Access {
    fn pack(self) -> u64 {
        let fields = [self.launch, self.block, self.thread, self.barriers, self.warp_barriers, u32::from(self.atomic)];
        fields
            .into_iter()
            .zip(BITS)
            .fold(0, |packed, (field, bits)| packed << bits | u64::from(field) & ((1 << bits) - 1))
    }

    fn unpack(packed: u64) -> Access {
        let mut rest = packed;
        let mut fields = [0; 6];
        for (field, bits) in fields.iter_mut().zip(BITS).rev() {
            *field = (rest & ((1 << bits) - 1)) as u32;
            rest >>= bits;
        }
        let [launch, block, thread, barriers, warp_barriers, atomic] = fields;
        Access { launch, block, thread, barriers, warp_barriers, atomic: atomic == 1 }
    }

    /// Whether nothing orders `packed` and this access, by different threads. 0 stands for no access.
    fn is_unordered(self, packed: u64) -> bool {
        if packed == 0 {
            return false;
        }
        let (other, own) = (Access::unpack(packed), Access::unpack(self.pack()));
        if other.launch != own.launch || (other.block, other.thread) == (own.block, own.thread) {
            return false;
        }
        if other.atomic && own.atomic {
            return false;
        }
        if other.block != own.block {
            return true;
        }
        let same_warp = other.thread / 32 == own.thread / 32;
        other.barriers == own.barriers && (!same_warp || other.warp_barriers == own.warp_barriers)
    }
}

/// Beside the last reader of a word: others read it since the barrier before, which nothing orders with the last one.
const SEVERAL: u64 = 1 << 63;
/// Another block read it in the same launch.
const BLOCKS: u64 = 1 << 62;

/// What to remember of a word's readers when `by` reads it after `read`.
fn readers(read: u64, by: Access) -> u64 {
    let own = by.pack();
    if read == 0 {
        return own;
    }
    let earlier = Access::unpack(read & !(SEVERAL | BLOCKS));
    let now = Access::unpack(own);
    if earlier.launch != now.launch {
        return own;
    }
    let blocks = if read & BLOCKS != 0 || earlier.block != now.block { BLOCKS } else { 0 };
    // Readers before a barrier are ordered before this one, and so before what it writes.
    let since = (earlier.barriers, earlier.warp_barriers) == (now.barriers, now.warp_barriers);
    let several = by.is_unordered(earlier.pack()) || read & SEVERAL != 0 && since;
    own | blocks | if several { SEVERAL } else { 0 }
}

/// What is wrong with an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No allocation holds the bytes; the nearest one below, its size, and how far behind its end.
    OutOfBounds {
        address: u64,
        bytes: usize,
        nearest: Option<(u64, usize)>,
    },
    Misaligned {
        address: u64,
        bytes: usize,
    },
    Uninitialised {
        address: u64,
        bytes: usize,
    },
    /// With the earlier access, and whether the earlier one was a write.
    Race {
        address: u64,
        other: Access,
        other_wrote: bool,
    },
    /// Bytes that an asynchronous copy has not delivered yet.
    Pending {
        address: u64,
    },
}

/// One word with its shadow.
#[derive(Default)]
struct Word {
    value: AtomicU32,
    /// Last write and last read of each half, packed; the read with [`SEVERAL`] when different threads read.
    write: [AtomicU64; 2],
    read: [AtomicU64; 2],
    /// Bit k: byte k has been written. Bit 4 + k: byte k is promised by an asynchronous copy.
    state: AtomicU8,
}

/// A piece of memory of whole words.
pub struct Region {
    words: Box<[Word]>,
    bytes: usize,
}

impl Region {
    /// `bytes` bytes that nobody has written.
    pub fn new(bytes: usize) -> Region {
        Region { words: (0..bytes.div_ceil(4)).map(|_| Word::default()).collect(), bytes }
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Reads `into.len()` bytes at `offset` as the host does: without an order, and without questions about it.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = offset + index;
            *byte = self.words[at / 4].value.load(Relaxed).to_le_bytes()[at % 4];
        }
    }

    /// Whether every byte of `offset..offset + bytes` has been written.
    pub fn is_written(&self, offset: usize, bytes: usize) -> bool {
        (offset..offset + bytes).all(|at| self.words[at / 4].state.load(Relaxed) >> (at % 4) & 1 == 1)
    }

    /// Writes bytes as the host does.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        for (index, &byte) in from.iter().enumerate() {
            let at = offset + index;
            let word = &self.words[at / 4];
            let mut value = word.value.load(Relaxed).to_le_bytes();
            value[at % 4] = byte;
            word.value.store(u32::from_le_bytes(value), Relaxed);
            word.state.fetch_or(1 << (at % 4), Relaxed);
        }
    }

    /// A thread reads `bytes` bytes (1, 2, 4 or 8, inside) at `offset`.
    pub fn load(&self, offset: usize, bytes: usize, by: Access, address: u64) -> Result<u64, Fault> {
        let mut value = 0u64;
        let first = offset / 4;
        for (index, word) in self.words[first..(offset + bytes).div_ceil(4)].iter().enumerate() {
            let needed = needed_bytes(offset, bytes, first + index);
            let state = word.state.load(Relaxed);
            if state >> 4 & needed != 0 {
                return Err(Fault::Pending { address });
            }
            if state & needed != needed {
                return Err(Fault::Uninitialised { address, bytes });
            }
            for half in halves(needed) {
                let write = word.write[half].load(Relaxed);
                if by.is_unordered(write) {
                    return Err(Fault::Race { address, other: Access::unpack(write), other_wrote: true });
                }
                let read = word.read[half].load(Relaxed);
                word.read[half].store(readers(read, by), Relaxed);
            }
            value |= u64::from(word.value.load(Relaxed)) << (32 * index);
        }
        let value = value >> (8 * (offset % 4));
        Ok(if bytes == 8 { value } else { value & ((1 << (8 * bytes)) - 1) })
    }

    /// A thread writes the low `bytes` bytes of `value`.
    pub fn store(&self, offset: usize, bytes: usize, value: u64, by: Access, address: u64) -> Result<(), Fault> {
        let first = offset / 4;
        for (index, word) in self.words[first..(offset + bytes).div_ceil(4)].iter().enumerate() {
            let written = needed_bytes(offset, bytes, first + index);
            check_write(word, written, by, address)?;
            if word.state.load(Relaxed) >> 4 & written != 0 {
                return Err(Fault::Pending { address });
            }
            let shifted = if index == 0 { value << (8 * (offset % 4)) } else { value >> (32 * index) };
            let mask = byte_mask(written);
            let kept = word.value.load(Relaxed) & !mask;
            word.value.store(kept | shifted as u32 & mask, Relaxed);
            word.state.fetch_or(written, Relaxed);
        }
        Ok(())
    }

    /// A thread changes a word or two atomically; returns what was there.
    pub fn atomic(
        &self,
        offset: usize,
        bytes: usize,
        by: Access,
        address: u64,
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, Fault> {
        let first = offset / 4;
        let n = bytes.div_ceil(4);
        for word in &self.words[first..first + n] {
            check_write(word, 0xf, by, address)?;
            if word.state.load(Relaxed) & 0xf != 0xf {
                return Err(Fault::Uninitialised { address, bytes });
            }
        }
        if n == 1 {
            let word = &self.words[first].value;
            let before = word.fetch_update(Relaxed, Relaxed, |value| Some(change(u64::from(value)) as u32));
            return Ok(u64::from(before.unwrap_or_else(|value| value)));
        }
        // Wide atomics of different blocks would need a lock; the kernels of this project have none.
        let before = u64::from(self.words[first].value.load(Relaxed))
            | u64::from(self.words[first + 1].value.load(Relaxed)) << 32;
        let after = change(before);
        self.words[first].value.store(after as u32, Relaxed);
        self.words[first + 1].value.store((after >> 32) as u32, Relaxed);
        Ok(before)
    }

    /// Promises bytes that an asynchronous copy will write.
    pub fn promise(&self, offset: usize, bytes: usize, by: Access, address: u64) -> Result<(), Fault> {
        let first = offset / 4;
        for (index, word) in self.words[first..(offset + bytes).div_ceil(4)].iter().enumerate() {
            let promised = needed_bytes(offset, bytes, first + index);
            check_write(word, promised, by, address)?;
            word.state.fetch_or(promised << 4, Relaxed);
        }
        Ok(())
    }

    /// Delivers promised bytes.
    pub fn deliver(&self, offset: usize, from: &[u8], by: Access) {
        for index in 0..from.len() {
            let at = offset + index;
            let word = &self.words[at / 4];
            word.state.fetch_and(!(0x10 << (at % 4)), Relaxed);
            word.write[at % 4 / 2].store(by.pack(), Relaxed);
        }
        self.copy_in(offset, from);
    }
}

fn check_write(word: &Word, bytes: u8, by: Access, address: u64) -> Result<(), Fault> {
    for half in halves(bytes) {
        let write = word.write[half].swap(by.pack(), Relaxed);
        if by.is_unordered(write) {
            return Err(Fault::Race { address, other: Access::unpack(write), other_wrote: true });
        }
        let read = word.read[half].load(Relaxed);
        let mut other = Access::unpack(read & !(SEVERAL | BLOCKS));
        // Of several readers only the last is known; another one had the same right to it.
        if (other.block, other.thread) == (by.block, by.thread) && other.launch == by.launch {
            other.thread ^= u32::from(read & SEVERAL != 0);
            other.block ^= u32::from(read & BLOCKS != 0);
        }
        if read != 0 && by.is_unordered(other.pack()) {
            return Err(Fault::Race { address, other, other_wrote: false });
        }
    }
    Ok(())
}

/// The halves of a word that `bytes` touches: races are told apart at two bytes, the narrowest type that kernels share words by.
fn halves(bytes: u8) -> impl Iterator<Item = usize> {
    (0..2).filter(move |half| bytes >> (2 * half) & 3 != 0)
}

/// Which bytes of word `word` lie in `offset..offset + bytes`, as bits.
fn needed_bytes(offset: usize, bytes: usize, word: usize) -> u8 {
    (0..4).filter(|byte| (offset..offset + bytes).contains(&(4 * word + byte))).fold(0, |mask, byte| mask | 1 << byte)
}

fn byte_mask(bytes: u8) -> u32 {
    (0..4).filter(|byte| bytes >> byte & 1 == 1).fold(0, |mask, byte| mask | 0xff << (8 * byte))
}

/// Allocations of global memory.
#[derive(Default)]
pub struct GlobalMemory {
    regions: BTreeMap<u64, Region>,
    next: u64,
    pub used: usize,
}

/// Bytes between allocations that belong to nobody, so that a step over the end is noticed.
const GAP: u64 = 4096;
const FIRST: u64 = 0x7_0000_0000;

impl GlobalMemory {
    /// The address of `bytes` new bytes, aligned to 512.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let address = self.next.max(FIRST).next_multiple_of(512);
        self.next = address + bytes as u64 + GAP;
        self.used += bytes;
        self.regions.insert(address, Region::new(bytes));
        address
    }

    /// Gives an allocation back; `false` for an address that is none.
    pub fn free(&mut self, address: u64) -> bool {
        self.regions.remove(&address).map(|region| self.used -= region.bytes).is_some()
    }

    /// The allocation that holds `bytes` bytes at `address`, and the offset in it.
    pub fn find(&self, address: u64, bytes: usize) -> Result<(&Region, usize), Fault> {
        let below = self.regions.range(..=address).next_back();
        if let Some((&start, region)) = below
            && (address - start) as usize + bytes <= region.bytes
        {
            return Ok((region, (address - start) as usize));
        }
        let nearest = below.map(|(&start, region)| (start, region.bytes));
        Err(Fault::OutOfBounds { address, bytes, nearest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(block: u32, thread: u32, barriers: u32) -> Access {
        Access { launch: 1, block, thread, barriers, warp_barriers: 0, atomic: false }
    }

    #[test]
    fn accesses_survive_packing() {
        let access =
            Access { launch: 500, block: 4_000_000, thread: 1023, barriers: 4000, warp_barriers: 255, atomic: true };
        assert_eq!(Access::unpack(access.pack()), access);
    }

    #[test]
    fn values_of_every_width_come_back() {
        let region = Region::new(32);
        for (offset, bytes, value) in
            [(0, 8, 0x0123_4567_89ab_cdef), (8, 4, 0xdead_beef), (14, 2, 0xfeed), (13, 1, 0x42)]
        {
            region.store(offset, bytes, value, by(0, 0, 0), 0).expect("stores");
            assert_eq!(region.load(offset, bytes, by(0, 0, 0), 0).expect("loads"), value);
        }
        assert_eq!(region.load(14, 2, by(0, 0, 0), 0).expect("loads"), 0xfeed);
        assert!(matches!(region.load(12, 4, by(0, 0, 0), 0), Err(Fault::Uninitialised { .. })));
    }

    #[test]
    fn races_are_between_unordered_accesses_of_different_threads() {
        let race = |first: (bool, Access), second: (bool, Access)| {
            let region = Region::new(4);
            region.copy_in(0, &[0; 4]);
            let mut result = Ok(());
            for (writes, access) in [first, second] {
                result =
                    if writes { region.store(0, 4, 1, access, 0) } else { region.load(0, 4, access, 0).map(|_| ()) };
            }
            matches!(result, Err(Fault::Race { .. }))
        };
        let (read, write) = (false, true);
        assert!(race((write, by(0, 0, 0)), (read, by(0, 1, 0))));
        assert!(race((read, by(0, 0, 0)), (write, by(0, 1, 0))));
        assert!(race((write, by(0, 0, 0)), (write, by(0, 40, 0))));
        assert!(!race((read, by(0, 0, 0)), (read, by(0, 1, 0))));
        assert!(!race((write, by(0, 0, 0)), (read, by(0, 0, 0))));
        // A barrier orders threads of a block, not of different blocks.
        assert!(!race((write, by(0, 0, 0)), (read, by(0, 1, 1))));
        assert!(race((write, by(0, 0, 0)), (read, by(1, 1, 1))));
        // A warp barrier orders threads of its warp alone.
        let after = |thread| Access { warp_barriers: 1, ..by(0, thread, 0) };
        assert!(!race((write, by(0, 0, 0)), (read, after(1))));
        assert!(race((write, by(0, 0, 0)), (read, after(33))));
        // The end of a launch orders everything.
        assert!(!race((write, by(0, 0, 0)), (write, Access { launch: 2, ..by(5, 1, 0) })));
        let atomic = |thread| Access { atomic: true, ..by(0, thread, 0) };
        assert!(!race((write, atomic(0)), (write, atomic(1))));
        assert!(race((write, atomic(0)), (read, by(0, 1, 0))));
    }

    #[test]
    fn neighbours_share_a_word_without_a_race() {
        let region = Region::new(4);
        region.store(0, 2, 1, by(0, 0, 0), 0).expect("stores");
        region.store(2, 2, 2, by(0, 1, 0), 2).expect("stores");
        assert_eq!(region.load(2, 2, by(0, 1, 0), 2), Ok(2));
        assert!(matches!(region.load(0, 4, by(0, 1, 0), 0), Err(Fault::Race { .. })));
    }

    #[test]
    fn of_several_readers_each_counts() {
        let region = Region::new(4);
        region.copy_in(0, &[0; 4]);
        for thread in [3, 7] {
            region.load(0, 4, by(0, thread, 0), 0).expect("loads");
        }
        assert!(matches!(region.store(0, 4, 1, by(0, 7, 0), 0), Err(Fault::Race { other_wrote: false, .. })));
        // Those before a barrier are ordered; another block's never are.
        for (first, raced) in [(by(0, 3, 0), false), (by(1, 3, 0), true)] {
            let region = Region::new(4);
            region.copy_in(0, &[0; 4]);
            for access in [first, by(0, 7, 1), by(0, 7, 2)] {
                region.load(0, 4, access, 0).expect("loads");
            }
            assert_eq!(region.store(0, 4, 1, by(0, 7, 2), 0).is_err(), raced);
        }
    }

    #[test]
    fn promised_bytes_are_out_of_reach_until_they_are_delivered() {
        let region = Region::new(16);
        region.promise(0, 16, by(0, 0, 0), 0).expect("promises");
        assert_eq!(region.load(4, 4, by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        region.deliver(0, &[7; 16], by(0, 0, 0));
        assert_eq!(region.load(4, 4, by(0, 0, 0), 0), Ok(0x0707_0707));
    }

    #[test]
    fn allocations_are_found_and_gaps_are_not() {
        let mut memory = GlobalMemory::default();
        let (a, b) = (memory.allocate(100), memory.allocate(10));
        assert!(a % 512 == 0 && b % 512 == 0 && b >= a + 100 + GAP);
        assert_eq!(memory.find(a + 96, 4).map(|(_, offset)| offset).ok(), Some(96));
        let Err(Fault::OutOfBounds { nearest, .. }) = memory.find(a + 97, 4) else { panic!("found") };
        assert_eq!(nearest, Some((a, 100)));
        assert!(memory.find(a - 1, 1).is_err() && memory.free(a) && !memory.free(a) && memory.find(a, 1).is_err());
        assert_eq!(memory.used, 10);
    }
}
