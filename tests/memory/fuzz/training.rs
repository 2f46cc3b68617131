//! Files that runs write and read again: models, checkpoints, metrics.

use std::fs;
use std::path::Path;

use action_matching::Result;
use action_matching::cli_support::TensorFileKind;
use action_matching::data::{Components, DataSource, Reduction, load};
use action_matching::density_path::TIME_KNOTS;
use action_matching::engine::{LossScale, NetworkState, TrainState};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::{Objective, SigmaSchedule};
use action_matching::stage::Stage;
use action_matching::train::{Best, Checkpoint, read_metrics};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Folder, open_safetensors, seal_safetensors};
use crate::common_fuzz::{Answer, Bytes, Random, Target, Text, run};
use crate::data_support::{f32s, safetensors};

const ACTIVATIONS: [Activation; 3] = [Activation::Silu, Activation::Tanh, Activation::Softplus];

/// Words of the headers of models, loadings and checkpoints.
const WORDS: [&str; 33] = [
    "F32",
    "F64",
    "F16",
    "BF16",
    "I64",
    "BOOL",
    "F4",
    "C64",
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "net",
    "weight",
    "bias",
    "version",
    "dim",
    "hidden",
    "activation",
    "head",
    "time_embedding",
    "fourier",
    "frequencies",
    "mean",
    "scale",
    "time_range",
    "total_variance",
    "loadings",
    "variance",
    "sigma",
    "null",
    "true",
    "[]",
];

/// Valid model files.
fn valid_model_files(folder: &Folder) -> Vec<Vec<u8>> {
    let path = folder.path("valid.safetensors");
    let shapes: [(usize, &[usize], Head, TimeEmbedding); 4] = [
        (2, &[3], Head::Scalar, TimeEmbedding::Raw),
        (1, &[2, 1], Head::Dot, TimeEmbedding::Fourier { frequencies: vec![0.5, 2.0] }),
        (3, &[4, 2, 3], Head::Quadratic, TimeEmbedding::Raw),
        (5, &[1], Head::Scalar, TimeEmbedding::Fourier { frequencies: vec![1.0] }),
    ];
    let models = shapes.into_iter().enumerate().map(|(index, (dim, hidden, head, time_embedding))| {
        let activation = ACTIVATIONS[index % ACTIVATIONS.len()];
        let architecture =
            Architecture { dim, hidden: hidden.to_vec(), activation, head, time_embedding, conditions: 0 };
        let parameters = initial_parameters(&architecture, 3);
        let objective = Objective { sigma: 0.25 * index as f64, ..Objective::default() };
        let objective = match index {
            3 => Objective { sigma_schedule: SigmaSchedule::OneMinusT, growth: 0.5, ..objective },
            _ => objective,
        };
        let coordinates = Coordinates { time_range: [-1.0, 2.5], ..Coordinates::identity(dim) };
        let head = initial_parameters(&architecture.growth_head(), 4);
        let growth_head = (objective.growth > 0.0).then_some(head);
        Model { architecture, coordinates, objective, parameters, growth_head }.save(&path).expect("saved");
        fs::read(&path).expect("readable")
    });
    models.collect()
}

/// Changes header and values of a file of tensors separately, so that the header remains valid in
/// most cases.
fn change_tensors(random: &mut Random, valid: &[u8], other: &[u8]) -> Vec<u8> {
    let (header, data) = open_safetensors(valid);
    let (mut header, mut data, n_bytes) = (header.to_vec(), data.to_vec(), data.len());
    for _ in 0..random.below(3) {
        Text::change(random, &mut header, open_safetensors(other).0, &WORDS);
    }
    if random.percent(30) {
        // Values of f32.
        let at = 4 * random.below(data.len() / 4);
        let value = random.choose(&[f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0, 1e-45, 1e30]);
        data[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut file = seal_safetensors(random, &header, data, n_bytes);
    if random.percent(10) {
        Bytes::change(random, &mut file, other);
    }
    file
}

fn two_of<'a>(random: &mut Random, files: &'a [Vec<u8>]) -> (&'a [u8], &'a [u8]) {
    (random.pick::<[u8]>(files), random.pick::<[u8]>(files))
}

/// A kind of file that holds tensors and is written as it was read.
struct Stored<T> {
    name: &'static str,
    valid: fn(&Folder) -> Vec<Vec<u8>>,
    load: fn(&Path) -> Result<T>,
    save: fn(&T, &Path) -> Result<()>,
    /// What every file that is read promises.
    check: fn(&T),
}

impl<T: PartialEq + std::fmt::Debug> Stored<T> {
    /// Changes of valid files are refused or keep the promise, and what was read is written and
    /// read again.
    fn fuzz(&self) {
        let target = Target { name: self.name, inputs: 100_000, bytes_per_byte: 64, microseconds_per_byte: 5 };
        let folder = Folder::new(target.name);
        let valid = (self.valid)(&folder);
        let (path, again) = (folder.path("a.safetensors"), folder.path("again.safetensors"));
        run(
            &target,
            |random| {
                let (file, other) = two_of(random, &valid);
                change_tensors(random, file, other)
            },
            |input, random| {
                fs::write(&path, input).expect("written");
                let _ = TensorFileKind::of(&path);
                let Ok(loaded) = (self.load)(&path) else { return Answer::Refused };
                (self.check)(&loaded);
                if random.percent(5) {
                    (self.save)(&loaded, &again).expect("what was loaded can be saved");
                    assert_eq!((self.load)(&again).expect("and loaded again"), loaded);
                }
                Answer::Accepted
            },
        );
    }
}

#[test]
fn model_files() {
    let check = |model: &Model| {
        let _ = model.describe();
        let finite = model.parameters.iter().all(|x| x.is_finite());
        assert!(finite && model.parameters.len() == model.architecture.n_parameters());
    };
    Stored { name: "model", valid: valid_model_files, load: Model::load, save: Model::save, check }.fuzz();
}

/// Valid files of loadings.
fn valid_loadings(folder: &Folder) -> Vec<Vec<u8>> {
    let path = folder.path("valid.safetensors");
    let files = [(7, 4, 2, true), (6, 9, 3, false), (5, 2, 1, true)].map(|(n, dim, count, named)| {
        let value = |row: usize, column: usize| ((row * 7 + column * 5) % 11) as f32 + 0.25 * row as f32;
        let source = if named {
            let names: String = (0..dim).map(|column| format!(",x{column}")).collect();
            let row = |row: usize| (0..dim).fold((row % 2).to_string(), |text, j| format!("{text},{}", value(row, j)));
            let rows: String = (0..n).map(|k| row(k) + "\n").collect();
            fs::write(folder.path("a.csv"), format!("times{names}\n{rows}")).expect("written");
            folder.path("a.csv")
        } else {
            let samples: Vec<f32> = (0..n * dim).map(|at| value(at / dim, at % dim)).collect();
            let times: Vec<f32> = (0..n).map(|row| (row % 2) as f32).collect();
            let tensors: [(&str, &str, &[usize], Vec<u8>); 2] =
                [("samples", "F32", &[n, dim], f32s(&samples)), ("times", "F32", &[n], f32s(&times))];
            fs::write(folder.path("a.safetensors"), safetensors(&tensors)).expect("written");
            folder.path("a.safetensors")
        };
        let source = DataSource { components: Some(Reduction::Fit(count)), ..DataSource::new(source) };
        load(&source, &()).expect("loads").components.expect("were fitted").save(&path).expect("saved");
        fs::read(&path).expect("readable")
    });
    files.to_vec()
}

#[test]
fn loadings_files() {
    let check = |components: &Components| {
        let _ = components.describe();
        let (k, d) = (components.count(), components.n_columns());
        assert!(components.loadings().len() == k * d && components.mean().iter().all(|x| x.is_finite()));
        assert!((0.0..=1.0).contains(&components.kept()));
        let stage = Stage::new(1, &());
        if let Ok(scores) = components.project(&vec![1.5; d], &stage) {
            assert_eq!(components.decode(&scores, &stage).expect("fits into memory").len(), d);
        }
    };
    Stored { name: "loadings", valid: valid_loadings, load: Components::load, save: Components::save, check }.fuzz();
}

fn checkpoint(random: &mut Random) -> Checkpoint {
    let n = 1 + random.below(9);
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| random.below(100) as f32 - 50.0).collect() };
    let network = |numbers: &mut dyn FnMut(usize) -> Vec<f32>| NetworkState {
        parameters: numbers(n),
        ema: numbers(n),
        moment1: numbers(n),
        moment2: numbers(n),
    };
    let (action, bend) = (network(&mut numbers), network(&mut numbers));
    let time_moments = numbers(2 * TIME_KNOTS);
    let state = TrainState {
        step: random.next() % 10_000,
        action,
        growth: random.percent(30).then(|| bend.clone()),
        bend: random.percent(30).then_some(bend),
        time_moments,
        loss_scale: LossScale { scale: 1024.0, good_steps: random.below(99) as u32 },
    };
    let arithmetic = if random.percent(50) { "cpu, scalar".into() } else { String::new() };
    let weights = (0..n).map(|_| random.below(100) as f32).collect();
    let best = Best { step: random.next() % 10_000, distance: random.below(99) as f64 * 0.1, in_vain: 3, weights };
    let best = random.percent(50).then_some(best);
    Checkpoint { state, fingerprint: format!("{:x}", random.next()), arithmetic, best }
}

/// The header's entry of a checkpoint, and the digest of its content; `None` if the file is too
/// damaged for one.
fn digest(file: &[u8]) -> Option<(Value, Value, String)> {
    let (length, rest) = file.split_first_chunk()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    let entry: Value = serde_json::from_str(header["__metadata__"]["checkpoint"].as_str()?).ok()?;
    let mut hash = Sha256::new();
    hash.update(entry["step"].as_u64()?.to_le_bytes());
    hash.update(entry["fingerprint"].as_str()?);
    hash.update((entry["loss_scale"]["scale"].as_f64()? as f32).to_le_bytes());
    hash.update((entry["loss_scale"]["good_steps"].as_u64()? as u32).to_le_bytes());
    let arithmetic = entry["arithmetic"].as_str()?;
    hash.update((arithmetic.len() as u64).to_le_bytes());
    hash.update(arithmetic);
    let best = &entry["best"];
    if !best.is_null() {
        hash.update(best["step"].as_u64()?.to_le_bytes());
        hash.update(best["distance"].as_f64()?.to_le_bytes());
        hash.update(best["in_vain"].as_u64()?.to_le_bytes());
    }
    let networks = ["parameters", "ema", "moment1", "moment2"];
    let others = ["bend", "growth"].map(|network| networks.map(|name| format!("{network}.{name}")));
    let others = others.iter().flatten().map(String::as_str);
    for name in ["time_moments"].into_iter().chain(networks).chain(others).chain(["best"]) {
        let Some(offsets) = header[name]["data_offsets"].as_array() else { continue };
        let [start, end] = [offsets.first()?.as_u64()? as usize, offsets.get(1)?.as_u64()? as usize];
        hash.update(name);
        hash.update(data.get(start..end)?);
    }
    let hexadecimal = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Some((header, entry, hexadecimal))
}

/// Gives a changed checkpoint the digest of its content.
fn seal_checkpoint(file: Vec<u8>) -> Vec<u8> {
    let Some((mut header, mut entry, sha256)) = digest(&file) else { return file };
    let data = open_safetensors(&file).1.to_vec();
    entry["sha256"] = sha256.into();
    header["__metadata__"]["checkpoint"] = entry.to_string().into();
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

#[test]
fn checkpoint_files() {
    let target = Target { name: "checkpoint", inputs: 100_000, bytes_per_byte: 64, microseconds_per_byte: 5 };
    let folder = Folder::new(target.name);
    let mut random = Random::new("valid checkpoints", 0);
    let mut save = |_| -> Vec<u8> {
        let path = checkpoint(&mut random).save(&folder.path("")).expect("saved");
        let bytes = fs::read(&path).expect("readable");
        // Otherwise the next one might count as older, and be removed.
        fs::remove_file(path).expect("removed");
        bytes
    };
    let valid: Vec<Vec<u8>> = (0..12).map(&mut save).collect();
    for file in &valid {
        let (_, entry, sha256) = digest(file).expect("a digest");
        assert_eq!(entry["sha256"].as_str(), Some(&*sha256), "the digest is computed in another way");
    }
    let path = folder.path("checkpoint.safetensors");
    run(
        &target,
        |random| {
            let (file, other) = two_of(random, &valid);
            let file = change_tensors(random, file, other);
            if random.percent(70) { seal_checkpoint(file) } else { file }
        },
        |input, _| {
            fs::write(&path, input).expect("written");
            let Ok(checkpoint) = Checkpoint::load(&path) else { return Answer::Refused };
            let _ = checkpoint.describe();
            let NetworkState { parameters, ema, moment1, moment2 } = &checkpoint.state.action;
            assert!([ema, moment1, moment2].iter().all(|values| values.len() == parameters.len()));
            assert!(parameters.iter().chain(moment2).all(|x| x.is_finite()));
            Answer::Accepted
        },
    );
}

#[test]
fn metrics_files() {
    let target = Target { name: "metrics", inputs: 100_000, bytes_per_byte: 64, microseconds_per_byte: 5 };
    let folder = Folder::new(target.name);
    let path = folder.path("metrics.jsonl");
    let line = |random: &mut Random, step: usize| {
        let mut number = || random.next() as i64 as f64 / 1e18;
        format!(
            "{{\"step\":{step},\"loss\":{},\"boundary0\":{},\"boundary1\":{},\"interior\":{},\"kinetic\":{},\
             \"gradient_norm\":{},\"learning_rate\":{},\"rows_per_s\":{}}}\n",
            number(),
            number(),
            number(),
            number(),
            number(),
            number(),
            number(),
            number()
        )
    };
    let lines = |random: &mut Random| -> String { (0..random.below(6)).map(|step| line(random, step)).collect() };
    run(
        &target,
        |random| {
            let (mut text, other) = (lines(random).into_bytes(), lines(random).into_bytes());
            for _ in 0..random.below(4) {
                Text::change(random, &mut text, &other, &["step", "loss", "null", "{", "}", "[", "\"", ":", ",", "\n"]);
            }
            text
        },
        |input, _| {
            fs::write(&path, input).expect("written");
            let mut whole = true;
            let Ok(lines) = read_metrics(&path, |_| whole = false) else { return Answer::Refused };
            assert!(lines.windows(2).all(|pair| pair[0].step < pair[1].step), "{lines:?}");
            // Skipped lines count as refused.
            if whole { Answer::Accepted } else { Answer::Refused }
        },
    );
}
