//! This process as one of several that train one model.

use std::process::ExitCode;
use std::sync::Arc;

use action_matching::config::Config;
use action_matching::engine::Engine;
use action_matching::engine::cuda::{CudaEngine, nccl_id, nccl_version};
use action_matching::ranks::environment::World;
use action_matching::ranks::liveness::Liveness;
use action_matching::ranks::rendezvous::{Patience, meet};
use action_matching::train::{Ranks, follow, settings};
use action_matching::{DeviceKind, Error};

use super::exit;
use super::output::note;

/// This process among those of a training, which have met.
pub struct Rank {
    world: World,
    /// Takes steps together with those of the other ranks.
    engine: CudaEngine,
    liveness: Arc<Liveness>,
}

impl Rank {
    /// Meets the others of `world`, which train `config` too, each with a GPU such as that of
    /// `engine`.
    ///
    /// # Errors
    /// Ranks that do not come or differ; no NCCL.
    pub fn meet(world: World, engine: &CudaEngine, config: &Config) -> action_matching::Result<Rank> {
        // Without NCCL nobody waits for the others.
        let version = nccl_version()?;
        let mut facts = settings(config)?;
        facts.push(("arithmetic".into(), engine.arithmetic()));
        let facts: Vec<(&str, String)> = facts.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        if world.rank == 0 {
            note!("{world}; NCCL {version}");
        }
        let (id, liveness) = meet(&world, &facts, Patience::default(), &(), || Ok(nccl_id()?.to_vec()))?;
        let id = id.try_into().map_err(|_| Error::Device {
            kind: DeviceKind::Failed,
            device: "NCCL".into(),
            problem: "rank 0 has another name for the training than NCCL gives".into(),
            fix: "start all ranks with the same program".into(),
        })?;
        let liveness = Arc::new(liveness);
        let engine = engine.among(&id, (world.rank, world.size), liveness.clone())?;
        Ok(Rank { world, engine, liveness })
    }

    /// True for the one that has the run folder.
    pub fn is_first(&self) -> bool {
        self.world.rank == 0
    }

    /// What the library trains with.
    pub fn ranks(&self) -> Ranks<'_> {
        let Rank { world, engine, liveness } = self;
        Ranks { world, engine, share: engine, liveness: liveness.clone() }
    }

    /// Takes the steps of rank 0, until that has ended the training.
    pub fn follow(&self, config: &Config, threads: usize) -> anyhow::Result<ExitCode> {
        follow(&self.ranks(), config, threads)?;
        Ok(ExitCode::from(exit::DONE))
    }
}

/// The place that a launcher gives this process; `None` for a process that is alone.
pub fn world() -> action_matching::Result<Option<World>> {
    Ok(World::from_environment()?.filter(|world| world.size > 1))
}
