//! Everything one thread holds for the tile it works on, allocated once.

use super::panel::{Aligned, Tile};
use super::product::BLOCK_ROWS;
use super::weights::Packing;
use crate::model::Architecture;

/// The tiles of one hidden layer. A sweep replaces what no later sweep reads; the comments give the order.
pub struct HiddenTiles {
    /// a = f(z): primal.
    pub a: Tile,
    /// f′(z): primal.
    pub f1: Tile,
    /// f″(z) from the primal, then (Wᵀδ) ⊙ f″ from the reverse, then that ⊙ c_z from the tangent, then z̄ from the adjoint.
    pub z_bar: Tile,
    /// δ = ∂s/∂z: reverse.
    pub delta: Tile,
    /// c_a, scaled by ω: tangent.
    pub c_a: Tile,
}

/// One thread's tile: the rows, their sweeps and what the head needs.
pub struct Workspace {
    /// Most rows of a tile.
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
    /// φ′(t), `[capacity, features]` row-major.
    pub d_phi: Vec<f32>,
    /// t of each row.
    pub t: Vec<f32>,
    /// ω(t) of each row.
    pub omega: Vec<f32>,
    /// ω′(t) of each row.
    pub d_omega: Vec<f32>,
    /// s of each row.
    pub s: Vec<f32>,
    /// ∂ₜs of each row.
    pub ds_dt: Vec<f32>,
    /// ∇s, `[capacity, dim]` row-major.
    pub grad_s: Vec<f32>,
    /// Parked sums of a product.
    pub parked: Aligned,
}

impl Workspace {
    /// Space for tiles of up to `capacity` rows, rounded up to whole register blocks.
    pub fn new(architecture: &Architecture, packing: &Packing, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(BLOCK_ROWS);
        let width = packing.width;
        let tile = |columns: usize| Tile::zeros(capacity, columns, width);
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
                .map(|&n| HiddenTiles { a: tile(n), f1: tile(n), z_bar: tile(n), delta: tile(n), c_a: tile(n) })
                .collect(),
            output: tile(n_outputs),
            seed: tile(n_outputs),
            output_c: tile(n_outputs),
            output_bar: tile(n_outputs),
            d_phi: vec![0.0; capacity * architecture.time_embedding.width()],
            t: row(),
            omega: row(),
            d_omega: row(),
            s: row(),
            ds_dt: row(),
            grad_s: vec![0.0; capacity * architecture.dim],
            parked: Aligned::zeros(capacity * width),
        }
    }
}

/// Most rows of a tile: enough to use each panel of weights many times, few enough that a tile's sweeps stay in a
/// core's share of the cache (chosen with `amatch bench`; 48 to 144 differ by less than 3 %).
const TILE_ROWS: usize = 96;

/// Rows of each tile when `n` rows are divided as evenly as whole register blocks allow; depends on `n` alone.
pub fn rows_per_tile(n: usize) -> usize {
    n.div_ceil(n.div_ceil(TILE_ROWS).max(1)).next_multiple_of(BLOCK_ROWS).max(BLOCK_ROWS)
}
