//! The functions of NCCL's interface (nccl.h). Each error goes to standard error in full.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use crate::call::{Call, Element, Kind, Reduction};
use crate::communicator::Communicator;
use crate::enqueued::Placed;
use crate::gpu::Gpu;
use crate::{Code, Failure, coordinator, group};

/// ncclResult_t.
type Status = c_int;

const SUCCESS: Status = 0;

/// What it offers is part of every NCCL since 2.18.
const VERSION: c_int = 21800;

/// ncclUniqueId: the name of the coordinator, and zeros.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId {
    internal: [u8; 128],
}

/// Communicators by their handles. A handle is no address, and is given once, so that one that was
/// destroyed is noticed.
static COMMUNICATORS: LazyLock<Mutex<HashMap<usize, Arc<Communicator>>>> = LazyLock::new(Mutex::default);

fn communicators() -> MutexGuard<'static, HashMap<usize, Arc<Communicator>>> {
    COMMUNICATORS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

fn communicator(handle: usize) -> Result<Arc<Communicator>, Failure> {
    let text = "the communicator does not exist, or was destroyed";
    communicators().get(&handle).cloned().ok_or_else(|| Failure::new(Code::InvalidArgument, text))
}

/// Does the work of function `name`; a failure is kept and written down.
fn run(name: &str, work: impl FnOnce() -> Result<(), Failure>) -> Status {
    let Err(Failure { code, text }) = work() else { return SUCCESS };
    let text = format!("{name}: {text}");
    eprintln!("vnccl: {text}");
    LAST.with_borrow_mut(|last| *last = CString::new(text).unwrap_or_default());
    code as Status
}

/// Writes through a pointer of the caller.
///
/// # Safety
/// `to` is null or valid for a write of `T`.
unsafe fn give<T>(to: *mut T, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(Failure::new(Code::InvalidArgument, "a null pointer for the result"));
    }
    // SAFETY: not null; the caller guarantees the rest.
    unsafe { to.write(value) };
    Ok(())
}

fn name_of(id: &UniqueId) -> Result<&str, Failure> {
    let name = CStr::from_bytes_until_nul(&id.internal).ok().and_then(|name| name.to_str().ok());
    (name.filter(|name| name.starts_with("vnccl-")))
        .ok_or_else(|| Failure::new(Code::InvalidArgument, "the id is not one that ncclGetUniqueId made"))
}

/// A call of the interface, with its arguments as they came.
struct Asked {
    kind: Kind,
    count: usize,
    element: c_uint,
    send: *const c_void,
    recv: *mut c_void,
    communicator: usize,
    stream: u64,
}

fn call(name: &str, asked: impl FnOnce() -> Result<Asked, Failure>) -> Status {
    let made = asked().and_then(|asked| {
        let Asked { kind, count, element, send, recv, communicator: handle, stream } = asked;
        let communicator = communicator(handle)?;
        let invalid = |text: String| Failure::new(Code::InvalidArgument, format!("rank {}: {text}", communicator.rank));
        let element = Element::from_number(element).ok_or_else(|| invalid(format!("data type {element}")))?;
        let (Kind::Send { to: peer } | Kind::Recv { from: peer } | Kind::Broadcast { root: peer }) = kind else {
            return group::add(
                communicator.clone(),
                stream,
                Placed { call: Call { kind, count: count as u64, element }, send: send as u64, recv: recv as u64 },
            );
        };
        if peer >= communicator.n {
            return Err(invalid(format!("rank {peer} of {}", communicator.n)));
        }
        let call = Call { kind, count: count as u64, element };
        group::add(communicator.clone(), stream, Placed { call, send: send as u64, recv: recv as u64 })
    });
    if let Err(failure) = &made {
        group::spoil(failure);
    }
    run(name, || made)
}

/// A rank among the arguments; one that is negative is no rank.
fn rank(rank: c_int) -> u32 {
    u32::try_from(rank).unwrap_or(u32::MAX)
}

// SAFETY of all functions below: the pointers come from a host program that follows the
// documentation of NCCL, so each is valid for the reads or writes of its function.

macro_rules! entry {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            #[allow(non_snake_case, clippy::missing_safety_doc)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $ty),*) -> Status {
                // SAFETY: see the comment above.
                #[allow(unused_unsafe)]
                run(stringify!($name), || unsafe { $body })
            }
        )*
    };
}

entry! {
    fn ncclGetVersion(version: *mut c_int) { give(version, VERSION) }
    fn ncclGetUniqueId(id: *mut UniqueId) {
        let name = coordinator::start().map_err(|error| Failure::new(Code::System, error.to_string()))?;
        let mut internal = [0; 128];
        internal[..name.len()].copy_from_slice(name.as_bytes());
        give(id, UniqueId { internal })
    }
    fn ncclCommInitRank(handle: *mut usize, n: c_int, id: UniqueId, own: c_int) {
        if group::is_open() {
            return Err(Failure::usage("inside a group, which the virtual NCCL does not have: one thread a rank"));
        }
        if own < 0 || own >= n {
            return Err(Failure::new(Code::InvalidArgument, format!("rank {own} of {n}")));
        }
        let communicator = Communicator::join(name_of(&id)?, rank(own), rank(n), Gpu::get()?.device())?;
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let made = COUNT.fetch_add(1, Relaxed);
        communicators().insert(made, Arc::new(communicator));
        give(handle, made)
    }
    fn ncclCommFinalize(handle: usize) { communicator(handle)?.leave() }
    fn ncclCommDestroy(handle: usize) {
        let communicator = communicator(handle)?;
        communicators().remove(&handle);
        communicator.leave()
    }
    fn ncclCommAbort(handle: usize) {
        let communicator = communicator(handle)?;
        communicators().remove(&handle);
        communicator.abort();
        Ok(())
    }
    fn ncclCommGetAsyncError(handle: usize, status: *mut Status) {
        give(status, communicator(handle)?.failure().map_or(SUCCESS, |failure| failure.code as Status))
    }
    fn ncclCommCount(handle: usize, count: *mut c_int) { give(count, communicator(handle)?.n as c_int) }
    fn ncclCommUserRank(handle: usize, rank: *mut c_int) { give(rank, communicator(handle)?.rank as c_int) }
    fn ncclCommCuDevice(handle: usize, device: *mut c_int) { give(device, communicator(handle)?.device) }
    fn ncclGroupStart() { group::start(); Ok(()) }
    fn ncclGroupEnd() { group::end() }
}

macro_rules! calls {
    ($(fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $asked:block)*) => {
        $(
            #[allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $ty),*) -> Status {
                call(stringify!($name), || Ok($asked))
            }
        )*
    };
}

calls! {
    fn ncclSend(send: *const c_void, count: usize, element: c_uint, peer: c_int, communicator: usize, stream: u64) {
        let (kind, recv) = (Kind::Send { to: rank(peer) }, std::ptr::null_mut());
        Asked { kind, count, element, send, recv, communicator, stream }
    }
    fn ncclRecv(recv: *mut c_void, count: usize, element: c_uint, peer: c_int, communicator: usize, stream: u64) {
        let (kind, send) = (Kind::Recv { from: rank(peer) }, std::ptr::null());
        Asked { kind, count, element, send, recv, communicator, stream }
    }
    fn ncclAllGather(
        send: *const c_void, recv: *mut c_void, count: usize, element: c_uint, communicator: usize, stream: u64,
    ) {
        Asked { kind: Kind::AllGather, count, element, send, recv, communicator, stream }
    }
    fn ncclAllReduce(
        send: *const c_void, recv: *mut c_void, count: usize, element: c_uint, reduction: c_uint,
        communicator: usize, stream: u64,
    ) {
        let known = Reduction::from_number(reduction);
        let unknown = || Failure::new(Code::InvalidArgument, format!("reduction {reduction} is not supported"));
        Asked { kind: Kind::AllReduce(known.ok_or_else(unknown)?), count, element, send, recv, communicator, stream }
    }
    fn ncclBroadcast(
        send: *const c_void, recv: *mut c_void, count: usize, element: c_uint, root: c_int,
        communicator: usize, stream: u64,
    ) {
        Asked { kind: Kind::Broadcast { root: rank(root) }, count, element, send, recv, communicator, stream }
    }
}

/// Why the communicator failed, or else the last failure of this thread.
///
/// # Safety
/// The text is valid until the thread's next call.
#[allow(non_snake_case)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetLastError(handle: usize) -> *const c_char {
    if let Some(failure) = communicators().get(&handle).and_then(|communicator| communicator.failure()) {
        LAST.with_borrow_mut(|last| *last = CString::new(failure.text).unwrap_or_default());
    }
    LAST.with_borrow(|last| last.as_ptr())
}

#[allow(non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(status: Status) -> *const c_char {
    let text = match status {
        SUCCESS => c"no error",
        1 => c"unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        2 => c"unhandled system error (the virtual NCCL wrote which to standard error)",
        3 => c"internal error",
        4 => c"invalid argument (the virtual NCCL wrote which to standard error)",
        5 => c"invalid usage (the virtual NCCL wrote which to standard error)",
        6 => c"remote process exited or there was a network error",
        7 => c"NCCL operation in progress",
        _ => c"unknown result code",
    };
    text.as_ptr()
}
