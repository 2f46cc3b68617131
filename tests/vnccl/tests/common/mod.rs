//! Ranks that are threads of one process, or processes: each test runs itself again in children
//! whose library path leads to the virtual GPU and the virtual NCCL.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use cudarc::nccl::sys;

/// What the ranks of a communicator are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    Threads,
    Processes,
}

/// What became of a test's ranks.
#[derive(Debug)]
pub struct Ended {
    /// Standard error of each child, and whether it ended well.
    pub children: Vec<(String, bool)>,
    pub took: Duration,
}

impl Ended {
    /// Everything that was said.
    pub fn said(&self) -> String {
        self.children.iter().map(|(said, _)| said.as_str()).collect()
    }
}

/// The library `name` that cargo has built, which lies beside the test or one folder above.
fn library(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("the test's own path");
    let file = format!("lib{name}.so");
    (program.ancestors().skip(1).take(2).map(|folder| folder.join(&file)).find(|path| path.exists()))
        .unwrap_or_else(|| panic!("{file} beside {}", program.display()))
}

/// Runs test `name` again with `n` ranks, and `settings` in the environment. Children call
/// [`as_rank`], so `None` in them.
pub fn run(name: &str, ranks: Ranks, n: usize, settings: &[(&str, &str)]) -> Option<Ended> {
    if std::env::var_os("VNCCL_RANKS").is_some() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(library("vgpu"), folder.path().join("libcuda.so")).expect("copied");
    std::fs::copy(library("vnccl"), folder.path().join("libnccl.so")).expect("copied");
    let start = Instant::now();
    let child = |rank: Option<usize>| -> Child {
        let mut command = Command::new(std::env::current_exe().expect("the test's own path"));
        command.args(["--exact", name, "--nocapture"]);
        command.env("LD_LIBRARY_PATH", folder.path()).env("VNCCL_ID", folder.path().join("id"));
        command.env("VNCCL_RANKS", n.to_string()).env("VGPU_DEVICES", n.to_string());
        command.env("VNCCL_TIMEOUT", "20").envs(settings.iter().copied());
        if let Some(rank) = rank {
            command.env("VNCCL_RANK", rank.to_string());
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs")
    };
    let children: Vec<Child> = match ranks {
        Ranks::Threads => vec![child(None)],
        Ranks::Processes => (0..n).map(|rank| child(Some(rank))).collect(),
    };
    let children = children.into_iter().map(|child| {
        let output = child.wait_with_output().expect("ends");
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.success())
    });
    Some(Ended { children: children.collect(), took: start.elapsed() })
}

/// In a child: does `work` as each of the ranks that the child is.
pub fn as_rank(work: impl Fn(Rank) + Sync) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let n = number("VNCCL_RANKS").expect("the number of ranks");
    match number("VNCCL_RANK") {
        Some(rank) => work(Rank::new(rank, n)),
        None => std::thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = (0..n).map(|rank| scope.spawn(move || work(Rank::new(rank, n)))).collect();
            for thread in threads {
                thread.join().expect("ends well");
            }
        }),
    }
}

/// A rank: its GPU, and what NCCL's functions take.
pub struct Rank {
    pub rank: usize,
    pub n: usize,
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
}

impl Rank {
    fn new(rank: usize, n: usize) -> Rank {
        let context = CudaContext::new(rank).expect("a GPU for each rank");
        // The library's own events would order everything. SAFETY: ranks wait for their streams
        // before they give memory back.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().expect("a stream");
        Rank { rank, n, context, stream }
    }

    /// The id that rank 0 makes and all ranks read.
    pub fn id(&self) -> sys::ncclUniqueId {
        let path = PathBuf::from(std::env::var_os("VNCCL_ID").expect("where the id is"));
        if self.rank == 0 {
            let id = cudarc::nccl::result::get_uniqueid().expect("an id");
            let part = path.with_extension("part");
            std::fs::write(&part, id.internal.map(|byte| byte as u8)).expect("written");
            std::fs::rename(part, &path).expect("renamed");
        }
        sys::ncclUniqueId { internal: wait_for(&path).map(|byte| byte as std::ffi::c_char) }
    }

    /// Joins all ranks.
    pub fn join(&self) -> sys::ncclComm_t {
        self.try_join(self.n, self.id()).expect("joins")
    }

    pub fn try_join(&self, n: usize, id: sys::ncclUniqueId) -> Result<sys::ncclComm_t, sys::ncclResult_t> {
        let mut communicator = std::ptr::null_mut();
        // SAFETY: the id is one, the pointer is valid.
        let status = unsafe { sys::ncclCommInitRank(&mut communicator, n as i32, id, self.rank as i32) };
        ok(status).map(|()| communicator)
    }

    /// A buffer of `f32` that holds `values`.
    pub fn buffer(&self, values: &[f32]) -> CudaSlice<f32> {
        let buffer = self.stream.clone_htod(values).expect("a copy");
        self.stream.synchronize().expect("synchronizes");
        buffer
    }

    /// The values of a buffer, after all that is in the stream.
    pub fn values(&self, buffer: &CudaSlice<f32>) -> Vec<f32> {
        self.stream.clone_dtoh(buffer).expect("a copy")
    }

    pub fn cu_stream(&self) -> sys::cudaStream_t {
        self.stream.cu_stream() as sys::cudaStream_t
    }

    pub fn all_gather(&self, communicator: sys::ncclComm_t, from: &CudaSlice<f32>, to: &mut CudaSlice<f32>) -> Status {
        let (count, from) = (from.len(), at(from, &self.stream));
        let to = at_mut(to, &self.stream);
        // SAFETY: the tests choose what is valid.
        unsafe { sys::ncclAllGather(from as _, to as _, count, FLOAT, communicator, self.cu_stream()) }
    }
}

pub type Status = sys::ncclResult_t;
pub const FLOAT: sys::ncclDataType_t = sys::ncclDataType_t::ncclFloat32;

pub fn ok(status: Status) -> Result<(), Status> {
    if status == Status::ncclSuccess { Ok(()) } else { Err(status) }
}

/// The address of a buffer.
pub fn at(buffer: &CudaSlice<f32>, stream: &CudaStream) -> u64 {
    buffer.device_ptr(stream).0
}

pub fn at_mut(buffer: &mut CudaSlice<f32>, stream: &CudaStream) -> u64 {
    buffer.device_ptr_mut(stream).0
}

fn wait_for(path: &Path) -> [u8; 128] {
    let start = Instant::now();
    loop {
        if let Some(id) = std::fs::read(path).ok().and_then(|bytes| <[u8; 128]>::try_from(bytes).ok()) {
            return id;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "rank 0 has made no id");
        std::thread::sleep(Duration::from_millis(1));
    }
}
