//! `.h5ad`: files of anndata are read whatever their encoding, and those that are written open in
//! anndata. `tests/interop/cells.py` has made the files, and `cells.npz` with their values.

use std::fs;
use std::path::{Path, PathBuf};

use crate::interop::run_python;
use action_matching::data::{
    DataSource, HoldOut, PointArray, Points, Reduction, SplitColumn, SplitValue, Standardization, describe, load,
    read_points, read_snapshots, write_points,
};

const N_CELLS: usize = 23;

fn cells(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data_support/cells").join(name)
}

fn source(name: &str) -> DataSource {
    DataSource { standardize: Standardization::None, ..DataSource::new(cells(name)) }
}

/// The array `name` of `cells.npz`, row by row.
fn truth(name: &str) -> Vec<f32> {
    let data = DataSource { samples: name.into(), ..DataSource::new(cells("cells.npz")) };
    rounded(&read_points(&data, &()).expect("reads"))
}

/// Rows in data units, rounded.
fn rounded(points: &Points) -> Vec<f32> {
    points.positions().into_iter().map(|x| x as f32).collect()
}

/// Fails unless the numbers are equal up to the rounding of samples that are centered in f64.
fn assert_same(found: &[f32], expected: &[f32], context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (k, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-6, "{context}: value {k} is {a}, not {b}");
    }
}

/// Rows of snapshot after snapshot of days 0, 3 and 7: cell k is of day `[0, 3, 7][k % 3]`.
fn by_day(rows: &[f32]) -> Vec<f32> {
    let dim = rows.len() / N_CELLS;
    let cells = (0..3).flat_map(|day| (day..N_CELLS).step_by(3));
    cells.flat_map(|cell| rows[cell * dim..][..dim].to_vec()).collect()
}

#[test]
fn matrices_of_every_encoding_have_the_same_values() {
    for file in ["csr.h5ad", "csc.h5ad", "dense.h5ad"] {
        for (samples, name) in [
            ("samples", "pca"),
            ("obsm/X_pca", "pca"),
            ("X_pca", "pca"),
            ("X", "X"),
            ("layers/counts", "X"),
            ("obsm/X_frame", "frame"),
        ] {
            let points = read_points(&DataSource { samples: samples.into(), ..source(file) }, &()).expect("reads");
            assert_same(&rounded(&points), &truth(name), &format!("{samples} of {file}"));
        }
        let genes = DataSource { samples: "X/GENE3,GENE1".into(), ..source(file) };
        let points = read_points(&genes, &()).expect("reads");
        let all = truth("X");
        let chosen: Vec<f32> = all.chunks(5).flat_map(|row| [row[3], row[1]]).collect();
        assert_eq!(points.columns, Some(vec!["GENE3".to_string(), "GENE1".to_string()]), "{file}");
        assert_same(&rounded(&points), &chosen, file);
        let genes = DataSource { samples: "layers/counts/GENE*".into(), ..source(file) };
        assert_same(&rounded(&read_points(&genes, &()).expect("reads")), &all, file);
    }
}

#[test]
fn times_are_columns_of_numbers_categories_and_texts() {
    for file in ["csr.h5ad", "csc.h5ad", "dense.h5ad"] {
        for (times, expected) in [
            ("times", [0.0, 3.0, 7.0]),
            ("obs/day", [0.0, 3.0, 7.0]),
            ("hours", [0.0, 72.0, 168.0]),
            ("obs/single", [0.0, 0.3, 0.7]),
            ("obs/stage", [0.0, 3.0, 7.0]),
            ("obs/nullable", [0.0, 3.0, 7.0]),
        ] {
            let data = read_snapshots(&DataSource { times: times.into(), ..source(file) }, &()).expect("reads");
            assert_eq!(data.snapshots.times, expected, "{times} of {file}");
            assert_eq!(data.snapshots.samples, by_day(&truth("pca")), "{times} of {file}");
        }
    }
    let loaded = load(&source("csr.h5ad"), &()).expect("loads");
    for said in ["samples are obsm/X_pca", "times are obs/day", "\"day 3\" is 3"] {
        assert!(loaded.notices.iter().any(|notice| notice.contains(said)), "{said}: {:?}", loaded.notices);
    }
}

#[test]
fn a_condition_chooses_cells_and_a_column_holds_them_out() {
    // Cell k is HSC, and chosen, if k % 4 < 2.
    let is_chosen = |cell: usize| cell % 4 < 2;
    let rows: Vec<f32> =
        (0..N_CELLS).filter(|&k| is_chosen(k)).flat_map(|k| truth("pca")[3 * k..][..3].to_vec()).collect();
    for (condition, file) in [
        ("celltype == 'HSC'", "csr.h5ad"),
        ("obs/chosen == True and hours <= 168", "csc.h5ad"),
        ("celltype not in ['MPP']", "dense.h5ad"),
    ] {
        let only = Some(condition.parse().expect("a condition"));
        let chosen = DataSource { only, ..source(file) };
        assert_eq!(read_points(&chosen, &()).expect("reads").rows, rows, "{condition}");
        let genes = DataSource { samples: "X".into(), ..chosen.clone() };
        let expected: Vec<f32> =
            (0..N_CELLS).filter(|&k| is_chosen(k)).flat_map(|k| truth("X")[5 * k..][..5].to_vec()).collect();
        assert_same(&rounded(&read_points(&genes, &()).expect("reads")), &expected, condition);
        let data = read_snapshots(&chosen, &()).expect("reads").snapshots;
        assert_eq!((data.times.clone(), data.samples.len()), (vec![0.0, 3.0, 7.0], rows.len()));

        let held = SplitColumn { column: "plate".into(), value: SplitValue::Text("P1".into()) };
        let divided = load(&DataSource { hold_out: HoldOut::Column(held), ..chosen }, &()).expect("loads");
        let n_held = (0..N_CELLS).filter(|&k| is_chosen(k) && k % 5 == 1).count();
        assert_eq!(divided.held_out.samples.len(), 3 * n_held, "{condition}");
        assert_eq!(divided.training.samples.len() + divided.held_out.samples.len(), rows.len());
    }
}

#[test]
fn columns_of_cells_are_conditions() {
    for file in ["csr.h5ad", "csc.h5ad", "dense.h5ad"] {
        let conditions = vec!["celltype".into(), "obs/batch".into()];
        let data = read_snapshots(&DataSource { conditions, ..source(file) }, &()).expect("reads");
        let expected: Vec<u32> = (0..3)
            .flat_map(|day| (day..N_CELLS).step_by(3))
            .map(|cell| 2 * u32::from(cell % 4 >= 2) + cell as u32 % 2)
            .collect();
        let groups = data.groups;
        assert_eq!(groups.of_rows, expected, "{file}");
        assert_eq!(groups.describe(1), "celltype = HSC, obs/batch = 1", "{file}");
    }
}

#[test]
fn components_of_an_embedding_are_its_first_columns() {
    let file = cells("dense.h5ad");
    assert_eq!(Reduction::of(&file, "samples", 2), Reduction::First(2));
    assert_eq!(Reduction::of(&file, "X", 2), Reduction::Fit(2));
    assert_eq!(Reduction::of(Path::new("cells.npz"), "samples", 2), Reduction::Fit(2));
    let first = DataSource { components: Some(Reduction::First(2)), ..source("dense.h5ad") };
    let expected: Vec<f32> = truth("pca").chunks(3).flat_map(|row| row[..2].to_vec()).collect();
    assert_eq!(read_points(&first, &()).expect("reads").rows, expected);
    let too_many = DataSource { components: Some(Reduction::First(4)), ..source("dense.h5ad") };
    let error = read_points(&too_many, &()).expect_err("it has three columns").to_string();
    assert!(error.contains("has 3 columns, fewer than data.components = 4"), "{error}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let error = |source: &DataSource| load(source, &()).expect_err("refused").to_string();
    let with =
        |samples: &str, times: &str| DataSource { samples: samples.into(), times: times.into(), ..source("csr.h5ad") };
    for (source, said) in [
        (source("old.h5ad"), "before anndata 0.8"),
        (with("obsm/X_umap", "times"), "set data.samples to one of obsm/X_frame, obsm/X_pca, X, layers/counts"),
        (with("samples", "obs/age"), "set data.times to a column of obs: obs/batch"),
        (with("samples", "obs/celltype"), "\"HSC\", in which there is no number"),
        (with("samples", "obs/gap"), "row 0 (counted from 0) is NaN"),
        (with("X/GENE9", "times"), "GENE9"),
        (
            DataSource { only: Some("celltype == 'B'".parse().expect("a condition")), ..source("csr.h5ad") },
            "compare it with values that it has: HSC, MPP",
        ),
        (DataSource { only: Some("kind == 'B'".parse().expect("a condition")), ..source("csr.h5ad") }, "obs/kind"),
    ] {
        let error = error(&source);
        assert!(error.contains(said), "{said}: {error}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.h5ad");
    fs::write(&file, b"not HDF5").expect("written");
    assert!(error(&DataSource::new(&file)).contains("is not an HDF5 file"));
    let whole = fs::read(cells("csr.h5ad")).expect("reads");
    fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    assert!(error(&DataSource::new(&file)).contains("a.h5ad"));
}

/// A type of 2³⁰ bytes and more, and a chunk that begins near 2⁶⁴: found by fuzzing.
#[test]
fn numbers_of_a_damaged_file_do_not_overflow() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.h5ad");
    for (name, changes) in [
        ("dense.h5ad", &[(10_399, &[255][..])][..]),
        ("csc.h5ad", &[(19_949, &[4]), (59_806, &[2]), (72_696, &[254, 255, 255, 255, 255, 255, 255, 255])]),
    ] {
        let mut bytes = fs::read(cells(name)).expect("reads");
        for (at, change) in changes {
            bytes[*at..at + change.len()].copy_from_slice(change);
        }
        fs::write(&file, &bytes).expect("written");
        let told = describe(&file, &()).expect("described");
        assert!(told.contains("problem: "), "{told}");
        for samples in ["X", "layers/counts", "obsm/X_frame", "obsm/X_pca"] {
            let _ = read_points(&DataSource { samples: samples.into(), ..DataSource::new(&file) }, &());
        }
    }
}

#[test]
fn inspect_shows_what_a_file_holds() {
    let text = describe(&cells("csc.h5ad"), &()).expect("described");
    for line in [
        "AnnData of 23 cells and 5 genes",
        "X: csc_matrix, float64 [23, 5]",
        "obsm/X_pca: array, float32 [23, 3]",
        "obs/celltype: HSC, MPP",
        "obs/hours: numbers from 0 to 168",
        "3 snapshots of dimension 3, 23 rows",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn written_cells_open_in_anndata_and_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let positions: Vec<f32> = (0..2 * N_CELLS).map(|k| k as f32 / 7.0).collect();
    let times: Vec<f64> = (0..N_CELLS).map(|k| (k % 2) as f64 / 3.0).collect();
    let arrays = [PointArray::new("samples", Some(2), &positions[..]), PointArray::new("times", None, &times[..])];
    let file = folder.path().join("particles.h5ad");
    write_points(&*file, &arrays).expect("writes");
    let data = read_snapshots(&DataSource::new(&file), &()).expect("reads").snapshots;
    assert_eq!((data.times, data.offsets), (vec![0.0, 1.0 / 3.0], vec![0, 12, 23]));

    run_python("cells.py", folder.path(), std::iter::once("particles".into()));
    let look = |name: &str| {
        let source = DataSource { samples: name.into(), ..DataSource::new(folder.path().join("particles.npz")) };
        read_points(&source, &()).expect("reads")
    };
    assert_eq!(look("obsm.X_pca").rows, positions);
    let found: Vec<f32> = look("obs.times").positions().iter().map(|&time| time as f32).collect();
    assert_same(&found, &times.iter().map(|&time| time as f32).collect::<Vec<_>>(), "obs.times");
}

/// What a run reads from names of its own is written under them, with the names of columns.
#[test]
fn cells_are_written_where_a_run_reads_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let positions: Vec<f32> = (0..8).map(|k| k as f32 / 7.0).collect();
    let times = [0.0, 0.0, 1.0, 1.0];
    let names = ["GATA1".to_string(), "SPI1".to_string()];
    for (k, (place, columns)) in [
        ("obsm/X_umap", false),
        ("X_umap", false),
        ("obsm/X_umap", true),
        ("samples", true),
        ("X", true),
        ("X", false),
        ("X/GATA1,SPI1", true),
        ("layers/counts", true),
        ("layers/counts/GATA1,SPI1", true),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{k}.h5ad"));
        let columns = columns.then_some(&names[..]);
        let samples = PointArray::new("samples", Some(2), &positions[..]).with_columns(columns).at(Some(place));
        write_points(&*file, &[samples, PointArray::new("times", None, &times[..]).at(Some("obs/day"))])
            .expect("writes");
        let source = DataSource { samples: place.into(), times: "obs/day".into(), ..DataSource::new(&file) };
        let data = read_snapshots(&source, &()).expect(place);
        let found: Vec<f32> = (0..2).flat_map(|k| data.positions(k)).map(|x| x as f32).collect();
        assert_same(&found, &positions, place);
        assert_eq!(data.snapshots.times, [0.0, 1.0], "{place}");
        match columns {
            Some(names) => assert_eq!(data.columns.as_deref(), Some(names), "{place}"),
            None => assert!(data.columns.is_none_or(|names| names == ["0", "1"]), "{place}"),
        }
    }
    let one = folder.path().join("one.h5ad");
    let pseudotime = PointArray::new("samples", Some(1), &positions[..4]).at(Some("obs/pseudotime"));
    write_points(&*one, &[pseudotime, PointArray::new("times", None, &times[..])]).expect("writes");
    let source = DataSource { samples: "obs/pseudotime".into(), ..DataSource::new(&one) };
    assert_eq!(read_snapshots(&source, &()).expect("reads").snapshots.samples, positions[..4]);

    run_python("cells.py", folder.path(), ["2", "4", "7", "one"].into_iter().map(String::from));
    let look = |file: &str, name: &str| {
        let source = DataSource { samples: name.into(), ..DataSource::new(folder.path().join(file)) };
        rounded(&read_points(&source, &()).expect("reads"))
    };
    assert_same(&look("2.npz", "obsm.X_umap"), &positions, "a data frame");
    assert_same(&look("4.npz", "X"), &positions, "X");
    assert_same(&look("7.npz", "layers.counts"), &positions, "a layer");
    assert_eq!(look("one.npz", "obs.pseudotime"), positions[..4]);
}

/// Rows are called by their places in the file, not among those that pass `data.where`.
#[test]
fn rows_in_messages_are_those_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let kinds: Vec<f64> = (0..20).map(|k| f64::from(k % 2)).collect();
    let times: Vec<f64> = (0..20).map(|k| f64::from(k / 10)).collect();
    let mut weights = [1.0; 20];
    let mut samples: Vec<f32> = (0..20).map(|k| (k * k % 7) as f32).collect();
    (weights[13], samples[15]) = (-1.0, 1e4);
    let table: String = (0..20).map(|k| format!("{},{},{},{}\n", times[k], samples[k], weights[k], kinds[k])).collect();
    let csv = folder.path().join("a.csv");
    fs::write(&csv, format!("times,x,w,kind\n{table}")).expect("written");
    let write = |name: &str, times: &[f64]| {
        let file = folder.path().join(name);
        let arrays = [
            PointArray::new("samples", Some(1), &samples[..]),
            PointArray::new("times", None, times),
            PointArray::new("w", None, &weights[..]),
            PointArray::new("kind", None, &kinds[..]),
        ];
        write_points(&*file, &arrays).expect("writes");
        file
    };
    let cells = write("a.h5ad", &times);
    for file in [&csv, &cells] {
        let source = DataSource { only: Some("kind == 1".parse().expect("a condition")), ..DataSource::new(file) };
        let warnings = load(&source, &()).expect("loads").warnings;
        let outlier = warnings.iter().find(|warning| warning.contains("scales of all others"));
        assert!(outlier.is_some_and(|outlier| outlier.contains("row 15 (counted from 0)")), "{warnings:?}");
        let error = load(&DataSource { weights: Some("w".into()), ..source }, &()).expect_err("refused").to_string();
        assert!(error.contains("row 13 (counted from 0) is -1"), "{error}");
    }
    let mut missing = times;
    missing[17] = f64::NAN;
    let file = write("b.h5ad", &missing);
    let source = DataSource { only: Some("kind == 1".parse().expect("a condition")), ..DataSource::new(&file) };
    let error = load(&source, &()).expect_err("refused").to_string();
    assert!(error.contains("row 17 (counted from 0) is NaN"), "{error}");
}

#[test]
fn a_table_is_filtered_like_cells() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.csv");
    fs::write(&file, "times,x,kind\n0,1,a\n0,2,b\n1,3,a\n1,4,b\n").expect("written");
    let only = |text: &str| DataSource { only: Some(text.parse().expect("a condition")), ..DataSource::new(&file) };
    let data = read_snapshots(&only("kind == 'a'"), &()).expect("reads").snapshots;
    assert_eq!((data.samples, data.offsets), (vec![1.0, 3.0], vec![0, 1, 2]));
    let error = read_snapshots(&only("kind == 'c'"), &()).expect_err("no such rows").to_string();
    assert!(error.contains("data.where") && error.contains("none of 4 rows"), "{error}");
    let array = DataSource { only: Some("a == 1".parse().expect("a condition")), ..source("cells.npz") };
    let error = read_points(&array, &()).expect_err("no columns").to_string();
    assert!(error.contains("needs columns"), "{error}");
}
