//! The assembler's report on the kernels: no registers spill, and local memory is not used.
//!
//! The assembler takes minutes, so `tests/vgpu/assembled.csv` records what it found nothing wrong
//! with, by digests of the PTX and the assembler's version; whatever is not on record is assembled.
//! `AMATCH_RECORD=1` writes the record anew. Every architecture, whatever is on record, on request:
//! `cargo test -p vgpu --test resources -- --ignored`.

#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../../build.rs"]
mod build;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use build::{ARCHITECTURES, Nvcc, VIRTUAL};
use sha2::{Digest, Sha256};

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

/// What was assembled without a complaint, a line each: file of kernels, architecture, digest.
struct Record {
    path: PathBuf,
    lines: BTreeSet<String>,
}

impl Record {
    fn read() -> Record {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assembled.csv");
        let lines = std::fs::read_to_string(&path).unwrap_or_default().lines().skip(1).map(String::from).collect();
        Record { path, lines }
    }

    /// The line of a file of kernels: changes with every instruction of `ptx`, and with the
    /// assembler, but not with line numbers and paths, on which names in the sections for debuggers
    /// depend too.
    fn line(file: &str, architecture: u32, ptx: &str, assembler: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(assembler);
        let instructions = ptx.lines().take_while(|line| !line.trim_start().starts_with(".section"));
        let is_place = |line: &str| ["//", ".loc", ".file"].iter().any(|start| line.trim_start().starts_with(start));
        for line in instructions.filter(|line| !is_place(line)) {
            hash.update(line);
            hash.update("\n");
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{file},{architecture},{digest}")
    }

    fn write(&self, lines: &BTreeSet<String>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.path, format!("kernels,architecture,digest\n{text}")).expect("written");
    }
}

#[test]
fn a_record_is_of_instructions_and_assembler() {
    let line = |ptx: &str, assembler: &str| Record::line("a", 80, ptx, assembler);
    let first = line("// 1\n\tadd.f32\n\t.loc 1 2\n\t.file 1 \"x\"", "13.0");
    assert_eq!(first, line("// 2\n\tadd.f32\n\t.loc 1 3\n\t.file 1 \"y\"\n\t.section .debug_str\n{\n", "13.0"));
    assert_ne!(first, line("\tmul.f32\n", "13.0"));
    assert_ne!(first, line("\tadd.f32\n", "13.1"));
}

/// The oldest and the newest.
#[test]
fn no_kernel_spills_on_the_oldest_and_the_newest_architecture() {
    let [oldest, .., newest] = ARCHITECTURES;
    let record = Record::read();
    let assembled = expect_no_spills(&[oldest, newest], &record.lines);
    if std::env::var_os("AMATCH_RECORD").is_some() {
        record.write(&assembled);
    } else if assembled != record.lines {
        println!("tests/vgpu/assembled.csv is not of these kernels: AMATCH_RECORD=1 writes it anew");
    }
}

#[test]
#[ignore = "minutes: on request"]
fn no_kernel_spills_on_any_architecture() {
    expect_no_spills(&ARCHITECTURES, &BTreeSet::new());
}

/// Assembles all kernels for `architectures`, but for those `on_record`: the record of them.
fn expect_no_spills(architectures: &[u32], on_record: &BTreeSet<String>) -> BTreeSet<String> {
    let path = std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC");
    let nvcc = Nvcc::new(path.into()).expect("a compiler");
    let assembler = nvcc.path.with_file_name(format!("ptxas{}", std::env::consts::EXE_SUFFIX));
    let version = run(Command::new(&assembler).arg("--version"));
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sources: Vec<PathBuf> =
        std::fs::read_dir(kernels).expect("kernels").map(|entry| entry.expect("an entry").path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    build::write_header(folder.path()).expect("written");
    let of_name = |source: &Path| folder.path().join(source.file_stem().expect("a name"));
    on_two_threads(&sources, |source| {
        let mut command = Command::new(&nvcc.path);
        command.args(["-ptx", "-std=c++17", "-lineinfo"]).arg(format!("-arch=compute_{VIRTUAL}"));
        command.arg("-I").arg(folder.path());
        run(command.arg("-o").args([&of_name(source).with_extension("ptx"), source]));
    });
    let mut texts: Vec<(PathBuf, String)> = (sources.iter())
        .map(|source| {
            let ptx = of_name(source).with_extension("ptx");
            let text = std::fs::read_to_string(&ptx).expect("PTX");
            (ptx, text)
        })
        .collect();
    // The largest first, so that none runs alone at the end.
    texts.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
    let name = |ptx: &Path| ptx.file_stem().expect("a name").to_string_lossy().into_owned();
    let work: Vec<(&(PathBuf, String), u32, String)> = (texts.iter())
        .flat_map(|text| architectures.iter().map(move |&architecture| (text, architecture)))
        .map(|(text, number)| (text, number, Record::line(&name(&text.0), number, &text.1, &version)))
        .collect();
    let wrong = Mutex::new(Vec::new());
    let unknown: Vec<_> = work.iter().filter(|(_, _, line)| !on_record.contains(line)).collect();
    on_two_threads(&unknown, |((ptx, text), architecture, _)| {
        let names = build::kernels(text.as_bytes());
        assert!(!names.is_empty(), "{}: no kernels", ptx.display());
        let mut command = Command::new(&assembler);
        command.arg("-v").arg(format!("-arch=sm_{architecture}")).arg("-o");
        let report = run(command.args([&ptx.with_extension(architecture.to_string()), ptx]));
        let of = |what: String| format!("{}, sm_{architecture}: {what}", name(ptx));
        wrong.lock().expect("unharmed").extend(complaints(&report, &names).into_iter().map(of));
    });
    let wrong = wrong.into_inner().expect("unharmed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    work.into_iter().map(|(_, _, line)| line).collect()
}
