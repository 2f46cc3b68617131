//! Particles divided among engines: the bits of one engine, progress of the whole, and failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::common::{Counted, Numbers, Patience, model};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::divided::Divided;
use action_matching::engine::{
    Batch, Derivatives, Differentiate, Engine, IntegrationReport, LossGradient, TrainState, Trainer, Training,
};
use action_matching::integrate::{Method, Noise, Plan, Share, StepControl, Trajectories};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::stage::Watch;
use action_matching::{DeviceKind, Error, Result};

const DIM: usize = 2;

fn field(objective: Objective) -> Model {
    model(DIM, &[9, 12], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective)
}

fn cpus(n: usize) -> Divided<CpuEngine> {
    Divided::new(vec![CpuEngine::new(1); n]).expect("engines of one kind")
}

/// Positions, log w and log q of `n` particles at all saved times.
fn moved(
    engine: &dyn Engine,
    model: &Model,
    plan: &Plan,
    n: usize,
    has_density: bool,
) -> ([Vec<f32>; 3], IntegrationReport) {
    let start = |columns: usize, seed| {
        let mut values = vec![f32::NAN; plan.save_at.len() * n * columns];
        let numbers = Numbers::new(seed).take(n * columns);
        values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number as f32);
        values
    };
    let [mut positions, mut weights, mut density] = [start(DIM, 1), start(1, 2), start(usize::from(has_density), 3)];
    let out = Trajectories {
        positions: &mut positions,
        log_weights: Some(&mut weights),
        log_density: has_density.then_some(&mut density),
    };
    let counted = Counted::default();
    let report = engine.integrate(model, plan, out, &counted).expect("integrates");
    counted.assert_whole(n);
    ([positions, weights, density], report)
}

/// Noise, probes and adaptive steps: everything that depends on the number of a particle, or on
/// its tile.
#[test]
fn any_number_of_engines_gives_the_same_particles() {
    let growing = Objective { growth: 0.3, ..Objective::default() };
    let noisy = Objective { sigma: 0.4, ..growing.clone() };
    let divergence = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 };
    let adaptive = StepControl::Adaptive { rtol: 1e-3, atol: 1e-3 };
    let save_at = vec![0.0, 0.4, 1.0];
    let flow = Plan { divergence, ..Plan::new(Method::Dopri5, adaptive, 0.0, save_at.clone()) };
    let diffusion = Plan {
        noise: Noise::new(7),
        ..Plan::new(Method::StochasticHeun, StepControl::Fixed { steps: 4 }, 0.0, save_at)
    };
    for (objective, plan, has_density) in [(growing, flow, true), (noisy, diffusion, false)] {
        let model = field(objective);
        for n in [0, 1, 95, 97, 400, 1009] {
            let whole = moved(&CpuEngine::new(2), &model, &plan, n, has_density);
            for engines in [1, 2, 3, 8] {
                assert_eq!(moved(&cpus(engines), &model, &plan, n, has_density), whole, "{n} on {engines}");
            }
        }
    }
}

/// The same as the test above would pass if one engine did everything.
#[test]
fn each_engine_has_its_part() {
    let told: Vec<Told> = (0..4).map(|_| Told::default()).collect();
    let divided = Divided::new(told.clone()).expect("engines of one kind");
    let plan = Plan::new(Method::Euler, StepControl::Fixed { steps: 1 }, 0.0, vec![1.0]);
    let mut positions = vec![0.5; 1000 * DIM];
    let model = field(Objective::default());
    divided.integrate(&model, &plan, Trajectories::of(&mut positions), &()).expect("integrates");
    let share = Trajectories::of(&mut positions).whole(&model, &plan).expect("fits");
    // Eleven tiles of 96: two for the first, three for each of the others; the last lacks rows.
    assert_eq!(divided.integration_memory(&model, &plan, share).expect("fits"), Some(1000));
    let moved: Vec<usize> = told.iter().map(|engine| engine.moved.load(Relaxed)).collect();
    assert_eq!(moved, [192, 288, 288, 232]);
}

#[test]
fn the_failure_of_one_engine_ends_all_and_is_told() {
    let engines = vec![Told { fails_from: Some(500), ..Told::default() }; 4];
    let divided = Divided::new(engines).expect("engines of one kind");
    // Hours, unless the others are ended.
    let plan = Plan::new(Method::Euler, StepControl::Fixed { steps: 1 << 40 }, 0.0, vec![1.0]);
    let mut positions = vec![0.5; 1000 * DIM];
    let outcome = divided.integrate(&field(Objective::default()), &plan, Trajectories::of(&mut positions), &());
    let message = outcome.expect_err("fails").to_string();
    assert!(message.contains("device number 768: has fallen off the bus"), "{message}");
}

#[test]
fn a_watch_ends_all_engines() {
    let plan = Plan::new(Method::Euler, StepControl::Fixed { steps: 1 << 40 }, 0.0, vec![1.0]);
    let mut positions = vec![0.5; 1000 * DIM];
    let (model, watch) = (field(Objective::default()), Patience::new(50));
    let outcome = cpus(3).integrate(&model, &plan, Trajectories::of(&mut positions), &watch);
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
}

#[test]
fn buffers_that_do_not_fit_are_refused() {
    let plan = Plan::new(Method::Euler, StepControl::Fixed { steps: 1 }, 0.0, vec![0.5, 1.0]);
    let model = field(Objective::default());
    let mut positions = vec![0.5; 7];
    let outcome = cpus(2).integrate(&model, &plan, Trajectories::of(&mut positions), &());
    assert!(matches!(outcome, Err(Error::Shape { buffer: "positions", .. })), "{outcome:?}");
    let [mut a, mut b, mut c] = [[0.5; 4], [0.5; 4], [0.5; 4]];
    for positions in [vec![&mut a[..]], vec![&mut b[..2], &mut c[..]]] {
        let share = Share { n_all: 2, positions, ..Share::default() };
        let outcome = CpuEngine::new(1).integrate_share(&model, &plan, share, &());
        assert!(matches!(outcome, Err(Error::Shape { .. })), "{outcome:?}");
    }
}

#[test]
fn engines_of_several_kinds_and_none_are_refused() {
    let none = Divided::<CpuEngine>::new(Vec::new()).err().expect("refused").to_string();
    assert!(none.contains("no devices"), "{none}");
    let kinds = ["", ", of another make"].map(|make| Told { make, ..Told::default() });
    let message = Divided::new(kinds.into()).err().expect("refused").to_string();
    assert!(message.contains("device told, of another make: computes otherwise than told,"), "{message}");
}

/// A CPU engine that notes how many particles it moves, takes a byte for each, and fails at those
/// from one on.
#[derive(Clone, Default)]
struct Told {
    moved: Arc<AtomicUsize>,
    fails_from: Option<usize>,
    make: &'static str,
}

impl Differentiate for Told {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        CpuEngine::new(1).derivatives(model, x, t)
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        CpuEngine::new(1).loss_gradient(model, batch)
    }
}

impl Engine for Told {
    fn describe(&self) -> String {
        format!("told{}", self.make)
    }

    fn arithmetic(&self) -> String {
        CpuEngine::new(1).arithmetic() + self.make
    }

    fn integration_memory(&self, _model: &Model, _plan: &Plan, share: Share<'_>) -> Result<Option<usize>> {
        Ok(Some(share.positions[0].len() / DIM))
    }

    fn tile_of_particles(&self, n_all: usize) -> usize {
        CpuEngine::new(1).tile_of_particles(n_all)
    }

    fn integrate_share(
        &self,
        model: &Model,
        plan: &Plan,
        share: Share<'_>,
        watch: &dyn Watch,
    ) -> Result<IntegrationReport> {
        self.moved.fetch_add(share.positions[0].len() / DIM, Relaxed);
        match self.fails_from {
            Some(first) if share.first >= first => Err(Error::Device {
                kind: DeviceKind::Failed,
                device: format!("number {}", share.first),
                problem: "has fallen off the bus".into(),
                fix: "restart the machine".into(),
            }),
            _ => CpuEngine::new(1).integrate_share(model, plan, share, watch),
        }
    }

    fn trainer(&self, training: Training, state: TrainState) -> Result<Box<dyn Trainer>> {
        CpuEngine::new(1).trainer(training, state)
    }
}
