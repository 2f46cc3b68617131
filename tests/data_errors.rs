//! Bad data: each gives an error that names file, field and fix, and none panics or sets aside memory it has no use for.

use std::io::Write;
use std::path::{Path, PathBuf};

use action_matching::data::{DataSource, describe, load, read_points, read_snapshots};
use action_matching::rng::{Purpose, words};
use zip::write::SimpleFileOptions;

fn npy_with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy_with_header(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn good_samples() -> Vec<u8> {
    npy("<f4", "(4, 2)", &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
}

fn good_times() -> Vec<u8> {
    npy("<f4", "(4,)", &floats(&[0.0, 0.0, 1.0, 1.0]))
}

fn npz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut archive = zip::ZipWriter::new(&mut bytes);
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in members {
        archive.start_file(*name, options).expect("started");
        archive.write_all(content).expect("written");
    }
    archive.finish().expect("finished");
    bytes.into_inner()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }
}

/// `load` fails with a message that holds the file's name and every one of `parts`.
#[track_caller]
fn fails(source: &DataSource, parts: &[&str]) {
    let error = load(source).expect_err("an error").to_string();
    let file = source.path.file_name().expect("a name").to_string_lossy().into_owned();
    for part in parts.iter().copied().chain([&file[..]]) {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert!(error.contains('(') || error.contains("os error"), "no fix in: {error}");
}

#[test]
fn files_that_are_not_what_they_seem() {
    let folder = Folder::new();
    fails(&DataSource::new(folder.0.path().join("missing.npz")), &["cannot open"]);
    fails(&DataSource::new(folder.write("data.txt", b"1 2 3")), &["suffix", ".npz"]);
    fails(&DataSource::new(folder.write("data", b"1 2 3")), &["suffix", "missing"]);
    fails(
        &DataSource::new(folder.write("notzip.npz", b"this is no zip file at all")),
        &["zip directory", "numpy.savez"],
    );
    fails(&DataSource::new(folder.write("empty.npz", b"")), &["zip directory"]);
    fails(&DataSource::new(folder.write("alone.npy", &good_samples())), &["times_path"]);
    let beside = DataSource {
        times_path: Some("t.npy".into()),
        ..DataSource::new(folder.write("both.npz", &npz(&[("samples.npy", &good_samples())])))
    };
    fails(&beside, &["times_path", "only beside"]);
}

#[test]
fn arrays_that_cannot_be_samples_or_times() {
    let folder = Folder::new();
    let data = |samples: &[u8], times: &[u8]| {
        DataSource::new(folder.write("data.npz", &npz(&[("samples.npy", samples), ("times.npy", times)])))
    };
    let (samples, times) = (good_samples(), good_times());
    assert!(load(&data(&samples, &times)).is_ok(), "the base of these tests is good");
    let only_samples = DataSource::new(folder.write("data.npz", &npz(&[("samples.npy", &samples)])));
    fails(&only_samples, &["times", "there is no such array", "the file holds: samples"]);
    let renamed = DataSource { samples: "cells".into(), ..data(&samples, &times) };
    fails(&renamed, &["cells", "the file holds: samples, times"]);

    fails(&data(&npy("|O", "(4, 2)", b"pickle"), &times), &["samples", "pickled", "float32"]);
    fails(&data(&npy("<c8", "(1, 1)", &[0; 8]), &times), &["samples", "c8", "astype"]);
    fails(&data(&npy("|b1", "(4, 2)", &[0; 8]), &times), &["samples", "b1", "astype"]);
    fails(&data(&npy("<U4", "(4, 2)", &[0; 128]), &times), &["samples", "U4"]);
    fails(&data(&npy("<f4", "(2, 2, 2)", &[0; 32]), &times), &["samples", "[2, 2, 2]", "[N, d]"]);
    fails(&data(&npy("<f4", "(0, 2)", &[]), &npy("<f4", "(0,)", &[])), &["samples", "no rows"]);
    fails(&data(&npy("<f4", "(4, 0)", &[]), &times), &["samples", "0 columns"]);
    fails(&data(&npy("<f4", "(4, 1025)", &[0; 4 * 1025 * 4]), &times), &["1025 columns", "1024"]);
    fails(&data(&samples, &npy("<f4", "(4, 2)", &floats(&[0.0; 8]))), &["times", "[4, 2]", "[N]"]);
    fails(&data(&samples, &npy("<f4", "(3,)", &floats(&[0.0, 0.0, 1.0]))), &["times", "3 values for 4 rows"]);
    fails(&data(&samples, &npy("<f4", "(4,)", &floats(&[1.0; 4]))), &["times", "one time only (1)"]);

    let with = |row: usize, value: f32| {
        let mut values = [0.5; 8];
        values[row] = value;
        npy("<f4", "(4, 2)", &floats(&values))
    };
    fails(&data(&with(5, f32::NAN), &times), &["samples", "row 2, column 1 is NaN", "remove"]);
    fails(&data(&with(2, f32::INFINITY), &times), &["samples", "row 1, column 0 is inf"]);
    fails(&data(&samples, &npy("<f4", "(4,)", &floats(&[0.0, 0.0, f32::NAN, 1.0]))), &["times", "row 2 is NaN"]);
    let huge: Vec<u8> = [1.0, 1e300, 1.0, 1.0_f64].iter().flat_map(|value| value.to_le_bytes()).collect();
    fails(&data(&npy("<f8", "(4, 1)", &huge), &times), &["samples", "row 1", "finite in f32"]);
}

#[test]
fn truncated_and_hostile_arrays() {
    let folder = Folder::new();
    let times = good_times();
    let data = |samples: &[u8]| {
        DataSource::new(folder.write("data.npz", &npz(&[("samples.npy", samples), ("times.npy", &times)])))
    };
    let good = good_samples();
    fails(&data(&good[..good.len() - 5]), &["samples", "truncated", "32 bytes"]);
    fails(&data(&good[..30]), &["samples", "truncated in its header"]);
    fails(&data(&good[..7]), &["samples", "too short"]);
    fails(&data(b"PK not an array at all"), &["samples", "does not start like"]);
    fails(&data(&npy("<f4", "(4000000000000, 2)", &[0; 32])), &["samples", "truncated"]);
    fails(&data(&npy("<f4", "(18446744073709551615, 18446744073709551615)", &[0; 32])), &["samples", "more elements"]);
    fails(&data(&npy("<f4", "(99999999999999999999999, 2)", &[0; 32])), &["samples", "more elements"]);
    fails(&data(&npy("<f4", "(-4, 2)", &[0; 32])), &["samples", "invalid header"]);
    fails(&data(&npy_with_header("{'descr': '<f4', 'shape': (4, 2)}", &[0; 32])), &["samples", "invalid header"]);
    fails(&data(&npy_with_header(&"(".repeat(60_000), &[])), &["samples", "nested too deep"]);
    let mut long = good.clone();
    long[6] = 2; // version 2 reads four bytes of length
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    fails(&data(&long), &["samples", "header of 4294967295 bytes"]);
    long[6] = 9;
    fails(&data(&long), &["samples", "format version 9"]);

    let mut trailing = good.clone();
    trailing.extend([0; 3]);
    let pair = DataSource {
        times_path: Some(folder.write("t.npy", &times)),
        ..DataSource::new(folder.write("trailing.npy", &trailing))
    };
    fails(&pair, &["samples", "3 bytes that belong to nothing"]);
}

/// A deflated member whose header claims more than its bytes can hold is refused before memory is set aside.
#[test]
fn a_deflate_bomb_is_refused() {
    let folder = Folder::new();
    let path = folder.0.path().join("bomb.npz");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).expect("created"));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file("samples.npy", options).expect("started");
    archive.write_all(&npy("<f4", "(1000000000000, 2)", &[0; 4096])).expect("written");
    archive.finish().expect("finished");
    fails(&DataSource::new(path), &["samples", "truncated"]);
}

#[test]
fn bad_tables() {
    let folder = Folder::new();
    let csv = |text: &str| DataSource::new(folder.write("data.csv", text.as_bytes()));
    fails(&csv("0,1\n1,2\n"), &["first row", "header"]);
    fails(&csv(""), &["first row"]);
    fails(&csv("time,x\n"), &["samples", "no rows"]);
    fails(&csv("day,x\n0,1\n1,2\n"), &["times", "no such array", "day, x"]);
    fails(&csv("time,x\n0,1\n1,two\n"), &["x", "row 1 (line 3)", "\"two\"", "samples ="]);
    fails(&csv("time,x\n0,1\n1\n"), &["line 3"]);
    fails(&csv("time,x\n0,1\n1,nan\n"), &["row 1", "NaN"]);
    fails(&csv("time,x\n0,1\n1,\n"), &["\"\""]);
    fails(&csv("time\n0\n1\n"), &["0 columns"]);
}

#[test]
fn bad_safetensors() {
    let folder = Folder::new();
    let file = |bytes: &[u8]| DataSource::new(folder.write("data.safetensors", bytes));
    let with_header = |header: &str, data: &[u8]| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(data);
        bytes
    };
    fails(&file(b"abc"), &["header", "3 bytes"]);
    fails(&file(&u64::MAX.to_le_bytes()), &["header", "claims"]);
    fails(&file(&with_header(&"[".repeat(100_000), &[])), &["header", "not valid"]);
    fails(&file(&with_header(&format!("{{\"a\":{}", "{\"a\":".repeat(100_000)), &[])), &["header", "not valid"]);
    let good = r#"{"samples":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
    fails(&file(&with_header(good, &[0; 8])), &["times", "no such"]);
    fails(&file(&with_header(good, &[0; 7])), &["header", "truncated or altered"]);
    fails(&file(&with_header(good, &[0; 9])), &["header", "truncated or altered"]);
    let overlap = good.replace("[2,1]", "[3,1]");
    fails(&file(&with_header(&overlap, &[0; 8])), &["header", "not valid"]);
    let boolean = r#"{"samples":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}}"#;
    fails(&file(&with_header(boolean, &[0; 8])), &["samples", "BOOL", "f32"]);
}

#[test]
fn times_that_cannot_be_held_out() {
    let folder = Folder::new();
    let path = folder.write("data.csv", b"time,x\n0,1\n2,5\n7,3\n");
    let hold = |time: f64| DataSource { hold_out: vec![time], ..DataSource::new(&path) };
    assert!(load(&hold(2.0)).is_ok());
    fails(&hold(0.0), &["hold_out", "names time 0", "between 0 and 7"]);
    fails(&hold(7.0), &["hold_out", "between 0 and 7"]);
    fails(&hold(3.0), &["hold_out", "names time 3", "0, 2, 7"]);
}

/// Good files with bytes flipped or the end cut off: an answer or an error, never a panic.
#[test]
fn damaged_files_never_panic() {
    let folder = Folder::new();
    let archive = npz(&[("samples.npy", &good_samples()), ("times.npy", &good_times())]);
    let header = r#"{"samples":{"dtype":"F32","shape":[4,2],"data_offsets":[0,32]},"times":{"dtype":"F32","shape":[4],"data_offsets":[32,48]}}"#;
    let mut tensors = (header.len() as u64).to_le_bytes().to_vec();
    tensors.extend(header.bytes());
    tensors.extend(floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 0.0, 0.0, 1.0, 1.0]));
    let table = b"time,x,y\n0,1,2\n0,3,4\n1,5,6\n1,7,8\n".to_vec();
    for (name, good) in [("a.npz", archive), ("a.safetensors", tensors), ("a.csv", table), ("a.npy", good_samples())] {
        let path = folder.write(name, &good);
        let source = DataSource {
            times_path: name.ends_with("npy").then(|| folder.write("t.npy", &good_times())),
            ..DataSource::new(&path)
        };
        load(&source).unwrap_or_else(|error| panic!("{name} is good: {error}"));
        for trial in 0..600 {
            let [a, b, c, _] = words(5, Purpose::Evaluation, trial, 0);
            let mut bytes = good.clone();
            if trial % 3 == 0 {
                bytes.truncate(a as usize % good.len());
            } else {
                bytes[a as usize % good.len()] = b as u8;
                bytes[c as usize % good.len()] ^= 1 << (b % 8);
            }
            std::fs::write(&path, &bytes).expect("written");
            let _ = (load(&source), read_snapshots(&source), describe(&source), read_points(&path, "samples"));
        }
    }
}

#[test]
fn points_need_no_times() {
    let folder = Folder::new();
    let path = folder.write("points.npz", &npz(&[("x.npy", &good_samples())]));
    assert_eq!(read_points(&path, "x").expect("reads").0, 2);
    let error = read_points(&path, "samples").expect_err("an error").to_string();
    assert!(error.contains("points.npz") && error.contains("the file holds: x"), "{error}");
    assert!(read_points(Path::new("nowhere.npz"), "x").is_err());
}
