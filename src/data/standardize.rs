//! Center and scale of the training snapshots: y = (x − mean) / scale.

use super::array::list;
use super::file::Features;
use super::load::Reading;
use super::{DataSource, Snapshots, Standardization};
use crate::error::{Error, Result};
use crate::model::{Coordinates, MAX_MAGNITUDE, MIN_SCALE};

/// Network coordinates beyond which a value is reported: so far out it is a mistake, or sets the
/// scale of all others.
const FAR: f64 = 20.0;

/// Distance of the quartiles of a standard normal.
const NORMAL_QUARTILES: f64 = 1.348_979_500_392_163_6;

/// Spreads of so many units in the last place of the stored type, at the magnitude of the values,
/// are rounding.
const ROUNDING_UNITS: f64 = 4.0;

/// Center and spread of each dimension, differences from the origin of the reading.
pub(super) struct Statistics {
    /// In the middle of the values.
    pub center: Vec<f64>,
    /// The scale; 0 where a column is constant up to rounding.
    spread: Vec<f64>,
    constant: Vec<usize>,
    /// Columns whose quartiles are equal, so that their deviation counts.
    without_quartiles: Vec<usize>,
}

impl Snapshots {
    /// The snapshots in network coordinates, as a [`DensityPath`](crate::density_path::DensityPath)
    /// needs them, and what takes them there: center and scale of all rows as `rule` has them, and
    /// times to 0..=1. A single time, which a generative path leads to, becomes 1, and data times
    /// of the model are then network times.
    ///
    /// A dimension without spread keeps scale 1.
    ///
    /// ```
    /// use action_matching::prelude::*;
    ///
    /// let snapshots = Snapshots::from_rows(1, [(2.0, [10.0, 12.0]), (6.0, [14.0, 16.0])])?;
    /// let (snapshots, coordinates) = snapshots.standardize(Standardization::Isotropic)?;
    /// assert_eq!((coordinates.mean[0], coordinates.scale[0]), (13.0, f64::sqrt(5.0)));
    /// assert_eq!((coordinates.time_range, &snapshots.times[..]), ([2.0, 6.0], &[0.0, 1.0][..]));
    /// assert!((snapshots.samples[3] - 3.0 / f32::sqrt(5.0)).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Snapshots::validate`]; [`Error::Input`] for numbers that are not finite, for means and
    /// scales that no model file holds, and for times that f32 does not tell apart on the way from
    /// the first to the last.
    pub fn standardize(mut self, rule: Standardization) -> Result<(Snapshots, Coordinates)> {
        self.validate()?;
        let dim = self.dim;
        let time_range = match self.times[..] {
            [first, .., last] => [first, last],
            _ => [0.0, 1.0],
        };
        let mut coordinates = Coordinates { time_range, ..Coordinates::identity(dim) };
        if rule != Standardization::None {
            let origin = vec![0.0; dim];
            let statistics = Statistics::of_rows(rule, &self, &origin, f64::from(f32::EPSILON));
            (coordinates.mean, coordinates.scale) = (statistics.mean(&origin), statistics.scale());
            if let Some((i, problem, fix)) = out_of_range(&coordinates) {
                return Err(Error::input("snapshots", format!("column {i}, counted from 0"), problem, fix));
            }
        }
        coordinates.to_network(&mut self.samples);
        if let Some(at) = self.samples.iter().position(|y| !y.is_finite()) {
            let field = format!("row {} of all, column {}, both counted from 0", at / dim, at % dim);
            let fix = "leave such rows out, or rescale the data";
            return Err(Error::input("snapshots", field, "is not finite when it is standardized", fix));
        }
        match &mut self.times[..] {
            [one] => *one = 1.0,
            times => times.iter_mut().for_each(|time| *time = coordinates.network_time(*time)),
        }
        self.mass.rescale_time(time_range[1] - time_range[0]);
        if !self.times.iter().all(|t| t.is_finite())
            || self.times.windows(2).any(|pair| pair[0] as f32 >= pair[1] as f32)
        {
            let [first, last] = time_range;
            let problem = format!("hold two too close to tell apart on the way from {first} to {last}");
            return Err(Error::input("snapshots", "times", problem, "join their rows, or leave out times far away"));
        }
        Ok((self, coordinates))
    }
}

impl Statistics {
    /// Of the training rows of `reading`, as `source` wants them.
    pub fn of(source: &DataSource, reading: &Reading) -> Statistics {
        let Features { origin, epsilon, .. } = &reading.features;
        Statistics::of_rows(source.standardize, &reading.training, origin, *epsilon)
    }

    /// Of `snapshots`, differences from `origin`, in a type whose unit in the last place at 1 is
    /// `epsilon`.
    fn of_rows(rule: Standardization, snapshots: &Snapshots, origin: &[f64], epsilon: f64) -> Statistics {
        let &Snapshots { dim, ref samples, .. } = snapshots;
        let weights = snapshots.row_factors();
        let (mut center, variance) = weighted_moments(samples, dim, weights.as_deref());
        let constant = constant_columns(snapshots, origin, epsilon);
        let mut spread: Vec<f64> = variance.iter().map(|v| v.sqrt()).collect();
        constant.iter().for_each(|&i| spread[i] = 0.0);
        let mut without_quartiles = Vec::new();
        match rule {
            Standardization::Isotropic => {
                let mean_variance = spread.iter().map(|s| s * s).sum::<f64>() / dim as f64;
                spread.fill(mean_variance.sqrt());
            }
            Standardization::Robust => {
                let quartiles = match &weights {
                    None => quartiles(samples, dim),
                    Some(weights) => weighted_quartiles(samples, dim, weights),
                };
                for (i, [lower, median, upper]) in quartiles.into_iter().enumerate() {
                    center[i] = median;
                    if upper > lower && spread[i] > 0.0 {
                        spread[i] = (upper - lower) / NORMAL_QUARTILES;
                    } else if spread[i] > 0.0 {
                        without_quartiles.push(i);
                    }
                }
            }
            Standardization::PerDimension | Standardization::None => {}
        }
        Statistics { center, spread, constant, without_quartiles }
    }

    /// Center of each dimension in data units, `origin` added.
    fn mean(&self, origin: &[f64]) -> Vec<f64> {
        self.center.iter().zip(origin).map(|(center, origin)| origin + center).collect()
    }

    /// Scale of each dimension: its spread, or 1 without any.
    fn scale(&self) -> Vec<f64> {
        self.spread.iter().map(|&spread| if spread == 0.0 { 1.0 } else { spread }).collect()
    }

    /// True if the values lie so far from the origin that rounding their differences from it lost
    /// digits, though f32 holds the differences from the center.
    pub fn far_from_origin(&self, reading: &Reading) -> bool {
        const FAR: f64 = 16.0;
        (0..self.center.len()).any(|i| {
            let unit = reading.features.epsilon * reading.features.origin[i].abs();
            reading.features.origin[i] != 0.0 && self.center[i].abs() > FAR * self.spread[i].max(unit)
        })
    }
}

/// The coordinates that `source` asks for, in data units. Warns of dimensions without spread.
///
/// # Errors
/// [`Error::Input`] for means and scales that no model file holds.
pub(super) fn coordinates_of(
    source: &DataSource,
    reading: &Reading,
    statistics: &Statistics,
    time_range: [f64; 2],
    warnings: &mut Vec<String>,
) -> Result<Coordinates> {
    let dim = reading.training.dim;
    let columns = reading.features.columns.clone();
    let identity = Coordinates { time_range, columns, ..Coordinates::identity(dim) };
    let Statistics { center, spread, constant, without_quartiles } = statistics;
    let named = |columns: &[usize]| list(columns.iter().map(|&i| reading.column_name(i)));
    let file = source.path.display();
    if source.standardize == Standardization::None {
        const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;
        let coarse: Vec<usize> = (0..dim)
            .filter(|&i| {
                (reading.features.origin[i] + center[i]).abs() * ROUNDING > 1e-3 * spread[i] && spread[i] > 0.0
            })
            .collect();
        if !coarse.is_empty() {
            let columns = named(&coarse);
            warnings.push(format!(
                "{file}: standardize = \"none\" leaves columns so far from 0 that 32-bit floats round their spread by more \
                 than a thousandth: {columns}"
            ));
        }
        return Ok(identity);
    }
    if constant.len() == dim {
        warnings.push(format!("{file}: no dimension varies: the scale is 1"));
    } else if !constant.is_empty() && source.standardize != Standardization::Isotropic {
        warnings.push(format!("{file}: columns without spread keep scale 1: {}", named(constant)));
    }
    if !without_quartiles.is_empty() {
        let columns = named(without_quartiles);
        warnings.push(format!("{file}: columns whose quartiles are equal are scaled by their deviation: {columns}"));
    }
    let (mean, scale) = (statistics.mean(&reading.features.origin), statistics.scale());
    let coordinates = Coordinates { mean, scale, ..identity };
    if let Some((i, problem, fix)) = out_of_range(&coordinates) {
        let problem = format!("column {} {problem}", reading.column_name(i));
        return Err(Error::input(&source.path, &source.samples, problem, fix));
    }
    Ok(coordinates)
}

/// The first column whose mean or scale no model file holds, with problem and fix.
fn out_of_range(coordinates: &Coordinates) -> Option<(usize, String, String)> {
    let held = |mean: f64, scale: f64| mean.abs() <= MAX_MAGNITUDE && (MIN_SCALE..=MAX_MAGNITUDE).contains(&scale);
    let mut columns = coordinates.mean.iter().copied().zip(coordinates.scale.iter().copied()).enumerate();
    columns.find(|&(_, (mean, scale))| !held(mean, scale)).map(|(i, (mean, scale))| {
        let problem = format!("has mean {mean:.3e} and scale {scale:.3e}");
        let fix = format!("rescale the data: means to {MAX_MAGNITUDE:e}, scales {MIN_SCALE:e} to {MAX_MAGNITUDE:e}");
        (i, problem, fix)
    })
}

/// How far a value lies from all others of its column. Of n values none lies further than √(n − 1)
/// deviations from the mean, which it moves and widens itself, so it is left out of both.
struct Others {
    n: f64,
    mean: Vec<f64>,
    variance: Vec<f64>,
    rule: Standardization,
}

impl Others {
    /// Of `rows [n, dim]` in network coordinates.
    fn of(rows: &[f32], dim: usize, rule: Standardization) -> Others {
        let (mean, variance) = moments(rows, dim);
        Others { n: (rows.len() / dim) as f64, mean, variance, rule }
    }

    /// Distance of the value `y` of `column`, in the scale that all others would have.
    fn distance(&self, column: usize, y: f64) -> f64 {
        /// Fewer have no deviation to speak of.
        const FEWEST: f64 = 8.0;
        let plain = y.abs();
        if self.n < FEWEST || self.rule == Standardization::Robust || plain > FAR {
            return plain;
        }
        let Others { n, mean, variance, .. } = self;
        let (m, v) = (mean[column], variance[column]);
        let center = (n * m - y) / (n - 1.0);
        let left = ((n * (v + m * m) - y * y) / (n - 1.0) - center * center).max(0.0);
        let squared = match self.rule {
            Standardization::Isotropic => (variance.iter().sum::<f64>() - v + left) / variance.len() as f64,
            _ => left,
        };
        // A column of one value and another is not spread out.
        if squared > 1e-9 * v { (y - center).abs() / squared.sqrt() } else { plain }
    }
}

/// Says which value lies farthest out, when `reading` is in network coordinates and one is too far.
pub(super) fn warn_of_outliers(source: &DataSource, reading: &Reading, warnings: &mut Vec<String>) {
    if source.standardize == Standardization::None {
        return;
    }
    let Snapshots { dim, ref samples, .. } = reading.training;
    let others = Others::of(samples, dim, source.standardize);
    let distances = samples.iter().enumerate().map(|(at, &y)| (at, others.distance(at % dim, f64::from(y))));
    let far = distances.filter(|&(_, distance)| distance > FAR).collect::<Vec<_>>();
    let Some(&(at, distance)) = far.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
    let far = far.len();
    let values = if far == 1 { "1 value lies".into() } else { format!("{far} values lie") };
    let remedy = match source.standardize {
        Standardization::Robust => "remove such rows if they are mistakes",
        _ => {
            "remove such rows if they are mistakes, or set data.standardize = \"robust\": they set the scale of all others"
        }
    };
    warnings.push(format!(
        "{}: {values} more than {FAR} scales of all others from their center; row {} (counted from 0), column {}, lies \
         {distance:.0}: {remedy}",
        source.path.display(),
        reading.file_row(at / dim),
        reading.column_name(at % dim),
    ));
}

/// The columns of `snapshots`, differences from `origin`, that are constant up to the rounding of
/// their type.
fn constant_columns(snapshots: &Snapshots, origin: &[f64], epsilon: f64) -> Vec<usize> {
    let &Snapshots { dim, ref samples, .. } = snapshots;
    let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; dim];
    for row in samples.chunks_exact(dim) {
        for ([least, most], &x) in ranges.iter_mut().zip(row) {
            (*least, *most) = (least.min(x), most.max(x));
        }
    }
    let is_constant = |i: usize| {
        let [least, most] = ranges[i].map(|x| origin[i] + f64::from(x));
        let unit = epsilon * least.abs().max(most.abs());
        f64::from(ranges[i][1]) - f64::from(ranges[i][0]) <= ROUNDING_UNITS * unit
    };
    (0..dim).filter(|&i| is_constant(i)).collect()
}

/// Mean and population variance of each column of `rows [n, dim]`, f64, in two passes.
pub(super) fn moments(rows: &[f32], dim: usize) -> (Vec<f64>, Vec<f64>) {
    weighted_moments(rows, dim, None)
}

/// [`moments`] of the first columns alone, `n` of them.
pub(super) fn moments_of_first(rows: &[f32], dim: usize, n: usize) -> (Vec<f64>, Vec<f64>) {
    moments_of(rows, dim, n, None)
}

/// [`moments`] of rows that count in proportion to `weights`, all alike without any.
pub(super) fn weighted_moments(rows: &[f32], dim: usize, weights: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
    moments_of(rows, dim, dim, weights)
}

/// Of the first `n` columns.
fn moments_of(rows: &[f32], dim: usize, n: usize, weights: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
    let total = weights.map_or((rows.len() / dim) as f64, |weights| weights.iter().sum());
    let weight = |row: usize| weights.map_or(1.0, |weights| weights[row]);
    let mut mean = vec![0.0; n.min(dim)];
    for (k, row) in rows.chunks_exact(dim).enumerate() {
        let weight = weight(k);
        for (sum, &x) in mean.iter_mut().zip(row) {
            *sum += weight * f64::from(x);
        }
    }
    mean.iter_mut().for_each(|sum| *sum /= total);
    let mut variance = vec![0.0; mean.len()];
    for (k, row) in rows.chunks_exact(dim).enumerate() {
        let weight = weight(k);
        for ((sum, mean), &x) in variance.iter_mut().zip(&mean).zip(row) {
            *sum += weight * (f64::from(x) - mean).powi(2);
        }
    }
    variance.iter_mut().for_each(|sum| *sum /= total);
    (mean, variance)
}

/// Lower quartile, median and upper quartile of each column of finite `rows [n, dim]`, with linear
/// interpolation between neighboring values as in NumPy. Takes the memory of one column, or of an
/// eighth of them if that is more.
fn quartiles(rows: &[f32], dim: usize) -> Vec<[f64; 3]> {
    let n = rows.len() / dim;
    // A line of the cache holds 16 values: several columns at a time need fewer sweeps.
    let width = (dim / 8).clamp(1, 16);
    let mut columns = vec![vec![0.0f32; n]; width];
    let mut found = Vec::with_capacity(dim);
    for first in (0..dim).step_by(width) {
        let width = width.min(dim - first);
        for (k, row) in rows.chunks_exact(dim).enumerate() {
            columns[..width].iter_mut().zip(&row[first..]).for_each(|(column, &x)| column[k] = x);
        }
        found.extend(columns[..width].iter_mut().map(|column| [0.25, 0.5, 0.75].map(|share| quantile(column, share))));
    }
    found
}

/// [`quartiles`] of rows that count in proportion to `weights`. Row i of a sorted column is at
/// w₀/2 + w₁ + … + wᵢ/2, which is i if all weights are 1.
fn weighted_quartiles(rows: &[f32], dim: usize, weights: &[f64]) -> Vec<[f64; 3]> {
    let mut column = Vec::with_capacity(weights.len());
    let quartiles_of = |i: usize| {
        column.clear();
        column.extend(rows.chunks_exact(dim).zip(weights).filter(|(_, w)| **w > 0.0).map(|(row, &w)| (row[i], w)));
        column.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (mut position, mut before) = (0.0, 0.0);
        let places = column.iter().enumerate().map(|(row, &(x, weight))| {
            position += if row == 0 { 0.0 } else { 0.5 * (before + weight) };
            before = weight;
            (f64::from(x), position)
        });
        let places: Vec<(f64, f64)> = places.collect();
        let last = places.last().map_or(0.0, |place| place.1);
        [0.25, 0.5, 0.75].map(|share| {
            let wanted = share * last;
            let after = places.partition_point(|place| place.1 <= wanted).min(places.len().max(1) - 1);
            let ([from, to], ratio) = match (places.get(after.saturating_sub(1)), places.get(after)) {
                (Some(a), Some(b)) if b.1 > a.1 => ([a.0, b.0], ((wanted - a.1) / (b.1 - a.1)).min(1.0)),
                (_, place) => ([place.map_or(0.0, |place| place.0); 2], 0.0),
            };
            from + ratio * (to - from)
        })
    };
    (0..dim).map(quartiles_of).collect()
}

/// The value that `share` of `values` lie below.
fn quantile(values: &mut [f32], share: f64) -> f64 {
    let position = share * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let (_, &mut lower, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let upper = above.iter().copied().min_by(f32::total_cmp).unwrap_or(lower);
    f64::from(lower) + (position - below as f64) * (f64::from(upper) - f64::from(lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_numpy() {
        // numpy.quantile([5, 1, 2, 9, 4], [.25, .5, .75]); of [10, 20, 30, 40]
        assert_eq!(quartiles(&[5.0, 1.0, 2.0, 9.0, 4.0], 1), [[2.0, 4.0, 5.0]]);
        assert_eq!(weighted_quartiles(&[5.0, 1.0, 2.0, 9.0, 4.0], 1, &[1.0; 5]), [[2.0, 4.0, 5.0]]);
        assert_eq!(weighted_quartiles(&[3.0], 1, &[2.0]), [[3.0; 3]]);
        // Weights are numbers of rows where these are many, and rows of weight 0 are not there.
        let (x, weights): (Vec<f32>, Vec<f64>) =
            (0..600).map(|i| ((i * 7 % 600) as f32, f64::from(i * 7 % 600 % 3))).unzip();
        let repeated: Vec<f32> = x.iter().zip(&weights).flat_map(|(&x, &w)| vec![x; w as usize]).collect();
        let [[got, want]] = [[weighted_quartiles(&x, 1, &weights)[0], quartiles(&repeated, 1)[0]]];
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1.5), "{got:?}, not {want:?}");
        let dim = 20;
        let rows: Vec<f32> =
            [30.0, 10.0, 40.0, 20.0].iter().flat_map(|x| (0..dim).map(move |j| x + j as f32)).collect();
        for (j, got) in quartiles(&rows, dim).into_iter().enumerate() {
            assert_eq!(got, [17.5, 25.0, 32.5].map(|x| x + j as f64));
        }
    }
}
