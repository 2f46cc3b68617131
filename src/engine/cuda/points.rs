//! Numbers that stay in the memory of a GPU: points of another library, and what becomes of them.

use std::ops::Range;
use std::sync::Arc;

use super::driver::{Buffer, Device, ForeignArray};
use super::launch::{ChangeUnits, Units, n_warps};
use super::{CudaEngine, evaluate, particles};
use crate::engine::IntegrationReport;
use crate::error::{Error, Result, check_len};
use crate::integrate::Plan;
use crate::model::Model;
use crate::stage::Watch;

/// Numbers in f32 in the memory of a GPU, in its primary context. They are there: whoever reads
/// them, in whatever stream, waits for nothing.
pub struct DeviceArray {
    device: Arc<Device>,
    values: Buffer<f32>,
}

impl DeviceArray {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the GPU.
    #[must_use]
    pub fn ordinal(&self) -> usize {
        self.device.ordinal()
    }

    /// The address of the first element; valid while `self` lives.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.values.driver_address()
    }

    /// Elements `range`, on the host.
    ///
    /// # Errors
    /// [`Error::Shape`] for more elements than there are,
    /// [`Error::Device`] if the driver fails.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; range.len()];
        self.device.read_at(&self.values, range.start, &mut values)?;
        Ok(values)
    }

    /// A copy of elements `range`.
    ///
    /// # Errors
    /// As [`DeviceArray::read`].
    pub fn copy(&self, range: Range<usize>) -> Result<DeviceArray> {
        let mut values = self.device.allocate(range.len())?;
        self.device.copy((&self.values, range.start), (&mut values, 0), range.len())?;
        self.device.synchronize()?;
        Ok(DeviceArray { device: Arc::clone(&self.device), values })
    }
}

impl Drop for DeviceArray {
    fn drop(&mut self) {
        // An error is that of a lost device, with which its memory is lost.
        let _ = self.device.release_behind_others();
    }
}

/// A change of units, `[columns]` each: v becomes (v · factor + offset) / divisor, formed in f64
/// and rounded once.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitChange {
    /// What values are multiplied by.
    pub factor: Vec<f64>,
    /// What is then added.
    pub offset: Vec<f64>,
    /// What the sum is divided by.
    pub divisor: Vec<f64>,
}

impl UnitChange {
    /// That of rows of `n_columns` which changes no bit.
    #[must_use]
    pub fn none(n_columns: usize) -> UnitChange {
        // The sum of -0 and 0 would be 0.
        UnitChange { factor: vec![1.0; n_columns], offset: vec![-0.0; n_columns], divisor: vec![1.0; n_columns] }
    }
}

/// Potential and first derivatives at n points on a GPU, network coordinates.
pub struct DerivativesOnDevice {
    /// s `[n]`.
    pub s: DeviceArray,
    /// ∇s `[n, dim]`.
    pub grad_s: DeviceArray,
    /// ∂s/∂t `[n]`.
    pub ds_dt: DeviceArray,
}

/// n particles that were moved on a GPU.
pub struct MovedOnDevice {
    /// `[saved, n, dim]`.
    pub positions: DeviceArray,
    /// log w `[saved, n]`, of a model with growth.
    pub log_weights: Option<DeviceArray>,
    /// Counts.
    pub report: IntegrationReport,
}

/// Work on points that are on the GPU already; results stay there. The bits are those of the same
/// work on points of the host.
impl CudaEngine {
    /// The number of the GPU.
    #[must_use]
    pub fn ordinal(&self) -> usize {
        self.device.ordinal()
    }

    /// A copy of `from`, which is made behind all that the legacy default stream has been given,
    /// and is done on return.
    ///
    /// # Errors
    /// [`Error::Device`] if memory runs out or the driver fails.
    pub fn copy_from_device(&self, from: &ForeignArray) -> Result<DeviceArray> {
        Ok(self.array(self.device.copy_of(from)?))
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// As [`CudaEngine::copy_from_device`].
    pub fn copy_from_host(&self, values: &[f32]) -> Result<DeviceArray> {
        let values = self.device.upload(values)?;
        self.finished(values)
    }

    /// `rows` in other units, and the first of their elements that is not finite, if there is one.
    ///
    /// # Errors
    /// [`Error::Shape`] for rows of another length, [`Error::Input`] for those of another GPU,
    /// [`Error::Device`] if memory runs out or the driver fails.
    pub fn change_units(&self, rows: &DeviceArray, change: &UnitChange) -> Result<(DeviceArray, Option<usize>)> {
        let (device, from, n) = (&self.device, self.here(rows)?, rows.len());
        let [factor, offset, divisor] = [&change.factor, &change.offset, &change.divisor];
        let units =
            Units { factor: device.upload(factor)?, offset: device.upload(offset)?, divisor: device.upload(divisor)? };
        let (to, first_not_finite) = (device.allocate(n)?, device.allocate::<u64>(n_warps(n))?);
        let launch = ChangeUnits { from, to: &to, units: &units, first_not_finite: &first_not_finite };
        launch.launch(device)?;
        let of_warps = device.read(&first_not_finite, first_not_finite.len())?;
        let first = of_warps.into_iter().map(|first| first as usize).min().filter(|first| *first < n);
        Ok((self.finished(to)?, first))
    }

    /// s, ∇s, ∂ₜs of `model` at `points [n, dim]` and times `t [n]`, network coordinates.
    ///
    /// # Errors
    /// As [`Differentiate::derivatives`](crate::engine::Differentiate::derivatives);
    /// [`Error::Interrupted`] when `watch` asks for it.
    pub fn derivatives_on_device(
        &self,
        model: &Model,
        points: &DeviceArray,
        t: &[f64],
        watch: &dyn Watch,
    ) -> Result<DerivativesOnDevice> {
        model.validate()?;
        model.require_one_condition()?;
        check_len("points on the device", t.len() * model.architecture.dim, points.len())?;
        let at = (self.here(points)?, t);
        let found = evaluate::derivatives_on_device(&self.device, self.precision, model, at, watch)?;
        self.device.synchronize()?;
        let [s, grad_s, ds_dt] = found.map(|values| self.array(values));
        Ok(DerivativesOnDevice { s, grad_s, ds_dt })
    }

    /// Moves the particles at `points [n, dim]` along `plan`, network coordinates. Those of a model
    /// with growth begin with weight 1.
    ///
    /// # Errors
    /// As [`Engine::integrate`](crate::engine::Engine::integrate).
    pub fn integrate_on_device(
        &self,
        model: &Model,
        plan: &Plan,
        points: &DeviceArray,
        watch: &dyn Watch,
    ) -> Result<MovedOnDevice> {
        let CudaEngine { device, precision, .. } = self;
        let moved = particles::integrate_on_device(device, *precision, (model, plan), self.here(points)?, watch)?;
        device.synchronize()?;
        Ok(MovedOnDevice {
            positions: self.array(moved.positions),
            log_weights: moved.log_weights.map(|values| self.array(values)),
            report: moved.report,
        })
    }

    /// What `array` holds, which is on this GPU.
    fn here<'a>(&self, array: &'a DeviceArray) -> Result<&'a Buffer<f32>> {
        let (own, other) = (self.ordinal(), array.ordinal());
        if own == other {
            return Ok(&array.values);
        }
        let problem = format!("is cuda:{other}, and the engine is on cuda:{own}");
        Err(Error::input("points", "device", problem, "copy them there"))
    }

    /// `values`, when all launches so far are done.
    fn finished(&self, values: Buffer<f32>) -> Result<DeviceArray> {
        self.device.synchronize()?;
        Ok(self.array(values))
    }

    fn array(&self, values: Buffer<f32>) -> DeviceArray {
        DeviceArray { device: Arc::clone(&self.device), values }
    }
}
