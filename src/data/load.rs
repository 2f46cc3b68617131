//! From files to snapshots: checked, grouped by time, divided into training and held-out, in network coordinates.

use std::path::Path;

use super::array::{Rows, check_shape, list, zeros};
use super::file::{DataFile, Format};
use super::grouping::Grouping;
use super::snapshots::find_time;
use super::standardise::coordinates_of;
use super::{DataSource, Snapshots};
use crate::error::{Error, Result};
use crate::model::Coordinates;

/// A data set as training sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Snapshots to train on: network coordinates, times from 0 to 1 in network time, at least two.
    pub training: Snapshots,
    /// Snapshots at the held-out times, likewise; there may be none.
    pub held_out: Snapshots,
    /// What took data units to network coordinates.
    pub coordinates: Coordinates,
    /// What a user should know, a sentence each.
    pub warnings: Vec<String>,
}

/// Reads, checks, divides and standardises the snapshots of `source`.
///
/// Peak memory: the samples in f32 and 4 bytes a row while they are read; or 20 bytes a row before, for the times.
///
/// # Errors
/// [`Error::Input`] naming file, array (or row and column) and fix for every content that cannot be trained on.
pub fn load(source: &DataSource) -> Result<Loaded> {
    let (mut training, mut held_out, mut warnings) = read(source, |times| held_out_times(source, times))?;
    let [first, .., last] = training.times[..] else {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("holds one time, {}", list(&training.times)),
            "give samples of at least two times, or set objective.path to a generative path",
        ));
    };
    let coordinates = coordinates_of(source, &training, [first, last], &mut warnings)?;
    for snapshots in [&mut training, &mut held_out] {
        coordinates.to_network(&mut snapshots.samples);
        for time in &mut snapshots.times {
            *time = coordinates.network_time(*time);
        }
    }
    let mut all: Vec<f64> = training.times.iter().chain(&held_out.times).copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    // Engines compute with f32 times.
    if !all.iter().all(|t| t.is_finite()) || all.windows(2).any(|pair| pair[0] as f32 >= pair[1] as f32) {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("two times are too close to tell apart on the way from {first} to {last}"),
            "merge them, or leave out times far from the others",
        ));
    }
    Ok(Loaded { training, held_out, coordinates, warnings })
}

/// Reads, checks and standardises the one snapshot that a generative path leads to, at network time 1. Data times of the model are
/// network times, 0 to 1.
///
/// # Errors
/// As [`load`]; when there is more than one time.
pub fn load_single(source: &DataSource) -> Result<Loaded> {
    let (mut training, mut warnings) = read_snapshots(source)?;
    if training.times.len() != 1 {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("holds {} times, {}", training.times.len(), list(&training.times)),
            "give samples of one time: a generative path leads from noise to them",
        ));
    }
    let coordinates = coordinates_of(source, &training, [0.0, 1.0], &mut warnings)?;
    coordinates.to_network(&mut training.samples);
    training.times = vec![1.0];
    let held_out = Snapshots { dim: training.dim, times: Vec::new(), offsets: vec![0], samples: Vec::new() };
    Ok(Loaded { training, held_out, coordinates, warnings })
}

/// Reads the snapshots of `source` in data units, nothing held out, and the warnings about them. One time is enough.
///
/// # Errors
/// As [`load`].
pub fn read_snapshots(source: &DataSource) -> Result<(Snapshots, Vec<String>)> {
    read(source, |times| Ok(vec![false; times.len()])).map(|(snapshots, _, warnings)| (snapshots, warnings))
}

/// Reads the array `name` of `path` as points, no times needed: (dimension, rows `[n, dim]` in data units).
///
/// # Errors
/// As [`load`].
pub fn read_points(path: &Path, name: &str) -> Result<(usize, Vec<f32>)> {
    const NO_TIMES: &str = "";
    let mut file = DataFile::open(path)?;
    let (n_rows, dim) = file.shape(name, NO_TIMES)?;
    let mut points = zeros(path, name, n_rows, dim)?;
    file.read_rows(name, NO_TIMES, &mut Rows::new(dim, None, &mut points, &mut []))?;
    Ok((dim, points))
}

/// The snapshots in data units: those whose time `hold_out` leaves, the others, and warnings.
fn read(
    source: &DataSource,
    hold_out: impl FnOnce(&[f64]) -> Result<Vec<bool>>,
) -> Result<(Snapshots, Snapshots, Vec<String>)> {
    let mut file = DataFile::open(&source.path)?;
    let row_times = match &source.times_path {
        Some(path) if Format::of(&source.path)? == Format::Csv => {
            let fix = "leave times_path out, and name the column with times";
            return Err(Error::input(path, "times_path", "does not go with a .csv file", fix));
        }
        Some(path) => DataFile::open(path)?.times(&source.times)?,
        None if Format::of(&source.path)? == Format::Npy => {
            let fix = "name the .npy file of the times with times_path";
            return Err(Error::input(&source.path, "times_path", "is missing: a .npy file holds one array", fix));
        }
        None => file.times(&source.times)?,
    };
    check_shape(times_file(source), &source.times, row_times.len() as u64, 1)?;
    let (n_rows, dim) = file.shape(&source.samples, &source.times)?;
    if row_times.len() != n_rows {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("has {} entries, but {} has {n_rows} rows", row_times.len(), source.samples),
            "give one time per row",
        ));
    }

    let grouping = Grouping::of(row_times);
    let held_out = hold_out(&grouping.times)?;
    let select = |wanted: bool| -> Vec<usize> { (0..held_out.len()).filter(|&k| held_out[k] == wanted).collect() };
    let (training_groups, held_out_groups) = (select(false), select(true));
    let warnings = single_row_warning(&grouping).into_iter().collect();
    let mut training = empty_snapshots(source, dim, &grouping, &training_groups)?;
    let mut held_out = empty_snapshots(source, dim, &grouping, &held_out_groups)?;
    let destination = grouping.destinations(&[training_groups, held_out_groups].concat());
    let mut rows = Rows::new(dim, destination.as_deref(), &mut training.samples, &mut held_out.samples);
    file.read_rows(&source.samples, &source.times, &mut rows)?;
    Ok((training, held_out, warnings))
}

/// Zeros in the shape of the named groups.
fn empty_snapshots(source: &DataSource, dim: usize, grouping: &Grouping, groups: &[usize]) -> Result<Snapshots> {
    let times = groups.iter().map(|&k| grouping.times[k]).collect();
    let mut offsets = vec![0];
    let mut n_rows = 0;
    for &k in groups {
        n_rows += grouping.counts[k];
        offsets.push(n_rows);
    }
    let samples = zeros(&source.path, &source.samples, n_rows, dim)?;
    Ok(Snapshots { dim, times, offsets, samples })
}

/// Which of the distinct `times` are held out.
fn held_out_times(source: &DataSource, times: &[f64]) -> Result<Vec<bool>> {
    let mut held_out = vec![false; times.len()];
    for &wanted in &source.hold_out {
        let refuse = |problem: String| {
            let allowed = list(times.iter().skip(1).take(times.len().saturating_sub(2)));
            let fix = format!("hold out any of: {allowed}");
            Err(Error::input(times_file(source), "hold_out", problem, fix))
        };
        match find_time(times, wanted) {
            None => return refuse(format!("{wanted} is not one of the times {}", list(times))),
            Some(0) => return refuse(format!("{wanted} is the first time, where every path starts")),
            Some(k) if k + 1 == times.len() => {
                return refuse(format!("{wanted} is the last time, where every path ends"));
            }
            Some(k) => held_out[k] = true,
        }
    }
    Ok(held_out)
}

fn single_row_warning(grouping: &Grouping) -> Option<String> {
    let single: Vec<f64> =
        grouping.times.iter().zip(&grouping.counts).filter(|(_, n)| **n == 1).map(|(t, _)| *t).collect();
    let advice = "a distribution needs many samples";
    match single[..] {
        [] => None,
        [time] => Some(format!("time {time} has a single row: {advice}")),
        _ => Some(format!("these times have a single row each: {}: {advice}", list(&single))),
    }
}

/// The file that holds the times.
fn times_file(source: &DataSource) -> &Path {
    source.times_path.as_deref().unwrap_or(&source.path)
}
