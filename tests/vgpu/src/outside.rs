//! Work of another library in the streams of the virtual GPU, as the collectives of a virtual NCCL.
//!
//! Such a library fills in a [`Work`] and gives it to [`SUBMIT`] of the driver library. When the
//! stream reaches the work, `begin` is called, and `poll` until it says that the work has ended.
//! The work begins as early and ends as late as its stream lets it: everything that no event or
//! stream orders runs in between. Both libraries compile this file.

use std::ffi::{CStr, c_int, c_void};

/// What `poll` says.
pub const PENDING: c_int = 0;
pub const DONE: c_int = 1;
pub const FAILED: c_int = 2;

/// What the functions of [`Memory`] say of bytes of the device.
pub const FINE: c_int = 0;
pub const OUTSIDE: c_int = 1;
pub const UNWRITTEN: c_int = 2;
pub const PROMISED: c_int = 3;

/// The device's memory, while work begins or is asked how far it is. Each function takes `context`
/// first; bytes are named by their address and their number.
#[repr(C)]
pub struct Memory {
    pub context: *mut c_void,
    /// Copies bytes of the device to `to`.
    pub read: unsafe extern "C" fn(context: *mut c_void, address: u64, bytes: usize, to: *mut u8) -> c_int,
    /// Puts bytes out of reach of kernels and copies until they are delivered or withdrawn.
    pub promise: unsafe extern "C" fn(context: *mut c_void, address: u64, bytes: usize) -> c_int,
    /// Writes promised bytes, which others may use from then on.
    pub deliver: unsafe extern "C" fn(context: *mut c_void, address: u64, bytes: usize, from: *const u8) -> c_int,
    /// Leaves promised bytes uninitialized.
    pub withdraw: unsafe extern "C" fn(context: *mut c_void, address: u64, bytes: usize) -> c_int,
    /// Takes UTF-8: what the work is, if it begins; why it failed, if it is polled.
    pub say: unsafe extern "C" fn(context: *mut c_void, text: *const u8, bytes: usize),
}

/// Work of a stream. `argument` is valid until `poll` has said that the work ended, or, if the work
/// was captured, for as long as the graph lives.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Work {
    /// Begins a run of the work, and returns it.
    pub begin: unsafe extern "C" fn(argument: *mut c_void, memory: *const Memory) -> *mut c_void,
    /// How far the run is; gives the run back unless it is [`PENDING`].
    pub poll: unsafe extern "C" fn(run: *mut c_void, memory: *const Memory) -> c_int,
    pub argument: *mut c_void,
}

/// The driver library's function that appends work to a stream; it returns a status of the driver
/// interface.
pub const SUBMIT: &CStr = c"vgpuSubmit";
pub type Submit = unsafe extern "C" fn(stream: u64, work: *const Work) -> c_int;
