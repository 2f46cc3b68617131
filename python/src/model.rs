//! `Model`: one model or the members of an ensemble, and the engine that evaluates them.

use std::path::PathBuf;

use action_matching::engine::Engine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::model::{self, Condition};
use action_matching::stage::Stage;
use action_matching::train::RunFolder;
use action_matching::{Coordinate, DeviceQuantity, Ensemble, Error, InputKind, Local, Result, StartDensity, Trained};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::device_array::DeviceArray;
use crate::engine::{Device, Opened};
use crate::errors::exception;
use crate::rows::{self, Number, Points, with_rows};
use crate::work::{Relay, on_worker};

/// Rows that are evaluated between two looks at the wish to end.
const ROWS: usize = 1 << 14;

/// Models of the same data, at least one, on an engine.
#[pyclass(frozen, module = "action_matching._native")]
pub struct Model {
    pub members: Members,
    opened: Opened,
}

/// What there is of a run.
#[derive(Clone)]
pub enum Members {
    One(Box<model::Model>),
    Several(Ensemble),
}

impl Members {
    /// All models.
    pub fn models(&self) -> &[model::Model] {
        match self {
            Members::One(model) => std::slice::from_ref(model),
            Members::Several(ensemble) => ensemble.members(),
        }
    }

    fn load(path: PathBuf) -> Result<Members> {
        let trained = Trained::load(&path)?;
        match trained.ensemble()? {
            Some(ensemble) => Ok(Members::Several(ensemble)),
            None => Ok(Members::One(Box::new(trained.models[0].clone()))),
        }
    }

    fn save(&self, path: PathBuf, overwrite: bool) -> Result<()> {
        if !overwrite && path.exists() {
            let fix = "name another file, or replace it with overwrite=True";
            return Err(Error::input(path, "path", "already exists", fix).of_kind(InputKind::Exists));
        }
        match self {
            Members::One(model) => model.save(&path),
            Members::Several(ensemble) => {
                std::fs::create_dir_all(&path).map_err(Error::io(&path, "create the folder"))?;
                let run = RunFolder::new(path);
                let files = (1..).map(|number| run.member(number).model());
                ensemble.members().iter().zip(files).try_for_each(|(model, file)| model.save(&file))
            }
        }
    }

    fn under(&self, condition: &[(String, String)]) -> Result<Members> {
        let values = self.models()[0].coordinates.parse_condition(condition)?;
        match self {
            Members::One(model) => Ok(Members::One(Box::new(model.under(&values)?))),
            Members::Several(ensemble) => ensemble.under(&values).map(Members::Several),
        }
    }

    /// The `quantity` at points `x [n, dim]` and times `t [n]`: its mean over the members, and its
    /// standard deviation if there are several.
    fn at<T: Number>(
        &self,
        engine: &dyn Engine,
        (x, t): (&[T], &[f64]),
        quantity: Quantity,
        relay: &Relay,
    ) -> Result<(Vec<T>, Option<Vec<T>>)> {
        let first = &self.models()[0];
        let dim = first.architecture.dim;
        // Potentials of members are compared less their means over all points of a time.
        let is_whole =
            matches!(self, Members::Several(_)) && first.growth_of_potential() == 0.0 && quantity.is_up_to_time();
        let at_once = if is_whole { t.len().max(1) } else { ROWS };
        let mut found = Vec::with_capacity(t.len() * quantity.width(dim));
        let mut deviations = matches!(self, Members::Several(_)).then(|| Vec::with_capacity(found.capacity()));
        for (x, t) in x.chunks(at_once * dim).zip(t.chunks(at_once)) {
            relay.check()?;
            let (mean, spread) = self.piece(engine, &wide(x), t, quantity)?;
            found.extend(narrow::<T>(mean));
            if let (Some(deviations), Some(spread)) = (&mut deviations, spread) {
                deviations.extend(narrow::<T>(spread));
            }
        }
        Ok((found, deviations))
    }

    /// [`Members::at`] in one piece.
    fn piece(
        &self,
        engine: &dyn Engine,
        x: &[f64],
        t: &[f64],
        quantity: Quantity,
    ) -> Result<(Vec<f64>, Option<Vec<f64>>)> {
        Ok(match (self, quantity) {
            (Members::One(model), Quantity::Laplacian) => (model.laplacian(engine, x, t)?, None),
            (Members::One(model), _) => (quantity.of(model.local(engine, x, t)?), None),
            (Members::Several(ensemble), Quantity::Laplacian) => {
                let estimate = ensemble.laplacian(engine, x, t)?;
                (estimate.mean, Some(estimate.spread))
            }
            (Members::Several(ensemble), _) => {
                let [mean, spread] = ensemble.local(engine, x, t)?;
                (quantity.of(mean), Some(quantity.of(spread)))
            }
        })
    }
}

/// [`model::Model::log_density`] in the type of the points.
fn log_density<T: Number>(
    model: &model::Model,
    engine: &dyn Engine,
    (x, t): (&[T], &[f64]),
    start: &StartDensity,
    stage: &Stage,
) -> Result<Vec<T>> {
    Ok(narrow(model.log_density(engine, &wide(x), t, start, stage)?))
}

fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn narrow<T: Number>(values: Vec<f64>) -> Vec<T> {
    values.into_iter().map(T::rounded).collect()
}

/// What a model says at a point and time.
#[derive(Clone, Copy, PartialEq)]
enum Quantity {
    Potential,
    Velocity,
    TimeDerivative,
    Laplacian,
    Growth,
    HjbResidual,
}

impl Quantity {
    fn parse(name: &str) -> Result<Quantity> {
        Ok(match name {
            "potential" => Quantity::Potential,
            "velocity" => Quantity::Velocity,
            "time_derivative" => Quantity::TimeDerivative,
            "laplacian" => Quantity::Laplacian,
            "growth" => Quantity::Growth,
            "hjb_residual" => Quantity::HjbResidual,
            _ => return Err(Error::input("model", "quantity", format!("is {name:?}"), "use the methods of Model")),
        })
    }

    /// True for what is known up to a function of time, without growth.
    fn is_up_to_time(self) -> bool {
        matches!(self, Quantity::Potential | Quantity::TimeDerivative | Quantity::HjbResidual)
    }

    /// Values of a row.
    fn width(self, dim: usize) -> usize {
        if self == Quantity::Velocity { dim } else { 1 }
    }

    /// What a GPU forms of points on it.
    fn on_device(self) -> Option<DeviceQuantity> {
        match self {
            Quantity::Potential => Some(DeviceQuantity::Potential),
            Quantity::Velocity => Some(DeviceQuantity::Velocity),
            Quantity::TimeDerivative => Some(DeviceQuantity::TimeDerivative),
            Quantity::Growth => Some(DeviceQuantity::GrowthRate),
            Quantity::Laplacian | Quantity::HjbResidual => None,
        }
    }

    fn of(self, local: Local) -> Vec<f64> {
        match self {
            Quantity::Potential => local.potential,
            Quantity::Velocity => local.velocity,
            Quantity::TimeDerivative => local.time_derivative,
            Quantity::Growth => local.growth_rate,
            Quantity::HjbResidual => local.hjb_residual,
            Quantity::Laplacian => Vec::new(), // not among them: see `Members::piece`
        }
    }
}

/// Values and their spread, as arrays.
type Estimates<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

impl Model {
    /// The engine.
    pub fn engine(&self) -> &dyn Engine {
        self.opened.engine()
    }

    /// The engine of a GPU.
    ///
    /// # Errors
    /// [`Error::Input`] for a model on the CPU, with points on a GPU.
    pub fn gpu(&self) -> Result<&CudaEngine> {
        match &self.opened {
            Opened::Gpu(engine) => Ok(engine),
            Opened::Cpu(_) => {
                let fix = "load the model there: load(path, device=\"cuda\"), or move the points: .cpu()";
                Err(Error::input("points", "device", "are on a GPU, and the model is on the CPU", fix))
            }
        }
    }

    /// `values` in this shape on the GPU of the model.
    pub fn on_gpu<'py, T: Number>(
        &self,
        py: Python<'py>,
        values: &[T],
        shape: impl Into<Vec<usize>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let copy = || {
            let values: Vec<f32> = values.iter().map(|&value| f32::rounded(value.into())).collect();
            self.gpu()?.copy_from_host(&values)
        };
        let copied = py.detach(copy).map_err(|error| exception(py, error))?;
        Ok(Bound::new(py, DeviceArray::new(copied, shape))?.into_any())
    }

    /// [`Model::at`] of points on the GPU of the model: there, where the model is one and its GPU
    /// forms the quantity, else by way of the host.
    fn at_on_device<'py>(
        &self,
        py: Python<'py>,
        x: &DeviceArray,
        t: &[f64],
        quantity: Quantity,
    ) -> PyResult<Estimates<'py>> {
        let engine = self.gpu().map_err(|error| exception(py, error))?;
        let (mean, spread) = on_worker(py, None, |relay| match (&self.members, quantity.on_device()) {
            (Members::One(model), Some(quantity)) if model.is_on_device(quantity) => {
                Ok((model.at_on_device(engine, x.memory(), t, quantity, relay)?, None))
            }
            (members, _) => {
                let (mean, spread) = members.at(engine, (&x.read()?[..], t), quantity, relay)?;
                let back = |values: Vec<f32>| engine.copy_from_host(&values);
                Ok((back(mean)?, spread.map(back).transpose()?))
            }
        })?;
        let width = quantity.width(self.dim());
        let array = |values| {
            let shape = if width == 1 { vec![t.len()] } else { vec![t.len(), width] };
            PyResult::Ok(Bound::new(py, DeviceArray::new(values, shape))?.into_any())
        };
        Ok((array(mean)?, spread.map(array).transpose()?))
    }
}

#[pymethods]
impl Model {
    /// The model in a file, or those of a run folder.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, device: Device) -> PyResult<Model> {
        let load = || Ok(Model { members: Members::load(path)?, opened: device.open()? });
        py.detach(load).map_err(|error| exception(py, error))
    }

    /// Writes a file, or for an ensemble a folder.
    fn save(&self, py: Python<'_>, path: PathBuf, overwrite: bool) -> PyResult<()> {
        py.detach(|| self.members.save(path, overwrite)).map_err(|error| exception(py, error))
    }

    /// Member `index` of an ensemble, counted from 0.
    fn member(&self, index: usize) -> Option<Model> {
        let model = self.members.models().get(index)?.clone();
        Some(Model { members: Members::One(Box::new(model)), opened: self.opened.clone() })
    }

    /// The model under a condition: pairs of a name and a value in words.
    fn under(&self, py: Python<'_>, condition: Vec<(String, String)>) -> PyResult<Model> {
        let members = self.members.under(&condition).map_err(|error| exception(py, error))?;
        Ok(Model { members, opened: self.opened.clone() })
    }

    /// The quantity of this name at points and times.
    fn at<'py>(
        &self,
        py: Python<'py>,
        x: Points<'py>,
        t: PyReadonlyArray1<'py, f64>,
        quantity: &str,
    ) -> PyResult<Estimates<'py>> {
        let dim = self.dim();
        x.check_dim(dim).map_err(|error| exception(py, error))?;
        let quantity = Quantity::parse(quantity).map_err(|error| exception(py, error))?;
        let t = rows::values(&t)?;
        if let Points::Device(x) = &x {
            return self.at_on_device(py, x, t, quantity);
        }
        let (members, engine) = (&self.members, self.engine());
        with_rows!(py, x, rows => {
            let (mean, spread) = on_worker(py, None, |relay| members.at(engine, (rows, t), quantity, relay))?;
            let shaped = |values| match quantity.width(dim) {
                1 => Ok(rows::array(py, values, t.len())?.into_any()),
                width => PyResult::Ok(rows::array(py, values, [t.len(), width])?.into_any()),
            };
            Ok((shaped(mean)?, spread.map(shaped).transpose()?))
        })
    }

    /// log q at points and times, of the density that is at the first time that of Gaussian kernels
    /// at the rows of `base`, or without any the standard normal in network coordinates.
    fn log_density<'py>(
        &self,
        py: Python<'py>,
        x: Points<'py>,
        t: PyReadonlyArray1<'py, f64>,
        base: Option<Points<'py>>,
        listener: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let dim = self.dim();
        for points in [Some(&x), base.as_ref()].into_iter().flatten() {
            points.check_dim(dim).map_err(|error| exception(py, error))?;
        }
        let model = match &self.members {
            Members::One(model) => &**model,
            Members::Several(_) => {
                let fix = "take one of members";
                let error = Error::input("model", "log_density", "belongs to the flow of one model", fix);
                return Err(exception(py, error));
            }
        };
        let start = || match &base {
            None => PyResult::Ok(Ok(StartDensity::Normal)),
            Some(base) => with_rows!(py, *base, rows => {
                Ok(rows::to_network(rows, &model.coordinates).and_then(|rows| StartDensity::of_rows(dim, &rows)))
            }),
        };
        let start = start()?.map_err(|error| exception(py, error))?;
        let t = rows::values(&t)?;
        let engine = self.engine();
        with_rows!(py, x, rows => {
            let work = |relay: &Relay| log_density(model, engine, (rows, t), &start, &Stage::new(0, relay));
            let found = on_worker(py, listener, work)?;
            match &x {
                Points::Device(_) => self.on_gpu(py, &found, [t.len()]),
                _ => Ok(rows::array(py, found, t.len())?.into_any()),
            }
        })
    }

    /// A copy of a tensor on the GPU of the model, as points `[n, d]`; `name` is that of the
    /// argument.
    fn take<'py>(&self, py: Python<'py>, name: &str, tensor: &Bound<'py, PyAny>) -> PyResult<DeviceArray> {
        DeviceArray::take(name, tensor, self.gpu().map_err(|error| exception(py, error))?)
    }

    /// The number of the GPU; `None` for a model on the CPU.
    #[getter]
    fn ordinal(&self) -> Option<usize> {
        self.gpu().ok().map(CudaEngine::ordinal)
    }

    /// Number of members, 1 for a single model.
    #[getter]
    fn n_members(&self) -> usize {
        self.members.models().len()
    }

    /// Dimension.
    #[getter]
    pub fn dim(&self) -> usize {
        self.members.models()[0].architecture.dim
    }

    /// First and last time of training.
    #[getter]
    fn time_range(&self) -> (f64, f64) {
        let [first, last] = self.members.models()[0].coordinates.time_range;
        (first, last)
    }

    /// Mean and scale of the data, `dim` each.
    #[getter]
    fn coordinates(&self) -> (Vec<f64>, Vec<f64>) {
        let coordinates = &self.members.models()[0].coordinates;
        (coordinates.mean.clone(), coordinates.scale.clone())
    }

    /// Names of the dimensions.
    #[getter]
    fn columns(&self) -> Option<Vec<String>> {
        self.members.models()[0].coordinates.columns.clone()
    }

    /// Conditions that the model depends on: name, and the values of training in words.
    #[getter]
    fn conditions(&self) -> Vec<(String, String)> {
        let conditions = &self.members.models()[0].coordinates.conditions;
        conditions.iter().map(|condition: &Condition| (condition.name().to_string(), condition.known())).collect()
    }

    /// Diffusion σ₀, growth λ and exponent of the cost.
    #[getter]
    fn dynamics(&self) -> (f64, f64, f64) {
        let objective = &self.members.models()[0].objective;
        (objective.sigma, objective.growth, objective.cost_exponent)
    }

    /// The device in words.
    #[getter]
    fn device(&self) -> String {
        self.engine().describe()
    }

    /// What `amatch inspect` prints of the first member.
    fn describe(&self) -> String {
        self.members.models()[0].describe()
    }
}
