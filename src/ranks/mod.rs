//! The processes of one training, its ranks: who they are, how they meet, what each of them sums,
//! and how a lost one is noticed. [`CudaEngine::among`](crate::engine::cuda::CudaEngine::among)
//! makes an engine one of them.
//!
//! | module | what it says |
//! |---|---|
//! | [`environment`] | rank, number of ranks and where they meet, from what started the processes |
//! | [`hosts`] | the machines that a node list of SLURM names |
//! | [`rendezvous`] | that all ranks are there and train the same; a message of rank 0 for all |
//! | [`places`] | on which machines and GPUs they are, in words |
//! | [`liveness`] | which rank is gone or hangs |
//! | [`shards`] | which rank forms and adds which gradients, so that any number gives equal bits |

pub mod environment;
pub mod hosts;
pub mod liveness;
mod message;
pub mod places;
pub mod rendezvous;
pub mod shards;
