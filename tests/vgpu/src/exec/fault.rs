//! Text of a failure: the instruction, its location, and the error of the access.

use super::{Block, Failure, Step};
use crate::memory::{Access, Fault, LOCAL_BASE, SHARED_BASE, UNITS};
use crate::ptx::{Instruction, Kernel, Space};

impl Block<'_> {
    #[cold]
    pub fn fail<T>(&self, instruction: &Instruction, thread: Option<u32>, message: impl Into<String>) -> Step<T> {
        Err(Box::new(Failure {
            message: message.into(),
            instruction: self.launch.kernel.texts[instruction.text as usize].clone(),
            source: instruction.source,
            block: self.block,
            thread,
            other: None,
        }))
    }

    #[cold]
    pub fn fault<T>(&self, thread: u32, instruction: &Instruction, fault: &Fault) -> Step<T> {
        let base = match instruction.op.space() {
            Space::Shared => SHARED_BASE,
            Space::Local => LOCAL_BASE,
            _ => 0,
        };
        let place = |address: u64| match address | base {
            generic if generic >= LOCAL_BASE => format!("local {:#x}", generic - LOCAL_BASE),
            generic if generic >= SHARED_BASE => format!("shared {:#x}", generic - SHARED_BASE),
            global => format!("{global:#x}"),
        };
        let who = |Access { block, thread, .. }: &Access| match *thread {
            unit if unit >= UNITS => format!("the asynchronous proxy, for block {block},"),
            thread => format!("thread {thread} of block {block}"),
        };
        let message = match fault {
            Fault::OutOfBounds { address, bytes, nearest } => {
                let near = nearest.map_or("no allocation below".to_string(), |(start, size)| {
                    format!(
                        "the allocation below starts at {start:#x} and has {size} bytes: {} bytes past its end",
                        (address % SHARED_BASE).wrapping_sub(start).wrapping_sub(size as u64) as i64 + *bytes as i64
                    )
                });
                format!("out of bounds: {bytes} bytes at {}; {near}", place(*address))
            }
            Fault::Misaligned { address, bytes } => format!("misaligned: {bytes} bytes at {}", place(*address)),
            Fault::Uninitialized { address, bytes } => {
                format!("uninitialized: {bytes} bytes at {} were never written", place(*address))
            }
            Fault::Pending { address } => {
                format!("{} belongs to an asynchronous copy that was not waited for", place(*address))
            }
            Fault::Race { address, other, other_wrote } => format!(
                "data race at {}: {} {} it and nothing orders the two",
                place(*address),
                who(other),
                if *other_wrote { "wrote" } else { "read" }
            ),
            Fault::Unfenced { address, other } => format!(
                "{}, which {} wrote, is read or written by the asynchronous proxy without fence.proxy.async in between",
                place(*address),
                who(other)
            ),
        };
        let mut failed = self.fail(instruction, Some(thread), message);
        if let (Err(failure), Fault::Race { other, .. } | Fault::Unfenced { other, .. }, Some(order)) =
            (&mut failed, fault, self.order)
        {
            failure.other = order.place(*other).map(|at| {
                let Kernel { code, texts, .. } = self.launch.kernel;
                (code[at as usize].source, texts[at as usize].clone())
            });
        }
        failed
    }
}
