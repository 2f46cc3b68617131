//! NCCL, loaded at run time: a library of the system or of a Python package.
//!
//! Its functions are declared here and not cudarc's, which look for `libnccl.so` alone (neither
//! NVIDIA's Python packages nor a system's have it, but with headers), end the process if they do
//! not find it, and return an `enum` that lacks the results of later versions.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys::CUstream;
use libloading::Library;

/// `ncclResult_t`.
pub type Status = c_int;
/// `ncclSuccess`.
pub const SUCCESS: Status = 0;
/// `ncclUnhandledCudaError`.
pub const CUDA_ERROR: Status = 1;
/// `ncclInProgress`.
pub const IN_PROGRESS: Status = 7;
/// `ncclUint8`, of `ncclDataType_t`.
pub const BYTE: c_int = 1;

/// `ncclComm_t`.
pub type Handle = *mut c_void;

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId(pub [u8; 128]);

/// Names the library, if it is to be another than what is found.
pub const VARIABLE: &str = "AMATCH_NCCL";

/// Declares the functions that are used.
macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions of a library.
        pub struct Nccl {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// The functions are in it.
            _library: Library,
        }

        impl Nccl {
            fn of(library: Library) -> Result<Nccl, libloading::Error> {
                // SAFETY: the types are those of nccl.h, the same in every NCCL since 2.7.
                unsafe {
                    $(let $field = *library.get::<unsafe extern "C" fn($($argument),*) -> $result>($name.as_bytes())?;)*
                    Ok(Nccl { $($field,)* _library: library })
                }
            }
        }
    };
}

functions! {
    get_version = "ncclGetVersion": fn(*mut c_int) -> Status;
    get_unique_id = "ncclGetUniqueId": fn(*mut UniqueId) -> Status;
    join = "ncclCommInitRank": fn(*mut Handle, c_int, UniqueId, c_int) -> Status;
    abort = "ncclCommAbort": fn(Handle) -> Status;
    destroy = "ncclCommDestroy": fn(Handle) -> Status;
    get_async_error = "ncclCommGetAsyncError": fn(Handle, *mut Status) -> Status;
    get_error_string = "ncclGetErrorString": fn(Status) -> *const c_char;
    group_start = "ncclGroupStart": fn() -> Status;
    group_end = "ncclGroupEnd": fn() -> Status;
    send = "ncclSend": fn(*const c_void, usize, c_int, c_int, Handle, CUstream) -> Status;
    receive = "ncclRecv": fn(*mut c_void, usize, c_int, c_int, Handle, CUstream) -> Status;
    all_gather = "ncclAllGather":
        fn(*const c_void, *mut c_void, usize, c_int, Handle, CUstream) -> Status;
}

/// The library, loaded when it is first asked for, or the names under which none was found.
pub fn nccl() -> Result<&'static Nccl, &'static str> {
    static NCCL: OnceLock<Result<Nccl, String>> = OnceLock::new();
    NCCL.get_or_init(load).as_ref().map_err(String::as_str)
}

fn load() -> Result<Nccl, String> {
    let mut tried = Vec::new();
    for name in candidates() {
        // SAFETY: the initializers of NCCL do nothing that others would notice.
        let loaded = unsafe { Library::new(&name) }.and_then(Nccl::of);
        match loaded {
            Ok(nccl) => return Ok(nccl),
            Err(_) => tried.push(Path::new(&name).display().to_string()),
        }
    }
    Err(tried.join(", "))
}

/// Where a library may be: what [`VARIABLE`] names, alone; else a library of the system, or of the
/// Python package `nvidia-nccl-cu13` or `-cu12` in an environment that is active, that this program
/// was installed in, or whose Python comes first.
fn candidates() -> Vec<OsString> {
    if let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) {
        return vec![name];
    }
    let mut found: Vec<OsString> = ["libnccl.so.2", "libnccl.so"].map(OsString::from).into();
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let own = std::env::current_exe().ok();
    let folders = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let first =
        folders.unwrap_or_default().into_iter().map(|folder| folder.join("python3")).find(|file| file.is_file());
    let prefix = |program: PathBuf| Some(program.parent()?.parent()?.to_path_buf());
    let environments = active.chain(own.and_then(prefix)).chain(first.and_then(prefix));
    for environment in environments {
        found.extend(packages(&environment).into_iter().map(PathBuf::into_os_string));
    }
    found
}

/// Libraries of the Python package in `environment`.
fn packages(environment: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(environment.join("lib")) else { return Vec::new() };
    let is_python = |name: &OsStr| name.to_string_lossy().starts_with("python3");
    let folders = entries.flatten().filter(|entry| is_python(&entry.file_name())).map(|entry| entry.path());
    let mut found: Vec<PathBuf> = folders
        .flat_map(|folder| {
            ["site-packages", "dist-packages"].map(|of| folder.join(of).join("nvidia/nccl/lib/libnccl.so.2"))
        })
        .filter(|file| file.is_file())
        .collect();
    found.sort();
    found
}

impl Nccl {
    /// What `result` means; `None` if all is well.
    pub fn problem(&self, result: Status) -> Option<String> {
        if result == SUCCESS {
            return None;
        }
        // SAFETY: NCCL has a constant text for each result.
        let text = unsafe { (self.get_error_string)(result) };
        if text.is_null() {
            return Some(format!("result {result}"));
        }
        // SAFETY: it ends with a zero.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }

    /// Its version, such as 2.28.3.
    pub fn version(&self) -> String {
        let mut code = 0;
        // SAFETY: writes a number.
        if unsafe { (self.get_version)(&mut code) } != SUCCESS {
            return "of unknown version".into();
        }
        // Up to 2.8 a digit for the minor number.
        let unit = if code < 10_000 { (1000, 100) } else { (10_000, 100) };
        format!("{}.{}.{}", code / unit.0, code % unit.0 / unit.1, code % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As pip lays packages out.
    #[test]
    fn packages_of_python_are_found() {
        let environment = std::env::temp_dir().join(format!("amatch-nccl-{}", std::process::id()));
        let folder = environment.join("lib/python3.12/site-packages/nvidia/nccl/lib");
        std::fs::create_dir_all(&folder).expect("a folder");
        assert_eq!(packages(&environment), Vec::<PathBuf>::new());
        std::fs::write(folder.join("libnccl.so.2"), "").expect("a file");
        assert_eq!(packages(&environment), [folder.join("libnccl.so.2")]);
        std::fs::remove_dir_all(&environment).expect("removed");
        assert_eq!(packages(&environment), Vec::<PathBuf>::new());
    }
}
