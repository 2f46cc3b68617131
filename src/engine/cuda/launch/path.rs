//! A density path on the device: its tables, and the argument block that points to them.

use super::super::abi::{CouplingParams, DevicePtr, LinkParams, PathParams, Tag};
use super::super::driver::{Buffer, Device};
use crate::density_path::{Coupling, DensityPath, Interpolant, LinkTables};
use crate::error::{Result, check_len};

/// Samples of the snapshots on the device.
pub struct Samples {
    /// `[row, dim]`.
    pub values: Buffer<f32>,
    /// First row of each snapshot, and their number.
    pub offsets: Buffer<u64>,
}

/// Tables of the couplings between neighbouring snapshots.
struct CouplingTables {
    /// Points to the other buffers.
    device_params: Buffer<CouplingParams>,
    _words: Vec<Buffer<u32>>,
    _floats: Vec<Buffer<f32>>,
}

/// The tables of a path and their argument block, whose address never changes.
pub struct PathTables {
    dim: usize,
    /// Points to all other buffers.
    params: PathParams,
    device_params: Buffer<PathParams>,
    samples: Samples,
    _times: Buffer<f64>,
    _widths: Option<Buffer<f64>>,
    _masses: Option<Buffer<f64>>,
    _couplings: Option<CouplingTables>,
}

impl PathTables {
    /// The tables of `path`, which is valid, with `samples` in place of its own.
    ///
    /// # Errors
    /// `Shape` for offsets of another number of snapshots, `Device` if memory runs out.
    pub fn new(device: &Device, path: &DensityPath, samples: Samples) -> Result<PathTables> {
        check_len("offsets of the snapshots", path.snapshots.offsets.len(), samples.offsets.len())?;
        let times = device.upload(path.times())?;
        let widths: Option<Vec<f64>> = (path.interpolant == Interpolant::Spline)
            .then(|| (0..path.n_intervals()).map(|interval| path.width(interval)).collect());
        let widths = widths.map(|widths| device.upload(&widths)).transpose()?;
        let masses = path.masses.as_ref().map(|masses| device.upload(masses)).transpose()?;
        let couplings = path.couplings.as_ref().map(|couplings| CouplingTables::new(device, couplings)).transpose()?;
        let params = PathParams {
            n_times: path.times().len() as u32,
            n_snapshots: path.snapshots.times.len() as u32,
            interpolant: Tag::of(path.interpolant),
            limit: path.spline.limit as f32,
            times: times.address(),
            widths: widths.as_ref().map_or(DevicePtr::NULL, Buffer::address),
            offsets: samples.offsets.address(),
            samples: samples.values.address(),
            masses: masses.as_ref().map_or(DevicePtr::NULL, Buffer::address),
            couplings: couplings.as_ref().map_or(DevicePtr::NULL, |couplings| couplings.device_params.address()),
        };
        Ok(PathTables {
            dim: path.snapshots.dim,
            device_params: device.upload(&[params])?,
            params,
            samples,
            _times: times,
            _widths: widths,
            _masses: masses,
            _couplings: couplings,
        })
    }

    /// Lets later launches read `next`, and returns the samples that earlier launches read.
    ///
    /// # Errors
    /// `Shape` for offsets of another number of snapshots, `Device` if the device fails.
    pub fn replace_samples(&mut self, device: &Device, next: Samples) -> Result<Samples> {
        check_len("offsets of the snapshots", self.samples.offsets.len(), next.offsets.len())?;
        self.params.offsets = next.offsets.address();
        self.params.samples = next.values.address();
        let before = std::mem::replace(&mut self.samples, next);
        device.write(&mut self.device_params, &[self.params])?;
        Ok(before)
    }

    /// Dimension of the samples.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The argument block on the device.
    pub(super) fn device_params(&self) -> &Buffer<PathParams> {
        &self.device_params
    }
}

impl CouplingTables {
    fn new(device: &Device, couplings: &[Coupling]) -> Result<CouplingTables> {
        let (mut words, mut floats, mut params) = (Vec::new(), Vec::new(), Vec::new());
        for coupling in couplings {
            let tables = coupling.tables();
            let mut upload = |values: &[u32]| -> Result<DevicePtr<u32>> {
                let buffer = device.upload(values)?;
                let address = buffer.address();
                words.push(buffer);
                Ok(address)
            };
            let mut links = |links: &LinkTables| -> Result<LinkParams> {
                Ok(LinkParams {
                    starts: upload(links.starts)?,
                    partners: upload(links.partners)?,
                    cumulative: upload(links.cumulative)?,
                    n_partners: links.partners.len() as u32,
                    unused: 0,
                })
            };
            let (by_left, by_right) = (links(&tables.by_left)?, links(&tables.by_right)?);
            let (pairs, cumulative) = (upload(tables.pairs.as_flattened())?, upload(tables.cumulative)?);
            let has_masses = !tables.masses.is_empty();
            let turns: &[f32] = bytemuck::cast_slice(tables.turns);
            let turns = (!turns.is_empty()).then(|| device.upload(turns)).transpose()?;
            let of_pairs = has_masses.then(|| device.upload(tables.masses.as_flattened())).transpose()?;
            params.push(CouplingParams {
                pairs,
                cumulative,
                masses: of_pairs.as_ref().map_or(DevicePtr::NULL, Buffer::address),
                turns: turns.as_ref().map_or(DevicePtr::NULL, Buffer::address),
                n_pairs: tables.pairs.len() as u32,
                unused: 0,
                by_left,
                by_right,
            });
            floats.extend([of_pairs, turns].into_iter().flatten());
        }
        Ok(CouplingTables { device_params: device.upload(&params)?, _words: words, _floats: floats })
    }
}
