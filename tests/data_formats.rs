//! Every format, element type, byte order and memory order reads to the same snapshots; what is written is read back.

use std::io::Write;
use std::path::{Path, PathBuf};

use action_matching::data::{DataSource, Standardisation, describe, load, read_points, read_snapshots, write_points};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use zip::write::SimpleFileOptions;

const DIM: usize = 3;
/// Times of the rows, out of order.
const TIMES: [f64; 7] = [2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0];

/// Small integers, so that every element type holds them exactly.
fn value(row: usize, column: usize) -> f64 {
    (row * 5 + column * column) as f64
}

/// `n` elements in file order as the NumPy type `descr` stores them.
fn encode(descr: &str, values: &[f64]) -> Vec<u8> {
    let big = descr.starts_with('>');
    let mut bytes = Vec::new();
    for &value in values {
        let mut element = match &descr[1..] {
            "f2" => f16::from_f64(value).to_le_bytes().to_vec(),
            "f4" => (value as f32).to_le_bytes().to_vec(),
            "f8" => value.to_le_bytes().to_vec(),
            "i1" => (value as i8).to_le_bytes().to_vec(),
            "i2" => (value as i16).to_le_bytes().to_vec(),
            "i4" => (value as i32).to_le_bytes().to_vec(),
            "i8" => (value as i64).to_le_bytes().to_vec(),
            "u1" => vec![value as u8],
            "u2" => (value as u16).to_le_bytes().to_vec(),
            "u4" => (value as u32).to_le_bytes().to_vec(),
            "u8" => (value as u64).to_le_bytes().to_vec(),
            other => panic!("no encoding for {other}"),
        };
        if big {
            element.reverse();
        }
        bytes.extend(element);
    }
    bytes
}

fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn samples_npy(descr: &str, fortran: bool) -> Vec<u8> {
    let n = TIMES.len();
    let values: Vec<f64> = if fortran {
        (0..DIM).flat_map(|column| (0..n).map(move |row| value(row, column))).collect()
    } else {
        (0..n).flat_map(|row| (0..DIM).map(move |column| value(row, column))).collect()
    };
    npy(descr, fortran, &format!("({n}, {DIM})"), &encode(descr, &values))
}

fn npz(path: &Path, method: zip::CompressionMethod, members: &[(&str, Vec<u8>)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).expect("created"));
    for (name, bytes) in members {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("started");
        archive.write_all(bytes).expect("written");
    }
    archive.finish().expect("finished");
}

#[track_caller]
fn reads_right(source: &DataSource) {
    let snapshots = read_snapshots(source).unwrap_or_else(|error| panic!("{source:?}: {error}"));
    assert_eq!(snapshots.dim, DIM);
    assert_eq!(snapshots.times, [0.0, 1.0, 2.0]);
    assert_eq!(snapshots.offsets, [0, 2, 4, 7]);
    let want: Vec<f32> =
        [1, 4, 2, 5, 0, 3, 6].iter().flat_map(|&row| (0..DIM).map(move |column| value(row, column) as f32)).collect();
    assert_eq!(snapshots.samples, want, "{source:?}");
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn every_npy_type_and_order_reads_the_same() {
    let (_guard, folder) = folder();
    let types = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"];
    for kind in types {
        for endian in ["<", ">"] {
            for fortran in [false, true] {
                let descr = format!("{endian}{kind}");
                let times = npy(&descr, false, &format!("({},)", TIMES.len()), &encode(&descr, &TIMES));
                for (file, method) in
                    [("stored.npz", zip::CompressionMethod::Stored), ("deflated.npz", zip::CompressionMethod::Deflated)]
                {
                    let path = folder.join(file);
                    let members = [("samples.npy", samples_npy(&descr, fortran)), ("times.npy", times.clone())];
                    npz(&path, method, &members);
                    reads_right(&DataSource::new(path));
                }
                let (samples_path, times_path) = (folder.join("x.npy"), folder.join("t.npy"));
                std::fs::write(&samples_path, samples_npy(&descr, fortran)).expect("written");
                std::fs::write(&times_path, &times).expect("written");
                reads_right(&DataSource { times_path: Some(times_path), ..DataSource::new(samples_path) });
            }
        }
    }
}

#[test]
fn other_array_names_and_versions_read_the_same() {
    let (_guard, folder) = folder();
    let mut version2 = samples_npy("<f4", false);
    version2[6] = 2;
    let length = u16::from_le_bytes([version2[8], version2[9]]);
    version2.splice(8..10, u32::from(length).to_le_bytes());
    let path = folder.join("data.npz");
    let times = npy("<f8", false, &format!("({}, 1)", TIMES.len()), &encode("<f8", &TIMES));
    npz(&path, zip::CompressionMethod::Stored, &[("day.npy", times), ("cells.npy", version2)]);
    reads_right(&DataSource { samples: "cells".into(), times: "day".into(), ..DataSource::new(path) });
}

#[test]
fn every_safetensors_type_reads_the_same() {
    let (_guard, folder) = folder();
    let path = folder.join("data.safetensors");
    let n = TIMES.len();
    let values: Vec<f64> = (0..n).flat_map(|row| (0..DIM).map(move |column| value(row, column))).collect();
    let half_bytes = |values: &[f64]| values.iter().flat_map(|&v| bf16::from_f64(v).to_le_bytes()).collect();
    for (dtype, descr) in [
        (Dtype::F16, "<f2"),
        (Dtype::BF16, ""),
        (Dtype::F32, "<f4"),
        (Dtype::F64, "<f8"),
        (Dtype::I8, "<i1"),
        (Dtype::I16, "<i2"),
        (Dtype::I32, "<i4"),
        (Dtype::I64, "<i8"),
        (Dtype::U8, "<u1"),
        (Dtype::U16, "<u2"),
        (Dtype::U32, "<u4"),
        (Dtype::U64, "<u8"),
    ] {
        let encode =
            |values: &[f64]| -> Vec<u8> { if descr.is_empty() { half_bytes(values) } else { encode(descr, values) } };
        let (samples, times) = (encode(&values), encode(&TIMES));
        let tensors = [
            ("samples", TensorView::new(dtype, vec![n, DIM], &samples).expect("a view")),
            ("times", TensorView::new(dtype, vec![n], &times).expect("a view")),
        ];
        std::fs::write(&path, safetensors::serialize(tensors, None).expect("serialised")).expect("written");
        reads_right(&DataSource::new(&path));
    }
}

#[test]
fn csv_reads_the_same_whatever_the_columns_are_called() {
    let (_guard, folder) = folder();
    for (header, source) in [
        ("time,x1,x2,x3", DataSource::new("")),
        ("times,a,b,c", DataSource::new("")),
        ("day,a,b,c", DataSource { times: "day".into(), ..DataSource::new("") }),
        ("day,a,b,c", DataSource { times: "day".into(), samples: "a, b, c".into(), ..DataSource::new("") }),
    ] {
        let path = folder.join("data.csv");
        let mut text = format!("# a comment\n{header}\n");
        for (row, time) in TIMES.iter().enumerate() {
            text += &format!("{time}, {}, {},{}\n", value(row, 0), value(row, 1), value(row, 2));
        }
        std::fs::write(&path, text).expect("written");
        reads_right(&DataSource { path, ..source });
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (_guard, folder) = folder();
    let samples: Vec<f32> = (0..TIMES.len() * 2).map(|i| (i as f32).sin() * 1e-3 + i as f32).collect();
    let times: Vec<f32> = TIMES.iter().map(|&t| t as f32).collect();
    for suffix in ["npz", "csv", "safetensors", "npy"] {
        let path = folder.join(format!("out.{suffix}"));
        write_points(&path, 2, &samples, &times).expect("written");
        assert_eq!(read_points(&path, "samples").expect("read"), (2, samples.clone()), "{suffix}");
        if suffix != "npy" {
            assert_eq!(read_snapshots(&DataSource::new(&path)).expect("read").offsets, [0, 2, 4, 7]);
        }
    }
    write_points(&folder.join("none.npz"), 2, &[], &[]).expect("an empty file is written");
    let error = write_points(&folder.join("out.txt"), 2, &samples, &times).expect_err("an error").to_string();
    assert!(error.contains("out.txt") && error.contains(".npz"), "{error}");
}

#[test]
fn standardisation_is_that_of_the_training_rows() {
    let (_guard, folder) = folder();
    let path = folder.join("data.csv");
    let rows = [(0.0, 1.0, 10.0), (0.0, 3.0, 30.0), (5.0, 900.0, 900.0), (10.0, 5.0, -10.0), (10.0, 7.0, 2.0)];
    let text: String = rows.iter().map(|(t, x, y)| format!("{t},{x},{y}\n")).collect();
    std::fs::write(&path, format!("time,x,y\n{text}")).expect("written");
    let source = |standardise| DataSource { hold_out: vec![5.0], standardise, ..DataSource::new(&path) };
    let (var_x, var_y) = (5.0_f64, 212.0_f64); // of 1 3 5 7 and of 10 30 −10 2
    for (standardise, scale) in [
        (Standardisation::PerDimension, [var_x.sqrt(), var_y.sqrt()]),
        (Standardisation::Isotropic, [((var_x + var_y) / 2.0).sqrt(); 2]),
    ] {
        let loaded = load(&source(standardise)).expect("loads");
        assert_eq!(loaded.coordinates.mean, [4.0, 8.0]);
        for (got, want) in loaded.coordinates.scale.iter().zip(scale) {
            assert!((f64::from(*got) / want - 1.0).abs() < 1e-6, "{standardise:?}: {got}, not {want}");
        }
        assert_eq!(loaded.coordinates.time_range, [0.0, 10.0]);
        assert_eq!(loaded.training.times, [0.0, 1.0]);
        assert_eq!(loaded.held_out.times, [0.5]);
        let first = (1.0 - 4.0) / f64::from(loaded.coordinates.scale[0]);
        assert!((f64::from(loaded.training.samples[0]) - first).abs() < 1e-6);
        assert_eq!(loaded.held_out.samples.len(), 2);
    }
    let plain = load(&source(Standardisation::None)).expect("loads");
    assert_eq!(plain.training.samples, [1.0, 10.0, 3.0, 30.0, 5.0, -10.0, 7.0, 2.0]);
    assert_eq!(plain.warnings, Vec::<String>::new());
}

#[test]
fn a_snapshot_of_one_row_and_a_constant_column_are_warnings() {
    let (_guard, folder) = folder();
    let path = folder.join("data.csv");
    std::fs::write(&path, "time,x,y\n0,1,4\n1,2,4\n1,3,4\n").expect("written");
    let source = DataSource { standardise: Standardisation::PerDimension, ..DataSource::new(&path) };
    let warnings = load(&source).expect("loads").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("one row only at time 0") && warnings[1].contains("column 1 never changes"));
}

#[test]
fn the_shipped_examples_describe_themselves() {
    for (file, dim, times) in [("mouse_hematopoiesis.npz", 2, 3), ("emt.npz", 10, 4)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(file);
        let source = DataSource::new(&path);
        let loaded = load(&source).expect("loads");
        assert_eq!((loaded.training.dim, loaded.training.times.len()), (dim, times));
        let text = describe(&source).expect("describes");
        assert!(text.contains("samples") && text.lines().count() >= 3 + times, "{text}");
    }
}
