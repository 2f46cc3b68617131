//! The device: memory, modules and launches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};

use crate::counters::{Counters, Launches};
use crate::exec::{Failure, Launch, MAX_THREADS, Random, Residents};
use crate::memory::{GlobalMemory, MAX_BLOCKS, MAX_LAUNCHES, Order};
use crate::ptx::{Kernel, Module, parse_module};

/// Maximum shared memory of a block without opting in to more.
pub const SHARED_WITHOUT_OPT_IN: usize = 48 << 10;

/// The card that a device imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Compute capability: 80 for 8.0.
    pub capability: u32,
    /// Maximum shared memory of a block.
    pub shared: usize,
}

impl Card {
    pub const A100: Card = Card { capability: 80, shared: 163 << 10 };
    pub const H100: Card = Card { capability: 90, shared: 227 << 10 };

    /// The cards that `list` names by their compute capability, separated by commas.
    ///
    /// # Errors
    /// A name that is not known.
    pub fn named(list: &str) -> Result<Vec<Card>, String> {
        let card = |name: &str| match name {
            "8.0" => Ok(Card::A100),
            "9.0" => Ok(Card::H100),
            _ => Err(format!("there is no card {name:?}: use 8.0, 9.0, or several as in 8.0,9.0")),
        };
        list.split(',').map(card).collect()
    }
}

/// Multiprocessors: four, unless `VGPU_MULTIPROCESSORS` is set.
pub fn multiprocessors() -> usize {
    static NUMBER: LazyLock<usize> = LazyLock::new(|| {
        std::env::var("VGPU_MULTIPROCESSORS").ok().and_then(|number| number.parse().ok()).unwrap_or(4).max(1)
    });
    *NUMBER
}

// Limits of a multiprocessor (CUDA C++ Programming Guide, "Compute Capabilities", 8.0).
pub const THREADS: usize = 2048;
pub const BLOCKS: usize = 32;
pub const REGISTERS: usize = 65_536;
/// Shared memory that a block takes in addition to its own.
pub const RESERVED_SHARED: usize = 1024;

/// Registers of a thread: PTX does not state them, so as many as a compiler would give to a large
/// kernel, if so many threads fit. A kernel whose warpgroups pass them on (`setmaxnreg`) is given
/// all that its launch bounds leave.
pub fn registers_of_thread(kernel: &Kernel) -> usize {
    const OF_LARGE_KERNEL: usize = 128;
    const MOST: usize = 248;
    let threads = kernel.max_threads.unwrap_or(MAX_THREADS).clamp(1, MAX_THREADS).next_multiple_of(32) as usize;
    let fit = REGISTERS / (threads * kernel.min_blocks.clamp(1, BLOCKS as u32) as usize);
    (fit / 8 * 8).clamp(8, if kernel.shares_registers { MOST } else { OF_LARGE_KERNEL })
}

/// Blocks of a kernel that a multiprocessor can hold at the same time.
pub fn occupancy(kernel: &Kernel, threads: usize, dynamic_shared: usize, card: Card) -> usize {
    let shared = kernel.shared_bytes + dynamic_shared + RESERVED_SHARED;
    let threads = threads.max(1).next_multiple_of(32);
    let by_registers = REGISTERS / (registers_of_thread(kernel) * threads);
    (THREADS / threads).min(by_registers).min((card.shared + RESERVED_SHARED) / shared).min(BLOCKS)
}

/// The same on hardware, where the compiler gives a kernel with launch bounds as many registers as
/// the bounds leave: no more blocks than they ask for.
fn resident(kernel: &Kernel, threads: usize, dynamic_shared: usize, card: Card) -> usize {
    let most = if kernel.min_blocks > 0 { kernel.min_blocks as usize } else { BLOCKS };
    occupancy(kernel, threads, dynamic_shared, card).min(most)
}

/// A loaded module with its variables in memory.
pub struct LoadedModule {
    pub module: Arc<Module>,
    pub globals: Vec<u64>,
}

/// One virtual GPU.
pub struct Device {
    pub card: Card,
    pub memory: GlobalMemory,
    pub modules: Vec<Option<LoadedModule>>,
    /// By kernel name.
    pub counters: HashMap<String, Counters>,
    /// By kernel name.
    pub launches: HashMap<String, Launches>,
    /// Parsed modules by their text, for programs that load one repeatedly.
    understood: HashMap<String, Arc<Module>>,
    n_launches: u32,
    /// Address of the workspace of cooperative launches, once there was one.
    workspace: Option<u64>,
    seed: u64,
    threads: usize,
}

/// Sizes of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    /// Dynamic shared memory allowed by the function attribute.
    pub allowed_dynamic_shared: usize,
    /// All blocks must be on the device at the same time.
    pub cooperative: bool,
}

impl Sizes {
    fn n_blocks(&self) -> u128 {
        self.grid.iter().map(|&n| u128::from(n)).product()
    }

    fn n_threads(&self) -> u64 {
        self.block.iter().map(|&n| u64::from(n)).product()
    }

    /// Blocks of `kernel` that the device can hold at the same time.
    pub fn capacity(&self, kernel: &Kernel, card: Card) -> usize {
        multiprocessors() * occupancy(kernel, self.n_threads() as usize, self.dynamic_shared, card)
    }

    /// True if a cooperative launch of `kernel` has more blocks than the device can hold.
    pub fn is_too_large(&self, kernel: &Kernel, card: Card) -> bool {
        self.cooperative && self.n_blocks() > self.capacity(kernel, card) as u128
    }
}

impl Device {
    /// A virtual A100 whose random orders derive from `seed`.
    pub fn new(seed: u64) -> Self {
        Device::of(Card::A100, seed)
    }

    /// The same, imitating `card`.
    pub fn of(card: Card, seed: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            card,
            memory: GlobalMemory::default(),
            modules: Vec::new(),
            counters: HashMap::new(),
            launches: HashMap::new(),
            understood: HashMap::new(),
            n_launches: 0,
            workspace: None,
            seed,
            threads,
        }
    }

    /// Loads PTX; returns the module's number.
    ///
    /// # Errors
    /// The text that cannot be understood.
    pub fn load(&mut self, ptx: &str) -> Result<usize, String> {
        let module = match self.understood.get(ptx) {
            Some(module) => module.clone(),
            None => {
                let module = Arc::new(parse_module(ptx)?);
                self.understood.insert(ptx.to_string(), module.clone());
                module
            }
        };
        if !module.target.runs_on(self.card.capability) {
            let capability = self.card.capability;
            return Err(format!("PTX for {}, which a card of sm_{capability} does not run", module.target));
        }
        let globals = (module.globals.iter())
            .map(|global| {
                let address = self.memory.allocate(global.size.max(1));
                if let Ok((region, offset)) = self.memory.find(address, global.size) {
                    let mut bytes = global.initial.clone();
                    bytes.resize(global.size, 0);
                    region.copy_in(offset, &bytes);
                }
                address
            })
            .collect();
        self.modules.push(Some(LoadedModule { module, globals }));
        Ok(self.modules.len() - 1)
    }

    /// The kernel `name` of module `module`, as its index.
    pub fn kernel(&self, module: usize, name: &str) -> Option<usize> {
        self.modules.get(module)?.as_ref()?.module.kernels.iter().position(|kernel| kernel.name == name)
    }

    /// Address and size of variable `name` of module `module`.
    pub fn global(&self, module: usize, name: &str) -> Option<(u64, usize)> {
        let loaded = self.modules.get(module)?.as_ref()?;
        let index = loaded.module.globals.iter().position(|global| global.name == name)?;
        Some((loaded.globals[index], loaded.module.globals[index].size))
    }

    /// Runs kernel `kernel` of module `module` to its end.
    ///
    /// # Errors
    /// The error of the launch or the kernel: kernel, source line, block and thread.
    pub fn launch(&mut self, module: usize, kernel: usize, parameters: &[&[u8]], sizes: Sizes) -> Result<(), String> {
        let Some(Some(loaded)) = self.modules.get(module) else {
            return Err("a launch from a module that is gone".into());
        };
        let kernel = &loaded.module.kernels[kernel];
        let name = &kernel.name;
        let packed = pack(kernel, parameters)?;
        let threads = sizes.n_threads();
        if threads == 0 || sizes.grid.contains(&0) {
            return Err(format!("{name}: an empty launch: grid {:?}, block {:?}", sizes.grid, sizes.block));
        }
        let limit = kernel.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS);
        if threads > u64::from(limit) {
            return Err(format!(
                "{name}: {threads} threads in a block, but the kernel was compiled for at most {limit}"
            ));
        }
        let shared = kernel.shared_bytes + sizes.dynamic_shared;
        if sizes.dynamic_shared
            > sizes.allowed_dynamic_shared.max(SHARED_WITHOUT_OPT_IN.saturating_sub(kernel.shared_bytes))
        {
            return Err(format!(
                "{name}: {} bytes of dynamic shared memory without the attribute that allows more than {SHARED_WITHOUT_OPT_IN}",
                sizes.dynamic_shared
            ));
        }
        let most = self.card.shared;
        if shared > most {
            return Err(format!("{name}: {shared} bytes of shared memory, but a block has at most {most}"));
        }
        if sizes.n_blocks() > u128::from(MAX_BLOCKS) {
            return Err(format!(
                "{name}: more than {MAX_BLOCKS} blocks: races between them could no longer be told apart"
            ));
        }
        if sizes.is_too_large(kernel, self.card) {
            let (blocks, most) = (sizes.n_blocks(), sizes.capacity(kernel, self.card));
            return Err(format!(
                "{name}: a cooperative launch of {blocks} blocks, but the device holds {most} at the same time"
            ));
        }
        let workspace =
            if sizes.cooperative { *self.workspace.get_or_insert_with(|| workspace(&mut self.memory)) } else { 0 };
        if self.n_launches == MAX_LAUNCHES {
            self.memory.forget_accesses();
            self.n_launches = 0;
        }
        self.n_launches += 1;
        let launch = Launch {
            kernel,
            parameters: &packed,
            grid: sizes.grid,
            block: sizes.block,
            dynamic_shared: sizes.dynamic_shared,
            memory: &self.memory,
            globals: &loaded.globals,
            workspace,
            number: self.n_launches,
            seed: self.seed,
        };
        // Blocks that exchange nothing run one after the other on each core of the host.
        let together = sizes.cooperative || kernel.synchronizes;
        let (counters, failure) = if together {
            run(&launch, 1, Some(sizes.capacity(kernel, self.card).max(1)))
        } else {
            run(&launch, self.threads, None)
        };
        self.counters.entry(name.clone()).or_default().add(&counters);
        let resident = resident(kernel, threads as usize, sizes.dynamic_shared, self.card);
        self.launches.entry(name.clone()).or_default().add(sizes.n_blocks() as u64, resident as u64);
        match failure {
            None => Ok(()),
            Some(Failure { message, instruction, source: (file, line), block, thread, other }) => {
                let path = |file: u32| loaded.module.files.get(&file).map_or("?", String::as_str);
                let thread = thread.map_or(String::new(), |thread| format!(", thread {thread}"));
                let other = other.map_or(String::new(), |((file, line), instruction)| {
                    format!("\n  the other at {}:{line}\n  in {instruction}", path(file))
                });
                let file = path(file);
                Err(format!("{name}: {message}\n  at {file}:{line}, block {block}{thread}\n  in {instruction}{other}"))
            }
        }
    }
}

/// Packs the parameters at the offsets that the kernel expects.
fn pack(kernel: &Kernel, parameters: &[&[u8]]) -> Result<Vec<u8>, String> {
    let name = &kernel.name;
    if parameters.len() != kernel.parameters.len() {
        return Err(format!(
            "{name}: {} arguments, but the kernel takes {}",
            parameters.len(),
            kernel.parameters.len()
        ));
    }
    let mut packed = vec![0; kernel.parameter_bytes];
    for (bytes, parameter) in parameters.iter().zip(&kernel.parameters) {
        if bytes.len() != parameter.bytes {
            return Err(format!(
                "{name}: argument {} has {} bytes, but the kernel takes {}",
                parameter.name,
                bytes.len(),
                parameter.bytes
            ));
        }
        packed[parameter.offset..parameter.offset + bytes.len()].copy_from_slice(bytes);
    }
    Ok(packed)
}

/// The workspace of cooperative launches, which is zero before the first.
fn workspace(memory: &mut GlobalMemory) -> u64 {
    const BYTES: usize = 64;
    let address = memory.allocate(BYTES);
    if let Ok((region, offset)) = memory.find(address, BYTES) {
        region.copy_in(offset, &[0; BYTES]);
    }
    address
}

/// Runs all blocks, in a random order, on `threads` cores of the host; or so many `together` on
/// one, with a record of what orders them. The first failure stops the others.
fn run(launch: &Launch, threads: usize, together: Option<usize>) -> (Counters, Option<Failure>) {
    let n_blocks: u32 = launch.grid.iter().product();
    let mut order: Vec<u32> = (0..n_blocks).collect();
    let mut random = Random::new(launch.seed.wrapping_add(u64::from(launch.number)));
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let result = Mutex::new((Counters::default(), None));
    let work = || {
        let accesses = together.map(|_| Order::default());
        let mut residents = Residents::new(launch, accesses.as_ref(), together.unwrap_or(1));
        let outcome = residents.run(|| {
            let index = next.fetch_add(1, Relaxed);
            let block = order.get(index).filter(|_| !stop.load(Relaxed))?;
            Some((*block, order.len() - index - 1))
        });
        let failure = outcome.err().map(|failed| *failed);
        stop.fetch_or(failure.is_some(), Relaxed);
        let mut result = result.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        result.0.add(&residents.counters());
        if result.1.is_none() {
            result.1 = failure;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(order.len()) {
            scope.spawn(work);
        }
        work();
    });
    result.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No race with a write of any earlier launch by another thread, also after launch numbers have
    /// wrapped around.
    #[test]
    fn launches_without_end_do_not_race() {
        const PTX: &str = ".version 8.0\n.target sm_80\n.address_size 64
            .visible .entry k(.param .u64 p, .param .u32 first, .param .u32 last)
            {
            .reg .b64 %rd<2>; .reg .b32 %r<4>; .reg .pred %p<2>;
            ld.param.u64 %rd1, [p]; ld.param.u32 %r2, [first]; ld.param.u32 %r3, [last];
            mov.u32 %r1, %tid.x;
            setp.lt.u32 %p1, %r1, %r2;
            @%p1 ret;
            setp.gt.u32 %p1, %r1, %r3;
            @%p1 ret;
            st.global.u32 [%rd1], %r1;
            ret;
            }";
        let mut device = Device::new(0);
        let module = device.load(PTX).expect("loads");
        let word = device.memory.allocate(4);
        let sizes =
            Sizes { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, allowed_dynamic_shared: 0, cooperative: false };
        let launch = |device: &mut Device, first: u32, last: u32| {
            device.launch(module, 0, &[&word.to_le_bytes(), &first.to_le_bytes(), &last.to_le_bytes()], sizes)
        };
        for thread in 0..2000 {
            launch(&mut device, thread % 31, thread % 31).expect("runs");
        }
        device.n_launches = MAX_LAUNCHES - 1;
        (0..3).for_each(|thread| launch(&mut device, thread, thread).expect("runs"));
        assert_eq!(device.n_launches, 2);
        assert!(launch(&mut device, 3, 4).expect_err("races").contains("data race"));
    }
}
