//! All memory of one thread for the tile it works on, allocated once.

use super::panel::{Aligned, Tile};
use super::product::REGISTER_ROWS;
use super::weights::Packing;
use crate::model::Architecture;

/// The tiles of one hidden layer. A sweep overwrites values that no later sweep reads; the comments
/// give the order.
pub struct HiddenTiles {
    /// a = f(z): primal.
    pub a: Tile,
    /// f′(z): primal.
    pub f1: Tile,
    /// In this order: without probes f″(z) from the primal and h = (Wᵀδ) ⊙ f″ from the reverse; g
    /// from the tangent; z̄ from the adjoint.
    pub z_bar: Tile,
    /// δ = ∂s/∂z: reverse.
    pub delta: Tile,
    /// c_a, scaled by ω: tangent.
    pub c_a: Tile,
    /// f″(z): primal. Like the two below, empty without probes.
    pub f2: Tile,
    /// h = (Wᵀδ) ⊙ f″: reverse.
    pub h: Tile,
    /// f‴(z) from the primal, then (Wᵀδ) ⊙ f‴ from the reverse.
    pub u_f3: Tile,
    /// One for each probe.
    pub probes: Vec<ProbeTiles>,
}

/// The tiles of one probe in one hidden layer.
pub struct ProbeTiles {
    /// e_z from the probe's tangent, then ē from its adjoint.
    pub e_z: Tile,
    /// e_a: tangent.
    pub e_a: Tile,
}

/// The two ends of one probe.
pub struct ProbeEnds {
    /// e₀ = [ε, 0].
    pub input: Tile,
    /// o_e from the probe's tangent, then the seed ē of its adjoint.
    pub output: Tile,
}

/// One thread's tile: the rows, their sweeps and the inputs of the head.
pub struct Workspace {
    /// Maximum number of rows.
    pub capacity: usize,
    /// Network input a₀ = [x, φ(t)].
    pub a0: Tile,
    /// Tangent input c₀ = ω [w, φ′(t)].
    pub c0: Tile,
    /// Wᵀδ at the input: [∂s/∂x through the network, ∂s/∂φ].
    pub input_grad: Tile,
    /// Hidden layers, first to last.
    pub hidden: Vec<HiddenTiles>,
    /// Network output o.
    pub output: Tile,
    /// ∂s/∂o: seed of the reverse sweep.
    pub seed: Tile,
    /// Tangent output o_c.
    pub output_c: Tile,
    /// Seed of the adjoint sweep.
    pub output_bar: Tile,
    /// One for each probe; none without diffusion.
    pub probes: Vec<ProbeEnds>,
    /// Weight k of a probe in each row: one panel with k in every lane.
    pub probe_weight: Tile,
    /// φ′(t), `[capacity, features]` row-major.
    pub d_phi: Vec<f32>,
    /// t of each row.
    pub t: Vec<f32>,
    /// Weight of each row. Interior rows: of the interior term, ω(t) times mass. Boundary rows: of
    /// s.
    pub weight: Vec<f32>,
    /// Weight of s in each interior row: ω′(t) times mass.
    pub on_potential: Vec<f32>,
    /// Weight of the time of each interior row in a mean over time.
    pub sampling_weight: Vec<f32>,
    /// Velocity u of the path, `[capacity, dim]` row-major.
    pub velocity: Vec<f32>,
    /// s of each row.
    pub s: Vec<f32>,
    /// ∂ₜs of each row.
    pub ds_dt: Vec<f32>,
    /// ∇s, `[capacity, dim]` row-major.
    pub grad_s: Vec<f32>,
    /// Gradient of each row's term with respect to its point, `[capacity, dim]` row-major.
    pub grad_x: Vec<f32>,
    /// Parked sums of a product.
    pub parked: Aligned,
}

impl Workspace {
    /// Space for tiles of up to `capacity` rows, rounded up to whole register blocks, with
    /// `n_probes` probes.
    pub fn new(architecture: &Architecture, packing: &Packing, capacity: usize, n_probes: usize) -> Self {
        let capacity = capacity.next_multiple_of(REGISTER_ROWS);
        let width = packing.width;
        let tile = |columns: usize| Tile::zeros(capacity, columns, width);
        let probed = |columns: usize| tile(if n_probes > 0 { columns } else { 0 });
        let (n_inputs, n_outputs) = (architecture.n_inputs(), architecture.n_outputs());
        let row = || vec![0.0; capacity];
        Workspace {
            capacity,
            a0: tile(n_inputs),
            c0: tile(n_inputs),
            input_grad: tile(n_inputs),
            hidden: architecture
                .hidden
                .iter()
                .map(|&n| HiddenTiles {
                    a: tile(n),
                    f1: tile(n),
                    z_bar: tile(n),
                    delta: tile(n),
                    c_a: tile(n),
                    f2: probed(n),
                    h: probed(n),
                    u_f3: probed(n),
                    probes: (0..n_probes).map(|_| ProbeTiles { e_z: tile(n), e_a: tile(n) }).collect(),
                })
                .collect(),
            output: tile(n_outputs),
            seed: tile(n_outputs),
            output_c: tile(n_outputs),
            output_bar: tile(n_outputs),
            probes: (0..n_probes).map(|_| ProbeEnds { input: tile(n_inputs), output: tile(n_outputs) }).collect(),
            probe_weight: probed(width),
            d_phi: vec![0.0; capacity * architecture.time_embedding.width()],
            t: row(),
            weight: row(),
            on_potential: row(),
            sampling_weight: row(),
            velocity: vec![0.0; capacity * architecture.dim],
            s: row(),
            ds_dt: row(),
            grad_s: vec![0.0; capacity * architecture.dim],
            grad_x: vec![0.0; capacity * architecture.dim],
            parked: Aligned::zeros(capacity * width),
        }
    }
}

impl Workspace {
    /// Sets the weight of every probe of `row`.
    pub fn set_probe_weight(&mut self, row: usize, weight: f32) {
        for lane in 0..self.probe_weight.width() {
            *self.probe_weight.at_mut(row, lane) = weight;
        }
    }
}

/// Maximum number of rows: enough to reuse each panel of weights many times, few enough that a
/// tile's sweeps stay in one core's portion of the cache (chosen with `amatch bench`; 48 to 144
/// differ by less than 3 %).
const TILE_ROWS: usize = 96;

/// Rows per tile if `n` rows are divided as evenly as whole register blocks allow. Depends only on
/// `n`.
pub fn rows_per_tile(n: usize) -> usize {
    n.div_ceil(n.div_ceil(TILE_ROWS).max(1)).next_multiple_of(REGISTER_ROWS).max(REGISTER_ROWS)
}
