//! Tables end to end: which columns are data, how the model keeps their names, and how every
//! command checks them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use action_matching::Error;
use action_matching::data::{DataSource, HoldOut, load, read_points, read_row_times, read_snapshots};
use action_matching::model::Model;
use action_matching::stage::Watch;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Rows of a table with two ordinary data columns.
fn rows(n: usize) -> impl Iterator<Item = (f64, f64, f64)> {
    (0..n).map(|row| (row as f64 * 0.7, (row % 3) as f64)).map(|(a, t)| (t, a.cos() + t, a.sin() * (1.0 + 0.1 * t)))
}

fn table(header: &str, line: impl Fn(usize, (f64, f64, f64)) -> String) -> String {
    let lines: String = rows(60).enumerate().map(|(row, values)| line(row, values) + "\n").collect();
    format!("{header}\n{lines}")
}

fn plain() -> String {
    table("times,PC1,PC2", |_, (t, x, y)| format!("{t},{x},{y}"))
}

fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("written");
    path
}

fn amatch(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amatch"));
    command.args(arguments).current_dir(folder).env_remove("LD_LIBRARY_PATH").env("CUDA_VISIBLE_DEVICES", "");
    command.output().expect("the program starts")
}

/// Standard output and error of a command that succeeds, or fails, as expected.
#[track_caller]
fn said(folder: &Path, arguments: &[&str], succeeds: bool) -> String {
    let output = amatch(folder, arguments);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.success(), succeeds, "{arguments:?}: {said}");
    said
}

const SMALL: [&str; 6] = ["--set", "training.steps=3", "--set", "model.hidden=[8]", "--set", "training.warmup_steps=1"];

/// Training and `inspect` guess alike what a table calls its times, and say the same of its rows.
#[test]
fn inspect_and_training_agree_on_a_table() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, header) in [("day.csv", "day,x,y"), ("time.csv", "x,Time,y"), ("t.csv", "t,x,y")] {
        let time_first = !header.starts_with('x');
        let rows: String = (0..24)
            .map(|k| {
                let x = if k == 5 { 1e4 } else { f64::from(k * k % 7) };
                if time_first { format!("{},{x},{k}.5\n", k % 3) } else { format!("{x},{},{k}.5\n", k % 3) }
            })
            .collect();
        let path = folder.path().join(name);
        std::fs::write(&path, format!("{header}\n{rows}")).expect("written");
        let loaded = load(&DataSource::new(&path), &()).expect("loads");
        assert_eq!(loaded.coordinates.columns, Some(vec!["x".into(), "y".into()]), "{name}");
        let column = header.split(',').find(|column| !["x", "y"].contains(column)).expect("a column");
        assert_eq!(loaded.notices, [format!("times are the column {column}, as nothing else is said")]);
        assert!(loaded.warnings.iter().any(|warning| warning.contains("row 5 (counted from 0)")), "{name}");
        let text = action_matching::data::describe(&path, &()).expect("described");
        assert!(text.contains("3 snapshots of dimension 2, 24 rows"), "{text}");
        for said in loaded.notices.iter().chain([&loaded.table]).chain(&loaded.warnings) {
            assert!(text.contains(said.as_str()), "{said}: {text}");
        }
    }
    // A column of the default name is not guessed about.
    let both = folder.path().join("both.csv");
    std::fs::write(&both, "times,day,x\n0,1,2\n1,5,3\n").expect("written");
    let loaded = load(&DataSource::new(&both), &()).expect("loads");
    assert_eq!((loaded.notices.len(), loaded.coordinates.columns), (0, Some(vec!["day".into(), "x".into()])));
}

/// A training prints the table of `inspect` word for word, unless it is told not to.
#[test]
fn training_says_what_inspect_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    file(here, "cells.csv", table("day,PC1,PC2", |_, (t, x, y)| format!("day {t},{},{y}", x * 3.7 + 1e3)));
    file(here, "run.toml", "[data]\npath = \"cells.csv\"\n");
    let inspected = said(here, &["inspect", "cells.csv"], true);
    assert!(
        inspected.contains("day is text, read as numbers: \"day 0\" is 0, \"day 1\" is 1, \"day 2\" is 2\n"),
        "{inspected}"
    );
    let (_, lines) = inspected.split_once('\n').expect("a line of columns");
    assert!(lines.lines().count() == 6 && lines.contains("\n  time 1: 20 rows, mean ± std "), "{lines}");
    let train = [&["train", "run.toml", "--force"][..], &SMALL].concat();
    let trained = said(here, &train, true);
    assert!(trained.contains(lines), "{lines} is not in {trained}");
    let quiet = said(here, &[&train[..], &["--quiet"]].concat(), true);
    assert!(!quiet.contains("mean ± std") && quiet.contains("day is text"), "{quiet}");
    let held = DataSource { hold_out: HoldOut::Times(vec![1.0]), ..DataSource::new(here.join("cells.csv")) };
    let loaded = load(&held, &()).expect("loads");
    assert!(loaded.table.starts_with("3 snapshots of dimension 2, 60 rows, 20 of them held out\n"), "{}", loaded.table);
    assert!(loaded.table.contains("  time 1: 20 rows held out, mean ± std "), "{}", loaded.table);
}

/// Texts are times as in a `.h5ad`, wherever times are read.
#[test]
fn times_are_the_numbers_in_texts() {
    let folder = tempfile::tempdir().expect("a folder");
    for (texts, times) in
        [(["E8.5", "E7"], [7.0, 8.5]), (["12h", "0h"], [0.0, 12.0]), (["day 3", "Day 10"], [3.0, 10.0])]
    {
        let rows: String = texts.iter().map(|text| format!("{text},1\n{text},2\n")).collect();
        let source = DataSource::new(file(folder.path(), "a.csv", format!("stage,x\n{rows}")));
        let source = DataSource { times: "stage".into(), ..source };
        assert_eq!(read_snapshots(&source, &()).expect("reads").snapshots.times, times);
        let of_rows = read_row_times(&source, 4, &()).expect("reads");
        let ordered = |a: f64, b: f64| [a.min(b), a.max(b)];
        assert_eq!((ordered(of_rows[0], of_rows[2]), of_rows[1]), (times, of_rows[0]));
        let notices = load(&source, &()).expect("loads").notices;
        assert!(notices.len() == 1 && notices[0].starts_with("stage is text, read as numbers: "), "{notices:?}");
    }
    for (rows, problem) in [
        ("day 3,1\ncontrol,2\n", "times: holds \"control\", in which there is no number, in row 1"),
        ("3,1\n2d,2\n", "times: holds \"3\" and \"2d\", whose units may differ, in row 1"),
        ("\"1,5\",1\n", "times: is \"1,5\" in row 0 (counted from 0): a decimal comma"),
        (",1\n", "times: is empty in row 0"),
    ] {
        let source = DataSource::new(file(folder.path(), "bad.csv", format!("times,x\n{rows}")));
        let refused = read_snapshots(&source, &()).expect_err(rows).to_string();
        assert!(refused.contains(problem), "{refused}");
    }
}

#[test]
fn row_numbers_are_not_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let want = load(&DataSource::new(file(folder.path(), "plain.csv", plain())), &()).expect("loads");
    assert_eq!((want.warnings.len(), want.coordinates.columns.clone()), (0, Some(vec!["PC1".into(), "PC2".into()])));
    for (name, header) in [("pandas.csv", ",times,PC1,PC2"), ("again.csv", "Unnamed: 0,times,PC1,PC2")] {
        let content = table(header, |row, (t, x, y)| format!("{row},{t},{x},{y}"));
        let source = DataSource::new(file(folder.path(), name, content));
        let got = load(&source, &()).expect("loads");
        assert_eq!((&got.training, &got.coordinates), (&want.training, &want.coordinates));
        assert!(got.warnings.len() == 1 && got.warnings[0].contains("not taken for samples"), "{:?}", got.warnings);
        // A start file has the same dimension as the same file used as data.
        assert_eq!(read_points(&source, &()).expect("reads").dim, 2);
    }
    // A named column that counts the rows, in any order, from 0 or 1, is taken with a warning;
    // named explicitly, without one.
    for first in [0, 1] {
        let number = |row: usize| first + (row * 7) % 60;
        let content = table("count,times,PC1,PC2", |row, (t, x, y)| format!("{},{t},{x},{y}", number(row)));
        let source = DataSource::new(file(folder.path(), "cells.csv", content));
        let got = load(&source, &()).expect("loads");
        assert_eq!(got.training.dim, 3);
        let warned =
            |warnings: &[String]| warnings.iter().any(|w| w.contains("numbers of the rows") && w.contains("count"));
        assert!(warned(&got.warnings), "{:?}", got.warnings);
        let named = DataSource { samples: "count,PC1,PC2".into(), ..source.clone() };
        assert!(!warned(&load(&named, &()).expect("loads").warnings));
        let chosen = DataSource { samples: "PC?".into(), ..source };
        assert_eq!(load(&chosen, &()).expect("loads").training, want.training);
    }
}

#[test]
fn separators_and_compression() {
    let folder = tempfile::tempdir().expect("a folder");
    let want = read_snapshots(&DataSource::new(file(folder.path(), "plain.csv", plain())), &()).expect("reads");
    let gz = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).expect("compressed");
        encoder.finish().expect("compressed")
    };
    let [semicolons, tabs] = [";", "\t"].map(|separator| plain().replace(',', separator));
    for (name, content) in [
        ("semicolon.csv", semicolons.clone().into_bytes()),
        ("tab.csv", tabs.clone().into_bytes()),
        ("tab.tsv", tabs.clone().into_bytes()),
        ("comma.CSV.GZ", gz(&plain())),
        ("tab.tsv.gz", gz(&tabs)),
        ("bom.csv", format!("\u{feff}{semicolons}").into_bytes()),
        // Two concatenated gzip members are one text.
        ("two.csv.gz", [gz(&plain()[..100]), gz(&plain()[100..])].concat()),
    ] {
        let got = read_snapshots(&DataSource::new(file(folder.path(), name, content)), &()).expect(name);
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn a_model_keeps_the_names_and_every_command_wants_them() {
    let guard = tempfile::tempdir().expect("a folder");
    let folder = guard.path();
    file(folder, "data.csv", table(",times,PC1,PC2", |row, (t, x, y)| format!("{row},{t},{x},{y}")));
    file(folder, "run.toml", "[data]\npath = \"data.csv\"\n");
    assert!(said(folder, &[&["train", "run.toml"][..], &SMALL].concat(), true).contains("not taken for samples"));
    let model = Model::load(&folder.join("runs/run/model.safetensors")).expect("a model");
    assert_eq!(model.coordinates.columns, Some(vec!["PC1".into(), "PC2".into()]));
    assert!(said(folder, &["inspect", "runs/run"], true).contains("PC1, PC2"));

    // Both the table itself and a file of written particles can start particles.
    let sample = |from: &str, out: &str| said(folder, &["sample", "runs/run", "--from", from, "--out", out], true);
    sample("data.csv", "p.csv");
    assert!(fs::read_to_string(folder.join("p.csv")).expect("readable").starts_with("PC1,PC2,times,ids\n"));
    sample("p.csv", "p.npz");
    sample("p.npz", "q.tsv.gz");
    sample("q.tsv.gz", "r.npz");

    for (name, header, part) in [
        ("order.csv", "times,PC2,PC1", "PC2, PC1 are in another order, trained on PC1, PC2"),
        ("other.csv", "times,PC1,PC3", "PC1, PC3 are not those of the model, trained on PC1, PC2"),
    ] {
        file(folder, name, table(header, |_, (t, x, y)| format!("{t},{x},{y}")));
        for arguments in [
            &["sample", "runs/run", "--from", name, "--out", "x.npz"][..],
            &["sample", "runs/run", "--from", "snapshot:0", "--data", name, "--out", "x.npz"],
            &["evaluate", "runs/run", name],
        ] {
            let message = said(folder, arguments, false);
            assert!(message.contains(part) && message.contains(name), "{message}");
        }
    }
    assert!(!folder.join("x.npz").exists());
    // If columns are named they are taken in the given order.
    said(folder, &["sample", "runs/run", "--from", "order.csv", "--samples", "PC1,PC2", "--out", "x.npz"], true);
    said(folder, &["evaluate", "runs/run", "--points", "20"], true);
}

/// A watch that cancels the stage at the `n`-th report.
struct Ends(std::sync::atomic::AtomicU64, std::sync::Mutex<Vec<(u64, u64)>>);

impl Ends {
    fn after(n: u64) -> Self {
        Ends(n.into(), Default::default())
    }
}

impl Watch for Ends {
    fn advanced(&self, done: u64, total: u64) {
        self.1.lock().expect("unpoisoned").push((done, total));
    }

    fn is_cancelled(&self) -> bool {
        let left = self.0.load(std::sync::atomic::Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), std::sync::atomic::Ordering::Relaxed);
        left == 0
    }
}

#[test]
fn reading_reports_how_far_it_is_and_can_be_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut text = String::from("times,x,y\n");
    (0..20_000).for_each(|row| text += &format!("{},{}.25,{}\n", row % 2, row % 97, row % 89));
    let n = 200_000;
    let zeros = crate::data_support::npy("<f8", false, &[n, 2], &vec![0; 16 * n]);
    let times = crate::data_support::npy("|u1", false, &[n], &(0..n).map(|row| (row % 2) as u8).collect::<Vec<_>>());
    let archive = crate::data_support::npz(&[("samples", zeros), ("times", times)], zip::CompressionMethod::Deflated);
    for source in [file(folder.path(), "a.csv", text), file(folder.path(), "a.npz", archive)].map(DataSource::new) {
        let patient = Ends::after(u64::MAX);
        load(&source, &patient).expect("loads");
        let reports = patient.1.into_inner().expect("unpoisoned");
        assert!(reports.len() > 20, "{} reports", reports.len());
        assert!(reports.windows(2).all(|pair| pair[0].0 <= pair[1].0), "progress goes back");
        let (done, total) = reports[reports.len() - 1];
        assert_eq!(done, total);
        for n in [0, 1, reports.len() as u64 / 2, reports.len() as u64 - 1] {
            assert!(matches!(load(&source, &Ends::after(n)), Err(Error::Interrupted)), "report {n}");
        }
        assert!(matches!(read_snapshots(&source, &Ends::after(2)), Err(Error::Interrupted)));
        assert!(matches!(read_points(&source, &Ends::after(2)), Err(Error::Interrupted)));
    }
}
