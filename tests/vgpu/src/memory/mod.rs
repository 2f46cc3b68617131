//! Memory with a shadow, which records allocations, written bytes, and the last accesses to each
//! word, and the order of accesses.

mod order;
mod region;
mod shadow;

use std::collections::BTreeMap;

pub use order::{Clock, Order};
pub use region::{MAX_LAUNCHES, Region};
pub use shadow::{Access, MAX_BLOCKS, MAX_TIME, Stamp, Time, UNITS};

/// Start of shared and local memory among generic addresses; all addresses below are global.
pub const SHARED_BASE: u64 = 1 << 56;
pub const LOCAL_BASE: u64 = 1 << 57;

/// The error of an access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No allocation holds the bytes. The nearest one below, its size, and the distance from its
    /// end.
    OutOfBounds {
        address: u64,
        bytes: usize,
        nearest: Option<(u64, usize)>,
    },
    Misaligned {
        address: u64,
        bytes: usize,
    },
    Uninitialized {
        address: u64,
        bytes: usize,
    },
    /// With the earlier access, and whether it was a write.
    Race {
        address: u64,
        other: Access,
        other_wrote: bool,
    },
    /// The asynchronous proxy accesses what a thread wrote without a proxy fence in between.
    Unfenced {
        address: u64,
        other: Access,
    },
    /// Bytes that an asynchronous copy has not delivered yet.
    Pending {
        address: u64,
    },
}

/// Allocations of global memory.
#[derive(Default)]
pub struct GlobalMemory {
    regions: BTreeMap<u64, Region>,
    next: u64,
    pub used: usize,
}

/// Distance between the addresses of two devices.
const OF_A_DEVICE: u64 = 1 << 44;
/// Unallocated bytes between allocations, so that an access beyond the end is noticed.
const GAP: u64 = 4096;
const FIRST: u64 = 0x7_0000_0000;

impl GlobalMemory {
    /// That of device `ordinal`: devices have no address in common.
    pub fn of_device(ordinal: usize) -> GlobalMemory {
        GlobalMemory { next: ordinal as u64 * OF_A_DEVICE + FIRST, ..GlobalMemory::default() }
    }

    /// The address of `bytes` new bytes, aligned to 512.
    pub fn allocate(&mut self, bytes: usize) -> u64 {
        let address = self.next.max(FIRST).next_multiple_of(512);
        self.next = address + bytes as u64 + GAP;
        self.used += bytes;
        self.regions.insert(address, Region::new(bytes));
        address
    }

    /// Frees an allocation; `false` if none starts at the address.
    pub fn free(&mut self, address: u64) -> bool {
        self.regions.remove(&address).map(|region| self.used -= region.len()).is_some()
    }

    /// Clears all records of accesses, so that launch numbers can restart.
    pub fn forget_accesses(&mut self) {
        self.regions.values_mut().for_each(Region::forget_accesses);
    }

    /// The allocation that holds `bytes` bytes at `address`, and the offset in it.
    pub fn find(&self, address: u64, bytes: usize) -> Result<(&Region, usize), Fault> {
        let below = self.regions.range(..=address).next_back();
        if let Some((&start, region)) = below
            && (address - start) as usize + bytes <= region.len()
        {
            return Ok((region, (address - start) as usize));
        }
        let nearest = below.map(|(&start, region)| (start, region.len()));
        Err(Fault::OutOfBounds { address, bytes, nearest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
