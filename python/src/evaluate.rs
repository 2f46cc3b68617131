//! `evaluate`: a model's particles beside true snapshots.

use action_matching::data::Snapshots;
use action_matching::evaluate::{EvaluateOptions, Labeled, Role, StartFrom, evaluate_members};
use action_matching::model::Model as OneModel;
use action_matching::stage::Stage;
use action_matching::{Error, Result};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::errors::exception;
use crate::model::Model;
use crate::particles::Way;
use crate::rows::{self, Number, Points, with_rows};
use crate::work::on_worker;

/// What is compared, and with which effort.
#[derive(FromPyObject)]
pub struct Comparison {
    #[pyo3(item)]
    held_out: Vec<f64>,
    #[pyo3(item)]
    start: String,
    #[pyo3(item)]
    points: Option<usize>,
    #[pyo3(item)]
    sliced_points: Option<usize>,
    #[pyo3(item)]
    max_comparisons: Option<usize>,
    #[pyo3(item)]
    seed: u64,
}

impl Comparison {
    fn start(&self) -> Result<StartFrom> {
        Ok(match &*self.start {
            "previous" => StartFrom::Previous,
            "first" => StartFrom::First,
            "noise" => StartFrom::Noise,
            other => {
                let fix = "use previous, first or noise";
                return Err(Error::input("evaluation", "start", format!("is {other:?}"), fix));
            }
        })
    }
}

/// Rows of the caller by time, as differences from `origin`.
fn snapshots<T: Number>(x: &[T], t: &[f64], origin: &[f64]) -> Result<Snapshots> {
    let dim = origin.len();
    if let Some(row) = t.iter().position(|t| !t.is_finite()) {
        let field = format!("time of row {row}");
        return Err(Error::input("snapshots", field, format!("is {}", t[row]), "leave such rows out"));
    }
    let mut order: Vec<usize> = (0..t.len()).collect();
    order.sort_by(|&a, &b| t[a].total_cmp(&t[b]));
    let of_row = |&row: &usize| x[row * dim..][..dim].iter().zip(origin).map(|(&x, origin)| (x.into() - origin) as f32);
    let of_time = order.chunk_by(|&a, &b| t[a] == t[b]);
    Snapshots::from_rows(dim, of_time.map(|rows| (t[rows[0]], rows.iter().flat_map(of_row).collect::<Vec<f32>>())))
}

/// The report as JSON and as the text that `amatch evaluate` prints.
#[pyfunction]
pub fn evaluate(
    py: Python<'_>,
    model: &Model,
    x: Points<'_>,
    t: PyReadonlyArray1<'_, f64>,
    comparison: Comparison,
    way: Way,
    listener: Option<Py<PyAny>>,
) -> PyResult<(String, String)> {
    x.check_dim(model.dim()).map_err(|error| exception(py, error))?;
    let models = model.members.models();
    let t = rows::values(&t)?;
    with_rows!(py, x, rows => on_worker(py, listener, |relay| {
        relay.counts("flows and comparisons");
        let coordinates = &models[0].coordinates;
        // Data far from 0 are compared as differences from their mean, which f32 holds.
        let origin = if coordinates.need_f64() { coordinates.mean.clone() } else { vec![0.0; model.dim()] };
        let snapshots = snapshots(rows, t, &origin)?;
        let relative =
            |model: &OneModel| OneModel { coordinates: model.coordinates.relative_to(&origin), ..model.clone() };
        let members: Vec<OneModel> = models.iter().map(relative).collect();
        let mut labeled = Labeled::all(&snapshots, Role::Seen);
        for &time in &comparison.held_out {
            let k = snapshots.index_of(time, "snapshots", "held_out")?;
            labeled.roles[k] = Role::HeldOut;
        }
        let solver = way.solver(&models[0].objective)?;
        let defaults = EvaluateOptions::default();
        let options = EvaluateOptions {
            start: comparison.start()?,
            max_points: comparison.points.unwrap_or(defaults.max_points),
            max_sliced: comparison.sliced_points.unwrap_or(defaults.max_sliced),
            max_comparisons: comparison.max_comparisons.unwrap_or(defaults.max_comparisons),
            method: solver.method,
            control: solver.control,
            seed: comparison.seed,
        };
        let report = evaluate_members(model.engine(), &members, &[labeled], &options, &Stage::new(0, relay))?;
        let json = serde_json::to_string(&report).map_err(|error| {
            Error::input("report", "values", error.to_string(), "give other snapshots")
        })?;
        Ok((json, report.to_string()))
    }))
}
