//! Launch of `kernels/integrate.cu`, `kernels/integrate_broad.cu` and
//! `kernels/integrate_narrow.cu`: all steps of tiles of particles.

use super::super::abi::{DevicePtr, FixedStep, IntegrateParams, IntegrationBlock, Products, TableauParams, Tag};
use super::super::driver::{Buffer, Device, Kernel};
use super::super::needs::{RowNeeds, Tiles, Work};
use super::super::network::Network;
use super::checks::check_least;
use super::shared_layout::{ProductWidth, SharedLayout};
use super::sweep::of_16_bits;
use super::{Packed, Rows, threads};
use crate::error::{Result, check_len};
use crate::integrate::Plan;
use crate::objective::Objective;
use crate::precision::Precision;
use crate::tableau::Tableau;

impl TableauParams {
    fn new(tableau: &Tableau) -> Self {
        let mut params = TableauParams {
            n_stages: tableau.nodes.len() as u32,
            first_same_as_last: u32::from(tableau.first_same_as_last),
            ..TableauParams::default()
        };
        params.nodes[..tableau.nodes.len()].copy_from_slice(tableau.nodes);
        for (row, stage) in params.stages.iter_mut().zip(tableau.stages) {
            row[..stage.len()].copy_from_slice(stage);
        }
        params.weights[..tableau.weights.len()].copy_from_slice(tableau.weights);
        params.error[..tableau.error.len()].copy_from_slice(tableau.error);
        params
    }
}

/// The kernel for a network, and its shared memory.
#[derive(Clone, Copy, Debug)]
pub struct IntegrationKernel {
    /// The kernel.
    pub name: Kernel,
    /// Its shared memory.
    pub layout: SharedLayout,
    /// Of the rows that it works on.
    pub needs: RowNeeds,
}

impl IntegrationKernel {
    /// The kernel that moves particles by `network` in rows with `needs`, but for the height of
    /// their tiles, which it chooses.
    ///
    /// # Errors
    /// `Device` if the driver fails.
    pub fn of(device: &Device, network: &Network, precision: Precision, needs: RowNeeds) -> Result<Self> {
        let [broad, wide, narrow] = if needs.n_probes > 0 {
            [Kernel::IntegrateBroadDensity, Kernel::IntegrateDensity, Kernel::IntegrateNarrowDensity]
        } else {
            [Kernel::IntegrateBroad, Kernel::Integrate, Kernel::IntegrateNarrow]
        }
        .map(|kernel| kernel(precision));
        if network.products == Products::Wgmma {
            check_len("probes of products of warpgroups", 0, needs.n_probes)?;
            let name = of_16_bits(precision, [Kernel::IntegrateWgmmaBf16, Kernel::IntegrateWgmmaF16])?;
            let layout = SharedLayout::of(device, precision, name, network, needs, ProductWidth::Warpgroup)?;
            return Ok(IntegrationKernel { name, layout, needs });
        }
        if network.is_narrow() {
            let layout = SharedLayout::of(device, precision, narrow, network, needs, ProductWidth::Narrow)?;
            return Ok(IntegrationKernel { name: narrow, layout, needs });
        }
        // Broad products need the room for their operand, wide ones have high tiles.
        let broad_needs = RowNeeds { tiles: Tiles::of_broad(network, precision, needs.n_probes), ..needs };
        let (name, layout) = SharedLayout::choose(device, precision, [broad, wide], network, broad_needs)?;
        if name == broad || broad_needs == needs {
            return Ok(IntegrationKernel { name, layout, needs: broad_needs });
        }
        let layout = SharedLayout::of(device, precision, wide, network, needs, ProductWidth::Wide)?;
        Ok(IntegrationKernel { name, layout, needs })
    }

    /// Rows of its tiles.
    pub fn tile_rows(&self) -> usize {
        self.needs.tiles.rows()
    }
}

/// Floats of scratch memory of a block that moves particles of `n_values` values with `n_stages`
/// stages in tiles of `tile_rows` rows.
pub fn scratch_per_block(network: &Network, tile_rows: usize, n_values: usize, n_stages: usize) -> usize {
    let (dim, n_features) = (network.params.dim as usize, network.params.n_features as usize);
    tile_rows * (n_values * (2 + n_stages) + dim) + n_features
}

/// All fixed steps of an integration.
pub struct FixedSteps {
    steps: Buffer<FixedStep>,
    before: Buffer<u32>,
}

impl FixedSteps {
    /// `steps`, of which `before[k]` come before saved time `k`.
    ///
    /// # Errors
    /// `Shape` for more steps before a time than there are, `Device` if memory runs out.
    pub fn new(device: &Device, steps: &[FixedStep], before: &[u32]) -> Result<FixedSteps> {
        let most = before.iter().copied().max().unwrap_or(0) as usize;
        check_least("steps before a saved time", most, steps.len())?;
        // Zero steps have an address too: a null one means adaptive steps.
        Ok(FixedSteps { steps: device.upload(steps)?, before: device.upload(before)? })
    }
}

/// Steps of an integration.
#[derive(Clone, Copy)]
pub enum Steps<'a> {
    /// Given.
    Fixed(&'a FixedSteps),
    /// Found by the error of each.
    Adaptive {
        /// Relative tolerance.
        rtol: f64,
        /// Absolute tolerance.
        atol: f64,
    },
}

/// Moves particles.
#[derive(Clone, Copy)]
pub struct Integrate<'a> {
    /// The kernel.
    pub kernel: IntegrationKernel,
    /// The action.
    pub action: Packed<'a>,
    /// Dynamics.
    pub objective: &'a Objective,
    /// Method, start, noise and divergence.
    pub plan: &'a Plan,
    /// Frequencies of the time features.
    pub frequencies: &'a Buffer<f64>,
    /// Saved times of the plan.
    pub save_at: &'a Buffer<f64>,
    /// Its steps.
    pub steps: Steps<'a>,
    /// A tile for each block.
    pub rows: &'a Rows,
    /// [`scratch_per_block`] floats for each block.
    pub scratch: &'a Buffer<f32>,
    /// Changed: positions, `[saved, n_particles, dim]`; the first slab is the start.
    pub positions: &'a Buffer<f32>,
    /// Changed: log w, if it is integrated.
    pub log_weights: Option<&'a Buffer<f32>>,
    /// Changed: log q, if it is integrated.
    pub log_density: Option<&'a Buffer<f32>>,
    /// Particles of this launch.
    pub n_particles: usize,
    /// Index of the first one among all, on which random numbers depend.
    pub first_particle: usize,
    /// Written: one for each block.
    pub blocks: &'a Buffer<IntegrationBlock>,
}

impl Integrate<'_> {
    /// Launches as many blocks as there are reports.
    ///
    /// # Errors
    /// `Shape` names a buffer, `Device` the kernel.
    pub fn launch(&self, device: &Device) -> Result<()> {
        let Integrate { kernel, action, objective, plan, frequencies, save_at, steps, rows, scratch, .. } = *self;
        let Integrate { positions, log_weights, log_density, n_particles, first_particle, blocks, .. } = *self;
        let Packed { network, precision, weights, biases } = action;
        let (n_blocks, n_saved, dim) = (blocks.len(), plan.save_at.len(), network.params.dim as usize);
        let tableau = Tableau::of(plan.method);
        action.check()?;
        rows.check(network, precision, Work::Particles)?;
        check_least("rows", n_blocks * kernel.tile_rows(), rows.n_rows())?;
        check_least("slots", n_blocks * kernel.tile_rows(), rows.n_slots())?;
        check_len("rows of a tile", kernel.tile_rows(), rows.needs().tiles.rows())?;
        let n_directions = if log_density.is_some() { plan.divergence.n_directions(dim) } else { 0 };
        check_len("probes of the rows", n_directions, rows.needs().n_probes)?;
        check_len("probes of the kernel", n_directions, kernel.needs.n_probes)?;
        check_len("time features", network.params.n_features as usize, 1 + 2 * frequencies.len())?;
        check_len("saved times", n_saved, save_at.len())?;
        check_least("positions", n_saved * n_particles * dim, positions.len())?;
        for (name, channel) in [("log weights", log_weights), ("log density", log_density)] {
            check_least(name, n_saved * n_particles, channel.map_or(usize::MAX, Buffer::len))?;
        }
        let n_values = dim + usize::from(log_weights.is_some()) + usize::from(log_density.is_some());
        let per_block = scratch_per_block(network, kernel.tile_rows(), n_values, tableau.nodes.len());
        check_least("scratch memory", n_blocks * per_block, scratch.len())?;
        let (steps, steps_before, rtol, atol) = match steps {
            Steps::Fixed(FixedSteps { steps, before }) => {
                check_len("steps before the saved times", n_saved, before.len())?;
                (steps.address(), before.address(), 0.0, 0.0)
            }
            Steps::Adaptive { rtol, atol } => (DevicePtr::NULL, DevicePtr::NULL, rtol, atol),
        };
        let params = IntegrateParams {
            network: network.params,
            rows: rows.params(),
            carried: kernel.layout.carried,
            weights: weights.address(),
            biases: biases.address(),
            positions: positions.address(),
            log_weights: log_weights.map_or(DevicePtr::NULL, Buffer::address),
            log_density: log_density.map_or(DevicePtr::NULL, Buffer::address),
            n_particles: n_particles as u64,
            first_particle: first_particle as u64,
            tableau: TableauParams::new(tableau),
            steps,
            steps_before,
            save_at: save_at.address(),
            t0: plan.t0,
            direction: if plan.save_at.last() < Some(&plan.t0) { -1.0 } else { 1.0 },
            rtol,
            atol,
            frequencies: frequencies.address(),
            seed: plan.noise.seed,
            scratch: scratch.address(),
            slot_size: per_block as u64,
            blocks: blocks.address(),
            growth: objective.growth as f32,
            cost_exponent: objective.cost_exponent as f32,
            probe_weight: plan.divergence.probe_weight() as f32,
            n_saved: n_saved as u32,
            increments_per_step: plan.noise.increments_per_step,
            rule: Tag::of(plan.divergence.rule),
            n_operand_chunks: kernel.layout.n_operand_chunks,
            n_resident: kernel.layout.n_resident,
        };
        // SAFETY: reads and writes the buffers of `self`, whose lengths are checked above, and no
        // step beyond the last (checked by `FixedSteps::new`).
        unsafe {
            device.launch(kernel.name, [n_blocks as u32, 1, 1], threads(kernel.name), kernel.layout.bytes, &params)
        }
    }
}
