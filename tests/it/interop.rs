//! Agreement with other programs: a reader of the model file that shares nothing with this program
//! computes the same potential (`interop/potential.py`, numpy and safetensors only), and SciPy the
//! same distances (`interop/assignment.py`). `AMATCH_PYTHON` names the interpreter (default
//! `python3`).

use std::path::Path;
use std::process::Command;

use crate::common::files::{self, Stored};
use crate::common::{Numbers, assert_close, model};
use action_matching::engine::Differentiate;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::evaluate::sliced_wasserstein2;
use action_matching::model::{Activation, Coordinates, Head, Model, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::stage::Stage;
use action_matching::transport::{wasserstein1, wasserstein2};

const DIM: usize = 5;
const N: usize = 97;

/// Every head, activation and embedding, in data units far from network coordinates.
pub fn models_of_every_kind() -> Vec<(String, Model)> {
    let coordinates = Coordinates {
        mean: vec![3.0, -40.25, 0.5, 1000.0, 0.0],
        scale: vec![2.0, 0.125, 7.5, 30.0, 1.5],
        time_range: [-2.0, 9.5],
        columns: None,
        conditions: Vec::new(),
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

pub fn run_python(script: &str, folder: &Path, names: impl Iterator<Item = String>) {
    let python = std::env::var_os("AMATCH_PYTHON").unwrap_or_else(|| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let output = Command::new(&python).arg(script).args(names).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {python:?}: {error}; install Python 3, or name an interpreter in AMATCH_PYTHON")
    });
    assert!(
        output.status.success(),
        "{python:?} failed; it needs numpy, safetensors, scipy, anndata, h5py, onnx and onnxruntime, or name another interpreter in AMATCH_PYTHON\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn numpy_finds_the_same_potential() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = models_of_every_kind();
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
    run_python("potential.py", folder.path(), models.iter().map(|(name, _)| name.clone()));

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

/// Two point sets. The last `n_far` rows, shared by both, are far from the others.
struct Sets {
    name: String,
    dim: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    n_far: usize,
}

impl Sets {
    /// `n` and `m` points in `dim` dimensions times `scale`, and `n_far` shared rows at `far`.
    fn new(name: String, [n, m, dim]: [usize; 3], scale: f32, (n_far, far): (usize, f32)) -> Self {
        let mut numbers = Numbers::new(41);
        let mut points = |n: usize| -> Vec<f32> { numbers.take(n * dim).iter().map(|&x| scale * x as f32).collect() };
        let (mut x, mut y) = (points(n), points(m));
        let shared: Vec<f32> = (0..n_far * dim).map(|i| far * (1.0 + (i / dim) as f32)).collect();
        x.extend(&shared);
        y.extend(&shared);
        Sets { name, dim, x, y, n_far }
    }
}

/// SciPy gets only the near rows, so its own rounding of far ones plays no part: far rows move
/// nowhere, at no cost.
#[test]
fn scipy_finds_the_same_distances() {
    let mut all = Vec::new();
    for exponent in (-12..=12).step_by(2) {
        let scale = 10.0_f32.powi(exponent);
        all.push(Sets::new(format!("60-by-60-at-1e{exponent}"), [60, 60, 4], scale, (0, 0.0)));
        all.push(Sets::new(format!("48-by-72-at-1e{exponent}"), [48, 72, 3], scale, (0, 0.0)));
    }
    for (n_far, far) in [(1, 1e6), (1, 1e7), (1, 1e12), (7, 1e6)] {
        all.push(Sets::new(format!("80-by-80-and-{n_far}-at-{far:e}"), [80, 80, 2], 1.0, (n_far, far)));
    }
    all.push(Sets::new("2000-by-2000-at-1e-6".into(), [2000, 2000, 5], 1e-6, (0, 0.0)));
    all.push(Sets::new("300-by-300-and-1-at-1e7".into(), [300, 300, 2], 1e-3, (1, 1e7)));

    let folder = tempfile::tempdir().expect("a folder");
    for Sets { name, dim, x, y, n_far } in &all {
        let case = folder.path().join(name);
        std::fs::create_dir(&case).expect("a folder");
        let near = |name: &str, points: &[f32]| {
            let n = points.len() / dim - n_far;
            Stored::f32(name, &[n, *dim], &points[..n * dim])
        };
        files::write(&case.join("points.safetensors"), &[near("x", x), near("y", y)], Default::default());
    }
    run_python("assignment.py", folder.path(), all.iter().map(|sets| sets.name.clone()));

    for Sets { name, dim, x, y, n_far } in &all {
        let (answer, _) = files::read(&folder.path().join(name).join("distances.safetensors"));
        let n = x.len() / dim;
        // With far rows, both sides have equally many rows, each of weight 1/n.
        let near_share = (n - n_far) as f64 / n as f64;
        let got =
            [wasserstein1(*dim, x, y, &()), wasserstein2(*dim, x, y, &())].map(|distance| distance.expect("solves"));
        let near = ["w1", "w2"].map(|distance| files::find(&answer, distance).values()[0]);
        let want = [near[0] * near_share, near[1] * near_share.sqrt()];
        for (got, want) in got.into_iter().zip(want) {
            assert!(want > 0.0 && (got / want - 1.0).abs() < 1e-9, "{name}: {got}, not {want}");
        }
    }
}

/// NumPy computes W2 along lines from its own quantile functions, and takes the mean over
/// directions of its own: on a line the same number, elsewhere one within the noise of the
/// directions, whose squares have a deviation of the square itself.
#[test]
fn numpy_finds_the_same_sliced_distances() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [("line", 1, 1e-12), ("plane", 2, 0.03), ("space", 7, 0.03)];
    let mut wanted = Vec::new();
    for (name, dim, tolerance) in cases {
        let case = folder.path().join(name);
        std::fs::create_dir(&case).expect("a folder");
        let mut numbers = Numbers::new(17);
        let (x, y) = (numbers.take(211 * dim), numbers.take(130 * dim));
        let y: Vec<f64> = y.iter().enumerate().map(|(i, y)| y * y * y + (i % dim) as f64).collect();
        let weights: Vec<f64> = numbers.take(211).iter().map(|w| (w + 0.8).max(0.0)).collect();
        let tensors = [
            Stored::f64("x", &[211, dim], &x),
            Stored::f64("y", &[130, dim], &y),
            Stored::f64("weights", &[211], &weights),
        ];
        files::write(&case.join("points.safetensors"), &tensors, Default::default());
        let distance = |weights| sliced_wasserstein2(dim, &x, weights, &y, 3, &Stage::new(2, &())).expect("fits");
        wanted.push((case, [distance(None), distance(Some(&weights[..]))], tolerance));
    }
    run_python("sliced.py", folder.path(), cases.iter().map(|(name, ..)| name.to_string()));
    for (case, got, tolerance) in wanted {
        let (answer, _) = files::read(&case.join("distances.safetensors"));
        assert_close(&case.display().to_string(), &got, &files::find(&answer, "sliced_w2").values(), tolerance);
    }
}
