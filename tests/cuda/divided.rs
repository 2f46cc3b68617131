//! Particles divided among GPUs, of which the virtual driver has as many as it is asked for: the
//! same bits for any number, one file, and errors that name the GPU.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{Counted, Numbers, model};
use action_matching::engine::Engine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::divided::Divided;
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Head, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::precision::Precision;

const DIM: usize = 2;

/// Several engines on one GPU, as there is no other here: noise, probes and adaptive steps do not
/// depend on the division.
#[test]
fn any_number_of_engines_gives_the_same_particles() {
    let growing = Objective { growth: 0.3, ..Objective::default() };
    let noisy = Objective { sigma: 0.4, ..growing.clone() };
    let divergence = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 };
    let adaptive = StepControl::Adaptive { rtol: 1e-2, atol: 1e-2 };
    let flow = Plan { divergence, ..Plan::new(Method::Dopri5, adaptive, 0.0, vec![0.5, 1.0]) };
    let fixed = StepControl::Fixed { steps: 2 };
    let diffusion = Plan { noise: Noise::new(7), ..Plan::new(Method::StochasticHeun, fixed, 0.0, vec![0.5, 1.0]) };
    let n = 600;
    for (objective, plan, has_density) in [(growing, flow, true), (noisy, diffusion, false)] {
        let field = model(DIM, &[12, 9], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective);
        let moved = |engines: usize| {
            let engine = |_| CudaEngine::new(0, Precision::Bf16).expect("a GPU, or the virtual one in LD_LIBRARY_PATH");
            let divided = Divided::new((0..engines).map(engine).collect()).expect("engines of one kind");
            let start = |columns: usize, seed| {
                let mut values = vec![f32::NAN; 2 * n * columns];
                let numbers = Numbers::new(seed).take(n * columns);
                values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number as f32);
                values
            };
            let [mut positions, mut weights, mut density] = [start(DIM, 1), start(1, 2), start(1, 3)];
            let out = Trajectories {
                positions: &mut positions,
                log_weights: Some(&mut weights),
                log_density: has_density.then_some(&mut density),
            };
            let counted = Counted::default();
            let report = divided.integrate(&field, &plan, out, &counted).expect("integrates");
            counted.assert_whole(n);
            let values = [positions, weights].concat();
            (values, if has_density { density } else { Vec::new() }, report)
        };
        let one = moved(1);
        assert!(one.0.iter().all(|value| value.is_finite()));
        for engines in [2, 4] {
            assert!(moved(engines) == one, "{engines} engines differ from one");
        }
    }
}

fn amatch(folder: &Path, devices: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
    command.args(arguments).current_dir(folder).env("VGPU_DEVICES", devices).output().expect("the program starts")
}

/// A folder with a model of two times.
fn trained() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a folder");
    let rows = (0..60).map(|i| format!("{},{},{}\n", i % 2, (i * 7 % 11) as f64 / 11.0, (i * 5 % 13) as f64 / 13.0));
    std::fs::write(place.path().join("data.csv"), format!("times,x,y\n{}", rows.collect::<String>())).expect("written");
    let config =
        "[data]\npath = \"data.csv\"\n[model]\nhidden = [16]\n[training]\nsteps = 3\n[objective]\nsigma = 0.3\n";
    std::fs::write(place.path().join("run.toml"), config).expect("written");
    let train = ["train", "run.toml", "--out", "run", "--device", "cpu", "--no-report"];
    let output = amatch(place.path(), "1", &train);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = place.path().to_owned();
    (place, folder)
}

/// The virtual driver makes as many GPUs as this variable says; of real ones there may be one.
fn has_virtual_gpus() -> bool {
    let said = amatch(Path::new("."), "4", &["devices"]);
    String::from_utf8_lossy(&said.stdout).contains("cuda:3, ")
}

#[test]
fn sample_divides_particles_among_gpus() {
    if !has_virtual_gpus() {
        return;
    }
    let (_guard, folder) = trained();
    let sample = |out: &str, devices: &[&str]| {
        let of = ["sample", "run", "--from", "gaussian", "-n", "700", "--save-at", "0.5", "1", "--steps", "3"];
        let output = amatch(&folder, "4", &[&of[..], &["--out", out], devices].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let written = |out: &str| std::fs::read(folder.join(out)).expect("a file");
    assert_eq!(sample("one.csv", &["--device", "cuda:1"]).0, Some(0));
    for (out, devices) in [("zero.csv", "0"), ("two.csv", "2,0"), ("four.csv", "0-3"), ("all.csv", "all")] {
        let (code, said) = sample(out, &["--devices", devices]);
        assert_eq!(code, Some(0), "{said}");
        assert!(written(out) == written("one.csv"), "--devices {devices}");
        assert_eq!(said.matches("MiB of cuda:").count(), 1, "{said}");
    }
    let (code, said) = sample("none.csv", &["--devices", "2-5"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--devices 2,3,4,5: GPU 4, 5 is not there: there are 4, 0 to 3"), "{said}");
    let (code, said) = sample("none.csv", &["--devices", "0-1", "--device", "cuda:0"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("cannot be used with"), "{said}");
    assert!(!folder.join("none.csv").exists());
}
