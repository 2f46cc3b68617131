//! The cells that a model is asked about: their samples, times and conditions, and why some are
//! left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::AnnotateOptions;
use crate::data::{CellSamples, Cells, Components, Reduction, check_fits};
use crate::error::{Error, Result};
use crate::model::{ConditionValue, Coordinates, Model};
use crate::stage::Stage;
use crate::trained::Trained;

/// The cells of a file, in the space of a model.
pub(super) struct Population {
    /// Where the samples are, such as `obsm/X_pca`.
    pub samples: String,
    /// Where the times are; none if they are all the same.
    pub times_at: String,
    pub dim: usize,
    /// The components that the samples are scores of, if they were fitted to genes.
    pub components: Option<Arc<Components>>,
    /// Differences `[n, dim]` from the mean of the model, data units; NaN in cells without samples.
    pub rows: Vec<f32>,
    /// `[n]`, data units.
    pub times: Vec<f64>,
    /// The cells that are asked about, by their condition.
    pub groups: Vec<Group>,
    /// Why cells are left out, and how many for each reason.
    pub left_out: Vec<(String, usize)>,
}

/// Cells of one condition.
pub(super) struct Group {
    /// The members of the run under it.
    pub models: Vec<Model>,
    pub cells: Vec<u32>,
}

impl Population {
    /// Reads the cells of `path`, from which `cells` is open.
    ///
    /// # Errors
    /// [`Error::Input`] for columns or arrays that are not there or do not suit the model.
    pub fn read(
        cells: &mut Cells,
        path: &Path,
        trained: &Trained,
        options: &AnnotateOptions,
        stage: &Stage,
    ) -> Result<Population> {
        let coordinates = &trained.models[0].coordinates;
        let source = trained.config.as_ref().map(crate::config::Config::source);
        let of_run = |name: fn(&crate::data::DataSource) -> &String, other: &str| {
            source.as_ref().map_or(other.to_string(), |source| name(source).clone())
        };
        let name = options.samples.clone().unwrap_or_else(|| of_run(|source| &source.samples, "samples"));
        let components = trained.components()?;
        let reduction = match (&components, source.as_ref().and_then(|source| source.components.clone())) {
            (Some(components), _) => Some(Reduction::Given(components.clone())),
            (None, first @ Some(Reduction::First(_))) => first,
            _ => None,
        };
        let CellSamples { at: samples, dim, rows, columns } =
            cells.samples(&name, reduction.as_ref(), &coordinates.mean, stage)?;
        // Columns of a table that the model was trained on may be called otherwise here.
        let columns = columns.filter(|_| components.is_some());
        check_fits(path, dim, columns.as_deref(), coordinates)?;
        let times_name = options.times.clone().unwrap_or_else(|| of_run(|source| &source.times, "times"));
        let times_at = cells.place(&times_name)?;
        let times = cells.times(&times_name, stage)?;
        if times.len() != cells.len() {
            let problem = format!("has {} values, but there are {} cells", times.len(), cells.len());
            return Err(Error::input(path, times_at, problem, "name a column with one time for each cell"));
        }
        let filter = source.as_ref().and_then(|source| source.only.as_ref()).filter(|_| !options.every_cell);
        let passes = filter.map(|filter| cells.pass(filter)).transpose()?;

        let mut reasons = vec![None; cells.len()];
        let [first, last] = coordinates.time_range;
        // Times this close to the ends are the ends, rounded differently.
        let slack = 1e-6 * (last - first);
        for (cell, reason) in reasons.iter_mut().enumerate() {
            *reason = if passes.as_ref().is_some_and(|passes| !passes[cell]) {
                Some(Reason::Filtered)
            } else if rows[cell * dim..][..dim].iter().any(|x| !x.is_finite()) {
                Some(Reason::NoSample)
            } else if !times[cell].is_finite() {
                Some(Reason::NoTime)
            } else if !(first - slack..=last + slack).contains(&times[cell]) {
                Some(Reason::Untrained)
            } else {
                None
            };
        }
        let groups = groups(cells, trained, options, coordinates, &mut reasons)?;
        let left_out = Reason::ALL.iter().filter_map(|reason| {
            let n = reasons.iter().filter(|found| **found == Some(*reason)).count();
            let words = match reason {
                Reason::Filtered => format!("do not pass {:?}, as in training", filter?.to_string()),
                Reason::NoSample => format!("have no number in a column of {samples}"),
                Reason::NoTime => format!("have no time in {times_at}"),
                Reason::Untrained => format!("have a time outside {first} to {last}, where the model was trained"),
                Reason::Unconditioned => "have no condition, or one that training did not know".into(),
            };
            (n > 0).then_some((words, n))
        });
        let left_out = left_out.collect();
        Ok(Population { samples, times_at, dim, components, rows, times, groups, left_out })
    }

    /// Where samples and times are; the cells take memory no longer.
    pub fn into_places(self) -> [String; 2] {
        [self.samples, self.times_at]
    }

    /// Positions `[k, dim]` of some cells, data units.
    pub fn positions(&self, cells: &[u32], coordinates: &Coordinates) -> Vec<f64> {
        let of = |&cell: &u32| {
            let row = &self.rows[cell as usize * self.dim..][..self.dim];
            row.iter().zip(&coordinates.mean).map(|(&x, mean)| f64::from(x) + mean)
        };
        cells.iter().flat_map(of).collect()
    }

    /// The same in network coordinates.
    pub fn network_rows(&self, cells: &[u32], coordinates: &Coordinates) -> Vec<f32> {
        let of = |&cell: &u32| {
            let row = &self.rows[cell as usize * self.dim..][..self.dim];
            row.iter().zip(&coordinates.scale).map(|(&x, scale)| (f64::from(x) / scale) as f32)
        };
        cells.iter().flat_map(of).collect()
    }

    /// Times of some cells.
    pub fn times_of(&self, cells: &[u32]) -> Vec<f64> {
        cells.iter().map(|&cell| self.times[cell as usize]).collect()
    }

    /// `cells` by their times, in the order of these.
    pub fn by_time(&self, cells: &[u32]) -> Vec<(f64, Vec<u32>)> {
        let mut sorted = cells.to_vec();
        sorted.sort_by(|&a, &b| self.times[a as usize].total_cmp(&self.times[b as usize]));
        let same = |a: &u32, b: &u32| self.times[*a as usize] == self.times[*b as usize];
        sorted.chunk_by(same).map(|cells| (self.times[cells[0] as usize], cells.to_vec())).collect()
    }

    /// Number of cells that are asked about.
    pub fn n_asked(&self) -> usize {
        self.groups.iter().map(|group| group.cells.len()).sum()
    }
}

/// Why a cell is left out.
#[derive(Clone, Copy, PartialEq)]
enum Reason {
    Filtered,
    NoSample,
    NoTime,
    Untrained,
    Unconditioned,
}

impl Reason {
    const ALL: [Reason; 5] =
        [Reason::Filtered, Reason::NoSample, Reason::NoTime, Reason::Untrained, Reason::Unconditioned];
}

/// The cells without a reason to leave them out, by their condition.
fn groups(
    cells: &Cells,
    trained: &Trained,
    options: &AnnotateOptions,
    coordinates: &Coordinates,
    reasons: &mut [Option<Reason>],
) -> Result<Vec<Group>> {
    let under = |values: &[ConditionValue]| trained.models.iter().map(|model| model.under(values)).collect();
    let conditions = &coordinates.conditions;
    if conditions.is_empty() || !options.condition.is_empty() {
        let models = if conditions.is_empty() { Ok(trained.models.clone()) } else { under(&options.condition) };
        let cells = (0..reasons.len() as u32).filter(|&cell| reasons[cell as usize].is_none()).collect();
        return Ok(vec![Group { models: models?, cells }]);
    }
    let columns: Vec<Vec<Option<ConditionValue>>> =
        conditions.iter().map(|condition| cells.condition(condition.name())).collect::<Result<_>>()?;
    let mut found: BTreeMap<String, (Vec<ConditionValue>, Vec<u32>)> = BTreeMap::new();
    for (cell, reason) in reasons.iter_mut().enumerate().filter(|(_, reason)| reason.is_none()) {
        let values: Option<Vec<ConditionValue>> = columns.iter().map(|column| column[cell].clone()).collect();
        match values.filter(|values| coordinates.inputs_of(values).is_ok()) {
            None => *reason = Some(Reason::Unconditioned),
            Some(values) => {
                let key = coordinates.describe_condition(&values);
                found.entry(key).or_insert((values, Vec::new())).1.push(cell as u32);
            }
        }
    }
    found.into_values().map(|(values, cells)| Ok(Group { models: under(&values)?, cells })).collect()
}
