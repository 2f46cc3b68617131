//! `amatch query`: what a model says at points and times, in data units.

use std::fs;
use std::path::Path;

use action_matching::data::{DataSource, read_points};
use action_matching::engine::Differentiate;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::{Activation, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;

use crate::cli::{amatch, text};
use crate::common::{Numbers, assert_close, expanding, model};

const N: usize = 37;

/// A model with growth in coordinates far from those of the network.
fn growing() -> Model {
    let coordinates = Coordinates {
        mean: vec![3.0, -40.0],
        scale: vec![2.0, 0.5],
        time_range: [-1.0, 4.0],
        columns: Some(vec!["a".into(), "b".into()]),
        ..Coordinates::identity(2)
    };
    let objective = Objective { growth: 0.7, ..Objective::default() };
    let model = model(2, &[13, 7], Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
    Model { coordinates, ..model }
}

/// Points and times inside of the data of [`growing`].
fn points() -> (Vec<f64>, Vec<f64>) {
    let mut numbers = Numbers::new(5);
    let x = (0..N).flat_map(|_| [3.0 + 2.0 * numbers.next(), -40.0 + 0.5 * numbers.next()]).collect();
    (x, (0..N).map(|k| [-1.0, 0.5, 4.0][k % 3]).collect())
}

/// Column `name` of the result `file`.
fn column(file: &Path, name: &str) -> Vec<f64> {
    let source = DataSource { samples: name.into(), ..DataSource::new(file) };
    read_points(&source, &()).expect("reads").positions()
}

#[test]
fn the_slopes_of_a_potential_are_those_of_finite_differences() {
    let model = growing();
    let (x, t) = points();
    let local = model.local(&ReferenceEngine, &x, &t).expect("computed");
    let potential = |x: &[f64], t: &[f64]| model.local(&ReferenceEngine, x, t).expect("computed").potential;
    const STEP: f64 = 1e-4;
    let duration = 5.0;
    for i in 0..2 {
        let moved = |by: f64| {
            let mut x = x.clone();
            x.iter_mut().skip(i).step_by(2).for_each(|x| *x += by);
            potential(&x, &t)
        };
        let scale: f64 = model.coordinates.scale[i];
        let slopes = moved(STEP).iter().zip(moved(-STEP)).map(|(a, b)| (a - b) / (2.0 * STEP)).collect::<Vec<_>>();
        let wanted: Vec<f64> = slopes.iter().map(|slope| scale * scale / duration * slope).collect();
        let found: Vec<f64> = local.velocity.iter().skip(i).step_by(2).copied().collect();
        assert_close(&format!("velocity {i}"), &found, &wanted, 1e-6);
    }
    let at = |by: f64| potential(&x, &t.iter().map(|t| t + by).collect::<Vec<_>>());
    let slopes: Vec<f64> = at(STEP).iter().zip(at(-STEP)).map(|(a, b)| (a - b) / (2.0 * STEP)).collect();
    assert_close("time derivative", &local.time_derivative, &slopes, 1e-6);
    let rates: Vec<f64> = local.potential.iter().map(|s| 0.7 * s / duration).collect();
    assert_close("growth rate", &local.growth_rate, &rates, 1e-12);
    let moved = |i: usize, by: f64| {
        let mut x = x.clone();
        x.iter_mut().skip(i).step_by(2).for_each(|x| *x += by);
        potential(&x, &t)
    };
    const WIDE: f64 = 1e-3;
    let sides: Vec<Vec<f64>> = (0..2).flat_map(|i| [moved(i, WIDE), moved(i, -WIDE)]).collect();
    let here = potential(&x, &t);
    let bent =
        (0..N).map(|k| sides.iter().map(|side| side[k] - here[k]).sum::<f64>() / (WIDE * WIDE)).collect::<Vec<_>>();
    assert_close("laplacian", &model.laplacian(&ReferenceEngine, &x, &t).expect("computed"), &bent, 1e-5);
    // H = ½‖∇s‖² in network coordinates, where v = scale / T · ∇s.
    let kinetic = |v: &[f64]| -> f64 {
        v.iter().zip(&model.coordinates.scale).map(|(v, scale)| 0.5 * (duration * v / scale).powi(2)).sum()
    };
    let residuals: Vec<f64> = (0..N)
        .map(|k| {
            let growth = 0.5 * 0.7 * here[k] * here[k];
            local.time_derivative[k] + (kinetic(&local.velocity[2 * k..][..2]) + growth) / duration
        })
        .collect();
    assert_close("residual", &local.hjb_residual, &residuals, 1e-9);
    // One time at a time.
    let engine = CpuEngine::new(1);
    let velocity = model.velocity(&engine, &x[..2], t[0]).expect("computed");
    assert_close("velocity", &velocity, &local.velocity[..2], 1e-4);
}

/// What is known of [`expanding`] between data times 1 and 5, in two dimensions.
mod expanded {
    use super::*;

    pub const B: [f32; 2] = [0.5, -0.25];
    const MEAN: [f64; 2] = [3.0, -40.0];
    const SCALE: [f64; 2] = [2.0, 0.5];

    pub fn model_of(growth: f64) -> Model {
        let coordinates =
            Coordinates { mean: MEAN.into(), scale: SCALE.into(), time_range: [1.0, 5.0], ..Coordinates::identity(2) };
        Model { coordinates, ..expanding(&B, Objective { growth, ..Objective::default() }) }
    }

    /// Data rows of the first snapshot, and points and times to ask about, most before the last
    /// time.
    pub fn rows_and_points() -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let mut numbers = Numbers::new(6);
        let mut rows = |n: usize| (0..n).flat_map(|_| [0, 1].map(|i| MEAN[i] + SCALE[i] * numbers.next())).collect();
        let (first, points) = (rows(25), rows(N));
        (first, points, (0..N).map(|k| [1.0, 2.0, 3.5, 5.0][k % 4]).collect())
    }

    /// log of the density of mass, data units: of normal kernels at `centers`, network units, whose
    /// `widths` and distances from b the flow has stretched by eᵗ. Along the way of a particle
    /// s = ½‖y₀ − b‖² e²ᵗ, so that its mass has grown by exp(λ ∫ s dt) = exp(¼ λ ‖y − b‖² (1 −
    /// e⁻²ᵗ)).
    pub fn log_density(centers: &[[f64; 2]], widths: [f64; 2], growth: f64, (x, t): (&[f64], f64)) -> f64 {
        let tau = (t - 1.0) / 4.0;
        let b = B.map(f64::from);
        let y = [0, 1].map(|i| (x[i] - MEAN[i]) / SCALE[i]);
        let of_kernel = |center: &[f64; 2]| -> f64 {
            let along = |i: usize| {
                let width = widths[i] * tau.exp();
                let z = (y[i] - b[i] - (center[i] - b[i]) * tau.exp()) / width;
                (-0.5 * z * z).exp() / (width * std::f64::consts::TAU.sqrt() * SCALE[i])
            };
            along(0) * along(1)
        };
        let density = centers.iter().map(of_kernel).sum::<f64>() / centers.len() as f64;
        let squares = (y[0] - b[0]).powi(2) + (y[1] - b[1]).powi(2);
        density.ln() + 0.25 * growth * squares * (1.0 - (-2.0 * tau).exp())
    }

    /// [`log_density`] from kernels at the rows of the first snapshot, whose widths follow Scott's
    /// rule.
    pub fn from_rows(rows: &[f64], growth: f64, x: &[f64], t: &[f64]) -> Vec<f64> {
        let centers: Vec<[f64; 2]> = rows.chunks(2).map(|row| [0, 1].map(|i| (row[i] - MEAN[i]) / SCALE[i])).collect();
        let n = centers.len() as f64;
        let widths = [0, 1].map(|i| {
            let mean = centers.iter().map(|center| center[i]).sum::<f64>() / n;
            (centers.iter().map(|center| (center[i] - mean).powi(2)).sum::<f64>() / n).sqrt() * n.powf(-1.0 / 6.0)
        });
        x.chunks(2).zip(t).map(|(x, &t)| log_density(&centers, widths, growth, (x, t))).collect()
    }

    /// [`log_density`] from the standard normal one.
    pub fn from_noise(x: &[f64], t: &[f64]) -> Vec<f64> {
        x.chunks(2).zip(t).map(|(x, &t)| log_density(&[[0.0; 2]], [1.0; 2], 0.0, (x, t))).collect()
    }
}

/// A normal population that a linear flow stretches and moves, and normal kernels that it does,
/// with growth too: at every time what the closed form says.
#[test]
fn log_densities_are_those_of_a_known_flow() {
    let (rows, x, t) = expanded::rows_and_points();
    for growth in [0.0, 0.7] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        expanded::model_of(growth).save(&path("model.safetensors")).expect("saved");
        let table = |rows: &[f64], times: &[f64]| {
            let line = |(x, t): (&[f64], &f64)| format!("{t},{},{}\n", x[0], x[1]);
            String::from("times,x,y\n") + &rows.chunks(2).zip(times).map(line).collect::<String>()
        };
        let times: Vec<f64> = [vec![1.0; 25], vec![5.0; N]].concat();
        fs::write(path("data.csv"), table(&[&rows[..], &x].concat(), &times)).expect("written");
        fs::write(path("points.csv"), table(&x, &t)).expect("written");
        let mut cases = vec![("linear", expanded::from_rows(&rows, growth, &x, &t))];
        if growth == 0.0 {
            cases.push(("generative-linear", expanded::from_noise(&x, &t)));
        }
        for (kind, wanted) in cases {
            let config = format!("[data]\npath = {:?}\n[objective]\npath = \"{kind}\"\n", path("data.csv"));
            fs::write(path("config.toml"), config).expect("written");
            let run =
                ["query", ".", "--at", "points.csv", "--log-density", "--out", "q.csv", "--force", "--threads", "1"];
            let output = amatch(folder.path(), &run);
            assert!(output.status.success(), "{}", text(&output.stderr));
            let found = column(&path("q.csv"), "log_density");
            assert_close(&format!("log q, {kind}, growth {growth}"), &found, &wanted, 1e-4);
        }
    }
}

/// The CPU engine takes directions sixteen at a time.
#[test]
fn engines_agree_on_second_derivatives() {
    for n_directions in [1, 16, 19, 32] {
        let dim = 5;
        let model = model(dim, &[13, 7], Activation::Silu, Head::Dot, TimeEmbedding::Raw, Objective::default());
        let mut numbers = Numbers::new(3);
        let (x, t) = (numbers.take(N * dim), vec![0.4; N]);
        let directions = numbers.take(n_directions * dim);
        let wanted = ReferenceEngine.second_derivatives(&model, &x, &t, &directions).expect("computed");
        let found = CpuEngine::new(2).second_derivatives(&model, &x, &t, &directions).expect("computed");
        assert_close("second derivatives", &found, &wanted, 1e-4);
    }
    let model = growing();
    let error = CpuEngine::new(1).second_derivatives(&model, &[0.0; 4], &[0.5; 2], &[1.0; 3]);
    assert!(error.expect_err("an incomplete direction").to_string().contains("directions"));
}

#[test]
fn points_of_a_file_are_asked_at_their_times_or_at_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = growing();
    model.save(&folder.path().join("m.safetensors")).expect("saved");
    let (x, t) = points();
    let mut csv = String::from("times,a,b\n");
    x.chunks(2).zip(&t).for_each(|(x, t)| csv += &format!("{t},{},{}\n", x[0], x[1]));
    fs::write(folder.path().join("points.csv"), csv).expect("written");
    let run = |more: &[&str]| {
        let output = amatch(folder.path(), &[&["query", "m.safetensors", "--threads", "1"], more].concat());
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = run(&["--at", "points.csv", "--out", "own.csv"]);
    assert!(code == Some(0) && said.contains("37 points and times"), "{said}");
    let local = model.local(&ReferenceEngine, &x, &t).expect("computed");
    let own = folder.path().join("own.csv");
    assert_close("action", &column(&own, "action"), &local.potential, 1e-4);
    let velocity = column(&own, "velocity_a,velocity_b");
    assert_close("velocity", &velocity, &local.velocity, 1e-4);
    let speeds: Vec<f64> = velocity.chunks(2).map(|v| v[0].hypot(v[1])).collect();
    assert_close("speed", &column(&own, "speed"), &speeds, 1e-6);
    assert_close("slope", &column(&own, "time_derivative"), &local.time_derivative, 1e-4);
    assert_close("rate", &column(&own, "growth_rate"), &local.growth_rate, 1e-4);
    assert_close("residual", &column(&own, "hjb_residual"), &local.hjb_residual, 1e-3);
    let laplacian = model.laplacian(&ReferenceEngine, &x, &t).expect("computed");
    assert_close("laplacian", &column(&own, "laplacian"), &laplacian, 1e-3);
    assert_close("times", &column(&own, "times"), &t, 1e-12);

    let (code, said) = run(&["--at", "points.csv", "--time", "0", "5", "--out", "others.npz"]);
    assert!(code == Some(0) && said.contains("37 of 74 times lie outside -1 to 4"), "{said}");
    let others = folder.path().join("others.npz");
    let all = model.local(&ReferenceEngine, &x.repeat(2), &[vec![0.0; N], vec![5.0; N]].concat()).expect("computed");
    assert_close("action", &column(&others, "action"), &all.potential, 1e-4);

    assert_eq!(run(&["--grid", "3x2", "--time", "0", "--out", "grid.npz"]).0, Some(0));
    let grid = folder.path().join("grid.npz");
    let corners = column(&grid, "samples");
    assert_close("corners", &corners[..4], &[-3.0, -41.5, -3.0, -38.5], 1e-9);
    assert_close("corners", &corners[8..], &[9.0, -41.5, 9.0, -38.5], 1e-9);

    for (arguments, said) in [
        (&["--out", "a.npz"][..], "--at"),
        (&["--grid", "3", "--time", "0", "--out", "a.npz"], "as in 64x64"),
        (&["--grid", "3x3", "--out", "a.npz"], "--time"),
        (&["--at", "points.csv", "--out", "points.csv", "--force"], "points.csv"),
        (&["--at", "points.csv", "--out", "own.csv"], "own.csv"),
    ] {
        let (code, error) = run(arguments);
        assert!(code != Some(0) && error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn members_of_an_ensemble_give_mean_and_spread() {
    let (x, t) = points();
    let first = growing();
    let mut second = first.clone();
    second.parameters.iter_mut().enumerate().for_each(|(k, p)| *p += 0.01 * (k % 7) as f32);
    let engine = ReferenceEngine;
    let ensemble = action_matching::Ensemble::new(vec![first.clone(), second.clone()]).expect("an ensemble");
    let [mean, spread] = ensemble.local(&engine, &x, &t).expect("computed");
    let [a, b] = [&first, &second].map(|model| model.local(&engine, &x, &t).expect("computed"));
    let means = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect::<Vec<_>>();
    let spreads = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs() / 2f64.sqrt()).collect::<Vec<_>>();
    assert_close("velocity", &mean.velocity, &means(&a.velocity, &b.velocity), 1e-12);
    assert_close("velocity spread", &spread.velocity, &spreads(&a.velocity, &b.velocity), 1e-9);
    assert_close("action", &mean.potential, &means(&a.potential, &b.potential), 1e-12);
    // A potential that differs by a function of time alone is the same without growth.
    let free = |model: &Model| Model { objective: Objective::default(), ..model.clone() };
    let shifted = {
        let mut model = free(&first);
        // The last parameter is the bias of the potential.
        *model.parameters.last_mut().expect("parameters") += 3.0;
        model
    };
    let ensemble = action_matching::Ensemble::new(vec![free(&first), shifted]).expect("an ensemble");
    let [_, spread] = ensemble.local(&engine, &x, &t).expect("computed");
    assert!(spread.potential.iter().all(|spread| *spread < 1e-6), "{:?}", spread.potential);
}
