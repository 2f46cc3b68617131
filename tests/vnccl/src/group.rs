//! The calls of a thread between `ncclGroupStart` and `ncclGroupEnd`, which begin together.

use std::cell::RefCell;
use std::sync::Arc;

use crate::Failure;
use crate::communicator::Communicator;
use crate::enqueued::{Placed, enqueue};

/// The open groups of this thread, and the calls in them.
#[derive(Default)]
struct Group {
    depth: usize,
    calls: Vec<(Arc<Communicator>, u64, Placed)>,
    /// Of a call in it: then nothing begins.
    failed: Option<Failure>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

pub fn start() {
    GROUP.with_borrow_mut(|group| group.depth += 1);
}

/// Whether this thread is between the two calls.
pub fn is_open() -> bool {
    GROUP.with_borrow(|group| group.depth > 0)
}

/// Makes a call in `stream`, or keeps it for the end of the group.
///
/// # Errors
/// Those of [`enqueue`].
pub fn add(communicator: Arc<Communicator>, stream: u64, placed: Placed) -> Result<(), Failure> {
    if !is_open() {
        return enqueue(communicator, vec![placed], stream);
    }
    GROUP.with_borrow_mut(|group| group.calls.push((communicator, stream, placed)));
    Ok(())
}

/// Keeps the failure of a call for the end of the group.
pub fn spoil(failure: &Failure) {
    GROUP.with_borrow_mut(|group| {
        if group.depth > 0 {
            group.failed.get_or_insert_with(|| failure.clone());
        }
    });
}

/// # Errors
/// No group is open; a call in it failed; or calls of several communicators or streams are in it.
pub fn end() -> Result<(), Failure> {
    let (calls, failed) = GROUP.with_borrow_mut(|group| {
        group.depth =
            group.depth.checked_sub(1).ok_or_else(|| Failure::usage("ncclGroupEnd without ncclGroupStart"))?;
        match group.depth {
            0 => Ok((std::mem::take(&mut group.calls), group.failed.take())),
            _ => Ok((Vec::new(), None)),
        }
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    let Some((communicator, stream, _)) = calls.first().cloned() else { return Ok(()) };
    if calls.iter().any(|(other, other_stream, _)| !Arc::ptr_eq(other, &communicator) || *other_stream != stream) {
        return Err(Failure::usage(format!(
            "rank {}: a group with calls of several communicators or streams, which the virtual NCCL does not have",
            communicator.rank
        )));
    }
    enqueue(communicator, calls.into_iter().map(|(_, _, placed)| placed).collect(), stream)
}
