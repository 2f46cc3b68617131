//! Populations that grow, of which the growth is known: pairs of Wasserstein–Fisher–Rao find where
//! mass is gained, and find none where there is none.

use std::sync::Arc;

use action_matching::data::{Snapshots, Standardization, draw_gaussian};
use action_matching::density_path::{Coupling, optimal_couplings, wfr_couplings};
use action_matching::engine::TrainState;
use action_matching::model::Coordinates;
use action_matching::prelude::*;
use action_matching::rng::Stream;

/// Points on two branches, which leave x = 0 for (2t, ±(0.5 + t)).
fn branches(times: &[f64], on_branch: impl Fn(f64) -> [usize; 2]) -> Snapshots {
    let snapshot = |(k, &t): (usize, &f64)| {
        let [up, down] = on_branch(t);
        let mut rows = draw_gaussian(up + down, 2, &mut Stream::of_normals(30 + k as u64, 2));
        for (i, row) in rows.chunks_exact_mut(2).enumerate() {
            let side = if i < up { 1.0 } else { -1.0 };
            row[0] = 0.15 * row[0] + 2.0 * t as f32;
            row[1] = 0.15 * row[1] + side * (0.5 + t as f32);
        }
        (t, rows)
    };
    Snapshots::from_rows(2, times.iter().enumerate().map(snapshot)).expect("snapshots")
}

/// `snapshots` with known rates of the rows on the two branches.
fn with_rates(snapshots: Snapshots, [up, down]: [f64; 2]) -> Snapshots {
    let rates = snapshots.samples.chunks_exact(2).map(|row| if row[1] > 0.0 { up } else { down }).collect();
    snapshots.growing(rates).expect("rates")
}

/// A model of `snapshots` with the mass of their counts and growth λ.
fn trained(snapshots: Snapshots, growth: f64) -> Model {
    let (snapshots, coordinates) = snapshots.standardize(Standardization::Isotropic).expect("standardizes");
    let masses: Vec<f64> =
        (0..snapshots.times.len()).map(|k| snapshots.n_rows(k) as f64 / snapshots.n_rows(0) as f64).collect();
    let couplings = wfr_couplings(&snapshots, &masses, growth, 2048, 0, &Stage::default()).expect("couplings");
    trained_on(snapshots, coordinates, (couplings, masses), growth)
}

fn trained_on(
    snapshots: Snapshots,
    coordinates: Coordinates,
    (couplings, masses): (Vec<Coupling>, Vec<f64>),
    growth: f64,
) -> Model {
    let path =
        DensityPath { couplings: Some(Arc::new(couplings)), masses: Some(masses), ..DensityPath::linear(snapshots) };
    let architecture = Architecture::new(2, [48, 48]);
    let optimizer = Optimizer {
        learning_rate: LearningRate {
            peak: 2e-3,
            warmup_steps: 50,
            cosine: Some(action_matching::engine::Cosine { end: 2000, floor: 0.01 }),
        },
        clip_norm: Some(1.0),
        ema_decay: 0.99,
        ..Optimizer::default()
    };
    let training = Training {
        objective: Objective { growth, ..Objective::default() },
        estimator: Estimator::Regression,
        n_interior: 512,
        optimizer,
        ..Training::new(architecture.clone(), path)
    };
    let objective = training.objective.clone();
    let start = TrainState::initial(action_matching::model::initial_parameters(&architecture, 3));
    let mut trainer = CpuEngine::new(2).trainer(training, start).expect("a trainer");
    trainer.steps(2000, &mut Vec::new()).expect("steps");
    let parameters = trainer.state().expect("a state").action.ema;
    Model { architecture, coordinates, objective, parameters, growth_head: None }
}

/// Particles of the first snapshot at time 1: the mass on either branch relative to its start.
fn gained(model: &Model, snapshots: &Snapshots) -> [f64; 2] {
    let x = snapshots.rows(0);
    let (moved, weights) = model.weighted_flow(&CpuEngine::new(2), x, [0.0, 1.0], Solver::rk4(20)).expect("moves");
    let (mut mass, mut before) = ([0.0; 2], [0.0; 2]);
    for (row, weight) in weights.iter().enumerate() {
        mass[usize::from(moved[2 * row + 1] < 0.0)] += weight;
        before[usize::from(x[2 * row + 1] < 0.0)] += 1.0;
    }
    [mass[0] / before[0], mass[1] / before[1]]
}

/// The upper branch grows at the rate 1 per unit of time, the lower one does not.
#[test]
fn growth_is_found_on_the_branch_that_grows() {
    let snapshots = branches(&[0.0, 0.5, 1.0], |t| [(300.0 * t.exp()).round() as usize, 300]);
    let model = trained(snapshots.clone(), 1.0);
    let [up, down] = gained(&model, &snapshots);
    println!("mass gained: {up:.4} of {:.4}, {down:.4} of 1", 1f64.exp());
    assert!((up / 1f64.exp() - 1.0).abs() < 0.05, "{up}");
    assert!((down - 1.0).abs() < 0.05, "{down}");
    // Likewise the rates along the middle of the branches, per unit of time.
    let mut means = [0.0; 2];
    for t in (0..20).map(|i| (f64::from(i) + 0.5) / 20.0) {
        let rates =
            model.growth_rate(&CpuEngine::new(1), &[2.0 * t, 0.5 + t, 2.0 * t, -0.5 - t], t).expect("evaluates");
        (means[0], means[1]) = (means[0] + rates[0] / 20.0, means[1] + rates[1] / 20.0);
    }
    println!("mean rates {means:.4?}");
    // One potential gives the velocity too, so the rate is not the same all over a branch.
    assert!((means[0] - 1.0).abs() < 0.2 && means[1].abs() < 0.1, "{means:?}");
}

/// Two branches that part while their mass is constant: nothing grows.
#[test]
fn a_bifurcation_of_constant_mass_does_not_grow() {
    let snapshots = branches(&[0.0, 0.5, 1.0], |_| [300, 300]);
    let model = trained(snapshots.clone(), 0.3);
    let gained = gained(&model, &snapshots);
    println!("mass gained: {gained:.4?} of 1");
    assert!(gained.iter().all(|gained| (gained - 1.0).abs() < 0.03), "{gained:?}");
    for t in [0.1, 0.5, 0.9] {
        let places = [2.0 * t as f32, 0.5 + t as f32, 2.0 * t as f32, -0.5 - t as f32];
        let rates = model.growth_rate(&CpuEngine::new(1), &places, t).expect("evaluates");
        println!("rates at {t}: {rates:?}");
        assert!(rates.iter().all(|rate| rate.abs() < 0.15), "{rates:?} at {t}");
    }
}

/// The share of the mass of pairs, as it arrives, that changes from one branch to the other.
fn crossing(coupling: &Coupling, snapshots: &Snapshots) -> f64 {
    const WORDS: u32 = 1 << 14;
    let is_up = |k: usize, i: usize| snapshots.rows(k)[2 * i + 1] > 0.0;
    let crosses = |word: u32| {
        let (i, j, mass) = coupling.pair(word);
        if is_up(0, i) == is_up(1, j) { 0.0 } else { mass[1] }
    };
    (0..WORDS).map(|i| crosses(i << 18 | 1 << 17)).sum::<f64>() / f64::from(WORDS)
}

/// Equal numbers of rows are seen at every time, of which those on the upper branch are as many as
/// its growth makes of the population: balanced pairs carry mass from branch to branch, and with
/// the rates that are known they do not, and their growth is right.
#[test]
fn known_rates_keep_pairs_on_their_branch() {
    let seen = |t: f64| (600.0 * t.exp() / (1.0 + t.exp())).round() as usize;
    let snapshots = branches(&[0.0, 0.5, 1.0], |t| [seen(t), 600 - seen(t)]);
    let balanced = &optimal_couplings(&snapshots, 2048, 0, &Stage::default()).expect("couplings")[0];
    let plain = crossing(balanced, &snapshots);
    assert!(plain > 0.1, "{plain}");
    let known = with_rates(snapshots.clone(), [1.0, 0.0]);
    let (standardized, coordinates) = known.clone().standardize(Standardization::Isotropic).expect("standardizes");
    let couplings = optimal_couplings(&standardized, 2048, 0, &Stage::default()).expect("couplings");
    let right = crossing(&couplings[0], &snapshots);
    assert!(right < 0.02, "{right}");
    let masses: Vec<f64> = vec![1.0, known.grown(0), known.grown(0) * known.grown(1)];
    let model = trained_on(standardized, coordinates, (couplings, masses), 1.0);
    let [up, down] = gained(&model, &snapshots);
    println!(
        "crossing {plain:.3} without rates, {right:.3} with them; mass gained: {up:.4} of {:.4}, {down:.4} of 1",
        1f64.exp()
    );
    assert!((up / 1f64.exp() - 1.0).abs() < 0.05 && (down - 1.0).abs() < 0.05, "{up}, {down}");
}

/// Rates that are wrong change which rows are paired, and neither the snapshots at the ends of the
/// pairs nor the total mass; pairs of Wasserstein-Fisher-Rao follow them less far.
#[test]
fn wrong_rates_do_not_change_the_totals() {
    let snapshots = branches(&[0.0, 1.0], |t| [(300.0 * t.exp()).round() as usize, 300]);
    let wrong = with_rates(snapshots.clone(), [0.0, 1.0]);
    let masses = [1.0, snapshots.total(1) / snapshots.total(0)];
    let stage = Stage::default();
    let balanced = &optimal_couplings(&wrong, 2048, 0, &stage).expect("couplings")[0];
    let growing = &wfr_couplings(&wrong, &masses, 1.0, 2048, 0, &stage).expect("couplings")[0];
    let [lost, kept] = [balanced, growing].map(|coupling| crossing(coupling, &snapshots));
    println!("crossing {lost:.3} in balanced pairs, {kept:.3} in growing ones");
    assert!(lost > 0.3 && kept < 0.1, "{lost}, {kept}");
    for coupling in [balanced, growing] {
        let mut totals = [0.0; 2];
        for word in (0..1u32 << 14).map(|i| i << 18 | 1 << 17) {
            let mass = coupling.pair(word).2;
            totals = [0, 1].map(|end| totals[end] + mass[end] / 16384.0);
        }
        assert!(totals.iter().all(|total| (total - 1.0).abs() < 0.01), "{totals:?}");
    }
}
