//! A reader of the model file that shares nothing with this program finds the same potential: `interop/potential.py`,
//! numpy and safetensors only. `AMATCH_PYTHON` names the interpreter (default `python3`).

use std::path::Path;
use std::process::Command;

use crate::common::files::{self, Stored};
use crate::common::{Numbers, assert_close, model};
use action_matching::engine::Differentiate;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::{Activation, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;

const DIM: usize = 5;
const N: usize = 97;

/// Every head, activation and embedding, in data units far from network coordinates.
fn models() -> Vec<(String, Model)> {
    let coordinates = Coordinates {
        mean: vec![3.0, -40.25, 0.5, 1000.0, 0.0],
        scale: vec![2.0, 0.125, 7.5, 30.0, 1.5],
        time_range: [-2.0, 9.5],
        columns: None,
    };
    let mut models = Vec::new();
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in [TimeEmbedding::Raw, TimeEmbedding::Fourier { frequencies: vec![0.25, 1.75, 0.6] }] {
                let name = format!("{head:?}-{activation:?}-{}", embedding.width());
                let model = model(DIM, &[37, 53, 29], activation, head, embedding, Objective::default());
                models.push((name, Model { coordinates: coordinates.clone(), ..model }));
            }
        }
    }
    models
}

fn run_python(folder: &Path, names: impl Iterator<Item = String>) {
    let python = std::env::var_os("AMATCH_PYTHON").unwrap_or_else(|| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/potential.py");
    let output = Command::new(&python).arg(script).args(names).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {python:?}: {error}; install Python 3, or name an interpreter in AMATCH_PYTHON")
    });
    assert!(
        output.status.success(),
        "{python:?} failed; it needs numpy and safetensors, or name another interpreter in AMATCH_PYTHON\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn numpy_finds_the_same_potential() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = models();
    let mut numbers = Numbers::new(31);
    let x_network = numbers.take(N * DIM);
    let t_network: Vec<f64> = numbers.take(N).iter().map(|t| 0.5 * (t + 1.0)).collect();
    for (name, model) in &models {
        let case = folder.path().join(name);
        std::fs::create_dir(&case).expect("a folder");
        model.save(&case.join("model.safetensors")).expect("saves");
        let Coordinates { mean, scale, time_range: [start, end], .. } = &model.coordinates;
        let in_data = |(i, x): (usize, &f64)| mean[i % DIM] + scale[i % DIM] * x;
        let x: Vec<f64> = x_network.iter().enumerate().map(in_data).collect();
        let t: Vec<f64> = t_network.iter().map(|t| start + (end - start) * t).collect();
        let points = [Stored::f64("x", &[N, DIM], &x), Stored::f64("t", &[N], &t)];
        files::write(&case.join("points.safetensors"), &points, Default::default());
    }
    run_python(folder.path(), models.iter().map(|(name, _)| name.clone()));

    let cpu = CpuEngine::new(2);
    let engines: [(&str, &dyn Differentiate, f64); 2] = [("reference", &ReferenceEngine, 1e-11), ("cpu", &cpu, 1e-5)];
    for (name, _) in &models {
        let case = folder.path().join(name);
        let (answer, _) = files::read(&case.join("potential.safetensors"));
        let model = Model::load(&case.join("model.safetensors")).expect("loads");
        for (engine_name, engine, tolerance) in engines {
            let got = engine.derivatives(&model, &x_network, &t_network).expect("evaluates");
            for (tensor, got) in [("s", got.s), ("ds_dx", got.grad_s), ("ds_dt", got.ds_dt)] {
                let want = files::find(&answer, tensor).values();
                assert_close(&format!("{tensor}, {name}, {engine_name}"), &got, &want, tolerance);
            }
        }
    }
}
