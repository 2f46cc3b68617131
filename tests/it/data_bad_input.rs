//! Every unusable data file gives an error that names the file, the array or position, and the fix.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data_support::{f32s, header, npy, npy_with_header, npz, safetensors, safetensors_with_header};
use action_matching::data::{DataSource, load, read_points, read_snapshots};
use tempfile::TempDir;
use zip::CompressionMethod;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Asserts that loading `source` fails with `{path of the file}: {start}… ({fix}…`.
    fn refuses(&self, source: &DataSource, file: &str, start: &str, fix: &str) {
        let message = load(source, &()).unwrap_err().to_string();
        let wanted = format!("{}: {start}", self.path(file).display());
        assert!(message.starts_with(&wanted), "\n got: {message}\nfrom: {wanted}");
        assert!(message.contains(&format!("({fix}")) && message.ends_with(')'), "\n got: {message}\n fix: {fix}");
    }

    /// The same for a file with default names and this content.
    fn refuses_content(&self, name: &str, content: impl AsRef<[u8]>, start: &str, fix: &str) {
        let path = self.file(name, content);
        self.refuses(&DataSource::new(path), name, start, fix);
    }
}

/// Two rows of two columns at two times.
fn good_samples() -> Vec<u8> {
    npy("<f4", false, &[2, 2], &f32s(&[1.0, 2.0, 3.0, 4.0]))
}

fn good_times() -> Vec<u8> {
    npy("<f4", false, &[2], &f32s(&[0.0, 1.0]))
}

fn archive(samples: Vec<u8>, times: Vec<u8>) -> Vec<u8> {
    npz(&[("samples", samples), ("times", times)], CompressionMethod::Stored)
}

fn with_samples(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    archive(npy(descr, false, shape, data), good_times())
}

#[test]
fn bad_paths_are_refused() {
    let folder = Folder::new();
    let source = |name: &str| DataSource::new(folder.path(name));
    folder.refuses(&source("absent.npz"), "absent.npz", "path: does not exist", "check the name");
    fs::create_dir(folder.path("folder.npz")).unwrap();
    folder.refuses(&source("folder.npz"), "folder.npz", "path: is a folder", "name a file");
    let suffixes = "use a file that ends in .npz, .npy, .csv, .tsv, .csv.gz, .tsv.gz, .parquet, .safetensors or .h5ad)";
    folder.refuses(&source("a.h5"), "a.h5", "path: has the unknown suffix .h5", suffixes);
    folder.refuses(&source("noext"), "noext", "path: has no suffix", suffixes);
    let alone = folder.file("x.npy", good_samples());
    folder.refuses(&DataSource::new(&alone), "x.npy", "times_path: is missing", "name the .npy file of the times");
    let table = DataSource { times_path: Some(alone), ..DataSource::new(folder.file("x.csv", "times,x\n0,1\n")) };
    folder.refuses(&table, "x.npy", "times_path: does not go with a table", "leave times_path out");
}

#[test]
fn bad_archives_are_refused() {
    let folder = Folder::new();
    let good = archive(good_samples(), good_times());
    let savez = "save it with numpy.savez";
    folder.refuses_content("a.npz", "", "archive: is empty", savez);
    folder.refuses_content("a.npz", "just text", "archive: is not a zip archive", savez);
    folder.refuses_content("a.npz", [0x80, 4, 149], "archive: is a Python pickle", savez);
    folder.refuses_content("a.npz", good_samples(), "archive: is a single .npy array", "rename it to .npy");
    folder.refuses_content("a.npz", &good[..good.len() / 2], "archive: ", "the archive is damaged or cut short");
    folder.refuses_content(
        "a.npz",
        npz(&[("x", good_samples()), ("times", good_times())], CompressionMethod::Deflated),
        "samples: no such array",
        "name one that is there: x, times)",
    );

    // Fields of the first member's local (PK 3 4) and central (PK 1 2) headers.
    let patched = |local_at: usize, central_at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        bytes[local_at..local_at + value.len()].copy_from_slice(value);
        bytes[central + central_at..central + central_at + value.len()].copy_from_slice(value);
        bytes
    };
    folder.refuses_content("a.npz", patched(6, 8, &[1]), "samples: is encrypted", savez);
    folder.refuses_content("a.npz", patched(8, 10, &[12]), "samples: is compressed with", savez);
    folder.refuses_content(
        "a.npz",
        patched(22, 24, &0x7fff_fff0u32.to_le_bytes()),
        "samples: claims 2147483632 bytes, which its",
        "the archive is damaged",
    );
    folder.refuses_content(
        "a.npz",
        patched(18, 20, &0x7fff_fff0u32.to_le_bytes()),
        "samples: claims",
        "the file is cut",
    );
    let mut flipped = good.clone();
    let value = good.windows(4).position(|window| window == 3.0f32.to_le_bytes()).unwrap();
    flipped[value] ^= 1;
    folder.refuses_content("a.npz", flipped, "samples: is damaged: ", "copy or save the file again");
}

/// Readers disagree about which of two arrays counts.
#[test]
fn ambiguous_archives_are_refused() {
    let folder = Folder::new();
    let times = good_times();
    let members = [("samples", good_samples()), ("samplex", good_samples()), ("times", times)];
    let good = npz(&members, CompressionMethod::Stored);
    let renamed = |from: &[u8], to: &[u8], only: Option<usize>| {
        let mut bytes = good.clone();
        let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
        assert_eq!(places.len(), 2, "in front of the member and in the directory");
        for (k, at) in places.into_iter().enumerate() {
            if only.is_none_or(|only| only == k) {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
        bytes
    };
    let savez = "save it again with numpy.savez";
    folder.refuses_content("a.npz", renamed(b"samplex.npy", b"samples.npy", None), "archive: has two arrays", savez);
    folder.refuses_content(
        "a.npz",
        renamed(b"samples.npy", b"samplez.npy", Some(0)),
        "samples: is called \"samples.npy\" in the directory of the archive, \"samplez.npy\" where it lies",
        "the archive is damaged",
    );
    let both = [("samples", good_samples()), ("times", good_times())];
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [("samples", &both[0].1), ("samples.npy", &both[0].1), ("times.npy", &both[1].1)] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, content).unwrap();
    }
    let content = zip.finish().unwrap().into_inner();
    folder.refuses_content("a.npz", content, "archive: has two arrays \"samples\"", savez);
}

#[test]
fn a_zip_bomb_is_refused_by_its_claimed_size() {
    let folder = Folder::new();
    // 4 TB of zeros would need 4 GB of deflated bytes.
    let header = header("<f4", false, "(1000000000, 1000)");
    let mut bytes =
        npz(&[("samples", npy_with_header(&header, &[0; 999])), ("times", good_times())], CompressionMethod::Deflated);
    let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let claim = 0xffff_fff0u32.to_le_bytes();
    bytes[22..26].copy_from_slice(&claim);
    bytes[central + 24..central + 28].copy_from_slice(&claim);
    folder.refuses_content("a.npz", bytes, "samples: claims 4294967280 bytes", "the archive is damaged");
}

#[test]
fn bad_npy_headers_are_refused() {
    let folder = Folder::new();
    let times = folder.file("t.npy", good_times());
    let refuses = |content: Vec<u8>, start: &str, fix: &str| {
        let source = DataSource { times_path: Some(times.clone()), ..DataSource::new(folder.file("x.npy", content)) };
        folder.refuses(&source, "x.npy", &format!("samples: {start}"), fix);
    };
    let good = good_samples();
    refuses(vec![], "is not a .npy array", "save it with numpy.save");
    refuses(b"\x93NUMPZ".to_vec(), "is not a .npy array", "save it with numpy.save");
    refuses(good[..30].to_vec(), "ends before its last value", "the file is cut short");
    refuses(
        good[..good.len() - 3].to_vec(),
        "shape [2, 2] of <f4 needs 16 bytes, but only 13",
        "the file is cut short",
    );
    refuses([good.clone(), b"more".to_vec()].concat(), "4 bytes follow its last value", "keep one array per file");
    let mut version = good.clone();
    version[6] = 9;
    refuses(version, "is a .npy array of version 9", "save it with numpy.save");
    let huge = [b"\x93NUMPY\x02\x00".to_vec(), u32::MAX.to_le_bytes().to_vec(), vec![b' '; 100]].concat();
    refuses(huge, "has a .npy header of 4294967295 bytes", "save it with numpy.save");
    refuses(npy_with_header("{'descr': '<f4'}", &[]), "has a damaged .npy header", "save it with numpy.save");
    for shape in ["(4294967296, 4294967296, 4294967296)", "(18446744073709551615, 2)"] {
        refuses(npy_with_header(&header("<f4", false, shape), &[0; 16]), "claims shape [", "the header is damaged");
    }
    let overflow = npy_with_header(&header("<f4", false, "(99999999999999999999,)"), &[]);
    refuses(overflow, "has a damaged .npy header: shape", "save it with numpy.save");
    let large = npy_with_header(&header("<f4", false, "(1000000000000, 2)"), &[0; 16]);
    refuses(large, "shape [1000000000000, 2] of <f4 needs 8000000000000 bytes, but only 16", "the file is cut short");
}

#[test]
fn unsupported_element_types_are_refused() {
    let folder = Folder::new();
    for (descr, what, fix) in [
        ("|O", "pickled Python objects", "save it as a plain number array"),
        ("[('x', '<f4'), ('y', '<f4')]", "a structured type", "save each field as an array of its own"),
        ("|b1", "booleans", "save it as a plain number array"),
        ("<c8", "complex numbers", "save real and imaginary part"),
        ("<U4", "text", "save it as a plain number array"),
        ("|S4", "text", "save it as a plain number array"),
        ("<M8[ns]", "dates", "save times as numbers"),
        ("|V2", "raw bytes", "save it as a plain number array"),
        ("<f16", "extended-precision floats", "save it as a plain number array"),
        ("<q9", "an unknown element type", "save it as a plain number array"),
    ] {
        let start = format!("samples: holds {what}");
        folder.refuses_content("a.npz", with_samples(descr, &[2, 2], &[0; 32]), &start, fix);
    }
    for (dtype, n_bytes, start) in [
        ("BOOL", 4, "samples: holds booleans"),
        ("C64", 32, "samples: has dtype C64"),
        ("F8_E4M3", 4, "samples: has dtype F8_E4M3"),
    ] {
        let tensors: [(&str, &str, &[usize], Vec<u8>); 2] =
            [("samples", dtype, &[2, 2], vec![0; n_bytes]), ("times", "F32", &[2], f32s(&[0.0, 1.0]))];
        folder.refuses_content("a.safetensors", safetensors(&tensors), start, "convert it to F32 first");
    }
}

#[test]
fn bad_safetensors_headers_are_refused() {
    let folder = Folder::new();
    let refuses =
        |content: Vec<u8>, start: &str, fix: &str| folder.refuses_content("a.safetensors", content, start, fix);
    let tensors: [(&str, &str, &[usize], Vec<u8>); 2] =
        [("samples", "F32", &[2, 2], f32s(&[1.0, 2.0, 3.0, 4.0])), ("times", "F32", &[2], f32s(&[0.0, 1.0]))];
    let good = safetensors(&tensors);
    refuses(vec![1, 2, 3], "header: the file has 3 bytes", "the file is cut short");
    refuses(
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
        "header: claims 18446744073709551615 bytes",
        "it is damaged",
    );
    refuses(good[..60].to_vec(), "header: claims", "it is damaged");
    refuses(good[..good.len() - 1].to_vec(), "header: names 24 bytes of values, only 23", "the file is cut short");
    refuses([good.clone(), vec![7]].concat(), "header: 1 bytes follow the last value", "save it again");
    refuses(safetensors_with_header("not json", &[]), "header: is damaged: ", "save it again");
    let deep = "[".repeat(200_000);
    refuses(safetensors_with_header(&deep, &[]), "header: is damaged: ", "save it again");
    let nested = format!("{{\"samples\":{}}}", "{\"shape\":".repeat(200_000));
    refuses(safetensors_with_header(&nested, &[]), "header: is damaged: ", "save it again");
    for entry in [
        "\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,16]",
        "\"shape\":[2,2],\"data_offsets\":[16,0]",
        "\"shape\":[2,2],\"data_offsets\":[4,20]",
        "\"shape\":[2,3],\"data_offsets\":[0,16]",
        "\"shape\":[-2,2],\"data_offsets\":[0,16]",
    ] {
        let header = format!("{{\"samples\":{{\"dtype\":\"F32\",{entry}}}}}");
        refuses(safetensors_with_header(&header, &[0; 16]), "header: is damaged: ", "save it again");
    }
    let others: [(&str, &str, &[usize], Vec<u8>); 1] = [("times", "F32", &[1], f32s(&[0.0]))];
    refuses(safetensors(&others), "samples: no such array", "name one that is there: times)");
}

#[test]
fn bad_shapes_are_refused() {
    let folder = Folder::new();
    let refuses = |content: Vec<u8>, start: &str, fix: &str| folder.refuses_content("a.npz", content, start, fix);
    refuses(with_samples("<f4", &[2, 0], &[]), "samples: has no columns", "give samples");
    refuses(with_samples("<f4", &[0, 2], &[]), "samples: has no rows", "give at least one sample");
    refuses(with_samples("<f4", &[], &[0; 4]), "samples: has shape []", "reshape it");
    refuses(with_samples("<f4", &[2, 1, 1], &[0; 8]), "samples: has shape [2, 1, 1]", "reshape it");
    refuses(
        with_samples("|i1", &[2, 1025], &[0; 2050]),
        "samples: has 1025 columns; a model has at most 1024",
        "set data.components",
    );
    refuses(
        with_samples("<f4", &[3, 1], &[0; 12]),
        "times: has 2 entries, but samples has 3 rows",
        "give one time per row",
    );
    let two_columns = npy("<f4", false, &[2, 2], &[0; 16]);
    refuses(archive(good_samples(), two_columns), "times: has shape [2, 2]", "give one time per row");
    refuses(archive(good_samples(), npy("<f4", false, &[0], &[])), "times: has no rows", "give at least one sample");
    assert!(load(&DataSource::new(folder.file("a.npz", with_samples("|i1", &[2, 1024], &[1; 2048]))), &()).is_ok());
}

#[test]
fn values_that_are_not_finite_are_named_by_row_and_column() {
    let folder = Folder::new();
    let (n_rows, dim, bad_row, bad_column) = (50_021, 3, 49_999, 1);
    let times: Vec<f32> = (0..n_rows).map(|row| (row % 2) as f32).collect();
    let times = npy("<f4", false, &[n_rows], &f32s(&times));
    for (bad, what, fix) in [
        (f64::NAN, "is NaN", "remove or impute"),
        (f64::NEG_INFINITY, "is -inf", "remove or impute"),
        (1e300, "is 1e300, too large for 32-bit floats", "rescale the data"),
    ] {
        for fortran in [false, true] {
            let mut values = vec![0.5f64; n_rows * dim];
            values[if fortran { bad_column * n_rows + bad_row } else { bad_row * dim + bad_column }] = bad;
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_be_bytes()).collect();
            let content = archive(npy(">f8", fortran, &[n_rows, dim], &bytes), times.clone());
            let start = format!("samples: row 49999, column 1 (counted from 0) {what}");
            folder.refuses_content("a.npz", content, &start, fix);
        }
    }
    let mut bad_times = vec![0.0f32; n_rows];
    bad_times[bad_row] = f32::NAN;
    let content =
        archive(npy("|i1", false, &[n_rows, 1], &vec![0; n_rows]), npy("<f4", false, &[n_rows], &f32s(&bad_times)));
    folder.refuses_content("a.npz", content, "times: row 49999 (counted from 0) is NaN", "remove rows without a time");
}

#[test]
fn bad_times_are_refused() {
    let folder = Folder::new();
    let table = "times,x\n0,1\n0,2\n1,3\n2.5,4\n4,5\n4,7\n";
    let source = DataSource::new(folder.file("a.csv", table));
    let hold_out = |times: &[f64]| DataSource { hold_out: times.to_vec().into(), ..source.clone() };
    folder.refuses(&hold_out(&[0.0]), "a.csv", "hold_out: 0 is the first time", "hold out any of: 1, 2.5, 4)");
    let unknown = "hold_out: 3 is not one of the times 0, 1, 2.5, 4";
    folder.refuses(&hold_out(&[3.0]), "a.csv", unknown, "hold out any of: 1, 2.5, 4)");
    folder.refuses(&hold_out(&[f64::NAN]), "a.csv", "hold_out: NaN is not one", "hold out any of: 1, 2.5, 4)");
    let loaded = load(&hold_out(&[2.5, 1.0]), &()).unwrap();
    assert_eq!((loaded.training.times.len(), loaded.held_out.times), (2, vec![0.25, 0.625]));
    assert_eq!(loaded.warnings, ["these times have a single row each: 1, 2.5: a distribution needs many samples"]);

    let one = DataSource::new(folder.file("one.csv", "times,x\n3,1\n3,2\n"));
    folder.refuses(&one, "one.csv", "times: holds one time, 3", "give samples of at least two times");
    assert_eq!(read_snapshots(&one, &()).unwrap().snapshots.times, [3.0]);
    let far = DataSource::new(folder.file("far.csv", "times,x\n-1e308,1\n1e308,2\n"));
    folder.refuses(&far, "far.csv", "times: two times are too close", "merge them");
    let out = DataSource::new(folder.file("out.csv", "times,x\n0,1e-10\n0,2e-10\n1,3e38\n1,3e-10\n1,4e-10\n1,5e-10\n"));
    let out = DataSource { standardize: action_matching::data::Standardization::Robust, ..out };
    let start = "samples: row 2 (counted from 0), column x overflows when it is standardized";
    folder.refuses(&out, "out.csv", start, "remove such rows if they are mistakes");
    let wide = DataSource::new(folder.file("wide.csv", "times,x,y\n0,3e38,1\n0,-3e38,1\n1,-3e38,2\n"));
    let wide = DataSource { standardize: action_matching::data::Standardization::PerDimension, ..wide };
    folder.refuses(&wide, "wide.csv", "samples: column x has mean -1.000e38 and scale 2.828e38", "rescale the data");
}

#[test]
fn bad_tables_are_refused() {
    let folder = Folder::new();
    let refuses = |content: &str, start: &str, fix: &str| folder.refuses_content("a.csv", content, start, fix);
    refuses("", "header line: is missing: the file is empty", "give a line of column names");
    refuses("0,1.5\n1,2.5\n", "header line: is missing: the first line holds numbers", "name the columns");
    refuses("age,x\n0,1\n", "times: no such column of times", "set data.times to one of its columns: age, x)");
    refuses("times,x\n", "times: has no rows", "give at least one sample");
    refuses("times\n0\n1\n", "samples: has no columns", "give samples of at least one dimension");
    refuses("times,x,times\n0,1,2\n", "times: two columns have this name", "rename one of them");
    refuses(
        "times,x\n0,1\n1\n",
        "row 1 (counted from 0): has 1 fields, the header line 2",
        "give every row one field per column",
    );
    refuses("times,x\n0,1\n1,\n", "x: is empty in row 1 (counted from 0)", "give a number");
    refuses(
        "times,x,type\n0,1,B\n",
        "type: is \"B\", not a number, in row 0 (counted from 0)",
        "give a number, or leave this column out",
    );
    refuses("times,x\n0,1\n\n1,nan\n", "x: is NaN in row 1 (counted from 0)", "remove or impute");
    refuses(
        "times,x\n0,1\n1,1e39\n",
        "x: is 1e39, too large for 32-bit floats in row 1 (counted from 0)",
        "rescale the data",
    );
    refuses("times,x\n0,1\ninf,1\n", "times: is inf in row 1 (counted from 0)", "remove rows without a time");
    refuses(
        "times;x\n0;1,5\n1;2,5\n",
        "x: is \"1,5\" in row 0 (counted from 0): a decimal comma",
        "write numbers with a decimal point",
    );
    refuses("times,x\n0,\"1\n1,2\n", "x: is \"1\\n1,2\", not a number", "give a number");
    let gap = "samples: has the columns samples_0, samples_2, but no samples_1";
    refuses("times,samples_0,samples_2\n0,1,2\n1,2,3\n", gap, "write samples = \"samples_*\" to take those");
    for utf16 in [&b"\xff\xfet\0i\0"[..], b"\xfe\xff\0t\0i", b"t\0,\0x\0\n\0"] {
        folder.refuses_content("a.csv", utf16, "header line: is UTF-16 text", "save the table as UTF-8");
    }
    let nul = "line 2: holds a NUL byte";
    folder.refuses_content(
        "a.csv",
        "times,x\n0,1\0\n1,2\n",
        nul,
        "it is damaged or no table: save it again as UTF-8 text",
    );
    folder.refuses_content("a.csv.gz", "times,x\n", "path: is not compressed by gzip", "leave .gz out of its name");
    let damaged = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 40]].concat();
    folder.refuses_content("b.csv.gz", damaged, "table: is damaged", "copy or save the file again");
    let table = folder.file("a.csv", "times,x,y\n0,1,2\n1,3,4\n");
    for (samples, start) in [("x,z", "z: no such column"), ("q*", "q*: no such column"), ("pc", "pc: no such column")] {
        let source = DataSource { samples: samples.into(), ..DataSource::new(&table) };
        folder.refuses(
            &source,
            "a.csv",
            start,
            &format!("samples = {samples:?} selects from its columns: times, x, y)"),
        );
    }
}

#[test]
fn bad_points_are_refused() {
    let folder = Folder::new();
    let refuses = |path: &Path, name: &str, wanted: &str| {
        let source = DataSource { samples: name.into(), ..DataSource::new(path) };
        let message = read_points(&source, &()).unwrap_err().to_string();
        assert!(message.contains(wanted) && message.starts_with(&path.display().to_string()), "{message}");
    };
    let path = folder.file("p.npz", archive(good_samples(), good_times()));
    refuses(&path, "particles", "particles: no such array (name one that is there: samples, times)");
    refuses(&folder.path("p.txt"), "samples", "unknown suffix .txt");
    refuses(&folder.file("p.npy", npy("<f4", false, &[1, 2], &f32s(&[1.0, f32::NAN]))), "samples", "row 0, column 1");
}
