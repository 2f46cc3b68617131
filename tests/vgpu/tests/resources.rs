//! The assembler's report on the kernels: no registers spill, local memory is not used, and on
//! Hopper products of warpgroups are not serialized and registers are passed on as the code says.
//!
//! What is assembled is the PTX that the build embeds. As that takes minutes,
//! `tests/vgpu/assembled.csv` records what the assembler found nothing wrong with, by digests of
//! the PTX and the assembler's version; whatever is not on record is assembled. `AMATCH_RECORD=1`
//! writes the record anew. Every architecture, whatever is on record, on request: `cargo test -p
//! vgpu --test resources -- --ignored`.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use action_matching::cli_support::images;
use common::build::{ARCHITECTURES, kernels};
use common::{compile_for_hopper, compile_hopper_text, source};
use sha2::{Digest, Sha256};
use vgpu::fatbin::ptx_of;
use vgpu::ptx::Target;

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
    // "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; …": what has a
    // number is not as the code says, whatever the assembler calls it.
    let has_number = |line: &str| {
        let number = line.split_once(" : (C").and_then(|(_, rest)| rest.split_once(')')).map(|(number, _)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    wrong.extend(report.lines().filter(|line| has_number(line) || line.contains("warning")).map(String::from));
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

/// Kernels of Hopper's whose products are serialized, or whose `setmaxnreg` is without effect.
#[test]
fn roles_that_the_assembler_does_not_keep_are_reported() {
    let said = |ptx: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        complaints(&assembled(ptx, "90a", &folder.path().join("hopper")), &["layers".to_string()]).join("\n")
    };
    assert_eq!(said(&compile_for_hopper("hopper.cu")), "");
    let product = "multiply(d, a + 4 * k, descriptor + 2 * k, k > 0);";
    for (from, to, report) in [
        (product, format!("{{ {product} d[0] += 1; }}"), "wgmma.mma_async instructions are serialized"),
        (product, format!("{{ {product} d[0] += 1; }}"), "warpgroup.wait is injected"),
        ("__launch_bounds__(384, 1)", String::new(), "'setmaxnreg' ignored; unable to determine"),
        ("232; // more", "56; // more".into(), "'setmaxnreg' ignored to maintain minimum register requirements"),
    ] {
        let text = source("hopper.cu");
        assert!(text.contains(from), "{from}");
        let said = said(&compile_hopper_text("hopper.cu", &text.replace(from, &to)));
        assert!(said.contains(report), "{from} -> {to}: {said}");
    }
}

/// What was assembled without a complaint, a line each: the first kernel of a file, architecture,
/// digest.
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
    /// assembler, but not with comments, line numbers and paths, on which names in the sections for
    /// debuggers depend too.
    fn line(first_kernel: &str, architecture: &str, ptx: &str, assembler: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(assembler);
        let instructions = ptx.lines().take_while(|line| !line.trim_start().starts_with(".section"));
        let is_place = |line: &str| [".loc", ".file"].iter().any(|start| line.trim_start().starts_with(start));
        for line in instructions.filter(|line| !is_place(line)) {
            for word in line.split("//").next().unwrap_or_default().split_whitespace() {
                hash.update(word);
                hash.update(" ");
            }
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{first_kernel},{architecture},{digest}")
    }

    fn write(&self, lines: &BTreeSet<String>) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.path, format!("first kernel,architecture,digest\n{text}")).expect("written");
    }
}

#[test]
fn a_record_is_of_instructions_and_assembler() {
    let line = |ptx: &str, assembler: &str| Record::line("a", "80", ptx, assembler);
    let first = line("// 1\n\tadd.f32\n\t.loc 1 2\n\t.file 1 \"x\"", "13.0");
    assert_eq!(first, line("add.f32 // 2\n", "13.0"));
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

/// The assembler, in the folder of nvcc.
fn assembler() -> PathBuf {
    let nvcc = PathBuf::from(std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC"));
    nvcc.with_file_name(format!("ptxas{}", std::env::consts::EXE_SUFFIX))
}

/// Assembles `ptx` to the file `out`; the report.
fn assembled(ptx: &str, architecture: &str, out: &Path) -> String {
    // One for each architecture: two are assembled at a time.
    let mut source = out.as_os_str().to_owned();
    source.push(".ptx");
    std::fs::write(&source, ptx).expect("written");
    let mut command = Command::new(assembler());
    run(command.arg("-v").arg(format!("-arch=sm_{architecture}")).arg("-o").arg(out).arg(&source))
}

/// Assembles all kernels for `architectures`, and Hopper's own code, but for those `on_record`: the
/// record of them.
fn expect_no_spills(architectures: &[u32], on_record: &BTreeSet<String>) -> BTreeSet<String> {
    assert!(images().next().is_some(), "built without kernels: tests/run builds with them");
    let version = run(Command::new(assembler()).arg("--version"));
    let mut work: Vec<(String, String, String)> = Vec::new();
    for image in images() {
        let before = work.len();
        let mut add = |capability: u32, target: Option<Target>| {
            // An image for Hopper alone has nothing for others.
            let Ok(ptx) = ptx_of(image, capability) else { return };
            if target.is_none_or(|target| Target::of(&ptx) == target) {
                let architecture = target.map_or(capability.to_string(), |_| format!("{capability}a"));
                let first = kernels(ptx.as_bytes()).into_iter().next().expect("a kernel");
                work.push((Record::line(&first, &architecture, &ptx, &version), architecture, ptx));
            }
        };
        architectures.iter().for_each(|&architecture| add(architecture, None));
        add(90, Some(Target { architecture: 90, specific: true }));
        assert!(work.len() > before, "an image without PTX");
    }
    let lines = work.iter().map(|(line, ..)| line.clone()).collect();
    work.retain(|(line, ..)| !on_record.contains(line));
    // The largest first, so that none runs alone at the end.
    work.sort_by_key(|(_, _, ptx)| std::cmp::Reverse(ptx.len()));
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = Mutex::new(Vec::new());
    on_two_threads(&work, |(_, architecture, ptx)| {
        let names = kernels(ptx.as_bytes());
        let report = assembled(ptx, architecture, &folder.path().join(format!("{}.{architecture}", names[0])));
        let of = |what: String| format!("the file of {}, sm_{architecture}: {what}", names[0]);
        wrong.lock().expect("unharmed").extend(complaints(&report, &names).into_iter().map(of));
    });
    let wrong = wrong.into_inner().expect("unharmed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    lines
}
