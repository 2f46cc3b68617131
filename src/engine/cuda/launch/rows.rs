//! Rows on the device: their buffers, and the argument block that points to them.

use super::super::abi::{DevicePtr, RowBuffers};
use super::super::driver::{Buffer, Device};
use super::super::needs::{RowNeeds, Work};
use super::super::network::Network;
use super::super::workspace::{BytesOfOne, Extent, bytes_of_one, delta_overwrites_a, rows_bytes};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// Buffers for the rows of a launch and their slots.
pub struct Rows {
    buffers: Vec<Buffer<u8>>,
    /// Points to `buffers`.
    params: RowBuffers,
    needs: RowNeeds,
    /// Bytes of a row, and of a slot, in each buffer.
    sizes: ([BytesOfOne; 15], [BytesOfOne; 13]),
}

impl Rows {
    /// Buffers for `extent` rows and slots of `network`.
    ///
    /// # Errors
    /// [`Error::Device`] says how much memory was asked for, how much there is, and what to reduce.
    pub fn new(
        device: &Device,
        network: &Network,
        precision: Precision,
        needs: RowNeeds,
        extent: Extent,
    ) -> Result<Rows> {
        let Extent { rows, slots } = extent;
        let n_bytes = rows_bytes(network, precision, needs, extent);
        device.expect_memory(n_bytes, &format!("{rows} rows of the network take"))?;
        let sizes = bytes_of_one(network, precision, needs);
        let of_rows = sizes.0.iter().map(|(offset, bytes)| (*offset, bytes * rows));
        let of_slots = sizes.1.iter().map(|(offset, bytes)| (*offset, bytes * slots));
        let mut buffers = Vec::new();
        let mut params = RowBuffers {
            n_rows: rows as u32,
            n_slots: slots as u32,
            n_probes: needs.n_probes as u32,
            tile_rows: needs.tiles.rows() as u32,
            ..RowBuffers::default()
        };
        for (offset, bytes) in of_rows.chain(of_slots).filter(|(_, bytes)| *bytes > 0) {
            let buffer = device.allocate::<u8>(bytes)?;
            let address: DevicePtr<u8> = buffer.address();
            bytemuck::bytes_of_mut(&mut params)[offset..][..size_of::<DevicePtr<u8>>()]
                .copy_from_slice(bytemuck::bytes_of(&address));
            buffers.push(buffer);
        }
        if delta_overwrites_a(needs) {
            params.delta = params.a;
        }
        Ok(Rows { buffers, params, needs, sizes })
    }

    /// The argument block, for the launches of this floor: valid while `self` lives.
    pub(super) fn params(&self) -> RowBuffers {
        self.params
    }

    /// Checks that the buffers are those that `work` on `network` needs.
    ///
    /// # Errors
    /// [`Error::Shape`] if they were made for other work, another network or other operands.
    pub(super) fn check(&self, network: &Network, precision: Precision, work: Work) -> Result<()> {
        let wanted = bytes_of_one(network, precision, RowNeeds { work, ..self.needs });
        if self.needs.work == work && self.sizes == wanted {
            return Ok(());
        }
        let sum =
            |(row, slot): ([BytesOfOne; 15], [BytesOfOne; 13])| row.iter().chain(&slot).map(|(_, bytes)| bytes).sum();
        Err(Error::Shape { buffer: "rows of this network", expected: sum(wanted), got: sum(self.sizes) })
    }

    /// Requirements that the rows were made for.
    pub fn needs(&self) -> RowNeeds {
        self.needs
    }

    /// Rows that there is space for.
    pub fn n_rows(&self) -> usize {
        self.params.n_rows as usize
    }

    /// Slots that there is space for.
    pub fn n_slots(&self) -> usize {
        self.params.n_slots as usize
    }

    /// True if these rows have the buffer `field`.
    pub fn has<T>(&self, field: Field<T>) -> bool {
        !field(&self.params).is_null()
    }

    /// Replaces the bytes of the buffer `field` from byte `start` on.
    ///
    /// # Errors
    /// [`Error::Shape`] if these rows have no such buffer or it is too short.
    pub fn write<T>(&mut self, device: &Device, field: Field<T>, start: usize, bytes: &[u8]) -> Result<()> {
        let address = field(&self.params).cast();
        let missing = Error::Shape { buffer: "rows", expected: bytes.len(), got: 0 };
        let buffer = self.buffers.iter_mut().find(|buffer| buffer.address() == address).ok_or(missing)?;
        device.write_at(buffer, start, bytes)
    }

    /// The first `n` elements of the buffer `field`, after all launches so far.
    ///
    /// # Errors
    /// [`Error::Shape`] if these rows have no such buffer or it is too short.
    pub fn read<T: bytemuck::Pod>(&self, device: &Device, field: Field<T>, n: usize) -> Result<Vec<T>> {
        let address = field(&self.params).cast();
        let mut values = vec![T::zeroed(); n];
        let missing = Error::Shape { buffer: "rows", expected: n, got: 0 };
        let buffer = self.buffers.iter().find(|buffer| buffer.address() == address).ok_or(missing)?;
        device.read_into(buffer, bytemuck::cast_slice_mut::<T, u8>(&mut values))?;
        Ok(values)
    }

    /// Copies the first `n` elements of the buffer `field` to those of `to` from `start` on, behind
    /// all launches so far.
    ///
    /// # Errors
    /// [`Error::Shape`] if these rows have no such buffer, or one of both is too short.
    pub fn copy(&self, device: &Device, field: Field<f32>, n: usize, to: &mut Buffer<f32>, start: usize) -> Result<()> {
        let address = field(&self.params).cast();
        let missing = Error::Shape { buffer: "rows", expected: n, got: 0 };
        let buffer = self.buffers.iter().find(|buffer| buffer.address() == address).ok_or(missing)?;
        device.copy((buffer, 0), (to, start), n)
    }
}

/// Selects a buffer of rows by its field in the argument block: `|rows| rows.x`.
pub type Field<T> = fn(&RowBuffers) -> DevicePtr<T>;
