//! Tables in `.parquet`, written by pyarrow (`tests/data_support/tables/make.py`): read as the same
//! table in text is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use action_matching::data::{
    DataSource, HoldOut, Loaded, RowShare, SplitColumn, SplitValue, Standardization, load, read_ids, read_points,
    read_row_times, read_snapshots,
};
use action_matching::stage::Watch;

use crate::cli::{amatch, succeeds, text, trained};

const FILES: [&str; 3] = ["cells.parquet", "zstd.parquet", "gzip.parquet"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data_support/tables").join(name)
}

fn source(name: &str) -> DataSource {
    let mut source = DataSource::new(fixture(name));
    source.samples = "x,y,half,count,bytes".into();
    source.times = "day".into();
    source
}

/// What was loaded, with the name of the file as that of the text.
fn loaded(source: &DataSource) -> Loaded {
    let mut loaded = load(source, &()).unwrap_or_else(|error| panic!("{error}"));
    let [name, text] = [source.path.clone(), fixture("cells.csv")].map(|path| path.display().to_string());
    let renamed = |lines: &mut Vec<String>| lines.iter_mut().for_each(|line| *line = line.replace(&name, &text));
    renamed(&mut loaded.warnings);
    renamed(&mut loaded.notices);
    loaded
}

#[test]
fn a_table_is_loaded_as_the_same_one_in_text() {
    type Set = fn(&mut DataSource);
    let settings: [(&str, Set); 10] = [
        ("texts as times", |_| ()),
        ("numbers as times", |source| source.times = "hours".into()),
        ("conditions", |source| source.conditions = vec!["dose".into(), "treated".into()]),
        ("weights and rates", |source| {
            source.weights = Some("weight".into());
            source.growth = Some("rate".into());
        }),
        ("some rows", |source| {
            let filter = "celltype in ['HSC', 'MPP'] and count < 400 and treated == false and remark != 'a'";
            source.only = Some(filter.parse().expect("a condition"));
        }),
        ("32-bit numbers in a condition", |source| source.only = Some("dose == 0.1".parse().expect("a condition"))),
        ("large integers", |source| source.only = Some("large > 1e19".parse().expect("a condition"))),
        ("a column of splits", |source| {
            source.hold_out =
                HoldOut::Column(SplitColumn { column: "split".into(), value: SplitValue::Text("test".into()) });
        }),
        ("a share of the rows", |source| source.hold_out = HoldOut::Share(RowShare { share: 0.2, seed: 3 })),
        ("a pattern, robust", |source| {
            source.samples = "?,h*f".into();
            source.standardize = Standardization::Robust;
        }),
    ];
    for (name, set) in settings {
        let expected = {
            let mut text = source("cells.csv");
            set(&mut text);
            loaded(&text)
        };
        assert!(!expected.training.samples.is_empty());
        for file in FILES {
            let mut table = source(file);
            set(&mut table);
            assert_eq!(loaded(&table), expected, "{name}, {file}");
        }
    }
    // The same columns are samples of their own accord, and those of a structure have its name.
    let mut nested = source("cells.parquet");
    nested.samples = "place.left".into();
    assert_eq!(read_points(&nested, &()).expect("reads").rows[..3], [0.0, 0.25, 0.5]);
}

#[test]
fn rows_keep_their_names_and_times() {
    for file in FILES {
        let table = source(file);
        let names = read_ids(&table, 24, &()).expect("reads").expect("names");
        assert_eq!((names[0].as_str(), names[23].as_str()), ("cell 0", "cell 23"), "{file}");
        assert_eq!(read_row_times(&table, 24, &()).expect("times")[..4], [0.0, 1.5, 3.0, 0.0], "{file}");
        // Every digit of an integer that f64 does not hold.
        let condition = "large == '18446744073709551610'".parse().expect("a condition");
        let one = DataSource { only: Some(condition), ..table };
        assert_eq!(read_ids(&one, 1, &()).expect("reads").expect("a name"), ["cell 5"], "{file}");
    }
}

#[test]
fn what_is_no_number_is_refused_as_in_text() {
    let refused = |source: &DataSource| read_snapshots(source, &()).expect_err("refused").to_string();
    let of = |file: &str, samples: &str| DataSource { samples: samples.into(), ..source(file) };
    for (samples, problem) in [
        ("x,gaps", "gaps: is empty in row 4 (counted from 0)"),
        ("celltype", "celltype: is \"HSC\", not a number, in row 0"),
        ("treated", "treated: is \"False\", not a number, in row 0"),
        ("x,missing", "missing: no such column"),
    ] {
        let expected = refused(&of("cells.csv", samples));
        assert!(expected.contains(problem), "{expected}");
        for file in &FILES[1..] {
            let name = fixture(file).display().to_string();
            assert_eq!(
                refused(&of(file, samples)).replace(&name, &fixture("cells.csv").display().to_string()),
                expected
            );
        }
    }
    for (samples, problem) in [
        ("steps.list.element", "holds lists, which are neither numbers nor texts"),
        ("when", "holds values of type Timestamp"),
    ] {
        let found = refused(&of("cells.parquet", samples));
        assert!(found.contains(problem) && found.contains("leave this column out"), "{found}");
    }
    let plain = |file| DataSource::new(fixture(file));
    let found = refused(&plain("refused-codec.parquet"));
    assert!(found.contains("times: is compressed by BROTLI, which is not read (save it"), "{found}");
    let found = refused(&plain("refused-encoding.parquet"));
    assert!(found.contains("times: is encoded as DELTA_BINARY_PACKED, which is not read (save it"), "{found}");
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = fs::read(fixture("gzip.parquet")).expect("read");
    let path = folder.path().join("a.parquet");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        load(&DataSource { path: path.clone(), ..source("gzip.parquet") }, &()).expect_err("refused").to_string()
    };
    for (bytes, problem) in [(&[][..], "is empty"), (b"times,x\n0,1\n", "is not a Parquet file")] {
        let found = refused(bytes);
        assert!(found.contains(problem), "{found}");
    }
    for length in (0..whole.len()).step_by(53) {
        let found = refused(&whole[..length]);
        assert!(found.contains("a.parquet: file: is"), "{length}: {found}");
    }
    // A page that is gone: its place holds another.
    let mut moved = whole.clone();
    moved.copy_within(2000..2600, 4);
    let found = refused(&moved);
    assert!(found.contains("a.parquet: ") && found.contains("copy or save it again"), "{found}");
}

/// Keeps the last report.
#[derive(Default)]
struct Last(Mutex<(u64, u64)>);

impl Watch for Last {
    fn advanced(&self, done: u64, total: u64) {
        *self.0.lock().expect("unpoisoned") = (done, total);
    }
}

#[test]
fn commands_read_it_and_write_other_formats() {
    let watch = Last::default();
    load(&source("cells.parquet"), &watch).expect("loads");
    let (done, total) = watch.0.into_inner().expect("unpoisoned");
    assert!(done == total && total > 0, "{done} of {total}");
    let (_guard, folder) = trained();
    fs::copy(fixture("cells.parquet"), folder.join("cells.parquet")).expect("copied");
    let described = succeeds(&folder, &["inspect", "cells.parquet"]);
    assert!(described.starts_with("table with columns barcode, day, hours, x, y,"), "{described}");
    let config = "[data]\npath = \"cells.parquet\"\ntimes = \"day\"\nsamples = \"x,half\"\n";
    fs::write(folder.join("cells.toml"), config).expect("written");
    let small = ["--set", "training.steps=3", "--set", "model.hidden=[8]", "--set", "training.warmup_steps=1"];
    succeeds(&folder, &[&["train", "cells.toml", "--device", "cpu"][..], &small].concat());
    let sample = ["sample", "runs/cells", "--from", "cells.parquet", "--t0", "0", "--out"];
    succeeds(&folder, &[&sample[..], &["moved.csv"]].concat());
    let moved = fs::read_to_string(folder.join("moved.csv")).expect("read");
    assert_eq!(moved.lines().next(), Some("x,half,times,ids"));
    assert!(moved.contains(",cell 0\n") && moved.lines().count() == 25, "{moved}");
    let refused = amatch(&folder, &[&sample[..], &["moved.parquet"]].concat());
    assert!(
        text(&refused.stderr).contains("which is read but not written (write .csv.gz"),
        "{}",
        text(&refused.stderr)
    );
}
