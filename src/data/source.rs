//! Where the data of a run lies, and the way from there to checked snapshots in network coordinates.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::array::{ArrayFile, Matrix, read_matrix, read_vector};
use super::csv::Csv;
use super::npy::NpyFiles;
use super::npz::Npz;
use super::safetensors::Safetensors;
use super::snapshots::Snapshots;
use crate::error::{Error, Result};
use crate::model::Coordinates;

/// How data units become network coordinates. Means and scales come from the training rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standardisation {
    /// Subtracts the mean and divides all dimensions by one scale, so that distances keep their proportions.
    #[default]
    Isotropic,
    /// Subtracts the mean and divides each dimension by its own standard deviation.
    PerDimension,
    /// Leaves the samples as they are.
    None,
}

/// Where snapshots lie and how to read them.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// `.npz`, `.csv`, `.safetensors`, or the `.npy` of the samples.
    pub path: PathBuf,
    /// The `.npy` of the times; only beside a `.npy` of samples.
    pub times_path: Option<PathBuf>,
    /// Name of the samples `[N, d]`; in a `.csv` the sample columns, separated by commas (default: all but the times).
    pub samples: String,
    /// Name of the times `[N]`; in a `.csv` the column of times.
    pub times: String,
    /// Times whose snapshots are not trained on, in data units.
    pub hold_out: Vec<f64>,
    /// How data units become network coordinates.
    pub standardise: Standardisation,
}

/// Checked snapshots in network coordinates.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The snapshots to train on; times run from 0 to 1.
    pub training: Snapshots,
    /// The snapshots held out; possibly none.
    pub held_out: Snapshots,
    /// How data units became network coordinates.
    pub coordinates: Coordinates,
    /// What the user should know: snapshots of one row, dimensions that never change.
    pub warnings: Vec<String>,
}

impl DataSource {
    /// Arrays `samples` and `times` of `path`, nothing held out, isotropic standardisation.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        DataSource {
            path: path.into(),
            times_path: None,
            samples: "samples".into(),
            times: "times".into(),
            hold_out: Vec::new(),
            standardise: Standardisation::default(),
        }
    }

    fn open(&self) -> Result<Box<dyn ArrayFile>> {
        let suffix = self.path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default().to_lowercase();
        std::fs::metadata(&self.path).map_err(Error::io(&self.path, "open"))?;
        if self.times_path.is_some() && suffix != "npy" {
            let problem = format!("is given beside {}", self.path.display());
            return Err(Error::input(&self.path, "times_path", problem, "use it only beside a .npy of samples"));
        }
        Ok(match &suffix[..] {
            "npz" => Box::new(Npz::open(&self.path)?),
            "csv" => Box::new(Csv::open(&self.path, &self.samples, &self.times)?),
            "safetensors" => Box::new(Safetensors::open(&self.path)?),
            "npy" => {
                let mut files = vec![(self.samples.clone(), self.path.clone())];
                files.extend(self.times_path.iter().map(|path| (self.times.clone(), path.clone())));
                Box::new(NpyFiles::new(files))
            }
            _ => {
                let problem = if suffix.is_empty() { "is missing".into() } else { format!("is .{suffix}") };
                return Err(Error::input(
                    &self.path,
                    "suffix",
                    problem,
                    "give a .npz, .npy, .csv or .safetensors file",
                ));
            }
        })
    }
}

/// Reads the samples and times of `source` in data units, grouped by time. Nothing is held out or standardised; one time
/// is enough.
///
/// # Errors
/// [`Error::Io`] and [`Error::Input`] name the file, the array and the row.
pub fn read_snapshots(source: &DataSource) -> Result<Snapshots> {
    let mut file = source.open()?;
    if source.path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("npy")) && source.times_path.is_none() {
        let problem = "a .npy file holds one array, and the times are missing";
        return Err(Error::input(&source.path, "times_path", problem, "name the .npy file of the times"));
    }
    let Matrix { dim, values } = read_matrix(&mut *file, &source.samples)?;
    let times = read_vector(&mut *file, &source.times)?;
    let n = values.len() / dim;
    if times.len() != n {
        let problem = format!("has {} values for {n} rows of {}", times.len(), source.samples);
        return Err(Error::input(file.path(&source.times), &source.times, problem, "give one time for each row"));
    }
    Snapshots::group(dim, values, times)
        .ok_or_else(|| Error::input(&source.path, &source.samples, format!("has {n} rows"), "give fewer than 2³² rows"))
}

/// Reads, checks, holds out and standardises the snapshots of `source`.
///
/// # Errors
/// [`Error::Io`] and [`Error::Input`] name the file, the array or key, and the fix.
pub fn load(source: &DataSource) -> Result<Loaded> {
    let mut training = read_snapshots(source)?;
    let fail = |field: &str, problem: String, fix: &str| Err(Error::input(&source.path, field, problem, fix));
    let times = training.times.clone();
    let (first, last) = (times[0], times[times.len() - 1]);
    if times.len() < 2 {
        return fail(
            &source.times,
            format!("holds one time only ({first})"),
            "give samples at two or more times: a population's motion cannot be seen in one snapshot",
        );
    }
    let mut held = Vec::new();
    for &time in &source.hold_out {
        let Some(k) = training.find(time) else {
            return fail("hold_out", format!("names time {time}"), &format!("choose among {}", list(&times)));
        };
        if k == 0 || k == times.len() - 1 {
            let ends = format!("hold out times between {first} and {last}: the first and last are the path's ends");
            return fail("hold_out", format!("names time {time}"), &ends);
        }
        held.push(k);
    }
    let mut held_out = training.split_off(&held);

    let mut warnings = Vec::new();
    let single: Vec<f64> =
        (0..training.times.len()).filter(|&k| training.n_rows(k) == 1).map(|k| training.times[k]).collect();
    if !single.is_empty() {
        warnings.push(format!("{}: one row only at time {}", source.path.display(), list(&single)));
    }
    let (mean, scale) = standardise(source.standardise, &training, |message| {
        warnings.push(format!("{}: {message}", source.path.display()));
    });
    let coordinates = Coordinates { mean, scale, time_range: [first, last] };
    training.to_network(&coordinates);
    held_out.to_network(&coordinates);
    Ok(Loaded { training, held_out, coordinates, warnings })
}

/// The first few of `times`.
fn list(times: &[f64]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = times.iter().take(SHOWN).map(f64::to_string).collect();
    let more = if times.len() > SHOWN { format!(", … ({} in all)", times.len()) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// Mean and scale of each dimension.
fn standardise(
    standardisation: Standardisation,
    snapshots: &Snapshots,
    mut warn: impl FnMut(String),
) -> (Vec<f32>, Vec<f32>) {
    let dim = snapshots.dim;
    if standardisation == Standardisation::None {
        return (vec![0.0; dim], vec![1.0; dim]);
    }
    let (mean, variance) = moments(dim, &snapshots.samples);
    let deviation: Vec<f64> = match standardisation {
        Standardisation::PerDimension => variance.iter().map(|variance| variance.sqrt()).collect(),
        _ => vec![(variance.iter().sum::<f64>() / dim as f64).sqrt(); dim],
    };
    let scale = deviation.iter().enumerate().map(|(i, &deviation)| {
        // A spread that f32 cannot tell from the mean's rounding is none.
        if deviation > 1e-7 * mean[i].abs() && deviation as f32 > 0.0 {
            deviation as f32
        } else {
            warn(format!("column {i} never changes, so it is not scaled"));
            1.0
        }
    });
    let scale = scale.collect();
    (mean.iter().map(|&mean| mean as f32).collect(), scale)
}

/// Mean and population variance of each column, in f64 by two passes.
pub(super) fn moments(dim: usize, rows: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let n = (rows.len() / dim).max(1) as f64;
    let (mut mean, mut variance) = (vec![0.0; dim], vec![0.0; dim]);
    for row in rows.chunks_exact(dim) {
        for (mean, &x) in mean.iter_mut().zip(row) {
            *mean += f64::from(x) / n;
        }
    }
    for row in rows.chunks_exact(dim) {
        for ((variance, mean), &x) in variance.iter_mut().zip(&mean).zip(row) {
            *variance += (f64::from(x) - mean).powi(2) / n;
        }
    }
    (mean, variance)
}

/// Reads array `name` of `path` as particles `[n, dim]` in data units: (dim, rows). Needs no times; a `.csv` column
/// called `times` or `time` is left out.
///
/// # Errors
/// As [`read_snapshots`].
pub fn read_points(path: &Path, name: &str) -> Result<(usize, Vec<f32>)> {
    let source = DataSource { samples: name.to_string(), ..DataSource::new(path) };
    let Matrix { dim, values } = read_matrix(&mut *source.open()?, name)?;
    Ok((dim, values))
}

/// What `amatch inspect` says of a data file: its arrays and, where there are samples and times, the snapshots.
///
/// # Errors
/// What is wrong with the file.
pub fn describe(source: &DataSource) -> Result<String> {
    let mut file = source.open()?;
    let mut text = String::new();
    for name in file.names() {
        let line = match file.info(&name) {
            Ok(info) => format!("{name:<16} {:?}, {}", info.shape, info.storage),
            Err(error) => format!("{name:<16} not readable: {error}"),
        };
        text += &line;
        text.push('\n');
    }
    let names = file.names();
    if !(names.contains(&source.samples) && names.contains(&source.times)) {
        return Ok(text);
    }
    const SHOWN_TIMES: usize = 40;
    const SHOWN_COLUMNS: usize = 6;
    let snapshots = read_snapshots(source)?;
    text += &format!("{:>12} {:>10}   mean ± standard deviation of each column\n", "time", "rows");
    for k in 0..snapshots.times.len().min(SHOWN_TIMES) {
        let (mean, variance) = moments(snapshots.dim, snapshots.rows(k));
        let columns: Vec<String> = mean
            .iter()
            .zip(&variance)
            .take(SHOWN_COLUMNS)
            .map(|(mean, variance)| format!("{mean:.4} ± {:.4}", variance.sqrt()))
            .collect();
        let more = if snapshots.dim > SHOWN_COLUMNS { ", …" } else { "" };
        text += &format!("{:>12} {:>10}   {}{more}\n", snapshots.times[k], snapshots.n_rows(k), columns.join(", "));
    }
    if snapshots.times.len() > SHOWN_TIMES {
        text += &format!("{:>12} {:>10}   in all\n", snapshots.times.len(), snapshots.samples.len() / snapshots.dim);
    }
    Ok(text)
}
