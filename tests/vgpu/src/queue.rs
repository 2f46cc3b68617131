//! Streams and events: work waits in its stream until someone waits for it, and then runs in a seeded random order of streams.
//!
//! What the program did not order therefore runs in any order, as on a device. Graphs are recorded work that is queued again.

use std::collections::{HashMap, VecDeque};

use crate::device::{Device, Sizes};
use crate::exec::Random;

/// One piece of work of a stream.
#[derive(Clone)]
pub enum Work {
    Launch {
        module: usize,
        kernel: usize,
        parameters: Vec<Vec<u8>>,
        sizes: Sizes,
    },
    /// Bytes from the host, as they were when the copy was asked for.
    ToDevice {
        to: u64,
        bytes: Vec<u8>,
    },
    /// From pinned memory of the host, as it is when the copy runs.
    FromPinned {
        to: u64,
        from: usize,
        bytes: usize,
    },
    ToHost {
        to: usize,
        from: u64,
        bytes: usize,
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
    /// The event has happened when this is reached; each record is a number of its own.
    Record {
        event: u64,
        number: u64,
    },
    /// Waits until that record of the event has happened.
    Wait {
        event: u64,
        number: u64,
    },
    /// Calls back to the host.
    Host {
        function: usize,
        argument: usize,
    },
}

/// All streams of a device.
pub struct Queue {
    streams: HashMap<u64, VecDeque<Work>>,
    /// Last record that was asked for, and last that happened, of each event.
    events: HashMap<u64, (u64, u64)>,
    /// What a stream that is being captured has recorded.
    captures: HashMap<u64, Vec<Work>>,
    random: Random,
    n_records: u64,
}

impl Queue {
    pub fn new(seed: u64) -> Self {
        Queue {
            streams: HashMap::new(),
            events: HashMap::new(),
            captures: HashMap::new(),
            random: Random::new(seed),
            n_records: 0,
        }
    }

    /// Puts `work` at the end of `stream`, or of its capture.
    pub fn push(&mut self, stream: u64, work: Work) {
        match self.captures.get_mut(&stream) {
            Some(recorded) => recorded.push(work),
            None => self.streams.entry(stream).or_default().push_back(work),
        }
    }

    /// Records `event` behind what `stream` has now.
    pub fn record(&mut self, stream: u64, event: u64) {
        self.n_records += 1;
        let number = self.n_records;
        self.events.entry(event).or_default().0 = number;
        self.push(stream, Work::Record { event, number });
    }

    /// Makes `stream` wait for the last record of `event`; nothing to wait for without one.
    pub fn wait(&mut self, stream: u64, event: u64) {
        if let Some(&(number, _)) = self.events.get(&event)
            && number > 0
        {
            self.push(stream, Work::Wait { event, number });
        }
    }

    pub fn begin_capture(&mut self, stream: u64) {
        self.captures.insert(stream, Vec::new());
    }

    pub fn end_capture(&mut self, stream: u64) -> Option<Vec<Work>> {
        self.captures.remove(&stream)
    }

    pub fn is_capturing(&self, stream: u64) -> bool {
        self.captures.contains_key(&stream)
    }

    /// Whether the last record of `event` has happened.
    pub fn has_happened(&self, event: u64) -> bool {
        self.events.get(&event).is_none_or(|&(asked, happened)| happened >= asked)
    }

    /// Runs work until `done` says so, or none is left.
    ///
    /// # Errors
    /// The first failure of a kernel or copy; or that streams wait for each other.
    pub fn run(&mut self, device: &mut Device, done: impl Fn(&Queue) -> bool) -> Result<(), String> {
        while !done(self) {
            let mut ready: Vec<u64> = (self.streams.iter())
                .filter(|(_, works)| match works.front() {
                    None => false,
                    Some(Work::Wait { event, number }) => {
                        self.events.get(event).is_some_and(|&(_, happened)| happened >= *number)
                    }
                    Some(_) => true,
                })
                .map(|(&stream, _)| stream)
                .collect();
            if ready.is_empty() {
                let waiting = self.streams.values().any(|works| !works.is_empty());
                return if waiting { Err("streams wait for events that never happen".into()) } else { Ok(()) };
            }
            ready.sort_unstable();
            let stream = ready[self.random.below(ready.len())];
            let work = self.streams.get_mut(&stream).and_then(VecDeque::pop_front);
            if let Some(work) = work {
                self.perform(device, work)?;
            }
        }
        Ok(())
    }

    /// Whether `stream` has nothing left to do.
    pub fn is_idle(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_none_or(VecDeque::is_empty)
    }

    /// Whether no stream has.
    pub fn all_idle(&self) -> bool {
        self.streams.values().all(VecDeque::is_empty)
    }

    fn perform(&mut self, device: &mut Device, work: Work) -> Result<(), String> {
        let outside =
            |what: &str, at: u64, bytes: usize| format!("{what}: {bytes} bytes at {at:#x} lie in no allocation");
        match work {
            Work::Launch { module, kernel, parameters, sizes } => {
                let parameters: Vec<&[u8]> = parameters.iter().map(Vec::as_slice).collect();
                device.launch(module, kernel, &parameters, sizes)
            }
            Work::ToDevice { to, bytes } => {
                let (region, offset) =
                    device.memory.find(to, bytes.len()).map_err(|_| outside("copy to the device", to, bytes.len()))?;
                region.copy_in(offset, &bytes);
                Ok(())
            }
            Work::FromPinned { to, from, bytes } => {
                // SAFETY: pinned memory of that size, which the program must keep until the copy is waited for.
                let source = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) }.to_vec();
                self.perform(device, Work::ToDevice { to, bytes: source })
            }
            Work::ToHost { to, from, bytes } => {
                let (region, offset) =
                    device.memory.find(from, bytes).map_err(|_| outside("copy to the host", from, bytes))?;
                if !region.is_written(offset, bytes) {
                    return Err(format!("copy to the host: some of the {bytes} bytes at {from:#x} were never written"));
                }
                // SAFETY: the program names that many bytes of its own, and must keep them until the copy is waited for.
                let target = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) };
                region.copy_out(offset, target);
                Ok(())
            }
            Work::OnDevice { to, from, bytes } => {
                let mut copied = vec![0; bytes];
                let (region, offset) =
                    device.memory.find(from, bytes).map_err(|_| outside("copy on the device", from, bytes))?;
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
                if device.memory.free(address) {
                    Ok(())
                } else {
                    Err(format!("{address:#x} is freed, but is no allocation"))
                }
            }
            Work::Record { event, number } => {
                let happened = &mut self.events.entry(event).or_default().1;
                *happened = number.max(*happened);
                Ok(())
            }
            Work::Wait { .. } => Ok(()),
            Work::Host { function, argument } => {
                // SAFETY: `cuLaunchHostFunc` was given this function with this argument.
                unsafe {
                    let function: extern "C" fn(*mut std::ffi::c_void) = std::mem::transmute(function);
                    function(argument as *mut std::ffi::c_void);
                }
                Ok(())
            }
        }
    }
}
