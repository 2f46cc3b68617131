//! Names of rows, such as barcodes of cells, from a file to what is made of its rows.

use std::fs;
use std::path::Path;

use action_matching::data::{
    DataSource, PointArray, read_ids, read_points, read_row_times, read_snapshots, write_points,
};
use zip::CompressionMethod;

use crate::cli::{amatch, succeeds, text, trained};
use crate::data_support::{f32s, npy, npz};

fn ids(source: &DataSource, n_rows: usize) -> Option<Vec<String>> {
    read_ids(source, n_rows, &()).expect("reads")
}

fn of_file(folder: &Path, name: &str) -> Option<Vec<String>> {
    let source = DataSource::new(folder.join(name));
    let points = read_points(&source, &()).expect("reads");
    ids(&source, points.rows.len() / points.dim)
}

fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| text.to_string()).collect())
}

#[test]
fn a_table_names_its_rows_in_a_column_that_is_no_sample() {
    let folder = tempfile::tempdir().expect("a folder");
    for (header, named) in [
        ("barcode,times,x", true),
        ("Cell_ID,times,x", true),
        (",times,x", true),
        ("Unnamed: 0,times,x", true),
        ("x,times,id", false),
    ] {
        let rows = if named { "AAAC,0,1\n\"TTT,G\",1,2\n" } else { "1,0,AAAC\n2,1,\"TTT,G\"\n" };
        fs::write(folder.path().join("a.csv"), format!("{header}\n{rows}")).expect("written");
        assert_eq!(of_file(folder.path(), "a.csv"), texts(&["AAAC", "TTT,G"]), "{header}");
        let points = read_points(&DataSource::new(folder.path().join("a.csv")), &()).expect("reads");
        assert_eq!((points.dim, &points.rows[..]), (1, &[1.0, 2.0][..]), "{header}");
    }
    fs::write(folder.path().join("none.csv"), "times,x\n0,1\n1,2\n").expect("written");
    assert_eq!(of_file(folder.path(), "none.csv"), None);
    // Those of the rows that are read.
    fs::write(folder.path().join("some.csv"), "id,times,x,kind\na,0,1,u\nb,0,2,v\nc,1,3,u\n").expect("written");
    let only = Some("kind == 'u'".parse().expect("a condition"));
    let source = DataSource { only, ..DataSource::new(folder.path().join("some.csv")) };
    assert_eq!(ids(&source, 2), texts(&["a", "c"]));
    let long = format!("id,times,x\na,0,1\n{},1,2\n", "A".repeat(1025));
    fs::write(folder.path().join("long.csv"), long).expect("written");
    let refused = read_ids(&DataSource::new(folder.path().join("long.csv")), 2, &()).expect_err("too long").to_string();
    assert!(refused.contains("long.csv: id: has a name of 1025 bytes in row 1"), "{refused}");
}

#[test]
fn ids_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = texts(&["AAAC", "ä, \"b\"", "AAAC"]).expect("texts");
    let (positions, times) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    let arrays = [
        PointArray::new("samples", Some(1), &positions[..]),
        PointArray::new("times", None, &times[..]),
        PointArray::ids(&names, 2),
    ];
    let twice = [&names[..], &names[..]].concat();
    for name in ["p.csv", "p.tsv.gz", "p.npz", "p.h5ad"] {
        write_points(&*folder.path().join(name), &arrays).expect(name);
        assert_eq!(of_file(folder.path(), name).as_ref(), Some(&twice), "{name}");
        let data = read_snapshots(&DataSource::new(folder.path().join(name)), &()).expect(name).snapshots;
        assert_eq!((&data.times[..], &data.samples[..]), (&[0.0, 1.0][..], &positions[..]), "{name}");
        let described = succeeds(folder.path(), &["inspect", name]);
        assert!(!described.contains("problem"), "{described}");
    }
    for name in ["p.npy", "p.safetensors"] {
        write_points(&*folder.path().join(name), &arrays).expect(name);
        assert_eq!(of_file(folder.path(), name), None, "{name}");
    }
    // As NumPy has bytes and texts of the other byte order.
    let big_endian: Vec<u8> = "ab\0cd\0".chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    for (descr, data) in [("|S3", b"ab\0cd\0".to_vec()), (">U3", big_endian)] {
        let members =
            [("samples", npy("<f4", false, &[2], &f32s(&[1.0, 2.0]))), ("ids", npy(descr, false, &[2], &data))];
        fs::write(folder.path().join("theirs.npz"), npz(&members, CompressionMethod::Stored)).expect("written");
        assert_eq!(of_file(folder.path(), "theirs.npz"), texts(&["ab", "cd"]), "{descr}");
    }
    let members = [("samples", npy("<f4", false, &[1], &f32s(&[1.0]))), ("ids", npy("<U2", false, &[2], &[0; 16]))];
    fs::write(folder.path().join("two.npz"), npz(&members, CompressionMethod::Stored)).expect("written");
    let refused = read_ids(&DataSource::new(folder.path().join("two.npz")), 1, &()).expect_err("two").to_string();
    assert!(refused.contains("two.npz: ids: has shape [2]") && refused.contains("per row: 1 of them"), "{refused}");
}

/// The index of `obs` holds each name once, as AnnData wants it.
#[test]
fn cells_keep_their_names() {
    let cells = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data_support/cells/dense.h5ad");
    let all = ids(&DataSource::new(&cells), 23).expect("names");
    assert_eq!((all[0].as_str(), all[22].as_str()), ("cell 0", "cell 22"));
    let only = Some("celltype == 'MPP'".parse().expect("a condition"));
    let some = ids(&DataSource { only, ..DataSource::new(&cells) }, 11).expect("names");
    assert_eq!(some[..3], ["cell 2", "cell 3", "cell 6"]);
}

/// The column `ids` of the table `name`, and its times.
fn written(folder: &Path, name: &str) -> (Vec<String>, Vec<f64>) {
    let source = DataSource::new(folder.join(name));
    let points = read_points(&source, &()).expect("reads");
    let n_rows = points.rows.len() / points.dim;
    (ids(&source, n_rows).expect("ids"), read_row_times(&source, n_rows, &()).expect("times"))
}

#[test]
fn particles_and_queries_keep_the_names_of_their_start() {
    let (_guard, folder) = trained();
    fs::write(folder.join("start.csv"), "barcode,times,x,y\nAAAC,0,0.5,0\nCCCG,1,1,0.5\nGGGT,0,1.5,1\n")
        .expect("written");
    let sample = ["sample", "runs/run", "--from", "start.csv", "--method", "euler", "--steps", "2", "--force", "--out"];
    succeeds(&folder, &[&sample[..], &["m.csv", "--save-at", "1", "2"]].concat());
    let names = ["AAAC", "CCCG", "GGGT"];
    let twice = [names, names].concat().into_iter().map(String::from).collect::<Vec<_>>();
    assert_eq!(written(&folder, "m.csv"), (twice.clone(), vec![1.0, 1.0, 1.0, 2.0, 2.0, 2.0]));
    // Drawn particles have the names of their rows.
    succeeds(&folder, &[&sample[..], &["drawn.csv", "-n", "40", "--t0", "0", "--t1", "1e-9"]].concat());
    let table = fs::read_to_string(folder.join("drawn.csv")).expect("read");
    let start = |name: &str| names.iter().position(|known| *known == name).expect("a name") as f64 * 0.5 + 0.5;
    assert_eq!(table.lines().next(), Some("x,y,times,ids"));
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let x: f64 = fields[0].parse().expect("a number");
        assert!((x - start(fields[3])).abs() < 1e-3, "{line}");
    }
    assert_eq!(table.lines().count(), 41);
    // The file that `sample` wrote has names for the next command.
    succeeds(&folder, &["query", "runs/run", "--at", "m.csv", "--out", "q.h5ad"]);
    let source = DataSource::new(folder.join("q.h5ad"));
    assert_eq!(ids(&source, 6), Some(twice.clone()));
    succeeds(&folder, &["query", "runs/run", "--at", "start.csv", "--time", "0", "1", "--out", "q.npz"]);
    assert_eq!(of_file(&folder, "q.npz"), Some(twice.clone()));
    let evaluated = amatch(&folder, &["evaluate", "runs/run", "m.csv"]);
    assert!(evaluated.status.success(), "{}", text(&evaluated.stderr));
}

/// Rows of a snapshot, in whatever order the file has them, and those of one condition alone.
#[test]
fn particles_of_a_snapshot_keep_the_names_of_its_rows() {
    let (_guard, folder) = crate::cli::workplace();
    // Times and drugs alternate, so that rows are moved when they are grouped.
    let line = |k: usize| format!("cell {k},{},{},{},{}\n", k % 3, k as f64 / 10.0, k * k % 7, ["A", "B"][k / 3 % 2]);
    let rows: String = (0..60).map(line).collect();
    fs::write(folder.join("cells.csv"), format!("id,times,x,y,drug\n{rows}")).expect("written");
    for (run, conditions) in [("plain", ""), ("drugs", "conditions = [\"drug\"]\n")] {
        let config = format!("[data]\npath = \"cells.csv\"\nsamples = \"x,y\"\n{conditions}");
        fs::write(folder.join(format!("{run}.toml")), config).expect("written");
        succeeds(&folder, &[&["train", &format!("{run}.toml")][..], &crate::cli::SMALL].concat());
    }
    let to = ["--save-at", "1", "--method", "euler", "--steps", "1", "--out"];
    let of_all = ["sample", "runs/plain", "--from", "snapshot:1"];
    let of_drug = ["sample", "runs/drugs", "--condition", "drug=B", "--from", "snapshot:1"];
    for (out, from, n) in [("all.csv", &of_all[..], 20), ("some.h5ad", &of_all, 7), ("drug.csv", &of_drug, 10)] {
        let more: &[&str] = if n == 7 { &["-n", "7"] } else { &[] };
        succeeds(&folder, &[from, more, &to, &[out]].concat());
        let source = DataSource::new(folder.join(out));
        let points = read_points(&source, &()).expect("reads").positions();
        let names = ids(&source, n).expect("names");
        for (name, point) in names.iter().zip(points.chunks_exact(2)) {
            let k: usize =
                name.strip_prefix("cell ").and_then(|k| k.split('-').next()?.parse().ok()).expect("a number");
            assert!((point[0] - k as f64 / 10.0).abs() < 1e-4 && k % 3 == 1, "{out}: {name} is at {point:?}");
            assert!(out != "drug.csv" || k / 3 % 2 == 1, "{name}");
        }
        assert_eq!(names.len(), n, "{out}");
    }
}

/// Resampled particles have the names of those that they are copies of.
#[test]
fn copies_of_particles_share_a_name() {
    let (_guard, folder) = crate::cli::workplace();
    let growing =
        ["--set", "objective.growth=1", "--set", "objective.path=\"linear\"", "--set", "objective.pairing=\"ot\""];
    succeeds(&folder, &[&["train", "run.toml"][..], &growing, &crate::cli::SMALL].concat());
    let rows: String =
        (0..60).map(|k| format!("cell {k},{},{}\n", f64::from(k) / 20.0, f64::from(k % 7) / 5.0)).collect();
    fs::write(folder.join("start.csv"), format!("id,x,y\n{rows}")).expect("written");
    let sample =
        ["sample", "runs/run", "--from", "start.csv", "--t0", "0", "--t1", "1e-9", "--steps", "1", "--method", "euler"];
    for (out, more) in [("plain.csv", &[][..]), ("resampled.csv", &["--resample"])] {
        succeeds(&folder, &[&sample[..], &["--out", out], more].concat());
        let (found, _) = written(&folder, out);
        let points = read_points(&DataSource::new(folder.join(out)), &()).expect("reads").positions();
        for (name, point) in found.iter().zip(points.chunks_exact(2)) {
            let k: f64 = name.strip_prefix("cell ").and_then(|k| k.parse().ok()).expect("a number");
            assert!((point[0] - k / 20.0).abs() < 1e-3, "{out}: {name} is at {point:?}");
        }
    }
}
