//! Values that each thread carries from one sweep to a later one: see `kernels/tile/carried.cuh`.

use super::abi::{CarriedParams, THREADS};
use super::needs::{RowNeeds, Work};
use super::network::Network;
use crate::precision::Precision;

/// Elements of each thread in a unit.
const OF_THREAD: usize = 8;

/// Bytes of a unit.
pub fn unit_bytes(precision: Precision) -> usize {
    OF_THREAD * THREADS as usize * precision.bytes()
}

/// Kinds of values that rows carry: the derivatives of the activation that their sweeps need, and
/// e_z of each probe (`Kinds` in `kernels/net/epilogue.cuh`).
fn n_kinds(needs: RowNeeds) -> usize {
    match (needs.n_probes, needs.work) {
        (0, Work::Training) => 2,
        (0, Work::Bend | Work::Particles) => 1,
        (n_probes, _) => 5 + n_probes,
    }
}

/// Units of a tile whose products form `columns` columns at a time; none of them in shared memory.
pub fn carried(network: &Network, needs: RowNeeds, columns: usize) -> CarriedParams {
    let of_columns = columns * needs.tiles.rows() / (OF_THREAD * THREADS as usize);
    let of_layer = network.widest_hidden().div_ceil(columns) * of_columns;
    let of_kind = of_layer * (network.layers().len() - 1);
    let of_tile = of_kind * n_kinds(needs);
    CarriedParams { of_layer: of_layer as u32, of_kind: of_kind as u32, of_tile: of_tile as u32, n_shared: 0 }
}

impl CarriedParams {
    /// The same with as many units in shared memory as `room` bytes hold.
    #[must_use]
    pub fn in_shared(self, room: usize, precision: Precision) -> CarriedParams {
        let n_shared = (room / unit_bytes(precision)).min(self.of_tile as usize) as u32;
        CarriedParams { n_shared, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::abi::{BROAD_COLUMNS, NARROW_COLUMNS, WIDE_COLUMNS};
    use crate::engine::cuda::needs::Tiles;
    use crate::model::Architecture;

    /// Every element of a hidden layer has a unit, and a layer that is no multiple of a product's
    /// columns has whole column tiles.
    #[test]
    fn units_cover_all_elements() {
        let per_row = |hidden: &[usize], columns: usize, needs: RowNeeds| {
            let network = Network::new(&Architecture::new(3, hidden.to_vec()));
            let units = carried(&network, needs, columns);
            let elements = |units: u32| units as usize * OF_THREAD * THREADS as usize / needs.tiles.rows();
            (elements(units.of_layer), elements(units.of_kind), elements(units.of_tile))
        };
        let training = RowNeeds::default();
        assert_eq!(per_row(&[64, 64, 64], NARROW_COLUMNS, training), (64, 192, 384));
        assert_eq!(per_row(&[20, 130], WIDE_COLUMNS, training), (256, 512, 1024));
        assert_eq!(per_row(&[256, 300], BROAD_COLUMNS, training), (512, 1024, 2048));
        let low = RowNeeds { tiles: Tiles::Low, ..training };
        assert_eq!(per_row(&[256, 300], BROAD_COLUMNS, low), (512, 1024, 2048));
        let particles = RowNeeds { work: Work::Particles, ..training };
        assert_eq!(per_row(&[256], WIDE_COLUMNS, particles), (256, 256, 256));
        assert_eq!(per_row(&[256], WIDE_COLUMNS, RowNeeds { n_probes: 3, ..particles }), (256, 256, 8 * 256));
    }

    #[test]
    fn shared_memory_takes_whole_units() {
        let units = carried(&Network::new(&Architecture::new(3, vec![64, 64])), RowNeeds::default(), NARROW_COLUMNS);
        let fit = |room: usize| units.in_shared(room, Precision::Bf16).n_shared;
        assert_eq!([fit(0), fit(4095), fit(4096), fit(3 * 4096 + 1), fit(1 << 30)], [0, 0, 1, 3, units.of_tile]);
    }
}
