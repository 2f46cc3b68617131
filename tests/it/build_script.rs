//! `build.rs` on different machines and with different settings: the nvcc that it finds, the GPUs
//! that it assembles for, the files that it compiles again.

#[allow(dead_code)] // its `main` belongs to cargo
#[path = "../../build.rs"]
mod build;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use build::{Image, Nvcc, architectures, check_kernels, compile_all, find_nvcc, gather, kernels, write_header};

const KNOWN: [u32; 6] = [75, 80, 86, 90, 103, 120];

/// A file `path` below `root`, with its folders.
fn file(root: &Path, path: &str, text: &str) -> PathBuf {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(&path, text).expect("written");
    path
}

/// Every place that may hold nvcc is found, in order of priority.
#[test]
fn nvcc_is_searched_in_the_order_of_the_readme() {
    let guard = tempfile::tempdir().expect("a folder");
    let root = guard.path();
    let nvcc = |folder: &str| file(root, &format!("{folder}/nvcc"), "");
    let places = [
        ("CUDA_PATH", root.join("path"), nvcc("path/bin")),
        ("CUDA_HOME", root.join("home"), nvcc("home/bin")),
        ("PATH", root.join("path3"), nvcc("path3")),
        ("VIRTUAL_ENV", root.join("env"), nvcc("env/lib/python3.12/site-packages/nvidia/cu13/bin")),
        ("CONDA_PREFIX", root.join("conda"), nvcc("conda/lib/python3.9/site-packages/nvidia/cuda_nvcc/bin")),
    ];
    let project = nvcc("project/target/cuda/lib/python3.11/site-packages/nvidia/cu13/bin");
    let python = nvcc("packages/nvidia/cu13/bin");
    let mut variables: HashMap<&str, OsString> =
        places.iter().map(|(name, value, _)| (*name, value.clone().into())).collect();
    variables.insert("AMATCH_NVCC", "named".into());
    let find = |variables: &HashMap<&str, OsString>, project: &str, python: &str| {
        find_nvcc(&|name| variables.get(name).cloned(), &root.join(project), &|| vec![root.join(python)])
    };
    assert_eq!(find(&variables, "project", "packages"), Some("named".into()), "taken at its word");
    variables.remove("AMATCH_NVCC");
    for (name, _, nvcc) in &places {
        assert_eq!(find(&variables, "project", "packages").as_ref(), Some(nvcc));
        variables.remove(name);
    }
    assert_eq!(find(&variables, "project", "packages"), Some(project));
    assert_eq!(find(&variables, "none", "packages"), Some(python));
    assert_eq!(find(&variables, "none", "none"), None);
}

#[test]
fn architectures_are_those_that_are_known_and_wanted() {
    assert_eq!(architectures(None, &KNOWN), Ok(vec![80, 90, 120]), "all that this nvcc knows");
    assert_eq!(architectures(Some("90"), &KNOWN), Ok(vec![90]));
    assert_eq!(architectures(Some("120, 80,80"), &KNOWN), Ok(vec![80, 120]));
    assert_eq!(architectures(Some("103"), &KNOWN), Ok(vec![103]), "one beside the usual ones");
    assert_eq!(architectures(Some("ptx"), &KNOWN), Ok(vec![]));
    for (wrong, word) in [("sm_90", "sm_90"), ("80,100", "100"), ("75", "75"), ("", "\"\""), ("80;90", "80;90")] {
        let problem = architectures(Some(wrong), &KNOWN).expect_err(wrong);
        assert!(problem.contains(word) && problem.contains("80,86,90,103,120"), "{problem}");
    }
}

#[test]
fn kernels_are_named_once_in_the_order_of_the_file() {
    let ptx = b"\0.visible .entry sweep_bf16(\n.visible .func helper()\n.visible .entry draw_f32 (\0\xff.visible .entry sweep_bf16(";
    assert_eq!(kernels(ptx), ["sweep_bf16", "draw_f32"]);
}

/// One name that only one side has is enough.
#[test]
fn kernels_are_those_that_the_host_declares() {
    let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let image = |list: &[&str]| Image { kernels: names(list), path: "none".into(), is_of_warpgroups: false };
    let made = [image(&["sweep_f32"]), image(&["draw_f32", "update_f32"])];
    assert_eq!(check_kernels(&made, &names(&["draw_f32", "update_f32", "sweep_f32"])), Ok(()));
    let renamed = check_kernels(&made, &names(&["draw_f32", "update_f32", "sweep_all_f32"])).expect_err("renamed");
    assert!(renamed.contains("sweep_all_f32 is not in kernels/"), "{renamed}");
    assert!(renamed.contains("sweep_f32 is not declared"), "{renamed}");
    check_kernels(&made, &names(&["draw_f32", "sweep_f32"])).expect_err("one too many");
    check_kernels(&made[1..], &names(&["draw_f32", "update_f32", "sweep_f32"])).expect_err("one too few");
}

/// A changed header recompiles the files that include it, directly or not, even if headers include
/// each other.
#[test]
fn the_files_of_a_kernel_are_it_and_what_it_includes() {
    let guard = tempfile::tempdir().expect("a folder");
    let root = guard.path();
    let source =
        file(root, "a.cu", "#include \"net/b.cuh\"\n # include \"abi.h\"\n#include <mma.h>\n// include \"x.cuh\"\n");
    file(root, "net/b.cuh", "#include \"../tile/c.cuh\"\n");
    file(root, "tile/c.cuh", "#include \"../net/b.cuh\"\n");
    std::fs::create_dir(root.join("out")).expect("created");
    write_header(&root.join("out")).expect("written");
    file(root, "x.cuh", "");
    let mut contents = BTreeMap::new();
    gather(&source, &root.join("out"), &mut contents);
    let names: Vec<_> = contents.keys().map(|path| path.file_name().expect("a name").to_string_lossy()).collect();
    assert_eq!(names, ["a.cu", "b.cuh", "abi.h", "c.cuh"]);
}

fn nvcc() -> Nvcc {
    let path = std::env::var_os("AMATCH_NVCC").expect("tests/run names the compiler in AMATCH_NVCC");
    Nvcc::new(path.into()).expect("a compiler")
}

#[test]
fn files_are_compiled_again_when_they_or_their_headers_change() {
    let guard = tempfile::tempdir().expect("a folder");
    let (kernels, out) = (guard.path().join("kernels"), guard.path().join("out"));
    std::fs::create_dir(&out).expect("created");
    file(&kernels, "one.cu", "#include \"factor.cuh\"\nextern \"C\" __global__ void one(float* x) { *x *= FACTOR; }\n");
    file(&kernels, "two.cu", "extern \"C\" __global__ void two(float* x) { *x += 1; }\n");
    file(&kernels, "factor.cuh", "#define FACTOR 2.0f\n");
    let nvcc = nvcc();
    let made = |architectures: &[u32]| {
        let images = compile_all(&kernels, &out, &nvcc, architectures, 2).expect("compiles");
        assert_eq!(images.iter().map(|image| &image.kernels[..]).collect::<Vec<_>>(), [["one"], ["two"]]);
        let times = images.iter().map(|image| image.path.metadata().and_then(|data| data.modified()).expect("a time"));
        times.collect::<Vec<_>>()
    };
    let first = made(&[]);
    assert_eq!(made(&[]), first, "nothing has changed");
    file(&kernels, "factor.cuh", "#define FACTOR 3.0f\n");
    let second = made(&[]);
    assert!(second[0] > first[0] && second[1] == first[1], "the header is included by one of them");
    let third = made(&[80]);
    assert!(third[0] > second[0] && third[1] > second[1], "another architecture");

    // A failure leaves nothing that could pass for a result.
    file(&kernels, "two.cu", "extern \"C\" __global__ void two(float* x) { *x += unknown; }\n");
    for _ in 0..2 {
        let problem = compile_all(&kernels, &out, &nvcc, &[80], 2).expect_err("does not compile");
        assert!(problem.contains("two.cu") && problem.contains("\"unknown\" is undefined"), "{problem}");
    }
    file(&kernels, "two.cu", "__device__ float two;\n");
    let problem = compile_all(&kernels, &out, &nvcc, &[], 2).expect_err("has no kernels");
    assert!(problem.contains("two.cu") && problem.contains("no kernels"), "{problem}");
}

#[test]
fn a_program_that_is_not_nvcc_is_named_in_the_error() {
    for (path, part) in [("/nowhere/nvcc", "cannot run"), ("/bin/echo", "is no nvcc")] {
        let problem = Nvcc::new(path.into()).err().expect("an error");
        assert!(problem.contains(path) && problem.contains(part), "{problem}");
    }
}
