//! Kernels from nvcc, and a device to run them on.

#![allow(dead_code)] // each test file uses its own part

use std::path::Path;
use std::process::Command;

use vgpu::counters::Counters;
use vgpu::device::{Device, Sizes};

/// The PTX that nvcc makes of `kernels/<name>`.
pub fn compile(name: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(name);
    run_nvcc(&source)
}

/// The same with `old` replaced by `new` in `file` of the project's kernels: a fault on purpose.
pub fn compile_with_fault(name: &str, file: &str, old: &str, new: &str) -> String {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&project.join("kernels"), &folder.path().join("kernels"));
    let tests = folder.path().join("tests/vgpu/kernels");
    copy_folder(&project.join("tests/vgpu/kernels"), &tests);
    let faulty = folder.path().join("kernels").join(file);
    let text = std::fs::read_to_string(&faulty).expect("a kernel");
    assert!(text.contains(old), "{file} does not hold {old:?}");
    std::fs::write(&faulty, text.replace(old, new)).expect("written");
    run_nvcc(&tests.join(name))
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).expect("copied");
        }
    }
}

fn run_nvcc(source: &Path) -> String {
    let nvcc = std::env::var("AMATCH_NVCC").unwrap_or("nvcc".into());
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("kernels.ptx");
    let output = Command::new(&nvcc)
        .args(["-ptx", "-std=c++17", "-arch=compute_80", "-lineinfo", "-o"])
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
        let mut device = Device::new(seed);
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

    /// All bytes of a buffer, each of which must have been written.
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

    /// Whether the module has `kernel`.
    pub fn has(&self, kernel: &str) -> bool {
        self.device.kernel(self.module, kernel).is_some()
    }

    /// Runs a kernel; what it did wrong is the error.
    pub fn try_launch(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        block: u32,
        shared: usize,
        arguments: &[&[u8]],
    ) -> Result<Counters, String> {
        let index = self.device.kernel(self.module, kernel).expect("the kernel");
        let sizes = Sizes { grid, block: [block, 1, 1], dynamic_shared: shared, allowed_dynamic_shared: shared };
        self.device.launch(self.module, index, arguments, sizes)?;
        Ok(self.device.counters[kernel].clone())
    }

    #[track_caller]
    pub fn launch(&mut self, kernel: &str, grid: [u32; 3], block: u32, shared: usize, arguments: &[&[u8]]) -> Counters {
        self.try_launch(kernel, grid, block, shared, arguments).unwrap_or_else(|message| panic!("{message}"))
    }
}

/// The bytes of a block of arguments, field after field as `kernels/params.h` has them.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    pub fn u32(&mut self, value: usize) -> &mut Self {
        self.0.extend((value as u32).to_le_bytes());
        self
    }

    pub fn f32(&mut self, value: f64) -> &mut Self {
        self.0.extend((value as f32).to_le_bytes());
        self
    }

    pub fn pointer(&mut self, value: u64) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_le_bytes());
        self
    }
}
