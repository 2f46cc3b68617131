//! Streams, events and captures. Work waits in its stream until the host waits for it, and then
//! runs in a seeded random order of streams.
//!
//! Work that the program did not order therefore runs in any order, as on a device. A graph is
//! recorded work that is queued again. Work of another library ([`outside`]) begins as soon as it
//! can and ends after all else that can run has run.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::{c_int, c_void};
use std::thread::ThreadId;

use crate::device::{Device, Sizes};
use crate::exec::Random;
use crate::memory::{GlobalMemory, Region};
use crate::outside;

/// One unit of work of a stream.
#[derive(Clone)]
pub enum Work {
    Launch {
        module: usize,
        kernel: usize,
        parameters: Vec<Vec<u8>>,
        sizes: Sizes,
    },
    /// Bytes from the host, as they were at the call.
    ToDevice {
        to: u64,
        bytes: Vec<u8>,
    },
    /// From page-locked memory of the host, as it is when the copy runs.
    FromPinned {
        to: u64,
        from: usize,
        bytes: usize,
    },
    ToHost {
        to: usize,
        from: u64,
        bytes: usize,
        /// To page-locked memory: the copy may run long after the call.
        pinned: bool,
    },
    OnDevice {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Fill {
        to: u64,
        value: Vec<u8>,
        count: usize,
    },
    Free {
        address: u64,
    },
    /// The event happens when the stream reaches this. Each record has its own number.
    Record {
        number: u64,
    },
    /// Waits until that record has happened.
    Wait {
        number: u64,
    },
    /// Calls back to the host.
    Host {
        function: usize,
        argument: usize,
    },
    Outside(Outside),
}

/// Work of another library.
#[derive(Clone, Copy)]
pub struct Outside(pub outside::Work);

// SAFETY: the library that submits it lets any thread call it, as a thread of a driver would.
unsafe impl Send for Outside {}

/// A run of work of another library, and what it says that it is.
struct Begun {
    run: usize,
    name: String,
}

/// How far [`Queue::run`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// `done`, or no work is left.
    Done,
    /// Work of another library has to end first.
    Waits,
}

/// Recorded work with the streams it was recorded from, in the order of recording.
#[derive(Clone)]
pub struct Graph {
    origin: u64,
    nodes: Vec<(u64, Work)>,
}

/// Calls that a capture forbids (CUstreamCaptureMode).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// Calls of any thread that could disturb the capture.
    Global,
    /// Those of its own thread.
    ThreadLocal,
    Relaxed,
}

/// The reason why a capture cannot take a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// The call waits, allocates or reads memory that may be freed when the graph runs. The capture
    /// becomes invalid.
    Unsupported,
    /// The capture was invalid before.
    Invalidated,
    /// Not a stream that began a capture.
    Unmatched,
    /// A stream that joined the capture has work that its origin does not wait for.
    Unjoined,
    /// A wait for an event from outside the capture.
    Isolation,
    /// An event recorded in a capture, which has no time at which it happens.
    CapturedEvent,
    /// A wait in one capture for an event of another.
    Merge,
}

struct Capture {
    graph: Graph,
    mode: CaptureMode,
    thread: ThreadId,
    invalid: bool,
}

/// Last record of an event: its number, and the capture that recorded it.
#[derive(Clone, Copy)]
struct Recorded {
    number: u64,
    capture: Option<u64>,
}

/// All streams of a device.
pub struct Queue {
    streams: HashMap<u64, VecDeque<Work>>,
    events: HashMap<u64, Recorded>,
    /// Records that are queued and have not happened.
    pending: HashSet<u64>,
    /// Captures by the stream that began them, and the capture to which each capturing stream
    /// belongs.
    captures: HashMap<u64, Capture>,
    capturing: HashMap<u64, u64>,
    /// Work of other libraries that is under way, by its stream.
    begun: BTreeMap<u64, Begun>,
    /// Page-locked memory of the host: address and size.
    pub pinned: BTreeMap<usize, usize>,
    random: Random,
    n_records: u64,
    n_forks: u64,
}

impl Queue {
    pub fn new(seed: u64) -> Self {
        Queue {
            streams: HashMap::new(),
            events: HashMap::new(),
            pending: HashSet::new(),
            captures: HashMap::new(),
            capturing: HashMap::new(),
            begun: BTreeMap::new(),
            pinned: BTreeMap::new(),
            random: Random::new(seed),
            n_records: 0,
            n_forks: 0,
        }
    }

    /// Appends `work` to `stream`, or to its capture.
    pub fn push(&mut self, stream: u64, work: Work) -> Result<(), CaptureError> {
        let Some(origin) = self.capturing.get(&stream) else {
            self.streams.entry(stream).or_default().push_back(work);
            return Ok(());
        };
        let Some(capture) = self.captures.get_mut(origin) else { return Err(CaptureError::Unmatched) };
        if capture.invalid {
            return Err(CaptureError::Invalidated);
        }
        capture.graph.nodes.push((stream, work));
        Ok(())
    }

    /// Records `event` after the current work of `stream`.
    pub fn record(&mut self, stream: u64, event: u64) -> Result<(), CaptureError> {
        self.n_records += 1;
        let number = self.n_records;
        let capture = self.capturing.get(&stream).copied();
        self.events.insert(event, Recorded { number, capture });
        if capture.is_none() {
            self.pending.insert(number);
        }
        self.push(stream, Work::Record { number })
    }

    /// Makes `stream` wait for the last record of `event`, if there is one. A stream that waits for
    /// an event of a capture joins the capture.
    pub fn wait(&mut self, stream: u64, event: u64) -> Result<(), CaptureError> {
        let Some(&Recorded { number, capture }) = self.events.get(&event) else { return Ok(()) };
        match (self.capturing.get(&stream).copied(), capture) {
            (Some(own), None) => {
                self.invalidate(own);
                return Err(CaptureError::Isolation);
            }
            (Some(own), Some(other)) if own != other => {
                self.invalidate(own);
                return Err(CaptureError::Merge);
            }
            (None, Some(origin)) if !self.captures.contains_key(&origin) => return Err(CaptureError::CapturedEvent),
            (None, Some(origin)) => {
                self.capturing.insert(stream, origin);
            }
            _ => {}
        }
        self.push(stream, Work::Wait { number })
    }

    pub fn begin_capture(&mut self, stream: u64, mode: CaptureMode) -> Result<(), CaptureError> {
        // The default stream cannot be captured.
        if stream == 0 || self.capturing.contains_key(&stream) {
            return Err(CaptureError::Unsupported);
        }
        let graph = Graph { origin: stream, nodes: Vec::new() };
        let thread = std::thread::current().id();
        self.captures.insert(stream, Capture { graph, mode, thread, invalid: false });
        self.capturing.insert(stream, stream);
        Ok(())
    }

    pub fn end_capture(&mut self, stream: u64) -> Result<Graph, CaptureError> {
        let Some(Capture { graph, invalid, .. }) = self.captures.remove(&stream) else {
            return Err(CaptureError::Unmatched);
        };
        self.capturing.retain(|_, origin| *origin != stream);
        if invalid {
            return Err(CaptureError::Invalidated);
        }
        let joined = |other: u64| {
            let last = graph.nodes.iter().rposition(|(stream, _)| *stream == other);
            last.is_none_or(|last| match graph.nodes[last].1 {
                Work::Record { number } => {
                    graph.nodes[last..].iter().any(|(_, work)| matches!(work, Work::Wait { number: n } if *n == number))
                }
                _ => false,
            })
        };
        if graph.nodes.iter().any(|&(other, _)| other != stream && !joined(other)) {
            return Err(CaptureError::Unjoined);
        }
        Ok(graph)
    }

    /// True if `stream` takes part in a capture.
    pub fn is_capturing(&self, stream: u64) -> bool {
        self.capturing.contains_key(&stream)
    }

    /// True if `stream` takes part in an invalid capture.
    pub fn is_invalidated(&self, stream: u64) -> bool {
        self.capturing.get(&stream).and_then(|origin| self.captures.get(origin)).is_some_and(|capture| capture.invalid)
    }

    fn invalidate(&mut self, origin: u64) {
        if let Some(capture) = self.captures.get_mut(&origin) {
            capture.invalid = true;
        }
    }

    /// A call that waits for `stream`, or for all streams, or that no capture can record: an error
    /// if a capture forbids it.
    pub fn disturb(&mut self, stream: Option<u64>) -> Result<(), CaptureError> {
        if let Some(&origin) = stream.and_then(|stream| self.capturing.get(&stream)) {
            self.invalidate(origin);
            return Err(CaptureError::Unsupported);
        }
        if stream.is_some() {
            return Ok(());
        }
        let thread = std::thread::current().id();
        let mut disturbed = false;
        for capture in self.captures.values_mut() {
            let forbids = match capture.mode {
                CaptureMode::Global => true,
                CaptureMode::ThreadLocal => capture.thread == thread,
                CaptureMode::Relaxed => false,
            };
            capture.invalid |= forbids;
            disturbed |= forbids;
        }
        if disturbed { Err(CaptureError::Unsupported) } else { Ok(()) }
    }

    /// Waiting for all streams is an error while any of them is captured.
    pub fn disturb_all(&mut self) -> Result<(), CaptureError> {
        self.captures.values_mut().for_each(|capture| capture.invalid = true);
        if self.captures.is_empty() { Ok(()) } else { Err(CaptureError::Unsupported) }
    }

    /// Queues `graph` after the current work of `stream`. Streams that joined the capture become
    /// new streams of this launch.
    pub fn launch_graph(&mut self, stream: u64, graph: &Graph) -> Result<(), CaptureError> {
        /// Handles of ordinary streams are smaller.
        const FORKS: u64 = 1 << 63;
        if self.is_capturing(stream) {
            self.invalidate(stream);
            return Err(CaptureError::Unsupported);
        }
        let mut streams = HashMap::from([(graph.origin, stream)]);
        let mut numbers = HashMap::new();
        for (recorded, work) in &graph.nodes {
            let target = *streams.entry(*recorded).or_insert_with(|| {
                self.n_forks += 1;
                FORKS + self.n_forks
            });
            let work = match work {
                Work::Record { number } => {
                    self.n_records += 1;
                    numbers.insert(*number, self.n_records);
                    self.pending.insert(self.n_records);
                    Work::Record { number: self.n_records }
                }
                Work::Wait { number } => Work::Wait { number: numbers.get(number).copied().unwrap_or(0) },
                other => other.clone(),
            };
            self.push(target, work)?;
        }
        Ok(())
    }

    /// True if the last record of `event` has happened.
    pub fn has_happened(&self, event: u64) -> Result<bool, CaptureError> {
        match self.events.get(&event) {
            Some(Recorded { capture: Some(_), .. }) => Err(CaptureError::CapturedEvent),
            Some(Recorded { number, .. }) => Ok(!self.pending.contains(number)),
            None => Ok(true),
        }
    }

    /// True if `event` was ever recorded.
    pub fn is_recorded(&self, event: u64) -> bool {
        self.events.contains_key(&event)
    }

    pub fn forget_event(&mut self, event: u64) {
        self.events.remove(&event);
    }

    /// True if queued work reads or writes host memory between `start` and `end`.
    pub fn uses_host_memory(&self, start: usize, end: usize) -> bool {
        self.streams.values().flatten().any(|work| match *work {
            Work::FromPinned { from: at, .. } | Work::ToHost { to: at, .. } => (start..end).contains(&at),
            _ => false,
        })
    }

    /// True if `bytes` bytes at `at` are page-locked.
    pub fn is_pinned(&self, at: usize, bytes: usize) -> bool {
        let below = self.pinned.range(..=at).next_back();
        below.is_some_and(|(&start, &size)| at + bytes <= start + size)
    }

    /// Runs work until `done`, until none is left, or until only work of other libraries is.
    ///
    /// # Errors
    /// The first failure of a kernel, a copy or another library, or a deadlock of streams, with the
    /// work of other libraries that was under way.
    pub fn run(&mut self, device: &mut Device, done: impl Fn(&Queue) -> bool) -> Result<Progress, String> {
        self.run_all(device, done).map_err(|mut message| {
            for Begun { name, .. } in self.begun.values() {
                message += &format!("\n  while {name} is under way");
            }
            message
        })
    }

    fn run_all(&mut self, device: &mut Device, done: impl Fn(&Queue) -> bool) -> Result<Progress, String> {
        while !done(self) {
            self.begin_outside(&device.memory);
            let mut ready: Vec<u64> = (self.streams.iter())
                .filter(|(_, works)| match works.front() {
                    None | Some(Work::Outside(_)) => false,
                    Some(Work::Wait { number }) => !self.pending.contains(number),
                    Some(_) => true,
                })
                .map(|(&stream, _)| stream)
                .collect();
            if ready.is_empty() {
                if !self.begun.is_empty() {
                    match self.poll_outside(&device.memory)? {
                        true => continue,
                        false => return Ok(Progress::Waits),
                    }
                }
                return match self.all_idle() {
                    true => Ok(Progress::Done),
                    false => Err("streams wait for events that never happen".into()),
                };
            }
            ready.sort_unstable();
            let stream = ready[self.random.below(ready.len())];
            if let Some(work) = self.take(stream) {
                self.perform(device, work)?;
            }
        }
        Ok(Progress::Done)
    }

    /// The next work of `stream`.
    fn take(&mut self, stream: u64) -> Option<Work> {
        let work = self.streams.get_mut(&stream).and_then(VecDeque::pop_front);
        if self.is_idle(stream) {
            self.streams.remove(&stream);
        }
        work
    }

    /// Begins the work of other libraries that streams have reached.
    fn begin_outside(&mut self, memory: &GlobalMemory) {
        let mut reached: Vec<(u64, Outside)> = (self.streams.iter())
            .filter_map(|(&stream, works)| match works.front() {
                Some(&Work::Outside(work)) if !self.begun.contains_key(&stream) => Some((stream, work)),
                _ => None,
            })
            .collect();
        reached.sort_unstable_by_key(|&(stream, _)| stream);
        for (stream, Outside(work)) in reached {
            let mut at = At { memory, said: String::new() };
            // SAFETY: the library that submitted the work gave its argument and function.
            let run = at.with(|memory| unsafe { (work.begin)(work.argument, memory) }) as usize;
            self.begun.insert(stream, Begun { run, name: at.said });
        }
    }

    /// Asks the work of other libraries how far it is: `true` if some has ended.
    fn poll_outside(&mut self, memory: &GlobalMemory) -> Result<bool, String> {
        let mut ended = Vec::new();
        for (&stream, begun) in &self.begun {
            let Some(&Work::Outside(Outside(work))) = self.streams.get(&stream).and_then(VecDeque::front) else {
                continue;
            };
            let mut at = At { memory, said: String::new() };
            // SAFETY: the run comes from the `begin` of the same work, and has not ended.
            match at.with(|memory| unsafe { (work.poll)(begun.run as *mut c_void, memory) }) {
                outside::PENDING => {}
                outside::DONE => ended.push(stream),
                _ => {
                    let said = at.said;
                    self.begun.remove(&stream);
                    return Err(said);
                }
            }
        }
        for stream in &ended {
            self.begun.remove(stream);
            self.take(*stream);
        }
        Ok(!ended.is_empty())
    }

    /// True if `stream` has no work left.
    pub fn is_idle(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_none_or(VecDeque::is_empty)
    }

    /// True if no stream has work left.
    pub fn all_idle(&self) -> bool {
        self.streams.values().all(VecDeque::is_empty)
    }

    fn perform(&mut self, device: &mut Device, work: Work) -> Result<(), String> {
        let outside =
            |what: &str, at: u64, bytes: usize| format!("{what}: {bytes} bytes at {at:#x} lie in no allocation");
        let given_back = |what: &str| format!("{what}: the page-locked memory of the host was given back");
        let free_of_promises = |what: &str, at: u64, bytes: usize, region: &Region, offset: usize| {
            if region.is_promised(offset, bytes) {
                return Err(format!("{what}: some of the {bytes} bytes at {at:#x} belong to work that has not ended"));
            }
            Ok(())
        };
        match work {
            Work::Launch { module, kernel, parameters, sizes } => {
                let parameters: Vec<&[u8]> = parameters.iter().map(Vec::as_slice).collect();
                device.launch(module, kernel, &parameters, sizes)
            }
            Work::ToDevice { to, bytes } => {
                let (region, offset) =
                    device.memory.find(to, bytes.len()).map_err(|_| outside("copy to the device", to, bytes.len()))?;
                free_of_promises("copy to the device", to, bytes.len(), region, offset)?;
                region.copy_in(offset, &bytes);
                Ok(())
            }
            Work::FromPinned { to, from, bytes } => {
                if !self.is_pinned(from, bytes) {
                    return Err(given_back("copy to the device"));
                }
                // SAFETY: checked above that these bytes of page-locked memory exist.
                let source = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }.to_vec();
                self.perform(device, Work::ToDevice { to, bytes: source })
            }
            Work::ToHost { to, from, bytes, pinned } => {
                if pinned && !self.is_pinned(to, bytes) {
                    return Err(given_back("copy to the host"));
                }
                let (region, offset) =
                    device.memory.find(from, bytes).map_err(|_| outside("copy to the host", from, bytes))?;
                free_of_promises("copy to the host", from, bytes, region, offset)?;
                if !region.is_written(offset, bytes) {
                    return Err(format!("copy to the host: some of the {bytes} bytes at {from:#x} were never written"));
                }
                // SAFETY: checked above that page-locked memory exists. A copy to other memory runs
                // before the program's call that names it returns.
                let target = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                region.copy_out(offset, target);
                Ok(())
            }
            Work::OnDevice { to, from, bytes } => {
                let mut copied = vec![0; bytes];
                let (region, offset) =
                    device.memory.find(from, bytes).map_err(|_| outside("copy on the device", from, bytes))?;
                free_of_promises("copy on the device", from, bytes, region, offset)?;
                if !region.is_written(offset, bytes) {
                    return Err(format!(
                        "copy on the device: some of the {bytes} bytes at {from:#x} were never written"
                    ));
                }
                region.copy_out(offset, &mut copied);
                self.perform(device, Work::ToDevice { to, bytes: copied })
            }
            Work::Fill { to, value, count } => {
                let bytes = value.repeat(count);
                self.perform(device, Work::ToDevice { to, bytes })
            }
            Work::Free { address } => {
                if let Ok((region, 0)) = device.memory.find(address, 0) {
                    free_of_promises("memory is freed", address, region.len(), region, 0)?;
                }
                if device.memory.free(address) {
                    Ok(())
                } else {
                    Err(format!("{address:#x} is freed, but is no allocation"))
                }
            }
            Work::Record { number } => {
                self.pending.remove(&number);
                Ok(())
            }
            // Work of other libraries is not performed but begun and polled.
            Work::Wait { .. } | Work::Outside(_) => Ok(()),
            Work::Host { function, argument } => {
                // SAFETY: the program gave this function and this argument to `cuLaunchHostFunc`.
                unsafe {
                    let function: extern "C" fn(*mut std::ffi::c_void) = std::mem::transmute(function);
                    function(argument as *mut std::ffi::c_void);
                }
                Ok(())
            }
        }
    }
}

/// The memory that work of another library sees, and what it says.
struct At<'a> {
    memory: &'a GlobalMemory,
    said: String,
}

impl At<'_> {
    fn with<T>(&mut self, call: impl FnOnce(*const outside::Memory) -> T) -> T {
        let memory = outside::Memory { context: (&raw mut *self).cast(), read, promise, deliver, withdraw, say };
        call(&memory)
    }

    fn change(&self, address: u64, bytes: usize, change: impl FnOnce(&Region, usize) -> c_int) -> c_int {
        match self.memory.find(address, bytes) {
            Ok((region, offset)) => change(region, offset),
            Err(_) => outside::OUTSIDE,
        }
    }
}

// SAFETY of the functions below: `context` is the `At` whose `with` is on the stack, and the
// library follows the documentation of `outside::Memory`.

unsafe extern "C" fn read(context: *mut c_void, address: u64, bytes: usize, to: *mut u8) -> c_int {
    // SAFETY: see above.
    let (at, to) = unsafe { (&*context.cast::<At>(), std::slice::from_raw_parts_mut(to, bytes)) };
    at.change(address, bytes, |region, offset| {
        if region.is_promised(offset, bytes) {
            return outside::PROMISED;
        }
        if !region.is_written(offset, bytes) {
            return outside::UNWRITTEN;
        }
        region.copy_out(offset, to);
        outside::FINE
    })
}

unsafe extern "C" fn promise(context: *mut c_void, address: u64, bytes: usize) -> c_int {
    // SAFETY: see above.
    let at = unsafe { &*context.cast::<At>() };
    at.change(address, bytes, |region, offset| {
        if region.is_promised(offset, bytes) {
            return outside::PROMISED;
        }
        region.set_promised(offset, bytes, true, false);
        outside::FINE
    })
}

unsafe extern "C" fn deliver(context: *mut c_void, address: u64, bytes: usize, from: *const u8) -> c_int {
    // SAFETY: see above.
    let (at, from) = unsafe { (&*context.cast::<At>(), std::slice::from_raw_parts(from, bytes)) };
    at.change(address, bytes, |region, offset| {
        region.set_promised(offset, bytes, false, true);
        region.copy_in(offset, from);
        outside::FINE
    })
}

unsafe extern "C" fn withdraw(context: *mut c_void, address: u64, bytes: usize) -> c_int {
    // SAFETY: see above.
    let at = unsafe { &*context.cast::<At>() };
    at.change(address, bytes, |region, offset| {
        region.set_promised(offset, bytes, false, false);
        outside::FINE
    })
}

unsafe extern "C" fn say(context: *mut c_void, text: *const u8, bytes: usize) {
    // SAFETY: see above.
    let (at, text) = unsafe { (&mut *context.cast::<At>(), std::slice::from_raw_parts(text, bytes)) };
    at.said = String::from_utf8_lossy(text).into_owned();
}
