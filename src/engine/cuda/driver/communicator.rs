//! One GPU among those of a training: what they send each other by NCCL, and waiting for it without
//! waiting for ranks that are gone.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaStream};

use super::device::Buffer;
use super::nccl::{BYTE, CUDA_ERROR, Handle, IN_PROGRESS, Nccl, SUCCESS, UniqueId, VARIABLE, nccl};
use crate::error::{DeviceKind, Error, RankKind, Result};
use crate::ranks::liveness::Liveness;

/// Between two looks at the other ranks while one waits for them.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes of device memory that are sent or received.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    address: u64,
    len: usize,
    of: PhantomData<&'a ()>,
}

impl<T> Buffer<T> {
    /// All of them.
    pub fn bytes(&self) -> Bytes<'_> {
        self.bytes_of(0..self.len())
    }

    /// Those of the elements `range`, which are in the buffer.
    pub fn bytes_of(&self, range: Range<usize>) -> Bytes<'_> {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let size = size_of::<T>();
        Bytes { address: self.driver_address() + (start * size) as u64, len: (end - start) * size, of: PhantomData }
    }
}

/// What a rank does with another, or with all of them.
#[derive(Clone, Copy)]
pub enum Transfer<'a> {
    /// Sends bytes to rank `to`.
    Send { bytes: Bytes<'a>, to: usize },
    /// Receives bytes of rank `from`.
    Receive { bytes: Bytes<'a>, from: usize },
    /// Hands its own bytes to all ranks: those of rank r come to the r-th place of `all`, where
    /// they may be already.
    Gather { own: Bytes<'a>, all: Bytes<'a> },
}

/// The GPU's place among those of a training. All ranks make the same calls in the same order.
pub struct Communicator {
    nccl: &'static Nccl,
    context: Arc<CudaContext>,
    handle: Shared,
    rank: usize,
    n_ranks: usize,
    liveness: Arc<Liveness>,
    calls: Arc<Calls>,
    /// Ends calls that wait for a lost rank.
    watcher: Option<JoinHandle<()>>,
}

/// What threads know of a communicator's calls.
#[derive(Default)]
struct Calls {
    /// NCCL takes the calls of one thread at a time.
    one: Mutex<()>,
    aborted: AtomicBool,
    /// The communicator is about to go.
    over: AtomicBool,
}

/// A handle that goes from thread to thread.
#[derive(Clone, Copy)]
struct Shared(Handle);
// SAFETY: NCCL's communicators belong to no thread; `Calls::one` lets one thread at a time use it,
// but for aborting, which NCCL allows beside others.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Bytes of the name under which ranks join.
pub type Id = [u8; 128];

/// The library, or the error that it is missing.
fn library() -> Result<&'static Nccl> {
    nccl().map_err(|tried| Error::Device {
        kind: DeviceKind::Unavailable,
        device: "NCCL".into(),
        problem: format!("several GPUs train together by it, and it is not found (tried {tried})"),
        fix: format!(
            "install it, for instance by `pip install nvidia-nccl-cu13`, or let {VARIABLE} be the path of libnccl.so.2"
        ),
    })
}

fn failed(what: &str, problem: &str) -> Error {
    Error::Device {
        kind: DeviceKind::Failed,
        device: "NCCL".into(),
        problem: format!("{what}: {problem}"),
        fix: "run again with NCCL_DEBUG=INFO, which says more".into(),
    }
}

fn explained(liveness: &Liveness, error: Error) -> Error {
    // Those who watch the ranks may need a moment more to see what has happened to one.
    const MOMENT: Duration = Duration::from_secs(2);
    let began = Instant::now();
    while began.elapsed() < MOMENT {
        if let Err(lost) = liveness.check() {
            return lost;
        }
        if liveness.is_over() {
            return ended();
        }
        thread::sleep(PAUSE);
    }
    error
}

fn ended() -> Error {
    let problem = "rank 0 has ended the training".into();
    Error::Rank { kind: RankKind::Ended, problem, fix: "see what it says" }
}

/// The version of the library that ranks would use, such as 2.28.3.
///
/// # Errors
/// [`Error::Device`] if there is none.
pub fn nccl_version() -> Result<String> {
    Ok(library()?.version())
}

/// A name under which ranks can join: one of them makes it, for all.
///
/// # Errors
/// [`Error::Device`] if there is no NCCL, or it fails.
pub fn nccl_id() -> Result<Id> {
    let nccl = library()?;
    let mut id = UniqueId([0; 128]);
    // SAFETY: writes the name.
    let result = unsafe { (nccl.get_unique_id)(&mut id) };
    match nccl.problem(result) {
        None => Ok(id.0),
        Some(problem) => Err(failed("a name for ranks", &problem)),
    }
}

impl Communicator {
    /// Rank `rank` of `n_ranks` joins the others under `id`, with the GPU of `context`.
    pub(super) fn join(
        context: &Arc<CudaContext>,
        id: &Id,
        (rank, n_ranks): (usize, usize),
        liveness: Arc<Liveness>,
    ) -> Result<Communicator> {
        let nccl = library()?;
        let id = UniqueId(*id);
        let (sender, joined) = channel();
        let of_thread = context.clone();
        // On a thread of its own, as it waits for all ranks without an end.
        thread::spawn(move || {
            let mut handle: Handle = std::ptr::null_mut();
            let result = match of_thread.bind_to_thread() {
                // SAFETY: writes the handle; the thread's context is that of the GPU.
                Ok(()) => unsafe { (nccl.join)(&mut handle, n_ranks as c_int, id, rank as c_int) },
                Err(_) => CUDA_ERROR,
            };
            // Nobody may be waiting any more.
            let _ = sender.send((Shared(handle), result));
        });
        let (handle, result) = loop {
            match joined.recv_timeout(PAUSE) {
                Ok(joined) => break joined,
                Err(RecvTimeoutError::Timeout) => liveness.check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(failed("joining the ranks", "its thread ended")),
            }
        };
        if let Some(problem) = nccl.problem(result) {
            return Err(explained(&liveness, failed("joining the ranks", &problem)));
        }
        let calls = Arc::new(Calls::default());
        let (of_watcher, watched) = (calls.clone(), liveness.clone());
        let watcher = Some(thread::spawn(move || watch(nccl, handle, &of_watcher, &watched)));
        Ok(Communicator { nccl, context: context.clone(), handle, rank, n_ranks, liveness, calls, watcher })
    }

    /// The number of this rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Ranks.
    pub fn n_ranks(&self) -> usize {
        self.n_ranks
    }

    /// Those who watch the others.
    pub fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Queues `transfers` as one call in `stream`.
    pub(super) fn transfer<'a>(
        &self,
        stream: &CudaStream,
        transfers: impl IntoIterator<Item = Transfer<'a>>,
    ) -> Result<()> {
        self.check()?;
        let _one = self.calls.one.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.context.bind_to_thread().map_err(|error| failed("its GPU", &super::device::describe(error)))?;
        let (nccl, handle, stream) = (self.nccl, self.handle.0, stream.cu_stream());
        let pointer = |bytes: Bytes<'_>| bytes.address as *mut c_void;
        // SAFETY: begins a call of several parts, which ends below whatever happens.
        let mut result = unsafe { (nccl.group_start)() };
        for transfer in transfers {
            if result != SUCCESS {
                break;
            }
            // SAFETY: the bytes lie in buffers that outlive the call, as those of launches do, and
            // the stream orders it behind what wrote them.
            result = unsafe {
                match transfer {
                    Transfer::Send { bytes, .. } | Transfer::Receive { bytes, .. } if bytes.len == 0 => continue,
                    Transfer::Send { bytes, to } => {
                        (nccl.send)(pointer(bytes), bytes.len, BYTE, to as c_int, handle, stream)
                    }
                    Transfer::Receive { bytes, from } => {
                        (nccl.receive)(pointer(bytes), bytes.len, BYTE, from as c_int, handle, stream)
                    }
                    Transfer::Gather { own, all } => {
                        debug_assert_eq!(own.len * self.n_ranks, all.len);
                        (nccl.all_gather)(pointer(own), pointer(all), own.len, BYTE, handle, stream)
                    }
                }
            };
        }
        // SAFETY: ends what has begun above.
        let ended = unsafe { (nccl.group_end)() };
        let result = if result == SUCCESS { ended } else { result };
        match nccl.problem(result) {
            None => Ok(()),
            Some(problem) => Err(self.explained(failed("a transfer", &problem))),
        }
    }

    /// Whether all ranks are there and NCCL is well. If not, what it has begun ends without a
    /// result.
    pub(super) fn check(&self) -> Result<()> {
        let failure = |problem: String| self.explained(failed("what ranks send each other", &problem));
        let checked = self.liveness.check().and_then(|()| match self.problem() {
            // The handle is gone.
            None if self.calls.aborted.load(Relaxed) => Err(ended()),
            None => Ok(()),
            Some(problem) => Err(failure(problem)),
        });
        if checked.is_err() {
            self.abort();
        }
        checked
    }

    /// The same for a rank that waits for the others in vain: rank 0 may have ended the training.
    pub(super) fn check_waiting(&self) -> Result<()> {
        self.check()?;
        if !self.liveness.is_over() {
            return Ok(());
        }
        self.abort();
        Err(ended())
    }

    /// `error`, which NCCL or the GPU has, or a better explanation: a rank that is gone or has
    /// ended gives no answer.
    pub(super) fn explained(&self, error: Error) -> Error {
        explained(&self.liveness, error)
    }

    /// What NCCL says is wrong with calls that it has begun.
    fn problem(&self) -> Option<String> {
        if self.calls.aborted.load(Relaxed) {
            return None;
        }
        let mut result = SUCCESS;
        // SAFETY: writes the result.
        let asked = unsafe { (self.nccl.get_async_error)(self.handle.0, &mut result) };
        let result = if asked == SUCCESS { result } else { asked };
        self.nccl.problem(result).filter(|_| result != IN_PROGRESS)
    }

    fn abort(&self) {
        abort(self.nccl, self.handle, &self.calls);
    }
}

fn abort(nccl: &Nccl, handle: Shared, calls: &Calls) {
    if !calls.aborted.swap(true, Relaxed) {
        // SAFETY: the handle is used no more, but by a call that this ends.
        unsafe { (nccl.abort)(handle.0) };
    }
}

/// Aborts a call that does not return, as connecting to a lost rank does not, until the
/// communicator goes.
fn watch(nccl: &Nccl, handle: Shared, calls: &Calls, liveness: &Liveness) {
    /// Longer than a call takes that waits for nobody.
    const LONG: Duration = Duration::from_secs(1);
    while !calls.over.load(Relaxed) {
        thread::sleep(PAUSE);
        let began = Instant::now();
        // Who is not in a call notices the loss without help.
        while liveness.check().is_err() && calls.one.try_lock().is_err() && !calls.over.load(Relaxed) {
            if began.elapsed() > LONG {
                return abort(nccl, handle, calls);
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.calls.over.store(true, Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
        if self.liveness.check().is_err() || self.liveness.is_over() || thread::panicking() {
            self.abort();
        } else if !self.calls.aborted.load(Relaxed) && self.context.bind_to_thread().is_ok() {
            // SAFETY: the handle is used no more.
            unsafe { (self.nccl.destroy)(self.handle.0) };
        }
    }
}
