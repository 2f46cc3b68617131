//! Values that each thread carries from one sweep to a later one: see `kernels/tile/carried.cuh`.

use super::abi::{BROAD_COLUMNS, CarriedParams, NARROW_COLUMNS, Products, THREADS};
use super::needs::{RowNeeds, Tiles, Work};
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

/// Groups of columns of a product of `columns` columns: `Product::kGroups`.
fn n_groups(network: &Network, needs: RowNeeds, columns: usize) -> usize {
    // Of a thread's eight consecutive columns in 32.
    const OF_WARPGROUP: usize = 32;
    if network.products == Products::Wgmma {
        return columns / OF_WARPGROUP;
    }
    let has_two = match columns {
        BROAD_COLUMNS => needs.tiles != Tiles::Low,
        NARROW_COLUMNS => needs.tiles == Tiles::High,
        _ => false,
    };
    if has_two { 2 } else { 1 }
}

/// Units of a tile whose products form `columns` columns at a time. Those of as many groups of
/// columns as `room` bytes hold lie in shared memory: those of one lie together.
pub fn carried(network: &Network, precision: Precision, needs: RowNeeds, columns: usize, room: usize) -> CarriedParams {
    let of_columns = columns * needs.tiles.rows() / (OF_THREAD * THREADS as usize);
    let of_layer = network.widest_hidden().div_ceil(columns) * of_columns;
    let of_kind = of_layer * (network.layers().len() - 1);
    let of_tile = of_kind * n_kinds(needs);
    let of_group = of_columns / n_groups(network, needs, columns);
    let n_shared = (room / (of_group * unit_bytes(precision)) * of_group).min(of_tile);
    let [of_layer, of_kind, of_tile, n_shared] = [of_layer, of_kind, of_tile, n_shared].map(|units| units as u32);
    CarriedParams { of_layer, of_kind, of_tile, n_shared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cuda::abi::WIDE_COLUMNS;
    use crate::model::Architecture;

    /// Every element of a hidden layer has a unit, and a layer that is no multiple of a product's
    /// columns has whole column tiles.
    #[test]
    fn units_cover_all_elements() {
        let per_row = |hidden: &[usize], columns: usize, needs: RowNeeds| {
            let network = Network::new(&Architecture::new(3, hidden.to_vec()));
            let units = carried(&network, Precision::Bf16, needs, columns, 0);
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
    fn shared_memory_takes_whole_groups_of_columns() {
        let network = Network::new(&Architecture::new(3, vec![64, 64]));
        let units = |room| carried(&network, Precision::Bf16, RowNeeds::default(), NARROW_COLUMNS, room);
        let of_group = 2 * 4096; // 128 rows of 32 columns
        let fit = [0, of_group - 1, of_group, 3 * of_group + 1, 1 << 30].map(|room| units(room).n_shared);
        assert_eq!(fit, [0, 0, 2, 6, units(0).of_tile]);
    }
}
