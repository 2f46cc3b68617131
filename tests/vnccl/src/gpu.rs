//! The virtual GPU that the program has loaded as its driver library.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::OnceLock;

use crate::outside::{SUBMIT, Submit, Work};
use crate::{Code, Failure};

/// Functions of the driver library.
pub struct Gpu {
    submit: Submit,
    device: unsafe extern "C" fn(*mut c_int) -> c_int,
    is_capturing: unsafe extern "C" fn(u64, *mut c_uint) -> c_int,
}

impl Gpu {
    /// # Errors
    /// The program has loaded no driver library, or that of a real GPU.
    pub fn get() -> Result<&'static Gpu, Failure> {
        static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
        let text = "the program has not loaded the virtual GPU (tests/vgpu) as its libcuda.so";
        GPU.get_or_init(find).as_ref().ok_or_else(|| Failure::new(Code::System, text))
    }

    /// Number of the GPU whose context is current.
    pub fn device(&self) -> i32 {
        let mut device = 0;
        // SAFETY: the function writes a number.
        unsafe { (self.device)(&mut device) };
        device
    }

    /// Whether work of `stream` is recorded instead of run.
    pub fn is_capturing(&self, stream: u64) -> bool {
        let mut status = 0;
        // SAFETY: the function writes a number.
        unsafe { (self.is_capturing)(stream, &mut status) };
        status != 0
    }

    /// Appends work to `stream`.
    ///
    /// # Errors
    /// The status with which the driver refuses it.
    ///
    /// # Safety
    /// What `work` says of its argument holds.
    pub unsafe fn submit(&self, stream: u64, work: &Work) -> Result<(), c_int> {
        // SAFETY: the caller's promise.
        match unsafe { (self.submit)(stream, work) } {
            0 => Ok(()),
            status => Err(status),
        }
    }
}

fn find() -> Option<Gpu> {
    let names = [c"libcuda.so", c"libcuda.so.1"];
    // SAFETY: NOLOAD only finds what is loaded; symbols have the types that the driver interface
    // and `outside` state.
    unsafe {
        let library = names.map(|name| libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD));
        let library = library.into_iter().find(|library| !library.is_null())?;
        let symbol = |name: &CStr| -> Option<*mut c_void> {
            let found = libc::dlsym(library, name.as_ptr());
            (!found.is_null()).then_some(found)
        };
        Some(Gpu {
            submit: std::mem::transmute::<*mut c_void, Submit>(symbol(SUBMIT)?),
            device: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_int) -> c_int>(symbol(
                c"cuCtxGetDevice",
            )?),
            is_capturing: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(u64, *mut c_uint) -> c_int>(symbol(
                c"cuStreamIsCapturing",
            )?),
        })
    }
}
