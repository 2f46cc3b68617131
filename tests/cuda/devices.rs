//! GPUs from the user's side: the list of devices, and the choice of `--device auto`.

use std::process::Command;

/// Output of the program with the GPU visible: the virtual one, unless tests/run got `--gpu`.
#[track_caller]
fn prints(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_amatch")).args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn devices_lists_gpu_driver_and_kernels() {
    let said = prints(&["devices"]);
    let gpu = said.lines().find(|line| line.starts_with("cuda:0, ")).unwrap_or_else(|| panic!("no GPU: {said}"));
    for part in ["compute capability ", "GiB of memory", "GiB free"] {
        assert!(gpu.contains(part), "{part:?} is not in: {gpu}");
    }
    assert!(said.contains("driver: ") && said.contains("CUDA 1"), "{said}");
    assert!(said.contains("kernels: nvcc ") && said.contains("PTX for the rest"), "{said}");
}

/// A peak in GFLOP/s, and its device.
fn peak(arguments: &[&str]) -> (f64, String) {
    let said = prints(&[&["bench", "peak", "--seconds", "0.1"], arguments].concat());
    let figures = said.strip_prefix("peak: ").and_then(|rest| rest.split_once(" GFLOP/s, "));
    let (gflops, device) = figures.unwrap_or_else(|| panic!("{said}"));
    (gflops.parse().unwrap_or_else(|error| panic!("{said}: {error}")), device.trim().to_string())
}

#[test]
fn auto_takes_the_gpu_and_precision_its_arithmetic() {
    let (bf16, device) = peak(&[]);
    assert!(device.starts_with("cuda:0 (") && device.ends_with(", bf16"), "{device}");
    assert_eq!(peak(&["--device", "cuda", "--precision", "bf16"]), (bf16, device));
    let (tf32, device) = peak(&["--device", "cuda:0", "--precision", "tf32"]);
    assert!(device.ends_with(", tf32") && 2.0 * tf32 == bf16, "{tf32} of {bf16}, {device}");
    assert!(peak(&["--device", "cpu"]).1.starts_with("cpu, "));
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let arguments = ["bench", "toy2d", "--device", "cuda:97"];
    let output = Command::new(env!("CARGO_BIN_EXE_amatch")).args(arguments).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["error: device cuda:97", "invalid device ordinal", "nvidia-smi"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}
