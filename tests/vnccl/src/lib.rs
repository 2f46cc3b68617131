//! A virtual NCCL: collectives between ranks that are threads or processes of one machine, in the
//! streams of the virtual GPU. It is strict where NCCL is lenient (`README.md`).
//!
//! | module | what it is |
//! |---|---|
//! | `api` | the functions of NCCL's interface |
//! | `group` | the calls of a thread between `ncclGroupStart` and `ncclGroupEnd` |
//! | `communicator` | a rank's end: what it asks of the others, and how far that is |
//! | `enqueued` | calls in a stream: which bytes of the device they read and write, and when |
//! | `gpu` | the virtual GPU that the program has loaded |
//! | `wire` | messages between ranks and the table |
//! | `coordinator` | the thread that holds the table, in the process that made the id |
//! | `table` | what all ranks have called: what fits together, and what never will |
//! | `call` | a call and its arguments |
//! | `reduction` | sums of ranks, in the order of ranks |
#![cfg(target_os = "linux")]

mod api;
mod call;
mod communicator;
mod coordinator;
mod enqueued;
mod gpu;
mod group;
mod reduction;
mod table;
mod wire;

#[path = "../../vgpu/src/outside.rs"]
#[allow(dead_code)] // what only the virtual GPU needs
mod outside;

use std::fmt;
use std::time::Duration;

/// A result of NCCL's interface other than success (ncclResult_t).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    System = 2,
    InvalidArgument = 4,
    InvalidUsage = 5,
    Remote = 6,
}

/// Why a call failed: what `ncclGetLastError` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub text: String,
}

impl Failure {
    fn new(code: Code, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }

    fn usage(text: impl Into<String>) -> Self {
        Failure::new(Code::InvalidUsage, text)
    }

    fn remote(text: impl Into<String>) -> Self {
        Failure::new(Code::Remote, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How long a rank waits for the others, in a call or for a communicator: `VNCCL_TIMEOUT` seconds.
/// The virtual GPU is slow, so a rank may be long on its way.
fn limit() -> Duration {
    let seconds = std::env::var("VNCCL_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.filter(|seconds| (0.0..1e6).contains(seconds)).unwrap_or(60.0))
}
