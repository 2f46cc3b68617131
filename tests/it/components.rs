//! Data wider than a model: components fitted while they are read, kept beside the model, used by
//! every command and decoded on the way out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use action_matching::cli_support::TensorFileKind;
use action_matching::data::{Components, DataSource, Reduction, load, load_single, read_points, read_snapshots};
use action_matching::stage::Stage;
use serde_json::{Value, json};

use crate::cli::{SMALL, amatch, fails, succeeds, text};
use crate::common::Numbers;
use crate::common::files::{self, Stored};
use crate::data_support::{f32s, npy, npz, safetensors};

/// More columns than a model has dimensions.
const WIDE: usize = 1100;

/// Rows in two directions of `dim` columns, with a little noise, that move along the first one.
fn values(seed: u64, n_times: usize, n: usize, dim: usize) -> (Vec<f64>, Vec<f32>) {
    let mut numbers = Numbers::new(seed);
    let (mut times, mut rows) = (Vec::new(), Vec::new());
    for row in 0..n_times * n {
        let time = (row % n_times) as f64;
        let [a, b] = [4.0 * time + numbers.next(), 2.0 * numbers.next()];
        times.push(time);
        rows.extend((0..dim).map(|j| {
            let [u, v] = [(0.1 * j as f64).sin(), (0.23 * j as f64).cos()];
            (3.0 + (j % 5) as f64 + a * u + b * v + 0.3 * numbers.next()) as f32
        }));
    }
    (times, rows)
}

fn table(times: &[f64], rows: &[f32], dim: usize) -> String {
    let mut csv = String::from("times");
    (0..dim).for_each(|j| csv += &format!(",gene{j}"));
    for (time, row) in times.iter().zip(rows.chunks_exact(dim)) {
        write!(csv, "\n{time}").expect("written");
        row.iter().for_each(|x| write!(csv, ",{x}").expect("written"));
    }
    csv + "\n"
}

/// A folder with a wide table of three times and a configuration of two components.
fn workplace() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path().to_owned();
    let (times, rows) = values(5, 3, 30, WIDE);
    std::fs::write(folder.join("data.csv"), table(&times, &rows, WIDE)).expect("written");
    std::fs::write(folder.join("run.toml"), "[data]\npath = \"data.csv\"\ncomponents = 2\n").expect("written");
    (guard, folder)
}

/// An archive of f32 samples of three times.
fn archive(folder: &Path, name: &str, times: &[f64], rows: &[f32], dim: usize) -> PathBuf {
    let times: Vec<f32> = times.iter().map(|&time| time as f32).collect();
    let members = [
        ("samples", npy("<f4", false, &[times.len(), dim], &f32s(rows))),
        ("times", npy("<f4", false, &[times.len()], &f32s(&times))),
    ];
    let path = folder.join(name);
    std::fs::write(&path, npz(&members, zip::CompressionMethod::Stored)).expect("written");
    path
}

fn fitting(path: &Path, count: usize) -> DataSource {
    DataSource { components: Some(Reduction::Fit(count)), ..DataSource::new(path) }
}

fn given(path: &Path, components: &Arc<Components>) -> DataSource {
    DataSource { components: Some(Reduction::Given(components.clone())), ..DataSource::new(path) }
}

#[test]
fn held_out_rows_decide_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (times, mut rows) = values(1, 4, 20, 60);
    let first = archive(folder.path(), "first.npz", &times, &rows, 60);
    for (time, row) in times.iter().zip(rows.chunks_exact_mut(60)) {
        if *time == 2.0 {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = 100.0 * (j % 3) as f32 - *x);
        }
    }
    let second = archive(folder.path(), "second.npz", &times, &rows, 60);
    let read = |path: &Path| load(&DataSource { hold_out: vec![2.0].into(), ..fitting(path, 3) }, &()).expect("loads");
    let [a, b] = [read(&first), read(&second)];
    assert_eq!((&a.components, &a.training, &a.coordinates), (&b.components, &b.training, &b.coordinates));
    assert_ne!(a.held_out.samples, b.held_out.samples);
    assert_eq!(a.coordinates.columns, Some(["PC1", "PC2", "PC3"].map(String::from).to_vec()));
    assert_eq!((a.training.dim, a.held_out.dim, a.training.times.len()), (3, 3, 3));
    // All rows would have had other components.
    assert_ne!(load(&fitting(&first, 3), &()).expect("loads").components, a.components);
}

/// Rows with weights have the components of rows that are there as often as their weights say: of
/// training rows alone, and each snapshot counts with its number of rows.
#[test]
fn components_are_those_of_weighted_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let (times, rows) = values(7, 3, 40, 50);
    let weight = |row: usize| [3, 0, 1, 0][row / 3 % 4];
    let table = |name: &str, copies: &dyn Fn(usize) -> usize, unit: f64| -> PathBuf {
        let mut csv = String::from("times,w");
        (0..50).for_each(|j| csv += &format!(",gene{j}"));
        for (i, (time, row)) in times.iter().zip(rows.chunks_exact(50)).enumerate() {
            for _ in 0..copies(i) {
                // The unit of the weights of a snapshot decides nothing.
                write!(csv, "\n{time},{}", weight(i) as f64 * unit * (1.0 + time)).expect("written");
                row.iter().for_each(|x| write!(csv, ",{x}").expect("written"));
            }
        }
        let path = folder.path().join(name);
        std::fs::write(&path, csv + "\n").expect("written");
        path
    };
    let samples = |source: DataSource| DataSource { samples: "gene*".into(), ..source };
    let weighted = samples(fitting(&table("weighted.csv", &|_| 1, 7.0), 2));
    let weighted = load(&DataSource { weights: Some("w".into()), ..weighted }, &()).expect("loads");
    let repeated = load(&samples(fitting(&table("repeated.csv", &weight, 1.0), 2)), &()).expect("loads");
    let [got, want] = [&weighted, &repeated].map(|loaded| loaded.components.as_ref().expect("are fitted"));
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6 * (1.0 + b.abs()));
    assert!(near(got.mean(), want.mean()) && near(got.variance(), want.variance()), "{got:?}, not {want:?}");
    let loadings = got.loadings().iter().zip(want.loadings());
    assert!(loadings.clone().all(|(a, b)| (a - b).abs() < 1e-4), "{:?}", loadings.collect::<Vec<_>>());
    assert!(near(&weighted.coordinates.scale, &repeated.coordinates.scale));
}

/// What `load` makes of the rows is what the components make of them one by one.
#[test]
fn every_reader_projects_with_the_components_that_were_fitted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (times, rows) = values(2, 3, 20, WIDE);
    // Far from 0 in 64 bits: the origin of the reading is not 0.
    let far: Vec<u8> = rows.iter().flat_map(|&x| (f64::from(x) + 3e5 + 0.1).to_le_bytes()).collect();
    let stored_times = f32s(&times.iter().map(|&time| time as f32).collect::<Vec<_>>());
    let path = folder.path().join("far.safetensors");
    let n = times.len();
    let tensors: [(&str, &str, &[usize], Vec<u8>); 2] =
        [("samples", "F64", &[n, WIDE], far), ("times", "F32", &[n], stored_times)];
    std::fs::write(&path, safetensors(&tensors)).expect("written");
    let loaded = load(&fitting(&path, 2), &()).expect("loads");
    let components = loaded.components.expect("were fitted");
    assert!((components.mean()[7] - 3e5).abs() < 30.0 && components.need_f64());

    let again = load(&given(&path, &components), &()).expect("loads");
    assert_eq!((&again.training, &again.coordinates), (&loaded.training, &loaded.coordinates));
    let set = read_snapshots(&given(&path, &components), &()).expect("reads");
    assert_eq!((set.snapshots.dim, &set.origin), (2, &vec![0.0; 2]));
    let points = read_points(&given(&path, &components), &()).expect("reads");
    assert_eq!((points.dim, points.columns), (2, Some(components.names())));
    let scale = loaded.coordinates.scale[0];
    for (row, (time, x)) in times.iter().zip(rows.chunks_exact(WIDE)).enumerate() {
        for c in 0..2 {
            let loadings = &components.loadings()[c * WIDE..(c + 1) * WIDE];
            let terms = x.iter().zip(components.mean()).zip(loadings);
            let want: f64 = terms.map(|((x, mean), l)| (f64::from(*x) + 3e5 + 0.1 - mean) * f64::from(*l)).sum();
            let (k, i) = (*time as usize, row / 3);
            let y = f64::from(loaded.training.rows(k)[2 * i + c]);
            assert!((f64::from(points.rows[2 * row + c]) - want).abs() < 1e-5 * scale, "{row}, {c}");
            assert_eq!(set.snapshots.rows(k)[2 * i + c], points.rows[2 * row + c]);
            assert!((y * scale + loaded.coordinates.mean[c] - want).abs() < 1e-5 * scale, "{row}, {c}");
        }
    }
}

#[test]
fn samples_of_other_columns_are_refused_and_components_taken_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let (times, rows) = values(3, 2, 8, 6);
    let data = file("data.csv", table(&times, &rows, 6));
    let components = load(&fitting(&data, 2), &()).expect("loads").components.expect("were fitted");
    let refused = |path: &Path| read_points(&given(path, &components), &()).expect_err("does not fit").to_string();
    let renamed = file("renamed.csv", table(&times, &rows, 6).replace("gene3", "gene7"));
    let message = refused(&renamed);
    assert!(message.contains("columns: gene0, gene1, gene2, gene7, gene4, gene5 are not those"), "{message}");
    let narrow = file("narrow.csv", table(&times, &rows[..16 * 5], 5));
    assert!(refused(&narrow).contains("have 5 columns, but the model was trained on 2 components of 6"));

    let scores = file("scores.csv", "times,PC1,PC2\n0,1.5,-2\n1,3,4\n".into());
    assert_eq!(read_points(&given(&scores, &components), &()).expect("reads").rows, [1.5, -2.0, 3.0, 4.0]);
    let unnamed = archive(folder.path(), "scores.npz", &[0.0, 1.0], &[1.5, -2.0, 3.0, 4.0], 2);
    assert_eq!(read_points(&given(&unnamed, &components), &()).expect("reads").rows, [1.5, -2.0, 3.0, 4.0]);
    let swapped = file("swapped.csv", "times,PC2,PC1\n0,1.5,-2\n1,3,4\n".into());
    assert!(refused(&swapped).contains("have 2 columns"));

    // Readers that do not know the rows to train on never fit.
    for error in [
        read_points(&fitting(&data, 2), &()).map(drop).expect_err("fits"),
        read_snapshots(&fitting(&data, 2), &()).map(drop).expect_err("fits"),
    ] {
        assert!(error.to_string().contains("data.components: are fitted only when a model is trained"), "{error}");
    }
    // One time, as a generative path has it.
    let single = file("single.csv", table(&[1.0; 8], &rows[..48], 6));
    let loaded = load_single(&fitting(&single, 3), &()).expect("loads");
    assert_eq!((loaded.training.dim, loaded.training.n_rows(0)), (3, 8));
    assert!(loaded.notices[0].contains("3 components keep ") && !loaded.notices[0].contains("means"));
}

#[test]
fn wide_data_need_components_and_have_a_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (times, rows) = values(4, 2, 3, WIDE);
    for path in [archive(folder.path(), "wide.npz", &times, &rows, WIDE), {
        let path = folder.path().join("wide.csv");
        std::fs::write(&path, table(&times, &rows, WIDE)).expect("written");
        path
    }] {
        for error in [
            load(&DataSource::new(&path), &()).map(drop).expect_err("too wide"),
            read_points(&DataSource::new(&path), &()).map(drop).expect_err("too wide"),
        ] {
            let message = error.to_string();
            assert!(message.contains("samples: has 1100 columns; a model has at most 1024"), "{message}");
            assert!(message.contains("set data.components, as in components = 50"), "{message}");
        }
        assert!(load(&fitting(&path, 2), &()).is_ok());
    }
    let zeros = vec![0.0f32; 2 * 65_537];
    let path = archive(folder.path(), "wider.npz", &[0.0, 1.0], &zeros, 65_537);
    let message = load(&fitting(&path, 1), &()).map(drop).expect_err("too wide").to_string();
    assert!(message.contains("samples: has 65537 columns; at most 65536 are read"), "{message}");
}

/// The first component is a wide spread that all times share; the times differ across it.
#[test]
fn components_that_lose_the_motion_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut numbers = Numbers::new(9);
    let times: Vec<f64> = (0..200).map(|row| f64::from(row % 2)).collect();
    let rows: Vec<f32> = times
        .iter()
        .enumerate()
        .flat_map(|(row, time)| {
            let shared = 50.0 * (0.7 * (row / 2) as f64).sin();
            [shared, 3.0 * time + numbers.next(), 0.1 * numbers.next()]
        })
        .map(|x| x as f32)
        .collect();
    let path = archive(folder.path(), "a.npz", &times, &rows, 3);
    let loaded = load(&fitting(&path, 1), &()).expect("loads");
    let [notice] = &loaded.notices[..] else { panic!("{:?}", loaded.notices) };
    assert!(notice.contains("1 component keeps 99") && notice.contains("% of the variance of 3 columns"), "{notice}");
    assert!(
        loaded.warnings.iter().any(|w| w.contains("the snapshots also differ where no component leads")),
        "{:?}",
        loaded.warnings
    );
    let both = load(&fitting(&path, 2), &()).expect("loads");
    assert!(both.warnings.is_empty(), "{:?}", both.warnings);
    assert!(both.notices[0].contains("and 100 % of that between the means"), "{:?}", both.notices);
}

#[test]
fn a_run_on_components_is_sampled_decoded_evaluated_and_gone_on_with() {
    let (_guard, folder) = workplace();
    for count in [0, 1025] {
        let setting = format!("data.components={count}");
        let wanted = format!("data.components: is {count} (use 1 to 1024 components)");
        fails(&folder, &["train", "run.toml", "--set", &setting], &[&wanted]);
    }
    let output = amatch(&folder, &[&["train", "run.toml"][..], &SMALL].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("data.csv: 2 components keep 9"), "{said}");
    assert!(said.contains(" % of the variance of 1100 columns, and 100 % of that between the means"), "{said}");
    let loadings = folder.join("runs/run/loadings.safetensors");
    assert_eq!(TensorFileKind::of(&loadings).expect("reads"), TensorFileKind::Components);
    for file in ["runs/run", "runs/run/loadings.safetensors"] {
        let shown = succeeds(&folder, &["inspect", file]);
        assert!(shown.contains("components       2 of 1100 columns, with 9"), "{shown}");
    }

    let sample = ["sample", "runs/run", "--from", "snapshot:0", "--t1", "1", "--threads", "1", "--out"];
    succeeds(&folder, &[&sample[..], &["scores.csv"]].concat());
    succeeds(&folder, &[&sample[..], &["genes.csv", "--decode"]].concat());
    let components = Components::load(&loadings).expect("loads");
    let genes = read_points(&of_run(&folder.join("genes.csv"), &components), &()).expect("reads");
    let scores = read_points(&DataSource::new(folder.join("scores.csv")), &()).expect("reads");
    assert_eq!((scores.columns.as_ref(), scores.rows.len()), (Some(&components.names()), 60));
    for (got, want) in genes.positions().iter().zip(&scores.positions()) {
        assert!((got - want).abs() < 1e-3, "{got}, not {want}");
    }
    let header = std::fs::read_to_string(folder.join("genes.csv")).expect("reads");
    assert!(header.starts_with("gene0,gene1,gene2,"), "{}", &header[..40]);

    // What was written is a start again, in either form, also for the model alone.
    std::fs::create_dir(folder.join("alone")).expect("made");
    for file in ["model.safetensors", "loadings.safetensors"] {
        std::fs::copy(folder.join("runs/run").join(file), folder.join("alone").join(file)).expect("copied");
    }
    for (model, from, out) in [
        ("runs/run", "genes.csv", "a.npz"),
        ("runs/run", "scores.csv", "b.npz"),
        ("alone/model.safetensors", "genes.csv", "c.npz"),
    ] {
        succeeds(&folder, &["sample", model, "--from", from, "--t0", "1", "--t1", "2", "--out", out, "--decode"]);
        let read = read_points(&of_run(&folder.join(out), &components), &()).expect("reads");
        assert_eq!((read.dim, read.rows.len()), (2, 60), "{out}");
    }
    succeeds(&folder, &["evaluate", "runs/run", "--points", "20"]);
    succeeds(&folder, &["evaluate", "alone/model.safetensors", "data.csv", "--points", "20"]);
    fails(
        &folder,
        &["sample", "runs/run", "--from", "gaussian", "-n", "100000000000", "--out", "d.npz", "--decode"],
        &["takes ", "bytes"],
    );
    fails(
        &folder,
        &["sample", "runs/run", "--from", "data.csv", "--out", "alone/loadings.safetensors", "--force"],
        &["holds the loadings of a model"],
    );

    // With its own components a run goes on as if it had never stopped.
    let model = std::fs::read(folder.join("runs/run/model.safetensors")).expect("reads");
    let two =
        [&["train", "run.toml", "--out", "runs/two"][..], &SMALL, &["--set", "output.checkpoint_every=30"]].concat();
    succeeds(&folder, &two);
    std::fs::remove_file(folder.join("runs/two/checkpoints/step-0000000060.safetensors")).expect("removed");
    let said = text(&amatch(&folder, &[&two[..], &["--resume"]].concat()).stderr);
    assert!(said.contains("steps 30 to 60"), "{said}");
    assert!(std::fs::read(folder.join("runs/two/model.safetensors")).expect("reads") == model);
    fails(
        &folder,
        &[&["train", "run.toml", "--resume", "--set", "data.components=3"][..], &SMALL].concat(),
        &["data.components was 2 and is 3"],
    );

    std::fs::remove_file(&loadings).expect("removed");
    fails(
        &folder,
        &["sample", "runs/run", "--from", "snapshot:0", "--out", "e.npz"],
        &["loadings.safetensors: path: does not exist, but the model was trained on 2 components", "copy it from"],
    );
    succeeds(&folder, &["sample", "runs/run", "--from", "gaussian", "-n", "10", "--out", "e.npz"]);
    succeeds(&folder, &[&["train", "run.toml", "--resume"][..], &SMALL].concat());
    assert_eq!(Components::load(&loadings).expect("is there again"), components);
    succeeds(&folder, &[&["train", "run.toml", "--force", "--set", "data.components=1"][..], &SMALL].concat());
    let single = Components::load(&loadings).expect("loads");
    assert_eq!(single.count(), 1);

    // Without a checkpoint nothing shows that the data are still the same: the fit is a new one.
    let (times, rows) = values(6, 3, 30, WIDE);
    std::fs::write(folder.join("data.csv"), table(&times, &rows, WIDE)).expect("written");
    let resume = [&["train", "run.toml", "--resume", "--set", "data.components=1"][..], &SMALL].concat();
    fails(&folder, &resume, &["the run in this folder had other data"]);
    std::fs::remove_dir_all(folder.join("runs/run/checkpoints")).expect("removed");
    succeeds(&folder, &resume);
    assert_ne!(Components::load(&loadings).expect("loads"), single);
}

fn of_run(path: &Path, components: &Components) -> DataSource {
    given(path, &Arc::new(components.clone()))
}

#[test]
fn a_model_of_columns_has_nothing_to_decode() {
    let (_guard, folder) = crate::cli::trained();
    fails(
        &folder,
        &["sample", "runs/run", "--from", "snapshot:0", "--out", "a.csv", "--decode"],
        &["--decode: the model was not trained on components"],
    );
}

/// Two components of three columns, as a program of somebody else may write them.
fn valid() -> (Vec<Stored>, Value) {
    let tensors = vec![
        Stored::f32("loadings", &[2, 3], &[0.6, 0.8, 0.0, 0.8, -0.6, 0.0]),
        Stored::f64("mean", &[3], &[1.0, 2.0, 3.0]),
        Stored::f64("variance", &[2], &[4.0, 1.0]),
    ];
    (tensors, json!({"version": 1, "total_variance": 5.5, "columns": ["a", "b", "c"]}))
}

#[test]
fn a_file_of_loadings_is_read_as_documented_and_its_defects_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("loadings.safetensors");
    let read = |tensors: &[Stored], metadata: &Value| {
        files::write(&path, tensors, HashMap::from([("components".to_string(), metadata.to_string())]));
        Components::load(&path)
    };
    let (tensors, metadata) = valid();
    let components = read(&tensors, &metadata).expect("is valid");
    assert_eq!((components.count(), components.n_columns(), components.kept()), (2, 3, 5.0 / 5.5));
    let stage = Stage::default();
    assert_eq!(components.project(&[2.0, 2.0, 9.0], &stage).expect("projects"), [0.6, 0.8]);
    assert_eq!(components.decode(&[5.0, 0.0], &stage).expect("decodes"), [4.0, 6.0, 3.0]);
    components.save(&path).expect("saves");
    assert_eq!(Components::load(&path).expect("loads"), components);

    let with = |name: &str, tensor: Stored| {
        let others = tensors.iter().filter(|tensor| tensor.name != name).cloned();
        others.chain([tensor]).collect::<Vec<_>>()
    };
    let changed = |key: &str, value: Value| {
        let mut metadata = metadata.clone();
        metadata[key] = value;
        metadata
    };
    let nan = f32::NAN;
    for (tensors, metadata, wanted) in [
        (tensors.clone(), changed("version", json!(2)), "components: version: is 2 (this program reads version 1"),
        (tensors.clone(), changed("total_variance", json!("x")), "components: total_variance: "),
        (
            tensors.clone(),
            changed("total_variance", json!(4.5)),
            "total_variance: is 4.5e0, but the components have 5e0",
        ),
        (tensors.clone(), changed("columns", json!(["a", "b"])), "columns: has 2 names for 3 columns"),
        (tensors[..2].to_vec(), metadata.clone(), "variance: there is no such tensor"),
        (with("x", Stored::f32("x", &[1], &[0.0])), metadata.clone(), "x: does not belong to components"),
        (
            with("loadings", Stored::f32("loadings", &[3], &[1.0, 0.0, 0.0])),
            metadata.clone(),
            "loadings: has shape [3]",
        ),
        (with("loadings", Stored::f32("loadings", &[0, 3], &[])), metadata.clone(), "loadings: has shape [0, 3]"),
        (
            with("loadings", Stored::f32("loadings", &[2, 1], &[1.0, 0.0])),
            metadata.clone(),
            "loadings: has shape [2, 1]",
        ),
        (
            with("loadings", Stored::f32("loadings", &[2, 3], &[nan; 6])),
            metadata.clone(),
            "loadings: holds NaN at element 0",
        ),
        (
            with("loadings", Stored::f32("loadings", &[2, 3], &[0.6, 0.8, 0.0, 0.8, -0.7, 0.0])),
            metadata.clone(),
            "loadings: row 1, counted from 0, has length 1.06",
        ),
        (
            with("mean", Stored::f64("mean", &[2], &[1.0, 2.0])),
            metadata.clone(),
            "mean: has shape [2] (store it with shape [3])",
        ),
        (with("mean", Stored::f64("mean", &[3], &[1.0, 2.0, 1e31])), metadata.clone(), "mean: contains 1e31"),
        (with("variance", Stored::f64("variance", &[2], &[4.0, -1.0])), metadata.clone(), "variance: contains -1e0"),
    ] {
        let message = read(&tensors, &metadata).expect_err("is not valid").to_string();
        assert!(message.contains("loadings.safetensors") && message.contains(wanted), "{message}, not {wanted}");
    }
    files::write(&path, &tensors, HashMap::new());
    let message = Components::load(&path).expect_err("is not valid").to_string();
    assert!(message.contains("these are no loadings of components"), "{message}");
    assert!(components.project(&[1.0; 4], &stage).is_err() && components.decode(&[1.0; 3], &stage).is_err());
}
