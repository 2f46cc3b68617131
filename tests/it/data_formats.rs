//! Every format × element type × byte order × memory order reads the same snapshots, and written
//! files are read back equal.

use std::fs;
use std::path::Path;

use crate::data_support::{f32s, npy, npz, safetensors};
use action_matching::data::{
    DataSet, DataSource, PointArray, Points, Snapshots, Standardization, describe, load, read_points, read_snapshots,
    write_points,
};
use half::{bf16, f16};
use zip::CompressionMethod;

const N_ROWS: usize = 11;
const DIM: usize = 3;

/// Rows out of order: three times, one of them with a single row.
const TIMES: [i64; N_ROWS] = [4, 0, 4, 9, 0, 0, 4, 0, 4, 4, 0];

/// Distinct values that every type holds exactly; unsigned types get `offset` 0.
fn value(row: usize, column: usize, offset: i64) -> i64 {
    (row * 7 + column * 31) as i64 % 113 + offset
}

fn expected(offset: i64) -> Snapshots {
    let mut samples = Vec::new();
    for time in [0, 4, 9] {
        for row in (0..N_ROWS).filter(|&row| TIMES[row] == time) {
            samples.extend((0..DIM).map(|column| value(row, column, offset) as f32));
        }
    }
    Snapshots { dim: DIM, times: vec![0.0, 4.0, 9.0], offsets: vec![0, 5, 10, 11], samples, mass: Default::default() }
}

/// (npy code, safetensors name, bytes of a value in little or big endian).
type Encoding = (&'static str, &'static str, fn(i64, bool) -> Vec<u8>);

macro_rules! encoding {
    ($code:literal, $name:literal, $ty:ty, $from:expr) => {
        ($code, $name, |x, big| {
            let value: $ty = $from(x);
            if big { value.to_be_bytes().to_vec() } else { value.to_le_bytes().to_vec() }
        })
    };
}

const ENCODINGS: [Encoding; 11] = [
    encoding!("f2", "F16", f16, |x| f16::from_f64(x as f64)),
    encoding!("f4", "F32", f32, |x| x as f32),
    encoding!("f8", "F64", f64, |x| x as f64),
    encoding!("i1", "I8", i8, |x| x as i8),
    encoding!("i2", "I16", i16, |x| x as i16),
    encoding!("i4", "I32", i32, |x| x as i32),
    encoding!("i8", "I64", i64, |x| x),
    encoding!("u1", "U8", u8, |x| x as u8),
    encoding!("u2", "U16", u16, |x| x as u16),
    encoding!("u4", "U32", u32, |x| x as u32),
    encoding!("u8", "U64", u64, |x| x as u64),
];

const BF16: Encoding = encoding!("", "BF16", bf16, |x| bf16::from_f64(x as f64));

fn encode_samples(encoding: Encoding, big: bool, fortran: bool, offset: i64) -> Vec<u8> {
    let (outer, inner) = if fortran { (DIM, N_ROWS) } else { (N_ROWS, DIM) };
    let cells = (0..outer).flat_map(|i| (0..inner).map(move |j| if fortran { (j, i) } else { (i, j) }));
    cells.flat_map(|(row, column)| encoding.2(value(row, column, offset), big)).collect()
}

fn encode_times(encoding: Encoding, big: bool) -> Vec<u8> {
    TIMES.iter().flat_map(|&time| encoding.2(time, big)).collect()
}

fn offset_of(encoding: Encoding) -> i64 {
    if encoding.0.starts_with('u') { 0 } else { -50 }
}

fn read(path: &Path) -> Snapshots {
    let DataSet { snapshots, warnings, .. } = read_snapshots(&DataSource::new(path), &()).unwrap();
    assert_eq!(warnings, ["time 9 has a single row: a distribution needs many samples"]);
    snapshots
}

#[test]
fn npy_pairs_and_archives_of_every_type_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let [samples_path, times_path, archive_path] = ["x.npy", "t.npy", "both.NPZ"].map(|name| folder.path().join(name));
    for encoding in ENCODINGS {
        for (big, fortran) in [(false, false), (false, true), (true, false), (true, true)] {
            let offset = offset_of(encoding);
            let descr = format!("{}{}", if big { '>' } else { '<' }, encoding.0);
            let descr = if encoding.0.ends_with('1') { format!("|{}", encoding.0) } else { descr };
            let samples = npy(&descr, fortran, &[N_ROWS, DIM], &encode_samples(encoding, big, fortran, offset));
            let times = npy(&descr, fortran, &[N_ROWS], &encode_times(encoding, big));
            fs::write(&samples_path, &samples).unwrap();
            fs::write(&times_path, &times).unwrap();
            let pair = DataSource { times_path: Some(times_path.clone()), ..DataSource::new(&samples_path) };
            assert_eq!(read_snapshots(&pair, &()).unwrap().snapshots, expected(offset), "{descr} fortran {fortran}");
            for compression in [CompressionMethod::Stored, CompressionMethod::Deflated] {
                let members = [("times", times.clone()), ("other", vec![1, 2, 3]), ("samples", samples.clone())];
                fs::write(&archive_path, npz(&members, compression)).unwrap();
                assert_eq!(read(&archive_path), expected(offset), "{descr} fortran {fortran} {compression}");
            }
        }
    }
}

#[test]
fn safetensors_of_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    for encoding in ENCODINGS.into_iter().chain([BF16]) {
        let offset = offset_of(encoding);
        let samples = encode_samples(encoding, false, false, offset);
        let tensors: [(&str, &str, &[usize], Vec<u8>); 3] = [
            ("other", "BOOL", &[3], vec![0, 1, 1]),
            ("samples", encoding.1, &[N_ROWS, DIM], samples),
            ("times", encoding.1, &[N_ROWS, 1], encode_times(encoding, false)),
        ];
        fs::write(&path, safetensors(&tensors)).unwrap();
        assert_eq!(read(&path), expected(offset), "{}", encoding.1);
    }
}

#[test]
fn tables_select_columns_by_default_name_list_and_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.csv");
    let mut text = String::from("\u{feff}x1, times ,\"x2\",x3\r\n");
    for (row, time) in TIMES.iter().enumerate() {
        let [a, b, c] = [0, 1, 2].map(|column| value(row, column, -50));
        text += &format!("{a},{time}.0,  {b}e0,\"{c}\"\r\n");
    }
    fs::write(&path, &text).unwrap();
    for samples in ["samples", "x*", "x1,x2,x3"] {
        let source = DataSource { samples: samples.into(), ..DataSource::new(&path) };
        assert_eq!(read_snapshots(&source, &()).unwrap().snapshots, expected(-50), "{samples}");
    }
    let swapped = DataSource { samples: "x3, x1".into(), ..DataSource::new(&path) };
    let swapped = read_snapshots(&swapped, &()).unwrap().snapshots;
    assert_eq!((swapped.dim, &swapped.samples[..2]), (2, &[value(1, 2, -50) as f32, value(1, 0, -50) as f32][..]));
    let Points { dim, rows, .. } = read_points(&DataSource::new(&path), &()).unwrap();
    assert_eq!((dim, rows.len(), rows[1]), (DIM, N_ROWS * DIM, value(0, 1, -50) as f32));
}

#[test]
fn one_dimensional_samples_and_other_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let members =
        [("x", npy("<f4", false, &[3], &f32s(&[5.0, -1.0, 2.5]))), ("hour", npy("|u1", false, &[3], &[7, 3, 7]))];
    fs::write(&path, npz(&members, CompressionMethod::Deflated)).unwrap();
    let source = DataSource { samples: "x".into(), times: "hour".into(), ..DataSource::new(&path) };
    let snapshots = read_snapshots(&source, &()).unwrap().snapshots;
    assert_eq!(
        (snapshots.dim, &snapshots.times[..], &snapshots.samples[..]),
        (1, &[3.0, 7.0][..], &[-1.0, 5.0, 2.5][..])
    );
}

/// Larger than a piece of the reader, in both memory orders, with a size that no piece divides.
#[test]
fn arrays_of_several_blocks_keep_every_value_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let (n, dim) = (70_001, 3);
    let value = |row: usize, column: usize| (row * dim + column) as f32;
    let times: Vec<f32> = (0..n).map(|row| (row * row % 5) as f32).collect();
    for fortran in [false, true] {
        let values: Vec<f32> = if fortran {
            (0..dim).flat_map(|column| (0..n).map(move |row| value(row, column))).collect()
        } else {
            (0..n * dim).map(|i| i as f32).collect()
        };
        let members = [
            ("samples", npy("<f4", fortran, &[n, dim], &f32s(&values))),
            ("times", npy("<f4", false, &[n], &f32s(&times))),
        ];
        fs::write(&path, npz(&members, CompressionMethod::Stored)).unwrap();
        let snapshots = read_snapshots(&DataSource::new(&path), &()).unwrap().snapshots;
        assert_eq!(snapshots.times, [0.0, 1.0, 4.0]);
        for (k, &time) in snapshots.times.iter().enumerate() {
            let rows = (0..n).filter(|&row| f64::from(times[row]) == time);
            let wanted: Vec<f32> = rows.flat_map(|row| (0..dim).map(move |column| value(row, column))).collect();
            assert!(snapshots.rows(k) == wanted, "snapshot {k}, fortran {fortran}");
        }
    }
}

#[test]
fn what_is_written_reads_back_with_its_extra_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<f32> = (0..N_ROWS * DIM).map(|i| 0.1 + i as f32 / 7.0).collect();
    let times: Vec<f32> = (0..N_ROWS).map(|row| if row < 6 { 0.25 } else { 1.5 }).collect();
    let weights: Vec<f32> = (0..N_ROWS).map(|row| -1e-30 * row as f32).collect();
    let arrays = [
        PointArray::new("samples", Some(DIM), &samples[..]),
        PointArray::new("times", None, &times[..]),
        PointArray::new("log_weight", None, &weights[..]),
    ];
    for name in ["out.npz", "out.csv", "out.safetensors"] {
        let path = folder.path().join(name);
        write_points(&path, &arrays).unwrap();
        let data = read_snapshots(&DataSource::new(&path), &()).unwrap();
        let positions: Vec<f64> = (0..2).flat_map(|k| data.positions(k)).collect();
        let DataSet { snapshots, warnings, .. } = data;
        assert_eq!((snapshots.times.as_slice(), snapshots.offsets.as_slice()), (&[0.25, 1.5][..], &[0, 6, 11][..]));
        assert_eq!((snapshots.dim, warnings.len()), (DIM, 0), "{name}");
        for (got, &want) in positions.iter().zip(&samples) {
            assert!((got - f64::from(want)).abs() < 3e-7, "{name}: {got}, not {want}");
        }
        let source = DataSource { samples: "log_weight".into(), ..DataSource::new(&path) };
        let points = read_points(&source, &()).unwrap();
        for (got, &want) in points.positions().iter().zip(&weights) {
            assert!((got - f64::from(want)).abs() < 1e-36, "{name}: {got}, not {want}");
        }
    }
    let path = folder.path().join("out.npy");
    write_points(&path, &arrays[..2]).unwrap();
    let points = read_points(&DataSource::new(&path), &()).unwrap();
    assert_eq!((points.dim, points.rows), (DIM, samples));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn writing_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let samples = PointArray::new("samples", Some(2), &[1.0, 2.0, 3.0, 4.0][..]);
    let weights = PointArray::new("log_weight", None, &[1.0, 2.0][..]);
    let short = PointArray::new("times", None, &[1.0][..]);
    let ragged = PointArray::new("samples", Some(2), &[1.0, 2.0, 3.0][..]);
    for (name, arrays, wanted) in [
        ("a.txt", vec![samples], "a.txt: path: has the unknown suffix .txt (use a file that ends in .npz"),
        ("a.npz", vec![], "a.npz: arrays: there are none"),
        ("a.npz", vec![samples, short], "a.npz: times: 1 values are not 2 rows of 1"),
        ("a.csv", vec![ragged], "a.csv: samples: 3 values are not 1 rows of 2"),
        ("a.npz", vec![samples, samples], "a.npz: samples: two arrays have this name"),
        ("a.npy", vec![samples, weights], "a.npy: log_weight: does not fit"),
        ("missing/a.npz", vec![samples], "missing/a.npz: output path: the folder"),
    ] {
        let message = write_points(&folder.path().join(name), &arrays).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A source of four times with a constant third column, and its training rows without time 2.
fn with_hold_out(path: &Path, standardize: Standardization) -> DataSource {
    let rows = [
        (5.0, [1.0, 10.0, 3.0]),
        (1.0, [2.0, -10.0, 3.0]),
        (2.0, [900.0, 900.0, 900.0]),
        (3.0, [4.0, 30.0, 3.0]),
        (1.0, [9.0, 50.0, 3.0]),
        (2.0, [800.0, 700.0, 600.0]),
    ];
    let text: String = rows.iter().map(|(t, [a, b, c])| format!("{t},{a},{b},{c}\n")).collect();
    fs::write(path, format!("times,x,y,z\n{text}")).unwrap();
    DataSource { hold_out: vec![2.0].into(), standardize, ..DataSource::new(path) }
}

#[test]
fn standardization_sees_the_training_snapshots_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.csv");
    // Columns of the four training rows: means 4, 20, 3; variances 9.5, 500, 0.
    let isotropic = ((9.5f64 + 500.0) / 3.0).sqrt();
    let per_dimension = [9.5f64.sqrt(), 500f64.sqrt(), 1.0];
    for (standardize, mean, scale, n_warnings) in [
        (Standardization::Isotropic, [4.0, 20.0, 3.0], [isotropic; 3], 0),
        (Standardization::PerDimension, [4.0, 20.0, 3.0], per_dimension, 1),
        (Standardization::None, [0.0; 3], [1.0; 3], 0),
    ] {
        let loaded = load(&with_hold_out(&path, standardize), &()).unwrap();
        assert_eq!(loaded.coordinates.mean, mean);
        for (got, wanted) in loaded.coordinates.scale.iter().zip(scale) {
            assert!((got - wanted).abs() <= 1e-12 * wanted, "{standardize:?}: {got} for {wanted}");
        }
        assert_eq!(loaded.coordinates.time_range, [1.0, 5.0]);
        assert_eq!((loaded.training.times, loaded.training.offsets), (vec![0.0, 0.5, 1.0], vec![0, 2, 3, 4]));
        assert_eq!((loaded.held_out.times, loaded.held_out.offsets), (vec![0.25], vec![0, 2]));
        let mut samples = [loaded.training.samples, loaded.held_out.samples].concat();
        loaded.coordinates.to_data(&mut samples);
        let wanted = [2., -10., 3., 9., 50., 3., 4., 30., 3., 1., 10., 3., 900., 900., 900., 800., 700., 600.];
        for (got, wanted) in samples.iter().zip(wanted) {
            assert!((got - wanted).abs() <= 1e-6 * 900.0, "{standardize:?}: {got} for {wanted}");
        }
        // One warning for each single row at times 3 and 5, and one for the constant column where
        // it matters.
        assert_eq!(loaded.warnings.len(), 1 + n_warnings, "{:?}", loaded.warnings);
    }
}

#[test]
fn decimal_hold_outs_find_f32_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let members = [
        ("samples", npy("<f4", false, &[4], &f32s(&[1.0, 2.0, 4.0, 9.0]))),
        ("times", npy("<f4", false, &[4], &f32s(&[0.0, 0.1, 0.7, 1.0]))),
    ];
    fs::write(&path, npz(&members, CompressionMethod::Stored)).unwrap();
    let loaded = load(&DataSource { hold_out: vec![0.7, 0.1].into(), ..DataSource::new(&path) }, &()).unwrap();
    assert_eq!((loaded.training.times, loaded.held_out.times.len()), (vec![0.0, 1.0], 2));
}

#[test]
fn shipped_examples_load_and_describe_themselves() {
    for (name, dim, counts) in
        [("mouse_hematopoiesis", 2, vec![1429, 3781, 5788]), ("emt", 10, vec![577, 885, 788, 883])]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/data/{name}.npz"));
        let loaded = load(&DataSource::new(&path), &()).unwrap();
        assert_eq!(loaded.warnings, [""; 0]);
        let got: Vec<usize> = (0..counts.len()).map(|k| loaded.training.n_rows(k)).collect();
        assert_eq!((loaded.training.dim, &got), (dim, &counts));
        let text = describe(&path, &()).unwrap();
        let n_rows: usize = counts.iter().sum();
        for wanted in [
            format!("array samples: <f4 [{n_rows}, {dim}], C order, stored"),
            format!("{} snapshots of dimension {dim}, {n_rows} rows", counts.len()),
            format!("  time 1: {} rows, mean ± std ", counts[1]),
        ] {
            assert!(text.contains(&wanted), "{text}");
        }
    }
}

#[test]
fn descriptions_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let samples = npy("<f4", false, &[2, 2], &f32s(&[1.0, 2.0, 3.0, f32::NAN]));
    let members = [
        ("samples", samples),
        ("times", npy("<f4", true, &[2], &f32s(&[0.0, 1.0]))),
        ("names", npy("|O", false, &[2], b"pickle")),
    ];
    fs::write(&path, npz(&members, CompressionMethod::Deflated)).unwrap();
    let text = describe(&path, &()).unwrap();
    for wanted in [
        "array times: <f4 [2], Fortran order, deflated\n",
        "array names: |O [2], C order, deflated\nproblem: ",
        "samples: row 1, column 1 (counted from 0) is NaN",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
    let points = folder.path().join("points.npy");
    write_points(&points, &[PointArray::new("samples", Some(1), &[1.0, 3.0][..])]).unwrap();
    assert!(
        describe(&points, &()).unwrap().contains("2 points of dimension 1, no times\n  mean ± std 2.000 ± 1.000\n")
    );
}
