//! Writing of particles as the cells of a `.h5ad` that anndata, scanpy and this program read.

use std::io::{self, Write};

use hdf5_pure::{AttrValue, FileBuilder};

use super::LIKELY_SAMPLES;
use crate::data::ids::unique;
use crate::data::source::DEFAULT_SAMPLES;
use crate::data::write::{PointArray, PointValues};

/// Where an array is written, as far as it does not say so itself: `samples` are `obsm/X_pca`,
/// other matrices `obsm/X_<name>`, and arrays with one value per row columns of `obs`.
fn place_of(array: &PointArray<'_>) -> String {
    let place = array.place.unwrap_or(array.name);
    match (place.split_once('/'), array.dim) {
        (Some(("X", _genes)), _) => "X".into(),
        (Some(("layers", rest)), _) => format!("layers/{}", rest.split('/').next().unwrap_or(rest)),
        (Some(_), _) => place.into(),
        (None, None) => format!("obs/{place}"),
        (None, Some(_)) if place == "X" => "X".into(),
        (None, Some(_)) if place == DEFAULT_SAMPLES => LIKELY_SAMPLES[0].into(),
        (None, Some(_)) if array.place.is_some() => format!("obsm/{place}"),
        (None, Some(_)) => format!("obsm/X_{place}"),
    }
}

/// Writes `arrays` where [`place_of`] says. The columns of `X` and of a layer are the genes; a
/// matrix of `obsm` whose columns have names is a data frame.
pub(in crate::data) fn write(writer: &mut dyn Write, arrays: &[PointArray<'_>]) -> io::Result<()> {
    let n_rows = arrays.first().map_or(0, PointArray::n_rows);
    let mut file = FileBuilder::new();
    file.set_attr("encoding-type", text("anndata"));
    file.set_attr("encoding-version", text("0.1.0"));

    let ids: Option<Vec<&str>> = arrays.iter().find_map(PointArray::texts).map(Iterator::collect);
    let cells = match &ids {
        Some(ids) => unique(ids.iter().copied()),
        None => (0..n_rows).map(|row| row.to_string()).collect(),
    };
    // Names that do not repeat are the index alone.
    let is_index = ids.is_some_and(|ids| ids == cells);
    let kept = arrays.iter().filter(|array| !is_index || array.texts().is_none());
    let placed: Vec<(String, &PointArray<'_>)> = kept.map(|array| (place_of(array), array)).collect();
    let within = |group: &'static str| {
        let inside = move |place: &'_ str| place.strip_prefix(group)?.strip_prefix('/').map(str::to_owned);
        placed.iter().filter_map(move |(place, array)| Some((inside(place)?, *array)))
    };
    let mut obs = file.create_group("obs");
    describe_frame(&mut obs, &cells, within("obs").map(|(name, _)| name).collect());
    within("obs").for_each(|(name, array)| add(obs.create_dataset(&name), array, &array.shape()[..1]));
    file.add_group(obs.finish());

    let is_expression = |place: &str| place == "X" || place.starts_with("layers/");
    let expression = placed.iter().find(|(place, _)| is_expression(place)).map(|(_, array)| *array);
    let numbered = |array: &PointArray<'_>| (0..array.width()).map(|column| column.to_string()).collect();
    let genes = expression.map_or_else(Vec::new, |array| array.columns.map_or_else(|| numbered(array), <[_]>::to_vec));
    let mut var = file.create_group("var");
    describe_frame(&mut var, &genes, Vec::new());
    file.add_group(var.finish());
    if let Some((_, array)) = placed.iter().find(|(place, _)| place == "X") {
        add(file.create_dataset("X"), array, &array.shape());
    }

    for group in ["obsm", "layers"] {
        let mut matrices = file.create_group(group);
        matrices.set_attr("encoding-type", text("dict"));
        matrices.set_attr("encoding-version", text("0.1.0"));
        for (name, array) in within(group) {
            match array.columns.filter(|_| group == "obsm") {
                Some(columns) => {
                    let mut frame = matrices.create_group(&name);
                    describe_frame(&mut frame, &cells, columns.to_vec());
                    for (j, column) in columns.iter().enumerate() {
                        add_column(frame.create_dataset(column), array, j);
                    }
                    matrices.add_group(frame.finish());
                }
                None => add(matrices.create_dataset(&name), array, &array.shape()),
            }
        }
        file.add_group(matrices.finish());
    }
    file.finish_to(writer).map_err(|error| match error {
        hdf5_pure::Error::Io(error) => error,
        error => io::Error::other(error.to_string()),
    })
}

/// A text as an attribute.
pub(super) fn text(text: &str) -> AttrValue {
    AttrValue::VarLenString(text.into())
}

/// The attributes of a data frame, and the names of its rows.
pub(super) fn describe_frame(frame: &mut hdf5_pure::GroupBuilder, rows: &[String], columns: Vec<String>) {
    frame.set_attr("encoding-type", text("dataframe"));
    frame.set_attr("encoding-version", text("0.2.0"));
    frame.set_attr("_index", text("_index"));
    frame.set_attr("column-order", AttrValue::VarLenStringArray(columns));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    add_texts(frame.create_dataset("_index"), &rows);
}

fn add_texts(dataset: &mut hdf5_pure::DatasetBuilder, texts: &[&str]) {
    dataset
        .with_vlen_strings(texts)
        .set_attr("encoding-type", text("string-array"))
        .set_attr("encoding-version", text("0.2.0"));
}

fn add(dataset: &mut hdf5_pure::DatasetBuilder, array: &PointArray<'_>, shape: &[usize]) {
    match array.values {
        PointValues::F32(values) => dataset.with_f32_data(values),
        PointValues::F64(values) => dataset.with_f64_data(values),
        PointValues::Texts { .. } => {
            let texts: Vec<&str> = array.texts().into_iter().flatten().collect();
            return add_texts(dataset, &texts);
        }
    };
    describe_array(dataset, shape);
}

/// Adds column `j` of `array`.
fn add_column(dataset: &mut hdf5_pure::DatasetBuilder, array: &PointArray<'_>, j: usize) {
    fn column<T: Copy>(values: &[T], j: usize, width: usize) -> Vec<T> {
        values.iter().skip(j).step_by(width).copied().collect()
    }
    match array.values {
        PointValues::F32(values) => dataset.with_f32_data(&column(values, j, array.width())),
        PointValues::F64(values) => dataset.with_f64_data(&column(values, j, array.width())),
        PointValues::Texts { .. } => return add(dataset, array, &array.shape()),
    };
    describe_array(dataset, &[array.n_rows()]);
}

fn describe_array(dataset: &mut hdf5_pure::DatasetBuilder, shape: &[usize]) {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    dataset.with_shape(&shape).set_attr("encoding-type", text("array")).set_attr("encoding-version", text("0.2.0"));
}
