//! The assembler's report on the kernels: no registers spill, and local memory is not used. For
//! every architecture on request: `cargo test -p vgpu --test resources -- --ignored`.

#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../../build.rs"]
mod build;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use build::{ARCHITECTURES, Nvcc, VIRTUAL};

/// The output of a program, which must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// Calls `work` for each of `list`, in order, on two threads.
fn on_two_threads<T: Sync>(list: &[T], work: impl Fn(&T) + Sync) {
    let next = Mutex::new(list.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // A separate statement, so that the lock is released before the work.
                    let item = next.lock().expect("unharmed").next();
                    let Some(item) = item else { break };
                    work(item);
                }
            });
        }
    });
}

/// The problems in `report`, the assembler's output for a file with `kernels`.
fn complaints(report: &str, kernels: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    // "ptxas info    : Function properties for NAME", and on the next line the bytes of its frame,
    // of spilled stores and of loads.
    for kernel in kernels {
        let mut lines = report.lines().skip_while(|line| !line.ends_with(&format!("Function properties for {kernel}")));
        let sizes = lines.nth(1).unwrap_or("nothing is said");
        let numbers: Vec<&str> = sizes.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).collect();
        if numbers != ["0", "0", "0"] || !sizes.contains("stack frame") || !sizes.contains("spill loads") {
            wrong.push(format!("{kernel}: {}", sizes.trim()));
        }
    }
    // A function that is called instead of inlined would not be among the kernels.
    let n = report.lines().filter(|line| line.contains("Function properties for ")).count();
    if n != kernels.len() {
        wrong.push(format!("{n} functions, of which {} are kernels", kernels.len()));
    }
    wrong
}

#[test]
fn spills_and_local_memory_are_reported() {
    let report = |frame: u32, stores: u32| {
        format!(
            "ptxas info    : Function properties for a\n    {frame} bytes stack frame, {stores} bytes spill stores, 0 bytes spill loads\n"
        )
    };
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(complaints(&report(0, 0), &names(&["a"])), Vec::<String>::new());
    for wrong in [
        complaints(&report(8, 0), &names(&["a"])),
        complaints(&report(0, 4), &names(&["a"])),
        complaints(&report(0, 0), &names(&["a", "b"])),
        complaints(&report(0, 0), &[]),
    ] {
        assert!(!wrong.is_empty());
    }
}

/// The oldest and the newest; the assembler takes minutes for each.
#[test]
fn no_kernel_spills_on_the_oldest_and_the_newest_architecture() {
    let [oldest, .., newest] = ARCHITECTURES;
    expect_no_spills(&[oldest, newest]);
}

#[test]
#[ignore = "minutes: on request"]
fn no_kernel_spills_on_any_architecture() {
    expect_no_spills(&ARCHITECTURES);
}

fn expect_no_spills(architectures: &[u32]) {
    let path = std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC");
    let nvcc = Nvcc::new(path.into()).expect("a compiler");
    let assembler = nvcc.path.with_file_name(format!("ptxas{}", std::env::consts::EXE_SUFFIX));
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(kernels).expect("kernels").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    build::write_header(folder.path()).expect("written");
    // The largest first, so that none runs alone at the end.
    let of_name = |source: &Path| folder.path().join(source.file_stem().expect("a name"));
    on_two_threads(&sources, |source| {
        let mut command = Command::new(&nvcc.path);
        command.args(["-ptx", "-std=c++17", "-lineinfo"]).arg(format!("-arch=compute_{VIRTUAL}"));
        command.arg("-I").arg(folder.path());
        run(command.arg("-o").args([&of_name(source).with_extension("ptx"), source]));
    });
    let mut texts: Vec<(PathBuf, Vec<String>)> = (sources.iter())
        .map(|source| {
            let ptx = of_name(source).with_extension("ptx");
            let names = build::kernels(&std::fs::read(&ptx).expect("PTX"));
            assert!(!names.is_empty(), "{}: no kernels", source.display());
            (ptx, names)
        })
        .collect();
    texts.sort_by_key(|(ptx, _)| std::cmp::Reverse(std::fs::metadata(ptx).map_or(0, |about| about.len())));
    let work: Vec<(&(PathBuf, Vec<String>), u32)> =
        texts.iter().flat_map(|text| architectures.iter().map(move |&architecture| (text, architecture))).collect();
    let wrong = Mutex::new(Vec::new());
    on_two_threads(&work, |((ptx, names), architecture)| {
        let mut command = Command::new(&assembler);
        command.arg("-v").arg(format!("-arch=sm_{architecture}")).arg("-o");
        let report = run(command.args([&ptx.with_extension(architecture.to_string()), ptx]));
        let file = ptx.file_stem().unwrap_or_default().display();
        let found = complaints(&report, names).into_iter().map(|what| format!("{file}, sm_{architecture}: {what}"));
        wrong.lock().expect("unharmed").extend(found);
    });
    let wrong = wrong.into_inner().expect("unharmed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
