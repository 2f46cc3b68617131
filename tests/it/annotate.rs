//! `amatch annotate`: what a model says about each cell, as anndata sees it, in a file that loses
//! nothing. `tests/interop/annotate.py` makes the cells, opens what was written, and computes the
//! projection on UMAP and the velocities of genes anew.

use std::fs;
use std::path::{Path, PathBuf};

use action_matching::annotate::{AnnotateOptions, Annotated, Column, CouplingKind, annotate, write_couplings};
use action_matching::config::Config;
use action_matching::data::{DataSource, read_points};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::model::{Activation, Condition, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use action_matching::stage::Stage;
use action_matching::{Destination, Ensemble, Replace, Trained};

use crate::cli::{SMALL, amatch, succeeds, text};
use crate::common::{assert_close, expanding, files, model};
use crate::interop::run_python;

const N: usize = 60;
const DIM: usize = 3;
/// Cells without a time, without a sample, and at an untrained time.
const LEFT_OUT: [usize; 3] = [5, 7, 9];
/// A fixture that Git has: 23 cells, without UMAP.
const FEW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data_support/cells/dense.h5ad");

fn coordinates() -> Coordinates {
    Coordinates {
        mean: vec![3.0, 4.0, 2.5],
        scale: vec![2.0, 3.0, 2.5],
        time_range: [0.0, 7.0],
        ..Coordinates::identity(DIM)
    }
}

fn some_model(objective: Objective) -> Model {
    let model = model(DIM, &[13, 7], Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
    Model { coordinates: coordinates(), ..model }
}

/// `models` as those of a run in `folder`.
fn trained(folder: &Path, models: &[Model]) -> Trained {
    let file = folder.join("model.safetensors");
    models[0].save(&file).expect("saved");
    Trained { file, models: models.to_vec(), config: None, unread: None }
}

/// Runs `tests/interop/annotate.py` in `folder`; starting Python takes longer than all else.
fn python(folder: &Path, arguments: &[&str]) {
    run_python("annotate.py", folder, arguments.iter().map(|argument| argument.to_string()));
}

/// Annotates `plain.h5ad` as `name.h5ad`.
fn annotated(folder: &Path, models: &[Model], options: &AnnotateOptions, name: &str) -> Annotated {
    let (cells, to) = (folder.join("plain.h5ad"), folder.join(format!("{name}.h5ad")));
    let to = Destination::check(&to, &[&cells], Replace::Nothing).expect("a place");
    let trained = trained(folder, models);
    annotate(&trained, &cells, &to, options, &CpuEngine::new(2), &Stage::new(2, &())).expect("annotated")
}

/// The array `name` that Python has written.
fn array(file: &Path, name: &str) -> Vec<f64> {
    files::find(&files::read(file).0, name).values()
}

fn asked_cells(folder: &Path) -> Asked {
    let rows = array(&folder.join("plain.safetensors"), "pca");
    let asked: Vec<usize> = (0..N).filter(|cell| !LEFT_OUT.contains(cell)).collect();
    let x = asked.iter().flat_map(|&cell| rows[DIM * cell..][..DIM].to_vec()).collect();
    let t = asked.iter().map(|&cell| [0.0, 3.0, 7.0][cell % 3]).collect();
    (asked, x, t)
}

/// Fails unless the columns of `values [N, width]` are those of `wanted` in the cells that are
/// asked about, and NaN in the others.
#[track_caller]
fn assert_column(what: &str, values: &[f64], width: usize, wanted: &[f64], tolerance: f64) {
    let (left_out, asked): (Vec<usize>, Vec<usize>) = (0..N).partition(|cell| LEFT_OUT.contains(cell));
    let of = |cells: &[usize]| -> Vec<f64> {
        cells.iter().flat_map(|&cell| values[width * cell..][..width].to_vec()).collect()
    };
    assert_close(what, &of(&asked), wanted, tolerance);
    assert!(of(&left_out).iter().all(|x| x.is_nan()), "{what}: {:?}", of(&left_out));
}

#[test]
fn cells_have_what_the_model_says_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    python(folder, &["make"]);
    let growing = some_model(Objective { growth: 0.7, ..Objective::default() });
    let columns = [&Column::DEFAULT[..], &[Column::Fates, Column::Genes, Column::LogDensity]].concat();
    let labels = Some("celltype".into());
    let options = AnnotateOptions { columns, labels, neighbors: 4, ..AnnotateOptions::default() };
    let found = annotated(folder, std::slice::from_ref(&growing), &options, "growing");
    assert_eq!((found.n_cells, found.n_annotated), (N, N - LEFT_OUT.len()));
    assert_eq!(found.left_out.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(found.left_out[2].0.contains("outside 0 to 7"), "{:?}", found.left_out);

    let diffusive = some_model(Objective { sigma: 0.8, ..Objective::default() });
    let options = AnnotateOptions { columns: vec![Column::HjbResidual], ..AnnotateOptions::default() };
    annotated(folder, std::slice::from_ref(&diffusive), &options, "diffusive");
    let members = two_members();
    annotated(folder, &members, &AnnotateOptions::default(), "members");
    let conditional = conditional_model();
    annotated(folder, std::slice::from_ref(&conditional), &AnnotateOptions::default(), "conditional");

    let carrying = Model { coordinates: coordinates(), ..expanding(&B, Objective::default()) };
    let labels = Some("celltype".into());
    let options = AnnotateOptions { columns: vec![Column::Fates], labels, neighbors: 4, ..AnnotateOptions::default() };
    annotated(folder, std::slice::from_ref(&carrying), &options, "carrying");

    python(folder, &["look", "growing", "diffusive", "members", "conditional", "carrying"]);
    let cells = asked_cells(folder);
    check_growing(&folder.join("growing.safetensors"), &growing, &cells);
    check_diffusive(&folder.join("diffusive.safetensors"), &diffusive, &cells);
    check_members(&folder.join("members.safetensors"), &members, &cells);
    check_conditional(&folder.join("conditional.safetensors"), &conditional, &cells);
    check_carried(&folder.join("carrying.safetensors"), &carrying, &cells);
}

/// Numbers, samples and times of the cells that are not left out.
type Asked = (Vec<usize>, Vec<f64>, Vec<f64>);

fn check_growing(file: &Path, model: &Model, (asked, x, t): &Asked) {
    let local = model.local(&ReferenceEngine, x, t).expect("computed");
    assert_column("velocity", &array(file, "obsm.velocity_pca"), DIM, &local.velocity, 1e-4);
    assert_column("action", &array(file, "obs.action"), 1, &local.potential, 1e-4);
    assert_column("growth", &array(file, "obs.growth_rate"), 1, &local.growth_rate, 1e-4);
    assert_column("residual", &array(file, "obs.hjb_residual"), 1, &local.hjb_residual, 1e-4);
    let speed: Vec<f64> = local.velocity.chunks(DIM).map(|v| v.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
    assert_column("speed", &array(file, "obs.speed"), 1, &speed, 1e-4);

    // Cells at the last time stay where they are: shares of labels among the 4 nearest.
    let fates = array(file, "obsm.fate");
    let last: Vec<usize> = asked.iter().copied().filter(|cell| cell % 3 == 2).collect();
    let place = |cell: usize| asked.iter().position(|&other| other == cell).expect("asked");
    let squared = |a: usize, b: usize| -> f64 {
        let [a, b] = [a, b].map(|cell| &x[DIM * place(cell)..][..DIM]);
        a.iter().zip(b).zip(&model.coordinates.scale).map(|((a, b), scale)| ((a - b) / scale).powi(2)).sum()
    };
    for &cell in &last {
        let mut nearest = last.clone();
        nearest.sort_by(|&a, &b| squared(cell, a).total_cmp(&squared(cell, b)));
        let alpha = nearest[..4].iter().filter(|&&other| other / 3 % 2 == 0).count() as f64 / 4.0;
        assert_close("fate", &fates[2 * cell..][..2], &[1.0 - alpha, alpha], 1e-6);
    }
    assert!(asked.iter().all(|&cell| (fates[2 * cell] + fates[2 * cell + 1] - 1.0).abs() < 1e-6));
    let densities = array(file, "obs.log_density");
    assert!(asked.iter().all(|&cell| densities[cell].is_finite()));
    assert!(LEFT_OUT.iter().all(|&cell| fates[2 * cell].is_nan() && densities[cell].is_nan()));
}

/// Center of a flow that carries cells away from it.
const B: [f32; DIM] = [0.2, -0.1, 0.3];

/// At all times: shares of labels among the 4 cells of the last time that are nearest to where
/// b + (y − b) e^(1−t) takes a cell.
fn check_carried(file: &Path, model: &Model, (asked, x, t): &Asked) {
    let Coordinates { mean, scale, .. } = &model.coordinates;
    let y: Vec<f64> = x.iter().enumerate().map(|(i, x)| (x - mean[i % DIM]) / scale[i % DIM]).collect();
    let last: Vec<usize> = (0..asked.len()).filter(|&k| t[k] == 7.0).collect();
    let fates = array(file, "obsm.fate");
    let mut moved_far = 0;
    for (k, &cell) in asked.iter().enumerate() {
        let stretch = (1.0 - t[k] / 7.0).exp();
        let end: Vec<f64> = (0..DIM)
            .map(|i| {
                let b = f64::from(B[i]);
                b + (y[DIM * k + i] - b) * stretch
            })
            .collect();
        let nearest = |from: &[f64]| {
            let squared = |&other: &usize| -> f64 { (0..DIM).map(|i| (y[DIM * other + i] - from[i]).powi(2)).sum() };
            let mut nearest = last.clone();
            nearest.sort_by(|a, b| squared(a).total_cmp(&squared(b)));
            nearest.truncate(4);
            nearest
        };
        moved_far += usize::from(nearest(&end) != nearest(&y[DIM * k..][..DIM]));
        let alpha = nearest(&end).iter().filter(|&&other| asked[other] / 3 % 2 == 0).count() as f64 / 4.0;
        assert_close(&format!("fate of cell {cell}"), &fates[2 * cell..][..2], &[1.0 - alpha, alpha], 1e-6);
    }
    assert!(moved_far > 5, "{moved_far} of {} cells have other neighbors where they end", asked.len());
}

/// Without growth the residual is known up to a function of time, and diffusion adds a Laplacian.
fn check_diffusive(file: &Path, model: &Model, (_, x, t): &Asked) {
    let mut residual = model.local(&ReferenceEngine, x, t).expect("computed").hjb_residual;
    for time in [0.0, 3.0, 7.0] {
        let of_time = || t.iter().enumerate().filter(|(_, t)| **t == time).map(|(k, _)| k);
        let mean = of_time().map(|k| residual[k]).sum::<f64>() / of_time().count() as f64;
        of_time().for_each(|k| residual[k] -= mean);
    }
    assert_column("residual", &array(file, "obs.hjb_residual"), 1, &residual, 1e-4);
}

fn two_members() -> [Model; 2] {
    let first = some_model(Objective::default());
    let mut second = first.clone();
    second.parameters.iter_mut().enumerate().for_each(|(k, p)| *p += 0.01 * (k % 7) as f32);
    [first, second]
}

fn check_members(file: &Path, models: &[Model], (_, x, t): &Asked) {
    let ensemble = Ensemble::new(models.to_vec()).expect("an ensemble");
    let [mean, spread] = ensemble.local(&ReferenceEngine, x, t).expect("computed");
    assert_column("velocity", &array(file, "obsm.velocity_pca"), DIM, &mean.velocity, 1e-4);
    assert_column("spread", &array(file, "obsm.velocity_pca_spread"), DIM, &spread.velocity, 1e-3);
    assert_column("action", &array(file, "obs.action"), 1, &mean.potential, 1e-3);
    assert_column("spread", &array(file, "obs.action_spread"), 1, &spread.potential, 1e-2);
}

fn conditional_model() -> Model {
    let mut model = some_model(Objective::default());
    let condition = Condition::Category { name: "treated".into(), categories: vec!["no".into(), "yes".into()] };
    model.architecture.conditions = 2;
    model.coordinates.conditions = vec![condition];
    model.parameters = initial_parameters(&model.architecture, 5);
    model
}

fn check_conditional(file: &Path, model: &Model, (asked, x, t): &Asked) {
    let mut wanted = vec![0.0; asked.len()];
    for (value, remainder) in [("yes", 0), ("no", 1)] {
        let local = model.under(&[value.into()]).expect("a condition").local(&ReferenceEngine, x, t);
        let potential = local.expect("computed").potential;
        (0..asked.len()).filter(|&k| asked[k] % 2 == remainder).for_each(|k| wanted[k] = potential[k]);
    }
    assert_column("action", &array(file, "obs.action"), 1, &wanted, 1e-4);
}

/// A few-cell run for the program: its folder has a model alone.
fn run_of_few(folder: &Path) -> PathBuf {
    some_model(Objective::default()).save(&folder.join("model.safetensors")).expect("saved");
    let cells = folder.join("cells.h5ad");
    fs::copy(FEW, &cells).expect("copied");
    cells
}

#[test]
fn a_file_is_annotated_in_place_again_but_columns_of_others_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let cells = run_of_few(folder.path());
    let run = |arguments: &[&str]| {
        let start = ["annotate", "model.safetensors", "cells.h5ad", "--device", "cpu"];
        let output = amatch(folder.path(), &[&start[..], arguments].concat());
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = run(&["--in-place"]);
    assert!(code == Some(0) && said.contains("23 of 23 cells") && said.contains("obsm/velocity_pca"), "{said}");
    let once = fs::metadata(&cells).expect("there").len();
    let (code, said) = run(&["--in-place"]);
    assert_eq!(code, Some(0), "{said}");
    let twice = fs::metadata(&cells).expect("there").len();
    assert!(twice < 2 * once, "{once} and {twice} bytes");
    let points = DataSource { samples: "obsm/velocity_pca".into(), ..DataSource::new(&cells) };
    assert_eq!(read_points(&points, &()).expect("reads").dim, DIM);
    // Under another name it is not ours.
    let (code, said) = run(&["--out", "cells.h5ad"]);
    assert!(code == Some(1) && said.contains("cells.h5ad"), "{said}");
    // What an earlier annotation has written stays ours, even if a later one wrote something else.
    assert_eq!(run(&["--in-place", "--columns", "speed"]).0, Some(0));
    assert_eq!(run(&["--in-place"]).0, Some(0));
    let (code, said) = run(&["--out", "other.h5ad"]);
    assert_eq!(code, Some(0), "{said}");
    let theirs = folder.path().join("theirs.h5ad");
    python(folder.path(), &["disown", "cells", "theirs"]);
    let run_theirs = |arguments: &[&str]| {
        let start = ["annotate", "model.safetensors", "theirs.h5ad", "--in-place", "--device", "cpu"];
        let output = amatch(folder.path(), &[&start[..], arguments].concat());
        (output.status.code(), text(&output.stderr))
    };
    let before = fs::read(&theirs).expect("reads");
    let (code, said) = run_theirs(&[]);
    assert!(code == Some(1) && said.contains("obsm/velocity_pca: is there already"), "{said}");
    assert!(said.contains("--force") && fs::read(&theirs).expect("reads") == before, "{said}");
    assert_eq!(run_theirs(&["--force"]).0, Some(0));
    for (arguments, said) in [
        (&["--out", "model.safetensors"][..], "model.safetensors"),
        (&["--in-place", "--samples", "obsm/none"], "no such array"),
        (&["--in-place", "--times", "obs/celltype"], "no number"),
        (&["--in-place", "--genes", "--columns", "speed"], "varm/PCs"),
        (&["--in-place", "--fates", "none"], "obs/none"),
        (&["--in-place", "--samples", "obsm/X_frame"], "dimension 2"),
        (&[], "--out"),
    ] {
        let before = fs::read(&cells).expect("reads");
        let (code, error) = run(arguments);
        assert!(code != Some(0) && error.contains(said), "{arguments:?}: {error}");
        assert!(fs::read(&cells).expect("reads") == before, "{arguments:?} changed the file");
    }
}

/// Whatever is wrong with a file: it is annotated or stays as it is, and nothing is left beside.
#[test]
fn a_damaged_file_is_never_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let cells = run_of_few(folder.path());
    let whole = fs::read(&cells).expect("reads");
    let here = trained(folder.path(), &[some_model(Objective::default())]);
    let options = AnnotateOptions { columns: vec![Column::Velocity, Column::Action], ..AnnotateOptions::default() };
    let engine = CpuEngine::new(1);
    let mut refused = 0;
    for k in 0..36 {
        let mut bytes = whole.clone();
        match k % 3 {
            0 => bytes.truncate(whole.len() * (k + 1) / 38),
            1 => bytes[(k * 7919) % whole.len()] ^= 1 << (k % 8),
            _ => bytes[(k * 104_729) % whole.len().min(4096)] = 0xff,
        }
        fs::write(&cells, &bytes).expect("written");
        let to = Destination::check(&cells, &[&here.file], Replace::Files).expect("a place");
        match annotate(&here, &cells, &to, &options, &engine, &Stage::new(1, &())) {
            Ok(_) => {
                let source = DataSource { samples: "obsm/velocity_pca".into(), ..DataSource::new(&cells) };
                read_points(&source, &()).unwrap_or_else(|error| panic!("case {k}: {error}"));
            }
            Err(_) => {
                refused += 1;
                assert!(fs::read(&cells).expect("reads") == bytes, "case {k} changed the file");
            }
        }
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 2, "case {k} left a file behind");
    }
    assert!((12..36).contains(&refused), "{refused}");
}

#[test]
fn couplings_have_the_cells_of_both_times() {
    let folder = tempfile::tempdir().expect("a folder");
    python(folder.path(), &["make"]);
    let here = trained(folder.path(), &[some_model(Objective { growth: 0.7, ..Objective::default() })]);
    let cells = folder.path().join("plain.h5ad");
    for (kind, name) in [(CouplingKind::Transport, "ot"), (CouplingKind::Flow, "flow")] {
        let to = folder.path().join(name);
        fs::create_dir(&to).expect("made");
        let how = (kind, Replace::Nothing);
        let write = || {
            let options = AnnotateOptions::default();
            write_couplings(&here, &cells, &to, how, &options, &CpuEngine::new(1), &Stage::new(1, &()))
        };
        let found = write().expect("written");
        assert_eq!(found.files, ["amatch_0_3.h5ad", "amatch_3_7.h5ad"].map(|file| to.join(file)));
        assert!(write().expect_err("they exist").to_string().contains("amatch_0_3.h5ad"));
        python(folder.path(), &["coupling", &format!("{name}/amatch_0_3")]);
        let file = to.join("amatch_0_3.safetensors");
        let (masses, rows, columns) = (array(&file, "X"), array(&file, "obs"), array(&file, "var"));
        assert!(
            rows.iter().all(|&cell| (cell as usize).is_multiple_of(3))
                && columns.iter().all(|&cell| cell as usize % 3 == 1)
        );
        assert_eq!((rows.len(), columns.len(), masses.len()), (19, 19, 19 * 19)); // without cells 9 and 7
        assert!((masses.iter().sum::<f64>() - 1.0).abs() < 1e-5);
        for row in masses.chunks(19) {
            let sum = row.iter().sum::<f64>() * 19.0;
            let is_even = (sum - 1.0).abs() < 1e-5;
            assert!(if kind == CouplingKind::Transport { is_even } else { sum > 0.1 }, "{name}: {sum}");
        }
        for column in 0..19 {
            let sum: f64 = masses.iter().skip(column).step_by(19).sum();
            assert!((sum * 19.0 - 1.0).abs() < 1e-5, "{name}: {sum}");
        }
    }
}

/// Pairs that are not balanced: nothing moves beyond the reach of the run's pairing, cells out of
/// reach are in no pair, and what arrives at a cell is as in training.
#[test]
fn couplings_are_of_the_kind_that_the_run_was_trained_on() {
    let folder = tempfile::tempdir().expect("a folder");
    python(folder.path(), &["make"]);
    let (asked, x, _) = asked_cells(folder.path());
    let network = |cell: f64| -> Vec<f64> {
        let k = asked.iter().position(|&other| other == cell as usize).expect("asked");
        x[DIM * k..][..DIM].iter().zip(coordinates().scale).map(|(x, scale)| x / scale).collect()
    };
    let cells = folder.path().join("plain.h5ad");
    let couple = |name: &str, objective: &str, growth: f64| {
        let text = format!("[data]\npath = \"plain.h5ad\"\n[objective]\npath = \"linear\"\n{objective}\n");
        let config = Config::parse(Path::new("run.toml"), &text, &[]).expect("a configuration");
        let trained = trained(folder.path(), &[some_model(Objective { growth, ..Objective::default() })]);
        let trained = Trained { config: Some(config), ..trained };
        let to = folder.path().join(name);
        fs::create_dir(&to).expect("made");
        let (how, options) = ((CouplingKind::Transport, Replace::Nothing), AnnotateOptions::default());
        write_couplings(&trained, &cells, &to, how, &options, &CpuEngine::new(1), &Stage::new(1, &()))
    };
    // Squared distances; a half of a circle of radius 1/√λ each way.
    let (relaxation, lambda) = (4.0f64, 2.0f64);
    let partial = format!("pairing = {{ kind = \"unbalanced\", relaxation = {relaxation} }}");
    let wfr = format!("pairing = \"wfr\"\ngrowth = {lambda}\nmass = \"counts\"");
    for (name, objective, growth) in [("partial", &partial, 0.0), ("wfr", &wfr, lambda)] {
        let found = couple(name, objective, growth).expect("written");
        assert!(found.notices.iter().any(|notice| notice.starts_with("couplings are ")), "{:?}", found.notices);
    }
    python(folder.path(), &["coupling", "partial/amatch_3_7", "wfr/amatch_3_7"]);
    for (name, reach) in [("partial", relaxation.sqrt()), ("wfr", std::f64::consts::PI / lambda.sqrt())] {
        let file = folder.path().join(name).join("amatch_3_7.safetensors");
        let (masses, rows, columns) = (array(&file, "X"), array(&file, "obs"), array(&file, "var"));
        let mut n_pairs = 0;
        for (k, mass) in masses.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
            let [from, to] = [network(rows[k / columns.len()]), network(columns[k % columns.len()])];
            let distance = from.iter().zip(&to).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(distance <= reach * (1.0 + 1e-6), "{name}: {distance} {mass}");
            n_pairs += 1;
        }
        let sums: Vec<f64> = masses.chunks(columns.len()).map(|row| row.iter().sum()).collect();
        let is_uneven = sums.iter().any(|sum| (sum * rows.len() as f64 - 1.0).abs() > 0.1);
        assert!(n_pairs > 0 && is_uneven, "{name}: {n_pairs} pairs, {sums:?}");
        assert!((masses.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{name}");
        if name == "partial" {
            assert!(sums.contains(&0.0), "some have no partner: {sums:?}");
        }
    }
    let totals = "pairing = \"wfr\"\ngrowth = 1.0\nmass = { kind = \"totals\", values = [1, 2] }";
    let error = couple("totals", totals, 1.0).expect_err("three times").to_string();
    assert!(error.contains("objective.mass.values: has 2 for 3 times"), "{error}");
}

/// On request: the programs that the files of a run are written for open them. Prints their
/// versions and what was checked.
#[test]
#[ignore = "needs a Python with scvelo, cellrank and tensorboard: see CONTRIBUTING.md"]
fn scvelo_cellrank_and_tensorboard_open_what_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let neighbors = |arguments: &[&str]| {
        run_python("neighbors.py", folder, arguments.iter().map(|argument| argument.to_string()));
    };
    neighbors(&["make"]);
    for (run, couplings, objective) in [
        ("run", "tmaps", "pairing = \"ot\""),
        ("wfr", "tmaps-wfr", "pairing = \"wfr\"\ngrowth = 0.25\nmass = \"counts\""),
        ("partial", "tmaps-partial", "pairing = { kind = \"unbalanced\", relaxation = 0.5 }"),
    ] {
        let config = format!(
            "[data]\npath = \"cells.h5ad\"\n[objective]\npath = \"linear\"\n{objective}\n\
             [output]\nfolder = \"{run}\"\n"
        );
        fs::write(folder.join("run.toml"), config).expect("written");
        succeeds(folder, &[&["train", "run.toml"][..], &SMALL, &["--set", "training.steps=400"]].concat());
        succeeds(folder, &["annotate", run, "cells.h5ad", "--couplings", couplings, "--device", "cpu"]);
    }
    let fates = ["--genes", "--fates", "celltype", "--device", "cpu"];
    succeeds(folder, &[&["annotate", "run", "cells.h5ad", "--out", "annotated.h5ad"][..], &fates].concat());
    neighbors(&["open", "run"]);
}
