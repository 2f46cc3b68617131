//! The package, put together as a wheel would be, passes its tests in Python (`test_*.py` here).
//! `AMATCH_PYTHON` names the interpreter, which has numpy and anndata (default `python3`).

use std::fs;
use std::path::Path;
use std::process::Command;

/// The module as cargo has built it beside this test.
const MODULE: &str = if cfg!(windows) {
    "action_matching_native.dll"
} else if cfg!(target_os = "macos") {
    "libaction_matching_native.dylib"
} else {
    "libaction_matching_native.so"
};

#[test]
fn python_tests_pass() {
    pass("test_*.py");
}

/// On GPU 0, which may be the virtual one.
#[test]
fn python_tests_of_a_gpu_pass() {
    pass("gpu_dlpack.py");
}

/// Runs the tests in the files of this pattern.
fn pass(pattern: &str) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let installed = tempfile::tempdir().expect("a folder");
    let package = installed.path().join("action_matching");
    fs::create_dir(&package).expect("a folder");
    for entry in fs::read_dir(sources.join("action_matching")).expect("the package") {
        let path = entry.expect("a file").path();
        if path.is_file() {
            fs::copy(&path, package.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
    let built = std::env::current_exe().expect("this test").with_file_name(MODULE);
    fs::copy(&built, package.join("_native.abi3.so")).unwrap_or_else(|error| panic!("{}: {error}", built.display()));

    let python = std::env::var_os("AMATCH_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(&python)
        .args(["-W", "error::RuntimeWarning", "-m", "unittest", "discover", "-s"])
        .arg(sources.join("tests"))
        .args(["-p", pattern])
        .env("PYTHONPATH", installed.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(installed.path())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {python:?}: {error}; name a Python in AMATCH_PYTHON"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{python:?} needs numpy and anndata:\n{text}");
    // A run that finds no tests, or leaves some out, succeeds too.
    assert!(text.trim_end().ends_with("\nOK") && !text.contains("Ran 0 tests"), "{text}");
}
