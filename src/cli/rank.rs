//! This process as one of several that train one model: of those that a launcher has started, or of
//! those that this one starts itself ([`super::ranks`]).

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use action_matching::config::Config;
use action_matching::engine::Engine;
use action_matching::engine::cuda::{CudaEngine, nccl_id, nccl_version};
use action_matching::ranks::environment::World;
use action_matching::ranks::liveness::Liveness;
use action_matching::ranks::places::describe;
use action_matching::ranks::rendezvous::{Patience, meet};
use action_matching::stage::Watch;
use action_matching::train::{Ranks, follow, settings};
use action_matching::{DeviceKind, Error};

use super::exit;
use super::output::note;
use super::ranks::{Attended, Children, start};

/// This process among those of a training, which have met.
pub struct Rank {
    world: World,
    /// Takes steps together with those of the other ranks.
    engine: CudaEngine,
    liveness: Arc<Liveness>,
    /// Those that this process has started.
    children: Children,
}

/// A place among the ranks of a training, and the ranks that this process has started.
pub type Place = (World, Children);

impl Rank {
    /// Meets the others of `world`, which train `config` too, each with a GPU such as that of
    /// `engine`; `watch` may end the wait for them.
    ///
    /// # Errors
    /// Ranks that do not come or differ; no NCCL.
    pub fn meet(
        (world, children): Place,
        engine: &CudaEngine,
        config: &Config,
        watch: &dyn Watch,
    ) -> anyhow::Result<Rank> {
        // Without NCCL nobody waits for the others.
        let version = nccl_version()?;
        let mut facts = settings(config)?;
        facts.push(("arithmetic".into(), engine.arithmetic()));
        let facts: Vec<(&str, String)> = facts.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let attended = Attended { children: &children, watch };
        let met = meet(&world, &facts, Patience::default(), &attended, || Ok(nccl_id()?.to_vec()));
        let (id, liveness) = met.map_err(|error| explained(error, &children))?;
        if world.rank == 0 {
            note!("{}", describe(world.launcher, liveness.places(), &version));
        }
        let id = id.try_into().map_err(|_| Error::Device {
            kind: DeviceKind::Failed,
            device: "NCCL".into(),
            problem: "rank 0 has another name for the training than NCCL gives".into(),
            fix: "start all ranks with the same program".into(),
        })?;
        let liveness = Arc::new(liveness);
        let engine = engine.among(&id, (world.rank, world.size), liveness.clone())?;
        Ok(Rank { world, engine, liveness, children })
    }

    /// What the library trains with.
    pub fn ranks(&self) -> Ranks<'_> {
        let Rank { world, engine, liveness, .. } = self;
        Ranks { world, engine, exchange: engine, liveness: liveness.clone() }
    }

    /// `error` of the training, or the failure of a rank that is behind it.
    pub fn explained(&self, error: Error) -> anyhow::Error {
        explained(error, &self.children)
    }

    /// Waits for the ranks that this process has started, once the training is over.
    ///
    /// # Errors
    /// Names a rank that has failed or does not end.
    pub fn end(self) -> anyhow::Result<()> {
        /// They notice that rank 0 has ended within seconds.
        const MOST: Duration = Duration::from_secs(30);
        let Rank { engine, liveness, children, .. } = self;
        liveness.leave();
        drop(engine);
        children.wait(MOST)
    }

    /// Takes the steps of rank 0, until that has ended the training.
    pub fn follow(&self, config: &Config, threads: usize) -> anyhow::Result<ExitCode> {
        follow(&self.ranks(), config, threads)?;
        Ok(ExitCode::from(exit::DONE))
    }
}

/// The place that a launcher gives this process, or that it has among those that it starts for the
/// GPUs `devices`; `None` for a process that is alone.
pub fn place(devices: Option<&[usize]>) -> anyhow::Result<Option<Place>> {
    match devices {
        Some([_, _, ..]) => Ok(Some(start(devices.unwrap_or_default(), std::env::args_os().skip(1))?)),
        _ => {
            let world = World::from_environment()?.filter(|world| world.size > 1);
            Ok(world.map(|world| (world, Children::default())))
        }
    }
}

/// `error`, or the failure of one of `children` that is behind it.
pub fn explained(error: Error, children: &Children) -> anyhow::Error {
    match (children.failure(), error) {
        // The wait for it was given up.
        (Some(failure), Error::Interrupted) => anyhow::Error::msg(failure),
        (Some(failure), error @ Error::Rank { .. }) => anyhow::Error::new(error).context(failure),
        (_, error) => error.into(),
    }
}
