//! The sums of a step over all ranks of a training: see [`crate::ranks::shards`].

use super::driver::{Device, Pod, Transfer};
use super::learner::Learner;
use super::step::StepFinisher;
use crate::error::{Error, RankKind, Result};

/// Launches what makes one gradient of those of all ranks, but for the last part of
/// [`Learner::gather`], and hands the values of tiles to all; nothing for a GPU without others.
pub fn launch<'a, L: Iterator<Item = &'a Learner>>(
    device: &Device,
    learners: impl Fn() -> L,
    step_finisher: &'a StepFinisher,
) -> Result<()> {
    if device.communicator().is_none() {
        return Ok(());
    }
    let state = step_finisher.state();
    learners().try_for_each(|learner| learner.gather_own(state))?;
    device.transfer(learners().flat_map(Learner::transfers).chain(step_finisher.transfers()))?;
    learners().try_for_each(|learner| learner.add_slices(state))?;
    device.transfer(learners().filter_map(Learner::gathering))
}

/// What each rank passes, on all ranks; `own` is that of this rank, and all there is without
/// others.
pub fn share(device: &Device, own: &[u8]) -> Result<Vec<Vec<u8>>> {
    let Some(communicator) = device.communicator() else { return Ok(vec![own.to_vec()]) };
    let n_ranks = communicator.n_ranks();
    let lengths = gathered(device, &[own.len() as u64], n_ranks)?;
    // Equal numbers of bytes of all ranks, by way of the GPU's memory, in parts of it.
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    let mut shared: Vec<Vec<u8>> = vec![Vec::new(); n_ranks];
    for start in (0..longest).step_by(SHARED_AT_ONCE) {
        let n = SHARED_AT_ONCE.min(longest - start);
        let mut part = vec![0u8; n];
        let own = own.get(start..own.len().min(start + n)).unwrap_or_default();
        part[..own.len()].copy_from_slice(own);
        let all = gathered(device, &part, n_ranks)?;
        for ((bytes, part), length) in shared.iter_mut().zip(all.chunks(n)).zip(&lengths) {
            bytes.extend_from_slice(&part[..n.min(*length as usize - bytes.len())]);
        }
    }
    Ok(shared)
}

/// Bytes of a rank that go through the GPU's memory at once.
const SHARED_AT_ONCE: usize = 16 << 20;

/// `own` of all ranks, which have equal numbers of elements.
fn gathered<T: Pod>(device: &Device, own: &[T], n_ranks: usize) -> Result<Vec<T>> {
    let own = device.upload(own)?;
    let all = device.allocate::<T>(n_ranks * own.len())?;
    device.transfer([Transfer::Gather { own: own.bytes(), all: all.bytes() }])?;
    device.read(&all, all.len())
}

/// Checks that all ranks hold samples in as many shards as this one, which has `n`: they follow
/// from the memory of its GPU, and decide which rows are drawn.
pub fn check_equal(device: &Device, n: usize) -> Result<()> {
    let Some(communicator) = device.communicator() else { return Ok(()) };
    let found = gathered(device, &[n as u64], communicator.n_ranks())?;
    match found.iter().position(|&other| other != n as u64) {
        None => Ok(()),
        Some(rank) => Err(Error::Rank {
            kind: RankKind::Differs,
            problem: format!(
                "the samples are in {n} shards on the GPU of rank {}, in {} on that of rank {rank}",
                communicator.rank(),
                found[rank]
            ),
            fix: "take GPUs with equal memory",
        }),
    }
}
