//! Compiles `kernels/*.cu` and embeds them.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=AMATCH_NVCC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut table = String::from("pub static MODULES: &[(&[&str], &[u8])] = &[\n");
    if let Some(nvcc) = std::env::var_os("AMATCH_NVCC") {
        let mut sources: Vec<PathBuf> =
            std::fs::read_dir("kernels").expect("kernels").map(|e| e.expect("entry").path()).collect();
        sources.retain(|path| path.extension().is_some_and(|e| e == "cu"));
        sources.sort();
        for source in sources {
            let image = out.join(source.file_stem().expect("a name")).with_extension("ptx");
            let status = Command::new(&nvcc)
                .args(["-ptx", "-std=c++17", "-arch=compute_80", "-lineinfo", "-o"])
                .args([&image, &source])
                .status()
                .expect("nvcc runs");
            assert!(status.success(), "nvcc");
            let mut text = std::fs::read(&image).expect("ptx");
            text.push(0);
            std::fs::write(&image, text).expect("ptx");
            writeln!(table, "    (&{:?}, include_bytes!({:?})),", entries(&image), image).expect("a string");
        }
    }
    table.push_str("];\n");
    std::fs::write(out.join("kernels.rs"), table).expect("written");
}

fn entries(ptx: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&std::fs::read(ptx).expect("ptx")).into_owned();
    let names = text.split(".entry ").skip(1).filter_map(|rest| rest.split(['(', ' ', '\n']).next());
    names.map(str::to_string).collect()
}
