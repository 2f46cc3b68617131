//! Memory in which every word has a shadow: whether it was written, whether an asynchronous copy is
//! pending, and the last accesses in this launch.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::Fault;
use super::order::Clock;
use super::shadow::{Stamp, unpack};

// A word is one atomic, so that neighbors in it may be written concurrently. It holds the value
// (upper half), the number of the last launch that accessed it, and its state. Bit k of the state:
// byte k was written. Bit 4 + k: an asynchronous copy of byte k is pending.
const WRITTEN: u64 = 0xf;
const PROMISED: u64 = 0xf0;
const STATE: u64 = 0xff;
const LAUNCH: u64 = 0xff_ffff << 8;

/// Number of launches that words can distinguish; then [`Region::forget_accesses`] is called.
pub const MAX_LAUNCHES: u32 = (LAUNCH >> 8) as u32;

/// Last write and last readers of each half of a word: races are detected at two bytes, the size of
/// the narrowest type by which kernels share words. They are valid only if the word's launch is the
/// current one.
#[repr(transparent)]
struct Shadow([AtomicU64; 4]);

impl Shadow {
    /// The first access of a launch resets the shadow to these.
    #[inline(always)]
    fn begin(&self, writes: [u64; 2], reads: [u64; 2]) {
        for half in 0..2 {
            self.0[half].store(writes[half], Relaxed);
            self.0[2 + half].store(reads[half], Relaxed);
        }
    }

    #[inline(always)]
    fn read(&self, half: usize, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        let write = self.0[half].load(Relaxed);
        if by.is_unordered(write) && by.races_with(write) {
            return Err(raced(address, write));
        }
        let readers = &self.0[2 + half];
        let read = readers.load(Relaxed);
        readers.store(by.after_readers(read), Relaxed);
        Ok(())
    }

    /// Reads the whole word.
    #[inline(always)]
    fn read_word(&self, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        let [write, other_write, read, other_read] = [0, 1, 2, 3].map(|field: usize| self.0[field].load(Relaxed));
        // Usually both halves have the same records, and one check is enough. Sets of readers
        // belong to one half each.
        if by.order.is_some() | (write != other_write) | (read != other_read) {
            return self.read_halves(by, address);
        }
        if by.is_unordered(write) {
            return Err(raced(address, write));
        }
        let read = by.after_readers(read);
        self.0[2].store(read, Relaxed);
        self.0[3].store(read, Relaxed);
        Ok(())
    }

    #[inline(never)]
    fn read_halves(&self, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        self.read(0, by, address)?;
        self.read(1, by, address)
    }

    /// Writes the whole word.
    #[inline(always)]
    fn write_word(&self, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        let [write, other_write, read, other_read] = [0, 1, 2, 3].map(|field: usize| self.0[field].load(Relaxed));
        if by.order.is_some() | (write != other_write) | (read != other_read) {
            return self.write_halves(by, address);
        }
        if by.is_unordered(write) {
            return Err(raced(address, write));
        }
        if let Some(other) = by.unordered_reader(read) {
            return Err(Fault::Race { address, other, other_wrote: false });
        }
        self.0[0].store(by.bits(), Relaxed);
        self.0[1].store(by.bits(), Relaxed);
        Ok(())
    }

    #[inline(never)]
    fn write_halves(&self, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        self.write(0, by, address)?;
        self.write(1, by, address)
    }

    #[inline(always)]
    fn write(&self, half: usize, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        let write = self.0[half].load(Relaxed);
        if by.is_unordered(write) && by.races_with(write) {
            return Err(raced(address, write));
        }
        let read = self.0[2 + half].load(Relaxed);
        if let Some(other) = by.unordered_reader(read) {
            return Err(Fault::Race { address, other, other_wrote: false });
        }
        if by.order.is_some() {
            self.0[2 + half].store(0, Relaxed);
        }
        self.0[half].store(by.bits(), Relaxed);
        Ok(())
    }
}

/// Begins the write of a whole word by a thread. Returns the word's former state, or the race with
/// an unordered access of this launch.
#[inline(always)]
fn take_over(word: &AtomicU64, shadow: &Shadow, by: Stamp<'_>, address: u64) -> Result<u64, Fault> {
    let was = word.load(Acquire);
    if was & LAUNCH == u64::from(by.launch) << 8 {
        shadow.write_word(by, address)?;
    } else {
        shadow.begin([by.bits(); 2], [0; 2]);
    }
    Ok(was)
}

#[cold]
fn raced(address: u64, write: u64) -> Fault {
    Fault::Race { address, other: unpack(write), other_wrote: true }
}

/// A range of memory made of whole words.
pub struct Region {
    words: Box<[AtomicU64]>,
    shadows: Box<[Shadow]>,
    bytes: usize,
    /// True if blocks on several threads of the host use it.
    concurrent: bool,
}

impl Region {
    /// `bytes` bytes of uninitialized global memory.
    pub fn new(bytes: usize) -> Region {
        let n = bytes.div_ceil(4);
        // Zeroed pages from the system cost nothing until they are accessed.
        let (words, shadows) = (vec![0u64; n].into_boxed_slice(), vec![[0u64; 4]; n].into_boxed_slice());
        // SAFETY: an atomic has the size and bit pattern of its integer, and, on platforms where
        // 64-bit atomics and integers are aligned alike, its alignment; `Shadow` is four of them.
        // The old boxes are consumed.
        let (words, shadows) = unsafe {
            const { assert!(align_of::<AtomicU64>() == align_of::<u64>()) };
            (
                Box::from_raw(Box::into_raw(words) as *mut [AtomicU64]),
                Box::from_raw(Box::into_raw(shadows) as *mut [Shadow]),
            )
        };
        Region { words, shadows, bytes, concurrent: true }
    }

    /// The same for a single block or thread.
    pub fn private(bytes: usize) -> Region {
        Region { concurrent: false, ..Region::new(bytes) }
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Resets to uninitialized memory without accesses.
    pub fn clear(&mut self) {
        self.words.iter_mut().for_each(|word| *word.get_mut() = 0);
    }

    /// Clears all records of accesses.
    pub fn forget_accesses(&mut self) {
        self.words.iter_mut().for_each(|word| *word.get_mut() &= !LAUNCH);
    }

    /// Reads `into.len()` bytes at `offset` on behalf of the host, without checks of order or
    /// initialization.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let value = ((self.words[at / 4].load(Relaxed) >> 32) as u32).to_le_bytes();
            let n = (4 - at % 4).min(rest.len());
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&value[at % 4..at % 4 + n]);
            (rest, at) = (tail, at + n);
        }
    }

    /// True if every byte of `offset..offset + bytes` was written.
    pub fn is_written(&self, offset: usize, bytes: usize) -> bool {
        (offset / 4..(offset + bytes).div_ceil(4)).all(|word| {
            let needed = bytes_of_word(offset, bytes, word);
            self.words[word].load(Relaxed) & needed == needed
        })
    }

    /// True if a byte of `offset..offset + bytes` belongs to a copy that has not ended.
    pub fn is_promised(&self, offset: usize, bytes: usize) -> bool {
        (offset / 4..(offset + bytes).div_ceil(4))
            .any(|word| self.words[word].load(Relaxed) & bytes_of_word(offset, bytes, word) << 4 != 0)
    }

    /// Marks bytes as pending on behalf of work of a stream, or no longer so: `written` or not.
    pub fn set_promised(&self, offset: usize, bytes: usize, promised: bool, written: bool) {
        for word in offset / 4..(offset + bytes).div_ceil(4) {
            let bits = bytes_of_word(offset, bytes, word);
            self.change(word, |value| {
                let cleared = value & !(bits | bits << 4);
                cleared | if promised { bits << 4 } else { 0 } | if written { bits } else { 0 }
            });
        }
    }

    /// Writes bytes on behalf of the host.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let n = (4 - at % 4).min(rest.len());
            let (head, tail) = rest.split_at(n);
            let word = self.words[at / 4].load(Relaxed);
            let mut value = ((word >> 32) as u32).to_le_bytes();
            value[at % 4..at % 4 + n].copy_from_slice(head);
            let word = word & (LAUNCH | STATE) | bytes_of_word(at, n, at / 4);
            self.words[at / 4].store(word | u64::from(u32::from_le_bytes(value)) << 32, Relaxed);
            (rest, at) = (tail, at + n);
        }
    }

    /// A thread reads `N` whole words from word `first` on.
    #[inline(always)]
    pub fn load_words<const N: usize>(&self, first: usize, by: Stamp<'_>, address: u64) -> Result<[u32; N], Fault> {
        let (words, shadows) = (&self.words[first..first + N], &self.shadows[first..first + N]);
        let mut values = [0; N];
        for i in 0..N {
            let word = words[i].load(Acquire);
            if word & STATE != WRITTEN {
                return Err(unreadable(word, WRITTEN, address, 4 * N));
            }
            values[i] = (word >> 32) as u32;
            if word & LAUNCH == u64::from(by.launch) << 8 {
                shadows[i].read_word(by, address)?;
            } else {
                shadows[i].begin([0; 2], [by.bits(); 2]);
                words[i].store(word & !LAUNCH | u64::from(by.launch) << 8, Release);
            }
        }
        Ok(values)
    }

    /// A thread writes `N` whole words from word `first` on.
    #[inline(always)]
    pub fn store_words<const N: usize>(
        &self,
        first: usize,
        values: [u32; N],
        by: Stamp<'_>,
        address: u64,
    ) -> Result<(), Fault> {
        let (words, shadows) = (&self.words[first..first + N], &self.shadows[first..first + N]);
        for i in 0..N {
            let word = take_over(&words[i], &shadows[i], by, address)?;
            if word & PROMISED != 0 {
                return Err(Fault::Pending { address });
            }
            words[i].store(u64::from(values[i]) << 32 | u64::from(by.launch) << 8 | WRITTEN, Release);
        }
        Ok(())
    }

    /// A thread reads 1 or 2 bytes of one word.
    pub fn load_narrow(&self, offset: usize, bytes: usize, by: Stamp<'_>, address: u64) -> Result<u32, Fault> {
        let needed = bytes_of_word(offset, bytes, offset / 4);
        let half = offset % 4 / 2;
        let word = self.words[offset / 4].load(Acquire);
        if word & PROMISED & needed << 4 != 0 || word & needed != needed {
            return Err(unreadable(word, needed, address, bytes));
        }
        if word & LAUNCH == u64::from(by.launch) << 8 {
            self.shadows[offset / 4].read(half, by, address)?;
        } else {
            let mut reads = [0; 2];
            reads[half] = by.bits();
            self.shadows[offset / 4].begin([0; 2], reads);
            self.change(offset / 4, |word| word & !LAUNCH | u64::from(by.launch) << 8);
        }
        Ok((word >> 32 >> (8 * (offset % 4))) as u32 & (u32::MAX >> (32 - 8 * bytes)))
    }

    /// A thread writes 1 or 2 bytes of one word.
    pub fn store_narrow(
        &self,
        offset: usize,
        bytes: usize,
        value: u32,
        by: Stamp<'_>,
        address: u64,
    ) -> Result<(), Fault> {
        let written = bytes_of_word(offset, bytes, offset / 4);
        let half = offset % 4 / 2;
        let word = self.words[offset / 4].load(Acquire);
        if word & LAUNCH == u64::from(by.launch) << 8 {
            self.shadows[offset / 4].write(half, by, address)?;
        } else {
            let mut writes = [0; 2];
            writes[half] = by.bits();
            self.shadows[offset / 4].begin(writes, [0; 2]);
        }
        if word & written << 4 != 0 {
            return Err(Fault::Pending { address });
        }
        let mask = u64::from(u32::MAX >> (32 - 8 * bytes)) << (32 + 8 * (offset % 4));
        let shifted = u64::from(value) << (32 + 8 * (offset % 4)) & mask;
        self.change(offset / 4, |word| word & !mask & !LAUNCH | shifted | u64::from(by.launch) << 8 | written);
        Ok(())
    }

    /// A thread changes one or two words atomically; returns the old value.
    pub fn atomic(
        &self,
        offset: usize,
        bytes: usize,
        by: Stamp<'_>,
        address: u64,
        change: impl Fn(u64) -> u64,
    ) -> Result<u64, Fault> {
        let first = offset / 4;
        let n = bytes.div_ceil(4);
        for index in first..first + n {
            let word = self.words[index].load(Acquire);
            if word & STATE != WRITTEN {
                return Err(unreadable(word, WRITTEN, address, bytes));
            }
            if word & LAUNCH == u64::from(by.launch) << 8 {
                self.shadows[index].write_word(by, address)?;
            } else {
                self.shadows[index].begin([by.bits(); 2], [0; 2]);
                self.change(index, |word| word & !LAUNCH | u64::from(by.launch) << 8);
            }
        }
        let with = |word: u64, value: u64| word & (LAUNCH | STATE) | value << 32;
        if n == 1 {
            return Ok(self.change(first, |word| with(word, change(word >> 32) & 0xffff_ffff)) >> 32);
        }
        // Blocks of a kernel with wide atomics to global memory run on one thread of the host.
        let (low, high) = (self.words[first].load(Relaxed), self.words[first + 1].load(Relaxed));
        let before = low >> 32 | high >> 32 << 32;
        let after = change(before);
        self.words[first].store(with(low, after & 0xffff_ffff), Relaxed);
        self.words[first + 1].store(with(high, after >> 32), Relaxed);
        Ok(before)
    }

    /// Marks `N` words as pending: an asynchronous copy will write them.
    #[inline(always)]
    pub fn promise<const N: usize>(&self, first: usize, by: Stamp<'_>, address: u64) -> Result<(), Fault> {
        let (words, shadows) = (&self.words[first..first + N], &self.shadows[first..first + N]);
        for i in 0..N {
            let word = take_over(&words[i], &shadows[i], by, address)?;
            words[i].store(word & !LAUNCH | u64::from(by.launch) << 8 | PROMISED, Release);
        }
        Ok(())
    }

    /// The asynchronous proxy, started with `clock`, reads whole words. The records of readers stay
    /// as they are: who reads is known from elsewhere.
    pub fn load_unit(
        &self,
        first: usize,
        into: &mut [u32],
        launch: u32,
        clocks: &[Clock],
        seen: &mut u64,
        address: u64,
    ) -> Result<(), Fault> {
        for (i, value) in into.iter_mut().enumerate() {
            let word = self.words[first + i].load(Acquire);
            let address = address + 4 * i as u64;
            if word & STATE != WRITTEN {
                return Err(unreadable(word, WRITTEN, address, 4));
            }
            *value = (word >> 32) as u32;
            if word & LAUNCH == u64::from(launch) << 8 {
                for half in 0..2 {
                    check_seen(self.shadows[first + i].0[half].load(Relaxed), clocks, seen, address)?;
                }
            }
        }
        Ok(())
    }

    /// Marks words as pending, on behalf of the unit of `by` that was started with `clock`.
    pub fn promise_unit(
        &self,
        first: usize,
        n: usize,
        by: Stamp,
        clock: &[Clock; 1],
        address: u64,
    ) -> Result<(), Fault> {
        let (mut seen, mut passed) = (0, 0);
        for i in first..first + n {
            let (word, shadow) = (self.words[i].load(Acquire), &self.shadows[i].0);
            let address = address + 4 * (i - first) as u64;
            if word & PROMISED != 0 {
                return Err(Fault::Pending { address });
            }
            if word & LAUNCH == u64::from(by.launch) << 8 {
                for half in 0..2 {
                    check_seen(shadow[half].load(Relaxed), clock, &mut seen, address)?;
                    let read = shadow[2 + half].load(Relaxed);
                    if read != passed
                        && let Some(other) = by.order.and_then(|order| order.reader_after(&clock[0], read))
                    {
                        return Err(Fault::Race { address, other, other_wrote: false });
                    }
                    passed = read;
                }
            }
            self.shadows[i].begin([by.bits(); 2], [0; 2]);
            self.words[i].store(word & !LAUNCH | u64::from(by.launch) << 8 | PROMISED, Release);
        }
        Ok(())
    }

    /// Delivers pending words.
    pub fn deliver(&self, first: usize, values: &[u32], by: Stamp) {
        for (i, &value) in values.iter().enumerate() {
            let shadow = &self.shadows[first + i].0;
            shadow[0].store(by.bits(), Relaxed);
            shadow[1].store(by.bits(), Relaxed);
            let word = u64::from(value) << 32 | u64::from(by.launch) << 8 | WRITTEN;
            self.words[first + i].store(word, Release);
        }
    }

    /// Changes one word atomically; returns its old value.
    fn change(&self, index: usize, change: impl Fn(u64) -> u64) -> u64 {
        let word = &self.words[index];
        if self.concurrent {
            return word.fetch_update(Release, Acquire, |word| Some(change(word))).unwrap_or_else(|word| word);
        }
        let before = word.load(Relaxed);
        word.store(change(before), Relaxed);
        before
    }
}

/// Checks that the write `write` is one that units started with `clocks` see. `seen` is the last
/// one that was, as neighbors usually have the same.
#[inline(always)]
fn check_seen(write: u64, clocks: &[Clock], seen: &mut u64, address: u64) -> Result<(), Fault> {
    if write != *seen && write != 0 {
        if let Some(clock) = clocks.iter().find(|clock| !clock.sees(write, address)) {
            let other = unpack(write);
            return Err(match clock.is_after(write) {
                true => Fault::Unfenced { address, other },
                false => Fault::Race { address, other, other_wrote: true },
            });
        }
        *seen = write;
    }
    Ok(())
}

#[cold]
fn unreadable(word: u64, needed: u64, address: u64, bytes: usize) -> Fault {
    if word & needed << 4 != 0 { Fault::Pending { address } } else { Fault::Uninitialized { address, bytes } }
}

/// The bytes of word `word` inside `offset..offset + bytes`, as bits.
fn bytes_of_word(offset: usize, bytes: usize, word: usize) -> u64 {
    let from = offset.max(4 * word) - 4 * word;
    let to = (offset + bytes).min(4 * word + 4) - 4 * word;
    (1 << to) - (1 << from)
}

#[cfg(test)]
mod tests {
    use super::super::shadow::Time;
    use super::*;
    use crate::ptx::Scope;

    fn of_launch(launch: u32, block: u32, thread: u32, barriers: u32) -> Stamp<'static> {
        let time = Time { now: barriers, of_block: barriers, of_warp: barriers };
        Stamp::new(launch, block, thread, time, None, None)
    }

    fn by(block: u32, thread: u32, barriers: u32) -> Stamp<'static> {
        of_launch(1, block, thread, barriers)
    }

    fn load(region: &Region, by: Stamp<'_>) -> Result<u32, Fault> {
        region.load_words::<1>(0, by, 0).map(|[value]| value)
    }

    fn store(region: &Region, by: Stamp<'_>) -> Result<(), Fault> {
        region.store_words(0, [1], by, 0)
    }

    #[test]
    fn values_of_every_width_come_back() {
        for region in [Region::new(32), Region::private(32)] {
            region.store_words(0, [0x89ab_cdef, 0x0123_4567], by(0, 0, 0), 0).expect("stores");
            assert_eq!(region.load_words(0, by(0, 0, 0), 0), Ok([0x89ab_cdef, 0x0123_4567]));
            for (offset, bytes, value) in [(14, 2, 0xfeed), (13, 1, 0x42)] {
                region.store_narrow(offset, bytes, value, by(0, 0, 0), 0).expect("stores");
                assert_eq!(region.load_narrow(offset, bytes, by(0, 0, 0), 0), Ok(value));
            }
            assert_eq!(region.load_narrow(14, 2, by(0, 0, 0), 0), Ok(0xfeed));
            assert!(matches!(region.load_words::<1>(3, by(0, 0, 0), 0), Err(Fault::Uninitialized { .. })));
            assert!(region.is_written(13, 3) && !region.is_written(12, 4) && region.is_written(0, 8));
        }
    }

    #[test]
    fn the_host_copies_from_and_to_any_byte() {
        let region = Region::new(32);
        region.copy_in(3, b"action matching");
        let mut out = [0; 15];
        region.copy_out(3, &mut out);
        assert_eq!(&out, b"action matching");
        assert!(region.is_written(3, 15) && !region.is_written(2, 2) && !region.is_written(17, 2));
    }

    #[test]
    fn races_are_between_unordered_accesses_of_different_threads() {
        let race = |first: (bool, Stamp<'_>), second: (bool, Stamp<'_>)| {
            let region = Region::new(4);
            region.copy_in(0, &[0; 4]);
            let mut result = Ok(());
            for (writes, by) in [first, second] {
                result = if writes { store(&region, by) } else { load(&region, by).map(|_| ()) };
            }
            matches!(result, Err(Fault::Race { .. }))
        };
        let (read, write) = (false, true);
        assert!(race((write, by(0, 0, 0)), (read, by(0, 1, 0))));
        assert!(race((read, by(0, 0, 0)), (write, by(0, 1, 0))));
        assert!(race((write, by(0, 0, 0)), (write, by(0, 40, 0))));
        assert!(!race((read, by(0, 0, 0)), (read, by(0, 1, 0))));
        assert!(!race((write, by(0, 0, 0)), (read, by(0, 0, 0))));
        // A barrier orders threads of one block, not of different blocks.
        assert!(!race((write, by(0, 0, 0)), (read, by(0, 1, 1))));
        assert!(race((write, by(0, 0, 0)), (read, by(1, 1, 1))));
        // A warp barrier orders only threads of its warp.
        let after = |thread| Stamp::new(1, 0, thread, Time { now: 1, of_block: 0, of_warp: 1 }, None, None);
        assert!(!race((write, by(0, 0, 0)), (read, after(1))));
        assert!(race((write, by(0, 0, 0)), (read, after(33))));
        let strong = |block, thread, scope| Stamp::new(1, block, thread, Time::default(), Some(scope), None);
        let (wide, narrow) = (Scope::Device, Scope::Block);
        assert!(!race((write, strong(0, 0, wide)), (write, strong(0, 1, narrow))));
        assert!(race((write, strong(0, 0, wide)), (read, by(0, 1, 0))));
        // The scope of both must include the other.
        assert!(!race((write, strong(0, 0, wide)), (read, strong(1, 0, wide))));
        assert!(race((write, strong(0, 0, wide)), (read, strong(1, 0, narrow))));
    }

    /// The end of a launch orders all accesses, however many launches ago it was.
    #[test]
    fn launches_are_never_taken_for_each_other() {
        for launch in [2, 512, 1023, 65_537, MAX_LAUNCHES] {
            let region = Region::new(4);
            store(&region, by(0, 0, 0)).expect("stores");
            store(&region, of_launch(launch, 5, 1, 0)).expect("no race");
            load(&region, by(7, 1, 0)).expect("no race");
        }
        // Launch numbers restart after all accesses are cleared.
        let mut region = Region::new(4);
        store(&region, by(0, 0, 0)).expect("stores");
        region.forget_accesses();
        assert_eq!(load(&region, by(5, 1, 0)), Ok(1));
    }

    #[test]
    fn neighbors_share_a_word_without_a_race() {
        let region = Region::new(4);
        region.store_narrow(0, 2, 1, by(0, 0, 0), 0).expect("stores");
        region.store_narrow(2, 2, 2, by(0, 1, 0), 2).expect("stores");
        assert_eq!(region.load_narrow(2, 2, by(0, 1, 0), 2), Ok(2));
        assert!(matches!(load(&region, by(0, 1, 0)), Err(Fault::Race { .. })));
    }

    #[test]
    fn of_several_readers_each_counts() {
        let region = Region::new(4);
        region.copy_in(0, &[0; 4]);
        for thread in [3, 7] {
            load(&region, by(0, thread, 0)).expect("loads");
        }
        assert!(matches!(store(&region, by(0, 7, 0)), Err(Fault::Race { other_wrote: false, .. })));
        // Accesses before a barrier are ordered; those of another block never are.
        for (first, raced) in [(by(0, 3, 0), false), (by(1, 3, 0), true)] {
            for writer in [7, 8] {
                let region = Region::new(4);
                region.copy_in(0, &[0; 4]);
                for by in [first, by(0, 7, 1), by(0, 7, 2)] {
                    load(&region, by).expect("loads");
                }
                assert_eq!(store(&region, by(0, writer, 3)).is_err(), raced, "thread {writer}");
            }
        }
    }

    #[test]
    fn promised_bytes_are_out_of_reach_until_they_are_delivered() {
        let region = Region::private(16);
        region.promise::<4>(0, by(0, 0, 0), 0).expect("promises");
        assert_eq!(region.load_words::<1>(1, by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        assert_eq!(region.load_narrow(6, 2, by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        assert_eq!(region.store_words(2, [1], by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        assert_eq!(region.store_narrow(8, 1, 1, by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        region.deliver(0, &[7; 4], by(0, 0, 0));
        assert_eq!(region.load_words(0, by(0, 0, 0), 0), Ok([7; 4]));
    }

    #[test]
    fn bytes_promised_to_a_stream_are_out_of_reach_until_they_are_written() {
        let region = Region::new(12);
        region.copy_in(0, &[7; 12]);
        region.set_promised(2, 4, true, false);
        assert!(region.is_promised(0, 12) && region.is_promised(5, 1));
        assert!(!region.is_promised(0, 2) && !region.is_promised(6, 6));
        assert_eq!(region.load_words::<1>(0, by(0, 0, 0), 0), Err(Fault::Pending { address: 0 }));
        assert_eq!(region.store_words(1, [1], by(0, 0, 0), 4), Err(Fault::Pending { address: 4 }));
        assert_eq!(region.load_words::<1>(2, by(0, 0, 0), 8), Ok([0x0707_0707]));
        region.set_promised(2, 2, false, true);
        assert!(load(&region, by(0, 0, 0)).is_ok() && !region.is_written(0, 12));
        region.set_promised(4, 2, false, false);
        assert!(!region.is_promised(0, 12) && !region.is_written(4, 1) && region.is_written(6, 6));
    }

    #[test]
    fn cleared_memory_is_new() {
        let mut region = Region::private(4);
        store(&region, by(0, 0, 0)).expect("stores");
        region.clear();
        assert!(matches!(load(&region, by(0, 1, 0)), Err(Fault::Uninitialized { .. })));
    }
}
