//! A training that several processes divide among them, each with a GPU: rank 0 has the run folder
//! and decides, the others take the same steps. See [`crate::ranks`].

use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, RankKind, Result};
use crate::exchange::Exchange;
use crate::ranks::environment::World;
use crate::ranks::liveness::Liveness;
use crate::ranks::shards::{self, Plan};
use crate::training::{LossScale, TrainState};

/// The settings that must be equal on all ranks, by name: all but paths, which may differ from
/// machine to machine.
///
/// # Errors
/// As [`Config::to_toml`].
pub fn settings(config: &Config) -> Result<Vec<(String, String)>> {
    let text = config.to_toml()?;
    let (mut section, mut settings) = ("", Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once(" = ") {
            settings.push((format!("{section}.{key}"), value.to_owned()));
        }
    }
    settings.retain(|(key, _)| config.paths().iter().all(|(path, _)| path != key));
    Ok(settings)
}

/// What a fingerprint is of.
pub(super) const WHAT: &str = "configuration and data";

/// This process among those of a training.
pub struct Ranks<'a> {
    /// Its place.
    pub world: &'a World,
    /// Takes the steps, together with the engines of the other ranks.
    pub engine: &'a dyn Engine,
    /// Hands on what rank 0 decides.
    pub exchange: &'a dyn Exchange,
    /// Watches the other ranks.
    pub liveness: Arc<Liveness>,
}

impl Ranks<'_> {
    /// Refuses what ranks do not divide.
    pub(super) fn check(&self, config: &Config) -> Result<()> {
        Plan::new(config.training.shards, self.world.size, self.world.rank, 0, 1)?;
        let seeds = config.training.seeds;
        if seeds > 1 {
            let problem = format!("is {seeds}, but ranks divide the batches of one model");
            let fix = "train each member on a GPU of its own, with its training.seed, or use one GPU";
            return Err(Error::input("configuration", "training.seeds", problem, fix));
        }
        Ok(())
    }

    /// What a new run could do better.
    pub(super) fn advice(&self, config: &Config) -> Option<String> {
        let (n_ranks, n_shards) = (self.world.size, config.training.shards);
        let advised = shards::advised(n_ranks);
        (n_shards < advised).then(|| {
            format!(
                "{n_shards} shards of a batch for {n_ranks} GPUs leave part of each idle while it forms the gradient of \
                 weights: a new run should be faster with training.shards = {advised} (its last bits are others)"
            )
        })
    }

    /// The configuration of rank 0, which has decided what it left open.
    pub(super) fn decided(&self, config: &Config) -> Result<Config> {
        let text = self.exchange.of_first(config.to_toml()?.as_bytes())?;
        if self.world.rank == 0 {
            return Ok(config.clone());
        }
        let decided = Config::parse(Path::new("config.toml of rank 0"), &String::from_utf8_lossy(&text), &[])?;
        Ok(decided.with_paths_of(config))
    }

    /// The state that rank 0 goes on from; `state` is one of the same shapes.
    pub(super) fn state(&self, state: TrainState) -> Result<TrainState> {
        let mut bytes = Vec::new();
        if self.world.rank == 0 {
            bytes.extend(state.step.to_ne_bytes());
            bytes.extend(u64::from(state.loss_scale.good_steps).to_ne_bytes());
            bytes.extend(state.loss_scale.scale.to_ne_bytes());
            lists(&state).for_each(|list| bytes.extend_from_slice(bytemuck::cast_slice(list)));
        }
        let bytes = self.exchange.of_first(&bytes)?;
        if self.world.rank == 0 {
            return Ok(state);
        }
        let whole = || Error::Rank {
            kind: RankKind::Differs,
            problem: "the state of rank 0 is that of another network".into(),
            fix: "start all ranks with the same program and configuration",
        };
        let mut rest = &bytes[..];
        let mut take = |n: usize| {
            let (taken, left) = rest.split_at_checked(n).ok_or_else(whole)?;
            rest = left;
            Ok::<&[u8], Error>(taken)
        };
        let mut state = state;
        state.step = bytemuck::pod_read_unaligned(take(8)?);
        let good_steps: u64 = bytemuck::pod_read_unaligned(take(8)?);
        let scale = bytemuck::pod_read_unaligned(take(4)?);
        state.loss_scale = LossScale { scale, good_steps: u32::try_from(good_steps).map_err(|_| whole())? };
        for list in lists_mut(&mut state) {
            *list = bytemuck::pod_collect_to_vec(take(size_of_val(&list[..]))?);
        }
        if rest.is_empty() { Ok(state) } else { Err(whole()) }
    }
}

/// All numbers of a state but its counts.
fn lists(state: &TrainState) -> impl Iterator<Item = &Vec<f32>> {
    let TrainState { step: _, action, bend, growth, time_moments, loss_scale: _ } = state;
    let networks = [Some(action), bend.as_ref(), growth.as_ref()].into_iter().flatten();
    let of_networks =
        networks.flat_map(|network| [&network.parameters, &network.ema, &network.moment1, &network.moment2]);
    of_networks.chain([time_moments])
}

fn lists_mut(state: &mut TrainState) -> impl Iterator<Item = &mut Vec<f32>> {
    let TrainState { step: _, action, bend, growth, time_moments, loss_scale: _ } = state;
    let networks = [Some(action), bend.as_mut(), growth.as_mut()].into_iter().flatten();
    let of_networks = networks
        .flat_map(|network| [&mut network.parameters, &mut network.ema, &mut network.moment1, &mut network.moment2]);
    of_networks.chain([time_moments])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::density_path::TIME_KNOTS;
    use crate::training::NetworkState;

    /// What rank 0 passed, for a rank that comes later.
    struct Passed(std::sync::Mutex<Vec<Vec<u8>>>, bool);

    impl Exchange for Passed {
        fn place(&self) -> (usize, usize) {
            (usize::from(!self.1), 2)
        }

        fn share(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            let mut passed = self.0.lock().expect("unharmed");
            if self.1 {
                passed.push(own.to_vec());
                return Ok(vec![own.to_vec()]);
            }
            Ok(vec![passed.remove(0)])
        }
    }

    fn world(rank: usize) -> World {
        let launcher = crate::ranks::environment::Launcher::Torchrun;
        World { rank, size: 2, local_rank: rank, host: "127.0.0.1".into(), port: 1, launcher }
    }

    fn liveness() -> Arc<Liveness> {
        let alone = World { size: 1, rank: 0, ..world(0) };
        let patience = crate::ranks::rendezvous::Patience::default();
        Arc::new(crate::ranks::rendezvous::meet(&alone, &[], patience, &(), || Ok(Vec::new())).expect("alone").1)
    }

    /// Settings and state of rank 0 come to another rank as they are, and of a state of other
    /// shapes it is said that it does not fit.
    #[test]
    fn what_the_first_rank_has_comes_to_all() {
        let engine = crate::engine::cpu::CpuEngine::new(1);
        let mut config = Config::default();
        config.data.path = "here.csv".into();
        config.objective.path = crate::config::PathConfig::Spline { limit: 2.0, knots: Default::default() };
        let numbers = |n: usize, from: f32| (0..n).map(|i| from + i as f32).collect::<Vec<f32>>();
        let network = |n: usize| NetworkState {
            parameters: numbers(n, 0.5),
            ema: numbers(n, 10.5),
            moment1: numbers(n, 20.5),
            moment2: numbers(n, 30.5),
        };
        let state = TrainState {
            step: 77,
            action: network(5),
            bend: Some(network(3)),
            growth: None,
            time_moments: numbers(2 * TIME_KNOTS, 1.0),
            loss_scale: LossScale { scale: 512.0, good_steps: 9 },
        };
        let empty = TrainState {
            step: 0,
            action: NetworkState::initial(vec![0.0; 5]),
            bend: Some(NetworkState::initial(vec![0.0; 3])),
            growth: None,
            time_moments: vec![0.0; 2 * TIME_KNOTS],
            loss_scale: LossScale::default(),
        };
        let (first, other) = (world(0), world(1));
        let share = Passed(Default::default(), true);
        let ranks = Ranks { world: &first, engine: &engine, exchange: &share, liveness: liveness() };
        ranks.decided(&config).expect("passed");
        ranks.state(state.clone()).expect("passed");
        ranks.state(state.clone()).expect("passed");

        let share = Passed(share.0, false);
        let ranks = Ranks { world: &other, engine: &engine, exchange: &share, liveness: liveness() };
        let mut own = Config::default();
        own.data.path = "there.csv".into();
        let decided = ranks.decided(&own).expect("came");
        assert_eq!(decided.objective.path, config.objective.path);
        assert_eq!(decided.data.path, own.data.path);
        assert!(ranks.state(empty.clone()).expect("came") == state);
        let misfit = TrainState { bend: None, ..empty };
        let error = ranks.state(misfit).expect_err("is refused").to_string();
        assert!(error.contains("another network"), "{error}");
    }

    #[test]
    fn settings_are_named_one_by_one() {
        let named = settings(&Config::default()).expect("settings");
        assert!(named.contains(&("training.steps".into(), Config::default().training.steps.to_string())), "{named:?}");
        assert!(!named.iter().any(|(key, _)| key == "output.folder"), "{named:?}");
        let mut other = Config::default();
        other.training.seed += 1;
        let other = settings(&other).expect("settings");
        let differ: Vec<_> = named.iter().zip(&other).filter(|(a, b)| a != b).collect();
        assert_eq!(differ.len(), 1);
        assert_eq!(differ[0].0.0, "training.seed");
    }
}
