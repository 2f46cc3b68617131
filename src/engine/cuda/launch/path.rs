//! A density path on the device, or one for each group of rows: its tables, and the argument block
//! that points to them.

use super::super::abi::{CouplingParams, DevicePtr, GroupParams, LinkParams, PathParams, Tag};
use super::super::driver::{Buffer, Device};
use crate::density_path::{Coupling, DensityPath, Groups, Interpolant, LinkTables};
use crate::error::{Result, check_len};

/// Samples of the snapshots on the device.
pub struct Samples {
    /// `[row, dim]`.
    pub values: Buffer<f32>,
    /// First row of each snapshot, and their number.
    pub offsets: Buffer<u64>,
    /// Share of the snapshot's weight up to each row, in units of 2⁻³²; `None` if the rows of a
    /// snapshot count alike.
    pub cumulative: Option<Buffer<u32>>,
}

/// Tables of the couplings between neighbouring snapshots.
struct CouplingTables {
    /// Points to the other buffers.
    device_params: Buffer<CouplingParams>,
    _words: Vec<Buffer<u32>>,
    _floats: Vec<Buffer<f32>>,
}

/// The tables of one path.
struct OnePath {
    /// Points to the other buffers.
    params: PathParams,
    samples: Samples,
    _times: Buffer<f64>,
    _widths: Option<Buffer<f64>>,
    _masses: Option<Buffer<f64>>,
    _couplings: Option<CouplingTables>,
}

/// The conditions of groups, and their shares.
struct GroupTables {
    params: GroupParams,
    _cumulative: Buffer<u32>,
    _conditions: Buffer<f32>,
    _shares: Buffer<f64>,
}

/// The tables of a path, or of one for each group, and their argument blocks, whose address never
/// changes.
pub struct PathTables {
    dim: usize,
    /// Points to all buffers of paths.
    device_params: Buffer<PathParams>,
    paths: Vec<OnePath>,
    groups: Option<GroupTables>,
}

impl PathTables {
    /// The tables of `path`, which is valid, with `samples` in place of its own.
    ///
    /// # Errors
    /// `Shape` for offsets of another number of snapshots, `Device` if memory runs out.
    pub fn new(device: &Device, path: &DensityPath, samples: Samples) -> Result<PathTables> {
        PathTables::of(device, path.snapshots.dim, vec![OnePath::new(device, path, samples)?], None)
    }

    /// The tables of `groups`, which are valid, each with its `samples` in place of its own.
    ///
    /// # Errors
    /// As [`PathTables::new`].
    pub fn of_groups(device: &Device, groups: &Groups, samples: Vec<Samples>) -> Result<PathTables> {
        check_len("samples of the groups", groups.all().len(), samples.len())?;
        let paths = groups.all().iter().zip(samples).map(|(group, samples)| OnePath::new(device, &group.path, samples));
        let (dim, tables) = (groups.first().path.snapshots.dim, GroupTables::new(device, groups)?);
        PathTables::of(device, dim, paths.collect::<Result<_>>()?, Some(tables))
    }

    fn of(device: &Device, dim: usize, paths: Vec<OnePath>, groups: Option<GroupTables>) -> Result<PathTables> {
        let params: Vec<PathParams> = paths.iter().map(|path| path.params).collect();
        Ok(PathTables { dim, device_params: device.upload(&params)?, paths, groups })
    }

    /// Lets later launches read `next`, and returns the samples that earlier launches read. Of
    /// groups these are the samples of the first.
    ///
    /// # Errors
    /// `Shape` for offsets of another number of snapshots, `Device` if the device fails.
    pub fn replace_samples(&mut self, device: &Device, next: Samples) -> Result<Samples> {
        let path = &mut self.paths[0];
        check_len("offsets of the snapshots", path.samples.offsets.len(), next.offsets.len())?;
        path.params.offsets = next.offsets.address();
        path.params.samples = next.values.address();
        path.params.cumulative = next.cumulative_address();
        let before = std::mem::replace(&mut path.samples, next);
        let params: Vec<PathParams> = self.paths.iter().map(|path| path.params).collect();
        device.write(&mut self.device_params, &params)?;
        Ok(before)
    }

    /// Dimension of the samples.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The argument blocks of the paths on the device.
    pub(super) fn device_params(&self) -> &Buffer<PathParams> {
        &self.device_params
    }

    /// The argument block of the groups; zeros without groups.
    pub(super) fn groups(&self) -> GroupParams {
        self.groups.as_ref().map_or_else(GroupParams::default, |groups| groups.params)
    }
}

impl Samples {
    fn cumulative_address(&self) -> DevicePtr<u32> {
        self.cumulative.as_ref().map_or(DevicePtr::NULL, Buffer::address)
    }
}

impl OnePath {
    fn new(device: &Device, path: &DensityPath, samples: Samples) -> Result<OnePath> {
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
            cumulative: samples.cumulative_address(),
            masses: masses.as_ref().map_or(DevicePtr::NULL, Buffer::address),
            couplings: couplings.as_ref().map_or(DevicePtr::NULL, |couplings| couplings.device_params.address()),
        };
        Ok(OnePath { params, samples, _times: times, _widths: widths, _masses: masses, _couplings: couplings })
    }
}

impl GroupTables {
    fn new(device: &Device, groups: &Groups) -> Result<GroupTables> {
        let n_groups = groups.all().len();
        let conditions: Vec<f32> = groups.all().iter().flat_map(|group| group.condition.iter().copied()).collect();
        let shares: Vec<f64> = (0..n_groups).map(|k| groups.share(k)).collect();
        let n_conditions = (conditions.len() / n_groups) as u32;
        let (cumulative, conditions) = (device.upload(groups.cumulative())?, device.upload(&conditions)?);
        let shares = device.upload(&shares)?;
        let params = GroupParams {
            n_groups: n_groups as u32,
            n_conditions,
            cumulative: cumulative.address(),
            conditions: conditions.address(),
            shares: shares.address(),
        };
        Ok(GroupTables { params, _cumulative: cumulative, _conditions: conditions, _shares: shares })
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
