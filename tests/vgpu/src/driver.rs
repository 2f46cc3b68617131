//! The driver interface (CUDA Driver API): the functions that a host program needs, on top of
//! [`Device`] and [`Queue`].
//!
//! The interface is strict: a failure is written to standard error in full, and every later call
//! returns the error. `VGPU_SEED` sets the order of warps, blocks and streams; `VGPU_MEMORY` the
//! bytes of each device; `VGPU_SHARED` the shared memory of a block; `VGPU_MULTIPROCESSORS` the
//! number of multiprocessors; `VGPU_COUNTERS` names a file for the counters, written at every
//! synchronization; `VGPU_CAPABILITY` the card of each device; `VGPU_OVERRIDE` names PTX that
//! replaces modules (see [`overrides`]); and `VGPU_DEVICES` is the number of devices.
//!
//! Devices share nothing: each has its memory, its streams, its modules and its lock. A thread that
//! has made no context current uses the first.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use crate::counters;
use crate::device::{
    BLOCKS, Card, Device, REGISTERS, RESERVED_SHARED, SHARED_WITHOUT_OPT_IN, Sizes, THREADS, multiprocessors,
    occupancy, registers_of_thread,
};
use crate::fatbin::ptx_of;
use crate::memory::GlobalMemory;
use crate::outside;
use crate::overrides;
use crate::ptx::{Kernel, Module};
use crate::queue::{CaptureError, CaptureMode, Graph, Outside, Progress, Queue, Work};

type Status = c_int;

const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 1;
const OUT_OF_MEMORY: Status = 2;
const INVALID_DEVICE: Status = 101;
const INVALID_IMAGE: Status = 200;
const INVALID_CONTEXT: Status = 201;
const INVALID_HANDLE: Status = 400;
const NOT_FOUND: Status = 500;
const NOT_READY: Status = 600;
const LAUNCH_FAILED: Status = 719;
const COOPERATIVE_LAUNCH_TOO_LARGE: Status = 720;
const NOT_SUPPORTED: Status = 801;
const CAPTURE_UNSUPPORTED: Status = 900;
const CAPTURE_INVALIDATED: Status = 901;
const CAPTURE_MERGE: Status = 902;
const CAPTURE_UNMATCHED: Status = 903;
const CAPTURE_UNJOINED: Status = 904;
const CAPTURE_ISOLATION: Status = 905;
const CAPTURED_EVENT: Status = 907;

/// Ends the function with a status other than success.
macro_rules! check {
    ($status:expr) => {
        match $status {
            SUCCESS => {}
            status => return status,
        }
    };
}

/// Memory of the device, unless `VGPU_MEMORY` is set.
const MEMORY: usize = 2 << 30;

/// Time between two questions to other libraries whether their work has ended.
const PAUSE: Duration = Duration::from_micros(100);

/// A device and what the program did with it.
struct Driver {
    ordinal: usize,
    device: Device,
    queue: Queue,
    /// (module, kernel, allowed dynamic shared memory) of each function handle.
    functions: Vec<(usize, usize, usize)>,
    graphs: HashMap<u64, Graph>,
    next: u64,
    memory: usize,
    broken: bool,
}

/// By ordinal; none if the settings name a card that is not known.
static DRIVERS: LazyLock<Vec<Mutex<Driver>>> = LazyLock::new(|| {
    let cards = Card::named(&std::env::var("VGPU_CAPABILITY").unwrap_or("8.0".into())).unwrap_or_else(|problem| {
        eprintln!("vgpu: VGPU_CAPABILITY: {problem}");
        Vec::new()
    });
    let devices = number("VGPU_DEVICES").map_or(cards.len(), |number| number.clamp(1, 64) as usize);
    let cards = cards.iter().copied().cycle().take(if cards.is_empty() { 0 } else { devices });
    cards.enumerate().map(|(ordinal, card)| Mutex::new(Driver::new(ordinal, card))).collect()
});

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

thread_local! {
    /// The device whose context is current.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The current device.
fn driver() -> MutexGuard<'static, Driver> {
    DRIVERS[CURRENT.get()].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether there is a device with this number.
fn exists(ordinal: c_int) -> bool {
    usize::try_from(ordinal).is_ok_and(|ordinal| ordinal < DRIVERS.len())
}

/// Runs queued work until `done`; while it waits for other libraries, other threads may call the
/// driver. A failure breaks the device permanently, as on hardware.
fn synchronize(done: impl Fn(&Queue) -> bool) -> Status {
    loop {
        // The guard ends with this line.
        let progress = driver().run(&done);
        match progress {
            Ok(Progress::Done) => return SUCCESS,
            Ok(Progress::Waits) => std::thread::sleep(PAUSE),
            Err(status) => return status,
        }
    }
}

/// Does `work` after everything queued before.
fn at_once(work: Work) -> Status {
    check!(of_capture(driver().queue.disturb(None)));
    check!(synchronize(Queue::all_idle));
    check!(driver().submit(0, work));
    synchronize(|queue| queue.is_idle(0))
}

/// Allocates memory; a queued free counts as done.
fn allocate(bytes: usize) -> Result<u64, Status> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    if let Some(address) = driver().allocate(bytes) {
        return Ok(address);
    }
    match synchronize(Queue::all_idle) {
        SUCCESS => driver().allocate(bytes).ok_or(OUT_OF_MEMORY),
        status => Err(status),
    }
}

/// The device with this ordinal.
fn driver_of(ordinal: c_int) -> Option<MutexGuard<'static, Driver>> {
    let driver = usize::try_from(ordinal).ok().and_then(|ordinal| DRIVERS.get(ordinal))?;
    Some(driver.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

impl Driver {
    fn new(ordinal: usize, card: Card) -> Driver {
        let seed = number("VGPU_SEED").unwrap_or(0);
        let card = Card { shared: number("VGPU_SHARED").map_or(card.shared, |bytes| bytes as usize), ..card };
        let mut device = Device::of(card, seed);
        device.memory = GlobalMemory::of_device(ordinal);
        Driver {
            ordinal,
            device,
            queue: Queue::new(seed),
            functions: Vec::new(),
            graphs: HashMap::new(),
            // Streams and events of different devices have different handles.
            next: 1 + ((ordinal as u64) << 48),
            memory: number("VGPU_MEMORY").map_or(MEMORY, |bytes| bytes as usize),
            broken: false,
        }
    }

    fn handle(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Runs queued work until `done`, or until only other libraries have something to do.
    fn run(&mut self, done: impl Fn(&Queue) -> bool) -> Result<Progress, Status> {
        if self.broken {
            return Err(LAUNCH_FAILED);
        }
        let progress = self.queue.run(&mut self.device, done).map_err(|message| {
            eprintln!("vgpu: {message}");
            self.broken = true;
            LAUNCH_FAILED
        })?;
        if let Ok(mut path) = std::env::var("VGPU_COUNTERS")
            && progress == Progress::Done
        {
            if self.ordinal > 0 {
                path += &format!(".{}", self.ordinal);
            }
            if let Err(error) = std::fs::write(&path, counters::report(&self.device.counters, &self.device.launches)) {
                eprintln!("vgpu: {path}: {error}");
            }
        }
        Ok(progress)
    }

    /// Performs a piece of queued work, if any can be: a program that only asks makes progress too.
    fn advance(&mut self) -> Status {
        let asked = Cell::new(false);
        match self.run(|_| asked.replace(true)) {
            Ok(_) => SUCCESS,
            Err(status) => status,
        }
    }

    fn submit(&mut self, stream: u64, work: Work) -> Status {
        if self.broken {
            return LAUNCH_FAILED;
        }
        of_capture(self.queue.push(stream, work))
    }

    fn allocate(&mut self, bytes: usize) -> Option<u64> {
        (self.device.memory.used + bytes <= self.memory).then(|| self.device.memory.allocate(bytes))
    }

    /// The module and kernel of a function, and its allowed dynamic shared memory.
    fn kernel(&self, function: u64) -> Option<(&Module, &Kernel, usize)> {
        let &(module, kernel, allowed) = self.functions.get((function as usize).checked_sub(1)?)?;
        let module = &self.device.modules.get(module)?.as_ref()?.module;
        Some((module, &module.kernels[kernel], allowed))
    }

    /// Blocks of a kernel that a multiprocessor can hold at the same time.
    fn occupancy(&self, function: u64, threads: usize, dynamic_shared: usize) -> Option<usize> {
        let (_, kernel, _) = self.kernel(function)?;
        Some(occupancy(kernel, threads, dynamic_shared, self.device.card))
    }

    /// Queues a launch of `function`.
    ///
    /// # Safety
    /// `parameters` has a pointer to each parameter of the kernel.
    unsafe fn launch(&mut self, function: u64, sizes: Sizes, stream: u64, parameters: *mut *mut c_void) -> Status {
        let function = (function as usize).checked_sub(1).and_then(|index| self.functions.get(index));
        let Some(&(module, kernel, allowed)) = function else { return INVALID_VALUE };
        let Some(Some(loaded)) = self.device.modules.get(module) else { return INVALID_VALUE };
        let declared = &loaded.module.kernels[kernel];
        let sizes = Sizes { allowed_dynamic_shared: allowed, ..sizes };
        if sizes.is_too_large(declared, self.device.card) {
            return COOPERATIVE_LAUNCH_TOO_LARGE;
        }
        let parameters = (declared.parameters.iter().enumerate())
            .map(|(index, parameter)| {
                // SAFETY: the caller's promise.
                unsafe { std::slice::from_raw_parts((*parameters.add(index)).cast::<u8>(), parameter.bytes) }.to_vec()
            })
            .collect();
        self.submit(stream, Work::Launch { module, kernel, parameters, sizes })
    }
}

fn of_capture<T>(result: Result<T, CaptureError>) -> Status {
    match result {
        Ok(_) => SUCCESS,
        Err(CaptureError::Unsupported) => CAPTURE_UNSUPPORTED,
        Err(CaptureError::Invalidated) => CAPTURE_INVALIDATED,
        Err(CaptureError::Merge) => CAPTURE_MERGE,
        Err(CaptureError::Unmatched) => CAPTURE_UNMATCHED,
        Err(CaptureError::Unjoined) => CAPTURE_UNJOINED,
        Err(CaptureError::Isolation) => CAPTURE_ISOLATION,
        Err(CaptureError::CapturedEvent) => CAPTURED_EVENT,
    }
}

/// CUlaunchConfig.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    dynamic_shared: c_uint,
    stream: u64,
    attributes: *const LaunchAttribute,
    n_attributes: c_uint,
}

/// CUlaunchAttribute: its number, and a union of 64 bytes.
#[repr(C)]
pub struct LaunchAttribute {
    id: c_uint,
    pad: c_uint,
    value: [u64; 8],
}

const ATTRIBUTE_IGNORE: c_uint = 0;
const ATTRIBUTE_COOPERATIVE: c_uint = 2;

/// Writes through a pointer of the caller; null is an error of the caller.
///
/// # Safety
/// `to` is null or valid for a write of `T`.
unsafe fn give<T>(to: *mut T, value: T) -> Status {
    if to.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: not null; caller guarantees the rest.
    unsafe { to.write(value) };
    SUCCESS
}

// SAFETY of all functions below: the pointers come from a host program that follows the
// documentation of the driver interface, so each is valid for the reads or writes of its function.

macro_rules! entry {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            #[allow(non_snake_case, clippy::missing_safety_doc)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $ty),*) -> Status {
                // SAFETY: see the comment above.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

entry! {
    fn cuInit(_flags: c_uint) { if DRIVERS.is_empty() { INVALID_DEVICE } else { SUCCESS } }
    fn cuDriverGetVersion(version: *mut c_int) { give(version, 12000) }
    fn cuDeviceGetCount(count: *mut c_int) { give(count, DRIVERS.len() as c_int) }
    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        if !exists(ordinal) { return INVALID_DEVICE }
        give(device, ordinal)
    }
    fn cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        let Some(driver) = driver_of(device) else { return INVALID_DEVICE };
        let text = format!("Virtual GPU (sm_{})\0", driver.device.card.capability);
        if name.is_null() || (length as usize) < text.len() { return INVALID_VALUE }
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len());
        SUCCESS
    }
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        let mut bytes = *b"virtual gpu of v";
        bytes[15] += device as u8;
        give(uuid, bytes)
    }
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) { cuDeviceGetUuid(uuid, device) }
    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        let Some(driver) = driver_of(device) else { return INVALID_DEVICE };
        give(bytes, driver.memory)
    }
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let driver = driver();
        give(total, driver.memory);
        give(free, driver.memory.saturating_sub(driver.device.memory.used))
    }
    fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) {
        let Some(driver) = driver_of(device) else { return INVALID_DEVICE };
        let card = driver.device.card;
        give(value, match attribute {
            1 => 1024,                                  // threads of a block
            2 | 3 => 1024, 4 => 64,                     // block dimensions
            5 => i32::MAX, 6 | 7 => 65_535,             // grid dimensions
            8 => SHARED_WITHOUT_OPT_IN as c_int,        // shared memory of a block
            10 => 32,                                   // warp size
            12 => REGISTERS as c_int,                            // registers of a block
            13 => 1_000_000,                            // clock, kHz
            16 => multiprocessors() as c_int,           // multiprocessors
            31 => 1,                                    // concurrent kernels
            36 => 1_000_000, 37 => 1024,                // memory clock, kHz, and bus width
            38 => 4 << 20,                              // L2 cache
            39 => THREADS as c_int,                     // threads of a multiprocessor
            40 => 2,                                    // concurrent copies
            41 => 1,                                    // unified addressing
            75 => card.capability as c_int / 10,
            76 => card.capability as c_int % 10,        // compute capability
            81 => card.shared as c_int + 1024,         // shared memory of a multiprocessor
            82 => REGISTERS as c_int,                            // registers of a multiprocessor
            95 => 1,                                    // cooperative launches
            97 => card.shared as c_int,                // shared memory of a block after opting in
            106 => BLOCKS as c_int,                     // blocks of a multiprocessor
            111 => RESERVED_SHARED as c_int,            // shared memory that a block takes for itself
            115 => 1,                                   // allocations in the order of streams
            _ => 0,
        })
    }
    // The context of a device is its number and one.
    fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) {
        if !exists(device) { return INVALID_DEVICE }
        give(context, device as usize + 1)
    }
    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) { SUCCESS }
    fn cuCtxSetCurrent(context: usize) {
        if context > DRIVERS.len() { return INVALID_CONTEXT }
        CURRENT.set(context.saturating_sub(1));
        SUCCESS
    }
    fn cuCtxGetCurrent(context: *mut usize) { give(context, CURRENT.get() + 1) }
    fn cuCtxGetDevice(device: *mut c_int) { give(device, CURRENT.get() as c_int) }
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) { give(least, 0); give(greatest, 0) }
    fn cuCtxSynchronize() {
        check!(of_capture(driver().queue.disturb_all()));
        synchronize(Queue::all_idle)
    }

    fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) {
        check!(of_capture(driver().queue.disturb(None)));
        match allocate(bytes) {
            Ok(address) => give(pointer, address),
            Err(status) => status,
        }
    }
    fn cuMemFree_v2(pointer: u64) { at_once(Work::Free { address: pointer }) }
    fn cuMemAllocAsync(pointer: *mut u64, bytes: usize, stream: u64) {
        // Hardware records an allocation in the graph; the kernels of this project need none.
        check!(of_capture(driver().queue.disturb(Some(stream))));
        match allocate(bytes) {
            Ok(address) => give(pointer, address),
            Err(status) => status,
        }
    }
    fn cuMemFreeAsync(pointer: u64, stream: u64) {
        let mut driver = driver();
        check!(of_capture(driver.queue.disturb(Some(stream))));
        driver.submit(stream, Work::Free { address: pointer })
    }
    fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        let mut driver = driver();
        check!(of_capture(driver.queue.disturb(None)));
        if bytes == 0 { return INVALID_VALUE }
        let memory = vec![0u64; bytes.div_ceil(8)].into_boxed_slice();
        let address = Box::into_raw(memory).cast::<c_void>();
        driver.queue.pinned.insert(address as usize, bytes);
        give(pointer, address)
    }
    fn cuMemFreeHost(pointer: *mut c_void) {
        let mut driver = driver();
        check!(of_capture(driver.queue.disturb(None)));
        let at = pointer as usize;
        let Some(bytes) = driver.queue.pinned.remove(&at) else { return INVALID_VALUE };
        if driver.queue.uses_host_memory(at, at + bytes) {
            eprintln!("vgpu: page-locked memory is given back while a queued copy needs it");
            driver.broken = true;
            return LAUNCH_FAILED;
        }
        let words = std::ptr::slice_from_raw_parts_mut(pointer.cast::<u64>(), bytes.div_ceil(8));
        drop(Box::from_raw(words));
        SUCCESS
    }
    fn cuMemHostGetDevicePointer_v2(_pointer: *mut u64, _host: *mut c_void, _flags: c_uint) { NOT_SUPPORTED }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) {
        let mut driver = driver();
        let at = from as usize;
        if driver.queue.is_pinned(at, bytes) {
            return driver.submit(stream, Work::FromPinned { to, from: at, bytes });
        }
        // A graph would read the memory of the program each time it runs, possibly after it was
        // freed.
        check!(of_capture(driver.queue.disturb(Some(stream))));
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), bytes).to_vec();
        driver.submit(stream, Work::ToDevice { to, bytes })
    }
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        at_once(Work::ToDevice { to, bytes: std::slice::from_raw_parts(from.cast::<u8>(), bytes).to_vec() })
    }
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64) {
        let mut driver = driver();
        let pinned = driver.queue.is_pinned(to as usize, bytes);
        let work = Work::ToHost { to: to as usize, from, bytes, pinned };
        if pinned {
            return driver.submit(stream, work);
        }
        check!(of_capture(driver.queue.disturb(Some(stream))));
        // A copy to pageable memory returns when it is done.
        check!(driver.submit(stream, work));
        drop(driver);
        synchronize(|queue| queue.is_idle(stream))
    }
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        at_once(Work::ToHost { to: to as usize, from, bytes, pinned: false })
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        driver().submit(stream, Work::OnDevice { to, from, bytes })
    }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) { at_once(Work::OnDevice { to, from, bytes }) }
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: u64) {
        driver().submit(stream, Work::Fill { to, value: vec![value], count })
    }
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        at_once(Work::Fill { to, value: vec![value], count })
    }
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        at_once(Work::Fill { to, value: value.to_le_bytes().to_vec(), count })
    }
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: u64) {
        driver().submit(stream, Work::Fill { to, value: value.to_le_bytes().to_vec(), count })
    }

    fn cuStreamCreate(stream: *mut u64, _flags: c_uint) { let handle = driver().handle(); give(stream, handle) }
    fn cuStreamCreateWithPriority(stream: *mut u64, flags: c_uint, _priority: c_int) { cuStreamCreate(stream, flags) }
    fn cuStreamDestroy_v2(stream: u64) {
        check!(of_capture(driver().queue.disturb(Some(stream))));
        synchronize(|queue| queue.is_idle(stream))
    }
    fn cuStreamSynchronize(stream: u64) {
        check!(of_capture(driver().queue.disturb(Some(stream))));
        synchronize(|queue| queue.is_idle(stream))
    }
    fn cuStreamQuery(stream: u64) {
        let mut driver = driver();
        check!(of_capture(driver.queue.disturb(Some(stream))));
        check!(driver.advance());
        if driver.queue.is_idle(stream) { SUCCESS } else { NOT_READY }
    }
    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) { of_capture(driver().queue.wait(stream, event)) }
    fn cuLaunchHostFunc(stream: u64, function: usize, argument: *mut c_void) {
        driver().submit(stream, Work::Host { function, argument: argument as usize })
    }
    // Appends work of another library: no part of the driver interface (see [`outside`]).
    fn vgpuSubmit(stream: u64, work: *const outside::Work) {
        if work.is_null() { return INVALID_VALUE }
        driver().submit(stream, Work::Outside(Outside(work.read())))
    }
    fn cuEventCreate(event: *mut u64, _flags: c_uint) { let handle = driver().handle(); give(event, handle) }
    fn cuEventDestroy_v2(event: u64) { driver().queue.forget_event(event); SUCCESS }
    fn cuEventRecord(event: u64, stream: u64) { of_capture(driver().queue.record(stream, event)) }
    fn cuEventSynchronize(event: u64) {
        check!(of_capture(driver().queue.has_happened(event)));
        synchronize(|queue| queue.has_happened(event).unwrap_or(true))
    }
    fn cuEventQuery(event: u64) {
        let mut driver = driver();
        if driver.queue.has_happened(event) == Ok(false) {
            check!(driver.advance());
        }
        match driver.queue.has_happened(event) {
            Ok(true) => SUCCESS,
            Ok(false) => NOT_READY,
            error => of_capture(error),
        }
    }
    fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) {
        let driver = driver();
        for event in [start, end] {
            match driver.queue.has_happened(event) {
                _ if !driver.queue.is_recorded(event) => return INVALID_HANDLE,
                Ok(true) => {}
                Ok(false) => return NOT_READY,
                error => return of_capture(error),
            }
        }
        give(milliseconds, 1.0)
    }

    fn cuModuleLoadData(module: *mut u64, image: *const c_void) {
        // A fat binary states its length; PTX ends with a zero.
        let start = std::slice::from_raw_parts(image.cast::<u8>(), 4);
        let length = if start == 0xba55_ed50u32.to_le_bytes() {
            let head = std::slice::from_raw_parts(image.cast::<u8>(), 16);
            let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
            usize::from(u16::from_le_bytes([head[6], head[7]])) + u64_at(8) as usize
        } else {
            CStr::from_ptr(image.cast()).to_bytes().len()
        };
        let image = std::slice::from_raw_parts(image.cast::<u8>(), length);
        let mut driver = driver();
        check!(of_capture(driver.queue.disturb(None)));
        let chosen = ptx_of(image, driver.device.card.capability).and_then(|ptx| match std::env::var("VGPU_OVERRIDE") {
            Ok(paths) => overrides::chosen(ptx, &paths),
            Err(_) => Ok(ptx),
        });
        match chosen.and_then(|ptx| driver.device.load(&ptx)) {
            Ok(loaded) => give(module, loaded as u64 + 1),
            Err(message) => {
                eprintln!("vgpu: the module cannot be loaded: {message}");
                INVALID_IMAGE
            }
        }
    }
    fn cuModuleUnload(module: u64) {
        check!(of_capture(driver().queue.disturb(None)));
        let status = synchronize(Queue::all_idle);
        let mut driver = driver();
        if let Some(slot) = driver.device.modules.get_mut(module as usize - 1) {
            *slot = None;
        }
        status
    }
    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        let mut driver = driver();
        let module = module as usize - 1;
        let Some(kernel) = CStr::from_ptr(name).to_str().ok().and_then(|name| driver.device.kernel(module, name)) else {
            return NOT_FOUND;
        };
        driver.functions.push((module, kernel, 0));
        give(function, driver.functions.len() as u64)
    }
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) {
        let driver = driver();
        let name = CStr::from_ptr(name).to_str().ok();
        let global = name.and_then(|name| driver.device.global(module as usize - 1, name));
        let Some((found, n_bytes)) = global else { return NOT_FOUND };
        give(bytes, n_bytes);
        give(address, found)
    }
    fn cuFuncSetAttribute(function: u64, attribute: c_uint, value: c_int) {
        const MAX_DYNAMIC_SHARED: c_uint = 8;
        let mut driver = driver();
        let Some((_, kernel, _)) = driver.kernel(function) else { return INVALID_VALUE };
        if attribute == MAX_DYNAMIC_SHARED {
            if value as usize + kernel.shared_bytes > driver.device.card.shared { return INVALID_VALUE }
            driver.functions[function as usize - 1].2 = value as usize;
        }
        SUCCESS
    }
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: u64) {
        let driver = driver();
        let Some((module, kernel, allowed)) = driver.kernel(function) else { return INVALID_VALUE };
        give(value, match attribute {
            0 => kernel.max_threads.unwrap_or(1024) as c_int,
            1 => kernel.shared_bytes as c_int,
            3 => kernel.local_bytes as c_int,
            4 => registers_of_thread(kernel) as c_int,
            5 => module.target.architecture as c_int,          // of the PTX
            6 => driver.device.card.capability as c_int,       // of the code that it was assembled to
            8 => allowed as c_int,
            _ => 0,
        })
    }
    fn cuFuncSetCacheConfig(_function: u64, _config: c_uint) { SUCCESS }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: u64, threads: c_int, shared: usize) {
        match driver().occupancy(function, threads as usize, shared) {
            Some(n) => give(blocks, n as c_int),
            None => INVALID_VALUE,
        }
    }
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int, function: u64, threads: c_int, shared: usize, _flags: c_uint,
    ) {
        cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared)
    }
    fn cuLaunchKernel(
        function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        dynamic_shared: c_uint, stream: u64, parameters: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        if !extra.is_null() { return NOT_SUPPORTED }
        let sizes = Sizes {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared: dynamic_shared as usize,
            allowed_dynamic_shared: 0,
            cooperative: false,
        };
        driver().launch(function, sizes, stream, parameters)
    }
    fn cuLaunchCooperativeKernel(
        function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        dynamic_shared: c_uint, stream: u64, parameters: *mut *mut c_void,
    ) {
        let sizes = Sizes {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared: dynamic_shared as usize,
            allowed_dynamic_shared: 0,
            cooperative: true,
        };
        driver().launch(function, sizes, stream, parameters)
    }
    fn cuLaunchKernelEx(
        config: *const LaunchConfig, function: u64, parameters: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        if config.is_null() { return INVALID_VALUE }
        if !extra.is_null() { return NOT_SUPPORTED }
        let LaunchConfig { grid, block, dynamic_shared, stream, attributes, n_attributes } = config.read();
        let mut cooperative = false;
        for index in 0..n_attributes as usize {
            let LaunchAttribute { id, value, .. } = attributes.add(index).read();
            match id {
                ATTRIBUTE_IGNORE => {}
                ATTRIBUTE_COOPERATIVE => cooperative = value[0] as u32 != 0,
                _ => return NOT_SUPPORTED,
            }
        }
        let dynamic_shared = dynamic_shared as usize;
        let sizes = Sizes { grid, block, dynamic_shared, allowed_dynamic_shared: 0, cooperative };
        driver().launch(function, sizes, stream, parameters)
    }

    fn cuStreamBeginCapture_v2(stream: u64, mode: c_uint) {
        let mode = match mode {
            0 => CaptureMode::Global,
            1 => CaptureMode::ThreadLocal,
            2 => CaptureMode::Relaxed,
            _ => return INVALID_VALUE,
        };
        of_capture(driver().queue.begin_capture(stream, mode))
    }
    fn cuStreamIsCapturing(stream: u64, status: *mut c_uint) {
        let driver = driver();
        let is_capturing = c_uint::from(driver.queue.is_capturing(stream));
        give(status, if driver.queue.is_invalidated(stream) { 2 } else { is_capturing })
    }
    fn cuStreamEndCapture(stream: u64, graph: *mut u64) {
        let mut driver = driver();
        match driver.queue.end_capture(stream) {
            Ok(recorded) => {
                let handle = driver.handle();
                driver.graphs.insert(handle, recorded);
                give(graph, handle)
            }
            Err(error) => {
                give(graph, 0);
                of_capture::<()>(Err(error))
            }
        }
    }
    fn cuGraphInstantiateWithFlags(instance: *mut u64, graph: u64, _flags: u64) {
        let mut driver = driver();
        let Some(recorded) = driver.graphs.get(&graph).cloned() else { return INVALID_VALUE };
        let handle = driver.handle();
        driver.graphs.insert(handle, recorded);
        give(instance, handle)
    }
    fn cuGraphUpload(_instance: u64, _stream: u64) { SUCCESS }
    fn cuGraphLaunch(instance: u64, stream: u64) {
        let mut driver = driver();
        if driver.broken { return LAUNCH_FAILED }
        let Some(graph) = driver.graphs.get(&instance).cloned() else { return INVALID_VALUE };
        of_capture(driver.queue.launch_graph(stream, &graph))
    }
    fn cuGraphDestroy(graph: u64) { driver().graphs.remove(&graph); SUCCESS }
    fn cuGraphExecDestroy(instance: u64) { driver().graphs.remove(&instance); SUCCESS }

    fn cuGetErrorName(status: Status, name: *mut *const c_char) { give(name, describe(status).0.as_ptr()) }
    fn cuGetErrorString(status: Status, text: *mut *const c_char) { give(text, describe(status).1.as_ptr()) }
}

fn describe(status: Status) -> (&'static CStr, &'static CStr) {
    match status {
        SUCCESS => (c"CUDA_SUCCESS", c"no error"),
        INVALID_VALUE => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        INVALID_DEVICE => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        INVALID_IMAGE => (c"CUDA_ERROR_INVALID_IMAGE", c"device kernel image is invalid"),
        INVALID_CONTEXT => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        INVALID_HANDLE => (c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        NOT_READY => (c"CUDA_ERROR_NOT_READY", c"device not ready"),
        LAUNCH_FAILED => (
            c"CUDA_ERROR_LAUNCH_FAILED",
            c"unspecified launch failure (the virtual GPU wrote what it was to standard error)",
        ),
        CAPTURE_UNSUPPORTED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing")
        }
        CAPTURE_INVALIDATED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"operation failed due to a previous error during capture")
        }
        CAPTURE_MERGE => {
            (c"CUDA_ERROR_STREAM_CAPTURE_MERGE", c"operation would result in a merge of separate capture sequences")
        }
        CAPTURE_UNMATCHED => {
            (c"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", c"capture was not ended in the same stream as it began")
        }
        CAPTURE_UNJOINED => (c"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", c"capturing stream has unjoined work"),
        CAPTURE_ISOLATION => {
            (c"CUDA_ERROR_STREAM_CAPTURE_ISOLATION", c"dependency created on uncaptured work in another stream")
        }
        CAPTURED_EVENT => {
            (c"CUDA_ERROR_CAPTURED_EVENT", c"operation not permitted on an event last recorded in a capturing stream")
        }
        COOPERATIVE_LAUNCH_TOO_LARGE => {
            (c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", c"too many blocks in cooperative launch")
        }
        NOT_SUPPORTED => (c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported"),
        _ => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
    }
}
