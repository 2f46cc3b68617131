//! A density path on the device: snapshots, couplings and masses; all samples, or, if they do not
//! fit, one shard of them at a time.

use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::abi::{CouplingParams, PathParams};
use super::driver::Device;
use super::launch::{PathTables, Samples};
use crate::data::Snapshots;
use crate::density_path::{Coupling, DensityPath, Group, Interpolant, LinkTables};
use crate::engine::Training;
use crate::error::{DeviceKind, Error, Result};
use crate::rng::Purpose;

/// A path on the device.
pub struct DevicePath {
    device: Arc<Device>,
    tables: PathTables,
    stream: Option<Stream>,
}

/// Shards of samples that become resident later.
struct Stream {
    snapshots: Arc<Snapshots>,
    shards: Arc<SampleShards>,
    /// The shard that is resident.
    shard: usize,
    /// Uploads the next one; `None` only between two of them.
    upload: Option<JoinHandle<Result<Samples>>>,
}

/// Device layout of the samples of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residence {
    /// All of them, all the time.
    Whole,
    /// In this many shards, one of them at a time while the next is on its way.
    Shards(usize),
}

impl Residence {
    /// The number of shards.
    pub fn n_shards(self) -> usize {
        match self {
            Residence::Whole => 1,
            Residence::Shards(n) => n,
        }
    }

    /// For the path of `training` where `room` bytes are for its samples.
    ///
    /// # Errors
    /// [`Error::Input`] for couplings, and for the samples of several groups, that do not fit.
    pub fn of(training: &Training, room: usize) -> Result<Residence> {
        let path = &training.path;
        if let Some(groups) = &training.groups {
            let n_bytes: usize = groups.all().iter().map(|group| sample_bytes(&group.path.snapshots)).sum();
            return if n_bytes <= room { Ok(Residence::Whole) } else { Err(refuse_groups()) };
        }
        if sample_bytes(&path.snapshots) <= room {
            return Ok(Residence::Whole);
        }
        refuse_couplings(path)?;
        Ok(Residence::Shards(SampleShards::needed(&path.snapshots, room)))
    }

    /// Bytes that the path of `training`, or those of its groups, take on the device.
    pub fn n_bytes(self, training: &Training) -> usize {
        let Some(groups) = &training.groups else { return self.bytes_of_path(&training.path) };
        let of_group = |group: &Group| {
            self.bytes_of_path(&group.path) + size_of_val(&group.condition[..]) + size_of::<u32>() + size_of::<f64>()
        };
        groups.all().iter().map(of_group).sum()
    }

    fn bytes_of_path(self, path: &DensityPath) -> usize {
        let snapshots = &path.snapshots;
        let offsets = size_of::<u64>() * snapshots.offsets.len();
        let samples = match self {
            Residence::Whole => sample_bytes(snapshots) + offsets,
            Residence::Shards(n) => {
                let rows = (0..n).map(|shard| shard_rows(snapshots, n, shard)).max().unwrap_or(0);
                2 * (size_of::<f32>() * rows * snapshots.dim + offsets)
            }
        };
        let masses = path.masses.as_ref().map_or(0, |masses| size_of_val(&masses[..]));
        let couplings = path.couplings.iter().flat_map(|couplings| couplings.iter()).map(coupling_bytes).sum::<usize>();
        samples + masses + couplings + size_of_val(path.times()) + size_of::<PathParams>()
    }
}

/// Bytes of all samples, and of the table by which rows are drawn if they have weights.
fn sample_bytes(snapshots: &Snapshots) -> usize {
    size_of_val(&snapshots.samples[..]) + snapshots.mass.cumulative().map_or(0, size_of_val)
}

/// Rows of shard `shard` of `n_shards`.
fn shard_rows(snapshots: &Snapshots, n_shards: usize, shard: usize) -> usize {
    (0..snapshots.times.len()).map(|k| rows_of_shard(snapshots.n_rows(k), n_shards, shard).len()).sum()
}

/// Which of `n` rows are in shard `shard` of `n_shards`. Snapshots with fewer rows than shards
/// repeat rows.
fn rows_of_shard(n: usize, n_shards: usize, shard: usize) -> Range<usize> {
    let (first, end) = (shard * n / n_shards, (shard + 1) * n / n_shards);
    first..end.max(first + 1)
}

fn coupling_bytes(coupling: &Coupling) -> usize {
    let tables = coupling.tables();
    let links = |links: &LinkTables| 4 * (links.starts.len() + links.partners.len() + links.cumulative.len());
    size_of_val(tables.pairs)
        + size_of_val(tables.cumulative)
        + size_of_val(tables.masses)
        + size_of_val(tables.turns)
        + links(&tables.by_left)
        + links(&tables.by_right)
        + size_of::<CouplingParams>()
}

/// Pairs may have their rows in any two shards.
fn refuse_couplings(path: &DensityPath) -> Result<()> {
    if path.couplings.is_none() {
        return Ok(());
    }
    Err(Error::input(
        "training",
        "objective.pairing",
        "couples more samples than the memory of the device holds",
        "pair independently, use fewer samples or the `CpuEngine`",
    ))
}

/// Samples of several groups do not take turns.
fn refuse_groups() -> Error {
    let problem = "divide more samples than the memory of the device holds";
    Error::input("training", "data.conditions", problem, "use fewer samples or the `CpuEngine`")
}

impl DevicePath {
    /// The path of `training`, which is valid, or those of its groups, with all their samples.
    pub fn new(device: &Arc<Device>, training: &Training) -> Result<Self> {
        let samples = |path: &DensityPath| -> Result<Samples> {
            let snapshots = &path.snapshots;
            let offsets: Vec<u64> = snapshots.offsets.iter().map(|&offset| offset as u64).collect();
            let cumulative = snapshots.mass.cumulative().map(|table| device.upload(table)).transpose()?;
            Ok(Samples { values: device.upload(&snapshots.samples)?, offsets: device.upload(&offsets)?, cumulative })
        };
        let tables = match &training.groups {
            None => PathTables::new(device, &training.path, samples(&training.path)?)?,
            Some(groups) => {
                let samples = groups.all().iter().map(|group| samples(&group.path)).collect::<Result<_>>()?;
                PathTables::of_groups(device, groups, samples)?
            }
        };
        Ok(DevicePath { device: device.clone(), tables, stream: None })
    }

    /// `path`, which is valid, with the shard of `shards` that belongs to `step`. The next one
    /// follows in the background.
    pub fn in_shards(device: &Arc<Device>, path: &DensityPath, shards: SampleShards, step: u64) -> Result<Self> {
        let (snapshots, shards) = (path.snapshots.clone(), Arc::new(shards));
        let shard = shards.at(step);
        let empty = || -> Result<Samples> {
            let values = device.allocate(shards.max_rows() * snapshots.dim)?;
            Ok(Samples { values, offsets: device.allocate(snapshots.offsets.len())?, cumulative: None })
        };
        let (mut resident, spare) = (empty()?, empty()?);
        device.hold_copies()?; // until there is memory
        shards.write(device, &snapshots, shard, &mut resident)?;
        let tables = PathTables::new(device, path, resident)?;
        let mut stream = Stream { snapshots, shards, shard, upload: None };
        stream.begin(device, spare)?;
        Ok(DevicePath { device: device.clone(), tables, stream: Some(stream) })
    }

    /// The tables that kernels read.
    pub fn tables(&self) -> &PathTables {
        &self.tables
    }

    /// Number of steps from `step` on that have the same shard; `None` where all samples are
    /// resident.
    pub fn steps_in_shard(&self, step: u64) -> Option<u64> {
        self.stream.as_ref().map(|stream| stream.shards.steps_left(step))
    }

    /// Makes the shard of `step` the resident one for whatever is launched from now on, and begins
    /// to upload the one after it.
    pub fn advance(&mut self, step: u64) -> Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let device = &self.device;
        let wanted = stream.shards.at(step);
        if wanted == stream.shard {
            return Ok(());
        }
        let Some(upload) = stream.upload.take() else { return Err(lost(device)) };
        let mut next = upload.join().unwrap_or_else(|_| Err(lost(device)))?;
        if wanted != stream.shards.after(stream.shard) {
            stream.shards.write(device, &stream.snapshots, wanted, &mut next)?;
        }
        let spare = self.tables.replace_samples(device, next)?;
        device.hold_copies()?; // earlier launches may still read the shard that is overwritten next
        stream.shard = wanted;
        stream.begin(device, spare)
    }
}

fn lost(device: &Device) -> Error {
    Error::Device {
        kind: DeviceKind::Failed,
        device: device.describe(),
        problem: "lost samples on their way".into(),
        fix: "run again from the last checkpoint".into(),
    }
}

impl Stream {
    /// Uploads the shard after the resident one into `spare`, alongside all other work.
    ///
    /// # Errors
    /// When the system starts no thread for it.
    fn begin(&mut self, device: &Arc<Device>, mut spare: Samples) -> Result<()> {
        let name = device.describe();
        let (device, snapshots, shards) = (device.clone(), self.snapshots.clone(), self.shards.clone());
        let next = shards.after(self.shard);
        let upload = std::thread::Builder::new().spawn(move || {
            shards.write(&device, &snapshots, next, &mut spare)?;
            Ok(spare)
        });
        self.upload = Some(upload.map_err(|error| Error::Device {
            kind: DeviceKind::Failed,
            device: name,
            problem: format!("no thread can be started that uploads samples: {error}"),
            fix: "raise the limit on processes (ulimit -u, a container's pids limit)".into(),
        })?);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Wait, so that dropping a path really frees its memory.
        if let Some(upload) = self.upload.take() {
            let _ = upload.join();
        }
    }
}

/// Values per copy to the device.
const PIECE: usize = 1 << 22;

/// The rows of each snapshot divided into random shards, one of which lies on the device at a time.
/// Which one depends on the step alone, so a resumed run goes on with the same rows. A row with a
/// weight is there as often as it says, so that the rows of a shard count alike.
#[derive(Debug)]
pub struct SampleShards {
    /// Rows of each snapshot in random order.
    orders: Vec<Vec<u32>>,
    n_shards: usize,
    /// Steps that a shard stays.
    steps: u64,
}

impl SampleShards {
    /// `path` in `n_shards` shards, for steps of `rows_per_step` rows: a shard stays until about as
    /// many rows are drawn as it has.
    ///
    /// # Errors
    /// [`Error::Input`] for couplings, which pair rows of all shards.
    pub fn new(path: &DensityPath, n_shards: usize, rows_per_step: usize, seed: u64) -> Result<Self> {
        let snapshots = &path.snapshots;
        refuse_couplings(path)?;
        let n_shards = n_shards.max(1);
        let order = |k: usize| {
            // Snapshots with equally many rows may follow the same particles: the same order keeps
            // them together.
            let stream = if path.interpolant == Interpolant::Nearest { 0 } else { k as u64 };
            let order = snapshots.random_order(k, seed, Purpose::Shards, stream);
            order.into_iter().map(|row| row as u32).collect()
        };
        let orders: Vec<Vec<u32>> = (0..snapshots.times.len()).map(order).collect();
        let mut shards = SampleShards { orders, n_shards, steps: 1 };
        shards.steps = shards.max_rows().div_ceil(rows_per_step.max(1)) as u64;
        Ok(shards)
    }

    /// Shards of which two fit in `n_bytes` on the device.
    pub fn needed(snapshots: &Snapshots, n_bytes: usize) -> usize {
        (2 * size_of_val(&snapshots.samples[..])).div_ceil(n_bytes.max(1)).max(1)
    }

    /// The shard of `step`.
    fn at(&self, step: u64) -> usize {
        (step / self.steps % self.n_shards as u64) as usize
    }

    fn after(&self, shard: usize) -> usize {
        (shard + 1) % self.n_shards
    }

    /// Steps from `step` on that have its shard.
    fn steps_left(&self, step: u64) -> u64 {
        self.steps - step % self.steps
    }

    /// The rows of snapshot `k` in `shard`.
    fn rows(&self, k: usize, shard: usize) -> &[u32] {
        let order = &self.orders[k];
        &order[rows_of_shard(order.len(), self.n_shards, shard)]
    }

    /// Most rows of a shard.
    fn max_rows(&self) -> usize {
        let rows = |shard| (0..self.orders.len()).map(|k| self.rows(k, shard).len()).sum();
        (0..self.n_shards).map(rows).max().unwrap_or(0)
    }

    /// The samples of `shard` and where each snapshot's start.
    #[cfg(test)]
    pub fn snapshots(&self, all: &Snapshots, shard: usize) -> Snapshots {
        let mut offsets = vec![0];
        let mut samples = Vec::new();
        for k in 0..self.orders.len() {
            for &row in self.rows(k, shard) {
                samples.extend(&all.rows(k)[row as usize * all.dim..][..all.dim]);
            }
            offsets.push(samples.len() / all.dim);
        }
        Snapshots { dim: all.dim, times: all.times.clone(), offsets, samples, mass: Default::default() }
    }

    /// Writes `shard` into `samples`, alongside the kernels.
    fn write(&self, device: &Device, snapshots: &Snapshots, shard: usize, samples: &mut Samples) -> Result<()> {
        let dim = snapshots.dim;
        let (mut offsets, mut written) = (vec![0u64], 0);
        let mut piece: Vec<f32> = Vec::with_capacity(PIECE + dim);
        for k in 0..self.orders.len() {
            let (rows, all) = (self.rows(k, shard), snapshots.rows(k));
            for &row in rows {
                piece.extend(&all[row as usize * dim..][..dim]);
                if piece.len() >= PIECE {
                    device.write_beside(&mut samples.values, written, &piece)?;
                    written += piece.len();
                    piece.clear();
                }
            }
            offsets.push(offsets[k] + rows.len() as u64);
        }
        device.write_beside(&mut samples.values, written, &piece)?;
        device.write_beside(&mut samples.offsets, 0, &offsets)
    }
}
