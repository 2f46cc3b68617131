//! What the assembler says of the kernels, for every architecture they are built for: no registers spill, nothing lies in local memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];

/// nvcc, with the tools beside it.
fn nvcc() -> String {
    std::env::var("AMATCH_NVCC").unwrap_or("nvcc".into())
}

/// What `command` printed, which must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs nvcc"));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

#[test]
#[ignore = "assembles all kernels six times, several minutes: run with --ignored"]
fn no_kernel_spills_on_any_architecture() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sources: Vec<PathBuf> = (std::fs::read_dir(kernels).expect("kernels"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    assert!(sources.len() >= 6, "{sources:?}");
    // As in the build, each architecture's code is assembled from the one PTX.
    let ptx_of = |source: &PathBuf| -> (PathBuf, usize) {
        let ptx = folder.path().join(source.file_stem().expect("a name")).with_extension("ptx");
        run(Command::new(nvcc()).args(["-ptx", "-std=c++17", "-arch=compute_80", "-o"]).args([&ptx, source]));
        let n_kernels = std::fs::read_to_string(&ptx).expect("PTX").matches(".visible .entry ").count();
        assert!(n_kernels > 0, "{}", source.display());
        (ptx, n_kernels)
    };
    let compiled = in_parallel(sources.iter().collect(), ptx_of);
    let mut tasks: Vec<(&'static str, &(PathBuf, usize))> = Vec::new();
    for architecture in ARCHITECTURES {
        tasks.extend(compiled.iter().map(|ptx| (architecture, ptx)));
    }
    let problems = in_parallel(tasks, |(architecture, (ptx, n_kernels))| {
        let cubin = ptx.with_extension(architecture);
        let report = run(Command::new(nvcc())
            .args(["-cubin", "-Xptxas", "-v", "-arch", architecture, "-o"])
            .args([&cubin, ptx]));
        let frames: Vec<&str> = report.lines().filter(|line| line.contains("bytes stack frame")).collect();
        assert_eq!(frames.len(), *n_kernels, "{architecture}: a line for each kernel: {report}");
        let spills = frames.iter().filter(|frame| {
            let bytes = frame.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
            bytes.sum::<u32>() != 0
        });
        match spills.count() {
            0 => String::new(),
            _ => format!("{}, {architecture}:\n{report}\n", ptx.display()),
        }
    });
    let problems = problems.concat();
    assert!(problems.is_empty(), "{problems}");
}

/// `work` on each task, two at a time.
fn in_parallel<T: Send, R: Send>(tasks: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let n = tasks.len();
    let (queue, results) = (Mutex::new(tasks.into_iter().enumerate()), Mutex::new(Vec::with_capacity(n)));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("unharmed").next();
                    let Some((index, task)) = next else { break };
                    let result = work(task);
                    results.lock().expect("unharmed").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("unharmed");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
