//! A model in data units, at points that lie on a GPU: what `flow.rs` does for those of the host,
//! with equal bits.

use crate::engine::cuda::{CudaEngine, DeviceArray, MovedOnDevice, UnitChange};
use crate::error::{Error, Result, check_len};
use crate::flow::not_finite;
use crate::integrate::Plan;
use crate::model::Model;
use crate::stage::Watch;

/// What a GPU forms of points on it ([`Model::at_on_device`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceQuantity {
    /// [`Model::potential`], `[n]`.
    Potential,
    /// [`Model::velocity`], `[n, dim]`.
    Velocity,
    /// ∂s/∂t `[n]`: see [`Local`](crate::Local).
    TimeDerivative,
    /// [`Model::growth_rate`], `[n]`.
    GrowthRate,
}

impl Model {
    /// True if a GPU forms the quantity of points on it; false where only the host does, velocities
    /// for a cost that is not quadratic and growth by a head of its own.
    #[must_use]
    pub fn is_on_device(&self, quantity: DeviceQuantity) -> bool {
        match quantity {
            DeviceQuantity::Potential | DeviceQuantity::TimeDerivative => true,
            DeviceQuantity::Velocity => self.objective.cost_exponent == 2.0,
            DeviceQuantity::GrowthRate => self.growth_head.is_none(),
        }
    }

    /// The quantity at points `x [n, dim]` and times `t [n]`, in data units. The points stay on the
    /// GPU of `engine`, and so do the results.
    ///
    /// # Errors
    /// As [`Model::local`]; [`Error::Input`] for what is not [on the device](Model::is_on_device);
    /// [`Error::Interrupted`] when `watch` asks for it.
    pub fn at_on_device(
        &self,
        engine: &CudaEngine,
        x: &DeviceArray,
        t: &[f64],
        quantity: DeviceQuantity,
        watch: &dyn Watch,
    ) -> Result<DeviceArray> {
        if !self.is_on_device(quantity) {
            let problem = format!("of this model is not formed on a GPU: {quantity:?}");
            return Err(Error::input("points", "quantity", problem, "take the points to the host"));
        }
        let y = self.to_network_on_device(engine, x)?;
        check_len("times", x.len() / self.architecture.dim, t.len())?;
        let tau = self.times_to_network(t)?;
        let found = engine.derivatives_on_device(self, &y, &tau, watch)?;
        let [start, end] = self.coordinates.time_range;
        let (duration, one) = (end - start, UnitChange::none(1));
        let (values, units) = match quantity {
            DeviceQuantity::Potential => return Ok(found.s),
            DeviceQuantity::Velocity => {
                let scale = &self.coordinates.scale;
                let factor = scale.iter().map(|scale| scale / duration).collect();
                (found.grad_s, UnitChange { factor, ..UnitChange::none(scale.len()) })
            }
            DeviceQuantity::TimeDerivative => (found.ds_dt, UnitChange { divisor: vec![duration], ..one }),
            DeviceQuantity::GrowthRate => {
                (found.s, UnitChange { factor: vec![self.objective.growth], divisor: vec![duration], ..one })
            }
        };
        Ok(engine.change_units(&values, &units)?.0)
    }

    /// Moves the particles at `x [n, dim]`, data units, along `plan`, whose times are network
    /// times. Where they go stays on the GPU of `engine`, in data units.
    ///
    /// # Errors
    /// As [`Model::at_on_device`] for the points, and as
    /// [`Engine::integrate`](crate::engine::Engine::integrate).
    pub fn moved_on_device(
        &self,
        engine: &CudaEngine,
        x: &DeviceArray,
        plan: &Plan,
        watch: &dyn Watch,
    ) -> Result<MovedOnDevice> {
        let y = self.to_network_on_device(engine, x)?;
        let moved = engine.integrate_on_device(self, plan, &y, watch)?;
        let (scale, mean) = (self.coordinates.scale.clone(), self.coordinates.mean.clone());
        let units = UnitChange { factor: scale, offset: mean, ..UnitChange::none(self.architecture.dim) };
        Ok(MovedOnDevice { positions: engine.change_units(&moved.positions, &units)?.0, ..moved })
    }

    /// Points `[n, dim]` in network coordinates.
    fn to_network_on_device(&self, engine: &CudaEngine, x: &DeviceArray) -> Result<DeviceArray> {
        self.check_usable()?;
        let dim = self.architecture.dim;
        check_len("points", x.len() / dim * dim, x.len())?;
        let offset = self.coordinates.mean.iter().map(|mean| -mean).collect();
        let units = UnitChange { offset, divisor: self.coordinates.scale.clone(), ..UnitChange::none(dim) };
        match engine.change_units(x, &units)? {
            (y, None) => Ok(y),
            (_, Some(at)) => Err(not_finite(at, dim, x.read(at..at + 1)?[0].into())),
        }
    }
}
