//! Fat binaries as `build.rs` makes them: the virtual GPU finds the PTX among the machine code.

#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../../build.rs"]
mod build;

use std::process::Command;

use build::{Nvcc, compile_all};
use vgpu::device::Device;
use vgpu::fatbin::ptx_of;

const SOURCE: &str = "extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }\n";

#[test]
fn kernels_are_loaded_from_what_the_build_makes() {
    let guard = tempfile::tempdir().expect("a folder");
    std::fs::write(guard.path().join("twice.cu"), SOURCE).expect("written");
    let path = std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC");
    let nvcc = Nvcc::new(path.into()).expect("a compiler");
    for (architectures, machine_code) in [(&[][..], 0), (&[80, 90], 2)] {
        let images = compile_all(guard.path(), guard.path(), &nvcc, architectures, 2).expect("compiles");
        let image = std::fs::read(&images[0].path).expect("an image");
        // Each one is an object file of its own.
        assert_eq!(image.windows(4).filter(|bytes| bytes == b"\x7fELF").count(), machine_code);
        let mut device = Device::new(0);
        let module = device.load(&ptx_of(&image).expect("PTX")).expect("loads");
        assert!(device.kernel(module, "twice").is_some());
    }

    let compressed = guard.path().join("compressed.fatbin");
    let mut command = Command::new(&nvcc.path);
    // Short code is not compressed: this one is repetitive enough to be.
    let long: String = (0..200).map(|n| SOURCE.replace("twice", &format!("twice{n}"))).collect();
    std::fs::write(guard.path().join("long.cu"), long).expect("written");
    command.args(["-fatbin", "-gencode=arch=compute_80,code=compute_80", "-o"]);
    let status = command.args([&compressed, &guard.path().join("long.cu")]).status().expect("runs");
    assert!(status.success());
    let problem = ptx_of(&std::fs::read(&compressed).expect("an image")).expect_err("is compressed");
    assert!(problem.contains("--no-compress"), "{problem}");
}
