//! What the compiler says of the kernels, for every architecture they are built for: no registers spill, nothing lies in local memory.

use std::path::Path;
use std::process::Command;

const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

/// Registers of a thread at most: three blocks of 128 threads fit a multiprocessor.
const MAX_REGISTERS: u32 = 65_536 / (3 * 128);

#[test]
fn no_kernel_spills_on_any_architecture() {
    let nvcc = std::env::var("AMATCH_NVCC").unwrap_or("nvcc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/sweep.cu");
    let folder = tempfile::tempdir().expect("a folder");
    let compile = |architecture: &str| -> String {
        let out = folder.path().join(architecture);
        let output = Command::new(&nvcc)
            .args(["-cubin", "-std=c++17", "-Xptxas", "-v", "-arch", architecture, "-o"])
            .args([&out, &source])
            .output()
            .unwrap_or_else(|error| panic!("{nvcc}: {error}: tests/run installs nvcc where there is none"));
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{report}");
        report
    };
    let reports: Vec<(&str, String)> = std::thread::scope(|scope| {
        let halves: Vec<_> = (ARCHITECTURES.chunks(3))
            .map(|half| scope.spawn(|| half.iter().map(|&name| (name, compile(name))).collect::<Vec<_>>()))
            .collect();
        halves.into_iter().flat_map(|half| half.join().expect("compiles")).collect()
    });
    for (architecture, report) in reports {
        let frames: Vec<&str> = report.lines().filter(|line| line.contains("bytes stack frame")).collect();
        assert_eq!(frames.len(), 10, "{architecture}: a line for each kernel: {report}");
        for frame in frames {
            let bytes = frame.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
            assert_eq!(bytes.sum::<u32>(), 0, "{architecture}: {frame}");
        }
        for line in report.lines().filter(|line| line.contains("registers")) {
            let registers = line.split("Used ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
            assert!(registers.expect("a number") <= MAX_REGISTERS, "{architecture}: {line}");
        }
    }
}
