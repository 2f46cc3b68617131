//! Snapshots from files: checked, grouped by time, divided into training and held-out, in network
//! coordinates.

use std::path::Path;
use std::sync::Arc;

use super::array::{Meter, Rows, check_dim, check_shape, list, zeros};
use super::components::{Kept, fit};
use super::conditions::RowGroups;
use super::describe::table_of;
use super::file::{DataFile, Features, Format};
use super::grouping::{Grouping, RowTimes, SAME_TIME};
use super::hold_out::{HoldOut, ShareOfRows, SplitColumn};
use super::row_mass::{FileMass, RowMass, few_rows_warning};
use super::standardize::{Statistics, coordinates_of, warn_of_outliers};
use super::survey::Survey;
use super::{Components, DataSource, Reduction, Snapshots};
use crate::error::{Error, InputKind, Result};
use crate::model::Coordinates;
use crate::stage::{Stage, Watch};

/// A data set prepared for training.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Snapshots to train on: network coordinates, times from 0 to 1 in network time, at least two.
    pub training: Snapshots,
    /// What is held out, in the same coordinates: snapshots of other times, or other rows at the
    /// times of `training`; there may be none. A time above 1 is after the last one of `training`.
    pub held_out: Snapshots,
    /// The map from data units to network coordinates, with the names of the columns if the data
    /// are a table.
    pub coordinates: Coordinates,
    /// The rows by their conditions, if they have any.
    pub groups: RowGroups,
    /// The components that the samples are, if [`DataSource::components`] asks for them.
    pub components: Option<Arc<Components>>,
    /// What there is, in data units: number and dimension of the snapshots, then a line for each
    /// time with its rows and the first means and deviations; at most 26 lines.
    pub table: String,
    /// Information for the user, one sentence each.
    pub notices: Vec<String>,
    /// Messages for the user, one sentence each.
    pub warnings: Vec<String>,
}

/// Snapshots in data units, as in their file.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    /// Differences from `origin`, rounded to f32.
    pub snapshots: Snapshots,
    /// Values to add to a row, `[dim]`: 0 if f32 holds every value of the column, otherwise its
    /// mean over the rows that are not held out.
    pub origin: Vec<f64>,
    /// Names of the columns, `[dim]`, if the data are a table.
    pub columns: Option<Vec<String>>,
    /// The rows by their conditions, if they have any; in a [`DividedSet`] those held out too.
    pub groups: RowGroups,
    /// Messages for the user, one sentence each.
    pub warnings: Vec<String>,
}

/// Snapshots in data units, divided as for training.
#[derive(Clone, Debug, PartialEq)]
pub struct DividedSet {
    /// What is trained on.
    pub training: DataSet,
    /// What is held out, differences from the origin of `training`; there may be none.
    pub held_out: Snapshots,
}

/// Points in data units, without times.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Dimension.
    pub dim: usize,
    /// Rows `[n, dim]`: differences from `origin`, rounded to f32.
    pub rows: Vec<f32>,
    /// Values to add to a row, as in [`DataSet`].
    pub origin: Vec<f64>,
    /// Names of the columns, `[dim]`, if the data are a table.
    pub columns: Option<Vec<String>>,
    /// Messages for the user, one sentence each.
    pub warnings: Vec<String>,
}

impl DataSet {
    /// Rows `[n, dim]` of snapshot `k` in data units.
    #[must_use]
    pub fn positions(&self, k: usize) -> Vec<f64> {
        moved(self.snapshots.rows(k), &self.origin)
    }
}

impl Points {
    /// Rows `[n, dim]` in data units.
    #[must_use]
    pub fn positions(&self) -> Vec<f64> {
        moved(&self.rows, &self.origin)
    }
}

/// rows + origin.
fn moved(rows: &[f32], origin: &[f64]) -> Vec<f64> {
    rows.iter().zip(origin.iter().cycle()).map(|(&x, origin)| f64::from(x) + origin).collect()
}

/// Reads, checks, divides and standardizes the snapshots of `source`; `watch` receives the bytes
/// read. Files of types that f32 cannot hold, and tables, are read twice, with held-out rows up to
/// three times, in rare cases five times.
///
/// Peak memory: the samples in f32, plus 4 bytes per row if the rows of a time are not consecutive;
/// components take some more while they are fitted.
///
/// # Errors
/// [`Error::Input`] naming file, array (or row and column) and fix for every content that training
/// cannot use; [`Error::Interrupted`] if the watch cancels.
pub fn load(source: &DataSource, watch: &dyn Watch) -> Result<Loaded> {
    load_on(source, &Stage::new(1, watch))
}

/// [`load`], with components fitted on all threads of `stage`.
pub(crate) fn load_on(source: &DataSource, stage: &Stage) -> Result<Loaded> {
    let reading = Reading::new(source, Division::AsInTraining, stage.watch)?;
    let [first, .., last] = reading.training.times[..] else {
        if !reading.held_out.times.is_empty() {
            let problem = format!("leaves one time to train on, {}", list(&reading.training.times));
            return Err(Error::input(times_file(source), "hold_out", problem, "hold out fewer times"));
        }
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("holds one time, {}", list(&reading.training.times)),
            "give samples of at least two times, or set objective.path to a generative path",
        ));
    };
    let mut loaded = standardized(source, reading, [first, last], stage)?;
    for snapshots in [&mut loaded.training, &mut loaded.held_out] {
        snapshots.mass.rescale_time(last - first);
        for time in &mut snapshots.times {
            *time = loaded.coordinates.network_time(*time);
        }
    }
    let mut all = loaded.training.times.clone();
    // Rows that are held out have the times of others.
    all.extend(loaded.held_out.times.iter().filter(|_| source.hold_out.is_of_times()));
    all.sort_unstable_by(f64::total_cmp);
    // Engines compute with times in f32.
    if !all.iter().all(|t| t.is_finite()) || all.windows(2).any(|pair| pair[0] as f32 >= pair[1] as f32) {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("two times are too close to tell apart on the way from {first} to {last}"),
            "merge them, or leave out times far from the others",
        ));
    }
    Ok(loaded)
}

/// Reads, checks and standardizes the single snapshot at which a generative path ends, at network
/// time 1. Data times of the model equal network times, 0 to 1.
///
/// # Errors
/// As [`load`]; also if there is more than one time.
pub fn load_single(source: &DataSource, watch: &dyn Watch) -> Result<Loaded> {
    load_single_on(source, &Stage::new(1, watch))
}

/// [`load_single`], with components fitted on all threads of `stage`.
pub(crate) fn load_single_on(source: &DataSource, stage: &Stage) -> Result<Loaded> {
    let reading = Reading::new(source, Division::AsInTraining, stage.watch)?;
    let times = &reading.training.times;
    if times.len() != 1 {
        return Err(Error::input(
            times_file(source),
            &source.times,
            format!("holds {} times, {}", times.len(), list(times)),
            "give samples of one time: a generative path leads from noise to them",
        ));
    }
    let mut loaded = standardized(source, reading, [0.0, 1.0], stage)?;
    loaded.training.times = vec![1.0];
    loaded.held_out.times.fill(1.0);
    Ok(loaded)
}

/// Converts the samples to network coordinates; times stay.
fn standardized(source: &DataSource, mut reading: Reading, time_range: [f64; 2], stage: &Stage) -> Result<Loaded> {
    /// Number of readings that move the origin to the center of the training rows. It is far from
    /// the mean of all rows if there are outliers; after the second reading it is known to f32's
    /// precision there.
    const READINGS: usize = 2;
    let mut statistics = Statistics::of(source, &reading);
    for _ in 0..READINGS {
        if !statistics.far_from_origin(&reading) {
            break;
        }
        reading.read_again(source, &statistics.center, stage.watch)?;
        statistics = Statistics::of(source, &reading);
    }
    let mut notices = reading.file.take_notices();
    let components = reading.reduce(source, &mut notices, stage)?;
    if components.is_some() {
        statistics = Statistics::of(source, &reading);
    }
    let table = table_of([&reading.training, &reading.held_out], &reading.features.origin);
    let mut warnings = std::mem::take(&mut reading.warnings);
    let mut coordinates = coordinates_of(source, &reading, &statistics, time_range, &mut warnings)?;
    let relative = coordinates.relative_to(&reading.features.origin);
    relative.to_network(&mut reading.training.samples);
    relative.to_network(&mut reading.held_out.samples);
    let stretches = [&reading.training.samples[..], &reading.held_out.samples];
    if let Some(at) = stretches.into_iter().flatten().position(|y| !y.is_finite()) {
        let dim = reading.training.dim;
        let row = reading.file_row(at / dim);
        let problem = format!("row {row} (counted from 0), column {} overflows", reading.column_name(at % dim));
        let fix = "remove such rows if they are mistakes, or rescale the data";
        return Err(Error::input(&source.path, &source.samples, format!("{problem} when it is standardized"), fix));
    }
    warn_of_outliers(source, &reading, &mut warnings);
    let Reading { training, held_out, groups, .. } = reading;
    let n_training = training.samples.len() / training.dim;
    coordinates.conditions = groups.conditions(&source.path, source.standardize, n_training, &mut warnings);
    Ok(Loaded { training, held_out, coordinates, groups, components, table, notices, warnings })
}

/// Reads the snapshots of `source` in data units, without holding any out; `watch` receives the
/// bytes read. One time is enough.
///
/// # Errors
/// As [`load`].
pub fn read_snapshots(source: &DataSource, watch: &dyn Watch) -> Result<DataSet> {
    let mut reading = Reading::new(source, Division::None, watch)?;
    only_given(source)?;
    reading.reduce(source, &mut Vec::new(), &Stage::new(1, watch))?;
    let Reading { training, features, groups, warnings, .. } = reading;
    Ok(DataSet { snapshots: training, origin: features.origin, columns: features.columns, groups, warnings })
}

/// Reads the snapshots of `source` in data units, divided as [`load`] divides them; `watch`
/// receives the bytes read. One time is enough.
///
/// # Errors
/// As [`load`].
pub fn read_divided(source: &DataSource, watch: &dyn Watch) -> Result<DividedSet> {
    let mut reading = Reading::new(source, Division::AsInTraining, watch)?;
    only_given(source)?;
    reading.reduce(source, &mut Vec::new(), &Stage::new(1, watch))?;
    let Reading { training, held_out, features, groups, warnings, .. } = reading;
    let Features { origin, columns, .. } = features;
    let training = DataSet { snapshots: training, origin, columns, groups, warnings };
    Ok(DividedSet { training, held_out })
}

/// Reads the samples of `source` as points, without times (in a table, the column of times is
/// skipped); `watch` receives the bytes read.
///
/// # Errors
/// As [`load`].
pub fn read_points(source: &DataSource, watch: &dyn Watch) -> Result<Points> {
    let DataSource { path, samples, times, .. } = source;
    let mut meter = Meter::new(watch);
    only_given(source)?;
    let mut file = open(source)?;
    check_width(source, &mut file)?;
    let (n_rows, dim) = file.shape(samples, times, &mut meter)?;
    let features = file.features(samples, times, &mut meter)?;
    let mut rows = zeros(path, samples, n_rows, dim)?;
    let destination = None;
    file.read_rows(samples, times, &mut Rows::new(&features.origin, destination, &mut rows, &mut []), &mut meter)?;
    let mut warnings = features.warnings.clone();
    warnings.extend(counting_warning(source, &features, dim, [&rows[..]]));
    let points = Points { dim, rows, origin: features.origin, columns: features.columns, warnings };
    let Some(Reduction::Given(components)) = &source.components else { return Ok(points) };
    if !components.take(path, dim, points.columns.as_deref())? {
        return Ok(points);
    }
    let Points { mut rows, origin, warnings, .. } = points;
    rows = components.scores(&rows, &origin, &Stage::new(1, watch))?;
    let dim = components.count();
    Ok(Points { dim, rows, origin: vec![0.0; dim], columns: Some(components.names()), warnings })
}

/// Reads the times of `source`, one for each of its `n_rows` rows in the order of the file, in data
/// units; `watch` receives the bytes read.
///
/// # Errors
/// As [`load`].
pub fn read_row_times(source: &DataSource, n_rows: usize, watch: &dyn Watch) -> Result<Vec<f64>> {
    let mut file = open(source)?;
    let times = file.row_times(&source.path, &source.times, n_rows, &mut Meter::new(watch))?;
    match times.iter().position(|time| !time.is_finite()) {
        Some(row) => {
            let problem = format!("row {} (counted from 0) is {}", file.file_row(row), times[row]);
            Err(Error::input(&source.path, &source.times, problem, "remove rows without a time"))
        }
        None => Ok(times),
    }
}

/// The names of the `n_rows` rows of `source`, if they have any; `watch` receives the bytes read.
/// In a table they are the first column called ids, id, cell, cell_id, cell_name, barcode,
/// cell_barcode, obs_names, index or __index_level_0__, in any case, or else a first column without
/// a name; in a `.h5ad` the index of `obs`, or its column `ids`; in a `.npz` the array `ids`. Other
/// files have none. They take the memory of their texts.
///
/// # Errors
/// [`Error::Input`] for a damaged file, a name of more than 1024 bytes, or another number of names;
/// [`Error::Interrupted`] if the watch cancels.
pub fn read_ids(source: &DataSource, n_rows: usize, watch: &dyn Watch) -> Result<Option<Vec<String>>> {
    open(source)?.ids(n_rows, &mut Meter::new(watch))
}

/// [`read_ids`] of all rows, in the order in which [`read_snapshots`] has them.
///
/// # Errors
/// As [`read_ids`], and as [`read_snapshots`] for times.
pub fn read_snapshot_ids(source: &DataSource, n_rows: usize, watch: &dyn Watch) -> Result<Option<Vec<String>>> {
    let mut meter = Meter::new(watch);
    let mut file = open(source)?;
    let Some(ids) = file.ids(n_rows, &mut meter)? else { return Ok(None) };
    let mut grouping = Grouping::of(row_times(source, &mut file, &mut meter)?);
    let order: Vec<usize> = (0..grouping.times.len()).collect();
    let Some(destination) = grouping.destinations(&order) else { return Ok(Some(ids)) };
    let mut moved = vec![String::new(); ids.len()];
    ids.into_iter().zip(destination).for_each(|(id, at)| moved[at as usize] = id);
    Ok(Some(moved))
}

/// Refuses to fit components where the rows to train on are not known.
fn only_given(source: &DataSource) -> Result<()> {
    match source.components {
        Some(Reduction::Fit(_)) => {
            let problem = "are fitted only when a model is trained";
            Err(Error::input(
                &source.path,
                "data.components",
                problem,
                "give those of the run: its loadings.safetensors",
            ))
        }
        _ => Ok(()),
    }
}

/// Opens the file of `source`, of which only the rows and columns are read that it asks for.
fn open(source: &DataSource) -> Result<DataFile> {
    let mut file = DataFile::open(&source.path)?;
    source.beside_samples().for_each(|column| file.leave_out(column));
    file.without_conditions(&source.conditions);
    if let Some(filter) = &source.only {
        file.keep_only(&source.path, filter)?;
    }
    if let Some(Reduction::First(count)) = source.components {
        file.take_first(&source.path, &source.samples, count)?;
    }
    Ok(file)
}

/// Refuses samples that are too wide for a model, before they are read.
fn check_width(source: &DataSource, file: &mut DataFile) -> Result<()> {
    match file.n_columns(&source.samples, &source.times) {
        Some(columns) if source.components.is_none() => check_dim(&source.path, &source.samples, columns),
        _ => Ok(()),
    }
}

/// The time of each row of `file`, that of `source`.
fn row_times(source: &DataSource, file: &mut DataFile, meter: &mut Meter<'_>) -> Result<RowTimes> {
    let DataSource { path, times_path, samples, times, .. } = source;
    let format = Format::of(path)?;
    match times_path {
        Some(times_path) if format.is_table() => {
            let fix = "leave times_path out, and name the column with times";
            Err(Error::input(times_path, "times_path", "does not go with a table", fix))
        }
        Some(times_path) => DataFile::open(times_path)?.times(samples, times, meter),
        None if format == Format::Npy => {
            let fix = "name the .npy file of the times with times_path";
            Err(Error::input(path, "times_path", "is missing: a .npy file holds one array", fix)
                .of_kind(InputKind::Missing))
        }
        None => file.times(samples, times, meter),
    }
}

/// Whether a reading holds anything out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Division {
    /// All rows are training rows.
    None,
    /// As the source says.
    AsInTraining,
}

/// Snapshots as in their file, as differences from an origin, with the positions of their rows in
/// the file.
pub(super) struct Reading {
    pub training: Snapshots,
    pub held_out: Snapshots,
    pub features: Features,
    /// Of the training and then the held-out rows.
    pub groups: RowGroups,
    pub warnings: Vec<String>,
    /// Index among training and then held-out rows of each row of the file; `None` if they are in
    /// the order of the file.
    destination: Option<Vec<u32>>,
    file: DataFile,
}

impl Reading {
    /// The snapshots of `source`.
    fn new(source: &DataSource, division: Division, watch: &dyn Watch) -> Result<Reading> {
        let DataSource { samples, times, .. } = source;
        let mut meter = Meter::new(watch);
        let mut file = open(source)?;
        check_width(source, &mut file)?;
        let row_times = row_times(source, &mut file, &mut meter)?;
        check_shape(times_file(source), times, row_times.len() as u64, 1)?;
        let (n_rows, dim) = file.shape(samples, times, &mut meter)?;
        if row_times.len() != n_rows {
            return Err(Error::input(
                times_file(source),
                times,
                format!("has {} entries, but {samples} has {n_rows} rows", row_times.len()),
                "give one time per row",
            ));
        }

        let mut grouping = Grouping::of(row_times);
        let merged = merged_warning(source, &grouping);
        let held_out = match division {
            Division::None => vec![false; grouping.times.len()],
            Division::AsInTraining => divide(source, &mut grouping, &mut file, n_rows, &mut meter)?,
        };
        let select = |wanted: bool| -> Vec<usize> {
            (0..held_out.len()).filter(|&k| held_out[k] == wanted && grouping.counts[k] > 0).collect()
        };
        let (training_groups, held_out_groups) = (select(false), select(true));
        let destination = grouping.destinations(&[&training_groups[..], &held_out_groups].concat());
        let mass = FileMass::read(source, &mut file, n_rows, &mut meter)?;
        let mut features = file.features(samples, times, &mut meter)?;
        let n_training: usize = training_groups.iter().map(|&k| grouping.counts[k]).sum();
        if n_training < n_rows && features.origin.iter().any(|&origin| origin != 0.0) {
            // What is held out decides nothing, not even how the rest is rounded.
            let place = |row: usize| destination.as_ref().map_or(row, |destination| destination[row] as usize);
            features.origin = file.origin_of(samples, times, |row| place(row) < n_training, &mut meter)?;
        }
        let groups = RowGroups::read(source, &mut file, n_rows, &mut meter)?.moved(destination.as_deref());
        let mut warnings = features.warnings.clone();
        warnings.extend(merged);
        let mut reading = Reading {
            training: empty_snapshots(source, dim, &grouping, &training_groups)?,
            held_out: empty_snapshots(source, dim, &grouping, &held_out_groups)?,
            features,
            groups,
            warnings,
            destination,
            file,
        };
        let Reading { training, held_out, destination, groups, warnings, .. } = &mut reading;
        // Rows that are held out of a time may be few.
        let whole = [&*training, &*held_out];
        let whole = if source.hold_out.is_of_times() { &whole[..] } else { &whole[..1] };
        warnings.extend(single_row_warning(whole, groups));
        let sides = [&*training, &*held_out].map(|side| (&side.offsets[..], &side.times[..]));
        [training.mass, held_out.mass] = mass.divided(source, destination.as_deref(), sides)?;
        warnings.extend(few_rows_warning(times_file(source), training, groups));
        reading.fill(source, &mut meter)?;
        let stretches = [&reading.training.samples[..], &reading.held_out.samples];
        let counting = counting_warning(source, &reading.features, dim, stretches);
        reading.warnings.extend(counting);
        Ok(reading)
    }

    /// Puts components in the place of the columns, if `source` asks for them: those given, or
    /// those of the training rows, which `notices` then describe.
    fn reduce(
        &mut self,
        source: &DataSource,
        notices: &mut Vec<String>,
        stage: &Stage,
    ) -> Result<Option<Arc<Components>>> {
        let Reading { training, held_out, features, warnings, .. } = self;
        let (path, columns) = (&source.path, features.columns.as_deref());
        let components = match &source.components {
            None | Some(Reduction::First(_)) => return Ok(None),
            Some(Reduction::Fit(count)) => {
                let factors = training.row_factors();
                let rows = (&training.samples[..], factors.as_deref());
                Arc::new(fit(path, rows, &features.origin, columns, *count, stage)?)
            }
            Some(Reduction::Given(components)) => components.clone(),
        };
        if components.take(path, training.dim, columns)? {
            let scores = components.scores(&training.samples, &features.origin, stage)?;
            if let Some(Reduction::Fit(_)) = source.components {
                let kept = Kept::of(&components, training, &features.origin, &scores);
                notices.push(kept.notice(path));
                warnings.extend(kept.warning(path));
            }
            training.samples = scores;
            held_out.samples = components.scores(&held_out.samples, &features.origin, stage)?;
            let dim = components.count();
            (training.dim, held_out.dim) = (dim, dim);
            let columns = Some(components.names());
            *features =
                Features { epsilon: f32::EPSILON.into(), origin: vec![0.0; dim], columns, ..Features::default() };
        }
        Ok(Some(components))
    }

    /// Reads the samples once more, with the origin moved by `shift`.
    fn read_again(&mut self, source: &DataSource, shift: &[f64], watch: &dyn Watch) -> Result<()> {
        let moved = |(origin, shift): (&mut f64, &f64)| {
            if *origin != 0.0 {
                *origin += shift
            }
        };
        self.features.origin.iter_mut().zip(shift).for_each(moved);
        let mut meter = Meter::new(watch);
        let size = std::fs::metadata(&source.path).map_or(0, |found| found.len());
        meter.expect(size);
        self.fill(source, &mut meter)
    }

    fn fill(&mut self, source: &DataSource, meter: &mut Meter<'_>) -> Result<()> {
        let Reading { training, held_out, features, destination, file, .. } = self;
        let training = &mut training.samples;
        let mut rows = Rows::new(&features.origin, destination.as_deref(), training, &mut held_out.samples);
        file.read_rows(&source.samples, &source.times, &mut rows, meter)
    }

    /// The row of the file that has the index `place`.
    pub fn file_row(&self, place: usize) -> usize {
        let rows = self.destination.iter().flatten();
        let read = rows.enumerate().find(|(_, at)| **at as usize == place).map_or(place, |(row, _)| row);
        self.file.file_row(read)
    }

    /// Name of column `i` for messages.
    pub fn column_name(&self, i: usize) -> String {
        column_name(&self.features, i)
    }
}

fn column_name(features: &Features, i: usize) -> String {
    match &features.columns {
        Some(names) => names[i].clone(),
        None => i.to_string(),
    }
}

/// A warning about columns that only count the rows; `stretches` are the rows read.
fn counting_warning<'a>(
    source: &DataSource,
    features: &Features,
    dim: usize,
    stretches: impl IntoIterator<Item = &'a [f32]>,
) -> Option<String> {
    let counting = features.counting.clone().unwrap_or_else(|| Survey::counters_of(dim, stretches).counting());
    (!counting.is_empty()).then(|| {
        let columns = list(counting.iter().map(|&i| column_name(features, i)));
        format!(
            "{}: column {columns} is taken as data, but holds the numbers of the rows in some order; if it is an index, \
             leave it out",
            source.path.display()
        )
    })
}

/// A warning about times that were merged into one.
fn merged_warning(source: &DataSource, grouping: &Grouping) -> Option<String> {
    (!grouping.merged.is_empty()).then(|| {
        let groups = list(grouping.merged.iter().map(|(times, taken)| {
            let times: Vec<String> = times.iter().take(4).map(f64::to_string).collect();
            format!("{} as {taken}", times.join(" and "))
        }));
        let file = times_file(source).display();
        format!("{file}: times closer than {SAME_TIME:e} of their range are taken for one: {groups}")
    })
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
    Ok(Snapshots { dim, times, offsets, samples, mass: RowMass::default() })
}

/// Divides the groups of `grouping` as `source` says; which groups are held out. Rows that are held
/// out of a time are a group of their own afterwards.
fn divide(
    source: &DataSource,
    grouping: &mut Grouping,
    file: &mut DataFile,
    n_rows: usize,
    meter: &mut Meter<'_>,
) -> Result<Vec<bool>> {
    let refuse = |problem: String, fix: String| Error::input(times_file(source), "hold_out", problem, fix);
    let n = grouping.times.len();
    match &source.hold_out {
        HoldOut::Times(_) | HoldOut::Range(_) => {
            return source.hold_out.of_times(&grouping.times).map_err(|(problem, fix)| refuse(problem, fix));
        }
        HoldOut::Share(share) => {
            let mut rows = ShareOfRows::new(*share, &grouping.counts);
            grouping.divide(|group| rows.holds_next(group));
            if grouping.counts[n..].iter().all(|&count| count == 0) {
                let problem = format!("a share of {} is no row of snapshots so small", share.share);
                return Err(refuse(problem, "hold out a larger share, or times".into()));
            }
        }
        HoldOut::Column(split) => {
            let mut rows = file.rows_with(&source.path, split, n_rows, meter)?.into_iter();
            grouping.divide(|_| rows.next() == Some(true));
            if grouping.counts[0] == 0 {
                let SplitColumn { column, value } = split;
                let first = grouping.times[0];
                let problem = format!(
                    "{column} is {value} in every row of time {first}, the first, which every prediction starts from"
                );
                return Err(refuse(problem, "keep rows of that time to train on".into()));
            }
        }
    }
    Ok((0..2 * n).map(|k| k >= n).collect())
}

/// A warning about times at which `sides`, one after the other, have a single row, in one of their
/// `groups` if there are any.
fn single_row_warning(sides: &[&Snapshots], groups: &RowGroups) -> Option<String> {
    let mut single = Vec::new();
    let mut first = 0;
    for side in sides {
        let of_groups = groups.counts(side, first);
        for (k, &time) in side.times.iter().enumerate() {
            match &of_groups[..] {
                [] if side.n_rows(k) == 1 => single.push(time.to_string()),
                _ => {
                    let alone = (0..of_groups.len()).filter(|&group| of_groups[group][k] == 1);
                    single.extend(alone.map(|group| format!("{time} under {}", groups.describe(group))));
                }
            }
        }
        first += side.offsets.last().copied().unwrap_or(0);
    }
    let advice = "a distribution needs many samples";
    match &single[..] {
        [] => None,
        [time] => Some(format!("time {time} has a single row: {advice}")),
        _ => Some(format!("these times have a single row each: {}: {advice}", list(&single))),
    }
}

/// The file that holds the times.
fn times_file(source: &DataSource) -> &Path {
    source.times_path.as_deref().unwrap_or(&source.path)
}
