//! Fat binaries as `build.rs` makes them: everything in them is compressed, and the virtual GPU
//! finds the PTX among the machine code.

#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../../build.rs"]
mod build;

use std::path::Path;
use std::process::Command;

use build::{Nvcc, compile_all};
use vgpu::device::Device;
use vgpu::fatbin::ptx_of;

/// Kernels that are repetitive enough to be compressed: short code is not.
fn source() -> String {
    let of = |n| format!("extern \"C\" __global__ void times{n}(float* x) {{ x[threadIdx.x] *= {n}; }}\n");
    (0..200).map(of).collect()
}

fn nvcc() -> Nvcc {
    let path = std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC");
    Nvcc::new(path.into()).expect("a compiler")
}

/// Runs the nvcc of `compiler` on `kernels.cu` in `folder`; returns the bytes of `file`, which it
/// writes there.
fn made_by(compiler: &Nvcc, folder: &Path, options: &[&str], file: &str) -> Vec<u8> {
    let mut command = Command::new(&compiler.path);
    command.args(options).arg("-std=c++17").arg("-o").args([folder.join(file), folder.join("kernels.cu")]);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(folder.join(file)).expect("made")
}

/// The words of PTX without comments, which `fatbinary` leaves out. Names of files differ with the
/// compilation, so lines that name one do not count.
fn words(ptx: &str) -> Vec<&str> {
    let lines = ptx.lines().filter(|line| !line.trim_start().starts_with(".file"));
    lines.flat_map(|line| line.split("//").next().unwrap_or_default().split_whitespace()).collect()
}

#[test]
fn kernels_are_loaded_from_what_the_build_makes() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    std::fs::write(folder.join("kernels.cu"), source()).expect("written");
    let nvcc = nvcc();
    let ptx = made_by(&nvcc, folder, &["-ptx", "-arch=compute_80", "-lineinfo"], "kernels.ptx");
    let ptx = String::from_utf8(ptx).expect("text");
    for architectures in [&[][..], &[80, 90]] {
        let images = compile_all(folder, folder, &nvcc, architectures, 2).expect("compiles");
        assert_eq!(images[0].kernels.len(), 200);
        let image = std::fs::read(&images[0].path).expect("an image");
        let unpacked = ptx_of(&image, 80).expect("PTX");
        assert_eq!(words(&unpacked), words(&ptx), "the image holds what nvcc made");
        let mut device = Device::new(0);
        let module = device.load(&unpacked).expect("loads");
        assert!(images[0].kernels.iter().all(|kernel| device.kernel(module, kernel).is_some()));

        // Nothing is there as it was before compression: text would hold instructions in full, and
        // machine code is an object file.
        let holds = |part: &[u8]| image.windows(part.len()).any(|bytes| bytes == part);
        assert!(!holds(b"mov.u32") && !holds(b"\x7fELF"));
        let parts = parts(&image);
        let n_codes = parts.iter().filter(|(kind, _)| *kind == MACHINE_CODE).count();
        assert_eq!((n_codes, parts.len()), (architectures.len(), architectures.len() + 1));
        for (kind, n_bytes) in parts {
            assert!(n_bytes < ptx.len() / 4, "kind {kind}: {n_bytes} bytes for {} of PTX", ptx.len());
        }
    }
}

/// Kind of a part of a fat binary.
const MACHINE_CODE: u16 = 2;

/// Kind and length of the parts of a fat binary.
fn parts(image: &[u8]) -> Vec<(u16, usize)> {
    let number =
        |at: usize, n: usize| image[at..at + n].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let mut parts = Vec::new();
    let mut at = number(6, 2);
    while at < image.len() {
        let (header, size) = (number(at + 4, 4), number(at + 8, 8));
        parts.push((number(at, 2) as u16, size));
        at += header + size;
    }
    parts
}

/// What the toolkits write by default, and when asked: LZ4, Zstandard, or nothing is compressed.
#[test]
fn ptx_is_unpacked_whatever_compressed_it() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    std::fs::write(folder.join("kernels.cu"), source()).expect("written");
    let nvcc = nvcc();
    let image = |options: &[&str]| {
        let code = ["-fatbin", "-gencode=arch=compute_80,code=compute_80"];
        let image = made_by(&nvcc, folder, &[&code, options].concat(), "kernels.fatbin");
        (ptx_of(&image, 80).expect("PTX"), image.len())
    };
    let (plain, plain_bytes) = image(&["--no-compress"]);
    let mut ways: Vec<Vec<String>> = vec![vec![]];
    let help = Command::new(&nvcc.path).arg("--help").output().expect("runs").stdout;
    if String::from_utf8_lossy(&help).contains("--compress-mode") {
        ways.extend(["size", "speed", "balance"].map(|mode| vec![format!("--compress-mode={mode}")]));
    }
    for way in ways {
        let (ptx, n_bytes) = image(&way.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(words(&ptx), words(&plain), "{way:?}");
        assert!(n_bytes < plain_bytes / 4, "{way:?}: {n_bytes} of {plain_bytes} bytes");
    }
}
