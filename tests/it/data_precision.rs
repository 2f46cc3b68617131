//! Digits of samples and times that 32 bits cannot hold, values that ruin a scale, and times that
//! differ by rounding.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::data_support::{f32s, npy, npz};
use action_matching::data::{DataSource, Loaded, Standardization, load, read_snapshots};
use zip::CompressionMethod;

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn archive(folder: &Path, name: &str, samples: Vec<u8>, times: Vec<u8>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, npz(&[("samples", samples), ("times", times)], CompressionMethod::Stored)).expect("written");
    path
}

const N: usize = 600;

/// Numbers of [0, 1), rank-1 lattice.
fn fraction(k: usize, step: f64) -> f64 {
    (k as f64 * step).fract()
}

/// Two columns of spread about 0.3 around `center`, two times.
fn around(center: [f64; 2]) -> Vec<f64> {
    (0..N).flat_map(|k| [center[0] + fraction(k, 0.618_033_9), center[1] - fraction(k, 0.414_213_6)]).collect()
}

fn two_times() -> Vec<u8> {
    npy("|u1", false, &[N], &(0..N).map(|k| (k * 2 / N) as u8).collect::<Vec<_>>())
}

fn assert_same(name: &str, got: &Loaded, want: &Loaded, center: [f64; 2], tolerance: f64) {
    for (y, z) in got.training.samples.iter().zip(&want.training.samples) {
        assert!(f64::from((y - z).abs()) < tolerance, "{name}: {y}, not {z}");
    }
    let [a, b] = [got, want].map(|loaded| &loaded.coordinates);
    for (i, center) in center.into_iter().enumerate() {
        assert!((a.mean[i] - center - b.mean[i]).abs() < tolerance, "{name}: mean {}", a.mean[i]);
        assert!((a.scale[i] / b.scale[i] - 1.0).abs() < tolerance, "{name}: scale {}", a.scale[i]);
    }
}

/// Integers beyond 2⁵³, which f64 rounds, and numbers that f32 rounds to 0 are refused; those that
/// f64 and f32 hold are not.
#[test]
fn what_would_be_rounded_away_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let try_load = |samples: Vec<u8>| {
        let path = archive(folder.path(), "data.npz", samples, two_times());
        load(&DataSource::new(path), &()).map(|loaded| loaded.coordinates)
    };
    let integers = |offset: i64| {
        let bytes: Vec<u8> = (0..2 * N as i64).flat_map(|k| (offset + k % 97).to_le_bytes()).collect();
        npy("<i8", false, &[N, 2], &bytes)
    };
    try_load(integers(1 << 52)).expect("loads");
    let message = try_load(integers(1 << 60)).unwrap_err().to_string();
    assert!(message.contains("row 0, column 0") && message.contains("subtract a common offset"), "{message}");
    let scaled = |scale: f64| {
        let values: Vec<f64> = around([0.0; 2]).into_iter().map(|x| scale * x).collect();
        npy("<f8", false, &[N, 2], &f64s(&values))
    };
    try_load(scaled(1e-25)).expect("loads");
    for scale in [1e-40, 1e-300] {
        let message = try_load(scaled(scale)).unwrap_err().to_string();
        assert!(message.contains("too small for 32-bit floats (rescale the data)"), "{message}");
    }
    let text: String = (0..N).map(|k| format!("{},{:e}\n", k % 2, 1e-300 * fraction(k, 0.3))).collect();
    let path = folder.path().join("tiny.csv");
    fs::write(&path, format!("times,x\n{text}")).expect("written");
    assert!(load(&DataSource::new(path), &()).unwrap_err().to_string().contains("too small"));
}

/// Around 10⁸ the spacing of f32 is 8, sixteen times the spread.
#[test]
fn data_far_from_0_are_the_same_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let center = [1e8, -3e7];
    let far = around(center);
    let fortran: Vec<f64> = (0..2).flat_map(|j| far.iter().skip(j).step_by(2).copied()).collect();
    let text: String = far.chunks(2).enumerate().map(|(k, x)| format!("{},{},{}\n", k * 2 / N, x[0], x[1])).collect();
    fs::write(folder.path().join("far.csv"), format!("times,x,y\n{text}")).expect("written");
    for standardize in [Standardization::Isotropic, Standardization::PerDimension, Standardization::Robust] {
        let read = |path: PathBuf| load(&DataSource { standardize, ..DataSource::new(path) }, &()).expect("loads");
        let near = npy("<f8", false, &[N, 2], &f64s(&around([0.0; 2])));
        let near = read(archive(folder.path(), "near.npz", near, two_times()));
        let c_order = npy("<f8", false, &[N, 2], &f64s(&far));
        let fortran = npy("<f8", true, &[N, 2], &f64s(&fortran));
        // The input itself is rounded to 1.5e-8.
        for (name, got) in [
            ("C order", read(archive(folder.path(), "far.npz", c_order, two_times()))),
            ("Fortran order", read(archive(folder.path(), "fortran.npz", fortran, two_times()))),
            ("table", read(folder.path().join("far.csv"))),
        ] {
            assert_same(&format!("{name}, {standardize:?}"), &got, &near, center, 1e-6);
        }
    }
    // 64-bit integers too: numbers that differ in the last of ten digits.
    let integers: Vec<i64> = (0..N).map(|k| 9_000_000_000 + (k % 7) as i64).collect();
    let bytes: Vec<u8> = integers.iter().flat_map(|x| x.to_be_bytes()).collect();
    let path = archive(folder.path(), "integers.npz", npy(">i8", false, &[N, 1], &bytes), two_times());
    let data = read_snapshots(&DataSource::new(path), &()).expect("reads");
    let back: Vec<i64> = (0..2).flat_map(|k| data.positions(k)).map(|x| x.round() as i64).collect();
    assert_eq!(back, integers);
}

/// The origin is the center of the training rows, wherever the held-out rows are.
#[test]
fn held_out_rows_far_away_cost_the_others_no_digits() {
    let folder = tempfile::tempdir().expect("a folder");
    let times: Vec<u8> = (0..N).map(|k| [0, 1, 2][k % 3]).collect();
    let samples = |far: f64| -> Vec<f64> {
        (0..N).map(|k| if k % 3 == 1 { far * 1e3 } else { far + fraction(k, 0.618_033_9) }).collect()
    };
    let read = |name: &str, far: f64| {
        let samples = npy("<f8", false, &[N, 1], &f64s(&samples(far)));
        let path = archive(folder.path(), name, samples, npy("|u1", false, &[N], &times));
        load(&DataSource { hold_out: vec![1.0].into(), ..DataSource::new(path) }, &()).expect("loads").training.samples
    };
    for (y, z) in read("far.npz", 1e7).iter().zip(&read("near.npz", 0.0)) {
        assert!((y - z).abs() < 1e-6, "{y}, not {z}");
    }
}

/// Held-out rows decide no bit of what is trained on, not even by the value that is subtracted
/// before f64 is rounded to f32.
#[test]
fn held_out_rows_decide_no_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let value = |k: usize, held: f64| {
        if k % 3 == 1 { held + 0.1 * k as f64 } else { 1e5 + fraction(k, 0.618_033_9) }
    };
    let read = |name: &str| {
        let source = DataSource { hold_out: vec![1.0].into(), ..DataSource::new(folder.path().join(name)) };
        let loaded = load(&source, &()).expect("loads");
        (loaded.training, loaded.coordinates)
    };
    let times: Vec<u8> = (0..N).map(|k| [0, 1, 2][k % 3]).collect();
    for fortran in [false, true] {
        let [a, b] = [("a.npz", 3.0), ("b.npz", -7e4)].map(|(name, held)| {
            let samples = f64s(&(0..N).map(|k| value(k, held)).collect::<Vec<_>>());
            archive(folder.path(), name, npy("<f8", fortran, &[N, 1], &samples), npy("|u1", false, &[N], &times));
            read(name)
        });
        assert!(a == b, "arrays");
    }
    let [a, b] = [("a.csv", 3.0), ("b.csv", -7e4)].map(|(name, held)| {
        let rows: String = (0..N).map(|k| format!("{},{}\n", k % 3, value(k, held))).collect();
        std::fs::write(folder.path().join(name), format!("times,x\n{rows}")).expect("written");
        read(name)
    });
    assert!(a.0 == b.0 && a.1.mean == b.1.mean && a.1.scale == b.1.scale, "tables");
}

/// In a small table a value that is far out widens the scale so much that it seems near.
#[test]
fn a_far_value_among_few_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |far: f64, standardize| {
        let rows = (0..30).map(|k| {
            let x = if k == 17 { far } else { fraction(k, 0.618_033_9) };
            // A column that is 0 but for one row is none.
            format!("{},{x},{},{}\n", k % 2, fraction(k, 0.414_213_5), usize::from(k == 4))
        });
        std::fs::write(folder.path().join("a.csv"), format!("times,x,y,is4\n{}", rows.collect::<String>()))
            .expect("written");
        load(&DataSource { standardize, ..DataSource::new(folder.path().join("a.csv")) }, &()).expect("loads").warnings
    };
    for standardize in [Standardization::Isotropic, Standardization::PerDimension] {
        assert!(read(0.5, standardize).is_empty());
        let warnings = read(100.0, standardize);
        let wanted = ["1 value lies more than 20 scales of all others", "row 17 (counted from 0), column x", "robust"];
        assert!(warnings.len() == 1 && wanted.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    }
}

/// A column that is constant except for the last digit of some rows would become a full dimension.
#[test]
fn constant_up_to_rounding_is_constant() {
    let folder = tempfile::tempdir().expect("a folder");
    let one_off = |x: f64, next: f64| -> Vec<f64> {
        around([0.0; 2]).chunks(2).enumerate().flat_map(|(k, row)| [row[0], if k == 77 { next } else { x }]).collect()
    };
    let wide = one_off(14.62, 14.62f64.next_up());
    let narrow: Vec<f32> = one_off(14.62, f64::from(14.62f32.next_up())).iter().map(|&x| x as f32).collect();
    for (name, samples) in
        [("f8", npy("<f8", false, &[N, 2], &f64s(&wide))), ("f4", npy("<f4", false, &[N, 2], &f32s(&narrow)))]
    {
        let path = archive(folder.path(), &format!("{name}.npz"), samples, two_times());
        for standardize in [Standardization::PerDimension, Standardization::Robust] {
            let loaded = load(&DataSource { standardize, ..DataSource::new(&path) }, &()).expect("loads");
            assert_eq!(loaded.coordinates.scale[1], 1.0, "{name} {standardize:?}");
            assert!(
                loaded.warnings.iter().any(|w| w.contains("without spread keep scale 1: 1")),
                "{:?}",
                loaded.warnings
            );
            assert!(loaded.training.samples.iter().all(|y| y.abs() < 4.0), "{name}");
        }
    }
    // In f64 a difference of one f32 step is an ordinary difference.
    let step = npy("<f8", false, &[N, 2], &f64s(&one_off(14.62, f64::from(14.62f32.next_up()))));
    let path = archive(folder.path(), "step.npz", step, two_times());
    let source = DataSource { standardize: Standardization::PerDimension, ..DataSource::new(path) };
    assert!(load(&source, &()).expect("loads").coordinates.scale[1] < 1e-5);
}

#[test]
fn a_value_that_ruins_the_scale_is_named_and_robust_withstands_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let clean = around([5.0, 7.0]);
    let mut spoiled = clean.clone();
    // Row 401 of the file, in which rows of two times alternate.
    spoiled[2 * 401 + 1] = 3000.0;
    let alternating = || npy("|u1", false, &[N], &(0..N).map(|k| (k % 2) as u8).collect::<Vec<_>>());
    let read = |name: &str, values: &[f64], standardize| {
        let path = archive(folder.path(), name, npy("<f8", false, &[N, 2], &f64s(values)), alternating());
        load(&DataSource { standardize, ..DataSource::new(path) }, &()).expect("loads")
    };
    for standardize in [Standardization::Isotropic, Standardization::PerDimension] {
        assert!(read("clean.npz", &clean, standardize).warnings.is_empty());
        let warnings = read("spoiled.npz", &spoiled, standardize).warnings;
        let wanted = ["1 value lies more than 20", "row 401 (counted from 0), column 1", "\"robust\""];
        assert!(wanted.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    }
    let [clean, spoiled] = [("clean.npz", clean), ("spoiled.npz", spoiled)]
        .map(|(name, values)| read(name, &values, Standardization::Robust).coordinates);
    for i in 0..2 {
        // Uniform on an interval of length 1: quartiles half apart.
        assert!((clean.scale[i] - 0.5 / 1.349).abs() < 0.01, "{}", clean.scale[i]);
        assert!(
            (spoiled.scale[i] / clean.scale[i] - 1.0).abs() < 0.01 && (spoiled.mean[i] - clean.mean[i]).abs() < 0.01
        );
    }
}

#[test]
fn times_a_rounding_apart_are_one_snapshot() {
    let folder = tempfile::tempdir().expect("a folder");
    let sum: f32 = (0..7).map(|_| 0.1f32).sum();
    assert_ne!(sum, 0.7);
    let times: Vec<f32> = (0..N).map(|k| [0.0, 0.7, 1.0, sum, 0.7][k % 5]).collect();
    let samples = || npy("<f8", false, &[N, 2], &f64s(&around([0.0; 2])));
    let path = archive(folder.path(), "cells.npz", samples(), npy("<f4", false, &[N], &f32s(&times)));
    let data = read_snapshots(&DataSource::new(&path), &()).expect("reads");
    assert_eq!((data.snapshots.times.as_slice(), data.snapshots.n_rows(1)), (&[0.0, 0.7, 1.0][..], 3 * N / 5));
    let wanted = ["cells.npz", "taken for one", &format!("0.7 and {sum} as 0.7")];
    assert!(wanted.iter().all(|part| data.warnings[0].contains(part)), "{:?}", data.warnings);
    for hold_out in [0.7, f64::from(sum), f64::from(0.7f32), 0.700_000_3] {
        let source = DataSource { hold_out: vec![hold_out].into(), ..DataSource::new(&path) };
        let loaded = load(&source, &()).expect("loads");
        assert_eq!((loaded.training.samples.len(), loaded.held_out.samples.len()), (4 * N / 5, 6 * N / 5));
    }
    let far = DataSource { hold_out: vec![0.70001].into(), ..DataSource::new(&path) };
    assert!(load(&far, &()).expect_err("refused").to_string().contains("0.70001 is not one of the times 0, 0.7, 1"));
}

/// Unix seconds and map coordinates survive from input to output.
#[test]
fn the_program_keeps_the_digits_of_times_and_positions() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    let center = [1e8, -3e7];
    let times: Vec<f64> = (0..N).map(|k| 1.7e9 + 30.0 * (k % 3) as f64).collect();
    let samples = npy("<f8", false, &[N, 2], &f64s(&around(center)));
    archive(folder, "data.npz", samples, npy("<f8", false, &[N], &f64s(&times)));
    fs::write(folder.join("run.toml"), "[data]\npath = \"data.npz\"\n").expect("written");
    let said = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
        command.args(arguments).current_dir(folder).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "");
        let output = command.output().expect("the program starts");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let small = ["--set", "training.steps=3", "--set", "model.hidden=[8]", "--set", "training.warmup_steps=1"];
    said(&[&["train", "run.toml"][..], &small].concat());
    let at = ["1700000000", "1700000030", "1700000060"];
    said(&[&["sample", "runs/run", "--from", "snapshot:1700000000", "--out", "p.npz", "--save-at"][..], &at].concat());
    let paths = read_snapshots(&DataSource::new(folder.join("p.npz")), &()).expect("reads");
    assert_eq!(paths.snapshots.times, [1.7e9, 1.70000003e9, 1.70000006e9]);
    let data = read_snapshots(&DataSource::new(folder.join("data.npz")), &()).expect("reads");
    for (got, want) in paths.positions(0).iter().zip(data.positions(0)) {
        assert!((got - want).abs() < 1e-6, "{got}, not {want}");
    }
    let inspected = said(&["inspect", "p.npz"]);
    assert!(inspected.contains("time 1700000030: ") && inspected.contains("array samples: <f8"), "{inspected}");
    // The score of no motion is the distance of two snapshots of the same law, not of grids with
    // spacing 8.
    said(&["evaluate", "runs/run", "--json", "scores.json", "--points", "200"]);
    let scores = fs::read_to_string(folder.join("scores.json")).expect("readable");
    let scores: serde_json::Value = serde_json::from_str(&scores).expect("JSON");
    let w1 = scores["comparisons"][0]["no_motion"]["w1"].as_f64().expect("a number");
    assert!(w1 < 0.1, "{w1}");
}

#[test]
fn f32_times_read_and_print_as_decimals() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    let times: Vec<f32> = (0..N).map(|k| [0.0, 0.8, 7.2][k % 3]).collect();
    let samples: Vec<f32> = around([0.0; 2]).iter().map(|&x| x as f32).collect();
    let samples = npy("<f4", false, &[N, 2], &f32s(&samples));
    let path = archive(folder, "data.npz", samples, npy("<f4", false, &[N], &f32s(&times)));
    let loaded = load(&DataSource { hold_out: vec![0.8].into(), ..DataSource::new(path) }, &()).expect("loads");
    assert_eq!(loaded.coordinates.time_range, [0.0, 7.2]);
    // A model written by an earlier program ends exactly at the f32.
    let mut model = crate::common::model(
        2,
        &[8],
        action_matching::model::Activation::Silu,
        action_matching::model::Head::Scalar,
        action_matching::model::TimeEmbedding::Raw,
        Default::default(),
    );
    model.coordinates.time_range = [0.0, f64::from(7.2f32)];
    model.save(&folder.join("old.safetensors")).expect("saves");
    let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
    let arguments = ["sample", "old.safetensors", "--from", "snapshot:7.2", "--data", "data.npz", "--t1", "0.8"];
    command.args(arguments).args(["--out", "p.csv", "-n", "3"]).current_dir(folder).env("CUDA_VISIBLE_DEVICES", "");
    let output = command.env_remove("LD_LIBRARY_PATH").output().expect("the program starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !message.contains("lies outside"), "{message}");
    let written = fs::read_to_string(folder.join("p.csv")).expect("readable");
    assert!(written.lines().skip(1).all(|line| line.ends_with(",0.8")), "{written}");
}
