//! Calls in a stream: which bytes of the device they read and write, and when.
//!
//! When the stream reaches them, what they give is read and what they receive becomes out of reach;
//! when the table has ended them, what they gave must be unchanged, and what they received is
//! written. The virtual GPU begins them as early and ends them as late as the stream lets it, so
//! whatever touches a buffer without an order does so in between.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::Failure;
use crate::call::{Call, Kind, describe};
use crate::communicator::{Communicator, Outcome};
use crate::gpu::Gpu;
use crate::outside::{DONE, FAILED, FINE, Memory, OUTSIDE, PENDING, PROMISED, UNWRITTEN, Work};

/// A call with the addresses of what it gives and receives.
#[derive(Clone, Copy)]
pub struct Placed {
    pub call: Call,
    pub send: u64,
    pub recv: u64,
}

impl Placed {
    fn given(&self, rank: u32) -> Range<u64> {
        self.send..self.send + if self.call.gives(rank) { self.call.bytes() as u64 } else { 0 }
    }

    fn received(&self, n: u32) -> Range<u64> {
        self.recv..self.recv + self.call.bytes_received(n) as u64
    }

    /// Whether what it gives lies where the result of it does, as NCCL allows.
    fn is_in_place(&self, rank: u32) -> bool {
        match self.call.kind {
            Kind::AllGather => self.send == self.recv + u64::from(rank) * self.call.bytes() as u64,
            Kind::AllReduce(_) | Kind::Broadcast { .. } => self.send == self.recv,
            Kind::Send { .. } | Kind::Recv { .. } => false,
        }
    }
}

/// The calls of a group, or a single one.
pub struct Enqueued {
    communicator: Arc<Communicator>,
    calls: Vec<Placed>,
    words: String,
    /// The stream runs them once: they are not part of a graph.
    once: bool,
}

/// A run of them.
struct Run {
    /// Valid until the run ends.
    enqueued: *const Enqueued,
    since: Instant,
    /// What each call gave, as it was at the beginning.
    given: Vec<Vec<u8>>,
    /// How many calls have made their result out of reach.
    n_promised: usize,
    entered: bool,
    failed: Option<Failure>,
}

/// Appends calls to `stream`.
///
/// # Errors
/// Buffers that overlap, a communicator that cannot be used, or one of another GPU.
pub fn enqueue(communicator: Arc<Communicator>, calls: Vec<Placed>, stream: u64) -> Result<(), Failure> {
    let gpu = Gpu::get()?;
    communicator.check()?;
    let (rank, n) = (communicator.rank, communicator.n);
    if gpu.device() != communicator.device {
        return Err(Failure::usage(format!(
            "rank {rank} has its communicator on GPU {}, but calls it on GPU {}",
            communicator.device,
            gpu.device()
        )));
    }
    check_overlaps(&calls, rank, n)?;
    let words = describe(&calls.iter().map(|placed| placed.call).collect::<Vec<_>>());
    let once = !gpu.is_capturing(stream);
    if once {
        communicator.queue(&words);
    }
    let argument = Box::into_raw(Box::new(Enqueued { communicator: communicator.clone(), calls, words, once }));
    // SAFETY: what runs once is given back when it ends; what a graph holds stays for good.
    let submitted = unsafe { gpu.submit(stream, &Work { begin, poll, argument: argument.cast() }) };
    submitted.map_err(|status| {
        if once {
            communicator.passed();
        }
        // SAFETY: the driver has not taken it.
        let refused = unsafe { Box::from_raw(argument) };
        Failure::usage(format!("rank {rank}: {}: the driver refuses it with status {status}", refused.words))
    })
}

/// No call may receive where it or another gives or receives, but for the one that works in place.
fn check_overlaps(calls: &[Placed], rank: u32, n: u32) -> Result<(), Failure> {
    let overlap = |a: &Range<u64>, b: &Range<u64>| a.start.max(b.start) < a.end.min(b.end);
    for (index, one) in calls.iter().enumerate() {
        for (other_index, other) in calls.iter().enumerate() {
            let itself = index == other_index;
            let given = !(itself && one.is_in_place(rank)) && overlap(&one.received(n), &other.given(rank));
            let received = !itself && overlap(&one.received(n), &other.received(n));
            if given || received {
                let what = if given { "gives" } else { "receives" };
                return Err(Failure::usage(format!(
                    "rank {rank}: {} receives bytes that {} {what}",
                    one.call, other.call
                )));
            }
        }
    }
    Ok(())
}

impl Run {
    fn begin(&mut self, memory: &Memory) -> Result<(), Failure> {
        // SAFETY: valid until the run ends.
        let Enqueued { communicator, calls, words, .. } = unsafe { &*self.enqueued };
        let rank = communicator.rank;
        if communicator.is_aborted() {
            return self.promise(memory);
        }
        communicator.enter(words)?;
        self.entered = true;
        for placed in calls {
            let range = placed.given(rank);
            let mut bytes = vec![0; (range.end - range.start) as usize];
            // SAFETY: `bytes` has so many bytes.
            let status = unsafe { (memory.read)(memory.context, range.start, bytes.len(), bytes.as_mut_ptr()) };
            check(status, &range, rank, &placed.call, "gives")?;
            self.given.push(bytes);
        }
        self.promise(memory)?;
        communicator.begin(calls.iter().map(|placed| placed.call).zip(self.given.iter().cloned()).collect())
    }

    /// Puts out of reach what is received.
    fn promise(&mut self, memory: &Memory) -> Result<(), Failure> {
        // SAFETY: valid until the run ends.
        let Enqueued { communicator, calls, .. } = unsafe { &*self.enqueued };
        for placed in calls {
            let range = placed.received(communicator.n);
            // SAFETY: any range may be asked for.
            let status = unsafe { (memory.promise)(memory.context, range.start, (range.end - range.start) as usize) };
            check(status, &range, communicator.rank, &placed.call, "receives")?;
            self.n_promised += 1;
        }
        Ok(())
    }

    fn poll(&mut self, memory: &Memory) -> Result<bool, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        // SAFETY: valid until the run ends.
        let Enqueued { communicator, calls, .. } = unsafe { &*self.enqueued };
        let (rank, n) = (communicator.rank, communicator.n);
        let received = match communicator.poll(self.since)? {
            Outcome::Pending => return Ok(false),
            Outcome::Aborted => {
                self.withdraw(memory);
                return Ok(true);
            }
            Outcome::Done(received) => received,
        };
        for (placed, before) in calls.iter().zip(&self.given) {
            let range = placed.given(rank);
            if placed.is_in_place(rank) || before.is_empty() {
                continue;
            }
            let mut now = vec![0; before.len()];
            // SAFETY: `now` has so many bytes.
            let status = unsafe { (memory.read)(memory.context, range.start, now.len(), now.as_mut_ptr()) };
            check(status, &range, rank, &placed.call, "gives")?;
            if now != *before {
                return Err(Failure::usage(format!(
                    "rank {rank}: bytes that {} gives, at {:#x}, were written before the stream had passed it",
                    placed.call, range.start
                )));
            }
        }
        for (placed, bytes) in calls.iter().zip(&received) {
            let range = placed.received(n);
            // SAFETY: `bytes` are so many.
            let status = unsafe { (memory.deliver)(memory.context, range.start, bytes.len(), bytes.as_ptr()) };
            check(status, &range, rank, &placed.call, "receives")?;
        }
        self.n_promised = 0;
        Ok(true)
    }

    /// Leaves uninitialized what would have been received.
    fn withdraw(&mut self, memory: &Memory) {
        // SAFETY: valid until the run ends.
        let Enqueued { communicator, calls, .. } = unsafe { &*self.enqueued };
        for placed in &calls[..std::mem::take(&mut self.n_promised)] {
            let range = placed.received(communicator.n);
            // SAFETY: the bytes were promised.
            unsafe { (memory.withdraw)(memory.context, range.start, (range.end - range.start) as usize) };
        }
    }
}

/// What the virtual GPU says of bytes, in words.
fn check(status: c_int, range: &Range<u64>, rank: u32, call: &Call, does: &str) -> Result<(), Failure> {
    let fault = match status {
        FINE => return Ok(()),
        // Nothing is read or written of them.
        _ if range.is_empty() => return Ok(()),
        OUTSIDE => "lie in no allocation",
        UNWRITTEN => "were never written",
        PROMISED => "belong to a call that has not ended",
        _ => "cannot be used",
    };
    let (bytes, at) = (range.end - range.start, range.start);
    Err(Failure::usage(format!("rank {rank}: of the {bytes} bytes at {at:#x} that {call} {does}, some {fault}")))
}

// SAFETY of both functions: the virtual GPU calls them as `outside::Work` says.

unsafe extern "C" fn begin(argument: *mut c_void, memory: *const Memory) -> *mut c_void {
    let enqueued = argument.cast::<Enqueued>().cast_const();
    // SAFETY: see above.
    let memory = unsafe { &*memory };
    let mut run =
        Run { enqueued, since: Instant::now(), given: Vec::new(), n_promised: 0, entered: false, failed: None };
    if let Err(failure) = run.begin(memory) {
        run.withdraw(memory);
        run.failed = Some(failure);
    }
    // SAFETY: valid until the run ends.
    let Enqueued { communicator, words, .. } = unsafe { &*enqueued };
    say(memory, &format!("{words} of rank {}", communicator.rank));
    Box::into_raw(Box::new(run)).cast()
}

unsafe extern "C" fn poll(run: *mut c_void, memory: *const Memory) -> c_int {
    // SAFETY: see above.
    let (memory, run) = unsafe { (&*memory, &mut *run.cast::<Run>()) };
    let status = match run.poll(memory) {
        Ok(false) => return PENDING,
        Ok(true) => DONE,
        Err(failure) => {
            run.withdraw(memory);
            say(memory, &format!("vnccl: {failure}"));
            FAILED
        }
    };
    // SAFETY: `begin` made it, and it has ended.
    let run = unsafe { Box::from_raw(run) };
    // SAFETY: valid until the run ends.
    let Enqueued { communicator, once, .. } = unsafe { &*run.enqueued };
    if run.entered {
        communicator.exit();
    }
    if status == FAILED && communicator.failure().is_none() {
        // The fault is this rank's own: the others need not wait for it.
        communicator.abort();
    }
    if *once {
        communicator.passed();
        // SAFETY: `enqueue` made it, and the stream runs it once.
        drop(unsafe { Box::from_raw(run.enqueued.cast_mut()) });
    }
    status
}

fn say(memory: &Memory, text: &str) {
    // SAFETY: the text has so many bytes.
    unsafe { (memory.say)(memory.context, text.as_ptr(), text.len()) };
}
