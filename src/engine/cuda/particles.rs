//! Integration of particles along their flow, all steps of a tile in one kernel:
//! `kernels/integrate.cu`.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::abi::{FixedStep, IntegrationBlock, IntegrationFailure, TILE_ROWS};
use super::driver::{Buffer, Device};
use super::explain;
use super::launch::{FixedSteps, Integrate, IntegrationKernel, Packed, Rows, Steps, scratch_per_block};
use super::needs::{RowNeeds, Work};
use super::network::Network;
use super::workspace::{Extent, rows_bytes};
use crate::engine::IntegrationReport;
use crate::error::{DeviceKind, Error, Result, check_len};
use crate::integrate::{PLAN, Plan, Share, StepControl};
use crate::model::Model;
use crate::precision::Precision;
use crate::stage::{Watch, check};
use crate::tableau::Tableau;

/// Maximum particles per launch; progress is reported between launches.
const MAX_CHUNK: usize = 1 << 20;

/// Target duration of a launch: progress and cancellation are handled between launches. A single
/// tile may take longer.
const LAUNCH: Duration = Duration::from_millis(250);

/// Rows of the highest tiles; the heights of all others divide it.
pub const TILE: usize = TILE_ROWS;

/// Moves the particles of `share` along `plan`: see
/// [`Engine::integrate_share`](crate::engine::Engine::integrate_share).
pub fn integrate(
    device: &Device,
    precision: Precision,
    model: &Model,
    plan: &Plan,
    mut share: Share<'_>,
    watch: &dyn Watch,
) -> Result<IntegrationReport> {
    let n = share.validate(model, plan)?;
    let crowd = Crowd { first: share.first, n, columns: columns(model, &share) };
    move_all(device, precision, (model, plan), crowd, &mut share, watch)
}

/// Particles that have been moved on the device.
pub struct Moved {
    /// `[saved, n, dim]`, network coordinates.
    pub positions: Buffer<f32>,
    /// log w `[saved, n]`, of a model with growth.
    pub log_weights: Option<Buffer<f32>>,
    /// Counts.
    pub report: IntegrationReport,
}

/// Moves the particles at `points [n, dim]`, which lie on the device, along `plan`; of a model with
/// growth they begin with weight 1.
pub fn integrate_on_device(
    device: &Device,
    precision: Precision,
    (model, plan): (&Model, &Plan),
    points: &Buffer<f32>,
    watch: &dyn Watch,
) -> Result<Moved> {
    let (dim, n_saved) = (model.architecture.dim, plan.save_at.len());
    plan.validate_for(model)?;
    let n = points.len() / dim;
    check_len("points on the device", n * dim, points.len())?;
    let crowd = Crowd { first: 0, n, columns: [dim, usize::from(model.objective.growth > 0.0), 0] };
    let moved = [device.allocate(n_saved * n * dim)?, device.allocate(n_saved * n * crowd.columns[1])?];
    let mut slabs = SlabsOnDevice { points, moved, n };
    let report = move_all(device, precision, (model, plan), crowd, &mut slabs, watch)?;
    let [positions, log_weights] = slabs.moved;
    Ok(Moved { positions, log_weights: Some(log_weights).filter(|_| crowd.columns[1] > 0), report })
}

/// Consecutive particles of many.
#[derive(Clone, Copy)]
struct Crowd {
    /// Number of the first among all.
    first: usize,
    n: usize,
    /// Values of each in each channel; 0 if the channel is not integrated.
    columns: [usize; 3],
}

/// Values per particle in each channel of `share`.
fn columns(model: &Model, share: &Share<'_>) -> [usize; 3] {
    let follows = |slabs: &[&mut [f32]]| usize::from(!slabs.is_empty());
    [model.architecture.dim, follows(&share.log_weights), follows(&share.log_density)]
}

/// Where particles start, and where they are taken to: memory of the host or of the device.
trait Slabs {
    /// Puts the starts of the particles `range` into the channels.
    fn start(&self, device: &Device, range: &Range<usize>, channels: &mut [Channel; 3]) -> Result<()>;

    /// Takes the particles `range` at the `n_saved` times.
    fn save(&mut self, device: &Device, range: &Range<usize>, channels: &[Channel; 3], n_saved: usize) -> Result<()>;
}

impl Slabs for Share<'_> {
    fn start(&self, device: &Device, range: &Range<usize>, channels: &mut [Channel; 3]) -> Result<()> {
        for (Channel { columns, values }, slabs) in
            channels.iter_mut().zip([&self.positions, &self.log_weights, &self.log_density])
        {
            if let Some(start) = slabs.first() {
                device.write(values, &start[range.start * *columns..range.end * *columns])?;
            }
        }
        Ok(())
    }

    fn save(&mut self, device: &Device, range: &Range<usize>, channels: &[Channel; 3], n_saved: usize) -> Result<()> {
        let slabs = [&mut self.positions, &mut self.log_weights, &mut self.log_density];
        for (Channel { columns, values }, slabs) in channels.iter().zip(slabs) {
            let saved = device.read(values, n_saved * range.len() * columns)?;
            for (slab, saved) in slabs.iter_mut().zip(saved.chunks_exact((range.len() * columns).max(1))) {
                slab[range.start * columns..range.end * columns].copy_from_slice(saved);
            }
        }
        Ok(())
    }
}

/// Particles that stay on the device.
struct SlabsOnDevice<'a> {
    /// Where they start `[n, dim]`.
    points: &'a Buffer<f32>,
    /// Positions and log w, `[saved, n, columns]`.
    moved: [Buffer<f32>; 2],
    n: usize,
}

impl Slabs for SlabsOnDevice<'_> {
    fn start(&self, device: &Device, range: &Range<usize>, channels: &mut [Channel; 3]) -> Result<()> {
        let [positions, log_weights, _] = channels;
        let dim = positions.columns;
        device.copy((self.points, range.start * dim), (&mut positions.values, 0), range.len() * dim)?;
        device.write(&mut log_weights.values, &vec![0.0; range.len() * log_weights.columns])
    }

    fn save(&mut self, device: &Device, range: &Range<usize>, channels: &[Channel; 3], n_saved: usize) -> Result<()> {
        for (Channel { columns, values }, moved) in channels.iter().zip(&mut self.moved) {
            let n_values = range.len() * columns;
            for k in 0..n_saved {
                let start = (k * self.n + range.start) * columns;
                device.copy((values, k * n_values), (moved, start), n_values)?;
            }
        }
        device.synchronize()
    }
}

/// Moves the particles of `crowd`, which `slabs` holds.
fn move_all(
    device: &Device,
    precision: Precision,
    (model, plan): (&Model, &Plan),
    crowd: Crowd,
    slabs: &mut dyn Slabs,
    watch: &dyn Watch,
) -> Result<IntegrationReport> {
    refuse_growth_head(model, crowd.columns)?;
    let n = crowd.n;
    let mut report = IntegrationReport::default();
    if n == 0 {
        return Ok(report);
    }
    let layout = Layout::new(device, precision, model, plan, crowd)?;
    device.expect_memory(layout.n_bytes, "moving particles takes")?;
    let mut integration = Integration::new(device, precision, model, plan, layout)?;
    // First one tile per block, to measure; then as many as take about the target duration.
    let tile_rows = integration.kernel.tile_rows();
    let (mut first, mut rows) = (0, (integration.blocks.len() * tile_rows).min(integration.chunk));
    while first < n {
        check(watch)?;
        let began = Instant::now();
        let range = first..n.min(first + rows);
        report.add(&integration.run(range.clone(), crowd.first, slabs)?);
        watch.advanced(range.end as u64, n as u64);
        let fit = range.len() as f64 * LAUNCH.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9);
        (first, rows) = (range.end, (fit as usize / tile_rows).max(1) * tile_rows);
        rows = rows.min(integration.chunk);
    }
    Ok(report)
}

/// Bytes of the device's memory that [`integrate`] takes.
pub fn integration_memory(
    device: &Device,
    precision: Precision,
    model: &Model,
    plan: &Plan,
    share: &Share<'_>,
) -> Result<usize> {
    let n = share.validate(model, plan)?;
    let crowd = Crowd { first: share.first, n, columns: columns(model, share) };
    refuse_growth_head(model, crowd.columns)?;
    Ok(if n == 0 { 0 } else { Layout::new(device, precision, model, plan, crowd)?.n_bytes })
}

/// Weights by a growth head take a second network along, which kernels do not have.
fn refuse_growth_head(model: &Model, [_, log_weights, _]: [usize; 3]) -> Result<()> {
    if model.growth_head.is_none() || log_weights == 0 {
        return Ok(());
    }
    let problem = "is a network of its own for growth, by which a GPU weighs no particles";
    Err(Error::input("model", "objective.growth_head", problem, "use the `CpuEngine`"))
}

/// Requirements of particles in `dim` dimensions: with log q, the directions of its divergence.
fn needs(plan: &Plan, dim: usize, has_density: bool) -> RowNeeds {
    let n_probes = if has_density { plan.divergence.n_directions(dim) } else { 0 };
    RowNeeds { n_probes, work: Work::Particles, ..RowNeeds::default() }
}

/// How particles use the chip.
pub fn explain(device: &Device, precision: Precision, model: &Model, plan: &Plan, has_density: bool) -> Result<String> {
    let needs = needs(plan, model.architecture.dim, has_density);
    let network = Network::on(device, &model.architecture, precision, needs.n_probes);
    let IntegrationKernel { name, layout, needs, .. } = IntegrationKernel::of(device, &network, precision, needs)?;
    explain::describe(device, precision, &network, needs, (name, layout))
}

/// Device layout of an integration, planned before anything is allocated.
struct Layout {
    network: Network,
    needs: RowNeeds,
    /// Values per particle in each channel; 0 if the channel is not integrated.
    columns: [usize; 3],
    /// Floats of a block's scratch memory.
    scratch: usize,
    kernel: IntegrationKernel,
    n_blocks: usize,
    /// Particles of a launch.
    chunk: usize,
    n_bytes: usize,
}

impl Layout {
    fn new(device: &Device, precision: Precision, model: &Model, plan: &Plan, crowd: Crowd) -> Result<Layout> {
        let (dim, n_saved) = (model.architecture.dim, plan.save_at.len());
        let Crowd { n, columns, first: _ } = crowd;
        let needs = needs(plan, dim, columns[2] > 0);
        let network = Network::on(device, &model.architecture, precision, needs.n_probes);
        let kernel = IntegrationKernel::of(device, &network, precision, needs)?;
        let (needs, tile_rows) = (kernel.needs, kernel.tile_rows());

        // A block's rows, its scratch memory and its report; and what is saved of a
        // particle.
        let n_values: usize = columns.iter().sum();
        let n_stages = Tableau::of(plan.method).nodes.len();
        let scratch = scratch_per_block(&network, tile_rows, n_values, n_stages);
        let of_block = rows_bytes(&network, precision, needs, Extent::of_rows(tile_rows))
            + 4 * scratch
            + size_of::<IntegrationBlock>();
        let of_particle = 4 * n_saved * n_values;
        let of_steps = match plan.control {
            StepControl::Fixed { .. } => n_fixed_steps(device, plan)? * size_of::<FixedStep>() + 4 * n_saved,
            StepControl::Adaptive { .. } => 0,
        };
        let tables = precision.bytes() * network.n_packed
            + size_of::<f32>() * network.n_biases
            + size_of_val(model.architecture.time_embedding.frequencies())
            + size_of_val(&plan.save_at[..])
            + of_steps;
        let (n_blocks, chunk) = divide(device, (tables, of_block, of_particle), n, &kernel)?;
        let n_bytes = tables + n_blocks * of_block + chunk * of_particle;
        Ok(Layout { network, needs, columns, scratch, kernel, n_blocks, chunk, n_bytes })
    }
}

/// Everything on the device that all chunks of particles share.
struct Integration<'a> {
    device: &'a Device,
    model: &'a Model,
    plan: &'a Plan,
    network: Network,
    precision: Precision,
    kernel: IntegrationKernel,
    weights: Buffer<u8>,
    biases: Buffer<f32>,
    frequencies: Buffer<f64>,
    save_at: Buffer<f64>,
    /// Empty if the plan is adaptive.
    fixed_steps: FixedSteps,
    rows: Rows,
    scratch: Buffer<f32>,
    blocks: Buffer<IntegrationBlock>,
    /// Particles of a launch.
    chunk: usize,
    /// Positions, log w and log q, `[saved, chunk, columns]`; those that are not integrated have no
    /// columns.
    channels: [Channel; 3],
}

/// One integrated quantity: positions, log w or log q.
struct Channel {
    columns: usize,
    values: Buffer<f32>,
}

impl Channel {
    /// The values, if the quantity is integrated.
    fn integrated(&self) -> Option<&Buffer<f32>> {
        Some(&self.values).filter(|_| self.columns > 0)
    }
}

impl<'a> Integration<'a> {
    fn new(
        device: &'a Device,
        precision: Precision,
        model: &'a Model,
        plan: &'a Plan,
        layout: Layout,
    ) -> Result<Integration<'a>> {
        let Layout { network, needs, columns, scratch, kernel, n_blocks, chunk, n_bytes: _ } = layout;
        let (weights, biases) = network.pack(&model.parameters, precision);
        let (steps, before) = match plan.control {
            StepControl::Fixed { .. } => fixed_steps(model, plan),
            StepControl::Adaptive { .. } => Default::default(),
        };
        let channel = |columns: usize| -> Result<Channel> {
            Ok(Channel { columns, values: device.allocate(plan.save_at.len() * chunk * columns)? })
        };
        Ok(Integration {
            weights: device.upload(&weights)?,
            biases: device.upload(&biases)?,
            frequencies: device.upload(model.architecture.time_embedding.frequencies())?,
            save_at: device.upload(&plan.save_at)?,
            fixed_steps: FixedSteps::new(device, &steps, &before)?,
            rows: Rows::new(device, &network, precision, needs, Extent::of_rows(n_blocks * kernel.tile_rows()))?,
            scratch: device.allocate(n_blocks * scratch)?,
            blocks: device.allocate(n_blocks)?,
            chunk,
            channels: [channel(columns[0])?, channel(columns[1])?, channel(columns[2])?],
            device,
            model,
            plan,
            network,
            precision,
            kernel,
        })
    }

    /// Moves the particles `range` of `slabs`, of which `first` is the number of the first among
    /// all.
    fn run(&mut self, range: Range<usize>, first: usize, slabs: &mut dyn Slabs) -> Result<IntegrationReport> {
        let device = self.device;
        slabs.start(device, &range, &mut self.channels)?;
        let n_blocks = self.blocks.len();
        device.write(&mut self.blocks, &vec![IntegrationBlock::default(); n_blocks])?;
        self.launch(first + range.start, range.len())?;
        let report = summary(&device.read(&self.blocks, n_blocks)?)?;
        slabs.save(device, &range, &self.channels, self.plan.save_at.len())?;
        Ok(report)
    }

    /// Launches the kernel on `n` particles, of which `first` is the number of the first among all.
    fn launch(&self, first: usize, n: usize) -> Result<()> {
        let Integration { model, plan, network, weights, biases, .. } = self;
        let [positions, log_weights, log_density] = &self.channels;
        let steps = match plan.control {
            StepControl::Fixed { .. } => Steps::Fixed(&self.fixed_steps),
            StepControl::Adaptive { rtol, atol } => Steps::Adaptive { rtol, atol },
        };
        let integrate = Integrate {
            kernel: self.kernel,
            action: Packed { network, precision: self.precision, weights, biases },
            objective: &model.objective,
            plan,
            frequencies: &self.frequencies,
            save_at: &self.save_at,
            steps,
            rows: &self.rows,
            scratch: &self.scratch,
            positions: &positions.values,
            log_weights: log_weights.integrated(),
            log_density: log_density.integrated(),
            n_particles: n,
            first_particle: first,
            blocks: &self.blocks,
        };
        integrate.launch(self.device)
    }
}

/// The intervals between consecutive saved times.
fn stretches(plan: &Plan) -> impl Iterator<Item = (f64, f64)> + '_ {
    [plan.t0].into_iter().chain(plan.save_at.iter().copied()).zip(plan.save_at.iter().copied())
}

/// Number of fixed steps of a plan.
///
/// # Errors
/// [`Error::Input`] for more than half of the free memory holds.
fn n_fixed_steps(device: &Device, plan: &Plan) -> Result<usize> {
    let n_steps: u64 = stretches(plan).map(|(from, to)| plan.fixed_steps(from, to)).fold(0, u64::saturating_add);
    let free = device.free_memory()?;
    if n_steps > u64::from(u32::MAX) || n_steps as usize > free / 2 / size_of::<FixedStep>() {
        let problem =
            format!("are {n_steps}, of which each takes {} of {free} free bytes on the GPU", size_of::<FixedStep>());
        return Err(Error::setting(PLAN, "StepControl::Fixed", problem, "use fewer steps"));
    }
    Ok(n_steps as usize)
}

/// All steps of a plan, and how many of them come before each saved time.
fn fixed_steps(model: &Model, plan: &Plan) -> (Vec<FixedStep>, Vec<u32>) {
    let (mut steps, mut before) = (Vec::new(), Vec::new());
    for (from, to) in stretches(plan) {
        steps.extend(plan.steps_between(from, to).map(|(t, h)| {
            let deviation = plan.noise_deviation(&model.objective, t, h);
            FixedStep { t, h, deviation, unused: 0 }
        }));
        before.push(steps.len() as u32);
    }
    (steps, before)
}

/// Blocks of a launch and its particles at most, for what a block and a particle take in bytes
/// besides `tables`.
fn divide(
    device: &Device,
    (tables, of_block, of_particle): (usize, usize, usize),
    n: usize,
    kernel: &IntegrationKernel,
) -> Result<(usize, usize)> {
    let tile_rows = kernel.tile_rows();
    let free = device.free_memory()?.saturating_sub(tables);
    // Allocations are rounded up, and others use the GPU too.
    let usable = free / 10 * 9;
    let tile = of_particle * tile_rows.min(n);
    let n_tiles = n.div_ceil(tile_rows);
    let most = n_tiles.min(device.n_multiprocessors()? * kernel.layout.blocks_at_once);
    // Half of the memory at most for blocks, unless one alone needs more.
    let n_blocks = most.min(usable / 2 / of_block).max(1);
    let left = usable.saturating_sub(n_blocks * of_block);
    if left < tile {
        return Err(Error::Device {
            kind: DeviceKind::OutOfMemory,
            device: device.describe(),
            problem: format!(
                "{tile_rows} particles need {of_block} bytes on their way and {tile} bytes for their saved values, and {free} bytes are free"
            ),
            fix: "save at fewer times, use fewer probes of the divergence, or free memory on the GPU".into(),
        });
    }
    let chunk = (left / of_particle).min(MAX_CHUNK);
    Ok((n_blocks, if n <= chunk { n } else { chunk / tile_rows * tile_rows }))
}

/// Sums the reports of all blocks, or returns the failure of the first failed tile.
fn summary(blocks: &[IntegrationBlock]) -> Result<IntegrationReport> {
    let sound = Some(IntegrationFailure::None);
    let failed = blocks.iter().filter(|block| block.failure.get() != sound).min_by_key(|block| block.failed_tile);
    if let Some(block) = failed {
        return Err(match block.failure.get() {
            Some(IntegrationFailure::Tolerance) => Plan::impossible_tolerance(block.failed_time),
            Some(IntegrationFailure::NotFinite | IntegrationFailure::None) | None => {
                Plan::lost_particle(block.failed_step)
            }
        });
    }
    let mut report = IntegrationReport::default();
    for block in blocks {
        report.add(&IntegrationReport {
            velocity_evaluations: block.velocity_evaluations,
            accepted_steps: block.accepted_steps,
            rejected_steps: block.rejected_steps,
        });
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::testing;
    use super::*;
    use crate::integrate::{Method, Trajectories};
    use crate::laplacian::Laplacian;
    use crate::model::{Activation, Architecture, Coordinates, Head, TimeEmbedding, initial_parameters};
    use crate::objective::Objective;

    /// The memory stated before is the memory taken.
    #[test]
    fn memory_is_stated_to_the_last_kibibyte() {
        let architecture = Architecture {
            dim: 3,
            hidden: vec![20],
            activation: Activation::Tanh,
            head: Head::Scalar,
            time_embedding: TimeEmbedding::Fourier { frequencies: vec![0.5, 2.0] },
            conditions: 0,
        };
        let model = Model {
            coordinates: Coordinates::identity(3),
            objective: Objective { growth: 0.1, ..Objective::default() },
            parameters: initial_parameters(&architecture, 1),
            growth_head: None,
            architecture,
        };
        let adaptive = StepControl::Adaptive { rtol: 1e-2, atol: 1e-2 };
        for (method, control) in [(Method::Euler, StepControl::Fixed { steps: 3 }), (Method::Dopri5, adaptive)] {
            for follows in [false, true] {
                let device = testing::device();
                let plan = Plan { divergence: Laplacian::EXACT, ..Plan::new(method, control, 0.0, vec![0.5, 1.0]) };
                let n = 130;
                let [mut positions, mut weights, mut density] =
                    [3, 1, 1].map(|columns: usize| vec![0.0; 2 * n * columns]);
                let out = Trajectories {
                    positions: &mut positions,
                    log_weights: follows.then_some(&mut weights),
                    log_density: follows.then_some(&mut density),
                };
                let share = out.whole(&model, &plan).expect("fits");
                let stated = integration_memory(&device, Precision::Bf16, &model, &plan, &share).expect("fits");
                assert_eq!(device.taken.load(Relaxed), 0);
                integrate(&device, Precision::Bf16, &model, &plan, share, &()).expect("integrates");
                let taken = device.taken.load(Relaxed);
                assert!((stated..stated + 1024).contains(&taken), "{method:?}: {taken}, said to be {stated}");
            }
        }
    }
}
