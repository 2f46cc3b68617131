//! Which products a network gets: see [`Products`].

use super::abi::{BROAD_COLUMNS, Products, WGMMA_COLUMNS, WIDTH_UNIT};
use super::driver::Device;
use super::needs::{TileChoice, Tiles};
use super::network::Network;
use crate::model::{Activation, Architecture};
use crate::precision::Precision;

impl Network {
    /// The layout of `architecture`, which is valid, for the products that suit it on `device` in
    /// high tiles: those of warpgroups where the device is to use them and they know the network.
    pub fn on(device: &Device, architecture: &Architecture, precision: Precision, n_probes: usize) -> Network {
        let network = Network::new(architecture);
        if !device.uses_warpgroups() || n_probes > 0 || !known_to_warpgroups(&network, precision) {
            return network;
        }
        Network::of_products(architecture, Products::Wgmma)
    }

    /// The same for a batch of `n_tiles` high tiles, and the height of its tiles, chosen by
    /// `choice`.
    pub fn for_batch(
        device: &Device,
        architecture: &Architecture,
        precision: Precision,
        n_probes: usize,
        (choice, n_tiles): (TileChoice, usize),
    ) -> (Network, Tiles) {
        let plain = Network::new(architecture);
        let tiles = choice.tiles(&plain, precision, n_probes, n_tiles);
        // Products of warpgroups have high tiles, in place of the middle ones that are chosen for
        // others.
        let is_high = match tiles {
            Tiles::Low => false,
            #[cfg(test)]
            Tiles::Middle if choice == TileChoice::Given(Tiles::Middle) => false,
            Tiles::Middle | Tiles::High => true,
        };
        let network = if is_high { Network::on(device, architecture, precision, n_probes) } else { plain };
        let tiles = if network.products == Products::Wgmma { Tiles::High } else { tiles };
        (network, tiles)
    }
}

/// True if products of warpgroups are made for the network: operands of 16 bits, more columns than
/// those of narrow kernels, whole pairs of stages, and, where results do not stay in registers, the
/// activation that has code of its own for each group of columns.
fn known_to_warpgroups(network: &Network, precision: Precision) -> bool {
    let fits = network.in_width() == WIDTH_UNIT || network.in_width().is_multiple_of(WGMMA_COLUMNS);
    let stays = network.widest_hidden() <= BROAD_COLUMNS;
    precision.bytes() == 2
        && !network.is_narrow()
        && fits
        && (stays || network.architecture.activation == Activation::Silu)
}
