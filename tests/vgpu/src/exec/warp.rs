//! A warp: the registers of its lanes, and the groups of lanes that share a program counter.

use std::collections::VecDeque;

use super::warpgroup::Products;
use crate::lanes::{LANES, Lanes, lanes};
use crate::memory::{Region, Time};
use crate::ptx::{Kernel, Register};

/// Lanes with the same program counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub pc: usize,
    pub mask: u32,
    /// Waits at its instruction for other lanes of the warp.
    pub waits: bool,
}

/// An asynchronous copy in progress: `n_words` words to shared memory from word `first` on.
pub struct Copy {
    pub first: usize,
    pub words: [u32; 4],
    pub n_words: usize,
}

/// Asynchronous copies of one lane that have not been waited for.
#[derive(Default)]
pub struct Copies {
    /// Copies of the lane's groups, oldest first, then copies that are not in a group yet.
    pub copies: VecDeque<Copy>,
    /// Number of copies in each group.
    pub groups: VecDeque<usize>,
}

impl Copies {
    /// Puts all copies that are in no group into a new group.
    pub fn commit(&mut self) {
        self.groups.push_back(self.copies.len() - self.groups.iter().sum::<usize>());
    }
}

/// See [`Warp::state`].
pub struct State {
    groups: Vec<Group>,
    registers: Vec<Lanes>,
}

pub struct Warp {
    pub index: u32,
    /// Values of each register in each lane.
    registers: Vec<Lanes>,
    pub groups: Vec<Group>,
    pub exited: u32,
    pub time: Time,
    /// At a block barrier.
    pub at_barrier: bool,
    /// At a barrier of some warps: its number.
    pub named: Option<u32>,
    /// At an instruction that needs the whole warpgroup: its index.
    pub rendezvous: Option<usize>,
    /// The `mbarrier` that it last tested in vain, the phase or its parity, and which of them.
    pub waits_for: Option<(u32, u32, bool)>,
    /// In a `try_wait`, or about to repeat it after its time limit.
    pub asleep: bool,
    pub awakened: bool,
    pub products: Products,
    /// Others should run next.
    pub yields: bool,
    /// The last instruction that read what others may write, and a lane that executed it, since the
    /// block began or passed a barrier.
    pub polled: Option<(usize, usize)>,
    /// Lanes that executed something since this was last cleared.
    pub stepped: u32,
    pub local: Vec<Region>,
    pub copies: [Copies; LANES],
}

impl Warp {
    /// A warp that runs `kernel` in each of its blocks.
    pub fn new(index: u32, kernel: &Kernel) -> Warp {
        let local = if kernel.local_bytes > 0 { LANES } else { 0 };
        Warp {
            index,
            registers: vec![[0; LANES]; kernel.n_registers],
            groups: Vec::new(),
            exited: 0,
            time: Time::default(),
            at_barrier: false,
            named: None,
            rendezvous: None,
            waits_for: None,
            asleep: false,
            awakened: false,
            products: Products::new(kernel),
            yields: false,
            polled: None,
            stepped: 0,
            local: (0..local).map(|_| Region::private(kernel.local_bytes)).collect(),
            copies: Default::default(),
        }
    }

    /// Resets the warp to the beginning of a block of `n_threads` threads.
    pub fn restart(&mut self, n_threads: u32) {
        let live = (n_threads - self.index * LANES as u32).min(LANES as u32);
        let mask = u32::MAX >> (LANES as u32 - live);
        self.registers.fill([0; LANES]);
        self.groups.clear();
        self.groups.push(Group { pc: 0, mask, waits: false });
        self.exited = !mask;
        (self.time, self.at_barrier, self.polled) = (Time::default(), false, None);
        (self.named, self.rendezvous, self.waits_for) = (None, None, None);
        (self.asleep, self.awakened) = (false, false);
        self.products.restart();
        self.local.iter_mut().for_each(Region::clear);
        self.copies.iter_mut().for_each(|copies| {
            copies.copies.clear();
            copies.groups.clear();
        });
    }

    /// True at a barrier, or at an instruction of its warpgroup.
    pub fn meets_others(&self) -> bool {
        self.at_barrier | self.named.is_some() | self.rendezvous.is_some()
    }

    /// True if its threads have neither ended nor wait for other warps.
    pub fn is_ready(&self) -> bool {
        !self.meets_others() && !self.asleep && !self.groups.is_empty()
    }

    /// Everything that decides what its threads do next, but for memory.
    pub fn state(&self) -> State {
        State { groups: self.groups.clone(), registers: self.registers.clone() }
    }

    /// True if it is in `state`.
    pub fn is_in(&self, state: &State) -> bool {
        self.groups == state.groups && self.registers == state.registers
    }

    pub fn thread(&self, lane: usize) -> u32 {
        self.index * LANES as u32 + lane as u32
    }

    #[inline(always)]
    pub fn register(&self, register: Register) -> &Lanes {
        &self.registers[register as usize]
    }

    pub fn register_mut(&mut self, register: Register) -> &mut Lanes {
        &mut self.registers[register as usize]
    }

    /// Writes the lanes of `mask`. The register for `_` is never read.
    #[inline(always)]
    pub fn write(&mut self, register: Register, mask: u32, values: &Lanes) {
        let target = &mut self.registers[register as usize];
        if mask == u32::MAX {
            *target = *values;
        } else {
            lanes(mask).for_each(|lane| target[lane] = values[lane]);
        }
    }

    /// Joins groups with the same program counter.
    pub fn merge(&mut self) {
        let groups = &mut self.groups;
        let mut index = 0;
        while index < groups.len() {
            let mut other = index + 1;
            while other < groups.len() {
                if groups[other].pc == groups[index].pc {
                    groups[index].mask |= groups[other].mask;
                    groups[index].waits = false;
                    groups.swap_remove(other);
                } else {
                    other += 1;
                }
            }
            index += 1;
        }
    }
}
