//! A model in data units: potential, velocity and flow.
//!
//! The network sees y = (x − mean) / scale at the time τ = (t − t₀) / T, where T is the length of
//! the time range of the data. With dy/dτ = ∇H(∇s), a particle at x moves with
//! dxᵢ/dt = scaleᵢ / T · ∂ᵢH(∇s).

use crate::engine::{Differentiate, Engine};
use crate::error::{Error, Result, check_len};
use crate::integrate::{Solver, Trajectories};
use crate::model::{Coordinates, Model};

/// What a model says at n points and times, in data units ([`Model::local`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// The potential s `[n]`: see [`Model::potential`].
    pub potential: Vec<f64>,
    /// Velocities `[n, dim]`: see [`Model::velocity`].
    pub velocity: Vec<f64>,
    /// ∂s/∂t `[n]`, per unit of time. Without growth it is known up to a function of time.
    pub time_derivative: Vec<f64>,
    /// Growth rates `[n]`: see [`Model::growth_rate`].
    pub growth_rate: Vec<f64>,
    /// Residuals `[n]` of the Hamilton–Jacobi–Bellman equation, ∂ₜs + H(∇s) + ½σ²Δs + ½λs² in
    /// network coordinates, per unit of time of the data: 0 where the flow is optimal. Without
    /// growth it is known up to a function of time, as the potential is. With a growth head it has
    /// no term of growth, and is known likewise.
    pub hjb_residual: Vec<f64>,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A coordinate in data units: `f32` or `f64`. Results come in the type of the points.
///
/// The network computes with differences from the mean of the data, so f64 keeps its digits for
/// data that lie far from 0 ([`Coordinates::need_f64`]), where f32 is coarser than their spread.
pub trait Coordinate: Copy + Into<f64> + sealed::Sealed {
    /// The nearest number of this type.
    #[doc(hidden)]
    fn rounded(value: f64) -> Self;
}

impl Coordinate for f32 {
    fn rounded(value: f64) -> Self {
        value as f32
    }
}

impl Coordinate for f64 {
    fn rounded(value: f64) -> Self {
        value
    }
}

/// Potential, velocity and flow in data units. [`Engine`] and [`Differentiate`] do the same in
/// network coordinates.
///
/// ```
/// use action_matching::prelude::*;
///
/// // s = b·y with b = (1, 0.5), in coordinates of scales 10 and 4, over 5 time units.
/// let model = Model {
///     architecture: Architecture { head: Head::Dot, ..Architecture::new(2, [4]) },
///     coordinates: Coordinates {
///         scale: vec![10.0, 4.0],
///         time_range: [2.0, 7.0],
///         ..Coordinates::identity(2)
///     },
///     objective: Objective::default(),
///     parameters: [vec![0.0; 16 + 8], vec![1.0, 0.5]].concat(),
///     growth_head: None,
/// };
/// let engine = CpuEngine::new(1);
/// assert_eq!(model.velocity(&engine, &[3.0_f32, -8.0], 4.0)?, [10.0 / 5.0, 0.5 * 4.0 / 5.0]);
/// assert_eq!(model.potential(&engine, &[3.0_f32, -8.0], 4.0)?, [3.0 / 10.0 - 0.5 * 8.0 / 4.0]);
/// let moved = model.flow(&engine, &[3.0_f32, -8.0], [2.0, 7.0], Solver::rk4(3))?;
/// assert!((moved[0] - 13.0).abs() < 1e-4 && (moved[1] + 6.0).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
impl Model {
    /// The potential s at points `x [n, dim]` and the time `t`, both in data units: `[n]`.
    ///
    /// s itself is a number without unit, that of the network. It is known up to a function of
    /// time, unless the model has growth and no growth head. For the quadratic cost its slope
    /// gives the velocity, vᵢ =
    /// scaleᵢ² / T · ∂s/∂xᵢ, and with growth λ the mass of a particle grows at the rate λ s / T,
    /// where T is the length of [`Coordinates::time_range`].
    ///
    /// # Errors
    /// [`Error::Shape`] for an incomplete point; [`Error::Input`] for numbers that are not finite;
    /// those of the engine.
    pub fn potential<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Vec<T>> {
        let (y, tau) = self.to_network(x, t)?;
        let s = engine.derivatives(self, &y, &tau)?.s;
        Ok(s.into_iter().map(T::rounded).collect())
    }

    /// The rate at which the mass of particles grows at points `x [n, dim]` and the time `t`, both
    /// in data units: `[n]`, per unit of time of the data, so that mass m obeys dm/dt = rate · m.
    /// It is λ s / T for the growth λ of the model, 0 if it has none, and what the growth head says
    /// if there is one; ln 2 divided by it is the time in which a population doubles.
    ///
    /// # Errors
    /// As [`Model::potential`].
    pub fn growth_rate<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Vec<T>> {
        let (y, tau) = self.to_network(x, t)?;
        let [start, end] = self.coordinates.time_range;
        let rates = match &self.growth_head {
            Some(_) => self.growth_rates(engine, &y, &tau, &[])?,
            None => self.growth_rates(engine, &y, &tau, &engine.derivatives(self, &y, &tau)?.s)?,
        };
        Ok(rates.into_iter().map(|rate| T::rounded(rate / (end - start))).collect())
    }

    /// Growth rates per unit of network time `[n]` at points `y [n, dim]` and times `tau [n]` in
    /// network coordinates: λs of the potential `s [n]` there, or what the growth head says.
    pub(crate) fn growth_rates<E: Differentiate + ?Sized>(
        &self,
        engine: &E,
        y: &[f64],
        tau: &[f64],
        s: &[f64],
    ) -> Result<Vec<f64>> {
        match self.growth_network() {
            None => Ok(s.iter().map(|s| self.objective.growth * s).collect()),
            Some(network) => Ok(engine.derivatives(&network, y, tau)?.s),
        }
    }

    /// The velocity of particles at points `x [n, dim]` and the time `t`, both in data units:
    /// `[n, dim]`, in data units per unit of time. For a model with diffusion it is the drift
    /// without the noise.
    ///
    /// # Errors
    /// As [`Model::potential`].
    pub fn velocity<T: Coordinate>(&self, engine: &dyn Differentiate, x: &[T], t: f64) -> Result<Vec<T>> {
        let (y, tau) = self.to_network(x, t)?;
        let [start, end] = self.coordinates.time_range;
        let slopes = engine.derivatives(self, &y, &tau)?.grad_s;
        let units = self.coordinates.scale.iter().map(|scale| scale / (end - start)).cycle();
        Ok(slopes
            .into_iter()
            .zip(units)
            .map(|(p, unit)| T::rounded(unit * self.objective.hamiltonian_f64(p).1))
            .collect())
    }

    /// All that the model says at points `x [n, dim]` and the time `t [n]` of each, in data units.
    ///
    /// # Errors
    /// As [`Model::potential`]; [`Error::Shape`] unless there is a time for each point.
    pub fn local(&self, engine: &dyn Differentiate, x: &[f64], t: &[f64]) -> Result<Local> {
        let (y, tau) = self.rows_to_network(x, t)?;
        let found = engine.derivatives(self, &y, &tau)?;
        let second = match self.objective.sigma {
            0.0 => vec![0.0; tau.len()],
            _ => engine.second_derivatives(self, &y, &tau, &unit_vectors(self.architecture.dim))?,
        };
        let [start, end] = self.coordinates.time_range;
        let duration = end - start;
        let rates = self.growth_rates(engine, &y, &tau, &found.s)?;
        let growth = self.growth_of_potential();
        let dim = self.architecture.dim;
        let residual = |row: usize| {
            let grad = &found.grad_s[row * dim..][..dim];
            let hamiltonian: f64 = grad.iter().map(|&p| self.objective.hamiltonian_f64(p).0).sum();
            let diffusion = self.objective.kappa_at(tau[row]) * second[row];
            (found.ds_dt[row] + hamiltonian + diffusion + 0.5 * growth * found.s[row].powi(2)) / duration
        };
        let hjb_residual = (0..tau.len()).map(residual).collect();
        let units = self.coordinates.scale.iter().map(|scale| scale / duration).cycle();
        let slopes = found.grad_s.into_iter().zip(units);
        Ok(Local {
            velocity: slopes.map(|(p, unit)| unit * self.objective.hamiltonian_f64(p).1).collect(),
            time_derivative: found.ds_dt.iter().map(|slope| slope / duration).collect(),
            growth_rate: rates.into_iter().map(|rate| rate / duration).collect(),
            potential: found.s,
            hjb_residual,
        })
    }

    /// The Laplacian Σᵢ ∂²s/∂xᵢ² at points `x [n, dim]` and the time `t [n]` of each, all in data
    /// units: `[n]`, per squared unit of the data. Exact, so it takes as many second derivatives as
    /// there are dimensions. For the quadratic cost and one scale of all dimensions the velocity
    /// has the divergence scale² / T · Δs.
    ///
    /// # Errors
    /// As [`Model::local`].
    pub fn laplacian(&self, engine: &dyn Differentiate, x: &[f64], t: &[f64]) -> Result<Vec<f64>> {
        let (y, tau) = self.rows_to_network(x, t)?;
        // Directions in units of the narrowest dimension, which f32 and narrower types hold.
        let Coordinates { scale, .. } = &self.coordinates;
        let narrowest = scale.iter().copied().fold(f64::INFINITY, f64::min);
        let mut directions = unit_vectors(scale.len());
        directions.iter_mut().zip(scale.iter().cycle()).for_each(|(one, scale)| *one *= narrowest / scale);
        let second = engine.second_derivatives(self, &y, &tau, &directions)?;
        Ok(second.into_iter().map(|second| second / (narrowest * narrowest)).collect())
    }

    /// Positions `[n, dim]` at the time `to` of particles that are at `x [n, dim]` at the time
    /// `from`, all in data units. `to` may be earlier. Outside [`Coordinates::time_range`] the
    /// network was not trained, so the flow there is a guess.
    ///
    /// A model with diffusion needs a method with noise, [`Solver::stochastic_heun`] or
    /// [`Solver::euler_maruyama`], and the particles are then one sample of where they may go.
    ///
    /// # Errors
    /// As [`Model::potential`]; [`Error::Input`] for a model with growth, whose particles gain
    /// weights ([`Model::weighted_flow`]), and for a solver that does not suit the dynamics, as for
    /// a way back in time with diffusion; [`Error::NotFinite`] for a particle that is lost.
    pub fn flow<T: Coordinate>(
        &self,
        engine: &dyn Engine,
        x: &[T],
        [from, to]: [f64; 2],
        solver: Solver,
    ) -> Result<Vec<T>> {
        if self.objective.growth > 0.0 {
            let problem = format!("is {}: particles gain weights, without which they mislead", self.objective.growth);
            return Err(Error::input("flow", "growth", problem, "call weighted_flow"));
        }
        self.moved(engine, x, [from, to], solver, None)
    }

    /// [`Model::flow`] with the weight of each particle at the time `to`: positions `[n, dim]` and
    /// weights `[n]`. A particle starts with weight 1 and keeps it unless the model has growth; the
    /// mean of the weights is the mass of the population relative to that at `from`.
    ///
    /// # Errors
    /// As [`Model::flow`], but for growth.
    pub fn weighted_flow<T: Coordinate>(
        &self,
        engine: &dyn Engine,
        x: &[T],
        [from, to]: [f64; 2],
        solver: Solver,
    ) -> Result<(Vec<T>, Vec<f64>)> {
        // A model without dimensions is refused below.
        let mut log_weights = vec![0.0f32; x.len() / self.architecture.dim.max(1)];
        let positions = self.moved(engine, x, [from, to], solver, Some(&mut log_weights))?;
        Ok((positions, log_weights.into_iter().map(|w| f64::from(w).exp()).collect()))
    }

    /// Positions in data units; `log_weights` receives the log-weight of each particle.
    fn moved<T: Coordinate>(
        &self,
        engine: &dyn Engine,
        x: &[T],
        times: [f64; 2],
        solver: Solver,
        log_weights: Option<&mut [f32]>,
    ) -> Result<Vec<T>> {
        let (y, _) = self.to_network(x, times[0])?;
        let [from, to] = times.map(|t| self.coordinates.network_time(t));
        let plan = solver.plan(from, vec![to]);
        let mut positions: Vec<f32> = y.into_iter().map(|y| y as f32).collect();
        let out = Trajectories { log_weights, ..Trajectories::of(&mut positions) };
        engine.integrate(self, &plan, out, &())?;
        Ok(self.coordinates.to_data_f64(&positions).into_iter().map(T::rounded).collect())
    }

    /// Points `[n, dim]` and the time `t [n]` of each in network coordinates.
    pub(crate) fn rows_to_network(&self, x: &[f64], t: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let (y, _) = self.to_network(x, 0.0)?;
        check_len("times", x.len() / self.coordinates.mean.len(), t.len())?;
        Ok((y, self.times_to_network(t)?))
    }

    /// The time of each row as network time.
    pub(crate) fn times_to_network(&self, t: &[f64]) -> Result<Vec<f64>> {
        if let Some(row) = t.iter().position(|t| !t.is_finite()) {
            let problem = format!("is {}", t[row]);
            return Err(Error::input("points", format!("time of row {row}"), problem, "use finite times"));
        }
        Ok(t.iter().map(|&t| self.coordinates.network_time(t)).collect())
    }

    /// Checks that the model can be used in data units.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.validate()?;
        self.coordinates.check_storable(self.architecture.dim, &"coordinates".into())
    }

    /// Points `[n, dim]` in network coordinates, and the time of each.
    fn to_network<T: Coordinate>(&self, x: &[T], t: f64) -> Result<(Vec<f64>, Vec<f64>)> {
        self.check_usable()?;
        let Coordinates { mean, scale, .. } = &self.coordinates;
        let dim = mean.len();
        check_len("points", x.len() / dim * dim, x.len())?;
        if !t.is_finite() {
            return Err(Error::input("points", "time", format!("is {t}"), "use a finite time"));
        }
        if let Some(at) = x.iter().position(|&x| !x.into().is_finite()) {
            return Err(not_finite(at, dim, x[at].into()));
        }
        let affine = mean.iter().zip(scale).cycle();
        let y = x.iter().zip(affine).map(|(&x, (mean, scale))| (x.into() - mean) / scale).collect();
        Ok((y, vec![self.coordinates.network_time(t); x.len() / dim]))
    }
}

/// The error message: element `at` of rows `[n, dim]` is no number.
pub(crate) fn not_finite(at: usize, dim: usize, value: f64) -> Error {
    let problem = format!("column {}, counted from 0, is {value}", at % dim);
    Error::input("points", format!("row {}", at / dim), problem, "leave such points out")
}

/// The unit vectors `[dim, dim]`.
fn unit_vectors(dim: usize) -> Vec<f64> {
    (0..dim * dim).map(|k| if k % (dim + 1) == 0 { 1.0 } else { 0.0 }).collect()
}
