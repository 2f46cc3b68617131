//! Weights of rows, and growth rates known before: how they are read, and that whatever follows
//! counts rows by them.

use std::fs;
use std::path::{Path, PathBuf};

use action_matching::data::{
    DataSource, HoldOut, PointArray, RowShare, Standardization, load, read_points, read_snapshots, write_points,
};
use action_matching::prelude::*;
use zip::CompressionMethod;

use super::cli::{amatch, succeeds, text};
use super::data_support::{f32s, npy, npz, safetensors};

const N: usize = 40;

/// Row i at time i mod 3 in units of 2, with a weight and a rate of its own.
fn row(i: usize) -> (f32, f32, f32, f32) {
    (2.0 * (i % 3) as f32, i as f32, [0.5, 0.0, 2.0, 1.5, 3.0][i % 5], i as f32 / 8.0 - 1.0)
}

fn source(path: impl Into<PathBuf>) -> DataSource {
    let named = |name: &str| Some(name.to_owned());
    DataSource { weights: named("weight"), growth: named("rate"), ..DataSource::new(path) }
}

fn table(folder: &Path) -> PathBuf {
    let line = |i: usize| {
        let (time, x, weight, rate) = row(i);
        format!("{time},{weight},{x},{rate}\n")
    };
    let path = folder.join("cells.csv");
    fs::write(&path, format!("times,weight,x,rate\n{}", (0..N).map(line).collect::<String>())).expect("written");
    path
}

/// Every format, in whatever order the rows are, held out or not: weights stay with their rows,
/// rates are per unit of the time of the snapshots, and neither is a sample.
#[test]
fn weights_and_rates_stay_with_their_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let column = |of: fn((f32, f32, f32, f32)) -> f32| f32s(&(0..N).map(|i| of(row(i))).collect::<Vec<_>>());
    let columns: [(&str, Vec<u8>); 4] = [
        ("times", column(|row| row.0)),
        ("samples", column(|row| row.1)),
        ("weight", column(|row| row.2)),
        ("rate", column(|row| row.3)),
    ];
    let arrays: Vec<(&str, Vec<u8>)> =
        columns.iter().map(|(name, data)| (*name, npy("<f4", false, &[N], data))).collect();
    let (zip, tensors) = (folder.path().join("cells.npz"), folder.path().join("cells.safetensors"));
    fs::write(&zip, npz(&arrays, CompressionMethod::Deflated)).expect("written");
    let list: Vec<_> = columns.iter().map(|(name, data)| (*name, "F32", &[N][..], data.clone())).collect();
    fs::write(&tensors, safetensors(&list)).expect("written");

    for path in [table(folder.path()), zip, tensors] {
        let data = read_snapshots(&source(&path), &()).expect("reads").snapshots;
        assert_eq!((data.dim, data.times.len()), (1, 3), "{}", path.display());
        let hold_out = HoldOut::Share(RowShare { share: 0.3, seed: 1 });
        let loaded = load(&DataSource { hold_out, ..source(&path) }, &()).expect("loads");
        assert_eq!(loaded.coordinates.time_range, [0.0, 4.0]);
        let center = f64::from(loaded.coordinates.mean[0] as f32);
        let mut seen = 0;
        for (snapshots, unit, [mean, scale]) in [
            (&data, 1.0, [0.0, 1.0]),
            (&loaded.training, 4.0, [loaded.coordinates.mean[0], loaded.coordinates.scale[0]]),
            (&loaded.held_out, 4.0, [loaded.coordinates.mean[0], loaded.coordinates.scale[0]]),
        ] {
            for k in 0..snapshots.times.len() {
                let (weights, rates) = (snapshots.weights(k).expect("weights"), snapshots.growth(k).expect("rates"));
                for ((x, weight), rate) in snapshots.rows(k).iter().zip(weights).zip(rates) {
                    let (_, _, wanted, wanted_rate) = row((f64::from(*x) * scale + mean).round() as usize);
                    assert_eq!((*weight, *rate), (f64::from(wanted), unit * f64::from(wanted_rate)), "{center}");
                    seen += 1;
                }
                let total: f64 = weights.iter().sum();
                assert_eq!(snapshots.total(k), total);
            }
        }
        assert_eq!(seen, 2 * N);
        let points = read_points(&source(&path), &()).expect("reads");
        assert_eq!((points.dim, points.rows.len()), (1, N));
    }
}

#[test]
fn weights_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let message = |content: &str, weights: &str| {
        let path = folder.path().join("cells.csv");
        fs::write(&path, content).expect("written");
        let source = DataSource { weights: Some(weights.into()), ..DataSource::new(path) };
        load(&source, &()).map(|loaded| loaded.warnings.join("\n")).unwrap_or_else(|error| error.to_string())
    };
    for (content, weights, wanted) in [
        ("times,x,w\n0,1,1\n1,2,-1\n", "w", "w: row 1 (counted from 0) is -1 (give finite weights, 0 or more"),
        ("times,x,w\n0,1,1\n1,2,nan\n", "w", "w: row 1 (counted from 0) is NaN"),
        ("times,x,w\n0,1,1\n1,2,\n", "w", "w: is empty in row 1 (counted from 0)"),
        ("times,x,w\n0,1,1\n7,2,0\n", "w", "w: is 0 in every row of time 7 (give a row of each time a weight"),
        ("times,x,w\n0,1,1\n1,2,1\n", "v", "v: no such column of weights (set data.weights to one of its columns"),
    ] {
        let said = message(content, weights);
        assert!(said.contains(wanted), "{said}, not {wanted}");
    }
    let rows: String = (0..100).map(|i| format!("{},{i},{}\n", i % 2, if i < 2 { 1000 } else { 1 })).collect();
    let said = message(&format!("times,x,w\n{rows}"), "w");
    assert!(said.contains("those of time 0 count as 1 equal ones of 50"), "{said}");

    let path = folder.path().join("x.npy");
    fs::write(&path, npy("<f4", false, &[4], &f32s(&[1.0; 4]))).expect("written");
    let pair = DataSource { times_path: Some(path.clone()), ..source(&path) };
    let error = load(&pair, &()).expect_err("one array").to_string();
    assert!(error.contains("weight: is no array of a .npy file"), "{error}");
    let path = folder.path().join("x.npz");
    let arrays = ["times", "samples"].map(|name| (name, npy("<f4", false, &[4], &f32s(&[0.0, 0.0, 1.0, 1.0]))));
    let short = [("weight", npy("<f4", false, &[3], &f32s(&[1.0; 3])))];
    fs::write(&path, npz(&[&arrays[..], &short].concat(), CompressionMethod::Stored)).expect("written");
    let error = load(&DataSource { growth: None, ..source(&path) }, &()).expect_err("is short").to_string();
    assert!(error.contains("weight: has shape [3, 1], but there are 4 rows"), "{error}");
}

/// A row of weight 3 counts as three rows, one of weight 0 as none, for center and scale.
#[test]
fn weighted_rows_are_standardized_as_repeated_ones() {
    let x: Vec<f32> = (0..30).map(|i| ((i * 7 % 30) as f32 - 11.0).powi(3)).collect();
    let weights: Vec<f64> = (0..30).map(|i| f64::from(i % 4)).collect();
    let repeated: Vec<f32> = x.iter().zip(&weights).flat_map(|(&x, &w)| vec![x; w as usize]).collect();
    let two = |rows: &[f32]| Snapshots::from_rows(1, [(0.0, rows.to_vec()), (1.0, rows.to_vec())]).expect("snapshots");
    for rule in [Standardization::Isotropic, Standardization::PerDimension] {
        let weighted = two(&x).weighted([&weights[..], &weights].concat()).expect("weights");
        let (_, got) = weighted.standardize(rule).expect("standardizes");
        let (_, want) = two(&repeated).standardize(rule).expect("standardizes");
        assert!((got.mean[0] / want.mean[0] - 1.0).abs() < 1e-12, "{got:?}, not {want:?}");
        assert!((got.scale[0] / want.scale[0] - 1.0).abs() < 1e-12, "{got:?}, not {want:?}");
    }
    // The unit of the weights of a snapshot is its mass, and changes nothing else.
    let scaled = [weights.clone(), weights.iter().map(|weight| 1e6 * weight).collect()].concat();
    let (scaled, got) = two(&x).weighted(scaled).expect("weights").standardize(Standardization::Isotropic).expect("is");
    let (_, want) = two(&repeated).standardize(Standardization::Isotropic).expect("standardizes");
    assert!(
        (got.scale[0] / want.scale[0] - 1.0).abs() < 1e-12 && (scaled.total(1) / scaled.total(0) - 1e6).abs() < 1.0
    );
}

/// Rows that have nearly no weight are far away: they count in no score of particles that carry
/// the logarithms of their weights, whatever format they are in.
#[test]
fn written_weights_count_when_particles_are_evaluated() {
    let (_guard, folder) = super::cli::trained();
    let mut csv = String::from("times,x,y,log_weights\n");
    for time in 0..2 {
        for i in 0..40 {
            let (x, weight) = if i % 2 == 0 { (f64::from(time), 0.5) } else { (f64::from(time) * 1e3, -300.0) };
            csv += &format!("{time},{x},{},{weight}\n", f64::from(i) / 40.0);
        }
    }
    fs::write(folder.join("moved.csv"), &csv).expect("written");
    let points = read_points(&DataSource { samples: "x,y".into(), ..DataSource::new(folder.join("moved.csv")) }, &());
    let positions = points.expect("reads").positions();
    let column =
        |k: usize| csv.lines().skip(1).map(move |line| line.split(',').nth(k).unwrap().parse::<f64>().unwrap());
    let [times, log_weights] = [0, 3].map(|k| column(k).collect::<Vec<f64>>());
    let arrays = [
        PointArray::new("samples", Some(2), &positions[..]),
        PointArray::new("times", None, &times[..]),
        PointArray::new("log_weights", None, &log_weights[..]),
    ];
    for name in ["moved.npz", "moved.h5ad", "moved.safetensors"] {
        write_points(&*folder.join(name), &arrays).expect(name);
    }
    for name in ["moved.csv", "moved.npz", "moved.h5ad", "moved.safetensors"] {
        let output = amatch(&folder, &["evaluate", "runs/run", name, "--json", "scores.json"]);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("its rows count by exp(log_weights)"), "{name}: {said}");
        let scores = fs::read(folder.join("scores.json")).expect("scores");
        let scores: serde_json::Value = serde_json::from_slice(&scores).expect("JSON");
        let w1 = scores["comparisons"][0]["no_motion"]["w1"].as_f64().expect("a distance");
        assert!((w1 - 1.0).abs() < 0.2, "{name}: {w1}");
    }
}

/// Two clouds that part, of which one has nearly all the weight at first and half of it in the end:
/// training, test, evaluation, samples and validation of the program see weighted rows.
#[test]
fn the_program_counts_rows_by_their_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let mut csv = String::from("times,w,x\n");
    for (time, upper) in [(0, 9.0), (1, 4.0), (2, 1.0)] {
        for i in 0..60 {
            let spread = 0.3 * (f64::from(i * 17 % 60) / 60.0 - 0.5);
            let x = spread + if i % 2 == 0 { 2.0 } else { -2.0 };
            csv += &format!("{time},{},{x}\n", if i % 2 == 0 { upper } else { 1.0 });
        }
    }
    fs::write(folder.join("cells.csv"), csv).expect("written");
    let config = "[data]\npath = \"cells.csv\"\nweights = \"w\"\n[model]\nhidden = [16, 16]\n[objective]\n\
                  path = \"linear\"\n[training]\nsteps = 100\ninterior_rows = 64\nwarmup_steps = 5\n";
    fs::write(folder.join("run.toml"), config).expect("written");
    let train = |more: &[&str]| amatch(folder, &[&["train", "run.toml", "--device", "cpu"][..], more].concat());
    let output = train(&["--out", "run"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let model = Model::load(&folder.join("run/model.safetensors")).expect("a model");
    // Means of the three snapshots: 1.6, 1.2 and 0.
    assert!((model.coordinates.mean[0] - 2.8 / 3.0).abs() < 0.02, "{:?}", model.coordinates);
    succeeds(folder, &["sample", "run", "--from", "snapshot:0", "-n", "4000", "--save-at", "0", "--out", "start.npz"]);
    let start = read_snapshots(&DataSource::new(folder.join("start.npz")), &()).expect("samples").snapshots;
    let share = start.samples.iter().filter(|x| **x > 0.0).count() as f64 / 4000.0;
    assert!((share - 0.9).abs() < 0.03, "{share}");
    // Standing still is far from the truth only if rows count by their weights: without them all
    // snapshots are the same.
    let report = succeeds(folder, &["evaluate", "run", "--json", "report.json"]);
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("report.json")).expect("a report")).expect("json");
    let w1 = json["comparisons"][1]["no_motion"]["w1"].as_f64().unwrap_or_else(|| panic!("{report}"));
    // 0.3 of the mass moves by 4.
    assert!((w1 - 1.2).abs() < 0.15, "{w1}");
    let validation = succeeds(folder, &["validate", "run.toml", "--set", "training.steps=20", "--threads", "1"]);
    assert!(validation.contains("previous, unmoved"), "{validation}");

    // Weights are part of the data.
    let changed = fs::read_to_string(folder.join("cells.csv")).expect("read").replace("0,9,", "0,8,");
    fs::write(folder.join("cells.csv"), changed).expect("written");
    let refused = text(&train(&["--out", "run", "--resume"]).stderr);
    assert!(refused.contains("other data"), "{refused}");
}
