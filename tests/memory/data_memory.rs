//! Loading needs little more memory than the samples themselves, and damaged files neither panic
//! nor allocate more than their size justifies. Readers work on the calling thread, whose
//! allocations are counted.

use std::fs;
use std::path::Path;

use action_matching::data::{DataSource, Reduction, Standardization, describe, load, read_points, read_snapshots};
use action_matching::rng::{Purpose, words};
use zip::CompressionMethod;

use crate::common_fuzz::thread_peak_of;
use crate::data_support::{f32s, npy, npz, safetensors};

fn word(i: usize) -> u32 {
    words(11, Purpose::Evaluation, 0, i as u32)[0]
}

#[test]
fn loading_a_million_rows_needs_at_most_1_1_times_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let (n, dim) = (1_000_003, 16);
    let size = n * dim * size_of::<f32>();
    let values: Vec<f32> = (0..n * dim).map(|i| (i % 8191) as f32 - 4000.5).collect();
    let times: Vec<f32> = (0..n).map(|row| (word(row) % 5) as f32 / 4.0).collect();
    let wide: Vec<u8> = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    let [times, narrow] = [f32s(&times), f32s(&values)];
    drop(values);
    for (name, content) in [
        ("stored.npz", {
            let members =
                [("samples", npy("<f4", false, &[n, dim], &narrow)), ("times", npy("<f4", false, &[n], &times))];
            npz(&members, CompressionMethod::Stored)
        }),
        ("deflated.npz", {
            let members = [("samples", npy("<f8", true, &[n, dim], &wide)), ("times", npy("<f4", false, &[n], &times))];
            npz(&members, CompressionMethod::Deflated)
        }),
        (
            "data.safetensors",
            safetensors(&[("times", "F32", &[n], times.clone()), ("samples", "F32", &[n, dim], narrow.clone())]),
        ),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    drop((wide, times, narrow));
    for (name, hold_out) in [
        ("stored.npz", vec![]),
        ("stored.npz", vec![0.25, 0.75]),
        ("deflated.npz", vec![0.5]),
        ("data.safetensors", vec![]),
    ] {
        let source = DataSource { hold_out: hold_out.into(), ..DataSource::new(folder.path().join(name)) };
        let (loaded, peak) = thread_peak_of(|| load(&source, &()).unwrap());
        let ratio = peak as f64 / size as f64;
        println!("{name}, {} times held out: peak {ratio:.3} times the samples", loaded.held_out.times.len());
        assert!(ratio <= 1.1, "{name}: {ratio}");
        assert_eq!(loaded.training.samples.len() + loaded.held_out.samples.len(), n * dim);
    }
}

#[test]
fn loading_a_table_needs_at_most_1_3_times_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.csv");
    let (n, dim) = (100_003, 16);
    let mut text = String::from("times");
    (0..dim).for_each(|column| text += &format!(",x{column}"));
    for row in 0..n {
        text += &format!("\n{}", word(row) % 3);
        (0..dim).for_each(|column| text += &format!(",{}.5", (row * dim + column) % 997));
    }
    fs::write(&path, text).unwrap();
    let source = DataSource { standardize: Standardization::PerDimension, ..DataSource::new(&path) };
    let (loaded, peak) = thread_peak_of(|| load(&source, &()).unwrap());
    let ratio = peak as f64 / (n * dim * size_of::<f32>()) as f64;
    println!("table: peak {ratio:.3} times the samples");
    assert!(ratio <= 1.3, "{ratio}");
    assert_eq!(loaded.training.samples.len(), n * dim);
}

/// A fit takes what the documentation says: 8 bytes for each component and 18 more, times twice the
/// rows and four times the columns.
#[test]
fn components_need_little_more_than_the_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let (n, dim, count) = (3001, 2500, 20);
    let samples: Vec<f32> = (0..n * dim).map(|at| (word(at) % 1000) as f32 * (1 + at % 13) as f32).collect();
    let times: Vec<f32> = (0..n).map(|row| (row % 2) as f32).collect();
    let tensors: [(&str, &str, &[usize], Vec<u8>); 2] =
        [("samples", "F32", &[n, dim], f32s(&samples)), ("times", "F32", &[n], f32s(&times))];
    fs::write(&path, safetensors(&tensors)).unwrap();
    drop((samples, tensors));
    let source = DataSource { components: Some(Reduction::Fit(count)), ..DataSource::new(&path) };
    let (loaded, peak) = thread_peak_of(|| load(&source, &()).unwrap());
    assert_eq!(loaded.training.samples.len(), n * count);
    let allowed = n * dim * size_of::<f32>() + 8 * (count + 18) * (2 * n + 4 * dim) + ALLOWANCE;
    println!("components: peak {peak} bytes of {allowed}");
    assert!(peak <= allowed, "{peak} of {allowed}");
}

/// Fixed cost of a small file: blocks and buffers.
const ALLOWANCE: usize = 4 << 20;

fn exercise(path: &Path, source: &DataSource) {
    let (_, peak) = thread_peak_of(|| {
        // Damage may be undetected or refused; both are fine.
        let _ = read_snapshots(source, &());
        let _ = load(source, &());
        let _ = read_points(&DataSource::new(path), &());
        let _ = describe(path, &());
    });
    assert!(peak < ALLOWANCE, "{}: {peak} bytes", path.display());
}

#[test]
fn damaged_files_neither_panic_nor_allocate_hugely() {
    let folder = tempfile::tempdir().unwrap();
    let samples = f32s(&[1.0, -2.0, 3.5, 4.0, 5.0, 6.25, 7.0, -8.0, 9.0, 10.0]);
    let times = f32s(&[2.0, 0.0, 2.0, 1.0, 0.0]);
    let [samples_npy, times_npy] = [npy("<f4", false, &[5, 2], &samples), npy("<f4", false, &[5], &times)];
    let members = [("samples", samples_npy.clone()), ("times", times_npy.clone())];
    let times_path = folder.path().join("times.npy");
    fs::write(&times_path, &times_npy).unwrap();
    for (i, (name, valid)) in [
        ("a.npy", samples_npy),
        ("stored.npz", npz(&members, CompressionMethod::Stored)),
        ("deflated.npz", npz(&members, CompressionMethod::Deflated)),
        ("a.safetensors", safetensors(&[("samples", "F32", &[5, 2], samples), ("times", "F32", &[5], times)])),
        ("a.csv", b"times,x,y\n2,1,-2\n0,3.5,4\n2,5,6.25\n1,7,-8\n0,9,10\n".to_vec()),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(name);
        let pair = (name == "a.npy").then(|| times_path.clone());
        let source = DataSource { times_path: pair, ..DataSource::new(&path) };
        fs::write(&path, &valid).unwrap();
        let whole = read_snapshots(&source, &()).unwrap().snapshots;
        assert_eq!(whole.samples, [3.5, 4.0, 9.0, 10.0, 7.0, -8.0, 1.0, -2.0, 5.0, 6.25], "{name}");

        for length in 0..valid.len() {
            fs::write(&path, &valid[..length]).unwrap();
            if name != "a.csv" {
                assert!(read_snapshots(&source, &()).is_err(), "{name} cut to {length} bytes was read");
            }
            exercise(&path, &source);
        }
        for trial in 0..2000 {
            let mut damaged = valid.clone();
            let [count, place, value, mode] = words(i as u64, Purpose::Evaluation, trial, 0);
            for k in 0..1 + count as usize % 4 {
                let at = (place as usize).wrapping_add(k.wrapping_mul(value as usize | 1)) % damaged.len();
                damaged[at] = match mode % 3 {
                    0 => damaged[at] ^ (1 << (value.rotate_right(k as u32) % 8)),
                    1 => (value >> (8 * k)) as u8,
                    _ => 0xff,
                };
            }
            fs::write(&path, &damaged).unwrap();
            exercise(&path, &source);
        }
    }
}

/// Only sizes of numeric types are checked against the file, so nothing may be allocated for other
/// elements.
#[test]
fn a_claim_of_many_objects_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let samples = npy("|O", false, &[100_000_000, 16], b"pickle");
    let times = npy("<f4", false, &[2], &f32s(&[0.0, 1.0]));
    fs::write(&path, npz(&[("samples", samples), ("times", times)], CompressionMethod::Stored)).unwrap();
    let source = DataSource::new(&path);
    exercise(&path, &source);
    assert!(load(&source, &()).unwrap_err().to_string().contains("samples: holds pickled Python objects"));
}

/// A small archive may hold much, but its content takes no more than the samples in f32 and 4 bytes
/// per row.
#[test]
fn an_archive_of_zeros_costs_the_array_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.npz");
    let n = 4_000_000;
    for shuffled in [false, true] {
        let times: Vec<u8> = (0..n).map(|row| if shuffled { row % 2 } else { row * 2 / n } as u8).collect();
        let members =
            [("samples", npy("|u1", false, &[n, 1], &vec![0; n])), ("times", npy("|u1", false, &[n], &times))];
        fs::write(&path, npz(&members, CompressionMethod::Deflated)).unwrap();
        drop((members, times));
        let (data, peak) = thread_peak_of(|| read_snapshots(&DataSource::new(&path), &()).unwrap());
        let bound = 4 * n * if shuffled { 2 } else { 1 } + ALLOWANCE;
        // If rows stay in place, labels are dropped before the samples are read.
        assert!(peak <= bound.max(4 * n + ALLOWANCE), "{peak} bytes for {n} rows, shuffled {shuffled}");
        assert_eq!(data.snapshots.samples.len(), n);
    }
}

/// A size that deflate could reach is no reason to allocate: the bytes are read first.
#[test]
fn a_compressed_claim_costs_nothing_before_it_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("liar.npz");
    let n = 64 << 20;
    let mut bytes = npz(
        &[("samples", npy("|u1", false, &[n, 1], &vec![0; n])), ("times", npy("|u1", false, &[2], &[0, 1]))],
        CompressionMethod::Deflated,
    );
    // Damage in the middle of the zeros.
    let at = 30 + "samples.npy".len() + n / 2000;
    bytes[at..at + 64].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    let points = DataSource::new(&path);
    let (result, peak) = thread_peak_of(|| read_points(&points, &()));
    assert!(result.is_err());
    assert!(peak <= 64 * bytes.len() + ALLOWANCE && peak < n, "{peak} bytes for a file of {}", bytes.len());
}

/// Wide tables, archives of many members and very long lines take a bounded multiple of their
/// bytes, and time in proportion.
#[test]
fn odd_files_cost_no_more_than_64_times_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bounded = |name: &str, content: &[u8], wanted: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let source = DataSource::new(&path);
        let (result, peak) = thread_peak_of(|| read_snapshots(&source, &()).map(drop));
        let message = result.unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
        assert!(peak <= 64 * content.len() + ALLOWANCE, "{name}: {peak} bytes for {}", content.len());
    };
    let wide = format!("times,{}\n", (0..300_000).map(|i| format!("c{i:x}")).collect::<Vec<_>>().join(","));
    let took = std::time::Instant::now();
    bounded("wide.csv", wide.as_bytes(), "300000 columns");
    let numbered = format!("times,{}\n", (0..300_000).map(|i| format!("samples_{i}")).collect::<Vec<_>>().join(","));
    bounded("numbered.csv", numbered.as_bytes(), "300000 columns");
    let names: Vec<String> = (0..20_000).map(|i| format!("{i:08x}")).collect();
    let members: Vec<(&str, Vec<u8>)> =
        names.iter().map(|name| (name.as_str(), npy("<f4", false, &[0], &[]))).collect();
    let many = npz(&members, CompressionMethod::Stored);
    bounded("many.npz", &many, "no such array");
    let description = describe(&folder.path().join("many.npz"), &()).unwrap();
    assert_eq!(description.lines().count(), 20_001);
    // Comparing the names one by one took minutes.
    assert!(took.elapsed().as_secs() < 60, "{:?}", took.elapsed());

    let mut line = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut line, &vec![b'x'; 64 << 20]).unwrap();
    bounded("line.csv.gz", &line.finish().unwrap(), "a line is too long");
}
