//! `Model.integrate`: particles on their way.

use action_matching::engine::cuda::CudaEngine;
use action_matching::integrate::{Method, Plan, Solver, StepControl, Trajectories};
use action_matching::objective::Objective;
use action_matching::stage::Watch;
use action_matching::{Error, Result, TrajectorySpread, memory, model};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::device_array::DeviceArray;
use crate::errors::exception;
use crate::model::{Members, Model};
use crate::rows::{self, Number, Points, with_rows};
use crate::work::on_worker;

/// How particles are moved, as the caller asks for it.
#[derive(FromPyObject)]
pub struct Way {
    #[pyo3(item)]
    method: Option<String>,
    #[pyo3(item)]
    steps: Option<u64>,
    #[pyo3(item)]
    rtol: Option<f64>,
    #[pyo3(item)]
    atol: Option<f64>,
    #[pyo3(item)]
    seed: u64,
}

impl Way {
    /// The solver, for dynamics of `objective`.
    pub fn solver(&self, objective: &Objective) -> Result<Solver> {
        let Way { method, steps, rtol, atol, seed } = self;
        let suited = Solver::suited_to(objective, *seed);
        let n_steps = steps.unwrap_or(Solver::STEPS);
        let mut solver = match method.as_deref().map(|name| name.replace('_', "-")).as_deref() {
            None => suited,
            Some("euler") => Solver::euler(n_steps),
            Some("heun") => Solver::heun(n_steps),
            Some("rk4") => Solver::rk4(n_steps),
            Some("dopri5") => Solver::default(),
            Some("euler-maruyama") => Solver::euler_maruyama(n_steps, *seed),
            Some("stochastic-heun") => Solver::stochastic_heun(n_steps, *seed),
            Some(other) => {
                let fix = "use euler, heun, rk4, dopri5, euler-maruyama or stochastic-heun";
                return Err(Error::input("integration", "method", format!("is {other:?}"), fix));
            }
        };
        if let Some(steps) = *steps {
            if rtol.is_some() || atol.is_some() {
                let problem = "is given beside tolerances, which choose the steps";
                return Err(Error::input("integration", "steps", problem, "give one or the other"));
            }
            solver.control = StepControl::Fixed { steps };
        } else if rtol.is_some() || atol.is_some() || solver.method == Method::Dopri5 {
            let StepControl::Adaptive { rtol: r, atol: a } = Solver::default().control else { return Ok(solver) };
            solver.control = StepControl::Adaptive { rtol: rtol.unwrap_or(r), atol: atol.unwrap_or(a) };
        }
        Ok(solver)
    }
}

/// Particles at all saved times, slab by slab.
struct Moved<T> {
    /// `[saved, n, dim]`, data units.
    positions: Vec<T>,
    /// `[saved, n]` with growth.
    log_weights: Option<Vec<f32>>,
    /// Of an ensemble: of positions in data units, and of log-weights.
    spread: Option<(Vec<T>, Option<Vec<f32>>)>,
}

/// What moves the particles.
struct Motion<'a> {
    model: &'a Model,
    solver: Solver,
    t0: f64,
    save_at: &'a [f64],
}

impl Motion<'_> {
    /// The plan, in network time.
    fn plan(&self) -> Result<Plan> {
        let model::Model { coordinates, objective, .. } = &self.model.members.models()[0];
        let save_at = self.save_at.iter().map(|&t| coordinates.network_time(t)).collect();
        let plan = self.solver.plan(coordinates.network_time(self.t0), save_at);
        plan.validate(objective)?;
        Ok(plan)
    }

    fn run<T: Number>(&self, x: &[T], watch: &dyn Watch) -> Result<Moved<T>> {
        let first = &self.model.members.models()[0];
        let coordinates = &first.coordinates;
        let (dim, n_saved) = (first.architecture.dim, self.save_at.len());
        let n = x.len() / dim;
        let plan = self.plan()?;
        // Positions in both types, weights, and as much again for the spread.
        let floats = 2 * (3 * dim + 1);
        memory::require("sample", "save_at", memory::bytes(&[n, n_saved, floats * size_of::<f32>()]))?;
        let mut at = rows::to_network(x, coordinates)?;
        at.resize(n * n_saved * dim, 0.0);
        let mut log_weights = (first.objective.growth > 0.0).then(|| vec![0.0f32; n * n_saved]);
        let out = Trajectories { log_weights: log_weights.as_deref_mut(), ..Trajectories::of(&mut at) };
        let spread = match &self.model.members {
            Members::One(model) => {
                self.model.engine().integrate(model, &plan, out, watch)?;
                None
            }
            Members::Several(ensemble) => {
                let (_, TrajectorySpread { positions, log_weights }) =
                    ensemble.integrate(self.model.engine(), &plan, out, watch)?;
                let scale = coordinates.scale.iter().cycle();
                let positions = positions.iter().zip(scale).map(|(&x, scale)| T::rounded(f64::from(x) * scale));
                Some((positions.collect(), log_weights))
            }
        };
        let affine = coordinates.scale.iter().zip(&coordinates.mean).cycle();
        let positions = at.iter().zip(affine).map(|(&y, (scale, mean))| T::rounded(f64::from(y) * scale + mean));
        Ok(Moved { positions: positions.collect(), log_weights, spread })
    }
}

impl<T: Number> Moved<T> {
    /// The arrays by their names, on the GPU of `gpu` if there is one.
    fn arrays<'py>(
        self,
        py: Python<'py>,
        n_saved: usize,
        dim: usize,
        gpu: Option<&Model>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let n = self.positions.len() / (n_saved * dim).max(1);
        let (spread, log_weights_spread) = self.spread.map_or((None, None), |(x, log_w)| (Some(x), log_w));
        let found = PyDict::new(py);
        for (name, values) in [("positions", Some(self.positions)), ("spread", spread)] {
            found.set_item(name, placed(py, values, [n_saved, n, dim], gpu)?)?;
        }
        for (name, values) in [("log_weights", self.log_weights), ("log_weights_spread", log_weights_spread)] {
            found.set_item(name, placed(py, values, [n_saved, n], gpu)?)?;
        }
        Ok(found)
    }
}

/// An array of `values` in this shape, on the GPU of `gpu` if there is one; `None` without values.
fn placed<'py, T: Number, const N: usize>(
    py: Python<'py>,
    values: Option<Vec<T>>,
    shape: [usize; N],
    gpu: Option<&Model>,
) -> PyResult<Option<Bound<'py, PyAny>>>
where
    [usize; N]: numpy::ndarray::IntoDimension,
{
    let place = |values: Vec<T>| match gpu {
        Some(model) => model.on_gpu(py, &values, shape),
        None => Ok(rows::array(py, values, shape)?.into_any()),
    };
    values.map(place).transpose()
}

/// Particles on the GPU of a single model, which moves them there.
fn move_on_device<'py>(
    py: Python<'py>,
    motion: &Motion<'_>,
    (engine, model): (&CudaEngine, &model::Model),
    x: &DeviceArray,
    listener: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let moved = on_worker(py, listener, |relay| {
        relay.counts("particles");
        model.moved_on_device(engine, x.memory(), &motion.plan()?, relay)
    })?;
    let (n_saved, dim) = (motion.save_at.len(), model.architecture.dim);
    let n = x.memory().len() / dim;
    let found = PyDict::new(py);
    found.set_item("positions", DeviceArray::new(moved.positions, [n_saved, n, dim]))?;
    found.set_item("log_weights", moved.log_weights.map(|values| DeviceArray::new(values, [n_saved, n])))?;
    found.set_item("spread", py.None())?;
    found.set_item("log_weights_spread", py.None())?;
    Ok(found)
}

/// Moves the particles at `x` from `t0` to the last of `save_at`, and returns the arrays by name:
/// `positions [saved, n, dim]`, and `log_weights`, `spread`, `log_weights_spread` or `None`.
#[pyfunction]
pub fn integrate<'py>(
    py: Python<'py>,
    model: &Model,
    x: Points<'py>,
    t0: f64,
    save_at: Vec<f64>,
    way: Way,
    listener: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let dim = model.dim();
    x.check_dim(dim).map_err(|error| exception(py, error))?;
    let solver = way.solver(&model.members.models()[0].objective).map_err(|error| exception(py, error))?;
    let motion = &Motion { model, solver, t0, save_at: &save_at };
    let mut gpu = None;
    if let Points::Device(x) = &x {
        let engine = model.gpu().map_err(|error| exception(py, error))?;
        if let Members::One(one) = &model.members {
            return move_on_device(py, motion, (engine, one), x, listener);
        }
        gpu = Some(model);
    }
    with_rows!(py, x, rows => {
        let moved = on_worker(py, listener, |relay| {
            relay.counts("particles");
            motion.run(rows, relay)
        })?;
        moved.arrays(py, save_at.len(), dim, gpu)
    })
}
