//! What `data.hold_out` leaves out of training, in each of its forms.

use std::fs;
use std::path::Path;

use action_matching::config::Config;
use action_matching::data::{DataSource, HoldOut, RowShare, SplitColumn, SplitValue, load, read_divided, read_points};
use zip::CompressionMethod;

use super::data_support::{f32s, npy, npz};

/// A column of text.
const SPLIT: &str = "split";

/// Rows 0 to 47 at times 0, 10, 20, 30 in turn; every third is marked, in text and by a number.
fn table(folder: &Path) -> DataSource {
    let row = |i: usize| {
        let (time, split) = ((i % 4) * 10, if i % 3 == 1 { "test" } else { "train" });
        format!("{time},{},{split},{}\n", i as f32 * 0.5, i % 3)
    };
    let rows: String = (0..48).map(row).collect();
    let path = folder.join("cells.csv");
    fs::write(&path, format!("times,x,{SPLIT},fold\n{rows}")).expect("written");
    DataSource { samples: "x".into(), ..DataSource::new(path) }
}

fn held_by(source: &DataSource, hold_out: HoldOut) -> DataSource {
    DataSource { hold_out, ..source.clone() }
}

fn column(column: &str, value: SplitValue) -> HoldOut {
    HoldOut::Column(SplitColumn { column: column.into(), value })
}

#[test]
fn the_last_time_can_be_held_out_and_lies_beyond_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = held_by(&table(folder.path()), vec![30.0, 10.0].into());
    let loaded = load(&source, &()).expect("loads");
    assert_eq!(loaded.training.times, [0.0, 1.0]);
    assert_eq!(loaded.coordinates.time_range, [0.0, 20.0]);
    assert_eq!(loaded.held_out.times, [0.5, 1.5]);
    let all = held_by(&source, vec![10.0, 20.0, 30.0].into());
    let refused = load(&all, &()).expect_err("one time is left").to_string();
    assert!(refused.contains("hold_out: leaves one time to train on, 0 (hold out fewer times)"), "{refused}");
}

#[test]
fn a_range_is_the_list_of_its_times() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = table(folder.path());
    let by_range = held_by(&source, HoldOut::Range("10..30 step 20".parse().expect("a range")));
    let by_list = held_by(&source, vec![10.0, 30.0].into());
    assert_eq!(load(&by_range, &()).expect("loads"), load(&by_list, &()).expect("loads"));
    let refused =
        load(&held_by(&source, HoldOut::Range("0..5".parse().expect("a range"))), &()).expect_err("the first");
    assert!(
        refused.to_string().contains("hold_out: 0 is the first time, which every prediction starts from"),
        "{refused}"
    );
}

/// Rows of every snapshot are at its time among both, each in one of the two.
#[test]
fn a_share_of_the_rows_is_at_every_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = held_by(&table(folder.path()), HoldOut::Share(RowShare { share: 0.25, seed: 1 }));
    let loaded = load(&source, &()).expect("loads");
    assert_eq!(loaded.training.times, loaded.held_out.times);
    assert_eq!((loaded.training.offsets, loaded.held_out.offsets), (vec![0, 9, 18, 27, 36], vec![0, 3, 6, 9, 12]));
    let mut rows = [loaded.training.samples, loaded.held_out.samples.clone()].concat();
    loaded.coordinates.to_data(&mut rows);
    rows.sort_by(f32::total_cmp);
    assert!(rows.iter().zip(0..48).all(|(x, i)| (x - i as f32 * 0.5).abs() < 1e-4), "{rows:?}");
    let other = held_by(&source, HoldOut::Share(RowShare { share: 0.25, seed: 2 }));
    assert_ne!(load(&other, &()).expect("loads").held_out.samples, loaded.held_out.samples);
    let none = held_by(&source, HoldOut::Share(RowShare { share: 1e-9, seed: 0 }));
    let refused = load(&none, &()).expect_err("no row").to_string();
    assert!(refused.contains("hold_out: a share of 0.000000001 is no row"), "{refused}");
}

/// Scale and center are those of the training rows alone.
#[test]
fn held_out_rows_change_nothing_of_training() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, held_out: f32| {
        let rows: String = (0..40).map(|i| format!("{},{},a\n{},{held_out},b\n", i % 2, i * i, i % 2)).collect();
        let path = folder.path().join(name);
        fs::write(&path, format!("times,x,{SPLIT}\n{rows}")).expect("written");
        held_by(&DataSource::new(path), column(SPLIT, SplitValue::Text("b".into())))
    };
    let [near, far] = [write("near.csv", 3.0), write("far.csv", 3e6)].map(|source| load(&source, &()).expect("loads"));
    assert_eq!((near.training, near.coordinates), (far.training, far.coordinates));
    assert_ne!(near.held_out, far.held_out);
}

/// A column with text beside the samples is none of them, whatever selects these.
#[test]
fn a_column_marks_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = table(folder.path());
    let by_text = held_by(&source, column(SPLIT, SplitValue::Text("test".into())));
    let by_number = held_by(&source, column("fold", SplitValue::Number(1.0)));
    let loaded = load(&by_text, &()).expect("loads");
    assert_eq!(loaded.held_out.offsets, [0, 4, 8, 12, 16]);
    let without_names = |mut source: DataSource| {
        source.samples = "samples".into();
        let divided = read_divided(&source, &()).expect("reads");
        (divided.training.columns.clone().expect("a table"), divided)
    };
    let (columns, divided) = without_names(by_text.clone());
    assert_eq!(columns, ["x", "fold"], "not the column of the split");
    assert_eq!(divided.held_out.rows(1).chunks(2).map(|row| row[0]).collect::<Vec<_>>(), [0.5, 6.5, 12.5, 18.5]);
    assert_eq!(load(&by_number, &()).expect("loads").held_out, loaded.held_out);
    let pattern = DataSource { samples: "*".into(), ..by_text.clone() };
    assert_eq!(read_points(&pattern, &()).expect("reads").columns.expect("a table"), ["x", "fold"]);

    for (hold_out, problem) in [
        (
            column("part", SplitValue::Number(1.0)),
            "part: no such column to hold out by (name one of its columns: times",
        ),
        (
            column(SPLIT, SplitValue::Text("valid".into())),
            "split: holds \"valid\" in no row (name a value that it holds: train, test)",
        ),
        (column("fold", SplitValue::Number(7.0)), "fold: holds 7 in no row (name a value that it holds: 0, 1, 2)"),
        (column("times", SplitValue::Number(0.0)), "hold_out: times is 0 in every row of time 0, the first"),
    ] {
        let refused = load(&held_by(&source, hold_out), &()).expect_err(problem).to_string();
        assert!(refused.contains("cells.csv") && refused.contains(problem), "{refused}");
    }
    let all: String = (0..4).map(|i| format!("{},{i},a\n", i % 2)).collect();
    let path = folder.path().join("all.csv");
    fs::write(&path, format!("times,x,{SPLIT}\n{all}")).expect("written");
    let refused = load(&held_by(&DataSource::new(path), column(SPLIT, SplitValue::Text("a".into()))), &());
    assert!(refused.expect_err("all").to_string().contains("split: holds \"a\" in every row"));
}

#[test]
fn an_array_marks_the_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cells.npz");
    let members = [
        ("samples", npy("<f4", false, &[6], &f32s(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))),
        ("times", npy("<f4", false, &[6], &f32s(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]))),
        ("test", npy("|u1", false, &[6], &[0, 1, 0, 0, 0, 1])),
        ("share", npy("<f4", false, &[6], &f32s(&[0.1, 0.2, 0.1, 0.1, 0.2, 0.2]))),
        ("short", npy("|u1", false, &[5], &[0, 1, 0, 0, 0])),
    ];
    fs::write(&path, npz(&members, CompressionMethod::Deflated)).expect("written");
    let source = DataSource::new(&path);
    let held = |name: &str, value: SplitValue| {
        let divided = read_divided(&held_by(&source, column(name, value)), &());
        divided.map(|divided| divided.held_out.samples).map_err(|error| error.to_string())
    };
    assert_eq!(held("test", SplitValue::Number(1.0)).expect("reads"), [2.0, 6.0]);
    assert_eq!(held("share", SplitValue::Number(0.2)).expect("reads"), [2.0, 5.0, 6.0]);
    let text = held("test", SplitValue::Text("yes".into())).expect_err("numbers alone");
    assert!(text.contains("test: is an array, which holds no text such as \"yes\" (give a number"), "{text}");
    let short = held("short", SplitValue::Number(1.0)).expect_err("too short");
    assert!(short.contains("short: has shape [5, 1], but there are 6 rows"), "{short}");
    let other = held("share", SplitValue::Number(0.3)).expect_err("no row");
    assert!(other.contains("in no row (name a value that it holds: 0.1"), "{other}");
}

/// Each form as it is written in a file; what is written is read back as the same.
#[test]
fn configurations_hold_every_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.toml");
    let read = |text: &str| {
        fs::write(&path, format!("[data]\npath = \"a.csv\"\nhold_out = {text}\n")).expect("written");
        Config::read(&path, &[])
    };
    let range = || HoldOut::Range("0.5..19.5 step 1".parse().expect("a range"));
    for (text, hold_out) in [
        ("[]", HoldOut::default()),
        ("[1, 2.5]", vec![1.0, 2.5].into()),
        ("\"0.5..19.5 step 1\"", range()),
        ("{ share = 0.1, seed = 3 }", HoldOut::Share(RowShare { share: 0.1, seed: 3 })),
        ("{ share = 0.1 }", HoldOut::Share(RowShare { share: 0.1, seed: 0 })),
        ("{ column = \"split\", value = \"test\" }", column("split", SplitValue::Text("test".into()))),
        ("{ column = \"fold\", value = 2 }", column("fold", SplitValue::Number(2.0))),
    ] {
        let config = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(config.data.hold_out, hold_out, "{text}");
        fs::write(&path, config.to_toml().expect("text")).expect("written");
        assert_eq!(Config::read(&path, &[]).expect("is read again").data.hold_out, hold_out, "{text}");
    }
    let set = Config::read(&path, &["data.hold_out=0.5..19.5 step 1".into()]).expect("is read");
    assert_eq!(set.data.hold_out, range());
    for (text, problem) in [
        ("{ share = 1.5 }", "data.hold_out.share: is 1.5 (use a share of the rows between 0 and 1)"),
        ("{ seed = 1 }", "data.hold_out.share: is 0 (use a share"),
        ("{ column = \"split\" }", "data.hold_out.value: is not given"),
        ("{ value = 1 }", "data.hold_out.column: is not given"),
        ("{ share = 0.1, column = \"split\" }", "(use a list of times, a range such as \"0.5..19.5 step 1\""),
        ("\"1..\"", "data.hold_out: is \"1..\" (use a list of times, a range"),
        (
            "{ shares = 0.1 }",
            "data.hold_out.shares: is not a setting of data.hold_out (did you mean data.hold_out.share?)",
        ),
    ] {
        let refused = read(text).expect_err(text).to_string();
        assert!(refused.contains(problem), "{refused}");
    }
}
