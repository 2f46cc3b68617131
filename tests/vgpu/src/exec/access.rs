//! Loads, stores, atomics and asynchronous copies: from the addresses of lanes to words of regions.

use super::compute::atomic_value;
use super::warp::{Copy, Warp};
use super::{Block, Step};
use crate::fragments;
use crate::lanes::{LANES, Lanes, lanes};
use crate::memory::{Fault, LOCAL_BASE, Order, Region, SHARED_BASE};
use crate::ptx::{Address, AtomicOp, Instruction, Op, Register, Scope, Space, Strong, Type};

/// An allocation of global memory and its address.
#[derive(Clone, Copy, Default)]
pub struct Found<'a> {
    start: u64,
    region: Option<&'a Region>,
}

/// Words of each lane.
type Words<const N: usize> = [[u32; LANES]; N];

impl<'a> Block<'a> {
    /// The memory that holds `bytes` aligned bytes at an address, and their offset in it.
    #[inline(always)]
    fn place<'r>(
        &'r self,
        local: &'r [Region],
        lane: usize,
        space: Space,
        address: u64,
        bytes: usize,
        found: &mut Found<'a>,
    ) -> Result<(&'r Region, usize), Fault>
    where
        'a: 'r,
    {
        let (space, at) = match space {
            Space::Generic if address >= LOCAL_BASE => (Space::Local, address - LOCAL_BASE),
            Space::Generic if address >= SHARED_BASE => (Space::Shared, address - SHARED_BASE),
            Space::Generic => (Space::Global, address),
            Space::Shared | Space::Local => (space, address & 0xffff_ffff),
            other => (other, address),
        };
        if at & (bytes as u64 - 1) != 0 {
            return Err(Fault::Misaligned { address, bytes });
        }
        let inside = |region: &'r Region| match at as usize + bytes <= region.len() {
            true => Ok((region, at as usize)),
            false => Err(Fault::OutOfBounds { address, bytes, nearest: Some((0, region.len())) }),
        };
        match space {
            Space::Shared => inside(&self.shared),
            Space::Local => match local.get(lane) {
                Some(region) => inside(region),
                None => Err(Fault::OutOfBounds { address, bytes, nearest: Some((0, 0)) }),
            },
            _ => {
                let offset = at.wrapping_sub(found.start);
                if let Some(region) = found.region
                    && offset < region.len() as u64
                    && offset as usize + bytes <= region.len()
                {
                    return Ok((region, offset as usize));
                }
                let (region, offset) = self.launch.memory.find(at, bytes)?;
                *found = Found { start: at - offset as u64, region: Some(region) };
                Ok((region, offset))
            }
        }
    }

    fn count_access(&mut self, space: Space, at: &Lanes, mask: u32, bytes: usize, written: bool) {
        let first = at[mask.trailing_zeros() as usize];
        let shared = space == Space::Shared || space == Space::Generic && (SHARED_BASE..LOCAL_BASE).contains(&first);
        let local = space == Space::Local || space == Space::Generic && first >= LOCAL_BASE;
        if shared {
            self.counters.shared_access(at, mask, bytes);
        } else if !local {
            self.counters.global_access(at, mask, bytes, written);
        }
    }

    /// `N` words of each lane in `mask`.
    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn load_words<const N: usize>(
        &mut self,
        warp: &Warp,
        instruction: &Instruction,
        mask: u32,
        strong: Option<Scope>,
        space: Space,
        at: &Lanes,
        words: &mut Words<N>,
    ) -> Step<()> {
        let (by, mut found) = (self.stamp(warp, strong), self.found);
        for lane in lanes(mask) {
            let loaded = self
                .place(&warp.local, lane, space, at[lane], 4 * N, &mut found)
                .and_then(|(region, offset)| region.load_words::<N>(offset / 4, by.of_lane(lane), at[lane]));
            match loaded {
                Ok(values) => (0..N).for_each(|word| words[word][lane] = values[word]),
                Err(fault) => return self.fault(warp.thread(lane), instruction, &fault),
            }
        }
        self.found = found;
        Ok(())
    }

    /// 1 or 2 bytes of each lane in `mask`.
    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn load_narrow(
        &mut self,
        warp: &Warp,
        instruction: &Instruction,
        mask: u32,
        strong: Option<Scope>,
        space: Space,
        at: &Lanes,
        bytes: usize,
        words: &mut Words<1>,
    ) -> Step<()> {
        let (by, mut found) = (self.stamp(warp, strong), self.found);
        for lane in lanes(mask) {
            let loaded = self
                .place(&warp.local, lane, space, at[lane], bytes, &mut found)
                .and_then(|(region, offset)| region.load_narrow(offset, bytes, by.of_lane(lane), at[lane]));
            match loaded {
                Ok(value) => words[0][lane] = value,
                Err(fault) => return self.fault(warp.thread(lane), instruction, &fault),
            }
        }
        self.found = found;
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    pub fn load(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        strong: Option<Strong>,
        space: Space,
        ty: Type,
        dst: &[Register],
        address: Address,
    ) -> Step<()> {
        let at = addresses(warp, address);
        if space == Space::Param {
            return self.load_parameters(warp, instruction, mask, ty, dst, &at);
        }
        self.begin_access(warp, instruction)?;
        let scope = strong.map(|strong| strong.scope);
        let bytes = ty.bytes() * dst.len();
        self.count_access(space, &at, mask, bytes, false);
        match bytes {
            1 | 2 => {
                let mut words = [[0; LANES]; 1];
                self.load_narrow(warp, instruction, mask, scope, space, &at, bytes, &mut words)?;
                distribute(warp, mask, ty, dst, &words);
            }
            4 => {
                let mut words = [[0; LANES]; 1];
                self.load_words(warp, instruction, mask, scope, space, &at, &mut words)?;
                distribute(warp, mask, ty, dst, &words);
            }
            8 => {
                let mut words = [[0; LANES]; 2];
                self.load_words(warp, instruction, mask, scope, space, &at, &mut words)?;
                distribute(warp, mask, ty, dst, &words);
            }
            16 => {
                let mut words = [[0; LANES]; 4];
                self.load_words(warp, instruction, mask, scope, space, &at, &mut words)?;
                distribute(warp, mask, ty, dst, &words);
            }
            _ => return self.fail(instruction, None, format!("an access of {bytes} bytes is not supported")),
        }
        if let (Some(order), Some(strong)) = (self.order, strong) {
            let by = self.stamp(warp, scope);
            lanes(mask).for_each(|lane| order.read(by.of_lane(lane), self.location(space, at[lane]), strong));
        }
        Ok(())
    }

    /// Begins an access to memory: with an order, each has a time of its own.
    #[inline(always)]
    pub fn begin_access(&self, warp: &mut Warp, instruction: &Instruction) -> Step<()> {
        match self.order {
            None => Ok(()),
            Some(order) => self.note_access(order, warp, instruction),
        }
    }

    #[cold]
    fn note_access(&self, order: &Order, warp: &mut Warp, instruction: &Instruction) -> Step<()> {
        warp.time.now = self.after(warp.time.now, instruction)?;
        order.note(self.block, warp.index, warp.time.now, instruction.text);
        Ok(())
    }

    /// An address by which the blocks' shared memories differ.
    pub fn location(&self, space: Space, address: u64) -> u64 {
        let shared = match space {
            Space::Shared => address & 0xffff_ffff,
            Space::Generic if (SHARED_BASE..LOCAL_BASE).contains(&address) => address - SHARED_BASE,
            _ => return address,
        };
        SHARED_BASE | u64::from(self.block) << 24 | shared
    }

    fn load_parameters(
        &self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        ty: Type,
        dst: &[Register],
        at: &Lanes,
    ) -> Step<()> {
        for (index, &register) in dst.iter().enumerate() {
            let mut values = [0; LANES];
            for lane in lanes(mask) {
                let start = at[lane] as usize + index * ty.bytes();
                let Some(bytes) = self.launch.parameters.get(start..start + ty.bytes()) else {
                    return self.fail(instruction, Some(warp.thread(lane)), "reads behind the parameters");
                };
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                values[lane] = u64::from_le_bytes(word);
            }
            warp.write(register, mask, &values);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    pub fn store(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        strong: Option<Strong>,
        space: Space,
        ty: Type,
        sources: &[Register],
        address: Address,
    ) -> Step<()> {
        let at = addresses(warp, address);
        let bytes = ty.bytes() * sources.len();
        self.count_access(space, &at, mask, bytes, true);
        self.begin_access(warp, instruction)?;
        self.changes += 1;
        self.check_units(warp, instruction, mask, space, &at, bytes)?;
        let scope = strong.map(|strong| strong.scope);
        match bytes {
            1 | 2 => {
                let [words] = gather::<1>(warp, ty, sources);
                let (by, mut found) = (self.stamp(warp, scope), self.found);
                for lane in lanes(mask) {
                    let stored = self.place(&warp.local, lane, space, at[lane], bytes, &mut found).and_then(
                        |(region, offset)| region.store_narrow(offset, bytes, words[lane], by.of_lane(lane), at[lane]),
                    );
                    if let Err(fault) = stored {
                        return self.fault(warp.thread(lane), instruction, &fault);
                    }
                }
                self.found = found;
            }
            4 => self.store_words(warp, instruction, mask, scope, space, &at, &gather::<1>(warp, ty, sources))?,
            8 => self.store_words(warp, instruction, mask, scope, space, &at, &gather::<2>(warp, ty, sources))?,
            16 => self.store_words(warp, instruction, mask, scope, space, &at, &gather::<4>(warp, ty, sources))?,
            _ => return self.fail(instruction, None, format!("an access of {bytes} bytes is not supported")),
        }
        if let (Some(order), Some(strong)) = (self.order, strong) {
            let by = self.stamp(warp, scope);
            lanes(mask).for_each(|lane| order.write(by.of_lane(lane), self.location(space, at[lane]), strong));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    fn store_words<const N: usize>(
        &mut self,
        warp: &Warp,
        instruction: &Instruction,
        mask: u32,
        strong: Option<Scope>,
        space: Space,
        at: &Lanes,
        words: &Words<N>,
    ) -> Step<()> {
        let (by, mut found) = (self.stamp(warp, strong), self.found);
        for lane in lanes(mask) {
            let values: [u32; N] = std::array::from_fn(|word| words[word][lane]);
            let stored = self
                .place(&warp.local, lane, space, at[lane], 4 * N, &mut found)
                .and_then(|(region, offset)| region.store_words(offset / 4, values, by.of_lane(lane), at[lane]));
            if let Err(fault) = stored {
                return self.fault(warp.thread(lane), instruction, &fault);
            }
        }
        self.found = found;
        Ok(())
    }

    pub fn atomic(&mut self, warp: &mut Warp, instruction: &Instruction, mask: u32) -> Step<()> {
        let Op::Atomic { op, strong, space, ty, dst, address, b, c } = &instruction.op else { return Ok(()) };
        let (at, bytes) = (addresses(warp, *address), ty.bytes());
        self.count_access(*space, &at, mask, bytes, true);
        self.begin_access(warp, instruction)?;
        self.check_units(warp, instruction, mask, *space, &at, bytes)?;
        let (b, c) = (*warp.register(*b), *warp.register(*c));
        let mut before = [0; LANES];
        let (by, mut found) = (self.stamp(warp, Some(strong.scope)), self.found);
        for lane in lanes(mask) {
            let change = |old: u64| atomic_value(*op, *ty, old, b[lane], c[lane]);
            let changed = self
                .place(&warp.local, lane, *space, at[lane], bytes, &mut found)
                .and_then(|(region, offset)| region.atomic(offset, bytes, by.of_lane(lane), at[lane], change));
            let old = match changed {
                Ok(old) => old,
                Err(fault) => return self.fault(warp.thread(lane), instruction, &fault),
            };
            before[lane] = old;
            self.changes += u64::from(change(old) != old);
            if let Some(order) = self.order {
                let (by, location) = (by.of_lane(lane), self.location(*space, at[lane]));
                // A comparison that fails writes nothing.
                if *op == AtomicOp::Cas && ty.truncate(old) != ty.truncate(b[lane]) {
                    order.read(by, location, *strong);
                } else {
                    order.change(by, location, *strong);
                }
            }
        }
        self.found = found;
        warp.write(*dst, mask, &before);
        Ok(())
    }

    /// Each lane gives the address of a row of 8 halves, and gets its elements of the fragments.
    pub fn load_matrix(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        transposed: bool,
        dst: &[Register],
        address: Address,
    ) -> Step<()> {
        let at = addresses(warp, address);
        self.begin_access(warp, instruction)?;
        let mut words = [[0; LANES]; 4];
        for (matrix, &register) in dst.iter().enumerate() {
            let mask = 0xff << (8 * matrix);
            self.counters.shared_access(&at, mask, 16);
            self.load_words(warp, instruction, mask, None, Space::Shared, &at, &mut words)?;
            let mut rows = [[0; 4]; 8];
            for (row, halves) in rows.iter_mut().enumerate() {
                *halves = [0, 1, 2, 3].map(|word: usize| words[word][8 * matrix + row]);
            }
            warp.write(register, u32::MAX, &fragments::load_matrix(&rows, transposed));
        }
        Ok(())
    }

    /// Starts copies of `N` words per lane. The first `from_source` bytes are read, the rest are
    /// zeros.
    #[allow(clippy::too_many_arguments)] // the parts of one instruction
    pub fn copy_async<const N: usize>(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        shared: Address,
        global: Address,
        from_source: Option<Register>,
    ) -> Step<()> {
        let (to, from) = (addresses(warp, shared), addresses(warp, global));
        let read = from_source.map_or([4 * N as u64; LANES], |bytes| *warp.register(bytes));
        self.counters.global_access(&from, mask, 4 * N, false);
        self.counters.shared_access(&to, mask, 4 * N);
        self.begin_access(warp, instruction)?;
        self.changes += 1;
        self.check_units(warp, instruction, mask, Space::Shared, &to, 4 * N)?;
        let (by, mut found) = (self.stamp(warp, None), self.found);
        for lane in lanes(mask) {
            let by = by.of_lane(lane);
            let source = if read[lane] as usize >= 4 * N {
                self.place(&warp.local, lane, Space::Global, from[lane], 4 * N, &mut found)
                    .and_then(|(region, offset)| region.load_words::<N>(offset / 4, by, from[lane]))
            } else {
                self.part_of_source(warp, lane, from[lane], read[lane] as usize, &mut found)
            };
            let copy = source.and_then(|values| {
                let (region, offset) = self.place(&warp.local, lane, Space::Shared, to[lane], 4 * N, &mut found)?;
                region.promise::<N>(offset / 4, by, to[lane])?;
                let mut words = [0; 4];
                words[..N].copy_from_slice(&values);
                Ok(Copy { first: offset / 4, words, n_words: N })
            });
            match copy {
                Ok(copy) => warp.copies[lane].copies.push_back(copy),
                Err(fault) => return self.fault(warp.thread(lane), instruction, &fault),
            }
        }
        self.found = found;
        Ok(())
    }

    /// Prefetched addresses must be in an allocation; whether the data are initialized is checked
    /// when they are read.
    pub fn prefetch(&mut self, warp: &Warp, instruction: &Instruction, mask: u32, address: Address) -> Step<()> {
        let (at, mut found) = (addresses(warp, address), self.found);
        for lane in lanes(mask) {
            if let Err(fault) = self.place(&warp.local, lane, Space::Global, at[lane], 4, &mut found) {
                return self.fault(warp.thread(lane), instruction, &fault);
            }
        }
        self.found = found;
        Ok(())
    }

    /// The first `bytes` bytes of `N` words, and zeros.
    fn part_of_source<const N: usize>(
        &self,
        warp: &Warp,
        lane: usize,
        from: u64,
        bytes: usize,
        found: &mut Found<'a>,
    ) -> Result<[u32; N], Fault> {
        if !from.is_multiple_of(4 * N as u64) {
            return Err(Fault::Misaligned { address: from, bytes: 4 * N });
        }
        let by = self.stamp(warp, None).of_lane(lane);
        let mut words = [0; N];
        for at in (0..bytes).step_by(2) {
            let n = (bytes - at).min(2);
            let address = from + at as u64;
            let (region, offset) = self.place(&warp.local, lane, Space::Global, address, n, found)?;
            words[at / 4] |= region.load_narrow(offset, n, by, address)? << (8 * (at % 4));
        }
        Ok(words)
    }

    /// Delivers the copies of the lanes of `mask`, except for their last `pending` groups.
    pub fn wait_for_copies(
        &mut self,
        warp: &mut Warp,
        instruction: &Instruction,
        mask: u32,
        pending: usize,
    ) -> Step<()> {
        self.begin_access(warp, instruction)?;
        let by = self.stamp(warp, None);
        for lane in lanes(mask) {
            let of_lane = &mut warp.copies[lane];
            while of_lane.groups.len() > pending {
                let n = of_lane.groups.pop_front().unwrap_or(0);
                for Copy { first, words, n_words } in of_lane.copies.drain(..n) {
                    self.shared.deliver(first, &words[..n_words], by.of_lane(lane));
                    self.changes += 1;
                }
            }
        }
        Ok(())
    }
}

/// The address that a lane has.
pub(super) fn address_of(warp: &Warp, address: Address, lane: usize) -> u64 {
    warp.register(address.base)[lane].wrapping_add(address.offset as u64)
}

#[inline(always)]
fn addresses(warp: &Warp, address: Address) -> Lanes {
    let mut at = *warp.register(address.base);
    at.iter_mut().for_each(|at| *at = at.wrapping_add(address.offset as u64));
    at
}

/// Splits values of type `ty` into consecutive words.
#[inline(always)]
fn gather<const N: usize>(warp: &Warp, ty: Type, sources: &[Register]) -> Words<N> {
    let mut words = [[0; LANES]; N];
    let bytes = ty.bytes();
    for (index, &source) in sources.iter().enumerate() {
        let values = warp.register(source);
        match bytes {
            4 => {
                for lane in 0..LANES {
                    words[index][lane] = values[lane] as u32;
                }
            }
            8 => (0..LANES).for_each(|lane| {
                words[2 * index][lane] = values[lane] as u32;
                words[2 * index + 1][lane] = (values[lane] >> 32) as u32;
            }),
            _ => {
                let (word, shift) = (index * bytes / 4, 8 * (index * bytes % 4));
                (0..LANES).for_each(|lane| words[word][lane] |= (ty.truncate(values[lane]) as u32) << shift);
            }
        }
    }
    words
}

/// Writes loaded words to the registers of values of type `ty`.
#[inline(always)]
fn distribute<const N: usize>(warp: &mut Warp, mask: u32, ty: Type, dst: &[Register], words: &Words<N>) {
    let bytes = ty.bytes();
    for (index, &register) in dst.iter().enumerate() {
        let mut values: Lanes = match bytes {
            4 => words[index].map(u64::from),
            8 => std::array::from_fn(|lane| {
                u64::from(words[2 * index][lane]) | u64::from(words[2 * index + 1][lane]) << 32
            }),
            _ => {
                let (word, shift) = (index * bytes / 4, 8 * (index * bytes % 4));
                words[word].map(|word| ty.truncate(u64::from(word >> shift)))
            }
        };
        // Narrow signed values are sign-extended.
        if bytes < 4 && ty.is_signed() {
            values = values.map(|bits| ty.extend(bits) as u64 & 0xffff_ffff);
        }
        warp.write(register, mask, &values);
    }
}
