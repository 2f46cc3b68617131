//! Data: arrays, archives, tables and tensors.

use std::fs;
use std::path::Path;

use action_matching::annotate::{AnnotateOptions, Column, annotate};
use action_matching::data::{
    DataSource, HoldOut, RowShare, Snapshots, SplitColumn, SplitValue, Standardization, describe, load, load_single,
    read_ids, read_points, read_snapshots,
};
use action_matching::engine::cpu::CpuEngine;
use action_matching::model::{Architecture, Coordinates, Model};
use action_matching::stage::Stage;
use action_matching::{Destination, Trained};
use zip::CompressionMethod;

use super::{Folder, open_safetensors, seal_safetensors};
use crate::common_fuzz::{Answer, Bytes, NUMBERS, Random, Target, Text, run};
use crate::data_support::{header, npy_with_header, npz, safetensors};

/// Maximum bytes that a byte of a deflated stream stands for.
const DEFLATE_RATIO: usize = 1032;

const DTYPES: [&str; 24] = [
    "<f4", "<f4", "<f4", "<f8", "<f8", ">f4", ">f8", "<f2", "|i1", "<i2", ">i4", "<i8", "|u1", "<u2", "<u4", ">u8",
    "=f4", "|O", "|b1", "<c8", "<U3", "|S8", "<f16", "<M8[ns]",
];

/// Bytes of an element, if the name tells.
fn size_of_dtype(dtype: &str) -> usize {
    dtype[2..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(8)
}

/// Values for `n` elements of `dtype`: small numbers in most cases.
fn values(random: &mut Random, dtype: &str, n: usize) -> Vec<u8> {
    let steps = 1 + random.below(6) as i64;
    let mut number = |k: usize| ((random.next() % 1000) as i64 - 500) * i64::from(steps > 2) + k as i64 % steps;
    let mut bytes: Vec<u8> = (0..n)
        .flat_map(|k| {
            let x = number(k);
            match &dtype[1..] {
                "f4" => (x as f32 / 4.0).to_le_bytes().to_vec(),
                "f8" => (x as f64 / 4.0).to_le_bytes().to_vec(),
                "f2" => half::f16::from_f64(x as f64 / 4.0).to_le_bytes().to_vec(),
                _ => x.to_le_bytes()[..size_of_dtype(dtype).min(8)].to_vec(),
            }
        })
        .collect();
    if dtype.starts_with('>') {
        bytes.chunks_mut(size_of_dtype(dtype)).for_each(<[u8]>::reverse);
    }
    if random.percent(15) && !bytes.is_empty() {
        let at = random.below(bytes.len());
        Bytes::extreme(random, &mut bytes, at);
    }
    bytes
}

/// A `.npy` file of `[rows, columns]`, or of `[rows]` without columns; valid in most cases.
fn npy(random: &mut Random, rows: usize, columns: Option<usize>) -> Vec<u8> {
    let dtype = random.pick::<str>(&DTYPES);
    let shape = match columns {
        Some(columns) => format!("({rows}, {columns})"),
        None => format!("({rows},)"),
    };
    let n = rows * columns.unwrap_or(1);
    let data = values(random, dtype, n);
    let mut header = header(dtype, random.percent(30), &shape).into_bytes();
    if random.percent(15) {
        let words = ["descr", "shape", "fortran_order", "True", "False", "f4", "f8", "(", ")", ",", "'", "{", "}", "["];
        Text::change(random, &mut header, b"", &words);
    }
    let mut file = if header.len() < 1 << 16 {
        npy_with_header(&String::from_utf8_lossy(&header), &data)
    } else {
        [&b"\x93NUMPY\x01\x00\xff\xff"[..], &header, &data].concat()
    };
    if random.percent(10) {
        // Version 2 has four bytes for the length.
        file.splice(6..8, [random.choose(&[2, 3, 4]), 0]);
        file.splice(10..10, [0, 0]);
    }
    if random.percent(10) {
        let other = file.clone();
        Bytes::change(random, &mut file, &other);
    }
    file
}

/// Times `[rows]` as a `.npy` file, with few distinct values.
fn times_npy(random: &mut Random, rows: usize) -> Vec<u8> {
    let n_times = 1 + random.below(4);
    let times: Vec<u8> = (0..rows).flat_map(|row| ((row % n_times) as f32 / 2.0).to_le_bytes()).collect();
    let mut file = npy_with_header(&header("<f4", false, &format!("({rows},)")), &times);
    if random.percent(20) {
        file = npy(random, rows, None);
    }
    file
}

fn sizes(random: &mut Random) -> (usize, Option<usize>) {
    let rows = if random.percent(2) { random.below(3000) } else { random.below(12) };
    let columns = match random.below(10) {
        0 => None,
        1 => Some(random.below(1100)),
        _ => Some(1 + random.below(4)),
    };
    (rows, if rows > 100 { columns.map(|columns| columns.min(4)) } else { columns })
}

fn check(snapshots: &Snapshots) {
    let Snapshots { dim, times, offsets, samples, .. } = snapshots;
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "times out of order: {times:?}");
    assert!(times.iter().all(|time| time.is_finite()) && samples.iter().all(|x| x.is_finite()), "not finite");
    assert_eq!((offsets.len(), offsets[0]), (times.len() + 1, 0));
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "an empty snapshot: {offsets:?}");
    assert_eq!(offsets[times.len()] * dim, samples.len());
}

/// One of the ways in which commands use data files, chosen for each input.
fn read(path: &Path, times_path: Option<&Path>, random: &mut Random) -> Answer {
    let hold_out = match random.below(10) {
        0..2 => vec![random.choose(&[0.5, 0.0, 1.0, f64::NAN, -3.0])].into(),
        2 => HoldOut::Share(RowShare { share: random.choose(&[0.1, 0.5, 1e-9]), seed: 0 }),
        3 => {
            let value = random.choose(&[0.0, 1.0]);
            let column = random.pick::<str>(&["x", "times", "split", ""]).into();
            HoldOut::Column(SplitColumn { column, value: SplitValue::Number(value) })
        }
        _ => HoldOut::default(),
    };
    let standardize = random.choose(&[
        Standardization::Isotropic,
        Standardization::PerDimension,
        Standardization::Robust,
        Standardization::None,
    ]);
    let mut source =
        DataSource { times_path: times_path.map(Into::into), hold_out, standardize, ..DataSource::new(path) };
    if random.percent(20) {
        source.samples = random.pick::<str>(&["x", "x*", "a,b", "samples", "", "*", "times"]).into();
        source.times = random.pick::<str>(&["time", "times", "samples", ""]).into();
    }
    match random.below(10) {
        0..4 => Answer::from(load(&source, &()).map(|loaded| {
            check(&loaded.training);
            check_held_out(&loaded.held_out);
            let coordinates = &loaded.coordinates;
            assert!(coordinates.scale.iter().all(|&scale| scale.is_finite() && scale > 0.0), "{:?}", coordinates.scale);
        })),
        4..6 => Answer::from(read_snapshots(&source, &()).map(|data| check(&data.snapshots))),
        6 => Answer::from(load_single(&source, &()).map(|loaded| check(&loaded.training))),
        7 => Answer::from(read_points(&source, &()).and_then(|points| {
            let finite = points.rows.iter().all(|x| x.is_finite()) && points.origin.iter().all(|x| x.is_finite());
            assert!(points.dim > 0 && points.rows.len().is_multiple_of(points.dim) && finite);
            let n_rows = points.rows.len() / points.dim;
            read_ids(&source, n_rows, &()).map(|ids| assert!(ids.is_none_or(|ids| ids.len() == n_rows)))
        })),
        _ => Answer::from(describe(path, &())),
    }
}

/// There may be none.
fn check_held_out(snapshots: &Snapshots) {
    if !snapshots.times.is_empty() {
        check(snapshots);
    }
}

#[test]
fn npy_files() {
    let target = Target { name: "npy", inputs: 100_000, bytes_per_byte: 16, microseconds_per_byte: 2 };
    let folder = Folder::new(target.name);
    let (path, times_path) = (folder.path("a.npy"), folder.path("times.npy"));
    run(
        &target,
        |random| {
            let (rows, columns) = sizes(random);
            npy(random, rows, columns)
        },
        |input, random| {
            fs::write(&path, input).expect("written");
            // Times for as many rows as the header states, if it can be read.
            let text = String::from_utf8_lossy(&input[..input.len().min(200)]).into_owned();
            let rows = text.split_once("'shape': (").and_then(|(_, rest)| rest.split([',', ')']).next()?.parse().ok());
            fs::write(&times_path, times_npy(random, rows.filter(|&rows| rows < 5000).unwrap_or(3))).expect("written");
            read(&path, Some(&times_path), random)
        },
    );
}

#[test]
fn npz_archives() {
    let target = Target { name: "npz", inputs: 100_000, bytes_per_byte: 4 * DEFLATE_RATIO, microseconds_per_byte: 100 };
    let folder = Folder::new(target.name);
    let path = folder.path("a.npz");
    run(
        &target,
        |random| {
            let (rows, columns) = sizes(random);
            let mut members = vec![("samples", npy(random, rows, columns)), ("times", times_npy(random, rows))];
            if random.percent(20) {
                members.push(("samplex", npy(random, rows, columns)));
            }
            if random.percent(20) {
                members.push(("ids", npy(random, rows, None)));
            }
            if random.percent(20) {
                members.swap(0, 1);
            }
            let compression = random.choose(&[CompressionMethod::Stored, CompressionMethod::Deflated]);
            let mut archive = npz(&members, compression);
            if random.percent(30) {
                // Two members of one name, in one or both of the places that hold names.
                let places: Vec<usize> =
                    (0..archive.len().saturating_sub(7)).filter(|&at| &archive[at..at + 7] == b"samplex").collect();
                for place in places {
                    if random.percent(80) {
                        archive[place + 6] = b's';
                    }
                }
            }
            if random.percent(60) {
                change_zip(random, &mut archive);
            }
            if random.percent(8) {
                let other = archive.clone();
                Bytes::change(random, &mut archive, &other);
            }
            archive
        },
        |input, random| {
            fs::write(&path, input).expect("written");
            read(&path, None, random)
        },
    );
}

/// Changes a field of a zip header, or bytes near one.
fn change_zip(random: &mut Random, archive: &mut [u8]) {
    // Signatures of local headers, of the central directory and of its end, and the lengths of
    // their fixed parts.
    const RECORDS: [([u8; 4], usize); 3] = [(*b"PK\x03\x04", 30), (*b"PK\x01\x02", 46), (*b"PK\x05\x06", 22)];
    let records: Vec<(usize, usize)> = (0..archive.len().saturating_sub(3))
        .filter_map(|at| RECORDS.iter().find(|record| archive[at..at + 4] == record.0).map(|record| (at, record.1)))
        .collect();
    for _ in 0..1 + random.below(2) {
        if records.is_empty() {
            return;
        }
        let (start, length) = random.choose(&records);
        // Fields begin at even offsets.
        let at = (start + 4 + 2 * random.below(length / 2 - 2)).min(archive.len() - 1);
        match random.below(4) {
            0 => archive[at] ^= 1 << random.below(8),
            1 => {
                // A field of another header.
                let (other, _) = random.choose(&records);
                let from = other + (at - start);
                if from + 4 <= archive.len() && at + 4 <= archive.len() {
                    archive.copy_within(from..from + 4, at);
                }
            }
            _ => Bytes::extreme(random, archive, at),
        }
    }
}

/// Tables in the spellings of different programs.
fn csv(random: &mut Random) -> Vec<u8> {
    let names = [
        "times",
        "time",
        "x",
        "y",
        "x_0",
        "x_1",
        "samples",
        "samples_0",
        "samples_1",
        "",
        "Unnamed: 0",
        "id",
        "a",
        "b",
        "\"q\"",
        "1.5",
        "PC1",
        "PC2",
    ];
    let n_columns = 1 + random.below(5);
    let separator = random.choose(&[",", ",", ",", ",", ",", ",", ";", "\t"]);
    let mut columns: Vec<&str> = (0..n_columns).map(|_| random.pick::<str>(&names)).collect();
    if random.percent(80) {
        columns = vec!["times"];
        columns.extend((1..n_columns).map(|k| ["x_0", "x_1", "x_2", "y"][k - 1]));
    }
    let newline = if random.percent(15) { "\r\n" } else { "\n" };
    let mut text = columns.join(separator) + newline;
    if random.percent(3) {
        text.insert(0, '\u{feff}');
    }
    let rows = if random.percent(1) { random.below(3000) } else { random.below(8) };
    let wild = random.percent(30);
    for row in 0..rows {
        for column in 0..columns.len() {
            let value = match column {
                _ if wild && random.percent(10) => random.pick::<str>(&NUMBERS).to_string(),
                0 => (row % 3).to_string(),
                _ => format!("{}", (random.next() % 1000) as f64 / 8.0 - 60.0),
            };
            let value = if random.percent(2) { format!("\"{value}\"") } else { value };
            text += &value;
            text += if column + 1 < columns.len() { separator } else { newline };
        }
    }
    text.into_bytes()
}

#[test]
fn csv_tables() {
    let target = Target { name: "csv", inputs: 100_000, bytes_per_byte: 64, microseconds_per_byte: 5 };
    let folder = Folder::new(target.name);
    let path = folder.path("a.csv");
    run(
        &target,
        |random| {
            let mut table = csv(random);
            let other = csv(random);
            for _ in 0..random.below(4) {
                Text::change(
                    random,
                    &mut table,
                    &other,
                    &["times", "time", "x", "samples", "\"", "\"\"", ",", "\n", "\r", ""],
                );
            }
            table
        },
        |input, random| {
            fs::write(&path, input).expect("written");
            read(&path, None, random)
        },
    );
}

#[test]
fn safetensors_data() {
    let target = Target { name: "safetensors", inputs: 100_000, bytes_per_byte: 64, microseconds_per_byte: 5 };
    let folder = Folder::new(target.name);
    let path = folder.path("a.safetensors");
    run(
        &target,
        |random| {
            const TYPES: [(&str, &str); 12] = [
                ("F32", "<f4"),
                ("F32", "<f4"),
                ("F64", "<f8"),
                ("F16", "<f2"),
                ("BF16", "<i2"),
                ("I8", "|i1"),
                ("U8", "|u1"),
                ("I16", "<i2"),
                ("I32", "<i4"),
                ("I64", "<i8"),
                ("U64", "<u8"),
                ("BOOL", "|u1"),
            ];
            let (rows, columns) = sizes(random);
            let (dtype, numpy) = random.choose(&TYPES);
            let shape: Vec<usize> = [rows].into_iter().chain(columns).collect();
            let samples = values(random, numpy, shape.iter().product());
            let n_times = 1 + random.below(4);
            let times: Vec<u8> = (0..rows).flat_map(|row| ((row % n_times) as f32).to_le_bytes()).collect();
            let valid = safetensors(&[("samples", dtype, &shape, samples), ("times", "F32", &[rows], times)]);
            let (header, data) = open_safetensors(&valid);
            let mut header = header.to_vec();
            for _ in 0..random.below(3) {
                let words = [
                    "samples",
                    "times",
                    "F32",
                    "F64",
                    "I64",
                    "F8_E4M3",
                    "dtype",
                    "shape",
                    "data_offsets",
                    "__metadata__",
                    "[",
                    "]",
                    "{",
                    "}",
                    ",",
                ];
                let other = header.clone();
                Text::change(random, &mut header, &other, &words);
            }
            let mut file = seal_safetensors(random, &header, data.to_vec(), data.len());
            if random.percent(10) {
                let other = file.clone();
                Bytes::change(random, &mut file, &other);
            }
            file
        },
        |input, random| {
            fs::write(&path, input).expect("written");
            read(&path, None, random)
        },
    );
}

#[cfg(feature = "parquet")]
const PARQUET_FILES: [&[u8]; 3] = [
    include_bytes!("../../data_support/tables/cells.parquet"),
    include_bytes!("../../data_support/tables/zstd.parquet"),
    include_bytes!("../../data_support/tables/gzip.parquet"),
];

/// A damaged table of columns.
#[cfg(feature = "parquet")]
fn parquet(random: &mut Random) -> Vec<u8> {
    let mut file = random.choose(&PARQUET_FILES).to_vec();
    // The metadata at the end, or the pages before.
    let length = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().expect("four bytes")) as usize;
    let metadata = file.len() - 8 - length;
    let of_metadata = random.percent(50);
    for _ in 0..1 + random.below(3) {
        let at = if of_metadata { metadata + random.below(length) } else { random.below(metadata) };
        match random.below(4) {
            0 => file[at] ^= 1 << random.below(8),
            1 => Bytes::extreme(random, &mut file, at),
            // As Thrift writes numbers, of any length.
            2 => file[at..].iter_mut().take(random.below(6)).for_each(|byte| *byte |= 0x80),
            _ => file[at] = random.choose(&[0, 1, 2, 4, 8, 0x15, 0x1c, 0x7f, 0x80, 0xff]),
        }
    }
    if random.percent(5) {
        let other = file.clone();
        Bytes::change(random, &mut file, &other);
    }
    file
}

/// Values that are equal take no bytes, so that a file may hold 1024 for each of its own.
#[cfg(feature = "parquet")]
#[test]
fn parquet_tables() {
    let target =
        Target { name: "parquet", inputs: 3000, bytes_per_byte: 8 * DEFLATE_RATIO, microseconds_per_byte: 100 };
    let folder = Folder::new(target.name);
    let path = folder.path("a.parquet");
    run(&target, parquet, |input, random| {
        fs::write(&path, input).expect("written");
        let mut source = DataSource::new(&path);
        source.samples = random.pick::<str>(&["x,y", "half,bytes", "count", "?,gaps", "*", "large"]).into();
        source.times = random.pick::<str>(&["day", "hours", "dose", "treated"]).into();
        match random.below(4) {
            0 => source.only = "celltype == 'HSC' and treated == True".parse().ok(),
            1 => source.conditions = vec!["dose".into(), "celltype".into()],
            2 => return Answer::from(read_ids(&source, 24, &())),
            _ => {}
        }
        Answer::from(read_snapshots(&source, &()).map(|data| check(&data.snapshots)))
    });
}

const H5AD_FILES: [&[u8]; 3] = [
    include_bytes!("../../data_support/cells/csr.h5ad"),
    include_bytes!("../../data_support/cells/csc.h5ad"),
    include_bytes!("../../data_support/cells/dense.h5ad"),
];

/// A damaged file of cells.
fn h5ad(random: &mut Random) -> Vec<u8> {
    let mut file = random.choose(&H5AD_FILES).to_vec();
    for _ in 0..1 + random.below(3) {
        // Near a structure of the format, or anywhere.
        const RECORDS: [&[u8; 4]; 6] = [b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\x89HDF", b"\x01\x00\x01\x00"];
        let record = random.choose(&RECORDS);
        let places: Vec<usize> = (0..file.len().saturating_sub(3)).filter(|&at| file[at..at + 4] == *record).collect();
        let at = match (places.is_empty(), random.percent(80)) {
            (false, true) => random.choose(&places) + random.below(200),
            _ => random.below(file.len()),
        }
        .min(file.len() - 1);
        match random.below(3) {
            0 => file[at] ^= 1 << random.below(8),
            1 => Bytes::extreme(random, &mut file, at),
            _ => file[at] = random.choose(&[0, 1, 2, 3, 8, 16, 255]),
        }
    }
    if random.percent(5) {
        let other = file.clone();
        Bytes::change(random, &mut file, &other);
    }
    file
}

#[test]
fn h5ad_cells() {
    let target = Target { name: "h5ad", inputs: 20_000, bytes_per_byte: 4 * DEFLATE_RATIO, microseconds_per_byte: 100 };
    let folder = Folder::new(target.name);
    let path = folder.path("a.h5ad");
    run(&target, h5ad, |input, random| {
        fs::write(&path, input).expect("written");
        if random.percent(50) {
            let mut source = DataSource::new(&path);
            source.samples = random.pick::<str>(&["X", "layers/counts", "obsm/X_frame", "X/GENE1,GENE3"]).into();
            source.times = random.pick::<str>(&["obs/day", "obs/nullable", "obs/plate", "obs/stage"]).into();
            if random.percent(30) {
                source.only = "celltype == 'HSC' and chosen == True".parse().ok();
            }
            return Answer::from(read_snapshots(&source, &()).map(|data| check(&data.snapshots)));
        }
        read(&path, None, random)
    });
}

/// A file that cannot be annotated stays as it is.
#[test]
fn h5ad_annotated_in_place() {
    let target =
        Target { name: "h5ad-edit", inputs: 1000, bytes_per_byte: 4 * DEFLATE_RATIO, microseconds_per_byte: 200 };
    let folder = Folder::new(target.name);
    let (path, file) = (folder.path("a.h5ad"), folder.path("model.safetensors"));
    let architecture = Architecture::new(3, [4]);
    let coordinates = Coordinates { time_range: [0.0, 7.0], ..Coordinates::identity(3) };
    let model = Model { coordinates, ..Model::initial(architecture, 1) };
    model.save(&file).expect("saved");
    let trained = Trained { file, models: vec![model], config: None, unread: None };
    let options = AnnotateOptions { columns: vec![Column::Velocity, Column::Action], ..AnnotateOptions::default() };
    run(&target, h5ad, |input, _| {
        fs::write(&path, input).expect("written");
        let to = Destination::from(&path);
        let found = annotate(&trained, &path, &to, &options, &CpuEngine::new(1), &Stage::new(1, &()));
        assert!(found.is_ok() || fs::read(&path).expect("reads") == input, "the file has changed");
        Answer::from(found)
    });
}
