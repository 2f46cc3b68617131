//! Kernels from nvcc, and a device to run them on.

#![allow(dead_code)] // each test file uses only some of it

pub mod work;

#[path = "../../../../build.rs"] // its `main` belongs to cargo
pub mod build;

use std::path::{Path, PathBuf};
use std::process::Command;

use vgpu::counters::Counters;
use vgpu::device::{Device, Sizes};

/// A folder that holds the virtual GPU as the driver library `name`, for the library path of a
/// child.
pub fn folder_with_driver(name: &str) -> tempfile::TempDir {
    let program = std::env::current_exe().expect("the test's own path");
    let library = (program.ancestors().skip(1).take(2))
        .map(|folder| folder.join(format!("{}vgpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)))
        .find(|path| path.exists())
        .expect("the library beside the test");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(library, folder.path().join(name)).expect("copied");
    folder
}

/// Path of this crate's `kernels/<name>`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name)
}

/// The text of `kernels/<name>`.
pub fn source(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("kernels")
}

/// The PTX that nvcc generates from `kernels/<name>`.
pub fn compile(name: &str) -> String {
    run_nvcc(&path(name), "compute_80")
}

/// The same for a Hopper card.
pub fn compile_for_hopper(name: &str) -> String {
    run_nvcc(&path(name), "compute_90a")
}

/// The PTX of `text` in place of `kernels/<name>`, which includes no file of this project.
pub fn compile_text(name: &str, text: &str) -> String {
    compile_text_for(name, text, "compute_80")
}

/// The same for a Hopper card.
pub fn compile_hopper_text(name: &str, text: &str) -> String {
    compile_text_for(name, text, "compute_90a")
}

fn compile_text_for(name: &str, text: &str, architecture: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join(name);
    std::fs::write(&source, text).expect("written");
    run_nvcc(&source, architecture)
}

fn run_nvcc(source: &Path, architecture: &str) -> String {
    let nvcc = std::env::var("AMATCH_NVCC").unwrap_or("nvcc".into());
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("kernels.ptx");
    build::write_header(folder.path()).expect("written");
    let output = Command::new(&nvcc)
        .arg("-I")
        .arg(folder.path())
        .args(["-ptx", "-std=c++17", "-arch", architecture, "-lineinfo", "-o"])
        .args([out.as_path(), source])
        .output()
        .unwrap_or_else(|error| panic!("{nvcc}: {error}: tests/run installs nvcc where there is none"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(out).expect("PTX")
}

/// A device with the kernels, and buffers on it.
pub struct Bench {
    pub device: Device,
    module: usize,
}

impl Bench {
    pub fn new(ptx: &str, seed: u64) -> Self {
        Bench::on(Device::new(seed), ptx)
    }

    /// The same on `device`.
    pub fn on(mut device: Device, ptx: &str) -> Self {
        let module = device.load(ptx).expect("loads");
        Bench { device, module }
    }

    pub fn buffer(&mut self, bytes: &[u8]) -> u64 {
        let address = self.device.memory.allocate(bytes.len());
        self.device.memory.find(address, bytes.len()).expect("allocated").0.copy_in(0, bytes);
        address
    }

    pub fn empty(&mut self, bytes: usize) -> u64 {
        self.device.memory.allocate(bytes)
    }

    /// All bytes of a buffer, which must be initialized.
    pub fn words(&self, address: u64, n: usize) -> Vec<u32> {
        let (region, offset) = self.device.memory.find(address, 4 * n).expect("allocated");
        assert!(region.is_written(offset, 4 * n), "something was left out");
        let mut bytes = vec![0; 4 * n];
        region.copy_out(offset, &mut bytes);
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn floats(&self, address: u64, n: usize) -> Vec<f32> {
        self.words(address, n).into_iter().map(f32::from_bits).collect()
    }

    /// True if the module has `kernel`.
    pub fn has(&self, kernel: &str) -> bool {
        self.device.kernel(self.module, kernel).is_some()
    }

    /// Blocks of `threads` threads that the device can hold at the same time.
    pub fn capacity(&self, kernel: &str, threads: u32) -> usize {
        let loaded = self.device.modules[self.module].as_ref().expect("the module");
        let index = self.device.kernel(self.module, kernel).expect("the kernel");
        sizes([1; 3], threads, 0, false).capacity(&loaded.module.kernels[index], self.device.card)
    }

    fn run(&mut self, kernel: &str, sizes: Sizes, arguments: &[&[u8]]) -> Result<Counters, String> {
        let index = self.device.kernel(self.module, kernel).expect("the kernel");
        self.device.launch(self.module, index, arguments, sizes)?;
        Ok(self.device.counters[kernel].clone())
    }

    /// Runs a kernel; its fault is the error.
    pub fn try_launch(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: u32,
        shared: usize,
        arguments: &[&[u8]],
    ) -> Result<Counters, String> {
        self.run(kernel, sizes(grid, block, shared, false), arguments)
    }

    /// The same by a cooperative launch.
    pub fn try_launch_together(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: u32,
        shared: usize,
        arguments: &[&[u8]],
    ) -> Result<Counters, String> {
        self.run(kernel, sizes(grid, block, shared, true), arguments)
    }

    #[track_caller]
    pub fn launch(&mut self, kernel: &str, grid: [u32; 3], block: u32, shared: usize, arguments: &[&[u8]]) -> Counters {
        self.try_launch(kernel, grid, block, shared, arguments).unwrap_or_else(|message| panic!("{message}"))
    }
}

fn sizes(grid: [u32; 3], block: u32, shared: usize, cooperative: bool) -> Sizes {
    Sizes { grid, block: [block, 1, 1], dynamic_shared: shared, allowed_dynamic_shared: shared, cooperative }
}
