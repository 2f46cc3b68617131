//! One GPU: its context, streams, memory and kernels. Only this file and `list.rs` call the
//! driver; only this one launches.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaModule, CudaSlice, CudaStream, DevicePtr as _, DeviceRepr,
    DriverError, LaunchConfig, PinnedHostSlice, PushKernelArg, result, sys,
};
use cudarc::nvrtc::Ptx;

use super::communicator::{Communicator, Id, Transfer};
use super::foreign::ForeignArray;
use super::list::{DeviceInfo, check_driver, check_kernels};
use super::modules::{Kernel, MODULES};
use super::pointer::DevicePtr;
use crate::error::{DeviceKind, Error, Result, check_len};
use crate::ranks::liveness::Liveness;

/// Plain data that kernels read or write: no padding, every bit pattern valid.
pub trait Pod: DeviceRepr + bytemuck::Pod {}
impl<T: DeviceRepr + bytemuck::Pod> Pod for T {}

/// Changes bytes of plain data on their way to the device or back, given the name of their type.
#[cfg(test)]
pub type Tamper = fn(&str, &mut [u8]);

/// Set by the test that swaps fields.
#[cfg(test)]
pub static TAMPER: std::sync::OnceLock<Tamper> = std::sync::OnceLock::new();

#[cfg(test)]
fn tampered<T: Pod>(value: &T) -> T {
    let mut value = *value;
    if let Some(tamper) = TAMPER.get() {
        tamper(std::any::type_name::<T>(), bytemuck::bytes_of_mut(&mut value));
    }
    value
}

/// Device memory.
pub struct Buffer<T> {
    bytes: CudaSlice<u8>,
    address: u64,
    len: usize,
    element: PhantomData<T>,
}

impl<T> Buffer<T> {
    /// Its address, for an argument block. Valid while the buffer lives.
    pub fn address(&self) -> DevicePtr<T> {
        DevicePtr::new(self.address)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Its address in the driver's type.
    pub fn driver_address(&self) -> u64 {
        self.address
    }
}

/// A recorded sequence of launches: a CUDA graph.
pub struct Recording(CudaGraph);

// SAFETY: the driver requires that one thread at a time uses a graph; `replay` borrows it mutably.
unsafe impl Send for Recording {}

/// Page-locked host memory: copies to and from it are asynchronous.
pub struct Pinned {
    memory: PinnedHostSlice<u8>,
    /// The last copy into it has happened.
    copied: CudaEvent,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Wait for the copy before freeing. If waiting fails the device is gone and no copy is
        // running.
        let _ = self.copied.synchronize();
    }
}

/// A kernel, and the bytes of shared memory that a block may have besides its static arrays.
struct Loaded {
    function: CudaFunction,
    most_shared: usize,
    static_shared: usize,
}

/// The kernels of a GPU.
struct Kernels {
    /// The modules of [`MODULES`], loaded with their first kernel.
    modules: Mutex<Vec<Option<Arc<CudaModule>>>>,
    /// By name of the kernel: the number of its module, and the kernel once it has been needed.
    functions: HashMap<&'static str, (usize, OnceLock<Loaded>)>,
}

/// An open GPU.
pub struct Device {
    /// Its number, as the user names it.
    name: String,
    model: String,
    uses_warpgroups: bool,
    context: Arc<CudaContext>,
    /// Stream of the kernels.
    stream: Arc<CudaStream>,
    /// Stream for copies that run alongside the kernels.
    copies: Arc<CudaStream>,
    kernels: Arc<Kernels>,
    /// Its place among the GPUs of a training that has several.
    communicator: Option<Arc<Communicator>>,
    /// Kernels launched since the last successful synchronization.
    launched: Mutex<Vec<&'static str>>,
    /// Bytes allocated so far, never reduced.
    #[cfg(test)]
    pub taken: std::sync::atomic::AtomicUsize,
}

impl Loaded {
    /// Lets the kernel use all shared memory of the device; the default limit is 48 KiB including
    /// static arrays.
    fn new(function: CudaFunction, context: &CudaContext) -> std::result::Result<Loaded, DriverError> {
        use sys::CUfunction_attribute_enum as Attribute;
        let of_device = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let static_shared = function.get_attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?.max(0);
        let most = (context.attribute(of_device)? - static_shared).max(0);
        function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)?;
        // Prefer shared memory to L1: kernels gain nothing from L1, and with less shared memory
        // fewer blocks might share a multiprocessor.
        function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)?;
        Ok(Loaded { function, most_shared: most as usize, static_shared: static_shared as usize })
    }
}

impl Device {
    /// GPU number `ordinal`. A kernel is loaded when it is first needed, as most runs need a few of
    /// them.
    ///
    /// # Errors
    /// [`Error::Device`] says what is missing: kernels in this program, a driver, the GPU.
    pub fn open(ordinal: usize) -> Result<Arc<Device>> {
        let name = format!("cuda:{ordinal}");
        check_kernels(&name)?;
        check_driver(&name)?;
        let driver = |what: &'static str| {
            let name = &name;
            move |error: DriverError| unavailable(name, what, error)
        };
        // The primary context: that of other libraries too, so that each can use the memory of all.
        let context = CudaContext::new(ordinal).map_err(driver("cannot be opened"))?;
        // SAFETY: this file orders the streams itself, with its own events.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(driver("cannot make a stream"))?;
        let copies = context.new_stream().map_err(driver("cannot make a stream"))?;
        let mut functions = HashMap::new();
        for (number, module) in MODULES.iter().enumerate() {
            functions.extend(module.kernels.iter().map(|&kernel| (kernel, (number, OnceLock::new()))));
        }
        let model = context.name().map_err(driver("has no name"))?;
        let capability = context.compute_capability().map_err(driver("has no compute capability"))?;
        let device = Arc::new(Device {
            uses_warpgroups: uses_warpgroups(&name, capability)?,
            name,
            model,
            context,
            stream,
            copies,
            kernels: Arc::new(Kernels { modules: Mutex::new(MODULES.iter().map(|_| None).collect()), functions }),
            communicator: None,
            launched: Mutex::default(),
            #[cfg(test)]
            taken: Default::default(),
        });
        // A driver that refuses one module refuses all of them: better now than in a run.
        let common = MODULES.iter().enumerate().filter(|(_, module)| !module.is_of_warpgroups);
        if let Some((smallest, _)) = common.min_by_key(|(_, module)| module.image.len()) {
            device.module(smallest)?;
        }
        Ok(device)
    }

    /// The same GPU with streams of its own: what is launched there runs beside what is launched
    /// here. No kernel is loaded twice.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver refuses a stream.
    pub fn beside(&self) -> Result<Arc<Device>> {
        self.with(self.communicator.clone())
    }

    /// The same GPU as rank `place.0` of the `place.1` of a training, which meet under `id`.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no NCCL or it fails, [`Error::Rank`] if a rank is lost
    /// meanwhile.
    pub fn among(&self, id: &Id, place: (usize, usize), liveness: Arc<Liveness>) -> Result<Arc<Device>> {
        let communicator = Communicator::join(&self.context, id, place, liveness)?;
        self.with(Some(Arc::new(communicator)))
    }

    /// The number of its rank, and of ranks: 0 and 1 without others.
    pub fn place(&self) -> (usize, usize) {
        self.communicator().map_or((0, 1), |communicator| (communicator.rank(), communicator.n_ranks()))
    }

    /// Its place among the GPUs of a training that has several.
    pub fn communicator(&self) -> Option<&Communicator> {
        self.communicator.as_deref()
    }

    fn with(&self, communicator: Option<Arc<Communicator>>) -> Result<Arc<Device>> {
        let stream = || self.context.new_stream().map_err(|error| self.failure("a stream", error));
        Ok(Arc::new(Device {
            name: self.name.clone(),
            model: self.model.clone(),
            uses_warpgroups: self.uses_warpgroups,
            context: self.context.clone(),
            stream: stream()?,
            copies: stream()?,
            kernels: self.kernels.clone(),
            communicator,
            launched: Mutex::default(),
            #[cfg(test)]
            taken: Default::default(),
        }))
    }

    /// Module `number` of [`MODULES`]: loaded now, unless it was.
    fn module(&self, number: usize) -> Result<Arc<CudaModule>> {
        let mut modules = self.kernels.modules.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(module) = &modules[number] {
            return Ok(module.clone());
        }
        let image = MODULES[number].image.to_vec();
        let module = self.context.load_module(Ptx::from_binary(image)).map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => self.failure("memory for kernels", error),
            _ => {
                let what = "its driver refuses the kernels (`amatch devices` says which it must be)";
                unavailable(&self.name, what, error)
            }
        })?;
        modules[number] = Some(module.clone());
        Ok(module)
    }

    /// Its number and model.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.name, self.model)
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// The name of its model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// True if products are to be those of warpgroups, where there are kernels of both kinds.
    pub fn uses_warpgroups(&self) -> bool {
        self.uses_warpgroups
    }

    /// Properties that the driver reports.
    pub fn info(&self) -> Result<DeviceInfo> {
        DeviceInfo::new(&self.context).map_err(|error| self.failure("its attributes", error))
    }

    /// Multiprocessors.
    pub fn n_multiprocessors(&self) -> Result<usize> {
        let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        Ok(self.context.attribute(attribute).map_err(|error| self.failure("multiprocessors", error))?.max(1) as usize)
    }

    /// Bytes of shared memory that a block of `kernel` may have besides its static arrays.
    pub fn most_shared_memory(&self, kernel: Kernel) -> Result<usize> {
        Ok(self.kernel(kernel)?.most_shared)
    }

    /// The same, if `n_blocks` blocks should fit a multiprocessor.
    pub fn shared_memory_among(&self, kernel: Kernel, n_blocks: usize) -> Result<usize> {
        // Reserved by the system for each block.
        const RESERVED: usize = 1 << 10;
        let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR;
        let all = self.context.attribute(attribute).map_err(|error| self.failure("shared memory", error))?;
        let Loaded { most_shared, static_shared, .. } = self.kernel(kernel)?;
        Ok((all.max(0) as usize / n_blocks).saturating_sub(RESERVED + static_shared).min(*most_shared))
    }

    /// Blocks of `kernel`, with `shared` bytes of shared memory besides its static arrays, that fit
    /// a multiprocessor at a time.
    pub fn blocks_at_once(&self, kernel: Kernel, threads: u32, shared: u32) -> Result<usize> {
        let function = &self.kernel(kernel)?.function;
        let n_blocks = function
            .occupancy_max_active_blocks_per_multiprocessor(threads, shared as usize, None)
            .map_err(|error| self.failure("blocks of a multiprocessor", error))?;
        Ok(n_blocks as usize)
    }

    /// Total bytes of device memory.
    pub fn total_memory(&self) -> Result<usize> {
        Ok(self.context.mem_get_info().map_err(|error| self.failure("memory", error))?.1)
    }

    /// Free bytes of device memory.
    pub fn free_memory(&self) -> Result<usize> {
        Ok(self.context.mem_get_info().map_err(|error| self.failure("memory", error))?.0)
    }

    /// Checks that `bytes` of device memory are free; `what` begins the message, e.g. "rows take".
    ///
    /// # Errors
    /// [`Error::Device`] says how much is free, and what to reduce.
    pub fn expect_memory(&self, bytes: usize, what: &str) -> Result<()> {
        let mut free = self.free_memory()?;
        if bytes > free {
            // Memory that was released in any stream is free after a synchronization.
            self.context.synchronize().map_err(|error| self.failure("work", error))?;
            free = self.free_memory()?;
        }
        if bytes <= free {
            return Ok(());
        }
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        Err(Error::Device {
            kind: DeviceKind::OutOfMemory,
            device: self.name.clone(),
            problem: format!("{what} {} MiB of its memory, and {} MiB are free", mib(bytes), free >> 20),
            fix: OUT_OF_MEMORY_FIX.into(),
        })
    }

    /// `len` uninitialized elements.
    pub fn allocate<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        // Zero-length buffers get a valid address too.
        let n_bytes = (len * size_of::<T>()).max(1);
        // SAFETY: kernels and copies write every element before it is read; the virtual GPU checks
        // this.
        let bytes = unsafe { self.stream.alloc::<u8>(n_bytes) };
        let bytes = bytes.map_err(|error| self.failure(&format!("memory for {n_bytes} bytes"), error))?;
        #[cfg(test)]
        self.taken.fetch_add(n_bytes, std::sync::atomic::Ordering::Relaxed);
        let address = bytes.device_ptr(&self.stream).0;
        Ok(Buffer { bytes, address, len, element: PhantomData })
    }

    /// A copy of `from`, made behind all that the default stream has been given. The host waits for
    /// it: the memory may be released then.
    pub fn copy_of(&self, from: &ForeignArray) -> Result<Buffer<f32>> {
        let buffer = self.allocate(from.len)?;
        if from.len > 0 {
            let copied = self.stream.join(&self.context.default_stream()).and_then(|()| {
                let n_bytes = from.len * size_of::<f32>();
                // SAFETY: who made `from` guarantees the source; the target was allocated for as
                // many.
                unsafe { result::memcpy_dtod_async(buffer.address, from.address, n_bytes, self.stream.cu_stream()) }
            });
            copied.map_err(|error| self.failure("a copy on the device", error))?;
        }
        self.synchronize()?;
        Ok(buffer)
    }

    /// Copies `n` elements of `from`, which may be plain bytes, from `first` on to those of `to`
    /// from `start` on, in the order of the kernels' stream.
    pub fn copy<S, T: Pod>(
        &self,
        (from, first): (&Buffer<S>, usize),
        (to, start): (&mut Buffer<T>, usize),
        n: usize,
    ) -> Result<()> {
        let [source, target] = [first, start].map(|first| first * size_of::<T>()..(first + n) * size_of::<T>());
        check_len("source of a copy", source.end.min(from.bytes.len()), source.end)?;
        check_len("target of a copy", (start + n).min(to.len), start + n)?;
        if n == 0 {
            return Ok(());
        }
        let copied = self.stream.memcpy_dtod(&from.bytes.slice(source), &mut to.bytes.slice_mut(target));
        copied.map_err(|error| self.failure("a copy on the device", error))
    }

    /// Prepares the release of memory that other libraries have used, maybe from a thread that has
    /// only used those: it happens behind all that the default stream has been given.
    pub fn release_behind_others(&self) -> Result<()> {
        self.stream.join(&self.context.default_stream()).map_err(|error| self.failure("a release", error))
    }

    /// `len` zeros.
    pub fn zeros<T: Pod>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.allocate(len)?;
        self.stream.memset_zeros(&mut buffer.bytes).map_err(|error| self.failure("zeros", error))?;
        Ok(buffer)
    }

    /// A copy of `values` on the device.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Buffer<T>> {
        let mut buffer = self.allocate(values.len())?;
        self.write(&mut buffer, values)?;
        Ok(buffer)
    }

    /// Replaces the first elements of `buffer`, in the order of the kernels' stream.
    pub fn write<T: Pod>(&self, buffer: &mut Buffer<T>, values: &[T]) -> Result<()> {
        self.write_at(buffer, 0, values)
    }

    /// Replaces the elements of `buffer` from `start` on, in the order of the kernels' stream.
    pub fn write_at<T: Pod>(&self, buffer: &mut Buffer<T>, start: usize, values: &[T]) -> Result<()> {
        check_len("buffer on the device", (start + values.len()).min(buffer.len), start + values.len())?;
        #[cfg(test)]
        let values = &values.iter().map(tampered).collect::<Vec<T>>()[..];
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(());
        }
        let first = start * size_of::<T>();
        let mut target = buffer.bytes.slice_mut(first..first + bytes.len());
        self.stream.memcpy_htod(bytes, &mut target).map_err(|error| self.failure("a copy to the device", error))
    }

    /// Orders the copy stream after all kernels launched so far.
    pub fn hold_copies(&self) -> Result<()> {
        self.copies.join(&self.stream).map_err(|error| self.failure("copies after kernels", error))
    }

    /// Replaces the elements of `buffer` from `start` on, on the copy stream, and waits for the
    /// copy. No kernel may use them meanwhile: see [`Device::hold_copies`].
    pub fn write_beside<T: Pod>(&self, buffer: &mut Buffer<T>, start: usize, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.is_empty() {
            return Ok(());
        }
        let first = start * size_of::<T>();
        let mut target = buffer.bytes.slice_mut(first..first + bytes.len());
        let copied = self.copies.memcpy_htod(bytes, &mut target).and_then(|()| self.copies.synchronize());
        copied.map_err(|error| self.failure("a copy beside the kernels", error))
    }

    /// The first `len` elements of `buffer`, after all that was launched before.
    pub fn read<T: Pod>(&self, buffer: &Buffer<T>, len: usize) -> Result<Vec<T>> {
        let mut values = vec![T::zeroed(); len];
        self.read_into(buffer, &mut values)?;
        Ok(values)
    }

    /// Fills `values` with the first elements of `buffer`, after all that was launched before.
    pub fn read_into<T: Pod>(&self, buffer: &Buffer<T>, values: &mut [T]) -> Result<()> {
        self.read_at(buffer, 0, values)
    }

    /// Fills `values` with the elements of `buffer` from `start` on, after all that was launched
    /// before.
    pub fn read_at<T: Pod>(&self, buffer: &Buffer<T>, start: usize, values: &mut [T]) -> Result<()> {
        check_len("buffer on the device", (start + values.len()).min(buffer.len), start + values.len())?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        if bytes.is_empty() {
            return self.synchronize();
        }
        // Copies to memory that is not page-locked wait for the kernels.
        self.wait_for_ranks()?;
        let first = start * size_of::<T>();
        let source = buffer.bytes.slice(first..first + bytes.len());
        self.stream.memcpy_dtoh(&source, bytes).map_err(|error| self.failure("a copy from the device", error))?;
        self.synchronize()?;
        #[cfg(test)]
        values.iter_mut().for_each(|value| *value = tampered(value));
        Ok(())
    }

    /// A kernel: loaded now, unless it was. No kernel can be loaded during [`Device::capture`].
    fn kernel(&self, kernel: Kernel) -> Result<&Loaded> {
        let name = kernel.name();
        let (number, cell) = self.kernels.functions.get(name).ok_or_else(|| Error::Device {
            kind: DeviceKind::Failed,
            device: self.name.clone(),
            problem: format!("has no kernel {name}"),
            fix: "build the program again".into(),
        })?;
        if let Some(loaded) = cell.get() {
            return Ok(loaded);
        }
        let module = self.module(*number)?;
        let loaded = (self.context.bind_to_thread())
            .and_then(|()| module.load_function(name))
            .and_then(|function| Loaded::new(function, &self.context))
            .map_err(|error| self.failure(name, error))?;
        // Another thread may have loaded it meanwhile: then its copy is the one to use.
        Ok(cell.get_or_init(|| loaded))
    }

    /// Launches `kernel` on `grid` blocks with one argument block, after all earlier launches.
    ///
    /// # Safety
    /// `arguments` has the layout of the kernel's argument block, and every address in it points to
    /// memory that outlives the kernel and is as large as the kernel expects.
    pub unsafe fn launch<P: Pod>(
        &self,
        kernel: Kernel,
        grid: [u32; 3],
        threads: u32,
        shared_bytes: u32,
        arguments: &P,
    ) -> Result<()> {
        let mut builder = self.stream.launch_builder(&self.kernel(kernel)?.function);
        #[cfg(test)]
        let arguments = &tampered(arguments);
        builder.arg(arguments);
        let [x, y, z] = grid;
        let config = LaunchConfig { grid_dim: (x, y, z), block_dim: (threads, 1, 1), shared_mem_bytes: shared_bytes };
        self.launched().push(kernel.name());
        // SAFETY: the caller guarantees the arguments; the driver checks the sizes.
        unsafe { builder.launch(config) }.map(|_| ()).map_err(|error| self.failure(kernel.name(), error))
    }

    /// Records the launches of `launches`, to be replayed as one. Their kernels have been launched
    /// before, as the driver loads none during a recording.
    pub fn capture(&self, launches: impl FnOnce() -> Result<()>) -> Result<Recording> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(|error| self.failure("a recording", error))?;
        let outcome = launches();
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        outcome?;
        let missing = || Error::Device {
            kind: DeviceKind::Failed,
            device: self.name.clone(),
            problem: "recorded nothing".into(),
            fix: "update the NVIDIA driver".into(),
        };
        graph.map_err(|error| self.failure("a recording", error))?.map(Recording).ok_or_else(missing)
    }

    /// Replays a recording.
    pub fn replay(&self, recording: &mut Recording) -> Result<()> {
        self.launched().push("recorded steps");
        recording.0.launch().map_err(|error| self.failure("recorded steps", error))
    }

    /// Page-locked memory for `len` elements of `T`.
    pub fn pinned<T: Pod>(&self, len: usize) -> Result<Pinned> {
        // Not write-combined, which the host reads slowly.
        const READABLE: u32 = 0;
        // SAFETY: a copy fills the memory before it is read.
        let memory = unsafe { self.context.alloc_pinned_with_flags((len * size_of::<T>()).max(1), READABLE) };
        let memory = memory.map_err(|error| self.failure("page-locked memory", error))?;
        let copied = self.context.new_event(None).map_err(|error| self.failure("page-locked memory", error))?;
        Ok(Pinned { memory, copied })
    }

    /// Starts to copy `buffers`, as earlier launches leave them, to the matching elements of `to`,
    /// on the copy stream. Later launches wait for the copies; the host does not.
    pub fn snapshot<T: Pod>(&self, buffers: &[&Buffer<T>], to: &mut [Pinned]) -> Result<()> {
        let fail = |error| self.failure("a copy from the device", error);
        let written = self.stream.record_event(None).map_err(fail)?;
        self.copies.wait(&written).map_err(fail)?;
        for (buffer, pinned) in buffers.iter().zip(to) {
            check_len("page-locked memory", pinned.memory.len(), buffer.bytes.len())?;
            self.copies.memcpy_dtoh(&buffer.bytes, &mut pinned.memory).map_err(fail)?;
            pinned.copied.record(&self.copies).map_err(fail)?;
            self.stream.wait(&pinned.copied).map_err(fail)?;
        }
        Ok(())
    }

    /// Waits for [`Device::snapshot`] and returns what it copied to `pinned`.
    pub fn copied<T: Pod>(&self, pinned: &Pinned, len: usize) -> Result<Vec<T>> {
        self.wait_for_ranks()?;
        pinned.copied.synchronize().map_err(|error| self.failure("work", error))?;
        let bytes = pinned.memory.as_slice().map_err(|error| self.failure("work", error))?;
        check_len("page-locked memory", (len * size_of::<T>()).max(1), bytes.len())?;
        let mut values = vec![T::zeroed(); len];
        let n_bytes = len * size_of::<T>();
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes[..n_bytes]);
        Ok(values)
    }

    /// Waits until everything launched so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] names the kernels launched since the last successful synchronization.
    pub fn synchronize(&self) -> Result<()> {
        self.wait_for_ranks()?;
        self.stream.synchronize().map_err(|error| self.failure("work", error))?;
        self.launched().clear();
        Ok(())
    }

    /// Does `transfers` with the other ranks, after all that was launched before and before what is
    /// launched later. All ranks make the same transfers in the same order; a GPU without others
    /// makes none.
    ///
    /// # Errors
    /// [`Error::Rank`] for a lost rank, [`Error::Device`] if NCCL fails.
    pub fn transfer<'a>(&self, transfers: impl IntoIterator<Item = Transfer<'a>>) -> Result<()> {
        let Some(communicator) = &self.communicator else { return Ok(()) };
        self.launched().push("transfers between ranks");
        communicator.transfer(&self.stream, transfers)
    }

    /// Waits until everything launched so far is done, as long as all ranks are there: a GPU that
    /// waits for one that is gone would wait for ever.
    fn wait_for_ranks(&self) -> Result<()> {
        const SPINS: u32 = 1000;
        const MOST: Duration = Duration::from_millis(1);
        const LOOK: Duration = Duration::from_millis(50);
        // Longer than what is left to do after the last transfer.
        const STUCK: Duration = Duration::from_secs(5);
        let Some(communicator) = &self.communicator else { return Ok(()) };
        let fail = |error| self.failure("work", error);
        let done = self.stream.record_event(None).map_err(fail)?;
        let (mut n, began, mut looked) = (0u32, Instant::now(), Instant::now());
        while !done.try_is_complete().map_err(|error| communicator.explained(fail(error)))? {
            n += 1;
            if n > SPINS {
                std::thread::sleep(MOST.min(Duration::from_micros(u64::from(n - SPINS))));
            }
            if looked.elapsed() > LOOK {
                if began.elapsed() > STUCK {
                    communicator.check_waiting()?
                } else {
                    communicator.check()?
                }
                looked = Instant::now();
            }
        }
        Ok(())
    }

    fn launched(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.launched.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn failure(&self, what: &str, error: DriverError) -> Error {
        const SHOWN: usize = 12;
        let launched = self.launched();
        let since = launched[launched.len().saturating_sub(SHOWN)..].join(", ");
        let since = if since.is_empty() { String::new() } else { format!("; launched since all was well: {since}") };
        let (kind, fix) = if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            (DeviceKind::OutOfMemory, OUT_OF_MEMORY_FIX)
        } else {
            let fix = "run again with CUDA_LAUNCH_BLOCKING=1 to find the kernel at fault, or use the `CpuEngine`";
            (DeviceKind::Failed, fix)
        };
        Error::Device {
            kind,
            device: self.name.clone(),
            problem: format!("{what}: {}{since}", describe(error)),
            fix: fix.into(),
        }
    }
}

/// True if GPU `name` of compute capability `capability` is to use products of warpgroups. They
/// were run on the virtual GPU alone, so they must be asked for.
fn uses_warpgroups(name: &str, capability: (i32, i32)) -> Result<bool> {
    const VARIABLE: &str = "AMATCH_PRODUCT";
    let refused = |problem: String, fix: &str| Error::Device {
        kind: DeviceKind::Unavailable,
        device: name.into(),
        problem,
        fix: fix.into(),
    };
    match std::env::var_os(VARIABLE) {
        None => Ok(false),
        Some(value) if value.is_empty() || value == "mma" => Ok(false),
        Some(value) if value == "wgmma" => {
            let is_there = MODULES.iter().any(|module| module.is_of_warpgroups);
            match (capability, is_there) {
                ((9, 0), true) => Ok(true),
                ((9, 0), false) => {
                    let problem = format!("{VARIABLE} is wgmma, and this program has no kernels of that kind");
                    Err(refused(problem, "build it for architecture 90 (AMATCH_CUDA_ARCHS), or set mma"))
                }
                ((major, minor), _) => {
                    let problem = format!("{VARIABLE} is wgmma, which a card of {major}.{minor} has not");
                    Err(refused(problem, "set mma, or use a card of 9.0"))
                }
            }
        }
        Some(value) => Err(refused(format!("{VARIABLE} is {value:?}"), "set mma or wgmma, or remove it")),
    }
}

/// The error message: the driver cannot use GPU `name`.
fn unavailable(name: &str, what: &str, error: DriverError) -> Error {
    Error::Device {
        kind: DeviceKind::Unavailable,
        device: name.into(),
        problem: format!("{what}: {}", describe(error)),
        fix: "`nvidia-smi` lists GPUs and drivers; or use the `CpuEngine`".into(),
    }
}

const OUT_OF_MEMORY_FIX: &str =
    "lower training.interior_rows, training.boundary_rows, model.hidden or objective.probes, or free memory on the GPU";

/// The driver's error text.
pub(super) fn describe(error: DriverError) -> String {
    let words = error.error_string().ok().and_then(|text| text.to_str().ok()).unwrap_or("unknown error");
    format!("{words} ({:?})", error.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;

    /// A run pays for the kernels that it launches, not for all.
    #[test]
    fn modules_are_loaded_with_their_first_kernel() {
        let device = Device::open(0).expect("a device");
        let loaded = || -> Vec<&str> {
            let modules = device.kernels.modules.lock().expect("unharmed");
            let loaded = modules.iter().zip(MODULES).filter(|(module, _)| module.is_some());
            loaded.flat_map(|(_, module)| module.kernels).copied().collect()
        };
        let at_first = loaded();
        // Those of the smallest module.
        assert!(!at_first.is_empty() && at_first.len() < 10, "{at_first:?}");
        for _ in 0..2 {
            device.most_shared_memory(Kernel::Sweep(Precision::Bf16)).expect("a kernel");
            let mut more: Vec<&str> = loaded().into_iter().filter(|kernel| !at_first.contains(kernel)).collect();
            let names = Precision::ALL
                .map(|precision| [Kernel::Sweep(precision).name(), Kernel::SweepDiffusive(precision).name()]);
            let mut expected = names.concat();
            expected.sort_unstable();
            more.sort_unstable();
            assert_eq!(more, expected);
        }
    }
}
