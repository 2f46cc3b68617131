//! A coupling of the cells of two times, as `wot` writes it and CellRank's `RealTimeKernel` reads
//! it: a file of AnnData whose `X [n, m]` says how much mass goes from cell i to cell j.

use std::io::{self, Write};

use hdf5_pure::{AttrValue, FileBuilder};

use super::write::{describe_frame, text};

/// A sparse coupling `[n, m]`, by the earlier cells.
pub(crate) struct Coupled {
    /// Names of the earlier cells, and of the later ones.
    pub names: [Vec<String>; 2],
    /// Start of the entries of each earlier cell, and their number.
    pub starts: Vec<u64>,
    /// The later cell of each entry.
    pub indices: Vec<u32>,
    pub masses: Vec<f32>,
}

/// Writes `coupled` as a file of AnnData.
pub(crate) fn write_coupling(writer: &mut dyn Write, coupled: &Coupled) -> io::Result<()> {
    let mut file = FileBuilder::new();
    file.set_attr("encoding-type", text("anndata"));
    file.set_attr("encoding-version", text("0.1.0"));
    for (frame, names) in ["obs", "var"].into_iter().zip(&coupled.names) {
        let mut group = file.create_group(frame);
        describe_frame(&mut group, names, Vec::new());
        file.add_group(group.finish());
    }
    let mut matrix = file.create_group("X");
    matrix.set_attr("encoding-type", text("csr_matrix"));
    matrix.set_attr("encoding-version", text("0.1.0"));
    let [n, m] = [0, 1].map(|side| coupled.names[side].len() as i64);
    matrix.set_attr("shape", AttrValue::I64Array(vec![n, m]));
    let starts: Vec<i64> = coupled.starts.iter().map(|&start| start as i64).collect();
    let indices: Vec<i64> = coupled.indices.iter().map(|&index| i64::from(index)).collect();
    matrix.create_dataset("indptr").with_i64_data(&starts);
    matrix.create_dataset("indices").with_i64_data(&indices);
    matrix.create_dataset("data").with_f32_data(&coupled.masses);
    file.add_group(matrix.finish());
    file.finish_to(writer).map_err(|error| match error {
        hdf5_pure::Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    })
}
