//! Files of every format written byte by byte, independently of the library's writers.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

/// A `.npy` file, version 1, with an unpadded header.
pub fn npy(descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|n| format!("{n}, ")).collect();
    npy_with_header(&header(descr, fortran, &format!("({sizes})")), data)
}

/// The header dictionary of a `.npy` file; `descr` is quoted unless it is a list.
pub fn header(descr: &str, fortran: bool, shape: &str) -> String {
    let descr = if descr.starts_with('[') { descr.into() } else { format!("'{descr}'") };
    let fortran = if fortran { "True" } else { "False" };
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
}

pub fn npy_with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A zip archive of `members`.
pub fn npz(members: &[(&str, Vec<u8>)], compression: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = SimpleFileOptions::default().compression_method(compression);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A `.safetensors` file of (name, dtype, shape, data).
pub fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut end = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            let start = end;
            end += data.len();
            format!("{name:?}:{{\"dtype\":{dtype:?},\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}")
        })
        .collect();
    let data: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.3.clone()).collect();
    safetensors_with_header(&format!("{{{}}}", entries.join(",")), &data)
}

pub fn safetensors_with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// f32 values as little-endian bytes.
pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}
