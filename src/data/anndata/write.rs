//! Writing of particles as the cells of a `.h5ad` that anndata, scanpy and this program read.

use std::io::{self, Write};

use hdf5_pure::{AttrValue, FileBuilder};

use crate::data::write::{PointArray, PointValues};

/// Writes `arrays`: `samples` become `obsm/X_pca`, other matrices `obsm/X_<name>`, and arrays with
/// one value per row columns of `obs`.
pub(in crate::data) fn write(writer: &mut dyn Write, arrays: &[PointArray<'_>]) -> io::Result<()> {
    let n_rows = arrays.first().map_or(0, PointArray::n_rows);
    let mut file = FileBuilder::new();
    file.set_attr("encoding-type", text("anndata"));
    file.set_attr("encoding-version", text("0.1.0"));

    let (columns, matrices): (Vec<&PointArray<'_>>, Vec<&PointArray<'_>>) =
        arrays.iter().partition(|array| array.dim.is_none());
    let mut obs = file.create_group("obs");
    let names: Vec<String> = (0..n_rows).map(|row| row.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    describe_frame(&mut obs, columns.iter().map(|array| array.name.to_owned()).collect());
    obs.create_dataset("_index")
        .with_vlen_strings(&names)
        .set_attr("encoding-type", text("string-array"))
        .set_attr("encoding-version", text("0.2.0"));
    for array in columns {
        add(obs.create_dataset(array.name), array);
    }
    file.add_group(obs.finish());

    let mut var = file.create_group("var");
    describe_frame(&mut var, Vec::new());
    var.create_dataset("_index")
        .with_vlen_strings(&[])
        .set_attr("encoding-type", text("string-array"))
        .set_attr("encoding-version", text("0.2.0"));
    file.add_group(var.finish());

    let mut obsm = file.create_group("obsm");
    obsm.set_attr("encoding-type", text("dict"));
    obsm.set_attr("encoding-version", text("0.1.0"));
    for array in matrices {
        let name = if array.name == "samples" { "X_pca".into() } else { format!("X_{}", array.name) };
        add(obsm.create_dataset(&name), array);
    }
    file.add_group(obsm.finish());
    file.finish_to(writer).map_err(|error| match error {
        hdf5_pure::Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    })
}

/// A text as an attribute.
pub(super) fn text(text: &str) -> AttrValue {
    AttrValue::VarLenString(text.into())
}

/// The attributes of a data frame.
pub(super) fn describe_frame(frame: &mut hdf5_pure::GroupBuilder, columns: Vec<String>) {
    frame.set_attr("encoding-type", text("dataframe"));
    frame.set_attr("encoding-version", text("0.2.0"));
    frame.set_attr("_index", text("_index"));
    frame.set_attr("column-order", AttrValue::VarLenStringArray(columns));
}

fn add(dataset: &mut hdf5_pure::DatasetBuilder, array: &PointArray<'_>) {
    match array.values {
        PointValues::F32(values) => dataset.with_f32_data(values),
        PointValues::F64(values) => dataset.with_f64_data(values),
    };
    let shape: Vec<u64> = array.shape().iter().map(|&n| n as u64).collect();
    dataset.with_shape(&shape).set_attr("encoding-type", text("array")).set_attr("encoding-version", text("0.2.0"));
}
