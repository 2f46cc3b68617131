//! The device: memory, modules and launches.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};

use crate::counters::Counters;
use crate::exec::{Failure, Launch, MAX_THREADS, Random, Worker};
use crate::memory::{GlobalMemory, MAX_BLOCKS, MAX_LAUNCHES};
use crate::ptx::{Kernel, Module, parse_module};

/// Maximum shared memory of a block without opting in to more.
pub const SHARED_WITHOUT_OPT_IN: usize = 48 << 10;

/// Maximum shared memory of a block: that of sm_80, unless `VGPU_SHARED` is set.
pub fn shared_limit() -> usize {
    static LIMIT: LazyLock<usize> =
        LazyLock::new(|| std::env::var("VGPU_SHARED").ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(163 << 10));
    *LIMIT
}

/// A loaded module with its variables in memory.
pub struct LoadedModule {
    pub module: Arc<Module>,
    pub globals: Vec<u64>,
}

/// One virtual GPU.
pub struct Device {
    pub memory: GlobalMemory,
    pub modules: Vec<Option<LoadedModule>>,
    /// By kernel name.
    pub counters: HashMap<String, Counters>,
    /// Parsed modules by their text, for programs that load one repeatedly.
    understood: HashMap<String, Arc<Module>>,
    n_launches: u32,
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
}

impl Device {
    /// A device whose random orders derive from `seed`.
    pub fn new(seed: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Device {
            memory: GlobalMemory::default(),
            modules: Vec::new(),
            counters: HashMap::new(),
            understood: HashMap::new(),
            n_launches: 0,
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
        let threads: u64 = sizes.block.iter().map(|&n| u64::from(n)).product();
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
        let most = shared_limit();
        if shared > most {
            return Err(format!("{name}: {shared} bytes of shared memory, but a block has at most {most}"));
        }
        if sizes.grid.iter().map(|&n| u128::from(n)).product::<u128>() > u128::from(MAX_BLOCKS) {
            return Err(format!(
                "{name}: more than {MAX_BLOCKS} blocks: races between them could no longer be told apart"
            ));
        }
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
            number: self.n_launches,
            seed: self.seed,
        };
        let (counters, failure) = run(&launch, self.threads);
        self.counters.entry(name.clone()).or_default().add(&counters);
        match failure {
            None => Ok(()),
            Some(Failure { message, instruction, source: (file, line), block, thread }) => {
                let file = loaded.module.files.get(&file).map_or("?", String::as_str);
                let thread = thread.map_or(String::new(), |thread| format!(", thread {thread}"));
                Err(format!("{name}: {message}\n  at {file}:{line}, block {block}{thread}\n  in {instruction}"))
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

/// Runs all blocks, in a random order, on the host's cores. The first failure stops the others.
fn run(launch: &Launch, threads: usize) -> (Counters, Option<Failure>) {
    let n_blocks: u32 = launch.grid.iter().product();
    let mut order: Vec<u32> = (0..n_blocks).collect();
    let mut random = Random::new(launch.seed.wrapping_add(u64::from(launch.number)));
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let result = Mutex::new((Counters::default(), None));
    let work = || {
        let mut worker = Worker::new(launch);
        let mut failure = None;
        while !stop.load(Relaxed) {
            let Some(&block) = order.get(next.fetch_add(1, Relaxed)) else { break };
            if let Err(failed) = worker.run(block) {
                stop.store(true, Relaxed);
                failure = Some(*failed);
            }
        }
        let mut result = result.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        result.0.add(worker.counters());
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
        let sizes = Sizes { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, allowed_dynamic_shared: 0 };
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
